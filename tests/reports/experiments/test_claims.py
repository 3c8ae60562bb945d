"""Rows that claims rest on: controls, epoch 0, the evolution, the criterion, flags."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from reports.experiments import controls
from reports.experiments.base import OVER_RANDOM, OVER_RANDOM_FLAGS, Row
from reports.experiments.paper import (
    fig3_criterion,
    fig4_curves,
    fig4_samples,
    fig6a_evolution,
    table2_open_world,
    to_the_letter,
)
from reports.experiments.registry import claims, experiment
from reports.experiments.table import markdown, notes, row_to_json
from reports.ledger.claims import (
    BY_CONSTRUCTION,
    DIRECTION,
    HOLDS,
    NOT,
    TOO_FEW,
    Judged,
    verdict,
    verdicts,
)
from reports.units import mean_over_units
from reports.variants import group_runs
from tests.helpers import MANY
from tests.reports.helpers import page_of

CONFIG: dict[str, Any] = {
    "seed": 0, "shots": 10,
    "collective": {"width": 0.25, "memory": "rehearsal", "memory_per_class": 100},
    "learngene": {"layers": "front", "projection": "discriminant", "control": None},
    "individual": {"stem": "none", "head": "prototype"},
    "labelled": {"flags": "detector"},
    "retain": {"normalise": True, "ewc_lambda": 1.0},
}  # fmt: skip
Results = dict[str, Any]
Run = Callable[..., Results]


@pytest.fixture
def run(make: Callable[..., Results]) -> Run:
    """A run on CIFAR-100; keywords are settings by dotted name with __ for the dot."""

    def made(
        name: str | None,
        shift: float = 0.0,
        rounds: bool = False,
        edit: Callable[[Results], None] = lambda sections: None,
        methods: tuple[str, ...] = ("learngene", "scratch"),
        **settings: Any,
    ) -> Results:
        def change(sections: Results) -> None:
            config = json.loads(json.dumps(CONFIG)) | {"experiment": name}
            for setting, value in settings.items():
                *groups, last = setting.split("__")
                (config[groups[0]] if groups else config)[last] = value
            seed = config["seed"]
            overrides = [f"experiment={name}", f"shots={config['shots']}"]
            more = {"experiment": name, "overrides": overrides, "config": config}
            sections["run"] |= {"seed": seed, "shard_seed": seed, **more}
            sections["data"]["name"] = "cifar100"
            edit(sections)

        return make(12, methods=methods, shift=shift, rounds=rounds, change=change)

    return made


def table(runs: list[Results]) -> dict[str, Row]:
    group = group_runs(runs)
    return {row.quantity: row for row in experiment(group.experiment).table(group)}


def judged(name: str, rows: dict[str, Row]) -> list[Judged]:
    (claim,) = (claim for _, claim in claims() if claim.name == name)
    return verdicts(claim, claim.numbers.get("cifar100"), list(rows.values()))


def verdict_of(name: str, rows: dict[str, Row]) -> list[str]:
    return [each.verdict for each in judged(name, rows)]


def test_controls_are_held_against_the_same_clients(run: Run) -> None:
    rows = table([
        run("controls"),
        run("controls", shift=-0.2, learngene__control="random"),
        run("controls", shift=-0.01, learngene__projection="none"),
    ])  # fmt: skip
    over = next(row for row in rows.values() if row.name == OVER_RANDOM)
    assert over.ours.mean == pytest.approx(20, abs=0.5) and len(over.commands) == 2
    assert over.form == "layers 11 to 13, prototype head, width 0.25"
    assert verdict_of("random-layers", rows) == [HOLDS]
    assert verdict_of("no-projection", rows) in ([DIRECTION], [NOT])  # one point, the bar is two
    assert verdict_of("no-projection", table([run("controls")])) == []  # not run


def test_the_letter_is_held_against_random_layers(run: Run) -> None:
    rows = table([run("to_the_letter"), run("to_the_letter", learngene__control="random")])
    assert verdict_of("top-layers-control", rows) == [NOT]  # the same accuracies
    assert HOLDS in verdict_of("top-layers", rows)
    behind = table([run("to_the_letter", shift=-0.9)])
    assert verdict_of("top-layers", behind) == [NOT]
    assert [claim.control for claim in to_the_letter.CLAIMS] == [False, True]
    assert all(claim.control for claim in controls.CLAIMS)


def test_what_is_there_before_training_is_not_reproduced(run: Run) -> None:
    rows = table([run("fig4_curves")])
    assert rows["epochs saved"].by_construction  # the fixture's learngene starts above scratch
    assert verdict_of(fig4_curves.CLAIM.name, rows) == [BY_CONSTRUCTION]

    def late(sections: Results) -> None:
        for client in sections["clients"]:
            method = client["methods"]["learngene"]
            method["accuracy_by_epoch"][0][1] = 0.2

    learned = table([run("fig4_curves", edit=late)])
    assert not learned["epochs saved"].by_construction
    assert BY_CONSTRUCTION not in verdict_of(fig4_curves.CLAIM.name, learned)


def test_images_that_suffice_without_training_are_not_reproduced(run: Run) -> None:
    def lift(sections: Results) -> None:  # scratch arrives, too
        for client in sections["clients"]:
            method = client["methods"]["scratch"]
            method["accuracy_by_epoch"] = [
                [epoch, 0.65] for epoch, _ in method["accuracy_by_epoch"]
            ]
            method["accuracy"] = 0.65

    few, many = run("fig4_samples", shots=10), run("fig4_samples", shots=25, edit=lift)
    rows = table([few, many])
    images = rows[f"images a class for 60 %, {fig4_samples.MAIN}"]
    assert images.untrained is not None and images.by_construction
    assert verdict_of("samples-60", rows) == [BY_CONSTRUCTION]
    assert BY_CONSTRUCTION not in verdict_of("few-samples", rows)  # a gain is no matter of training


def test_the_individual_must_improve_at_every_point(run: Run) -> None:
    def rising(*levels: float) -> Callable[[Results], None]:
        def edit(sections: Results) -> None:
            *earlier, _ = sections["rounds"]
            for level, point in zip(levels, earlier, strict=True):
                for client in point["clients"]:
                    client["methods"]["learngene"]["accuracy"] += level
                    client["methods"]["learngene"]["accuracy_by_epoch"][-1][1] += level

        return edit

    rounds = run("fig6a_evolution", rounds=True)["rounds"]
    count = len(rounds) - 1
    risen = table([run("fig6a_evolution", rounds=True,
                       edit=rising(*(-0.08 * (count - n) for n in range(count))))])  # fmt: skip
    assert risen[fig6a_evolution.LEAST_STEP].ours.mean > 0
    fallen = table([run("fig6a_evolution", rounds=True,
                        edit=rising(*[0.15] * count))])  # fmt: skip
    assert fallen[fig6a_evolution.LEAST_STEP].ours.mean < 0
    assert verdict_of("improves", fallen) == [NOT]

    def unsure(sections: dict[str, Any]) -> None:
        """Each step is 2 points at every client; the last is 10 on the mean, and 30 or -10."""
        points = [point["clients"] for point in sections["rounds"]]
        for back, clients in enumerate(reversed([*points[:-1], sections["clients"]])):
            for number, client in enumerate(clients):
                before = (0.3 if number % 2 else -0.1) + 0.02 * (back - 1) if back else 0.0
                method = client["methods"]["learngene"]
                method["accuracy"] = method["accuracy_by_epoch"][-1][1] = 0.6 - before

    def failing(sections: dict[str, Any]) -> None:  # one client, behind the last round alone
        sections["clients"][2]["error"] = "died"

    rows = table([run("fig6a_evolution", rounds=True, edit=failing)])
    assert rows[fig6a_evolution.LEAST_STEP].ours.n == "11 clients"
    least = table([run("fig6a_evolution", rounds=True, edit=unsure)])[fig6a_evolution.LEAST_STEP]
    assert least.ours.mean == pytest.approx(10, abs=0.1) and count > 1
    steps = [row for name, row in risen.items() if name.startswith("accuracy at") and row.ours.mean]
    assert len(steps) == count + 1


def test_two_pairs_are_too_few_for_a_verdict(run: Run) -> None:
    index = pd.MultiIndex.from_tuples([(0, 0, 0), (0, 0, 1)])
    classes = {(0, 0): ("a", "b"), (0, 1): ("b", "c")}
    ours = mean_over_units(pd.Series([6.0, 6.1], index), "draw", classes)
    assert ours.too_few and ours.mean > ours.ci95 and ours.ci95_classes is None
    (row,) = (r for r in table([run("fig6a_evolution", rounds=True)]).values()
              if r.name == fig6a_evolution.FIRST_GAIN)  # fmt: skip
    few = replace(row, ours=ours)
    assert verdict("", None, few, [few], True) == TOO_FEW
    sure = replace(few, ours=replace(ours, too_few=False))
    assert verdict("", None, sure, [sure], True) == HOLDS


def test_the_criterion_is_judged_over_seeds(run: Run) -> None:
    def found(rho: float) -> Callable[[Results], None]:
        def edit(sections: Results) -> None:
            sections["criterion"]["correlation"] = {"trend of rho": rho, "steadiness": -rho}

        return edit

    runs = [run("fig3_criterion", seed=s, edit=found(0.5 + 0.1 * s)) for s in range(3)]
    rows = table(runs)
    assert rows[fig3_criterion.PREDICTS].ours.mean == pytest.approx(0.6)
    assert rows["rank correlation of steadiness"].ours.mean == pytest.approx(-0.6)
    assert verdict_of("criterion-carries", rows) == [HOLDS]
    assert verdict_of("criterion-carries", table(runs[:1])) == [TOO_FEW]
    against = [run("fig3_criterion", seed=s, edit=found(-0.5 - 0.1 * s)) for s in range(3)]
    assert verdict_of("criterion-carries", table(against)) == [NOT]
    unmeasured = run("fig3_criterion", edit=lambda run: run["criterion"].pop("correlation"))
    assert verdict_of("criterion-carries", table([unmeasured])) == []


def flagged(unknown: float, by: str = "detector") -> Callable[[Results], None]:
    """Table 2's section: shares flagged of open-world images, and 0.15 to 0.24 of known ones."""

    def edit(sections: Results) -> None:
        sections["labelled"] = {
            "draws": 12, "score": "energy", "accept": 0.8, "flags": by, "due": 600, "named": 600,
            "flagged": {f"new {n}": unknown + 0.01 * (n % 8) for n in range(16)},
            "flagged_known": {f"known {n}": 0.15 + 0.01 * (n % 10) for n in range(64)},
            "classes": [["a", "b", "c", "d", "e"]] * 12,
        }  # fmt: skip

    return edit


