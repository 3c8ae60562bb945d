"""What a message weighs, and what a reply says: the only places that trust nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto, recorddict_to_proto

from learngene.utils.untrusted import parse_json
from protocol.guard import inspect
from protocol.keys import ERROR, INFO, METRICS, NODE, TASK
from protocol.reply_schema import (
    CURVES,
    IN_A_ROUND,
    NODE_STATE,
    ReplySchema,
    clean,
    describe,
    to_json,
)
from protocol.task import NO_NUMBERS

Metric = int | float | list[int] | list[float]

UINT64 = 2**64 - 1
MOST = 1e100  # of any number: sums and squares of such are finite
MOST_SECONDS = 1e9
MOST_CLASSES = 100_000  # of a node's own images, as ``learngene.gene.kept`` reads at most
WORLD = "0" * 72  # stands for where a dataset lies (its key is 24 of them) and its images' size
WORKER_DIED = "the worker died while running this client, and again when its work was repeated"
WORKER_STUCK = "the worker was stuck while running this client, and again when it was repeated"
CODES = {code: name for name, code in vars(ErrorCode).items() if isinstance(code, int)}


@dataclass(frozen=True)
class ByteCount:
    """Serialised bytes from the server to the client and back."""

    down: int = 0
    up: int = 0


@dataclass(frozen=True)
class CheckedReply:
    """What a reply holds once checked; ``errors`` is empty when all of it is good."""

    methods: dict[str, dict[str, Metric]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    refused: bool = False  # it held what was not declared or cannot be read: none of it was


def counted(message: Message) -> Message:
    """The message as its bytes are counted: what moves no number has a fixed width.

    Where the dataset lies, how long to wait, which faults are planted, what the device is called
    and in which words a failure is told differ between runs of equal results, as ids do (see
    ``message_bytes``). Of a declared form: a refused reply is to be counted as it is.
    """
    if not message.has_content():
        return message
    content = RecordDict(dict(message.content))
    try:
        if TASK in content:
            task = json.loads(str(content.config_records[TASK]["json"]))
            kept = {name: value for name, value in task.items() if name not in NO_NUMBERS}
            content[TASK] = ConfigRecord({"json": json.dumps({"world": WORLD, **kept})})
        if ERROR in content:
            content[ERROR] = ConfigRecord(dict.fromkeys(content.config_records[ERROR], ""))
        if INFO in content:
            head = content.config_records[INFO]
            info, errors = parse_json(str(head["json"])), parse_json(str(head["errors"]))
            info |= {"device": "cpu"} if "device" in info else {}
            texts = {"json": to_json(info), "errors": to_json(dict.fromkeys(errors, ""))}
            content[INFO] = ConfigRecord({**head, **texts})
    except (KeyError, TypeError, ValueError):  # unreadable: ``read_reply`` names it
        return message
    made = copy(message)
    made.content = content
    return made


def message_bytes(message: Message) -> int:
    """Bytes of the message in Flower's wire format (protobuf).

    Node, run and message ids are random, and protobuf spends 1 to 10 bytes on an integer: they
    are counted at full width, so that equal messages weigh the same in every run and runtime.
    """
    proto = message_to_proto(message)
    proto.metadata.run_id = UINT64
    proto.metadata.src_node_id = UINT64
    proto.metadata.dst_node_id = UINT64
    proto.metadata.message_id = "0" * 36  # a uuid, which Flower fills in when it sends
    # The same, or a digest of 64 digits; tasks are 1 in a simulation of our own, long in Flower's.
    if proto.metadata.reply_to_message_id:
        proto.metadata.reply_to_message_id = "0" * 36
    for task in ("src_task_id", "dst_task_id"):
        if proto.metadata.HasField(task):
            setattr(proto.metadata, task, 1)
    return proto.ByteSize()


def bytes_by_method(message: Message, total: int, prefix: str, methods: Sequence[str]) -> list[int]:
    """What each method alone would have cost: the message less the other methods' records.

    Args:
        message: the message, ``total`` bytes of it (from ``message_bytes``).
        prefix: how the keys of the methods' own records begin.
        methods: the methods, in the order of the result.
    """
    own = {
        key.removeprefix(prefix): record_bytes(key, record)
        for key, record in message.content.items()
        if key.startswith(prefix)
    }
    return [total - sum(own.values()) + own.get(method, 0) for method in methods]


def record_bytes(key: str, record: ArrayRecord | ConfigRecord | MetricRecord) -> int:
    """What a record adds to a message, with its key and framing."""
    return recorddict_to_proto(RecordDict({key: record})).ByteSize()


def reply_bytes(reply: Message | None, methods: Sequence[str]) -> tuple[int, list[int]]:
    """Bytes of a reply, and per method; zeros where there is none or it cannot be serialised.

    An error reply is made up on the server's side, by the runtime: no client sent it.
    """
    nothing = 0, [0] * len(methods)
    if reply is None or reply.has_error():
        return nothing
    try:
        total = message_bytes(reply)
    except (ValueError, TypeError, OverflowError):
        return nothing  # Ray hands over what protobuf refuses, a 65 bit integer for one
    return total, bytes_by_method(reply, total, METRICS, methods)


def array_record(arrays: dict[str, Any]) -> ArrayRecord:
    """Named NumPy arrays as Flower sends them (``.npy`` bytes, never a pickle)."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def read_reply(
    reply: Message, client: int, methods: Sequence[str], schema: ReplySchema
) -> CheckedReply:
    """Check a reply and take it apart. Never raises: whatever is wrong becomes a named error.

    A reply that holds anything but what was declared is refused whole, before it is read. A method
    that is missing, failed, not finite or not as long as it is due is an error and yields no
    numbers; the other methods of the same client keep theirs. A reply that claims another client
    yields none at all.
    """
    try:
        return _read(reply, client, methods, schema)
    except Exception as error:
        return CheckedReply(errors=[f"unreadable reply: {describe(error)}"], refused=True)


