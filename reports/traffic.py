"""What crossed between server and clients: ``messages.csv`` and its summary in ``results.json``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
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
        return write_csv(path, chain([COLUMNS], _rows(rounds)))
    phases = {**federated, "main": rounds}
    rows = ((*row, phase) for phase, outcomes in phases.items() for row in _rows(outcomes))
    return write_csv(path, chain([(*COLUMNS, "phase")], rows))


def _rows(rounds: Iterable[RoundOutcome]) -> Iterator[tuple[Any, ...]]:
    for *message, size, content in sorted(_messages(rounds), key=lambda message: message[:3]):
        for entry in (("", "message", "", "", "", size), *sorted(content)):
            yield (*message, *entry)


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
    alike = Counter(  # thousands of messages hold the same
        (direction, verdict == REFUSED, tuple(content))
        for _, direction, _, verdict, _, content in _messages(rounds)
    )
    for (direction, refused, content), times in alike.items():
        for entry in content:
            total = totals[direction, refused, entry.record, entry.kind]
            total.update(entries=times, bytes=times * entry.bytes)
        for record, kind in {(entry.record, entry.kind) for entry in content}:
            totals[direction, refused, record, kind]["messages"] += times
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


def _messages(
    rounds: Iterable[RoundOutcome],
) -> Iterator[tuple[int, str, int, str, int, Sequence[RecordEntry]]]:
    """Round, direction, client, verdict, bytes and content of every message."""
    for outcome in rounds:
        for client, down, up, entries in outcome.who:
            yield 0, "down", client, OK, down, ()
            yield 0, "up", client, OK, up, entries
        for reply in outcome.clients:
            verdict = REFUSED if reply.refused else OK
            if reply.received:
                yield outcome.round, "down", reply.client, OK, reply.bytes_down, reply.received
            if reply.sent:
                yield outcome.round, "up", reply.client, verdict, reply.bytes_up, reply.sent


def statement(rows: Sequence[Mapping[str, Any]]) -> str:
    """In a sentence, what the rows of ``traffic_summary`` say about data."""
    return sentence("traffic.j2", "statement", rows=rows)
