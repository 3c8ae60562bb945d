"""Numbers of a run to TensorBoard, or to any logger of one's own: one small interface.

``logger=tensorboard`` writes event files into the run folder. ``logger=my_package.MyLogger`` makes
``MyLogger(run_dir, config)`` of a module that can be imported. What is logged: ``reports.loggers``.
"""

from __future__ import annotations

import copy
import math
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

TENSORBOARD = "tensorboard"
FIX = "Write logger=tensorboard, logger=my_package.MyLogger, or logger=null for none"
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)  # a module and a class in it
METHODS = ("scalars", "close")


class Logger(Protocol):
    """What a logger can do. It is made as ``MyLogger(run_dir: Path, config: dict)``."""

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Take finite numbers of a stage of the run, by name, at a step of that stage."""

    def close(self) -> None:
        """The run is over, whether it went well or not."""


class TensorBoard:
    """Event files in ``run_dir/tensorboard``; a number's tag is ``stage/name``."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A run that goes on logs everything once more: two files would give every step twice.
        shutil.rmtree(run_dir / TENSORBOARD, ignore_errors=True)
        self._writer = SummaryWriter(run_dir / TENSORBOARD, flush_secs=10)

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


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
        finite = {n: float(v) for n, v in values.items() if v is not None and math.isfinite(v)}
        if finite:
            self._call("scalars", stage, step, finite)

    def close(self) -> None:
        """Let the logger end; a second call does nothing."""
        self._call("close")
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
            if logger is not None and method != "close":
                with suppress(Exception, SystemExit):
                    logger.close()

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
        kind = check_logger(name)
        try:
            logger = kind(run_dir, copy.deepcopy(dict(config)))  # its own: it changes no result
        except (Exception, SystemExit) as error:
            raise InputError("logger", name, f"making it raises {_words(error)}", FIX) from error
    run = RunLogger(logger, str(name), callback)
    try:
        yield run
    finally:
        run.close()


def check_logger(name: str) -> Callable[[Path, Mapping[str, Any]], Logger]:
    """The class that ``logger=name`` asks for.

    Raises:
        InputError: its package is missing, or it is no logger.
    """

    def refusal(problem: str, fix: str = FIX) -> InputError:
        return InputError("logger", name or "''", problem, fix)

    if name == TENSORBOARD:
        if find_spec(TENSORBOARD) is None:
            fix = "Install it (python -m pip install tensorboard), or write logger=null"
            raise refusal("the package tensorboard is not installed", fix)
        return TensorBoard
    if not DOTTED.fullmatch(name):
        raise refusal("neither tensorboard nor a module with a class")
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
            f"{module} has no class {class_name} with the methods {' and '.join(METHODS)} "
            "(reports.loggers.Logger)"
        )
    return logger


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
