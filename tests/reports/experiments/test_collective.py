"""Tables and figures of the experiments that look at the collective: every number in its row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learngene.utils.files import write_atomically
from reports.experiments.base import Row
from reports.experiments.registry import draw, rows
from reports.figures.style import NoDataError, new_figure
from reports.ledger import compact
from reports.variants import group_runs

Change = Callable[[dict[str, Any]], None]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(make: Callable[..., dict[str, Any]]) -> Run:
    """A run of an experiment; ``asked`` are settings of the collective."""

    def made(experiment: str, change: Change | None = None, seed: int = 0, **asked: Any):
        def inner(sections: dict[str, Any]) -> None:
            collective = {"growth": "schedule", "memory": "rehearsal", **asked}
            config = {"experiment": experiment, "seed": seed, "collective": collective}
            more = {"experiment": experiment, "overrides": [f"experiment={experiment}"]}
            sections["run"] |= {"seed": seed, "shard_seed": seed, "config": config, **more}
            if change is not None:
                change(sections)

        return make(6, change=inner)

    return made


@pytest.fixture
def canvas(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn while a test runs, to look into; no pixel is made."""
    made: list[Any] = []

    def keep(height: float) -> Any:
        made.append(new_figure(height))
        return made[-1]

    monkeypatch.setattr("reports.figures.style.new_figure", keep)
    monkeypatch.setattr("reports.figures.style.save", lambda figure, path: path)
    return made


def named(found: list[Row]) -> dict[str, Row]:
    assert len({row.quantity for row in found}) == len(found), "two rows of one name"
    return {row.quantity: row for row in found}


def means(found: list[Row]) -> dict[str, float]:
    return {name: pytest.approx(row.ours.mean) for name, row in named(found).items()}


def deepened(sections: dict[str, Any]) -> None:
    """Thirteen tasks, fifteen layers: copies of layers 5 and 7 from the fourth task on."""
    names = ["1", "2", "3", "4", "5", "5b", "6", "7", "7b", *map(str, range(8, 14))]
    rho = np.tile(np.linspace(0.9, 0.2, 15), (13, 1))
    rho[:3, [5, 8]] = np.nan
    sections["criterion"] |= {"rho": rho, "names": names, "selected": [8, 9, 10]}
    sections["collective"] |= {"layers": names, "conv_widths": [16] * 15}


CLIENTS = {"learngene", "scratch", "gain over scratch"}


def test_growth_ablation_tells_what_each_collective_became(run: Run) -> None:
    def other(sections: dict[str, Any]) -> None:
        deepened(sections)
        sections["collective"]["stages"][-1] |= {
            "accuracy": 0.512, "parameters": 1_234_500,
        }  # fmt: skip

    gathered = group_runs([
        run("growth_ablation"),
        run("growth_ablation", other, growth="conf/growth/deepen.yaml"),
    ])  # fmt: skip
    found = named(rows(gathered))
    one, two = ("collective.growth=schedule: ", "collective.growth=conf/growth/deepen.yaml: ")
    expected = {
        one + "accuracy on all known classes, 13 layers": 83.6,
        one + "parameters at the end": 736.0,
        one + "image passes": 13 * 30 + 78,
        one + "layers that the criterion selects": 3,
        two + "accuracy on all known classes, 15 layers": 51.2,
        two + "parameters at the end": 1234.5,
        two + "image passes": 13 * 30 + 78,
        two + "layers that the criterion selects": 3,
    }
    ours = {label + name for label in (one, two) for name in CLIENTS}
    assert set(found) == set(expected) | ours
    assert {name: found[name].ours.mean for name in expected} == pytest.approx(expected)
    assert found[one + "layers that the criterion selects"].note == "layers 11, 12, 13"
    assert found[two + "layers that the criterion selects"].note == "layers 7, 7b, 8"
    assert found[one + "image passes"].unit == found[one + "parameters at the end"].unit
    assert found[one + "gain over scratch"].ours.n == "6 clients"


