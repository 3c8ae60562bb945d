"""A method of one's own at work: in the message, at the client, and in the keys of what is kept."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from clients.work import run_task
from conf.methods import with_methods
from conf.schema import Config
from learngene.gene.gene import extract
from learngene.methods.plugins import describe, load
from protocol.reply_schema import declared_reply
from protocol.task import plan_round
from runtime.resources import RuntimeSettings, client_device
from server.pretraining import _factory, payload_key
from strategies.answer_cache import answer_parts
from tests.clients.helpers import make_task
from tests.own_method import here, write_method


@pytest.fixture(scope="module")
def gene(evolved):
    return extract(evolved("separable").collective, layers=3, stem_seed=5, rho=[], source={})


def config_of(tmp_path, name: str) -> dict:
    config = asdict(Config(cache=str(tmp_path)))
    config["data"]["clients_from"] = "novel"
    config["methods"] = ["scratch", name]
    return with_methods(config)


def test_it_answers_as_it_is_declared(tmp_path, monkeypatch, tiny_world, gene):
    here(monkeypatch, tmp_path)
    write_method(tmp_path, "pixels_c")
    task = make_task(tiny_world, gene, methods=["pixels_c"])
    task |= {"own_methods": {"pixels_c": describe("pixels_c")}}
    task["method"]["pixels_c"] = {"scale": 0.5}
    found = run_task(0, 1, task, {})["methods"]["pixels_c"]
    assert found["epochs"] == [0] and 0 <= found["accuracy"][0] <= 1 and found["seconds"] > 0
    task["method"]["pixels_c"] = {"scale": 0.0}  # then all classes are equally near
    blind = run_task(0, 1, task, {})["methods"]["pixels_c"]
    assert blind["loss"] == [pytest.approx(math.log(3))] and found["loss"] != blind["loss"]
    reply = declared_reply(task)
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
def test_a_mistake_is_told_with_its_line(tmp_path, monkeypatch, tiny_world, gene, name, body, said):
    here(monkeypatch, tmp_path)
    source = "from learngene.methods import Method\n\n\ndef adapt(context):\n    {}\n\n\n"
    write_method(
        tmp_path, name, source.format(body) + "METHOD = Method(adapt, training_free=True)\n"
    )
    task = make_task(tiny_world, gene, methods=[name, "scratch"])
    found = run_task(0, 1, task | {"own_methods": {name: describe(name)}}, {})["methods"]
    assert said in found[name]["error"] and found["scratch"]["accuracy"]


def test_another_file_at_the_worker_is_the_methods_error(tmp_path, monkeypatch, tiny_world, gene):
    here(monkeypatch, tmp_path)
    path = write_method(tmp_path, "pixels_d")
    plugin = describe("pixels_d")
    assert load(plugin).training_free
    path.write_text(path.read_text() + "# another\n")
    task = make_task(tiny_world, gene, methods=["pixels_d", "scratch"])
    found = run_task(0, 1, task | {"own_methods": {"pixels_d": plugin}}, {})["methods"]
    assert "pixels_d is another file here" in found["pixels_d"]["error"]
    assert found["scratch"]["accuracy"]


def test_what_is_kept_hangs_on_the_files_content(tmp_path, monkeypatch, tiny_world, gene):
    here(monkeypatch, tmp_path)
    path = write_method(tmp_path, "pixels_e")
    serial = RuntimeSettings(name="serial")

    def keys() -> tuple:
        config = config_of(tmp_path, "pixels_e")
        plan = plan_round(config, tiny_world, gene)
        factory = _factory("pixels_e", config, tiny_world, 100)
        made = load(config["own_methods"]["pixels_e"])
        return answer_parts(plan, 1, "w", client_device(serial)), payload_key(factory, config, made)

    before = keys()
    assert keys() == before
    path.write_text(path.read_text() + "# changed\n")
    answers, payload = keys()
    assert answers != before[0] and payload != before[1]


def test_runs_without_one_send_what_they_sent(tiny_world, gene, tmp_path):
    config = with_methods(asdict(Config(cache=str(tmp_path))))
    config["data"]["clients_from"] = "novel"
    assert "own_methods" not in plan_round(config, tiny_world, gene).task
