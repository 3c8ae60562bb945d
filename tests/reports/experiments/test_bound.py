"""Theorem 1 in the table: planted constants come back, and what has no fit says why."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learngene.utils.files import write_atomically
from reports.__main__ import main
from reports.experiments.base import Row
from reports.experiments.paper.bound import fit_runs
from reports.experiments.registry import draw, rows
from reports.figures.style import NoDataError
from reports.ledger import compact
from reports.results import write_results
from reports.runs import read_runs
from reports.variants import group_runs

C1, SLOPE = {"learngene": 0.05, "scratch": 0.11}, {"learngene": 0.9, "scratch": 1.3}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(make: Callable[..., dict[str, Any]]) -> Run:
    """A run of six clients whose mean gap is C1 + SLOPE / √m̄, m̄ = 5 shots."""

    def made(shots: int, seed: int = 0, more: float = 0.0, trained: bool = True) -> dict[str, Any]:
        def change(sections: dict[str, Any]) -> None:
            config = {"experiment": "bound", "seed": seed, "shots": shots}
            sections["run"] |= {
                "seed": seed, "shard_seed": seed, "config": config, "experiment": "bound",
                "overrides": ["experiment=bound", f"shots={shots}"],
            }  # fmt: skip
            for client in sections["clients"]:
                client["train_images"] = 5 * shots
                for name, method in client["methods"].items():
                    gap = C1[name] + more + SLOPE[name] / (5 * shots) ** 0.5
                    accuracy = 1 - gap - 0.01 * (client["id"] - 2.5)
                    method["accuracy"] = method["accuracy_by_epoch"][-1][1] = accuracy
                    if trained:
                        method["train_accuracy"] = 1.0

        return make(6, change=change)

    return made


def named(found: list[Row]) -> dict[str, Row]:
    assert len({row.quantity for row in found}) == len(found), "two rows of one name"
    return {row.quantity: row for row in found}


def test_planted_constants_and_gaps_are_rows(run: Run) -> None:
    found = named(rows(group_runs([run(shots) for shots in (10, 1, 4)])))
    for name in ("learngene", "scratch"):
        c1, slope = found[f"c1, {name}"], found[f"c2 / (2 σ t), {name}"]
        assert c1.ours.mean == pytest.approx(100 * C1[name])
        assert slope.ours.mean == pytest.approx(100 * SLOPE[name])
        assert found[f"R² of the means, {name}"].ours.mean == pytest.approx(1)
        low, high = map(float, c1.note.removeprefix("95 % over clients: ").split(" to "))
        assert low < 100 * C1[name] < high
        for size in (5, 20, 50):
            gap = found[f"gap at {size} training images, {name}"]
            assert gap.ours.mean == pytest.approx(100 * (C1[name] + SLOPE[name] / size**0.5))
            assert gap.ours.n == "6 clients"
            assert gap.note.endswith("residual 0.0 of the fit")
    c2 = found["c2 for σ = 1, learngene"]
    assert c2.ours.mean == pytest.approx(2 * 13 * SLOPE["learngene"]) and c2.note == "t = 13 tasks"
    assert "c2 for σ = 1, scratch" not in found
    assert {"shots=1: learngene", "shots=4: scratch", "shots=10: gain over scratch"} <= set(found)


def test_residuals_are_what_the_fit_leaves(run: Run) -> None:
    found = named(rows(group_runs([run(1), run(4, more=0.03), run(10)])))
    notes = [found[f"gap at {size} training images, learngene"].note for size in (5, 20, 50)]
    rest = [float(note.split("residual ")[1].split()[0]) for note in notes]
    assert rest[1] > 1 > 0 > rest[0] and rest[2] < 0 and abs(sum(rest)) < 0.2
    assert found["R² of the means, learngene"].ours.mean < 1  # type: ignore[operator]


def test_seeds_are_fitted_one_by_one(run: Run) -> None:
    runs = [run(shots, seed, 0.02 * seed) for seed in range(3) for shots in (1, 4, 10)]
    c1 = named(rows(group_runs(runs)))["c1, learngene"]
    assert c1.ours.mean == pytest.approx(7) and c1.ours.n == "3 seeds"
    assert c1.ours.ci95 == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)
    assert c1.note.count(" to ") == 3


def test_it_says_what_the_module_of_its_own_says_and_what_is_kept_says_it_too(
    run: Run, tmp_path: Path
) -> None:
    folders, kept = [], []
    for shots in (1, 4, 10):
        made = run(shots)
        folders.append(tmp_path / str(shots))
        write_results(made, folders[-1] / "results.json")
        write_atomically(tmp_path / "kept" / str(shots) / "results.json", compact.content(made))
        kept.append(json.loads((tmp_path / "kept" / str(shots) / "results.json").read_text()))
    out = tmp_path / "out"
    assert main(["compare", *map(str, folders), "-o", str(out)]) == 0
    table = {
        r["quantity"]: float(r["ours"]) for r in csv.DictReader((out / "comparison.csv").open())
    }
    theirs = fit_runs(read_runs(folders))["methods"]["learngene"]
    assert table["c1, learngene"] == pytest.approx(100 * theirs["c1"])
    assert table["c2 for σ = 1, learngene"] == pytest.approx(theirs["c2"])
    low, high = theirs["slope_interval"]
    found = named(rows(group_runs(kept)))
    assert found["c2 / (2 σ t), learngene"].note.endswith(f"{100 * low:.1f} to {100 * high:.1f}")
    assert {name: row.ours.mean for name, row in found.items()} == pytest.approx(table)
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_is_the_fit_where_there_is_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "reports.experiments.paper.bound.draw_fit", lambda fits, path: drawn.append(fits)
    )
    draw(group_runs([run(1), run(4)]), tmp_path / "two.png")  # two sizes: what the runs gain
    assert (tmp_path / "two.png").is_file() and not drawn
    draw(group_runs([run(1), run(4), run(10)]), tmp_path / "three.png")
    assert drawn[0]["sizes"] == [5, 20, 50] and set(drawn[0]["methods"]) == {"learngene", "scratch"}
    assert np.shape(drawn[0]["methods"]["scratch"]["gaps"]) == (6, 3)


def test_what_cannot_be_fitted_says_why(run: Run, tmp_path: Path) -> None:
    few = named(rows(group_runs([run(1), run(4)])))
    assert not [name for name in few if name.startswith(("c1", "gap at"))]
    other = run(10)
    other["learngene"]["sha256"] = "ee" * 32
    gathered = group_runs([run(1), run(4), other])
    none = named(rows(gathered))["c1"]
    assert none.ours.mean is None and f"and {'ee' * 32} in shots=10" in none.note
    assert "learngene.sha256 is cd" in none.note
    with pytest.raises(NoDataError, match=r"learngene\.sha256"):
        draw(gathered, tmp_path / "x.png")
    old = group_runs([run(shots, trained=False) for shots in (1, 4, 10)])
    assert "c1, learngene" not in named(rows(old))
    with pytest.raises(NoDataError, match="train_accuracy"):
        draw(old, tmp_path / "x.png")
