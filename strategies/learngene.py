"""The Flower strategy of a learngene run: whom to ask, what is sent, how answers are counted.

A round is one point of the collective's evolution: every client is sent one message, and answers
with metrics. Nothing is averaged; what a round brought is kept in ``LearngeneStrategy.rounds``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from protocol.guard import GuardedGrid, MessageSchema, inspect
from protocol.keys import PAYLOAD, TASK
from protocol.messages import (
    ByteCount,
    CheckedReply,
    array_record,
    bytes_by_method,
    counted,
    message_bytes,
    read_reply,
    reply_bytes,
)
from protocol.rounds import ClientOutcome, RoundOutcome, RoundPlan
from protocol.task import ClientTask
from strategies.nodes import Nodes, Question


class _Part:
    """What some of the clients are sent in a round: one message, but for the node it goes to.

    Args:
        shared: records that are made already, by the ``id`` of their arrays: what several parts or
            many clients are sent is held once.
    """

    def __init__(self, plan: RoundPlan, number: int, shared: dict[int, ArrayRecord]) -> None:
        if strangers := set(plan.payloads) - set(plan.methods):
            raise ValueError(f"payloads for {sorted(strangers)}, methods are {plan.methods}")
        self.plan, self._group = plan, str(number)
        self._records: dict[str, Any] = {TASK: ConfigRecord({"json": plan.task.to_json()})}
        for name, arrays in plan.payloads.items():
            if id(arrays) not in shared:
                shared[id(arrays)] = array_record(arrays)
            self._records[PAYLOAD + name] = shared[id(arrays)]
        some = counted(self.message(0))
        self.entries = inspect(some.content)  # what the message holds
        self.bytes_down = message_bytes(some)  # equal for all: only the node differs
        self.down = bytes_by_method(some, self.bytes_down, PAYLOAD, plan.methods)

    def message(self, node: int) -> Message:
        return Message(RecordDict(self._records), node, MessageType.TRAIN, group_id=self._group)


@dataclass
class _OpenRound:
    """The round under way."""

    number: int
    parts: Sequence[_Part]  # client i is sent entry i modulo their number
    who: tuple[Question, ...]  # as in RoundOutcome
    opened: float = field(default_factory=time.monotonic)
    outcomes: dict[int, ClientOutcome] = field(default_factory=dict)  # by client
    pushed: dict[str, int] = field(default_factory=dict)  # message id -> client

    def part(self, client: int) -> _Part:
        return self.parts[client % len(self.parts)]


class LearngeneStrategy(Strategy):
    """Ask every client once a round, and account for each of them.

    A client whose node does not say who it is is missing from the round, and its node is asked
    again before the next.

    Args:
        num_clients: how many nodes the federation has; the first round waits until all are there.
        prepare: ``prepare(server_round)`` gives the round's plans, of which client i is sent
            entry i modulo their number; rounds count from 1. A plan may be there several times.
    """

    def __init__(self, num_clients: int, prepare: Callable[[int], Sequence[RoundPlan]]) -> None:
        self.num_clients = num_clients
        self.prepare = prepare
        self.rounds: list[RoundOutcome] = []
        self.timeout_s: float | None = None  # a round's deadline, where the runtime has told it
        self.deadline = "runtime.timeout_s"  # which setting that is
        self.nodes = Nodes(num_clients)  # the runtime may have others
        self._open: _OpenRound | None = None

    def guarded(self, grid: Grid) -> Grid:
        """The grid that this strategy may send through: it lets out what the round declares for
        the client that a message goes to."""

        def schema(node: int) -> MessageSchema | None:
            if self._open is None or node not in self.nodes.clients:
                return None
            return self._open.part(self.nodes.clients[node]).plan.schema

        return GuardedGrid(grid, schema)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a client whose answer is not kept, in the order of the clients."""
        self.nodes.discover(grid)
        plans = self.prepare(server_round)
        shared: dict[int, ArrayRecord] = {}
        distinct = {id(plan): plan for plan in plans}
        parts = {key: _Part(plan, server_round, shared) for key, plan in distinct.items()}
        now = _OpenRound(
            server_round, [parts[id(plan)] for plan in plans], self.nodes.take_questions()
        )
        for client in range(self.num_clients):
            part = now.part(client)
            kept = part.plan.kept.get(client) if part.plan.kept else None
            if kept is not None:
                now.outcomes[client] = _reuse_answer(kept, part)
        self._open = now
        asked = self.nodes.clients.items()
        return [now.part(c).message(node) for node, c in asked if c not in now.outcomes]

    def kept(self, rounds: int) -> int:
        """How many answers of rounds 1 to ``rounds`` earlier runs have: those are not asked for.

        Raises:
            InputError: an answer was kept under other settings.
        """
        return sum(
            (kept := plans[client % len(plans)].kept) is not None and kept.get(client) is not None
            for plans in map(self.prepare, range(1, rounds + 1))
            for client in range(self.num_clients)
        )

    def pushed(self, message: Message) -> None:
        """Told of each message that is on its way: only those are counted as sent."""
        if self._open is not None and message.metadata.dst_node_id in self.nodes.clients:
            client = self.nodes.clients[message.metadata.dst_node_id]
            self._open.pushed[message.metadata.message_id] = client

    def receive(self, reply: Message) -> ClientOutcome | None:
        """Take in one reply as it arrives; None where it belongs to no client of the open round."""
        now, of = self._open, reply.metadata
        if now is None or (of.message_type, of.group_id) != (MessageType.TRAIN, str(now.number)):
            return None
        client, gone = self.nodes.clients.get(of.src_node_id), False
        if reply.has_error() and of.src_node_id == SUPERLINK_NODE_ID:  # in the place of a node
            client, gone = now.pushed.get(of.reply_to_message_id), True
        if client is None:
            return None
        part = now.part(client)
        plan = part.plan
        if client not in now.outcomes:
            answer = read_reply(reply, client, plan.methods, plan.schema.reply)
            answer = self.accept(answer, reply, client)
            outcome = _outcome(part, client, answer, None if gone else reply)
            if plan.kept is not None and outcome.error is None:
                plan.kept.put(outcome)
            now.outcomes[client] = outcome
            if reply.has_content():  # Flower keeps replies until the round is over, empty ones
                reply.content.clear()
        return now.outcomes[client]

    def accept(self, answer: CheckedReply, reply: Message, client: int) -> CheckedReply:
        """Here a strategy may take in more of a checked reply, or find fault with it."""
        return answer

    def task_of(self, client: int) -> ClientTask:
        """What the client is asked for in the open round."""
        assert self._open is not None
        return self._open.part(client).plan.task

    def finish_round(self) -> RoundOutcome | None:
        """Close the open round: who has not answered is missing. None where no round is open.

        ``aggregate_train`` calls it; a driver does so after Ctrl-C, to keep what was finished.
        """
        now, self._open = self._open, None
        if now is None:
            return None
        late = self.timeout_s is not None and time.monotonic() - now.opened >= self.timeout_s
        deadline = f"within {self.timeout_s:g} s ({self.deadline})" if late else None
        absent = CheckedReply(errors=[f"no reply {deadline or 'before the run ended'}"])
        unknown = CheckedReply(errors=[self.nodes.unknown])
        known, sent = set(self.nodes.clients.values()), set(now.pushed.values())

        def without_reply(client: int) -> ClientOutcome:
            why = absent if client in known else unknown
            return _outcome(now.part(client), client, why, None, sent=client in sent)

        clients = [
            now.outcomes.get(client) or without_reply(client) for client in range(self.num_clients)
        ]
        outcome = RoundOutcome(now.number, clients, now.who)
        self.rounds.append(outcome)
        return outcome

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Close the round. There is nothing to average: the counts are all that Flower is told."""
        for reply in replies:
            self.receive(reply)
        done = self.finish_round()
        if done is None:
            return None, None
        counts = {name: getattr(done, name) for name in ("asked", "answered", "failed", "missing")}
        return None, MetricRecord(counts)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: clients test themselves in the one message of a round."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        return None

    def summary(self) -> None:
        """Nothing to log; the driver shows the settings."""


def _outcome(
    part: _Part, client: int, answer: CheckedReply, reply: Message | None, *, sent: bool = True
) -> ClientOutcome:
    methods = part.plan.methods
    down = part.down if sent else [0] * len(methods)
    if reply is not None and not answer.refused:
        reply = counted(reply)
    total, up = reply_bytes(reply, methods)
    return ClientOutcome(
        client=client,
        replied=reply is not None,
        methods=answer.methods,
        info=answer.info,
        bytes_down=part.bytes_down if sent else 0,
        bytes_up=total,
        bytes_by_method={
            name: ByteCount(*pair) for name, *pair in zip(methods, down, up, strict=True)
        },
        error="; ".join(answer.errors) or None,
        received=part.entries if sent else (),
        sent=inspect(reply.content) if reply is not None and reply.has_content() else (),
        refused=answer.refused,
    )


def _reuse_answer(kept: ClientOutcome, part: _Part) -> ClientOutcome:
    """A kept answer as this round's: what goes down is weighed as if it were sent."""
    traffic = {
        name: ByteCount(down, kept.bytes_by_method[name].up)
        for name, down in zip(part.plan.methods, part.down, strict=True)
    }
    return replace(kept, bytes_down=part.bytes_down, bytes_by_method=traffic, received=part.entries)
