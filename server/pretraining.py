"""The factory half of the methods besides the learngene: train once, keep, send to every client.

``cache/methods/KEY/NAME`` holds one payload. KEY hashes everything that determines it; client
settings (``method.NAME.client_*``), shots and shards are not among it. Half-done work lies beside
it as ``NAME-part`` and is taken up by the next run.

Equal terms: every method that is trained here gets the same seven layers, the base images that the
collective is trained on, and the same number of image passes (``budget``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from learngene.collective.sampling import hold_out
from learngene.data.dataset import ImageDataset
from learngene.errors import RunError
from learngene.methods import Factory, Method, Payload, find
from learngene.methods.base import BaseImages
from learngene.methods.common.backbone import body_card, body_of
from learngene.methods.common.projected import project
from learngene.methods.isolation import in_words, isolated
from learngene.methods.registry import base_of
from learngene.networks.compute import TRAINING, multiply_adds
from learngene.utils.checkpoint import key_of, read_checkpoint, write_checkpoint
from learngene.utils.hardware import library_version, pin_kernels, torch_threads
from learngene.utils.steps import step_form
from protocol.callbacks import SILENT, RunCallback
from server.collective import machine_fields
from server.factory import FactoryResult, FactorySettings, choose_device, choose_precision
from server.parallel import JobResult, ProgressFn, max_workers, run_parallel

FORMAT = 4  # raise it when all factory halves change; of one method: ``Method.revision``
CLIENT = "client_"  # how the names of settings begin that only the client half reads


@dataclass(frozen=True)
class PretrainingSettings:
    """What the methods' factory halves read of the configuration."""

    factory: FactorySettings
    methods: tuple[str, ...]
    method: Mapping[str, Mapping[str, Any]]  # settings, by method
    plugins: Mapping[str, Mapping[str, Any]]  # of modules; see ``plugins.find``
    ways: int
    budget: int | None  # image passes of a method; None: what the collective had, see ``budget_in``
    budget_in: str  # passes | compute


Job = tuple[str, PretrainingSettings, ImageDataset]  # what ``train`` is called with


@dataclass(frozen=True)
class Payloads:
    """What the factory sends for the methods, and how it came about."""

    methods: list[str]  # of the run, without those that failed
    payloads: dict[str, Payload] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # method -> reason
    # ``results.json``, "pretraining"; None where no method needed any
    section: dict[str, Any] | None = None

    def merge(self, payloads: Mapping[str, Payload], failed: Mapping[str, str]) -> Payloads:
        """With what further methods send, and without those that failed.

        Raises:
            RunError: no method is left.
        """
        left = [name for name in self.methods if name not in failed]
        if not left:
            reasons = (f"{name}: {reason}" for name, reason in failed.items())
            raise RunError("every method failed: " + "; ".join(reasons))
        made = {**self.payloads, **payloads}
        return Payloads(left, made, {**self.failed, **failed}, self.section)


