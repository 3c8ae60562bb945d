"""A client's whole work on the tiny dataset: determinism, independence of methods, failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clients import work
from clients.client_app import pack as pack_answer
from clients.work import run_task
from learngene import methods
from learngene.adaptation.training import Outcome
from learngene.data.partition import draw_shard
from learngene.data.settings import DirichletPartition, ShardSettings
from learngene.gene.gene import Learngene, at_precision
from learngene.gene.quantize import pack, unpack
from learngene.methods.base import Method
from learngene.methods.scratch import Settings
from protocol.reply_schema import reply_schema
from tests.clients.helpers import make_task
from tests.helpers import gene_of


@pytest.fixture(scope="module")
def gene(evolved) -> Learngene:
    return gene_of(evolved.collective)


def numbers(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything that a method reports but its seconds."""
    return {
        name: {key: value for key, value in found.items() if key != "seconds"}
        for name, found in answer["methods"].items()
    }


def answer_of(dataset, gene: Learngene, client: int = 1, round: int = 0, **changed: Any) -> Any:
    task = make_task(dataset, gene, **changed)
    return run_task(client, round, task, {"learngene": gene.arrays})


def test_an_answer_tells_of_the_shard_and_of_both_methods(tiny_dataset, gene):
    answer = answer_of(tiny_dataset, gene)
    shard = draw_shard(tiny_dataset, ShardSettings(3, 5, seed=0), 1)
    assert answer["client"] == 1
    assert answer["info"]["classes"] == ",".join(str(c) for c in shard.classes)
    assert (answer["info"]["train_images"], answer["info"]["test_images"]) == (15, 18)
    assert list(answer["methods"]) == ["learngene", "scratch"]
    for found in answer["methods"].values():
        assert found["epochs"] == [0, 1, 2] and len(found["accuracy"]) == 3
        assert found["seconds"] > 0
    assert answer["methods"]["learngene"]["penalty"][-1] > 0
    assert answer["methods"]["learngene"]["fisher_mean"] > 0
    assert answer["methods"]["scratch"]["penalty"] == [0.0, 0.0, 0.0]


def test_clients_of_other_ways_shots_and_parts(tiny_dataset, gene):
    """Each answers of its own number of classes, in the one form that all were told."""
    task = make_task(tiny_dataset, gene, methods=["scratch"], individual__epochs=0)
    unequal = replace(task, ways=[2, 4], shots=[1, 2, 3])
    part = DirichletPartition(alpha=0.3, clients=3, min_images=4)
    divided = replace(task, ways=3, shots=5, partition=part, classes=5)  # 9 of each class
    for asked, images in ((unequal, [2, 8, 6]), (divided, None)):
        answers = [run_task(client, 1, asked, {}) for client in range(3)]
        held = [answer["info"]["train_images"] for answer in answers]
        ways = [len(answer["info"]["classes"].split(",")) for answer in answers]
        assert held == images or (sum(held) == 45 and min(held) >= 4 and images is None)
        assert ways == [2, 4, 2] or (images is None and min(ways) >= 2)
        for answer, count in zip(answers, ways, strict=True):
            assert answer["info"]["test_images"] == 6 * count  # all of its classes
            assert reply_schema(asked).problems(pack_answer(answer)) == []


def test_the_tasks_queries_are_the_clients_test_images(tiny_dataset, gene):
    task = make_task(tiny_dataset, gene, methods=["scratch"], individual__epochs=0)
    answer = run_task(0, 1, replace(task, queries=5), {})
    assert answer["info"]["test_images"] == 3 * 5  # of 18 images of each class


def test_the_same_call_twice_gives_the_same_bits(tiny_dataset, gene):
    first = numbers(answer_of(tiny_dataset, gene))
    torch.rand(11)
    assert numbers(answer_of(tiny_dataset, gene)) == first


def test_client_round_and_seed_count(tiny_dataset, gene):
    first = numbers(answer_of(tiny_dataset, gene))["scratch"]["loss"]
    for other in ({"client": 2}, {"round": 1}, {"seed": 1}):
        assert numbers(answer_of(tiny_dataset, gene, **other))["scratch"]["loss"] != first


def test_the_order_of_methods_and_their_company_change_nothing(tiny_dataset, gene):
    both = numbers(answer_of(tiny_dataset, gene))
    turned = numbers(answer_of(tiny_dataset, gene, methods=["scratch", "learngene"]))
    assert list(turned) == ["scratch", "learngene"] and turned == both
    for name in both:
        assert numbers(answer_of(tiny_dataset, gene, methods=[name])) == {name: both[name]}


