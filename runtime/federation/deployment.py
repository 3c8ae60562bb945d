"""A SuperLink and SuperNodes on this machine, over TLS and with node authentication, as processes.

What the operator asks of the SuperLink goes through Flower's own HTTP client, as the ``flwr``
command's does. flwr is pinned, and tests hold the names that are used here to what they do.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app.user_config import UserConfig
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import Status
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StreamLogsRequest,
)
from flwr.proto.run_pb2 import RunStatus
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from httpx import HTTPError, HTTPStatusError

from learngene.errors import InputError, RunError
from runtime.federation.credentials import Credentials
from runtime.federation.gate import PARENT, PROJECT

HOST = "127.0.0.1"
START_S = 120.0  # a process that has not begun to answer by then will not
GRACE_S = 6.0  # between SIGTERM and SIGKILL; a SuperNode gives itself 5
TICK_S = 0.2
COLOUR = re.compile(r"\x1b\[\d*m")
FLOWERS_END = re.compile(r"Exit Code: .*?(?=\n\n|\Z)", re.DOTALL)
MARK = "LEARNGENE_FEDERATION"  # in the environment of all that a deployment has started


class Deployment:
    """One federation; leaving its ``with`` block ends every process of it.

    Args:
        credentials: of the server and of each node that is to be started.
        work: a folder for this user alone, where Flower keeps its apps.
        logs: what each process prints: ``superlink.log``, ``node-1.log`` and so on.
        lasting: the SuperLink keeps its database in ``work``, so that one that is started again
            knows the nodes that were registered.
    """

    def __init__(
        self, credentials: Credentials, work: Path, logs: Path, *, lasting: bool = False
    ) -> None:
        self._credentials, self._work, self._logs = credentials, work, logs
        self._database = ("--database", str(work / "state.db")) if lasting else ()
        self.port = free_port()  # a SuperLink that is started again is found where it was
        self.address = f"{HOST}:{self.port}"
        self._mark = uuid4().hex
        self._control: ControlHttpClient | None = None
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for folder in (work, logs):
            folder.mkdir(parents=True, exist_ok=True)
        work.chmod(0o700)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()

    # -- processes --------------------------------------------------------------------------------

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until it answers.

        Raises:
            RunError: it ended, or did not answer in time.
        """
        made = self._credentials
        self._start(
            "superlink",
            "--ssl-ca-certfile", str(made.authority),
            "--ssl-certfile", str(made.certificate),
            "--ssl-keyfile", str(made.key),
            "--enable-supernode-auth",
            "--host", HOST,
            "--port", str(self.port),
            *self._database,
            name="superlink",
        )  # fmt: skip
        self._control = ControlHttpClient.from_server_address(
            self.address, False, made.authority.read_bytes(), interceptors=[]
        )
        self._wait("superlink", lambda: self._nodes() is not None)

    def register(self, number: int) -> int:
        """Make the node's key known to the SuperLink, where it is not yet; gives the node's id."""
        public = self._public(number)
        known = self._nodes() or {}
        if public in known:
            return known[public][0]
        request = RegisterNodeRequest(public_key=public, name=f"node-{number}")
        with _in_words():
            return int(self._ask.RegisterNode(request).node_id)

    def start_node(self, number: int, config: UserConfig, gpus: str | None = None) -> None:
        """Start a SuperNode (they count from 1) whose configuration is ``config``.

        Args:
            gpus: what it may see of the machine's (``CUDA_VISIBLE_DEVICES``); None: all.
        """
        made, name = self._credentials, f"node-{number}"
        self._start(
            "supernode",
            "--root-certificates", str(made.authority),
            "--superlink", self.address,
            "--host", HOST,
            "--port", str(free_port()),
            "--auth-supernode-private-key", str(made.node(number)),
            "--node-config", node_config(config),
            name=name,
            more={} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus},
        )  # fmt: skip

    def wait_online(self, number: int) -> None:
        """Wait until the SuperLink has heard of the node.

        Raises:
            RunError: its process ended, or was not heard of in time.
        """
        public = self._public(number)

        def online() -> bool:
            return (self._nodes() or {}).get(public, (0, ""))[1] == NodeStatus.ONLINE

        self._wait(f"node-{number}", online)

    def log(self, name: str) -> str:
        """What a process has printed so far."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def _start(self, command: str, *options: str, name: str, more: Mapping[str, str] = {}) -> None:
        home = self._work / name
        home.mkdir(exist_ok=True)
        # One that was killed may have left an app half copied, which Flower takes for whole.
        shutil.rmtree(home / "apps", ignore_errors=True)
        environment = os.environ | more
        environment |= {MARK: self._mark, PARENT: str(os.getpid()), "FLWR_HOME": str(home)}
        environment.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))  # of ``follow``
        # From any folder, also where the project is not installed.
        paths = filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        with (self._logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "runtime.federation", command, *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for this process to answer
            )

    def _wait(self, name: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not done():
            ended = self.processes[name].poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended" if ended else f"was not there within {START_S:g} s"
                where = self._logs / f"{name}.log"
                raise RunError(f"{name} {what}: {last_words(self.log(name))} ({where})")
            time.sleep(TICK_S)

    def kill(self, name: str) -> None:
        """SIGKILL to a process and to what it has started, without a word to anybody."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + GRACE_S
        while (left := self._left(name)) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)  # what is killed is gone a moment later

    def end(self) -> None:
        """End all processes, nodes first; what does not go is killed. Twice is as once."""
        if self._control is not None:  # the SuperLink would wait for it
            self._control.close()
        for name in sorted(self.processes):
            self.processes[name].terminate()
        deadline = time.monotonic() + GRACE_S
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for name in list(self.processes):
            self.kill(name)

    def _left(self, name: str) -> list[int]:
        """What a process has started and is in no group of its own: a SuperLink's SuperExec, apps.

        Known by their environment, which only Linux shows; elsewhere they end with their parent.
        """
        marks = {f"{MARK}={self._mark}".encode(), f"FLWR_HOME={self._work / name}".encode()}
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # another user's, or gone
                if marks <= set(path.read_bytes().split(b"\0")):
                    found.append(int(path.parent.name))
        return found

    # -- asking the SuperLink ---------------------------------------------------------------------

    @property
    def _ask(self) -> ControlHttpClient:
        assert self._control is not None, "the SuperLink was not started"
        return self._control

    def _nodes(self) -> dict[bytes, tuple[int, str]] | None:
        """Node id and status by public key; None where the SuperLink does not answer."""
        try:
            answer = self._ask.ListNodes(ListNodesRequest())
        except HTTPError:
            return None
        return {each.public_key: (each.node_id, each.status) for each in answer.nodes_info}

    def _public(self, number: int) -> bytes:
        path = self._credentials.node(number).with_suffix(".pub")
        return public_key_to_bytes(load_ssh_public_key(path.read_bytes()))  # type: ignore[arg-type]

    def run(self, config: UserConfig, project: Path = PROJECT) -> int:
        """Start a run of the app in a folder, with a run configuration; gives its id.

        Raises:
            RunError: as ``follow`` and ``status`` do, too: the SuperLink refuses, or is gone.
        """
        try:
            bundle = build_fab_from_disk(project)
        except (ValueError, OSError) as error:
            what = f"{project} cannot be sent to nodes ({error})"
            raise RunError(f"{what}: start from a clone of the project") from error
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(config)
        )
        with _in_words():
            return int(self._ask.StartRun(request).run_id)

    def follow(self, run: int) -> Iterator[str]:
        """The lines that the ServerApp prints, until the run is over."""
        begun = ""
        with _in_words():
            for piece in self._ask.StreamLogs(StreamLogsRequest(run_id=run)):
                *lines, begun = (begun + piece.log_output).split("\n")
                yield from (f"{line}\n" for line in lines)
        if begun:
            yield f"{begun}\n"

    def status(self, run: int) -> RunStatus:
        """``status`` ends as "finished", ``sub_status`` as "completed", "failed" or "stopped"."""
        with _in_words():
            return self._ask.ListRuns(ListRunsRequest(run_id=run)).run_dict[run].status

    def wait(self, run: int) -> RunStatus:
        """The run's status once it is over."""
        while (status := self.status(run)).status != Status.FINISHED:
            time.sleep(TICK_S)
        return status


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except HTTPStatusError as error:
        said = FlowerError.from_json(error.response.text)
        raise RunError(f"the SuperLink refuses: {said.message if said else error}") from error
    except HTTPError as error:
        raise RunError(f"the SuperLink does not answer: {error}") from error


def node_config(config: UserConfig) -> str:
    """``key=value key="text"``, as ``--node-config`` wants it.

    Raises:
        InputError: a text holds both kinds of quotes, which Flower's parser cannot tell apart.
    """
    words = []
    for key, value in config.items():
        if isinstance(value, str):
            quote = "'" if '"' in value or "\\" in value else '"'
            if quote in value:
                problem = "Flower cannot read a text with both kinds of quotes"
                raise InputError(key, value, problem, "Name a path without them")
            words.append(f"{key}={quote}{value}{quote}")
        else:
            words.append(f"{key}={str(value).lower()}")
    return " ".join(words)


def last_words(log: str) -> str:
    """Why a process of Flower's ended, as it says; else the end of what it printed."""
    plain = COLOUR.sub("", log)
    said = FLOWERS_END.findall(plain)
    return " ".join((said[-1] if said else plain).split()[-60:])


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as some:
        some.bind((HOST, 0))
        return int(some.getsockname()[1])
