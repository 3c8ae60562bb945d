"""Kept answers: the same outcome again, only good ones, only of the very same question."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learngene.errors import InputError
from protocol.guard import RecordEntry
from protocol.messages import ByteCount
from runtime.ray_backend import simulate
from runtime.resources import RuntimeSettings, check_resources, client_device
from strategies.answer_cache import AnswerCache, cache_key_fields
from strategies.kept_lines import KeptLines
from strategies.learngene import ClientOutcome, LearngeneStrategy, RoundOutcome, RoundPlan
from tests.helpers import hooked
from tests.runtime.fake_work import app, fake_task, plan

SERIAL = RuntimeSettings("serial")
GENE = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}
PLAN = plan(replace(fake_task(), world="/some/where"), {"learngene": GENE})
FIRST = "answers-0001.jsonl"
GOOD = ClientOutcome(
    client=3,
    replied=True,
    methods={"scratch": {"accuracy": [0.1, 1 / 3], "epochs": [0, 1], "seconds": 1.25}},
    info={"classes": "4,7", "train_images": 50},
    bytes_down=1000,
    bytes_up=200,
    bytes_by_method={"scratch": ByteCount(1000, 150)},
    sent=(RecordEntry("metrics.scratch", "metric", "accuracy", "float", "2", 16),),
)


@pytest.fixture
def kept(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path, {"a": 1, "b": {"c": [2]}})


def again(kept: AnswerCache, **changed: object) -> AnswerCache:
    """As another run opens it."""
    return AnswerCache(kept.folder.parents[1], {"a": 1, "b": {"c": [2]}}, **changed)  # type: ignore[arg-type]


def test_what_is_put_is_got(kept):
    assert kept.get(3) is None
    kept.put(GOOD)
    found = again(kept).get(3)
    sent = replace(found, bytes_down=1000, kept=False)
    assert replace(sent, bytes_by_method={"scratch": ByteCount(1000, 150)}) == GOOD
    assert found.kept and found.bytes_by_method == {"scratch": ByteCount(0, 150)}
    assert again(kept).get(4) is None
    assert [path.name for path in kept.folder.iterdir()] == [FIRST]


def test_failures_are_not_kept(kept):
    kept.put(replace(GOOD, error="scratch: RuntimeError: out of memory"))
    assert again(kept).get(3) is None and not kept.folder.exists()


def test_without_resume_nothing_is_found_and_all_is_written_again(kept):
    kept.put(GOOD)
    anew = again(kept, resume=False)
    assert anew.get(3) is None
    anew.put(replace(GOOD, bytes_up=201))
    assert anew.get(3) is None and again(kept).get(3).bytes_up == 201


def forget(file: Path, *clients: int) -> None:
    """Take the answers of these clients out of a file."""
    head, *lines = file.read_text().splitlines(keepends=True)
    file.write_text(head + "".join(x for x in lines if json.loads(x)["client"] not in clients))


def flipped(data: bytes) -> bytes:
    place = data.index(b"0.333")
    return data[:place] + b"9" + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        flipped,
        lambda data: data.replace(b'"a": 1', b'"a": 2'),
        lambda data: b"[]",
        lambda data: b"\xff" + data,
    ],
    ids=["torn", "empty", "flipped", "other settings", "a list", "no unicode"],
)
def test_what_is_not_whole_is_not_there(kept, damage: Callable[[bytes], bytes]):
    kept.put(GOOD)
    path = kept.folder / FIRST
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before
    assert again(kept).get(3) is None
    again(kept).put(GOOD)
    assert again(kept).get(3) is not None


def test_a_torn_line_costs_its_client_alone(kept):
    for client in (3, 4, 5):
        kept.put(replace(GOOD, client=client))
    path = kept.folder / FIRST
    head, *lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([head, lines[0], lines[1][:-9], lines[2][:40]]))
    found = again(kept)
    assert [client for client in range(9) if found.get(client)] == [3]
    found.put(replace(GOOD, client=4))
    assert len([*kept.folder.iterdir()]) == 2  # nobody writes behind a torn line
    assert [client for client in range(9) if again(kept).get(client)] == [3, 4]


def test_an_answer_of_another_question_is_not_there(kept, tmp_path):
    kept.put(GOOD)
    other = AnswerCache(tmp_path, {"a": 2})
    other.put(replace(GOOD, client=5))
    with (kept.folder / FIRST).open("ab") as file:
        file.write((other.folder / FIRST).read_bytes().splitlines(keepends=True)[1])
    assert again(kept).get(3) is not None and again(kept).get(5) is None


def test_two_runs_at_once_write_to_files_of_their_own(kept):
    others = [again(kept) for _ in range(3)]
    for client, run in enumerate([kept, *others, kept]):
        run.put(replace(GOOD, client=client))
    assert sorted(path.name for path in kept.folder.iterdir()) == [
        f"answers-{number:04d}.jsonl" for number in (1, 2, 3, 4)
    ]
    assert [again(kept).get(client) is not None for client in range(6)] == [True] * 5 + [False]


def test_a_thousand_answers_are_one_file(kept):
    for client in range(1000):
        kept.put(replace(GOOD, client=client))
    (path,) = kept.folder.iterdir()
    assert path.stat().st_size < 1000 * 500
    assert all(again(kept).get(999).sent[0] is each for each in again(kept).get(0).sent)


def test_a_copied_folder_is_refused_with_what_differs(kept, tmp_path):
    kept.put(GOOD)
    other = AnswerCache(tmp_path, {"a": 1, "b": {"c": [9]}, "d": "new"})
    shutil.copytree(kept.folder, other.folder)
    with pytest.raises(InputError) as caught:
        other.get(3)
    assert 'b.c is [2] there and [9] here; d is null there and "new" here' in str(caught.value)
    assert str(other.folder) in caught.value.fix


def test_the_key_is_the_question_and_not_where_the_dataset_lies():
    def key(asked: RoundPlan = PLAN, number: int = 1, dataset: str = "w", **runtime) -> str:
        settings = replace(SERIAL, **runtime)
        device = client_device(check_resources(settings, 1) if settings.name == "ray" else None)
        return json.dumps(cache_key_fields(asked, number, dataset, device), sort_keys=True)

    elsewhere = plan(replace(PLAN.task, world="/else/where"), PLAN.payloads)
    assert key() == key(elsewhere) == key(timeout_s=5.0) == key(name="ray", num_gpus=0.0)
    moved = {"w": GENE["w"] + np.float32(1e-6)}
    others = {
        key(number=2),
        key(dataset="v"),
        key(plan(replace(PLAN.task, shots=3), PLAN.payloads)),
        key(plan(PLAN.task, {"learngene": moved})),
        key(plan(PLAN.task, {"learngene": {"w": GENE["w"].T}})),
        key(plan(PLAN.task, {"learngene": {"w": GENE["w"].astype(np.float64)}})),
        key(plan(PLAN.task, {"scratch": GENE})),
    }
    assert len(others) == 7 and key() not in others


def test_answers_of_other_libraries_or_another_device_are_not_taken(monkeypatch):
    def key(device: str = "a") -> dict[str, object]:
        return cache_key_fields(PLAN, 1, "w", {"device": device})

    plain = key()
    assert key() == plain != key("b")
    for where, other in (
        ("torch.__version__", "0.1"),
        ("numpy.__version__", "0.1"),
        ("torch.backends.cpu.get_cpu_capability", lambda: "other"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(where, other)
            assert key() != plain, where


def run(cache: Path, clients: int = 4, runtime: str = "serial", resume: bool = True, **does: str
        ) -> tuple[list[RoundOutcome], list[int]]:  # fmt: skip
    """Two rounds; the outcomes, and the clients that were asked, in order."""
    task = fake_task(do={k.removeprefix("c"): v for k, v in does.items()})
    asked: list[int] = []

    def prepare(number: int) -> list[RoundPlan]:
        # What clients do wrong is no part of the question here, or it would be another one.
        question = plan(fake_task(), {"learngene": GENE})
        fields = cache_key_fields(question, number, "w", client_device(None))
        kept = AnswerCache(cache, fields, resume=resume)
        return [replace(plan(task, {"learngene": GENE}), kept=kept)]

    strategy = LearngeneStrategy(clients, prepare)
    settings = RuntimeSettings(runtime, total_cpus=1)
    simulate(strategy, 2, settings, clients, client_app=app,
             callback=hooked(on_reply=lambda client, ok: asked.append(client)))  # fmt: skip
    return strategy.rounds, asked


def plain(rounds: list[RoundOutcome]) -> list[RoundOutcome]:
    """Without what may differ: random node ids, and who was asked when."""
    return [
        replace(each, clients=[replace(c, kept=False) for c in each.clients]) for each in rounds
    ]


def test_only_missing_answers_are_asked_for_and_all_is_counted_as_ever(tmp_path):
    whole, asked = run(tmp_path / "a")
    assert asked == [0, 1, 2, 3] * 2 and [each.kept for each in whole] == [0, 0]
    run(tmp_path / "b")
    for file in (tmp_path / "b").glob("clients/*/*"):
        forget(file, 1, 3)
    again, asked = run(tmp_path / "b")
    assert asked == [1, 3] * 2 and [each.kept for each in again] == [2, 2]
    assert plain(again) == plain(whole)  # numbers, bytes, queries
    assert [(r.asked, r.answered, r.failed, r.missing) for r in again] == [(4, 4, 0, 0)] * 2


def test_failed_clients_are_asked_again(tmp_path):
    rounds, _ = run(tmp_path, c1="raise", c2="nan")
    assert [each.answered for each in rounds] == [2, 2]
    again, asked = run(tmp_path, c1="none")
    assert asked == [1, 2] * 2
    assert [each.error is None for each in again[0].clients] == [True, False, True, True]


def test_more_clients_find_the_answers_of_fewer(tmp_path):
    run(tmp_path, clients=2)
    rounds, asked = run(tmp_path, clients=4)
    assert asked == [2, 3] * 2
    assert plain(rounds) == plain(run(tmp_path / "fresh", clients=4)[0])


def test_resume_false_asks_everybody(tmp_path):
    run(tmp_path)
    assert run(tmp_path, resume=False)[1] == [0, 1, 2, 3] * 2


def test_ray_is_not_started_for_nobody(tmp_path, monkeypatch):
    whole, _ = run(tmp_path)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("flwr.simulation.run_simulation", never)
    again, asked = run(tmp_path, runtime="ray")
    assert asked == [] and plain(again) == plain(whole)
    forget(next((tmp_path / "clients").glob("*/*")), 2)
    with pytest.raises(RuntimeError, match="Ray was started"):
        run(tmp_path, runtime="ray")


def test_what_cannot_be_kept_ends_the_run_and_leaves_what_was_kept(tmp_path, monkeypatch):
    append, calls = KeptLines._append, []

    def full(self: KeptLines, path: Path, line: bytes) -> None:
        calls.append(line)
        if len(calls) == 4:  # a line about the question, then the answers
            append(self, path, line[: len(line) // 2])
            raise OSError(28, "No space left on device", str(path))
        append(self, path, line)

    monkeypatch.setattr(KeptLines, "_append", full)
    with pytest.raises(OSError, match=r"No space left.*answers-0001\.jsonl"):
        run(tmp_path)
    monkeypatch.undo()
    assert run(tmp_path)[1] == [2, 3, 0, 1, 2, 3]
