"""A cluster that is named is asked before anything else; what cannot be is one message."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private.services import psutil  # Ray carries it

from learngene.errors import InputError
from runtime.cluster import GIVE_UP, Node, look_up
from runtime.private_ray import environment
from runtime.resources import RuntimeSettings, check_resources, idle_nodes
from tests.helpers import FEW, UNDRAWN, command_line
from tests.runtime.helpers import run_in

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    look_up.cache_clear()


@pytest.fixture
def deaf() -> Iterator[str]:
    """A port where something listens that is no Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("foo", "foo: no HOST:PORT"),
        ("", ": no HOST:PORT"),
        ("a\0b:6379", "no HOST:PORT"),
        ("ray://head:10001", "no HOST:PORT"),
        ("127.0.0.1:99999", "nothing answers at 127.0.0.1:99999"),
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1 .*refused"),
        ("[::1]:1", r"nothing answers at \[::1\]:1"),
        ("auto", "no Ray cluster was started with `ray start` on this machine"),
    ],
)
def test_a_wrong_address(address: str, problem: str, tmp_path: Path) -> None:
    started = time.monotonic()
    nowhere = environment({"RAY_TMPDIR": str(tmp_path), "RAY_ADDRESS": None})
    with nowhere, pytest.raises(InputError, match=problem) as caught:
        check_resources(RuntimeSettings(address=address), 2)
    assert caught.value.field == "runtime.address"
    assert time.monotonic() - started < 30


def test_something_else_listens_there(deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GIVE_UP, "1")
    with pytest.raises(InputError, match=r"runtime.address=127.*(refuses|no answer as a Ray)"):
        check_resources(RuntimeSettings(address=deaf), 2)


def test_auto_is_ray_address_where_that_is_set() -> None:
    there = environment({"RAY_ADDRESS": "127.0.0.1:1"})
    with there, pytest.raises(InputError, match=r"nothing answers at 127\.0\.0\.1:1"):
        look_up("auto")


NODES = (Node(4, 0), Node(2, 1))


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        ({}, 1),
        ({"num_gpus": 0}, 6),
        ({"num_cpus": 3}, 1),  # the node with a GPU has two
        ({"num_cpus": 0.5}, 1),
        ({"num_cpus": 0.5, "num_gpus": 0}, 12),
        ({"num_gpus": 0.25}, 2),
        ({"num_gpus": 0.5, "num_cpus": 0.5}, 2),
        ({"num_cpus": 5}, "runtime.num_cpus=5: .* no node of h:1 has more than 4. Use 4 or fewer"),
        ({"num_gpus": 2}, "runtime.num_gpus=2.0: .* no node of h:1 has both. Use 1 or fewer"),
        ({"num_cpus": 3, "num_gpus": 1}, "runtime.num_gpus=1.0: .* has both. Use 0 or fewer"),
    ],
)
def test_resources_of_a_cluster(settings, workers, monkeypatch) -> None:
    monkeypatch.setattr("runtime.resources.look_up", lambda address: ("h:1", NODES))
    asked = RuntimeSettings(address="auto", **settings)
    if isinstance(workers, int):
        resources = check_resources(asked, 100)
        assert (resources.workers, resources.address) == (workers, "h:1")
        assert "num_cpus" not in resources.init_args()
        idle = idle_nodes(resources)
        assert (idle is None) == (settings.get("num_gpus") == 0)
        assert idle is None or idle.startswith("1 of 2 nodes of the cluster run no client: a c")
    else:
        with pytest.raises(InputError, match=workers):
            check_resources(asked, 100)


def ray(*arguments: str, temp: Path) -> str:
    """Ray's command line, with its files under ``temp``."""
    done = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *arguments],
        env={**os.environ, "RAY_TMPDIR": str(temp), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a cluster of two CPUs that ``ray start`` has made (``ray stop`` ends all)."""
    temp = Path("/tmp") / f"b{os.getpid()}"  # short: sockets lie in it
    temp.mkdir()
    there = {each.pid for each in psutil.process_iter()}
    try:
        ray("start", "--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", temp=temp)
        yield temp
    finally:
        for each in psutil.process_iter(["cmdline"]):
            if each.pid not in there and str(temp) in " ".join(each.info["cmdline"] or ()):
                each.kill()
        subprocess.run(["rm", "-rf", temp], check=True)


@pytest.mark.ray
@pytest.mark.slow
def test_auto_is_the_cluster_that_ray_start_made(started: Path) -> None:
    with environment({"RAY_TMPDIR": str(started), "RAY_ADDRESS": None}):
        address, nodes = look_up("auto")
        assert nodes == (Node(2, 0),)
        assert address == (started / "ray" / "ray_current_cluster").read_text()
        with pytest.raises(InputError, match=r"runtime.num_cpus=3.*has more than 2"):
            check_resources(RuntimeSettings(address="auto", num_cpus=3), 2)
        with pytest.raises(InputError, match=r"runtime.num_gpus=1.*has both"):
            check_resources(RuntimeSettings(address=address, num_gpus=1), 2)
    assert "RAN IN IT" in run_in(address, {}).stdout  # such a cluster is as open as it was made


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_joins_it_and_leaves_it_running(started: Path, tmp_path: Path) -> None:
    asked = ("scale=tiny", "collective.threads=1", "collective.classes_per_task=21")
    asked += ("num_clients=2", *FEW, "report.gradcam_images=0")
    done = subprocess.run(
        [sys.executable, UNDRAWN, *asked, "runtime.address=auto", f"hydra.run.dir={tmp_path}/r"],
        cwd=REPO,
        env={**os.environ, "RAY_TMPDIR": str(started), "LEARNGENE_CACHE": str(tmp_path / "c")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with environment({"RAY_TMPDIR": str(started), "RAY_ADDRESS": None}):
        assert look_up("auto")[1] == (Node(2, 0),)


@pytest.mark.parametrize(
    "asked", ["runtime.num_gpus=64", "runtime.address=foo", "runtime.num_cpus=1000"]
)
def test_impossible_resources_are_exit_code_2_before_the_dataset(
    asked: str, tmp_path: Path
) -> None:
    done = command_line("scale=tiny", asked, f"hydra.run.dir={tmp_path}/r", f"cache={tmp_path}/c")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"sim.py: {asked}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "c").exists()
