"""The two halves of a method, at the factory and at the client, and what travels between them.

A method module holds ``METHOD``, a value of class ``Method``, and a dataclass ``Settings`` with the
method's group of the configuration (``method.NAME``), ranges included. Its factory half is one of

- ``pretrain(factory) -> Payload``: trained on the factory's base images, within a budget;
- ``from_collective(collective) -> Payload``: read off the finished collective;
- neither: nothing is sent (scratch), or the learngene itself (``server.factory`` makes it).

Its client half is ``adapt(context) -> Outcome``: payload and shard in, curves out. A method that is
trained among the clients has ``update(context) -> Update``, too: its part in a federated round.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.adaptation.training import Outcome, Training
from learngene.data.augment import draw_views, views
from learngene.data.dataset import ImageDataset
from learngene.data.device_images import DeviceImages
from learngene.data.partition import ShardData
from learngene.gene.card import ARRAYS_LIMIT
from learngene.networks.collective import Collective
from learngene.networks.individual import Individual
from learngene.seeding import generator, torch_generator
from learngene.utils.steps import StepForm, to_device

if TYPE_CHECKING:
    from learngene.methods.scratch import Settings as ScratchSettings

CARD_LIMIT = 16_384  # characters of a payload's card as JSON; a task has room for 65,536 in all


@dataclass(frozen=True)
class Payload:
    """What a client is sent for a method: named float32 arrays, and a few words in plain JSON."""

    arrays: dict[str, np.ndarray]
    card: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Of the arrays, without names and framing."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def parameters(self) -> int:
        """Numbers in the arrays."""
        return sum(array.size for array in self.arrays.values())

    def check(self) -> None:
        """Hold the payload against what may be kept and sent.

        Raises:
            TypeError, ValueError: it is larger, of other types, or not finite.
        """
        for name, array in self.arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                kind = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"{name} of the payload is {kind}, a float32 array is due")
        if self.bytes > ARRAYS_LIMIT:
            size = f"the payload has {self.bytes:,} bytes of arrays"
            raise ValueError(f"{size}, at most {ARRAYS_LIMIT:,} are kept and sent")
        if not all(np.isfinite(array).all() for array in self.arrays.values()):
            raise ValueError("the payload holds numbers that are not finite")
        if (length := len(json.dumps(self.card, allow_nan=False))) > CARD_LIMIT:
            size = f"the payload's card has {length:,} characters"
            raise ValueError(f"{size} of JSON, at most {CARD_LIMIT:,} are sent")


@dataclass(frozen=True)
class BaseImages:
    """The factory's labelled images: those that the collective is trained on, and no others."""

    dataset: ImageDataset
    rows: tuple[np.ndarray, ...]  # of the training images of each base class
    device: torch.device
    side: int | None = None  # of the training crops in pixels, as the collective's
    zoom: float = 1.0  # smallest side of a crop as a share of the image, as the collective's

    @property
    def classes(self) -> int:
        """How many base classes there are."""
        return len(self.rows)

    @cached_property
    def _images(self) -> DeviceImages:
        return DeviceImages(self.dataset.train_images, np.concatenate(self.rows), self.device)

    def draw(self, positions: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What ``batch`` takes, on the device: positions (B,) and the draws of their views.

        Args:
            positions: of images, as they lie class by class: 0 is the first of class 0.
        """
        drawn = draw_views(len(positions), generator)
        return to_device(torch.from_numpy(positions), self.device), to_device(drawn, self.device)

    def batch(self, positions: Tensor, draws: Tensor) -> Tensor:  # (B, C, side, side)
        """Augmented images, as the collective sees them."""
        x = self._images[positions]
        return views(x, draws, flip=self.dataset.flip, side=self.side, zoom=self.zoom)


Progress = Callable[[int, int, float], None]  # steps done, steps in all, mean loss


@dataclass(frozen=True)
class Factory:
    """What a method may use before any client is known."""

    name: str
    images: BaseImages
    settings: Any  # the method's: an object of its ``Settings``
    budget: int  # image passes: an image that goes forward and backward once is one
    ways: int  # classes of a client's task
    width: float
    seed: int
    bf16: bool  # convolutions in bfloat16, where the collective computes so, too
    block: str = "plain"  # what the backbone's layers are, as the collective's (``layers.BLOCKS``)
    step_form: StepForm | None = None  # how steps that can be recorded are taken
    # Half-done work, as it was last kept, and where to keep it (tensors, plain JSON).
    checkpoint: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    keep: Callable[[dict[str, Tensor], dict[str, Any]], None] = lambda state, card: None
    progress: Progress = lambda done, steps, loss: None

    def generator(self, phase: str, step: int = 0) -> torch.Generator:
        """Torch's draws of this method's ``phase``, equal for equal steps."""
        return torch_generator(self.seed, f"pretrain-{self.name}-{phase}", round=step)

    def order(self, phase: str, step: int = 0) -> np.random.Generator:
        """The same of NumPy."""
        return generator(self.seed, f"pretrain-{self.name}-{phase}", round=step)

    def autocast(self, cache: bool = True) -> AbstractContextManager:
        """Convolutions in bfloat16 where ``bf16`` says so. ``cache`` keeps a weight's narrow copy
        for the next use; ``torch.func`` wraps weights anew at every step and must not meet one."""
        kind = self.images.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.bf16, cache_enabled=cache)


@dataclass(frozen=True)
class ClientContext:
    """What a method may use at a client: no other client's shard, no other method's work."""

    settings: Any  # the method's: an object of its ``Settings``; a plugin without one gets a dict
    payload: dict[str, np.ndarray]
    shard: ShardData
    device: torch.device
    client: int
    round: int
    seed: int
    generator: Callable[[str], torch.Generator]  # by phase; equal phases give equal draws
    individual: IndividualSettings  # epochs, batches and augmentation that all methods share
    retain: RetainSettings
    card: dict[str, Any] = field(default_factory=dict)  # the payload's; the learngene's own one
    # What scratch is built by; a federated round, in which it has no part, does without.
    scratch: ScratchSettings | None = None
    width: float = 1.0  # of the backbone
    block: str = "plain"  # what its layers are
    # What ``Method.private`` keeps here, by name, as the last federated round left it; empty: there
    # was none with this client yet.
    private: dict[str, np.ndarray] = field(default_factory=dict)
    # Is handed every individual that was trained; the last one is what the outcome is of.
    keep: Callable[[Individual], None] = lambda individual: None

    def as_scratch(self) -> ClientContext:
        """The same client with the settings and draws of scratch, and without a payload."""
        drawn = generators(self.seed, "scratch", self.round, self.client)
        return replace(self, settings=self.scratch, payload={}, card={}, generator=drawn)


@dataclass(frozen=True)
class Update:
    """What a client sends up in a federated round: weights, and what they were trained on."""

    arrays: dict[str, np.ndarray]  # float32
    images: int
    loss: float  # mean over the local training
    seconds: float
    private: dict[str, np.ndarray] = field(default_factory=dict)  # float32; stays at the client

    def metrics(self) -> dict[str, float | int]:
        """What is told beside the weights: a number of images, nats an image, seconds."""
        return {"images": self.images, "loss": self.loss, "seconds": self.seconds}


def generators(seed: int, method: str, round: int, client: int) -> Callable[[str], torch.Generator]:
    """A method's generators at a client, by phase."""
    return lambda phase: torch_generator(seed, f"client-{method}-{phase}", round, client)


@dataclass(frozen=True, kw_only=True)
class ReplyForm:
    """What a method's answer holds: how long its curves are, and which further numbers."""

    # It answers without epochs (``backbone.evaluate_once``): one point, at epoch 0.
    training_free: bool = False
    # The method's own setting that says where its curves end; None: ``individual.epochs``.
    epochs_setting: str | None = None
    # Names in ``Outcome.extras`` beside ``train_accuracy``: others are not sent.
    extra_metrics: tuple[str, ...] = ()


# (a payload's card, channels of the images) -> the layers that images (B, C, H, W) go through to
# become features (B, D), not filled yet
Body = Callable[[Mapping[str, Any], int], nn.Module]


@dataclass(frozen=True)
class Private:
    """The part of a federated method's network that never leaves a client."""

    words: str  # what it is, in the report
    holds: Callable[[str], bool]  # whether an array of the network belongs to it, by name


def trained(training: Training, context: ClientContext) -> Outcome:
    """Run what a method's ``prepare`` has made, and hand its individual to who wants it."""
    outcome = training.run()
    context.keep(training.individual)
    return outcome


@dataclass(frozen=True)
class Method(ReplyForm):
    """The two halves of a method and its settings."""

    adapt: Callable[[ClientContext], Outcome]
    pretrain: Callable[[Factory], Payload] | None = None
    from_collective: Callable[[Collective], Payload] | None = None
    update: Callable[[ClientContext], Update] | None = None  # its part in a federated round
    private: Private | None = None  # of a federated method: what it does not share
    from_learngene: bool = False  # a federated method whose model begins as the learngene
    # All of ``adapt`` up to the first epoch, where ``adapt`` is that and the training (without
    # ``individual.safeguard``): many clients can then be trained together.
    prepare: Callable[[ClientContext], Training] | None = None
    body: Body | None = None  # what the factory trains, for a second row (``common.projected``)
    settings: type | None = None  # dataclass of ``method.NAME``; None: any names, unchecked
    depends_on_ways: bool = False  # the payload depends on the number of a client's classes
    inherits: bool = False  # it is sent the learngene, and asked again as the collective evolves
    # Raise it when what ``pretrain`` makes changes: kept payloads are others then.
    revision: int = 0

    def __post_init__(self) -> None:
        names = {f.name for f in fields(self.settings)} if self.settings else set()
        if self.epochs_setting is not None and self.epochs_setting not in names:
            raise ValueError(f"no setting is called {self.epochs_setting} (epochs_setting)")

    @property
    def trained_by(self) -> Literal["factory", "collective", "clients", "none"]:
        """Who makes what the client starts from, beside the learngene, which every run has."""
        if self.pretrain is not None:
            return "factory"
        if self.from_collective is not None:
            return "collective"
        return "none" if self.update is None else "clients"

    def settings_from(self, values: Mapping[str, Any]) -> Any:
        """The method's settings from plain values, as they travel."""
        return dict(values) if self.settings is None else self.settings(**values)
