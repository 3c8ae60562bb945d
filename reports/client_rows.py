"""Clients' answers as the rows of ``results.json`` and ``clients.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learngene.utils.files import write_csv
from learngene.utils.settings import of_client

if TYPE_CHECKING:
    from protocol.messages import ByteCount
    from protocol.rounds import ClientOutcome, RoundOutcome

CURVES = ("accuracy", "loss", "train_loss", "penalty")  # of an answer: a number an epoch


def client_rows(
    answers: Sequence[ClientOutcome],
    shots: int | Sequence[int] | None,
    class_names: Sequence[str],
    federated: Mapping[str, Sequence[RoundOutcome]] | None = None,
) -> list[dict[str, Any]]:
    """One row a client. Accuracy is the last epoch's, never the best one's.

    Args:
        shots: as the configuration has it; None: clients have any number of a class.
        federated: method -> the rounds of its training among the clients, whose bytes and seconds
            are the method's, too.

    Returns:
        Rows of ``reports.schema.Client``, but for a client that answered in part: it has ``error``
        beside the ``methods`` that it did answer (``reports.results.build_results`` decides).
    """
    rows = [_row(answer, shots, class_names) for answer in answers]
    methods = {row["id"]: row["methods"] for row in rows}
    for name, rounds in (federated or {}).items():
        for answer in (each for outcome in rounds for each in outcome.clients):
            if method := methods[answer.client].get(name):
                for field in ("bytes_down", "bytes_up"):
                    method[field] += getattr(answer, field)
                if answer.methods:  # of a round in which it failed nobody knows the seconds
                    method["seconds"] += answer.methods[name]["seconds"]
    return rows


def _row(
    answer: ClientOutcome, shots: int | Sequence[int] | None, class_names: Sequence[str]
) -> dict[str, Any]:
    info = answer.info
    own = int(info.get("own_classes", 0))
    drawn = [int(c) for c in str(info.get("classes", "")).split(",") if c]
    problem = None
    if unknown := [c for c in drawn if c >= len(class_names)]:
        problem = f"refused: it names class {unknown[0]}, the dataset has {len(class_names)}"
    elif answer.methods and not (own or drawn):
        problem = "refused: it names no classes"
    if problem:
        return _row(replace(answer, info={}, methods={}, error=problem), shots, class_names)
    return {
        "id": answer.client,
        "classes": _own_classes(answer.client, own, info)
        if own
        else [class_names[c] for c in drawn],
        "shots": None if own or shots is None else of_client(shots, answer.client),
        "train_images": int(info.get("train_images", 0)),
        "test_images": int(info.get("test_images", 0)),
        "device": str(info.get("device", "")),
        "methods": {
            name: _method(metrics, answer.bytes_by_method[name])
            for name, metrics in answer.methods.items()
        },
        **({"error": answer.error} if answer.error else {}),
    }


def _own_classes(client: int, count: int, info: Mapping[str, Any]) -> list[str]:
    """Names of a node's own classes. Where it does not tell them they say whose they are: class 1
    of two nodes is not the same class."""
    if names := info.get("class_names"):
        return str(names).split("\n")
    return [f"class {number} of client {client}" for number in range(1, count + 1)]


def _method(metrics: Mapping[str, Any], traffic: ByteCount) -> dict[str, Any]:
    epochs = [int(epoch) for epoch in metrics["epochs"]]
    curves = {
        f"{name}_by_epoch": [list(point) for point in zip(epochs, metrics[name], strict=True)]
        for name in CURVES
    }
    further = {n: v for n, v in metrics.items() if n not in (*CURVES, "epochs", "seconds")}
    return {
        "accuracy": metrics["accuracy"][-1],
        "seconds": metrics["seconds"],
        "bytes_down": traffic.down,
        "bytes_up": traffic.up,
        **curves,
        "epochs": epochs[-1],
        **further,
    }


def write_clients_csv(results: Mapping[str, Any], path: Path) -> Path:
    """One row per client, method and recorded epoch; accuracy a fraction, loss in nats.

    Accuracy and loss are joined by epoch: one that was not recorded at an epoch is an empty cell.
    A run of several rounds has a last column ``round``.
    """
    header = ("client", "method", "epoch", "accuracy", "loss")
    rounds = results.get("rounds")
    if not rounds:
        return write_csv(path, chain([header], _curve_rows(results["clients"])))
    rows = (
        (*row, point["round"])
        for point in rounds  # the last one's clients are the run's
        for row in _curve_rows(point.get("clients", results["clients"]))
    )
    return write_csv(path, chain([(*header, "round")], rows))


def _curve_rows(clients: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for client in clients:
        for name, method in client.get("methods", {}).items():
            accuracy = dict(method["accuracy_by_epoch"])
            loss = dict(method.get("loss_by_epoch", []))
            for epoch in sorted(accuracy.keys() | loss.keys()):
                yield client["id"], name, epoch, accuracy.get(epoch), loss.get(epoch)
