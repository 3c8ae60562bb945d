"""What a world is: the settings that ask for one, its division, and its opened arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learngene.errors import InputError

FORMAT = 2  # raise it when the files, the glyphs or the decoding change: old caches are left alone
HASH = np.dtype("V16")  # content hash of an image: BLAKE2b of its pixels, 16 bytes
SPLITS = ("train", "test")


@dataclass(frozen=True)
class WorldSettings:
    """What shapes a world; the fields mean what they mean in ``conf.schema.Data``."""

    name: str  # glyphs | cifar100 | imagenet100 | imagefolder
    root: str | None = None
    download: bool = False
    image_size: int | None = None  # pixels
    classes: int = 100
    train_per_class: int = 150
    test_per_class: int = 60
    base: float = 0.64
    open_world: float = 0.16
    novel: float = 0.20
    test_share: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class Division:
    """Class indices of the three groups.

    Raises:
        InputError: a class is in two groups.
    """

    base: tuple[int, ...]  # the collective learns them
    open_world: tuple[int, ...]  # never trained on: thresholds and learning rates are tuned here
    novel: tuple[int, ...]  # the clients' classes

    def __post_init__(self) -> None:
        every = self.base + self.open_world + self.novel
        twice = sorted({index for index in every if every.count(index) > 1})
        if twice:
            raise InputError(
                "data.division",
                twice,
                f"base, open-world and novel classes share {len(twice)} classes, they may share 0",
                "Put each class into one group",
            )

    def group(self, name: str) -> tuple[int, ...]:
        """The class indices of ``base``, ``open_world`` or ``novel``."""
        return {"base": self.base, "open_world": self.open_world, "novel": self.novel}[name]


@dataclass(frozen=True, eq=False)
class World:
    """An opened world. Images are memory-mapped read-only, so processes share one copy of them.

    N is a split's number of images. A world crosses process boundaries as its path alone.
    """

    name: str
    path: Path  # its folder in the cache
    image_shape: tuple[int, int, int]  # (C, H, W)
    class_names: tuple[str, ...]
    division: Division
    sha256: str  # over images, labels, class names and division
    duplicates_dropped: int  # images left out because their pixels occur once already
    conflicting_labels: int  # of those, how many carried another label than the copy kept
    flip: bool  # a horizontal flip keeps the label (letters mirror into other letters)
    train_images: NDArray[np.uint8]  # (N, H, W, C)
    train_labels: NDArray[np.int64]  # (N,)
    train_hashes: NDArray[np.void]  # (N,), 16 bytes each
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    test_hashes: NDArray[np.void]

    def __reduce__(self) -> tuple[Callable[[Path], World], tuple[Path]]:
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

    def rows(self, split: str, class_index: int) -> NDArray[np.int64]:
        """Ascending row indices of a class in ``train`` or ``test``; read-only."""
        return self._rows[split][class_index]


def load(path: str | Path) -> World:
    """Open a world that ``build`` made. Repeated calls in a process give the same object.

    Raises:
        InputError: the folder holds no complete world of this format.
    """
    return _load(str(Path(path).resolve()))


def forget() -> None:
    """Open worlds anew from now on: one was built again."""
    _load.cache_clear()


@lru_cache(maxsize=8)
def _load(path: str) -> World:
    folder = Path(path)
    try:
        card: dict[str, Any] = json.loads((folder / "world.json").read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']}, this release reads {FORMAT}")
        arrays: dict[str, Any] = {}
        for split in SPLITS:
            images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
            hashes = np.load(folder / f"{split}_hashes.npy", allow_pickle=False)
            sizes = {len(images), len(labels), len(hashes), card["images"][split]}
            if len(sizes) != 1:
                raise ValueError(f"{split} arrays have different lengths {sorted(sizes)}")
            labels.setflags(write=False)
            hashes.setflags(write=False)
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
            arrays[f"{split}_hashes"] = hashes
        division = Division(*(tuple(card["division"][g]) for g in ("base", "open_world", "novel")))
        return World(
            name=card["name"],
            path=folder,
            image_shape=(card["image_shape"][0], card["image_shape"][1], card["image_shape"][2]),
            class_names=tuple(card["class_names"]),
            division=division,
            sha256=card["sha256"],
            duplicates_dropped=card["duplicates_dropped"],
            conflicting_labels=card["conflicting_labels"],
            flip=card["flip"],
            **arrays,
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            "cache", path, f"no complete world lies there ({error})", "Delete that folder"
        ) from error
