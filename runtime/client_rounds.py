"""The clients' phase of a run: every round planned, kept answers found, the rest asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from clients.cohort import trained_together
from learngene.gene.gene import Learngene
from learngene.methods import Payload
from learngene.utils.files import temporary_name
from protocol.callbacks import SILENT, RunCallback
from protocol.plan import plan_round
from protocol.rounds import RoundOutcome, RoundPlan
from protocol.task import ClientTask, FaultOrders
from runtime.batched_backend import cohort_size
from runtime.ray_backend import simulate
from runtime.resources import Federation
from strategies.answer_cache import AnswerCache, cache_key_fields
from strategies.learngene import LearngeneStrategy


def run_client_rounds(
    task: ClientTask,
    dataset_sha256: str,
    gene_of: Callable[[int], Learngene],
    payloads: Mapping[str, Payload],
    federation: Federation,
    *,
    rounds: int = 1,
    precision: str = "fp32",
    payload_precision: str = "fp32",
    faults: Sequence[str] = (),
    callback: RunCallback = SILENT,
) -> list[RoundOutcome]:
    """Ask every client in every round; an answer of an earlier run that is kept is not asked again.

    Args:
        task: what all rounds have in common, without the methods that have failed by now.
        dataset_sha256: content of the dataset, which kept answers depend on.
        gene_of: the learngene that a round (from 1) sends.
        payloads: what methods send besides, by name.
        precision, payload_precision: see ``protocol.plan.plan_round``.
        faults: CLIENT:KIND, planted on purpose.

    Raises:
        InputError, RuntimeError: as ``runtime.ray_backend.simulate``.
    """
    device, clients = federation.device(), federation.num_clients
    cohort = cohort_size(federation.runtime, clients)
    if cohort > 1:  # sums in another order: other answers
        device["kernels"] = "shared"
    with fault_orders(faults, federation.cache) as orders:

        @cache  # asked for by the count of kept answers, by the runtime and by the round
        def plans(number: int) -> list[RoundPlan]:
            made = plan_round(
                replace(task, faults=orders),
                gene_of(number),
                number,
                payloads,
                rounds=rounds,
                precision=precision,
                payload_precision=payload_precision,
            )
            if faults:  # every client is asked, so that its fault can strike
                return made
            of = {id(plan): replace(plan, kept=answers(plan, number)) for plan in made}
            return [of[id(plan)] for plan in made]

        def answers(plan: RoundPlan, number: int) -> AnswerCache:
            fields = cache_key_fields(plan, number, dataset_sha256, device)
            # What an individual is kept of has to be trained here and now.
            resume = federation.resume and task.keep is None
            return AnswerCache(federation.cache, fields, resume=resume, node_of=federation.node_of)

        strategy = LearngeneStrategy(clients, plans)
        if federation.runtime.name == "batched":
            callback.on_note(_who_shares(task, cohort))
        due, kept = clients * rounds, strategy.kept(rounds)
        if kept:
            callback.on_note(f"{kept} of {due} clients answered in an earlier run: not asked again")
        callback.on_clients_begin(due - kept)
        simulate(
            strategy, rounds, federation.runtime, clients, resources=federation.resources,
            ray=federation.ray, outside=federation.outside, callback=callback,
        )  # fmt: skip
    return strategy.rounds


def _who_shares(task: ClientTask, cohort: int) -> str:
    """Which methods' clients are trained together, in words."""
    if cohort == 1:
        return (
            "runtime=batched, no kernels shared: runtime.cohort is 1, as it is by itself on a CPU"
        )
    shared = trained_together(task)
    alone = [name for name in task.methods if name not in shared]
    one = f"one client after the other: {', '.join(alone)}" if alone else ""
    together = f"clients share kernels: {', '.join(shared)}" if shared else ""
    return f"runtime=batched, {'; '.join(filter(None, (together, one)))}"


@contextmanager
def fault_orders(faults: Sequence[str], cache: Path) -> Iterator[FaultOrders | None]:
    """``faults`` as ``clients.faults.armed`` reads it, or None where none is planted.

    Its folder remembers who has been killed once. It lies in the cache, which all workers can
    write to, and is gone when the run is over.
    """
    if not faults:
        yield None
        return
    folder = temporary_name(cache.absolute() / "faults")
    folder.mkdir(parents=True)
    try:
        yield FaultOrders(tuple(faults), str(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
