"""The client's app by itself: what run_task is handed, and what of its answer is sent."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients import client_app as app_module
from clients.client_app import ERROR, INFO, NODE, PAYLOAD, TASK, make_client_app, pack
from protocol.reply_schema import ReplySchema
from protocol.task import ClientTask
from tests.protocol.helpers import client_task


def context(partition: int = 3) -> Context:
    config = {"partition-id": partition, "num-partitions": 5}
    return Context(run_id=1, node_id=9, node_config=config, state=RecordDict(), run_config={})


def message(task: ClientTask, kind: str = MessageType.TRAIN, **arrays: np.ndarray) -> Message:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    content = RecordDict({TASK: ConfigRecord({"json": task.to_json()})})
    if arrays:
        record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        content[PAYLOAD + "learngene"] = record
    return Message(content, dst_node_id=9, message_type=kind, group_id="2")


def made(run_task):
    """An app of this work, which may answer with one number of a method."""
    names = {"learngene": {"accuracy": 0}, "scratch": {"accuracy": 0}, "m": {"x": 0}}
    return make_client_app(run_task, lambda task: ReplySchema(names, {}))


def answer(**methods: dict) -> dict:
    return {"client": 3, "info": {}, "methods": methods}


def test_run_task_is_handed_the_task_and_plain_arrays():
    seen = {}

    def run_task(client, round, task, payloads):
        seen.update(client=client, round=round, task=task, payloads=payloads)
        return answer(learngene={"accuracy": 0.5})

    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    task = client_task(method={"learngene": {"list": [1, None, "a"]}})
    made(run_task)(message(task, weights=weights), context())
    assert (seen["client"], seen["round"], seen["task"]) == (3, 2, task)
    received = seen["payloads"]["learngene"]["weights"]
    assert received.dtype == np.float32 and received.flags.writeable
    np.testing.assert_array_equal(received, weights)


def test_query_gives_the_partition():
    reply = make_client_app()(message(client_task(), MessageType.QUERY), context(4))
    assert reply.content[NODE]["partition"] == 4


def test_default_work_is_imported_when_it_is_needed(monkeypatch):
    stub = types.ModuleType("clients.work")
    stub.run_task = lambda client, round, task, payloads, node: answer(scratch={"accuracy": 1.0})
    monkeypatch.setitem(sys.modules, "clients.work", stub)
    task = client_task(methods=("scratch",))
    reply = app_module.app(message(task), context())
    assert dict(reply.content["metrics.scratch"]) == {"accuracy": 1.0}


def test_lists_keep_integers_and_make_mixtures_floats():
    content = pack(answer(m={"whole": [1, 2], "mixed": [0, 0.5], "none": []}))
    record = dict(content["metrics.m"])
    assert record == {"whole": [1, 2], "mixed": [0.0, 0.5], "none": []}
    assert [type(each) for each in record["mixed"]] == [float, float]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.float32(1), "TypeError: x is float32, a Python int or float is due"),
        (True, "TypeError: x is bool, a Python int or float is due"),
        ("1", "TypeError: x is str, a Python int or float is due"),
        ([1, None], "TypeError: x is NoneType, a Python int or float is due"),
        (2**63, f"ValueError: x is {2**63}, which 64 bits do not hold"),
    ],
)
def test_one_bad_method_spares_the_other(value, error):
    content = pack(answer(bad={"x": value}, good={"x": 1}))
    assert "metrics.bad" not in content and dict(content["metrics.good"]) == {"x": 1}
    assert json.loads(content[INFO]["errors"]) == {"bad": error}


def test_exception_becomes_a_record_with_its_text():
    def run_task(client, round, task, payloads):
        raise FileNotFoundError("dataset is gone")

    reply = made(run_task)(message(client_task()), context())
    assert not reply.has_error()  # Flower's own would bury the text
    assert list(reply.content) == [ERROR]
    assert reply.content[ERROR]["reason"] == "FileNotFoundError: dataset is gone"
    where = reply.content[ERROR]["traceback"].splitlines()
    assert where[-1].endswith(" in run_task") and "gone" not in where[-1]


def test_info_with_nan_is_an_error():
    def run_task(client, round, task, payloads):
        return answer(m={"x": 1}) | {"info": {"loss": float("nan")}}

    reply = made(run_task)(message(client_task()), context())
    assert reply.content[ERROR]["reason"].startswith("ValueError")


@pytest.mark.parametrize("fails", [False, True])
def test_threads_are_set_and_restored(fails):
    seen = []

    def run_task(client, round, task, payloads):
        seen.append(torch.get_num_threads())
        if fails:
            raise ValueError
        return answer(m={"x": 1})

    before = torch.get_num_threads()
    made(run_task)(message(client_task(threads=before + 2)), context())
    assert seen == [before + 2] and torch.get_num_threads() == before
