"""What a run tells its logger, of the collective, its clients and the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from learngene.collective.records import TaskRecord
from protocol.callbacks import SILENT, CallbackList, RunCallback
from reports.loggers import RunLogger
from tests.helpers import hooked
from tests.reports.test_loggers import Memory


def stage(task: int, **changed: Any) -> TaskRecord:
    made: dict[str, Any] = {
        "task": task, "new_classes": [task], "known_classes": task + 1, "widened": [],
        "parameters": 100, "accuracy": 0.9 - task / 10,
        "accuracy_by_task": [0.9], "rho": [0.25, 0.125],
        "image_passes": 1, "multiply_adds": 1, "seconds": 2.0, "layers": ["1", "1b"],
    }  # fmt: skip
    return TaskRecord(**(made | changed))


@pytest.fixture
def told() -> tuple[Memory, RunCallback, list]:
    """A memory, what fills it, and what the terminal was told meanwhile."""
    kept, shown = Memory(), []
    terminal = hooked(
        on_task_end=lambda trainer, restored: shown.append(("task", len(trainer.stages), restored)),
        on_step=lambda *step: shown.append(step),
    )
    return kept, CallbackList([terminal, RunLogger(kept, "mine", SILENT)]), shown


def test_a_task_that_is_trained_is_told_with_its_losses(told: Any) -> None:
    kept, log, shown = told
    evolution = SimpleNamespace(stages=[stage(0)])
    for step in ((10, 20, 2.0), (20, 20, 1.5), (10, 20, 0.75), (20, 20, 0.5)):
        log.on_step(*step)
    log.on_task_end(evolution, False)
    evolution.stages.append(stage(1))
    log.on_step(10, 10, 1.25)
    log.on_task_end(evolution, False)
    own = {"accuracy": 0.9, "known_classes": 1, "parameters": 100,
           "seconds": 2.0, "loss": 1.5, "consolidation_loss": 0.5}  # fmt: skip
    rho = {"rho/1": 0.25, "rho/1b": 0.125}
    (first, mine), (second, other) = kept.told[::2]
    assert (first, second) == (1, 2) and mine == {f"collective/{n}": v for n, v in own.items()}
    assert kept.told[1::2] == [(1, rho), (2, rho)]
    assert other["collective/accuracy"] == pytest.approx(0.8)
    assert other["collective/loss"] == 1.25 and "collective/consolidation_loss" not in other
    assert shown[0] == (10, 20, 2.0) and shown[-1] == ("task", 2, False)


def test_tasks_that_were_found_are_told_once_each_and_a_second_life_apart(told: Any) -> None:
    kept, log, _ = told
    life = SimpleNamespace(stages=[stage(0), stage(1)])
    log.on_task_end(life, True)
    life.stages += [stage(2), stage(3)]
    log.on_task_end(life, True)
    log.on_task_end(life, True)
    log.on_task_end(SimpleNamespace(stages=[stage(0)]), True)
    told_of = [(next(iter(values)).partition("/")[0], step) for step, values in kept.told]
    lives = [each for each in told_of if each[0].startswith("collective")]
    assert lives == [*(("collective", n) for n in (1, 2, 3, 4)), ("collective_2", 1)]
    assert told_of[-1] == ("rho_2", 1)
    assert not any("loss" in name for _, values in kept.told for name in values)


def test_clients_and_summary_are_those_of_the_results(make: Any) -> None:
    results, kept = make(n=4, fail=(2,)), Memory()
    RunLogger(kept, "mine", SILENT).on_run_end(results)
    *clients, last = kept.told
    curves: dict[tuple[str, int], dict[str, float]] = {}
    for epoch, values in clients:
        for name, value in values.items():
            stage, _, who = name.rpartition("/")
            curves.setdefault((stage, epoch), {})[who] = value
    first = results["clients"][0]["methods"]["scratch"]["accuracy_by_epoch"]
    mine = [
        [epoch, each["client_0"]] for (n, epoch), each in curves.items() if n == "clients/scratch"
    ]
    assert mine == first
    values = curves["clients/learngene", 30]
    assert set(values) == {"client_0", "client_1", "client_3", "mean"}
    assert values["mean"] == pytest.approx(results["summary"]["learngene"]["mean"])
    step, summary = last
    assert step == 0 and summary["summary/gain_mean"] == results["summary"]["gain"]["mean"]
    due = ("learngene_mean", "learngene_ci95", "scratch_mean")
    assert {f"summary/{name}" for name in due} <= set(summary)


def test_a_run_that_nobody_answered_is_told_without_numbers(make: Any) -> None:
    kept = Memory()
    RunLogger(kept, "mine", SILENT).on_run_end(make(n=2, fail=(0, 1)))
    assert kept.told == []
