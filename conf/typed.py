"""Turn the composed configuration into an object, each field held to its own rules."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import reduce
from typing import Any

from omegaconf import DictConfig, OmegaConf

from conf.error_messages import meant
from conf.schema import Config
from learngene.errors import InputError
from learngene.utils.files import expand_user
from learngene.utils.settings import check_settings, kinds_of, limits_of

# What OmegaConf would interpolate, with the backslashes in front, which have to be doubled.
INTERPOLATION = re.compile(r"(\\*)\$\{")
TEXT_LIMIT = 4096  # characters; no path on Linux is longer


def to_typed(composed: DictConfig) -> Config:
    """The configuration as an object.

    Raises:
        InputError: a field has no value, is none of the schema's, is nothing that a field can be,
            or is out of its range.
    """
    _check_names(composed, Config)
    composed = _as_written(composed)
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise InputError(missing[0], "???", "it has no value", f"Give it one: {missing[0]}=...")
    _check_values(OmegaConf.to_container(composed, resolve=True))
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    check_settings(config)
    return config


def default_cache() -> str:
    """Where a run keeps things that is not told; an empty variable is none."""
    return os.environ.get("LEARNGENE_CACHE") or "~/.cache/learngene"


def _as_written(composed: DictConfig) -> DictConfig:
    """A copy whose paths are as they were written, ``~`` aside: what OmegaConf would interpolate
    is a name like any other there. A cache that is not set is that of the environment, and a choice
    that YAML takes for a boolean (``retain.labels=true``) is the word."""
    made = copy.deepcopy(composed)
    if OmegaConf.is_missing(made, "cache"):
        made.cache = default_cache()
    written: Any = OmegaConf.to_container(made, resolve=False)
    for name, limits in limits_of(Config):
        value = reduce(lambda node, part: (node or {}).get(part), name.split("."), written)
        if limits.choices and value in ("True", "False"):
            OmegaConf.update(made, name, value.lower())
        if limits.path and isinstance(value, str) and value != "???":
            _check_values(value, name)
            text = str(expand_user(value)) if value.startswith("~") else value
            OmegaConf.update(made, name, INTERPOLATION.sub(r"\1\1\\${", text))
    return made


def _check_names(config: DictConfig, schema: type, prefix: str = "") -> None:
    """Refuse fields that the schema does not have: Hydra lets ``+name=value`` add any."""
    kinds = kinds_of(schema)
    for name in map(str, config):
        if name not in kinds:
            field, value = f"{prefix}{name}", OmegaConf.select(config, name)
            near = " or ".join(meant(field, value))
            fix = f"Write {near}" if near else "--help=all lists the fields"
            raise InputError(field, value, "there is no field of that name", fix)
        if is_dataclass(kinds[name]):
            _check_names(config[name], kinds[name], f"{prefix}{name}.")


def _check_values(value: Any, name: str = "") -> None:
    """Refuse what no field can be: text that cannot be written, integers beyond 64 bits."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_values(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, name)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(name, "an integer", "64 bits do not hold it", "Write a smaller number")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(name, value, "must be a finite number", "Write one")
    elif isinstance(value, str):
        shown = repr(value)[:60]
        if len(value) > TEXT_LIMIT:
            problem = f"{len(value):,} characters, at most {TEXT_LIMIT:,} fit"
            raise InputError(name, shown, problem, "Write less")
        if not value.isprintable():  # a line break, a NUL, bytes that are no UTF-8
            raise InputError(name, shown, "holds characters that are no text", "Leave them out")
