"""The clients' phase of a run: every round planned, kept answers found, the rest asked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from learngene.data.dataset import World
from learngene.gene.gene import Learngene
from learngene.methods import Payload
from protocol.plan import plan_round
from protocol.rounds import RoundOutcome, RoundPlan
from protocol.task import FaultOrders, LabelledImages
from runtime.ray_backend import simulate
from runtime.resources import RuntimeSettings, client_device
from strategies.answer_cache import keep_answers
from strategies.learngene import LearngeneStrategy


class Shown(Protocol):
    """Who watches the answers arrive."""

    def reply(self, client: int, ok: bool) -> None: ...


def ask_clients(
    config: Mapping[str, Any],
    world: World,
    gene_of: Callable[[int], Learngene],
    payloads: Mapping[str, Payload],
    labelled: LabelledImages | None,
    *,
    on_note: Callable[[str], None],
    show: Callable[[int], AbstractContextManager[Shown]],
) -> list[RoundOutcome]:
    """Ask every client in every round; an answer of an earlier run that is kept is not asked again.

    Args:
        config: with ``methods`` less those that have failed by now.
        gene_of: the learngene that a round (from 1) sends.
        payloads: what methods send besides, by name.
        labelled: what ``server.labelling`` tells clients, where their images are named ones.
        show: a context for so many answers that are still due.

    Raises:
        InputError, RuntimeError: as ``runtime.ray_backend.simulate``.
    """
    runtime, rounds = RuntimeSettings(**config["runtime"]), config["rounds"]
    device = client_device(runtime)
    with fault_orders(config) as faults:

        @cache  # asked for by the count of kept answers, by the runtime and by the round
        def plan(number: int) -> RoundPlan:
            made = plan_round(config, world, gene_of(number), number, payloads, faults, labelled)
            if config["faults"]:  # every client is asked, so that its fault can strike
                return made
            kept = keep_answers(
                made, number, world.sha256, Path(config["cache"]), device, resume=config["resume"]
            )
            return replace(made, kept=kept)

        strategy = LearngeneStrategy(config["num_clients"], plan)
        asked, found = config["num_clients"] * rounds, strategy.kept(rounds)
        if found:
            on_note(f"{found} of {asked} clients answered in an earlier run: not asked again")
        with show(asked - found) as shown:
            simulate(strategy, rounds, runtime, config["num_clients"], on_reply=shown.reply)
    return strategy.rounds


@contextmanager
def fault_orders(config: Mapping[str, Any]) -> Iterator[FaultOrders | None]:
    """``faults`` as ``clients.faults.armed`` reads it, or None where none is planted.

    Its folder remembers who has been killed once. It lies in the cache, which all workers can
    write to, and is gone when the run is over; a folder that a killed driver leaves behind is empty
    or holds empty files, and nothing ever looks into it again.
    """
    if not config["faults"]:
        yield None
        return
    cache = Path(config["cache"]).absolute()
    cache.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="faults-", dir=cache)
    try:
        yield FaultOrders(tuple(config["faults"]), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
