"""A client's private shard, and the check that nothing leaks between shards, tests and base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learngene.data.augment import still_views, to_batch
from learngene.data.dataset import GROUPS, SPLITS, ImageDataset
from learngene.data.dirichlet import divide
from learngene.data.settings import ShardSettings, divided_images
from learngene.errors import InputError
from learngene.seeding import generator
from learngene.utils.settings import Limits, check_value, of_client


@dataclass(frozen=True, eq=False)
class Shard:
    """The images that one client holds, as rows of its dataset."""

    client: int
    classes: tuple[int, ...]  # class indices, in the order of the client's labels 0..ways-1
    train_rows: NDArray[np.int64]  # (images,): a first image of every class, then a second..
    test_rows: NDArray[np.int64]  # all test images of those classes, ascending; or the queries
    # Both are of all images of a class: rows count on from the training images to the test images.
    pooled: bool = False

    def rows(self, dataset: ImageDataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``train_rows`` and ``test_rows`` as ``ImageDataset.take`` counts them."""
        return self.train_rows, self.test_rows + (0 if self.pooled else len(dataset.train_labels))


def draw_classes(
    dataset: ImageDataset, name: str, ways: int, chance: np.random.Generator
) -> tuple[int, ...]:
    """``ways`` classes of the group ``name``, in the order in which they were drawn.

    Raises:
        InputError: the group has fewer.
    """
    group = dataset.class_split.group(name)
    if not 1 <= ways <= len(group):
        needed = f"a client needs {max(ways, 1)} {name.replace('_', '-')} classes"
        fix = "Lower ways or choose another class split" if ways > 0 else "Raise ways"
        raise InputError("ways", ways, f"{needed}, {dataset.name} has {len(group)}", fix)
    return tuple(group[i] for i in chance.permutation(len(group))[:ways])


def draw_shard(dataset: ImageDataset, shards: ShardSettings, client: int) -> Shard:
    """Draw a client's shard; a pure function of its arguments.

    Fewer shots (or ways) from the same seed are a prefix of more: the same classes, and
    ``train_rows`` of the smaller draw begin those of the larger. The queries are the same. Clients
    draw each for itself: two may hold the same image. With ``partition`` they divide the images: no
    two do. Clients count from 0.

    Raises:
        InputError: the dataset has fewer classes, or a class fewer images, than asked, or they
            cannot be divided so.
    """
    check_value("data.clients_from", shards.classes_from, Limits(choices=("novel", "open_world")))
    seed, queries, partition = shards.seed, shards.queries, shards.partition
    group = dataset.class_split.group(shards.classes_from)
    if partition is not None:
        images = divided_images(shards.ways, shards.shots, partition.clients) // len(group)
        _check_shots(dataset, group, images, shards.shots, "clients divide", divided=True)
        ends = divide(len(group), images, partition, seed)[:, client : client + 2]
        held = [(c, *part) for c, part in zip(group, ends.tolist(), strict=True) if np.ptp(part)]
        picked = []
        for c, first, end in held:
            order = generator(seed, f"dirichlet/{c}").permutation(dataset.rows("train", c))
            picked.append(order[first:end])
        return shard_of_rows(dataset, client, tuple(c for c, *_ in held), picked)
    chance, images = generator(seed, "shard", client=client), of_client(shards.shots, client)
    classes = draw_classes(dataset, shards.classes_from, of_client(shards.ways, client), chance)
    # Over the whole group, not the drawn classes: client 17 must not fail where client 0 did not.
    _check_shots(dataset, group, images, images, "a client needs", queries)
    # One generator a class: what is drawn of it does not depend on ways or on its neighbours.
    orders = [
        generator(seed, f"shard/{index}", client=client).permutation(
            dataset.rows("train", index) if queries is None else dataset.all_rows(index)
        )
        for index in classes
    ]
    picked = [order[:images] for order in orders]
    if queries is None:
        return shard_of_rows(dataset, client, classes, picked)
    asked = [order[-queries:] for order in orders]
    return Shard(client, classes, in_turn(picked), in_turn(asked), pooled=True)


