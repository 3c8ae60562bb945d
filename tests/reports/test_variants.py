"""Several runs as one thing: variants, seeds, what is refused, and the table beside the paper's."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from reports.__main__ import main
from reports.experiments import registry
from reports.experiments.base import ReachedLevel, Row
from reports.experiments.frontier import points_of
from reports.experiments.paper import fig6b_position
from reports.experiments.registry import draw, rows
from reports.experiments.table import (
    answers,
    format_ranges,
    format_row,
    markdown,
    notes,
    number,
    write,
)
from reports.figures.style import NoDataError
from reports.html.report import write_report
from reports.results import write_results
from reports.summary import answered
from reports.units import Measured
from reports.variants import GatherError, Variant, group_runs, paired_difference

CONFIG: dict[str, Any] = {
    "experiment": None, "seed": 0, "shots": 10, "num_clients": 6, "cache": "/a",
    "individual": {"epochs": 10, "stem": "none"},
    "retain": {"normalise": True, "ewc_lambda": 1.0},
    "learngene": {"layers": 3}, "collective": {"memory": "rehearsal"},
    "data": {"partition": "few_shot", "alpha": 0.5},
}  # fmt: skip
OWN = [name for name in registry._modules() if registry.experiment(name).name == name]
Make = Callable[..., dict[str, Any]]
Asked = Callable[..., dict[str, Any]]


@pytest.fixture
def run(make: Make) -> Asked:
    """A run of an experiment; keywords are settings by dotted name with __ for the dot."""

    def made(
        experiment: str | None,
        *,
        data: str = "cifar100",
        shift: float = 0.0,
        methods: tuple[str, ...] = ("learngene", "scratch"),
        rounds: bool = False,
        layers: tuple[int, ...] = (11, 12, 13),
        **settings: Any,
    ) -> dict[str, Any]:
        def change(sections: dict[str, Any]) -> None:
            config = json.loads(json.dumps(CONFIG)) | {"experiment": experiment}
            for name, value in settings.items():
                *groups, last = name.split("__")
                inner = config
                for group in groups:
                    inner = inner[group]
                inner[last] = value
            seed = config["seed"]
            overrides = [f"experiment={experiment}", f"shots={config['shots']}"]
            more = {"experiment": experiment, "overrides": overrides, "config": config}
            sections["run"] |= {"seed": seed, "shard_seed": seed, **more}
            sections["data"]["name"] = data
            sections["learngene"]["layers"] = list(layers)

        return make(6, methods=methods, shift=shift, rounds=rounds, change=change)

    return made


def mean(variant: Variant) -> Measured:
    """The learngene's accuracy."""
    return variant.mean(variant.accuracies("learngene"))


def named(found: list[Row]) -> dict[str, Row]:
    assert len({row.quantity for row in found}) == len(found), "two rows of one name"
    return {row.quantity: row for row in found}


def test_variants_are_what_differs_and_seeds_are_not(run: Asked) -> None:
    runs = [run("ablation", seed=s, individual__stem=stem, cache=f"/{s}")
            for stem in ("none", "fresh") for s in (1, 0)]  # fmt: skip
    gathered = group_runs(runs)
    assert [variant.label for variant in gathered.variants] == [
        "individual.stem=fresh", "individual.stem=none",
    ]  # fmt: skip
    assert [[r["run"]["seed"] for r in variant.runs] for variant in gathered.variants] == [
        [0, 1],
        [0, 1],
    ]


def test_what_a_run_is_logged_to_makes_no_variant(run: Asked) -> None:
    runs = [run("fig4_curves", seed=s, logger=to) for s, to in enumerate((None, "tensorboard"))]
    assert [len(variant.runs) for variant in group_runs(runs).variants] == [2]


def test_what_changes_no_number_makes_no_variant(run: Asked) -> None:
    asked = [{"keep": keep, "safeguard": on, "safeguard_folds": folds, "safeguard_epochs": folds}
             for keep, on, folds in ((False, False, 3), (True, False, 5), (False, True, 3),
                                     (False, True, 5))]  # fmt: skip
    runs = [run("ablation", seed=seed, individual=each) for seed, each in enumerate(asked)]
    assert [len(variant.runs) for variant in group_runs(runs).variants] == [2, 1, 1]


