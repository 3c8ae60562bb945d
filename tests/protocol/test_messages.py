"""How bytes are counted: equal for runs of equal results, whatever their circumstances."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from protocol.keys import ERROR, INFO, METRICS, TASK
from protocol.messages import WORLD, counted, message_bytes, read_reply, reply_bytes
from protocol.reply_schema import ReplySchema
from protocol.task import ClientTask, FaultOrders
from tests.protocol.helpers import client_task


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower asks whose message it is."""
    for name in ("task_id", "run_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


def sent(**changed: Any) -> Message:
    record = ConfigRecord({"json": client_task(**changed).to_json()})
    return Message(RecordDict({TASK: record}), 7, MessageType.TRAIN, group_id="1")


def reply(device: str = "cpu", error: str = "", **records: Any) -> Message:
    info = {
        "client": 1,
        "json": json.dumps({"classes": "1,2", "device": device}),
        "errors": json.dumps({"scratch": error} if error else {}),
    }
    metrics = MetricRecord({"accuracy": [0.5]})
    made = {METRICS + "learngene": metrics, INFO: ConfigRecord(info), **records}
    return Message(RecordDict(made), 7, MessageType.TRAIN, group_id="1")


def weight(message: Message) -> int:
    return message_bytes(counted(message))


def test_a_task_weighs_the_same_wherever_its_dataset_lies() -> None:
    here = sent(world="/c/worlds/1")
    orders = FaultOrders(("1:raise",), "/some/folder")
    for other in (
        sent(world="/another/longer/päth/worlds/1"),
        sent(world="/c/worlds/1", limit_s=3000.25),
        sent(world="/c/worlds/1", faults=orders),
    ):
        assert message_bytes(other) != message_bytes(here) and weight(other) == weight(here)
    assert weight(sent(world="/c/worlds/1", shots=100)) == weight(here) + 1
    assert message_bytes(sent(world=WORLD)) == weight(sent(world=WORLD))
    # What is sent is what was asked for; only the count is of another.
    assert ClientTask.from_json(here.content.config_records[TASK]["json"]).world == "/c/worlds/1"


def test_a_reply_weighs_the_same_on_every_device_and_in_all_words() -> None:
    plain = reply()
    assert message_bytes(plain) == weight(plain)
    assert weight(reply("cpu, given gpu -1")) == weight(plain)
    assert (
        weight(reply(error="KeyError: x")) == weight(reply(error="OSError: /a/b")) != weight(plain)
    )
    words = [
        {"reason": text, "traceback": 2 * text} for text in ("/a:1 in f", "/other/place:1 in f")
    ]
    raised = [
        Message(RecordDict({ERROR: ConfigRecord(each)}), 7, MessageType.TRAIN) for each in words
    ]
    assert message_bytes(raised[0]) != message_bytes(raised[1])
    assert weight(raised[0]) == weight(raised[1])


def test_what_cannot_be_read_is_counted_as_it_is() -> None:
    for record in ({"json": "no json", "errors": "{}"}, {"json": "[1]", "errors": "{}"}, {}):
        broken = reply(**{INFO: ConfigRecord(record)})
        assert counted(broken) is broken


def test_a_reply_that_protobuf_refuses_has_no_bytes_and_a_mistake_of_ours_is_no_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = reply()
    refused.metadata.__dict__["_dst_node_id"] = 2**64
    assert reply_bytes(refused, ["learngene"]) == (0, [0])
    monkeypatch.setattr("protocol.messages.bytes_by_method", lambda *_: {}["a mistake"])
    with pytest.raises(KeyError, match="a mistake"):
        reply_bytes(reply(), ["learngene"])


def test_a_failure_without_a_reason_is_one() -> None:
    silent = Message(RecordDict({ERROR: ConfigRecord({"reason": "", "traceback": ""})}), 7, "train")
    assert read_reply(silent, 1, ["scratch"], ReplySchema({}, {})).errors == ["no reason given"]
