"""How a run begins and ends on the terminal: one line, the right exit code, the results written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

import sim as program
from conf import validate
from conf.validate import check
from learngene.errors import InputError, RunError
from reports.results import read_results
from tests.composing import composed
from tests.helpers import FEW, ROOT, UNDRAWN, command_line, without_figures
from tests.stand_ins.own_method import here, write_method

FIRST_LINE = "  learngene: data glyphs, 2 clients, 5-way 5-shot, seed 0, runtime serial\n"
TINY = ("scale=tiny", "runtime=serial", "collective.threads=1", "num_clients=2",
        "collective.classes_per_task=21", "report.gradcam_images=0", *FEW)  # fmt: skip


def sim(
    *overrides: str,
    folder: Path,
    shell: str = '"$@"',
    before: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The command line in ``folder``, started as ``shell`` has it."""
    command = [sys.executable, UNDRAWN, *overrides]
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell, "bash", *command],
        env={**os.environ, "LEARNGENE_CACHE": str(folder / "cache")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=before,
    )


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """What is said of the user's fault."""
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("sim.py: ")
    return line


@pytest.mark.parametrize(
    "where", ["/proc/nope", "/dev/null/x", "file", "x" * 300, "/sys/x", "/sys"]
)
def test_a_run_folder_that_cannot_be_made(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    line = one_line(command_line(f"hydra.run.dir={where}"), 2)
    assert f"hydra.run.dir={where}: no folder that can be written in (" in line


def test_a_sweep_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command_line("hydra.sweep.dir=/proc/nope", "-m", "shots=1,2")
    assert "hydra.sweep.dir=/proc/nope" in one_line(done, 2)


def test_a_full_disk_under_hydras_own_files_names_the_run_folder(tmp_path: Path) -> None:
    """No file may grow beyond 100 bytes: what is larger fails as on a full disk, with EFBIG."""
    done = sim(
        "hydra.run.dir=runs/one",
        folder=tmp_path,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    line = one_line(done, 1)
    assert f"cannot write {tmp_path}/runs/one/.hydra" in line
    assert f"MB are free in {tmp_path}/runs/one" in line


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RunError("every method failed: a"), 1, "sim.py: every method failed: a; what was"),
        (InputError("collective.lr", 9, "not finite", "Lower it"), 2, "sim.py: collective.lr=9: "),
        (OSError(28, "No space left on device", "/tmp/x"), 1, "sim.py: cannot write /tmp/x: "),
        (PermissionError(13, "a mistake of ours"), 1, "Traceback"),
        (ValueError("a mistake of ours"), 1, "Traceback"),
    ],
)
def test_what_goes_wrong_in_a_run(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fails(*_: object) -> int:
        raise error

    monkeypatch.setattr(program, "simulation", fails)
    job = SimpleNamespace(
        runtime=SimpleNamespace(output_dir="."), overrides=SimpleNamespace(task=[])
    )
    monkeypatch.setattr(program, "HydraConfig", SimpleNamespace(get=lambda: job))
    assert program._run(composed(*TINY)) == code
    out, err = capsys.readouterr()
    assert err.startswith(said)
    assert err.count("\n") == 1 or said == "Traceback"
    assert out == FIRST_LINE


def test_what_is_a_runs_alone_is_removed_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []

    def fails(*_: object, at_end: ExitStack, **__: object) -> None:
        at_end.callback(removed.append, "KEY/RUN")
        raise RunError("nobody is left")

    monkeypatch.setattr("runtime.federated_rounds.run_federated_training", fails)
    where = f"cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}"
    done = command_line(*TINY, "methods=[learngene,fedper]", *where)
    assert "nobody is left" in one_line(done, 1) and removed == ["KEY/RUN"]


def test_the_first_line_comes_before_what_takes_seconds_to_import(tmp_path: Path) -> None:
    heavy = ("torch", "torchvision", "scipy", "matplotlib", "pandas", "ray", "flwr", "pyarrow")
    script = (
        "import sys, sim\n"
        "def stop(*_):\n"
        f"    print([name for name in {heavy} if name in sys.modules])\n"
        "    raise SystemExit\n"
        "sim.simulation = stop\n"
        "sys.argv = ['sim.py', 'num_clients=7']\n"
        "sim.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LEARNGENE_CACHE": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    first, imported = done.stdout.splitlines()
    assert "learngene: data glyphs, 7 clients" in first
    assert imported == "[]"


def test_methods_and_machine_are_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts for nobody: every answer is kept."""
    asked = (*TINY, f"cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}")
    assert command_line(*asked).returncode == program.OK
    counted = [Mock(wraps=f) for f in (validate.resolve_methods, validate.check_resources)]
    for name, each in zip(("resolve_methods", "check_resources"), counted, strict=True):
        for place in ("conf.methods", "conf.validate", "runtime.resources", "runtime.ray_backend"):
            monkeypatch.setattr(f"{place}.{name}", each, raising=False)
    assert command_line(*asked, "runtime=ray", "runtime.num_gpus=0").returncode == program.OK
    assert [each.call_count for each in counted] == [1, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the cache and the results of ``TINY``."""
    made = tmp_path_factory.mktemp("runs")
    config = check(composed(*TINY, f"cache={made / 'cache'}"))
    with without_figures():
        assert program.simulation(config, made / "first") == program.OK
    return made


def test_a_reader_that_leaves_costs_no_results(folder: Path) -> None:
    done = sim(*TINY, "hydra.run.dir=head", folder=folder, shell='"$@" | head -1')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == FIRST_LINE
    hashes = [read_results(folder / n / "results.json")["run"]["result_sha256"]
              for n in ("head", "first")]  # fmt: skip
    assert hashes[0] == hashes[1] and (folder / "head" / "report.html").is_file()


def test_a_terminal_without_unicode_is_told_all_the_same(folder: Path) -> None:
    """Plain lines: no control character, no letter beyond ASCII; stderr is closed as well."""
    done = sim(*TINY, "hydra.run.dir=ascii", folder=folder,
               shell='PYTHONIOENCODING=ascii "$@" 2>&-')  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.isascii() and "+- " in done.stdout
    assert not {c for c in done.stdout if c < " "} - {"\n"}
    assert "Report: " in done.stdout


def test_a_method_that_is_left_out_is_no_client_that_failed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None, capsys: Any
) -> None:
    here(monkeypatch, tmp_path)
    write_method(tmp_path, "pixels_none", (
        "from learngene.methods import Method\n\n\ndef adapt(context):\n    return {}\n\n\n"
        "METHOD = Method(adapt, training_free=True)\n"
    ))  # fmt: skip
    config = check(composed(*TINY, f"cache={folder / 'cache'}",
                            "methods=[learngene,scratch,pixels_none]"))  # fmt: skip
    assert program.simulation(config, tmp_path) == program.FAILED
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 2 clients answered" in said and "pixels_none is left out" in said
    assert "0 of 2 clients" not in said and "min_answered" not in said
    config = check(composed(*TINY, f"cache={folder / 'cache'}", "faults=[1:raise]"))
    assert program.simulation(config, tmp_path) == program.TOO_FEW_ANSWERS
    assert "1 of 2 clients answered, runtime.min_answered is 2" in capsys.readouterr().out


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.chaos)])
def test_a_multirun_ends_with_the_code_of_its_worst_job(launcher: str, folder: Path) -> None:
    """The first ends with 2, the other one with 3; joblib's are in processes of their own. What a
    sweep that was killed has left in the folder is none of theirs."""
    sweep = folder / launcher
    (sweep / ".codes.0").mkdir(parents=True)
    (sweep / ".codes.0" / str(program.TERMINATED)).touch()
    asked = (*TINY, "-m", "shots=0,5", "faults=[1:raise]", f"hydra.sweep.dir={sweep}",
             f"cache={folder / 'cache'}", f"hydra/launcher={launcher}")  # fmt: skip
    here = launcher == "basic"  # joblib would keep its processes as long as this one
    done = command_line(*asked) if here else sim(*asked, folder=folder)
    assert done.returncode == program.TOO_FEW_ANSWERS, done.stdout + done.stderr
    assert "shots=0: must be at least 1" in done.stderr and "Traceback" not in done.stderr
    assert [each.name for each in sweep.glob(".*")] == [".codes.0"]


def test_a_launcher_that_fails_is_no_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command_line("-m", "shots=0", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0")
    assert "the multirun was given up: ValueError: n_jobs" in one_line(done, program.FAILED)


def test_a_sweeper_chooses_by_the_accuracy_of_the_learngene(folder: Path) -> None:
    """The trial of 5 shots has the number of its results; that of 0 fails and has none. (The grid
    sampler of Optuna 2 ends in an error of its own where the last of its points fails.)"""
    sweep = folder / "chosen"
    done = command_line(
        *TINY, "-m", "shots=choice(0,5)", f"cache={folder / 'cache'}", f"hydra.sweep.dir={sweep}",
        "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.direction=maximize",
        "hydra.sweeper.max_failure_rate=1", "hydra.sweeper.n_trials=2",
    )  # fmt: skip
    assert done.returncode == program.WRONG_INPUT, done.stdout + done.stderr
    assert done.stderr.count(program.ON_NOVEL) == 1
    chosen = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    (path,) = sweep.glob("*/results.json")
    assert chosen["best_params"] == {"shots": 5}
    assert chosen["best_value"] == read_results(path)["summary"]["learngene"]["mean"]
