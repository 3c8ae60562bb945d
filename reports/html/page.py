"""Render the HTML pages from the templates of this folder, with everything escaped.

Class names come from folders on disk and errors from exceptions, and either may hold a ``<``.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.format import NONE, percent, points, score_words, size, value_text


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
    return _environment().get_template(template).render(context)


def thousands(value: int | None) -> str:
    """A whole number with commas: ``48,000``."""
    return NONE if value is None else f"{value:,}"


def decimal(value: float | None) -> str:
    """A number with three decimals."""
    return NONE if value is None else f"{value:.3f}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_unbroken,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (percent, points, size, score_words, value_text, thousands, decimal, csp_hash)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


def _unbroken(value: object) -> object:
    """Keep a number on a line with its percent sign and its interval; what a template built is
    such already."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return value.replace(" %", "\N{NO-BREAK SPACE}%").replace("± ", "±\N{NO-BREAK SPACE}")


def csp_hash(script: str) -> str:
    """The script's source expression in a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
