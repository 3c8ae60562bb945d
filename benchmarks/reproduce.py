"""Everything of docs/RESULTS.md from nothing: the runs of ``reproduce.yaml``, then the page.

    python -m benchmarks.reproduce --plan                        # entries and core-hours, no run
    python -m benchmarks.reproduce --data-cifar100 DIR --data-imagenet100 DIR --out OUT --jobs 2
    python -m benchmarks.reproduce --only glyphs --out OUT       # no data needed, half an hour

OUT holds ``runs/ENTRY/N`` (a folder a run), ``logs``, ``cache``, and, made of the runs that are
finished, ``kept`` and ``RESULTS.md`` with tables and figures (``python -m reports ledger``). The
same command goes on: a run whose ``results.json`` is there and whole is not run again, one that was
killed takes up what it had finished. A run that fails stops no other; the exit code is then 1. With
``--also scale=tiny data=glyphs num_clients=2`` every run has these settings in place of its own:
minutes that show whether everything runs. After a change of the code, name another OUT.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from benchmarks.command import composed, new_parser
from conf.error_messages import explain
from conf.schema import Config
from learngene.data.class_lists import LISTS, files_of
from learngene.errors import InputError, say
from reports.ledger.ledger import add_runs, write_ledger
from reports.results import read_results
from reports.runs import RESULTS, GatherError
from reports.summary import fewest_answered, left_out
from reports.variants import PATH_PLACEHOLDERS, portable_overrides
from runtime.signals import MESSAGE, Terminated, catch_signals

ROOT = Path(__file__).resolve().parents[1]
PLAN: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
ROOTS = {name: files_of(name) for name in LISTS}  # data set: the option that names its images
ROOT_IS = "data.root="
PLACE = f"{ROOT_IS}{PATH_PLACEHOLDERS['data.root']}"
Words = tuple[str, ...]
Roots = Mapping[str, Path | None]  # folders of images, by the option that names them


@dataclass(frozen=True)
class Run:
    """One run of the plan."""

    name: str  # ENTRY/N
    words: Words  # overrides as docs/RESULTS.md shows them: images lie in DIR

    @property
    def data(self) -> str:
        return setting(self.words, "data") or "glyphs"

    def here(self, roots: Roots) -> Words:
        """The overrides with the folder of the images in the place of DIR."""
        return tuple(f"{ROOT_IS}{roots[ROOTS[self.data]]}" if w == PLACE else w for w in self.words)


@dataclass(frozen=True)
class Entry:
    """Runs that are estimated, chosen and done together, one after the other."""

    name: str
    runs: tuple[Run, ...]
    after: tuple[str, ...]
    tags: frozenset[str]
    hours: float  # of one core


def setting(words: Iterable[str], name: str) -> str:
    """The value of an override; empty where there is none."""
    return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), "")


def points(command: str) -> list[Words]:
    """The overrides of every run that a command of sim.py starts, as Hydra's sweeper has them."""
    parsed = OverridesParser.create().parse_overrides(shlex.split(command))
    values: list[list[str]] = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [str(each.input_line)]
        for each in parsed
    ]
    return list(product(*values))


def read_plan(plan: Mapping[str, Any], also: Sequence[str] = ()) -> dict[str, Entry]:
    """The entries by name, in the plan's order; ``also`` replaces settings of every run."""
    more = [*shlex.split(plan["always"]), *also]
    entries = {}
    for name, asked in plan["entries"].items():
        commands = [asked["run"]] if isinstance(asked["run"], str) else asked["run"]
        runs, tags = list[Run](), {*asked.get("tags", ())}
        for point in (point for command in commands for point in points(command)):
            tags |= {setting(point, each) for each in ("experiment", "scale")} - {""}
            tags.add(setting(point, "data") or "glyphs")
            words = {word.partition("=")[0]: word for word in (*point, *more)}
            if setting(words.values(), "data") in ROOTS:
                words["data.root"] = PLACE
            runs.append(Run(f"{name}/{len(runs)}", tuple(words.values())))
        after = tuple(asked.get("after", ()))
        entries[name] = Entry(name, tuple(runs), after, frozenset(tags), asked["hours"])
    return entries


