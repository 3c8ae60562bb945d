"""Proto-MAML: MAML whose linear head starts each task from the class means.

Paper: Triantafillou et al., "Meta-Dataset", ICLR 2020: weights 2c, bias minus the squared length of
c, so that the start is a prototypical network; the outer gradient goes through the means.
Differences: second order, where Meta-Dataset takes the first; else those of ``maml.py``.
"""

from __future__ import annotations

from functools import partial

from learngene.methods import meta
from learngene.methods.base import Method

METHOD = Method(
    partial(meta.adapt, name="proto_maml", prototypes=True),
    partial(meta.pretrain, second=True, prototypes=True),
    for_ways=True,
)
