"""The few-shot benchmark: forms of the learngene, shots side by side, published rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reports.experiments import few_shot_benchmark as benchmark
from reports.experiments.registry import experiment, rows
from reports.experiments.table import overview
from reports.variants import RunGroup, group_runs


def group(make: Callable[..., dict[str, Any]], data: str, *shots: int, layers: int = 7) -> RunGroup:
    def run(count: int) -> dict[str, Any]:
        def change(sections: dict[str, Any]) -> None:
            config = {"seed": 0, "shots": count, "collective": {"width": 0.25}}
            more = {"experiment": "few_shot_benchmark", "overrides": [], "config": config}
            sections["run"] |= {"seed": 0, "shard_seed": 0, **more}
            sections["data"]["name"] = data
            sections["learngene"]["layers"] = list(range(1, layers + 1))

        return make(6, change=change)

    return group_runs([run(count) for count in shots])


def test_one_table_has_both_shots_and_both_forms(make: Callable[..., dict[str, Any]]) -> None:
    both = group(make, "cifar_fs", 1, 5)
    headings, *cells = benchmark.overview(both)
    assert headings == benchmark.HEADINGS and {len(row) for row in cells} == {len(headings)}
    ours = [row for row in cells if row[-1] == "here"]
    assert [row[:2] for row in ours] == [
        ("learngene", "as inherited"), ("learngene", "30 epochs"), ("scratch", "30 epochs"),
    ]  # fmt: skip
    for variant in both.variants:
        found = {form: mean for method, form, mean in benchmark.forms(variant)
                 if method == "learngene"}  # fmt: skip
        starts = [c["methods"]["learngene"]["accuracy_by_epoch"][0][1]
                  for c in variant.runs[0]["clients"]]  # fmt: skip
        assert found["as inherited"].mean == pytest.approx(100 * sum(starts) / len(starts))
        column = 4 + benchmark.SHOTS.index(variant.config("shots"))
        assert ours[0][column].startswith(f"{found['as inherited'].mean:.1f} ± ")
    assert {row.quantity for row in rows(both)} == {
        f"{shots}-shot, {name}" for shots in (1, 5)
        for name in ("learngene, as inherited", "learngene, 30 epochs", "scratch, 30 epochs")
    }  # fmt: skip
    assert overview(both).startswith("| method | form |")


def test_a_deeper_learngene_is_a_deeper_network(make: Callable[..., dict[str, Any]]) -> None:
    cells = benchmark.overview(group(make, "cifar_fs", 5, layers=11))[1:]
    networks = {row[0]: row[2] for row in cells if row[-1] == "here"}
    assert networks["learngene"] == "11 layers, width 0.25"
    assert networks["scratch"] == "7 layers, width 0.25"


def test_published_rows_are_marked_and_are_of_their_own_world(
    make: Callable[..., dict[str, Any]],
) -> None:
    for data, network in (("cifar_fs", "R2D2"), ("fc100", "InvEq"), ("mini_imagenet", "ProtoNet")):
        rows = [row for row in benchmark.overview(group(make, data, 5))[1:] if row[-1] != "here"]
        assert network in {row[0] for row in rows}
        assert all(row[1].startswith("published") and row[-1] for row in rows)
        for each in benchmark.PUBLISHED[data]:
            assert 20 < each.accuracies[0] < each.accuracies[1] < 100
    assert all(row[-1] == "here" for row in benchmark.overview(group(make, "glyphs", 5))[1:])


def test_other_experiments_have_no_table_of_their_own(make: Callable[..., dict[str, Any]]) -> None:
    assert experiment("controls").overview(group(make, "cifar_fs", 5)) == []
