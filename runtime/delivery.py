"""Messages to nodes in Flower's simulation: the time of a look does not grow with the nodes.

For every node, ten times a second, Flower looks through all messages that are out, and finds one
for a few of them. Here only nodes are asked for that a message is for. What a message must be to be
handed over is Flower's own ``get_message_ins``, as before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

from flwr.app import Message

LOOK_S = 0.1  # between two looks, as Flower has it


def hand_over(state: Any, queue: Queue[Message], nodes: object, stop: threading.Event) -> None:
    """Put messages of an ``InMemoryLinkState`` into the queue of the workers until ``stop``."""
    while not stop.is_set():
        with state.lock:
            out = list(state.message_ins_store.values())
        for node in {each.metadata.dst_node_id for each in out if not each.metadata.delivered_at}:
            for message in state.get_message_ins(node_id=node, limit=1):
                queue.put(message)
        stop.wait(LOOK_S)


@contextmanager
def direct_delivery() -> Iterator[None]:
    """Flower's loop replaced by ``hand_over`` (flwr is pinned; its name is missed if it goes)."""
    from flwr.server.superlink.fleet.vce import vce_api

    original = vce_api.add_messages_to_queue
    vce_api.add_messages_to_queue = hand_over
    try:
        yield
    finally:
        vce_api.add_messages_to_queue = original
