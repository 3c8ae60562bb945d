"""Training among the clients through Flower: what may cross, who is left out, how it goes on."""

from __future__ import annotations

import csv
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord

from clients.client_app import app, pack
from clients.work import run_task
from learngene.data.settings import DataSettings
from learngene.methods.common.federated import Average, Merged
from protocol.keys import WEIGHTS
from protocol.messages import ByteCount
from protocol.plan import plan_federated_round
from protocol.reply_schema import reply_schema
from protocol.rounds import ClientOutcome
from reports.client_rows import client_rows
from reports.traffic import write_messages_csv
from runtime.federated_rounds import Federated, _start, run_federated_training
from runtime.serial_backend import SerialGrid
from strategies.fedavg import FederatedStrategy, Training, check_weights, head_rows
from tests.helpers import hooked
from tests.protocol.helpers import query_bytes
from tests.strategies.helpers import CLIENTS, ROUNDS, parts_of, same, train


def counted(found: Federated) -> list[tuple[Any, ...]]:
    return [
        (name, r.round, r.queries, query_bytes(r), len(r.who), r.bytes_down, r.bytes_up,
         [(c.client, c.info, c.sent) for c in r.clients])
        for name, rounds in found.rounds.items() for r in rounds
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_dataset) -> tuple[Path, Federated]:
    """Both methods, trained to the end without a disturbance."""
    cache = tmp_path_factory.mktemp("federated")
    return cache, train(cache, tiny_dataset, "fedavg", "fedprox")


def test_both_are_trained_and_every_byte_is_theirs(whole, tmp_path):
    _, found = whole
    assert set(found.payloads) == {"fedavg", "fedprox"} and not found.failed
    for name, rounds in found.rounds.items():
        assert [each.round for each in rounds] == [1, 2, 3]
        assert all(each.answered == CLIENTS for each in rounds)
        told = found.section["methods"][name]
        assert told["loss_by_round"][-1][1] < told["loss_by_round"][0][1]
        assert told["left_out"] == []
        weights = sum(np.prod(shape) for shape in up_of(rounds)) * 4
        assert 0 < rounds[0].clients[0].bytes_up - weights < 20_000  # names, framing
    answers = [answer(client) for client in range(CLIENTS)]
    rows = client_rows(answers, 4, [str(n) for n in range(30)], found.rounds)
    for row in rows:
        own = [r.clients[row["id"]] for r in found.rounds["fedavg"]]
        method = row["methods"]["fedavg"]
        assert method["bytes_up"] == 7 + sum(each.bytes_up for each in own)
        assert method["bytes_down"] == 100 + sum(each.bytes_down for each in own)
        assert method["seconds"] == pytest.approx(
            1 + sum(each.methods["fedavg"]["seconds"] for each in own)
        )
        assert row["methods"]["scratch"]["bytes_up"] == 7
    path = write_messages_csv([], tmp_path / "messages.csv", found.rounds)
    listed = list(csv.DictReader(path.read_text().splitlines()))
    for name in found.rounds:
        up = [r for r in listed if r["phase"] == name and r["record"] == f"weights.{name}"]
        assert {r["direction"] for r in up} == {"up"} and {r["kind"] for r in up} == {"array"}
        assert len({(r["client"], r["round"]) for r in up}) == CLIENTS * ROUNDS


def up_of(rounds: list[Any]) -> list[tuple[int, ...]]:
    held = [entry for entry in rounds[0].clients[0].sent if entry.kind == "array"]
    return [tuple(int(side) for side in entry.shape.split("x")) for entry in held]


def answer(client: int) -> ClientOutcome:
    metrics: dict[str, Any] = {"epochs": [0], "accuracy": [0.5], "loss": [1.0], "seconds": 1.0,
                               "train_loss": [1.0], "penalty": [0.0]}  # fmt: skip
    traffic = {name: ByteCount(100, 7) for name in ("scratch", "fedavg")}
    methods = {name: dict(metrics) for name in traffic}
    return ClientOutcome(client, True, methods, {"classes": "1"}, 100, 7, traffic)


def test_a_finished_training_is_found_with_all_that_it_sent(whole, tiny_dataset, monkeypatch):
    cache, first = whole
    monkeypatch.setattr("runtime.federated_rounds.simulate", None)  # nobody is asked
    again = train(cache, tiny_dataset, "fedavg", "fedprox")
    assert same(first, again) and counted(first) == counted(again)
    assert again.section == first.section