def test_numbers_are_in_their_order(run: Asked) -> None:
    gathered = group_runs([run("fig4_samples", shots=n) for n in (100, 5, 25)])
    assert [variant.config("shots") for variant in gathered.variants] == [5, 25, 100]
    runs = [run("fig6b_position", learngene__layers=each) for each in ([11, 12], [2, 3], [6, 7])]
    assert [variant.config("learngene.layers")[0] for variant in group_runs(runs).variants] == [
        2,
        6,
        11,
    ]


def test_a_method_that_one_seed_left_out_costs_what_the_others_measured(
    run: Asked, tmp_path: Path
) -> None:
    whole = run("heterogeneous", methods=("learngene", "scratch", "maml"))
    group = group_runs([whole, run("heterogeneous", seed=1)])
    received, alone = (named(rows(each))["received, maml"] for each in (group, group_runs([whole])))
    assert received.note == alone.note and " KB sent" in alone.note
    assert draw(group, tmp_path / "x.png").is_file()


def test_a_distribution_is_named_where_images_are_divided_by_it(run: Asked) -> None:
    divided = [run("heterogeneous", data__partition="dirichlet", data__alpha=a) for a in (0.1, 0.5)]
    each = [variant.label for variant in group_runs([run("heterogeneous"), *divided]).variants]
    assert each == [
        "data.partition=dirichlet, data.alpha=0.1",
        "data.partition=dirichlet, data.alpha=0.5",
        "data.partition=few_shot",
    ]
    assert group_runs(divided).variants[0].label == "data.alpha=0.1"
    drawn = [run("heterogeneous", seed=n, data__alpha=a) for n, a in enumerate((0.1, 0.5))]
    assert [variant.label for variant in group_runs(drawn).variants] == [""]


def test_what_does_not_belong_together_is_refused(run: Asked) -> None:
    with pytest.raises(GatherError, match="several experiments: ablation, none"):
        group_runs([run("ablation"), run(None)])
    with pytest.raises(GatherError, match="several datasets: cifar100, glyphs"):
        group_runs([run("ablation"), run("ablation", data="glyphs")])
    with pytest.raises(GatherError, match="same settings and the same seeds"):
        group_runs([run("ablation"), run("ablation")])


def test_a_setting_that_is_younger_than_some_runs_had_its_default(run: Asked) -> None:
    old, new = run("ablation", seed=0), run("ablation", seed=0, learngene__joined=5)
    assert "joined" not in old["run"]["config"]["learngene"]
    same = run("ablation", seed=1, learngene__joined=None)
    variants = group_runs([old, new, same]).variants
    found = {str(each.settings["learngene.joined"]): len(each.runs) for each in variants}
    assert found == {"None": 2, "5": 1}
    assert len(group_runs([old, new]).variants) == 2
    assert [len(each.runs) for each in group_runs([old, same]).variants] == [2]
    plain = run("ablation", seed=1, collective__block="plain")
    assert [len(each.runs) for each in group_runs([old, plain]).variants] == [2]


def test_settings_of_a_method_that_no_run_has_tell_no_variants_apart(run: Asked) -> None:
    """Settings of MAML are no variant of runs without it; scratch's are, always."""

    def with_methods(made: dict, methods: list[str], method: dict) -> dict:
        made["run"]["config"] |= {"methods": methods, "method": method}
        return made

    def variants(methods: list[str], name: str) -> int:
        return len(
            group_runs(
                [
                    with_methods(run("ablation", seed=s), methods, {name: {"lr": lr}})
                    for s, lr in ((0, 0.01), (1, 0.02))
                ]
            ).variants
        )

    assert variants(["learngene", "scratch"], "maml") == 1
    assert variants(["learngene", "maml"], "maml") == 2
    assert variants(["learngene"], "scratch") == 2


def test_intervals_are_over_clients_up_to_two_seeds_and_over_seeds_from_three(run: Asked) -> None:
    runs = [run("fig4_curves", seed=s, shift=-0.1 * s) for s in range(3)]
    two = mean(group_runs(runs[:2]).variants[0])
    three = mean(group_runs(runs).variants[0])
    assert (two.n, three.n) == ("12 clients", "3 seeds")
    means = [100 * r["summary"]["learngene"]["mean"] for r in runs]
    assert three.mean == pytest.approx(sum(means) / 3)
    assert three.ci95 == pytest.approx(4.303 * 10 / 3**0.5, rel=0.02)  # t(2), steps of 10 points


