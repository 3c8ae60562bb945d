"""No data interaction: images are planted in messages, and refused wherever they are hidden."""

from __future__ import annotations

import base64
import csv
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.client_app import make_client_app, pack
from learngene.adaptation.settings import IndividualSettings
from protocol.guard import MessageSchema, RecordEntry, inspect
from protocol.keys import ERROR, INFO, METRICS, PAYLOAD, TASK
from protocol.messages import counted, message_bytes, read_reply
from protocol.plan import plan_round
from protocol.reply_schema import CURVES, ReplySchema, UndeclaredError, reply_schema
from protocol.task import ClientTask, FaultOrders
from reports.traffic import statement, traffic_summary, write_messages_csv
from runtime.ray_backend import simulate
from runtime.resources import RuntimeSettings
from strategies.answer_cache import AnswerCache
from strategies.learngene import LearngeneStrategy, RoundOutcome, RoundPlan
from tests.helpers import gene_of
from tests.protocol.helpers import client_task, query_bytes
from tests.runtime import curve_work, fake_work

TASK_OF_CURVES = client_task()
REPLY = reply_schema(TASK_OF_CURVES)
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)  # one private image
TEXT = base64.b64encode(IMAGE.tobytes()).decode()


def good(client: int = 0) -> RecordDict:
    return pack(curve_work.run_task(client, 1, TASK_OF_CURVES, {}))


def info(content: RecordDict, **fields: Any) -> None:
    record = content.config_records[INFO]
    record["json"] = json.dumps(json.loads(str(record["json"])) | fields)


def array_record(content: RecordDict) -> None:
    content["images"] = ArrayRecord({"x": Array(IMAGE)})


def array_record_as_metrics(content: RecordDict) -> None:
    content[METRICS + "scratch"] = ArrayRecord({"accuracy": Array(IMAGE)})


def array_record_as_payload(content: RecordDict) -> None:
    content[PAYLOAD + "learngene"] = ArrayRecord({"x": Array(IMAGE.astype(np.float32))})


def bytes_in_info(content: RecordDict) -> None:
    content.config_records[INFO]["image"] = IMAGE.tobytes()


def bytes_for_a_text(content: RecordDict) -> None:
    content.config_records[INFO]["json"] = IMAGE.tobytes()


def list_of_floats(content: RecordDict) -> None:
    content.metric_records[METRICS + "scratch"]["pixels"] = [float(x) for x in IMAGE.flat]


def curve_too_long(content: RecordDict) -> None:
    content.metric_records[METRICS + "scratch"]["loss"] = [float(x) for x in IMAGE.flat]


def list_for_a_number(content: RecordDict) -> None:
    content.metric_records[METRICS + "scratch"]["seconds"] = [0.5, 0.25]


def no_list_for_a_number(content: RecordDict) -> None:
    content.metric_records[METRICS + "scratch"]["seconds"] = []


def half_a_character(content: RecordDict) -> None:
    info(content, device="\ud800")


def infinity(content: RecordDict) -> None:
    content.config_records[INFO]["json"] = '{"device": 1e999}'


def further_metrics(content: RecordDict) -> None:
    content[METRICS + "images"] = MetricRecord({"accuracy": 0.5})


def base64_in_a_field(content: RecordDict) -> None:
    info(content, device=TEXT)


def base64_in_a_piece(content: RecordDict) -> None:
    info(content, device=TEXT[:101])


def base64_in_a_new_field(content: RecordDict) -> None:
    info(content, note=TEXT[:40])


def list_in_a_field(content: RecordDict) -> None:
    info(content, device=IMAGE.flatten().tolist()[:20])


def base64_in_an_error(content: RecordDict) -> None:
    content.config_records[INFO]["errors"] = json.dumps({"scratch": f"ValueError: {TEXT}"})


def base64_as_a_name(content: RecordDict) -> None:
    content.metric_records[METRICS + "scratch"][TEXT] = 1.0


def base64_in_the_reason(content: RecordDict) -> None:
    content.clear()
    content[ERROR] = ConfigRecord({"reason": TEXT, "traceback": ""})


def base64_in_the_traceback(content: RecordDict) -> None:
    content.clear()
    content[ERROR] = ConfigRecord({"reason": "ValueError", "traceback": TEXT[:1500]})


def array_beside_an_error(content: RecordDict) -> None:
    content.clear()
    content[ERROR] = ConfigRecord({"reason": "ValueError", "traceback": ""})
    array_record(content)


