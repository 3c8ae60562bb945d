from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learngene.data.cache import build, open_source
from learngene.data.dataset import ImageDataset
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.decode import decode
from learngene.errors import InputError
from tests.learngene.data.helpers import FOLDERS, noise, write_folders


def _settings(root: Path, **change: object) -> SeededDataSettings:
    return replace(FOLDERS, root=str(root), **change)  # type: ignore[arg-type]


def _names(dataset: ImageDataset, group: str) -> set[str]:
    return {dataset.class_names[index] for index in dataset.class_split.group(group)}


def test_two_splits(tmp_path: Path) -> None:
    write_folders(tmp_path / "in/train", list("abcdefgh"), 4, 0)
    write_folders(tmp_path / "in/test", list("abcdefgh"), 2, 1)
    (tmp_path / "in/train/a/notes.txt").write_text("no image")
    dataset = build(_settings(tmp_path / "in"), tmp_path)
    assert dataset.class_names == tuple("abcdefgh") and dataset.flip
    assert np.array_equal(dataset.train_images[dataset.rows("train", 2)], noise(2, 4))
    assert np.array_equal(dataset.test_images[dataset.rows("test", 2)], noise(1002, 2))
    assert [len(dataset.class_split.group(g)) for g in ("base", "open_world", "novel")] == [4, 2, 2]


def test_one_level_is_split_by_seed(tmp_path: Path) -> None:
    # CIFAR-100 has a class called train: a folder of images is a class whatever its name
    write_folders(tmp_path / "in", ["a", "b", "test", "train"], 10)
    dataset = build(_settings(tmp_path / "in", test_share=0.3), tmp_path)
    assert dataset.class_names == ("a", "b", "test", "train")
    assert np.bincount(dataset.train_labels).tolist() == [7, 7, 7, 7]
    assert np.bincount(dataset.test_labels).tolist() == [3, 3, 3, 3]
    both = {*dataset.train_hashes.tolist(), *dataset.test_hashes.tolist()}
    assert len(both) == 40
    other = build(_settings(tmp_path / "in", test_share=0.3, seed=1), tmp_path)
    assert {*other.test_hashes.tolist()} != {*dataset.test_hashes.tolist()}


