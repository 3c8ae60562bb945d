"""The MAML family: gradients against finite differences, norms against their definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from learngene.methods import find
from learngene.methods.common import meta
from learngene.methods.common.head import linear_head
from learngene.methods.common.meta import Learner, meta_loss
from learngene.methods.common.support_norm import SupportNorm, set_mode, with_support_norms
from tests.clients.helpers import make_individual
from tests.helpers import torch_rng
from tests.learngene.methods.helpers import make_factory


class Tiny(nn.Module):
    """A convolution with a norm, and a linear head: smooth, so that differences are exact."""

    def __init__(self, ways: int = 3) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3, bias=False), SupportNorm(2)
        self.head = nn.Linear(2, ways)

    def features(self, x):
        return torch.tanh(self.norm(self.conv(x))).mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture
def case():
    drawn = torch_rng(4)
    network = Tiny().double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.7 * torch.randn(p.shape, generator=drawn, dtype=torch.float64))
    y = torch.arange(3).repeat(2)
    support = torch.randn(6, 1, 5, 5, generator=drawn, dtype=torch.float64)
    query = torch.randn(6, 1, 5, 5, generator=drawn, dtype=torch.float64)
    return network, (support, y), (query, y)


def loss_of(learner, params, support, query, second=True):
    return meta_loss(learner, params, support, query, steps=2, lr=0.3, second=second)


@pytest.mark.parametrize("prototypes", [False, True])
def test_the_meta_gradient_is_that_of_finite_differences(case, prototypes):
    network, support, query = case
    learner = Learner(network, prototypes=prototypes)
    loss_of(learner, learner.parameters, support, query).backward()
    step = 1e-6
    for name, p in learner.parameters.items():
        if prototypes and name.startswith("head."):
            assert p.grad is None  # it starts anew from the class means
            continue
        for place in range(p.numel()):
            ends = []
            for sign in (1, -1):
                moved = {n: v.detach().clone() for n, v in learner.parameters.items()}
                moved[name].view(-1)[place] += sign * step
                ends.append(float(loss_of(learner, moved, support, query)))
            slope = (ends[0] - ends[1]) / (2 * step)
            assert float(p.grad.view(-1)[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_first_order_is_the_gradient_where_the_steps_end(case):
    network, support, query = case
    learner = Learner(network, prototypes=False)
    loss_of(learner, learner.parameters, support, query, second=False).backward()
    fast = learner.parameters
    for _ in range(2):  # plain gradient descent, written out
        at = {n: v.detach().requires_grad_(True) for n, v in fast.items()}
        cost = F.cross_entropy(learner.logits(at, support[0]), support[1])
        slopes = torch.autograd.grad(cost, list(at.values()))
        fast = {n: v - 0.3 * g for (n, v), g in zip(at.items(), slopes, strict=True)}
    at = {n: v.detach().requires_grad_(True) for n, v in fast.items()}
    cost = F.cross_entropy(learner.answer(at, support[0], query[0]), query[1])
    for (name, p), g in zip(
        learner.parameters.items(), torch.autograd.grad(cost, list(at.values())), strict=True
    ):
        assert torch.allclose(p.grad, g, atol=1e-10), name


@pytest.mark.parametrize("prototypes", [False, True])
def test_in_bf16_the_layers_are_and_the_head_is_not(case, prototypes):
    """Proto-MAML's logits are small differences of large numbers, which bf16 has not."""
    network, (x, y), (query, _) = case
    network, x, query = network.float(), x.float(), 30 * query.float()
    learner = Learner(network, prototypes=prototypes)
    with torch.autocast("cpu", torch.bfloat16):
        params = learner.start(learner.parameters, x, y)
        params = learner.step(params, x, y, 0.1, second=False)
        features, said = learner.features(params, query), learner.logits(params, query)
    weight, bias = params["head.weight"], params["head.bias"]
    assert weight.dtype == said.dtype == torch.float32
    assert torch.allclose(said, features @ weight.T + bias, rtol=1e-5)


