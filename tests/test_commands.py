"""Every command that README and the guide show: asked for as written, then run at ``scale=tiny``.

Commands are the lines of fenced blocks, and code that begins with ``python`` or is made of
overrides; in a row about one setting, the other values that it names, too. What a command needs
beside it (``BESIDE``) has to stand in the same line. Blocks of the tutorials run in
``test_tutorials.py`` and ``test_experiments.py``. Commands that are one run at ``scale=tiny``
(``scale=half``, ``cache=DIR``) are run once; of a sweep its first point and its last; another value
of a row's setting with ``-m chaos``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

import sim as program
from conf.validate import GROWTHS, check, check_fields
from reports.__main__ import main as reports
from tests.composing import composed
from tests.conf.test_compose import LIMITS, choices
from tests.test_experiments import points
from tests.test_tutorials import ELSEWHERE, ORDER, blocks

ROOT = Path(__file__).resolve().parents[1]
APPS = ("learngene.command_line", "reports.__main__", "runtime.federation.__main__")
PAGES = (ROOT / "README.md", ROOT / "docs" / "GUIDE.md")
TINY = ("scale=tiny", "runtime=serial", "collective.threads=1", "num_clients=2",
        "individual.epochs=1", "collective.epochs=1", "report.gradcam_images=0")  # fmt: skip
# What has to be written beside a command, and is said in its line.
BESIDE = {
    "collective.growth=conf/growth/deepen.yaml": "collective.classes_per_task=2",  # tiny's has 4
}
FLOWERS = ("flwr run ", "export FLWR_")  # no sim.py: tests/test_flower_run.py runs it
# Asked for, composed and checked as written and at scale=tiny, but not run.
NOT_RUN = {
    r"python -m pip": "it installs",
    r"data=(cifar|fc100|imagenet100|mini_imagenet)": "its images are not in the repository",
    r"data\.download=true": "it asks the network",
    r"runtime\.address=": "it needs a cluster that runs",
    r"runtime\.num_gpus=0\.": "it needs a GPU",
    r"experiment=": "tests/test_experiments.py runs each",
}
FAILS = {r"faults=": program.TOO_FEW_ANSWERS}  # as the page says


@dataclass(frozen=True)
class Shown:
    """A command, and the line of the page that shows it."""

    command: str
    line: str
    other: bool = False  # with another value of a row's setting, not the one that it shows

    @property
    def sweeps(self) -> bool:
        return "-m" in self.overrides

    @property
    def overrides(self) -> list[str]:
        words = shlex.split(self.command)[2:]
        return [*words, *(more for text, more in BESIDE.items() if text in words)]


def shown() -> Iterator[Shown]:
    for page in PAGES:
        fenced = False
        for line in page.read_text().splitlines():
            if line.startswith("```"):
                fenced = not fenced
            elif fenced and not line.startswith(FLOWERS):
                yield from (Shown(command.strip(), line) for command in line.split("&&"))
            else:
                codes = re.findall(r"`([^`]+)`", line)
                commands = (_command(code) for code in codes)
                yield from (Shown(command, line) for command in commands if command)
                if line.startswith("|") and codes:
                    yield from (Shown(each, line, other=True) for each in _others(*codes))


def _command(code: str) -> str | None:
    words = code.removeprefix("... ")
    if words.startswith("python "):
        return words
    overrides = all(re.fullmatch(r"-m|[a-z_.]+=\S+", word) for word in words.split())
    return f"python sim.py {words}" if overrides and words != "-m" else None


def _others(first: str, *codes: str) -> Iterator[str]:
    """The other values of the setting that a row of a table is about."""
    name, equals, value = first.partition("=")
    for code in codes if equals and " " not in first else ():
        group = name in ("data", "scale", "experiment", "runtime") and code in choices(name)
        word = name in LIMITS and code in LIMITS[name].choices
        path = name == "collective.growth" and (code in GROWTHS or (ROOT / code).is_file())
        layers = name == "learngene.layers" and (code == "auto" or code.startswith("["))
        if code != value and (group or word or path or layers):
            yield f"python sim.py {name}={code}"


def sweep(shown: Shown) -> list[tuple[str, ...]]:
    """The overrides of each of its runs."""
    return points(shlex.join(["python", "sim.py", *shown.overrides]))


def ends(runs: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys((runs[0], runs[-1])))


COMMANDS = {each.command: each for each in sorted(shown(), key=lambda each: not each.other)}
SIMULATED = [each for each in COMMANDS if " sim.py" in each]
# What runs with -m chaos alone: training with each value is for the tests of its own room.
RUN = [
    pytest.param(each, marks=pytest.mark.chaos) if COMMANDS[each].other else each
    for each in SIMULATED
]


def test_the_pages_show_commands_and_the_tutorials_are_followed_elsewhere() -> None:
    assert len(COMMANDS) > 50
    assert {"python sim.py num_clients=20", "python sim.py collective.memory=ewc",
            "python sim.py rounds=4", "python sim.py scale=paper"} <= {*COMMANDS}  # fmt: skip
    assert all(blocks(page) for page in (*ORDER, *ELSEWHERE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name: pictures, a module of one's own, a logger, a saved learngene."""
    made = tmp_path_factory.mktemp("commands")
    (made / "conf").symlink_to(ROOT / "conf")
    rng = np.random.default_rng(0)
    for name in range(25):
        (made / "DIR" / f"class {name}").mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(256, size=(40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(made / "DIR" / f"class {name}" / f"{number}.png")
    ((_, method), *_), ((_, logger), *_) = blocks("add_a_method"), blocks("log_a_run")
    (made / "my_method.py").write_text(method)
    (made / "my_package.py").write_text(logger.replace("class TableLogger", "class MyLogger"))
    return made


@pytest.fixture
def here(
    folder: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None, capsys: pytest.CaptureFixture
) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    # One after the other here; side by side: tests/server/test_parallel.py.
    monkeypatch.setattr("server.pretraining.max_workers", lambda *_: 1)
    if not (folder / "FILE").exists():
        code, first = simulate(folder)
        assert code == program.OK
        for suffix in ("safetensors", "json"):
            shutil.copy(first / f"learngene.{suffix}", f"FILE.{suffix}")
        (folder / "FILE").symlink_to("FILE.safetensors")
    return folder


def simulate(folder: Path, *overrides: str) -> tuple[int, Path]:
    """Exit code and folder of a run, which is made once."""
    asked = (*overrides, *TINY, "cache=cache")
    config = check(composed(*asked))
    key = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()
    run = folder / "outputs" / key
    if not (code := run / "code").exists():
        run.mkdir(parents=True)  # as Hydra does
        made = program.simulation(config, run, asked)
        code.write_text(str(made))
    return int(code.read_text()), run


@pytest.mark.parametrize("command", SIMULATED)
def test_it_can_be_asked_for(command: str, here: Path) -> None:
    this = COMMANDS[command]
    if "--help" in command:
        assert program.help_asked(this.overrides) is not None
        return
    for text, more in BESIDE.items():
        assert text not in command or f"`{more}`" in this.line, f"{text} needs {more}: say so"
    for point in sweep(this):
        check_fields(composed(*point))  # what it asks of the machine is another's to have
        check(composed(*point, *TINY))


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_it_runs(command: str, here: Path) -> None:
    if "--help" in command or any(re.search(pattern, command) for pattern in NOT_RUN):
        return
    due = next((code for pattern, code in FAILS.items() if re.search(pattern, command)), 0)
    assert {simulate(here, *point)[0] for point in ends(sweep(COMMANDS[command]))} == {due}


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in COMMANDS if "-m reports" in each])
def test_what_comes_after_a_run_runs_too(command: str, here: Path) -> None:
    words = shlex.split(command)[3:]
    if (at := "multirun/DATE/TIME") in words:  # the one in its line
        line = COMMANDS[command].line
        (multirun,) = (each for each in COMMANDS.values() if each.line == line and each.sweeps)
        runs = [str(simulate(here, *point)[1]) for point in ends(sweep(multirun))]
        words = [*words[: words.index(at)], *runs, *words[words.index(at) + 1 :]]
    assert reports(words) == 0


def test_no_other_command_is_shown() -> None:
    """Those of tests/runtime/federation/test_page.py, of test_reproduce.py and of the tutorials are
    run there."""
    elsewhere = ("-m learngene ", "-m runtime.federation ", "-m benchmarks.reproduce ")
    others = [
        each
        for each in COMMANDS
        if not any(word in each for word in (" sim.py", "-m reports", *elsewhere))
    ]
    assert others == ["python -m pip install -e ."]


def test_help_says_what_each_argument_is() -> None:
    for name in APPS:
        commands = get_command(import_module(name).app).commands
        assert commands
        for command in commands.values():
            assert all(each.help for each in command.params), command.name
