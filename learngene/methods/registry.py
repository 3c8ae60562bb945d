"""The registry of methods: a built-in one is its file and its line here.

Nothing here brings torch before a method is asked for, so that a wrong word is refused at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learngene.methods.base import Method

AMONG_CLIENTS = ("fedavg", "fedprox", "fedper", "fedbn", "fed_learngene")  # federated/
BUILT_IN = (
    "learngene",
    "scratch",
    "maml",
    "fomaml",
    "protonet",
    "proto_maml",
    "matchingnet",
    "finetune",
    "finetune_pp",
    "deepemd",
    "full",
    "linear_probe",
    *AMONG_CLIENTS,
)
PROJECTION = "+projection"  # behind a method's name: its second row (``common.projected``)


def base_of(name: str) -> str:
    """The method whose settings and body the row called ``name`` has."""
    return name.removesuffix(PROJECTION)


def find(name: str, plugin: Mapping[str, Any] | None = None) -> Method:
    """The method called ``name``.

    Args:
        plugin: of a method from elsewhere, what ``learngene.methods.plugins.describe`` gives.

    Raises:
        KeyError: there is none.
        ValueError: the plugin's module is not here, or another one; or the method has no second
            row.
    """
    if plugin is not None:
        from learngene.methods.plugins import load

        return load(plugin)
    if (base := base_of(name)) not in BUILT_IN:
        raise KeyError(name)
    folder = "methods.federated" if base in AMONG_CLIENTS else "methods"
    method: Method = import_module(f"learngene.{folder}.{base}").METHOD
    if name in BUILT_IN:
        return method
    from learngene.methods.common.projected import with_projection

    return with_projection(method)
