"""Kill a run at random moments, damage its files, run the same command: the results must be equal.

    python tests/chaos.py --runs 30 --seed 0

Undisturbed runs of a tiny glyph dataset give the hashes that are due. Then, each time with a fresh
cache, the same command is started and disturbed (``disturb``), once or twice, and run again until
it ends with exit 0. Every line of the table must say ``equal``: the exit code is 1 otherwise.
Nothing in the program knows of this script: it watches the cache's files to find its moments.

Every second run has a method of the factory's and a federated one besides, every third runs with
Ray, whose workers, raylet and gcs are disturbed, too. The others are forks of this process, which
has imported everything already (half of what a tiny run takes is imports); ``sim.main`` is called
in them with the command's arguments. Every fifth one, and all with Ray, are commands of their own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "LEARNGENE_CHAOS"  # in the environment of all processes of a run, to find what it left
ASKED = (
    *("scale=tiny", "num_clients=4", "rounds=2", "shots=3", "individual.epochs=1"),
    *("data.classes=20", "data.train_per_class=12", "data.test_per_class=6"),
    *("collective.classes_per_task=5", "open_world.calibration_per_class=3"),
    *("report.gradcam_images=2", "ways=2", "data.novel=0.2", "data.base=0.6"),
    *("data.open_world=0.2", "collective.threads=1"),
)
# Every second run has the one, every second the other: the two exclude each other.
KINDS = {
    "cycles": ("open_world.cycles=1", "open_world.accept=0.3", "open_world.images_to_add=2"),
    "methods": (
        "methods=[learngene,scratch,protonet,finetune,fedbn]",
        *("budget=100", "method.protonet.shots=2", "method.protonet.queries=2"),
        *("method.fedbn.rounds=2", "method.fedbn.local_epochs=1"),
    ),
}
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
FROZEN = "a worker frozen"  # for seconds, or for good
TO_A_WORKER = {
    "kill -9 of a worker": signal.SIGKILL,
    "SIGTERM to a worker": signal.SIGTERM,
    FROZEN: signal.SIGSTOP,
    f"{FROZEN} for good": signal.SIGSTOP,
}
OF_RAY = {"kill -9 of the raylet": "raylet", "kill -9 of the gcs": "gcs_server"}
FAILED = 1  # the exit code where Ray itself has died
SESSIONS: dict[str, set[str]] = {}  # of Ray, by mark
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2)}
IMPORTED = (
    *("sim", "reports.run", "server.factory", "strategies.answer_cache", "protocol.task"),
    *(
        "runtime.ray_backend",
        "runtime.serial_backend",
        "clients.work",
        "learngene.methods.learngene",
    ),
    *("learngene.data.sources.glyphs", "pytorch_ood.detector", "captum.attr", "scipy.stats"),
)
PATIENCE_S = 300.0  # for one command; nothing here takes a tenth of it on a free machine
RAY_S = 8.0  # about what Ray adds to a run: it starts, and its workers import everything
LEAVING_S = 30.0  # the program gives itself 8 s; a loaded machine gets more


@dataclass
class Run:
    """One command under way."""

    cache: Path
    runtime: str
    mark: str
    process: Command | Fork
    log: Path

    def alive(self) -> bool:
        return self.process.poll() is None


class Command(subprocess.Popen[bytes]):
    """``python sim.py ...``"""


class Fork:
    """``sim.main`` in a copy of this process, with what is used of Popen."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_in_a_fork, args=(arguments, environment, log))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("sim.main", timeout or 0)
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, signum)

    def kill(self) -> None:
        self._process.kill()