def test_numbers_of_a_collective_have_an_interval_from_three_seeds_on(run: Run) -> None:
    def change(seed: int) -> Change:
        def inner(sections: dict[str, Any]) -> None:
            sections["collective"]["stages"][-1]["accuracy"] = 0.5 + 0.1 * seed

        return inner

    runs = [run("growth_ablation", change(seed), seed=seed) for seed in range(3)]
    name = "accuracy on all known classes, 13 layers"
    two, three = (named(rows(group_runs(runs[:n])))[name].ours for n in (2, 3))
    assert (two.mean, two.ci95, two.n) == (pytest.approx(55), None, "2 runs")
    assert (three.mean, three.n) == (pytest.approx(60), "3 seeds")
    assert three.ci95 == pytest.approx(4.303 * 10 / 3**0.5, rel=1e-3)


def test_the_maps_of_the_variants_share_their_scale_and_name_copies(run: Run, canvas: Any) -> None:
    runs = [run("growth_ablation"), run("growth_ablation", growth="none"),
            run("growth_ablation", deepened, growth="conf/growth/deepen.yaml")]  # fmt: skip
    draw(group_runs(runs), Path("x.png"))
    panels = [axes for axes in canvas[0].axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        "growth: deepen.yaml", "growth: none", "growth: schedule",
    ]  # fmt: skip
    (deep, *_), lefts = panels, [axes.get_position().x0 for axes in panels]
    assert lefts == sorted(set(lefts))  # beside each other
    ticks = [label.get_text() for label in deep.get_yticklabels()]
    assert ticks[4:9] == ["5", "5b", "6", "7", "7b"] and ticks[14] == "13" and len(ticks) == 15
    shown = [axes.collections[0] for axes in panels]
    assert shown[0].get_array().mask.sum() == 6
    assert len({image.norm.vmax for image in shown}) == 1
    highest = max(np.nanmax(np.array(r["criterion"]["rho"], float)) for r in runs)
    assert shown[0].norm.vmax == pytest.approx(highest)


def test_class_incremental_has_its_measures(run: Run, canvas: Any) -> None:
    def values(shift: float) -> Change:
        def change(sections: dict[str, Any]) -> None:
            keys = ("average_incremental_accuracy", "average_accuracy", "forgetting",
                    "backward_transfer")  # fmt: skip
            found = sections["collective"]["continual"]
            for number, key in enumerate(keys):
                found[key] = 0.1 + 0.11 * number + shift

        return change

    runs = [run("class_incremental", values(0.0)),
            run("class_incremental", values(0.02), memory="lwf")]  # fmt: skip
    gathered = group_runs(runs)
    names = ("average incremental accuracy", "average accuracy after the last task", "forgetting",
             "backward transfer")  # fmt: skip
    first, second = "collective.memory=rehearsal: ", "collective.memory=lwf: "
    expected = {f"{first}{name}, 13 layers": 10 + 11 * i for i, name in enumerate(names)}
    expected |= {f"{second}{name}, 13 layers": 12 + 11 * i for i, name in enumerate(names)}
    found = named(rows(gathered))
    assert {name: row.ours.mean for name, row in found.items()} == pytest.approx(expected)
    assert found[f"{second}forgetting, 13 layers"].note == "memory lwf"
    assert [row.unit for row in list(found.values())[:4]] == ["%", "%", "points", "points"]
    draw(gathered, Path("x.png"))
    (axes,) = canvas[0].axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {f"{first[:-2]}, 13 layers", f"{second[:-2]}, 13 layers"}
    drawn = lines[f"{first[:-2]}, 13 layers"]
    stages = runs[0]["collective"]["stages"]
    assert list(drawn.get_ydata()) == pytest.approx([100 * s["accuracy"] for s in stages])
    assert list(drawn.get_xdata()) == [s["known_classes"] for s in stages]


def test_one_task_has_nothing_to_forget(run: Run) -> None:
    def change(sections: dict[str, Any]) -> None:
        sections["collective"]["continual"] |= {"forgetting": None, "backward_transfer": None}

    found = named(rows(group_runs([run("class_incremental", change)])))
    names = ("average incremental accuracy", "average accuracy after the last task")
    assert set(found) == {f"{name}, 13 layers" for name in names}


