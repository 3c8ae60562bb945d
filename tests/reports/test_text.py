"""Sentences from templates: plain text on one line, and nothing that is missing is left blank."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from jinja2 import UndefinedError

from reports.summary import headline, summary_rows
from reports.text import sentence
from tests.helpers import MANY

RECORD = [{"direction": "up", "record": "a<b & 'c'", "kind": "array", "refused": False}]


def test_a_sentence_is_plain_text_on_one_line() -> None:
    text = sentence("traffic.j2", "statement", rows=RECORD)
    assert text.startswith("Up went arrays, as declared: a<b & 'c'. They are")  # not escaped
    assert text == " ".join(text.split())


def test_what_a_sentence_lacks_is_an_error_and_not_a_gap(results: dict[str, Any]) -> None:
    with pytest.raises(UndefinedError, match="rows"):
        sentence("traffic.j2", "statement")
    broken = copy.deepcopy(results)
    del broken["summary"]["gain"]["wins"]
    with pytest.raises(UndefinedError, match="wins"):
        headline(broken)


@pytest.mark.parametrize("methods", [MANY[:2], MANY[:4]])
def test_a_row_has_the_gain_or_with_opponents_the_lead(make: Any, methods: tuple[str, ...]) -> None:
    results = make(methods=methods)
    rows = {name: cells for name, *cells in summary_rows(results)}
    ours, scratch = rows["learngene"], rows["scratch"]
    gain = f"{100 * results['summary']['gain']['mean']:+.1f} ±"
    shown, absent = (ours, scratch) if len(methods) == 2 else (scratch, ours)
    assert shown[1].startswith(gain) and shown[2:4] == ["20 of 20", "<0.001"]
    assert absent[1:4] == ["–", "–", "–"]


def test_a_method_below_scratch_is_marked(make: Any) -> None:
    results = make(methods=MANY[:4])
    first, *others = (name for name in MANY[:4] if name != "scratch")
    results["summary"][first]["gain_over_scratch"]["mean"] = -0.001
    for name in others:
        results["summary"][name]["gain_over_scratch"]["mean"] = 0.0
    named = [name for name, *_ in summary_rows(results)]
    assert f"{first} (below scratch)" in named and {"scratch", *others} <= {*named}
