"""From the answers of the rounds to the rows of ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


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
