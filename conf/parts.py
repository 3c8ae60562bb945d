"""What each phase takes of the configuration; no phase is given the whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.schema import Config
from learngene.data.dataset import load
from learngene.utils.settings import by_client
from protocol.task import ClientTask, LabelledImages
from runtime.resources import Federation, Resources
from server.factory import FactorySettings
from server.pretraining import PretrainingSettings

if TYPE_CHECKING:
    from runtime.grid_backend import OutsideGrid
    from runtime.ray_start import RayStart


def factory_settings(config: Config) -> FactorySettings:
    """For the collective and the learngene."""
    return FactorySettings(
        collective=config.collective,
        learngene=config.learngene,
        open_world=config.open_world,
        individual=config.individual,
        seed=config.seed,
        rounds=config.rounds,
        cache=Path(config.cache),
        resume=config.resume,
        deterministic=config.runtime.deterministic,
        classes_from=config.data.clients_from,
    )


def pretraining_settings(config: Config, plain: Mapping[str, Any]) -> PretrainingSettings:
    """For the other methods' halves at the factory; ``plain`` as ``client_task`` takes it."""
    return PretrainingSettings(
        factory=factory_settings(config),
        methods=tuple(plain["methods"]),
        method=plain["method"],
        plugins=plain.get("own_methods", {}),
        ways=max(by_client(config.ways)),
        budget=config.budget,
        budget_in=config.budget_in,
    )


def client_task(
    config: Config, plain: Mapping[str, Any], dataset: Path, labelled: LabelledImages | None = None
) -> ClientTask:
    """What all tasks of the run have in common.

    Args:
        plain: the configuration as ``conf.methods.with_methods`` gives it: ``methods``,
            ``method`` and ``own_methods`` with modules under their short names.
        dataset: where the dataset lies.
    """
    partition, held = config.shards.partition, None
    if partition is not None:
        held = len(load(dataset).class_split.group(config.data.clients_from))
    return ClientTask(
        world=str(dataset),
        methods=tuple(plain["methods"]),
        seed=config.seed,
        shard_seed=config.partition_seed,
        ways=config.ways,
        shots=config.shots,
        queries=config.queries,
        classes_from=config.data.clients_from,
        threads=max(1, int(config.runtime.num_cpus)),
        individual=config.individual,
        retain=config.retain,
        method=plain["method"],
        limit_s=config.runtime.client_timeout_s,
        labelled=labelled,
        own_methods=plain.get("own_methods", {}),
        deterministic=None if config.runtime.deterministic else False,
        partition=partition,
        classes=held,
    )


def federation(
    config: Config,
    resources: Resources | None,
    outside: OutsideGrid | None = None,
    ray: RayStart | None = None,
) -> Federation:
    """Who is asked, where they run, and where their answers are kept."""
    clients, cache = config.num_clients, Path(config.cache)
    return Federation(config.runtime, clients, cache, config.resume, resources, outside, ray)
