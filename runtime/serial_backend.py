"""Flower in one process, without Ray: for debuggers, unit tests and machines of one core.

The ServerApp and ClientApp are the ones that Ray runs, and each message is serialised and read
back on its way, so that types and bytes are those of a network.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Set
from secrets import randbits
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.common.constant import NODE_ID_NUM_BYTES, RUN_ID_NUM_BYTES, SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from clients.client_app import IN_DRIVER
from clients.faults import WorkerDied
from clients.timeout import Overdue, time_limit
from protocol.messages import WORKER_DIED

TRIES = 2  # of a client whose worker dies, with Ray, too


class RoundOver(Overdue):
    """The round's deadline has come while a client ran."""


class SerialGrid(Grid):
    """A Grid whose nodes are calls of the ClientApp; one client runs at each pull.

    Pulling does the work, so replies arrive one by one and Ctrl-C lands in the client's own frame.
    A client that still runs ``timeout_s`` after its message was sent is cut short and gives no
    reply, as far as ``clients.timeout`` can.
    """

    def __init__(
        self, client_app: ClientApp, num_clients: int, timeout_s: float | None = None
    ) -> None:
        self._timeout_s = timeout_s
        # Ids are random, as in Flower's simulation, so that nothing comes to rest on their order.
        # (Its own function for them brings its databases along: half a second of imports.)
        run_id = randbits(8 * RUN_ID_NUM_BYTES)
        nodes = [randbits(8 * NODE_ID_NUM_BYTES) for _ in range(num_clients)]
        self._run = Run.create_empty(run_id=run_id)
        self._app = client_app
        self._contexts = {
            node: _context(
                run_id,
                node,
                {"partition-id": client, "num-partitions": num_clients, IN_DRIVER: True},
            )
            for client, node in enumerate(nodes)
        }
        self._pending: dict[str, Message] = {}
        self._deadlines: dict[str, float] = {}  # of those pending, time.monotonic()
        # Message() stamps these on what it makes; run_simulation sets the same three.
        TaskIdentity.task_id, TaskIdentity.run_id = 1, run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for late in [i for i, over in self._deadlines.items() if over <= time.monotonic()]:
            del self._deadlines[late], self._pending[late]  # nobody asks for it any more
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            self._pending[message.metadata.message_id] = message
            if self._timeout_s is not None:
                self._deadlines[message.metadata.message_id] = time.monotonic() + self._timeout_s
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run the next client among those asked for; empty when none is left."""
        # A copy of the ids of all at each pull would make a round's cost grow with their square.
        wanted = message_ids if isinstance(message_ids, Set) else set(message_ids)
        due = next((each for each in self._pending if each in wanted), None)
        if due is None:
            return []
        message, deadline = self._pending.pop(due), self._deadlines.pop(due, None)
        left = None if deadline is None else deadline - time.monotonic()
        over = RoundOver()
        try:
            with time_limit(left, over):
                reply = self._deliver(message)
        except RoundOver as error:
            if error is not over:
                raise
            return []
        return [] if reply is None else [reply]

    def _deliver(self, message: Message) -> Message | None:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._work(message, context)
            if reply is None:  # Ray's side drops it without a word: no reply
                return None
            reply.metadata.__dict__["_message_id"] = str(uuid4())
            return over_the_wire(reply)
        except Exception as error:  # as flwr's worker does
            reason = f"{type(error)}:<'{error}'>"
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return Message(Error(code=code, reason=reason), reply_to=message)

    def _work(self, message: Message, context: Context) -> Message | None:
        """The client's work, and once more where its process would have died, as with Ray."""
        for _ in range(TRIES):
            try:
                return self._app(over_the_wire(message), context)
            except WorkerDied:
                continue
        return Message(Error(code=ErrorCode.UNKNOWN, reason=WORKER_DIED), reply_to=message)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """All replies, without a deadline: ``server.server_app.WatchedGrid`` has one."""
        replies = (self.pull_messages([each]) for each in list(self.push_messages(messages)))
        return [reply for pulled in replies for reply in pulled]

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)


def _context(run_id: int, node: int, config: dict[str, bool | float | int | str]) -> Context:
    return Context(run_id, node, config, state=RecordDict(), run_config={})


def over_the_wire(message: Message) -> Message:
    """The message as the other side reads it: serialised and parsed."""
    data = message_to_proto(message).SerializeToString()
    return message_from_proto(ProtoMessage.FromString(data))


def run_on(grid: SerialGrid, server_app: ServerApp) -> None:
    """Run the ServerApp in this process and thread, and its nodes when it pulls their replies."""
    server_app(grid, _context(grid.run.run_id, 0, {}))