def _read(reply: Message, client: int, methods: Sequence[str], schema: ReplySchema) -> CheckedReply:
    if reply.has_error():
        # worker death, lost node, app that could not be loaded: Flower's words, first lines only
        reason = " ".join((reply.error.reason or "no reason given").split())
        for ours in (WORKER_DIED, WORKER_STUCK):
            if ours in reason:
                return CheckedReply(errors=[ours])
        reason = clean(reason, 300)
        return CheckedReply(errors=[f"{CODES.get(reply.error.code, reply.error.code)}: {reason}"])
    content = reply.content
    if problems := schema.problems(content):
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        return CheckedReply(errors=[f"refused: {'; '.join(problems[:3])}{more}"], refused=True)
    if ERROR in content:
        failure = content.config_records[ERROR]
        info = {"traceback": str(failure.get("traceback", ""))}
        return CheckedReply(info=info, errors=[str(failure["reason"]) or "no reason given"])
    head = content.config_records[INFO]
    if head["client"] != client:
        problem = f"the reply claims client {head['client']!r}, its node is client {client}"
        return CheckedReply(errors=[problem])
    info = parse_json(str(head["json"]))
    if (odd := _odd(info)) is not None:
        return CheckedReply(errors=[odd])
    failed = parse_json(str(head["errors"]))
    good: dict[str, dict[str, Metric]] = {}
    errors: list[str] = []
    for method in methods:
        if method in failed:
            errors.append(f"{method}: {failed[method]}")
        elif METRICS + method not in content.metric_records:
            errors.append(f"{method}: no metrics in the reply")
        else:
            metrics = dict(content.metric_records[METRICS + method])
            wrong = [bad for name in metrics if (bad := _not_a_measure(name, metrics[name]))]
            if not metrics:
                wrong = ["no metrics in the reply"]
            if not wrong and schema.arrays:
                wrong = [f"{name} is missing" for name in IN_A_ROUND if name not in metrics]
            if not wrong and method in schema.last_epochs:
                wrong = _not_due(metrics, schema.last_epochs[method])
            if not wrong:
                wrong = _odd_extras(metrics)
            errors.extend(f"{method}: {problem}" for problem in wrong)
            if not wrong:
                good[method] = metrics
    return CheckedReply(good, info, errors)


