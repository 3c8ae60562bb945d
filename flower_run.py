"""What ``flwr run`` starts: a run over the nodes that Flower has, simulated or on other machines.

    flwr run . --stream -c 'num-clients=20 overrides="shots=5"' \\
        --federation-config "num-supernodes=20"

The run is that of ``sim.py``, with Hydra's language in the one string ``overrides``. Here are the
things that differ: the nodes are Flower's, the working folder is that of whoever started the
SuperLink, and only an exception tells Flower that a run has not ended well. ``ended.json`` in the
run's folder has the exit code that ``sim.py`` would have had.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid
from flwr.supercore.utils import get_flwr_home
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import conf
from clients.faults import Order
from conf.command_line import prepared
from conf.error_messages import explain
from conf.schema import Config
from conf.validate import check_fields
from learngene.collective.settings import GROWTHS
from learngene.errors import InputError
from learngene.utils.files import write_atomically
from learngene.utils.settings import limits_of
from runtime.federation import ENDED
from runtime.grid_backend import OutsideGrid
from sim import FAILED, OK, TOO_FEW_ANSWERS, announce, attempt, simulation

NAME = "flower-learngene"  # of the distribution
ABSOLUTE = "Write a path from the root, of the machine of the SuperLink"
# What is Flower's to say, and where: field or group -> fix. Of a group all fields that are named.
FLOWERS = {
    "num_clients": "Write num-clients=N beside overrides",
    "runtime": "Leave it out: the nodes are those of flwr run",
    "runtime.name": "Leave it out: the nodes are those of flwr run",
    "runtime.address": "Leave it out: the nodes are those of flwr run",
    "runtime.total_cpus": 'Write --federation-config "init-args-num-cpus=N"',
    "runtime.total_gpus": 'Write --federation-config "init-args-num-gpus=N"',
    "runtime.num_gpus": 'Write --federation-config "client-resources-num-gpus=X"',
    "hydra": "Leave it out; the run's folder is run-dir=/ABSOLUTE/FOLDER beside overrides",
}
# What the lines of a run have said at length, for whoever reads ``ended.json`` alone.
SHOWN = {
    FAILED: "the run failed, or a method was left out of it: its output says why",
    TOO_FEW_ANSWERS: "fewer clients answered than runtime.min_answered: its report names them",
}


class RunFailed(RuntimeError):
    """The run did not end well; Flower shows it as ``finished:failed``."""


def run(grid: Grid, context: Context) -> None:
    """A run over the nodes of ``grid``; the run config has ``num-clients``, ``overrides`` and
    ``run-dir``.

    Raises:
        RunFailed: its exit code is not 0.
    """
    run_dir = _run_dir(context)  # before all else: what goes wrong is written there
    print(f"  run folder: {run_dir}", flush=True)
    code, problem = attempt(lambda: _job(grid, context, run_dir))
    problem = problem or SHOWN.get(code, "")
    write_atomically(run_dir / ENDED, json.dumps({"code": code, "problem": problem}).encode())
    if code != OK:
        raise RunFailed(problem) from None


def _job(grid: Grid, context: Context, run_dir: Path) -> int:
    _check_version(grid)
    clients, text = context.run_config["num-clients"], str(context.run_config["overrides"])
    try:
        words = prepared(shlex.split(text))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("overrides", text, str(error), "Close each quote") from error
    _refuse_what_is_flowers(words)
    words = [*words, f"num_clients={clients}"]
    config = check_fields(_composed([*words, "runtime.name=flwr"]))
    _check_paths(config)
    _check_faults(config)
    announce(config)
    command = ["flwr", "run", ".", "-c", f"num-clients={clients} overrides={json.dumps(text)}"]
    outside = OutsideGrid.of(grid, context, command)
    outside.connect(config.num_clients, config.least_answers)
    return simulation(config, run_dir, words, outside)


def _run_dir(context: Context) -> Path:
    """``run-dir``, or a folder of this run's number beside Flower's own files: the working folder
    is the SuperLink's, so it is not where the command was typed."""
    asked = str(context.run_config["run-dir"])
    folder = (
        Path(asked).expanduser() if asked else get_flwr_home() / "outputs" / str(context.run_id)
    )
    if not folder.is_absolute():
        raise InputError("run-dir", asked, "it would lie below the SuperLink's folder", ABSOLUTE)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_version(grid: Grid) -> None:
    """A bundle can hold no templates, so ``reports/`` is the one that is installed here."""
    sent = grid.run.fab_version
    try:
        here = version(NAME)
    except PackageNotFoundError:
        here = "none"
    if here != sent:
        problem = f"this machine has {here} installed, which the reports are made with"
        raise InputError(f"{NAME} version", sent, problem, "Install that of the app here")


def _refuse_what_is_flowers(words: Sequence[str]) -> None:
    for word in words:
        name, _, value = word.lstrip("+~").partition("=")
        key = "hydra" if name.startswith("hydra") else name
        if word.startswith("-"):
            raise InputError("overrides", word, "an option, of sim.py alone", "Leave it out")
        if key in FLOWERS:
            raise InputError(name, value, "not this run's to say", FLOWERS[key])


def _composed(words: list[str]) -> DictConfig:
    """The last two of ``words`` are ours, and are not shown."""
    try:
        with initialize_config_dir(str(Path(conf.__file__).parent), version_base="1.3"):
            return compose("config", words)
    except (HydraException, OmegaConfBaseException) as error:
        fix = "All fields: python sim.py --help=all"
        asked, problem = shlex.join(words[:-2]), explain(error, words).rstrip(".")
        raise InputError("overrides", asked, problem, fix) from error


def _check_paths(config: Config) -> None:
    for name, limits in limits_of(config):
        value = reduce(getattr, name.split("."), config) if limits.path else None
        if value not in (None, *GROWTHS) and not Path(str(value)).is_absolute():
            raise InputError(name, value, "it would lie below the SuperLink's folder", ABSOLUTE)


def _check_faults(config: Config) -> None:
    for order in config.faults:
        if Order.read(order).kind == "kill_once":
            problem = "Flower does not repeat what a dead process was doing"
            raise InputError("faults", order, problem, "Write kill_always, or use sim.py")
