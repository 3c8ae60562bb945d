"""`flwr run`: what the app is made of, what is refused before anything is trained, and one run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import FAB_MAX_SIZE
from flwr.proto.control_pb2 import ListRunsRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.run import Run

import flower_run
from clients.client_app import app
from reports.results import comparable, read_results
from runtime import grid_backend
from runtime.serial_backend import SerialGrid
from tests.helpers import command_line

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
RUN_CONFIG = PROJECT["tool"]["flwr"]["app"]["config"]


def test_the_bundle_holds_all_that_is_imported_and_little_else() -> None:
    bundle = build_fab_from_disk(ROOT)
    held = set(zipfile.ZipFile(BytesIO(bundle)).namelist())
    rooms = ("learngene", "protocol", "server", "clients", "strategies", "runtime", "conf")
    tracked = subprocess.run(
        ["git", "ls-files", *rooms, "sim.py", "flower_run.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {path for path in tracked if path.endswith((".py", ".yaml"))} <= held
    assert not {path for path in held if path.startswith(("docs/", "tests/", "reports/"))}
    files = {path for path in held if not path.startswith(".info/")}
    assert {Path(path).suffix for path in files - {"pyproject.toml"}} == {".py", ".yaml"}
    assert len(bundle) < FAB_MAX_SIZE / 5  # it goes to each node, uncompressed


def start(folder: Path, overrides: str = "", *, nodes: int = 2, **config: Any) -> dict[str, Any]:
    """`flower_run.run` over nodes of this process; what it wrote, with what it raised."""
    grid = SerialGrid(app, nodes)
    grid.set_run(replace(Run.create_empty(grid.run.run_id), fab_version=VERSION))
    said = {"num-clients": 2, "run-dir": str(folder / "run")} | config
    context = Context(7, 1, {}, RecordDict(), {**RUN_CONFIG, "overrides": overrides, **said})
    raised = None
    try:
        flower_run.run(grid, context)
    except flower_run.RunFailed as error:
        raised = str(error)
    return json.loads((folder / "run" / flower_run.ENDED).read_text()) | {"raised": raised}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("shots=many", "shots=many: not a whole number"),
        ("shotz=3", "Did you mean shots=3?"),
        ("shots='3", "No closing quotation. Close each quote"),
        ("shots=3,4", "overrides=shots=3,4"),
        ("--multirun shots=3", "an option, of sim.py alone"),
        ("num_clients=3", "Write num-clients=N beside overrides"),
        ("runtime=ray", "the nodes are those of flwr run"),
        ("runtime.num_gpus=1", "client-resources-num-gpus"),
        ("hydra.run.dir=/tmp/x", "run-dir=/ABSOLUTE/FOLDER"),
        ("cache=here", "it would lie below the SuperLink's folder"),
        ("faults=[1:kill_once]", "Write kill_always"),
        ("ways=1", "ways=1"),
    ],
)
def test_what_cannot_hold_is_refused_in_one_line(
    overrides: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_run, "simulation", lambda *_: pytest.fail("it was run"))
    ended = start(tmp_path, overrides)
    assert ended["code"] == 2 and ended["problem"] == ended["raised"]
    assert said in ended["problem"] and "\n" not in ended["problem"]


def test_too_few_nodes_and_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_backend, "DEPLOYED_S", 0.2)
    ended = start(tmp_path, f"cache={tmp_path}", nodes=1)
    assert "num-clients=2: 1 of 2 nodes registered in 0.2 s. Start more" in ended["raised"]
    monkeypatch.setattr(flower_run, "version", lambda name: "9.9")
    ended = start(tmp_path, f"cache={tmp_path}")
    assert f"version={VERSION}: this machine has 9.9 installed" in ended["raised"]


def test_sim_py_has_no_nodes_of_flower() -> None:
    done = command_line("runtime.name=flwr")
    assert done.returncode == 2
    assert done.stderr.startswith("sim.py: runtime.name=flwr: it is flwr run that has the nodes.")


def test_a_folder_that_is_not_from_the_root(tmp_path: Path) -> None:
    context = Context(7, 1, {}, RecordDict(), {**RUN_CONFIG, "run-dir": "results"})
    with pytest.raises(ValueError, match="run-dir=results: it would lie below"):
        flower_run.run(SerialGrid(app, 1), context)


def test_the_exit_code_of_a_run_reaches_flower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in (0, 1, 3):
        monkeypatch.setattr(flower_run, "simulation", lambda *_, code=code: code)
        ended = start(tmp_path, f"cache={tmp_path}")
        assert ended["code"] == code
        assert ended["raised"] == (ended["problem"] or None)
        assert bool(ended["problem"]) == bool(code)
    assert "fewer clients answered than runtime.min_answered" in ended["problem"]


ALIKE = (
    "scale=tiny shots=3 collective.threads=1 collective.classes_per_task=8 report.gradcam_images=0 "
    "methods=[learngene,scratch] collective.epochs=2 individual.epochs=2 cache={}"
)


@pytest.mark.slow
@pytest.mark.ray
def test_flwr_run_brings_what_our_own_runtime_brings(tmp_path: Path) -> None:
    """On a SuperLink of its own: the one that `flwr run` starts by itself has a port for all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    home, out = tmp_path / "flwr", tmp_path / "out"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{address}"\ninsecure = true\n'
    )
    binary = Path(sys.executable).parent
    env = os.environ | {
        "PATH": f"{binary}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
    }  # fmt: skip
    asked = ALIKE.format(tmp_path / "cache")
    ours = [*asked.split(), "runtime=serial", "num_clients=3", f"hydra.run.dir={out}"]

    def flwr(*words: str) -> Any:
        """What Flower's command line answers, in JSON."""
        done = subprocess.run([binary / "flwr", *words, "--format", "json"], cwd=ROOT, env=env,
                              capture_output=True, text=True, check=True, timeout=300)  # fmt: skip
        return json.loads(done.stdout)

    def submit(folder: Path, overrides: str, nodes: int) -> str:
        config = f'num-clients=3 overrides="{overrides}" run-dir="{folder}"'
        size = f"num-supernodes={nodes} client-resources-num-cpus=1"
        return str(flwr("run", ".", "here", "-c", config, "--federation-config", size)["run-id"])

    def status(run: str) -> tuple[str, str]:
        """As ``flwr list`` has it, without a start of Flower's command line for each look."""
        found = control.ListRuns(ListRunsRequest(run_id=int(run))).run_dict[int(run)].status
        return found.status, found.sub_status

    superlink = subprocess.Popen(
        [binary / "flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1",
         "--port", address.rpartition(":")[2], "--disable-runtime-dependency-installation"],
        env=env, cwd=tmp_path, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        serial = command_line(*ours)  # while it starts
        assert serial.returncode == 0, serial.stderr
        shutil.rmtree(tmp_path / "cache" / "clients")  # its answers would be taken up
        until(lambda: answers(address))
        control = ControlHttpClient.from_server_address(address, True, None, interceptors=[])
        for name, overrides, nodes, end in (  # one after the other: each starts a Ray
            ("good", asked, 3, ("finished", "completed")),
            ("bad", "shots=many", 1, ("finished", "failed")),
        ):
            for _ in range(3):  # Ray's start has 30 s, which a busy machine may not keep
                run = submit(tmp_path / name, overrides, nodes)
                until(lambda run=run: status(run)[0] == "finished")
                if (tmp_path / name / flower_run.ENDED).exists():  # else the engine died
                    break
            assert status(run) == end
    finally:
        os.killpg(superlink.pid, signal.SIGKILL)  # with what it has started
        superlink.wait()
    there, here = (read_results(folder / "results.json") for folder in (tmp_path / "good", out))
    assert comparable(there) == comparable(here)
    assert there["run"]["result_sha256"] == here["run"]["result_sha256"]
    assert there["run"]["kept_answers"] == 0
    assert (tmp_path / "good" / "messages.csv").read_text() == (out / "messages.csv").read_text()
    assert there["run"]["command"].startswith("flwr run . -c ")
    ended = json.loads((tmp_path / "bad" / flower_run.ENDED).read_text())
    assert ended["code"] == 2 and "shots=many" in ended["problem"]


def answers(address: str) -> bool:
    host, _, port = address.partition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def until(there: Callable[[], bool], seconds: float = 480.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.5)
