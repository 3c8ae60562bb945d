"""Where clients run: the only caller of Flower's simulation entry point.

``run_simulation`` is deprecated and has sharp edges (``docs/RELIABILITY.md``): it swallows errors,
waits for clients that hang, joins any Ray cluster it finds and leaves the environment changed.
``simulate`` comes back, or raises, with no process and no variable left behind.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from logging import CRITICAL

# Read when flwr is imported, here and in the workers.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from flwr.clientapp import ClientApp
from flwr.supercore import telemetry

from learngene.errors import InputError
from protocol.callbacks import SILENT, RunCallback
from runtime.batched_backend import BatchedGrid, cohort_size
from runtime.delivery import direct_delivery
from runtime.grid_backend import OutsideGrid, quiet
from runtime.ray_start import RayStart, say
from runtime.resources import Resources, RuntimeSettings, check_resources
from runtime.serial_backend import SerialGrid, run_on
from runtime.signals import ENDING, BackendLost, exit_code
from runtime.workers import lasting_workers
from server.server_app import LearngeneServerApp, make_server_app
from strategies.learngene import LearngeneStrategy

telemetry.FLWR_TELEMETRY_ENABLED = os.environ["FLWR_TELEMETRY_ENABLED"]  # if imported earlier

# Messages a worker that are out at once: enough to leave none idle between two looks for messages,
# and more than workers that hang can hold on to.
IN_FLIGHT = 4
JOIN_S = 10.0  # how long the ServerApp's thread may take to notice that the run is over


def simulate(
    strategy: LearngeneStrategy,
    rounds: int,
    runtime: RuntimeSettings,
    num_clients: int,
    *,
    resources: Resources | None = None,
    ray: RayStart | None = None,
    outside: OutsideGrid | None = None,
    client_app: ClientApp | None = None,
    callback: RunCallback = SILENT,
) -> None:
    """Run all rounds; what they brought is in ``strategy.rounds``.

    A client that misses the round's deadline keeps its worker busy, so later rounds have one fewer;
    ``runtime.client_timeout_s`` ends it earlier and frees the worker.

    Args:
        strategy: made for ``num_clients``.
        rounds: how many times each client is asked.
        runtime: ``ray``, ``serial`` or ``batched``, and what a client may hold.
        num_clients: nodes to simulate.
        resources: what ``check_resources`` has found for Ray; default: it is asked here.
        ray: the run's Ray, which may have begun before; default: one for this call.
        outside: nodes that are there already; nothing is simulated then.
        client_app: what answers; default ``clients.client_app.app``.
        callback: its ``on_reply`` is called as replies arrive; with Ray not in the main thread.

    Raises:
        InputError: the runtime asks for what the machine does not have. Before Ray starts.
        BackendLost: Ray could not start, or died. It may not be used again in this process.
        KeyboardInterrupt: passed on after cleaning up; ``strategy.finish_round()`` has what was
            finished. Whatever else the strategy raised is raised here, too.
    """
    if outside is not None:
        return outside.run(strategy, rounds, runtime, callback)
    if client_app is None:
        from clients.client_app import app

        client_app = app
    strategy.timeout_s = runtime.timeout_s
    in_flight = None
    if runtime.name == "ray":  # also where nobody is to be asked: what is wrong is wrong every time
        found = resources or check_resources(runtime, num_clients)
        in_flight = IN_FLIGHT * found.workers
    server_app = make_server_app(strategy, rounds, runtime.timeout_s, callback, in_flight=in_flight)
    # Where earlier runs have every answer there is nothing to start Ray for.
    everything = rounds * num_clients
    if runtime.name == "serial" or (runtime.name == "ray" and strategy.kept(rounds) == everything):
        with quiet(CRITICAL):
            run_on(SerialGrid(client_app, num_clients, runtime.timeout_s), server_app)
    elif runtime.name == "batched":
        cohort = cohort_size(runtime, num_clients)
        tell = callback.on_progress
        grid = BatchedGrid(client_app, num_clients, runtime.timeout_s, cohort, tell)
        with quiet(CRITICAL):
            run_on(grid, server_app)
    elif runtime.name == "ray":
        callback.on_progress("clients, Ray starts")
        start = ray or RayStart(found, runtime.client_timeout_s)
        _run_ray(server_app, client_app, num_clients, start)
    else:
        fix = "Choose ray, serial or batched"
        raise InputError("runtime", runtime.name, "no such runtime here", fix)
    if server_app.error is not None:
        raise server_app.error


def _run_ray(
    server_app: LearngeneServerApp, client_app: ClientApp, num_clients: int, start: RayStart
) -> None:
    import flwr.simulation

    lost = server_app.stop.set
    with quiet(CRITICAL), start.running(lost) as pool, direct_delivery(), lasting_workers(pool):
        # The backend waits for every client under way, also for one that has missed the deadline
        # or will never end: once the ServerApp is through, nobody wants their replies.
        server_app.on_finish = pool.end
        pool.late = server_app.late
        try:
            flwr.simulation.run_simulation(server_app, client_app, num_clients)
        except Exception as error:
            if pool.lost is not None:
                raise pool.lost from None
            if server_app.error is None:
                raise BackendLost(f"the Ray backend failed: {say(error)}") from error
        except SystemExit as error:  # flwr exits the process over a missing dependency
            raise BackendLost(f"Flower gave up (exit code {error.code})") from error
        finally:
            server_app.stop.set()
            pool.end()
            if server_app.started.is_set():
                server_app.finished.wait(JOIN_S)
    if not server_app.finished.is_set():
        raise BackendLost("the ServerApp did not end with its backend")


def leave(code: int) -> None:
    """End the process with this exit code, also when a library left a thread that does not end.

    After a signal nothing more is run: Ray's own end, at an interpreter that is going away, may
    abort the process (seen once in 30 random kills), and what called would read -6 for 143. Ray's
    processes end with ours. Nor where Ray has died, and would be waited for.
    """
    with suppress(OSError):  # whoever read them may be gone
        sys.stdout.flush()
        sys.stderr.flush()
    alive = [each for each in threading.enumerate() if not each.daemon]
    ray = sys.modules.get("ray")
    died = ray is not None and ray.is_initialized()  # ``simulate`` has shut down one that lives
    if died or code in map(exit_code, ENDING) or alive != [threading.main_thread()]:
        os._exit(code)
    sys.exit(code)
