"""What a node says of itself (``--node-config``): its own images, and what it keeps.

A server names no path that a node opens: images of its own come from ``data-root``, and of a
dataset that a task names a real node takes the key alone and looks in a cache of its own. What is
wrong with a node's files its own log says; the server is told that something is.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from logging import ERROR
from pathlib import Path
from typing import Any

from flwr.common.logger import log

from learngene.errors import InputError
from learngene.utils.files import expand_user
from learngene.utils.settings import Limits, check_value, setting
from learngene.utils.untrusted import first_problem

IN_DRIVER = "in-driver"  # in the node's config where the client shares the driver's process
WORDS = {  # a run's words for what is here
    "data.root": "data-root",
    "data.test_share": "test-share",
    "data.value_range": "value-range",
}
DATASET = re.compile(r"(.*/)?worlds/(?P<key>[0-9a-f]{24})")  # where one lies in a cache


class PrivateProblem(RuntimeError):
    """Something of the node's own cannot be used; its log says what, the server is not told."""


@dataclass(frozen=True)
class NodeSettings:
    """Keys of ``--node-config``, with ``-`` for ``_``; others are not this app's."""

    data_root: str | None = setting(
        None, path=True
    )  # class folders; not set: the partition's shard
    seed: int = setting(0, ge=0, le=2**63 - 1)  # of the split, where there is no train/ and test/
    test_share: float = setting(0.2, gt=0, le=0.9)  # of each class, as above
    value_range: str | None = None  # [LOW,HIGH] of images of more than 8 bits: become 0 and 255
    flip: bool = True  # a mirrored image keeps its class
    class_names: bool = False  # whether the server is told them
    keep: str | None = setting(None, path=True)  # folder for individual.safetensors
    cache: str | None = setting(None, path=True)  # not set: LEARNGENE_CACHE, ~/.cache/learngene
    simulated: bool = False  # driver, workers and images are one person's

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> NodeSettings:
        """From ``context.node_config``.

        Raises:
            InputError: a key is written otherwise (``data_root``, ``dataroot``), or its value is
                none it can be.
        """
        from pydantic import TypeAdapter, ValidationError  # late: a query does without

        names = {each.name.replace("_", "-"): each for each in fields(cls)}
        del names["simulated"]
        for key in config:
            meant = difflib.get_close_matches(key.lower().replace("_", "-"), names, 1, cutoff=0.8)
            if key not in names and meant:
                raise InputError("node-config", key, "there is no such key", f"Write {meant[0]}")
        given = {names[key].name: value for key, value in config.items() if key in names}
        try:
            TypeAdapter(cls).validate_json(json.dumps(given), strict=True)
        except ValidationError as error:
            problem, fix = first_problem(error), "Mend it and start the SuperNode again"
            raise InputError("node-config", "", problem, fix) from None
        for key, each in names.items():
            limits: Limits | None = each.metadata.get("limits")
            if limits is not None and (value := given.get(each.name)) is not None:
                check_value(key, value, limits, whole=each.type == "int")
        return cls(**given, simulated=is_simulated(config))

    def dataset(self, named: str) -> Path:
        """The folder of the dataset that a task names.

        Raises:
            InputError: a real node has none of that key in its cache, or a path is asked of it.
        """
        if self.simulated:
            return Path(named)
        found = DATASET.fullmatch(named)
        if found is None:
            problem = "the server names a path, and a node opens none that a message names"
            fix = "Name a dataset as worlds/KEY, or give the node images with data-root"
            raise InputError("world", named[:100], problem, fix)
        folder = self.cache_folder(named) / "worlds" / found["key"]
        if not folder.is_dir():
            problem = "this node's own cache has no such dataset"
            fix = "Run sim.py with the same data settings there, or give it images with data-root"
            raise InputError("world", found["key"], problem, fix)
        return folder

    def cache_folder(self, named: str) -> Path:
        """Where this node keeps things; of a simulation the run's cache, with the named dataset."""
        if self.simulated:
            return Path(named).parents[1]
        variable = os.environ.get("LEARNGENE_CACHE", "").strip()
        return expand_user(self.cache or variable or "~/.cache/learngene")


def is_simulated(config: Mapping[str, Any]) -> bool:
    """Whether a node is a part of a simulation: in the driver's process, or an actor of its Ray."""
    ray = sys.modules.get("ray")
    return bool(config.get(IN_DRIVER, False)) or (ray is not None and ray.is_initialized())


@contextmanager
def private(what: str) -> Iterator[None]:
    """Around work on a node's own files: reasons, which name paths and classes, stay in its log.

    Raises:
        PrivateProblem: in the place of an InputError or OSError.
    """
    try:
        yield
    except (InputError, OSError) as error:
        said = str(error)
        for of_a_run, here in WORDS.items():
            said = said.replace(of_a_run, here)
        log(ERROR, "%s: %s", what, said)
        raise PrivateProblem(f"{what}: the node's own log says why") from None
