"""Render sentences as plain text from the macros of a template beside the code."""

from __future__ import annotations

import re
from functools import cache
from inspect import getmembers, isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import format

if TYPE_CHECKING:
    from jinja2 import Environment


def sentence(template: str, macro: str, **context: Any) -> str:
    """What a macro of a template of this package says, on one line; ``context`` is what it reads.

    Raises:
        jinja2.UndefinedError: the macro reads a value that is not there.
    """
    module = environment(Path(__file__).parent).get_template(template).make_module(context)
    return re.sub(r"[ \n]+", " ", getattr(module, macro)()).strip()


@cache  # a template takes longer to compile than to fill, and a sweep fills many times
def environment(folder: Path, **options: Any) -> Environment:
    """Templates of a folder, with the functions of ``reports.format`` as filters."""
    # Here, since the first line on the terminal need not wait for it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    templates.filters |= dict(getmembers(format, isfunction))
    return templates
