"""Beside two peers in one run: the same clients' work here, in plain Flower and in pfl-research.

    python -m venv VENV_PFL
    python -c "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])" \\
        > VENV_PFL/lib/python3.X/site-packages/shared.pth      # torch is shared
    VENV_PFL/bin/python -m pip install pfl
    python -m benchmarks.peers --pfl VENV_PFL/bin/python [--clients 200] [--processes 2]
                               [--rounds 3] [--only serial,ray,batched,flower,pfl]

N clients train seven layers on 50 images for 30 epochs (``benchmarks.peer_work``), nothing of a
collective. Each library works in processes of its own, started anew each time and all of it timed,
one after another and then again, so that a busy machine strikes all alike. ``serial`` and
``batched`` are one process; the others ``--processes``. Memory is the largest sum of proportional
set sizes of all processes of a contender.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.peer_work import CONTENDERS, Asked
from learngene.data.cache import build
from learngene.data.settings import SeededDataSettings

LOOK_S = 0.5  # between two looks at the memory
LIMIT_S = 3000.0  # of a run of a contender


@dataclass(frozen=True)
class Measured:
    """One run of a contender."""

    seconds: float
    peak: int  # bytes
    accuracies: list[float]


def measure(command: list[str], environment: dict[str, str], out: Path) -> Measured:
    """Run a contender; its processes, also those that left its session, have a mark.

    Raises:
        RuntimeError: it failed, or a client of it gave no accuracy.
    """
    out.mkdir()
    environment = {**environment, "PEER_OUT": str(out)}
    started, peak = time.perf_counter(), 0
    with (out / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        while process.poll() is None:
            if time.perf_counter() - started > LIMIT_S:  # Flower waits an hour for a Ray that died
                os.killpg(process.pid, signal.SIGKILL)
            peak = max(peak, resident(f"PEER_OUT={out}".encode()))
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
    seconds = time.perf_counter() - started
    found = [json.loads(part.read_text()) for part in out.glob("accuracies-*.json")]
    accuracies = [each for part in found for each in part]
    if process.returncode or len(accuracies) != Asked.read().clients:
        tail = (out / "log").read_text()[-2000:]
        raise RuntimeError(f"exit {process.returncode}, {len(accuracies)} accuracies: {tail}")
    return Measured(seconds, peak, accuracies)


def resident(mark: bytes) -> int:
    """Sum of the proportional set sizes of the processes with this in their environment, bytes."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found = re.search(rb"^Pss:\s+(\d+)", (folder / "smaps_rollup").read_bytes(), re.M)
                total += 1024 * int(found[1]) if found else 0
    return total


def command_of(name: str, processes: int, pfl: str | None) -> list[str]:
    """How a contender is started."""
    # torch.distributed.run would take --run for the beginning of its own --run-path
    module = ["-m", "benchmarks.peers", "--work", name]
    if name != "pfl":
        return [sys.executable, *module]
    assert pfl is not None
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [pfl, *(several if processes > 1 else []), *module]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="contenders, with commas; default: all")
    parser.add_argument("--pfl", help="python of an environment that has pfl; none: left out")
    parser.add_argument("--work", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return run(arguments.work)
    names = arguments.only.split(",") if arguments.only else list(CONTENDERS)
    if arguments.pfl is None:
        names = [name for name in names if name != "pfl"]
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        world = build(SeededDataSettings(), Path(folder, "cache"))
        asked = Asked(str(world.path), arguments.clients, arguments.processes)
        os.environ |= {"OMP_NUM_THREADS": "1", **asked.variable()}
        for turn in range(arguments.rounds):
            for name in names:
                command = command_of(name, arguments.processes, arguments.pfl)
                out = Path(folder, f"{name}-{turn}")
                runs[name].append(measure(command, dict(os.environ), out))
                print(f"{turn + 1}/{arguments.rounds} {name}: {runs[name][-1].seconds:.1f} s")
    print(f"{arguments.clients} clients, {arguments.processes} processes, {arguments.rounds} times")
    print("contender | clients a second | to the first | memory, MB | to the first | accuracy")
    rates = {name: arguments.clients / median(r.seconds for r in runs[name]) for name in names}
    peaks = {name: max(r.peak for r in runs[name]) for name in names}
    for name in names:
        accuracies = runs[name][0].accuracies
        print(
            f"{name} | {rates[name]:.2f} | {rates[name] / rates[names[0]]:.2f} | "
            f"{peaks[name] / 1e6:,.0f} | {peaks[name] / peaks[names[0]]:.2f} | "
            f"{sum(accuracies) / len(accuracies):.3f}"
        )
    return 0


def run(name: str) -> int:
    """A contender in this process (one of several of pfl's)."""
    accuracies = CONTENDERS[name]()
    part = f"accuracies-{os.environ.get('RANK', '0')}.json"
    Path(os.environ["PEER_OUT"], part).write_text(json.dumps(accuracies))
    return 0


if __name__ == "__main__":
    sys.exit(main())