def chosen(entries: Mapping[str, Entry], only: Sequence[str]) -> dict[str, Entry]:
    """Those with one of these names or tags; all where none is asked for.

    Raises:
        InputError: there is no such name or tag.
    """
    known = {*entries, *(tag for entry in entries.values() for tag in entry.tags)}
    for word in only:
        if word not in known:
            fix = f"There are {', '.join(sorted(known))}"
            raise InputError("--only", word, "no entry has this name or tag", fix)
    return {n: e for n, e in entries.items() if not only or {n, *e.tags} & {*only}}


def check_plan(entries: Mapping[str, Entry], roots: Roots) -> dict[str, Config]:
    """Every run's configuration, by name: what cannot be is refused before the first one starts.

    Raises:
        InputError: a folder of images was not named, or sim.py would refuse a run.
    """
    configs = {}
    for run in (run for entry in entries.values() for run in entry.runs):
        root = ROOTS.get(run.data)
        if root is not None and roots[root] is None:
            fix = "Name their folder, or choose other entries with --only"
            raise InputError(f"--data-{root}", "", f"{run.name} needs these images", fix)
        words = [*run.here(roots), "cache=unused"]
        try:
            configs[run.name] = composed(words)
        except (HydraException, OmegaConfBaseException) as error:
            problem = explain(error, words)
            raise InputError(run.name, " ".join(run.words), problem, "Mend the plan") from error
        except InputError as error:
            problem = f"sim.py refuses it: {error}".rstrip(".")
            raise InputError(run.name, " ".join(run.words), problem, "Mend the plan") from error
    return configs


def finished(run: Run, out: Path) -> bool:
    """Whether a run has ended with all its clients' and methods' answers, with these settings."""
    file = out / "runs" / run.name / RESULTS
    if not file.is_file():
        return False
    try:
        results = read_results(file)
    except ValueError:  # torn: it is run again
        return False
    same = portable_overrides(results) == portable_overrides({"run": {"overrides": run.words}})
    asked = results["run"]["config"]["num_clients"]
    return same and fewest_answered(results) >= asked and not left_out(results)


def carry_out(
    entries: Mapping[str, Entry],
    work: Callable[[Run], bool],
    jobs: int,
    stop: Callable[[], None] = lambda: None,
) -> dict[str, bool]:
    """Whether each run went well, by name: ``work`` says so of one. An entry begins when those that
    it comes after have ended, well or not: alone, it trains what they would have left it. ``stop``
    ends what is under way where this is interrupted."""
    order = TopologicalSorter({n: [a for a in e.after if a in entries] for n, e in entries.items()})
    order.prepare()
    ended: dict[str, bool] = {}
    stopped, pool = Event(), ThreadPoolExecutor(jobs)

    def do(entry: Entry) -> str:
        for run in entry.runs:
            if not stopped.is_set():
                ended[run.name] = work(run)
        return entry.name

    ready: list[str] = []
    places = list(entries)
    running: set[Future[str]] = set()
    try:
        while order.is_active():
            ready = sorted([*ready, *order.get_ready()], key=places.index)
            while ready and len(running) < jobs:
                running.add(pool.submit(do, entries[ready.pop(0)]))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                order.done(each.result())
    except BaseException:
        stopped.set()
        stop()
        raise
    finally:
        pool.shutdown()
    return ended


class Runner:
    """Does runs as processes of one thread each, with a log for each."""

    def __init__(self, out: Path, roots: Roots, total: int) -> None:
        self._out, self._roots, self._total = out, roots, total
        self._begun, self._stopped = 0, False
        self._processes: set[subprocess.Popen[bytes]] = set()

    def __call__(self, run: Run) -> bool:
        self._begun += 1
        where = f"[{self._begun}/{self._total}] {run.name}"
        if finished(run, self._out):
            return True
        folder, log = self._out / "runs" / run.name, self._out / "logs" / f"{run.name}.log"
        (folder / RESULTS).unlink(missing_ok=True)  # of other settings, or of one that failed
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{where}: {' '.join(run.words)}", flush=True)
        started, own = time.monotonic(), (f"cache={self._out / 'cache'}", f"hydra.run.dir={folder}")
        command = [sys.executable, "sim.py", *run.here(self._roots), *own]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            self._processes.add(process)
            if self._stopped:  # while it started
                process.terminate()
            code = process.wait()
            self._processes.discard(process)
        good = code == 0 and finished(run, self._out)
        told = "done" if good else f"FAILED with exit code {code}, see {log}"
        print(f"{where}: {told}, {time.monotonic() - started:.0f} s", flush=True)
        return good

    def stop(self) -> None:
        """End what runs; what it has finished is kept."""
        self._stopped = True
        for process in [*self._processes]:
            process.terminate()


