"""Steps on fixed buffers, optimisers whose rate is one, sums that are looked at now and then."""

from __future__ import annotations

import pytest
import torch

from learngene.errors import InputError
from learngene.utils.steps import (
    WARM_UP,
    CapturedStep,
    LossSum,
    StaticStep,
    rate_options,
    set_rate,
)
from tests.helpers import CPU


def test_a_static_step_does_its_work_on_what_it_is_given_last():
    seen: list[tuple[int, list[float]]] = []
    step = StaticStep(lambda x: seen.append((x.data_ptr(), x.tolist())))
    for number in range(WARM_UP + 3):
        step(torch.full((2,), float(number)))
    assert [values for _, values in seen] == [[float(n)] * 2 for n in range(WARM_UP + 3)]
    assert len({place for place, _ in seen}) == 1  # always the same buffer


def test_a_static_step_refuses_another_shape():
    step = StaticStep(lambda x: None)
    step(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"a step of \(2, 4\) was given \(1, 4\)"):
        step(torch.zeros(1, 4))


class FakeGraph:
    """A CUDA graph as far as Python sees it: recording runs the Python code, replaying does not."""

    recording = False
    broken = False

    def __init__(self) -> None:
        self.replays = 0
        made.append(self)

    def replay(self) -> None:
        self.replays += 1


class FakeRecording:
    def __init__(self, graph: FakeGraph, capture_error_mode: str) -> None:
        assert capture_error_mode == "thread_local"  # Flower's and Ray's threads go on

    def __enter__(self) -> None:
        FakeGraph.recording = True

    def __exit__(self, *error: object) -> None:
        FakeGraph.recording = False


class FakeStream:
    def wait_stream(self, other: FakeStream) -> None:
        waits.append((self, other))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


made: list[FakeGraph] = []
waits: list[tuple[FakeStream, FakeStream]] = []


@pytest.fixture
def cuda(monkeypatch):
    made.clear()
    waits.clear()
    here = FakeStream()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", FakeRecording)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: here)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    return here


def test_a_captured_step_is_recorded_once_after_its_warm_up(cuda):
    recorded: list[bool] = []
    step = CapturedStep(lambda x: recorded.append(FakeGraph.recording))
    for _ in range(WARM_UP + 4):
        step(torch.zeros(1))
    # Every step is taken once: the first by themselves, the others by the graph.
    assert recorded == [False] * WARM_UP + [True]
    assert [graph.replays for graph in made] == [4]
    assert len(waits) == 2 * WARM_UP  # a warm-up waits for what was before, what follows for it
    assert [pair.index(cuda) for pair in waits] == [1, 0] * WARM_UP


def test_what_cannot_be_recorded_names_the_setting(cuda):
    def work(x: torch.Tensor) -> None:
        if FakeGraph.recording:
            raise RuntimeError("operation not permitted when stream is capturing\nhint")

    step = CapturedStep(work)
    with pytest.raises(
        InputError, match=r"^collective\.capture=auto: .*capturing hint\. Write .*off"
    ):
        for _ in range(WARM_UP + 1):
            step(torch.zeros(1))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_rate_in_a_buffer_steers_as_a_number_does(kind):
    """Two steps at two rates, with momentum; the buffer stays the same tensor."""
    ends = []
    for form in (None, StaticStep):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        more = {"momentum": 0.9, "nesterov": True} if kind is torch.optim.SGD else {}
        optimiser = kind([weight], **rate_options(0.5, CPU, form), **more)
        buffer = optimiser.param_groups[0]["lr"]
        for rate in (0.1, 0.01):
            set_rate(optimiser, rate)
            weight.grad = weight.detach().square()
            optimiser.step()
        if form:
            assert optimiser.param_groups[0]["lr"] is buffer and float(buffer) == pytest.approx(
                0.01
            )
        ends.append(weight.detach().clone())
    assert torch.allclose(*ends, rtol=1e-5) and not torch.allclose(ends[0], torch.ones(3))


def test_a_sum_of_losses_says_whether_all_were_finite():
    losses = LossSum(CPU)
    for value in (1.0, 2.0, 6.0):
        losses.add(torch.tensor(value, requires_grad=True))
    assert losses.mean(3) == 3.0
    losses.add(torch.tensor(float("nan")))
    losses.add(torch.tensor(1.0))
    assert losses.mean(5) is None


def test_a_sum_of_losses_is_that_of_pythons_numbers_to_the_last_bit():
    values = torch.randn(200, generator=torch.Generator().manual_seed(0))
    losses, due = LossSum(CPU), 0.0
    for number, value in enumerate(values):
        losses.add(0.3 * value.double(), number)
        due += 0.3 * float(value) * number
    assert losses.total() == due
    losses.add(torch.tensor(float("inf")))
    assert losses.total() == float("inf") and losses.mean(1) is None
