"""Which halves are trained beside the collective, with what budget, and that they end with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from learngene.collective.trainer import CollectiveTrainer
from learngene.utils.hardware import torch_threads
from server import beside, pretraining
from server.beside import HalvesBeside
from server.factory import trainer_settings
from server.parallel import JobResult
from tests.server.test_pretraining import config_of

METHODS = ("learngene", "scratch", "protonet", "protonet+projection", "fomaml")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would be trained, in how many processes."""
    made: list[tuple[Any, ...]] = []

    def run_parallel(work, jobs, at_once, over):
        made.append((work, jobs, at_once, over))
        ends = ("protonet", None), ("fomaml", "out of luck")
        return (JobResult(name, 7.0, error) for name, error in ends)

    monkeypatch.setattr(beside, "run_parallel", run_parallel)
    monkeypatch.setattr(pretraining, "max_workers", lambda threads, device: 3)
    return made


def train(settings, dataset) -> dict[str, float]:
    with HalvesBeside(settings, dataset) as callback:
        for done in (10, 20):
            callback.on_step(done, 20, 1.0)
    return callback.seconds


def test_a_budget_that_is_the_collectives_is_known_before_it_ends(begun, tmp_path, tiny_dataset):
    settings = config_of(tmp_path, *METHODS, budget=None)
    assert train(settings, tiny_dataset) == {"protonet": 7.0}
    [(work, jobs, at_once, over)] = begun
    assert work is pretraining.train and at_once == 2 and over()
    assert list(jobs) == ["protonet", "fomaml"]  # a second row's body is its method's
    cpu = torch.device("cpu")
    trainer = CollectiveTrainer(tiny_dataset, trainer_settings(settings.factory, cpu), cpu)
    assert {job[1].budget for job in jobs.values()} == {trainer.planned_passes()}


def test_a_budget_of_multiply_adds_waits_for_the_collective(begun, tmp_path, tiny_dataset):
    train(config_of(tmp_path, *METHODS, budget=None, budget_in="compute"), tiny_dataset)
    assert begun == []


def test_where_no_core_is_left_nothing_begins(begun, tmp_path, tiny_dataset, monkeypatch):
    monkeypatch.setattr(pretraining, "max_workers", lambda threads, device: 1)
    train(config_of(tmp_path, *METHODS), tiny_dataset)
    assert begun == []


def test_where_the_collective_is_not_trained_nothing_begins(begun, tmp_path, tiny_dataset):
    with HalvesBeside(config_of(tmp_path, *METHODS), tiny_dataset):
        pass
    assert begun == []


def test_what_is_kept_is_not_trained_again(begun, tmp_path, tiny_dataset, monkeypatch):
    monkeypatch.setattr(pretraining, "cached", lambda name, *others: name == "fomaml" or None)
    train(config_of(tmp_path, *METHODS), tiny_dataset)
    assert list(begun[0][1]) == ["protonet"]


def test_a_payload_trained_beside_is_the_one_that_is_looked_for(tmp_path, tiny_dataset):
    """Its key has the threads and all else that ``pretrain_methods`` will look under."""
    settings = config_of(tmp_path, "finetune_pp")
    pretraining.train("finetune_pp", settings, tiny_dataset, lambda done, steps: None)
    result: Any = SimpleNamespace(trained=None)
    for beside_it in ({}, {"finetune_pp": 7.0}):
        found = pretraining.pretrain_methods(settings, tiny_dataset, result, beside=beside_it)
        record = found.section["methods"]["finetune_pp"]
        assert (record["cached"], record["seconds"] == 7.0) == (not beside_it, bool(beside_it))
    with torch_threads(settings.factory.threads):  # as the collective has it
        assert beside.HalvesBeside(settings, tiny_dataset)._jobs() == {}
