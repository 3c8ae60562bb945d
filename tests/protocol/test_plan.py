"""A round's plans: which prefix a client is sent, how it is declared and what it weighs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from learngene.adaptation.settings import IndividualSettings
from learngene.errors import InputError
from learngene.gene.card import read_card
from learngene.gene.gene import Learngene, check, extract
from learngene.gene.quantize import unpack
from learngene.gene.settings import PRECISIONS
from learngene.methods import Payload
from learngene.networks.collective import Collective
from learngene.networks.projection import Projection
from protocol.plan import bytes_by_depth, depths_taken, plan_round
from protocol.rounds import RoundPlan
from protocol.task import ClientTask
from runtime.serial_backend import SerialGrid
from strategies.answer_cache import cache_key_fields
from strategies.learngene import LearngeneStrategy
from tests.helpers import method_settings, torch_rng
from tests.protocol.helpers import client_task
from tests.runtime.fake_work import app


@pytest.fixture(scope="module")
def gene() -> Learngene:
    made = Collective((8,) * 13, 5, width=0.0625, generator=torch_rng())
    projections = [Projection(8 * 4 * 4, 4) for _ in range(4)]
    for projection in projections:
        projection.matrix.copy_(torch.randn(projection.matrix.shape, generator=torch_rng(1)))
    return extract(
        made, layers=range(1, 5), rho=[], source={}, image_side=32, projections=projections
    )


def task(methods: tuple[str, ...] = ("learngene", "scratch"), **individual: Any) -> ClientTask:
    asked = IndividualSettings(epochs=2, **individual)
    return client_task(methods=methods, individual=asked, method=method_settings())


def depths(plans: list[RoundPlan]) -> list[int]:
    return [len(plan.task.card["layers"]) for plan in plans]


@pytest.mark.parametrize(
    ("asked", "taken"), [(None, [4]), (2, [2]), ([2, 4, 2], [2, 4, 2]), ([1], [1])]
)
def test_a_client_is_sent_the_prefix_of_its_entry(gene, asked, taken):
    plans = plan_round(task(depth=asked), gene)
    assert depths(plans) == taken
    assert len({id(plan) for plan in plans}) == len(set(taken))  # one for all that take the same
    for plan, depth in zip(plans, taken, strict=True):
        due = gene.prefix(depth)
        assert plan.payloads["learngene"].keys() == due.arrays.keys()
        assert plan.task.card == due.card.for_client()
        assert plan.task.individual.depth is None  # what others take is nobody's business


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_budget_takes_the_deepest_prefix_that_fits(gene, precision):
    sizes = bytes_by_depth(gene, precision)
    assert list(sizes) == [1, 2, 3, 4] and list(sizes.values()) == sorted(sizes.values())
    for depth, size in sizes.items():
        budget = [size, size + 1, max(size - 1, sizes[1])]
        plans = plan_round(task(bytes=budget), gene, precision=precision)
        assert depths(plans) == [depth, depth, max(depth - 1, 1)]
    whole = plan_round(task(bytes=10**9), gene, precision=precision)
    assert depths(whole) == [4]
    card = read_card(whole[0].task.card, where="client")
    check(card, unpack(whole[0].payloads["learngene"]), where="client")


def test_what_is_counted_is_what_the_budget_is_for(gene):
    """By how much a message with the learngene is larger than one without: ``bytes_by_depth``."""
    plans = plan_round(task(depth=[1, 2, 3, 4]), gene, precision="int8")
    strategy, grid = LearngeneStrategy(4, lambda _: plans), SerialGrid(app, 4)
    messages = list(strategy.configure_train(1, None, None, grid))
    assert len(grid.push_messages(messages)) == 4
    for message in messages:
        strategy.pushed(message)
    done = strategy.finish_round()
    added = [c.bytes_by_method["learngene"].down - c.bytes_by_method["scratch"].down
             for c in done.clients]  # fmt: skip
    assert added == list(bytes_by_depth(gene, "int8").values())


def test_no_budget_is_too_small_without_a_word(gene):
    least = bytes_by_depth(gene, "fp32")[1]
    with pytest.raises(
        InputError, match=rf"individual.bytes={least - 1}: .*individual.bytes={least} o"
    ):
        plan_round(task(bytes=[10**6, least - 1]), gene)
    with pytest.raises(InputError, match=r"individual.depth=5: .*\[1, 2, 3, 4\]"):
        plan_round(task(depth=[4, 5]), gene)


def test_a_run_without_heirs_takes_none(gene):
    plans = plan_round(task(("scratch",), depth=[1, 9]), gene)
    assert len(plans) == 1 and plans[0].payloads == {}


def test_what_others_are_sent_is_packed_once(gene):
    payloads = {"protonet": Payload({"w": np.ones((30, 30), np.float32)}, {})}
    asked = task(("learngene", "protonet", "scratch"), depth=[1, 2])
    plans = plan_round(asked, gene, 1, payloads, payload_precision="int8")
    assert plans[0].payloads["protonet"] is plans[1].payloads["protonet"]


def test_an_answer_is_known_again_by_what_the_client_was_sent(gene):
    """A run in which all take 2 layers finds the answers of one in which some did."""

    def key(plan: RoundPlan) -> dict[str, Any]:
        return cache_key_fields(plan, 1, "w", {})

    some, (two,), (four,) = (plan_round(task(depth=asked), gene) for asked in ([2, 4], 2, None))
    assert key(some[0]) == key(two) and key(some[1]) == key(four) and key(two) != key(four)
    assert depths_taken(gene, replace(task().individual, depth=[3, 1]), "fp32") == [3, 1]