def test_shard_seeds_of_one_seed_are_more_clients_of_one_collective(run: Asked) -> None:
    runs = [run("fig4_curves", shift=-0.1 * s) for s in range(3)]
    for shards, each in enumerate(runs):
        each["run"]["shard_seed"] = shards
    assert mean(group_runs(runs).variants[0]).n == "18 clients"
    for each in runs:  # numbers of the collective: of one, told three times
        each["run"]["experiment"] = each["run"]["config"]["experiment"] = "fig3_criterion"
    of_one = named(rows(group_runs(runs)))["runs that select the top three"].ours
    assert (of_one.n, of_one.ci95) == ("3 runs", None)
    for each in runs:
        each["run"]["experiment"] = each["run"]["config"]["experiment"] = "fig4_curves"
    for seed, each in enumerate(runs):
        each["run"]["seed"] = seed  # three collectives
    assert mean(group_runs(runs).variants[0]).n == "3 seeds"
    more = run("fig4_curves", shift=-0.5)
    more["run"]["shard_seed"] = 9  # of the first seed once more: its mean is over both
    found = mean(group_runs([*runs, more]).variants[0])
    means = [100 * r["summary"]["learngene"]["mean"] for r in (*runs, more)]
    assert found.n == "3 seeds"
    assert found.mean == pytest.approx(((means[0] + means[3]) / 2 + means[1] + means[2]) / 3)


def test_runs_on_other_images_are_refused(run: Asked) -> None:
    one, other = run("table3_novel"), run("table3_novel", seed=1)
    other["data"]["sha256"] = "f" * 64
    with pytest.raises(GatherError, match=r"data\.sha256 is .* and ffffffffffff"):
        group_runs([one, other])
    for name in ("glyphs", "imagefolder"):
        for each in (one, other):
            each["data"]["name"] = name
        assert len(group_runs([one, other]).variants) == 1  # drawn by their seeds, 0 and 1
    other["run"]["seed"] = 0
    with pytest.raises(GatherError, match="images differ"):
        group_runs([one, other])
    for each, images in ((one, 100), (other, 200)):  # asked for: variants with images of their own
        each["run"]["config"]["data"] = {"train_per_class": images}
    assert len(group_runs([one, other]).variants) == 2


def test_two_numbers_of_two_runs_have_no_interval(run: Asked) -> None:
    found = named(rows(group_runs([run("fig3_criterion", seed=s) for s in range(2)])))
    row = found["runs that select the top three"]
    assert row.ours.n == "2 runs" and row.ours.ci95 is None


def test_epochs_saved_are_those_of_two_convergences(run: Asked) -> None:
    made = run("fig4_curves")
    for client in made["clients"]:
        # Within a point of the end at epoch 4 and 9; at scratch's end from the beginning.
        for name, curve in (("learngene", [[0, 0.6], [4, 0.695], [9, 0.7]]),
                            ("scratch", [[0, 0.2], [4, 0.3], [9, 0.5]])):  # fmt: skip
            client["methods"][name]["accuracy_by_epoch"] = curve
            client["methods"][name]["accuracy"] = curve[-1][1]
    found = named(rows(group_runs([made])))
    assert found["epochs to converge, learngene"].ours.mean == 4
    assert found["epochs to converge, scratch"].ours.mean == 9
    assert found["epochs saved"].ours.mean == 5 and found["epochs saved"].paper.value == 30  # type: ignore[union-attr]
    there = found["epochs to where scratch ends, learngene"]
    assert there.ours.mean == 0 and there.note.startswith("6 of 6 clients are there before any")


@pytest.mark.parametrize(
    ("experiment", "methods", "absent"),
    [
        ("fig4_curves", ("learngene",), "scratch"),
        ("fig4_samples", ("scratch",), "learngene"),
        ("fig6b_position", ("scratch", "maml"), "learngene"),
    ],
)
def test_runs_without_what_is_compared_have_a_table_and_no_figure(
    run: Asked, tmp_path: Path, experiment: str, methods: tuple[str, ...], absent: str
) -> None:
    gathered = group_runs([run(experiment, methods=methods)])
    assert [r.quantity for r in rows(gathered)] == list(methods)
    with pytest.raises(NoDataError, match=f"{experiment} compares {absent}"):
        draw(gathered, tmp_path / "x.png")


