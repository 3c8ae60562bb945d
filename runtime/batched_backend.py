"""Flower in one process, with clients that share kernels: one step of training for a cohort.

Messages, ClientApp, time limits and accounting are ``serial_backend``'s: a client still answers its
own message. Before the first of a cohort does, the trainings of all of them are run together.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from flwr.app import Message, MessageType
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from clients.client_app import payloads_of
from clients.cohort import Cohort, trained_together
from clients.work import run_task
from learngene.utils.hardware import torch_threads
from protocol.keys import TASK
from protocol.task import ClientTask
from runtime.serial_backend import SerialGrid, run_on


class BatchedGrid(SerialGrid):
    """A ``SerialGrid`` that trains the clients of the next messages together.

    Args:
        cohort: so many clients at most; None: as many as memory holds.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        timeout_s: float | None = None,
        cohort: int | None = None,
    ) -> None:
        super().__init__(client_app, num_clients, timeout_s)
        self._size = num_clients if cohort is None else cohort
        self._cohort = Cohort()
        self._members: set[str] = set()  # ids of the messages that it answers

    def _deliver(self, message: Message) -> Message | None:
        if message.metadata.message_type != MessageType.TRAIN:
            return super()._deliver(message)
        if message.metadata.message_id not in self._members:
            self._train([message, *self._pending.values()])
        with self._cohort.answering():
            return super()._deliver(message)

    def _train(self, messages: Iterable[Message]) -> None:
        """A new cohort: the clients of the first of these messages."""
        self._cohort, self._members = Cohort(), set()
        threads = 0
        for message in messages:
            # What is wrong with a message or a shard is wrong again where the client answers.
            with suppress(Exception):
                task = ClientTask.from_json(str(message.content.config_records[TASK]["json"]))
                task = replace(task, methods=trained_together(task))
                context = self._contexts[message.metadata.dst_node_id]
                client, round = int(context.node_config["partition-id"]), message.metadata.group_id
                threads = task.threads
                with torch_threads(threads), self._cohort.collecting():
                    run_task(client, int(round), task, payloads_of(message))
            self._members.add(message.metadata.message_id)
            if len(self._members) == self._size or self._cohort.is_full:
                break
        with torch_threads(threads):
            self._cohort.train()


def run_batched(
    server_app: ServerApp,
    client_app: ClientApp,
    num_clients: int,
    timeout_s: float | None = None,
    cohort: int | None = None,
) -> None:
    """Run both apps in this process and thread; the rest as in ``BatchedGrid``."""
    run_on(BatchedGrid(client_app, num_clients, timeout_s, cohort), server_app)
