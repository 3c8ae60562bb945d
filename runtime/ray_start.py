"""Ray and its workers: begun when clients are to run, or before, while the factory still trains.

What the start costs besides processor time (processes that wait for each other) is then over when
the first client is due. Not earlier than need be: a worker that waits holds its memory.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol.callbacks import RunCallback
from runtime.resources import Resources
from runtime.signals import BackendLost

# Read when ray is imported, here and in the workers.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's C++ would print its stack at a SIGTERM that Python answers to.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")

if TYPE_CHECKING:  # brings flwr and ray, which a run of no Ray does without
    from learngene.collective.trainer import CollectiveTrainer
    from runtime.workers import WorkerPool


_died = threading.Event()  # a Ray of this process


class RayStart(RunCallback):
    """The Ray of one run. It may be begun anew when it has ended, not when it was lost.

    As a callback of the run it begins by itself in the factory's last training: the collective's
    last task, or, where methods have a half at the factory, the middle of the first to get there.
    Where nothing is trained it does not: perhaps nobody is to be asked either.

    Args:
        resources: as checked.
        client_timeout_s: a client's own limit, seconds.
        halves: whether methods are trained at the factory after the collective.

    Raises:
        BackendLost: Ray was lost in this process, and cannot be begun in it again.
    """

    def __init__(
        self, resources: Resources, client_timeout_s: float | None, *, halves: bool = False
    ) -> None:
        if _died.is_set():  # a multirun's earlier job; said before this one trains anything
            raise BackendLost("Ray died in an earlier run of this process: start the command again")
        self._resources, self._client_timeout_s, self._halves = resources, client_timeout_s, halves
        self._thread: threading.Thread | None = None
        self._early = False
        self._error: BaseException | None = None
        self._on_lost: Callable[[], None] = lambda: None

    def on_task_end(self, trainer: CollectiveTrainer, restored: bool) -> None:
        if not self._halves and len(trainer.tasks) - len(trainer.stages) == 1:
            self.begin(early=True)

    def on_method_step(self, method: str, done: int, steps: int) -> None:
        if 2 * done >= steps:
            self.begin(early=True)

    def begin(self, *, early: bool = False) -> None:
        """Start in the background, once. In the main thread: variables of the environment change,
        which no other thread may do beside it.

        Args:
            early: have workers import what their first client will need. A joined cluster, which
                others use, is not entered early.
        """
        if self._thread is not None or (early and self._resources.address is not None):
            return
        from runtime.workers import WorkerPool

        self._up, self._over = threading.Event(), threading.Event()
        self._early, self._error = early, None
        self._pool = WorkerPool(self._client_timeout_s, on_lost=lambda: self._on_lost())
        self._around = ExitStack()
        try:
            init_args = self._around.enter_context(_surroundings(self._resources))
        except BaseException:
            self._around.close()
            raise
        self._thread = threading.Thread(
            target=self._run, args=(init_args,), name="ray's start", daemon=True
        )
        self._thread.start()

    def _run(self, init_args: dict[str, Any]) -> None:
        """Start Ray, and stay: the kernel ends Ray's processes with the thread that made them."""
        import ray

        try:
            ray.init(**init_args)
            self._pool.open(self._resources, ready=self._early)
        except BaseException as error:  # also SystemExit, which would end this thread alone
            self._error = error
        self._up.set()
        self._over.wait()
        self._pool.end()
        if self._pool.lost is None:
            ray.shutdown()
        else:
            _died.set()

    def begin_and_wait(self) -> None:
        """Begin early, and come back when every worker is up (what is wrong is ``running``'s)."""
        self.begin(early=True)
        self._up.wait()
        self._pool.wait_for_all()

    @contextmanager
    def running(self, on_lost: Callable[[], None]) -> Iterator[WorkerPool]:
        """Begin where that is not done, wait until Ray is up, and end it afterwards.

        Args:
            on_lost: called once if Ray dies from now on.

        Raises:
            BackendLost: it could not start, or has died since.
        """
        self.begin()
        try:
            self._up.wait()
            if self._early and self._error is not None:
                # Ray gives its start half a minute, which beside a training may be too little.
                self.close()
                self.begin()
                self._up.wait()
            self._on_lost = on_lost
            if self._error is not None:
                raise BackendLost(f"the Ray backend failed: {say(self._error)}") from self._error
            if self._pool.lost is not None:
                raise self._pool.lost
            yield self._pool
        finally:
            self.close()

    def close(self) -> None:
        """End Ray and its workers, whatever they do; nothing where it has not begun."""
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()  # Ray's start cannot be broken off; a signal's grace limits the wait
        self._around.close()
        self._thread, self._on_lost = None, lambda: None


def say(error: BaseException) -> str:
    """A library's error on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


@contextmanager
def _surroundings(resources: Resources) -> Iterator[dict[str, Any]]:
    """What has to hold as long as Ray runs; gives the arguments of ``ray.init``."""
    import ray
    import ray._private.worker as ray_worker

    from runtime.private_ray import private_ray

    # The raylet's notices of retries and deaths go straight to stdout.
    ray_worker._worker_logs_enabled = False
    warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
    if ray.is_initialized():
        raise RuntimeError("Ray already runs in this process: call ray.shutdown() first")
    own: AbstractContextManager[dict[str, Any]]
    own = private_ray() if resources.address is None else nullcontext({})
    with _environment(), own as of_its_own, _signals():
        init_args = resources.init_args() | of_its_own
        if resources.address is not None:  # its processes have another's environment
            known = {"PYTHONPATH": os.environ["PYTHONPATH"]}
            init_args["runtime_env"] = {"env_vars": known}
        yield init_args


def _environment() -> AbstractContextManager[None]:
    """Variables for Ray and its workers; what was there comes back."""
    from runtime.cluster import GIVE_UP
    from runtime.private_ray import environment

    # Workers import what the driver can, also where the project is not installed and the driver
    # runs from another folder.
    root = str(Path(__file__).resolve().parents[1])
    paths = [*sys.path, root, os.environ.get("PYTHONPATH", "")]
    # After a kill -9 of the driver the kernel ends gcs and raylet, and the raylet's workers follow.
    # Its two agents try to report that to the gcs, which is gone, for as many seconds as this.
    gives_up = os.environ.get(GIVE_UP, "10")
    known = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "RAY_ADDRESS": None}
    return environment(known | {GIVE_UP: gives_up})


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM stays ours: ``ray.init`` takes it over, and would exit with code 1 or 15."""
    import ray._private.utils as utils

    original = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = original
