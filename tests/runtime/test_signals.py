"""Signals, two runs at once and a full disk, as the command line answers to them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from reports.results import read_results
from runtime.cluster import GIVE_UP
from runtime.signals import KEPT, MESSAGE
from tests import chaos
from tests.helpers import UNDRAWN, command_line

# A client that trains for minutes: the moment that is waited for is always in the middle of it.
LONG = ("individual.epochs=100000", "individual.eval_every=100000", "num_clients=2")
SHORT = ("individual.epochs=1", "num_clients=2")
ASKED = ("scale=tiny", "collective.epochs=2", "collective.classes_per_task=21",
         "report.gradcam_images=0")  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """A test that fails leaves none of its runs behind."""
    yield
    for process in started:
        process.kill()
        process.communicate()
    started.clear()


def start(
    cache: Path, run: Path, *overrides: str, before: Callable[[], object] | None = None
) -> subprocess.Popen[str]:
    def ready() -> None:
        # A shell that starts its jobs in the background has them ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if before is not None:
            before()

    program = UNDRAWN if SHORT[0] in overrides else str(chaos.ROOT / "sim.py")  # comes to an end
    started.append(process := subprocess.Popen(
        [sys.executable, program, *ASKED, *overrides, f"hydra.run.dir={run}"],
        env={**os.environ, "LEARNGENE_CACHE": str(cache), chaos.MARK: str(run), GIVE_UP: "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ready,
    ))  # fmt: skip
    return process


def here(cache: Path, run: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """As ``start``, to its end and in this process: what no signal meets."""
    with patch.dict(os.environ, {"LEARNGENE_CACHE": str(cache)}):
        return command_line(*ASKED, *overrides, f"hydra.run.dir={run}")


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(run: Path) -> bool:
    """No process of this run is left; those of Ray are given seconds to notice."""
    return not chaos.left_behind(str(run))


def hash_of(run: Path) -> str:
    found: str = read_results(run / "results.json")["run"]["result_sha256"]
    return found


def workers_are_up(run: Path, process: subprocess.Popen[str]) -> None:
    wait_until(
        lambda: sum("ClientAppActor" in name for name in chaos.processes(str(run)).values()) == 2,
        process,
    )
    time.sleep(1)


def in_a_client(run: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a client is at work (in this process, or in one of Ray's)."""
    first = process.stdout
    assert first is not None
    while "learngene: layers" not in first.readline():
        assert process.poll() is None, process.communicate()[1]
    time.sleep(2)


@pytest.mark.chaos  # the same two steps on: test_a_signal_during_the_collective_keeps_its_tasks
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_clients_and_the_same_command_goes_on(
    signum: int, code: int, cache: Path, tmp_path: Path
) -> None:
    process = start(cache, tmp_path / "run", "runtime=serial", *LONG)
    in_a_client(tmp_path / "run", process)
    process.send_signal(signum)
    process.send_signal(signum)  # an impatient one
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said == "sim.py: interrupted; what was finished is kept, the same command goes on\n"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.chaos),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.chaos),  # tests/chaos.py, too
    ],
)
def test_a_signal_leaves_no_process_of_ray(
    signum: int, code: int, cache: Path, tmp_path: Path
) -> None:
    """SIGTERM: ``test_a_foreign_cluster_is_neither_joined_nor_ended``."""
    run = tmp_path / "run"
    process = start(cache, run, "runtime=ray", "runtime.total_cpus=2", *LONG)
    workers_are_up(run, process)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said == ("" if signum == signal.SIGKILL else f"sim.py: {MESSAGE}\n")
    assert gone(run), chaos.processes(str(run))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", pytest.param("gcs_server", marks=pytest.mark.chaos)])