@pytest.mark.parametrize("culprit", ["learngene", "scratch"])
def test_a_method_that_fails_leaves_the_other_its_numbers(tiny_dataset, gene, monkeypatch, culprit):
    whole, find = numbers(answer_of(tiny_dataset, gene)), methods.find

    def fail(context):
        torch.rand(5)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(
        work, "find", lambda name, plugin=None: Method(fail) if name == culprit else find(name)
    )
    found = numbers(answer_of(tiny_dataset, gene))
    (other,) = set(whole) - {culprit}
    assert found[culprit] == {"error": "RuntimeError: out of luck"}
    assert found[other] == whole[other]


def test_a_broken_learngene_is_the_methods_error(tiny_dataset, gene):
    broken = dict(gene.arrays)
    broken["top.0.conv.weight"] = broken["top.0.conv.weight"] + 1
    answer = run_task(4, 0, make_task(tiny_dataset, gene), {"learngene": broken})
    error = answer["methods"]["learngene"]["error"]
    assert error.startswith("InputError: learngene.path=client 4: the sha256")
    assert answer["methods"]["scratch"]["accuracy"]


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(("flip", "asked"), [(True, True), (True, False), (False, True)])
def test_every_method_is_tested_on_mirror_images_where_they_are_allowed(
    tiny_dataset, gene, monkeypatch, flip, asked, moved
):
    monkeypatch.setattr(work, "load", lambda path: replace(tiny_dataset, flip=flip))
    shards = []

    def keep(context):
        shards.append(context.shard)
        return Outcome()

    monkeypatch.setattr(work, "find", lambda name, plugin=None: Method(keep, settings=Settings))
    asked_for = {"individual__mirror_test": asked, "individual__moved_views": moved}
    answer_of(tiny_dataset, gene, **asked_for)
    assert len(shards) == 2  # of both methods
    for shard in shards:
        images = len(shard.test_x) // shard.test_views
        whole, mirrored = 5 if moved else 1, flip and asked
        assert (shard.test_views, images) == (whole * (1 + mirrored), 18)
        assert (shard.moved, shard.flip) == (moved, flip)
        views = shard.test_x.split(images)
        for view, mirror in zip(views[:whole], views[whole:], strict=False):
            assert torch.equal(mirror, view.flip(3))
        for labels in shard.test_y.split(images):
            assert torch.equal(labels, shard.test_y[:images])


def test_an_unknown_method_is_its_own_error(tiny_dataset, gene):
    answer = answer_of(tiny_dataset, gene, methods=["nonesuch"])
    assert answer["methods"] == {"nonesuch": {"error": "KeyError: 'nonesuch'"}}


def test_a_packed_learngene_is_restored_and_adapts(tiny_dataset, gene):
    """What is sent in 8 bits gives a client the learngene of the card, and other numbers."""
    whole = numbers(answer_of(tiny_dataset, gene))
    sent, packed = at_precision(gene, "int8")
    found = numbers(run_task(1, 0, make_task(tiny_dataset, sent), {"learngene": packed}))
    assert found["scratch"] == whole["scratch"]
    assert "error" not in found["learngene"]
    assert found["learngene"]["loss"] != whole["learngene"]["loss"]
    restored = numbers(run_task(1, 0, make_task(tiny_dataset, sent), {"learngene": sent.arrays}))
    assert restored == found


def test_a_packed_payload_is_restored_before_its_method_sees_it(tiny_dataset, gene, monkeypatch):
    seen: dict[str, Any] = {}
    real = methods.find

    def find(name, plugin=None):
        def adapt(context):
            seen.update(context.payload)
            return real("scratch").adapt(context.as_scratch())

        return Method(adapt) if name == "finetune" else real(name)

    monkeypatch.setattr(work, "find", find)
    arrays = {"w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}
    sent = pack(arrays, "int8")
    answer = run_task(1, 0, make_task(tiny_dataset, gene, methods=["finetune"]), {"finetune": sent})
    assert "error" not in answer["methods"]["finetune"]
    assert list(seen) == ["w"] and seen["w"].dtype == np.float32
    assert np.array_equal(seen["w"], unpack(sent)["w"])
    torn = {"w": sent["w"]}  # without its scale: the method's own error, not the client's
    answer = run_task(1, 0, make_task(tiny_dataset, gene, methods=["finetune"]), {"finetune": torn})
    assert "w.scale" in answer["methods"]["finetune"]["error"]
