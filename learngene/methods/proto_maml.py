"""Proto-MAML: MAML whose linear head starts each task from the class means.

Paper: Triantafillou et al., "Meta-Dataset", ICLR 2020: weights 2c, bias minus the squared length of
c, so that the start is a prototypical network; the outer gradient goes through the means.
Differences: second order, where Meta-Dataset takes the first; else those of ``maml.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from learngene.methods.common import meta
from learngene.utils.settings import setting


@dataclass
class Settings(meta.MetaSettings):
    """As MAML's, with values from trials of its own."""

    steps: int = setting(2, ge=1, le=100)  # on a task's support, at the factory
    tasks: int = setting(2, ge=1, le=1000)  # tasks of a step of the start


METHOD = meta.method(Settings, second=True, prototypes=True)
