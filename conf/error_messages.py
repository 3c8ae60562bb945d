"""Complaints of Hydra, OmegaConf and the disk as one line: what is wrong, and the fix."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from conf.schema import Config
from learngene.methods.registry import BUILT_IN
from learngene.utils.files import NO_ROOM, no_room
from learngene.utils.settings import kinds_of

LONGEST = 200  # characters of an override that are shown
GROUPS = ("data", "scale", "experiment", "runtime")  # of files, one of which is chosen
PLUGINS = ("hydra/launcher", "hydra/sweeper")  # whose other choices are packages
INSTALL = 'python -m pip install -e ".[sweeps]"'
# What Hydra's parser says of a word that is not in its grammar.
GRAMMAR = ("LexerNoViableAlt", "mismatched input", "extraneous input", "missing EQUAL")
# What others call our fields, where no letter tells it.
WORDS = {
    "dataset": "data",
    "learning_rate": "lr",
    "lambda": "ewc_lambda",
    "gpus": "num_gpus",
    "backend": "runtime",
    "output_dir": "dir",
}


def field_names(schema: type = Config, prefix: str = "") -> list[str]:
    """Every field as it is written on the command line: ``seed``, ``data.root``, ..."""
    names: list[str] = []
    for name, kind in kinds_of(schema).items():
        inner = is_dataclass(kind)
        names += field_names(kind, f"{prefix}{name}.") if inner else [prefix + name]
    return names


def type_of(name: str, schema: type = Config) -> str:
    """The type of a field as the schema writes it."""
    first, _, rest = name.partition(".")
    found = {f.name: f.type for f in fields(schema)}[first]
    kind: Any = kinds_of(schema)[first]
    return type_of(rest, kind) if rest else str(found)


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """One line for an error that Hydra or OmegaConf raised while composing ``overrides``."""
    return " ".join(_explain(error, overrides).split())


def _explain(error: BaseException, whole: Sequence[str]) -> str:
    text, overrides = str(error), [each[:LONGEST] for each in whole]
    if choice := re.search(r"Could not find '([\w/]+)/(.*?)'\s+Available options", text):
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return _no_choice(choice[1], choice[2], options)
    # The one that the error shows, before others of the same name.
    for override in sorted(overrides, key=lambda each: each not in text):
        name, _, value = override.lstrip("+~").partition("=")
        if f"Could not override '{name}'" in text:
            return _unknown(name, value)
        if name in text and "erging override" in text:
            kind = _kind(name)
            due = f"[{value}]" if kind.startswith("list") else "VALUE of that type"
            return f"{name}={value}: not a value of type {kind}. Write {name}={due}."
        if "Could not append" in text and name in text:
            return f"{name}={value}: the field is there already. Leave the + away."
    if any(words in text for words in GRAMMAR):
        unread = next((at for at, each in enumerate(whole) if not readable(each)), None)
        if unread is not None:
            word, after = whole[unread], [*whole, ""][unread + 1]
            if after and "=" not in after and (fields := meant(word, after)):
                return f"{word} {after}: there is no = between them. Write {' or '.join(fields)}."
            return f"{word[:LONGEST]}: Hydra cannot read this. {_quotes(word)}"
    if ambiguous := re.search(r"Ambiguous value for argument '(.*?)'\s*1\.", text, re.DOTALL):
        several = ambiguous.group(1)
        name, _, value = several.partition("=")
        if (kind := _kind(name)).startswith(("int", "float")):
            one = "A decimal number has a point."
        elif kind.startswith(("list", "Any")):
            one = f"A list has brackets: {shlex.quote(f'{name}=[{value}]')[:LONGEST]}."
        else:
            one = f"If it is one value: {_quotes(several)}"
        return f"{several[:LONGEST]}: Hydra reads several runs, which -m asks for. {one}"
    reason = " ".join(str(error.__cause__ or error).split())
    wrong = re.search(r"full_key: (\S+)", reason)
    where = wrong.group(1) if wrong else " ".join(overrides)
    return f"{where}: {reason[:300]}. --help=all lists the fields and what they may be."


def quoted(name: str, value: str) -> str:
    """The override in which Hydra takes every character of the value as it is."""
    inner = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{inner}"'


def _quotes(override: str) -> str:
    """The fix, as a shell reads it, where quotes are one."""
    name, _, value = override.partition("=")
    word = quoted(name, value)
    if not value or not readable(word):
        return "Write NAME=VALUE, with a NAME that --help=all lists."
    inside = shlex.quote(word)[:LONGEST]
    return f"Put it into quotes of its own, inside those of the shell: {inside}."


def readable(override: str) -> bool:
    """Whether Hydra's grammar has it."""
    try:
        OverridesParser.create().parse_overrides([override])
    except HydraException:
        return False
    return True


def _kind(name: str) -> str:
    try:
        return type_of(name)
    except (KeyError, TypeError):
        return "that its schema names"


def meant(name: str, value: object) -> list[str]:
    """The overrides that whoever wrote ``name`` may have meant: that field, else those that end in
    its last part, in another group or under a near name, else the nearest one."""
    known = list(dict.fromkeys([*field_names(), *GROUPS, "hydra.run.dir"]))
    last = name.rpartition(".")[2]
    if name in known:
        return [f"{name}={value}"]
    ends: dict[str, list[str]] = {}
    for each in known:
        ends.setdefault(each.rpartition(".")[2], []).append(each)
    near = [WORDS.get(last, last)]
    if near[0] not in ends and "." not in name:
        near = difflib.get_close_matches(last, ends, n=1, cutoff=0.6)
    found = ends.get(near[0]) if near else None
    found = found or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return [f"{each}={value}" for each in found]


def _no_choice(group: str, value: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, options, n=1, cutoff=0.4)
    fix = f"Did you mean {group}={near[0]}? " if near else ""
    if group in PLUGINS and not near:
        fix = f"Install its package ({INSTALL} has joblib and optuna). "
    return (
        f"{group}={value[:LONGEST]}: there is no such choice. "
        f"{fix}Choose one of: {', '.join(options)}."
    )


def _unknown(name: str, value: str) -> str:
    first = name.partition(".")[0]  # learngene is a method and a group: the group is meant
    method = first in BUILT_IN and first not in kinds_of(Config)
    in_methods = [f"method.{name}={value}"] if method else []
    near = " or ".join(in_methods or meant(name, value))
    fix = f"Did you mean {near}?" if near else "--help=all lists the fields."
    return f"{name}={value}: there is no field of that name. {fix}"


def no_folder(error: OSError, overrides: Sequence[str]) -> str:
    """What to say of the run's folder, which Hydra cannot make or write in; names it in ``error``,
    where Hydra's own writing does not."""
    given = [each for each in overrides if each.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]
    asked = given[-1] if given else f"hydra.run.dir={error.filename or 'outputs'}"
    error.filename = error.filename or str(Path(asked.partition("=")[2]) / ".hydra")
    if error.errno in NO_ROOM:
        return no_room(error)
    return f"{asked}: no folder that can be written in ({error.strerror}). Write hydra.run.dir=DIR."
