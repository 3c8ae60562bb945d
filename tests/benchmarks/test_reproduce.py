"""benchmarks/reproduce.py: its plan can be asked for and covers docs/RESULTS.md; it goes on where
it was stopped, and one run that fails stops no other. No run is made here: ``Trained`` stands in
for sim.py and writes results of the asked settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pytest
import torch

from benchmarks import reproduce
from benchmarks.reproduce import Entry, Run, carry_out, check_plan, read_plan, setting
from conf.parts import factory_settings
from conf.schema import Config
from reports.__main__ import main as reports
from reports.experiments.base import AHEAD, CIFAR, IMAGENET, Claim
from reports.experiments.paper.fig4_samples import FEW
from reports.experiments.registry import claims
from reports.results import read_results, write_results
from reports.variants import CONTROLS
from server.factory import trainer_settings
from tests.conf.test_compose import choices
from tests.reports.helpers import make_results

ROOT = Path(__file__).resolve().parents[2]
PLAN = read_plan(reproduce.PLAN)
RUNS = [run for entry in PLAN.values() for run in entry.runs]


def kinds(entry: Entry) -> Entry:
    """One run of each of its commands: a sweep's other runs differ in a value alone."""
    by_fields = {tuple(w.partition("=")[0] for w in r.words): r for r in reversed(entry.runs)}
    return replace(entry, runs=tuple(by_fields.values()))


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Config]:
    """Of a run of each command."""
    roots = dict.fromkeys(reproduce.ROOTS.values(), tmp_path_factory.mktemp("images"))
    with chdir(ROOT):  # plans of growth are named from there
        return check_plan({name: kinds(entry) for name, entry in PLAN.items()}, roots)


def test_every_entry_can_be_asked_for(configs: dict[str, Config]) -> None:
    assert {name.partition("/")[0] for name in configs} == {*PLAN}
    assert len({frozenset(run.words) for run in RUNS}) == len(RUNS)
    assert all(entry.hours > 0 for entry in PLAN.values())
    assert all("collective.threads=1" in run.words for run in RUNS)
    for entry in PLAN.values():
        assert set(entry.after) <= PLAN.keys()


def of(experiment: str) -> list[Run]:
    return [run for run in RUNS if setting(run.words, "experiment") == experiment]


def test_every_experiment_is_in_the_plan() -> None:
    assert {setting(run.words, "experiment") for run in RUNS} - {""} == {*choices("experiment")}


@pytest.mark.parametrize(("owner", "claim"), claims(), ids=lambda each: each.name)
def test_every_row_of_the_claims_has_its_runs(owner: Any, claim: Claim) -> None:
    runs = of(owner.name)
    assert {run.data for run in runs} & {*(claim.numbers or (CIFAR, IMAGENET))}
    said = re.match(r"(\d+)-shot|gain at (\d+) images", claim.quantity)
    if said:
        assert f"shots={said[1] or said[2] or FEW}" in {w for run in runs for w in run.words}
    for name, value in CONTROLS.items():
        if AHEAD[name] == claim.quantity:  # a control, and what is ahead of it on the same clients
            word = f"{name}={value}"
            others = [
                {w for w in r.words if not w.startswith(f"{name}=")}
                for r in runs
                if word in r.words
            ]
            plain = [
                {w for w in r.words if not w.startswith(f"{name}=")}
                for r in runs
                if word not in r.words
            ]
            assert others and all(each in plain for each in others)


def test_no_collective_is_trained_twice_side_by_side(configs: dict[str, Config]) -> None:
    """Of entries that share one, one trains it and the others come after."""
    sharing: dict[str, set[str]] = {}
    for name, config in configs.items():
        with chdir(ROOT):
            trainer = trainer_settings(factory_settings(config), torch.device("cpu"))
        asked = {**asdict(config.dataset), "clients_from": None}
        entries = sharing.setdefault(repr((asked, trainer.cache_fields())), set())
        entries.add(name.partition("/")[0])
    shared = [names for names in sharing.values() if len(names) > 1]
    assert len(shared) > 3
    for names in shared:
        assert any(names - {first} <= {n for n in names if first in before(n)} for first in names)


def before(name: str) -> set[str]:
    """All that an entry comes after."""
    return {each for after in PLAN[name].after for each in (after, *before(after))}


def entry(name: str, *after: str, runs: int = 2) -> Entry:
    made = tuple(Run(f"{name}/{number}", ()) for number in range(runs))
    return Entry(name, made, after, frozenset(), 1.0)


@pytest.mark.parametrize("jobs", [1, 2])
def test_entries_wait_for_what_they_share_and_no_failure_stops_another(jobs: int) -> None:
    entries = {e.name: e for e in (entry("late", "first"), entry("first"), entry("alone", "gone"))}
    begun: list[str] = []

    def work(run: Run) -> bool:
        begun.append(run.name)
        return run.name != "first/0"

    ended = carry_out(entries, work, jobs)
    assert {*begun} == {*ended} and len(begun) == 6
    assert [name for name, good in ended.items() if not good] == ["first/0"]
    of_both = [name for name in begun if not name.startswith("alone")]
    assert of_both == ["first/0", "first/1", "late/0", "late/1"]


def test_two_entries_run_at_once_and_an_interruption_ends_both() -> None:
    there, told = Event(), Event()

    def work(run: Run) -> bool:
        if run.name == "one/0":
            assert told.wait(60)
            there.set()
            return bool(Event().wait(0))
        told.set()
        assert there.wait(60)
        raise KeyboardInterrupt

    stopped: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        carry_out({"one": entry("one"), "two": entry("two")}, work, 2, lambda: stopped.append(True))
    assert stopped == [True]


