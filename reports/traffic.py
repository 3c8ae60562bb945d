"""What crossed between server and clients: ``messages.csv`` and its summary in ``results.json``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learngene.utils.files import write_csv
from reports.text import sentence

if TYPE_CHECKING:
    from protocol.guard import RecordEntry
    from protocol.rounds import RoundOutcome

COLUMNS = (
    *("round", "direction", "client", "verdict"),
    *("record", "kind", "name", "dtype", "shape", "bytes"),
)
COUNTS = ("asked", "answered", "failed", "missing", "bytes_down", "bytes_up", "queries")
OK, REFUSED = "ok", "refused"


def write_messages_csv(
    rounds: Iterable[RoundOutcome],
    path: Path,
    federated: Mapping[str, Sequence[RoundOutcome]] | None = None,
) -> Path:
    """One row for each message, and one for each array, metric and setting that it held.

    Sorted by round, direction, client, record. A message's row (kind ``message``) has its
    serialised bytes; the other rows those of their values, without names and framing. Round 0 is
    the question before the first round, which client a node is: an empty message. A run with
    methods that are trained among the clients begins with the rounds of these, and has a last
    column ``phase``: the method, or ``main``.
    """
    if not federated:
        return write_csv(path, [COLUMNS, *_rows(rounds)])
    phases = {**federated, "main": rounds}
    rows = [(*row, phase) for phase, outcomes in phases.items() for row in _rows(outcomes)]
    return write_csv(path, [(*COLUMNS, "phase"), *rows])


def _rows(rounds: Iterable[RoundOutcome]) -> Iterator[tuple[Any, ...]]:
    rounds = sorted(rounds, key=lambda outcome: outcome.round)
    queries = [query for outcome in rounds for query in outcome.who]
    for number, down, _, _ in queries:
        yield (0, "down", number, OK, *_message(down))
    for number, _, up, entries in queries:
        for entry in (_message(up), *sorted(entries)):
            yield (0, "up", number, OK, *entry)
    for outcome in rounds:
        clients = sorted(outcome.clients, key=lambda client: client.client)
        for client in clients:
            for entry in (_message(client.bytes_down), *sorted(outcome.down)):
                yield (outcome.round, "down", client.client, OK, *entry)
        for client in clients:
            verdict = REFUSED if client.refused else OK
            for entry in (_message(client.bytes_up), *sorted(client.sent)) if client.sent else ():
                yield (outcome.round, "up", client.client, verdict, *entry)


def _message(size: int) -> tuple[str, str, str, str, str, int]:
    return "", "message", "", "", "", size


def message_section(rounds: Sequence[RoundOutcome]) -> dict[str, Any]:
    """``messages`` of ``results.json``: counts and bytes of all rounds, and what crossed.

    Refused replies are among the failed.
    """
    return {
        **{name: sum(getattr(outcome, name) for outcome in rounds) for name in COUNTS},
        "refused": sum(client.refused for outcome in rounds for client in outcome.clients),
        "crossed": traffic_summary(rounds),
    }


def traffic_summary(rounds: Iterable[RoundOutcome]) -> list[dict[str, Any]]:
    """Per direction and record: kind, how many messages held it, how many values, their bytes.

    A refused reply's records are rows of their own, with ``refused`` true. ``entries`` counts
    arrays, metrics or settings over all messages.
    """
    totals: defaultdict[tuple[str, bool, str, str], Counter[str]] = defaultdict(Counter)
    for direction, refused, content in _messages(rounds):
        for entry in content:
            total = totals[direction, refused, entry.record, entry.kind]
            total.update(entries=1, bytes=entry.bytes)
        for record, kind in {(entry.record, entry.kind) for entry in content}:
            totals[direction, refused, record, kind]["messages"] += 1
    return [
        {
            "direction": direction,
            "record": record,
            "kind": kind,
            **{name: total[name] for name in ("messages", "entries", "bytes")},
            "refused": refused,
        }
        for (direction, refused, record, kind), total in sorted(totals.items())
    ]


def _messages(rounds: Iterable[RoundOutcome]) -> Iterator[tuple[str, bool, Sequence[RecordEntry]]]:
    for outcome in rounds:
        for _, _, _, entries in outcome.who:
            yield "up", False, entries
        for client in outcome.clients:
            yield "down", False, outcome.down
            yield "up", client.refused, client.sent


def statement(rows: Sequence[Mapping[str, Any]]) -> str:
    """In a sentence, what the rows of ``traffic_summary`` say about data."""
    return sentence("traffic.j2", "statement", rows=rows)
