"""Fine-tuning++: fine-tuning with a cosine classifier at the factory and at the client.

Paper: "Baseline++" of Chen et al. 2019 (see ``finetune.py``), the learngene paper's Fine-tuning++.
Differences: those of ``finetune.py``; the scale of the cosines is learned from 10 on, in place of a
constant 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from learngene.methods import finetune
from learngene.methods.base import Method
from learngene.methods.common.backbone import body_of
from learngene.networks.layers import CosineHead
from learngene.utils.settings import setting


@dataclass
class Settings(finetune.Settings):
    """As fine-tuning's, with values from trials of its own."""

    lr: float = setting(0.002, gt=0, le=10)  # peak learning rate at the factory (Adam)
    weight_decay: float = setting(1e-4, ge=0, le=1)
    client_body_lr: float = setting(0.0, ge=0, le=10)  # frozen


METHOD = Method(
    partial(finetune.adapt, make_head=CosineHead),
    partial(finetune.pretrain, make_head=CosineHead),
    settings=Settings,
    body=body_of,
)
