"""Several runs in one picture: sweeps of shots and ways, the frontier of stems and precisions."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.experiments import frontier, sweep
from reports.figures.style import new_figure
from reports.results import write_results
from reports.runs import GatherError, find_runs
from tests.helpers import MANY

Keep = Callable[..., Path]


@pytest.fixture
def keep(make, tmp_path) -> Keep:
    """Writes a run's results into ``sweep/NAME``; settings as on the command line."""

    def kept(name: str, shift: float = 0.0, methods: tuple[str, ...] = ("learngene", "scratch"),
             gene: dict[str, Any] | None = None, seed: int = 0, stem: str = "separable",
             **config: Any) -> Path:  # fmt: skip
        def change(sections: dict[str, Any]) -> None:
            sections["run"] |= {"seed": seed, "shard_seed": config.get("shard_seed", 0)}
            sections["run"]["config"] |= {"shots": 10, "ways": 5, "learngene": gene or {}}
            sections["run"]["config"] |= {"individual": {"epochs": 30, "stem": stem}} | config
            sections["learngene"]["stem"] = stem

        results = make(n=5, methods=methods, shift=shift, change=change)
        write_results(results, tmp_path / "sweep" / name / "results.json")
        return tmp_path / "sweep"

    return kept


@pytest.fixture
def canvas(monkeypatch):
    """The figures that are drawn while a test runs, to look into; without their pixels."""
    made: list[Any] = []

    def new(height):
        made.append(new_figure(height))
        return made[-1]

    for module in (sweep, frontier):
        monkeypatch.setattr(module, "new_figure", new)
        monkeypatch.setattr(module, "save", lambda figure, path: path)
    return made


def lines(canvas: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in canvas[0].axes[0].lines}


def test_a_sweep_of_shots_is_a_figure_and_a_table(keep, canvas, tmp_path, capsys):
    for number, (shots, shift) in enumerate(((10, 0.0), (1, -0.4), (50, 0.05))):
        folder = keep(str(number), shift, shots=shots)
    assert sweep.main([str(folder), "-o", str(tmp_path / "out")]) == 0
    axes = canvas[0].axes[0]
    assert axes.get_xscale() == "log" and "shots" in axes.get_xlabel()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10", "50"]
    drawn = lines(canvas)
    assert list(drawn["learngene"].get_xdata()) == [1, 10, 50]
    rising = list(drawn["learngene"].get_ydata())
    assert rising == sorted(rising) and rising[1] - rising[0] > 30
    assert len(axes.collections) == 2  # a band a method
    with (tmp_path / "out" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["shots"], r["method"]) for r in rows] == [
        (shots, method) for shots in ("1", "10", "50") for method in ("learngene", "scratch")
    ]
    assert 100 * float(rows[0]["mean"]) == pytest.approx(rising[0])
    assert rows[0]["n"] == "5" and float(rows[0]["ci95"]) > 0 and rows[0]["run"].endswith("1")
    assert "sweep.png" in capsys.readouterr().out


def test_ways_are_swept_on_a_plain_axis_and_many_methods_have_bars(keep, canvas, tmp_path):
    for number, ways in enumerate((2, 5, 10)):
        folder = keep(str(number), methods=MANY, ways=ways)
    assert sweep.main([str(folder), "-o", str(tmp_path / "out")]) == 0
    axes = canvas[0].axes[0]
    assert axes.get_xscale() == "linear" and "ways" in axes.get_xlabel()
    assert set(MANY) <= set(lines(canvas)) and len(axes.containers) == len(MANY)


def test_single_runs_can_be_named_and_a_method_may_be_in_some_only(keep, tmp_path):
    folder = keep("a", shots=1)
    keep("b", shots=5, methods=("learngene", "scratch", "maml"))
    found = sweep.gather([folder / "b", folder / "a", folder / "a"])
    assert found.values == [1, 5] and found.methods == ["learngene", "scratch", "maml"]
    assert [row.shots for row in found.rows if row.method == "maml"] == [5]


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([{}], "neither shots nor ways changes"),
        ([{"shots": 5, "ways": 2}], "shots and ways both change"),
        ([{"shots": 5}, {"shots": 5, "x": 1}], "two runs have shots=5, ways=5"),
        ([{"shots": 5, "seed": 1}], "seed is 0 in"),
        ([{"shots": 5, "individual": {"epochs": 60}}], "individual.epochs is 30 in"),
        ([{"shots": 5, "retain": {"ewc_lambda": 1.0}}], "retain.ewc_lambda is 1000.0 in"),
        ([{"shots": 5, "num_clients": 5}], "num_clients is 20 in"),
        ([], "a sweep needs two or more"),
    ],
)
def test_runs_that_make_no_sweep_are_refused(keep, capsys, others, words):
    folder = keep("0")
    for number, other in enumerate(others, start=1):
        keep(str(number), **other)
    assert sweep.main([str(folder)]) == 2
    assert words in capsys.readouterr().err


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(GatherError, match=r"no results\.json"):
        find_runs([tmp_path])
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(GatherError, match="no usable results"):
        find_runs([tmp_path])