def pretrain_methods(
    settings: PretrainingSettings,
    dataset: ImageDataset,
    result: FactoryResult,
    callback: RunCallback = SILENT,
    beside: Mapping[str, float] = MappingProxyType({}),
) -> Payloads:
    """Make or find the payload of every method of the run that has a factory half.

    A method that fails is named with its reason; the others go on without it.

    Args:
        beside: what this run has trained already (``server.beside``), and in how many seconds.

    Raises:
        RunError: no method is left.
    """
    plugins, threads = settings.plugins, settings.factory.threads
    methods = {name: find(name, plugins.get(name)) for name in settings.methods}
    needed = {n: m for n, m in methods.items() if m.trained_by in ("factory", "collective")}
    if not needed:
        return Payloads(list(methods))
    device = choose_device(settings.factory.collective.device)
    pin_kernels(device, settings.factory.deterministic)
    # A second row's body is trained with its method's own, and for itself where that is not asked.
    bodies = {base_of(name): find(base_of(name), plugins.get(name)) for name in needed}
    settings = replace(settings, budget=budget_of(settings, dataset, result))
    one_pass = _pass_multiply_adds(settings, dataset)
    payloads: dict[str, Payload] = {}
    failed: dict[str, str] = {}
    record: dict[str, Any] = {}

    def add(name: str, payload: Payload, seconds: float, cached: bool) -> None:
        payloads[name] = payload
        body = base_of(name)
        trained_here = bodies[body].pretrain is not None
        passes = _passes(body, settings) if trained_here else None
        # A step of second order counts as one of first, which is about half of it.
        whole = _of_collective(result, "multiply_adds")
        cost = whole if passes is None else passes * one_pass
        record[name] = {
            "image_passes": passes,
            "multiply_adds": None if name in plugins else cost,  # nobody knows what a plugin trains
            "seconds": seconds,
            "cached": cached,
            "parameters": payload.parameters,
            "bytes": payload.bytes,
        }
        callback.on_note(_line(name, record[name]))

    def fail(name: str, reason: str) -> None:  # one method's must not take the others along
        failed[name] = reason
        callback.on_note(f"{name} failed at the factory: {reason}")

    def make(name: str, half: Callable[[], Payload]) -> None:
        started = time.perf_counter()
        try:
            with torch_threads(threads):
                payload = _made(name, settings, half)
        except Exception as error:
            fail(name, in_words(error))
        else:
            add(name, payload, time.perf_counter() - started, cached=False)

    jobs: dict[str, Job] = {}
    with torch_threads(threads):
        for name, method in bodies.items():
            started = time.perf_counter()
            if method.from_collective is not None:
                assert result.trained is not None, "conf.validate wants a collective for it"
                collective = deepcopy(result.trained.trainer.collective)  # its own, to write to
                make(name, partial(method.from_collective, collective))
            elif settings.factory.resume and (found := cached(name, method, settings, dataset)):
                seconds = beside.get(name, time.perf_counter() - started)
                add(name, found, seconds, cached=name not in beside)
            else:
                jobs[name] = name, settings, dataset
    at_once = max_workers(settings.factory.collective.threads, device)
    # A plugin is never trained in this process, which it might end.
    apart = jobs if at_once > 1 and len(jobs) > 1 else {n: jobs[n] for n in jobs if n in plugins}
    here = {name: job for name, job in jobs.items() if name not in apart}
    job_results = run_parallel(train, apart, at_once, callback.on_method_step)
    for job in chain(job_results, _run_serially(here, callback)):
        if job.error is not None:
            fail(job.name, job.error)
            continue
        with torch_threads(threads):
            trained = cached(job.name, bodies[job.name], settings, dataset)
        assert trained is not None, "``train`` keeps what it made"
        add(job.name, trained, job.seconds, cached=False)
    shrinkage = settings.factory.learngene.shrinkage
    for name in (name for name in needed if name not in bodies):
        body = base_of(name)
        if body in failed:
            fail(name, failed[body])
            continue
        tell = partial(callback.on_method_step, name)
        layers, factory = bodies[body].body, _factory(body, settings, dataset, tell)
        assert layers is not None, "``find`` gives no second row without a body"
        make(name, partial(project, factory, layers, payloads[body], shrinkage))
    failed = {name: reason for name, reason in failed.items() if name in needed}
    section = {
        "budget": settings.budget,
        "collective_passes": _of_collective(result, "image_passes"),
        "methods": {name: record[name] for name in needed if name in record},
        "failed": failed,
    }
    in_order = {name: payloads[name] for name in needed if name in payloads}
    return Payloads(list(methods), section=section).merge(in_order, failed)


def _run_serially(jobs: Mapping[str, Job], callback: RunCallback) -> Iterator[JobResult]:
    """As ``run_parallel``, in this process."""
    for name, arguments in jobs.items():
        started, error = time.perf_counter(), None
        try:
            train(*arguments, partial(callback.on_method_step, name))
        except Exception as fault:
            error = in_words(fault)
        yield JobResult(name, time.perf_counter() - started, error)


def _of_collective(result: FactoryResult, cost: str) -> int | None:
    """``image_passes`` or ``multiply_adds`` of its whole training; None: there is no collective."""
    if result.trained is None:
        return None
    return sum(getattr(stage, cost) for stage in result.trained.trainer.stages)


