"""``results.json`` and ``clients.csv``: built in the contract's order, checked, written whole.

The field names are a contract that other programs read: fields are added freely, none is renamed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np

from learngene.open_world.flagged import draw_of
from learngene.utils.files import write_atomically
from learngene.utils.untrusted import RESULTS_LIMIT, read_json
from reports.schema import ORDER, check_results
from reports.statistics import holm, paired_gain, summarise

REFERENCE = "scratch"  # what every other method is compared with
MAIN = "learngene"  # summary.gain is this method's gain over the reference
CIRCUMSTANCES = ("seconds", "device")  # wall-clock, and which of several equal devices was free


def build_results(
    *,
    run: Mapping[str, Any],
    data: Mapping[str, Any],
    collective: Mapping[str, Any] | None,
    criterion: Mapping[str, Any] | None,
    learngene: Mapping[str, Any] | None,
    open_world: Mapping[str, Any] | None,
    clients: Sequence[Mapping[str, Any]],
    messages: Mapping[str, Any],
    methods: Sequence[str] | None = None,
    retain: Mapping[str, Any] | None = None,
    leakage: Mapping[str, Any] | None = None,
    rounds: Sequence[Mapping[str, Any]] | None = None,
    gradcam: Mapping[str, Any] | None = None,
    pretraining: Mapping[str, Any] | None = None,
    federated: Mapping[str, Any] | None = None,
    labelled: Mapping[str, Any] | None = None,
    tuning: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of ``results.json``, plain Python types, keys in the contract's order.

    Args:
        collective, criterion, open_world: None (or every value None) when the run started from a
            saved learngene; they are then null in the file.
        clients: one a client, in any order. One that failed carries ``error`` (a text).
        methods: the run's methods in the order to show them; default: the order in which the
            clients' answers name them.
        retain: settings of the retain loss, kept as ``retain``.
        leakage: result of the leakage guard, kept as ``data.leakage``.
        rounds: the points of the collective's evolution at which clients reconstructed, each
            {round, tasks, known_classes, learngene_bytes, clients}; the last one's clients are
            ``clients``. Kept as ``rounds`` with a summary each when there is more than one.
        gradcam: what ``server.gradcam.compute_gradcam`` saw, kept as ``gradcam`` (null without).
        pretraining: the methods' halves at the factory (``server.pretraining``), likewise.
        federated: the methods' training among the clients (``runtime.federated_rounds``), likewise.
        labelled: which images clients were given names of (``server.labelling``), likewise. Then
            summaries are over its draws: means over a draw's clients are the numbers compared.
        tuning: per method its record of tuning, or null (``reports.tuning``), likewise.

    A client counts as answered when each of the run's methods has a finite accuracy; else it is
    failed: ``error`` says why (a method's own ``error`` is quoted) and its methods are left out,
    so that all methods are summarised over the same clients. A method besides learngene and
    scratch that most clients have no answer of is left out itself, and named with a reason under
    ``methods_left_out``, as are those that failed at the factory or in training among the clients.
    Numbers that are not finite elsewhere (a loss that diverged) are null.
    """
    names = list(methods) if methods is not None else _method_names(clients)
    if "gain" in names:
        raise ValueError("a method cannot be called 'gain': summary.gain is taken")
    lost = _lost(clients, names)
    names = [name for name in names if name not in lost]
    rows = [
        _client(_without(client, names, lost), names)
        for client in sorted(clients, key=lambda c: c["id"])
    ]
    sections = {
        "schema": 1,
        "run": plain(run),
        "data": plain({**data, "leakage": leakage} if leakage is not None else data),
        "collective": _section(collective),
        "criterion": _section(criterion),
        "learngene": _section(learngene),
        "open_world": _section(open_world),
        "clients": rows,
        "summary": _summary(rows, names, labelled["draws"] if labelled else None),
        "messages": plain(messages),
        "gradcam": plain(gradcam),
    }
    if pretraining is not None:
        sections["pretraining"] = plain(pretraining)
        lost = {**pretraining["failed"], **lost}
    if tuning is not None:
        sections["tuning"] = plain(tuning)
    if labelled is not None:
        sections["labelled"] = plain(labelled)
    if federated is not None:
        sections["federated"] = plain(federated)
        lost = {**federated["failed"], **lost}
    if lost:
        sections["methods_left_out"] = plain(lost)
    if retain is not None:
        sections["retain"] = plain(retain)
    if rounds is not None and len(rounds) > 1:
        sections["rounds"] = _rounds(rounds, rows)
    results = {key: _ordered(key, value) for key, value in sections.items()}
    results["run"]["result_sha256"] = result_sha256(results)
    return results


