"""The MAML family: a start from which a few steps of gradient descent on a shard lead far.

Inner steps are functions of the parameters (``torch.func``), so that the outer gradient can pass
through them. ``vmap`` over tasks is not used: every task has weights of its own after its first
step, and convolutions with weights of their own become grouped ones, several times slower on
processors.
Norms take the support images' statistics (see ``support_norm.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad

from learngene.adaptation.training import Outcome, Transferred, features, shard_views, train
from learngene.methods.base import ClientContext, Factory, Method, Payload
from learngene.methods.common.backbone import body_of, draw, payload_of, rebuild
from learngene.methods.common.head import linear_head
from learngene.methods.common.pretraining import (
    BudgetSettings,
    Drawn,
    Episodes,
    SupervisedSettings,
    run_steps,
)
from learngene.methods.common.support_norm import set_mode, with_support_norms
from learngene.methods.finetune import train_on_classes
from learngene.methods.protonet import class_means
from learngene.utils.settings import setting

Params = dict[str, Tensor]


@dataclass
class MetaSettings(BudgetSettings):
    """The family's settings, with MAML's values."""

    lr: float = setting(0.0005, gt=0, le=10)  # peak learning rate of the start (Adam)
    # of a step on a task's support, at the factory
    inner_lr: float = setting(0.01, gt=0, le=10)
    steps: int = setting(1, ge=1, le=100)  # on a task's support, at the factory
    tasks: int = setting(4, ge=1, le=1000)  # tasks of a step of the start
    shots: int = setting(2, ge=1, le=1000)  # support images of a class, at the factory
    queries: int = setting(10, ge=1, le=1000)  # query images of a class
    # of the budget that Fine-tuning's body takes, from which the start is then trained (as
    # Meta-Dataset's Proto-MAML is); 0 = from random weights
    class_share: float = setting(0.0, ge=0, le=0.99)
    client_steps: int = setting(100, ge=0, le=10_000)  # on the whole shard
    client_lr: float = setting(0.01, gt=0, le=10)  # of these steps
    client_momentum: float = setting(0.9, ge=0, le=0.9999)


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

    def features(self, params: Params, x: Tensor) -> Tensor:
        """Of images, (B, D), in the precision of the parameters."""
        body = {f"network.{n}": p for n, p in params.items() if not n.startswith("head.")}
        features = functional_call(BackboneFeatures(self.network), body, (x,))
        return features.to(params["head.weight"].dtype)

    def logits(self, params: Params, x: Tensor) -> Tensor:
        features = self.features(params, x)
        # Not in bf16: Proto-MAML's are small differences of numbers in the hundreds.
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features, params["head.weight"], params["head.bias"])

    def start(self, params: Params, x: Tensor, y: Tensor) -> Params:
        """The parameters before the first step."""
        if not self.prototypes:
            return params
        features = self.features(params, x)
        with torch.autocast(features.device.type, enabled=False):
            weight, bias = prototype_layer(class_means(features, y, len(params["head.bias"])))
        return {**params, "head.weight": weight, "head.bias": bias}

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


def prototype_layer(means: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (ways, D) and bias (ways,) of the linear layer that is a prototypical network."""
    return 2 * means, -means.pow(2).sum(1)


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

    def head(features: int, generator: torch.Generator) -> nn.Linear:
        return linear_head(features, ways, generator)

    first = int(factory.budget * settings.class_share)
    if first:
        network = train_on_classes(replace(factory, settings=SupervisedSettings()), first)
        network.head = head(network.feature_count, factory.generator("head"))
    else:
        network = draw(factory, head)
    network = with_support_norms(network).to(factory.images.device)
    learner = Learner(network, prototypes=prototypes)

    episodes = Episodes(factory, ways, shots, queries)

    def draw_tasks(step: int) -> Drawn:
        drawn = [episodes.draw(step * tasks + number) for number in range(tasks)]
        positions, draws = zip(*drawn, strict=True)
        return torch.cat(positions), torch.cat(draws)

    def backward(positions: Tensor, draws: Tensor) -> Tensor:
        total = torch.zeros((), device=positions.device)
        for each in zip(positions.chunk(tasks), draws.chunk(tasks), strict=True):
            task = episodes.lay_out(*each)
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
            total += loss.detach()
        for parameter in learner.parameters.values():
            if parameter.grad is None:  # Proto-MAML has no use for the head that it starts from
                parameter.grad = torch.zeros_like(parameter)
        return total

    left = factory.budget - first
    steps = max(1, left // (tasks * passes(settings, ways, prototypes=prototypes)))
    # Not recorded: whether graphs take gradients of gradients was never tried on a GPU.
    run_steps(factory, network, draw_tasks, backward, steps, settings.lr, number=1, static=False)
    return payload_of(factory, network, head=not prototypes, ways=ways)


class OnSupport(Transferred):
    """A network whose norms take the support images' statistics, anew whenever it is tested.

    Args:
        support: these images, (N, C, H, W).
    """

    def __init__(self, body: nn.Module, head: nn.Module, support: Tensor) -> None:
        super().__init__(body, head)
        self.support = support

    def train(self, mode: bool = True) -> OnSupport:
        super().train(mode)
        set_mode(self, "batch" if mode else "store")
        if not mode:
            with torch.no_grad():
                self.top(self.support)
            set_mode(self, "use")
        return self


def adapt(context: ClientContext, *, prototypes: bool = False) -> Outcome:
    """Gradient descent on the whole shard at once, as the start was trained for.

    With momentum, a rate of its own, shifted and mirrored views, as every method that trains here:
    plain steps at the factory's rate left 9 points of scratch's recipe on the table. A step is a
    pass over the shard, so the curves count epochs.
    """
    settings: MetaSettings = context.settings
    shard = context.shard
    if context.card["ways"] != shard.ways:
        raise ValueError(f"trained for {context.card['ways']} ways, the shard has {shard.ways}")

    def linear(features: int, generator: torch.Generator) -> nn.Linear:
        return linear_head(features, shard.ways, generator)

    body = rebuild(context, None if prototypes else linear, change=with_support_norms)
    head, body.head = body.head, nn.Identity()
    views, labels = shard_views(shard)
    network = OnSupport(body, head, views)
    if prototypes:
        head = linear(body.feature_count, context.generator("head")).to(context.device)
        means = class_means(features(network, views), labels, shard.ways)
        weight, bias = prototype_layer(means)
        head.load_state_dict({"weight": weight, "bias": bias})
        network.head = head
    training = replace(
        context.individual,
        epochs=settings.client_steps,
        batch_size=len(shard.train_x),
        lr=settings.client_lr,
        inherited_lr=settings.client_lr,
        momentum=settings.client_momentum,
    )
    return train(network, shard, training, context.generator("training"), freeze_norms=False)


def method(settings: type[MetaSettings], *, second: bool, prototypes: bool = False) -> Method:
    """A method of the family; see ``pretrain``."""
    return Method(
        partial(adapt, prototypes=prototypes),
        partial(pretrain, second=second, prototypes=prototypes),
        settings=settings,
        body=body_of,
        epochs_setting="client_steps",
        depends_on_ways=True,
        revision=1,
    )
