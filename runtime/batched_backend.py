"""Flower in one process, with clients that share kernels: one step of training for a cohort.

Messages, ClientApp, time limits and accounting are ``serial_backend``'s: a client still answers its
own message. Before the first of a cohort does, the trainings of all of them are run together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import torch
from flwr.app import Message, MessageType
from flwr.clientapp import ClientApp

from clients.client_app import payloads_of
from clients.cohort import Cohort, trained_together
from clients.work import run_task
from learngene.utils.hardware import torch_threads
from protocol.keys import TASK
from protocol.task import ClientTask
from runtime.resources import RuntimeSettings
from runtime.serial_backend import SerialGrid


def cohort_size(runtime: RuntimeSettings, num_clients: int) -> int:
    """How many clients share kernels, at most; 1: none do.

    Not set, all of them on a GPU, as memory allows, and none on a CPU, where one client after the
    other is faster (docs/PERFORMANCE.md).
    """
    if runtime.name != "batched":
        return 1
    asked = num_clients if torch.cuda.is_available() else 1
    return min(num_clients, asked if runtime.cohort is None else runtime.cohort)


class BatchedGrid(SerialGrid):
    """A ``SerialGrid`` that trains the clients of the next messages together.

    Args:
        cohort: so many clients at most, and no more than memory holds.
        progress: ``RunCallback.on_progress``; a cohort answers all at once, after a long time.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        timeout_s: float | None,
        cohort: int,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        super().__init__(client_app, num_clients, timeout_s)
        self._size, self._progress = cohort, progress
        self._cohort = Cohort()
        self._members: set[str] = set()  # ids of the messages that it answers

    def _deliver(self, message: Message) -> Message | None:
        if self._size == 1 or message.metadata.message_type != MessageType.TRAIN:
            return super()._deliver(message)
        if message.metadata.message_id not in self._members:
            # Of a round that missed its deadline some may be left.
            number, pending = message.metadata.group_id, self._pending.values()
            self._train([message, *(p for p in pending if p.metadata.group_id == number)])
        with self._cohort.answering():
            return super()._deliver(message)

    def _train(self, messages: Iterable[Message]) -> None:
        """A new cohort: the clients of the first of these messages."""
        self._cohort, self._members = Cohort(), set()
        threads = 0
        for message in messages:
            self._members.add(message.metadata.message_id)
            # What is wrong with a message or a shard is wrong again where the client answers.
            with suppress(Exception):
                task = ClientTask.from_json(str(message.content.config_records[TASK]["json"]))
                task, threads = replace(task, methods=trained_together(task)), task.threads
                if not task.methods:
                    break
                context = self._contexts[message.metadata.dst_node_id]
                client, round = int(context.node_config["partition-id"]), message.metadata.group_id
                with torch_threads(threads), self._cohort.collecting():
                    run_task(client, int(round), task, payloads_of(message))
            self._progress("clients are prepared", len(self._members), self._size)
            if len(self._members) == self._size or self._cohort.is_full:
                break
        with torch_threads(threads):
            self._cohort.train(self._progress)
