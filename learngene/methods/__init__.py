"""The methods that a run can compare, by name. One file a method, both halves in it.

The interface is ``interface.py``; what several methods share is in ``seven.py`` (the backbone),
``episodes.py`` (factory training), ``meta.py`` (the MAML family) and ``federated.py``. ``own.py``
finds methods that lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from learngene.methods import plugins as own_methods
from learngene.methods.base import ClientContext, Factory, Method, Payload, Update

__all__ = ["NAMES", "ClientContext", "Factory", "Method", "Payload", "Update", "find"]

NAMES = (
    *("learngene", "scratch"),
    *("maml", "fomaml", "protonet", "proto_maml", "matchingnet"),
    *("finetune", "finetune_pp", "deepemd", "full", "linear_probe"),
    *("fedavg", "fedprox"),
)


def find(name: str, own: Mapping[str, Any] | None = None) -> Method:
    """The method called ``name``.

    Args:
        own: of a method from elsewhere, what ``learngene.methods.plugins.describe`` said of it.

    Raises:
        KeyError: there is none.
        ValueError: the module of one from elsewhere is not here, or another one.
    """
    if own is not None:
        return own_methods.load(own)
    if name not in NAMES:
        raise KeyError(name)
    return import_module(f"learngene.methods.{name}").METHOD
