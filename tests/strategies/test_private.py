"""What stays at a client (FedPer, FedBN): in no message, found again by every round and after a
kill; and FedAvg begun as the learngene. Clients have three, two and four classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.node import NodeSettings
from clients.private_state import PrivateState
from clients.work import run_task
from learngene.adaptation.settings import FEDERATED_FIELDS
from learngene.data.dataset import ImageDataset
from learngene.methods import find
from learngene.methods.common.federated import HEAD, _at_client, adapt
from learngene.networks.collective import Collective
from protocol.plan import plan_federated_round
from protocol.rounds import ClientOutcome
from runtime.federated_rounds import Federated
from tests.helpers import gene_of, torch_rng
from tests.learngene.methods.helpers import make_context
from tests.strategies.helpers import CLIENTS, ROUNDS, parts_of, same, train

WAYS = {"ways": [3, 2, 4], "shots": [4, 2]}
STAYS: dict[str, Callable[[str], bool]] = {
    "fedavg": lambda name: False,
    "fedper": lambda name: name in HEAD,
    "fedbn": lambda name: ".norm." in name,
}


def train_in(cache: Path, dataset: ImageDataset, *names: str, **more: Any) -> Federated:
    """With the dataset in the run's cache, as a run has it."""
    there = cache / "worlds" / dataset.path.name
    if not there.exists():
        shutil.copytree(dataset.path, there)
    return train(cache, replace(dataset, path=there), *names, **WAYS, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_dataset) -> tuple[Path, Federated]:
    """Trained to the end without a disturbance."""
    cache = tmp_path_factory.mktemp("private")
    return cache, train_in(cache, tiny_dataset, *STAYS)


def arrays_in(entries: Any) -> set[str]:
    return {entry.name for entry in entries if entry.kind == "array"}


def states(cache: Path, found: Federated, name: str) -> list[PrivateState]:
    """Of each client, as it is after the last round."""
    said = found.payloads[name].card["private"]
    return [PrivateState(cache, name, client, **said) for client in range(CLIENTS)]


def test_what_is_private_is_in_no_message(whole):
    _, found = whole
    assert not found.failed
    every = arrays_in(found.rounds["fedavg"][0].clients[0].sent)
    assert any(STAYS["fedper"](n) for n in every) and any(STAYS["fedbn"](n) for n in every)
    for name, stays in STAYS.items():
        shared = {each for each in every if not stays(each)}
        for outcome in found.rounds[name]:
            assert outcome.answered == CLIENTS
            for client in outcome.clients:
                assert arrays_in(client.sent) == shared == arrays_in(client.received)
        assert set(found.payloads[name].arrays) == shared - set(HEAD)
        assert found.section["methods"][name].get("private") == (
            {"fedper": "the classifier", "fedbn": "the norms"}.get(name)
        )
    down, up = (
        [sum(getattr(each, field) for each in found.rounds[name]) for name in STAYS]
        for field in ("bytes_down", "bytes_up")
    )
    assert max(down[1:]) < down[0] and max(up[1:]) < up[0]


def test_clients_of_other_ways_send_what_has_the_form_of_all(whole):
    def rows(outcome: ClientOutcome) -> str:
        return next(each.shape for each in outcome.sent if each.name == HEAD[1])

    clients = whole[1].rounds["fedavg"][0].clients
    assert [len(each.info["classes"].split(",")) for each in clients] == [3, 2, 4]
    assert {rows(each) for each in clients} == {"4"}


def test_each_client_keeps_its_own_and_begins_its_last_training_with_it(whole, tiny_dataset):
    cache, found = whole
    heads = [state.load() for state in states(cache, found, "fedper")]
    assert [set(each) for each in heads] == [set(HEAD)] * CLIENTS
    assert [len(each[HEAD[1]]) for each in heads] == [3, 2, 4]
    norms = [state.load() for state in states(cache, found, "fedbn")]
    assert all(STAYS["fedbn"](each) for each in norms[0])
    for name in norms[0]:
        assert not np.array_equal(norms[0][name], norms[1][name]), name
    for name, kept in (("fedper", heads[0]), ("fedbn", norms[0])):
        context = make_context(name, tiny_dataset, found.payloads[name])  # three classes
        own = replace(context, private=kept)
        assert adapt(own).accuracy[0] != adapt(context).accuracy[0] or (
            adapt(own).loss[0] != adapt(context).loss[0]
        )
        if name == "fedbn":
            values = _at_client(own, None).state_dict()
            assert all(np.array_equal(values[n].numpy(), array) for n, array in kept.items())


def stop_at(number: int) -> Callable[[int, int, dict[str, Any]], None]:
    def die(client: int, round: int, answer: dict[str, Any]) -> None:
        if (client, round) == (1, number):
            raise KeyboardInterrupt

    return die


@pytest.mark.parametrize("damaged", ["nothing", "a client's file", "all of them"])
def test_a_killed_training_goes_on_and_ends_the_same(whole, tmp_path, tiny_dataset, damaged):
    """It is killed in round 3, when client 0 has written its own of that round already."""
    cache, first = whole
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path, tiny_dataset, "fedbn", change=stop_at(3))
    (folder,) = (tmp_path / "private").iterdir()
    written = {path.stem for path in folder.glob("*.json")}
    assert "fedbn-000000-00003" in written and "fedbn-000002-00003" not in written
    if damaged == "a client's file":
        path = folder / "fedbn-000001-00002.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif damaged == "all of them":
        shutil.rmtree(folder)
    again = train_in(tmp_path, tiny_dataset, "fedbn")
    ours = Federated(payloads={"fedbn": first.payloads["fedbn"]})
    assert same(ours, again)
    assert first.section["methods"]["fedbn"] == again.section["methods"]["fedbn"]
    for one, other in zip(
        states(cache, first, "fedbn"), states(tmp_path, again, "fedbn"), strict=True
    ):
        kept, anew = one.load(), other.load()
        assert all(np.array_equal(array, anew[name]) for name, array in kept.items())