def budget_of(settings: PretrainingSettings, dataset: ImageDataset, result: FactoryResult) -> int:
    """Image passes of a method that asks for no multiple of them.

    As many as are asked for; else as many as the collective had, or (``budget_in=compute``) as its
    multiply-adds come to in the seven layers: at its final widths a pass of 13 layers costs 1.8 of
    theirs.
    """
    if settings.budget is not None:
        return settings.budget
    compute = settings.budget_in == "compute"
    ours = _of_collective(result, "multiply_adds" if compute else "image_passes")
    assert ours is not None, "conf.validate asks for a budget where there is no collective"
    return max(1, ours // _pass_multiply_adds(settings, dataset)) if compute else ours


def _pass_multiply_adds(settings: PretrainingSettings, dataset: ImageDataset) -> int:
    """Multiply-adds of an image that goes forward and backward through the seven layers once."""
    collective, (channels, side, _) = settings.factory.collective, dataset.image_shape
    layers = body_of(body_card(collective.width, collective.block), channels)
    return TRAINING * multiply_adds(layers, channels, collective.train_size or side)


def _passes(name: str, settings: PretrainingSettings) -> int:
    """Image passes of a method's training: the budget, times what the method asks of it."""
    assert settings.budget is not None, "``pretrain_methods`` has filled it in"
    factor = getattr(_own_settings(name, settings), "budget_factor", 1)
    return max(1, round(settings.budget * factor))


def _own_settings(name: str, settings: PretrainingSettings) -> Any:
    method = find(name, settings.plugins.get(name))
    return method.settings_from(settings.method.get(name, {}))


def _stem(name: str, method: Method, settings: PretrainingSettings, dataset: ImageDataset) -> Path:
    """Where the payload lies in the cache; for as many threads as torch has now."""
    key = payload_key(_factory(name, settings, dataset), settings, method)
    return settings.factory.cache / "methods" / key / name


def cached(
    name: str, method: Method, settings: PretrainingSettings, dataset: ImageDataset
) -> Payload | None:
    """The payload in the cache; None where there is none that is whole."""
    if (checkpoint := read_checkpoint(_stem(name, method, settings, dataset))) is None:
        return None
    state, card = checkpoint
    return Payload({n: value.numpy() for n, value in state.items()}, card["card"])


def train(
    name: str, settings: PretrainingSettings, dataset: ImageDataset, tell: ProgressFn
) -> None:
    """Train a method's factory half and keep its payload; goes on with half-done work.

    A function of its own, with arguments that cross to another process (see ``server.parallel``).

    Raises:
        TypeError, ValueError: no payload that may be sent; and whatever the method raises.
    """
    method = find(name, settings.plugins.get(name))
    assert method.pretrain is not None
    pin_kernels(choose_device(settings.factory.collective.device), settings.factory.deterministic)
    with torch_threads(settings.factory.threads):
        stem = _stem(name, method, settings, dataset)
        part = stem.with_name(f"{name}-part")
        factory = replace(
            _factory(name, settings, dataset, tell),
            checkpoint=read_checkpoint(part) if settings.factory.resume else None,
            keep=partial(write_checkpoint, part),
        )
        payload = _made(name, settings, partial(method.pretrain, factory))
    tensors = {n: torch.from_numpy(array) for n, array in payload.arrays.items()}
    write_checkpoint(stem, tensors, {"card": payload.card})
    for suffix in (".json", ".safetensors"):
        part.with_suffix(suffix).unlink(missing_ok=True)


def _made(name: str, settings: PretrainingSettings, half: Callable[[], Payload]) -> Payload:
    """What the method's half at the factory makes, held against what may be kept and sent."""
    with isolated(settings.factory.seed, f"pretrain-{name}"):
        payload = half()
        if not isinstance(payload, Payload):
            raise TypeError(f"it returned {type(payload).__name__}, a Payload is due")
        payload.check()
    return payload


def _factory(
    name: str,
    settings: PretrainingSettings,
    dataset: ImageDataset,
    tell: ProgressFn = lambda done, steps: None,
) -> Factory:
    factory, collective = settings.factory, settings.factory.collective
    device = choose_device(collective.device)
    rows, _ = hold_out(dataset, factory.seed, factory.open_world.calibration_per_class)
    base = tuple(rows[c] for c in dataset.class_split.base)
    return Factory(
        name=name,
        images=BaseImages(dataset, base, device, collective.train_size, collective.zoom),
        settings=_own_settings(name, settings),
        budget=_passes(name, settings),
        ways=settings.ways,
        width=collective.width,
        seed=factory.seed,
        bf16=choose_precision(collective.precision, device) == "bf16",
        block=collective.block,
        # Nobody knows whether a plugin's loss can be recorded.
        step_form=None if name in settings.plugins else step_form(collective.capture, device),
        progress=lambda done, steps, loss: tell(done, steps),
    )


def payload_key(factory: Factory, settings: PretrainingSettings, method: Method) -> str:
    """Hash of everything that determines a payload, 16 hex digits."""
    values = settings.method.get(factory.name, {})
    parts = {
        "format": FORMAT + method.revision,
        "world": factory.images.dataset.sha256,
        "calibration_per_class": settings.factory.open_world.calibration_per_class,
        "method": factory.name,
        "settings": {k: v for k, v in values.items() if not k.startswith(CLIENT)},
        "budget": factory.budget,
        "ways": factory.ways if method.depends_on_ways else None,
        **body_card(factory.width, factory.block),
        "side": factory.images.side,
        "zoom": factory.images.zoom,
        "seed": factory.seed,
        "bf16": factory.bf16,
        **machine_fields(factory.images.device, settings.factory.collective.capture),
        "POT": library_version("POT") if factory.name == "deepemd" else None,
    }
    if plugin := settings.plugins.get(factory.name):
        parts["module"] = plugin["module"], plugin["sha256"]
    return key_of(parts)


def _line(name: str, record: Mapping[str, Any]) -> str:
    source = "read off the collective"
    if name != base_of(name):
        source = f"{base_of(name)}'s body and the projection, {record['seconds']:.0f} s"
    elif record["cached"]:
        source = "found from an earlier run"
    elif passes := record["image_passes"]:
        source = f"{passes:,} image passes, {record['seconds']:.0f} s"
    return f"{name}: {source}, {record['bytes'] / 1e6:.2f} MB"
