"""Federated trainings, kept after every round: a run that was killed goes on with the next one.

``cache/federated/KEY/NAME-0`` and ``NAME-1`` hold the global model and what every round so far
brought, by turns, so that one of them is whole whenever a run is killed. A training in which a
client failed is not kept from there on: another run may have all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from learngene.methods import Payload
from learngene.utils.checkpoint import key_of, read_checkpoint, write_checkpoint
from protocol.guard import RecordEntry
from protocol.messages import ByteCount
from protocol.rounds import ClientOutcome, RoundOutcome
from strategies.fedavg import Training

FORMAT = 3  # raise it when what is kept of a round changes


class TrainingCache:
    """Where one method's training is kept.

    Args:
        cache: folder of all caches.
        parts: what the training depends on.
    """

    def __init__(self, cache: Path, name: str, parts: Mapping[str, Any]) -> None:
        self._name, self._parts = name, {**parts, "history": FORMAT}
        self.folder = cache / "federated" / key_of(self._parts)

    @property
    def key(self) -> str:
        """What the training is known by, 16 hex digits."""
        return self.folder.name

    def load(self, training: Training, usable: Callable[[int], bool] = lambda rounds: True) -> None:
        """Bring ``training`` to the last round that is kept whole, if there is one.

        Args:
            usable: whether what lies elsewhere of the training after so many rounds is there, too.

        Raises:
            InputError: the files are whole and belong to other settings.
        """
        found = [read_checkpoint(self._stem(turn), of=self._parts) for turn in (0, 1)]
        there = [
            each for each in found if each is not None and usable(len(each[1]["history"]["rounds"]))
        ]
        if not there:
            return
        state, card = max(there, key=lambda each: len(each[1]["history"]["rounds"]))
        arrays = {name: value.numpy() for name, value in state.items()}
        training.state = Payload(arrays, training.state.card)
        training.history = unpack_rounds(card["history"], training.name)

    def save(self, training: Training) -> None:
        """Keep the training as it is now, unless a client has failed in it.

        Raises:
            OSError: it cannot be written.
        """
        if not training.whole:
            return
        tensors = {name: torch.from_numpy(a) for name, a in training.state.arrays.items()}
        card = {"history": pack_rounds(training.history)}
        write_checkpoint(self._stem(training.done % 2), tensors, card, of=self._parts)

    def _stem(self, turn: int) -> Path:
        return self.folder / f"{self._name}-{turn}"


def pack_rounds(history: list[RoundOutcome]) -> dict[str, Any]:
    """Rounds in which all answered, as plain JSON. What a message held is alike for all clients of
    all rounds, so each such list is written once."""
    table: list[list[list[Any]]] = []

    def place(entries: tuple[RecordEntry, ...]) -> int:
        plain = [list(entry) for entry in entries]
        if plain not in table:
            table.append(plain)
        return table.index(plain)

    rounds = [
        {
            "who": [[client, down, up, place(held)] for client, down, up, held in each.who],
            "clients": [
                [
                    *(c.client, c.bytes_down, c.bytes_up, c.methods, c.info),
                    *(place(c.received), place(c.sent)),
                ]
                for c in each.clients
            ],
        }
        for each in history
    ]
    return {"entries": table, "rounds": rounds}


def unpack_rounds(packed: Mapping[str, Any], name: str) -> list[RoundOutcome]:
    """What ``pack_rounds`` was given."""
    table = [tuple(RecordEntry(*entry) for entry in entries) for entries in packed["entries"]]

    def client(row: list[Any]) -> ClientOutcome:
        number, down, up, methods, info, *held = row
        traffic = {name: ByteCount(down, up)}
        received, sent = (table[place] for place in held)
        return ClientOutcome(
            number, True, methods, info, down, up, traffic, received=received, sent=sent
        )

    return [
        RoundOutcome(
            number,
            [client(row) for row in each["clients"]],
            tuple((who, down, up, table[held]) for who, down, up, held in each["who"]),
        )
        for number, each in enumerate(packed["rounds"], start=1)
    ]
