"""What a dataset is: its classes in three groups, and its opened arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learngene.data.settings import is_range
from learngene.errors import InputError
from learngene.utils.untrusted import MEBIBYTE, is_int_in_range, map_npy, read_json

FORMAT = 2  # raise it when the files, the glyphs or the decoding change: old caches are left alone
HASH = np.dtype("V16")  # content hash of an image: BLAKE2b of its pixels, 16 bytes
SPLITS = ("train", "test")
GROUPS = ("base", "open_world", "novel")
CARD_LIMIT = 64 * MEBIBYTE  # bytes of world.json: class names are nearly all of it


@dataclass(frozen=True)
class ClassSplit:
    """Class indices of the three groups.

    Raises:
        InputError: a class is in two groups.
    """

    base: tuple[int, ...]  # the collective learns them
    open_world: tuple[int, ...]  # met later (cycles, table 2); settings are chosen on them
    novel: tuple[int, ...]  # the clients' classes

    def __post_init__(self) -> None:
        every = self.base + self.open_world + self.novel
        twice = sorted({index for index in every if every.count(index) > 1})
        if twice:
            shared = f"base, open-world and novel classes share {len(twice)} classes"
            fix = "Put each class into one group"
            raise InputError("data.division", twice, f"{shared}, they may share 0", fix)

    def group(self, name: str) -> tuple[int, ...]:
        """The class indices of ``base``, ``open_world`` or ``novel``."""
        return {"base": self.base, "open_world": self.open_world, "novel": self.novel}[name]


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """An opened dataset: arrays, not torch's ``Dataset``, which gives one item after another.

    Images are memory-mapped read-only, so processes share one copy of them. N is a split's number
    of images. A dataset crosses process boundaries as its path alone.
    """

    name: str
    path: Path  # its folder in the cache
    image_shape: tuple[int, int, int]  # (C, H, W)
    class_names: tuple[str, ...]
    class_split: ClassSplit
    sha256: str  # over images, labels, class names and class split
    duplicates_dropped: int  # images left out because their pixels occur once already
    conflicting_labels: int  # of those, how many carried another label than the copy kept
    flip: bool  # a horizontal flip keeps the label (letters mirror into other letters)
    train_images: NDArray[np.uint8]  # (N, H, W, C)
    train_labels: NDArray[np.int64]  # (N,)
    train_hashes: NDArray[np.void]  # (N,), 16 bytes each
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    test_hashes: NDArray[np.void]
    # of images of more than 8 bits: what became 0 and 255
    value_range: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()  # what the user should know of its images, in words

    def __reduce__(self) -> tuple[Callable[[Path], ImageDataset], tuple[Path]]:
        return load, (self.path,)

    @cached_property
    def _rows(self) -> dict[str, list[NDArray[np.int64]]]:
        made: dict[str, list[NDArray[np.int64]]] = {}
        for split, labels in (("train", self.train_labels), ("test", self.test_labels)):
            order = np.argsort(labels, kind="stable")  # stable: rows of a class stay ascending
            ends = np.searchsorted(labels[order], np.arange(len(self.class_names) + 1))
            made[split] = [order[a:b] for a, b in pairwise(ends)]
            for rows in made[split]:
                rows.setflags(write=False)
        return made

    def take(self, kind: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """``images``, ``labels`` or ``hashes`` of rows (B,) that count on from train to test."""
        train, test = (getattr(self, f"{split}_{kind}") for split in SPLITS)
        later = rows >= len(train)
        found = np.empty((len(rows), *train.shape[1:]), train.dtype)
        found[~later], found[later] = train[rows[~later]], test[rows[later] - len(train)]
        return found

    def rows(self, split: str, class_index: int) -> NDArray[np.int64]:
        """Ascending row indices of a class in ``train`` or ``test``; read-only."""
        return self._rows[split][class_index]

    def all_rows(self, class_index: int) -> NDArray[np.int64]:
        """Those of both splits, as ``take`` counts them."""
        test = self.rows("test", class_index) + len(self.train_labels)
        return np.concatenate([self.rows("train", class_index), test])


def load(path: str | Path) -> ImageDataset:
    """Open a dataset that ``build`` made. Repeated calls in a process give the same object.

    Raises:
        InputError: the folder holds no complete dataset of this format.
    """
    return _load(str(Path(path).resolve()))


def forget() -> None:
    """Open worlds anew at the next ``load``: one was taken away."""
    _load.cache_clear()


@lru_cache(maxsize=8)
def _load(path: str) -> ImageDataset:
    folder = Path(path)
    try:
        card = read_card(folder)
        arrays: dict[str, Any] = {}
        for split in SPLITS:
            count = card["images"][split]
            shape = (count, *card["image_shape"][1:], card["image_shape"][0])
            for name, dtype in ((f"{split}_labels", np.dtype(np.int64)), (f"{split}_hashes", HASH)):
                small = map_npy(folder / f"{name}.npy", dtype, (count,))
                if array_digest(small) != card["digests"][name]:
                    raise ValueError(f"{name}.npy is not what was written")
                arrays[name] = _kept(small)
            name = f"{split}_images"
            arrays[name] = map_npy(folder / f"{name}.npy", np.dtype(np.uint8), shape)
        class_split = ClassSplit(*(tuple(card["division"][g]) for g in GROUPS))
        return ImageDataset(
            name=card["name"],
            path=folder,
            image_shape=(card["image_shape"][0], card["image_shape"][1], card["image_shape"][2]),
            class_names=tuple(card["class_names"]),
            class_split=class_split,
            sha256=card["sha256"],
            duplicates_dropped=card["duplicates_dropped"],
            conflicting_labels=card["conflicting_labels"],
            flip=card["flip"],
            value_range=None if (known := card.get("value_range")) is None else tuple(known),
            notes=tuple(card.get("notes", ())),
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"no complete dataset lies there ({' '.join(str(error).split())[:200]})"
        raise InputError("cache", path, problem, "Delete that folder") from error


def _kept(array: NDArray[Any]) -> NDArray[Any]:
    """A small array in memory, read-only: nothing is then read from the file again."""
    made = np.array(array)
    made.setflags(write=False)
    return made


def array_digest(array: NDArray[Any]) -> str:
    """sha256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def seal(card: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's card with the sha256 of itself, by which ``read_card`` knows it again."""
    return {**card, "card_sha256": _card_digest(card)}


def _card_digest(card: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()


def read_card(folder: Path) -> dict[str, Any]:
    """``world.json``, known to be as it was written and to describe a dataset that can be.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is not there, or something else.
    """
    card = read_json(folder / "world.json", CARD_LIMIT)
    if not isinstance(card, dict) or card.pop("card_sha256", None) != _card_digest(card):
        raise ValueError("world.json is not what was written")
    if card["format"] != FORMAT:
        raise ValueError(f"format {card['format']}, this release reads {FORMAT}")
    names, (channels, *sides) = card["class_names"], card["image_shape"]
    fits = (
        len(names) > 0
        and all(isinstance(name, str) for name in names)
        and all(is_int_in_range(c, 0, len(names) - 1) for g in GROUPS for c in card["division"][g])
        and is_int_in_range(channels, 1, 16)
        and len(sides) == 2
        and all(is_int_in_range(side, 1, 1 << 14) for side in sides)
        and all(is_int_in_range(card["images"][split], 1, 1 << 32) for split in SPLITS)
        and isinstance(card["flip"], bool)
        and isinstance(card["name"], str)
        and isinstance(card["sha256"], str)
        and all(is_int_in_range(card[name], 0, 1 << 32) for name in ("duplicates_dropped",
                                                           "conflicting_labels"))
        and all(isinstance(note, str) for note in card.get("notes", ()))
        and ("value_range" not in card or is_range(card["value_range"]))
    )  # fmt: skip
    if not fits:
        raise ValueError("world.json describes no dataset")
    return card
