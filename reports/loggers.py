"""Numbers of a run to CSV, TensorBoard, W&B, MLflow, or any logger of lightning's interface.

``logger=NAME`` is one of ``NAMED`` and writes into the run folder; ``logger=my_package.MyLogger``
makes ``MyLogger(save_dir=run_dir)`` of a module that can be imported, so also one of lightning's.
Nothing is sent anywhere unless W&B's or MLflow's own variables ask for it.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from learngene.errors import InputError
from protocol.callbacks import RunCallback

if TYPE_CHECKING:  # it brings torch, seconds that a wrong configuration should not wait for
    from learngene.collective.trainer import CollectiveTrainer

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)  # a module and a class in it
METHODS = ("log_hyperparams", "log_metrics", "finalize")


class Logger(Protocol):
    """What a logger can do (lightning's interface). It is made as ``MyLogger(save_dir=...)``."""

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Take the run's configuration, nested; its own copy."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Take finite numbers by name, ``STAGE/NAME``, at a step of that stage."""

    def finalize(self, status: str) -> None:
        """The run is over: ``success`` or ``failed``."""


class Csv:
    """``metrics.csv``, a row a number."""

    def __init__(self, save_dir: Path) -> None:
        self._file = (save_dir / "metrics.csv").open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(("step", "name", "value"))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """They are in the run folder's ``results.json``."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._rows.writerows((step, name, value) for name, value in metrics.items())
        self._file.flush()

    def finalize(self, status: str) -> None:
        self._file.close()


class TensorBoard:
    """Event files."""

    def __init__(self, save_dir: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A run that goes on logs everything once more: two files would give every step twice.
        shutil.rmtree(save_dir, ignore_errors=True)
        self._writer = SummaryWriter(save_dir, flush_secs=10)

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._writer.add_text("config", f"```\n{json.dumps(params, indent=1)}\n```")

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def finalize(self, status: str) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, on this machine unless ``WANDB_MODE`` says otherwise."""

    def __init__(self, save_dir: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read as it is imported
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "learngene"),
            dir=save_dir,
            mode=mode,
            reinit="create_new",  # the runs of a multirun are several
            settings=wandb.Settings(
                console="off", disable_git=True, save_code=False, silent=mode == "offline"
            ),
        )
        self._run.define_metric("*", step_metric="step")  # steps of stages begin anew

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._run.config.update(params)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._run.log({**metrics, "step": step})

    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=int(status != "success"))


class MLflow:
    """A run of MLflow, in ``mlflow.db`` unless ``MLFLOW_TRACKING_URI`` says otherwise."""

    def __init__(self, save_dir: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read as it is imported
        from mlflow.tracking import MlflowClient

        here = f"sqlite:///{save_dir.absolute()}/mlflow.db"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", here))
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "learngene")
        there = self._client.get_experiment_by_name(name)
        experiment = there.experiment_id if there else self._client.create_experiment(name)
        self._run = self._client.create_run(experiment).info.run_id

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        from pandas import json_normalize

        for name, value in json_normalize(params).iloc[0].items():
            self._client.log_param(self._run, str(name), value)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():  # it takes no +, as in finetune+projection
            self._client.log_metric(self._run, name.replace("+", " "), value, step=step)

    def finalize(self, status: str) -> None:
        self._client.set_terminated(self._run, "FINISHED" if status == "success" else "FAILED")


# With the package that each needs, which the extra of that name installs.
NAMED: dict[str, tuple[Callable[..., Logger], str | None]] = {
    "csv": (Csv, None),
    "tensorboard": (TensorBoard, "tensorboard"),
    "wandb": (WandB, "wandb"),
    "mlflow": (MLflow, "mlflow"),
}
FIX = f"Write logger={', logger='.join(NAMED)}, logger=my_package.MyLogger, or null for none"


