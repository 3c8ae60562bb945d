"""Messages are handed over once each, and nodes are not gone through."""

from __future__ import annotations

import threading
import time
from queue import Queue
from types import SimpleNamespace

from flwr.app import Message, RecordDict
from flwr.server.superlink.fleet.vce import vce_api
from flwr.supercore.task_identity import TaskIdentity

from runtime.delivery import direct_delivery, hand_over


class Store(dict[str, Message]):
    """Counts how often it is gone through."""

    looks = 0

    def values(self):
        self.looks += 1
        return super().values()


def test_a_look_goes_through_the_messages_once_however_many_nodes_there_are():
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    store = Store({str(n): Message(RecordDict(), 100 + n % 3, "train") for n in range(4)})
    store["taken"] = Message(RecordDict(), 100, "train")
    store["taken"].metadata.delivered_at = "a while ago"
    state = SimpleNamespace(lock=threading.RLock(), message_ins_store=store)
    queue: Queue[Message] = Queue()
    stop = threading.Event()
    nodes = dict.fromkeys(range(100, 10_100))
    thread = threading.Thread(target=hand_over, args=(state, queue, nodes, stop))
    thread.start()
    found = [queue.get(timeout=20).metadata.dst_node_id for _ in range(4)]
    looks = store.looks
    while store.looks < looks + 2:  # nothing is handed over twice
        time.sleep(0.01)
    stop.set()
    thread.join(20)
    assert found == [100, 101, 102, 100] and queue.empty()
    assert all(each.metadata.delivered_at for each in store.values())


def test_flower_has_its_own_loop_back():
    before = vce_api.add_messages_to_queue
    with direct_delivery():
        assert vce_api.add_messages_to_queue is hand_over
    assert vce_api.add_messages_to_queue is before