PLANTED = {
    array_record: "ArrayRecord 'images' was not declared",
    array_record_as_metrics: "ArrayRecord 'metrics.scratch' was not declared",
    array_record_as_payload: "ArrayRecord 'payload.learngene' was not declared",
    bytes_in_info: "info.image (bytes) was not declared",
    bytes_for_a_text: "info.json (bytes) was not declared",
    list_of_floats: "metrics.scratch metric 'pixels' was not declared",
    curve_too_long: "metrics.scratch metric loss is a list of 3,072, 3 values were declared",
    no_list_for_a_number: "metrics.scratch metric seconds is a list of 0, a number was declared",
    half_a_character: "info field device holds characters that are no text",
    infinity: "info field device is neither a text nor a finite number",
    list_for_a_number: "metrics.scratch metric seconds is a list of 2, a number was declared",
    further_metrics: "MetricRecord 'metrics.images' was not declared",
    base64_in_a_field: "info.json has 4,",
    base64_in_a_piece: "info field device has 101 characters, 100 were declared",
    base64_in_a_new_field: "info field 'note' was not declared",
    list_in_a_field: "info field device is neither a text nor a finite number",
    base64_in_an_error: "info.errors has 4,",
    base64_as_a_name: "metric '<4096 characters left out>' was not declared",
    base64_in_the_reason: "error.reason has 4,096 characters, 500 were declared",
    base64_in_the_traceback: "error.traceback holds 1500 characters in one run",
    array_beside_an_error: "ArrayRecord 'images' was not declared",
}
plants = pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)


def message(content: RecordDict | None = None) -> Message:
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    task = RecordDict({TASK: ConfigRecord({"json": TASK_OF_CURVES.to_json()})})
    return Message(content or task, dst_node_id=9, message_type="train", group_id="1")


@plants
def test_the_server_takes_in_no_image(plant):
    content = good()
    assert read_reply(Message(good(), reply_to=message()), 0, ["scratch"], REPLY).errors == []
    plant(content)
    answer = read_reply(Message(content, reply_to=message()), 0, ["learngene", "scratch"], REPLY)
    assert answer.refused and answer.methods == {} == answer.info
    (error,) = answer.errors
    assert error.startswith("refused: ") and PLANTED[plant] in error
    assert TEXT[:30] not in error and len(error) < 400  # a refusal quotes nothing of it


def answer(**changed: Any) -> dict[str, Any]:
    made = curve_work.run_task(0, 1, TASK_OF_CURVES, {})
    made["methods"]["scratch"] |= changed.pop("scratch", {})
    made["methods"] |= changed.pop("methods", {})
    return made | changed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (answer(scratch={"pixels": IMAGE.flatten().tolist()}), "metric 'pixels'"),
        (answer(scratch={"loss": IMAGE.flatten().tolist()}), "3,072, 3 values"),
        (answer(methods={"images": {"accuracy": 1.0}}), "'metrics.images'"),
        (answer(info={"device": TEXT}), "info.json has"),
        (answer(info={"image": 1}), "info field 'image'"),
    ],
)
def test_the_client_sends_no_image(given, words):
    """It looks at its own reply first: nothing of it is ever serialised."""
    context = Context(1, 9, {"partition-id": 0}, RecordDict(), {})
    reply = make_client_app(lambda *_: given)(message(), context)
    assert list(reply.content) == [ERROR]
    reason = str(reply.content[ERROR]["reason"])
    assert reason.startswith("UndeclaredError: not sent: ") and words in reason
    assert inspect(reply.content)[0].bytes < 500


def test_an_exception_that_holds_data_is_cut():
    """``could not convert string to float: '...'`` would carry its image along."""

    def run_task(*_: Any) -> None:
        raise ValueError(f"could not read {TEXT} and {IMAGE.tolist()}")

    context = Context(1, 9, {"partition-id": 0}, RecordDict(), {})
    reply = make_client_app(run_task)(message(), context)
    reason = str(reply.content[ERROR]["reason"])
    assert "<4096 characters left out>" in reason and len(reason) <= 500
    assert REPLY.problems(reply.content) == []
    failed = pack(answer(methods={"scratch": {"error": f"ValueError: {TEXT}"}}))
    assert REPLY.problems(failed) == [] and TEXT[:200] not in str(failed[INFO]["errors"])