def _check_shots(
    dataset: ImageDataset,
    group: Sequence[int],
    images: int,
    shots: object,
    who: str,
    queries: int | None = None,
    *,
    divided: bool = False,
) -> None:
    """Refuse shots that need more images of a class than the scarcest of the group has."""
    splits = ("train",) if queries is None else SPLITS
    held, scarce = min((sum(len(dataset.rows(s, c)) for s in splits), c) for c in group)
    if not 1 <= images <= held - (queries or 0):
        needed = f"{who} {max(images, 1)} training images of each class"
        if queries is not None:
            needed = f"{who} {images} + {queries} (queries) images of each class"
        problem = f"{needed}, class {dataset.class_names[scarce]} of {dataset.name} has {held}"
        if held - (queries or 0) < 1:
            raise InputError("queries", queries, problem, "Lower queries")
        lower = "Lower num_clients, shots or ways" if divided else "Lower shots"
        raise InputError("shots", shots, problem, lower if images > 0 else "Raise shots")


def shard_of_rows(
    dataset: ImageDataset,
    client: int,
    classes: tuple[int, ...],
    picked: Sequence[NDArray[np.int64]],
) -> Shard:
    """A shard of the training rows ``picked`` of each class, with all test images of these."""
    tests = np.sort(np.concatenate([dataset.rows("test", index) for index in classes]))
    return Shard(client, classes, in_turn(picked), tests)


