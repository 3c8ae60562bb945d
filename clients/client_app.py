"""The micro-institution's Flower app: unpack the message, do the work, send metrics back.

The work itself is ``clients.work.run_task``; this module only translates between Flower's records
and plain Python, and sees to it that whatever goes wrong reaches the server as text.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from logging import getLogger
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients import faults
from clients.node import IN_DRIVER, NodeSettings, is_simulated, private
from clients.node_state import DATA_ROOT, node_state
from clients.timeout import Overdue, time_limit
from learngene.utils.hardware import torch_threads
from protocol.keys import ERROR, INFO, METRICS, NODE, NODE_QUERY, PAYLOAD, TASK, WEIGHTS
from protocol.messages import message_bytes
from protocol.reply_schema import (
    REASON,
    TRACE,
    ReplySchema,
    UndeclaredError,
    clean,
    describe,
    reply_schema,
    to_json,
)
from protocol.task import ClientTask

RunTask = Callable[..., dict[str, Any]]  # (client, round, task, payloads) -> answer
MakeSchema = Callable[[ClientTask], ReplySchema]  # task -> what may be sent

INT64 = 2**63  # protobuf holds no larger integer


def make_client_app(
    run_task: RunTask | None = None, make_schema: MakeSchema = reply_schema
) -> ClientApp:
    """A ClientApp that answers train messages with ``run_task``.

    Args:
        run_task: ``run_task(client, round, task, payloads)`` gives
            ``{"client": int, "info": {...}, "methods": {NAME: {metric: number or list}}}``; a
            method that failed is ``{NAME: {"error": "Type: message"}}``. In a federated round
            ``"arrays": {NAME: {array name: array}}`` besides. None means
            ``clients.work.run_task``.
            It must be importable in a worker: Flower pickles the app with every message, a
            module-level function as its name alone.
        make_schema: ``make_schema(task)`` gives what a reply may hold; anything else is not sent.
    """
    made = ClientApp()
    made.query()(_partition)
    made.query(NODE_QUERY.partition(".")[2])(_node)
    made.train()(partial(_train, run_task, make_schema))
    return made


def end_at_sigterm() -> None:
    """For a worker's start: SIGTERM ends it at once, as SIGKILL does, and its client is repeated.

    Ray would raise SystemExit in whatever runs; an import that is broken off half-way spoils all
    later clients of the process.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def be_ready() -> None:
    """For a worker's start, before there is work: also the imports of its first client."""
    end_at_sigterm()
    import clients.work  # noqa: F401 - brings torch


def _partition(message: Message, context: Context) -> Message:
    """Which client this node is. Node ids are random, so the server has to ask."""
    if "partition-id" not in context.node_config:
        raise ValueError("no partition-id in the node's --node-config")
    record = ConfigRecord({"partition": int(context.node_config["partition-id"])})
    return Message(RecordDict({NODE: record}), reply_to=message)


def _node(message: Message, context: Context) -> Message:
    """As ``_partition``, and what this node's answers are made of."""
    reply = _partition(message, context)
    reply.content.config_records[NODE]["state"] = node_state(context.node_config)
    _log(message, reply, context)
    return reply


def _log(message: Message, reply: Message, context: Context) -> None:
    """One line for the node's owner: what came in and what goes out. Not in a simulation, whose
    clients share a terminal."""
    if is_simulated(context.node_config):
        return
    both = (message, reply)
    said = [f"{message_bytes(each):,} bytes ({', '.join(each.content)})" for each in both]
    getLogger("flwr").info("received %s, sends %s", *said)


def _train(
    run_task: RunTask | None, make_schema: MakeSchema, message: Message, context: Context
) -> Message:
    try:
        task = ClientTask.from_json(str(message.content.config_records[TASK]["json"]))
        content = _answer(run_task, task, message, context)
        if problems := make_schema(task).problems(content):
            raise UndeclaredError(f"not sent: {'; '.join(problems[:3])}")
    # SystemExit too: in a Ray actor it would end the worker, in the serial runtime the whole run.
    except (Exception, SystemExit, ClientOverdue) as error:
        # Flower's own error reply wraps the text in a worker traceback and prints it on the
        # driver; a record keeps type and message, and where it happened for whoever asks.
        reason, where = clean(describe(error), REASON), traceback_locations(error)
        content = RecordDict({ERROR: ConfigRecord({"reason": reason, "traceback": where})})
    reply = Message(content, reply_to=message)
    _log(message, reply, context)
    return reply


