"""Settings, generators and networks that tests of several packages are made of."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import conf.methods
import sim
from conf.methods import resolve_methods
from learngene.collective.records import TrainerSettings
from learngene.collective.settings import CollectiveSettings
from learngene.gene.gene import Learngene, extract
from learngene.methods import BUILT_IN
from learngene.networks.collective import Collective
from learngene.networks.projection import Projection
from protocol.callbacks import RunCallback
from reports.figures.run import FIGURES

ROOT = Path(__file__).resolve().parents[1]
# A program in the place of sim.py.
UNDRAWN = str(ROOT / "tests" / "stand_ins" / "undrawn_sim.py")
# Of ``individual``: each of 60 steps or more multiplies weights by -9, and float32 ends at 1e38.
DIVERGING = {
    "epochs": 8,
    "batch_size": 2,
    "lr": 10.0,
    "weight_decay": 1.0,
    "momentum": 0.0,
    "schedule": "constant",
}
CPU = torch.device("cpu")
FEW = ("collective.epochs=1", "individual.epochs=3")  # of runs whose accuracy nobody looks at
IN_TURN = """
import contextlib, importlib, io, json, runpy, sys
from tests.helpers import command_line

said = []
for program, *words in json.loads(sys.argv[1]):
    if program == "sim.py":
        done = command_line(*words)
        said.append((done.returncode, done.stdout, done.stderr))
        continue
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if program == "-m":
            code = importlib.import_module(f"{words[0]}.__main__").main(words[1:])
        else:
            code = runpy.run_path(program, run_name="__main__") and 0
    said.append((code, out.getvalue(), ""))
print(json.dumps(said))
"""
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)  # a PNG of one pixel
MANY = (  # a run of many methods
    *("learngene", "scratch", "maml", "fomaml", "protonet", "proto_maml", "matchingnet"),
    *("finetune", "finetune_pp", "deepemd", "full", "linear_probe"),
)


def with_methods(plain: dict[str, Any]) -> dict[str, Any]:
    """A whole configuration as a run hands it on: ``conf.methods.with_methods``, resolved here."""
    return conf.methods.with_methods(plain, resolve_methods(plain["methods"], plain["method"]))


def method_settings() -> dict[str, dict[str, Any]]:
    """``method`` of the configuration with the defaults of every built-in method."""
    return resolve_methods(BUILT_IN, {}).settings


def settings(**changed: Any) -> TrainerSettings:
    """A collective of a few thousand weights: three tasks, one epoch each.

    ``changed`` are fields of ``TrainerSettings`` or of its ``CollectiveSettings``.
    """
    collective = {
        "width": 0.0625,
        "classes_per_task": 6,
        "epochs": 1,
        "growth": "schedule",
        "batch_size": 16,
        "lr": 0.02,
        "memory_per_class": 4,
        "rehearse_per_class": 2,
        "consolidate_epochs": 1,
        "precision": "fp32",
    }
    trainer = {"rho": "invariant", "sigma": 1.0, "calibration_per_class": 3, "seed": 5}
    own = {field.name for field in fields(TrainerSettings)}
    trainer |= {name: value for name, value in changed.items() if name in own}
    collective |= {name: value for name, value in changed.items() if name not in own}
    return TrainerSettings(CollectiveSettings(**collective), **trainer)


def gene_of(
    collective: Collective,
    layers: Sequence[int] = range(1, 8),
    *,
    stem: str = "none",
    projections: Sequence[Projection] = (),
    joined: Mapping[int, Projection] | None = None,
) -> Learngene:
    """A learngene of these layers of a collective of 32x32 images."""
    side, rho = 32 if stem == "none" else None, [[0.5] * 13]
    return extract(
        collective,
        layers=layers,
        rho=rho,
        source={},
        image_side=side,
        projections=projections,
        joined=joined,
    )


@contextmanager
def without_rendering() -> Iterator[None]:
    """Figures are built as always, but a dot is saved in their place: rendering takes seconds, more
    than the rest of a tiny run."""

    def save(figure: Any, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DOT)
        return path

    with patch("reports.figures.style.save", save):
        yield


@contextmanager
def without_figures() -> Iterator[None]:
    """A run's report has a reason in the place of each figure: to build them is a third of a tiny
    run. ``tests/test_experiments.py`` builds those of every experiment."""

    def none(results: Any, folder: Path, progress: Any) -> dict[str, str]:
        return dict.fromkeys(FIGURES, "not in this test")

    with without_rendering(), patch("reports.html.report.draw_figures", none):
        yield


@without_figures()
def command_line(*words: str) -> subprocess.CompletedProcess[str]:
    """``python sim.py`` with these words, in this process: seconds of imports are saved, and those
    of figures.

    What one process has of its own (signals, the interpreter's end) is for tests that start one.
    """
    out, err = io.StringIO(), io.StringIO()
    here = patch.multiple(sim, catch_signals=lambda: None)
    with redirect_stdout(out), redirect_stderr(err), here, patch("sys.argv", ["sim.py", *words]):
        code = sim.main()
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def commands_in(
    folder: Path, *commands: Sequence[str], **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    """What follows ``python`` in commands, one after the other in one new process in ``folder``:
    ``sim.py`` (whose figures are not drawn), ``-m PACKAGE``, a file; the packages are the
    folder's own where it has any."""
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)],
        cwd=folder,  # whose packages come first, but with PYTHONSAFEPATH
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=1800,  # a minute where the machine is its own
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return [
        subprocess.CompletedProcess(words, *ended)
        for words, ended in zip(commands, said, strict=True)
    ]


def hooked(**hooks: Callable[..., None]) -> RunCallback:
    """A callback whose methods of these names are these functions."""
    callback = RunCallback()
    vars(callback).update(hooks)
    return callback


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