def leaky(planted: dict[int, Any]) -> ClientApp:
    """An app that guards nothing: what a tampered client would send."""
    made = ClientApp()

    @made.query()
    def who(asked: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        return Message(RecordDict({"node": ConfigRecord({"partition": number})}), reply_to=asked)

    @made.train()
    def train(asked: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        content = good(client)
        planted.get(client, lambda content: None)(content)
        return Message(content, reply_to=asked)

    return made


@pytest.fixture(scope="module")
def tampered() -> list[RoundOutcome]:
    """Client 0 is honest; the others send an image each, in every way that travels."""
    plans = RoundPlan(TASK_OF_CURVES, schema=MessageSchema({}, REPLY))
    hidden = dict(enumerate(PLANTED, start=1))
    strategy = LearngeneStrategy(1 + len(hidden), lambda _: [plans])
    simulate(strategy, 1, RuntimeSettings("serial"), 1 + len(hidden), client_app=leaky(hidden))
    return strategy.rounds


def test_in_a_run_they_are_that_clients_failures(tampered):
    (found,) = tampered
    assert (found.answered, found.failed) == (1, len(PLANTED))
    for outcome, words in zip(found.clients[1:], PLANTED.values(), strict=True):
        assert outcome.refused and outcome.methods == {} and words in outcome.error
    assert found.clients[0].bytes_up > 0 and not found.clients[0].refused


@pytest.mark.parametrize(
    "text", ['{"device": NaN}', '{"device": ' + "[" * 1400 + "]" * 1400 + "}", '{"device":']
)
def test_a_reply_that_cannot_be_parsed_ends_nobodys_run(text, tmp_path):
    def plant(content: RecordDict) -> None:
        content.config_records[INFO]["json"] = text
        content[TASK] = ConfigRecord({"json": "[]"})

    kept = AnswerCache(tmp_path, {})
    plans = RoundPlan(TASK_OF_CURVES, schema=MessageSchema({}, REPLY), kept=kept)
    strategy = LearngeneStrategy(2, lambda _: [plans])
    simulate(strategy, 1, RuntimeSettings("serial"), 2, client_app=leaky({0: plant}))
    (found,) = strategy.rounds
    assert found.clients[0].refused and "unreadable reply: " in str(found.clients[0].error)
    assert found.clients[1].error is None


def test_names_in_every_script_are_as_long_as_they_are():
    names = "\n".join(["北京 🦊"] * 180)
    own = pack(answer(info={"own_classes": 180, "class_names": names}))
    assert REPLY.problems(own) == []
    reply = Message(own, reply_to=message())
    assert read_reply(reply, 0, ["scratch"], REPLY).info["class_names"] == names
    assert message_bytes(counted(reply)) == message_bytes(reply)
    cut = pack(answer(methods={"scratch": {"error": "\x1b[31m\udc80" * 80}}))
    assert REPLY.problems(cut) == [] and "?[31m?" in str(cut[INFO]["errors"])


def test_messages_csv_lists_all_that_crossed_and_none_of_its_values(tampered, tmp_path):
    path = write_messages_csv(tampered, tmp_path / "messages.csv")
    rows = list(csv.DictReader(path.open()))
    keys = [(int(r["round"]), r["direction"], int(r["client"]), r["record"]) for r in rows]
    assert keys == sorted(keys)
    whole = [r for r in rows if r["kind"] == "message" and r["round"] == "1"]
    (found,) = tampered
    for direction, total in (("down", found.bytes_down), ("up", found.bytes_up)):
        assert sum(int(r["bytes"]) for r in whole if r["direction"] == direction) == total
    mine = [r for r in rows if (r["round"], r["direction"], r["client"]) == ("1", "up", "0")]
    assert {r["verdict"] for r in mine} == {"ok"}
    assert {(r["record"], r["kind"], r["name"], r["dtype"], r["shape"]) for r in mine} >= {
        ("metrics.scratch", "metric", "accuracy", "float", "3"),
        ("metrics.scratch", "metric", "epochs", "int", "3"),
        ("metrics.scratch", "metric", "seconds", "float", ""),
        ("info", "config", "json", "str", ""),
    }
    (image,) = (r for r in rows if r["record"] == "images" and r["client"] == "1")
    assert image["verdict"] == "refused"
    assert (image["dtype"], image["shape"]) == ("uint8", "32x32x3")
    assert TEXT[:100] not in path.read_text()
    questions = [r for r in rows if r["round"] == "0"]
    assert {r["record"] for r in questions} == {"", "node"}
    assert sum(int(r["bytes"]) for r in questions if not r["record"]) == query_bytes(found)


def test_the_file_is_the_same_in_every_run(tampered, tmp_path):
    hidden = dict(enumerate(PLANTED, start=1))
    plans = RoundPlan(TASK_OF_CURVES, schema=MessageSchema({}, REPLY))
    again = LearngeneStrategy(1 + len(hidden), lambda _: [plans])
    simulate(again, 1, RuntimeSettings("serial"), 1 + len(hidden), client_app=leaky(hidden))
    first, second = (
        write_messages_csv(rounds, tmp_path / name).read_bytes()
        for rounds, name in ((tampered, "a.csv"), (again.rounds, "b.csv"))
    )
    assert first == second


def test_the_summary_counts_refused_matter_by_itself(tampered):
    rows = traffic_summary(tampered)
    assert [r["messages"] for r in rows if (r["record"], r["direction"]) == ("task", "down")] == [
        1 + len(PLANTED)
    ]
    refused = [r for r in rows if r["refused"]]
    assert {r["kind"] for r in refused} == {"array", "config", "metric"}
    assert "no array and no bytes" in statement(rows)
    weights = {"direction": "up", "record": "weights", "kind": "array", "refused": False}
    assert "Up went arrays, as declared: weights." in statement([weights])


GENE = {"w": np.zeros((4, 3), np.float32), "b": np.zeros(3, np.float32)}


def sent(plan: RoundPlan) -> None:
    strategy = LearngeneStrategy(2, lambda _: [plan])
    try:
        simulate(strategy, 1, RuntimeSettings("serial"), 2, client_app=fake_work.app)
    finally:
        done = strategy.finish_round()
        assert done is None or not any(each.replied for each in done.clients)


@dataclass(frozen=True, kw_only=True)
class LeakyTask(ClientTask):
    """A task that says more than it may."""

    more: dict[str, Any]

    def to_json(self) -> str:
        plain = self.to_plain()
        return json.dumps(plain | plain.pop("more", {}))


@pytest.mark.parametrize(
    ("task", "gene", "words"),
    [
        ({}, GENE | {"images": IMAGE}, "payload.learngene array 'images' was not declared"),
        ({}, {"w": GENE["w"]}, "payload.learngene lacks array 'b'"),
        ({}, GENE | {"w": np.zeros((4, 4), np.float32)}, r"'w' is float32 \[4, 4\]"),
        ({}, GENE | {"w": np.zeros((4, 3), np.float64)}, r"'w' is float64 \[4, 3\]"),
        ({"images": IMAGE.tolist()}, GENE, "task field 'images' was not declared"),
        ({"method": {"x": [TEXT] * 20}}, GENE, "task has 8.* characters, 65,536 are allowed"),
    ],
)
def test_the_server_sends_nothing_undeclared(task, gene, words):
    """The run ends with the error, and no client has been called."""
    whole = fake_work.plan(fake_work.fake_task(), {"learngene": GENE})
    leaky = LeakyTask(**vars(whole.task), more=task)
    changed = RoundPlan(leaky, {"learngene": gene}, schema=whole.schema)
    with pytest.raises(UndeclaredError, match=f"refused to send to clients: .*{words}"):
        sent(changed)


def test_bytes_hidden_behind_a_small_shape():
    array = Array("float32", (3,), "numpy.ndarray", Array(IMAGE.astype(np.float32)).data)
    content = RecordDict({PAYLOAD + "learngene": ArrayRecord({"b": array})})
    schema = MessageSchema({"learngene": {"b": ("float32", (3,))}}, REPLY)
    assert schema.problems(content) == [
        "payload.learngene array 'b' holds more bytes than its shape"
    ]
    content[TASK] = ConfigRecord({"json": "{}", "image": IMAGE.tobytes()})
    assert schema.problems(content)[1:] == ["task holds more than its JSON"]


def test_a_declared_array_may_come_up():
    """What a method of weight averaging would declare."""
    due = {"weights": {"w": ("float32", (4, 3))}}
    schema = ReplySchema(REPLY.metrics, REPLY.info, due)
    content = good()
    content["weights"] = ArrayRecord({"w": Array(GENE["w"])})
    assert schema.problems(content) == []
    content["weights"] = ArrayRecord({"w": Array(GENE["w"]), "image": Array(IMAGE)})
    assert schema.problems(content) == ["weights array 'image' was not declared"]


def test_the_real_plan_and_the_real_answer_are_declared(tiny_dataset, evolved):
    from clients.work import run_task
    from conf.parts import client_task as tasks_of
    from conf.schema import Config
    from protocol.messages import array_record as record
    from tests.helpers import with_methods

    gene = gene_of(evolved.collective)
    config = Config(
        cache="", ways=3, shots=5, individual=IndividualSettings(epochs=3, eval_every=2)
    )
    plain = with_methods(asdict(config))
    task = replace(tasks_of(config, plain, tiny_dataset.path), faults=FaultOrders((), ""))
    (plan,) = plan_round(task, gene)
    content = RecordDict(
        {
            TASK: ConfigRecord({"json": plan.task.to_json()}),
            PAYLOAD + "learngene": record(plan.payloads["learngene"]),
        }
    )
    assert plan.schema.problems(content) == []
    reply = pack(run_task(1, 1, plan.task, plan.payloads))
    assert plan.schema.reply.problems(reply) == []
    read = read_reply(Message(reply, reply_to=message()), 1, plan.methods, plan.schema.reply)
    assert read.errors == [] and read.methods["learngene"]["epochs"] == [0, 2, 3]
    # The declaration comes from the card: other arrays do not declare themselves.
    tampered = dict(gene.arrays) | {"images": IMAGE.astype(np.float32)}
    content[PAYLOAD + "learngene"] = record(tampered)
    assert plan.schema.problems(content) == ["payload.learngene array 'images' was not declared"]


CURVE = {name: [0.5, 0.5, 0.5] for name in CURVES} | {"epochs": [0, 1, 2], "seconds": 1.0}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({}, None),
        ({"accuracy": [0.5, 0.5]}, "accuracy has 2 values, epochs 3"),
        ({"loss": []}, "loss has 0 values, epochs 3"),
        ({"epochs": [0, 2, 1]}, "epochs do not rise; scratch: epochs end at 1, 2 is due"),
        ({"epochs": [0, 0, 2]}, "epochs do not rise"),
        ({"epochs": [0, 1, 3]}, "epochs end at 3, 2 is due"),
        ({name: [] for name in CURVES}, "epochs end at none, 2 is due"),
        ({"accuracy": [0.5, 0.5, 1.5]}, "accuracy is 1.5, 0..1 is due"),
        ({"accuracy": 0.5}, "accuracy is no list"),
        ({"train_accuracy": -0.1}, "train_accuracy is -0.1, 0..1 is due"),
        ({"seconds": -1.0}, "seconds is -1.0, a time is due"),
        ({"seconds": 1.7e308}, "seconds is 1.7e+308, a time is due"),
        ({"loss": [0.5, -1e300, 0.5]}, "loss is -1e+300, at most 1e+100 is due"),
        ({"epochs": [-1, 1, 2]}, "epochs has -1, a whole number is due"),
        ({"epochs": [0.0, 0.5, 2.0]}, "epochs has 0.0, a whole number is due"),
    ],
)
def test_curves_that_are_not_due(changed, problem):
    metrics = CURVE | changed
    content = pack({"client": 0, "info": {}, "methods": {"scratch": metrics}})
    answer = read_reply(Message(content, reply_to=message()), 0, ["scratch"], REPLY)
    assert "; ".join(answer.errors) == ("" if problem is None else f"scratch: {problem}")
    assert ("scratch" in answer.methods) == (problem is None)


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"depth": 7}, None),
        ({"depth": -1}, "depth is -1, a whole number is due"),
        ({"depth": 2.5}, "depth is 2.5, a whole number is due"),
        ({"safeguard_fell_back": 0, "safeguard_gene": 0.5, "safeguard_scratch": 0.4}, None),
        ({"safeguard_fell_back": 0, "safeguard_gene": 0.5}, "safeguard_scratch is None, 0..1 is"),
        ({"safeguard_fell_back": 1, "safeguard_gene": 2, "safeguard_scratch": 0}, "gene is 2, 0.."),
    ],
)
def test_numbers_beside_the_curves_that_are_not_due(extra, problem):
    """What reports refuse, or cannot be made of, is the client's error before it is kept."""
    declared = dict.fromkeys(CURVES, 3) | dict.fromkeys(("seconds", *extra), 0)
    schema = ReplySchema({"scratch": declared}, {}, last_epochs={"scratch": 2})
    content = pack({"client": 0, "info": {}, "methods": {"scratch": CURVE | extra}})
    answer = read_reply(Message(content, reply_to=message()), 0, ["scratch"], schema)
    assert (problem or "") in "; ".join(answer.errors) and bool(answer.errors) == bool(problem)


def test_a_metric_that_is_missing():
    metrics = {name: value for name, value in CURVE.items() if name != "penalty"}
    content = pack({"client": 0, "info": {}, "methods": {"scratch": metrics}})
    answer = read_reply(Message(content, reply_to=message()), 0, ["scratch"], REPLY)
    assert answer.errors == ["scratch: penalty is missing"]


def test_entries_are_plain_values():
    """They can be kept as JSON with an answer and written to the same file later."""
    found = inspect(good())
    assert [RecordEntry(*each) for each in json.loads(json.dumps(found))] == list(found)
