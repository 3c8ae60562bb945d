"""Several runs in one picture: sweeps of shots and ways, the frontier of depths and precisions."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.__main__ import main
from reports.experiments import frontier
from reports.figures import style
from reports.figures.style import new_figure
from reports.results import write_results
from reports.runs import GatherError, read_runs
from tests.helpers import MANY

Keep = Callable[..., Path]


@pytest.fixture
def keep(make, tmp_path) -> Keep:
    """Writes a run's results into ``sweep/NAME``; settings as on the command line."""

    def kept(name: str, shift: float = 0.0, methods: tuple[str, ...] = ("learngene", "scratch"),
             gene: dict[str, Any] | None = None, seed: int = 0, depth: int = 7,
             images: dict[str, Any] | None = None, **config: Any) -> Path:  # fmt: skip
        def change(sections: dict[str, Any]) -> None:
            sections["run"] |= {"seed": seed, "shard_seed": config.get("shard_seed", 0)}
            sections["run"] |= {
                "overrides": [f"seed={seed}"],
                "experiment": config.get("experiment"),
            }
            sections["run"]["config"] |= {"shots": 10, "ways": 5, "individual": {"epochs": 30}}
            sections["run"]["config"] |= {"learngene": {"depth": depth} | (gene or {})} | config
            sections["learngene"]["layers"] = [*range(1, depth + 1)]
            sections["data"] |= images or {}

        results = make(n=5, methods=methods, shift=shift, change=change)
        write_results(results, tmp_path / "sweep" / name / "results.json")
        return tmp_path / "sweep"

    return kept


@pytest.fixture
def canvas(monkeypatch, unrendered):
    """The figures that are drawn while a test runs, to look into; without their pixels."""
    made: list[Any] = []

    def new(height):
        made.append(new_figure(height))
        return made[-1]

    monkeypatch.setattr(style, "new_figure", new)
    return made


def lines(canvas: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in canvas[0].axes[0].lines}


def test_a_sweep_of_shots_is_a_figure_and_a_table(keep, canvas, tmp_path, capsys):
    for number, (shots, shift) in enumerate(((10, 0.0), (1, -0.4), (50, 0.05))):
        folder = keep(str(number), shift, shots=shots)
    assert main(["compare", str(folder), "-o", str(tmp_path / "out")]) == 0
    axes = canvas[0].axes[0]
    assert axes.get_xscale() == "log" and "images of a class" in axes.get_xlabel()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10", "50"]
    drawn = lines(canvas)
    assert list(drawn["learngene"].get_xdata()) == [1, 10, 50]
    rising = list(drawn["learngene"].get_ydata())
    assert rising == sorted(rising) and rising[1] - rising[0] > 30
    assert len(axes.collections) == 2  # a band a method
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["quantity"] for r in rows] == [
        f"shots={shots}: {name}"
        for shots in (1, 10, 50)
        for name in ("learngene", "scratch", "gain over scratch")
    ]
    assert float(rows[0]["ours"]) == pytest.approx(rising[0])
    assert rows[0]["n"] == "5 clients" and float(rows[0]["ci95"]) > 0
    assert "comparison.html" in capsys.readouterr().out


def test_ways_are_swept_on_a_plain_axis_by_every_method(keep, canvas, tmp_path):
    for number, ways in enumerate((2, 5, 10)):
        folder = keep(str(number), methods=MANY, ways=ways)
    assert main(["compare", str(folder), "-o", str(tmp_path / "out")]) == 0
    axes = canvas[0].axes[0]
    assert axes.get_xscale() == "linear" and "classes of a client" in axes.get_xlabel()
    assert set(lines(canvas)) == set(MANY) and len(axes.collections) == len(MANY)


def test_seeds_of_a_sweep_are_averaged_and_a_run_counts_once(keep, canvas, tmp_path, capsys):
    keep("0", shots=1, seed=0, shard_seed=0)
    keep("1", -0.2, shots=1, seed=1, shard_seed=1)
    folder = keep("2", shots=5, seed=0, shard_seed=0)
    out = ["-o", str(tmp_path / "out")]
    assert main(["compare", str(folder / "2"), str(folder), str(folder / "0"), *out]) == 0
    drawn = lines(canvas)["learngene"]
    assert list(drawn.get_xdata()) == [1, 5] and drawn.get_ydata()[0] < drawn.get_ydata()[1] - 5
    capsys.readouterr()
    keep("3", shots=5, seed=0, shard_seed=0)
    assert main(["compare", str(folder), *out]) == 2
    said = capsys.readouterr().err
    assert said.startswith("reports compare: two runs have the same settings (shots=5)")


def test_what_else_differs_is_told_and_not_drawn_over(keep, canvas, tmp_path):
    keep("0", shots=1)
    folder = keep("1", shots=5, num_clients=5)
    assert main(["compare", str(folder), "-o", str(tmp_path / "out")]) == 0
    ticks = [label.get_text() for label in canvas[0].axes[0].get_yticklabels()]
    assert sorted(ticks) == ["num_clients=20, shots=1", "num_clients=5, shots=5"]
    assert "gain over scratch" in canvas[0].axes[0].get_xlabel()


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(GatherError, match=r"no results\.json"):
        read_runs([tmp_path])
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(GatherError, match="no usable results"):
        read_runs([tmp_path])


