"""What the words of the command line become before Hydra reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser

from conf.error_messages import meant, quoted, readable
from conf.schema import Config
from learngene.errors import InputError
from learngene.utils.files import expand_user
from learngene.utils.settings import Limits, check_value, limits_of

# Hydra's own folders are paths like ours, but Hydra makes them before our schema is looked at.
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
HOME = re.compile(r"""(["'])(~.*)\1|()(~[^,]*)""", re.DOTALL)  # a comma outside quotes is a sweep's


def prepared(words: Sequence[str]) -> list[str]:
    """The words as Hydra takes them.

    ``-m`` goes behind the overrides: Hydra's parser (argparse) refuses those that follow it when
    others precede it, as in ``experiment=frontier -m shots=10,20``. A path's ``~`` becomes the home
    that it stands for, which no shell does behind a ``=`` and Hydra's grammar cannot read.

    Raises:
        InputError: a field that is written as an option, a blank folder, or one in nobody's home.
    """
    flags = [word for word in words if word in ("-m", "--multirun")]
    others = [word for word in words if word not in flags]
    _refuse_options(others)
    paths = {name for name, limits in limits_of(Config) if limits.path} | {*FOLDERS}
    return [_with_home(word, paths) for word in others] + flags


def _with_home(word: str, paths: set[str]) -> str:
    name, equals, value = word.partition("=")
    if not equals or name.lstrip("+") not in paths:
        return word
    if name in FOLDERS:
        check_value(name, value.strip("\"'"), Limits(path=True))
    if (home := HOME.fullmatch(value)) is None:
        return word
    quote, written = (group for group in home.groups() if group is not None)
    path = str(expand_user(written))
    plain = f"{name}={quote}{path}{quote}"
    return plain if readable(plain) else quoted(name, path)


def _refuse_options(words: Sequence[str]) -> None:
    """Refuse what is no option of Hydra's: ``--shots=5``, and ``--shots 5``."""
    if not any(word.startswith("-") for word in words):
        return
    _, unknown = get_args_parser().parse_known_args(list(words))
    if option := next((word for word in unknown if word.startswith("-")), None):
        name, equals, value = option.lstrip("-").partition("=")
        if not equals:
            after = [*words, ""][list(words).index(option) + 1]
            value = "VALUE" if not after or after.startswith("-") or "=" in after else after
        fix = " or ".join(meant(name.replace("-", "_"), value)) or "NAME=VALUE"
        problem = "there is no such option, and fields have no dashes in front"
        raise InputError(option.partition("=")[0], value, problem, f"Write {fix}")
