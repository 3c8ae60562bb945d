"""The ledger: what is kept of a run, the verdict rule, and a page that depends on files alone."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learngene.utils.files import write_atomically
from reports.__main__ import main
from reports.experiments.base import OPPONENTS, PaperNumber, ReachedLevel, Row
from reports.experiments.registry import claims, rows
from reports.experiments.table import notes
from reports.ledger import compact, ledger
from reports.ledger.claims import (
    CENSORED,
    DIRECTION,
    NOT,
    REPRODUCED,
    TOO_FEW,
    verdict,
    verdicts,
)
from reports.results import read_results, write_results
from reports.schema import MethodResult
from reports.units import Measured
from reports.variants import group_runs
from tests.reports.helpers import page_of

ROOT = Path(__file__).resolve().parents[3]
CONFIG: dict[str, Any] = {
    "experiment": None, "seed": 0, "shots": 10, "num_clients": 6,
    "data": {"root": "/nowhere", "name": "cifar100"},
    "retain": {"normalise": False, "ewc_lambda": 1000.0},
    "individual": {"epochs": 30},
}  # fmt: skip
Save = Callable[..., Path]


@pytest.fixture
def saved(make: Callable[..., dict[str, Any]], tmp_path: Path) -> Save:
    """Writes a run's results into a folder of its own."""

    def write(experiment: str | None, seed: int = 0, shots: int = 10, **asked: Any) -> Path:
        def change(sections: dict[str, Any]) -> None:
            config = {**CONFIG, "experiment": experiment, "seed": seed, "shots": shots}
            overrides = [f"shots={shots}", "data.root=/nowhere", "hydra.run.dir=/tmp/x"]
            more = {"experiment": experiment, "overrides": overrides, "config": config}
            sections["run"] |= {"seed": seed, "shard_seed": seed, **more}
            sections["data"]["name"] = "cifar100"

        folder = tmp_path / f"run-{experiment}-{seed}-{shots}"
        folder.mkdir()
        write_results(make(6, change=change, **asked), folder / "results.json")
        return folder

    return write


def added(runs: list[str]) -> list[str]:
    return [word for run in runs for word in ("--add", run)]


def row(mean: float | None, ci95: float | None = 1.0, quantity: str = "x") -> Row:
    return Row(quantity, "points", Measured(mean, ci95, "6 clients"), ())


@pytest.mark.parametrize(
    ("bound", "paper", "ours", "sign", "expected"),
    [
        ("about", (2.0, None), row(2.9), row(2.9), REPRODUCED),
        ("about", (2.0, None), row(3.1), row(3.1), DIRECTION),
        ("about", (2.0, 0.5), row(3.1), row(3.1), REPRODUCED),  # the paper's own ±
        (
            "about",
            (2.0, None),
            row(0.5),
            row(0.5),
            NOT,
        ),  # the interval includes zero
        ("about", (2.0, None), row(-4.0), row(-4.0), NOT),
        ("about", (2.0, None), row(3.1, None), row(3.1, None), TOO_FEW),  # one client
        ("at least", (20.0, None), row(40.0), row(40.0), REPRODUCED),
        ("at least", (20.0, None), row(12.0), row(12.0), DIRECTION),
        ("at most", (25.0, None), row(9.0), row(5.0), REPRODUCED),
        ("at most", (25.0, None), row(60.0), row(5.0), DIRECTION),
        ("at most", (25.0, None), row(60.0), row(-5.0), NOT),
        (
            "about",
            (2.0, None),
            row(None, None),
            row(None, None),
            NOT,
        ),  # none arrived
        (
            "about",
            (2.0, None),
            row(-1.0, 4.0),
            row(-1.0, 4.0),
            NOT,
        ),  # the wrong sign
        (
            "about",
            (2.0, None),
            row(2.0, 4.0),
            row(2.0, 4.0),
            NOT,
        ),  # the sign is open
        ("at least", (20.0, None), row(10.0, 12.0), row(10.0, 12.0), NOT),
        ("at least", (20.0, None), row(19.0, 5.0), row(19.0, 5.0), DIRECTION),
        ("at most", (25.0, None), row(26.0, 5.0), row(5.0), DIRECTION),
        ("at most", (25.0, None), row(9.0), row(-5.0), NOT),
        ("about", (50.0, 3.0), row(56.0, 4.0), row(5.0), DIRECTION),  # 5, not 3 + 4
        ("about", (50.0, 3.0), row(54.9, 4.0), row(5.0), REPRODUCED),
        (
            "about",
            (30.0, None),
            row(22.0, 16.0),
            row(22.0, 16.0),
            DIRECTION,
        ),  # too wide
        ("about", (30.0, None), row(22.0, 14.0), row(22.0, 14.0), REPRODUCED),
    ],
)
def test_the_verdict_follows_its_rule(
    bound: str, paper: tuple[float, float | None], ours: Row, sign: Row, expected: str
) -> None:
    assert verdict(bound, PaperNumber(*paper, ""), ours, [sign], complete=True) == expected


