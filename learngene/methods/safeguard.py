"""Whether an inherited learngene helps: cross-validation on the client's own shard.

A learngene can be poisoned, broken, or made for another kind of image. With
``individual.safeguard=true`` a client does not take it on trust: every image of its shard is held
out once (k folds, stratified by class), an individual built around the learngene and one trained
from scratch learn on the other folds, and both name the same held-out images.

The statistic is the share of held-out images named right, over all folds, paired by image. The
client falls back to scratch when scratch names strictly more of them; a tie keeps the learngene,
which is paid for and starts from more. Training that is not finite names nothing right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from learngene.adaptation.training import Outcome
from learngene.errors import InputError
from learngene.methods.base import ClientContext

Adapt = Callable[[ClientContext], Outcome]  # the client half of a method
SAFEGUARD_METRICS = (
    "safeguard_fell_back",
    "safeguard_gene",
    "safeguard_scratch",
    "safeguard_broken_folds",
)


@dataclass(frozen=True)
class Verdict:
    """Shares of the held-out images that were named right, and in how many folds training broke."""

    gene: float
    scratch: float
    broken: int  # folds in which the individual around the learngene was not finite

    @property
    def hurts(self) -> bool:
        return self.scratch > self.gene

    def extras(self, fell_back: bool) -> dict[str, float]:
        """What is added to a method's metrics; ``fell_back`` is what was done in the end."""
        values = (int(fell_back), self.gene, self.scratch, self.broken)
        return dict(zip(SAFEGUARD_METRICS, values, strict=True))


def guarded(context: ClientContext, adapt: Adapt, scratch: Adapt) -> Outcome:
    """What ``adapt`` gives where the learngene helps, else what ``scratch`` gives, with the draws
    of the method ``scratch``: a client that fell back has the numbers of its own scratch."""
    verdict = compare(context, adapt, scratch)
    outcome = None if verdict.hurts else _attempt(context, adapt)
    fell_back = outcome is None  # also where only training on the whole shard broke
    if outcome is None:
        outcome = scratch(context.as_scratch())
    outcome.extras |= verdict.extras(fell_back)
    return outcome


def compare(context: ClientContext, adapt: Adapt, scratch: Adapt) -> Verdict:
    """Cross-validate both ways on the client's shard.

    Raises:
        InputError: a class has fewer images than there are folds: not all hold one of it out.
    """
    count, shard = context.individual.safeguard_folds, context.shard
    if shard.train_y.bincount(minlength=shard.ways).min() < count:
        # How many it has, a node does not tell.
        problem = "each fold holds out images of every class, and a class has fewer images"
        fix = "Lower it, or write individual.safeguard=false"
        raise InputError("individual.safeguard_folds", count, problem, fix)
    fold_of = folds(shard.train_y, count, context.generator("safeguard-folds"))
    gene = reference = broken = 0
    for fold in range(count):
        held = fold_of == fold
        inside = _fold(context, held, fold)
        images = int(held.sum())
        outcome = _attempt(inside, adapt)
        broken += outcome is None
        gene += _right(outcome, images)
        without = _fold(context.as_scratch(), held, fold)
        reference += _right(_attempt(without, scratch), images)
    total = len(fold_of)
    return Verdict(gene / total, reference / total, broken)


def folds(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(N,) labels -> (N,) fold numbers 0..count-1; a class spreads as evenly as it can.

    Classes start dealing where the one before stopped, so the folds are of nearly equal size, too.
    """
    fold_of = torch.empty(len(labels), dtype=torch.long)
    dealt = 0
    for c in labels.unique().tolist():
        rows = torch.nonzero(labels.cpu() == c).flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        fold_of[rows] = (torch.arange(len(rows)) + dealt) % count
        dealt += len(rows)
    return fold_of


def _fold(context: ClientContext, held: Tensor, fold: int) -> ClientContext:
    """The client with the held-out images as its test images, and generators of the fold's own."""
    shard = context.shard
    held = held.to(shard.train_y.device)
    part = replace(
        shard,
        train_x=shard.train_x[~held],
        train_y=shard.train_y[~held],
        test_x=shard.train_x[held],
        test_y=shard.train_y[held],
        test_views=1,
    )
    settings = context.individual
    epochs = settings.epochs if settings.safeguard_epochs is None else settings.safeguard_epochs
    # Only the last epoch counts.
    settings = replace(settings, epochs=epochs, eval_every=max(1, epochs))
    whole: Callable[[str], torch.Generator] = context.generator
    return replace(
        context,
        individual=settings,
        shard=part,
        generator=lambda phase: whole(f"safeguard-{fold}-{phase}"),
    )


def _attempt(context: ClientContext, method: Adapt) -> Outcome | None:
    """What the method gives; None where its training is not finite."""
    try:
        outcome = method(context)
    except ArithmeticError:  # a Fisher that is zero or infinite: see ``adaptation.retain``
        return None
    return outcome if outcome.finite else None


def _right(outcome: Outcome | None, images: int) -> int:
    """How many of the held-out images were named right at the last epoch."""
    return 0 if outcome is None else round(outcome.accuracy[-1] * images)
