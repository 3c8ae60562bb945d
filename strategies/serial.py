"""Flower in one process, without Ray: for debuggers, unit tests and machines of one core.

The ServerApp and ClientApp are the ones that Ray runs, and each message is serialised and read
back on its way, so that types and bytes are those of a network.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.common.constant import NODE_ID_NUM_BYTES, RUN_ID_NUM_BYTES, SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server.superlink.linkstate.utils import generate_rand_int_from_bytes
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity


class SerialGrid(Grid):
    """A Grid whose nodes are calls of the ClientApp; one client runs at each pull.

    Pulling does the work, so replies arrive one by one, a deadline is checked between clients (a
    running one cannot be cut short), and Ctrl-C lands in the client's own frame.
    """

    def __init__(self, client_app: ClientApp, num_clients: int) -> None:
        # Ids are random, as in Flower's simulation, so that nothing comes to rest on their order.
        run_id = generate_rand_int_from_bytes(RUN_ID_NUM_BYTES)
        nodes = [generate_rand_int_from_bytes(NODE_ID_NUM_BYTES) for _ in range(num_clients)]
        self._run = Run.create_empty(run_id=run_id)
        self._app = client_app
        self._contexts = {
            node: Context(
                run_id=run_id,
                node_id=node,
                node_config={"partition-id": partition, "num-partitions": num_clients},
                state=RecordDict(),
                run_config={},
            )
            for partition, node in enumerate(nodes)
        }
        self._pending: dict[str, Message] = {}
        # Message() stamps these on what it makes; run_simulation sets the same three.
        TaskIdentity.task_id, TaskIdentity.run_id = 1, run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            self._pending[message.metadata.message_id] = message
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run the next client among those asked for; empty when none is left."""
        wanted = set(message_ids)
        due = next((each for each in self._pending if each in wanted), None)
        if due is None:
            return []
        message = self._pending.pop(due)
        reply = self._deliver(message)
        return [] if reply is None else [reply]

    def _deliver(self, message: Message) -> Message | None:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._app(over_the_wire(message), context)
            if reply is None:  # Ray's side drops it without a word: no reply
                return None
            reply.metadata.__dict__["_message_id"] = str(uuid4())
            return over_the_wire(reply)
        except Exception as error:  # as flwr's worker does
            reason = f"{type(error)}:<'{error}'>"
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return Message(Error(code=code, reason=reason), reply_to=message)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """All replies, without a deadline; ``server.app.WatchedGrid`` is the one that has it."""
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


def over_the_wire(message: Message) -> Message:
    """The message as the other side reads it: serialised and parsed."""
    data = message_to_proto(message).SerializeToString()
    return message_from_proto(ProtoMessage.FromString(data))


def run_serial(server_app: ServerApp, client_app: ClientApp, num_clients: int) -> None:
    """Run both apps in this process and thread."""
    grid = SerialGrid(client_app, num_clients)
    context = Context(
        run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={}
    )
    server_app(grid, context)
