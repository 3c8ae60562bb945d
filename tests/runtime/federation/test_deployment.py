"""A federation on loopback: real processes, TLS, registered keys, folders of different classes.

One SuperLink and two SuperNodes serve all tests of this file, in its order; a message takes seconds
(``docs/tutorials/federation.md``).
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.supercore.constant import NodeStatus
from PIL import Image

from learngene.api import adapt_folder, settings_from
from learngene.errors import InputError, RunError
from learngene.gene.gene import load
from learngene.gene.kept import save_individual
from reports.results import read_results
from runtime.federation.credentials import make_credentials
from runtime.federation.deployment import MARK, PROJECT, Deployment, node_config
from tests.helpers import rng

pytestmark = pytest.mark.slow
# Classes, images of each for training and for test, side in pixels: no two nodes are alike.
FOLDERS = {1: (2, 6, 3, 40), 2: (4, 9, 5, 28)}
TINY = ("scale=tiny", "collective.epochs=1", "individual.epochs=2", "report.gradcam_images=0")


def draw(folder: Path, classes: int, train: int, test: int, side: int) -> Path:
    """Class folders: a shade of its own for each class, and noise."""
    drawn = rng(classes)
    for number in range(classes):
        for part, count in (("train", train), ("test", test)):
            (folder / part / f"kind {number}").mkdir(parents=True)
            for image in range(count):
                pixels = drawn.integers(0, 200, (side, side, 3)) + number
                path = folder / part / f"kind {number}" / f"{image}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@dataclass
class Session:
    """The federation of this file."""

    federation: Deployment
    folder: Path

    def images(self, number: int) -> Path:
        return self.folder / f"images of node {number}"

    def kept(self, number: int) -> Path:
        return self.folder / f"kept by node {number}"

    def start_node(self, number: int) -> None:
        own = {"data-root": str(self.images(number)), "keep": str(self.kept(number))}
        place = {"partition-id": number - 1, "num-partitions": 2}
        # One that was killed is online for Flower, and refused, until two heartbeats are missing.
        public = self.federation._public(number)
        until(lambda: (self.federation._nodes() or {}).get(public, (0, ""))[1] != NodeStatus.ONLINE)
        self.federation.start_node(number, place | own, gpus="")

    def begin(self, name: str, *overrides: str) -> int:
        words = [*TINY, f"cache={self.folder / 'cache'}", *overrides]
        return self.federation.run(
            {"num-clients": 2, "overrides": shlex.join(words), "run-dir": str(self.folder / name)}
        )

    def end(self, run: int, name: str) -> dict[str, Any]:
        """What the run wrote down of its end, and the results where it has some."""
        lines = "".join(self.federation.follow(run))
        status = self.federation.wait(run)
        ended = json.loads((self.folder / name / "ended.json").read_text())
        assert (status.sub_status == "completed") == (ended["code"] == 0), lines
        if (self.folder / name / "results.json").exists():
            ended["results"] = read_results(self.folder / name / "results.json")
        return {**ended, "lines": lines}


def until(what: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("federation")
    made = make_credentials(folder / "credentials", 4)
    deployment = Deployment(made, folder / "flower", folder / "logs", lasting=True)
    session = Session(deployment, folder)
    with deployment:
        deployment.start_superlink()
        for number, images in FOLDERS.items():
            draw(session.images(number), *images)
            deployment.register(number)
            session.start_node(number)
        deployment.start_node(3, {"partition-id": 2})  # nobody has registered its key
        for number in FOLDERS:
            deployment.wait_online(number)
        yield session
    assert processes_of(deployment) == []


def processes_of(deployment: Deployment) -> list[str]:
    """Command lines of what still runs of it."""
    mark, found = f"{MARK}={deployment._mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_a_key_that_is_not_registered_is_refused_with_a_line_on_both_sides(
    session: Session,
) -> None:
    with pytest.raises(RunError, match=r"node-3 ended: .*\[code: 2004\] Failed to activate"):
        session.federation.wait_online(3)
    until(lambda: "No SuperNode found with the given public key" in server_log(session))


def server_log(session: Session) -> str:
    return session.federation.log("superlink")


@pytest.fixture(scope="module")
def first(session: Session) -> dict[str, Any]:
    return session.end(session.begin("first"), "first")


def test_both_nodes_answer_from_their_own_folders(session: Session, first: dict[str, Any]) -> None:
    assert (first["code"], first["problem"]) == (0, ""), first["lines"]
    for number, (classes, train, test, _) in FOLDERS.items():
        said = first["results"]["clients"][number - 1]
        assert (said["train_images"], said["test_images"]) == (classes * train, classes * test)
        assert len(said["classes"]) == classes
    for path in (session.folder / "first").rglob("*.*"):  # names stay where they are
        assert path.suffix == ".png" or "kind 0" not in path.read_text(errors="replace"), path


@pytest.mark.parametrize("number", FOLDERS)
def test_numbers_are_those_of_the_same_work_by_hand(
    session: Session, first: dict[str, Any], number: int
) -> None:
    """``python -m learngene adapt`` is this call."""
    gene = load(session.folder / "first" / "learngene.safetensors")
    individual, retain = settings_from(["individual.epochs=2", "individual.eval_every=1"])
    kept, outcome, _ = adapt_folder(
        gene, session.images(number), client=number - 1, individual=individual, retain=retain
    )
    said = first["results"]["clients"][number - 1]["methods"]["learngene"]
    assert [value for _, value in said["accuracy_by_epoch"]] == list(outcome.accuracy)
    assert [value for _, value in said["loss_by_epoch"]] == list(outcome.loss)
    save_individual(kept, session.folder / "by hand.safetensors")
    by_hand = (session.folder / "by hand.safetensors").read_bytes()
    assert (session.kept(number) / "individual.safetensors").read_bytes() == by_hand


def test_every_message_is_accounted_for(session: Session, first: dict[str, Any]) -> None:
    with (session.folder / "first" / "messages.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "message"]
    sent = [(row["round"], row["direction"], row["client"]) for row in rows]
    assert sorted(sent) == [
        (number, way, client) for number in "01" for way in ("down", "up") for client in "01"
    ]
    for number in FOLDERS:  # the owner of a node is told the same
        down, up = (int(r["bytes"]) for r in rows[-4:] if r["client"] == str(number - 1))
        log = session.federation.log(f"node-{number}")
        said = re.findall(r"received ([\d,]+) bytes \(task, .*, sends ([\d,]+) bytes", log)
        (own,) = ([int(n.replace(",", "")) for n in each] for each in said)
        # The account leaves out what differs from run to run: ids, times.
        assert own == pytest.approx([down, up], abs=100)


def test_the_gate_is_shut_to_other_users(session: Session) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    options = session.federation.processes["node-1"].args
    node = int(options[options.index("--port") + 1])  # type: ignore[arg-type, index, union-attr]
    link = session.federation.port
    asked = {
        f"https://127.0.0.1:{link}/v1/control/start-run": 403,
        f"https://127.0.0.1:{link}/v1/runtime/acquire-task": 403,
        f"http://127.0.0.1:{node}/v1/runtime/acquire-task": 403,
        f"https://127.0.0.1:{link}/v1/fleet/pull-messages": 415,  # Flower's own word: no message
    }
    assert {url: as_nobody(url) for url in asked} == asked


def as_nobody(url: str) -> int:
    """Which status another user of this machine is answered with."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = httpx.Client(verify=context, trust_env=False)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.setuid(65534)
        try:
            media = {"content-type": "application/x-protobuf"}
            os.write(write, str(client.post(url, content=b"", headers=media).status_code).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    return int(os.read(read, 10) or -1)


def test_a_node_that_is_killed_at_work_is_missing_and_the_round_ends(
    session: Session, first: dict[str, Any]
) -> None:
    # One image more: what this node answered is not taken up, and the other is not asked again.
    some = session.images(2) / "train" / "kind 0"
    shutil.copy(some / "0.png", some / "one more.png")
    log = session.federation.log("node-2")
    run = session.begin("killed", "runtime.timeout_s=5", "runtime.min_answered=1")
    until(lambda: "train message" in session.federation.log("node-2")[len(log) :])
    session.federation.kill("node-2")
    ended = session.end(run, "killed")
    assert ended["code"] == 0, ended["lines"]
    assert "1 of 2 clients answered in an earlier run: not asked again" in ended["lines"]
    answered, missing = ended["results"]["clients"]
    before = first["results"]["clients"][0]["methods"]
    curves = {name: each["accuracy_by_epoch"] for name, each in before.items()}
    assert {n: each["accuracy_by_epoch"] for n, each in answered["methods"].items()} == curves
    assert "no reply within 5 s" in missing["error"]
    # Client 0 is kept, client 1 was sent its message: both are counted.
    listed = (session.folder / "killed" / "messages.csv").read_text()
    assert "\n1,down,0," in listed and "\n1,down,1," in listed


def kept_answers(folder: Path) -> int:
    """A line each; the first of a file says what they are answers to."""
    files = [*folder.rglob("answers-*.jsonl")]
    return sum(each.read_bytes().count(b"\n") for each in files) - len(files)


@pytest.mark.chaos
def test_a_server_that_is_killed_goes_on_from_kept_answers(session: Session) -> None:
    if "node-2" not in session.federation.processes:
        session.start_node(2)
    for number in FOLDERS:
        session.federation.wait_online(number)
    other = "individual.epochs=3"  # nothing is kept of this yet
    answers = session.folder / "cache" / "clients"
    before = kept_answers(answers)
    session.begin("server", other)
    log = session.federation.log("node-2")
    until(lambda: "train message" in session.federation.log("node-2")[len(log) :])
    session.federation.kill("node-2")
    until(lambda: kept_answers(answers) > before)
    session.federation.kill("superlink")
    session.federation.start_superlink()
    session.start_node(2)
    for number in FOLDERS:
        session.federation.wait_online(number)
    ended = session.end(session.begin("again", other), "again")
    assert ended["code"] == 0, ended["lines"]
    assert "1 of 2 clients answered in an earlier run: not asked again" in ended["lines"]


def up(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "runtime.federation", "up", *words],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_a_setting_that_cannot_be_is_code_2_and_one_line(tmp_path: Path) -> None:
    with up("--supernodes", "1", "--run-dir", str(tmp_path), "--", "shots=none") as process:
        said, problem = process.communicate(timeout=180)
    assert process.returncode == 2, said + problem
    (line,) = problem.splitlines()
    assert line.startswith("federation: ") and "shots=none: not a whole number" in line
    assert "Traceback" not in said


RARER = [pytest.param(each, marks=pytest.mark.chaos) for each in (signal.SIGINT, signal.SIGKILL)]


@pytest.mark.parametrize("signum", [signal.SIGTERM, *RARER])
def test_whatever_ends_it_no_process_is_left(tmp_path: Path, signum: signal.Signals) -> None:
    with up("--supernodes", "1", "--run-dir", str(tmp_path)) as process:
        until(lambda: "SuperExec" in read(tmp_path / "logs" / "node-1.log"))
        children = children_of(process.pid)
        process.send_signal(signum)
        said, problem = process.communicate(timeout=60)
    if signum == signal.SIGKILL:  # they look for it themselves
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signum, said + problem
        assert problem == "federation: interrupted; every process of the federation is ended\n"
    assert len(children) >= 4  # SuperLink, SuperNode, the SuperExec of each; perhaps the app
    until(lambda: [pid for pid in children if alive(pid)] == [], 30)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def alive(pid: int) -> bool:
    """Not a zombie, which nobody collects where process 1 does not."""
    status = read(Path(f"/proc/{pid}/status"))
    return bool(status) and "\nState:\tZ" not in status


def children_of(pid: int) -> list[int]:
    """All that descends from a process."""
    own = [int(each) for each in read(Path(f"/proc/{pid}/task/{pid}/children")).split()]
    return own + [each for child in own for each in children_of(child)]


def test_a_nodes_configuration_is_what_flower_reads() -> None:
    from flwr.common.config import parse_config_args

    config = {
        "partition-id": 1, "share": 0.25, "class-names": True, "data-root": "/their images/a=b",
        "keep": 'C:\\one"two', "empty": "",
    }  # fmt: skip
    assert parse_config_args([node_config(config)]) == config
    with pytest.raises(InputError, match="both kinds of quotes"):
        node_config({"data-root": "a'b\"c"})


HOSTILE = """
import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

from learngene.adaptation.settings import IndividualSettings
from protocol.task import ClientTask

app = ServerApp()


@app.main()
def main(grid, context):
    task = ClientTask(
        world="/etc", methods=("scratch",), seed=0, shard_seed=0, ways=2, shots=2,
        classes_from="novel", threads=1, width=0.0625, individual=IndividualSettings(epochs=1),
        method={"scratch": {}}, image_side=32,
    )
    record = ConfigRecord({"json": task.to_json()})
    messages = [
        Message(RecordDict({"task": record}), node, "train", group_id="1")
        for node in grid.get_node_ids()
    ]
    sent, said = list(grid.push_messages(messages)), []
    deadline = time.monotonic() + 100
    while len(said) < 2 and time.monotonic() < deadline:  # one that was killed says nothing
        time.sleep(0.5)
        said += [
            {name: dict(each) for name, each in reply.content.config_records.items()}
            for reply in grid.pull_messages(sent)
            if reply.has_content()
        ]
    Path(context.run_config["run-dir"]).write_text(json.dumps(said))
"""


@pytest.mark.chaos
def test_a_server_that_names_a_path_is_refused(session: Session, tmp_path: Path) -> None:
    """By a node without images of its own; one that has some does not look at the path
    (tests/clients/test_node.py asks the same of a node in this process)."""
    federation = session.federation
    federation.register(4)
    federation.start_node(4, {"partition-id": 2}, gpus="")
    federation.wait_online(4)
    app = tmp_path / "app"
    for name in ("learngene", "protocol", "server", "clients", "strategies", "runtime", "conf"):
        shutil.copytree(PROJECT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sim.py", "flower_run.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, app / name)
    (app / "server" / "server_app.py").write_text(HOSTILE)
    run = federation.run({"run-dir": str(tmp_path / "said.json")}, app)
    lines = "".join(federation.follow(run))
    assert federation.wait(run).sub_status == "completed", lines
    said = json.loads((tmp_path / "said.json").read_text())
    refusals = [each["error"]["reason"] for each in said if "error" in each]
    assert len(refusals) == 1, said
    assert "the server names a path, and a node opens none" in refusals[0]
    answered = [json.loads(each["info"]["json"]) for each in said if "info" in each]
    assert FOLDERS[1][0] in [each["own_classes"] for each in answered]