def test_clients_of_two_collectives_arrive_once_and_with_both(run: Asked) -> None:
    runs = [run("fig4_samples", seed=s, shots=n) for s in range(2) for n in (5, 25)]
    for each in runs:
        each["run"]["shard_seed"] = 7  # the same private tasks
        late = each["run"]["seed"] == 1
        for client in each["clients"]:
            for method in client["methods"].values():
                method["accuracy"] = 0.1 if late and client["id"] == 0 else 0.65
    found = named(rows(group_runs(runs)))
    assert found["images a class for 60 %, learngene"].reached == ReachedLevel(5, 6)
    assert found["images a class saved to reach 60 %"].reached == ReachedLevel(5, 6)


def test_one_number_of_images_saves_nothing_and_says_nothing(run: Asked) -> None:
    alone = group_runs([run("fig4_samples", shots=25)])
    assert [each.quantity for each in rows(alone)] == ["gain at 25 images a class"]
    (said,) = answers("fig4_samples", rows(alone))
    assert said.startswith("The paper: at least 20 points over scratch with so few images.")
    nobody = run("fig4_curves")
    nobody["clients"] = [{"id": 0, "error": "gone"}]
    nobody["summary"] = {n: {"mean": None, "ci95": None, "n": 0} for n in ("learngene", "scratch")}
    nobody["summary"]["gain"] = None
    assert answers("fig4_curves", rows(group_runs([nobody]))) == []


@pytest.mark.parametrize("experiment", sorted(OWN))
def test_a_run_that_nobody_answered_has_a_table(run: Asked, experiment: str) -> None:
    other = run(experiment, seed=1)
    other["clients"] = [{"id": client["id"], "error": "gone"} for client in other["clients"]]
    assert rows(group_runs([other])) is not None
    assert rows(group_runs([run(experiment), other])) is not None


def test_positions_are_held_against_the_top_of_their_own_variants(
    run: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        fig6b_position, "line",
        lambda axes, x, values, label, number, share=True: drawn.append((label, share)),
    )  # fmt: skip
    monkeypatch.setattr("reports.figures.style.legend_above", lambda figure, axes: None)
    layers = {"[2,3,4]": (2, 3, 4), "[11,12,13]": (11, 12, 13)}
    runs = [run("fig6b_position", layers=of, learngene__layers=list(of), shots=n, seed=seed)
            for of in layers.values() for n in (10, 20)
            for seed in ((0, 1) if of[0] == 11 else (1,))]  # fmt: skip
    draw(group_runs(runs), tmp_path / "x.png")
    below = [label for label, share in drawn if not share]
    assert below == ["layers 2 to 4, shots=10", "layers 2 to 4, shots=20"]
    top, other = (next(a for a in group_runs(runs).variants
                       if a.runs[0]["learngene"]["layers"][0] == n
                       and a.config("shots") == 10) for n in (11, 2))  # fmt: skip
    lead = paired_difference(top, other, "learngene")
    epochs, found = fig6b_position.lead_over_epochs(top, other)
    assert found[-1] == replace(lead, ci95_classes=None)  # seed 1 with seed 1, not with seed 0
    assert epochs[-1] == 30


def test_rows_of_several_runs_name_all_their_commands(run: Asked) -> None:
    gathered = group_runs([run("fig4_samples", shots=n) for n in (5, 25, 100)])
    text = markdown(rows(gathered))
    assert "   2  python sim.py experiment=fig4_samples shots=25" in text
    lines = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line.startswith("| ")}
    assert lines["images a class for 60 %, learngene"].endswith(" | 1 to 3 |")
    assert lines["gain at 25 images a class"].endswith(" | 2 |")
    assert format_ranges([5, 1, 2, 7, 8, 9]) == "1, 2, 5, 7 to 9"


def test_a_task_that_two_runs_have_is_one_unit(run: Asked) -> None:
    runs = [run("fig4_curves", seed=s, shift=-0.1 * s) for s in range(2)]
    for each in runs:
        each["run"]["shard_seed"] = 5  # two collectives, the same private tasks
    variant = group_runs(runs).variants[0]
    both, one = (mean(a) for a in (variant, group_runs(runs[:1]).variants[0]))
    assert both.n == one.n == "6 clients"
    assert both.mean == pytest.approx(one.mean - 5)  # type: ignore[operator]
    assert both.ci95 == pytest.approx(one.ci95, rel=0.1)  # twelve would make it narrower
    found = named(rows(group_runs(runs)))
    assert found["gain over scratch"].note == "better on 6 of 6 clients"
    assert found["epochs to converge, learngene"].ours.n == "6 clients"


