"""A fixed set of tiny runs and the ``run.result_sha256`` of each: did a change move any number?

    python -m benchmarks.fixed_runs write before.json     # 42 runs, some five minutes on two cores
    (change the code)
    python -m benchmarks.fixed_runs check before.json     # names each run whose hash is another

Glyphs at ``scale=tiny``: serial and Ray, every experiment, all methods, rounds, cycles, planted
faults, and a run that takes up what another left in the cache. A run that fails has no hash: it is
named, and the exit code is 1. Hashes hang on processor and versions: compare on one machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from benchmarks.command import json_file, new_parser, positive
from learngene.methods.registry import BUILT_IN

ROOT = Path(__file__).resolve().parents[1]
TINY = ("scale=tiny", "runtime=serial", "collective.threads=1", "num_clients=2")
TASKS = "collective.classes_per_task=11"  # two tasks


def _runs() -> dict[str, tuple[str, ...]]:
    """The runs of ``fixed_runs.yaml`` and every experiment, with all their overrides."""
    asked = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    every = f"methods=[{','.join(BUILT_IN)}]"
    runs = {
        name: (*TINY, *(words or "").replace("methods=[ALL]", every).split())
        for name, words in asked["runs"].items()
    }
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        for number, point in enumerate(asked["points"].get(path.stem, [""])):
            words = (*TINY, TASKS, f"experiment={path.stem}", *point.split())
            runs[f"{path.stem}-{number}"] = words
    return runs


RUNS = _runs()
AFTER = {"resume": "serial"}  # takes up what the other left


def _run(name: str, folder: Path) -> str:
    """The run's hash; where there is none, "exit CODE" and the end of what it said."""
    cache = folder / AFTER.get(name, name)
    out = folder / "runs" / name
    words = [*RUNS[name], f"cache={cache}", f"hydra.run.dir={out}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "sim.py", *words], cwd=ROOT, env=env, capture_output=True, text=True
    )
    file = out / "results.json"
    if done.returncode or not file.is_file():
        return f"exit {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"
    return str(json.loads(file.read_text())["run"]["result_sha256"])


def _all(names: Collection[str], folder: Path, jobs: int) -> dict[str, str]:
    """What ``_run`` says of each of these and of those that they go on from."""
    due = {*names, *(AFTER[name] for name in names if name in AFTER)}
    first = [name for name in RUNS if name in due and name not in AFTER]
    with ThreadPoolExecutor(jobs) as pool:
        found = dict(zip(first, pool.map(lambda name: _run(name, folder), first), strict=True))
    return found | {name: _run(name, folder) for name in RUNS if name in due and name in AFTER}


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("action", choices=["write", "check"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="+", default=list(RUNS), choices=list(RUNS), metavar="RUN")
    parser.add_argument("--jobs", type=positive, default=2)
    parser.add_argument("--folder", type=Path, help="where the runs stay; by default they go")
    asked = parser.parse_args()
    if asked.action == "check" and not asked.file.is_file():
        parser.error(f"{asked.file}: no such file (write makes one)")
    kept = asked.folder and asked.folder.absolute()  # runs are started in ROOT
    if kept and kept.exists() and not (kept.is_dir() and not any(kept.iterdir())):
        parser.error(f"--folder: {kept} is there and no empty folder; name another")
    try:
        before = json_file(asked.file) if asked.action == "check" else {}
    except ArgumentTypeError as error:
        parser.error(f"FILE: {error}")
    with nullcontext(kept) if kept else TemporaryDirectory(prefix="fixed_runs-") as folder:
        hashes = _all(asked.only, Path(folder), asked.jobs)
    failed = {name: said for name, said in hashes.items() if said.startswith("exit ")}
    other = dict[str, str]()
    if asked.action == "write":
        asked.file.write_text(json.dumps(hashes, indent=1) + "\n")
        print("\n".join(f"{name}: {value}" for name, value in hashes.items()))
    else:
        other = {name: now for name, now in hashes.items() if now != before.get(name)}
        for name, now in other.items():
            print(f"{name}: {before.get(name)} before, {now} now")
        print(f"{len(hashes) - len(other)} of {len(hashes)} equal")
    if failed:
        print(f"{len(failed)} failed: {', '.join(failed)}")
    return 1 if other or failed else 0


if __name__ == "__main__":
    sys.exit(main())
