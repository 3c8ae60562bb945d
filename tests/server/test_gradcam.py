"""What figure 5 is made from: which images, which stages, and what is said when one is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from learngene.collective.gradcam import grad_cam
from learngene.data.augment import to_batch
from learngene.open_world.settings import OpenWorldSettings
from reports.figures import gradcam
from reports.figures.style import NoDataError
from server.collective import TrainedCollective, collective_after, train_collective
from server.gradcam import STAGES, compute_gradcam, decode, draw_rows, encode, evenly_spaced, shrink
from tests.helpers import CPU, hooked, settings


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def trained(tiny_dataset, cache: Path) -> TrainedCollective:
    """Three tasks, lived once: later tests find them saved."""
    return train_collective(
        tiny_dataset, settings(), CPU, cache, open_world=OpenWorldSettings(), resume=True
    )


@pytest.mark.parametrize("name", ["$\\nope4$", "cost $5 and $6", "日本", "a" * 80])
def test_any_name_of_a_folder_can_stand_above_an_image(
    tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    picture = encode(np.zeros((8, 8, 3), np.uint8))
    maps = encode(np.zeros((8, 8), np.uint8))
    found = {"stages": [{"known_classes": 6, "layer": 10, "task": 1}],
             "images": [{"class": name, "picture": picture, "maps": maps}]}  # fmt: skip
    path = gradcam.gradcam({"gradcam": found}, tmp_path / "x.png")
    assert path.stat().st_size > 1000
    assert not [each for each in recwarn if "Glyph" in str(each.message)]


def test_earlier_stages_are_the_collective_of_that_time(
    trained: TrainedCollective, cache: Path
) -> None:
    seen = {}

    def keep(trainer, found) -> None:
        state = trainer.collective.state_dict()
        seen[len(trainer.stages)] = {k: v.clone() for k, v in state.items()}

    dataset, asked = trained.trainer.dataset, trained.trainer.settings
    how = OpenWorldSettings()
    train_collective(
        dataset, asked, CPU, cache, open_world=how, resume=False, callback=hooked(on_task_end=keep)
    )
    for task in (1, 2, 3):
        state = collective_after(trained, cache, task).state_dict()
        assert set(state) == set(seen[task])
        assert all(torch.equal(state[k], seen[task][k]) for k in state)
    assert len(collective_after(trained, cache, 1).head.weight) == 6
    assert len(trained.trainer.collective.head.weight) == 16  # the finished one is not touched


def test_maps_are_those_of_each_stage(trained: TrainedCollective, cache: Path) -> None:
    found = compute_gradcam(trained, cache, 4)
    dataset = trained.trainer.dataset
    assert [s["known_classes"] for s in found["stages"]] == [6, 12, 16]
    assert {s["layer"] for s in found["stages"]} == {10} and found["missing"] == []
    rows = [image["row"] for image in found["images"]]
    x = to_batch(dataset.test_images[rows])
    for number in (1, 2, 3):
        maps, predicted = grad_cam(collective_after(trained, cache, number), x, 10)
        for i, image in enumerate(found["images"]):
            shown = np.split(decode(image["maps"]), 3)[number - 1]
            assert np.array_equal(shown, (255 * maps[i].numpy()).round().astype(np.uint8))
            known = trained.trainer.known[int(predicted[i])]
            assert image["predicted"][number - 1] == dataset.class_names[known]
    for image in found["images"]:
        assert np.array_equal(decode(image["picture"]), dataset.test_images[image["row"]])
        assert image["class"] == dataset.class_names[dataset.test_labels[image["row"]]]


def test_a_stage_whose_checkpoint_is_gone_is_left_out_and_named(
    trained: TrainedCollective, cache: Path, tmp_path: Path, make: Callable
) -> None:
    folder = tmp_path / "collectives" / trained.key
    folder.mkdir(parents=True)
    for path in (cache / "collectives" / trained.key).iterdir():
        if "002" not in path.name:
            (folder / path.name).write_bytes(path.read_bytes())
    found = compute_gradcam(trained, tmp_path, 2)
    assert found["missing"] == [2]
    assert [s["task"] for s in found["stages"]] == [1, 3]
    assert {len(image["predicted"]) for image in found["images"]} == {2}


def test_images_are_of_unknown_classes_half_of_each_group(trained: TrainedCollective) -> None:
    trainer, dataset = trained.trainer, trained.trainer.dataset
    rows = draw_rows(trainer, 7)
    labels = dataset.test_labels[rows].tolist()
    assert set(labels[:4]) == set(dataset.class_split.open_world)  # four classes, each once
    assert len(set(labels[4:])) == 3 and set(labels[4:]) <= set(dataset.class_split.novel)
    many = draw_rows(trainer, 40)
    assert len(set(many.tolist())) == 40
    counts = Counter(dataset.test_labels[many].tolist())
    assert {counts[c] for c in dataset.class_split.open_world} == {5}
    assert {counts[c] for c in dataset.class_split.novel} == {4}
    assert np.array_equal(many[:4], rows[:4])
    assert len(draw_rows(trainer, 0)) == 0


def test_images_come_from_the_seed(trained: TrainedCollective, evolve: Callable) -> None:
    drawn = [draw_rows(evolve(seed=seed), 6).tolist() for seed in (5, 5, 6, 7)]
    assert drawn[0] == drawn[1] == draw_rows(trained.trainer, 6).tolist()
    assert len({tuple(rows) for rows in drawn}) == 3


def test_a_class_that_was_taken_in_is_not_shown(
    trained: TrainedCollective, evolve: Callable
) -> None:
    trainer = evolve()
    taken = trainer.dataset.class_split.open_world[:3]
    trainer.stages = [*trained.trainer.stages]
    trainer.stages[-1] = replace(trainer.stages[-1], new_classes=list(taken))
    assert not set(trainer.dataset.test_labels[draw_rows(trainer, 12)]) & set(taken)


@pytest.mark.parametrize(
    ("stages", "due"), [(1, [1]), (4, [1, 2, 3, 4]), (13, [1, 3, 6, 8, 11, 13])]
)
def test_stages_are_spread_and_end_at_the_last(stages: int, due: list[int]) -> None:
    assert evenly_spaced(stages) == due
    assert all(
        len(set(evenly_spaced(n))) == len(evenly_spaced(n)) == min(n, STAGES)
        and evenly_spaced(n)[-1] == n
        for n in range(1, 60)
    )


def test_none_asked_for_is_none(trained: TrainedCollective, cache: Path) -> None:
    assert compute_gradcam(trained, cache, 0) is None


def test_pictures_come_back_and_long_sides_shrink() -> None:
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 3)):
        pixels = rng.integers(0, 256, shape, np.uint8)
        assert np.array_equal(decode(encode(pixels)), pixels)
        assert shrink(pixels, 96).shape == shape
    assert shrink(np.zeros((200, 100, 3), np.uint8), 96).shape == (96, 48, 3)
    for text in ("not base64!", encode(np.zeros((2, 2), np.uint8))[:40]):
        with pytest.raises(ValueError):
            decode(text)


def test_the_sheet_has_a_row_an_image_and_a_column_a_stage(make, tmp_path, monkeypatch) -> None:
    kept = []
    monkeypatch.setattr(
        "reports.figures.style.save", lambda figure, path: kept.append(figure) or path
    )
    results = make(n=1)
    gradcam.gradcam(results, tmp_path)
    axes = np.array(kept[0].axes).reshape(2, 3)
    assert [row[0].get_title() for row in axes] == ["letter a", "letter b"]
    assert [one.get_title() for one in axes[0][1:]] == ["5", "65"]
    section = results["gradcam"]["images"][1]
    assert np.array_equal(axes[1][0].images[0].get_array(), decode(section["picture"]))
    assert np.array_equal(axes[1][2].images[1].get_array(), decode(section["maps"])[8:])


@pytest.mark.parametrize(
    ("shown", "reason"), [(0, "report.gradcam_images is 0"), (6, "hold no Grad-CAM maps")]
)
def test_without_maps_the_reason_is_given(make, tmp_path, shown, reason) -> None:
    def change(sections) -> None:
        sections["gradcam"] = None
        sections["run"]["config"]["report"] = {"gradcam_images": shown}

    with pytest.raises(NoDataError, match=reason):
        gradcam.gradcam(make(n=1, change=change), tmp_path)
