from __future__ import annotations

import multiprocessing
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from learngene.data.arrays import ImageFile, first_copies
from learngene.data.cache import build, dataset_key, open_source
from learngene.data.dataset import HASH, ClassSplit, ImageDataset, load
from learngene.data.sources.glyphs import GlyphSource
from learngene.errors import InputError
from tests.learngene.data.helpers import FOLDERS, GLYPHS, noise, write_folders


def test_key_follows_settings_and_content(tmp_path: Path) -> None:
    def key(**change: object) -> str:
        settings = replace(GLYPHS, **change)
        return dataset_key(settings, open_source(settings))

    changes: list[dict] = [{"seed": 1}, {"classes": 21}, {"train_per_class": 7}, {"image_size": 40}]
    changes += [{"test_per_class": 4}, {"base": 0.4, "open_world": 0.3}]
    assert len({key(), *(key(**change) for change in changes)}) == 1 + len(changes)
    assert key() == key(test_share=0.5) == key(root="/elsewhere")  # glyphs use neither

    write_folders(tmp_path / "images", list("abcd"), 5)
    settings = replace(FOLDERS, root=str(tmp_path / "images"))
    before = dataset_key(settings, open_source(settings))
    Image.fromarray(noise(99, 1)[0]).save(tmp_path / "images/a/0.png")
    assert dataset_key(settings, open_source(settings)) != before


def test_second_build_opens_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int | None]] = []
    first = build(GLYPHS, tmp_path, lambda *said: told.append(said))
    assert told[-1] == ("dataset glyphs", 180, 180)
    monkeypatch.setattr(GlyphSource, "batches", None)
    again = build(GLYPHS, tmp_path, lambda *said: told.append(said))
    assert again is first is load(first.path)
    kept = len(first.train_labels) + len(first.test_labels)
    assert told[-1] == ("dataset glyphs is checked", kept, kept)
    assert pickle.loads(pickle.dumps(first)) is first  # crosses processes as a path


def test_failure_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = GlyphSource.batches

    def breaks(self: GlyphSource, split: str) -> Iterator[np.ndarray]:
        yield next(whole(self, split))
        assert list((tmp_path / "worlds").iterdir())  # it is being written
        raise KeyboardInterrupt

    monkeypatch.setattr(GlyphSource, "batches", breaks)
    with pytest.raises(KeyboardInterrupt):
        build(GLYPHS, tmp_path)
    assert list((tmp_path / "worlds").iterdir()) == []


def _race(cache: Path, gate: object, out: object) -> None:
    whole = GlyphSource.batches

    def meet(self: GlyphSource, split: str) -> Iterator[np.ndarray]:
        if split == "train":
            gate.wait(60)  # type: ignore[attr-defined]  # both have found no dataset by now
        return whole(self, split)

    GlyphSource.batches = meet  # type: ignore[method-assign]
    dataset = build(GLYPHS, cache)
    out.put((str(dataset.path), dataset.sha256, int(dataset.train_images.sum())))  # type: ignore[attr-defined]


def test_two_processes_at_once(tmp_path: Path, glyphs: ImageDataset) -> None:
    context = multiprocessing.get_context("spawn")
    gate, out = context.Barrier(2), context.Queue()
    both = [context.Process(target=_race, args=(tmp_path, gate, out)) for _ in range(2)]
    for process in both:
        process.start()
    results = {out.get(timeout=90) for _ in both}
    for process in both:
        process.join(30)
        assert process.exitcode == 0
    assert len(results) == 1
    assert next(iter(results))[1:] == (glyphs.sha256, int(glyphs.train_images.sum()))
    assert [p.name for p in (tmp_path / "worlds").iterdir()] == [Path(next(iter(results))[0]).name]


def test_a_copy_under_another_key_is_refused(tmp_path: Path) -> None:
    first, other = build(GLYPHS, tmp_path), replace(GLYPHS, seed=1)
    copy = first.path.with_name(dataset_key(other, open_source(other)))
    shutil.copytree(first.path, copy)
    with pytest.raises(InputError, match=r"other settings.*seed is 0 there and 1 here"):
        build(other, tmp_path)


def test_classes_in_two_groups_are_refused() -> None:
    with pytest.raises(InputError, match="share 2 classes, they may share 0"):
        ClassSplit((0, 1, 2), (2, 3), (3, 4))


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data=mnist: no such dataset"):
        build(replace(GLYPHS, name="mnist"), tmp_path)


@pytest.mark.parametrize("dropped", [[], [0], [2, 3, 4999], [4999], list(range(10, 3000, 2))])
def test_dropping_rows_in_place(dropped: list[int], tmp_path: Path) -> None:
    images = noise(0, 5000, 4)
    file = ImageFile(tmp_path / "x.npy", 5000, (4, 4, 3))
    for i in range(0, 5000, 700):
        file.append(images[i : i + 700])
    mask = np.ones(5000, np.bool_)
    mask[dropped] = False
    file.keep(mask)
    file.close()
    assert np.array_equal(np.load(tmp_path / "x.npy"), images[mask])
    assert (tmp_path / "x.npy").stat().st_size == 128 + 48 * mask.sum()


def test_which_copy_is_kept() -> None:
    def hashes(text: str) -> np.ndarray:
        return np.frombuffer(b"".join(c.encode() * 16 for c in text), HASH)

    # a: twice in train with one label; b: train and test; c: three labels; d: once
    masks, conflicts = first_copies(
        {"train": hashes("aabcc"), "test": hashes("bcd")},
        {"train": np.array([0, 0, 1, 2, 3]), "test": np.array([1, 4, 5])},
    )
    assert masks["train"].tolist() == [True, False, False, False, False]
    assert masks["test"].tolist() == [True, True, True] and conflicts == 2


def test_what_has_no_room_is_refused_before_it_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = GlyphSource.batches
    monkeypatch.setattr(GlyphSource, "batches", None)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=500_000))
    with pytest.raises(InputError, match=r"180 images of 32x32 take 0\.0 GB of disk") as caught:
        build(GLYPHS, tmp_path)
    assert caught.value.field == "cache"
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1e9))
    monkeypatch.setattr("learngene.data.cache.memory", lambda: (30_000, 1e9))
    with pytest.raises(InputError, match=r"180 images of 32x32 take 0\.0 GB of memory"):
        build(GLYPHS, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("learngene.data.sources.glyphs.memory", lambda: (1e9, 1e9))
    source = open_source(replace(GLYPHS, train_per_class=100_000))
    with pytest.raises(InputError, match=r"a class takes 4\.9 GB of memory, 1\.0 are") as caught:
        next(drawn(source, "train"))
    assert caught.value.field == "data.train_per_class"
