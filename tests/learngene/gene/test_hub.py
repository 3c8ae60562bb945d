"""A learngene on the hub: pushed, read again, refused. The hub is a server of this process, which
speaks what ``huggingface_hub`` asks of the real one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants

from conf.parts import factory_settings
from conf.validate import check
from learngene.command_line import main
from learngene.errors import InputError
from learngene.gene import hub
from learngene.gene.card import CARD_LIMIT
from learngene.gene.gene import Learngene, load, save
from reports.results import write_results
from server.factory import saved_gene, train_or_load_gene
from tests.composing import composed
from tests.helpers import gene_of
from tests.test_tutorials import blocks

Files = dict[str, bytes]
NAME = "me/letters"


class Hub:
    """Repositories with their commits, and what was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Files]] = {}  # by commit, oldest first
        self.private: dict[str, bool] = {}
        self.sizes: dict[str, int] = {}  # what the hub says of a file, where it is not its size
        self.fetched: list[str] = []

    def commit(self, name: str, files: Files) -> str:
        commits = self.repositories.setdefault(name, {})
        sha = hashlib.sha1(f"{name} {len(commits)}".encode()).hexdigest()
        commits[sha] = {**(list(commits.values())[-1] if commits else {}), **files}
        return sha

    def find(self, name: str, revision: str) -> tuple[str, Files] | None:
        commits = self.repositories.get(name, {})
        sha = list(commits)[-1] if revision == "main" and commits else revision
        return (sha, commits[sha]) if sha in commits else None

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        if asked := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)(?:/revision/(\w+))?", path):
            found = self.find(asked[1], asked[2] or "main")
            if found is None:
                code = "RevisionNotFound" if asked[1] in self.repositories else "RepoNotFound"
                return 404, {"X-Error-Code": code}, b"{}"
            siblings = [
                {"rfilename": file, "size": self.sizes.get(file, len(content))}
                for file, content in found[1].items()
            ]
            content = {"id": asked[1], "sha": found[0], "siblings": siblings}
            return 200, {}, json.dumps(content).encode()
        asked = re.fullmatch(r"/([\w-]+/[\w-]+)/resolve/(\w+)/(.+)", path)
        assert asked is not None, path
        sha, files = self.find(asked[1], asked[2]) or ("", {})
        content = files[asked[3]]
        return (
            200,
            {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'},
            content,
        )

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.private[name] = asked["visibility"] == "private"
            return {"url": f"{constants.ENDPOINT}/{name}"}
        if path == "/api/validate-yaml":
            front = json.loads(body)["content"].split("---\n")[1]
            assert isinstance(yaml.safe_load(front), dict)
            return {}
        asked = re.fullmatch(r"/api/models/([\w-]+/[\w-]+)/(preupload|commit)/main", path)
        assert asked is not None, path
        if asked[2] == "preupload":
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": e["path"], **plain} for e in json.loads(body)["files"]]}
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            each["value"]["path"]: base64.b64decode(each["value"]["content"])
            for each in lines
            if each["key"] == "file"
        }
        sha = self.commit(asked[1], files)
        return {"commitUrl": f"{constants.ENDPOINT}/{asked[1]}/commit/{sha}", "commitOid": sha}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that ``huggingface_hub`` asks, with a cache of the test's own."""
    made = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if "/resolve/" in path and self.command == "GET":
                made.fetched.append(path.rpartition("/")[2])
            self.answer(*made.get(path))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers["Content-Length"]))
            path = self.path.partition("?")[0]
            self.answer(200, {}, json.dumps(made.post(path, body)).encode())

        def log_message(self, *_: object) -> None:
            """Nothing is said of a request."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=http.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{http.server_port}"
    place = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + place)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    yield made
    http.shutdown()
    http.server_close()


@pytest.fixture
def gene(evolved) -> Learngene:
    return gene_of(evolved.collective)


@pytest.fixture
def run(gene: Learngene, results: dict[str, Any], tmp_path: Path) -> Path:
    """The folder of a run with this learngene."""
    (tmp_path / "run").mkdir()
    save(gene, tmp_path / "run")
    results["learngene"]["sha256"] = gene.card.sha256
    results["run"]["config"] |= {"ways": 5, "shots": 10, "data": {"clients_from": "novel"}}
    write_results(results, tmp_path / "run" / "results.json")
    return tmp_path / "run"


def test_what_is_pushed_is_loaded_again(
    server: Hub, run: Path, gene: Learngene, results: dict[str, Any], capsys: Any
) -> None:
    path = str(run / "learngene.safetensors")
    assert main(["push", path, NAME, "--license", "apache-2.0", "--private"]) == 0
    name = capsys.readouterr().out.strip()
    assert re.fullmatch(rf"hf://{NAME}@[0-9a-f]{{40}}", name) and server.private == {NAME: True}
    for asked in (name, f"hf://{NAME}", Path(f"hf://{NAME}")):
        found = load(asked)
        assert asdict(found.card) == asdict(gene.card)
        assert all((found.arrays[n] == gene.arrays[n]).all() for n in gene.arrays)
    assert set(server.fetched) == {hub.CARD, hub.ARRAYS}  # README stays where it is

    text = server.find(NAME, "main")[1][hub.MODEL_CARD].decode()
    front = yaml.safe_load(text.split("---\n")[1])
    summary = results["summary"]
    assert front["license"] == "apache-2.0" and "learngene" in front["tags"]
    (metric,) = front["model-index"][0]["results"][0]["metrics"]
    assert metric["type"] == "accuracy" and metric["value"] == summary["learngene"]["mean"]
    for method in ("learngene", "scratch"):
        row = summary[method]
        assert f"| {method} | {100 * row['mean']:.1f} ± {100 * row['ci95']:.1f} |" in text
    assert f"in points: {100 * summary['gain']['mean']:.1f} ± " in text
    assert gene.card.sha256 in text and "glyphs: 64 base classes" in text
    assert "20 clients with 5 novel classes each and 10 images a class" in text
    assert not any(each in text for each in results["data"]["classes"]["novel"])  # nobody's names


def test_a_commit_that_is_pinned_stays_what_it_was_and_needs_no_network(
    server: Hub, run: Path, evolved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = hub.push(run / hub.ARRAYS, NAME)
    other = gene_of(evolved.collective, (11, 12, 13), stem="fresh")
    path = save(other, tmp_path)
    server.commit(NAME, {p.name: p.read_bytes() for p in (path, path.with_suffix(".json"))})
    assert load(f"hf://{NAME}").card.sha256 == other.card.sha256
    first = load(pinned)
    assert first.card.sha256 != other.card.sha256
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load(pinned).card == first.card
    for name in (f"hf://{NAME}", f"hf://{NAME}@{'0' * 40}"):  # what may have changed is not guessed
        with pytest.raises(InputError, match=r"the hub gives no answer.*needs no network"):
            load(name)


def test_without_network_it_is_one_message(
    server: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(run / hub.ARRAYS), NAME]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"learngene: HUB_NAME={NAME}: the hub gives no answer that helps: ")
    with pytest.raises(InputError, match="ConnectError"):
        load(f"hf://{NAME}")


@pytest.mark.parametrize(
    "name", ["hf://nobody/none", "hf://me/letters@none", "hf://a/b/c", "hf://"]
)
def test_a_name_of_nothing_is_refused(server: Hub, run: Path, name: str) -> None:
    hub.push(run / hub.ARRAYS, NAME)
    with pytest.raises(InputError, match=r"Check the name|does not exist"):
        load(name)
    assert not server.fetched


def test_what_is_too_large_is_not_fetched(server: Hub, run: Path) -> None:
    hub.push(run / hub.ARRAYS, NAME)
    server.sizes[hub.ARRAYS] = 50 << 20  # the card says what is due
    with pytest.raises(InputError, match=r"\.safetensors has 52,428,800 bytes, at most 1,"):
        load(f"hf://{NAME}")
    server.sizes[hub.CARD] = CARD_LIMIT + 1
    with pytest.raises(InputError, match=r"learngene\.json has 16,777,217 bytes"):
        load(f"hf://{NAME}")
    assert server.fetched == [hub.CARD]


def test_a_repository_of_something_else_is_refused(server: Hub, run: Path) -> None:
    server.commit("me/else", {"pytorch_model.bin": b"\x80\x04.", "config.json": b"{}"})
    with pytest.raises(InputError, match=r"has no learngene\.json"):
        load("hf://me/else")
    server.commit("me/else", {hub.CARD: b'{"layers": [1]}', hub.ARRAYS: b"\x80\x04."})
    with pytest.raises(InputError, match="not a learngene: the card's"):
        load("hf://me/else")
    hub.push(run / hub.ARRAYS, NAME)
    content = bytearray((run / hub.ARRAYS).read_bytes())
    content[-1] ^= 1
    server.commit(NAME, {hub.ARRAYS: bytes(content)})
    with pytest.raises(InputError, match="the sha256 of card and arrays is not"):
        load(f"hf://{NAME}")
    assert server.fetched.count(hub.CARD) == 2 and server.fetched.count(hub.ARRAYS) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda run: run["learngene"].update(sha256="0" * 64),
            "its learngene is 000000000000, not",
        ),
        (lambda run: run["run"].pop("config"), "not the results of a run: KeyError"),
        (lambda run: run["messages"].pop("answered"), "not the results of a run: UndefinedError"),
        (lambda run: run.clear(), "not the results of a run"),
        (None, "it does not exist"),
    ],
)
def test_nothing_is_pushed_without_the_runs_own_numbers(
    server: Hub, run: Path, change: Any, said: str
) -> None:
    path = run / "results.json"
    content = json.loads(path.read_text())
    path.unlink()
    if change is not None:
        change(content)
        path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        hub.push(run / hub.ARRAYS, NAME)
    assert not server.repositories and not server.private


def test_a_learngene_that_nobody_measured_says_so(
    server: Hub, run: Path, results: dict[str, Any]
) -> None:
    results["summary"] = {
        "learngene": {"mean": None, "std": None, "ci95": None, "n": 0},
        "gain": None,
    }
    (run / "results.json").write_text(json.dumps(results))
    hub.push(run / hub.ARRAYS, NAME)
    text = server.find(NAME, "main")[1][hub.MODEL_CARD].decode()
    assert "| learngene | – |" in text and "none was named" in text and "Gain" not in text
    assert "model-index" not in text and "license" not in text


def test_a_run_starts_from_it(server: Hub, run: Path, gene: Learngene, tiny_dataset: Any) -> None:
    name = hub.push(run / hub.ARRAYS, NAME)
    settings = factory_settings(check(composed(f"learngene.path={name}", "cache=unused")))
    saved = saved_gene(settings, halves=False)
    assert train_or_load_gene(settings, tiny_dataset).gene.card == gene.card
    server.repositories.clear()  # it is asked once
    assert train_or_load_gene(settings, tiny_dataset, saved=saved).gene is saved


def test_the_tutorial_as_written(
    server: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "first").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    (_, pushing), (_, fetching), (_, running) = blocks("share_a_learngene")
    assert main(shlex.split(pushing.removeprefix("python -m learngene "))) == 0
    exec(fetching, {})
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("hf://me/letters@") and said[1].startswith("layers [1, 2, 3, 4")
    check(composed(*shlex.split(running.removeprefix("python sim.py ")), "cache=unused"))


def test_no_telemetry() -> None:
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
