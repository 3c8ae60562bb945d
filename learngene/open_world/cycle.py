"""The open-world cycle: meet a stream, have what looks unknown labelled, take the new classes in.

Definition 1 and figure 1 of the paper: the collective says of an image that it is of no class it
knows, somebody names it, and the class is added to what the collective trains on. The stream mixes
known and open-world images; the collective does not know which is which. Labels cost: a cycle has
a budget of them, spent on the images that look most unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from learngene.data.dataset import ImageDataset
from learngene.data.partition import in_turn
from learngene.open_world.settings import OpenWorldSettings
from learngene.seeding import generator

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """The images of one cycle, in the order in which they come.

    Images of classes that the factory was built with are test images, which it never trained on;
    images of open-world classes are training images, since those that are labelled will be trained
    on. No image comes twice, in any cycle.
    """

    dataset: ImageDataset
    test: NDArray[np.bool_]  # (N,): the row is of the test split
    rows: Rows  # (N,)

    @property
    def truth(self) -> Rows:
        """Classes of the images, (N,); only a labeller and the accounts may look at them."""
        dataset = self.dataset
        train = dataset.train_labels[np.where(self.test, 0, self.rows)]
        test = dataset.test_labels[np.where(self.test, self.rows, 0)]
        return np.where(self.test, test, train).astype(np.int64)


class Labeller(Protocol):
    """Whoever names images: a person, a service, or the oracle of a simulation.

    ``name`` says who it is: cycles that one labeller named are never taken up for another.
    """

    @property
    def name(self) -> str:
        """Who names."""

    def label(self, stream: Stream, positions: Rows) -> Rows:
        """Classes of the stream's images at ``positions``, (K,) -> (K,)."""


class Oracle:
    """Knows every label and never errs."""

    name = "oracle"

    def label(self, stream: Stream, positions: Rows) -> Rows:
        return stream.truth[positions]


@dataclass(frozen=True)
class Encounter:
    """What a cycle's stream brought, before anything is learned from it."""

    called: Rows  # positions called unknown, the most unknown first
    sent: Rows  # of these, those that were labelled: as many as the budget pays for
    labels: Rows  # their classes
    counts: dict[str, int]


def draw_stream(
    dataset: ImageDataset, settings: OpenWorldSettings, cycle: int, seed: int
) -> Stream:
    """The stream of ``cycle`` (from 0): an equal part of every open-world class, and base images.

    Where there are too few base images for ``known_share``, fewer of the others come.

    Raises:
        ValueError: ``cycle`` is not one of the settings' cycles.
    """
    if not 0 <= cycle < settings.cycles:
        raise ValueError(f"cycle {cycle} of {settings.cycles}")
    unknown = []
    for c in dataset.class_split.open_world:
        rows = generator(seed, "stream", client=c).permutation(dataset.rows("train", c))
        unknown.append(np.array_split(rows, settings.cycles)[cycle])
    met = np.concatenate(unknown)
    base = np.concatenate([dataset.rows("test", c) for c in dataset.class_split.base])
    base = np.array_split(generator(seed, "stream-known").permutation(base), settings.cycles)[cycle]
    known, others = settings.known_share, 1 - settings.known_share
    wanted = round(len(met) * known / others)
    if wanted > len(base):
        met = in_turn(unknown)[: round(len(base) * others / known)]
    base = base[:wanted]
    order = generator(seed, "stream-order", round=cycle).permutation(len(met) + len(base))
    rows = np.concatenate([met, base]).astype(np.int64)[order]
    return Stream(dataset, (np.arange(len(rows)) >= len(met))[order], rows)


def encounter(
    stream: Stream,
    scores: NDArray[np.floating],
    threshold: float,
    known: Sequence[int],
    labeller: Labeller,
    budget: int,
) -> Encounter:
    """Call images unknown (Eq. 3) and have the most unknown of them labelled.

    Args:
        scores: how unknown the stream's images look, (N,).
        known: classes that the collective knows, for the accounts.
        budget: labels that may be asked for.

    Raises:
        ValueError: the labeller does not name each image that it is sent, or names a class that is
            neither a base nor an open-world class (the factory never sees a novel one).
    """
    order = np.argsort(-scores, kind="stable")
    called = order[scores[order] > threshold]
    sent = called[:budget]
    labels = np.asarray(labeller.label(stream, sent))
    class_split = stream.dataset.class_split
    allowed = [*class_split.base, *class_split.open_world]
    if labels.shape != sent.shape or not np.isin(labels, allowed).all():
        raise ValueError(
            f"labeller {labeller.name}: {sent.shape[0]} images were sent, and each must be given a "
            f"base or open-world class; it answered {labels.tolist()[:10]}..."
        )
    is_known = np.isin(stream.truth, list(known))
    counts = {
        "known_images": int(is_known.sum()),
        "unknown_images": int((~is_known).sum()),
        "called_unknown": len(called),
        "known_called_unknown": int(is_known[called].sum()),
        "unknown_missed": int((~is_known).sum() - (~is_known[called]).sum()),
        "labels_spent": len(sent),
        "known_sent": int(is_known[sent].sum()),  # needlessly
        "called_beyond_budget": len(called) - len(sent),
    }
    return Encounter(called, sent, labels, counts)


def choose_classes(pool: Mapping[int, Rows], settings: OpenWorldSettings) -> list[int]:
    """Classes to take in: those with the most labelled images, each with enough of them."""
    enough = [c for c, rows in pool.items() if len(rows) >= settings.images_to_add]
    return sorted(enough, key=lambda c: (-len(pool[c]), c))[: settings.classes_per_cycle]


def gather_labels(
    pool: Mapping[int, Rows], stream: Stream, met: Encounter, known: Sequence[int]
) -> dict[int, Rows]:
    """The pool of labelled images of classes not yet known, with this cycle's; rows of training.

    Images that are named as known are not kept. Nor are base images, whatever a labeller that errs
    calls them: in this simulation they are test images, which must never be trained on.
    """
    rows_by_class = {c: np.array(rows, dtype=np.int64) for c, rows in pool.items()}
    for position, label in zip(met.sent, map(int, met.labels), strict=True):
        if label not in known and not stream.test[position]:
            before = rows_by_class.get(label, np.empty(0, np.int64))
            rows_by_class[label] = np.append(before, stream.rows[position])
    return rows_by_class


def split_held_out(rows: Rows, draws: np.random.Generator, share: float = 0.1) -> tuple[Rows, Rows]:
    """Labelled images of one class: (those to train on, those kept for the threshold), each in
    random order: they come with those first that looked most unknown."""
    rows = draws.permutation(rows)
    held = min(max(1, round(share * len(rows))), len(rows) - 1)
    return rows[held:], rows[:held]


def account(cycles: Sequence[Mapping[str, Any]], open_world: Sequence[int]) -> dict[str, Any]:
    """Sums over the cycles."""
    taken = [c for cycle in cycles for c in cycle["added"]]
    sums = ("labels_spent", "known_sent", "unknown_missed", "known_called_unknown")
    return {
        "discovered": len(taken),
        "open_world_classes": len(open_world),
        **{name: sum(cycle[name] for cycle in cycles) for name in sums},
    }
