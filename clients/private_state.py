"""What a client keeps to itself between the rounds of a federated training (``Method.private``).

It lies in the cache of the node that the client runs on (of a simulation, the run's), a file a
round: ``cache/private/KEY/NAME-CLIENT-ROUND``, KEY being the training's. Processes come and go, and
a run that was killed goes on from the round before: so no round's file is changed or removed by a
later one, and two runs at once write the same.

That holds up to the round in which a client first fails. What comes after it is this run's alone,
and is never taken up by another: it lies in a folder of the run's own, ``KEY/RUN``, which a
simulation removes when it ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learngene.utils.checkpoint import read_checkpoint, write_checkpoint
from learngene.utils.untrusted import MEBIBYTE

LIMITS = (MEBIBYTE, 256 * MEBIBYTE)  # bytes of a card and of arrays that are read at most


def folder_of(cache: Path, training: str, run: str = "") -> Path:
    """Where a training's files lie; with ``run`` those of that run alone."""
    return cache / "private" / training / run


@dataclass(frozen=True)
class PrivateState:
    """One client's part of one training.

    Args:
        cache: folder of the node's caches.
        training: what the training is known by, 16 hex digits.
        rounds: of the training so far.
        whole: whether every client has answered in all of them.
        parted: the first of them in which one has not; None: ``whole``.
        absent: the clients that have not in that one, a mask in hexadecimal: bit i is client i.
            What lies there of theirs is another run's.
        run: what the run is known by after that, 16 hex digits.
    """

    cache: Path
    name: str
    client: int
    training: str
    rounds: int
    whole: bool
    parted: int | None = None
    run: str = "0" * 16
    absent: str = "0x0"

    def __post_init__(self) -> None:
        """Raises:
        ValueError: the server names a training or a run by what is none of its keys.
        """
        if not all(re.fullmatch("[0-9a-f]{16}", each) for each in (self.training, self.run)):
            raise ValueError("the training's key or the run's is not 16 hex digits")

    @classmethod
    def of(
        cls, card: Mapping[str, Any], cache: Path, name: str, client: int
    ) -> PrivateState | None:
        """Where a method's card says that something is kept; None: nothing is."""
        said = card.get("private")
        return None if said is None else cls(cache, name, client, **said)

    def load(self) -> dict[str, np.ndarray]:
        """What the last round that the client took part in left, by name; empty: it took part in
        none.

        Raises:
            ValueError: it took part, and what it kept is not there, or not whole.
        """
        for number in range(self.rounds, 0, -1):
            if number == self.parted and int(self.absent, 16) >> self.client & 1:
                continue
            there = self._stem(number).with_suffix(".json").exists()
            if there and (arrays := self._read(number)) is not None:
                return arrays
            if there or self.whole:
                lost = f"what this client kept of federated round {number} is"
                raise ValueError(f"{lost} {'damaged' if there else 'gone'}: write resume=false")
        return {}

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what the round under way left.

        Raises:
            OSError: it cannot be written.
        """
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        number = self.rounds + 1
        write_checkpoint(self._stem(number), tensors, {}, of=self._of(number))

    @property
    def is_whole(self) -> bool:
        """Whether what the training's last round left is there and whole."""
        return self.rounds == 0 or self._read(self.rounds) is not None

    def _read(self, number: int) -> dict[str, np.ndarray] | None:
        found = read_checkpoint(self._stem(number), of=self._of(number), limits=LIMITS)
        return found and {name: value.numpy() for name, value in found[0].items()}

    def _of(self, number: int) -> dict[str, Any]:
        return {"training": self.training, "client": self.client, "round": number}

    def _stem(self, number: int) -> Path:
        stem = f"{self.name}-{self.client:06d}-{number:05d}"
        own = self.run if self.parted is not None and number > self.parted else ""
        return folder_of(self.cache, self.training, own) / stem