@pytest.mark.parametrize("stopped", [1, 2])
def test_a_killed_training_goes_on_and_ends_the_same(whole, tmp_path, tiny_dataset, stopped):
    def die(client: int, round: int, answer: dict[str, Any]) -> None:
        if (client, round) == (1, stopped + 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tiny_dataset, change=die)
    rounds: list[int] = []
    task, asked = parts_of(tmp_path, tiny_dataset)
    watch = hooked(on_round_end=lambda name, done, of: rounds.append(done))
    again = run_federated_training(
        task, ["fedavg"], tiny_dataset, {"width": 0.0625}, asked, callback=watch
    )
    assert rounds == list(range(stopped + 1, ROUNDS + 1))
    first = Federated(payloads={"fedavg": whole[1].payloads["fedavg"]},
                      rounds={"fedavg": whole[1].rounds["fedavg"]})  # fmt: skip
    assert same(first, again) and counted(first) == counted(again)


def test_other_settings_are_another_training(whole, tiny_dataset):
    cache, first = whole
    for more in ({"seed": 1}, {"num_clients": 2}, {"shots": 3}):
        assert not same(train(cache, tiny_dataset, **more), first), more


def test_a_client_that_fails_is_left_out_of_that_round_and_nothing_is_kept(tmp_path, tiny_dataset):
    def fail(client: int, round: int, answer: dict[str, Any]) -> None:
        if (client, round) == (1, 2):
            raise ValueError("battery empty")

    found = train(tmp_path, tiny_dataset, change=fail)
    (left,) = found.section["methods"]["fedavg"]["left_out"]
    assert (left["round"], left["client"]) == (2, 1) and "battery empty" in left["error"]
    assert "fedavg" in found.payloads
    assert [each.answered for each in found.rounds["fedavg"]] == [3, 2, 3]
    again = train(tmp_path, tiny_dataset)  # from the last round that all took part in
    assert again.section["methods"]["fedavg"]["left_out"] == []
    assert not same(found, again)


def test_where_nobody_answers_the_method_fails_and_the_next_goes_on(tmp_path, tiny_dataset):
    def fail(client: int, round: int, answer: dict[str, Any]) -> None:
        if "fedavg" in answer["methods"]:
            raise ValueError("no power")

    found = train(tmp_path, tiny_dataset, "fedavg", "fedprox", change=fail)
    assert set(found.failed) == {"fedavg"} == set(found.section["failed"])
    assert "federated round 1: no client answered" in found.failed["fedavg"]
    assert "no power" in found.failed["fedavg"]
    assert set(found.payloads) == {"fedprox"}


def spoil_nan(answer: dict[str, Any]) -> None:
    answer["arrays"]["fedavg"]["head.bias"][0] = np.nan


def spoil_shape(answer: dict[str, Any]) -> None:
    answer["arrays"]["fedavg"]["head.bias"] = np.zeros(4, np.float32)


def spoil_kind(answer: dict[str, Any]) -> None:
    answer["arrays"]["fedavg"]["head.bias"] = np.zeros(3, np.float64)


def spoil_image(answer: dict[str, Any]) -> None:
    answer["arrays"]["fedavg"]["image"] = np.zeros((32, 32, 3), np.uint8)


def spoil_missing(answer: dict[str, Any]) -> None:
    del answer["arrays"]["fedavg"]["head.bias"]


def spoil_none(answer: dict[str, Any]) -> None:
    del answer["arrays"]


def spoil_images(answer: dict[str, Any]) -> None:
    """In both places: a reply may agree with itself and be untrue."""
    answer["methods"]["fedavg"]["images"] = answer["info"]["train_images"] = 10**9


def spoil_held(answer: dict[str, Any]) -> None:
    answer["info"]["train_images"] = 11


def spoil_classes(answer: dict[str, Any]) -> None:
    answer["info"]["classes"] = ",".join([answer["info"]["classes"].split(",")[0]] * 3)


def spoil_fewer(answer: dict[str, Any]) -> None:
    answer["info"]["classes"] = answer["info"]["classes"].split(",")[0]


def spoil_loss(answer: dict[str, Any]) -> None:
    del answer["methods"]["fedavg"]["loss"]


SPOILED = {
    spoil_loss: "fedavg: loss is missing",
    spoil_nan: "head.bias holds numbers that are not finite",
    spoil_shape: "head.bias' is float32 [4], float32 [3] was declared",
    spoil_kind: "head.bias' is float64 [3], float32 [3] was declared",
    spoil_image: "array 'image' was not declared",
    spoil_missing: "lacks array 'head.bias'",
    spoil_none: "weights that cannot be used",
    spoil_images: "trained on 1000000000 images, 12 are held",
    spoil_held: "trained on 12 images, and says that it holds others",
    spoil_classes: "it names a class twice",
    spoil_fewer: "1 different classes, 3 are due",
}


def test_weights_that_were_not_declared_or_make_no_sense_are_left_out(tmp_path, tiny_dataset):
    """Each client but the first spoils its weights in another way."""
    ways = dict(enumerate(SPOILED, start=1))

    def spoil(client: int, round: int, answer: dict[str, Any]) -> None:
        if client in ways and round == 1:
            ways[client](answer)

    found = train(tmp_path, tiny_dataset, change=spoil, num_clients=1 + len(ways))
    left = {
        each["client"]: each["error"] for each in found.section["methods"]["fedavg"]["left_out"]
    }
    assert set(left) == set(ways)
    for client, way in ways.items():
        assert SPOILED[way] in left[client], way.__name__


