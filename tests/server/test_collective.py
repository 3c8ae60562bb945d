"""The kept life of a collective: reused, taken up, relived, and never mixed up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import server.collective
from learngene.collective.trainer import CollectiveTrainer
from learngene.errors import InputError
from learngene.open_world.detector import (
    DISTANCES,
    SCORES,
    calibrate,
    fit_score,
    unknown_probability,
)
from learngene.open_world.settings import OpenWorldSettings
from server.collective import (
    LOOKS,
    TrainedCollective,
    collective_after,
    collective_key,
    fitting_answers,
    recognise,
    train_collective,
)
from tests.helpers import CPU, hooked, settings


@pytest.fixture
def lived(tiny_dataset, tmp_path) -> Callable[..., TrainedCollective]:
    def live_it(
        resume=True, accept=0.9, on_task=lambda trained, found: None, **changed: Any
    ) -> TrainedCollective:
        asked = settings(**changed)
        how = OpenWorldSettings(accept=accept)
        watch = hooked(on_task_end=on_task)
        return train_collective(
            tiny_dataset, asked, CPU, tmp_path, open_world=how, resume=resume, callback=watch
        )

    return live_it


@pytest.fixture
def ran(monkeypatch) -> list[int]:
    """Numbers of the tasks that were trained."""
    seen: list[int] = []
    original = CollectiveTrainer.run_task

    def spy(self, progress=None):
        seen.append(len(self.stages))
        return original(self, progress)

    monkeypatch.setattr(CollectiveTrainer, "run_task", spy)
    return seen


def weights(trained: TrainedCollective) -> list[torch.Tensor]:
    return list(trained.trainer.collective.state_dict().values())


def assert_same(one: TrainedCollective, other: TrainedCollective) -> None:
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    assert one.open_world == other.open_world and one.key == other.key
    first, second = one.trainer.stages, other.trainer.stages
    assert [replace(s, seconds=0) for s in first] == [replace(s, seconds=0) for s in second]


def folder(trained: TrainedCollective, tmp_path: Path) -> Path:
    return tmp_path / "collectives" / trained.key


def test_a_second_life_is_not_lived_again(lived, ran, tmp_path):
    told: list[tuple[int, bool]] = []
    first = lived(on_task=lambda e, found: told.append((len(e.stages), found)))
    assert first.reused == 0 and ran == [0, 1, 2]
    again = lived(on_task=lambda e, found: told.append((len(e.stages), found)))
    assert again.reused == 3 == len(again.trainer.tasks) and ran == [0, 1, 2]
    assert told == [(1, False), (2, False), (3, False), (3, True)]
    assert_same(first, again)
    assert len(list(folder(first, tmp_path).glob("task-*"))) == 6


def test_what_was_said_of_the_open_world_is_kept(lived, tmp_path, monkeypatch):
    first = lived()

    def never(*_: Any) -> dict:
        raise AssertionError("measured again")

    monkeypatch.setattr("server.collective.recognise", never)
    assert lived().open_world == first.open_world
    with pytest.raises(AssertionError, match="measured again"):
        lived(accept=0.5)  # other settings
    (kept,) = folder(first, tmp_path).glob("open-world-*.json")
    kept.write_text(kept.read_text().replace('"auroc": 0', '"auroc": 1', 1))
    with pytest.raises(AssertionError, match="measured again"):
        lived()  # altered


def test_a_torn_last_checkpoint_falls_back_to_the_one_before(lived, ran, tmp_path):
    first = lived()
    torn = folder(first, tmp_path) / "task-003.safetensors"
    torn.write_bytes(torn.read_bytes()[:-10])
    again = lived()
    assert again.reused == 2 and ran == [0, 1, 2, 2]
    assert_same(first, again)
    assert lived().reused == 3  # mended


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda d: d[:40], lambda d: b"", lambda d: d[:60] + b"~" + d[61:]]
)
def test_whatever_is_damaged_the_life_ends_the_same(lived, tmp_path, suffix, damage):
    first = lived()
    kept = [*folder(first, tmp_path).glob(f"task-00[23]{suffix}")]
    assert len(kept) == 2
    for path in [*kept, *folder(first, tmp_path).glob(f"open-world-*{suffix}")]:
        path.write_bytes(damage(path.read_bytes()))
    again = lived()
    assert again.reused == 1
    assert_same(first, again)


def test_a_life_under_another_key_is_refused(lived, tmp_path):
    first, other = lived(), lived(lr=0.01)
    shutil.rmtree(folder(other, tmp_path))
    shutil.copytree(folder(first, tmp_path), folder(other, tmp_path))
    with pytest.raises(InputError, match=r"settings\.lr is 0\.02 there and 0\.01 here"):
        lived(lr=0.01)
    assert lived(lr=0.01, resume=False).reused == 0  # overwritten
    assert lived(lr=0.01).reused == 3


def test_what_was_said_under_another_key_is_refused(lived, tmp_path):
    first = lived(accept=0.9)
    (one,) = folder(first, tmp_path).glob("open-world-*.json")
    lived(accept=0.5)
    (other,) = {*folder(first, tmp_path).glob("open-world-*.json")} - {one}
    for suffix in (".json", ".safetensors"):
        shutil.copy(one.with_suffix(suffix), other.with_suffix(suffix))
    with pytest.raises(
        InputError, match=r"open_world\.settings\.accept is 0\.9 there and 0\.5 here"
    ):
        lived(accept=0.5)


def test_a_stage_that_is_torn_is_lived_again_and_one_that_is_gone_is_not(lived, ran, tmp_path):
    trained = lived()
    there = folder(trained, tmp_path) / "task-002.safetensors"
    whole = collective_after(trained, tmp_path, 2).state_dict()
    before = there.read_bytes()
    there.write_bytes(before[:-10])
    del ran[:]
    mended = collective_after(trained, tmp_path, 2).state_dict()
    assert ran == [1] and there.read_bytes() == before
    assert all(torch.equal(whole[name], mended[name]) for name in whole)
    there.unlink()
    assert collective_after(trained, tmp_path, 2) is None and ran == [1]


def test_a_life_that_was_cut_short_goes_on(lived, ran, tmp_path):
    def stop(trainer, found):
        if len(trainer.stages) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lived(on_task=stop)
    again = lived()
    assert again.reused == 2 and ran == [0, 1, 2]
    for left in folder(again, tmp_path).iterdir():
        left.unlink()
    assert_same(lived(), again)


@pytest.mark.parametrize(
    "strategy", [{"exemplars": "herding"}, {"memory": "ewc", "growth": "none"}], ids=str
)
def test_what_a_strategy_remembers_goes_on_with_the_life(lived, ran, tmp_path, strategy):
    """Herded rows and the Fisher are read, not made again from weights that have moved on."""
    whole = lived(**strategy)
    for last in folder(whole, tmp_path).glob("task-003.*"):
        last.unlink()
    again = lived(**strategy)
    assert again.reused == 2 and ran == [0, 1, 2, 2]
    assert_same(whole, again)
    one, other = whole.trainer, again.trainer
    assert {c: r.tolist() for c, r in one.memory.items()} == {
        c: r.tolist() for c, r in other.memory.items()
    }
    assert all(torch.equal(a, b) for a, b in zip(one.fisher, other.fisher, strict=True))
    assert len(one.fisher) == (39 if strategy.get("memory") == "ewc" else 0)


def test_resume_false_lives_again_and_ends_the_same(lived, ran):
    first = lived()
    again = lived(resume=False)
    assert again.reused == 0 and ran == [0, 1, 2] * 2
    assert_same(first, again)


def test_accept_is_not_part_of_the_life(lived, ran):
    first, second = lived(accept=0.5), lived(accept=1.0)
    assert second.reused == 3 and first.key == second.key
    assert first.open_world["threshold"] < second.open_world["threshold"]
    assert (first.open_world["accept"], second.open_world["accept"]) == (0.5, 1.0)


def test_other_settings_are_another_life(lived):
    first = lived()
    other = lived(lr=0.01)
    assert other.reused == 0 and other.key != first.key
    assert not all(torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))


def test_every_setting_the_dataset_and_the_threads_are_in_the_key(tiny_dataset):
    asked = settings()
    keys = {collective_key(tiny_dataset, asked, CPU)}
    for owner in (asked, asked.collective):
        for name in {field.name for field in fields(owner)} & set(asked.cache_fields()):
            value = getattr(owner, name)
            other = "other" if isinstance(value, str) else (value or 0) + 1
            changed = replace(owner, **{name: other})
            if owner is asked.collective:
                changed = replace(asked, collective=changed)
            keys.add(collective_key(tiny_dataset, changed, CPU))
    keys.add(collective_key(replace(tiny_dataset, sha256="0" * 64), asked, CPU))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    keys.add(collective_key(tiny_dataset, asked, CPU))
    torch.set_num_threads(threads)
    assert len(keys) == 1 + len(asked.cache_fields()) + 2
    assert collective_key(tiny_dataset, settings(), CPU) in keys


def test_recognition_looks_at_the_right_images(evolved, tiny_dataset):
    trained = evolved
    found = recognise(trained, OpenWorldSettings(accept=0.9))
    held = trained.predict(tiny_dataset.train_images, trained.calibration_rows)[0]
    known = unknown_probability(held).numpy()
    assert found["threshold"] == calibrate(known, 0.9)
    assert (known <= found["threshold"]).mean() >= 0.9
    assert (found["known_images"], found["open_world_images"]) == (16 * 6, 4 * 6)
    assert found["closed_accuracy"] == pytest.approx(trained.stages[-1].accuracy)


def test_every_score_is_measured_and_the_chosen_one_decides(evolved):
    trained = evolved
    plain = recognise(trained, OpenWorldSettings())
    assert list(plain["scores"]) == list(SCORES)
    for chosen in SCORES:
        found = recognise(trained, OpenWorldSettings(score=chosen))
        assert found["scores"] == plain["scores"]  # the choice changes none of them
        assert found["score"] == chosen and found["auroc"] == plain["scores"][chosen]["auroc"]
        assert found["accepted"] > 0.5  # calibrated for this score, not for another one
        assert (found["threshold"] == plain["threshold"]) == (chosen == "max_softmax")
    best = max(plain["scores"].values(), key=lambda measures: measures["auroc"])
    assert plain["scores"][plain["best_score"]] == best
    assert plain["exemplars"] == 16 * 4 and plain["known_classes"] == 16
    assert 0 < plain["openness"] < 1


def test_distances_are_fitted_on_the_memory(evolved, tiny_dataset, monkeypatch):
    trained = evolved
    (_, features), labels, _ = fitting_answers(trained, OpenWorldSettings())
    assert labels.bincount().tolist() == [4] * 16
    shown = [tiny_dataset.train_labels[trained.memory[c]].tolist() for c in trained.known]
    assert shown == [[c] * 4 for c in trained.known]
    rows = np.concatenate(
        [tiny_dataset.rows("test", c) for c in tiny_dataset.class_split.open_world]
    )
    others = trained.predict(tiny_dataset.test_images, rows)
    base = trained.predict(
        tiny_dataset.test_images,
        np.concatenate([tiny_dataset.rows("test", c) for c in trained.known]),
    )
    score = fit_score("mahalanobis", features, labels)
    pairs = [float(u > k) for u in score(*others) for k in score(*base)]
    found = recognise(trained, OpenWorldSettings())["scores"]["mahalanobis"]["auroc"]
    assert found == pytest.approx(np.mean(pairs), abs=1e-3)
    monkeypatch.setattr("server.collective.EXEMPLARS", 2)
    (_, fewer), labels, _ = fitting_answers(trained, OpenWorldSettings())
    assert labels.bincount().tolist() == [2] * 16
    assert torch.allclose(fewer, features.unflatten(0, (16, 4))[:, :2].flatten(0, 1), atol=1e-5)


def test_without_a_memory_there_are_no_distances(evolve):
    trained = evolve(memory_per_class=0)
    while not trained.done:
        trained.run_task()
    found = recognise(trained, OpenWorldSettings(score="energy"))
    assert [name for name, one in found["scores"].items() if one is None] == list(DISTANCES)
    assert found["exemplars"] == 0 and found["best_score"] not in DISTANCES


def test_an_answer_is_the_features_and_what_the_head_says_of_them(evolved, tiny_dataset):
    rows = tiny_dataset.rows("test", 0)
    logits, features = evolved.predict(tiny_dataset.test_images, rows)
    assert features.shape == (len(rows), evolved.collective.widths[-1])
    assert torch.allclose(evolved.collective.head(features), logits, atol=1e-5)
    accuracy = recognise(evolved, OpenWorldSettings())["closed_accuracy"]
    assert accuracy == pytest.approx(evolved.stages[-1].accuracy)


@pytest.mark.parametrize("flip", [True, False])
def test_answers_over_mirror_images_are_means_where_a_mirror_keeps_the_class(
    evolved, monkeypatch, flip
):
    trained = evolved
    monkeypatch.setattr(trained, "dataset", replace(trained.dataset, flip=flip))
    images, rows = trained.dataset.test_images, trained.dataset.rows("test", 0)
    turned = np.ascontiguousarray(images[:, :, ::-1])
    plain, other = (trained.predict(each, rows) for each in (images, turned))
    found = trained.predict(images, rows, mirror=True)
    assert not torch.allclose(plain[0], other[0], atol=1e-3)
    mean = (plain[0] + other[0]) / 2 if flip else plain[0]
    assert torch.allclose(found[0], mean, atol=1e-5)
    assert recognise(trained, OpenWorldSettings(mirror=True))["mirror"] is flip


def test_the_papers_thresholds_are_measured_in_every_run(evolved):
    found = recognise(evolved, OpenWorldSettings(threshold="paper_cifar100"))
    assert found["threshold"] == 0.9587 and found["threshold_from"] == "paper_cifar100"
    # Sixteen classes: even softmax applied twice stays below 1 - 1/16, so all are accepted.
    assert found["paper_thresholds"]["paper_cifar100"]["two_softmaxes"] == {
        "known_accepted": 1.0,
        "open_world_found": 0.0,
    }
    assert found["accepted"] == 1.0 and found["recall"] == 0.0
    assert found["doubled_softmax_floor"] < 1 - 1 / 16


def test_passes_over_images_are_told_until_the_collective_is_through(tiny_dataset, tmp_path):
    told: list[tuple[str, int, int]] = []
    callback = hooked(on_progress=lambda *said: told.append(said))
    how = OpenWorldSettings()
    trained = train_collective(
        tiny_dataset, settings(), CPU, tmp_path, open_world=how, resume=True, callback=callback
    )
    assert {what for what, *_ in told} == {LOOKS} and told[-1][1] == told[-1][2] > 0
    before = len(told)
    trained.trainer.predict(tiny_dataset.train_images, np.arange(3))
    assert len(told) == before


def test_shared_cores_are_told_once_and_not_behind_the_last_task(
    tiny_dataset, tmp_path, monkeypatch
):
    """Beside the last task Ray starts: what waits then is the run's own."""
    asked: list[int] = []
    monkeypatch.setattr(server.collective, "contention", lambda threads: asked.append(threads))
    told: list[str] = []
    how, watch = OpenWorldSettings(), hooked(on_note=told.append)

    def live_it(cache: Path) -> TrainedCollective:
        return train_collective(
            tiny_dataset, settings(), CPU, cache, open_world=how, resume=True, callback=watch
        )

    tasks = len(live_it(tmp_path / "quiet").trainer.tasks)
    assert tasks > 2 and len(asked) == tasks - 1 and told == []
    monkeypatch.setattr(server.collective, "contention", lambda threads: "shared")
    live_it(tmp_path / "busy")
    assert told == ["shared"]
