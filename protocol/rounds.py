"""What a round sends and what it brings, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from protocol.guard import MessageSchema, RecordEntry
from protocol.messages import ByteCount, Metric
from protocol.task import ClientTask


@dataclass(frozen=True)
class RoundPlan:
    """What a client is sent in a round; ``task.methods`` names the answers that are due."""

    task: ClientTask
    payloads: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # method -> arrays
    schema: MessageSchema = field(kw_only=True)  # what may cross; the guard refuses all else
    kept: AnswerStore | None = None  # answers of an earlier run: those clients are not asked

    @property
    def methods(self) -> tuple[str, ...]:
        return self.task.methods


@dataclass(frozen=True)
class ClientOutcome:
    """What became of one client in one round. ``methods`` holds checked, finite numbers only."""

    client: int  # the partition
    replied: bool  # False: no reply before the deadline, or its node has gone
    methods: dict[str, dict[str, Metric]]
    info: dict[str, Any]
    bytes_down: int
    bytes_up: int
    bytes_by_method: dict[str, ByteCount]  # what the method alone would have cost
    error: str | None = None  # None: every method that was asked for is in ``methods``
    received: tuple[RecordEntry, ...] = ()  # what the message to it held; empty: none was sent
    sent: tuple[RecordEntry, ...] = ()  # what its reply held, also where that was refused
    refused: bool = False  # the reply held what was not declared
    kept: bool = False  # answered in an earlier run


@dataclass(frozen=True)
class RoundOutcome:
    """A finished round, clients sorted by partition; asked = answered + failed + missing."""

    round: int
    clients: list[ClientOutcome]
    # The "which client are you" messages before this round, one each: client, bytes of the
    # question, bytes of the answer, what the answer held.
    who: tuple[tuple[int, int, int, tuple[RecordEntry, ...]], ...] = ()

    @property
    def queries(self) -> int:
        return len(self.who)

    @property
    def asked(self) -> int:
        return len(self.clients)

    @property
    def answered(self) -> int:
        return sum(each.error is None for each in self.clients)

    @property
    def failed(self) -> int:
        return sum(each.replied and each.error is not None for each in self.clients)

    @property
    def missing(self) -> int:
        return sum(not each.replied for each in self.clients)

    @property
    def kept(self) -> int:
        """How many of the answers are an earlier run's."""
        return sum(each.kept for each in self.clients)

    @property
    def bytes_down(self) -> int:
        return sum(each.bytes_down for each in self.clients)

    @property
    def bytes_up(self) -> int:
        return sum(each.bytes_up for each in self.clients)


class AnswerStore(Protocol):
    """Answers of one round that are there already."""

    def get(self, client: int) -> ClientOutcome | None:
        """The kept answer; what was sent down for it is the strategy's to fill in."""

    def put(self, outcome: ClientOutcome) -> None:
        """Keep a good answer."""
