"""The Fisher diagonal against closed forms and single-image loops; Eq. 8 by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.adaptation.retain import Retain, fisher_diagonal
from tests.helpers import shake, torch_rng


class Net(nn.Module):
    """Convolutions of every shape that the hooks have to unfold, norms, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.a_norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 5, 3, stride=2, padding=2, dilation=2)
        self.b_norm = nn.BatchNorm2d(5)
        self.c = nn.Conv2d(5, 4, 1)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.a_norm(self.a(x))), 2)
        x = F.relu(self.b_norm(self.b(x)))
        x = self.c(x).mean((2, 3))
        return self.out(self.drop(x))


@pytest.fixture
def net() -> Net:
    made = Net()
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=torch_rng(p.numel())) * 0.4)
    return shake(made)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(11, 3, 8, 8, generator=torch_rng(1))


def parts(net: Net) -> list[nn.Module]:
    return [net.a, net.a_norm, net.b, net.b_norm, net.c, net.out]


def one_by_one(net: Net, x: Tensor, labels: Tensor | None) -> list[Tensor]:
    """Eq. 7 as it is written: one image, one label, one backward pass at a time."""
    net.eval()
    parameters = [p for m in parts(net) for p in m.parameters()]
    sums = [torch.zeros_like(p) for p in parameters]
    for i in range(len(x)):
        log_p = F.log_softmax(net(x[i : i + 1]), dim=1)[0]
        asked = range(3) if labels is None else [int(labels[i])]
        for y in asked:
            weight = float(log_p[y].detach().exp()) if labels is None else 1.0
            grads = torch.autograd.grad(log_p[y], parameters, retain_graph=True)
            for total, gradient in zip(sums, grads, strict=True):
                total += weight * gradient**2 / len(x)
    return sums


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("channels_last", [False, True])
def test_equals_single_image_backward_passes(net, x, exact, channels_last):
    if channels_last:
        net, x = (part.to(memory_format=torch.channels_last) for part in (net, x))
    labels = None if exact else torch.randint(0, 3, (11,), generator=torch_rng(2))
    found = fisher_diagonal(net, parts(net), x, labels)
    due = one_by_one(net, x, labels)
    assert [f.shape for f in found] == [d.shape for d in due]
    for f, d in zip(found, due, strict=True):
        assert float(d.abs().max()) > 1e-5
        assert torch.allclose(f, d, rtol=1e-4, atol=1e-6)


def test_closed_form_of_a_softmax_classifier():
    """d log p(y) / dW = (onehot(y) - p) x^T: the expected square is p (1 - p) x^2."""
    linear = nn.Linear(2, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]]))
        linear.bias.copy_(torch.tensor([0.1, 0.0, -0.2]))
    x = torch.tensor([[1.0, 2.0], [-0.5, 0.3]])
    p = F.softmax(x @ linear.weight.T + linear.bias, 1).detach()
    model = nn.Sequential(linear)
    weight, bias = fisher_diagonal(model, [linear], x)
    # E_y[(1[y=k] - p_k)^2] = p_k (1 - p_k)
    spread = p * (1 - p)  # (2, 3)
    assert torch.allclose(weight, torch.einsum("nk,nd->kd", spread, x**2) / 2, atol=1e-7)
    assert torch.allclose(bias, spread.mean(0), atol=1e-7)

    true = torch.tensor([1, 2])
    weight, bias = fisher_diagonal(model, [linear], x, true)
    error = (F.one_hot(true, 3) - p) ** 2
    assert torch.allclose(weight, torch.einsum("nk,nd->kd", error, x**2) / 2, atol=1e-7)
    assert torch.allclose(bias, error.mean(0), atol=1e-7)


def test_logistic_model_in_numbers():
    """Two classes with logits (0, w x): at w = 0, x = 2 the Fisher of w is 1/4 * 4 = 1."""
    linear = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(linear.weight)
    (found,) = fisher_diagonal(nn.Sequential(linear), [linear], torch.tensor([[2.0]]))
    assert found.tolist() == [[pytest.approx(1.0)], [pytest.approx(1.0)]]


def test_the_square_is_each_images_and_not_the_batchs():
    """Two images whose gradients cancel: a batch gradient would give 0."""
    linear = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(linear.weight)
    x = torch.tensor([[1.0], [-1.0]])
    (found,) = fisher_diagonal(nn.Sequential(linear), [linear], x, torch.tensor([0, 0]))
    assert found.tolist() == [[pytest.approx(0.25)], [pytest.approx(0.25)]]


@pytest.mark.parametrize("size", [1, 4, 11, 64])
def test_the_batch_size_does_not_matter(net, x, size):
    found = fisher_diagonal(net, parts(net), x, batch_size=size)
    for f, d in zip(found, fisher_diagonal(net, parts(net), x, batch_size=3), strict=True):
        assert torch.allclose(f, d, rtol=1e-4, atol=1e-8)