def in_turn(picked: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """A first row of every class, then a second; of those that have one."""
    turns = [row for turn in zip_longest(*picked) for row in turn if row is not None]
    return np.array(turns, dtype=np.int64)


def _contents(dataset: ImageDataset, rows: NDArray[np.int64]) -> set[bytes]:
    return set(dataset.take("hashes", rows).tolist())


def check_leakage(
    dataset: ImageDataset,
    shards: Iterable[Shard],
    base_rows: NDArray[np.int64],
    *,
    with_open_world: bool = False,
) -> dict[str, bool | int]:
    """Look by content hash for images, and by label for classes, that are where they must not be.

    Args:
        dataset: where the images are.
        shards: every client's shard; one at a time is held.
        base_rows: rows of ``train`` that any model saw before the clients did, calibration
            images included.
        with_open_world: the models learn open-world classes, too (``open_world.cycles``): then
            these count as base.

    Returns:
        ``classes_disjoint``: the three groups share no class, base rows hold base classes only,
        shards hold their own classes only and none of base; ``shard_test_overlap``: images both
        in a client's shard and in its test set, summed over clients; ``shard_base_overlap`` and
        ``test_base_overlap``: images of any shard or its test set that are also in base;
        ``duplicates_dropped``: by ``build``; ``images_checked``: distinct rows looked at;
        ``passed``: disjoint and no overlap.
    """
    base, open_world, novel = (set(dataset.class_split.group(group)) for group in GROUPS)
    disjoint = not (base & open_world or base & novel or open_world & novel)
    if with_open_world:
        base = base | open_world
    disjoint &= set(dataset.train_labels[base_rows].tolist()) <= base
    shard_test_overlap = 0
    held, tested = np.zeros((2, len(dataset.train_labels) + len(dataset.test_labels)), bool)
    for shard in shards:
        private, both = set(shard.classes), shard.rows(dataset)
        labels = set(dataset.take("labels", np.concatenate(both)).tolist())
        disjoint &= not private & base and labels <= private
        shard_test_overlap += len(_contents(dataset, both[0]) & _contents(dataset, both[1]))
        held[both[0]] = tested[both[1]] = True

    seen = _contents(dataset, base_rows)
    overlaps = {
        "shard_test_overlap": shard_test_overlap,
        "shard_base_overlap": len(_contents(dataset, np.flatnonzero(held)) & seen),
        "test_base_overlap": len(_contents(dataset, np.flatnonzero(tested)) & seen),
    }
    held[base_rows] = True
    return {
        "classes_disjoint": bool(disjoint),
        **overlaps,
        "duplicates_dropped": dataset.duplicates_dropped,
        "images_checked": int((held | tested).sum()),
        "passed": bool(disjoint) and not any(overlaps.values()),
    }


@dataclass(frozen=True)
class ShardData:
    """Images (N, C, H, W) normalised, labels (N,) as 0..ways-1, for training and test."""

    classes: tuple[int, ...]  # the label i stands for classes[i] of the dataset, or of the user
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    flip: bool  # whether a mirrored image keeps its class
    test_views: int = 1  # of each test image: test_x has all first views, then all second ones, ...
    moved: bool = False  # whether ``still_views`` of the training images are moved ones, too

    @property
    def ways(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def with_views(self, *, mirror: bool, moved: bool) -> ShardData:
        """The shard with further views of its test images (``augment.still_views``), and where
        ``moved`` of its training images where a method looks at them as they are.

        Args:
            mirror: mirror images, if it may have them.
            moved: moved ones.
        """
        mirror = mirror and self.flip
        if not (mirror or moved):
            return self
        views = still_views(self.test_x, mirror=mirror, moved=moved)
        return replace(
            self,
            test_x=torch.cat(views),
            test_y=self.test_y.repeat(len(views)),
            test_views=len(views) * self.test_views,
            moved=moved,
        )


def shard_of(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    flip: bool = True,
    device: torch.device | str = "cpu",
) -> ShardData:
    """A shard of images that one holds oneself.

    Args:
        train_images: uint8 (N, H, H, C), all of one size.
        train_labels: (N,) any integers, which say what the classes are.
        test_images: as the training images.
        test_labels: (M,), of the same classes.
        flip: whether a mirrored image keeps its class (letters do not).

    Raises:
        ValueError: the arrays do not fit each other, or a test label is of no training image.
    """
    for name, images, labels in (
        ("train", train_images, train_labels),
        ("test", test_images, test_labels),
    ):
        check_images(f"{name}_images", images)
        if len(images) != len(labels) or len(images) == 0:
            raise ValueError(f"{len(images)} {name} images have {len(labels)} labels")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"training images are {train_images.shape[1:]}, test images {test_images.shape[1:]}"
        )
    classes = np.unique(train_labels)
    if strange := np.setdiff1d(test_labels, classes).tolist():
        raise ValueError(f"test label {strange[0]} is of no training image")

    train, test = (train_images, train_labels), (test_images, test_labels)
    return _shard_data(tuple(classes.tolist()), train, test, flip, torch.device(device))


def _shard_data(
    classes: tuple[int, ...],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    flip: bool,
    device: torch.device,
) -> ShardData:
    """``train`` and ``test`` are images (N, H, W, C) and their labels (N,), each in ``classes``."""
    way = {label: i for i, label in enumerate(classes)}
    train_y, test_y = (
        torch.tensor([way[label] for label in labels.tolist()], device=device)
        for _, labels in (train, test)
    )
    train_x, test_x = to_batch(train[0], device), to_batch(test[0], device)
    return ShardData(classes, train_x, train_y, test_x, test_y, flip)


def check_images(name: str, images: np.ndarray) -> None:
    """Hold that images are as they come from files.

    Raises:
        ValueError: they are not uint8 (N, H, W, C), as others would be normalised twice, or H is
            not W, which ``augment`` takes for granted.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"{name} are {images.dtype} {images.shape}, uint8 (N, H, W, C) is due")
    if images.shape[1] != images.shape[2]:
        raise ValueError(f"{name} are {images.shape}, H and W differ: crop or pad them to squares")


def read_shard(dataset: ImageDataset, shard: Shard, device: torch.device) -> ShardData:
    """Read a shard's images from the dataset's mmap; nothing else of the dataset is touched."""
    train, test = (
        (dataset.take("images", rows), dataset.take("labels", rows)) for rows in shard.rows(dataset)
    )
    return _shard_data(tuple(shard.classes), train, test, dataset.flip, device)