def make_page(entries: Mapping[str, Entry], out: Path) -> list[str]:
    """Keep what is finished and write ``RESULTS.md``; returns what could not be kept, and why."""
    shutil.rmtree(out / "kept", ignore_errors=True)
    problems = []
    for entry in entries.values():
        folders = [out / "runs" / run.name for run in entry.runs if finished(run, out)]
        try:
            if folders:
                add_runs(folders, out / "kept")
        except GatherError as error:
            problems.append(f"{entry.name} is not on the page: {error}")
    try:
        if (out / "kept").is_dir():
            write_ledger(out / "kept", out / "RESULTS.md")
    except GatherError as error:
        problems.append(f"no page was made: {error}")
    return problems


def table(entries: Mapping[str, Entry], out: Path | None) -> str:
    """The plan as text: what is in it, what it takes, what is done."""
    lines = [f"{'entry':<24}{'runs':>5}{'done':>6}{'core-hours':>12}  after; tags"]
    whole = left = 0.0
    for entry in entries.values():
        done = sum(finished(run, out) for run in entry.runs) if out else 0
        whole += entry.hours
        left += entry.hours * (1 - done / len(entry.runs))
        told = "; ".join(filter(None, (", ".join(entry.after), ", ".join(sorted(entry.tags)))))
        lines.append(f"{entry.name:<24}{len(entry.runs):>5}{done:>6}{entry.hours:>12.2f}  {told}")
    runs = sum(len(entry.runs) for entry in entries.values())
    lines.append(f"{runs} runs, some {whole:.1f} core-hours, {left:.1f} of them to do")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("--out", type=Path, help="where everything lies")
    parser.add_argument("--only", nargs="+", default=[], help="entries, by name or tag")
    parser.add_argument("--also", nargs="+", default=[], help="overrides for every run")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        choices=(1, 2),
        help="runs at a time; one that trains opponents takes the other cores for them, too",
    )
    parser.add_argument("--plan", action="store_true", help="print the plan and run nothing")
    for root in sorted(set(ROOTS.values())):
        parser.add_argument(f"--data-{root}", type=Path, help="folder of its images")
    asked = parser.parse_args(words)
    out = asked.out and asked.out.expanduser().absolute()
    folders = {root: getattr(asked, f"data_{root}") for root in ROOTS.values()}
    roots = {root: path and path.expanduser().absolute() for root, path in folders.items()}
    try:
        entries = chosen(read_plan(PLAN, asked.also), asked.only)
        if asked.plan:
            print(table(entries, out))
            return 0
        if out is None:
            fix = "Name a folder for runs, cache and page"
            raise InputError("--out", "", "nothing says where to write", fix)
        check_plan(entries, roots)
        return _do(entries, out, roots, asked.jobs)
    except InputError as error:
        return say("reproduce", error, 2)
    except KeyboardInterrupt as end:
        return say("reproduce", MESSAGE, 143 if isinstance(end, Terminated) else 130)


def _do(entries: Mapping[str, Entry], out: Path, roots: Roots, jobs: int) -> int:
    print(table(entries, out), flush=True)
    runner = Runner(out, roots, sum(len(entry.runs) for entry in entries.values()))
    ended = carry_out(entries, runner, jobs, runner.stop)
    problems = make_page(entries, out)
    failed = [name for name, good in ended.items() if not good]
    print(f"{len(ended) - len(failed)} of {len(ended)} runs finished; {out / 'RESULTS.md'}")
    problems += [f"failed: {', '.join(failed)}"] if failed else []
    for problem in problems:
        say("reproduce", problem, 1)
    return 1 if problems else 0


if __name__ == "__main__":
    catch_signals("reproduce")
    sys.exit(main())