def test_orders_differ(case):
    network, support, query = case
    learner = Learner(network, prototypes=False)
    found = []
    for second in (True, False):
        network.zero_grad()
        loss_of(learner, learner.parameters, support, query, second=second).backward()
        found.append(network.conv.weight.grad.clone())
    assert not torch.allclose(*found, rtol=1e-3)


def test_proto_maml_starts_as_a_prototypical_network(case):
    network, (x, y), (query, _) = case
    learner = Learner(network, prototypes=True)
    with torch.no_grad():
        params = learner.start(learner.parameters, x, y)
        said = learner.answer(params, x, query)
        set_mode(network, "use")  # what ``answer`` took from the support
        means = torch.stack([network.features(x)[y == c].mean(0) for c in range(3)])
        far = torch.cdist(network.features(query), means).pow(2)
    assert torch.allclose(said.log_softmax(1), (-far).log_softmax(1), atol=1e-10)


def test_a_query_image_does_not_depend_on_its_company(case):
    network, support, (query, _) = case
    learner = Learner(network, prototypes=False)
    with torch.no_grad():
        together = learner.answer(learner.parameters, support[0], query)
        alone = learner.answer(learner.parameters, support[0], query[:1])
    assert torch.allclose(together[:1], alone, atol=1e-12)


def test_the_norm_is_batchnorms_on_the_images_that_it_was_taken_from():
    x = torch.randn(4, 3, 5, 5, generator=torch_rng(5))
    norm, plain = SupportNorm(3), nn.BatchNorm2d(3)
    for mode in ("batch", "store", "use"):
        norm.mode = mode
        assert torch.allclose(norm(x), plain(x), atol=1e-5)


def test_a_norm_that_saw_no_support_says_so():
    norm = SupportNorm(3)
    norm.mode = "use"
    with pytest.raises(AssertionError, match="no support"):
        norm(torch.zeros(1, 3, 2, 2))


def test_a_mode_that_there_is_not_is_refused():
    norm = SupportNorm(3)
    with pytest.raises(ValueError, match=r"mode 'take'.*batch, store, use"):
        set_mode(norm, "take")
    assert norm.mode == "batch"


@pytest.mark.parametrize(
    ("name", "second", "prototypes"),
    [("maml", True, False), ("fomaml", False, False), ("proto_maml", True, True)],
)
def test_the_inner_steps_at_the_factory_are_the_settings(
    tiny_dataset, monkeypatch, name, second, prototypes
):
    seen: set[tuple[int, float, bool, bool]] = set()

    def spy(learner, params, support, query, *, steps, lr, second):
        seen.add((steps, lr, second, learner.prototypes))
        return 0 * sum(p.sum() for p in params.values())

    monkeypatch.setattr(meta, "meta_loss", spy)
    find(name).pretrain(make_factory(name, tiny_dataset, steps=3, inner_lr=0.07))
    assert seen == {(3, 0.07, second, prototypes)}


def test_every_norm_is_replaced():
    made = with_support_norms(make_individual())
    norms = [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 7
    assert all(isinstance(m, SupportNorm) for m in norms)


def test_in_bfloat16_the_meta_gradient_points_the_same_way_and_no_step_remembers_another():
    drawn = torch_rng(6)
    network = with_support_norms(make_individual())
    network.head = linear_head(network.feature_count, 3, drawn)
    support = torch.randn(12, 3, 32, 32, generator=drawn), torch.arange(3).repeat(4)
    query = torch.randn(12, 3, 32, 32, generator=drawn), torch.arange(3).repeat(4)
    found = []
    for narrow in (False, True, True):  # twice: nothing of a step may be kept for the next
        network.zero_grad()
        learner = Learner(network, prototypes=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow, cache_enabled=False):
            loss = meta_loss(learner, learner.parameters, support, query,
                             steps=2, lr=0.01, second=True)  # fmt: skip
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in learner.parameters.values()]))
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[0], found[1])
    assert F.cosine_similarity(found[0], found[1], dim=0) > 0.8