def _odd(info: dict[str, Any]) -> str | None:
    """What is wrong with what a client says of its images, or None."""
    most = {"train_images": UINT64, "test_images": UINT64, "own_classes": MOST_CLASSES}
    for name, limit in most.items():
        least = 2 if name == "own_classes" else 0
        value = info.get(name, least)
        if type(value) is not int or not least <= value <= limit:
            return f"{name} is {value!r}, a whole number from {least} to {limit} is due"
    classes = info.get("classes", "")
    if not re.fullmatch(r"([0-9]+(,[0-9]+)*)?", str(classes)):
        return "classes are numbers with commas between them, these are not"
    numbers = [int(number) for number in str(classes).split(",") if number]
    if len(set(numbers)) < len(numbers):
        return "it names a class twice"
    names, due = info.get("class_names"), info.get("own_classes")
    if names is not None and (count := len(str(names).split("\n"))) != due:
        return f"class_names are {count}, its own classes are {due}"
    return None


@dataclass(frozen=True)
class NodeAnswer:
    """What a node says of itself."""

    client: int  # its partition
    state: str = ""  # digest of what its answers are made of beside their message


def read_node(reply: Message, *, state: bool = False) -> NodeAnswer:
    """Which client a node says it is, and with ``state`` what its answers are made of.

    Raises:
        ValueError: the reply is an error, or holds anything but that.
    """
    if reply.has_error():
        raise ValueError(clean(" ".join((reply.error.reason or "no reason given").split()), 300))
    entries = inspect(reply.content)
    due = [(NODE, "config", "partition", "int"), (NODE, "config", "state", "str")][: 1 + state]
    if [entry[:4] for entry in entries] != due:
        records = [entry.record for entry in entries][:3]
        raise ValueError(f"refused: {records}, its number was asked for")
    record = reply.content.config_records[NODE]
    said = str(record.get("state", ""))
    if not re.fullmatch(rf"[0-9a-f]{{{NODE_STATE if state else 0}}}", said):
        raise ValueError(f"refused: a state of {len(said):,} characters, {NODE_STATE} digits due")
    return NodeAnswer(int(record["partition"]), said)  # type: ignore[arg-type]


def _not_a_measure(name: str, value: Metric) -> str | None:
    """The problem in words, or None. (MetricRecord itself refuses everything but numbers.)"""
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not math.isfinite(each):
            return f"{name} is {each}, a finite number is due"
    if name == "seconds" and (isinstance(value, list) or not 0 <= value <= MOST_SECONDS):
        return f"seconds is {value}, a time is due"
    large = next((each for each in values if abs(each) > MOST), None)
    return None if large is None else f"{name} is {large}, at most {MOST} is due"


def _not_due(metrics: dict[str, Any], last_epoch: int) -> list[str]:
    """What is wrong with a method's curves: lengths, epochs, ranges. All numbers are finite."""
    if missing := [name for name in (*CURVES, "seconds") if name not in metrics]:
        return [f"{name} is missing" for name in missing]
    if single := [name for name in CURVES if not isinstance(metrics[name], list)]:
        return [f"{name} is no list" for name in single]
    epochs = metrics["epochs"]
    if broken := [each for each in epochs if type(each) is not int or each < 0]:
        return [f"epochs has {broken[0]}, a whole number is due"]
    wrong = [
        f"{name} has {len(metrics[name])} values, epochs {len(epochs)}"
        for name in CURVES
        if len(metrics[name]) != len(epochs)
    ]
    if epochs != sorted(set(epochs)):
        wrong.append("epochs do not rise")
    if not epochs or epochs[-1] != last_epoch:
        wrong.append(f"epochs end at {epochs[-1] if epochs else 'none'}, {last_epoch} is due")
    for name in ("accuracy", "train_accuracy"):
        values = metrics.get(name, [])
        values = values if isinstance(values, list) else [values]
        if outside := [each for each in values if not 0 <= each <= 1]:
            wrong.append(f"{name} is {outside[0]}, 0..1 is due")
    return wrong


def _odd_extras(metrics: Mapping[str, Any]) -> list[str]:
    """What is wrong with the numbers that a method has beside its curves."""
    depth, fell_back = metrics.get("depth", 0), metrics.get("safeguard_fell_back")
    wrong = []
    if type(depth) is not int or depth < 0:
        wrong.append(f"depth is {depth}, a whole number is due")
    for name in ("safeguard_gene", "safeguard_scratch") if fell_back is not None else ():
        if not 0 <= metrics.get(name, -1) <= 1:
            wrong.append(f"{name} is {metrics.get(name)}, 0..1 is due beside safeguard_fell_back")
    return wrong
