"""Which client each node is: nodes are waited for, asked once, and remembered.

Node ids are random in a simulation, and the partition is the node's own to know (``node_config``),
so the server has to ask. A strategy has ``Nodes`` of its own; where a question costs a process on
another machine (``runtime/grid_backend.py``) all strategies of a run share one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from logging import getLogger

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from protocol.guard import RecordEntry, inspect
from protocol.keys import NODE_QUERY
from protocol.messages import NodeAnswer, message_bytes, read_node

# One question: the client, bytes of the question and of its answer, what the answer held.
Question = tuple[int, int, int, tuple[RecordEntry, ...]]
MOST_ERRORS = 3  # different ones of nodes that are told of, in the results of each missing client


class TooFewNodes(RuntimeError):
    """Not enough nodes are there to begin with."""


class Nodes:
    """The nodes of a federation, as far as they have said which client they are.

    Args:
        num_clients: clients are 0 to ``num_clients`` - 1, each on one node.
        wait_s: seconds to wait for the nodes to appear, before the first round alone, and in each
            round for those that are new to say which client they are.
        poll_s: seconds between two looks for them.
        least: so many are enough to begin with when the wait is over; None: all.
        lasting: the nodes are there for longer than a run. They are asked, too, what their answers
            are made of (``states``), and one that comes later as a client that is taken is left
            out; in a simulation that is an error.
    """

    def __init__(
        self,
        num_clients: int,
        *,
        wait_s: float = 180.0,
        poll_s: float = 0.05,
        least: int | None = None,
        lasting: bool = False,
    ) -> None:
        self.num_clients, self.wait_s, self.lasting = num_clients, wait_s, lasting
        self.least = num_clients if least is None else least
        self.clients: dict[int, int] = {}  # node id -> client, in the order of the clients
        self.unknown = ""  # why the nodes of the other clients are not known
        self._answers: dict[int, NodeAnswer] = {}  # by node
        self._node: dict[int, int] = {}  # ``clients``, the other way round
        self._left_out: set[int] = set()
        self._questions: list[Question] = []  # asked since they were last taken
        self._poll_s, self._begun = poll_s, False

    def state_of(self, client: int) -> dict[str, int | str] | None:
        """What a client's answers depend on beside their message; None: its node is not known."""
        node = self._node.get(client)
        return None if node is None else {"id": node, "state": self._answers[node].state}

    def take_questions(self) -> tuple[Question, ...]:
        """The questions since this was last called, in the order of the clients."""
        taken, self._questions = tuple(sorted(self._questions)), []
        return taken

    def discover(self, grid: Grid) -> None:
        """Look who is there, and ask those that are new which client they are.

        Raises:
            TooFewNodes: to begin with.
            RuntimeError: two say that they are one client.
        """
        there = self.wait(grid)
        partitions = {node: who for node, who in self.clients.items() if node in there}
        self._left_out &= there
        self.unknown = "its node was not there when the round began"
        for node, answer in self._ask(grid, sorted(there - set(partitions) - self._left_out)):
            # Two nodes of one client are a mistake; of a run that is under way it ends nothing.
            if self.lasting and self._begun and not self._free(answer.client, partitions):
                self._left_out.add(node)
                said = "node %d says that it is client %d: left out"
                getLogger("flwr").warning(said, node, answer.client)
                continue
            partitions[node], self._answers[node] = answer.client, answer
        clients = sorted(partitions.values())
        if len(set(clients)) < len(clients) or not set(clients) <= set(range(self.num_clients)):
            due = f"each of 0 to {self.num_clients - 1} is due once at most"
            raise RuntimeError(f"nodes say that they are clients {clients}, {due}")
        self.clients = dict(sorted(partitions.items(), key=lambda item: item[1]))
        self._node = {client: node for node, client in self.clients.items()}
        self._begun = True

    def wait(self, grid: Grid) -> set[int]:
        """The nodes that are there, before the first round not before there are enough of them.

        The ServerApp starts before they register: asking at once would find none of them.

        Raises:
            TooFewNodes: they did not come.
        """
        deadline = time.monotonic() + self.wait_s
        while len(there := set(grid.get_node_ids())) < self.num_clients and not self._begun:
            if time.monotonic() > deadline:
                if len(there) >= self.least:
                    break
                found = f"{len(there)} of {self.num_clients} nodes"
                raise TooFewNodes(f"{found} registered in {self.wait_s:g} s")
            time.sleep(self._poll_s)
        return there

    def _ask(self, grid: Grid, nodes: list[int]) -> Iterator[tuple[int, NodeAnswer]]:
        kind = NODE_QUERY if self.lasting else MessageType.QUERY
        queries = [Message(RecordDict(), node, kind) for node in nodes]
        if not queries:
            return
        asked = message_bytes(queries[0])  # equal for all: only the node differs
        heard, errors = 0, Counter[str]()
        for reply in grid.send_and_receive(queries, timeout=self.wait_s):
            heard += 1
            try:
                answer = read_node(reply, state=self.lasting)
            except ValueError as error:
                errors[str(error)] += 1
                continue
            held = message_bytes(reply), inspect(reply.content)
            self._questions.append((answer.client, asked, *held))
            yield reply.metadata.src_node_id, answer
        in_time = "" if heard == len(queries) else f" within {self.wait_s:g} s"
        self.unknown = f"its node did not say who it is{in_time}"
        for said, times in errors.most_common(MOST_ERRORS):
            who = "a node" if times == 1 else f"{times} nodes"
            self.unknown += f"; {who} said: {said}"

    def _free(self, client: int, partitions: dict[int, int]) -> bool:
        return client in range(self.num_clients) and client not in partitions.values()
