"""Turn the composed configuration into an object, each field held to its own rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from conf.schema import Config
from learngene.errors import InputError
from learngene.utils.settings import check_settings

TEXT_LIMIT = 4096  # characters; no path on Linux is longer


def to_typed(composed: DictConfig) -> Config:
    """The configuration as an object.

    Raises:
        InputError: a field has no value, is none of the schema's, is nothing that a field can be,
            or is out of its range.
    """
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise InputError(missing[0], "???", "it has no value", f"Give it one: {missing[0]}=...")
    _check_names(composed, Config)
    _check_values(OmegaConf.to_container(composed, resolve=True))
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    check_settings(config)
    return config


def _check_names(config: DictConfig, schema: type, prefix: str = "") -> None:
    """Refuse fields that the schema does not have: Hydra lets ``+name=value`` add any."""
    kinds = get_type_hints(schema)
    for name in map(str, config):
        if name not in kinds:
            value, fix = OmegaConf.select(config, name), "conf/schema.py lists the fields"
            raise InputError(f"{prefix}{name}", value, "there is no field of that name", fix)
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
