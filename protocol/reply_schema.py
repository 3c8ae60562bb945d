"""What a client may send, and nothing else: names, kinds and sizes, known before it starts.

The client holds its own reply against this before it is serialised, and the server holds what
arrives against the same: neither trusts the other. Images do not fit: there are no arrays and no
bytes, lists of numbers are as long as the curves that were asked for, and texts are short and hold
no long run of characters such as encoded data make.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from learngene import methods
from learngene.utils.untrusted import parse_json
from protocol.keys import ERROR, INFO, METRICS, WEIGHTS
from protocol.task import ClientTask

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # type and shape of arrays, by name

CURVES = ("epochs", "accuracy", "loss", "train_loss", "penalty")  # one value a tested epoch
NUMBERS = ("seconds", "train_accuracy")  # a method's ``extra_metrics`` come beside these
IN_A_ROUND = ("images", "loss", "seconds")  # numbers of a federated round

REASON = 500  # characters of a failure's reason
TRACE = 2000  # characters of the places in the code where it happened
DEVICE = 100  # characters
NODE_STATE = 16  # characters of a node's digest of what its answers are made of
DIGITS = 8  # characters of one class in the list of a shard's classes
# Of a node with images of its own: how many classes, and their names where the node tells them.
OF_OWN_IMAGES = {"own_classes": 0, "class_names": 1000}
LONGEST_RUN = 100  # characters without a space or punctuation
WIDTHS = {"float32": 4, "float16": 2, "int8": 1}  # bytes of a number, of all types that travel
NPY_HEADER = 256  # bytes, more than NumPy writes before the numbers of a small shape
# Halves of a character, which no UTF-8 holds; control characters, of which JSON makes six each.
_NO_TEXT = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0e-\x1f\x7f]")
_RUN = re.compile(rf"[A-Za-z0-9+/=_-]{{{LONGEST_RUN + 1},}}")


class UndeclaredError(ValueError):
    """A message that holds what was not declared; it is not sent."""


@dataclass(frozen=True)
class ReplySchema:
    """All that a reply may hold.

    Args:
        metrics: method -> metric -> most values of its list; 0 is a number and no list.
        info: field -> most characters of its text; 0 is a number.
        arrays: key of an ArrayRecord -> its arrays; only in rounds of federated training.
        last_epochs: method -> where its curves end; empty: the answers hold no curves.
    """

    metrics: Mapping[str, Mapping[str, int]]
    info: Mapping[str, int]
    arrays: Mapping[str, Shapes] = field(default_factory=dict)
    last_epochs: Mapping[str, int] = field(default_factory=dict)

    def problems(self, content: RecordDict) -> list[str]:
        """What is in ``content`` and not declared, in words that quote none of it but names."""
        return list(self._problems(content))

    def _problems(self, content: RecordDict) -> Iterator[str]:
        if ERROR in content:
            yield from _texts(content, ERROR, {"reason": REASON, "traceback": TRACE})
        else:
            yield from self._info(content)
        for key, record in content.items():
            if key in (INFO, ERROR) and (key == ERROR or ERROR not in content):
                continue
            method = key.removeprefix(METRICS)
            metrics = self.metrics.get(method) if key.startswith(METRICS) else None
            if isinstance(record, ArrayRecord) and key in self.arrays:
                yield from array_problems(key, record, self.arrays[key])
            elif isinstance(record, MetricRecord) and metrics is not None and ERROR not in content:
                yield from _too_many(key, record, metrics)
            else:
                yield f"{type(record).__name__} {name(key)} was not declared"

    def _info(self, content: RecordDict) -> Iterator[str]:
        longest = sum(len(key) + most + 40 for key, most in self.info.items()) + 2
        errors = len(self.metrics) * (REASON * 2 + 100) + 2  # JSON may escape each character
        wrong = list(_texts(content, INFO, {"json": 2 * longest, "errors": errors}, ("client",)))
        yield from wrong
        if wrong:
            return
        record = content.config_records[INFO]
        fields, failed = parse_json(str(record["json"])), parse_json(str(record["errors"]))
        if not isinstance(fields, dict) or not isinstance(failed, dict):
            yield f"{INFO} holds no fields"
            return
        for key, value in fields.items():
            most = self.info.get(key)
            if most is None:
                yield f"{INFO} field {name(key)} was not declared"
            elif isinstance(value, str):
                yield from too_long(f"{INFO} field {key}", value, most)
            elif not isinstance(value, int | float | None) or not math.isfinite(value or 0):
                yield f"{INFO} field {key} is neither a text nor a finite number"
        for key, value in failed.items():
            if key not in self.metrics or not isinstance(value, str):
                yield f"the error of {name(key)} was not declared"
            else:
                yield from too_long(f"the error of {key}", value, REASON)


def reply_schema(task: ClientTask) -> ReplySchema:
    """What ``clients.work.run_task`` may answer to a task."""
    classes = task.most_ways * DIGITS
    info = {"classes": classes, "train_images": 0, "test_images": 0, "device": DEVICE}
    info["node"] = NODE_STATE  # of a node with images of its own: see clients/node_state.py
    if task.federated is not None:
        return ReplySchema(
            metrics={method: dict.fromkeys(IN_A_ROUND, 0) for method in task.methods},
            info=info,
            arrays={WEIGHTS + method: _weights(task.cards[method]) for method in task.methods},
        )
    every = task.individual.eval_every
    forms = {method: _reply_form(method, task) for method in task.methods}
    ends = {method: _last_epoch(method, form, task) for method, form in forms.items()}
    return ReplySchema(
        metrics={
            method: dict.fromkeys(CURVES, len({0, end, *range(0, end + 1, every)}))
            | dict.fromkeys((*NUMBERS, *forms[method].extra_metrics), 0)
            for method, end in ends.items()
        },
        info=info | OF_OWN_IMAGES,
        last_epochs=ends,
    )


def _weights(card: Mapping[str, Any]) -> Shapes:
    """Arrays that go up in a federated round (``learngene.methods.common.federated.begin``)."""
    return {name: ("float32", tuple(shape)) for name, shape in card["up"].items()}


def _reply_form(method: str, task: ClientTask) -> methods.ReplyForm:
    """A plugin's as the task describes it: its file may be missing here."""
    plugin = task.own_methods.get(method)
    return methods.find(method) if plugin is None else methods.ReplyForm(**plugin["reply"])


