"""Render the HTML pages from the templates of this folder, with everything escaped.

Class names come from folders on disk and errors from exceptions, and either may hold a ``<``.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from reports.text import environment

ROWS = 1000  # of a table, at most: a page of 10,000 clients must open in a second or two


@dataclass(frozen=True)
class Figure:
    """A PNG as a data URI, with its text alternative and its caption."""

    source: str
    alt: str
    caption: str

    @classmethod
    def read(cls, path: Path, alt: str, caption: str) -> Figure:
        data = base64.b64encode(path.read_bytes()).decode()
        return cls(f"data:image/png;base64,{data}", alt, caption)


def render(template: str, **context: object) -> str:
    """The page of a template, one self-contained document.

    Raises:
        jinja2.UndefinedError: the template reads a value that is not there.
    """
    return templates().get_template(template).render(context)


@cache
def templates() -> Environment:
    """Those of this folder, compiled once a process."""
    made = environment(Path(__file__).parent, autoescape=True, finalize=_unbroken)
    made.filters |= {"csp_hash": csp_hash, "first_rows": first_rows}
    made.globals["ROWS"] = ROWS
    return made


def _unbroken(value: object) -> object:
    """Keep a number on a line with its percent sign and its interval; what a template built is
    such already."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return value.replace(" %", "\N{NO-BREAK SPACE}%").replace("± ", "±\N{NO-BREAK SPACE}")


def first_rows(body: Markup, most: int) -> Markup:
    """The first rows of a table's body."""
    end = "</tr>"
    rows = body.split(end, most)
    return body if len(rows) <= most else Markup(end).join([*rows[:most], Markup("\n")])


def csp_hash(script: str) -> str:
    """The script's source expression in a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
