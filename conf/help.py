"""What ``--help`` and ``--help=all`` say: one screen, and every field with its comment."""

from __future__ import annotations

import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from conf.command_line import prepared
from conf.error_messages import GROUPS
from conf.schema import Config, register_schema
from conf.typed import default_cache
from learngene.errors import InputError
from learngene.methods.registry import BUILT_IN, find
from learngene.utils.settings import Limits, kinds_of, range_of

CONF = Path(__file__).parent
WIDTH = 80  # columns
PAGE: dict[str, Any] = yaml.safe_load((CONF / "help.yaml").read_text("utf-8"))
INSIDE = textwrap.TextWrapper(
    WIDTH, initial_indent=6 * " ", subsequent_indent=6 * " ", break_on_hyphens=False
)
FIRST: list[tuple[str, str, str]] = [tuple(row) for row in PAGE["first"]]


def help_asked(words: Sequence[str]) -> str | None:
    """The page that ``--help`` or ``--help=all`` among the words asks for, of a run with the other
    words; None where there is neither. With ``-m`` it is of a run without what is swept.

    Raises:
        InputError: another page is asked for, or as ``prepared``.
        HydraException, OmegaConfBaseException: there is no such run.
    """
    asked = [word for word in words if word == "-h" or word.partition("=")[0] == "--help"]
    if not asked:
        return None
    if asked[0] not in ("-h", "--help", "--help=all"):
        what = asked[0].partition("=")[2]
        raise InputError("--help", what, "there is no such page", "Write --help or --help=all")
    others = prepared([word for word in words if word not in asked])
    given = [word for word in others if not word.startswith("-")]
    if {"-m", "--multirun"} & {*others}:
        read = zip(given, OverridesParser.create().parse_overrides(given), strict=True)
        given = [word for word, override in read if not override.is_sweep_override()]
    run = run_of(given)
    return "\n".join(_every_field(run)) if asked[0] == "--help=all" else _screen(run)


def run_of(words: Sequence[str]) -> DictConfig:
    """The configuration that the words of a command line compose, unchecked.

    Raises:
        HydraException, OmegaConfBaseException: there is no such run.
    """
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = compose("config", [*words])
    if OmegaConf.is_missing(run, "cache"):
        run.cache = default_cache()
    return run


class Setting(NamedTuple):
    """What there is to say of one field."""

    name: str  # dotted, as on the command line
    kind: str  # its type
    value: str  # in the run
    may_be: str  # range or choices; empty where the type says all, or the comment
    text: str  # the comment beside it


def choices(group: str) -> list[str]:
    """The files of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _screen(run: DictConfig) -> str:
    first = [
        f"  {example:<34} {meaning:<25} {_shown(OmegaConf.select(run, name)).strip('[]')}"
        for example, meaning, name in FIRST
    ]
    experiments = INSIDE.fill(", ".join(choices("experiment")))
    return PAGE["screen"].format(first="\n".join(first), experiments=experiments, cache=run.cache)


def _every_field(run: DictConfig) -> Iterator[str]:
    yield "Groups of files in conf/, one of which is chosen:"
    for group in GROUPS:
        yield _filled(f"{group}=NAME", " | ".join(choices(group)))
    yield "\nFields: NAME = value in this run (what it may be)"
    yield from map(_entry, fields_of_run(run))
    yield "\nSettings of the methods, read where the run has the method"
    yield from map(_entry, fields_of_methods(run))


def fields_of_run(run: DictConfig) -> Iterator[Setting]:
    """Every field but those of methods."""
    return _fields(Config, run)


def fields_of_methods(run: DictConfig) -> Iterator[Setting]:
    """Every field of the built-in methods, whether the run has them or not."""
    for name in BUILT_IN:  # they bring torch
        if settings := find(name).settings:
            asked = run.method.get(name, {})
            node = OmegaConf.merge(OmegaConf.structured(settings), asked)
            assert isinstance(node, DictConfig)
            yield from _fields(settings, node, f"method.{name}.")


def _fields(schema: type, values: DictConfig, prefix: str = "") -> Iterator[Setting]:
    said, kinds = comments(schema), kinds_of(schema)
    for entry in fields(schema):
        if is_dataclass(kinds[entry.name]):
            yield from _fields(kinds[entry.name], values[entry.name], f"{prefix}{entry.name}.")
        elif entry.name != "method":
            limits, text = entry.metadata.get("limits", Limits()), said[entry.name]
            kind = "int | list[int]" if limits.by_client else str(entry.type)
            may_be = _may_be(kind, limits)
            if limits.choices and all(choice in text for choice in limits.choices):
                may_be = ""  # the comment lists them
            name, value = f"{prefix}{entry.name}", _shown(values[entry.name])
            yield Setting(name, kind, value, may_be, text)


def _entry(field: Setting) -> str:
    may_be = f"  ({field.may_be})" if field.may_be else ""
    return _filled(f"{field.name} = {field.value}{may_be}", field.text)


def _filled(head: str, text: str) -> str:
    lines = [textwrap.fill(head, WIDTH, initial_indent="  ", subsequent_indent="      ")]
    return "\n".join([*lines, INSIDE.fill(text)] if text else lines)


def _shown(value: Any) -> str:
    if OmegaConf.is_list(value):
        return f"[{','.join(map(_shown, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _may_be(kind: str, limits: Limits) -> str:
    """A field's range or choices."""
    if limits.choices:
        return " | ".join(limits.choices)
    if kind == "bool":
        return "true | false"
    if limits.path or not kind.startswith(("int", "float")):
        return ""
    return range_of(limits)


def comments(schema: type) -> dict[str, str]:
    """What the source says of each field of a dataclass: the comment above it, then that beside."""
    found: dict[str, str] = {}
    for owner in filter(is_dataclass, reversed(schema.__mro__)):
        found |= comments_in(inspect.getsource(owner))
    return {entry.name: found[entry.name] for entry in fields(schema)}


def comments_in(source: str) -> dict[str, str]:
    """The comments above and beside each line of a class, by the line's first word."""
    found: dict[str, str] = {}
    above, name = "", ""
    for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(source)).readline):
        first = not token.line[: token.start[1]].strip()
        text = token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and first:
            above = f"{above} {text}".strip()
        elif token.type == tokenize.COMMENT:
            found[name] = f"{found.get(name, '')} {text}".strip()
        elif token.type == tokenize.NAME and first:
            name, found[text], above = text, above, ""
    return found