def test_depths_and_precisions_of_several_runs_are_one_front(keep, canvas, tmp_path, capsys):
    keep("0")
    keep("1", -0.1, gene={"precision": "int8"})
    folder = keep("2", -0.3, depth=4)
    assert main(["frontier", str(folder), "-o", str(tmp_path / "out")]) == 0
    texts = {text.get_text() for text in canvas[0].axes[0].texts}
    lines = {"learngene 1-7", "learngene 1-4"}  # one name each
    assert texts == lines | {"scratch, 412 B (on the front)"}
    filled = {
        str(line.get_fillstyle()) for line in canvas[0].axes[0].lines if line.get_markersize() == 7
    }
    assert filled == {"full", "none"}  # int8 is told by its marker
    with (tmp_path / "out" / "frontier.csv").open() as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    assert set(rows) == lines | {"scratch", "learngene 1-7 int8"}
    # They cost alike here, so the best of the three and scratch, which costs next to nothing.
    assert {name for name, row in rows.items() if row["front"] == "1"} == {
        "scratch", "learngene 1-7",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "scratch: " in said and "learngene 1-7: " in said and "1-4" not in said


def test_what_payloads_are_sent_in_is_in_their_names(keep):
    keep("0", methods=("learngene", "scratch", "protonet"))
    folder = keep("1", methods=("learngene", "scratch", "protonet"), payload_precision="fp16")
    labels = [point.label for point in frontier.points_in([folder])]
    assert labels == ["learngene 1-7", "scratch", "protonet", "protonet fp16"]


def test_one_name_with_two_results_stays_two_points(keep):
    keep("0")
    folder = keep("1", -0.1)
    labels = [point.label for point in frontier.points_in([folder])]
    assert labels == ["learngene 1-7 (0)", "learngene 1-7 (1)", "scratch"]


def test_seeds_are_averaged_and_must_be_the_same_for_all(keep, capsys):
    for seed, shift in ((0, 0.0), (1, -0.1)):
        folder = keep(str(seed), shift, seed=seed, shard_seed=seed)
    gene, scratch = frontier.points_in([folder])
    first, second = (frontier.points_in([folder / name])[0] for name in "01")
    assert (gene.label, scratch.label) == ("learngene 1-7", "scratch")
    assert gene.accuracy == pytest.approx((first.accuracy + second.accuracy) / 2)
    assert gene.ci95 is not None and gene.ci95 > (first.ci95 or 0)  # ten clients, two levels
    keep("2", -0.3, seed=0, depth=4)  # not with seed 1
    assert main(["frontier", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "shard seeds is ['0 of seed 0', '1 of seed 1'] in learngene 1-7" in said
    assert "['0 of seed 0'] in learngene 1-4: one picture" in said


def test_seeds_that_draw_their_own_images_are_averaged(keep, capsys):
    """One shard seed draws other tasks from other classes: twice as many clients."""
    keep("0", images={"sha256": "0" * 64})
    folder = keep("1", seed=1, images={"sha256": "1" * 64})
    (gene, _), (alone, _) = frontier.points_in([folder]), frontier.points_in([folder / "0"])
    assert gene.accuracy == pytest.approx(alone.accuracy)
    assert gene.ci95 < 0.6 * alone.ci95
    keep("1", seed=1, images={"name": "cifar100"})
    assert main(["frontier", str(folder)]) == 2
    assert "data, name is glyphs in" in capsys.readouterr().err
    keep("0", images={"name": "cifar100", "sha256": "0" * 64})
    assert main(["frontier", str(folder)]) == 2
    assert "data, sha256 is 0000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"individual": {"epochs": 60}}, "individual.epochs is 30 in"),
        ({"retain": {"ewc_lambda": 1.0}}, "retain.ewc_lambda is 1000.0 in"),
        ({"num_clients": 5}, "num_clients is 20 in"),
    ],
)
def test_a_front_of_unlike_runs_is_refused(keep, capsys, other, words):
    keep("0")
    folder = keep("1", **other)
    assert main(["frontier", str(folder)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_opponents_of_another_experiment_come_on_the_same_front(keep):
    keep("0", experiment="frontier", report={"gradcam_images": 0}, logger=None)
    folder = keep("1", experiment="table3_novel", methods=MANY, logger="tensorboard")
    labels = [point.label for point in frontier.points_in([folder])]
    assert "maml" in labels and "deepemd" in labels and "learngene 1-7 (0)" in labels


def test_runs_of_other_tasks_make_no_front(keep, capsys):
    keep("0")
    folder = keep("1", shots=5)
    assert main(["frontier", str(folder)]) == 2
    assert "shots is 10 in" in capsys.readouterr().err
    assert main(["frontier", str(folder / "nowhere")]) == 2