def _in_a_fork(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    import sim
    from runtime.ray_backend import leave

    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(handle, standard)
    os.environ.update(environment)
    sys.argv = ["sim.py", *arguments]
    leave(sim.main())


def import_everything() -> None:
    """What a run imports, so that its forks need not."""
    sys.path.insert(0, str(ROOT))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    for name in IMPORTED:
        importlib.import_module(name)


@dataclass
class Trial:
    number: int
    kind: str  # of KINDS
    runtime: str
    forked: bool
    events: list[str] = field(default_factory=list)
    starts: int = 0
    problems: list[str] = field(default_factory=list)


def start(cache: Path, trial: Trial) -> Run:
    mark = f"{cache.name}-{os.getpid()}-{trial.starts}"
    trial.starts += 1
    folder = cache.with_name(f"run-{cache.name}")
    shutil.rmtree(folder, ignore_errors=True)
    log = cache.with_name(f"log-{cache.name}.txt")
    arguments = [*ASKED, *KINDS[trial.kind], f"runtime={trial.runtime}", "runtime.total_cpus=2"]
    arguments.append(f"hydra.run.dir={folder}")
    environment = {"LEARNGENE_CACHE": str(cache), MARK: mark}
    process: Command | Fork
    if trial.forked:
        process = Fork(arguments, environment, log)
    else:
        with log.open("ab") as out:
            process = Command(
                [sys.executable, str(ROOT / "sim.py"), *arguments],
                env={**os.environ, **environment},
                stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            )  # fmt: skip
    return Run(cache, trial.runtime, mark, process, log)


def processes(mark: str) -> dict[int, str]:
    """Processes of a run, by id, with their names.

    They have the mark in their environment. Ray writes over that of its agents, which are found as
    holding files open in the folder of the raylet's session.
    """
    found: dict[int, str] = {}
    sessions = SESSIONS.setdefault(mark, set())
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                name = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                if name:  # a zombie has none
                    found[int(folder.name)] = name
                    sessions.update(re.findall(r"session_[-_0-9]+", name))
            elif sessions and b"ray::" in (folder / "cmdline").read_bytes():
                opened = " ".join(str(each.readlink()) for each in (folder / "fd").iterdir())
                if any(f"/{each}/" in opened for each in sessions):
                    found[int(folder.name)] = (
                        (folder / "cmdline").read_bytes().decode(errors="replace")
                    )
        except OSError:
            continue
    return found


def files(cache: Path, pattern: str) -> list[Path]:
    return [path for path in cache.glob(pattern) if path.is_file()]


def until(run: Run, condition: Callable[[], object]) -> bool:
    """Wait for a moment of the run; False where the run ended or took too long before it."""
    deadline = time.monotonic() + PATIENCE_S
    while run.alive() and time.monotonic() < deadline:
        try:
            if condition():
                return True
        except OSError:  # a folder was renamed while it was listed
            pass
        time.sleep(0.0005)
    return False


# -- moments: each gives its name and the condition to wait for ------------------------------------


def at_a_time(cache: Path, draw: random.Random, seconds: float) -> tuple[str, Callable[[], object]]:
    due = draw.uniform(0, seconds)
    begun = time.monotonic()
    return f"after {due:.1f} s", lambda: time.monotonic() - begun >= due


def in_the_dataset(cache: Path, draw: random.Random, _: float) -> tuple[str, Callable[[], object]]:
    return "dataset under way", lambda: list(cache.glob("worlds/.*"))


def after_a_task(cache: Path, draw: random.Random, _: float) -> tuple[str, Callable[[], object]]:
    task = draw.randint(1, 3)
    name = f"collectives/*/task-{task:03d}.json"
    return f"task {task} kept", lambda: files(cache, name)


def after_the_cycle(cache: Path, draw: random.Random, _: float) -> tuple[str, Callable[[], object]]:
    return "cycle kept", lambda: files(cache, "collectives/*/cycles-*/cycle-001.json")


def after_a_method(cache: Path, draw: random.Random, _: float) -> tuple[str, Callable[[], object]]:
    name = draw.choice(["protonet", "finetune-part", "finetune"])
    return f"{name} kept", lambda: files(cache, f"methods/*/{name}.json")


def after_a_round(cache: Path, draw: random.Random, _: float) -> tuple[str, Callable[[], object]]:
    turn = draw.randint(0, 1)
    return f"federated round {2 - turn} kept", lambda: files(
        cache, f"federated/*/fedbn-{turn}.json"
    )


def after_clients(cache: Path, draw: random.Random, _: float) -> tuple[str, Callable[[], object]]:
    count = draw.randint(1, 7)

    def kept() -> bool:  # a line each, behind one about the question
        there = files(cache, "clients/*/answers-*.jsonl")
        return sum(max(path.read_bytes().count(b"\n") - 1, 0) for path in there) >= count

    return f"{count} answers kept", kept


def in_a_write(cache: Path, draw: random.Random, _: float) -> tuple[str, Callable[[], object]]:
    nth = draw.randint(1, 12)
    seen: set[str] = set()

    def writing() -> bool:
        for pattern in ("*/*/.*-*", "collectives/*/*/.*-*"):
            seen.update(str(path) for path in cache.glob(pattern))
        return len(seen) >= nth

    return f"file {nth} being written", writing


def while_reporting(cache: Path, draw: random.Random, _: float) -> tuple[str, Callable[[], object]]:
    folder = cache.with_name(f"run-{cache.name}")
    return "report under way", lambda: list(folder.glob("learngene.safetensors"))


MOMENTS = (at_a_time, in_the_dataset, after_a_task, after_clients, in_a_write, while_reporting)
OF_KIND = {"cycles": (after_the_cycle,), "methods": (after_a_method, after_a_round)}


# -- disturbances ----------------------------------------------------------------------------------


def disturb(run: Run, trial: Trial, draw: random.Random, seconds: float) -> None:
    """Wait for a random moment and send a random signal; checks how the run ended."""
    moments = [*MOMENTS, *OF_KIND[trial.kind]]
    kinds: list[Iterable[str]] = [SIGNALS]
    if run.runtime == "ray":
        moments, seconds = [after_clients, at_a_time], seconds + RAY_S
        kinds = [SIGNALS, TO_A_WORKER, TO_A_WORKER, OF_RAY]
    said, condition = draw.choice(moments)(run.cache, draw, seconds)
    name = draw.choice(list(draw.choice(kinds)))
    came = until(run, condition)
    if came and draw.random() < 0.5:
        time.sleep(draw.uniform(0, 0.3))
    trial.events.append(f"{name}, {said}" + ("" if came else " (it had ended)"))
    if not came:
        return
    there = processes(run.mark) if run.runtime == "ray" else {}  # and to know its session
    what = "ClientAppActor" if name in TO_A_WORKER else f"/{OF_RAY.get(name)} "
    if name not in SIGNALS:
        found = [pid for pid, cmd in there.items() if what in cmd]
        if not found:
            trial.events[-1] += " (none was there)"
            return
        with suppress(ProcessLookupError):
            pid = draw.choice(found)
            os.kill(pid, TO_A_WORKER.get(name, signal.SIGKILL))
            if name == FROZEN:
                time.sleep(draw.uniform(1, 15))
                os.kill(pid, signal.SIGCONT)
    if name in TO_A_WORKER:  # the run itself goes on
        return
    if name in SIGNALS:
        run.process.send_signal(SIGNALS[name])
    try:
        code = run.process.wait(LEAVING_S)
    except subprocess.TimeoutExpired:
        trial.problems.append(f"alive {LEAVING_S:g} s after {name}")
        run.process.kill()
        code = run.process.wait()
    if code not in (*(CODES[SIGNALS[name]] if name in SIGNALS else (FAILED,)), 0):
        trial.problems.append(f"exit {code} after {name}")


def damage(cache: Path, trial: Trial, draw: random.Random) -> None:
    """Truncate, empty or flip a bit of a random file of the cache."""
    there = sorted(path for path in cache.rglob("*") if path.is_file() and path.stat().st_size)
    if not there:
        return
    # By kind first: the clients' files are many.
    kinds = sorted({re.sub(r"\d+", "N", path.name) for path in there})
    kind = draw.choice(kinds)
    path = draw.choice([each for each in there if re.sub(r"\d+", "N", each.name) == kind])
    data = bytearray(path.read_bytes())
    how = draw.choice(["truncated", "emptied", "flipped", "flipped"])
    if how == "truncated":
        data = data[: draw.randrange(len(data))]
    elif how == "emptied":
        data = bytearray()
    else:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))
    trial.events.append(f"{how} {path.name}")


