"""Learngenes to take away: what is in the files is what was measured, and the card says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from learngene.gene.gene import Learngene, at_precision, load, save
from learngene.utils.files import write_atomically
from reports.__main__ import main
from reports.ledger import compact, release
from reports.results import read_results, write_results
from tests.helpers import gene_of

MakeRun = Callable[..., Path]


@pytest.fixture
def gene(evolved: Any) -> Learngene:
    return gene_of(evolved.collective)


@pytest.fixture
def run(gene: Learngene, make: Any, tmp_path: Path) -> MakeRun:
    """Writes a run's folder with this learngene."""

    def written(
        seed: int = 0,
        *,
        data: str = "glyphs",
        width: float = 0.25,
        experiment: str | None = None,
        fail: tuple[int, ...] = (),
        shift: float = 0.0,
        **learngene: Any,
    ) -> Path:
        def change(sections: dict[str, Any]) -> None:
            asked = {"precision": "int8", "control": None, "path": None} | learngene
            sections["run"] |= {"seed": seed, "shard_seed": seed, "experiment": experiment}
            sections["run"]["overrides"] = [f"seed={seed}", "learngene.precision=int8", "cache=/x"]
            sections["run"]["config"] = {
                "num_clients": 5,
                "ways": 5,
                "shots": 10,
                "seed": seed,
                "learngene": asked,
                "collective": {"width": width},
                "data": {"name": data, "clients_from": "novel"},
            }
            sections["data"]["name"] = data
            sections["learngene"]["sha256"] = gene.card.sha256

        folder = tmp_path / "runs" / f"{len(list(tmp_path.rglob('results.json')))}"
        save(gene, folder)
        results = make(5, change=change, fail=fail, shift=shift)
        write_results(results, folder / "results.json")
        return folder

    return written


def test_what_is_given_away_is_what_clients_were_sent(
    run: MakeRun, gene: Learngene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = run(), tmp_path / "release"
    assert main(["release", str(folder), "-o", str(out)]) == 0
    path = out / "glyphs" / "learngene.safetensors"
    assert capsys.readouterr().out == f"{path} ({path.stat().st_size:,} bytes)\n"
    assert path.stat().st_size < 0.4 * (folder / "learngene.safetensors").stat().st_size
    released = load(path)
    for depth in gene.card.depths:  # of a run in 8 bits, whatever prefix a client took
        sent, _ = at_precision(gene.prefix(depth), "int8")
        held = released.prefix(depth)
        assert held.card.sha256 == sent.card.sha256 and held.card.shapes == sent.card.shapes
        assert all(np.array_equal(held.arrays[n], array) for n, array in sent.arrays.items())

    card = (path.parent / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    summary = read_results(folder / "results.json")["summary"]
    (metric,) = front["model-index"][0]["results"][0]["metrics"]
    assert front["license"] == "apache-2.0" and metric["value"] == summary["learngene"]["mean"]
    row = summary["learngene"]
    assert f"| learngene | {100 * row['mean']:.1f} ± {100 * row['ci95']:.1f} |" in card
    assert "| made by | `python sim.py seed=0 learngene.precision=int8` |" in card
    assert f"| sha256 | `{released.card.sha256}` |" in card and "STIX Font License" in card
    assert "| individuals | layers 11 to 13, int8, width 0.25 |" in card
    assert 'load("glyphs/learngene.safetensors")' in card and str(tmp_path) not in card

    sums = (out / "SHA256SUMS").read_text().splitlines()
    assert [line.split()[1] for line in sums] == [
        f"glyphs/{name}" for name in ("README.md", "learngene.json", "learngene.safetensors")
    ]
    for sha, name in map(str.split, sums):
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == sha
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert main(["release", str(folder), "-o", str(out)]) == 0
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_of_several_seeds_the_first_goes_out_and_all_are_told(run: MakeRun, tmp_path: Path) -> None:
    best, first = run(2, data="cifar100"), run(0, data="cifar100", shift=-0.2)
    kept = tmp_path / "kept" / "results.json"  # a run of docs/results, which has no learngene
    write_atomically(kept, compact.content(read_results(run(1, data="cifar100") / "results.json")))
    wide = run(data="cifar100", width=0.5)
    out = tmp_path / "release"
    words = ["release", str(best), str(first), str(kept.parent), str(wide), "-o", str(out)]
    assert main(words) == 0
    assert {p.parent.name for p in out.glob("*/README.md")} == {"cifar100-0.25", "cifar100-0.5"}
    card = (out / "cifar100-0.25" / "README.md").read_text()
    reached = [read_results(f / "results.json")["summary"]["learngene"]["mean"]
               for f in (first, kept.parent, best)]  # fmt: skip
    assert f"| learngene | {100 * reached[0]:.1f}" in card  # not the best one's
    assert (
        f"| seeds | 0, the first of 0, 1, 2; their mean: learngene {100 * np.mean(reached):.1f} ±"
        in card
    )
    assert "names no licence" in card
    assert (
        "| seeds | 0, the only one that was run |"
        in (out / "cifar100-0.5" / "README.md").read_text()
    )
    assert main(["release", str(kept.parent), "-o", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"precision": "fp32"}, "accuracy is not that of 8 bits a weight. Run it again with"),
        ({"control": "random"}, "no run of the main job"),
        ({"experiment": "frontier"}, "no run of the main job"),
        ({"fail": (0, 1, 2, 3, 4)}, "it measured no learngene"),
    ],
)
def test_nothing_is_given_away_that_was_not_measured(
    run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: Any, said: str
) -> None:
    words = ["release", str(run()), str(run(1, **asked)), "-o", str(tmp_path / "release")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and not (tmp_path / "release").exists()


def test_a_learngene_of_another_run_or_one_too_large_is_refused(
    run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, evolved: Any
) -> None:
    folder, words = run(), ["release", "-o", str(tmp_path / "release")]
    monkeypatch.setattr(release, "LIMIT", 1000)
    assert main([*words, str(folder)]) == 2
    assert "a release has 1,000 at most" in capsys.readouterr().err
    monkeypatch.undo()
    save(gene_of(evolved.collective, (11, 12, 13), stem="fresh"), folder)
    assert main([*words, str(folder)]) == 2
    assert "its learngene is" in capsys.readouterr().err
