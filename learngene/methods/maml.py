"""MAML: a start for gradient descent, trained through the descent (second order).

Paper: Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
ICML 2017.
Differences: the seven-layer backbone; norms take the support's statistics (see ``meta.py``); a
one-cycle rate; at the client the whole shard is one batch.
"""

from __future__ import annotations

from learngene.methods.common import meta

METHOD = meta.method(meta.MetaSettings, second=True)