class Trained:
    """In the place of ``subprocess.Popen`` of sim.py."""

    asked: ClassVar[list[str]] = []
    failing: ClassVar[set[str]] = set()  # words of runs that write no results
    silent: ClassVar[set[str]] = set()  # words of runs in which a client does not answer

    def __init__(self, command: list[str], **_: Any) -> None:
        assert command[1] == "sim.py"
        words = command[2:]
        self.words = [word for word in words if not word.startswith("hydra.")]
        self.folder = Path(setting(words, "hydra.run.dir"))

    def wait(self) -> int:
        Trained.asked.append(self.folder.parent.name + "/" + self.folder.name)
        if self.failing & {*self.words}:
            return 1
        learngene = {"precision": "fp32", "control": None, "projection": "discriminant"}
        config: dict[str, Any] = {"seed": 0, "shots": 10, "num_clients": 4, "experiment": None}
        for word in self.words:
            name, _, value = word.partition("=")
            group, _, field = name.partition(".")
            if group == "learngene":
                learngene[field] = value
            elif name in config:
                config[name] = int(value) if value.isdigit() else value

        def change(sections: dict[str, Any]) -> None:
            sections["run"] |= {
                "seed": config["seed"],
                "shard_seed": config["seed"],
                "experiment": config["experiment"],
                "overrides": [*self.words, "hydra.run.dir=x"],
                "config": {**config, "learngene": learngene},
            }
            sections["learngene"]["control"] = learngene["control"]

        fail = (1,) if self.silent & {*self.words} else ()
        results = make_results(4, shift=-0.3 * bool(learngene["control"]), fail=fail, change=change)
        write_results(results, self.folder / "results.json")
        return 0


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Iterator[type[Trained]]:
    Trained.asked, Trained.failing, Trained.silent = [], set(), set()
    monkeypatch.setattr(reproduce.subprocess, "Popen", Trained)
    monkeypatch.setattr(reproduce, "check_plan", lambda *_: {})
    return Trained


ASKED = ["--only", "main-glyphs-int8", "controls-cifar100", "--also", "data=glyphs"]


def test_what_failed_is_run_again_and_nothing_else(
    trained: type[Trained], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [*ASKED, "--out", str(tmp_path / "o"), "--jobs", "2"]
    trained.failing, trained.silent = {"learngene.projection=none"}, {"learngene.control=random"}
    assert reproduce.main(call) == 1
    said = capsys.readouterr()
    assert len(trained.asked) == 12 and "6 of 12 runs finished" in said.out
    assert "failed: " + ", ".join(f"controls-cifar100/{n}" for n in range(3, 7)) in said.err
    first = (tmp_path / "o" / "RESULTS.md").read_text()
    assert "learngene.precision=int8" in first and "inherited less random layers" not in first

    trained.asked, trained.failing, trained.silent = [], set(), set()
    assert reproduce.main([*call, "--plan"]) == 0 and not trained.asked
    assert re.search(r"controls-cifar100 +9 +3 ", capsys.readouterr().out)
    assert reproduce.main(call) == 0
    assert sorted(trained.asked) == [f"controls-cifar100/{number}" for number in range(3, 9)]
    out = tmp_path / "o"
    page = (out / "RESULTS.md").read_bytes()
    assert b"inherited less random layers | points" in page and b"3 seeds" in page
    assert b"runtime" not in page and str(tmp_path).encode() not in page

    trained.asked = []
    assert reproduce.main(call) == 0 and not trained.asked
    assert (out / "RESULTS.md").read_bytes() == page
    assert reports(["ledger", str(out / "kept"), "-o", str(out / "RESULTS.md")]) == 0
    assert (out / "RESULTS.md").read_bytes() == page


def test_runs_of_other_settings_are_made_anew_and_leave_the_page(
    trained: type[Trained], tmp_path: Path
) -> None:
    call = ["--only", "main-glyphs", "--out", str(tmp_path)]
    assert reproduce.main([*call, "--also", "shots=5"]) == 0
    assert "shots=5" in (tmp_path / "RESULTS.md").read_text()
    torn = tmp_path / "runs" / "main-glyphs" / "1" / "results.json"
    torn.write_text(torn.read_text()[:-100])
    assert reproduce.main([*call, "--also", "shots=5"]) == 0
    assert trained.asked == ["main-glyphs/0", "main-glyphs/1", "main-glyphs/2", "main-glyphs/1"]
    assert reproduce.main(call) == 0
    assert len(trained.asked) == 7 and "shots=5" not in (tmp_path / "RESULTS.md").read_text()
    assert read_results(torn)["run"]["config"]["shots"] == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "glyfs", "--out", "o"], "--only=glyfs: no entry has this name or tag"),
        (
            ["--only", "cifar100", "--out", "o"],
            "--data-cifar100=: main-cifar100/0 needs these images",
        ),
        (["--only", "main-glyphs"], "--out=: nothing says where to write"),
        (
            ["--only", "main-glyphs", "--out", "o", "--also", "shots=0"],
            "sim.py refuses it: shots=0",
        ),
        (["--only", "main-glyphs", "--out", "o", "--also", "shot=1"], "main-glyphs/0=seed=0 "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_run(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(reproduce.subprocess, "Popen")
    assert reproduce.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_plan_says_its_hours(capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["--plan", "--only", "seeds"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines[1:]]
    assert listed == [name for name, entry in PLAN.items() if "seeds" in entry.tags]
    hours = sum(PLAN[name].hours for name in listed)
    assert f"some {hours:.1f} core-hours" in last
