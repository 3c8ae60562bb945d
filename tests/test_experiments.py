"""Every experiment file at scale=tiny, in one process over one cache; a sweep runs two points. The
commands in the files' heads are composed and checked, every point of their sweeps, but not run."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import sim as program
from conf.schema import Config
from conf.validate import check
from learngene.methods.registry import AMONG_CLIENTS
from reports.experiments.frontier import FREE
from reports.experiments.registry import draw, rows
from reports.results import read_results
from reports.variants import GatherError, check_comparable, group_runs
from tests.composing import CONF, composed
from tests.helpers import FEW, commands_in, without_rendering

COMMON = ("scale=tiny", "runtime=serial", "collective.threads=1", "num_clients=2",
          "collective.classes_per_task=11", "report.gradcam_images=0", *FEW)  # fmt: skip
# What a sweep of an experiment sets in two of its points; others run once, as their file has it.
SWEEPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "ablation": (("individual.head=mlp", "retain.normalise=false", "retain.ewc_lambda=1000"),
                 ("collective.growth=schedule",)),
    "controls": (("learngene.control=random",), ("learngene.projection=none",)),
    "bound": (("shots=2",), ("shots=3",), ("shots=5",)),
    "few_shot_benchmark": (("shots=1",), ("shots=5",)),
    "fig4_samples": (("shots=2",), ("shots=5",)),
    "fig6b_position": (("learngene.layers=[2,3,4]",), ("learngene.layers=[11,12,13]",)),
    "frontier": (("learngene.precision=int8",), ("individual.depth=4",)),
    "growth_ablation": (("collective.growth=schedule",), ("collective.growth=none",),
                        ("collective.growth=conf/growth/deepen.yaml",)),
    "retain_curves": (("retain.ewc_lambda=0",), ("retain.ewc_lambda=1",)),
    "table3_novel": (("shots=2",),),
}  # fmt: skip
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
CLIENTS = {"learngene", "scratch", "gain over scratch"}
# The rows of experiments whose answer is not the clients' accuracy alone.
NAMES: dict[str, set[str]] = {
    "bound": {
        *(f"shots={shots}: {name}" for shots in (2, 3, 5) for name in CLIENTS),
        "c2 for σ = 1, learngene",
        *(f"{name}, {method}" for method in ("learngene", "scratch") for name in (
            "c1", "c2 / (2 σ t)", "R² of the means",
            *(f"gap at {size} training images" for size in (10, 15, 25)),
        )),
    },
    "class_incremental": {
        f"{name}, 13 layers" for name in (
            "average incremental accuracy", "average accuracy after the last task", "forgetting",
            "backward transfer",
        )
    },
    "few_shot_benchmark": {
        f"{shots}-shot, {name}" for shots in (1, 5) for name in (
            "learngene, as inherited", "learngene, 3 epochs", "scratch, 3 epochs",
            "protonet, no training",
        )
    },
    "growth_ablation": {
        f"collective.growth={growth}: {name}"
        for growth, layers in (("schedule", 13), ("none", 13), ("conf/growth/deepen.yaml", 15))
        for name in (
            f"accuracy on all known classes, {layers} layers",
            "parameters at the end", "image passes",
            "layers that the criterion selects", *CLIENTS,
        )
    },
    "heterogeneous": {
        "chance", "gain by federated rounds after the learngene",
        "gain by the learngene before federated rounds",
        *(f"{front}{name}" for name in ("learngene", "scratch", *AMONG_CLIENTS)
          for front in ("", "received, ", "gain over scratch, ", "lead over ")
          if front + name not in ("gain over scratch, scratch", "lead over learngene")),
    },
    "open_world_cycle": {
        "open-world classes learned", "labels spent", "labels spent on known images",
        "unknown images missed", "known images called unknown", *CLIENTS,
        *(f"accuracy on old classes {moment} the cycles, 13 layers"
          for moment in ("before", "after")),
    },
    "retain_curves": {
        "retain.ewc_lambda=1.0: lead over no retain loss",
        *(f"retain.ewc_lambda={on}: {name}" for on in (0.0, 1.0)
          for name in ("learngene", "gained by training")),
    },
}  # fmt: skip
MORE = {
    "few_shot_benchmark": ("methods=[learngene,scratch,protonet]",),  # table 3 has all
    "fig5_gradcam": ("report.gradcam_images=1",),
    "fig6a_evolution": ("rounds=2",),  # two tasks have two moments
    "growth_ablation": ("collective.classes_per_task=2",),  # the plan's last step is of task 8
    "table2_open_world": ("methods=[learngene,scratch,protonet,deepemd]",),  # table 3 has all
}
Run = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods' halves; side by side: tests/server/test_parallel.py."""
    monkeypatch.setattr("server.pretraining.max_workers", lambda *_: 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs an experiment's points, once each, and gives their results."""
    cache, made = tmp_path_factory.mktemp("cache"), {}

    def of(experiment: str) -> list[dict[str, Any]]:
        if experiment not in made:
            points = SWEEPS.get(experiment, ((),))
            folder = tmp_path_factory.mktemp(experiment)
            made[experiment] = [
                _run(experiment, (*MORE.get(experiment, ()), *point), cache, folder / str(number))
                for number, point in enumerate(points)
            ]
        return made[experiment]

    return of


def _run(experiment: str, point: tuple[str, ...], cache: Path, folder: Path) -> dict[str, Any]:
    asked = [f"experiment={experiment}", *COMMON, *point]
    # Plans of growth are named from there. The figure of all runs together is rendered below.
    with chdir(CONF.parent), without_rendering():
        config = _composed([*asked, f"cache={cache}"])
        assert program.simulation(config, folder, asked) == program.OK
    results = read_results(folder / "results.json")
    assert results["run"]["experiment"] == experiment and results["run"]["overrides"] == asked
    return {**results, "folder": folder}


def _composed(asked: Sequence[str]) -> Config:
    """The whole configuration as the program has it, checked."""
    return check(composed(*asked))


def _commands(experiment: str) -> list[str]:
    """The commands in the head of an experiment's file."""
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    return [line.removeprefix("# ") for line in lines if line.startswith("# python sim.py ")]


def points(command: str) -> list[tuple[str, ...]]:
    """The overrides of every run that a command starts, as Hydra's sweeper takes them apart."""
    words = [word for word in shlex.split(command)[2:] if not word.startswith("hydra.")]
    parsed = OverridesParser.create().parse_overrides([word for word in words if word != "-m"])
    values = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [each.input_line]
        for each in parsed
    ]
    found = list(product(*values))
    assert len(found) == 1 or "-m" in words, f"{command}: a sweep without -m"
    return found


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_run_of_the_documented_commands_can_be_asked_for(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CONF.parent)  # plans of growth are named from here
    first, second = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()[:2]
    assert first == "# @package _global_"  # Hydra reads it on the first line alone
    assert second.split()[:4] == ["#", "python", "sim.py", f"experiment={experiment}"]
    # A tiny dataset has 30 images a class; the commands are for datasets with more.
    tiny = ("scale=tiny", "data.train_per_class=500")
    found = []
    for command in _commands(experiment):
        for point in points(command):
            words = [word.replace("data.root=DIR", f"data.root={tmp_path}") for word in point]
            config = _composed([*words, *tiny])
            assert (config.experiment, config.scale) == (experiment, "tiny")
            divided = config.data.partition, config.data.alpha  # other data stand by themselves
            found.append({**asdict(config), "data": divided})
    # ``python -m reports compare`` would refuse to group them.
    assert all(found.count(each) == 1 for each in found), "two runs of the commands are the same"


