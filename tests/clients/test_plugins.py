"""A method of one's own at work: in the message, at the client, and in the keys of what is kept."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, replace

import pytest

from clients.work import run_task
from conf.parts import client_task, pretraining_settings
from conf.schema import Config
from learngene.methods.plugins import describe, load
from protocol.plan import plan_round
from protocol.reply_schema import reply_schema
from runtime.resources import client_device
from server.pretraining import _factory, payload_key
from strategies.answer_cache import cache_key_fields
from tests.clients.helpers import make_task
from tests.helpers import gene_of, with_methods
from tests.stand_ins.hostile_methods import write_hostile
from tests.stand_ins.own_method import here, write_method


@pytest.fixture(scope="module")
def gene(evolved):
    return gene_of(evolved.collective)


def test_it_answers_as_it_is_declared(tmp_path, monkeypatch, tiny_dataset, gene):
    here(monkeypatch, tmp_path)
    write_method(tmp_path, "pixels_c")
    task = make_task(tiny_dataset, gene, methods=["pixels_c"])
    own = {"pixels_c": describe("pixels_c")}
    task = replace(task, own_methods=own, method={**task.method, "pixels_c": {"scale": 0.5}})
    found = run_task(0, 1, task, {})["methods"]["pixels_c"]
    assert found["epochs"] == [0] and 0 <= found["accuracy"][0] <= 1 and found["seconds"] > 0
    flat = {**task.method, "pixels_c": {"scale": 0.0}}  # all classes are equally near
    task = replace(task, method=flat)
    blind = run_task(0, 1, task, {})["methods"]["pixels_c"]
    assert blind["loss"] == [pytest.approx(math.log(3))] and found["loss"] != blind["loss"]
    reply = reply_schema(task)
    assert reply.last_epochs == {"pixels_c": 0}
    assert set(found) <= set(reply.metrics["pixels_c"])


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("pixels_raises", "raise AttributeError('no such thing')",
         "AttributeError: no such thing (pixels_raises.py:5)"),
        ("pixels_leaves", "raise SystemExit(3)", "SystemExit: 3 (pixels_leaves.py:5)"),
        ("pixels_forgets", "pass", "adapt of pixels_forgets returned NoneType, an Outcome is due"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(
    tmp_path, monkeypatch, tiny_dataset, gene, name, body, said
):
    here(monkeypatch, tmp_path)
    source = "from learngene.methods import Method\n\n\ndef adapt(context):\n    {}\n\n\n"
    write_method(
        tmp_path, name, source.format(body) + "METHOD = Method(adapt, training_free=True)\n"
    )
    task = make_task(tiny_dataset, gene, methods=[name, "scratch"])
    found = run_task(0, 1, replace(task, own_methods={name: describe(name)}), {})["methods"]
    assert said in found[name]["error"] and found["scratch"]["accuracy"]


def test_another_file_at_the_worker_is_the_methods_error(tmp_path, monkeypatch, tiny_dataset, gene):
    here(monkeypatch, tmp_path)
    path = write_method(tmp_path, "pixels_d")
    plugin = describe("pixels_d")
    assert load(plugin).training_free
    path.write_text(path.read_text() + "# another\n")
    task = make_task(tiny_dataset, gene, methods=["pixels_d", "scratch"])
    found = run_task(0, 1, replace(task, own_methods={"pixels_d": plugin}), {})["methods"]
    assert "pixels_d is another file here" in found["pixels_d"]["error"]
    assert found["scratch"]["accuracy"]


def test_what_is_kept_hangs_on_the_files_content(tmp_path, monkeypatch, tiny_dataset, gene):
    here(monkeypatch, tmp_path)
    path = write_method(tmp_path, "pixels_e")

    def keys() -> tuple:
        config = Config(cache=str(tmp_path), methods=["scratch", "pixels_e"], budget=100)
        plain = with_methods(asdict(config))
        (plan,) = plan_round(client_task(config, plain, tiny_dataset.path), gene)
        asked = pretraining_settings(config, plain)
        factory = _factory("pixels_e", asked, tiny_dataset)
        made = load(asked.plugins["pixels_e"])
        serial = client_device(None)
        return cache_key_fields(plan, 1, "w", serial), payload_key(factory, asked, made)

    before = keys()
    assert keys() == before
    path.write_text(path.read_text() + "# changed\n")
    monkeypatch.delitem(sys.modules, "pixels_e")  # as in another process
    answers, payload = keys()
    assert answers != before[0] and payload != before[1]


def test_runs_without_one_send_what_they_sent(tiny_dataset, gene, tmp_path):
    config = Config(cache=str(tmp_path))
    task = client_task(config, with_methods(asdict(config)), tiny_dataset.path)
    assert "own_methods" not in plan_round(task, gene)[0].task.to_plain()


def test_hostile_methods_change_no_other_methods_numbers(tmp_path, monkeypatch, tiny_dataset, gene):
    here(monkeypatch, tmp_path)
    hostile = write_hostile(tmp_path, "_a")
    others = ["learngene", "scratch"]
    task = make_task(tiny_dataset, gene, methods=others)
    payloads = {"learngene": gene.arrays}
    alone = run_task(1, 1, task, payloads)["methods"]
    own = {name: describe(name) for name in hostile}
    task = replace(task, methods=(*hostile, *others), own_methods=own)
    beside = run_task(1, 1, task, payloads)["methods"]
    for name in others:
        assert {**beside[name], "seconds": 0} == {**alone[name], "seconds": 0}
    said = {name: each["error"] for name, each in beside.items() if "error" in each}
    assert said.keys() == {"on_the_rest_a"} and "Own: gone (on_the_rest_a.py" in said.popitem()[1]
