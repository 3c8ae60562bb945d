"""First-order MAML: as MAML, without how the inner gradients themselves depend on the start.

Paper: Finn et al. 2017, section 5.2; Nichol, Achiam, Schulman, "On First-Order Meta-Learning
Algorithms", 2018, which the learngene paper names for it.
Differences: those of ``maml.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from learngene.methods.common import meta
from learngene.utils.settings import setting


@dataclass
class Settings(meta.MetaSettings):
    """As MAML's, with values from trials of its own."""

    lr: float = setting(0.001, gt=0, le=10)  # peak learning rate of the start (Adam)
    inner_lr: float = setting(0.02, gt=0, le=10)  # as MAML's
    tasks: int = setting(1, ge=1, le=1000)  # tasks of a step of the start
    shots: int = setting(3, ge=1, le=1000)  # support images of a class, at the factory
    queries: int = setting(5, ge=1, le=1000)  # query images of a class


METHOD = meta.method(Settings, second=False)