@pytest.mark.parametrize("data", ["glyphs", "imagefolder"])
def test_tasks_of_two_seeds_that_draw_the_classes_are_two(run: Asked, data: str) -> None:
    runs = [run("fig4_curves", data=data, seed=s, shift=-0.1 * s) for s in range(2)]
    for each in runs:
        each["run"]["shard_seed"] = 5
    for client in runs[1]["clients"]:
        client["classes"] = [f"another {name}" for name in client["classes"]]
    variant = group_runs(runs).variants[0]
    assert mean(variant).n == "12 clients" and len(variant.classes) == 12
    gain = named(rows(group_runs(runs)))["gain over scratch"]
    assert gain.note == "better on 12 of 12 clients" and gain.ours.ci95_classes is not None
    found = named(rows(group_runs(runs)))["epochs to where scratch ends, learngene"]
    assert found.reached == ReachedLevel(12, 12)
    chance = run("heterogeneous", data=data), run("heterogeneous", data=data, seed=1)
    chance[1]["run"]["shard_seed"] = 0
    assert named(rows(group_runs(chance)))["chance"].ours.n == "12 clients"


def test_in_table_2_draws_of_classes_are_the_unit(run: Asked) -> None:
    shares = {"flagged": {"a": 0.5, "b": 0.3}, "flagged_known": {"c": 0.1, "d": 0.3}}
    made = run("table2_open_world") | {"labelled": {"draws": 2, **shares}}
    found = mean(group_runs([made]).variants[0])
    values = [100 * c["methods"]["learngene"]["accuracy"] for c in made["clients"]]
    means = [sum(values[draw::2]) / 3 for draw in (0, 1)]
    assert found.n == "2 draws" and found.mean == pytest.approx(sum(means) / 2)
    assert found.ci95 == pytest.approx(12.706 * abs(means[0] - means[1]) / 2, rel=1e-3)


def test_what_is_drawn_at_random_is_a_control_by_itself(run: Asked) -> None:
    shares = {"flagged": {"a": 0.5, "b": 0.3}, "flagged_known": {"c": 0.1, "d": 0.3}}
    made = run("table2_open_world") | {"labelled": {"draws": 2, **shares}}
    made["run"]["config"]["labelled"] = {"flags": "random"}
    (alone,) = group_runs([made]).variants
    assert alone.is_control and all(row.paper is None for row in rows(group_runs([made])))
    assert not answers("table2_open_world", rows(group_runs([made])))


def test_a_method_that_a_seed_left_out_stays_and_the_table_says_so(run: Asked) -> None:
    whole = [run("table3_novel", methods=("learngene", "maml"), seed=seed) for seed in range(3)]
    for client in whole[0]["clients"]:
        del client["methods"]["maml"]
    del whole[0]["summary"]["maml"]
    whole[0]["methods_left_out"] = {"maml": "RuntimeError: not finite"}
    gathered = group_runs(whole)
    found = {row.name: row for row in rows(gathered)}
    assert found["10-shot, maml"].ours.n == "12 clients"
    assert "seed 0: maml: left out, RuntimeError: not finite." in notes(gathered)


def test_a_paired_difference_pairs_clients(run: Asked) -> None:
    variants = group_runs([run("ablation", individual__stem=stem, shift=shift)
                   for stem, shift in (("fresh", -0.1), ("none", 0.0))]).variants  # fmt: skip
    lead = paired_difference(variants[1], variants[0], "learngene")
    assert lead.mean == pytest.approx(10, abs=0.5) and lead.ci95 is not None and lead.ci95 < 0.5