class RunLogger(RunCallback):
    """Hands a run's numbers on to a logger, or to none, until one of its methods raises.

    A logger is somebody else's code and changes no result: one that raises is named once and
    called no more, and the run goes on. Each task is logged once, as it ends or is found finished.

    Args:
        logger: None takes everything and does nothing.
        name: what the note about a problem calls it.
        callback: its ``on_note`` takes that note.
    """

    def __init__(self, logger: Logger | None, name: str, callback: RunCallback) -> None:
        self._logger, self._name, self._callback = logger, name, callback
        self._trainer: CollectiveTrainer | None = None
        self._number = 0  # of the collective: with learngene.layers=auto there may be two
        self._logged = 0  # tasks of this collective
        self._losses: list[float] = []  # the last one of each phase of the task under way
        self._done = 0

    def scalars(self, stage: str, step: int, values: Mapping[str, float | None]) -> None:
        """Hand on what is a finite number; a call with none is left out."""
        finite = {
            f"{stage}/{name}": float(value)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        }
        if finite:
            self._call("log_metrics", finite, step)

    def hyperparameters(self, config: Mapping[str, Any]) -> None:
        """Hand on the configuration, as a copy: a logger changes no result."""
        self._call("log_hyperparams", copy.deepcopy(dict(config)))

    def close(self, status: str) -> None:
        """Let the logger end, with ``success`` or ``failed``; a second call does nothing."""
        self._call("finalize", status)
        self._logger = None

    def _call(self, method: str, *arguments: Any) -> None:
        """Call the logger, or no longer: one that raises is named once and closed, since what it
        holds may still be saved."""
        try:
            if self._logger is not None:
                getattr(self._logger, method)(*arguments)
        except (Exception, SystemExit) as error:
            logger, self._logger = self._logger, None
            self._callback.on_note(
                f"logger={self._name} is called no more, it raised {_words(error)}; the run goes on"
            )
            if logger is not None and method != "finalize":
                with suppress(Exception, SystemExit):
                    logger.finalize("failed")

    def on_step(self, done: int, steps: int, loss: float) -> None:
        """A step of the task under way; steps that start anew are the next phase."""
        if not self._losses or done <= self._done:
            self._losses.append(loss)
        self._losses[-1], self._done = loss, done

    def on_task_end(self, trainer: CollectiveTrainer, restored: bool) -> None:
        if trainer is not self._trainer:
            self._trainer, self._logged, self._number = trainer, 0, self._number + 1
        losses, self._losses, self._done = self._losses, [], 0
        mark = f"_{self._number}" if self._number > 1 else ""
        for stage in trainer.stages[self._logged :]:
            values: dict[str, float | None] = {
                "accuracy": stage.accuracy,
                "known_classes": stage.known_classes,
                "parameters": stage.parameters,
                "seconds": stage.seconds,
            }
            if not restored:
                values |= zip(("loss", "consolidation_loss"), losses, strict=False)
            step = stage.task + 1
            self.scalars(f"collective{mark}", step, values)
            names = stage.layers or [str(i + 1) for i in range(len(stage.rho))]
            self.scalars(f"rho{mark}", step, dict(zip(names, stage.rho, strict=True)))
        self._logged = len(trainer.stages)

    def on_run_end(self, results: Mapping[str, Any]) -> None:
        """What became of the clients."""
        if self._logger is None:
            return
        from reports.runs import runs_table  # pandas is half a second, which few runs need

        for (name, epoch), points in runs_table([results]).groupby(["method", "epoch"]):
            values = {f"client_{row.client}": row.accuracy for row in points.itertuples()}
            self.scalars(f"clients/{name}", int(epoch), {**values, "mean": points.accuracy.mean()})
        summary = {
            f"{name}_{field}": row[field]
            for name, row in results["summary"].items()
            if row is not None
            for field in ("mean", "ci95")
        }
        self.scalars("summary", 0, summary)


@contextmanager
def logging(
    name: str | None,
    run_dir: Path,
    config: Mapping[str, Any],
    callback: RunCallback,
) -> Iterator[RunLogger]:
    """The run's logger, closed at the end however the run ends.

    Args:
        name: the field ``logger``; None logs nothing.

    Raises:
        InputError: it cannot be made, which is known before anything is trained.
    """
    logger = None
    if name is not None:
        kind, folder = check_logger(name), run_dir
        try:
            if name in NAMED:
                folder = run_dir / name
                folder.mkdir(parents=True, exist_ok=True)
            logger = kind(save_dir=folder)
        except (Exception, SystemExit) as error:
            raise InputError("logger", name, f"making it raises {_words(error)}", FIX) from error
    run, status = RunLogger(logger, str(name), callback), "failed"
    run.hyperparameters(config)
    try:
        yield run
        status = "success"
    finally:
        run.close(status)


def check_logger(name: str) -> Callable[..., Logger]:
    """The class that ``logger=name`` asks for.

    Raises:
        InputError: its package is missing, or it is no logger.
    """

    def refusal(problem: str, fix: str = FIX) -> InputError:
        return InputError("logger", name or "''", problem, fix)

    if name in NAMED:
        kind, package = NAMED[name]
        spec = find_spec(package) if package else None
        if package and (spec is None or spec.origin is None):  # a folder of that name has none
            fix = f'Install it (python -m pip install -e ".[{name}]"), or write logger=null'
            raise refusal(f"the package {package} is not installed", fix)
        return kind
    if not DOTTED.fullmatch(name):
        raise refusal(f"neither {', '.join(NAMED)} nor a module with a class")
    module, _, class_name = name.rpartition(".")
    invalidate_caches()  # the file may be younger than this process
    try:
        logger = getattr(import_module(module), class_name, None)
    except (Exception, SystemExit) as error:  # somebody else's code: none is ours to handle
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            raise refusal(f"no module {missing} can be imported from here") from error
        raise refusal(f"importing it raises {_words(error)}") from error
    complete = all(callable(getattr(logger, method, None)) for method in METHODS)
    if not isinstance(logger, type) or not complete:
        raise refusal(
            f"{module} has no class {class_name} with the methods {', '.join(METHODS)} "
            "(reports.loggers.Logger)"
        )
    return logger


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
