"""Around each call of a method's code: whatever it sets in the process is set back afterwards.

The methods of a client share a process, and a method may come from elsewhere. Each is given values
of its own (``clients.work``); what is global, and what numbers hang on, is kept here. Python cannot
take back everything: a function of torch that was replaced stays so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as modules

from learngene.errors import Interruption
from learngene.seeding import global_chance

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]  # how it is read, how it is set


class MethodLeft(RuntimeError):
    """A method raised what ``except Exception`` lets through: SystemExit, or one of its own."""


def in_words(error: Exception) -> str:
    """``Type: message`` of what a method raised."""
    return str(error) if isinstance(error, MethodLeft) else f"{type(error).__name__}: {error}"


def _attribute(path: str) -> Setting:
    owner, _, name = path.rpartition(".")
    of = attrgetter(owner)(torch)
    return partial(getattr, of, name), partial(setattr, of, name)


def _default_device() -> torch.device | None:
    device = torch.get_default_device()
    return None if device.type == "cpu" else device  # torch's word for "nobody has set one"


def _flushes() -> bool:
    """Whether numbers below float32's normal range are taken for 0 (torch tells nobody)."""
    return not torch.full((), 1e-40, dtype=torch.float32, device="cpu").mul(1).item()


# Hooks on all modules, by kind; a library that watches activations forgets to take its own away.
_HOOKS = [
    each
    for name, each in vars(modules).items()
    if name.startswith("_global_") and isinstance(each, dict)
]


def _hang(hooks: list[dict[Any, Any]]) -> None:
    for kind, those in zip(_HOOKS, hooks, strict=True):
        kind.clear()
        kind.update(those)


# Attributes below torch, by their dotted names.
_ATTRIBUTES = (
    "utils.deterministic.fill_uninitialized_memory",
    *(f"backends.cudnn.{name}" for name in ("enabled", "benchmark", "deterministic")),
    *(f"backends.mkldnn.{name}" for name in ("enabled", "deterministic")),
    *(f"backends.opt_einsum.{name}" for name in ("enabled", "strategy")),
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_fp16_accumulation",
    # The wider one first: the others are read through it where they are not set themselves.
    "backends.fp32_precision",
    *(f"backends.mkldnn.{of}fp32_precision" for of in ("", "matmul.", "conv.", "rnn.")),
    *(f"backends.cudnn.{of}fp32_precision" for of in ("", "conv.", "rnn.")),
    "backends.cuda.matmul.fp32_precision",
)
# Grad mode, warning filters, NumPy's error handling and chance have context managers of their own.
_SETTINGS: tuple[Setting, ...] = (
    (_default_device, torch.set_default_device),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (_flushes, torch.set_flush_denormal),
    (lambda: [dict(kind) for kind in _HOOKS], _hang),
    *(
        (partial(get, kind), partial(put, kind))
        for kind in ("cpu", "cuda")
        for get, put in (
            (torch.is_autocast_enabled, torch.set_autocast_enabled),
            (torch.get_autocast_dtype, torch.set_autocast_dtype),
        )
    ),
    *map(_attribute, _ATTRIBUTES),
)


@contextmanager
def isolated(seed: int, phase: str, round: int = 0, client: int = 0) -> Iterator[None]:
    """Run a method's code; torch's state is afterwards what it was before.

    Args:
        seed, phase, round, client: what global generators are seeded with inside, so that a method
            which draws from them has equal draws in every process.

    Raises:
        MethodLeft: in the place of what ``except Exception`` lets through, unless the work is ended
            from outside (Ctrl-C, a time limit).
    """
    before = [read() for read, _ in _SETTINGS]
    try:
        with (
            global_chance(seed, phase, round, client),
            torch.inference_mode(False),  # keeps grad mode and the rest of autograd's state
            np.errstate(),
            warnings.catch_warnings(),
        ):
            yield
    except (Exception, KeyboardInterrupt, Interruption):
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        raise MethodLeft(said).with_traceback(error.__traceback__) from error
    finally:
        for (read, write), value in zip(_SETTINGS, before, strict=True):
            if read() != value:
                write(value)
