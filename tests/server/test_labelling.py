"""Which images the collective calls unknown, and summaries over draws of classes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clients.work import _shard
from learngene.data.settings import ShardSettings
from learngene.open_world.detector import OpenSetDetector
from learngene.open_world.settings import LabelledSettings, OpenWorldSettings
from reports.results import build_results
from reports.statistics import paired_gain, summarise
from reports.summary import footnotes, headline, interval_note
from server.collective import fitting_answers
from server.labelling import label_open_world, labelling_summary
from tests.helpers import hooked
from tests.protocol.helpers import client_task

SECTION = {
    "draws": 2, "score": "energy", "accept": 0.8, "flags": "detector",
    "flagged": {"a": 0.25, "b": 0.75}, "flagged_known": {"c": 0.125, "d": 0.375},
    "classes": [["a", "b", "c", "d", "e"]] * 2, "due": 200, "named": 180,
}  # fmt: skip


LABELLED = LabelledSettings(draws=2)
SHARDS = ShardSettings(ways=3, shots=4, seed=0, classes_from="open_world", draws=2)


@pytest.fixture
def result(evolved) -> Any:
    return SimpleNamespace(trained=SimpleNamespace(trainer=evolved, threads=1))


def test_shards_hold_what_the_collective_calls_unknown(result, tiny_dataset):
    asked = OpenWorldSettings(accept=0.5)
    said: list[tuple[str, int, int]] = []
    hook = hooked(on_progress=lambda *what: said.append(what))
    found = label_open_world(asked, LABELLED, SHARDS, 3, tiny_dataset, result, hook)
    split = tiny_dataset.class_split
    classes = len(split.open_world) + len(split.base)
    assert said == [("labels, class", n, classes) for n in range(1, classes + 1)]
    trainer = result.trained.trainer
    detector = OpenSetDetector.fit(asked, *fitting_answers(trainer, asked))
    assert set(found.flags) == set(tiny_dataset.class_split.open_world)
    for c, flags in found.flags.items():
        answers = trainer.predict(tiny_dataset.train_images, tiny_dataset.rows("train", c))
        assert np.array_equal(flags, detector.score(*answers).numpy() > detector.threshold)
        assert found.section["flagged"][tiny_dataset.class_names[c]] == flags.mean()
    for c in tiny_dataset.class_split.base:
        answers = trainer.predict(tiny_dataset.test_images, tiny_dataset.rows("test", c))
        share = (detector.score(*answers).numpy() > detector.threshold).mean()
        assert found.section["flagged_known"][tiny_dataset.class_names[c]] == share
    task = client_task(ways=3, shots=4, labelled=found.task)
    shards = [_shard(tiny_dataset, client, task) for client in range(3)]
    assert found.section["named"] == sum(len(each.train_rows) for each in shards)
    assert found.section["due"] == 36 and len(found.section["classes"]) == 2
    for shard in shards:
        for row in shard.train_rows:
            c = int(tiny_dataset.train_labels[row])
            assert found.flags[c][tiny_dataset.rows("train", c).tolist().index(row)]
    assert f"{found.section['named']} named images of 36, in 2 draws" in labelling_summary(
        found.section
    )


def test_a_stricter_collective_flags_fewer(result, tiny_dataset):
    few, many = (
        label_open_world(
            OpenWorldSettings(accept=accept), LABELLED, SHARDS, 3, tiny_dataset, result
        ).flags
        for accept in (0.6, 0.3)
    )
    assert sum(its.sum() for its in few.values()) < sum(its.sum() for its in many.values())
    assert all((few[c] <= many[c]).all() for c in few)


def test_the_control_flags_as_many_of_unknown_images_as_of_known_ones(result, tiny_dataset):
    asked, control = OpenWorldSettings(accept=0.5), replace(LABELLED, flags="random")
    by_detector, found = (
        label_open_world(asked, how, SHARDS, 3, tiny_dataset, result) for how in (LABELLED, control)
    )
    for measured in ("flagged", "flagged_known"):  # of the collective, whoever flags
        assert found.section[measured] == by_detector.section[measured]
    share = np.mean([*found.section["flagged_known"].values()])
    for flags in found.flags.values():
        assert flags.sum() == round(share * len(flags))
    assert any((found.flags[c] != by_detector.flags[c]).any() for c in found.flags)
    task = client_task(ways=3, shots=4, labelled=found.task)
    rows = _shard(tiny_dataset, 0, task).train_rows
    flagged = [tiny_dataset.rows("train", c)[flags] for c, flags in found.flags.items()]
    assert set(rows) <= set(np.concatenate(flagged))
    line = labelling_summary(found.section)
    unknown = np.mean([*found.section["flagged"].values()])
    assert f"{unknown:.1%} of open-world images, {share:.1%} of known ones" in line


def test_without_draws_nothing_is_flagged(tiny_dataset):
    off, none = LabelledSettings(draws=0), SimpleNamespace(trained=None)
    found = label_open_world(OpenWorldSettings(), off, SHARDS, 3, tiny_dataset, none)  # type: ignore[arg-type]
    assert found is None


def over_draws(make, section: dict[str, Any] | None = SECTION) -> dict[str, Any]:
    plain = make(n=5)
    sections = {
        name: plain[name]
        for name in ("run", "data", "collective", "criterion", "learngene", "open_world",
                     "clients", "messages")
    }  # fmt: skip
    return build_results(**sections, methods=("learngene", "scratch"), labelled=section)


def test_means_are_over_draws_and_paired_by_draw(make):
    results = over_draws(make)
    of = {
        name: [
            np.mean(
                [c["methods"][name]["accuracy"] for c in results["clients"] if c["id"] % 2 == d]
            )
            for d in (0, 1)
        ]
        for name in ("learngene", "scratch")
    }
    for name, values in of.items():
        assert results["summary"][name]["n"] == 2
        assert results["summary"][name]["mean"] == pytest.approx(summarise(values)["mean"])
        assert results["summary"][name]["ci95"] == pytest.approx(summarise(values)["ci95"])
    gain = paired_gain(of["learngene"], of["scratch"])
    assert results["summary"]["gain"]["mean"] == pytest.approx(gain["mean"])
    assert results["summary"]["gain"]["wins"] == 2
    (said,) = footnotes(results)
    assert said.startswith("Open-world classes: in each of 2 draws of 5 classes, clients hold")
    assert "180 of the 200" in said and "energy, 80% of held-out known" in said
    assert "flags 50.0 % of open-world images and 25.0 % of known test images" in said
    note = interval_note(results)
    assert "over draws of classes" in note and "paired by draw" in note
    assert "2 of 2 draws of classes" in headline(results)
    plain = over_draws(make, None)
    assert plain["summary"]["learngene"]["n"] == 5 and footnotes(plain) == []
    assert "over clients" in interval_note(plain)