def test_open_world_cycle_tells_what_was_found_paid_and_kept(run: Run, canvas: Any) -> None:
    gathered = group_runs([run("open_world_cycle")])
    found = named(rows(gathered))
    accuracy = "accuracy on {} classes {} the cycles, {}"
    expected = {
        "open-world classes learned": 5,
        "labels spent": 271 + 281,
        "labels spent on known images": 68 + 105,
        "unknown images missed": 594 + 419,
        "known images called unknown": 88 + 127,
        accuracy.format("old", "before", "13 layers"): 36.1,
        accuracy.format("old", "after", "13 layers"): 56.1,
        accuracy.format("new", "after", "13 layers"): 61.1,
    }
    assert set(found) == set(expected) | CLIENTS
    assert {name: found[name].ours.mean for name in expected} == pytest.approx(expected)
    notes = {name: found[name].note for name in list(expected)[:5]}
    assert list(notes.values()) == [
        "of 16", "at most 300 a cycle", "needless", f"of {797 + 595} unknown",
        f"of {803 + 905} known",
    ]  # fmt: skip
    assert found["learngene"].ours.n == "6 clients"
    draw(gathered, Path("x.png"))
    old, new = canvas[0].axes
    lines = {line.get_label(): list(line.get_ydata()) for line in old.get_lines()}
    assert lines == {"13 layers": pytest.approx([36.1, 46.1, 56.1])}
    lines = {line.get_label(): list(line.get_ydata()) for line in new.get_lines()}
    assert np.isnan(lines["13 layers"][0])
    assert lines["13 layers"][1:] == pytest.approx([51.1, 61.1])
    assert (old.get_title(loc="left"), new.get_title(loc="left")) == ("old classes", "new classes")


def test_without_a_stream_only_the_clients_are_told(run: Run, canvas: Any) -> None:
    def change(sections: dict[str, Any]) -> None:
        sections["open_world"]["cycle"] = None

    gathered = group_runs([run("open_world_cycle", change)])
    assert set(named(rows(gathered))) == CLIENTS
    with pytest.raises(NoDataError, match=r"open_world\.cycles is 0"):
        draw(gathered, Path("x.png"))