def test_table_3_has_the_papers_cells_beside_ours(run: Asked) -> None:
    methods = ("learngene", "scratch", "maml", "deepemd")
    settings = {"retain__normalise": False, "retain__ewc_lambda": 5000.0}
    found = named(rows(group_runs([
        run("table3_novel", methods=methods, shots=n) for n in (10, 20)
    ])))  # fmt: skip
    assert found["10-shot, deepemd"].paper.value == 58.03  # type: ignore[union-attr]
    assert found["20-shot, maml"].paper.value == 62.36  # type: ignore[union-attr]
    assert found["10-shot, scratch"].paper is None
    ours = found["20-shot, learngene"]
    assert ours.paper.value == 64.24 and ours.note == "lambda 1, normalised"  # type: ignore[union-attr]
    assert ours.difference == pytest.approx(ours.ours.mean - 64.24)  # type: ignore[operator]
    assert "shots=20" in ours.commands[0]
    heavy = named(rows(group_runs([run("table3_novel", methods=methods, **settings)])))
    assert heavy["10-shot, learngene"].paper.value == 58.21  # type: ignore[union-attr]
    other = named(rows(group_runs([run("table3_novel", methods=methods, data="glyphs")])))
    assert all(row.paper is None for row in other.values())


def test_table_3_says_what_a_method_cost_and_whether_it_is_below_scratch(run: Asked) -> None:
    made = run("table3_novel", methods=("learngene", "scratch", "maml"))
    made["collective"] = {"multiply_adds": 25 * 10**11}
    made["pretraining"] = {"methods": {"maml": {"multiply_adds": 125 * 10**10}}}
    for client in made["clients"]:
        client["methods"]["maml"]["accuracy"] = client["methods"]["scratch"]["accuracy"] - 0.01
        client["methods"]["maml"]["accuracy_by_epoch"][-1][1] -= 1
    found = named(rows(group_runs([made])))
    cost = "T multiply-adds at the factory"
    assert found["10-shot, learngene"].note == f"lambda 1, normalised; 2.5 {cost}"
    assert found["10-shot, maml"].note == f"below scratch; 1.25 {cost}"
    assert found["10-shot, scratch"].note == ""
    plain = named(rows(group_runs([{**made, "run": run(None, methods=("learngene",))["run"]}])))
    assert plain["maml"].note == "below scratch" and plain["learngene"].note == ""


def test_leads_have_their_p_and_the_tables_their_footnotes(run: Asked, tmp_path: Path) -> None:
    methods = ("learngene", "scratch", "maml", "deepemd")
    runs = [run("table3_novel", methods=methods, shots=n) for n in (10, 20)]
    conditions = {"width": 0.25, "shots": 10, "ways": 5, "budget": 60000}
    trials = {"trials": 8, "data": "cifar100", "conditions": conditions, "used": True}
    for each, record in zip(runs, (trials, trials | {"trials": 9}), strict=True):
        each["tuning"] = dict.fromkeys(methods) | {"maml": record}
        each["federated"] = {"methods": {"scratch": {"rounds": 3, "local_epochs": 2}}}
    runs[0]["clients"][0]["methods"]["maml"]["accuracy"] = 1.0  # one loss: 2 of 64 signs are better
    runs[0]["summary"]["maml"]["lead"]["p_holm"] = None  # tables count for themselves
    gathered = group_runs(runs)
    found = named(rows(gathered))
    assert found["10-shot, lead over maml"].note.startswith("p 0.0")
    assert found["10-shot, lead over maml"].note.endswith("ahead on 5 of 6 clients")
    alone = runs[1]["summary"]["maml"]["lead"]
    assert alone["p_holm"] == pytest.approx(3 * 2 / 2**6)  # six of six, three methods
    assert found["20-shot, lead over maml"].note == "p 0.094; ahead on 6 of 6 clients"
    assert all(" p " not in row.note for name, row in found.items() if "lead" not in name)
    write(gathered, rows(gathered), tmp_path, "")
    for ending in ("md", "html"):
        page = unescape((tmp_path / f"comparison.{ending}").read_text())
        assert page.count("scratch: seven layers, scratch's") == 1
        assert "shots=10, seed 0: Settings: maml (tuned: 8 trials" in page
        assert "shots=20, seed 0: Settings: maml (tuned: 9 trials" in page
        assert "p 0.094; ahead on 6 of 6 clients" in page and "Holm" in page