def _last_epoch(method: str, form: methods.ReplyForm, task: ClientTask) -> int:
    if form.training_free:
        return 0
    if form.epochs_setting is not None:
        return int(task.method[method][form.epochs_setting])
    return task.individual.epochs


def array_problems(key: str, record: ArrayRecord, due: Shapes) -> Iterator[str]:
    """Arrays of a record that are not exactly the arrays that are due."""
    for missing in sorted(set(due) - set(record)):
        yield f"{key} lacks array {name(missing)}"
    for each, array in record.items():
        if each not in due:
            yield f"{key} array {name(each)} was not declared"
            continue
        kind, shape = due[each]
        if tuple(array.shape) != tuple(shape) or array.dtype != kind:
            yield (
                f"{key} array {name(each)} is {array.dtype} {list(array.shape)[:8]}, "
                f"{kind} {list(shape)} was declared"
            )
        elif len(array.data) > WIDTHS[kind] * math.prod(shape) + NPY_HEADER:
            yield f"{key} array {name(each)} holds more bytes than its shape"


def clean(text: str, most: int) -> str:
    """The text as it may be sent: long runs of characters named by their length, then cut."""
    plain = _NO_TEXT.sub("?", text)
    short = _RUN.sub(lambda found: f"<{len(found[0])} characters left out>", plain)
    return short if len(short) <= most else short[: most - 1] + "…"


def name(text: object) -> str:
    """A foreign name, short enough that it cannot be a message of its own."""
    return repr(clean(str(text), 40))


def _texts(
    content: RecordDict, key: str, texts: Mapping[str, int], integers: tuple[str, ...] = ()
) -> Iterator[str]:
    """Problems of a ConfigRecord that holds these texts and integers and nothing else."""
    record = content.get(key)
    if not isinstance(record, ConfigRecord):
        yield f"{key} is missing"
        return
    for each, value in record.items():
        if each in texts and isinstance(value, str):
            yield from too_long(f"{key}.{each}", value, texts[each], runs=each != "json")
        elif each not in integers or type(value) is not int:
            yield f"{key}.{name(each)[1:-1]} ({type(value).__name__}) was not declared"
    for missing in sorted({*texts, *integers} - set(record)):
        yield f"{key}.{missing} is missing"


def to_json(value: object) -> str:
    """JSON as it crosses, and is counted: a letter is one character in every script.

    Raises:
        TypeError, ValueError: it is not plain JSON (NaN is not).
    """
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def too_long(what: str, text: str, most: int, runs: bool = True) -> Iterator[str]:
    """Why a text may not be sent; nothing where it may."""
    if len(text) > most:
        yield f"{what} has {len(text):,} characters, {most:,} were declared"
    elif _NO_TEXT.search(text):
        yield f"{what} holds characters that are no text"
    elif runs and (found := _RUN.search(text)):
        yield f"{what} holds {len(found[0])} characters in one run, as encoded data do"


def _too_many(key: str, record: MetricRecord, due: Mapping[str, int]) -> Iterator[str]:
    for each, value in record.items():
        count = len(value) if isinstance(value, list) else 0
        if each not in due:
            yield f"{key} metric {name(each)} was not declared"
        elif count > due[each] or (isinstance(value, list) and not due[each]):
            declared = f"{due[each]:,} values were" if due[each] else "a number was"
            yield f"{key} metric {each} is a list of {count:,}, {declared} declared"


def describe(error: BaseException) -> str:
    """``Type: message``, the form in which every failure of a client is named."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")
