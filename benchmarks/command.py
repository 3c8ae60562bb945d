"""What the commands of this folder have in common: a finished run to work on, and how they end."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from conf.error_messages import explain
from learngene.errors import InputError, say

WRONG_INPUT = 2


def finished_run(text: str) -> Path:
    """The folder of a finished run, for argparse."""
    folder = Path(text).expanduser()
    if not (folder / "results.json").is_file():
        raise ArgumentTypeError(f"{text} has no results.json; name the folder of a finished run")
    return folder


def end(main: Callable[[], int]) -> NoReturn:
    """Leave with the exit code of ``main``; wrong input is one line, as it is of ``sim.py``."""
    program = Path(sys.argv[0]).stem
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(say(program, error, WRONG_INPUT))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(say(program, explain(error, sys.argv[1:]), WRONG_INPUT))
