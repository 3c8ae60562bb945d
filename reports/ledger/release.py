"""Learngenes to take away: of finished runs, in 8 bits a weight, each with its card.

What is given away is what clients were sent (``learngene.precision=int8``), so that a card's
accuracy is that of the very numbers in the file. Of runs that differ in their seeds the first
one's goes out, whatever they reached: a choice among them would be one on novel classes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from learngene.data.class_lists import files_of
from learngene.errors import InputError
from learngene.gene.gene import Learngene, at_precision, load, save
from learngene.gene.hub import ARRAYS, MODEL_CARD, model_card
from learngene.utils.files import write_atomically
from reports.experiments.table import format_measured
from reports.form import form_of
from reports.results import MAIN, REFERENCE
from reports.runs import RESULTS, GatherError, read_runs
from reports.schema import Results
from reports.variants import Variant, command_of, experiment_of, group_runs

PRECISION = "int8"
LIMIT = 3_000_000  # bytes of a file
LICENCE = "apache-2.0"  # of the weights, as of the code that made them
SUMS = "SHA256SUMS"
IMAGES = {  # data set, by its files: what is known of the licence of its images
    "glyphs": "drawn from typefaces inside matplotlib, DejaVu (licences of Bitstream Vera and "
    "Arev, changes in the public domain) and STIX (STIX Font License)",
    "cifar100": "CIFAR-100 (Krizhevsky, 2009) names no licence; its images are of Tiny Images, "
    "which MIT withdrew in 2020",
    "imagenet100": "ImageNet's terms of access: for research and education that is not commercial, "
    "images are not passed on",
}
UNKNOWN = "nothing is known of it here: ask whoever owns the images"


def release(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write ``out/NAME/`` with ``learngene.safetensors`` (int8), ``learngene.json`` and
    ``README.md`` for every setting of the runs, and ``out/SHA256SUMS``; returns the arrays' paths.

    NAME is the data set's, with the settings that tell several of it apart behind it. A run whose
    learngene is not there (one of docs/results) counts for the accuracy over seeds alone.

    Raises:
        GatherError: a folder holds no run, or none of a setting's runs has its learngene.
        InputError: a run was not measured in 8 bits, is none of the main job, or nobody answered;
            its learngene cannot be read, is another one than its results name, or is too large.
    """
    runs = read_runs(folders)
    for folder, run in runs:
        _check(folder, run)
    prepared = []
    for data in dict.fromkeys(run["data"]["name"] for _, run in runs):
        same = {id(run): folder for folder, run in runs if run["data"]["name"] == data}
        for variant in group_runs([run for _, run in runs if id(run) in same]).variants:
            told = "-".join(str(value) for value in variant.settings.values())
            name = re.sub(r"[^\w.]+", "-", f"{data}-{told}").strip("-")
            folder, run = _first(variant, same)
            prepared.append((out / name, folder, run, variant, load(folder / ARRAYS)))
    written = [_write(*each) for each in prepared]
    files = sorted(file for path in written for file in path.parent.iterdir())
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(out)}\n" for f in files]
    write_atomically(out / SUMS, "".join(sums).encode())
    return written


def _check(folder: Path, run: Results) -> None:
    """Hold that the run measured what is given away."""
    gene = run["run"]["config"]["learngene"]
    if gene["precision"] != PRECISION:
        problem = "its accuracy is not that of 8 bits a weight"
        fix = f"Run it again with learngene.precision={PRECISION}; its collective is in the cache"
        raise InputError("learngene.precision", gene["precision"], f"{folder}: {problem}", fix)
    if (name := experiment_of(run)) or gene["control"]:
        problem = f"{folder}: no run of the main job"
        raise InputError(
            "experiment", name or "control", problem, "Name runs without an experiment"
        )
    if (run["summary"].get(MAIN) or {"mean": None})["mean"] is None:
        fix = "Name a run whose clients answered"
        raise InputError("RUN_DIR", folder, "it measured no learngene", fix)


def _first(variant: Variant, folders: dict[int, Path]) -> tuple[Path, Results]:
    """The first seed's run that has its learngene."""
    for run in variant.runs:
        if (folders[id(run)] / ARRAYS).is_file():
            return folders[id(run)], run
    raise GatherError(f"{folders[id(variant.runs[0])]}: no {ARRAYS} there. Name the run's folder")


def _write(out: Path, folder: Path, run: Results, variant: Variant, gene: Learngene) -> Path:
    """One learngene's folder; the path of its arrays."""
    held, _ = at_precision(gene, PRECISION)
    path = save(gene, out, PRECISION)
    size = path.stat().st_size
    if size > LIMIT:
        path.unlink()
        fix = "Run it with fewer layers (learngene.depth) or narrower ones"
        raise InputError("RUN_DIR", folder, f"{size:,} bytes, a release has {LIMIT:,} at most", fix)
    data = run["data"]["name"]
    more = {
        "individuals": ", ".join(form_of(run)),
        "file": f"{size:,} bytes: {PRECISION} with a scale a channel, to be taken to a depth of "
        f"{', '.join(map(str, held.card.depths))}; `load` gives float32 again",
        "seeds": _seeds(run, variant),
        "made by": f"`{command_of(run)}`",
        "licence of the images": IMAGES.get(files_of(data), UNKNOWN),
    }
    text = model_card(
        held.card,
        folder / RESULTS,
        out.name,
        f"{out.name}/{ARRAYS}",
        LICENCE,
        source=gene.card.sha256,
        more=more,
    )
    write_atomically(out / MODEL_CARD, text.encode())
    return path


def _seeds(run: Results, variant: Variant) -> str:
    """Which seed this is and, where several were run, what they reached together."""
    own, seeds = run["run"]["seed"], [each["run"]["seed"] for each in variant.runs]
    if len(seeds) == 1:
        return f"{own}, the only one that was run"
    shown = f"learngene {format_measured(variant.accuracy(MAIN), 'points')} %"
    if REFERENCE in variant.methods:
        gain = variant.mean_difference(variant.differences(MAIN, REFERENCE))
        shown += f", gain {format_measured(gain, 'points')} points"
    return f"{own}, the first of {', '.join(map(str, seeds))}; their mean: {shown}"