def move(cache: Path, trial: Trial) -> Path:
    """The cache in a folder of a longer name, as on another machine."""
    trial.events.append("cache moved")
    return cache.rename(cache.with_name(f"{cache.name}-moved-elsewhere"))


def finish(run: Run, trial: Trial) -> str | None:
    """Wait for the end; the result's hash, or None with the reason among the problems."""
    try:
        code = run.process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        run.process.kill()
        code = run.process.wait()
        trial.problems.append(f"did not end in {PATIENCE_S:g} s")
    if code != 0:
        last = run.log.read_text(errors="replace").strip().splitlines()[-1:]
        trial.problems.append(f"exit {code}: {' '.join(last)[:200]}")
        return None
    text = run.cache.with_name(f"run-{run.cache.name}").joinpath("results.json").read_text()
    return str(json.loads(text)["run"]["result_sha256"])


def left_behind(mark: str) -> dict[int, str]:
    """What is alive of a run that has ended. Ray's processes are given a moment to notice."""
    deadline = time.monotonic() + LEAVING_S
    while (left := processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return {pid: name[:80] for pid, name in left.items()}


def trials(folder: Path, numbers: range, seed: int, ray_every: int, due: dict[str, str],
           seconds: float) -> Iterator[tuple[Trial, str | None]]:  # fmt: skip
    for number in numbers:
        draw = random.Random(f"{seed}-{number}")
        ray = ray_every and number % ray_every == ray_every - 1
        kind = "methods" if number % 4 in (1, 2) else "cycles"  # both with Ray, too
        trial = Trial(number, kind, "ray" if ray else "serial", not ray and number % 5 != 4)
        cache = folder / f"c{number:04d}"
        found = None
        for _ in range(draw.choice([1, 1, 2])):
            run = start(cache, trial)
            if draw.random() < 0.2 and trial.runtime == "serial":
                found = finish(run, trial)  # whole, then damaged
                if found not in (due[kind], None):
                    trial.problems.append("differs before it was damaged")
                damage(cache, trial, draw)
                continue
            disturb(run, trial, draw, seconds)
            if run.alive():  # a worker was disturbed: the run itself goes on
                finish(run, trial)
            if left := left_behind(run.mark):
                trial.problems.append(f"left behind: {left}")
            if draw.random() < 0.3:
                damage(cache, trial, draw)
        if draw.random() < 0.3 and cache.exists():
            cache = move(cache, trial)
        run = start(cache, trial)
        found = finish(run, trial)
        if left := left_behind(run.mark):
            trial.problems.append(f"left behind: {left}")
        yield trial, found
        if found == due[kind] and not trial.problems:
            for each in (cache, cache.with_name(f"run-{cache.name}")):
                shutil.rmtree(each, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first; to repeat one")
    parser.add_argument("--ray-every", type=int, default=3, help="every n-th run with Ray; 0: none")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all files")
    asked = parser.parse_args(arguments)
    # Ignored where a shell started this in the background, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    begun = time.monotonic()
    import_everything()
    due, seconds = {}, 0.0
    for kind in KINDS:
        whole, again = (Trial(-1, kind, "serial", forked=forked) for forked in (False, True))
        found = finish(start(folder / f"c-ref-{kind}", whole), whole)
        begun_again = time.monotonic()
        if finish(start(folder / f"c-two-{kind}", again), again) != found or found is None:
            problems = f"{whole.problems} {again.problems}"
            print(f"two undisturbed runs differ or failed: {problems}", file=sys.stderr)
            return 1
        due[kind], seconds = found, time.monotonic() - begun_again
        print(f"undisturbed: {kind} {seconds:.1f} s, {found[:16]}, files in {folder}", flush=True)
    wrong, numbers = 0, range(asked.first, asked.first + asked.runs)
    for trial, found in trials(folder, numbers, asked.seed, asked.ray_every, due, seconds):
        verdict = "equal" if found == due[trial.kind] else "DIFFERS" if found else "FAILED"
        wrong += verdict != "equal" or bool(trial.problems)
        problems = "; ".join(trial.problems)
        print(
            f"{trial.number:3d} {trial.runtime:6s} {trial.kind:7s} {trial.starts} starts  "
            f"{verdict:8s}"
            f"{'; '.join(trial.events)}{'  PROBLEM: ' + problems if problems else ''}",
            flush=True,
        )
    print(f"{asked.runs - wrong} of {asked.runs} equal, {time.monotonic() - begun:.0f} s")
    if not wrong and not asked.keep:
        shutil.rmtree(folder)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
