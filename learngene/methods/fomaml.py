"""First-order MAML: as MAML, without how the inner gradients themselves depend on the start.

Paper: Finn et al. 2017, section 5.2; Nichol, Achiam, Schulman, "On First-Order Meta-Learning
Algorithms", 2018, which the learngene paper names for it.
Differences: those of ``maml.py``.
"""

from __future__ import annotations

from functools import partial

from learngene.methods import meta
from learngene.methods.base import Method

METHOD = Method(
    partial(meta.adapt, name="fomaml"), partial(meta.pretrain, second=False), for_ways=True
)
