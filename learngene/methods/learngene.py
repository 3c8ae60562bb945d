"""Reconstruct an individual around the learngene and adapt it (Algorithm 1, Eq. 6-9).

Paper: Wang et al., "Learngene: From Open-World to Your Learning Task", AAAI 2022.
Differences: the inherited layers are the collective's first ones, with a projection behind them,
the classifier starts from prototypes, and the Fisher diagonal can be normalised;
``experiment=to_the_letter`` is the paper's form. See docs/FIDELITY.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from learngene.adaptation.retain import Retain, fisher_diagonal
from learngene.adaptation.training import Outcome, Training, shard_features
from learngene.gene.card import read_card
from learngene.gene.gene import Learngene, check, inherited_modules, reconstruct
from learngene.methods.base import ClientContext, Method, trained
from learngene.methods.registry import find
from learngene.methods.safeguard import SAFEGUARD_METRICS, guarded
from learngene.networks.individual import Individual, PrototypeHead, measure_norms
from learngene.utils.settings import check_settings


@dataclass
class Settings:
    """None here: the learngene's client half is what ``individual`` and ``retain`` describe."""


def adapt(context: ClientContext) -> Outcome:
    """Check what was sent, reconstruct, retain, test; with the safeguard, see first if it helps."""
    gene = _received(context)

    def build(context: ClientContext) -> Outcome:
        return trained(_around(gene, context), context)

    if context.individual.safeguard:
        return guarded(context, build, find("scratch").adapt)
    return build(context)


def prepare(context: ClientContext) -> Training:
    """``adapt`` without the safeguard, before its first epoch."""
    return _around(_received(context), context)


def _received(context: ClientContext) -> Learngene:
    where = f"client {context.client}"
    card = read_card(context.card, where)
    check(card, context.payload, where)
    return Learngene(card, context.payload)


def _around(gene: Learngene, context: ClientContext) -> Training:
    """An individual around the learngene, its classifier started, and what holds its layers."""
    check_settings(context.retain)
    settings, shard, card = context.individual, context.shard, gene.card
    generator = context.generator("weights")
    individual = reconstruct(gene, ways=shard.ways, head=settings.head, generator=generator)
    individual = individual.to(context.device).to(memory_format=torch.channels_last)
    if card.stem == "fresh":  # drawn, and has never seen an image
        measure_norms(individual.stem, individual, shard.train_x, context.generator("norms"))
    start_head(individual, context)

    retain = None
    if context.retain.ewc_lambda > 0 and settings.epochs:  # what is not trained needs no holding
        inherited = inherited_modules(individual)
        order = torch.randperm(len(shard.train_y), generator=context.generator("fisher"))
        sample = order[: context.retain.fisher_samples].to(context.device)
        labels = shard.train_y[sample] if context.retain.labels == "true" else None
        fisher = fisher_diagonal(individual, inherited, shard.train_x[sample], labels)
        parameters = [p for module in inherited for p in module.parameters()]
        retain = Retain(parameters, fisher, normalise=context.retain.normalise)
    extras: dict[str, float] = {"depth": gene.inherited}
    if retain:
        extras["fisher_mean"] = retain.fisher_mean
    return Training(
        individual=individual,
        shard=shard,
        settings=settings,
        generator=context.generator("training"),
        retain=retain,
        freeze_norms=card.stem != "fresh",
        ewc_lambda=context.retain.ewc_lambda,
        extras=extras,
    )


def start_head(individual: Individual, context: ClientContext) -> None:
    """Start a prototype classifier from the shard's class means; other heads stay random."""
    if isinstance(individual.head, PrototypeHead):
        individual.head.start(*shard_features(individual, context.shard))


METRICS = ("depth", "fisher_mean", *SAFEGUARD_METRICS)
METHOD = Method(adapt, prepare=prepare, settings=Settings, inherits=True, extra_metrics=METRICS)
