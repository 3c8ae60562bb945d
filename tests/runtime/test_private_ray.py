"""A run's own Ray: nobody else can reach it, run anything in it, or finds anything of it later."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray._private.services import psutil  # Ray carries it

from learngene.errors import InputError
from runtime.private_ray import ROOM_FOR_SOCKETS, environment, private_ray
from runtime.resources import Resources, RuntimeSettings, check_resources
from tests.runtime.helpers import run_in

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass
class Private:
    """A private Ray under way."""

    address: str
    token: str
    folder: Path
    processes: list[psutil.Process]  # ours first


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    import ray

    with private_ray() as of_its_own:
        arguments = Resources(1, 0, 1, 0.0).init_args() | of_its_own
        try:
            context = ray.init(**arguments)
            worker = ray.get(ray.remote(lambda: os.getpid()).remote())
            assert worker != os.getpid()
            token = os.environ["RAY_AUTH_TOKEN"]
            address = context.address_info["gcs_address"]
            folder = Path(of_its_own["_temp_dir"]).parent
            this = psutil.Process()
            yield Private(address, token, folder, [this, *this.children(recursive=True)])
        finally:
            ray.shutdown()


@pytest.mark.ray
def test_every_port_is_on_loopback(private: Private) -> None:
    listening = [
        (process.name(), each.laddr.ip)
        for process in private.processes
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4  # gcs, raylet, this process, a worker
    loopback = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert [each for each in listening if each[1] not in loopback] == []


@pytest.mark.ray
@pytest.mark.slow
def test_nothing_can_be_run_in_it_without_its_token(private: Private) -> None:
    """Only what listens is known to the other processes, as to anybody on this machine."""
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    right = wrong | {"RAY_AUTH_TOKEN": private.token}
    with ThreadPoolExecutor() as pool:  # who is refused tries for seconds: side by side
        tries = pool.map(lambda known: run_in(private.address, known), ({}, wrong, right))
    for done, let_in in zip(tries, (False, False, True), strict=True):
        assert ("RAN IN IT" in done.stdout) == let_in, done.stdout + done.stderr
        assert (done.returncode == 0) == let_in


@pytest.mark.ray
def test_the_token_is_in_no_command_line_and_no_file(private: Private) -> None:
    told = [" ".join(each.cmdline()) for each in private.processes[1:] if each.is_running()]
    assert told and not [each for each in told if private.token in each]
    written = [path for path in private.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in written)
    assert not [path for path in written if private.token.encode() in path.read_bytes()]


@pytest.mark.ray
def test_its_folder_is_closed_to_others(private: Private) -> None:
    assert stat.S_IMODE(private.folder.stat().st_mode) == 0o700


@pytest.mark.ray
def test_nothing_reports_usage_or_asks_the_cloud(private: Private) -> None:
    """The process that does so whatever it is told is the dashboard's."""
    told = [" ".join(each.cmdline()) for each in private.processes if each.is_running()]
    assert not [each for each in told if "dashboard.py" in each]
    assert private.address.startswith("127.0.0.1:")


@pytest.mark.ray
def test_auto_does_not_find_it(private: Private, tmp_path: Path) -> None:
    from learngene.errors import InputError
    from runtime.cluster import look_up

    look_up.cache_clear()
    with environment({"RAY_TMPDIR": str(tmp_path), **dict.fromkeys(VARIABLES)}):
        with pytest.raises(InputError, match="no Ray cluster was started with `ray start`"):
            look_up("auto")
        with pytest.raises(InputError, match=f"the cluster at {private.address} refuses"):
            look_up(private.address)


# A whole life of a private Ray, in a process that may be killed in its midst.
LIFE = """
import json, os, signal, sys
import ray
from runtime.private_ray import private_ray
from runtime.resources import Resources

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # ray.init sets it otherwise
before = dict(os.environ)
folders = []
for _ in range(int(sys.argv[1])):
    with private_ray() as own:
        folders.append(own["_temp_dir"])
        ray.init(**Resources(1, 0, 1, 0.0).init_args() | own)
        if sys.argv[2] == "killed":
            print(json.dumps(folders), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        ray.shutdown()
assert dict(os.environ) == before
print(json.dumps(folders), flush=True)
"""


def life(times: int, end: str) -> tuple[int, list[Path]]:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(times), end],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    return done.returncode, [Path(each).parent for each in json.loads(done.stdout)]


@pytest.mark.ray
@pytest.mark.slow
def test_two_in_a_row_leave_nothing_and_the_next_sweeps_what_a_kill_left() -> None:
    code, (killed,) = life(1, "killed")
    assert code == -9 and killed.is_dir()
    code, folders = life(2, "ended")  # each with a token of its own, in one process
    assert code == 0 and len(set(folders)) == 2
    assert [each for each in (killed, *folders) if each.exists()] == []


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_place_that_is_not_there_is_told_before_anything_is_trained(name: str) -> None:
    said = rf"{name}=/none: Ray has to write there and cannot. Set RAY_TMPDIR"
    with environment({"RAY_TMPDIR": None, name: "/none"}), pytest.raises(InputError, match=said):
        check_resources(RuntimeSettings(), 2)


@pytest.mark.parametrize("deep", [False, True])
def test_the_folder_lies_where_sockets_have_room(deep: bool, tmp_path: Path) -> None:
    base = tmp_path / ("x" * 90) if deep else Path("/tmp")
    base.mkdir(exist_ok=True)
    with environment({"RAY_TMPDIR": str(base)}), private_ray() as of_its_own:
        folder = Path(of_its_own["_temp_dir"]).parent
        assert folder.parent == Path("/tmp") and len(str(folder)) <= ROOM_FOR_SOCKETS
    assert not folder.exists()
