"""What a poisoned learngene does to clients, with and without ``individual.safeguard``.

    python -m benchmarks.poisoned RUN_DIR [--kind KIND] [sim.py's overrides ...]

Makes two poisoned learngenes from a real one, both with a card that vouches for them: one drawn
anew (numbers of the same size, in no order), one scaled so that a few channels drown all others
and every second one has its sign turned. Runs sim.py with each, and with the real one, and prints
the accuracy of the clients.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import end, finished_run, new_parser
from learngene.gene.gene import Learngene, digest, load, save
from learngene.seeding import generator

ROOT = Path(__file__).resolve().parents[1]
Arrays = dict[str, np.ndarray]


def randomised(arrays: Arrays, seed: int = 0) -> Arrays:
    """Every array with its own numbers in random order: nothing that was learned is left."""
    drawn = generator(seed, "poison-random")
    return {
        name: drawn.permutation(array.ravel()).reshape(array.shape)
        for name, array in sorted(arrays.items())
    }


def scaled(arrays: Arrays, seed: int = 0) -> Arrays:
    """Outputs of each norm times 10 to the power of -4..4, a channel each, and random signs."""
    drawn, changed = generator(seed, "poison-scale"), dict(arrays)
    for name, array in sorted(arrays.items()):
        if name.endswith("norm.weight"):
            factors = 10 ** drawn.uniform(-4, 4, array.shape) * drawn.choice([-1, 1], array.shape)
            changed[name] = (array * factors).astype(np.float32)
    return changed


KINDS: dict[str, Callable[[Arrays], Arrays]] = {
    "real": dict,
    "randomised": randomised,
    "scaled": scaled,
}


def forged(gene: Learngene, change: Callable[[Arrays], Arrays]) -> Learngene:
    """The learngene with changed arrays and a card that agrees."""
    arrays = {name: np.ascontiguousarray(array) for name, array in change(gene.arrays).items()}
    return Learngene(replace(gene.card, sha256=digest(arrays, asdict(gene.card))), arrays)


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("run_dir", type=finished_run)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="may be repeated")
    asked, overrides = parser.parse_known_args()
    gene = load(asked.run_dir / "learngene.safetensors")
    print("learngene    safeguard  learngene %  scratch %  s/client  fell back")
    with tempfile.TemporaryDirectory() as folder:
        for kind in asked.kind or KINDS:
            path = save(forged(gene, KINDS[kind]), Path(folder) / kind)
            for guard in ("false", "true"):
                run = Path(folder) / f"{kind}-{guard}"
                words = [f"learngene.path={path}", f"individual.safeguard={guard}"]
                words += ["runtime.min_answered=0", *overrides, f"hydra.run.dir={run}"]
                command = [sys.executable, str(ROOT / "sim.py"), *words]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(done.stderr, file=sys.stderr)
                    return done.returncode
                print(_row(kind, guard, json.loads((run / "results.json").read_text())))
    return 0


def _row(kind: str, guard: str, results: dict[str, Any]) -> str:
    answers = [client["methods"] for client in results["clients"] if "methods" in client]
    if not answers:
        return f"{kind:<12}{guard:>10}  no client answered"
    ours, scratch = (100 * results["summary"][name]["mean"] for name in ("learngene", "scratch"))
    seconds = np.mean([methods["learngene"]["seconds"] for methods in answers])
    back = sum(methods["learngene"].get("safeguard_fell_back", 0) for methods in answers)
    lost = len(results["clients"]) - len(answers)
    return (
        f"{kind:<12}{guard:>10}{ours:>13.1f}{scratch:>11.1f}{seconds:>10.1f}  "
        f"{back} of {len(answers)}" + (f", {lost} failed" if lost else "")
    )


if __name__ == "__main__":
    end(main)
