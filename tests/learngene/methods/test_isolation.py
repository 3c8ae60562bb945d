"""Whatever a method's code sets in the process is set back, and it cannot leave unnoticed."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import backends, nn

from learngene.errors import Interruption
from learngene.methods.isolation import MethodLeft, in_words, isolated
from tests.helpers import torch_rng

LEAVES: dict[str, Callable[[], object]] = {
    "grad mode": lambda: torch.set_grad_enabled(False),
    "inference mode": lambda: torch.inference_mode().__enter__(),
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "threads": lambda: torch.set_num_threads(3),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "mkldnn": lambda: backends.mkldnn.set_flags(False),
    "bf16 products": lambda: torch.set_float32_matmul_precision("medium"),
    "bf16 convolutions": lambda: setattr(backends.mkldnn.conv, "fp32_precision", "bf16"),
    "no small numbers": lambda: torch.set_flush_denormal(True),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "hooks": lambda: nn.modules.module.register_module_forward_hook(lambda m, i, out: 0 * out),
    "torch's chance": lambda: torch.manual_seed(3),
    "NumPy's chance": lambda: np.random.seed(3),
    "Python's chance": lambda: random.seed(3),
    "NumPy's errors": lambda: np.seterr(all="raise"),
    "warnings": lambda: warnings.simplefilter("error"),
}


def seen() -> list[object]:
    """What a method that runs after another one has of the process."""
    drawn = torch_rng()
    x = torch.rand(64, 64, generator=drawn, dtype=torch.float32, device="cpu")
    with warnings.catch_warnings(record=True), np.errstate(**np.geterr()):
        warnings.warn("a word", UserWarning, stacklevel=1)
        divided = (np.float32([1.0]) / np.float32([0.0])).tolist()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    layer = nn.Linear(4, 4)
    picture = x.view(1, 1, 64, 64)
    return [
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch.get_default_device(), torch.get_num_threads(), torch.is_anomaly_enabled(),
        torch.are_deterministic_algorithms_enabled(), backends.mkldnn.enabled,
        torch.is_autocast_enabled("cpu"), bool(layer(torch.ones(4)).abs().sum()),
        (torch.full((), 1e-40) * 1).item(), (x @ x).sum().item(),
        torch.conv2d(picture, picture[..., :3, :3]).sum().item(), layer.weight.sum().item(),
        torch_state.sum().item(), numpy_state[1].tolist(), random.getstate(), divided,
    ]  # fmt: skip


@pytest.mark.parametrize("left", LEAVES)
@pytest.mark.filterwarnings("ignore")
def test_what_a_method_leaves_behind_is_taken_back(left: str) -> None:
    """``seen`` draws, so that it is called between equal states of the global generators."""

    def look() -> list[object]:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        try:
            return seen()
        finally:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])

    before = look()
    with isolated(0, "test"):
        LEAVES[left]()
    assert look() == before
    with pytest.raises(ZeroDivisionError), isolated(0, "test"):
        LEAVES[left]()
        raise ZeroDivisionError
    assert look() == before


def test_global_chance_inside_hangs_on_the_arguments_alone() -> None:
    def drawn(*of: object) -> list[float]:
        torch.rand(3)
        with isolated(*of):  # type: ignore[arg-type]
            return [torch.rand(()).item(), np.random.rand(), random.random()]

    first = drawn(0, "a", 1, 2)
    assert drawn(0, "a", 1, 2) == first
    for other in ((1, "a", 1, 2), (0, "b", 1, 2), (0, "a", 2, 2), (0, "a", 1, 3)):
        assert not set(drawn(*other)) & set(first)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there and is seeded")
def test_no_seed_is_put_by_for_a_gpu_that_is_not_there() -> None:
    put_by = len(torch.cuda._queued_calls)
    with isolated(0, "test"):
        pass
    assert len(torch.cuda._queued_calls) == put_by


class Own(BaseException):
    """What no ``except Exception`` catches."""


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(3), Own(3)])
def test_nothing_gets_past_except_exception(error: BaseException) -> None:
    with pytest.raises(MethodLeft) as found, isolated(0, "test"):
        raise error
    assert in_words(found.value) == f"{type(error).__name__}: 3"
    assert found.traceback[-1].name == "test_nothing_gets_past_except_exception"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interruption(), ValueError("no")])
def test_what_is_no_fault_of_the_method_is_let_through(error: BaseException) -> None:
    with pytest.raises(type(error)), isolated(0, "test"):
        raise error
    assert in_words(ValueError("no")) == "ValueError: no"