def test_when_ray_itself_dies_the_run_says_so_at_once(
    name: str, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(cache, run, "runtime=ray", "runtime.total_cpus=2", *LONG)
    workers_are_up(run, process)
    (pid,) = [each for each, cmd in chaos.processes(str(run)).items() if f"/{name} " in cmd]
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert said == f"sim.py: Ray's {name} died; {KEPT}\n"
    assert time.monotonic() - killed < 30  # two or three on a machine of its own
    assert gone(run), chaos.processes(str(run))


def test_a_signal_during_the_collective_keeps_its_tasks(tmp_path: Path) -> None:
    asked = ("runtime=serial", "collective.classes_per_task=3", "collective.epochs=3", *SHORT)
    process = start(tmp_path / "cache", tmp_path / "run", *asked)
    wait_until(lambda: [*(tmp_path / "cache").glob("collectives/*/task-002.json")], process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # an impatient one
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, f"sim.py: {MESSAGE}\n")
    kept = len([*(tmp_path / "cache").glob("collectives/*/task-*.json")])
    assert 2 <= kept < 7
    again = here(tmp_path / "cache", tmp_path / "run", *asked)
    assert again.returncode == 0, again.stderr
    assert f"{kept} of 7 tasks were done by an earlier run" in again.stdout


@pytest.mark.chaos  # of one world: tests/learngene/data/test_cache.py
def test_two_runs_at_once_in_one_cache_end_equal(tmp_path: Path) -> None:
    both = [start(tmp_path / "cache", tmp_path / name, "runtime=serial", *SHORT) for name in "ab"]
    for process in both:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    assert hash_of(tmp_path / "a") == hash_of(tmp_path / "b")


@pytest.mark.ray
@pytest.mark.slow
def test_a_foreign_cluster_is_neither_joined_nor_ended(cache: Path, tmp_path: Path) -> None:
    """Two of our runs are foreign to each other: one ends, with a serial run's numbers; the other
    goes on, and ends on SIGTERM without a process of Ray left, or the stack that its C++ prints."""
    long = start(cache, tmp_path / "long", "runtime=ray", "runtime.total_cpus=1", *LONG)
    wait_until(
        lambda: any(
            "ClientAppActor" in n for n in chaos.processes(str(tmp_path / "long")).values()
        ),
        long,
    )
    there = chaos.processes(str(tmp_path / "long"))
    short = start(cache, tmp_path / "short", "runtime=ray", "runtime.total_cpus=1", *SHORT)
    _, said = short.communicate(timeout=200)
    assert short.returncode == 0, said
    assert gone(tmp_path / "short")
    serial = here(cache, tmp_path / "serial", "runtime=serial", "resume=false", *SHORT)
    assert serial.returncode == 0, serial.stderr
    assert hash_of(tmp_path / "serial") == hash_of(tmp_path / "short")
    still = chaos.processes(str(tmp_path / "long"))
    assert long.poll() is None and {pid for pid, name in there.items() if "raylet" in name} <= {
        *still
    }
    long.terminate()
    _, said = long.communicate(timeout=60)
    assert (long.returncode, said) == (143, f"sim.py: {MESSAGE}\n")
    assert gone(tmp_path / "long"), chaos.processes(str(tmp_path / "long"))


FULL = {
    # what is to be written there, and a size that it has and nothing before it
    "worlds": (("data.classes=24",), 50_000),
    "collectives": (("collective.lr=0.04",), 20_000),
    "clients": (("shots=4",), 1_500),
    "run": ((), 40_000),
}


OFTEN = ("collectives",)  # the others go the same way, and take a minute with -m chaos


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", [w if w in OFTEN else pytest.param(w, marks=pytest.mark.chaos) for w in FULL]
)
def test_a_full_disk_is_one_message_and_the_next_run_goes_on(
    where: str, cache: Path, tmp_path: Path
) -> None:
    """No file may grow beyond a size: what is larger fails as on a full disk, with EFBIG."""
    overrides, size = FULL[where]
    asked = ("runtime=serial", "hydra.output_subdir=null", *SHORT)
    if not [*cache.glob("clients/*/answers-0001.jsonl")]:
        first = here(cache, tmp_path / "first", *asked)
        assert first.returncode == 0, first.stderr
    there = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    process = start(
        cache, tmp_path / "run", *asked, *overrides,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip
    _, said = process.communicate(timeout=150)
    assert process.returncode == 1, said
    assert len(said.splitlines()) == 1 and "MB are free in" in said
    assert f"cannot write {tmp_path / 'run' if where == 'run' else cache / where}" in said
    assert {path: path.read_bytes() for path in there} == there
    assert not list(cache.rglob(".*"))  # no half a file
    again = here(cache, tmp_path / "run", *asked, *overrides)
    assert again.returncode == 0, again.stderr