def test_no_more_images_than_all_clients_divide(tmp_path, tiny_dataset):
    def spoil(client: int, round: int, answer: dict[str, Any]) -> None:
        if client == 0 and round == 1:
            answer["methods"]["fedavg"]["images"] = answer["info"]["train_images"] = 31

    data = {**asdict(DataSettings()), "partition": "dirichlet", "alpha": 1.0, "min_images": 3}
    found = train(tmp_path, tiny_dataset, change=spoil, data=data)
    (left,) = found.section["methods"]["fedavg"]["left_out"]
    assert (left["client"], left["round"]) == (0, 1)
    assert "trained on 31 images, 3 to 30 are held" in left["error"]


def test_only_a_federated_round_may_send_weights_up(tmp_path, tiny_dataset):
    task, _ = parts_of(tmp_path, tiny_dataset)
    start = _start(task, tiny_dataset, {"width": 0.0625}, "fedavg")
    plan = plan_federated_round(task, "fedavg", 1, start)
    answer = run_task(0, 1, plan.task, plan.payloads)
    assert plan.schema.reply.problems(pack(answer)) == []
    usual = replace(plan.task, federated=None)
    (problem, *_) = [p for p in reply_schema(usual).problems(pack(answer)) if WEIGHTS in p]
    assert problem == "ArrayRecord 'weights.fedavg' was not declared"
    assert set(plan.schema.payloads) == {"fedavg"}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1)])
def test_weights_are_added_up_as_soon_as_those_before_are_in(tmp_path, tiny_dataset, order):
    """In the order of the clients, whoever comes first; of (2, 1), client 0 never answers."""
    task, _ = parts_of(tmp_path, tiny_dataset)
    start = _start(task, tiny_dataset, {"width": 0.0625}, "fedavg")

    def plan(training, number):
        return plan_federated_round(task, training.name, number, training.state)

    def after(*order: int) -> tuple[dict[str, np.ndarray], list[int]]:
        training, grid = Training("fedavg", 1, start), SerialGrid(app, CLIENTS)
        strategy = FederatedStrategy(CLIENTS, [training], plan)
        asked = list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))
        buffered = []
        for client in order:
            (pushed,) = grid.push_messages([asked[client]])
            (reply,) = grid.pull_messages([pushed])
            assert strategy.receive(reply).error is None
            buffered.append(len(strategy._merged))
        strategy.aggregate_train(1, [])
        assert training.history[0].answered == len(order) and not strategy._merged
        return training.state.arrays, buffered

    arrays, buffered = after(*order)
    assert buffered == {(0, 1, 2): [0, 0, 0], (2, 0, 1): [1, 1, 0], (2, 1): [1, 2]}[order]
    sorted_ones, _ = after(*sorted(order))
    assert all(np.array_equal(array, sorted_ones[name]) for name, array in arrays.items())


def test_a_client_weighs_as_its_images_and_its_rows_are_its_classes(
    tmp_path, tiny_dataset, monkeypatch
):
    seen: list[Merged] = []
    real = Average.add

    def add(self, part):
        seen.append(part)
        real(self, part)

    monkeypatch.setattr(Average, "add", add)
    found = train(tmp_path, tiny_dataset, ways=[3, 2, 4], shots=[4, 2, 1])
    novel = tiny_dataset.class_split.novel
    for part, client in zip(seen[:CLIENTS], found.rounds["fedavg"][0].clients, strict=True):
        classes = [int(c) for c in client.info["classes"].split(",")]
        assert part.rows == tuple(novel.index(c) for c in classes)
    assert [part.images for part in seen[:CLIENTS]] == [12, 4, 4]
    assert any(list(part.rows) != sorted(part.rows) for part in seen[:CLIENTS])


def test_a_records_own_word_is_not_enough():
    card = {"up": {"w": [2], "head.bias": [2]}, "classes": [7, 8, 9]}
    good = {"w": np.zeros(2, np.float32), "head.bias": np.zeros(2, np.float32)}
    check_weights(good, card)
    for bad in (
        {**good, "w": np.zeros(2)},
        {"w": good["w"]},
        {**good, "w": np.float32([1, np.inf])},
    ):
        with pytest.raises(ValueError, match=r"w |head\.bias "):
            check_weights(bad, card)
    assert head_rows("9,7", card, 2) == (2, 0) == head_rows("9,7", card, None)
    for classes in ("9", "9,9", "9,1", "x,9", ""):
        with pytest.raises(ValueError):
            head_rows(classes, card, 2)