class ClientOverdue(Overdue):
    """This client's own time is over; another's alarm, the round's for one, is not its to name."""


def traceback_locations(error: BaseException) -> str:
    """Where it was raised, innermost last: file, line and function, no source and no values."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return clean("\n".join(f"{at.filename}:{at.lineno} in {at.name}" for at in frames), TRACE)


def _answer(
    run_task: RunTask | None, task: ClientTask, message: Message, context: Context
) -> RecordDict:
    if run_task is None:
        # Late: it imports torch, which a query does not need.
        from clients.work import run_task as default_task

        with private("the node's configuration cannot be used"):
            node = NodeSettings.read(context.node_config)
        run_task = partial(default_task, node=node)
    config, round = context.node_config, int(message.metadata.group_id)
    client, in_driver = int(config["partition-id"]), bool(config.get(IN_DRIVER, False))
    if task.faults is not None and not is_simulated(config):
        raise ValueError("planted faults: a real node takes no order to fail, nor a path for it")
    state = node_state(config) if DATA_ROOT in config else None  # before its images are read
    overdue = ClientOverdue(f"not done within {task.limit_s} s (runtime.client_timeout_s)")
    fault = faults.armed(task.faults, client, round, in_driver)
    with torch_threads(task.threads), fault, time_limit(task.limit_s, overdue):
        answer = faults.spoil(run_task(client, round, task, payloads_of(message)))
    if not isinstance(answer, dict):
        raise TypeError(f"run_task returned {type(answer).__name__}, a dict is due")
    if state is not None:
        answer["info"] = {**answer.get("info", {}), "node": state}
    return pack(answer)


def payloads_of(message: Message) -> dict[str, dict[str, Any]]:
    """The arrays that were sent, by method."""
    return {
        key.removeprefix(PAYLOAD): {name: array.numpy() for name, array in record.items()}
        for key, record in message.content.array_records.items()
        if key.startswith(PAYLOAD)
    }


def pack(answer: Mapping[str, Any]) -> RecordDict:
    """An answer as records; a method that failed, or whose metrics Flower refuses, is text.

    Raises:
        TypeError, ValueError: ``info`` is not plain JSON (NaN is not).
    """
    content, errors = RecordDict(), {}
    for method, metrics in answer["methods"].items():
        if "error" in metrics:
            errors[method] = clean(str(metrics["error"]), REASON)
            continue
        try:
            plain = {name: _number_or_list(name, value) for name, value in metrics.items()}
        except (TypeError, ValueError) as error:
            errors[method] = clean(describe(error), REASON)
        else:
            content[METRICS + method] = MetricRecord(plain)
    for method, arrays in answer.get("arrays", {}).items():
        content[WEIGHTS + method] = ArrayRecord({n: Array(array) for n, array in arrays.items()})
    content[INFO] = ConfigRecord(
        {
            "client": int(answer["client"]),
            "json": to_json(answer.get("info", {})),
            "errors": to_json(errors),
        }
    )
    return content


def _number_or_list(name: str, value: Any) -> int | float | list[int] | list[float]:
    if isinstance(value, list):
        numbers = [_number(name, each) for each in value]
        # protobuf wants lists of one type; [0, 0.5] becomes floats, [1, 2] stays integers
        whole = all(isinstance(each, int) for each in numbers)
        return numbers if whole else [float(each) for each in numbers]
    return _number(name, value)


def _number(name: str, value: Any) -> int | float:
    # A NaN passes: naming it is the server's part, which must not trust a client anyway.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {type(value).__name__}, a Python int or float is due")
    if isinstance(value, int) and not -INT64 <= value < INT64:
        raise ValueError(f"{name} is {value}, which 64 bits do not hold")
    return value


app = make_client_app()