@pytest.mark.parametrize("experiment", ["growth_ablation", "class_incremental", "open_world_cycle"])
def test_kept_results_give_the_same_rows_and_the_same_figure(
    run: Run, experiment: str, tmp_path: Path
) -> None:
    whole = run(experiment)
    write_atomically(tmp_path / "results.json", compact.content(whole))
    kept = json.loads((tmp_path / "results.json").read_text())
    assert means(rows(group_runs([kept]))) == {
        name: row.ours.mean for name, row in named(rows(group_runs([whole]))).items()
    }
    paths = [
        draw(group_runs([each]), tmp_path / f"{i}.png") for i, each in enumerate((whole, kept))
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert kept["open_world"]["openness"] == 0.057
    assert "matrix" not in kept["collective"]["continual"]


def test_figure_3_takes_the_ends_of_a_deepened_collective(run: Run, canvas: Any) -> None:
    def top(sections: dict[str, Any]) -> None:
        deepened(sections)
        sections["criterion"]["selected"] = [13, 14, 15]

    rho = np.linspace(0.9, 0.2, 15)
    for change, is_top, said in ((deepened, 0, "[7, 7b, 8]"), (top, 1, "[11, 12, 13]")):
        gathered = group_runs([run("fig3_criterion", change)])
        found = named(rows(gathered))
        for part in ("first", "last"):
            lowest = found[f"rho of layers 1 to 3, {part} third of the tasks"]
            highest = found[f"rho of layers 11 to 13, {part} third of the tasks"]
            assert lowest.ours.mean == pytest.approx(rho[:3].mean())
            assert highest.ours.mean == pytest.approx(rho[12:].mean())  # names 11 to 13
        selects = found["runs that select the top three"]
        assert selects.ours.mean == is_top and selects.note.endswith(f"selected here: {said}")
    draw(gathered, Path("x.png"))
    ticks = [label.get_text() for label in canvas[0].axes[0].get_yticklabels()]
    assert ticks[4:9] == ["5", "5b", "6", "7", "7b"] and ticks[-1] == "13"


def test_a_copy_on_top_is_among_the_top_three(run: Run) -> None:
    def change(sections: dict[str, Any]) -> None:
        names = [*map(str, range(1, 14)), "13b"]
        rho = np.tile(np.arange(14) / 20, (9, 1))
        rho[:6, 13] = np.nan
        sections["criterion"] |= {"rho": rho, "names": names, "selected": [12, 13, 14]}

    found = named(rows(group_runs([run("fig3_criterion", change)])))
    early, late = (found[f"rho of layers 12 to 13b, {part} third of the tasks"].ours.mean
                   for part in ("first", "last"))  # fmt: skip
    assert (early, late) == (pytest.approx(0.575), pytest.approx(0.6))
    assert found["runs that select the top three"].ours.mean == 1


def test_figure_6b_knows_the_top_of_a_deepened_collective(run: Run) -> None:
    def at(layers: list[int], accuracy: float) -> Change:
        def change(sections: dict[str, Any]) -> None:
            deepened(sections)
            sections["learngene"]["layers"] = layers
            sections["run"]["config"]["learngene"] = {"layers": layers}
            for client in sections["clients"]:
                method = client["methods"]["learngene"]
                method["accuracy"] = method["accuracy_by_epoch"][-1][1] = accuracy

        return change

    where = {(13, 14, 15): 0.9, (11, 12, 13): 0.87, (2, 3, 4): 0.5}
    runs = [run("fig6b_position", at(list(layers), y)) for layers, y in where.items()]
    lead = named(rows(group_runs(runs)))["top over the best other position"]
    assert lead.ours.mean == pytest.approx(3) and lead.note.endswith("layers [11, 12, 13]")


def test_figure_3_holds_the_criterion_against_the_transfer_profile(run: Run, canvas: Any) -> None:
    def of(seed: int) -> Change:
        def change(sections: dict[str, Any]) -> None:
            sections["criterion"]["correlation"] = {"small rho": 0.1 * seed, "steady rho": None}

        return change

    gathered = group_runs([run("fig3_criterion", of(seed), seed=seed) for seed in range(3)])
    found = named(rows(gathered))
    small = found["rank correlation of small rho"].ours
    assert (small.mean, small.n) == (pytest.approx(0.1), "3 seeds")
    assert small.ci95 == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert found["rank correlation of steady rho"].ours.mean is None
    assert found["best depth of the transfer profile"].ours.mean == 7
    assert found["unseen classes at that depth"].ours.mean == pytest.approx(73)
    draw(gathered, Path("x.png"))
    plain, projected = (
        next(axes for axes in canvas[0].axes if axes.get_title() == title).collections[0]
        for title in ("class means", "behind the projection")
    )
    assert plain.get_array().mask[:, 0].all() and not plain.get_array().mask[:, 1:].any()
    assert plain.get_array()[7, 12] == pytest.approx(63)
    assert projected.get_array()[6, 12] == pytest.approx(73) == projected.norm.vmax
    assert plain.norm.vmax == projected.norm.vmax and plain.norm.vmin == projected.norm.vmin


def test_figure_6b_holds_the_front_alone_against_the_top_behind_fresh_layers(
    run: Run, canvas: Any
) -> None:
    def at(layers: list[int], stem: str, accuracy: float) -> Change:
        def change(sections: dict[str, Any]) -> None:
            sections["learngene"] |= {"layers": layers, "stem": stem}
            sections["run"]["config"] |= {
                "learngene": {"layers": layers}, "individual": {"stem": stem},
            }  # fmt: skip
            for client in sections["clients"]:
                method = client["methods"]["learngene"]
                method["accuracy"] = method["accuracy_by_epoch"][-1][1] = accuracy

        return change

    asked = [([2, 3, 4], "fresh", 0.6), ([11, 12, 13], "fresh", 0.5), ([1, 2, 3], "none", 0.7)]
    gathered = group_runs([run("fig6b_position", at(*each)) for each in asked])
    found = named(rows(gathered))
    front = found["the front alone over the top behind fresh layers"]
    assert front.ours.mean == pytest.approx(20) and front.note == "layers [1, 2, 3]"
    lead = found["top over the best other position"]
    assert lead.ours.mean == pytest.approx(-10) and lead.note.endswith("layers [2, 3, 4]")
    draw(gathered, Path("x.png"))
    labels = {line.get_label() for line in canvas[0].axes[0].get_lines()}
    assert labels >= {"layers 2 to 4", "layers 11 to 13", "layers 1 to 3 alone"}