def test_the_model_is_left_as_it_was(net, x):
    net.train()
    net.a_norm.eval()  # a frozen norm stays frozen
    modes = {name: module.training for name, module in net.named_modules()}
    state = {name: value.clone() for name, value in net.state_dict().items()}
    fisher_diagonal(net, parts(net), x)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert all(not module._forward_hooks for module in net.modules())


def test_an_error_on_the_way_also_leaves_it_as_it_was(net, x):
    net.train()
    with pytest.raises(RuntimeError):
        fisher_diagonal(net, parts(net), x[:, :2])
    assert net.training and all(not module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("part", [nn.Conv2d(4, 4, 3, groups=4), nn.LayerNorm(3)])
def test_other_modules_are_refused(net, x, part):
    with pytest.raises(TypeError, match="the Fisher diagonal is not defined here for"):
        fisher_diagonal(net, [part], x)


def numbers() -> tuple[nn.Parameter, nn.Parameter, list[Tensor]]:
    a, b = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([[3.0]]))
    return a, b, [torch.tensor([0.5, 2.0]), torch.tensor([[3.5]])]


def move(a: nn.Parameter, b: nn.Parameter) -> None:
    with torch.no_grad():
        a += torch.tensor([2.0, -1.0])
        b += 0.5


def test_eq_8_by_hand():
    a, b, fisher = numbers()
    retain = Retain([a, b], fisher, normalise=False)
    assert retain().item() == 0.0  # at the anchor
    move(a, b)
    # (0.5 * 4 + 2 * 1 + 3.5 * 0.25) / 2
    assert retain().item() == pytest.approx(2.4375)
    retain().backward()
    assert a.grad.tolist() == [0.5 * 2, 2 * -1]  # F (theta - theta*)
    assert b.grad.tolist() == [[3.5 * 0.5]]


def test_normalised_fisher_has_mean_one_and_says_what_it_was():
    a, b, fisher = numbers()
    retain = Retain([a, b], fisher, normalise=True)
    assert retain.fisher_mean == pytest.approx(2.0)
    assert [f.tolist() for f in retain.fisher] == [[0.25, 1.0], [[1.75]]]
    assert fisher[0].tolist() == [0.5, 2.0]  # the caller's is not touched
    move(a, b)
    assert retain().item() == pytest.approx(2.4375 / 2)
    assert Retain([a, b], fisher, normalise=False).fisher_mean == pytest.approx(2.0)


def test_a_fisher_of_zeros_has_no_scale():
    a, _, _ = numbers()
    with pytest.raises(ValueError, match="zero everywhere"):
        Retain([a], [torch.zeros(2)], normalise=True)
    assert Retain([a], [torch.zeros(2)], normalise=False)().item() == 0.0


def test_parameters_and_fisher_go_in_pairs():
    a, b, fisher = numbers()
    with pytest.raises(ValueError, match="shorter"):
        Retain([a, b], fisher[:1], normalise=False)()


def test_pull_is_the_proximal_step_by_hand():
    """theta* = 1, F = 3, now = 5, step 0.5: (5 + 1.5 * 1) / (1 + 1.5) = 2.6.

    Behind momentum 0.75 the same step is four times as long: (5 + 6 * 1) / (1 + 6) = 11 / 7.
    """
    theta = torch.nn.Parameter(torch.tensor([1.0]))
    retain = Retain([theta], [torch.tensor([3.0])], normalise=False)
    theta.data.fill_(5.0)
    retain.proximal_step(0.5, momentum=0.0)
    assert float(theta.detach()) == pytest.approx(2.6)
    theta.data.fill_(5.0)
    retain.proximal_step(0.5, momentum=0.75)
    assert float(theta.detach()) == pytest.approx(11 / 7)
    for _ in range(100):
        retain.proximal_step(1e9, momentum=0.0)
    assert float(theta.detach()) == pytest.approx(1.0)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("stiffness", [0.3, 3.0, 1e6])
def test_sgd_and_the_proximal_step_rest_at_the_minimum_of_eq_9(momentum, nesterov, stiffness):
    """L_rec = (theta - b)' A (theta - b) / 2, F diagonal: (A + lambda F) theta = A b + lambda F t.

    One step cannot tell: momentum has gathered nothing yet.
    """
    a = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])
    b, anchor = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.2, 0.1, 0.0])
    fisher = torch.tensor([1.0, 0.1, 2.0])
    theta = nn.Parameter(anchor.clone())
    retain = Retain([theta], [fisher], normalise=False)
    lr = 0.3 * (1 - momentum)
    optimiser = torch.optim.SGD([theta], lr=lr, momentum=momentum, nesterov=nesterov)
    for _ in range(200):
        optimiser.zero_grad()
        (0.5 * (theta - b) @ a @ (theta - b)).backward()
        optimiser.step()
        retain.proximal_step(lr * stiffness, momentum=momentum)
    held = stiffness * torch.diag(fisher)
    due = torch.linalg.solve(a + held, a @ b + held @ anchor)
    assert torch.allclose(theta.detach(), due, atol=1e-4)
