"""Cycles of a real tiny collective: classes taken in, taken up again, and never mixed up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learngene.collective.trainer import CollectiveTrainer
from learngene.errors import InputError
from learngene.open_world.cycle import Oracle
from learngene.open_world.settings import OpenWorldSettings
from server import cycle as cycle_module
from server.collective import TrainedCollective, fit_detector, train_collective
from server.cycle import run_cycles
from tests.helpers import CPU, hooked, settings

# A low bar: after three tiny tasks the collective knows little, and much looks unknown to it.
ASKED = OpenWorldSettings(
    accept=0.3,
    cycles=2,
    labels_per_cycle=20,
    classes_per_cycle=2,
    images_to_add=2,
    known_share=0.4,
    cycle_consolidate_epochs=1,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cycles")


@pytest.fixture(scope="module")
def trained(tiny_dataset, cache: Path) -> TrainedCollective:
    return train_collective(tiny_dataset, settings(), CPU, cache, open_world=ASKED, resume=True)


@pytest.fixture
def cycled(
    trained: TrainedCollective, cache: Path
) -> Callable[..., tuple[CollectiveTrainer, dict[str, Any]]]:
    def run(resume: bool = True, asked: OpenWorldSettings = ASKED, **more: Any):
        return run_cycles(trained, asked, cache, resume=resume, **more)

    return run


def weights(trainer: CollectiveTrainer) -> list[torch.Tensor]:
    return list(trainer.collective.state_dict().values())


def same(one: CollectiveTrainer, other: CollectiveTrainer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_a_cycle_weighs_classes_alike(trained, tiny_dataset, cache, monkeypatch):
    balanced: list[bool] = []
    real = CollectiveTrainer.run_task

    def watched(self, on_step, epochs, *, balance):
        balanced.append(balance)
        return real(self, on_step, epochs, balance=balance)

    monkeypatch.setattr(CollectiveTrainer, "run_task", watched)
    run_cycles(trained, ASKED, cache, resume=False)
    assert balanced and all(balanced)


def test_what_a_cycles_own_detector_finds_most_unknown_is_labelled(trained, tmp_path, monkeypatch):
    """The detector is fitted anew in each cycle, and the epochs that follow are those asked for."""
    met: list[CollectiveTrainer] = []
    sent: list[tuple[Any, np.ndarray]] = []
    epochs: list[int] = []
    real = CollectiveTrainer.run_task

    class Watched(Oracle):
        def label(self, stream, positions):
            sent.append((stream, positions))
            return super().label(stream, positions)

    def fit(trainer, settings):
        met.append(trainer.clone())
        return fit_detector(trainer, settings)

    def run(self, on_step, consolidate_epochs, **more):
        epochs.append(consolidate_epochs)
        return real(self, on_step, consolidate_epochs, **more)

    monkeypatch.setattr(cycle_module, "fit_detector", fit)
    monkeypatch.setattr(CollectiveTrainer, "run_task", run)
    asked = replace(ASKED, score="mahalanobis", cycle_consolidate_epochs=3)
    run_cycles(trained, asked, tmp_path, resume=False, labeller=Watched())
    assert epochs and set(epochs) == {3}
    assert len(met[1].known) > len(met[0].known)
    for trainer, (stream, positions) in zip(met, sent, strict=True):
        detector, dataset = fit_detector(trainer, asked), trainer.dataset
        scores = np.empty(len(stream.rows))
        for images, here in (
            (dataset.test_images, stream.test), (dataset.train_images, ~stream.test),
        ):  # fmt: skip
            scores[here] = detector.score(*trainer.predict(images, stream.rows[here])).numpy()
        most = min((scores > detector.threshold).sum(), asked.labels_per_cycle)
        assert np.allclose(scores[positions], np.sort(scores)[::-1][:most], atol=1e-5)


def test_another_labellers_cycles_are_not_taken_up(trained, tmp_path):
    class Refuses:
        name = "names everything a base class"

        def label(self, stream, positions):
            return np.full(len(positions), stream.dataset.class_split.base[0])

    _, by_oracle = run_cycles(trained, ASKED, tmp_path, resume=True)
    assert by_oracle["discovered"] > 0
    grown, report = run_cycles(trained, ASKED, tmp_path, resume=True, labeller=Refuses())
    assert report["discovered"] == 0 and report["labels_spent"] > 0
    assert grown.known == trained.trainer.known


def plain(report: dict[str, Any]) -> dict[str, Any]:
    return {**report, "cycles": [{**each, "seconds": 0} for each in report["cycles"]]}


def test_new_classes_are_learned_beside_the_old(cycled, trained, tiny_dataset):
    before = [value.clone() for value in weights(trained.trainer)]
    grown, report = cycled(resume=False)
    class_split = tiny_dataset.class_split
    taken = [c for each in report["cycles"] for c in each["added"]]
    assert report["discovered"] == len(taken) == len(set(taken)) > 0
    assert set(taken) <= set(class_split.open_world)
    assert grown.known[: len(class_split.base)] == trained.trainer.known
    assert grown.known[len(class_split.base) :] == taken
    assert len(grown.collective.head.weight) == len(class_split.base) + len(taken)
    last = report["cycles"][-1]
    assert last["accuracy"] == grown.stages[-1].accuracy and last["new_accuracy"] is not None
    assert report["before"]["new_accuracy"] is None
    assert report["before"]["accuracy"] == pytest.approx(report["before"]["old_accuracy"])
    # The life itself is as it was.
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trained.trainer), strict=True))
    assert len(trained.trainer.known) == len(class_split.base) == len(trained.trainer.memory)


def test_only_labelled_rows_are_trained_on_and_no_test_image(cycled, tiny_dataset, monkeypatch):
    seen: set[int] = set()
    original = CollectiveTrainer._train

    def spy(self, phase, task, old, new, *rest):
        for c in new:
            seen.update(self.train_rows[c].tolist())
        return original(self, phase, task, old, new, *rest)

    monkeypatch.setattr(CollectiveTrainer, "_train", spy)
    grown, report = cycled(resume=False)
    labelled = sum(sum(each["labelled_images"].values()) for each in report["cycles"])
    held = len(grown.calibration_rows) - 3 * len(tiny_dataset.class_split.base)
    assert len(seen) == labelled - held
    assert not seen & set(grown.calibration_rows.tolist())
    assert labelled <= report["labels_spent"] - report["known_sent"]
    assert all(each["labels_spent"] <= ASKED.labels_per_cycle for each in report["cycles"])


def test_finished_cycles_are_read_again(cycled, monkeypatch):
    first, report = cycled(resume=False)

    def never(*_: Any) -> None:
        raise AssertionError("a finished cycle was trained again")

    monkeypatch.setattr(CollectiveTrainer, "run_task", never)
    told: list[bool] = []
    again, same_report = cycled(
        callback=hooked(on_cycle_end=lambda record, found: told.append(found))
    )
    assert told == [True, True] and report == same_report
    assert same(first, again) and first.known == again.known
    assert np.array_equal(first.calibration_rows, again.calibration_rows)


def test_cut_short_after_one_cycle_it_ends_the_same(cycled, trained, cache):
    whole, report = cycled(resume=False)
    (folder,) = (cache / "collectives" / trained.key).glob("cycles-*")
    for path in folder.glob("cycle-002*"):
        path.unlink()
    told: list[bool] = []
    again, resumed = cycled(callback=hooked(on_cycle_end=lambda record, found: told.append(found)))
    assert told == [True, False]
    assert plain(report) == plain(resumed) and same(whole, again)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_cycle_is_gone_through_again(cycled, trained, cache, suffix):
    whole, report = cycled(resume=False)
    (folder,) = (cache / "collectives" / trained.key).glob("cycles-*")
    path = folder / f"cycle-002{suffix}"
    path.write_bytes(path.read_bytes()[:-30])
    told: list[bool] = []
    again, resumed = cycled(callback=hooked(on_cycle_end=lambda record, found: told.append(found)))
    assert told == [True, False]
    assert plain(report) == plain(resumed) and same(whole, again)


def test_cycles_under_another_key_are_refused(cycled, trained, cache):
    cycled()
    own = cache / "collectives" / trained.key
    (folder,) = own.glob("cycles-*")
    other = replace(ASKED, labels_per_cycle=6)
    cycled(asked=other)
    (copy,) = {*own.glob("cycles-*")} - {folder}
    shutil.rmtree(copy)
    shutil.copytree(folder, copy)
    said = r"cycles\.cycles\.labels_per_cycle is 20 there and 6 here"
    with pytest.raises(InputError, match=said):
        cycled(asked=other)
    shutil.rmtree(copy)


def test_other_settings_are_other_cycles(cycled, trained, cache):
    cycled()
    cycled(asked=replace(ASKED, labels_per_cycle=5))
    assert len(list((cache / "collectives" / trained.key).glob("cycles-*"))) == 2


def test_nothing_found_is_a_cycle_too(trained, cache):
    blind = replace(ASKED, threshold=2.0)  # Eq. 2 is below 1: nothing is ever called unknown
    grown, report = run_cycles(trained, blind, cache, resume=False)
    assert report["discovered"] == 0 == report["labels_spent"]
    assert report["unknown_missed"] == sum(each["unknown_images"] for each in report["cycles"])
    assert grown.known == trained.trainer.known and same(grown, trained.trainer)
