"""ProtoNet and MatchingNet against easyfsl, the earth mover's distance against known cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from easyfsl.methods import MatchingNetworks, PrototypicalNetworks
from torch import nn

from learngene.methods.deepemd import class_parts, flows, similarity
from learngene.methods.matchingnet import attend
from learngene.methods.protonet import class_means, nearness
from tests.helpers import torch_rng

WAYS, SHOTS, FEATURES = 4, 3, 6


@pytest.fixture
def data():
    drawn = torch_rng(1)
    support = torch.randn(WAYS * SHOTS, FEATURES, generator=drawn)
    queries = torch.randn(10, FEATURES, generator=drawn)
    order = torch.randperm(WAYS * SHOTS, generator=drawn)
    labels = torch.arange(WAYS).repeat_interleave(SHOTS)
    return support, labels[order], queries


def test_protonet_is_easyfsls(data):
    support, labels, queries = data
    theirs = PrototypicalNetworks(nn.Identity())
    theirs.process_support_set(support, labels)
    ours = nearness(queries, class_means(support, labels, WAYS))
    # easyfsl answers with the distance, the paper with its square
    assert torch.allclose(ours, -theirs(queries).pow(2), atol=1e-4)


class Nothing(nn.Module):
    """An LSTM that adds nothing: easyfsl's full-context embedding is then the embedding."""

    def forward(self, x, state=None):
        if state is None:
            return (torch.zeros(*x.shape[:2], 2 * x.shape[2]),)
        return torch.zeros_like(state[0]), state[1]


def test_matchingnet_is_easyfsls(data):
    support, labels, queries = data
    scale = 7.0
    theirs = MatchingNetworks(
        nn.Identity(), feature_dimension=FEATURES, support_encoder=Nothing(),
        query_encoder=Nothing(),
    )  # fmt: skip
    theirs.process_support_set(support, labels)
    # easyfsl leaves queries at their length, which then is the scale
    found = theirs(scale * F.normalize(queries))
    assert torch.allclose(attend(queries, support, labels, WAYS, scale), found, atol=1e-5)


def test_flows_of_a_case_that_can_be_solved_by_hand():
    """Two parts to two: what is alike is carried first, the rest goes where there is room."""
    alike = np.array([[[1.0, 0.0], [0.5, 0.25]]])
    found = flows(alike, np.array([[3.0, 1.0]]), np.array([[1.0, 1.0]]))
    # supply .75 .25, demand .5 .5: part 0 fills column 0, its rest and part 1 go to column 1
    assert np.allclose(found, [[[0.5, 0.25], [0.0, 0.25]]])


def test_flows_are_those_of_a_linear_programme():
    from scipy.optimize import linprog

    rng = np.random.default_rng(0)
    alike, supply, demand = rng.random((2, 3, 4)), rng.random((2, 3)), rng.random((2, 4))
    found = flows(alike, supply, demand)
    for i in range(2):
        a, b = supply[i] / supply[i].sum(), demand[i] / demand[i].sum()
        rows = [np.kron(np.eye(3)[r], np.ones(4)) for r in range(3)]
        columns = [np.kron(np.ones(3), np.eye(4)[c]) for c in range(4)]
        solved = linprog((1 - alike[i]).ravel(), A_eq=np.array(rows + columns),
                         b_eq=np.concatenate([a, b]))  # fmt: skip
        assert np.allclose(found[i].sum(1), a) and np.allclose(found[i].sum(0), b)
        assert ((1 - alike[i]) * found[i]).sum() == pytest.approx(solved.fun, abs=1e-9)


def test_an_image_is_nearest_to_itself_with_its_parts_moved_about():
    parts = torch.rand(3, 4, 8, generator=torch_rng(2))
    found = similarity(parts, parts[:, [2, 0, 3, 1]])
    assert torch.allclose(found.diag(), torch.ones(3), atol=1e-5)
    assert (found.argmax(1) == torch.arange(3)).all()


def test_the_gradient_holds_the_flows_still():
    drawn = torch_rng(3)
    queries = torch.rand(2, 3, 5, generator=drawn)
    classes = torch.rand(2, 3, 5, generator=drawn).requires_grad_(True)
    similarity(queries, classes)[0, 1].backward()
    assert classes.grad[0].abs().max() == 0 and classes.grad[1].abs().max() > 0
    assert torch.equal(class_parts(queries, torch.tensor([1, 0]), 2), queries[[1, 0]])


def test_parts_are_compared_less_the_mean_over_their_channels():
    """As the released DeepEMD does (``norm`` ``center``): a part and its opposite are 2 apart."""
    part = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3)
    opposite = 6.0 - part  # both are above 0, as behind a ReLU
    assert similarity(part, part + 5).item() == pytest.approx(1.0, abs=1e-6)
    assert similarity(part, opposite).item() == pytest.approx(-1.0, abs=1e-6)
