"""The exit code of a multirun: that of its worst job, in whatever process a launcher ran it.

Hydra makes ``ExitCodes`` (``conf/config.yaml``) and hands it on to the process of each job, which
may be one of joblib, Slurm or Ray: there is nothing here for any of them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from learngene.utils.files import temporary_name

UNKNOWN = 1  # the code of a job that fails with an error of somebody else's
_folders: list[Path] = []  # of the multirun that this process has started


class JobFailed(RuntimeError):
    """A job of a multirun has ended with ``code``, which is not 0, and has said why: a sweeper
    counts it as failed and is given no number of it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"exit code {self.code}"


class ExitCodes(Callback):
    """Keeps the exit codes of jobs that fail, each as a file of that name in the sweep's folder."""

    def __init__(self) -> None:
        self._folder: Path | None = None  # it travels to the jobs; None: a single run

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._folder = temporary_name(Path(config.hydra.sweep.dir).absolute() / "codes")
        _folders[:] = [self._folder]

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if self._folder is not None and job_return.status is JobStatus.FAILED:
            error = job_return._return_value  # the property raises and prints it
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / str(getattr(error, "code", UNKNOWN))).touch()


def has_begun() -> bool:
    """Whether this process has started a multirun whose code was not asked for yet."""
    return bool(_folders)


def worst_code() -> int:
    """The highest exit code of the multirun's jobs, 0 where none failed or there was none. Asked
    for once, when all have ended: nothing of it is left then."""
    codes = [int(path.name) for folder in _folders if folder.is_dir() for path in folder.iterdir()]
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)
    return max(codes, default=0)
