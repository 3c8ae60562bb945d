"""The MAML family: a start from which a few steps of gradient descent on a shard lead far.

Inner steps are functions of the parameters (``torch.func``), so that the outer gradient can pass
through them. ``vmap`` over tasks is not used: every task has weights of its own after its first
step, and convolutions with weights of their own become grouped ones, several times slower on
processors.
Norms take the support images' statistics (see ``support_norm.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad

from learngene.adaptation.training import Outcome
from learngene.methods.base import ClientContext, Factory, Method, Payload
from learngene.methods.common.backbone import draw, feature_count, payload_of, rebuild
from learngene.methods.common.head import linear_head
from learngene.methods.common.pretraining import draw_episode, run_steps
from learngene.methods.common.support_norm import set_mode, with_support_norms
from learngene.methods.protonet import class_means
from learngene.utils.settings import setting

Params = dict[str, Tensor]


@dataclass
class MetaSettings:
    """The family's settings, with MAML's values."""

    lr: float = setting(0.0005, gt=0, le=10)  # peak learning rate of the start (Adam)
    # of a step on a task's support, at the factory and at the client
    inner_lr: float = setting(0.01, gt=0, le=10)
    steps: int = setting(1, ge=1, le=100)  # on a task's support, at the factory
    tasks: int = setting(4, ge=1, le=1000)  # tasks of a step of the start
    shots: int = setting(2, ge=1, le=1000)  # support images of a class, at the factory
    queries: int = setting(10, ge=1, le=1000)  # query images of a class
    client_steps: int = setting(20, ge=0, le=10_000)  # on the whole shard


class BackboneFeatures(nn.Module):
    """What ``Individual.features`` computes, as a module by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, D)
        return self.network.features(x)  # type: ignore[operator]


class Learner:
    """A network of which the parameters are arguments.

    Args:
        network: seven layers with ``SupportNorm``s and a linear head.
        prototypes: the head starts anew for each task, from its class means (Proto-MAML).
    """

    def __init__(self, network: nn.Module, *, prototypes: bool) -> None:
        self.network, self.prototypes = network, prototypes
        self.parameters: Params = dict(network.named_parameters())

    def logits(self, params: Params, x: Tensor) -> Tensor:
        return functional_call(self.network, params, (x,))

    def start(self, params: Params, x: Tensor, y: Tensor) -> Params:
        """The parameters before the first step."""
        if not self.prototypes:
            return params
        body = {name: value for name, value in params.items() if not name.startswith("head.")}
        under_network = {f"network.{name}": value for name, value in body.items()}
        features = functional_call(BackboneFeatures(self.network), under_network, (x,))
        means = class_means(features, y, len(params["head.bias"]))
        return {**body, "head.weight": 2 * means, "head.bias": -means.pow(2).sum(1)}

    def step(self, params: Params, x: Tensor, y: Tensor, lr: float, *, second: bool) -> Params:
        """A step of gradient descent on the support images; ``second`` keeps its own gradient."""
        at = params if second else {name: value.detach() for name, value in params.items()}
        gradients = grad(lambda p: F.cross_entropy(self.logits(p, x), y))(at)
        return {name: value - lr * gradients[name] for name, value in params.items()}

    def answer(self, params: Params, support: Tensor, queries: Tensor) -> Tensor:
        """Logits of ``queries`` under the support images' statistics, (Q, ways)."""
        set_mode(self.network, "store")
        self.logits(params, support)
        set_mode(self.network, "use")
        logits = self.logits(params, queries)
        set_mode(self.network, "batch")
        return logits


def meta_loss(
    learner: Learner,
    params: Params,
    support: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    *,
    steps: int,
    lr: float,
    second: bool,
) -> Tensor:
    """The loss on query images after ``steps`` steps on the support images.

    ``second`` = False leaves out how the steps' own gradients depend on ``params`` (first order).
    """
    fast = learner.start(params, *support)
    for _ in range(steps):
        fast = learner.step(fast, *support, lr, second=second)
    return F.cross_entropy(learner.answer(fast, support[0], query[0]), query[1])


