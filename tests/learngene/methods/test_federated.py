"""FedAvg and FedProx without Flower: the average by hand, the proximal term, who teaches whom."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from learngene import methods
from learngene.adaptation.settings import IndividualSettings
from learngene.methods import ClientContext, Payload, find
from learngene.methods.common.federated import (
    HEAD,
    Average,
    Merged,
    begin,
    finished,
    proximal,
    train_round,
)
from tests.clients.helpers import make_shard
from tests.helpers import torch_rng
from tests.learngene.methods.helpers import make_context

ROUND = IndividualSettings(
    epochs=2, lr=0.05, batch_size=8, momentum=0.9, weight_decay=0.0, augment=False
)


def averaged(before: dict[str, np.ndarray], *parts: Merged) -> dict[str, np.ndarray]:
    total = Average(before)
    for part in parts:
        total.add(part)
    return total.result()


def test_the_average_is_weighted_by_images():
    before = {"w": np.zeros(2, np.float32), "head.weight": np.full((3, 1), 9, np.float32),
              "head.bias": np.full(3, 9, np.float32)}  # fmt: skip
    one = Merged({"w": np.float32([1, 2]), "head.weight": np.float32([[1], [2]]),
                  "head.bias": np.float32([1, 2])}, 10, (2, 0))  # fmt: skip
    two = Merged({"w": np.float32([5, 0]), "head.weight": np.float32([[4]]),
                  "head.bias": np.float32([4])}, 30, (0,))  # fmt: skip
    after = averaged(before, one, two)
    assert after["w"].tolist() == [4.0, 0.5]  # (10·1 + 30·5)/40, (10·2 + 30·0)/40
    # Row 0 is held by both: (10·2 + 30·4)/40; nobody holds row 1; row 2 is the first's alone.
    assert after["head.weight"].tolist() == [[3.5], [9.0], [1.0]]
    assert after["head.bias"].tolist() == [3.5, 9.0, 1.0]
    assert {array.dtype for array in after.values()} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match="no client"):
        averaged(before)


def test_the_proximal_terms_gradient_is_mu_times_the_way_from_the_global_weights():
    drawn = torch_rng(1)
    w = [torch.randn(3, 2, generator=drawn, requires_grad=True), torch.ones(4, requires_grad=True)]
    anchor = [torch.randn(3, 2, generator=drawn), torch.zeros(4)]
    proximal(w, anchor, 0.3).backward()
    for p, a in zip(w, anchor, strict=True):
        assert torch.allclose(p.grad, 0.3 * (p.detach() - a))
    assert float(proximal(w[1:], anchor[1:], 0.5).detach()) == pytest.approx(0.5 * 0.5 * 4)


def moved(mu: float) -> float:
    """How far a small network goes in a round."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    train_round(network, make_shard(), ROUND, mu=mu, generator=torch_rng())
    return float(sum(p.detach().pow(2).sum() for p in network.parameters()))


def test_a_stiffer_proximal_term_stays_nearer_to_the_global_model():
    free, held, stiff = moved(0.0), moved(1.0), moved(10.0)
    assert free > held > stiff > 0


def start_of(dataset, ways: int = 3) -> Payload:
    return begin(5, {"width": 0.0625}, 3, dataset.class_split.novel, ways)


def context_of(dataset, payload: Payload, name: str = "fedavg", client: int = 0, round: int = 1,
               **changed: Any) -> ClientContext:  # fmt: skip
    made = make_context(name, dataset, payload, client, **changed)
    return replace(made, round=round)


def test_one_client_teaches_its_own_classes_and_no_others(tiny_dataset):
    start = start_of(tiny_dataset)
    context = context_of(tiny_dataset, start)
    made = find("fedavg").update(context)
    assert made.images == 15 and made.loss > 0
    assert {n: list(a.shape) for n, a in made.arrays.items()} == start.card["up"]
    rows = [start.card["classes"].index(c) for c in context.shard.classes]
    after = averaged(start.arrays, Merged(made.arrays, made.images, tuple(rows)))
    for name in HEAD:
        for row in range(len(start.card["classes"])):
            same = np.array_equal(after[name][row], start.arrays[name][row])
            assert same == (row not in rows), (name, row)
    assert not np.array_equal(after["stem.4.conv.weight"], start.arrays["stem.4.conv.weight"])
    assert not np.array_equal(
        after["stem.4.norm.running_var"], start.arrays["stem.4.norm.running_var"]
    )