def test_every_claim_is_about_a_row_of_its_experiment(run: Run) -> None:
    """A renamed row would leave its claim 'not run' beside the runs that say otherwise."""

    def layers(*inherited: int) -> Callable[[Results], None]:
        return lambda sections: sections["learngene"].update(layers=list(inherited))

    def correlated(sections: Results) -> None:
        sections["criterion"]["correlation"] = {"trend of rho": 0.5}

    control, all_methods = {"learngene__control": "random"}, {"methods": MANY}
    runs = {
        "controls": [{}, control, {"learngene__projection": "none"}],
        "fig3_criterion": [{"edit": correlated}],
        "fig4_curves": [{}],
        "fig4_samples": [{"shots": 10}, {"shots": 25}],
        "fig6a_evolution": [{"rounds": True}],
        "fig6b_position": [
            {"learngene__layers": list(its), "edit": layers(*its)}
            for its in ((1, 2, 3), (11, 12, 13))
        ],
        "table2_open_world": [
            {"labelled__flags": by, "edit": flagged(0.4, by), **all_methods}
            for by in ("detector", "random")
        ],
        "table3_novel": [{"shots": 10, **all_methods}, {"shots": 20, **all_methods}],
        "to_the_letter": [{}, control],
    }
    names = {
        name: {row.name for row in table([run(name, **its) for its in settings]).values()}
        for name, settings in runs.items()
    }
    for owner, claim in claims():
        assert {claim.quantity, *claim.signs} <= names[owner.name], claim.name


