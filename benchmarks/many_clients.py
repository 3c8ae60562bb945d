"""What a client costs besides its work, from 20 to 10,000 clients: time, memory, bytes, files.

    python -m benchmarks.many_clients [--clients 20,200,1000,5000,10000] [--work none]
                                      [--out DIR] [-- OVERRIDE ...]

One run of ``sim.py`` a number of clients, each a process of its own, with one collective of
scale=tiny for all. With ``--work none`` a client draws its shard, trains nothing and answers with
made-up curves of the due form: what is left is the cost of planning, messages, guard, accounting,
kept answers, statistics and report. ``--work all`` does the work. A cost that is flat has equal
numbers in a column for a client (on a machine that other work shares, count the processor seconds);
memory is the peak of the driver's resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.command import new_parser, numbers

if TYPE_CHECKING:
    from protocol.task import ClientTask

BASE = (
    *("scale=tiny", "runtime=serial", "collective.threads=1", "report.gradcam_images=0"),
    *("individual.epochs=30", "individual.eval_every=10"),  # curves as long as a usual run's
)
FILES = ("results.json", "messages.csv", "clients.csv", "report.html")
COLUMNS = (
    *("clients", "seconds", "processor s", "ms/client", "ms/client after"),
    *("peak MB", "MB down", "MB up"),
)


def no_work(client: int, round: int, task: ClientTask, payloads: dict[str, Any]) -> dict[str, Any]:
    """In the place of ``clients.work.run_task``: an answer of the due form, without training."""
    from learngene.data.dataset import load
    from learngene.data.partition import draw_shard
    from learngene.data.settings import ShardSettings
    from learngene.seeding import generator

    shards = ShardSettings(task.ways, task.shots, task.shard_seed, task.classes_from)
    shard = draw_shard(load(task.world), shards, client)
    chance = generator(task.seed, "made up", round, client)
    every, last = task.individual.eval_every, task.individual.epochs
    epochs = [*range(0, last, every), last]

    def curve(high: float) -> list[float]:
        return [float(each) for each in chance.uniform(0, high, len(epochs))]

    answers = {}
    for name in task.methods:
        accuracy = [float(each) / 300 for each in chance.integers(0, 301, len(epochs))]
        losses = {"loss": curve(2.0), "train_loss": curve(2.0), "penalty": curve(0.1)}
        answers[name] = {"epochs": epochs, "accuracy": accuracy, **losses, "seconds": 0.0}
    info = {
        "classes": ",".join(str(c) for c in shard.classes),
        "train_images": len(shard.train_rows),
        "test_images": len(shard.test_rows),
        "device": "cpu",
    }
    return {"client": client, "info": info, "methods": answers}


@dataclass(frozen=True)
class Ended:
    """A run as a process."""

    code: int
    seconds: float  # wall clock
    processor: float  # seconds of the driver's own and of what it waited for
    peak: float  # of its resident set, MB


def run(overrides: list[str], work: str) -> Ended:
    """One run of ``sim.py`` in a process of its own."""
    module = ["-m", "benchmarks.many_clients", "--run", work, "--", *overrides]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *module], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, processor = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    return Ended(process.returncode, seconds, processor, usage.ru_maxrss / 1e3)


def row(count: int, ended: Ended, run_dir: Path, kept: Path) -> tuple[str, ...]:
    """The numbers of a finished run, in the order of ``COLUMNS`` and of the files."""
    results = json.loads((run_dir / "results.json").read_text())
    parts, messages = results["run"]["seconds"], results["messages"]
    after = ended.seconds - sum(parts[name] for name in ("world", "collective", "clients"))
    sizes = [(run_dir / name).stat().st_size for name in FILES]
    answers = [path.stat().st_size for path in kept.iterdir()]
    return (
        f"{count:,}",
        f"{ended.seconds:.1f}",
        f"{ended.processor:.1f}",
        f"{1e3 * parts['clients'] / count:.1f}",
        f"{1e3 * after / count:.1f}",
        f"{ended.peak:,.0f}",
        *(f"{messages[name] / 1e6:,.2f}" for name in ("bytes_down", "bytes_up")),
        *(f"{size / 1e6:.2f}" for size in sizes),
        f"{sum(answers) / 1e6:.2f} in {len(answers)}",
    )


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--clients", type=numbers, default="20,200,1000,5000,10000")
    parser.add_argument("--work", choices=("none", "all"), default="none")
    parser.add_argument("--out", type=Path, help="a new folder to keep the runs in")
    parser.add_argument("--run", choices=("none", "all"), help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if arguments.run is not None:
        return one_run(arguments.overrides, arguments.run)
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder, "runs")
        out.mkdir(parents=True)
        print(" | ".join((*COLUMNS, *(f"{name}, MB" for name in FILES), "answers, MB in files")))
        for count in arguments.clients:
            run_dir, cache = out / f"{count}", out / "cache"
            where = [f"num_clients={count}", f"cache={cache}", f"hydra.run.dir={run_dir}"]
            # A collective for all; answers for each, since more clients find those of fewer.
            asked = [*BASE, *arguments.overrides, *where, f"shard_seed={count}"]
            before = set((cache / "clients").glob("*"))
            ended = run(asked, arguments.work)
            if ended.code:
                print(f"{count} clients: exit code {ended.code}", file=sys.stderr)
                return 1
            (kept,) = set((cache / "clients").glob("*")) - before
            print(" | ".join(row(count, ended, run_dir, kept)), flush=True)
    return 0


def one_run(overrides: list[str], work: str) -> int:
    """``sim.py`` in this process."""
    import sim
    from clients import client_app

    if work == "none":
        from benchmarks.many_clients import no_work as importable  # this module is __main__

        client_app.app = client_app.make_client_app(importable)
    sys.argv[1:] = overrides
    return sim.main()


if __name__ == "__main__":
    sys.exit(main())
