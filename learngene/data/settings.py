"""Settings of the dataset (``data``)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from learngene.data.class_lists import LISTS
from learngene.errors import InputError
from learngene.utils.settings import by_client, of_client, setting

NAMES = ("glyphs", *LISTS, "imagefolder")


@dataclass
class DataSettings:
    """Which images, and how their classes are divided."""

    # glyphs | imagefolder | the paper's: cifar100 | imagenet100 | few-shot learning's, of the same
    # files: cifar_fs | fc100 | mini_imagenet
    name: str = setting("glyphs", choices=NAMES)
    root: str | None = setting(None, path=True)  # folder with the images; not used by glyphs
    download: bool = False  # ask the Hugging Face hub when root is not given
    # side in pixels; null keeps the source's (imagefolder needs one)
    image_size: int | None = setting(None, ge=32, le=512)
    classes: int = setting(100, ge=10, le=108)  # glyphs: number of classes
    train_per_class: int = setting(100, ge=1, le=100_000)  # glyphs: training images of a class
    test_per_class: int = setting(60, ge=1, le=100_000)  # glyphs: test images of a class
    # glyphs, imagefolder: share of the classes that are base
    base: float = setting(0.64, gt=0, le=1)
    open_world: float = setting(0.16, gt=0, le=1)  # glyphs, imagefolder: share that is open-world
    novel: float = setting(0.20, gt=0, le=1)  # glyphs, imagefolder: share that is novel
    # imagefolder without train/ and test/: share of images that is test
    test_share: float = setting(0.2, gt=0, le=0.9)
    # imagefolder and named data sets, images of more than 8 bits a value (16-bit scans, floats):
    # [LOW, HIGH], the values that become 0 and 255; null measures the folder's
    value_range: list[float] | None = None
    # novel | open_world: the classes that clients hold
    clients_from: str = setting("novel", choices=("novel", "open_world"))
    # few_shot (a client draws ways classes, and shots images of each) | dirichlet (as many images
    # in all, evenly of every class, each of which is held by one client: learngene/data/dirichlet)
    partition: str = setting("few_shot", choices=("few_shot", "dirichlet"))
    # dirichlet: concentration of a class's shares among the clients. Small: each class lies with a
    # few clients; large: all clients hold all classes alike
    alpha: float = setting(0.5, gt=0, le=1e6)
    min_images: int = setting(10, ge=2)  # dirichlet: training images that a client has at least


def value_bounds(settings: DataSettings) -> tuple[float, float] | None:
    """``data.value_range`` as two numbers; None where it is not set.

    Raises:
        InputError: it is something else.
    """
    value = settings.value_range
    if value is None:
        return None
    if not is_range(value):
        problem = "two finite numbers are due, the lower one first"
        fix = "Write, for instance, data.value_range=[0,4095]"
        raise InputError("data.value_range", value, problem, fix)
    return value[0], value[1]


def is_range(value: Any) -> bool:
    """Whether it is two finite numbers, the lower one first."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(each, int | float) and math.isfinite(each) for each in value)
        and value[0] < value[1]
    )


def range_in(text: str | None) -> list[float] | None:
    """What is written as ``[LOW,HIGH]``; ``value_bounds`` says whether it can be."""
    try:
        found: list[float] | None = None if text is None else json.loads(text)
    except ValueError:
        fix = "Write, for instance, data.value_range=[0,4095]"
        raise InputError("data.value_range", text, "not two numbers in brackets", fix) from None
    return found


@dataclass
class SeededDataSettings(DataSettings):
    """The same with the seed of what is drawn: glyphs, splits and groups of classes."""

    seed: int = 0  # the run's


@dataclass(frozen=True)
class DirichletPartition:
    """How a class's training images are divided among all clients (``data.partition``)."""

    alpha: float  # concentration
    clients: int
    min_images: int  # of a client


def divided_images(ways: int | Sequence[int], shots: int | Sequence[int], clients: int) -> int:
    """How many images all clients divide: each as many as ``ways`` times ``shots`` of its own."""
    return _sum_of_products(tuple(by_client(ways)), tuple(by_client(shots)), clients)


@lru_cache(8)  # every client's shard asks for the same
def _sum_of_products(ways: tuple[int, ...], shots: tuple[int, ...], clients: int) -> int:
    return sum(of_client(ways, i) * of_client(shots, i) for i in range(clients))


@dataclass(frozen=True)
class ShardSettings:
    """What determines the clients' shards, besides the dataset."""

    ways: int | Sequence[int]  # classes of a shard; of several, client i has entry i modulo these
    shots: int | Sequence[int]  # training images of a class, without replacement; likewise
    seed: int  # of the draws of classes and images
    classes_from: str = "novel"  # novel | open_world
    draws: int = 0  # of classes, under table 2's protocol (``LabelledSettings``)
    # Test images of a class; shots and they are then drawn, none twice, from all images of a class,
    # as tasks of few-shot learning are (Vinyals et al. 2016). None: shots are training images of
    # the dataset, and all its test images of the classes are tests.
    queries: int | None = None
    # ``ways`` times ``shots`` is then the mean of the clients' images, evenly of all classes; how
    # many of which class a client has is drawn for all clients together. None: they are its own.
    partition: DirichletPartition | None = None
