"""One seed, one result: bit-equal in serial, with one worker and with two, in any order."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict

import runtime.client_rounds
import sim as program
from clients.client_app import app as client_app
from clients.client_app import make_client_app
from conf.schema import Config
from conf.validate import check
from learngene.utils.hardware import WORKSPACE, pin_kernels
from protocol.callbacks import CallbackList, RunCallback
from reports.results import comparable, read_results, result_sha256
from runtime.grid_backend import OutsideGrid
from runtime.serial_backend import SerialGrid
from tests.composing import composed
from tests.helpers import FEW, hooked, without_figures
from tests.stand_ins.hostile_methods import write_hostile
from tests.stand_ins.late_work import FOLDER, late
from tests.stand_ins.own_method import here

TINY = ("scale=tiny", "runtime=serial", "shots=3", "collective.classes_per_task=8",
        "report.gradcam_images=0", "individual.safeguard=true", "collective.threads=1",
        "methods=[learngene,scratch,fedbn,protonet]", *FEW)  # fmt: skip


def config_of(cache: Path, *further: str, **runtime: Any) -> Config:
    made = check(composed(*TINY, *further, f"cache={cache}"))
    return replace(made, runtime=replace(made.runtime, **runtime))


def run(
    config: Config, folder: Path, *, anew: bool = True, code: int = program.OK
) -> dict[str, Any]:
    # Every run asks its clients anew: kept answers would be equal whatever the clients did.
    for kept in ("clients", "federated", "private") if anew else ():
        shutil.rmtree(Path(config.cache) / kept, ignore_errors=True)
    with without_figures():
        assert program.simulation(copy.deepcopy(config), folder) == code
    return read_results(folder / "results.json")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    results = run(config_of(cache), tmp_path_factory.mktemp("first"))
    assert results["run"]["collective_cached"] is False
    return results


def assert_equal(results: dict[str, Any], first: dict[str, Any]) -> None:
    assert comparable(results) == comparable(first)  # says what differs
    assert result_sha256(results) == result_sha256(first)


def test_a_cached_collective_and_another_folder(first, cache, tmp_path):
    again = run(config_of(cache), tmp_path / "other")
    assert again["run"]["collective_cached"] is True
    assert again["pretraining"]["methods"]["protonet"]["cached"] is True
    assert_equal(again, first)


def test_a_fresh_cache_of_a_longer_name_and_a_time_limit(first, tmp_path):
    again = run(config_of(tmp_path / ("long" * 40), client_timeout_s=3000.25), tmp_path / "run")
    assert again["run"]["collective_cached"] is False
    assert_equal(again, first)


def copied(cache: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cache, tmp_path / ("moved" * 20))


def test_a_copied_cache_of_which_all_is_taken_up(first, cache, tmp_path):
    run(config_of(cache), tmp_path / "leaves everything in the cache")
    again = run(config_of(copied(cache, tmp_path)), tmp_path / "run", anew=False)
    assert again["run"]["kept_answers"] == 3
    assert_equal(again, first)


def test_the_nodes_of_a_grid_from_outside(first, cache, tmp_path):
    config = config_of(cache, name="flwr")
    for kept in ("clients", "federated", "private"):
        shutil.rmtree(cache / kept)
    grid = SerialGrid(client_app, config.num_clients)
    context = Context(grid.run.run_id, 1, {}, RecordDict(), {})
    outside = OutsideGrid(grid, context, ["flwr", "run", "."], deployed=False)
    assert program.simulation(config, tmp_path, [], outside) == program.OK
    again = read_results(tmp_path / "results.json")
    assert again["run"]["command"] == "flwr run ."
    assert_equal(again, first)


def test_rounds_and_cycles_in_a_copied_cache(first, cache, tmp_path):
    asked = ("methods=[learngene,scratch,fedbn]", "rounds=2", "open_world.cycles=1")
    once = run(config_of(cache, *asked), tmp_path / "once")
    again = run(config_of(copied(cache, tmp_path), *asked), tmp_path / "again", anew=False)
    assert again["run"]["kept_answers"] == 6
    assert_equal(again, once)


def test_the_hash_of_a_failure_has_not_its_words(first, cache, tmp_path):
    """The message of a planted fault names a folder, and the words of a failure what has failed."""
    fails = ("faults=[1:raise]", "runtime.min_answered=0")
    once = run(config_of(cache, *fails), tmp_path / "once")
    again = run(config_of(copied(cache, tmp_path), *fails), tmp_path / "again")
    assert once["clients"][1]["error"] and once["messages"]["failed"] == 1
    assert_equal(again, once)
    assert result_sha256(once) != result_sha256(first)


def test_hostile_methods_beside_them_change_no_methods_numbers(first, cache, tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    names = ["learngene", "scratch", "fedbn", "protonet"]
    methods = ",".join([*write_hostile(tmp_path, "_r"), *names])
    config = config_of(cache, f"methods=[{methods}]")
    found = run(config, tmp_path / "run", code=program.FAILED)  # since one is left out
    assert list(found["methods_left_out"]) == ["on_the_rest_r"]

    def numbers(results: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                key: value
                for key, value in client["methods"][name].items()
                if key not in ("seconds", "bytes_down", "bytes_up")
            }
            for client in results["clients"]
            for name in names
        ]

    assert numbers(found) == numbers(first)
    for name in names:
        assert found["summary"][name]["mean"] == first["summary"][name]["mean"]


def test_serial_in_reverse_order(first, cache, tmp_path, monkeypatch):
    asked: list[str] = []
    forward = SerialGrid.pull_messages

    def backward(self: SerialGrid, message_ids: Iterable[str]) -> Iterable[Message]:
        self._pending = dict(reversed(self._pending.items()))
        replies = forward(self, message_ids)
        self._pending = dict(reversed(self._pending.items()))
        asked.extend(str(each.metadata.reply_to_message_id) for each in replies)
        return replies

    monkeypatch.setattr(SerialGrid, "pull_messages", backward)
    assert_equal(run(config_of(cache), tmp_path), first)
    assert len(asked) == 15  # twice three queries, three tasks, two rounds of three before


def test_another_seed_is_another_result(first, cache, tmp_path):
    config = config_of(cache)
    config.shard_seed = 1
    assert result_sha256(run(config, tmp_path)) != result_sha256(first)


@pytest.mark.ray
@pytest.mark.chaos  # as two commands: tests/runtime/test_signals.py
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_whatever_the_workers_and_the_order(
    workers: int, first, cache, tmp_path, monkeypatch
) -> None:
    """With two workers the first client answers later: the order of replies is another one."""
    order: list[int] = []
    if workers == 2:
        (tmp_path / "done").mkdir()
        monkeypatch.setenv(FOLDER, str(tmp_path / "done"))
    simulate: Callable[..., None] = runtime.client_rounds.simulate

    def delayed(*arguments: Any, callback: RunCallback, **named: Any) -> None:
        note = hooked(on_reply=lambda client, ok: order.append(client))
        both = CallbackList([note, callback])
        simulate(*arguments, callback=both, client_app=make_client_app(late), **named)

    monkeypatch.setattr(runtime.client_rounds, "simulate", delayed)
    results = run(config_of(cache, name="ray", total_cpus=workers), tmp_path / "run")
    assert_equal(results, first)
    assert sorted(order) == [0, 1, 2]
    if workers == 2:
        assert order != [0, 1, 2]


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch):
    """The flags that pin_kernels sets, put back afterwards."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    places = [
        (torch.backends.cudnn, "deterministic"), (torch.backends.cudnn, "benchmark"),
        (torch.backends.cudnn, "fp32_precision"), (torch.backends.cuda.matmul, "fp32_precision"),
        (torch.utils.deterministic, "fill_uninitialized_memory"),
    ]  # fmt: skip
    before = [getattr(place, name) for place, name in places]
    mode = torch.are_deterministic_algorithms_enabled()
    for (place, name), value in zip(places, (False, True, "tf32", "tf32", True), strict=True):
        setattr(place, name, value)
    yield lambda: (
        [getattr(place, name) for place, name in places],
        torch.are_deterministic_algorithms_enabled(),
    )
    for (place, name), value in zip(places, before, strict=True):
        setattr(place, name, value)
    torch.use_deterministic_algorithms(mode)


def test_a_gpu_is_pinned_and_a_cpu_left_alone(flags, monkeypatch):
    pin_kernels(torch.device("cpu"))
    assert flags() == ([False, True, "tf32", "tf32", True], False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    pin_kernels(torch.device("cuda"))
    assert flags() == ([True, False, "ieee", "ieee", False], True)
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == WORKSPACE
    pin_kernels(torch.device("cuda"), deterministic=False)
    assert flags() == ([False, True, "tf32", "tf32", False], False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


@pytest.mark.parametrize("deterministic", [True, False])
def test_all_sides_pin_their_device(deterministic, first, cache, tmp_path, monkeypatch):
    seen: set[tuple[str, torch.device, bool]] = set()
    places = ("clients.work", "server.factory", "server.pretraining")
    for place in places:
        spy = partial(lambda place, *given: seen.add((place, *given)), place)
        monkeypatch.setattr(f"{place}.pin_kernels", spy)
    results = run(config_of(cache, deterministic=deterministic), tmp_path)
    assert seen == {(place, torch.device("cpu"), deterministic) for place in places}
    # The default is in no message; another word is in all of them, and in their bytes.
    assert (result_sha256(results) == result_sha256(first)) == deterministic