def test_runs_of_table_3_come_on_the_frontier() -> None:
    """The command in frontier.yaml takes both, for the same clients."""
    told = {name: points(_commands(name)[0])[0] for name in ("frontier", "table3_novel")}
    runs = [
        (
            Path(name),
            {"run": {"config": asdict(_composed([w for w in point if w != "data.root=DIR"]))}},
        )
        for name, point in told.items()
    ]
    assert "shots=10" in told["table3_novel"]  # job 0
    check_comparable(runs, FREE)
    runs[1][1]["run"]["config"]["individual"]["epochs"] += 1
    with pytest.raises(GatherError, match=r"individual\.epochs is"):
        check_comparable(runs, FREE)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_and_tells_its_numbers(
    experiment: str, run: Run, tmp_path: Path
) -> None:
    for results in run(experiment):
        assert results["messages"]["answered"] == results["messages"]["asked"] > 0
        assert (results["folder"] / "report.html").is_file()
        assert (results["folder"] / "comparison.csv").is_file()
        drawn = {path.stem for path in (results["folder"] / "figures").iterdir()}
        assert "accuracy_over_epochs" in drawn
        assert ("evolution" in drawn) == (experiment == "fig6a_evolution")
    gathered = group_runs(run(experiment))
    found = rows(gathered)
    assert found and len({row.quantity for row in found}) == len(found)
    if experiment in NAMES:  # new classes have an accuracy only where any were taken in
        told = {row.quantity for row in found if "new classes" not in row.quantity}
        assert told == NAMES[experiment]
    measured = [row for row in found if row.ours.mean is not None]
    assert measured and all(
        all(c.startswith("python sim.py experiment=") for c in row.commands) for row in found
    )
    assert draw(gathered, tmp_path / "figure.png").stat().st_size > 1000


TUTORIAL = CONF.parent / "docs" / "tutorials" / "add_an_experiment.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_an_experiment_is_one_yaml_and_one_python_file(tmp_path: Path) -> None:
    """The two files of the tutorial: added to a copy of the program, they give a table, a figure,
    the paper's number and a check of the methods; nothing else of the copy knows of them."""
    files = dict(BLOCK.findall(TUTORIAL.read_text()))
    for package in ("conf", "reports", "runtime", "server", "clients", "strategies", "protocol",
                    "learngene"):  # fmt: skip
        shutil.copytree(CONF.parent / package, tmp_path / package)
    shutil.copy(CONF.parent / "sim.py", tmp_path)
    (tmp_path / "conf" / "experiment" / "fewer_epochs.yaml").write_text(files["yaml"])
    (tmp_path / "reports" / "experiments" / "fewer_epochs.py").write_text(files["python"])

    first, second = (shlex.split(line)[1:] for line in files["sh"].splitlines())
    asked = (*first, *COMMON[:-1])  # its epochs are its own
    done, compared, refused = commands_in(
        tmp_path, asked, second, (*asked, "methods=[scratch]"), LEARNGENE_CACHE=str(tmp_path / "c")
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "comparison.csv").open(newline="") as file:
        (found,) = csv.DictReader(file)
    assert (found["quantity"], found["paper"]) == ("accuracy after two epochs", "50")
    assert (tmp_path / "run" / "figures" / "comparison.png").is_file()
    assert "two epochs are enough" in (tmp_path / "run" / "report.html").read_text()
    assert compared.returncode == 0
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
    assert refused.returncode == 2
    assert "experiment=fewer_epochs compares learngene" in refused.stderr