def test_table_2_says_whether_flags_fall_on_unknown_images(run: Run) -> None:
    def runs(unknown: float, shift: float = -0.05) -> list[Results]:
        return [
            run("table2_open_world", moved, labelled__flags=by, edit=flagged(unknown, by))
            for by, moved in (("detector", 0.0), ("random", shift))
        ]

    rows = table(runs(0.4))
    shown = {row.name: row for row in rows.values()}
    assert shown["flagged of open-world images"].ours.mean == pytest.approx(43.5)
    assert "new 0 40" in shown["flagged of open-world images"].note
    assert "new 7 47" in shown["flagged of open-world images"].note
    assert shown["flagged of known images"].ours.mean == pytest.approx(19.3, abs=0.1)
    difference = shown[table2_open_world.FLAGGED]
    assert difference.ours.n == "16 and 64 classes" and 0 < difference.ours.ci95 < 5
    assert set(verdict_of("recognises", rows)) == {HOLDS}
    assert [row.of_control for row in rows.values() if row.name == "learngene"] == [False, True]
    assert [row.paper is None for row in rows.values() if row.name == "learngene"] == [False, True]
    assert shown[OVER_RANDOM_FLAGS].ours.mean == pytest.approx(5, abs=0.5)
    assert verdict_of("random-flags", rows) == [HOLDS]
    coin = table(runs(0.16))  # as many as of known images: every client still has ten of ten
    assert set(verdict_of("recognises", coin)) == {NOT}
    note = " ".join(notes(group_runs(runs(0.4))))
    assert "flags 43.5 % of open-world images and 19.3 % of known test images" in note
    assert "flagged at random (the control)" in note


