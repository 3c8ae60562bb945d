"""What a run's individual is made of, in a line."""

from __future__ import annotations

from typing import Any

import pytest

from reports.console import summary_table
from reports.experiments.registry import rows
from reports.figures.run import FIGURES
from reports.form import common_form, form_of, layers_text
from reports.html.report import render_report
from reports.summary import setting
from reports.variants import group_runs

FRONT: dict[str, Any] = {
    "learngene": {"projection": "discriminant"},
    "individual": {"stem": "none", "head": "prototype"},
    "collective": {"width": 0.25, "memory_per_class": 100, "classes_per_task": 8},
}


@pytest.fixture
def run(make):
    def made(layers, **changes: Any) -> dict[str, Any]:
        def change(sections: dict[str, Any]) -> None:
            config = {name: dict(section) for name, section in FRONT.items()}
            for name, value in changes.items():
                group, field = name.split("__")
                config.setdefault(group, {})[field] = value
            sections["run"]["config"] = config
            sections["learngene"]["layers"] = list(layers)
            sections["data"]["classes"]["base"] = [str(c) for c in range(64)]

        return make(2, change=change)

    return made


def test_a_form_says_layers_own_layers_head_and_width(run):
    front = ("layers 1 to 7", "discriminant projection", "prototype head", "width 0.25")
    assert form_of(run(range(1, 8))) == front
    letter = run((11, 12, 13), individual__stem="fresh", individual__head="mlp")
    assert form_of(letter) == ("layers 11 to 13", "fresh stem", "mlp head", "width 0.25")
    assert ", ".join(front) in setting(run(range(1, 8)))
    assert common_form([run(range(1, 8)), letter]) == "width 0.25"
    assert [layers_text(layers) for layers in ([4], [2, 5], [2, 3])] == ["4", "2, 5", "2 to 3"]


def test_of_a_prefix_the_layers_are_those_that_clients_took(run):
    made = run(range(1, 8), learngene__joined=[2, 5])
    for client in made["clients"]:
        client["methods"]["learngene"]["depth"] = 4
    assert form_of(made)[:3] == ("layers 1 to 4", "discriminant projection", "joined with depth 2")
    made["clients"][0]["methods"]["learngene"]["depth"] = 2
    assert form_of(made)[:2] == ("layers 1 to 4", "of which clients take 2, 4")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"collective__memory_per_class": 480}, "nearly joint (480 exemplars a class)"),
        ({"collective__memory_per_class": 480, "collective__memory": "lwf"}, None),
        ({"collective__classes_per_task": 64}, "joint training"),
        ({"learngene__control": "random"}, "control: layers drawn at random"),
        ({"labelled__flags": "random"}, "control: random flags"),
        ({"individual__moved_views": True}, "moved views"),
        ({"collective__precision": "fp32"}, "trained in fp32"),
        (
            {"learngene__projection": "discriminant", "learngene__joined": [3, 5, 9]},
            "joined with depth 3 and 5",
        ),
    ],
)
def test_what_makes_a_number_another_one_is_said(run, changes, said):
    further = set(form_of(run(range(1, 8), **changes))) - set(form_of(run(range(1, 8))))
    assert further == ({said} if said else set())


@pytest.mark.parametrize(("exemplars", "said"), [(100, False), (101, True)])
def test_a_run_that_keeps_more_than_definition_1_is_called_so_everywhere(run, exemplars, said):
    kept = run(range(1, 8), collective__memory_per_class=exemplars, individual__epochs=30)
    other = run(range(1, 8), collective__memory_per_class=20, individual__epochs=30)
    table = rows(group_runs([kept]))
    assert table and all(row.quantity.startswith("nearly joint: ") == said for row in table)
    assert {row.name for row in table} == {row.name for row in rows(group_runs([other]))}
    beside = [row.quantity for row in rows(group_runs([kept, other])) if row.name == "learngene"]
    names = [f"collective.memory_per_class={n}" for n in (20, exemplars)]
    assert beside == [f"{names[0]}: learngene", f"{names[1]}{', nearly joint' * said}: learngene"]
    for shown in (
        str(summary_table(kept).caption),
        render_report(kept, dict.fromkeys(FIGURES, "left out")),
        setting(kept),
    ):
        assert (f"nearly joint ({exemplars} exemplars a class)" in shown) == said