@pytest.mark.parametrize(
    ("arrived", "signs", "expected"),
    [
        (ReachedLevel(18, 20), ReachedLevel(18, 20), REPRODUCED),
        (ReachedLevel(17, 20), ReachedLevel(20, 20), CENSORED),  # the number is of a selection
        (ReachedLevel(20, 20), ReachedLevel(5, 20), CENSORED),  # the direction is
        (None, ReachedLevel(20, 20), REPRODUCED),
    ],
)
def test_a_mean_of_those_that_arrived_says_little_where_many_did_not(
    arrived: ReachedLevel | None, signs: ReachedLevel, expected: str
) -> None:
    ours, sign = replace(row(20.0), reached=arrived), replace(row(30.0), reached=signs)
    assert verdict("at most", PaperNumber(25.0, None, ""), ours, [sign], complete=True) == expected
    against = replace(sign, ours=Measured(-5.0, 1.0, "5 clients"))
    assert verdict("at most", PaperNumber(25.0, None, ""), ours, [against], complete=True) == NOT


def test_a_table_needs_every_opponent_for_its_direction() -> None:
    claim = next(c for _, c in claims() if c.name == "table-3-10")
    paper, ours = claim.numbers["cifar100"], row(80.0, 1.0, "10-shot, learngene")
    leads = [row(3.0, 1.0, name) for name in claim.signs]
    assert len(leads) == 8
    assert [j.verdict for j in verdicts(claim, paper, [ours, *leads])] == [DIRECTION]
    assert [j.verdict for j in verdicts(claim, paper, [ours, *leads[1:]])] == [NOT]
    behind = [*leads[1:], row(-3.0, 1.0, leads[0].quantity)]
    assert [j.verdict for j in verdicts(claim, paper, [ours, *behind])] == [NOT]
    same = row(paper.value, 1.0, ours.quantity)  # the cell is the paper's, the claim is false
    assert [j.verdict for j in verdicts(claim, paper, [same, *leads])] == [REPRODUCED]
    assert [j.verdict for j in verdicts(claim, paper, [same, *leads[1:]])] == [NOT]
    assert [j.verdict for j in verdicts(claim, paper, [same, *behind])] == [NOT]
    wide = [row(r.ours.mean, 1.0, f"collective.width=0.5: {r.quantity}") for r in [ours, *leads]]
    assert [(j.label, j.verdict) for j in verdicts(claim, paper, wide)] == [
        ("collective.width=0.5", DIRECTION)
    ]
    assert verdicts(claim, paper, []) == []


def test_what_is_kept_is_small_and_gives_the_same_table(saved: Save, tmp_path: Path) -> None:
    folder = saved("fig4_curves")
    whole = dict(read_results(folder / "results.json"))
    conditions = {"width": 0.25, "shots": 10, "ways": 5, "budget": 60000}
    whole["tuning"] = {
        "scratch": {"trials": 8, "data": "cifar100", "conditions": conditions, "used": True}
    }
    whole["federated"] = {"methods": {"scratch": {"rounds": 3, "local_epochs": 2}}}
    write_atomically(tmp_path / "kept" / "results.json", compact.content(whole))
    kept = read_results(tmp_path / "kept" / "results.json")  # good by the contract
    assert rows(group_runs([kept])) == rows(group_runs([whole]))
    said = notes(group_runs([kept]))
    assert said == notes(group_runs([whole])) and len(said) == 3
    shown = page_of([], {("fig4_curves", "cifar100"): group_runs([kept])}, set(), "results")
    assert all(note in shown for note in said)
    before, after = (p.stat().st_size for p in (folder / "results.json",
                                                tmp_path / "kept" / "results.json"))  # fmt: skip
    assert after < 2 * before / 3 and after < compact.LIMIT
    assert kept["gradcam"]["images"][0]["picture"] == ""
    assert "histogram" not in kept["open_world"]