def passes(settings: MetaSettings, ways: int, *, prototypes: bool) -> int:
    """Image passes of one task: the support's at every step and once for its statistics (and once
    for prototypes), the queries' once. A step of second order counts as one."""
    support = settings.shots * (settings.steps + 1 + prototypes)
    return ways * (support + settings.queries)


def pretrain(factory: Factory, *, second: bool, prototypes: bool = False) -> Payload:
    """Train the start; the payload is all of it, with the head where that is part of the start."""
    settings: MetaSettings = factory.settings
    tasks, shots, queries = settings.tasks, settings.shots, settings.queries
    ways = min(factory.ways, factory.images.classes)
    network = draw(factory, lambda features, generator: linear_head(features, ways, generator))
    network = with_support_norms(network).to(factory.images.device)
    learner = Learner(network, prototypes=prototypes)

    def train_step(step: int) -> float:
        total = 0.0
        for number in range(tasks):
            place = step * tasks + number
            task = draw_episode(factory, place, ways=ways, shots=shots, queries=queries)
            with factory.autocast(cache=False):
                loss = meta_loss(
                    learner,
                    learner.parameters,
                    (task.support_x, task.support_y),
                    (task.query_x, task.query_y),
                    steps=settings.steps,
                    lr=settings.inner_lr,
                    second=second,
                )
                loss = loss / tasks
            loss.backward()
            total += float(loss.detach())
        for parameter in learner.parameters.values():
            if parameter.grad is None:  # Proto-MAML has no use for the head that it starts from
                parameter.grad = torch.zeros_like(parameter)
        return total

    steps = max(1, factory.budget // (tasks * passes(settings, ways, prototypes=prototypes)))
    run_steps(factory, network, train_step, steps, settings.lr)
    return payload_of(factory, network, head=not prototypes, ways=ways)


def adapt(context: ClientContext, *, prototypes: bool = False) -> Outcome:
    """Gradient descent on the whole shard at once, as the start was trained for.

    A step is a pass over the shard, so the curves count epochs.
    """
    settings: MetaSettings = context.settings
    shard = context.shard
    if context.card["ways"] != shard.ways:
        raise ValueError(f"trained for {context.card['ways']} ways, the shard has {shard.ways}")

    def head(features: int, generator: torch.Generator) -> nn.Linear:
        return linear_head(features, shard.ways, generator)

    network = rebuild(context, None if prototypes else head, change=with_support_norms)
    if prototypes:  # it starts from the shard's class means; what it was before counts for nothing
        network.head = head(feature_count(network), context.generator("head")).to(context.device)
    learner, outcome = Learner(network, prototypes=prototypes), Outcome()
    params = {key: value.detach() for key, value in learner.parameters.items()}
    with torch.no_grad():
        params = learner.start(params, shard.train_x, shard.train_y)
    every = context.individual.eval_every
    for step in range(settings.client_steps + 1):
        if step:
            params = learner.step(
                params, shard.train_x, shard.train_y, settings.inner_lr, second=False
            )
            params = {key: value.detach() for key, value in params.items()}
        if step % every == 0 or step == settings.client_steps:
            _test(learner, params, context, step, outcome)
    return outcome


@torch.no_grad()
def _test(
    learner: Learner, params: Params, context: ClientContext, step: int, outcome: Outcome
) -> None:
    shard = context.shard
    parts = [learner.answer(params, shard.train_x, x) for x in shard.test_x.split(256)]
    logits, train_logits = torch.cat(parts), learner.answer(params, shard.train_x, shard.train_x)
    outcome.record(
        step,
        int((logits.argmax(1) == shard.test_y).sum()) / len(shard.test_y),
        float(F.cross_entropy(logits, shard.test_y)),
        float(F.cross_entropy(train_logits, shard.train_y)),
    )
    right = train_logits.argmax(1) == shard.train_y
    outcome.extras["train_accuracy"] = float(right.float().mean())


def method(settings: type[MetaSettings], *, second: bool, prototypes: bool = False) -> Method:
    """A method of the family; see ``pretrain``."""
    return Method(
        partial(adapt, prototypes=prototypes),
        partial(pretrain, second=second, prototypes=prototypes),
        settings=settings,
        epochs_setting="client_steps",
        depends_on_ways=True,
    )
