"""A driver to be interrupted: run as a script, from any folder, with the project not installed.

Client 1 never ends; once client 0 has answered, this process sends itself Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # where sim.py would be run from


def main() -> None:
    from protocol.callbacks import RunCallback
    from runtime.ray_backend import leave, simulate
    from runtime.resources import RuntimeSettings
    from strategies.learngene import LearngeneStrategy
    from tests.runtime.fake_work import app, fake_task, plan

    hangs = plan(fake_task(do={"1": "hang"}))
    strategy = LearngeneStrategy(2, lambda _: [hangs])

    class Interrupts(RunCallback):
        def on_reply(self, client: int, ok: bool) -> None:
            # Once, and a little later, so that the main thread is where it waits for the clients.
            # The interrupt kills client 1's worker, which may count as its reply.
            if not client:
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    # A shell that starts its jobs in the background has them ignore Ctrl-C, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = RuntimeSettings("ray", timeout_s=300, total_cpus=2)
    try:
        simulate(strategy, 1, settings, 2, client_app=app, callback=Interrupts())
    except KeyboardInterrupt:
        done = strategy.finish_round() or strategy.rounds[-1]
        print(json.dumps([[each.client, each.error is None] for each in done.clients]), flush=True)
        leave(130)


if __name__ == "__main__":
    main()
