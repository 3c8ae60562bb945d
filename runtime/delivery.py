"""Messages to nodes in Flower's simulation: the time of a look does not grow with the nodes.

For every node, ten times a second, Flower looks through all messages that are out. Here they are
looked through once and handed over. (Flower's look also forgets messages that have expired; those
of a run live longer than its deadlines, see ``server.server_app.WatchedGrid``.)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import Queue
from typing import Any

from flwr.app import Message

LOOK_S = 0.1  # between two looks, as Flower has it


def hand_over(
    state: Any, queue: Queue[Message], nodes_mapping: dict[int, int], f_stop: threading.Event
) -> None:
    """Put messages of an ``InMemoryLinkState`` into the queue of the workers until ``f_stop``."""
    while not f_stop.is_set():
        with state.lock:
            stored = state.message_ins_store.values()
            due = [each for each in stored if not each.metadata.delivered_at]
            for message in due:
                message.metadata.delivered_at = datetime.now(UTC).isoformat()
        for message in due:
            queue.put(message)
        f_stop.wait(LOOK_S)


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
