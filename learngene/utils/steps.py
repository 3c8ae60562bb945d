"""Training steps on a GPU: recorded once and replayed, and no word back to Python on the way.

A step of these networks is some hundreds of kernels of a few microseconds each: launched one by one
from Python they keep a GPU waiting nine tenths of the time at small batches. A CUDA graph
(``torch.cuda.graphs``) launches all of them at once. What is recorded reads fixed buffers and
must neither wait for the device nor decide anything by a number on it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from learngene.errors import InputError

WARM_UP = 3  # steps before the recording: in them libraries choose kernels and allocate


def steps_to_a_look(device: torch.device) -> int:
    """After how many steps the loss is looked at, for finiteness and for who watches: each look
    waits for the device, where it is not the CPU itself."""
    return 10 if device.type == "cpu" else 100


class StaticStep:
    """A step on fixed buffers: its inputs are copied into them and the same work is done again.

    Args:
        work: takes tensors; their shapes are those of the first call.
    """

    def __init__(self, work: Callable[..., None]) -> None:
        self._work = work
        self._buffers: tuple[Tensor, ...] = ()
        self._replay: Callable[[], None] | None = None
        self._done = 0

    def __call__(self, *inputs: Tensor) -> None:
        if not self._buffers:
            self._buffers = tuple(each.clone() for each in inputs)
        for buffer, each in zip(self._buffers, inputs, strict=True):
            if buffer.shape != each.shape:  # ``copy_`` would broadcast it
                raise ValueError(f"a step of {tuple(buffer.shape)} was given {tuple(each.shape)}")
            buffer.copy_(each)
        if self._done < WARM_UP:
            self._warm_up()
        else:
            self._replay = self._replay or self._record()
            self._replay()
        self._done += 1

    def _run(self) -> None:
        self._work(*self._buffers)

    def _warm_up(self) -> None:
        self._run()

    def _record(self) -> Callable[[], None]:
        """What does the work again; recording by itself does none of it."""
        return self._run


class CapturedStep(StaticStep):
    """The same as a CUDA graph; its first steps are taken as they come."""

    def _warm_up(self) -> None:
        beside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This instance was constructed with capt")
            self._run()
        here.wait_stream(beside)

    def _record(self) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._run()
        except RuntimeError as error:
            problem = f"a step cannot be recorded: {' '.join(str(error).split())[:200]}"
            raise InputError("collective.capture", "auto", problem, "Write off") from error
        return graph.replay


StepForm = type[StaticStep]


def step_form(capture: str, device: torch.device) -> StepForm | None:
    """How steps are taken under ``collective.capture``; None: as they come."""
    return CapturedStep if capture == "auto" and device.type == "cuda" else None


def rate_options(lr: float, device: torch.device, form: StepForm | None) -> dict[str, Any]:
    """Arguments of an optimiser for steps of ``form``: its rate is a number in a buffer, which only
    fused optimisers read on the device."""
    return {"lr": lr} if form is None else {"lr": torch.tensor(lr, device=device), "fused": True}


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """The same rate for all groups, in their buffers where they have some."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


class LossSum:
    """The losses of a training, added up where they are computed."""

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, loss: Tensor, weight: float = 1.0) -> None:
        """Add ``weight`` times the loss, as Python's numbers would be added."""
        self._sum += loss.detach().double() * weight

    def total(self) -> float:
        """All that was added, finite or not. Waits for the device."""
        return float(self._sum)

    def mean(self, steps: int) -> float | None:
        """Over ``steps`` steps; None where a loss was not finite. Waits for the device."""
        total = self.total()
        return total / steps if math.isfinite(total) else None


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU on the device, without a wait for what it is doing."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