def test_what_one_client_learns_of_a_class_another_that_holds_it_starts_from(tiny_dataset):
    """Two clients with the same classes in another order: rows go to the right classes."""
    start = start_of(tiny_dataset)
    first = context_of(tiny_dataset, start)
    classes = first.shard.classes
    made = find("fedavg").update(first)
    rows = tuple(start.card["classes"].index(c) for c in classes)
    taught = averaged(start.arrays, Merged(made.arrays, made.images, rows))
    turned = replace(first.shard, classes=classes[::-1], train_y=2 - first.shard.train_y,
                     test_y=2 - first.shard.test_y)  # fmt: skip
    second = replace(context_of(tiny_dataset, Payload(taught, start.card), round=2), shard=turned)
    again = replace(second, shard=first.shard)
    plain, other = find("fedavg").update(again), find("fedavg").update(second)
    assert other.loss == pytest.approx(plain.loss, rel=1e-4)
    untaught = find("fedavg").update(replace(second, payload={**taught, **_heads(start)}))
    assert other.loss < untaught.loss


def _heads(payload: Payload) -> dict[str, np.ndarray]:
    return {name: payload.arrays[name] for name in HEAD}


def test_fedprox_without_its_term_is_fedavg(tiny_dataset):
    start = start_of(tiny_dataset)
    plain = context_of(tiny_dataset, start)
    method = find("fedprox")
    same = replace(plain, settings=method.settings_from({**asdict(plain.settings), "mu": 0.0}))
    one, two = find("fedavg").update(plain), find("fedprox").update(same)
    assert all(np.array_equal(one.arrays[n], two.arrays[n]) for n in one.arrays)
    held = find("fedprox").update(replace(same, settings=replace(same.settings, mu=5.0)))
    assert not np.array_equal(one.arrays["stem.6.conv.weight"], held.arrays["stem.6.conv.weight"])


def test_norms_begin_as_scratchs_do_in_the_first_round_only(tiny_dataset, monkeypatch):
    measured: list[int] = []
    monkeypatch.setattr(
        "learngene.methods.common.federated.measure_norms", lambda *_: measured.append(1)
    )
    for number in (1, 2):
        find("fedavg").update(context_of(tiny_dataset, start_of(tiny_dataset), round=number))
    assert measured == [1]


def test_a_rounds_epochs_are_the_settings_and_its_rate_falls(tiny_dataset, monkeypatch):
    seen: list[tuple[int, float]] = []

    def spy(network, shard, asked, **more):
        seen.append((asked.epochs, asked.lr))
        return 1.0

    monkeypatch.setattr("learngene.methods.common.federated.train_round", spy)
    asked = {"local_epochs": 4, "rounds": 4, "lr": 0.2}
    for number in (1, 3):  # half a cosine over four rounds
        find("fedavg").update(
            context_of(tiny_dataset, start_of(tiny_dataset), round=number, **asked)
        )
    assert seen == [(4, pytest.approx(0.2)), (4, pytest.approx(0.1))]


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_in_the_end_a_client_is_sent_no_classifier_and_makes_its_own(tiny_dataset, name):
    payload = finished(start_of(tiny_dataset))
    assert not set(HEAD) & set(payload.arrays) and set(payload.card) == {"width"}
    outcome = methods.find(name).adapt(make_context(name, tiny_dataset, payload))
    assert outcome.epochs == [0, 1, 2] and all(0 <= each <= 1 for each in outcome.accuracy)
    frozen = methods.find(name).adapt(make_context(name, tiny_dataset, payload, client_body_lr=0.0))
    assert frozen.accuracy[0] == outcome.accuracy[0] and frozen.loss[-1] != outcome.loss[-1]


def test_an_array_that_did_not_come_is_not_drawn(tiny_dataset):
    start = start_of(tiny_dataset)
    lacking = {n: a for n, a in start.arrays.items() if n != "stem.4.conv.weight"}
    with pytest.raises(ValueError, match=r"stem\.4\.conv\.weight is missing"):
        find("fedavg").update(context_of(tiny_dataset, Payload(lacking, start.card)))
