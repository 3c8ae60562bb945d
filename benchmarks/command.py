"""What the commands of this folder have in common: their words, a run to work on, how they end."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from conf.error_messages import explain
from conf.schema import Config, register_schema
from conf.validate import check
from learngene.errors import InputError, say

WRONG_INPUT = 2


def new_parser(page: str | None) -> ArgumentParser:
    """Whose ``--help`` begins with a module's docstring, as it stands there."""
    return ArgumentParser(description=page, formatter_class=RawDescriptionHelpFormatter)


def composed(overrides: Sequence[str]) -> Config:
    """The configuration that ``sim.py`` would have."""
    register_schema()
    with initialize_config_module("conf", version_base="1.3"):
        return check(compose("config", list(overrides)))


def positive(text: str) -> int:
    """A number of things, for argparse: none of them is no command."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text} is no whole number from 1 on")
    return number


def numbers(text: str) -> list[int]:
    """Several of them with commas."""
    return [positive(each) for each in text.split(",")]


def above_zero(text: str) -> float:
    """A share or a factor, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"{text} is no number above 0")
    return number


def finished_run(text: str) -> Path:
    """The folder of a finished run, for argparse."""
    folder = Path(text).expanduser()
    if not (folder / "results.json").is_file():
        raise ArgumentTypeError(f"{text} has no results.json; name the folder of a finished run")
    json_file(str(folder / "results.json"))
    return folder


def json_file(text: str | Path) -> Any:
    """What a file holds, for argparse."""
    try:
        return json.loads(Path(text).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise ArgumentTypeError(f"{text} cannot be read as JSON ({error})") from error


def end(main: Callable[[], int]) -> NoReturn:
    """Leave with the exit code of ``main``; wrong input is one line, as it is of ``sim.py``."""
    program = Path(sys.argv[0]).stem
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(say(program, error, WRONG_INPUT))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(say(program, explain(error, sys.argv[1:]), WRONG_INPUT))