def test_the_frontier_tells_bytes_and_the_front(run: Asked) -> None:
    def variant(depth: int, size: int, shift: float, seed: int = 0, **more: Any) -> dict[str, Any]:
        made = run("frontier", learngene__depth=depth, shift=shift, seed=seed, **more)
        made["learngene"]["layers"] = [*range(1, depth + 1)]
        for client in made["clients"]:
            client["methods"]["learngene"]["bytes_down"] = size
            client["methods"]["scratch"]["bytes_down"] += 1141 * (depth == 7)  # longer settings
        return made

    dear, cheap = variant(7, 2_000_000, -0.1), variant(4, 1_000_000, 0.0)
    found = named(rows(group_runs([dear, cheap])))
    lean = found["received, learngene 1-4"]
    assert (lean.ours.mean, lean.unit, lean.note) == (1000, "KB", "on the Pareto front")
    assert found["received, learngene 1-7"].note == ""
    assert found["received, scratch"].note == "on the Pareto front"
    assert found["received, scratch"].ours.mean == pytest.approx(0.412)
    two = {f"{part}learngene 1-{depth}" for depth in (4, 7)
           for part in ("", "gain over scratch, ", "received, ")}  # fmt: skip
    assert set(found) == {*two, "scratch", "received, scratch"}  # scratch once
    assert len(set(points_of(group_runs([dear, cheap])).values())) == 3  # scratch once
    # Seeds are averaged, the first does not stand for all.
    seeds = group_runs([cheap, variant(4, 3_000_000, -0.2, seed=1)])
    assert seeds.variants[0].command.endswith("  # seeds 0, 1")
    assert "#" not in group_runs([cheap]).variants[0].command
    (point,) = {p for p in points_of(seeds).values() if p.method == "learngene"}
    assert point.bytes == 2_000_000
    assert 100 * point.accuracy == pytest.approx(mean(seeds.variants[0]).mean)
    # One name, two results: both are there.
    apart = points_of(group_runs([cheap, variant(4, 1_000_000, -0.2, retain__ewc_lambda=5.0)]))
    assert {p.label for p in apart.values()} == {
        "scratch",
        "learngene 1-4 (retain.ewc_lambda=1.0)",
        "learngene 1-4 (retain.ewc_lambda=5.0)",
    }


def test_samples_are_counted_along_every_clients_own_line(run: Asked) -> None:
    def at(shots: int, ours: list[float], scratch: list[float]) -> dict[str, Any]:
        made = run("fig4_samples", shots=shots)
        for client, a, b in zip(made["clients"], ours, scratch, strict=True):
            for name, value in (("learngene", a), ("scratch", b)):
                client["methods"][name]["accuracy"] = value
        return made

    always, never = [0.65] * 6, [0.1] * 6
    runs = [
        at(5, [0.65, 0.2, 0.2, 0.2, 0.2, 0.2], never),
        at(25, always, [0.65, 0.65, 0.1, 0.1, 0.1, 0.1]),
        at(100, always, always),
    ]
    found = named(rows(group_runs(runs)))
    needed = found["images a class for 60 %, learngene"]
    assert needed.ours.mean == pytest.approx((5 + 5 * 25) / 6) and needed.paper.value == 25  # type: ignore[union-attr]
    saved = found["images a class saved to reach 60 %"]
    assert saved.ours.mean == pytest.approx((20 + 0 + 4 * 75) / 6)
    share = found["share of images saved to reach 60 %"]
    assert share.ours.mean == pytest.approx(100 * (0.8 + 0 + 4 * 0.75) / 6)
    assert share.paper.value == pytest.approx(66.7, abs=0.1)  # type: ignore[union-attr]
    assert saved.reached == share.reached == ReachedLevel(6, 6)
    missed = found["images a class saved to reach 70 %"]
    assert missed.ours.mean is None and missed.difference is None
    assert "never with the learngene 6, never from scratch 6" in missed.note
    assert missed.reached == ReachedLevel(0, 6) and "0 of 6 arrived; never" in format_row(missed)[6]
    gone = json.loads(json.dumps(runs))
    gone[1]["clients"][2] = {"id": 2, "error": "ClientOverdue: not done"}
    others = named(rows(group_runs(gone)))["images a class for 60 %, learngene"]
    assert others.ours.mean == pytest.approx((5 + 4 * 25) / 5)  # those that answered at each
    fewer = named(rows(group_runs(runs[:2])))  # four clients of six never come to 60 % from scratch
    assert fewer["images a class for 60 %, learngene"].reached == ReachedLevel(6, 6)
    assert fewer["images a class for 60 %, scratch"].reached == ReachedLevel(2, 6)
    assert fewer["images a class saved to reach 60 %"].reached == ReachedLevel(2, 6)
    few = fewer["images a class saved to reach 60 %"]
    assert few.ours.mean is not None and few.censored
    share = fewer["share of images saved to reach 60 %"]  # of a selection: no difference is told
    assert share.paper is not None and share.difference is None
    assert "| 2 of 6 arrived |" in markdown([fewer["images a class for 60 %, scratch"]])
    assert fewer["gain at 25 images a class"].reached is None
    few = found["gain at 25 images a class"]
    assert few.paper.value == 20 and few.ours.mean == pytest.approx(55 * 4 / 6)  # type: ignore[union-attr]