def test_class_split_follows_seed_and_shares(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", list("abcdefghijkl"), 2)
    drawn = {
        frozenset(_names(build(_settings(tmp_path / "in", seed=s), tmp_path), "novel"))
        for s in range(5)
    }
    assert len(drawn) > 1 and all(len(some) == 3 for some in drawn)
    wide = build(_settings(tmp_path / "in", base=0.25, novel=0.5), tmp_path)
    assert (len(wide.class_split.base), len(wide.class_split.novel)) == (3, 6)


def test_any_mode_and_size(tmp_path: Path) -> None:
    def save(image: Image.Image, name: str = "x.png") -> np.ndarray:
        image.save(tmp_path / name)
        return decode(tmp_path / name, 8, "here")

    grey = Image.new("L", (20, 10), 100)
    assert (save(grey) == 100).all()
    assert (save(grey.convert("P")) == 100).all()
    assert (save(grey, "x.jpg") == 100).all()
    clear = Image.new("RGBA", (30, 12), (10, 20, 30, 0))
    assert (save(clear) == 255).all()  # what cannot be seen is white
    solid = Image.new("RGBA", (8, 8), (10, 20, 30, 255))
    assert (save(solid) == [10, 20, 30]).all()
    # the centred square is kept: a red band left and right of a wide image goes
    wide = Image.new("RGB", (64, 8), "red")
    wide.paste((0, 0, 255), (20, 0, 44, 8))
    assert (save(wide) == [0, 0, 255]).all()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", list("abcd"), 3)
    whole = (tmp_path / "in/d/2.png").read_bytes()
    (tmp_path / "in/d/2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"in/d/2\.png: this image does not decode"):
        build(_settings(tmp_path / "in"), tmp_path)
    assert list((tmp_path / "worlds").iterdir()) == []


def test_what_cannot_be_used(tmp_path: Path) -> None:
    def refuse(says: str, **change: object) -> None:
        with pytest.raises(InputError, match=says):
            build(replace(_settings(tmp_path / "in"), **change), tmp_path)

    refuse("no such folder")
    (tmp_path / "in").mkdir()
    refuse(r"found no images in train/CLASS/\* or CLASS/\*")
    refuse("data.root=null", root=None)
    write_folders(tmp_path / "in", ["a", "b"], 3)
    refuse("data.image_size=null: .* Write, for instance, data.image_size=64", image_size=None)
    refuse("2 classes divide into 1 base, 1 open-world and 0 novel")
    write_folders(tmp_path / "in", ["c", "d"], 3)
    refuse("sum to 1.25", base=0.75)
    refuse("data.test_share=1.5", test_share=1.5)
    (tmp_path / "in/c/1.png").unlink()
    (tmp_path / "in/c/2.png").unlink()
    refuse("class c has 1 image, a split into train and test needs 2")


def test_splits_that_do_not_match(tmp_path: Path) -> None:
    write_folders(tmp_path / "in/train", list("abcd"), 2, 0)
    with pytest.raises(InputError, match=r"test/CLASS/\* beside train/"):
        build(_settings(tmp_path / "in"), tmp_path)
    write_folders(tmp_path / "in/test", list("abc"), 2, 1)
    with pytest.raises(InputError, match=r"1 classes are in one split only, e.g. d in train"):
        build(_settings(tmp_path / "in"), tmp_path)


@contextmanager
def _socket(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        yield


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "dangling link": (lambda p: p.symlink_to("/gone/x.png"), "there is no such file"),
    "link to itself": (lambda p: p.symlink_to(p), r"there is no such file \(Too many levels"),
    "pipe": (os.mkfifo, "no regular file, but a pipe"),
    "device": (lambda p: p.symlink_to("/dev/zero"), "no regular file, but a pipe"),
    "not UTF-8": (lambda p: Path(os.fsdecode(os.fsencode(p)[:-5] + b"\xff.png")).touch(),
                  r"\\xff\.png: the name is not UTF-8"),
    "3 GB": (lambda p: (p.touch(), os.truncate(p, 3 << 30)), "has 3,221,225,472 bytes, at most"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["cifar100", "imagefolder"])
def test_what_only_has_the_name_of_an_image(kind: str, name: str, tmp_path: Path) -> None:
    make, says = NO_FILES[kind]
    write_folders(tmp_path / "in", list("abcd"), 3)
    (tmp_path / "in/b/below").mkdir()
    make(tmp_path / "in/b/below/x.png")
    with pytest.raises(InputError, match=f"data.root=.*in/b/below/.*{says}") as told:
        open_source(_settings(tmp_path / "in", name=name))
    str(told.value).encode()


def test_a_socket_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path / "in", list("abcd"), 3)
    monkeypatch.chdir(tmp_path / "in/a")  # a socket's path is short
    with (
        _socket(Path("x.png")),
        pytest.raises(InputError, match=r"a/x\.png: no regular file, but a pipe"),
    ):
        open_source(_settings(tmp_path / "in"))


def test_a_class_that_is_a_link_to_nothing(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", list("abcd"), 3)
    (tmp_path / "in/e").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"in/e: there is no such file"):
        open_source(_settings(tmp_path / "in"))


def test_a_class_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", ["a", "b", "c", os.fsdecode(b"caf\xe9")], 3)
    with pytest.raises(InputError, match=r"in/caf\\xe9/0\.png: the name is not UTF-8") as told:
        open_source(_settings(tmp_path / "in"))
    str(told.value).encode()


def test_folders_and_hidden_ones(tmp_path: Path) -> None:
    """A folder called like an image is looked into; what is hidden is not, at any depth."""
    write_folders(tmp_path / "in", list("abcd"), 3)
    write_folders(tmp_path / "in/a", ["x.png", ".cache", "more/.thumbnails"], 2, seed=1)
    write_folders(tmp_path / "in", [".git"], 2, seed=2)
    (tmp_path / "in/a/.hidden.png").symlink_to("/gone")
    (tmp_path / "in/.gone").symlink_to("/gone")
    source = open_source(_settings(tmp_path / "in"))
    assert source.class_names == tuple("abcd")
    counts = np.bincount(np.concatenate([*source.labels.values()]))
    assert counts.tolist() == [5, 3, 3, 3]
    build(_settings(tmp_path / "in"), tmp_path)


def test_links_to_images_and_classes_are_followed(tmp_path: Path) -> None:
    write_folders(tmp_path / "there", list("abcdx"), 3)
    (tmp_path / "in").mkdir()
    for name in "abcd":
        (tmp_path / "in" / name).symlink_to(tmp_path / "there" / name)
    (tmp_path / "there/a/linked.png").symlink_to(tmp_path / "there/x/0.png")
    dataset = build(_settings(tmp_path / "in"), tmp_path)
    assert len(dataset.train_labels) + len(dataset.test_labels) == 13
