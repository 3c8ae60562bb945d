"""Clients' answers, kept as they arrive: a run that was killed asks only those that are missing.

``cache/clients/KEY/client-NNNN.json`` holds one answer. KEY hashes all that the answers of a round
depend on: the message itself (with the dataset's content in the place of its path), the round, the
kind of device, and the libraries; where clients are nodes of their own owners, the node and what it
says of itself, too. How many clients are asked is not in it, nor how they are run, so
forty clients find the answers of the twenty that were asked before. Only good answers are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learngene.utils.checkpoint import key_of, read_card, write_card
from protocol.guard import RecordEntry
from protocol.messages import ByteCount
from protocol.rounds import ClientOutcome, RoundPlan
from protocol.task import NO_NUMBERS

NodeOf = Callable[[int], Mapping[str, Any] | None]
FORMAT = 1  # raise it when clients compute something else of the same message


class AnswerCache:
    """The answers of one round in a folder.

    Args:
        cache: folder of all caches.
        parts: what the answers depend on (``cache_key_fields``).
        resume: False finds nothing, and writes over what is there.
        node_of: what of a client's node its answers depend on besides (``Nodes.state_of``): one
            node's answer is never another's, nor a simulation's. A client whose node is not known
            has none.
    """

    def __init__(
        self,
        cache: Path,
        parts: Mapping[str, Any],
        *,
        resume: bool = True,
        node_of: NodeOf | None = None,
    ) -> None:
        self.folder = cache / "clients" / key_of(parts)
        self._parts, self._resume, self._node_of = parts, resume, node_of
        self._seen: dict[Path, ClientOutcome | None] = {}

    def get(self, client: int) -> ClientOutcome | None:
        """A kept answer; None where none is kept or its file is torn or altered.

        Raises:
            InputError: the file is whole, and is another client's or of other settings.
        """
        of = self._of(client)
        if not self._resume or of is None:
            return None
        path = self._path(client, of)
        if path not in self._seen:
            card = read_card(path, of=of)
            self._seen[path] = None if card is None else _outcome(client, card)
        return self._seen[path]

    def put(self, outcome: ClientOutcome) -> None:
        """Keep an answer, whole or not at all. One with an error is not kept, nor one of a node
        that has changed since it said what its answers are made of.

        Raises:
            OSError: it cannot be written.
        """
        of, said = self._of(outcome.client), outcome.info.get("node")
        if outcome.error is not None or of is None:
            return
        if said is not None and said != of.get("node", {}).get("state"):
            return
        card = {
            "methods": outcome.methods,
            "info": outcome.info,
            "bytes_up": outcome.bytes_up,
            "bytes_up_by_method": {n: t.up for n, t in outcome.bytes_by_method.items()},
            "sent": [list(entry) for entry in outcome.sent],
        }
        write_card(self._path(outcome.client, of), card, of=of)

    def _path(self, client: int, of: Mapping[str, Any]) -> Path:
        folder = self.folder / key_of(of["node"]) if "node" in of else self.folder
        return folder / f"client-{client:04d}.json"

    def _of(self, client: int) -> dict[str, Any] | None:
        own: dict[str, Any] = {}
        if self._node_of is not None:
            node = self._node_of(client)
            if node is None:
                return None
            own = {"node": dict(node)}
        return {**self._parts, "client": client, **own}


def _outcome(client: int, card: Mapping[str, Any]) -> ClientOutcome:
    up = card["bytes_up_by_method"]
    return ClientOutcome(
        client=client,
        replied=True,
        methods=card["methods"],
        info=card["info"],
        bytes_down=0,
        bytes_up=card["bytes_up"],
        bytes_by_method={name: ByteCount(0, up[name]) for name in up},
        sent=tuple(RecordEntry(*entry) for entry in card["sent"]),
        kept=True,
    )


def cache_key_fields(
    plan: RoundPlan, number: int, dataset: str, device: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that the answers of round ``number`` depend on, as plain JSON.

    Args:
        dataset: the dataset's sha256.
        device: where clients compute (``runtime.resources.Federation.device``).
    """
    task = plan.task.to_plain()
    return {
        "format": FORMAT,
        "round": number,
        "world": dataset,
        "task": {name: value for name, value in task.items() if name not in NO_NUMBERS},
        "payloads": {name: _digest(arrays) for name, arrays in plan.payloads.items()},
        "device": dict(device),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    h = hashlib.sha256()
    for name in sorted(arrays):
        h.update(f"{name}{arrays[name].dtype.str}{arrays[name].shape}".encode())
        h.update(np.ascontiguousarray(arrays[name]).tobytes())
    return h.hexdigest()
