"""What crossed between server and clients: ``messages.csv`` and its summary in ``results.json``."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from learngene.utils.files import write_atomically

# record, kind, name, dtype, shape, bytes (protocol.guard.Entry)
Entry = tuple[str, str, str, str, str, int]
COLUMNS = (
    *("round", "direction", "client", "verdict"),
    *("record", "kind", "name", "dtype", "shape", "bytes"),
)
OK, REFUSED = "ok", "refused"


class Client(Protocol):
    """What a strategy keeps of a client's messages (see ``protocol.rounds.ClientOutcome``)."""

    client: int
    replied: bool
    bytes_down: int
    bytes_up: int
    sent: Sequence[Entry]
    refused: bool


class Round(Protocol):
    """What a strategy keeps of a round's messages (see ``protocol.rounds.RoundOutcome``)."""

    @property
    def round(self) -> int: ...
    @property
    def who(self) -> Sequence[tuple[int, int, int, Sequence[Entry]]]: ...
    @property
    def down(self) -> Sequence[Entry]: ...
    @property
    def clients(self) -> Sequence[Any]: ...


def write_messages_csv(
    rounds: Iterable[Round], path: Path, federated: Mapping[str, Sequence[Round]] | None = None
) -> Path:
    """One row for each message, and one for each array, metric and setting that it held.

    Sorted by round, direction, client, record. A message's row (kind ``message``) has its
    serialised bytes; the other rows those of their values, without names and framing. Round 0 is
    the question before the first round, which client a node is: an empty message. A run with
    methods that are trained among the clients begins with the rounds of these, and has a last
    column ``phase``: the method, or ``main``.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if federated:
        writer.writerow((*COLUMNS, "phase"))
        for phase, of in (*federated.items(), ("main", rounds)):
            writer.writerows((*row, phase) for row in _rows(of))
    else:
        writer.writerow(COLUMNS)
        writer.writerows(_rows(rounds))
    write_atomically(path, text.getvalue().encode())
    return path


def _rows(rounds: Iterable[Round]) -> Iterator[tuple[Any, ...]]:
    rounds = sorted(rounds, key=lambda each: each.round)
    who = [one for each in rounds for one in each.who]
    for client, down, _, _ in who:
        yield (0, "down", client, OK, *_message(down))
    for client, _, up, entries in who:
        for entry in (_message(up), *sorted(map(tuple, entries))):
            yield (0, "up", client, OK, *entry)
    for each in rounds:
        clients: list[Client] = sorted(each.clients, key=lambda client: client.client)
        for client in clients:
            for entry in (_message(client.bytes_down), *sorted(map(tuple, each.down))):
                yield (each.round, "down", client.client, OK, *entry)
        for client in clients:
            verdict = REFUSED if client.refused else OK
            held = (_message(client.bytes_up), *sorted(map(tuple, client.sent)))
            for entry in held if client.sent else ():
                yield (each.round, "up", client.client, verdict, *entry)


def _message(count: int) -> Entry:
    return "", "message", "", "", "", count


def crossed(rounds: Iterable[Round]) -> list[dict[str, Any]]:
    """Per direction and record: kind, how many messages held it, how many values, their bytes.

    A refused reply's records are rows of their own, with ``refused`` true. ``entries`` counts
    arrays, metrics or settings over all messages.
    """
    found: Counter[tuple[str, bool, str, str]] = Counter()
    messages: Counter[tuple[str, bool, str, str]] = Counter()
    size: Counter[tuple[str, bool, str, str]] = Counter()
    for direction, refused, entries in _messages(rounds):
        held = set()
        for record, kind, _, _, _, count in entries:
            key = (direction, refused, record, kind)
            held.add(key)
            found[key] += 1
            size[key] += count
        messages.update(held)
    return [
        {
            "direction": direction,
            "record": record,
            "kind": kind,
            "messages": messages[key],
            "entries": found[key],
            "bytes": size[key],
            "refused": refused,
        }
        for key in sorted(found)
        for direction, refused, record, kind in [key]
    ]


def _messages(rounds: Iterable[Round]) -> Iterator[tuple[str, bool, Sequence[Entry]]]:
    for each in rounds:
        for _, _, _, entries in each.who:
            yield "up", False, entries
        for client in each.clients:
            yield "down", False, each.down
            yield "up", client.refused, client.sent


def statement(rows: Sequence[dict[str, Any]]) -> str:
    """In a sentence, what the rows of ``crossed`` say about data."""
    arrays = sorted({r["record"] for r in rows if r["direction"] == "up" and r["kind"] == "array"
                     and not r["refused"]})  # fmt: skip
    up = (
        f"Up went arrays, as declared: {', '.join(arrays)}. They are the weights that a federated "
        "method's clients send; no image is among them."
        if arrays
        else "Up went numbers and short texts, no array and no bytes."
    )
    return (
        f"{up} Each message was held against the round's declaration before it was sent and before "
        "it was read; what was not declared was refused. messages.csv lists every message."
    )
