"""Clients' answers, kept as they arrive: a run that was killed asks only those that are missing.

``cache/clients/KEY/answers-NNNN.jsonl`` holds the answers that one run has added, a line each
(``strategies/kept_lines.py``). What a later file says of a client stands.

KEY hashes all that the answers of a round depend on: the message itself (with the dataset's content
in the place of its path), the round, the kind of device, and the libraries; where clients are nodes
of their own owners, an answer has the node and what it says of itself beside it. How many clients
are asked is not in it, nor how they are run, so forty clients find the answers of the twenty that
were asked before. Only good answers are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learngene.utils.checkpoint import key_of
from learngene.utils.untrusted import MEBIBYTE
from protocol.guard import RecordEntry, same
from protocol.messages import ByteCount
from protocol.rounds import ClientOutcome, RoundPlan
from protocol.task import NO_NUMBERS
from strategies.kept_lines import KeptLines

NodeOf = Callable[[int], Mapping[str, Any] | None]
FORMAT = 2  # raise it when clients compute something else of the same message
LINE_LIMIT = 64 * MEBIBYTE  # bytes of an answer; 10 KB with all methods


class AnswerCache:
    """The answers of one round in a folder.

    Args:
        cache: folder of all caches.
        parts: what the answers depend on (``cache_key_fields``).
        resume: False finds nothing, and writes what then stands in the place of what is there.
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
        self._lines = KeptLines(self.folder, "answers", parts, LINE_LIMIT)
        self._node_of: NodeOf = node_of or (lambda client: {})
        self._found: dict[str, ClientOutcome] | None = None if resume else {}  # by ``_whose``

    def get(self, client: int) -> ClientOutcome | None:
        """A kept answer; None where none is kept or its line is torn or altered.

        Raises:
            InputError: the folder's files are whole, and of other settings.
        """
        if self._found is None:
            self._found = {
                _whose(card["client"], card["node"]): _outcome(card) for card in self._lines.read()
            }
        return self._found.get(_whose(client, self._node_of(client)))

    def put(self, outcome: ClientOutcome) -> None:
        """Keep an answer. One with an error is not kept, nor one of a node that has changed since
        it said what its answers are made of.

        Raises:
            OSError: it cannot be written.
        """
        node, said = self._node_of(outcome.client), outcome.info.get("node")
        if outcome.error is not None or node is None or said not in (None, node.get("state")):
            return
        card = {
            "client": outcome.client,
            "node": dict(node),
            "methods": outcome.methods,
            "info": outcome.info,
            "bytes_up": outcome.bytes_up,
            "bytes_up_by_method": {n: t.up for n, t in outcome.bytes_by_method.items()},
            "sent": [list(entry) for entry in outcome.sent],
        }
        self._lines.append(card)


def _whose(client: int, node: Mapping[str, Any] | None) -> str:
    """Whose an answer is: no kept one is of None, a node that is not known."""
    return json.dumps([client, node], sort_keys=True)


def _outcome(card: Mapping[str, Any]) -> ClientOutcome:
    up = card["bytes_up_by_method"]
    return ClientOutcome(
        client=card["client"],
        replied=True,
        methods=card["methods"],
        info=card["info"],
        bytes_down=0,
        bytes_up=card["bytes_up"],
        bytes_by_method={name: ByteCount(0, up[name]) for name in up},
        sent=tuple(same(RecordEntry(*entry)) for entry in card["sent"]),
        kept=True,
    )


def cache_key_fields(
    plan: RoundPlan, number: int, dataset: str, device: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that the answers of round ``number`` depend on, as plain JSON.

    Args:
        dataset: the dataset's sha256.
        device: where clients compute (``runtime.resources.client_device``).
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
