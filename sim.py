"""Learngene, from the open world to a client's own task: one federated-style simulation.

    python sim.py num_clients=20

A table of contents: compose and check the configuration, open the dataset, evolve the collective,
simulate the clients, report. Every field is in conf/schema.py, the way of the data in
docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before anything imports flwr or ray
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Before anything imports torch, whose threads wait for each other: awake for under a millisecond,
# then asleep. By itself GNU's OpenMP stays awake for many, which a busy neighbour makes time that
# the other thread would need (docs/PERFORMANCE.md). KMP: LLVM's OpenMP, milliseconds.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("KMP_BLOCKTIME", "1")
os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and main() words them

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from conf.command_line import prepared
from conf.error_messages import explain, no_folder
from conf.help import help_asked
from conf.methods import with_methods
from conf.schema import Config, register_schema
from conf.validate import check_fields, check_methods
from learngene.errors import InputError, RunError, say
from learngene.utils.files import NO_ROOM, no_room, sole_use
from learngene.utils.settings import by_client
from runtime.multirun import JobFailed, has_begun, worst_code
from runtime.signals import KEPT, MESSAGE, Terminated, catch_signals
from runtime.streams import steady_streams

if TYPE_CHECKING:
    from reports.console import Console
    from reports.loggers import RunLogger
    from runtime.grid_backend import OutsideGrid
    from runtime.ray_start import RayStart
    from runtime.resources import Resources

register_schema()
OK, FAILED, WRONG_INPUT, TOO_FEW_ANSWERS, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
ON_NOVEL = (
    "a sweeper chooses by accuracy on novel classes here: what it finds is no result on them. "
    "data.clients_from=open_world chooses on others"
)


def simulation(
    config: Config,
    run_dir: Path,
    overrides: Sequence[str] = (),
    outside: OutsideGrid | None = None,
) -> int:
    """One run, from the data to the report; returns the exit code.

    Args:
        overrides: kept in the results: what this run, which may be one of many of a multirun, was
            asked for.
        outside: the nodes of ``flwr run`` (``flower_run.py``); None: clients of our own, as
            ``config.runtime`` says.
    """
    from conf.unread import unread
    from reports.console import Console
    from reports.loggers import logging
    from runtime.ray_start import RayStart

    run, resources = check_methods(config)
    console, plain, ray = Console(), asdict(config), None
    halves = any(method.trained_by == "factory" for method in run.methods.values())
    if resources is not None:
        ray = RayStart(resources, config.runtime.client_timeout_s, halves=halves)
    ended = nullcontext() if ray is None else closing(ray)  # however the run ends
    alone = sole_use(run_dir, "hydra.run.dir" if outside is None else "run-dir")
    # ``at_end`` before ``ended``: its files go when no worker is left that might write some.
    with (
        alone,
        logging(config.logger, run_dir, plain, console) as logger,
        ExitStack() as at_end,
        ended,
    ):
        plain = with_methods(plain, run)
        if note := unread(config, run.methods, overrides):
            console.on_note(note)
        return _simulation(
            config, plain, halves, resources, ray, run_dir, overrides, outside, console, logger,
            at_end,
        )  # fmt: skip


def _simulation(
    config: Config,
    plain: dict[str, Any],
    halves: bool,
    resources: Resources | None,
    ray: RayStart | None,
    run_dir: Path,
    overrides: Sequence[str],
    outside: OutsideGrid | None,
    console: Console,
    logger: RunLogger,
    at_end: ExitStack,
) -> int:
    from conf.parts import client_task, federation, pretraining_settings
    from learngene.methods.common.backbone import body_card
    from learngene.utils.hardware import keep_freed_memory
    from protocol.callbacks import CallbackList
    from reports.run import Seconds, write_run
    from reports.summary import fewest_answered, left_out
    from runtime.client_rounds import run_client_rounds
    from runtime.federated_rounds import Federated, federated_methods, run_federated_training
    from runtime.resources import check_memory, idle_nodes
    from server.beside import HalvesBeside
    from server.dataset import load_dataset
    from server.factory import saved_gene, train_or_load_gene
    from server.labelling import label_open_world, labelling_summary
    from server.pretraining import pretrain_methods

    keep_freed_memory()
    methods_half = pretraining_settings(config, plain)
    saved = saved_gene(methods_half.factory, halves=halves)
    callback, seconds = CallbackList([console, logger, *([ray] if ray else [])]), Seconds()
    for said in (check_memory(resources, config.num_clients), idle_nodes(resources)):
        if said is not None:
            callback.on_note(said)
    with seconds.of("world"), console.bar(f"dataset {config.data.name}"):
        dataset, leakage = load_dataset(
            config.dataset,
            config.shards,
            config.num_clients,
            Path(config.cache),
            open_world_learned=config.open_world.cycles > 0,
            callback=callback,
        )
    console.dataset(dataset, leakage, seconds["world"])
    with (
        seconds.of("collective"),
        console.bar("collective, task 1"),
        HalvesBeside(methods_half, dataset) as beside,
    ):
        both = CallbackList([callback, beside])
        result = train_or_load_gene(methods_half.factory, dataset, both, saved)
    console.result(result, config.learngene.precision)
    with console.bar("labels"):
        labelled = label_open_world(
            config.open_world,
            config.labelled,
            config.shards,
            config.num_clients,
            dataset,
            result,
            callback,
        )
    if labelled:
        callback.on_note(labelling_summary(labelled.section))
    with seconds.of("methods"), console.bar("methods"):
        pretrained = pretrain_methods(methods_half, dataset, result, callback, beside.seconds)
    if pretrained.section is None:
        del seconds["methods"]  # none of the methods has a half at the factory
    task = client_task(config, plain, dataset.path, labelled.task if labelled else None)
    federated = Federated()
    if names := federated_methods(pretrained.methods):
        with seconds.of("federated"), console.bar("federated rounds"):
            card, clients = result.gene.card, federation(config, resources, outside, ray)
            body = body_card(card.width, card.block)
            federated = run_federated_training(
                task, names, dataset, body, clients,
                gene=result.gene, callback=callback, at_end=at_end,
            )  # fmt: skip
    pretrained = pretrained.merge(federated.payloads, federated.failed)
    keep = str(run_dir.absolute() / "individuals") if config.individual.keep else None
    with seconds.of("clients"), console.bar("clients"):
        rounds = run_client_rounds(
            # without the methods that have failed
            replace(task, methods=tuple(pretrained.methods), keep=keep),
            dataset.sha256,
            result.gene_of,
            pretrained.payloads,
            federation(config, resources, outside, ray),
            rounds=config.rounds,
            precision=config.learngene.precision,
            payload_precision=config.payload_precision,
            faults=config.faults,
            callback=callback,
        )
    with console.bar("report"):
        results, report = write_run(
            run_dir,
            plain,
            config.partition_seed,
            ["python", *sys.argv] if outside is None else outside.command,
            overrides,
            dataset,
            leakage,
            result,
            rounds,
            seconds,
            pretrained,
            federated,
            labelled.section if labelled else None,
            callback,
        )
        callback.on_run_end(results)
    console.summary(results, report)
    answered, least = fewest_answered(results), config.least_answers
    if answered < least:
        said = f"{answered} of {config.num_clients} clients answered"
        console.problem(f"{said}, runtime.min_answered is {least}")
        return TOO_FEW_ANSWERS
    return FAILED if left_out(results) else OK


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def _job(composed: DictConfig) -> float | None:
    """One run, or one of many; returns what a sweeper may choose by.

    Raises:
        SystemExit, JobFailed: it has not ended with exit code 0. Hydra takes the latter down and
            goes on with the sweep; of a single run it would say what was said already.
    """
    code, job = _run(composed), HydraConfig.get()
    if code:
        raise SystemExit(code) if job.mode is RunMode.RUN else JobFailed(code)
    if job.mode is RunMode.RUN or job.runtime.choices["hydra/sweeper"] == "basic":
        return None  # nobody chooses
    from reports.results import objective, read_results

    if composed.data.clients_from == "novel":
        _say(ON_NOVEL, OK)
    return objective(read_results(Path(job.runtime.output_dir) / "results.json"))


def _run(composed: DictConfig) -> int:
    """One job; what goes wrong in it is said here, since Hydra would add lines of its own."""

    def job() -> int:
        config = check_fields(composed)
        if config.runtime.name == "flwr":
            fix = "Write runtime=ray or runtime=serial, or start it with flwr run (docs/GUIDE.md)"
            raise InputError("runtime.name", "flwr", "it is flwr run that has the nodes", fix)
        announce(config)
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        asked = [str(each) for each in HydraConfig.get().overrides.task]
        return simulation(config, run_dir, asked)

    code, problem = attempt(job)
    return _say(problem, code) if problem else code


def attempt(job: Callable[[], int]) -> tuple[int, str]:
    """The exit code of a job and, on one line, what went wrong in it where that is not shown."""
    try:
        return job(), ""
    except InputError as error:
        return WRONG_INPUT, str(error)
    except RunError as error:
        return FAILED, f"{error}; {KEPT}"
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return FAILED, no_room(error)
        traceback.print_exc()
        return FAILED, ""


def announce(config: Config) -> None:
    """The first line: what this run is. Printed before anything that takes seconds to import."""
    ways, shots = ("/".join(map(str, by_client(each))) for each in (config.ways, config.shots))
    divided = f" Dirichlet({config.data.alpha:g})" if config.data.partition == "dirichlet" else ""
    print(
        f"  learngene: data {config.data.name}, {config.num_clients} clients,{divided} {ways}-way "
        f"{shots}-shot, seed {config.seed}, runtime {config.runtime.name}"
    )


def _overrides() -> list[str]:
    """What was asked for, without options."""
    return [word for word in sys.argv[1:] if not word.startswith("-")]


def main() -> int:
    """The command line; returns the exit code and never shows the user a traceback of theirs."""
    catch_signals()
    return max(_command_line(), worst_code())


def _command_line() -> int:
    """What Hydra is asked for, one job or many; returns the code of what ended it."""
    try:
        if (page := help_asked(sys.argv[1:])) is not None:
            print(page)
            return OK
        sys.argv[1:] = prepared(sys.argv[1:])
        _job()
    except (SystemExit, JobFailed) as end:
        return int(end.code or OK)
    except InputError as error:
        return _say(str(error), WRONG_INPUT)
    except (HydraException, OmegaConfBaseException) as error:
        return _say(explain(error, _overrides()), WRONG_INPUT)
    except Terminated:
        return _say(MESSAGE, TERMINATED)
    except KeyboardInterrupt:
        return _say(MESSAGE, INTERRUPTED)
    except OSError as error:  # a job's own are said there: this is of the files that Hydra writes
        said = no_folder(error, _overrides())
        return _say(said, FAILED if error.errno in NO_ROOM else WRONG_INPUT)
    except Exception as error:  # what Hydra's parser lets through: "seed=999..." of 5000 digits
        if has_begun():  # of a launcher or sweeper: a process that was killed, no trial that ended
            return _say(f"the multirun was given up: {type(error).__name__}: {error}", FAILED)
        return _say(explain(error, _overrides()), WRONG_INPUT)
    return OK


def _say(message: str, code: int) -> int:
    return say("sim.py", message, code)


if __name__ == "__main__":
    steady_streams()
    code = main()
    # Flower may leave a thread behind that would keep the process alive.
    runtime = sys.modules.get("runtime.ray_backend")
    sys.exit(code) if runtime is None else runtime.leave(code)
