"""A federated training, kept round by round: what comes back, and what a crash costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from learngene.methods import Payload
from protocol.guard import RecordEntry
from protocol.messages import ByteCount
from protocol.rounds import ClientOutcome, RoundOutcome
from strategies.fedavg import Training
from strategies.training_cache import TrainingCache

PARTS = {"a": 1}
UP = (RecordEntry("weights.fedavg", "array", "w", "float32", "2", 8),)
DOWN = (RecordEntry("method.fedavg", "array", "w", "float32", "2", 8),)


def outcome(number: int, clients: int = 3) -> RoundOutcome:
    metrics = {"fedavg": {"loss": [number / 2], "images": 5}}
    answers = [
        ClientOutcome(
            *(client, True, metrics, {"classes": "1,2"}, 100, 7, {"fedavg": ByteCount(100, 7)}),
            received=DOWN,
            sent=UP,
        )
        for client in range(clients)
    ]
    who = tuple((client, 9, 9, UP) for client in range(clients)) if number == 1 else ()
    return RoundOutcome(number, answers, who)


def begun() -> Training:
    return Training("fedavg", 9, Payload({"w": np.zeros(2, np.float32)}, {"up": {"w": [2]}}))


def trained(cache: Path, rounds: int, clients: int = 3) -> Training:
    training, kept = begun(), TrainingCache(cache, "fedavg", PARTS)
    for number in range(1, rounds + 1):
        training.state = Payload({"w": np.full(2, number, np.float32)}, training.state.card)
        training.history.append(outcome(number, clients))
        kept.save(training)
    return training


def found(cache: Path) -> Training:
    training = begun()
    TrainingCache(cache, "fedavg", PARTS).load(training)
    return training


def test_it_comes_back_as_it_was(tmp_path):
    assert found(tmp_path).done == 0
    first, again = trained(tmp_path, 3), found(tmp_path)
    assert again.history == first.history
    assert np.array_equal(again.state.arrays["w"], first.state.arrays["w"])
    assert again.state.card == first.state.card


def test_a_round_costs_what_it_is_however_many_were_before(tmp_path):
    trained(tmp_path, 9, clients=50)
    (lines,) = tmp_path.glob("federated/*/rounds-fedavg-0001.jsonl")
    about, first, *others = map(len, lines.read_bytes().splitlines())
    assert len(others) == 8 and max(others) < first  # which says who is there, too
    for card in tmp_path.glob("federated/*/fedavg-?.json"):
        assert card.stat().st_size < about + 100


@pytest.mark.parametrize("torn", ["line", "weights"])
def test_a_torn_round_is_not_there_and_those_before_are(tmp_path, torn):
    first = trained(tmp_path, 4)
    suffix = "rounds-fedavg-0001.jsonl" if torn == "line" else "fedavg-0.safetensors"
    (path,) = tmp_path.glob(f"federated/*/{suffix}")
    path.write_bytes(path.read_bytes()[:-5])
    again = found(tmp_path)
    assert again.history == first.history[:3] and set(again.state.arrays["w"]) == {3.0}


def test_a_round_in_the_middle_that_is_altered_ends_what_is_known(tmp_path):
    trained(tmp_path, 4)
    (path,) = tmp_path.glob("federated/*/rounds-fedavg-0001.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert found(tmp_path).done == 0


def test_another_run_goes_on_in_a_file_of_its_own(tmp_path):
    trained(tmp_path, 2)
    training, kept = found(tmp_path), TrainingCache(tmp_path, "fedavg", PARTS)
    training.history.append(outcome(3))
    kept.save(training)
    names = sorted(path.name for path in tmp_path.glob("federated/*/rounds-*"))
    assert names == ["rounds-fedavg-0001.jsonl", "rounds-fedavg-0002.jsonl"]
    assert [each.round for each in found(tmp_path).history] == [1, 2, 3]


def test_what_lies_elsewhere_is_asked_for(tmp_path):
    trained(tmp_path, 4)
    training = begun()
    TrainingCache(tmp_path, "fedavg", PARTS).load(training, lambda rounds: rounds < 4)
    assert training.done == 3
