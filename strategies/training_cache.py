"""Federated trainings, kept after every round: a run that was killed goes on with the next one.

``cache/federated/KEY/NAME-0`` and ``NAME-1`` hold the global model, by turns, so that one of them
is whole whenever a run is killed; ``rounds-NAME-NNNN.jsonl`` what each round brought, a line each
(``strategies/kept_lines.py``), so that a round costs the same however many were before it. A
training in which a client failed is not kept from there on: another run may have all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from learngene.methods import Payload
from learngene.utils.checkpoint import key_of, read_checkpoint, write_checkpoint
from learngene.utils.untrusted import MEBIBYTE
from protocol.guard import RecordEntry, same
from protocol.messages import ByteCount
from protocol.rounds import ClientOutcome, RoundOutcome
from strategies.fedavg import Training
from strategies.kept_lines import KeptLines

FORMAT = 4  # raise it when what is kept of a round changes
LINE_LIMIT = 512 * MEBIBYTE  # bytes of a round; half a kilobyte a client


class TrainingCache:
    """Where one method's training is kept.

    Args:
        cache: folder of all caches.
        parts: what the training depends on.
    """

    def __init__(self, cache: Path, name: str, parts: Mapping[str, Any]) -> None:
        self._name, self._parts = name, {**parts, "history": FORMAT}
        self.folder = cache / "federated" / key_of(self._parts)
        self._lines = KeptLines(self.folder, f"rounds-{name}", self._parts, LINE_LIMIT)

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
        kept = {card["round"]: card for card in self._lines.read()}
        for state, card in sorted(filter(None, found), key=lambda each: -each[1]["rounds"]):
            numbers = range(1, card["rounds"] + 1)
            if usable(len(numbers)) and all(number in kept for number in numbers):
                arrays = {name: value.numpy() for name, value in state.items()}
                training.state = Payload(arrays, training.state.card)
                training.history = [unpack_round(kept[n], training.name) for n in numbers]
                return

    def save(self, training: Training) -> None:
        """Keep the training as it is now, unless a client has failed in it.

        Raises:
            OSError: it cannot be written.
        """
        if not training.whole:
            return
        self._lines.append(pack_round(training.history[-1]))
        tensors = {name: torch.from_numpy(a) for name, a in training.state.arrays.items()}
        card = {"rounds": training.done}
        write_checkpoint(self._stem(training.done % 2), tensors, card, of=self._parts)

    def _stem(self, turn: int) -> Path:
        return self.folder / f"{self._name}-{turn}"


def pack_round(outcome: RoundOutcome) -> dict[str, Any]:
    """A round in which all answered, as plain JSON. What a message held is alike for its clients,
    so each such list is written once."""
    table: dict[tuple[RecordEntry, ...], int] = {}

    def place(entries: tuple[RecordEntry, ...]) -> int:
        return table.setdefault(entries, len(table))

    who = [[client, down, up, place(held)] for client, down, up, held in outcome.who]
    clients = [
        [
            *(c.client, c.bytes_down, c.bytes_up, c.methods, c.info),
            *(place(c.received), place(c.sent)),
        ]
        for c in outcome.clients
    ]
    entries = [[list(entry) for entry in each] for each in table]
    return {"round": outcome.round, "entries": entries, "who": who, "clients": clients}


def unpack_round(packed: Mapping[str, Any], name: str) -> RoundOutcome:
    """What ``pack_round`` was given."""
    table = [tuple(same(RecordEntry(*e)) for e in entries) for entries in packed["entries"]]

    def client(row: list[Any]) -> ClientOutcome:
        number, down, up, methods, info, *held = row
        traffic = {name: ByteCount(down, up)}
        received, sent = (table[place] for place in held)
        return ClientOutcome(
            number, True, methods, info, down, up, traffic, received=received, sent=sent
        )

    who = tuple((each, down, up, table[held]) for each, down, up, held in packed["who"])
    return RoundOutcome(packed["round"], [client(row) for row in packed["clients"]], who)