def test_stems_and_precisions_of_several_runs_are_one_front(keep, canvas, tmp_path, capsys):
    keep("0")
    keep("1", -0.1, gene={"precision": "int8"})
    folder = keep("2", -0.3, stem="seeded")
    assert frontier.main([str(folder), "-o", str(tmp_path / "out")]) == 0
    texts = {text.get_text() for text in canvas[0].axes[0].texts}
    lines = {"learngene separable", "learngene seeded"}  # one name each
    assert texts == lines | {"scratch, 412 B (on the front)"}
    filled = {
        str(line.get_fillstyle()) for line in canvas[0].axes[0].lines if line.get_markersize() == 7
    }
    assert filled == {"full", "none"}  # int8 is told by its marker
    with (tmp_path / "out" / "frontier.csv").open() as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    assert set(rows) == lines | {"scratch", "learngene separable int8"}
    # They cost alike here, so the best of the three and scratch, which costs next to nothing.
    assert {name for name, row in rows.items() if row["front"] == "1"} == {
        "scratch", "learngene separable",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "scratch: " in said and "learngene separable: " in said and "seeded" not in said


def test_what_payloads_are_sent_in_is_in_their_names(keep):
    keep("0", methods=("learngene", "scratch", "protonet"))
    folder = keep("1", methods=("learngene", "scratch", "protonet"), payload_precision="fp16")
    labels = [point.label for point in frontier.gather([folder])]
    assert labels == ["learngene separable", "scratch", "protonet", "protonet fp16"]


def test_one_name_with_two_results_stays_two_points(keep):
    keep("0")
    folder = keep("1", -0.1)
    labels = [point.label for point in frontier.gather([folder])]
    assert labels == ["learngene separable (0)", "learngene separable (1)", "scratch"]


def test_seeds_are_averaged_and_must_be_the_same_for_all(keep, capsys):
    for seed, shift in ((0, 0.0), (1, -0.1)):
        folder = keep(str(seed), shift, seed=seed, shard_seed=seed)
    gene, scratch = frontier.gather([folder])
    first, second = (frontier.gather([folder / name])[0] for name in "01")
    assert (gene.label, scratch.label) == ("learngene separable", "scratch")
    assert gene.accuracy == pytest.approx((first.accuracy + second.accuracy) / 2)
    assert gene.ci95 is not None and gene.ci95 > (first.ci95 or 0)  # ten clients, two levels
    keep("2", -0.3, seed=0, stem="seeded")  # not with seed 1
    assert frontier.main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "shard seeds [0, 1]" in said and "learngene seeded with [0]" in said


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"individual": {"epochs": 60, "stem": "seeded"}}, "individual.epochs is 30 in"),
        ({"retain": {"ewc_lambda": 1.0}}, "retain.ewc_lambda is 1000.0 in"),
        ({"num_clients": 5}, "num_clients is 20 in"),
    ],
)
def test_a_front_of_unlike_runs_is_refused(keep, capsys, other, words):
    keep("0")
    folder = keep("1", **other)
    assert frontier.main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_opponents_of_another_experiment_come_on_the_same_front(keep):
    keep("0", experiment="frontier", report={"gradcam_images": 0}, logger=None)
    folder = keep("1", experiment="table3_novel", methods=MANY, logger="tensorboard")
    labels = [point.label for point in frontier.gather([folder])]
    assert "maml" in labels and "deepemd" in labels and "learngene separable (0)" in labels


def test_runs_of_other_tasks_make_no_front(keep, capsys):
    keep("0")
    folder = keep("1", shots=5)
    assert frontier.main([str(folder)]) == 2
    assert "shots is 10 in" in capsys.readouterr().err
    assert frontier.main([str(folder / "nowhere")]) == 2
