"""No data interaction: every message is looked at, and only what was declared may cross.

Down, ``GuardedGrid`` holds each message against the round's ``MessageSchema`` before any of them is
sent. Up, ``protocol.messages.read_reply`` holds each reply against ``MessageSchema.reply`` before
anything of it is read; ``clients.client_app`` has done so before it was serialised. ``inspect``
says what a message holds, without its values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid

from protocol.grid import WrappedGrid
from protocol.keys import PAYLOAD, TASK
from protocol.reply_schema import ReplySchema, Shapes, UndeclaredError, array_problems, clean, name
from protocol.task import TASK_FIELDS

TASK_CHARACTERS = 65_536  # of a task's JSON: settings and the card, never images
NUMBER_BYTES = 8  # a number counts as this, whatever it is


class RecordEntry(NamedTuple):
    """One array, metric or setting that crossed; a plain tuple, so that it can be kept as JSON."""

    record: str
    kind: str  # array | metric | config
    name: str
    dtype: str
    shape: str  # "64x3x3", "5" of a list, "" of one value
    bytes: int  # of the values alone, without names and framing


@dataclass(frozen=True)
class MessageSchema:
    """All that may cross in a round. ``protocol.plan`` makes it; it is a value.

    Args:
        payloads: method -> its arrays, name -> type and shape.
        reply: what each client may answer.
    """

    payloads: Mapping[str, Shapes]
    reply: ReplySchema

    def problems(self, content: RecordDict) -> list[str]:
        """What is in a message to a client and not declared."""
        return list(self._problems(content))

    def _problems(self, content: RecordDict) -> Iterator[str]:
        for key, record in content.items():
            shapes = self.payloads.get(key.removeprefix(PAYLOAD))
            if key == TASK and isinstance(record, ConfigRecord):
                yield from self._task(record)
            elif key.startswith(PAYLOAD) and shapes and isinstance(record, ArrayRecord):
                yield from array_problems(key, record, shapes)
            else:
                yield f"{type(record).__name__} {name(key)} was not declared"

    def _task(self, record: ConfigRecord) -> Iterator[str]:
        text = record.get("json")
        if set(record) != {"json"} or not isinstance(text, str):
            yield f"{TASK} holds more than its JSON"
        elif len(text) > TASK_CHARACTERS:
            yield f"{TASK} has {len(text):,} characters, {TASK_CHARACTERS:,} are allowed"
        else:
            for key in sorted(set(json.loads(text)) - TASK_FIELDS):
                yield f"{TASK} field {name(key)} was not declared"


class GuardedGrid(WrappedGrid):
    """A Grid that sends a message only when all of it was declared.

    Args:
        grid: which delivers.
        schema: what may be sent to a node now; None before the first round, when only empty
            questions may.
    """

    def __init__(self, grid: Grid, schema: Callable[[int], MessageSchema | None]) -> None:
        super().__init__(grid)
        self._schema = schema

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send all or none.

        Raises:
            UndeclaredError: one of them holds what was not declared. Nothing has been sent.
        """
        return super().push_messages(self._checked(messages))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As ``push_messages``, and then wait as the wrapped grid does."""
        return super().send_and_receive(self._checked(messages), timeout=timeout)

    def _checked(self, messages: Iterable[Message]) -> list[Message]:
        messages = list(messages)
        seen: set[tuple[int, ...]] = set()  # a round's messages share their records
        for message in messages:
            # A question which client a node is holds nothing, and nothing was declared for it.
            train = message.metadata.message_type == MessageType.TRAIN
            schema = self._schema(message.metadata.dst_node_id) if train else None
            same = (id(schema), *map(id, message.content.values()))
            if same in seen:
                continue
            seen.add(same)
            if schema is None:
                problems = [f"{name(key)} was not declared" for key in message.content]
            else:
                problems = schema.problems(message.content)
            if problems:
                raise UndeclaredError(f"refused to send to clients: {'; '.join(problems[:5])}")
        return messages


def inspect(content: RecordDict) -> tuple[RecordEntry, ...]:
    """What the records hold, in their order; names are foreign, so long ones are cut."""
    return tuple(
        same(_entry(clean(key, 60), record, clean(str(each), 60), value))
        for key, record in content.items()
        for each, value in record.items()
    )


@lru_cache(4096)
def same(entry: RecordEntry) -> RecordEntry:
    """One object for all entries that are equal: those of thousands of replies are."""
    return entry


def _entry(record: str, of: Any, each: str, value: Any) -> RecordEntry:
    if isinstance(value, Array):
        shape = "x".join(str(side) for side in value.shape)
        return RecordEntry(record, "array", each, clean(value.dtype, 20), shape, len(value.data))
    kind = "metric" if isinstance(of, MetricRecord) else "config"
    values, shape = (value, str(len(value))) if isinstance(value, list) else ([value], "")
    dtype = type(values[0]).__name__ if values else "float"
    return RecordEntry(record, kind, each, dtype, shape, sum(map(_bytes, values)))


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else NUMBER_BYTES
