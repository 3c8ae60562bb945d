"""Federated training (FedAvg and its kin) as a Flower strategy: weights come up, and are averaged.

It asks, guards, weighs and names failures as ``strategies.learngene`` does. Beside that it reads
the weights of each checked reply and makes the next global model of them, in the order of the
clients: who answered first changes nothing. Weights are added up as soon as all clients before have
answered; only those that come out of order are kept. A client that fails is named and left
out of that round's average. A round in which nobody answers ends that method's training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from learngene.data.settings import divided_images
from learngene.methods import Payload
from learngene.methods.common.federated import Average, Merged
from learngene.utils.settings import of_client
from protocol.keys import WEIGHTS
from protocol.messages import CheckedReply
from strategies.learngene import ClientOutcome, LearngeneStrategy, RoundOutcome, RoundPlan
from strategies.nodes import Nodes


@dataclass
class Training:
    """One method's federated training, as far as it has come."""

    name: str
    rounds: int
    state: Payload  # the global model
    history: list[RoundOutcome] = field(default_factory=list)  # one a finished round
    failed: str | None = None
    run: str = field(default_factory=lambda: uuid4().hex[:16])  # this run's and no other's

    @property
    def done(self) -> int:
        return len(self.history)

    @property
    def whole(self) -> bool:
        """Whether every client has answered in every round so far."""
        return self.parted is None

    @property
    def parted(self) -> int | None:
        """The first round in which a client has not: from there on it is no other run's."""
        first = self._parted_round
        return None if first is None else first.round

    @property
    def absent(self) -> str:
        """The clients that have not answered in that round, as a mask: bit i is client i. A card
        has room for a bit of each, not for thousands of numbers."""
        clients = () if self._parted_round is None else self._parted_round.clients
        return hex(sum(1 << each.client for each in clients if each.error is not None))

    @property
    def _parted_round(self) -> RoundOutcome | None:
        return next((each for each in self.history if each.answered < each.asked), None)


class FederatedStrategy(LearngeneStrategy):
    """Trains several methods one after another, each from where it is to its last round.

    Args:
        num_clients: how many nodes the federation has.
        trainings: one a method.
        plan: ``plan(training, number)`` gives the message of that method's round ``number``.
        after_round: called after each round that brought a model.
    """

    def __init__(
        self,
        num_clients: int,
        trainings: Sequence[Training],
        plan: Callable[[Training, int], RoundPlan],
        *,
        after_round: Callable[[Training], None] = lambda training: None,
    ) -> None:
        self._order = [each for each in trainings for _ in range(each.rounds - each.done)]
        self._last: Training | None = None
        self._resumed = {each.name for each in trainings if each.done}
        self._sum = Average({})  # of the round so far
        self._due: deque[int] = deque()  # clients that are not in it, in their order
        self._merged: dict[int, Merged] = {}  # of those that came out of order
        self._after_round = after_round

        def prepare(server_round: int) -> list[RoundPlan]:
            training = self._order[server_round - 1]
            return [plan(training, training.done + 1)]

        super().__init__(num_clients, prepare)

    @property
    def rounds_left(self) -> int:
        """How many rounds Flower has to run for all of them."""
        return len(self._order)

    def kept(self, rounds: int) -> int:
        """None: what is kept of a training is taken up before, as a whole."""
        return 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        training = self._order[server_round - 1]
        if training.failed is not None:
            return []
        if training is not self._last:
            if not self.nodes.lasting:  # each training asks anew: it stands by itself
                self.nodes = Nodes(self.num_clients, wait_s=self.nodes.wait_s)
            self._last = training
        self._sum, self._merged = Average(training.state.arrays), {}
        messages = super().configure_train(server_round, arrays, config, grid)
        self._due = deque(self.nodes.clients.values())
        return messages

    def receive(self, reply: Message) -> ClientOutcome | None:
        """As ever, and add up what is next in the order of the clients."""
        outcome = super().receive(reply)
        while self._open is not None and self._due and self._due[0] in self._open.outcomes:
            self._add_next()
        return outcome

    def _add_next(self) -> None:
        part = self._merged.pop(self._due.popleft(), None)
        if part is not None:
            self._sum.add(part)

    def accept(self, answer: CheckedReply, reply: Message, client: int) -> CheckedReply:
        """Keep the weights of a good answer for the average; name what is wrong with them."""
        if answer.errors or self._last is None:
            return answer
        name, card = self._last.name, self._last.state.card
        try:
            record = reply.content.array_records[WEIGHTS + name]
            arrays = {each: array.numpy() for each, array in record.items()}
            images = int(answer.methods[name]["images"])  # type: ignore[arg-type]
            due, fewest, most = self._due_of(client)
            rows = head_rows(str(answer.info.get("classes", "")), card, due)
            check_weights(arrays, card)
            if not fewest <= images <= most:
                held = f"{fewest} to {most}" if fewest < most else str(most)
                raise ValueError(f"trained on {images} images, {held} are held")
            if images != int(answer.info.get("train_images", 0)):
                raise ValueError(f"trained on {images} images, and says that it holds others")
        except Exception as error:  # whatever a client sends must not end the round
            why = f"{name}: weights that cannot be used: {error}"
            return replace(answer, methods={}, errors=[why])
        self._merged[client] = Merged(arrays, images, rows)
        return answer

    def _due_of(self, client: int) -> tuple[int | None, int, int]:
        """How many classes a client has (None: 2 or more) and between which bounds its images are:
        it weighs as these, and would decide alone if its own word for them were taken."""
        task = self.task_of(client)
        if task.partition is None:
            ways, shots = of_client(task.ways, client), of_client(task.shots, client)
            # Of the flagged images that were named (table 2) there may be fewer of a class.
            return ways, ways if task.labelled else ways * shots, ways * shots
        divided = divided_images(task.ways, task.shots, task.partition.clients)
        others = (task.partition.clients - 1) * task.partition.min_images
        return None, task.partition.min_images, divided - others

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average what came in, in the order of the clients, and close the round."""
        counts = super().aggregate_train(server_round, replies)
        training = self._order[server_round - 1]
        if counts[1] is None or training.failed is not None:
            return counts
        outcome = replace(self.rounds[-1], round=training.done + 1)
        if training.name in self._resumed:  # the run that began it has asked who is there
            self._resumed.discard(training.name)
            outcome = replace(outcome, who=())
        while self._due:  # one before them has not answered
            self._add_next()
        training.history.append(outcome)
        if not self._sum.clients:
            why = next((each.error for each in outcome.clients if each.error), "no reason given")
            training.failed = f"federated round {outcome.round}: no client answered: {why}"
            return counts
        training.state = Payload(self._sum.result(), training.state.card)
        self._after_round(training)
        return counts


def head_rows(classes: str, card: Mapping[str, Any], due: int | None) -> tuple[int, ...]:
    """The head's rows of the classes that a client says it holds.

    Args:
        due: how many; None: any number.

    Raises:
        ValueError: these are not as many different ones of those that clients may hold as due.
    """
    rows = tuple(card["classes"].index(int(c)) for c in classes.split(","))
    due = len(rows) if due is None else due
    if len(set(rows)) != due or len(rows) != due:
        raise ValueError(f"{len(set(rows))} different classes, {due} are due")
    return rows


def check_weights(arrays: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Hold a client's weights against what is due; a record's own word for it is not enough.

    Raises:
        ValueError: an array is missing or of another type or shape, or a number is not finite.
    """
    for name, shape in card["up"].items():
        array = arrays.get(name)
        if array is None or array.dtype != np.float32 or list(array.shape) != list(shape):
            raise ValueError(f"{name} is not float32 {list(shape)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
