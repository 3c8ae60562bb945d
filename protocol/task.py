"""The task that every client of a round is sent: a value, and its JSON.

Without torch, since a worker reads it before it knows what there is to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from learngene.adaptation.settings import FEDERATED_FIELDS, IndividualSettings, RetainSettings
from learngene.data.settings import DirichletPartition
from learngene.utils.settings import by_client


@dataclass(frozen=True)
class FaultOrders:
    """Faults that are planted on purpose, in the form of the command line."""

    orders: tuple[str, ...]  # CLIENT:KIND or CLIENT:KIND@EPOCH
    folder: str  # where it is remembered who has been killed once


@dataclass(frozen=True)
class LabelledImages:
    """Which images of the open-world classes have a label (table 2)."""

    draws: int  # client i belongs to draw i modulo draws
    flags: Mapping[str, str]  # class -> its training images, as hexadecimal bits


@dataclass(frozen=True, kw_only=True)
class ClientTask:
    """What a client has to do, with which images, from which seed; it holds no image.

    Fields with a default are there only in the rounds that need them: an undisturbed run's message
    does not change because there are faults or time limits.
    """

    world: str  # path of the dataset in the cache
    methods: tuple[str, ...]  # the answers that are due
    seed: int
    shard_seed: int
    ways: int | Sequence[int]  # classes of a shard; of several, client i has entry i modulo these
    shots: int | Sequence[int]  # images of a class, likewise
    classes_from: str  # novel | open_world
    threads: int  # of torch
    width: float | None = None  # scale of the paper's widths
    block: str | None = None  # of the layers that a method draws itself; None: plain
    individual: IndividualSettings
    retain: RetainSettings | None = None
    method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings, by method
    card: Mapping[str, Any] | None = None  # of the learngene
    faults: FaultOrders | None = None
    limit_s: float | None = None  # a client's own time, seconds
    labelled: LabelledImages | None = None
    own_methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # see plugins.find
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of the other payloads
    federated: int | None = None  # number of the round in a federated training, from 1
    deterministic: bool | None = None  # False: a GPU may take its fastest kernels
    # Rows and columns of the images that the learngene grew up on: a node with images of its own
    # brings them to that size.
    image_side: int | None = None
    queries: int | None = None  # test images of a class; None: all of the dataset's
    keep: str | None = None  # folder for the trained individual; a node's own word comes first
    partition: DirichletPartition | None = None  # None: a client has ways classes, shots of each
    classes: int | None = None  # that clients may hold, where they divide them

    @property
    def most_ways(self) -> int:
        """Classes of a client, at most."""
        return self.classes or max(by_client(self.ways))

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values; fields that are not set are left out.

        A federated round reads ``FEDERATED_FIELDS`` of ``individual`` and is sent no others.
        """
        plain = {name: value for name, value in asdict(self).items() if value not in (None, {})}
        del plain["individual"]["keep"]  # the task says where
        if not self.individual.moved_views:  # as a message was before there were any
            del plain["individual"]["moved_views"]
        if self.federated is not None:
            plain["individual"] = {name: plain["individual"][name] for name in FEDERATED_FIELDS}
        return plain

    def to_json(self) -> str:
        """The text that crosses."""
        return json.dumps(self.to_plain())

    @classmethod
    def from_json(cls, text: str) -> ClientTask:
        """The task that ``to_json`` has written.

        Raises:
            TypeError, ValueError: it is something else.
        """
        plain = json.loads(text)
        plain["methods"] = tuple(plain["methods"])
        plain["individual"] = IndividualSettings(**plain["individual"])
        if "retain" in plain:
            plain["retain"] = RetainSettings(**plain["retain"])
        if "faults" in plain:
            faults = plain["faults"]
            plain["faults"] = FaultOrders(tuple(faults["orders"]), faults["folder"])
        if "labelled" in plain:
            plain["labelled"] = LabelledImages(**plain["labelled"])
        if "partition" in plain:
            plain["partition"] = DirichletPartition(**plain["partition"])
        return cls(**plain)


TASK_FIELDS = frozenset(each.name for each in fields(ClientTask))
# No number of an answer hangs on these beside the dataset's content: where it lies, the size of its
# images, how long to wait, what is planted, where something is kept.
NO_NUMBERS = ("world", "image_side", "limit_s", "faults", "keep")
