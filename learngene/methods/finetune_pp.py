"""Fine-tuning++: fine-tuning with a cosine classifier at the factory and at the client.

Paper: "Baseline++" of Chen et al. 2019 (see ``finetune.py``), the learngene paper's Fine-tuning++.
Differences: those of ``finetune.py``; the scale of the cosines is learned from 10 on, in place of a
constant 2.
"""

from __future__ import annotations

from functools import partial

from learngene.methods import finetune
from learngene.methods.base import Method
from learngene.networks.layers import CosineHead

METHOD = Method(
    partial(finetune.adapt, name="finetune_pp", make_head=CosineHead),
    partial(finetune.pretrain, make_head=CosineHead),
)