def test_shares_flagged_are_means_over_the_seeds_that_have_a_class(run: Run) -> None:
    """Seeds of glyphs draw other classes."""

    def classes(known: dict[str, float]) -> Callable[[Results], None]:
        def edit(sections: Results) -> None:
            flagged(0.4)(sections)
            sections["data"]["name"] = "glyphs"
            sections["labelled"]["flagged_known"] = known

        return edit

    first, second = {"a": 0.1, "b": 0.2}, {"b": 0.4, "c": 0.5}
    rows = table([run("table2_open_world", seed=seed, edit=classes(known))
                  for seed, known in enumerate((first, second))])  # fmt: skip
    (known,) = (row for row in rows.values() if row.name == "flagged of known images")
    assert known.ours.n == "3 classes" and known.ours.mean == pytest.approx((10 + 30 + 50) / 3)
    assert known.note == "a 10, c 50"


def test_a_table_shows_both_intervals_and_the_form(run: Run) -> None:
    group = group_runs([run("fig4_curves")])
    rows = experiment("fig4_curves").table(group)
    gain = next(row for row in rows if row.name == "gain over scratch")
    values = row_to_json(gain)
    assert 0 < values["ci95"] < values["ci95_classes"]
    shown = markdown(rows, notes(group))
    assert f"± {values['ci95']:.1f}; ± {values['ci95_classes']:.1f}" in shown
    assert "Every individual: layers 11 to 13, prototype head, width 0.25." in shown


def test_a_lead_must_hold_for_new_classes_too() -> None:
    from dataclasses import replace

    from reports.units import Measured

    (claim,) = to_the_letter.CLAIMS[:1]
    row = Row(claim.quantity, "points", Measured(2.0, 1.1, "20 draws"), ())
    wide = replace(row, ours=replace(row.ours, ci95_classes=2.7))
    assert [each.verdict for each in verdicts(claim, None, [row])] == [HOLDS]
    assert [each.verdict for each in verdicts(claim, None, [wide])] == [NOT]


def test_every_claim_has_a_row_in_the_page_and_three_seeds_a_table(run: Run) -> None:
    def shown(runs: list[Results]) -> str:
        return page_of(runs, {}, set(), "results")

    empty = shown([])
    for _, claim in claims():
        (line,) = (line for line in empty.splitlines() if line.startswith(f"| {claim.words} ("))
        assert "not run" in line
    assert "No setting is kept with 3 seeds or more." in empty
    seeds = [run(None, seed=seed, shift=0.02 * seed) for seed in range(3)]
    part = shown(seeds).split("## Over seeds")[1].split("## The paper")[0]
    (line,) = (line for line in part.splitlines() if line.startswith("| cifar100"))
    group = group_runs(seeds).variants[0]
    gain = group.mean_difference(group.differences("learngene", "scratch"))
    assert gain.n == "3 seeds" and f"{gain.mean:.1f} ± {gain.ci95:.1f}; ± " in line
    assert "layers 11 to 13, prototype head, width 0.25 | 3 |" in line
    assert "No setting" in shown(seeds[:2])


def test_summaries_hold_the_interval_for_new_classes(run: Run) -> None:
    results = run("fig4_curves")
    gain = results["summary"]["gain"]
    assert gain["ci95_classes"] > gain["ci95"] > 0
