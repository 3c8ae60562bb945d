"""A task's training as a GPU takes it: fixed buffers, the same numbers, no word to the CPU."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from learngene.collective import trainer as trainer_module
from learngene.utils.steps import StaticStep

CUDA = torch.device("cuda")


@pytest.mark.parametrize("memory", ["rehearsal", "ewc"])
def test_steps_on_fixed_buffers_learn_what_steps_as_they_come_learn(evolve, monkeypatch, memory):
    plain, static = (evolve(epochs=2, memory=memory, growth="none") for _ in range(2))
    with monkeypatch.context() as patched:  # the same optimiser: others round otherwise
        patched.setattr(
            trainer_module, "rate_options", lambda lr, device, form: {"lr": lr, "fused": True}
        )
        for _ in range(2):
            plain.run_task()
    made: list[StaticStep] = []

    def form(work):
        made.append(StaticStep(work))
        return made[-1]

    monkeypatch.setattr(trainer_module, "step_form", lambda capture, device: form)
    for _ in range(2):
        static.run_task()
    assert [step._done for step in made] == [6, 8 if memory == "rehearsal" else 6]
    assert all(step._replay is not None for step in made)  # from the fourth step on
    # EWC's own step is computed with a rate of float32, not of float64.
    rounding = {"rtol": 0.0, "atol": 1e-3 if memory == "ewc" else 0.0}
    for name, value in plain.collective.state_dict().items():
        assert torch.allclose(value, static.collective.state_dict()[name], **rounding), name
    for one, other in zip(plain.stages, static.stages, strict=True):
        assert one.image_passes == other.image_passes
        assert one.rho == pytest.approx(other.rho, rel=0, abs=rounding["atol"])


class Once(StaticStep):
    """Takes two steps, then ends the training."""

    def __call__(self, *inputs):
        assert all(each.is_cuda for each in inputs)
        super().__call__(*inputs)
        if self._done == 2:
            raise StopIteration


def test_a_step_on_a_gpu_waits_for_nothing_and_reads_nothing_of_the_cpu(evolve, monkeypatch):
    """Tensors without numbers that say they lie on a GPU: who asks one for its value, or mixes it
    with one of the CPU, gets an error."""
    life = evolve()
    life.run_task()
    sgd = torch.optim.SGD

    def make_sgd(groups, lr, **more):  # its constructor asks whether the rate is negative
        made = sgd(groups, lr=0.1, **more)
        for group in made.param_groups:
            group["lr"] = lr
        made.step = lambda: None  # fused kernels cannot do without numbers
        return made

    def backward(loss):  # autograd's own wants a driver
        assert loss.is_cuda
        for parameter in life.collective.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def enter(capture, device):  # after all that is prepared on the CPU
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        life.device, model = CUDA, life.collective
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for name, value in [pair for pair in held.items() if pair[1] is not None]:
                    moved = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
                    held[name] = torch.nn.Parameter(moved) if held is module._parameters else moved
        return Once

    def targets(teacher, rows):
        return torch.zeros(len(rows), len(life.known), device=CUDA)

    monkeypatch.setattr(torch.optim, "SGD", make_sgd)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(life, "_distillation_targets", targets)
    monkeypatch.setattr(trainer_module, "step_form", enter)
    with ExitStack() as stack, pytest.raises(StopIteration):
        life.run_task()


def test_on_a_cpu_and_where_it_is_off_nothing_is_recorded():
    form = trainer_module.step_form
    assert form("auto", torch.device("cpu")) is None and form("off", CUDA) is None
    assert form("auto", CUDA) is not None
