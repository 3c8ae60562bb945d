"""The methods that a run can compare, by name. One file a method, both halves in it.

The interface is ``interface.py``; what several methods share is in ``seven.py`` (the backbone),
``episodes.py`` (factory training), ``meta.py`` (the MAML family) and ``federated.py``.
"""

from __future__ import annotations

from importlib import import_module

from learngene.methods.interface import ClientContext, Factory, Method, Payload, Update

__all__ = ["NAMES", "ClientContext", "Factory", "Method", "Payload", "Update", "find"]

NAMES = (
    *("learngene", "scratch"),
    *("maml", "fomaml", "protonet", "proto_maml", "matchingnet"),
    *("finetune", "finetune_pp", "deepemd", "full", "linear_probe"),
    *("fedavg", "fedprox"),
)


def find(name: str) -> Method:
    """The method called ``name``.

    Raises:
        KeyError: there is none.
    """
    if name not in NAMES:
        raise KeyError(name)
    return import_module(f"learngene.methods.{name}").METHOD
