"""Shards of images that the collective called unknown and a labeller named (table 2).

A draw is ``ways`` open-world classes. A client meets the training images of its draw's classes in
an order of its own; those that the collective calls unknown are named, until it has ``shots`` of a
class. What the collective misses nobody names: a class may end with fewer. Every method of a run
gets these same images, with their names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learngene.data.dataset import ImageDataset
from learngene.data.partition import Shard, draw_classes, shard_of_rows
from learngene.data.settings import ShardSettings
from learngene.errors import InputError
from learngene.seeding import generator
from learngene.utils.settings import of_client

Flags = Mapping[int, NDArray[np.bool_]]  # class -> of its training images, in their order


def draw_of(client: int, draws: int) -> int:
    """The draw that a client belongs to."""
    return client % draws


def classes_of(dataset: ImageDataset, *, ways: int, shard_seed: int, draw: int) -> tuple[int, ...]:
    """The open-world classes of a draw, in the order of its clients' labels.

    Raises:
        InputError: there are fewer.
    """
    chance = generator(shard_seed, "labelled-draw", client=draw)
    return draw_classes(dataset, "open_world", ways, chance)


def draw_labelled_shard(
    dataset: ImageDataset, flags: Flags, shards: ShardSettings, client: int
) -> Shard:
    """A client's shard of named images; a pure function of its arguments.

    Fewer shots from the same seed are of the same images.

    Args:
        flags: which training images the collective called unknown, of every class of the draw.

    Raises:
        InputError: there are too few classes, or of one of them no image was called unknown.
    """
    ways, shots = of_client(shards.ways, client), of_client(shards.shots, client)
    draw = draw_of(client, shards.draws)
    classes = classes_of(dataset, ways=ways, shard_seed=shards.seed, draw=draw)
    picked = []
    for c in classes:
        rows = dataset.rows("train", c)
        order = generator(shards.seed, f"labelled/{c}", client=client).permutation(len(rows))
        named = rows[order[flags[c][order]][:shots]]
        if not len(named):
            images = f"not one of the {len(rows)} images of class {dataset.class_names[c]}"
            problem = f"{images} was called unknown, so nobody could name it"
            limit = "open_world.threshold, or open_world.accept where that is calibrated"
            fix = f"Lower {limit}, or choose another open_world.score"
            raise InputError("labelled.draws", shards.draws, problem, fix)
        picked.append(named)
    return shard_of_rows(dataset, client, classes, picked)


def random_flags(dataset: ImageDataset, share: float, seed: int) -> Flags:
    """The control: this share of every open-world class's training images, drawn at random."""
    flags = {}
    for c in dataset.class_split.open_world:
        count = len(dataset.rows("train", c))
        flags[c] = np.arange(count) < round(share * count)
        generator(seed, f"random-flags/{c}").shuffle(flags[c])
    return flags


def all_flagged(dataset: ImageDataset) -> Flags:
    """As if every image were called unknown: the most that shards could hold."""
    return {c: np.ones(len(dataset.rows("train", c)), bool) for c in dataset.class_split.open_world}


def encode_flags(flags: Flags) -> dict[str, str]:
    """Flags by class as hexadecimal bits, which a message holds in few bytes."""
    return {str(c): np.packbits(its).tobytes().hex() for c, its in flags.items()}


def decode_flags(dataset: ImageDataset, encoded: Mapping[str, str]) -> Flags:
    """What ``encode_flags`` was given.

    Raises:
        ValueError: the bits are not as many as the class has images.
    """
    flags: dict[int, NDArray[np.bool_]] = {}
    for name, text in encoded.items():
        count = len(dataset.rows("train", int(name)))
        bits = np.frombuffer(bytes.fromhex(text), np.uint8)
        if len(bits) != -(-count // 8):
            raise ValueError(f"flags of class {name}: {8 * len(bits)} bits, {count} images")
        flags[int(name)] = np.unpackbits(bits, count=count).astype(bool)
    return flags
