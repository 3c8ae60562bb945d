"""The command line from end to end, in tiny sizes: exit codes, files, and equal numbers."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from learngene.gene.gene import load
from reports.results import read_results
from tests.helpers import command_line
from tests.stand_ins.own_method import here

ROOT = Path(__file__).resolve().parents[1]
TINY = ("scale=tiny", "runtime=serial", "individual.epochs=3")
BAD_LOGGER = """
class Mine:
    def __init__(self, save_dir):
        self.raised = False
    def log_hyperparams(self, params):
        pass
    def log_metrics(self, metrics, step):
        if self.raised:
            print("called ever again")
        self.raised = True
        raise RuntimeError("no disk [/left]")
    def finalize(self, status):
        raise RuntimeError("nor to close")
"""


def process(*overrides: str, cache: Path, run: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "sim.py"), *overrides, f"hydra.run.dir={run}"],
        env={**os.environ, "LEARNGENE_CACHE": str(cache), "COLUMNS": "200"},
        cwd=run.parent,  # not the repository: an installed project must not need it
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def sim(*overrides: str, cache: Path, run: Path) -> subprocess.CompletedProcess[str]:
    """As ``process``, in this one; halves one after the other (tests/server/test_parallel.py)."""
    told = patch.dict(os.environ, {"LEARNGENE_CACHE": str(cache), "COLUMNS": "200"})
    with told, patch("server.pretraining.max_workers", lambda *_: 1):
        return command_line(*overrides, f"hydra.run.dir={run}")


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    """What must be equal between two runs: all but the run's own circumstances and seconds."""
    kept = json.loads(json.dumps({k: v for k, v in results.items() if k != "run"}))
    for stage in (kept["collective"] or {}).get("stages", []):
        stage.pop("seconds")
    for client in kept["clients"]:
        for method in client.get("methods", {}).values():  # one that failed has none
            method.pop("seconds")
    return kept


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    run = tmp_path_factory.mktemp("first") / "run"
    done = process(*TINY, cache=cache, run=run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(run / "report.html") in done.stdout.replace("\n", "")
    return run


def test_files_and_contract(first: Path) -> None:
    results = read_results(first / "results.json")  # checks the contract
    assert [c["id"] for c in results["clients"]] == [0, 1, 2]
    assert results["messages"]["asked"] == results["messages"]["answered"] == 3
    assert results["data"]["leakage"]["passed"] is True
    assert results["learngene"]["layers"] == [1, 2, 3, 4, 5, 6, 7]
    assert len(results["criterion"]["rho"]) == results["collective"]["tasks"] == 4
    assert {len(row) for row in results["criterion"]["rho"]} == {13}
    assert load(first / "learngene.safetensors").card.sha256 == results["learngene"]["sha256"]
    assert [stage["task"] for stage in results["collective"]["stages"]] == [1, 2, 3, 4]
    stages, continual = results["collective"]["stages"], results["collective"]["continual"]
    assert continual["matrix"] == [stage["accuracy_by_task"] for stage in stages]
    mean = sum(stage["accuracy"] for stage in stages) / 4
    assert continual["average_incremental_accuracy"] == pytest.approx(mean)
    assert -1 <= continual["backward_transfer"] <= 1 and -1 <= continual["forgetting"] <= 1
    gain = results["summary"]["gain"]
    pairs = [c["methods"] for c in results["clients"]]
    expected = sum(m["learngene"]["accuracy"] - m["scratch"]["accuracy"] for m in pairs) / 3
    assert gain["mean"] == pytest.approx(expected)
    report = (first / "report.html").read_text()
    assert "data:image/png;base64" in report
    assert {"accuracy_over_epochs.png", "criterion.png", "continual.png"} <= {
        p.name for p in (first / "figures").iterdir()
    }


def test_many_methods_in_one_table(first: Path, cache: Path, tmp_path: Path) -> None:
    """The others' halves at the factory, their payloads on the wire, one table; all in one run."""
    names = ["learngene", "scratch", "proto_maml", "protonet", "deepemd", "full"]
    asked = [*TINY, f"methods=[{','.join(names)}]", "budget=100",
             "num_clients=1", "method.proto_maml.client_steps=1",
             "method.deepemd.client_steps=2"]  # fmt: skip
    done = sim(*asked, cache=cache, run=tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_results(tmp_path / "run" / "results.json")
    assert list(results["summary"])[:-1] == names
    made = results["pretraining"]["methods"]
    assert list(made) == names[2:] and results["pretraining"]["budget"] == 100
    for client in results["clients"]:
        down = {name: method["bytes_down"] for name, method in client["methods"].items()}
        for name, each in made.items():
            assert 0 < down[name] - down["scratch"] - each["bytes"] < 100 * 200  # names, framing
    before = read_results(first / "results.json")["clients"][:1]
    for now, then in zip(results["clients"], before, strict=True):
        for name in ("learngene", "scratch"):  # more company, the same numbers
            assert (
                now["methods"][name]["accuracy_by_epoch"]
                == then["methods"][name]["accuracy_by_epoch"]
            )
    assert "lead of" in done.stdout and "Holm" in done.stdout


def test_learngene_alone_pays_for_the_gene(first: Path) -> None:
    results = read_results(first / "results.json")
    for client in results["clients"]:
        down = {name: m["bytes_down"] for name, m in client["methods"].items()}
        assert down["learngene"] - down["scratch"] >= results["learngene"]["bytes"]
        assert down["scratch"] < 10_000


def test_csv_holds_the_curves(first: Path) -> None:
    results = read_results(first / "results.json")
    rows = list(csv.DictReader((first / "clients.csv").open()))
    assert list(rows[0]) == ["client", "method", "epoch", "accuracy", "loss"]
    mine = [
        [int(r["epoch"]), float(r["accuracy"])]
        for r in rows
        if r["client"] == "1" and r["method"] == "scratch"
    ]
    assert mine == results["clients"][1]["methods"]["scratch"]["accuracy_by_epoch"]


def test_other_client_settings_reuse_the_collective(
    first: Path, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    asked = [*TINY, "shots=3", "shard_seed=5", "logger=tensorboard"]
    done = sim(*asked, cache=cache, run=run)
    assert done.returncode == 0, done.stderr
    assert "not trained again" in done.stdout
    again, before = read_results(run / "results.json"), read_results(first / "results.json")
    assert again["run"]["collective_cached"] is True
    assert again["learngene"]["sha256"] == before["learngene"]["sha256"]
    assert {c["train_images"] for c in again["clients"]} == {15}
    assert again["clients"] != before["clients"]
    logged = EventAccumulator(str(run / "tensorboard")).Reload()

    def read(tag: str) -> list[tuple[int, float]]:
        return [(each.step, each.value) for each in logged.Scalars(tag)]

    for tag, due in {
        "collective/accuracy": [s["accuracy"] for s in again["collective"]["stages"]],
        "rho/13": [row[12] for row in again["criterion"]["rho"]],
    }.items():
        assert read(tag) == [(n, pytest.approx(value)) for n, value in enumerate(due, 1)]
    curve = again["clients"][2]["methods"]["learngene"]["accuracy_by_epoch"]
    assert read("clients/learngene/client_2") == [(e, pytest.approx(y)) for e, y in curve]
    assert read("summary/gain_mean") == [(0, pytest.approx(again["summary"]["gain"]["mean"]))]


def test_a_sweep_has_overrides_on_both_sides_of_its_flag(
    first: Path, cache: Path, tmp_path: Path
) -> None:
    asked = (*TINY, f"hydra.sweep.dir={tmp_path / 'sweep'}", "-m")
    done = sim(*asked, "shots=2,3", cache=cache, run=tmp_path / "unused")
    assert done.returncode == 0, done.stderr
    found = [read_results(tmp_path / "sweep" / n / "results.json") for n in ("0", "1")]
    assert [results["run"]["config"]["shots"] for results in found] == [2, 3]


def test_rounds_follow_the_evolution(first: Path, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = sim(*TINY, "rounds=2", cache=cache, run=run)
    assert done.returncode == 0, done.stdout + done.stderr
    results, alone = read_results(run / "results.json"), read_results(first / "results.json")
    assert results["run"]["collective_cached"]  # the first stop was read again, not trained again
    early, last = results["rounds"]
    assert [(r["round"], r["tasks"], r["known_classes"]) for r in (early, last)] == [
        (1, 2, 12),
        (2, 4, 21),
    ]
    assert [c["classes"] for c in early["clients"]] == [c["classes"] for c in results["clients"]]
    assert all(set(c["methods"]) == {"learngene"} for c in early["clients"])
    assert all(set(c["methods"]) == {"learngene", "scratch"} for c in results["clients"])
    assert "clients" not in last
    assert last["summary"]["learngene"]["mean"] == results["summary"]["learngene"]["mean"]
    assert last["gain"] == results["summary"]["gain"] and early["gain"]["n"] == 3
    # Before any training on the shard a round's number changes nothing: the same collective.
    for ours, theirs in zip(results["clients"], alone["clients"], strict=True):
        starts = [c["methods"]["learngene"]["accuracy_by_epoch"][0] for c in (ours, theirs)]
        assert starts[0] == starts[1]
    assert results["messages"]["asked"] == 6 == results["messages"]["answered"]
    with (run / "clients.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(r["round"], r["method"]) for r in rows} == {
        ("1", "learngene"),
        ("2", "learngene"),
        ("2", "scratch"),
    }
    assert "known classes" in done.stdout


def test_an_open_world_cycle_ends_in_the_learngene(
    cache: Path, first: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    asked = ["open_world.cycles=1", "open_world.accept=0.3", "open_world.images_to_add=2"]
    done = sim(*TINY, *asked, cache=cache, run=run)
    assert done.returncode == 0, done.stdout + done.stderr
    results, alone = read_results(run / "results.json"), read_results(first / "results.json")
    cycle = results["open_world"]["cycle"]
    assert cycle["discovered"] == len(cycle["cycles"][0]["added"]) > 0
    assert set(cycle["cycles"][0]["added"]) <= set(results["data"]["classes"]["open_world"])
    assert results["collective"]["stages"][0] == alone["collective"]["stages"][0]  # reused
    assert results["learngene"]["sha256"] != alone["learngene"]["sha256"]
    assert alone["open_world"]["cycle"] is None
    assert "open-world cycle 1" in done.stdout and "The cycle" in (run / "report.html").read_text()


def test_saved_learngene_needs_no_collective(first: Path, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    saved = first / "learngene.safetensors"
    done = sim(*TINY, f"learngene.path={saved}", cache=cache, run=run)
    assert done.returncode == 0, done.stderr
    found, before = read_results(run / "results.json"), read_results(first / "results.json")
    assert found["collective"] is None and found["criterion"] is None
    assert numbers(found)["clients"] == numbers(before)["clients"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_looked_for_before_the_data_and_only_for_what_is_trained_on_it(
    first: Path, cache: Path, tmp_path: Path
) -> None:
    saved = f"learngene.path={first / 'learngene.safetensors'}"
    asked = *TINY, saved, "collective.device=cuda", "budget=100"
    done = sim(*asked, "methods=[learngene,protonet]", cache=cache, run=tmp_path / "a")
    assert done.returncode == 2 and "torch sees no GPU" in done.stderr
    assert "dataset:" not in done.stdout
    done = sim(*asked, "methods=[learngene]", cache=cache, run=tmp_path / "b")
    assert done.returncode == 0, done.stderr  # nothing is trained at the factory


def test_open_world_classes_and_federated_methods(cache: Path, tmp_path: Path) -> None:
    """Table 2's protocol, and methods whose weights go up, in one run."""
    run = tmp_path / "run"
    done = sim(
        "experiment=table2_open_world", *TINY, "labelled.draws=2",
        "methods=[learngene,scratch,fedavg,fedprox]", cache=cache, run=run,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_results(run / "results.json")
    assert results["labelled"]["named"] == sum(c["train_images"] for c in results["clients"])
    assert results["labelled"]["named"] <= results["labelled"]["due"] == 3 * 5 * 5
    names = set(results["data"]["classes"]["open_world"])
    assert all(set(client["classes"]) <= names for client in results["clients"])
    assert [c["classes"] for c in results["clients"]][::2] == [
        results["labelled"]["classes"][0]
    ] * 2
    assert results["summary"]["learngene"]["n"] == 2
    made = results["federated"]["methods"]
    for name in ("fedavg", "fedprox"):
        assert [number for number, _ in made[name]["loss_by_round"]] == [1, 2]
        sent = sum(client["methods"][name]["bytes_up"] for client in results["clients"])
        assert 0 < sent - made[name]["bytes_up"] < 3 * 5000  # the last answers hold no weights
    with (run / "messages.csv").open() as file:
        up = [row for row in csv.DictReader(file) if row["direction"] == "up"]
    weights = {(row["phase"], row["record"]) for row in up if row["kind"] == "array"}
    assert weights == {("fedavg", "weights.fedavg"), ("fedprox", "weights.fedprox")}
    report = (run / "report.html").read_text()
    assert "Weights did, for fedavg, fedprox" in report and "in each of 2 draws" in report
    said = " ".join(done.stdout.split())
    tuned = "(tuned: 5 trials each on cifar100's open-world classes"
    assert f"Settings: learngene, fedavg, fedprox {tuned}" in said
    assert f"scratch {tuned}" in said
    assert "without a record of equal trials" not in said


def test_to_the_letter(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = sim(
        "experiment=to_the_letter", *TINY, "num_clients=1",
        "collective.classes_per_task=8", cache=cache, run=run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = read_results(run / "results.json")
    assert results["run"]["config"]["retain"] == {
        "ewc_lambda": 1000.0, "normalise": False, "fisher_samples": 128, "labels": "exact",
    }  # fmt: skip
    assert results["learngene"]["layers"] == [11, 12, 13]
    assert results["learngene"]["bytes"] == results["learngene"]["top_layers_bytes"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["num_clients=abc"], ["num_clients=abc", "int"]),
        (["num_client=20"], ["num_client=20", "num_clients=20"]),
        (["+seeed=1"], ["seeed=1", "no field"]),
        (["shots=0"], ["shots=0", "at least 1"]),
        (["shots=101"], ["shots=101", "100"]),
        (["ways=50"], ["ways=50", "20"]),
        (["data=nowhere"], ["data=nowhere", "glyphs"]),
        (["data=cifar100"], ["data.root", "data.download=true"]),
        (["data=cifar100", "data.root=/nowhere"], ["data.root=/nowhere", "no such folder"]),
        (["methods=[magic]"], ["methods=magic", "scratch"]),
        (["collective.width=nan"], ["collective.width=nan"]),
        (["runtime.min_answered=21"], ["runtime.min_answered=21", "20"]),
        (
            ["runtime=batched", "runtime.client_timeout_s=9"],
            ["runtime.client_timeout_s=9.0", "train together", "runtime=serial"],
        ),
        (["learngene.path=/nowhere.safetensors"], ["learngene.path=/nowhere.safetensors"]),
        (["data.root=/"], ["data.root=/", "glyphs", "data=cifar100"]),
        *[(["collective.device=cuda"], ["cuda", "no GPU"])] * (not torch.cuda.is_available()),
        (
            ["collective.memory=ewc", "collective.growth=schedule"],
            ["collective.growth=schedule", "collective.growth=none"],
        ),
        (["data.base=0.9"], ["data.base=0.9", "add up"]),
    ],
)
def test_wrong_input_is_one_message_and_exit_2(
    overrides: list[str], words: list[str], cache: Path, first: Path, tmp_path: Path
) -> None:
    done = sim(*overrides, cache=cache, run=tmp_path / "run")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "dataset:" not in done.stdout  # before anything that takes time
    message = [line for line in done.stderr.splitlines() if line]
    assert len(message) == 1, done.stderr
    for word in words:
        assert word in message[0]


def test_planted_faults_are_named_everywhere_and_spare_the_others(
    first: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    (tmp_path / "bad_logger.py").write_text(BAD_LOGGER)
    here(monkeypatch, tmp_path)
    asked = [*TINY, "faults=[0:raise,2:kill_once]"]
    done = sim(*asked, "logger=bad_logger.Mine", cache=cache, run=run)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.count("logger=bad_logger.Mine is called no more") == 1
    assert "RuntimeError: no disk [/left]" in done.stdout and "ever again" not in done.stdout
    found, whole = read_results(run / "results.json"), read_results(first / "results.json")
    reason = "learngene: PlantedFault: planted after epoch 1"
    assert f"client 0 failed: {reason}" in done.stdout
    assert reason in (run / "report.html").read_text()
    assert found["clients"][0]["error"].startswith(reason)
    assert found["messages"] | {"answered": 2, "failed": 1, "missing": 0} == found["messages"]
    assert numbers(found)["clients"][1:] == numbers(whole)["clients"][1:]
    assert found["run"]["config_sha256"] == whole["run"]["config_sha256"]
    assert not list(cache.rglob(".*"))


def test_messages_csv_states_what_crossed(first: Path) -> None:
    results = read_results(first / "results.json")
    rows = list(csv.DictReader((first / "messages.csv").open()))
    whole = {"down": 0, "up": 0}
    for row in rows:
        if row["kind"] == "message" and row["round"] == "1":
            whole[row["direction"]] += int(row["bytes"])
    assert whole == {name: results["messages"][f"bytes_{name}"] for name in ("down", "up")}
    assert {r["kind"] for r in rows if r["direction"] == "up"} == {"message", "metric", "config"}
    assert {r["verdict"] for r in rows} == {"ok"} and results["messages"]["refused"] == 0
    sent = [r for r in rows if r["client"] == "1" and r["record"] == "payload.learngene"]
    card = load(first / "learngene.safetensors").deepest.card
    assert {r["name"]: r["shape"] for r in sent} == {
        name: "x".join(map(str, shape)) for name, shape in card.shapes.items()
    }
    assert "no array and no bytes" in (first / "report.html").read_text()


def test_too_few_answers_is_exit_3(
    first: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    import clients.work
    import sim as program
    from conf.schema import read_config

    real = clients.work.run_task

    def one_fails(client: int, *given: Any, **more: Any) -> dict:
        if client == 1:
            raise RuntimeError("planted")
        return real(client, *given, **more)

    monkeypatch.setattr(clients.work, "run_task", one_fails)
    shutil.rmtree(cache / "clients")
    config = read_config(read_results(first / "results.json")["run"]["config"])
    assert program.simulation(config, tmp_path) == program.TOO_FEW_ANSWERS
    results = read_results(tmp_path / "results.json")
    assert results["messages"] | {"asked": 3, "answered": 2, "failed": 1} == results["messages"]
    assert "planted" in results["clients"][1]["error"]
    assert results["summary"]["scratch"]["n"] == 2
    config.runtime.min_answered = 2
    assert program.simulation(config, tmp_path) == program.OK


@pytest.mark.parametrize(
    ("known", "due"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "1"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_soon_sleep_while_they_wait_unless_the_user_says_otherwise(known, due):
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    told = (
        f"print({{n: os.environ[n] for n in {names} if n in os.environ}}, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import os, sys, sim; {told}"],
        env={k: v for k, v in os.environ.items() if k not in names} | known,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"{due} False"  # torch: it reads them when it is imported