def test_the_top_is_held_against_the_best_other_position(run: Asked) -> None:
    where = {"[2,3,4]": -0.3, "[6,7,8]": -0.05, "[11,12,13]": 0.0}
    runs = [
        run("fig6b_position", shift=shift, learngene__layers=json.loads(layers),
            layers=tuple(json.loads(layers)))
        for layers, shift in where.items()
    ]  # fmt: skip
    lead = named(rows(group_runs(runs)))["top over the best other position"]
    assert lead.ours.mean == pytest.approx(5, abs=0.5)
    assert lead.note == "the best other: layers [6, 7, 8]"
    assert lead.paper.value == 2  # type: ignore[union-attr]


def test_every_experiment_with_a_figure_draws_it(run: Asked, tmp_path: Path) -> None:
    more: dict[str, dict[str, Any]] = {"fig6a_evolution": {"rounds": True}}
    for name in (*OWN, "ablation"):
        runs = [run(name, seed=s, **more.get(name, {})) for s in range(3)]
        path = draw(group_runs(runs), tmp_path / f"{name}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
        assert named(rows(group_runs(runs)))


def test_the_command_gathers_folders(
    run: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for seed in range(3):
        made = run("fig4_curves", seed=seed)
        (tmp_path / str(seed)).mkdir()
        write_results(made, tmp_path / str(seed) / "results.json")
        folders.append(str(tmp_path / str(seed)))
    out = tmp_path / "out"
    assert main(["compare", *folders, "-o", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "comparison.html")
    assert {p.name for p in out.iterdir()} == {
        f"comparison.{ending}" for ending in ("csv", "json", "md", "html", "png")
    }
    table = {r["quantity"]: r for r in csv.DictReader((out / "comparison.csv").open())}
    assert table["epochs saved"]["paper"] == "30" and table["epochs saved"]["n"] == "3 seeds"
    assert json.loads((out / "comparison.json").read_text())[0]["quantity"] == "learngene"
    page = (out / "comparison.html").read_text()
    assert "fig4_curves on cifar100" in page and "data:image/png;base64" in page
    again = shutil.copytree(folders[0], tmp_path / "again")  # one run that would count twice
    assert main(["compare", *folders, str(again), "-o", str(out)]) == 2
    assert "same seeds" in capsys.readouterr().err
    assert main(["compare", *folders]) == 2 and "--out" in capsys.readouterr().err


def test_a_run_of_an_experiment_has_figure_and_table_in_its_folder(
    run: Asked, tmp_path: Path
) -> None:
    made = run("fig4_curves")
    page = write_report(made, tmp_path).read_text()
    assert (tmp_path / "figures" / "comparison.png").is_file()
    assert (tmp_path / "comparison.csv").is_file()
    assert "Beside the paper" in page and "epochs saved" in page
    assert answered(made)


@pytest.mark.parametrize(
    ("value", "spread", "shown"),
    [(0.9971, None, "0.997"), (-0.9999999999999998, 0.738, "-1.0 ± 0.7"), (0.8, 1.2, "0.8 ± 1.2")],
)
def test_a_number_has_the_digits_that_it_needs(value, spread, shown):
    assert number(value, spread) == shown


def test_percent_and_points_have_one_digit():
    assert number(0.76, 0.978, unit="points") == "0.8 ± 1.0"
    assert number(0.04, unit="%", sign=True) == number(-0.04, unit="%", sign=True) == "0.0"
    assert number(0.706, 0.0123, unit="share") == "0.706 ± 0.012"
