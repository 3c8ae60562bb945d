"""Complaints of Hydra, OmegaConf and the disk as one line: what is wrong, and the fix."""

from __future__ import annotations

import difflib
import errno
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from conf.schema import Config
from learngene.methods.registry import BUILT_IN

LONGEST = 200  # characters of an override that are shown
GROUPS = ("data", "runtime", "scale", "experiment")
# A full disk, a full quota, and a file larger than the process may write.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def field_names(schema: type = Config, prefix: str = "") -> list[str]:
    """Every field as it is written on the command line: ``seed``, ``data.root``, ..."""
    names: list[str] = []
    for name, kind in get_type_hints(schema).items():
        inner = is_dataclass(kind)
        names += field_names(kind, f"{prefix}{name}.") if inner else [prefix + name]
    return names


def type_of(name: str, schema: type = Config) -> str:
    """The type of a field as the schema writes it."""
    first, _, rest = name.partition(".")
    found = {f.name: f.type for f in fields(schema)}[first]
    kind: Any = get_type_hints(schema)[first]
    return type_of(rest, kind) if rest else str(found)


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """One line for an error that Hydra or OmegaConf raised while composing ``overrides``."""
    return " ".join(_explain(error, overrides).split())


def _explain(error: BaseException, whole: Sequence[str]) -> str:
    text, overrides = str(error), [each[:LONGEST] for each in whole]
    for override in overrides:
        name, _, value = override.lstrip("+~").partition("=")
        if f"Could not override '{name}'" in text or f"Could not find '{name}/" in text:
            return _unknown(name, value, text)
        if name in text and "erging override" in text:
            kind = _kind(name)
            return f"{name}={value}: not a value of type {kind}. Write {name}=VALUE of that type."
        if "Could not append" in text and name in text:
            return f"{name}={value}: the field is there already. Leave the + away."
    if "LexerNoViableAlt" in text or "mismatched input" in text or "extraneous input" in text:
        unread = next((each for each in whole if not _parses(each)), None)
        if unread is not None:
            return f"{unread[:LONGEST]}: Hydra cannot read this. {_quoted(unread)}"
    if ambiguous := re.search(r"Ambiguous value for argument '(.*?)'\s*1\.", text, re.DOTALL):
        several = ambiguous.group(1)
        return (
            f"{several[:LONGEST]}: Hydra reads several runs, which -m asks for. "
            f"If it is one value: {_quoted(several)}"
        )
    reason = " ".join(str(error.__cause__ or error).split())
    wrong = re.search(r"full_key: (\S+)", reason)
    where = wrong.group(1) if wrong else " ".join(overrides)
    return f"{where}: {reason[:300]}. See conf/schema.py for the fields and their types."


def _quoted(override: str) -> str:
    """The fix, as a shell reads it, where quotes are one."""
    name, _, value = override.partition("=")
    inner = value.replace("\\", "\\\\").replace('"', '\\"')
    quoted = f'{name}="{inner}"'
    if not value or not _parses(quoted):
        return "Write NAME=VALUE, with the names of conf/schema.py."
    word = shlex.quote(quoted)[:LONGEST]
    return f"Put it into quotes of its own, inside those of the shell: {word}."


def _parses(override: str) -> bool:
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


def _unknown(name: str, value: str, text: str) -> str:
    if name in GROUPS:
        options = ", ".join(re.findall(r"^\t(\S+)$", text, re.MULTILINE))
        return f"{name}={value}: there is no such choice. Choose one of: {options}."
    fields_of_methods = [f"method.{name}"] if name.partition(".")[0] in BUILT_IN else []
    near = fields_of_methods or difflib.get_close_matches(name, field_names(), n=1, cutoff=0.5)
    fix = f"Did you mean {near[0]}={value}?" if near else "conf/schema.py lists the fields."
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


def no_room(error: OSError) -> str:
    """What to say of an error in ``NO_ROOM``: the folder, what is free there, and what to do."""
    named = Path(error.filename or ".").absolute()
    folder = next(each for each in named.parents if each.is_dir())  # it may not be made yet
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"cannot write {named}: {error.strerror}; {free:,.1f} MB are free in {folder}. What was "
        "finished is kept: make room, and the same command goes on"
    )
