"""Learngene: From Open-World to Your Learning Task (AAAI 2022), usable without Flower.

``from learngene import load, shard_of, adapt`` reads a learngene that a run has saved and builds an
individual around it; docs/tutorials/reuse_a_learngene.md does it in ten lines. Names are looked up
when they are asked for: ``import learngene`` alone does not bring torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learngene.adaptation.settings import IndividualSettings as IndividualSettings
    from learngene.adaptation.settings import RetainSettings as RetainSettings
    from learngene.adaptation.training import Outcome as Outcome
    from learngene.api import adapt as adapt
    from learngene.api import adapt_folder as adapt_folder
    from learngene.api import predict as predict
    from learngene.data.partition import ShardData as ShardData
    from learngene.data.partition import shard_of as shard_of
    from learngene.errors import InputError as InputError
    from learngene.gene.gene import Learngene as Learngene
    from learngene.gene.gene import load as load
    from learngene.gene.gene import reconstruct as reconstruct
    from learngene.gene.gene import save as save
    from learngene.gene.kept import KeptIndividual as KeptIndividual
    from learngene.gene.kept import load_individual as load_individual
    from learngene.gene.kept import save_individual as save_individual
    from learngene.networks.individual import Individual as Individual

NAMES = {
    "errors": ("InputError",),
    "gene.gene": ("Learngene", "load", "reconstruct", "save"),
    "networks.individual": ("Individual",),
    "gene.kept": ("KeptIndividual", "load_individual", "save_individual"),
    "api": ("adapt", "adapt_folder", "predict"),
    "data.partition": ("ShardData", "shard_of"),
    "adaptation.settings": ("IndividualSettings", "RetainSettings"),
    "adaptation.training": ("Outcome",),
}
WHERE = {name: module for module, names in NAMES.items() for name in names}
__all__ = list(WHERE)

if not TYPE_CHECKING:  # mypy would take any name for Any

    def __getattr__(name: str) -> Any:
        if name not in WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"learngene.{WHERE[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *WHERE})
