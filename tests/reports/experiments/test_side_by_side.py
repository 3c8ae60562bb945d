"""Methods side by side: a row a method, with the leads of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reports.experiments.base import lead_rows
from reports.experiments.registry import experiment
from reports.experiments.table import format_measured
from reports.variants import RunGroup, group_runs
from tests.reports.helpers import BYTES, LEVELS

METHODS = ("learngene", "scratch", "protonet", "protonet+projection")


@pytest.fixture(autouse=True)
def twin(monkeypatch: pytest.MonkeyPatch) -> None:
    for known in (LEVELS, BYTES):
        monkeypatch.setitem(known, METHODS[-1], known["protonet"])


def group(make: Callable[..., dict[str, Any]], *shots: int) -> RunGroup:
    def run(count: int, methods: tuple[str, ...]) -> dict[str, Any]:
        def change(sections: dict[str, Any]) -> None:
            more = {"experiment": "table3_novel", "overrides": [f"shots={count}"]}
            more["config"] = {"seed": 0, "shots": count, "methods": list(methods)}
            sections["run"] |= {"seed": 0, "shard_seed": 0, **more}

        return make(6, methods=methods, shift=count / 100, change=change)

    few = METHODS[:2]  # the second run has no opponent
    return group_runs([run(count, METHODS if n == 0 else few) for n, count in enumerate(shots)])


def test_a_row_a_method_and_two_columns_a_variant(make: Callable[..., dict[str, Any]]) -> None:
    one = group(make, 10)
    headings, *cells = experiment("table3_novel").overview(one)
    assert headings == ("method", "received", "accuracy, %", "the learngene's lead, points")
    assert [row[0] for row in cells] == ["learngene", "scratch", "protonet"]  # no projection's twin
    (variant,) = one.variants
    over_scratch, over_protonet, _ = lead_rows(variant)
    assert cells[0][3] == "–"
    for row, lead in zip(cells[1:], (over_scratch, over_protonet), strict=True):
        assert row[2] == format_measured(variant.accuracy(row[0]), "%")
        assert row[3] == f"{format_measured(lead.ours, 'points')} ({lead.note})"
    assert cells[1][3] != cells[2][3]


def test_a_method_that_a_variant_has_not_has_an_empty_cell(
    make: Callable[..., dict[str, Any]],
) -> None:
    headings, *cells = experiment("table3_novel").overview(group(make, 10, 20))
    assert headings[2::2] == ("shots=10: accuracy, %", "shots=20: accuracy, %")
    protonet = next(row for row in cells if row[0] == "protonet")
    assert protonet[4:] == ("–", "–") and protonet[2] != "–" and protonet[1] != "–"