def test_a_client_that_has_lost_its_own_says_so(tmp_path, tiny_dataset):
    def lose(client: int, round: int, answer: dict[str, Any]) -> None:
        if (client, round) == (1, 2):  # client 2's of round 1, before it is asked for round 2
            (path,) = tmp_path.glob("private/*/fedper-000002-00001.json")
            path.unlink()

    found = train_in(tmp_path, tiny_dataset, "fedper", change=lose)
    first, *_ = found.section["methods"]["fedper"]["left_out"]
    assert (first["round"], first["client"]) == (2, 2)
    assert (
        "what this client kept of federated round 1 is gone: write resume=false" in first["error"]
    )


def test_one_that_missed_a_round_goes_on_from_the_one_before(tmp_path):
    state = PrivateState(tmp_path, "fedper", 0, "0" * 16, rounds=0, whole=True)
    assert state.load() == {}
    state.save({"head.bias": np.float32([1, 2])})
    missed = replace(state, rounds=2, whole=False)  # another's, too, so that not all took part
    assert missed.load()["head.bias"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="round 2 is gone"):
        replace(missed, whole=True).load()
    for of in ("training", "run"):
        with pytest.raises(ValueError, match="16 hex digits"):
            replace(state, **{of: "../../somewhere"})


def test_what_another_run_left_after_a_client_failed_is_not_taken_up(whole, tmp_path, tiny_dataset):
    """The cache holds all three rounds of a run in which all answered."""
    shutil.copytree(whole[0] / "private", tmp_path / "private")
    kept = {path: path.read_bytes() for path in tmp_path.glob("private/*/fedper-*")}

    def fail(client: int, round: int, answer: dict[str, Any]) -> None:
        if (client, round) == (1, 2):
            raise ValueError("battery empty")

    at_end = ExitStack()
    found = train_in(tmp_path, tiny_dataset, "fedper", change=fail, resume=False, at_end=at_end)
    assert [each.answered for each in found.rounds["fedper"]] == [3, 2, 3]
    assert {path: path.read_bytes() for path in kept} == kept
    first, *_ = states(tmp_path, found, "fedper")
    assert (first.rounds, first.whole, first.parted) == (3, False, 2)
    (own,) = {path.parent for path in tmp_path.glob("private/*/*/fedper-*")}
    assert own.name == first.run and len([*own.glob("*.json")]) == CLIENTS

    def loaded(state: PrivateState) -> list[float]:
        return state.load()[HEAD[1]].tolist()

    # One that has missed round 3 goes on from round 2, not from what the other run left of 3.
    elsewhere, before = replace(first, run="f" * 16), replace(first, rounds=2)
    other = states(tmp_path, whole[1], "fedper")[0]
    assert loaded(elsewhere) == loaded(before) not in (loaded(first), loaded(other))
    # The one that failed in round 2 goes on from round 1, though the other run left its round 2.
    failed = states(tmp_path, found, "fedper")[1]
    assert failed.absent == "0x2"
    alone = replace(failed, rounds=2)
    assert (
        loaded(alone) == loaded(replace(failed, rounds=1)) != loaded(replace(alone, absent="0x0"))
    )
    at_end.close()
    assert not own.exists() and {path: path.read_bytes() for path in kept} == kept


def test_a_node_keeps_it_in_its_own_cache(whole, tmp_path, tiny_dataset, monkeypatch):
    """What a message names is a key; where that lies is the node's own to say."""
    cache, found = whole
    task, _ = parts_of(cache, tiny_dataset, **WAYS)
    payload = found.payloads["fedbn"]
    card = payload.card | {"private": {"training": "a" * 16, "rounds": 0, "whole": True}}
    card |= {"classes": list(tiny_dataset.class_split.novel), "up": {}}
    state = replace(payload, card=card)
    plan = plan_federated_round(task, "fedbn", 1, state)
    assert set(plan.task.to_plain()["individual"]) == set(FEDERATED_FIELDS)
    own = tmp_path / "own"
    shutil.copytree(tiny_dataset.path, own / "worlds" / ("0" * 24))
    named = replace(plan.task, world=f"/elsewhere/worlds/{'0' * 24}")
    answer = run_task(0, 1, named, plan.payloads, NodeSettings(cache=str(own)))
    assert "error" not in answer["methods"]["fedbn"]
    assert (own / "private" / ("a" * 16) / "fedbn-000000-00001.json").exists()


def test_fedavg_begun_as_the_learngene(tmp_path, tiny_dataset):
    name = "fed_learngene"
    gene = gene_of(Collective((8,) * 13, 5, width=0.0625, generator=torch_rng(1)), range(1, 5))
    found = train_in(tmp_path, tiny_dataset, name, gene=gene)
    assert found.section["methods"][name]["begins_as"] == "the learngene"
    payload = found.payloads[name]
    inherited = gene.deepest.arrays
    assert set(inherited) < set(payload.arrays)  # and layers of its own behind them
    for each, array in inherited.items():
        trained = not np.array_equal(array, payload.arrays[each])
        assert trained == (each.endswith(("conv.weight", "norm.weight", "norm.bias"))), each
    outcome = find(name).adapt(make_context(name, tiny_dataset, payload))
    assert outcome.epochs == [0, 1, 2]
    other = gene_of(Collective((8,) * 13, 5, width=0.0625, generator=torch_rng(2)), range(1, 5))
    assert not same(found, train_in(tmp_path, tiny_dataset, name, gene=other))
    assert len(found.rounds[name]) == ROUNDS
