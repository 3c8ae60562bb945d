"""Only nodes that have a message are asked for, however many there are."""

from __future__ import annotations

import threading
from collections import Counter
from queue import Queue

from flwr.app import Message, RecordDict
from flwr.server.superlink.fleet.vce import vce_api
from flwr.supercore.task_identity import TaskIdentity

from runtime.delivery import direct_delivery, hand_over


class State:
    """What is used of an ``InMemoryLinkState``."""

    def __init__(self, out: dict[str, Message]) -> None:
        self.lock, self.message_ins_store = threading.RLock(), out
        self.asked: Counter[int] = Counter()

    def get_message_ins(self, node_id: int, limit: int) -> list[Message]:
        self.asked[node_id] += 1
        due = [
            each
            for each in self.message_ins_store.values()
            if each.metadata.dst_node_id == node_id and not each.metadata.delivered_at
        ]
        for each in due[:limit]:
            each.metadata.delivered_at = "now"
        return due[:limit]


def test_nodes_without_a_message_are_not_asked_for():
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    state = State({str(n): Message(RecordDict(), 100 + n % 3, "train") for n in range(4)})
    queue: Queue[Message] = Queue()
    stop = threading.Event()
    nodes = dict.fromkeys(range(100, 10_100))
    thread = threading.Thread(target=hand_over, args=(state, queue, nodes, stop))
    thread.start()
    found = [queue.get(timeout=20).metadata.dst_node_id for _ in range(4)]
    stop.set()
    thread.join(20)
    assert sorted(found) == [100, 100, 101, 102]  # the second of one node at the second look
    assert state.asked == {100: 2, 101: 1, 102: 1}


def test_flower_has_its_own_loop_back():
    before = vce_api.add_messages_to_queue
    with direct_delivery():
        assert vce_api.add_messages_to_queue is hand_over
    assert vce_api.add_messages_to_queue is before