def test_no_folder_of_the_machine_is_kept(saved: Save, tmp_path: Path) -> None:
    def adopted(path: str, sha256: str) -> dict[str, Any]:
        made = read_results(saved(None, seed=len(list(tmp_path.iterdir()))) / "results.json")
        made["run"]["config"]["learngene"] = {"path": path}
        made["run"]["overrides"].append(f"learngene.path={path}")
        made["learngene"]["sha256"] = sha256
        made["run"]["seed"] = made["run"]["shard_seed"] = 0
        write_atomically(tmp_path / "kept" / "results.json", compact.content(made))
        text = (tmp_path / "kept" / "results.json").read_text()
        assert path not in text and "learngene.path=FILE" in text
        kept = read_results(tmp_path / "kept" / "results.json")
        assert kept["run"]["config"]["learngene"]["path"] == "FILE"
        return kept

    one, moved = adopted("/home/a/x.safetensors", "ab" * 32), adopted("/b.safetensors", "ab" * 32)
    assert compact.name_of(one) == compact.name_of(moved)  # the same learngene, elsewhere
    assert compact.name_of(one) != compact.name_of(adopted("/b.safetensors", "cd" * 32))


def test_too_much_is_not_kept(
    saved: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(compact, "LIMIT", 1000)
    folder = saved(None)
    out = tmp_path / "RESULTS.md"
    assert main(["ledger", str(tmp_path / "l"), "-o", str(out), "--add", str(folder)]) == 2
    assert f"{folder}: " in capsys.readouterr().err and not out.exists()


def test_thousands_of_tasks_are_kept_without_their_curves(make: Any, tmp_path: Path) -> None:
    def change(sections: dict[str, Any]) -> None:
        sections["run"]["config"] = CONFIG

    whole = make(300, methods=("learngene", "scratch", *OPPONENTS), change=change)
    written = compact.content(whole)
    assert compact.LIMIT < len(written) < compact.limit(300) == 900_000
    write_atomically(tmp_path / "results.json", written)
    kept = read_results(tmp_path / "results.json")
    assert rows(group_runs([kept])) == rows(group_runs([whole]))
    few = json.loads(compact.content(make(100, change=change)))
    curves = [run["clients"][7]["methods"]["scratch"]["accuracy_by_epoch"] for run in (kept, few)]
    assert [len(curve) for curve in curves] == [2, 8]
    assert [epoch for epoch, _ in curves[0]] == [0, 30]
    for name in ("few_shot_benchmark", "retain_curves", "fig4_curves", "fig4_samples"):
        asked = {"experiment": name, "config": CONFIG | {"experiment": name, "shots": 5}}
        asked["config"]["retain"] = {"ewc_lambda": 1.0}
        run = make(101, change=lambda sections, asked=asked: sections["run"].update(asked))
        compacted = json.loads(compact.content(run))
        assert rows(group_runs([compacted])) == rows(group_runs([run])), name


def test_a_control_says_what_its_collective_took_where_it_was_trained(
    saved: Save, tmp_path: Path
) -> None:
    """A run that found the collective in the cache waited a second for it; the page says neither
    that nor on what runtime of one machine it was."""
    run = read_results(saved(None) / "results.json")
    run["run"]["seconds"]["collective"] = 1.5
    run["run"]["overrides"] += ["runtime=serial", "runtime.total_cpus=1", "seed=0"]
    write_atomically(tmp_path / "kept" / "results.json", compact.content(run))
    kept = read_results(tmp_path / "kept" / "results.json")
    text = page_of([kept], {}, set(), "kept")
    (line,) = (each for each in text.splitlines() if "| cifar100 | 0 |" in each)
    assert "| 79.3 |" in line  # 13 x 6.1
    assert "    1  python sim.py shots=10 data.root=DIR seed=0\n" in text
    assert "[kept](kept)" in text


@pytest.mark.parametrize(
    "wrong", ["missing", "a file", "one level too deep", "an empty experiment", "no place to write"]
)
def test_a_wrong_ledger_or_output_leaves_the_page_as_it_is(
    saved: Save, tmp_path: Path, capsys: Any, wrong: str
) -> None:
    store, out = tmp_path / "results", tmp_path / "RESULTS.md"
    assert main(["ledger", str(store), "-o", str(out), "--add", str(saved(None))]) == 0
    before, asked, to = out.read_bytes(), store, out
    if wrong == "missing":
        asked = tmp_path / "resluts"
    elif wrong == "a file":
        asked = out
    elif wrong == "one level too deep":
        asked = store / "cifar100"
    elif wrong == "an empty experiment":
        (store / "cifar100" / "fig4_curves").mkdir()
    else:
        to = tmp_path / "results" / "cifar100"  # a folder
    capsys.readouterr()
    assert main(["ledger", str(asked), "-o", str(to)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("reports ledger: ")
    assert str(to if wrong == "no place to write" else asked) in said
    assert out.read_bytes() == before


def test_runs_that_do_not_fit_are_not_kept(saved: Save, tmp_path: Path, capsys: Any) -> None:
    store, out = tmp_path / "results", tmp_path / "RESULTS.md"
    first = saved("fig4_samples")
    multirun = first.parent  # the folder above is named, as report's is, and twice
    assert main(["ledger", str(store), "-o", str(out), *added([str(multirun), str(first)])]) == 0
    (home,) = store.glob("cifar100/fig4_samples/*/")
    other = read_results(saved("fig4_samples", seed=1) / "results.json")
    other["data"]["sha256"] = "f" * 64
    write_results(other, tmp_path / "other" / "results.json")
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    assert main(["ledger", str(store), "-o", str(out), "--add", str(tmp_path / "other")]) == 2
    assert "the images differ" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before
    assert home.exists()


@pytest.mark.parametrize("experiment", [None, "fig4_samples"])
def test_a_repetition_with_younger_settings_replaces_the_kept_run(
    saved: Save, tmp_path: Path, experiment: str | None
) -> None:
    store, out = tmp_path / "results", tmp_path / "RESULTS.md"
    first, further = saved(experiment), saved(experiment, seed=1)
    assert main(["ledger", str(store), "-o", str(out), *added([str(first), str(further)])]) == 0
    before = {home.name for home in store.glob("cifar100/*/*/")}
    again = read_results(first / "results.json")  # of today's program, which has more fields
    again["run"]["config"]["individual"] |= {"mirror_test": True, "keep": True}
    write_results(again, tmp_path / "again" / "results.json")
    assert main(["ledger", str(store), "-o", str(out), "--add", str(tmp_path / "again")]) == 0
    after = {home.name for home in store.glob("cifar100/*/*/")}
    assert after == before - {compact.name_of(read_results(first / "results.json"))} | {
        compact.name_of(again)
    }
    changed = again["run"]["config"]["individual"]
    changed["mirror_test"] = False  # another variant
    write_results(again, tmp_path / "again" / "results.json")
    assert main(["ledger", str(store), "-o", str(out), "--add", str(tmp_path / "again")]) == 0
    assert {home.name for home in store.glob("cifar100/*/*/")} > after


def test_a_run_that_nobody_answered_can_be_kept(saved: Save, tmp_path: Path, capsys: Any) -> None:
    store, out = tmp_path / "results", tmp_path / "RESULTS.md"
    folder = saved(None, fail=tuple(range(6)))
    for more in (["--add", str(folder)], []):
        assert main(["ledger", str(store), "-o", str(out), *more]) == 0
        assert "the figure was not drawn: no client answered" in capsys.readouterr().err
    assert "| cifar100 |" in out.read_text()
    assert main(["ledger", str(out), "-o", str(out), "--add", str(saved(None, seed=1))]) == 2
    assert capsys.readouterr().err.startswith(f"reports ledger: {out}: cannot write")


def test_a_figure_is_never_older_than_its_page(saved: Save, tmp_path: Path) -> None:
    store, out = tmp_path / "results", tmp_path / "RESULTS.md"
    runs = [str(saved("fig4_samples", shots=n)) for n in (10, 25)] + [str(saved("fig5_gradcam"))]
    assert main(["ledger", str(store), "-o", str(out), *added(runs)]) == 0
    drawn, maps = (store / "cifar100" / name / "comparison.png" for name in
                   ("fig4_samples", "fig5_gradcam"))  # fmt: skip
    good, sheet = drawn.read_bytes(), maps.read_bytes()
    drawn.write_bytes(b"an older one")
    assert main(["ledger", str(store), "-o", str(out)]) == 0
    assert drawn.read_bytes() == good
    assert maps.read_bytes() == sheet  # its maps are not kept: drawn once, when it was added
    kept = next(store.glob("cifar100/fig5_gradcam/*/"))
    assert main(["ledger", str(store), "-o", str(out), "--add", str(kept)]) == 0
    assert maps.read_bytes() == sheet


def test_kept_results_make_no_report_and_say_so(saved: Save, tmp_path: Path, capsys: Any) -> None:
    store, out = tmp_path / "results", tmp_path / "RESULTS.md"
    assert main(["ledger", str(store), "-o", str(out), "--add", str(saved("fig4_samples"))]) == 0
    (home,) = store.glob("cifar100/fig4_samples/*/")
    capsys.readouterr()
    assert main(["report", str(home)]) == 2
    assert "-o DIR" in capsys.readouterr().err
    assert main(["compare", str(home), "-o", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o" / "comparison.png").is_file()


PAPER = ROOT.parent / "shared" / "paper" / "learngene-aaai22.txt"


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not there: ../shared")
def test_the_papers_cells_are_those_of_its_text() -> None:
    from reports.experiments.paper import table2_open_world, table3_novel

    names = (*OPPONENTS, "learngene")

    cell = r"(\d+\.\d+)\s*±\s*(\d+\.\d+)"
    text = re.sub(r"[*$\\{}]|pm", lambda m: "±" if m[0] == "pm" else "", PAPER.read_text())
    found = {}
    for line in text.splitlines():
        numbers = [tuple(map(float, pair)) for pair in re.findall(cell, line)]
        if numbers:
            found.setdefault(len(numbers), []).append(numbers)
    ours2, ours3 = (
        [[(q.value, q.spread) for column in module.COLUMNS for q in [module.CELLS[name, *column]]]
         for name in names]
        for module in (table2_open_world, table3_novel)
    )  # fmt: skip
    # In the order of the text, so that no two methods are confused.
    assert [row for row in found[2] if row in ours2] == ours2
    assert found[4][: len(ours3)] == ours3


def test_runs_become_rows_verdicts_and_links(saved: Save, tmp_path: Path) -> None:
    store, out = tmp_path / "docs" / "results", tmp_path / "docs" / "RESULTS.md"
    runs = [str(saved("fig4_samples", shots=n)) for n in (10, 25)] + [str(saved(None))]
    assert main(["ledger", str(store), "-o", str(out), *added(runs)]) == 0
    text = out.read_text()
    (home,) = (store / "cifar100" / "main").iterdir()
    assert {p.name for p in home.iterdir()} == {
        "results.json", "clients.csv", "accuracy_over_epochs.png",
    }  # fmt: skip
    assert f"[cifar100](results/cifar100/main/{home.name}/accuracy_over_epochs.png)" in text
    assert "    1  python sim.py shots=10 data.root=DIR\n" in text  # no folder of this machine
    assert "/nowhere" not in text.split("## Every experiment")[0]
    figure = "results/cifar100/fig4_samples/comparison.png"
    assert f"[CIFAR-100]({figure})" in text and (tmp_path / "docs" / figure).is_file()
    lines = {line.split(" (")[0]: line for line in text.splitlines() if line.startswith("| ")}
    few = lines["| at least 20 points over scratch with so few images"]
    assert "CIFAR-100: **reproduced**" in few and "not run" in few  # ImageNet100
    share = lines["| 2/3 of the images saved on the way to 60 %"]
    assert "**not**" in share and "0 of 6 arrived)" in share  # from scratch nobody comes to 60 %
    assert "ImageNet100: not run" in lines["| the top layers end 2 % above other positions"]
    # The same runs again: the same files, the same page, byte for byte.
    before = {p: p.read_bytes() for p in (tmp_path / "docs").rglob("*") if p.is_file()}
    assert main(["ledger", str(store), "-o", str(out), *added(runs)]) == 0
    assert {p: p.read_bytes() for p in (tmp_path / "docs").rglob("*") if p.is_file()} == before
    # And from the kept files alone, elsewhere.
    shutil.copytree(tmp_path / "docs", tmp_path / "again" / "docs")
    again = tmp_path / "again" / "docs"
    assert main(["ledger", str(again / "results"), "-o", str(again / "RESULTS.md")]) == 0
    assert (again / "RESULTS.md").read_bytes() == out.read_bytes()


def test_no_claim_of_the_papers_is_judged_by_a_control(saved: Save) -> None:
    inherited = read_results(saved("to_the_letter") / "results.json")
    runs = [inherited, copy.deepcopy(inherited)]
    for run, how in zip(runs, (None, "random"), strict=True):
        run["run"]["config"]["learngene"] = {"control": how}
    text = page_of([], {("to_the_letter", "cifar100"): group_runs(runs)}, set(), "kept")
    lines = {line.split(" (")[0]: line for line in text.splitlines() if line.startswith("| ")}
    claim = lines[
        "| the top layers carry the meta-knowledge: behind fresh layers they beat scratch"
    ]
    assert "learngene.control=random" not in claim and "control: layers" not in claim
    assert "learngene.control=random: gain over scratch" in text  # the row itself stays
    control = lines["| control: random layers in place of the top three are worse"]
    assert "CIFAR-100: **not**;" in control


def test_every_link_of_the_committed_page_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "docs" / "RESULTS.md").read_text())
    inner = [link for link in links if "://" not in link and not link.startswith("#")]
    files = {link.partition("#")[0] for link in inner}
    assert files and [file for file in files if not (ROOT / "docs" / file).exists()] == []


def test_every_anchor_of_the_committed_page_is_a_heading_of_it() -> None:
    text = (ROOT / "docs" / "RESULTS.md").read_text()
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")  # as GitHub has them
        for line in text.splitlines()
        if line.startswith("#")
    }
    asked = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert asked and asked <= headings


def test_the_page_begins_with_the_form_nearest_to_the_defaults(saved: Save) -> None:
    runs = []
    for seed in range(3):
        for depth, precision in ((8, "fp32"), (7, "int8")):  # 8: as of imagenet100, by itself
            run = copy.deepcopy(read_results(saved(None, seed=10 * seed + depth) / "results.json"))
            run["run"]["seed"] = run["run"]["shard_seed"] = run["run"]["config"]["seed"] = seed
            run["run"]["config"]["learngene"] = {"depth": depth, "precision": precision}
            run["run"]["overrides"] = ["shots=10", f"seed={seed}"]
            if depth == 7:
                run["run"]["overrides"] = ["learngene.depth=7", "learngene.precision=int8",
                                           f"seed={seed}"]  # fmt: skip
                for client in run["clients"]:
                    client["methods"]["learngene"]["accuracy_by_epoch"][-1][1] = 0.0
            runs.append(run)
    opponents = copy.deepcopy(runs[0])
    opponents["run"]["experiment"] = "table3_novel"
    table3 = {("table3_novel", "cifar100"): group_runs([opponents])}
    text = page_of(runs, table3, set(), "results")
    short = text.split("## In short")[1].split("## The main job")[0]
    (line,) = (each for each in short.splitlines() if each.startswith("| cifar100 |"))
    ours = [run["summary"]["learngene"]["mean"] for run in runs[::2]]
    assert f"| cifar100 | {100 * sum(ours) / 3:.1f} ± " in line  # not the other form's
    assert "of 18 clients, 3 seeds" in line
    assert "| scratch | " in short.split("Against what?")[1]  # table 3, a row a method
    main_job = text.split("## The main job")[1].split("## Over seeds")[0]
    rows_ = [each for each in main_job.splitlines() if each.startswith("| cifar100 |")]
    assert len(rows_) == 6 and sum(", int8" in each for each in rows_) == 3
    for each in rows_:  # the row's command is the one with its number
        number, seed = each.split(" | ")[-1].rstrip(" |"), each.split(" | ")[1]
        (command,) = (x for x in main_job.splitlines() if x.startswith(f"    {number}  python"))
        assert command.endswith(f"seed={seed}")


def test_without_table_3_or_without_runs_the_page_says_no_more_than_it_knows(saved: Save) -> None:
    assert "## In short" not in page_of([], {}, set(), "results")
    alone = page_of([read_results(saved(None) / "results.json")], {}, set(), "results")
    assert "## In short" in alone and "Against what?" not in alone


def test_a_figure_that_is_not_there_is_not_linked(saved: Save) -> None:
    runs = [read_results(saved(None) / "results.json")]
    of = {
        ("fig4_samples", "cifar100"): group_runs(
            [read_results(saved("fig4_samples") / "results.json")]
        )
    }
    bare = page_of(runs, of, set(), "results")
    assert ".png" not in bare and "| cifar100 | 0 |" in bare
    figures = {f"cifar100/main/{compact.name_of(runs[0])}/accuracy_over_epochs.png",
               "cifar100/fig4_samples/comparison.png"}  # fmt: skip
    linked = page_of(runs, of, figures, "results")
    assert all(f"](results/{figure})" in linked for figure in figures)


@pytest.mark.usefixtures("unrendered")
def test_the_committed_page_is_that_of_the_committed_runs(tmp_path: Path) -> None:
    docs = ROOT / "docs"
    shutil.copytree(docs / "results", tmp_path / "results")
    assert main(["ledger", str(tmp_path / "results"), "-o", str(tmp_path / "RESULTS.md")]) == 0
    assert (tmp_path / "RESULTS.md").read_bytes() == (docs / "RESULTS.md").read_bytes()
    tables = [p for p in docs.glob("results/*/*/comparison.*") if p.suffix in (".csv", ".json")]
    homes = {p.parent.parent for p in docs.glob("results/*/*/*/results.json")}
    assert len(tables) == 2 * sum(home.name != ledger.MAIN_JOB for home in homes)
    for path in tables:
        assert (tmp_path / path.relative_to(docs)).read_bytes() == path.read_bytes()
    for path in docs.glob("results/*/*/*/results.json"):
        kept = json.loads(path.read_text())
        assert path.stat().st_size <= compact.limit(len(kept["clients"]))
        assert path.parent.name == compact.name_of(kept)


def test_kept_files_written_again_are_the_same_bytes(saved: Save, tmp_path: Path) -> None:
    """What is kept is declared by the models: a field that loses its declaration would go."""
    fresh = tmp_path / "kept" / "results.json"
    write_atomically(fresh, compact.content(read_results(saved(None) / "results.json")))
    for path in (fresh, *(ROOT / "docs" / "results").rglob("results.json")):
        assert compact.content(read_results(path)) == path.read_bytes(), path


def test_what_the_models_do_not_declare_is_not_kept(saved: Save) -> None:
    whole = read_results(saved(None) / "results.json")
    kept = compact.compact_results(whole)
    assert list(kept)[:3] == ["schema", "kept", "run"] and "retain" not in kept
    assert "collective_cached" in whole["run"] and "collective_cached" not in kept["run"]
    client, small = (run["clients"][0]["methods"]["learngene"] for run in (whole, kept))
    assert small == {name: client[name] for name in client if name in MethodResult.model_fields}
    assert "loss_by_epoch" in client
    assert list(kept["collective"]["stages"][0]) == [
        *("task", "known_classes", "accuracy", "parameters", "image_passes", "seconds")
    ]