def write_results(results: Mapping[str, Any], path: Path) -> Path:
    """Checks ``results`` against the contract and writes it as valid JSON, whole or not at all."""
    check_results(results)
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())
    return path


def read_results(path: Path) -> dict[str, Any]:
    """Reads and checks a ``results.json``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not JSON, or breaks the contract.
    """
    results = read_json(path, RESULTS_LIMIT)
    check_results(results)
    return results


def comparable(results: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal, bit for bit, between two runs of one configuration.

    ``results`` without ``run`` and, wherever they stand, without ``CIRCUMSTANCES``.
    """
    stripped = _strip({name: value for name, value in results.items() if name != "run"})
    assert isinstance(stripped, dict)
    return stripped


def _strip(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _strip(item) for k, item in value.items() if k not in CIRCUMSTANCES}
    if isinstance(value, list | tuple):
        return [_strip(item) for item in value]
    return value


def result_sha256(results: Mapping[str, Any]) -> str:
    """sha256 over ``comparable(results)``, 64 hex digits; kept as ``run.result_sha256``."""
    text = json.dumps(comparable(results), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_clients_csv(results: Mapping[str, Any], path: Path) -> Path:
    """One row per client, method and recorded epoch; accuracy a fraction, loss in nats.

    Accuracy and loss are joined by epoch: one that was not recorded at an epoch is an empty cell.
    A run of several rounds has a last column ``round``.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    rounds = results.get("rounds")
    header = ["client", "method", "epoch", "accuracy", "loss"]
    writer.writerow([*header, "round"] if rounds else header)
    earlier = [(each["round"], each["clients"]) for each in (rounds or [])[:-1]]
    last = rounds[-1]["round"] if rounds else 1
    for number, clients in [*earlier, (last, results["clients"])]:
        for row in _curve_rows(clients):
            writer.writerow([*row, number] if rounds else row)
    write_atomically(path, text.getvalue().encode())
    return path


def _curve_rows(clients: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for client in clients:
        for name, method in client.get("methods", {}).items():
            accuracy = dict(method["accuracy_by_epoch"])
            loss = dict(method.get("loss_by_epoch", []))
            for epoch in sorted(accuracy.keys() | loss.keys()):
                yield [client["id"], name, epoch, accuracy.get(epoch), loss.get(epoch)]


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: numpy to Python, tuples and sets to lists, NaN and inf to None.

    Raises:
        TypeError: a type that has no JSON form.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):  # sorted: a set's order changes from run to run
        return [plain(item) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"results hold plain values only, got {type(value).__name__}: {value!r}")


def _method_names(clients: Sequence[Mapping[str, Any]]) -> list[str]:
    """Methods in the order in which the clients' answers first name them."""
    answers = (client.get("methods") or {} for client in clients)
    return list(dict.fromkeys(name for methods in answers for name in methods))


def _lost(clients: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """Methods that most clients have no answer of, with a reason: their fault, not the clients'.

    Counted over the clients of which any method answered. Learngene and scratch are what a run is
    about: without them a client has not answered.
    """
    came = [client for client in clients if client.get("methods")]
    lost = {}
    for name in names:
        if name in (MAIN, REFERENCE):
            continue
        without = [c for c in came if (c["methods"].get(name) or {}).get("accuracy") is None]
        if 2 * len(without) > len(came):
            why = without[0]["methods"].get(name, {}).get("error") or without[0].get("error")
            lost[name] = f"failed on {len(without)} of {len(came)} clients: {why}"
    return lost


def _without(
    client: Mapping[str, Any], names: Sequence[str], lost: Mapping[str, str]
) -> Mapping[str, Any]:
    """The client without what a method left out says; ``error`` goes where nothing else failed."""
    answers = client.get("methods") or {}
    if not lost or not answers:
        return client
    kept = {**client, "methods": {name: answers[name] for name in answers if name not in lost}}
    if set(names) <= set(kept["methods"]):
        kept.pop("error", None)
    return kept


def _client(client: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A client's row: with methods when it answered, else with ``error`` and without methods."""
    row = plain(client)
    methods = row.pop("methods", None) or {}
    error = row.pop("error", None)
    if not error:
        answers = {name: methods.get(name) or {} for name in names}
        bad = {name: a.get("error") for name, a in answers.items() if a.get("accuracy") is None}
        error = "; ".join(f"{name}: {why or 'no finite accuracy'}" for name, why in bad.items())
    row = _ordered("client", row)
    if error:
        return {**row, "error": error}
    ordered = {name: _ordered("method", methods[name]) for name in names}
    return {**row, "methods": ordered}


def _rounds(
    rounds: Sequence[Mapping[str, Any]], last: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every round with its summary; scratch, which is asked for in the last one, is the reference
    of all. The last round's clients are the run's and are not kept twice."""
    made = []
    reference = {c["id"]: c["methods"].get(REFERENCE) for c in last if "methods" in c}
    for number, each in enumerate(rounds, start=1):
        row = plain({name: value for name, value in each.items() if name != "clients"})
        names = _method_names(each["clients"]) or [MAIN]  # nobody answered: a mean of nothing
        clients = last if number == len(rounds) else [_client(c, names) for c in each["clients"]]
        paired = [
            {**c["methods"], REFERENCE: reference[c["id"]]}
            if reference.get(c["id"])
            else c["methods"]
            for c in clients
            if "methods" in c
        ]
        row["answered"] = len(paired)
        row["summary"] = {
            name: summarise([methods[name]["accuracy"] for methods in paired]) for name in names
        }
        pairs = [m for m in paired if MAIN in m and REFERENCE in m]
        row["gain"] = paired_gain(*([m[name]["accuracy"] for m in pairs]
                                    for name in (MAIN, REFERENCE))) if pairs else None  # fmt: skip
        if number < len(rounds):
            row["clients"] = clients
        made.append(row)
    return made


def _summary(
    clients: Sequence[Mapping[str, Any]], names: Sequence[str], draws: int | None = None
) -> dict[str, Any]:
    """Per method its accuracy (and gain over scratch) over the clients that answered, or over the
    draws of classes that these share."""
    answered = [client for client in clients if "methods" in client]
    groups = [[client] for client in answered]
    if draws:
        of = {
            draw: [c for c in answered if draw_of(c["id"], draws) == draw] for draw in range(draws)
        }
        groups = [group for group in of.values() if group]
    accuracy = {
        name: [fmean(c["methods"][name]["accuracy"] for c in group) for group in groups]
        for name in names
    }
    summary: dict[str, Any] = {name: summarise(accuracy[name]) for name in names}
    if REFERENCE in names:
        for name in names:
            if name != REFERENCE:
                gain = paired_gain(accuracy[name], accuracy[REFERENCE])
                summary[name]["gain_over_scratch"] = gain
    if MAIN in names:
        _compare(summary, accuracy)
    summary["gain"] = summary.get(MAIN, {}).get("gain_over_scratch")
    return summary


def _compare(summary: dict[str, Any], accuracy: Mapping[str, Sequence[float]]) -> None:
    """Add ``lead`` to every other method: what the learngene gains over it, paired by client, with
    Wilcoxon's p as it is and (``p_holm``) corrected for the number of these comparisons."""
    leads = {name: paired_gain(accuracy[MAIN], accuracy[name]) for name in summary if name != MAIN}
    corrected = holm([lead["p_value"] for lead in leads.values()])
    for (name, lead), p in zip(leads.items(), corrected, strict=True):
        summary[name]["lead"] = {**lead, "p_holm": p}


def _section(section: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The section, or None where it holds nothing: readers then have one case to know."""
    if section is None or all(value is None for value in section.values()):
        return None
    return plain(section)


def _ordered(name: str, section: Any) -> Any:
    """The section with the contract's keys first, in its order; further keys keep theirs."""
    if not isinstance(section, dict):
        return section
    first = [key for key in ORDER.get(name, ()) if key in section]
    return {key: section[key] for key in (*first, *(k for k in section if k not in first))}


class Answer(Protocol):
    """What a strategy keeps of a client (see ``protocol.rounds.ClientOutcome``)."""

    client: int
    methods: dict[str, dict[str, Any]]
    info: dict[str, Any]
    bytes_by_method: Mapping[str, Any]
    error: str | None
    replied: bool
    bytes_down: int
    bytes_up: int
    sent: Sequence[Any]
    refused: bool


class Round(Protocol):
    """What a strategy keeps of a round (see ``protocol.rounds.RoundOutcome``)."""

    @property
    def round(self) -> int: ...
    @property
    def clients(self) -> Sequence[Answer]: ...
    @property
    def who(self) -> Sequence[Any]: ...
    @property
    def down(self) -> Sequence[Any]: ...
    def kept(self) -> int: ...


COUNTS = ("asked", "answered", "failed", "missing", "bytes_down", "bytes_up", "queries")


def message_counts(rounds: Sequence[Round]) -> dict[str, int]:
    """Messages and bytes of all rounds together; refused replies are among the failed."""
    counts = {name: sum(getattr(each, name) for each in rounds) for name in COUNTS}
    return counts | {"refused": sum(c.refused for each in rounds for c in each.clients)}


def client_rows(
    answers: Sequence[Answer],
    shots: int,
    class_names: Sequence[str],
    federated: Mapping[str, Sequence[Round]] | None = None,
) -> list[dict[str, Any]]:
    """One row a client. Accuracy is the last epoch's, never the best one's.

    Args:
        federated: method -> the rounds of its training among the clients, whose bytes and seconds
            are the method's, too.
    """
    rows = [_row(answer, shots, class_names) for answer in answers]
    for name, rounds in (federated or {}).items():
        for row in rows:
            if name in row["methods"]:
                _add_rounds(row["methods"][name], name, rounds, row["id"])
    return rows


def _add_rounds(method: dict[str, Any], name: str, rounds: Sequence[Round], client: int) -> None:
    own = [each for r in rounds for each in r.clients if each.client == client]
    for field in ("bytes_down", "bytes_up"):
        method[field] += sum(getattr(each, field) for each in own)
    # A round in which the client failed has no seconds that anybody knows of.
    method["seconds"] += sum(each.methods[name]["seconds"] for each in own if each.methods)


def _row(answer: Answer, shots: int, class_names: Sequence[str]) -> dict[str, Any]:
    info = answer.info
    classes = [int(c) for c in str(info.get("classes", "")).split(",") if c]
    row: dict[str, Any] = {
        "id": answer.client,
        "classes": [class_names[c] for c in classes],
        "shots": shots,
        "train_images": int(info.get("train_images", 0)),
        "test_images": int(info.get("test_images", 0)),
        "device": str(info.get("device", "")),
        "methods": {
            name: _method(metrics, answer.bytes_by_method[name])
            for name, metrics in answer.methods.items()
        },
    }
    if answer.error:
        row["error"] = answer.error
    return row


def _method(metrics: Mapping[str, Any], traffic: Any) -> dict[str, Any]:
    epochs = [int(e) for e in metrics["epochs"]]

    def curve(name: str) -> list[list[float]]:
        return [[epoch, value] for epoch, value in zip(epochs, metrics[name], strict=True)]

    known = {"epochs", "accuracy", "loss", "train_loss", "penalty", "seconds"}
    return {
        "accuracy": metrics["accuracy"][-1],
        "accuracy_by_epoch": curve("accuracy"),
        "loss_by_epoch": curve("loss"),
        "train_loss_by_epoch": curve("train_loss"),
        "penalty_by_epoch": curve("penalty"),
        "epochs": epochs[-1],
        "seconds": metrics["seconds"],
        "bytes_down": traffic.down,
        "bytes_up": traffic.up,
        **{name: value for name, value in metrics.items() if name not in known},
    }
