"""Settings, generators and networks that tests of several packages are made of."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch

from conf.methods import resolve_methods
from learngene.collective.settings import CollectiveSettings
from learngene.collective.trainer import EvolutionSettings
from learngene.methods import BUILT_IN

CPU = torch.device("cpu")
MANY = (  # a run of many methods
    *("learngene", "scratch", "maml", "fomaml", "protonet", "proto_maml", "matchingnet"),
    *("finetune", "finetune_pp", "deepemd", "full", "linear_probe"),
)


def method_settings() -> dict[str, dict[str, Any]]:
    """``method`` of the configuration with the defaults of every built-in method."""
    return resolve_methods(BUILT_IN, {}).settings


def settings(**changed: Any) -> EvolutionSettings:
    """A collective of a few thousand weights: three tasks, one epoch each."""
    asked = {field.name for field in fields(EvolutionSettings)}
    made = {
        name: value for name, value in asdict(CollectiveSettings()).items() if name in asked
    } | {
        "width": 0.0625,
        "classes_per_task": 6,
        "epochs": 1,
        "batch_size": 16,
        "light_steps": 1,
        "lr": 0.02,
        "weight_decay": 5e-4,
        "label_smoothing": 0.0,
        "memory": "rehearsal",
        "exemplars": "random",
        "ewc_lambda": 1.0,
        "memory_per_class": 4,
        "rehearse_per_class": 2,
        "consolidate_epochs": 1,
        "distill": 1.0,
        "temperature": 2.0,
        "growth": "schedule",
        "growth_noise": 0.01,
        "train_size": None,
        "precision": "fp32",
        "stem": "separable",
        "shared": 3,
        "sigma": 1e-3,
        "calibration_per_class": 3,
        "seed": 5,
    }
    return EvolutionSettings(**{**made, **changed})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def torch_rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shake(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random affine parts and statistics for every norm, so that none of them is neutral."""
    drawn = torch_rng(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.weight.copy_(0.5 + torch.rand(part.weight.shape, generator=drawn))
                part.bias.copy_(0.4 * torch.randn(part.bias.shape, generator=drawn))
                part.running_mean.copy_(0.3 * torch.randn(part.bias.shape, generator=drawn))
                part.running_var.copy_(0.5 + torch.rand(part.bias.shape, generator=drawn))
    return module
