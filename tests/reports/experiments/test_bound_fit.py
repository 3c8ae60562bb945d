"""Eq. 10's form: known constants come back, and runs that do not belong together are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports.__main__ import main
from reports.experiments.paper.bound import Fit, fit, fit_runs
from reports.runs import GatherError, read_runs
from tests.reports.helpers import make_results

SIZES = [5.0, 10.0, 25.0, 50.0, 100.0]
C1, SLOPE = 0.1, 1.2


def gaps(clients: int = 12, noise: float = 0.0, c1: float = C1, slope: float = SLOPE):
    rng = np.random.default_rng(1)
    return c1 + slope / np.sqrt(SIZES) + noise * rng.standard_normal((clients, len(SIZES)))


def write(folder: Path, shots: int, change: Callable[[dict], None] | None = None) -> Path:
    """A run of three clients, five ways; learngene's gap is 0.05 + 0.9 / sqrt(m)."""

    def plant(sections: dict[str, Any]) -> None:
        sections["run"]["config"] = {
            "shots": shots,
            "seed": 0,
            "individual": {"lr": 0.1},
            "runtime": {"name": "ray"},
        }
        sections["collective"]["tasks"] = 8
        gap = 0.05 + 0.9 / np.sqrt(5 * shots)
        for client in sections["clients"]:
            client["train_images"] = 5 * shots
            ours, scratch = (client["methods"][name] for name in ("learngene", "scratch"))
            ours |= {"accuracy": 1 - gap - 0.01 * client["id"], "train_accuracy": 1.0}
            scratch |= {"accuracy": 0.3 + 0.001 * shots, "train_accuracy": 0.9}
            for method in (ours, scratch):
                method["accuracy_by_epoch"][-1][1] = method["accuracy"]

    results = make_results(3, change=plant)
    if change:
        change(results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def bound(folders: list[Path]) -> dict[str, Any]:
    return fit_runs(read_runs(folders))


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / str(shots), shots) for shots in (10, 1, 5, 20)]


def test_planted_constants_come_back() -> None:
    found = fit(SIZES, gaps())
    assert (found.c1, found.slope) == (pytest.approx(C1), pytest.approx(SLOPE))
    assert found.residuals == pytest.approx([0] * 5, abs=1e-9)
    assert found.r2_means == pytest.approx(1) and found.r2_clients == pytest.approx(1)
    assert found.c1 + found.slope / np.sqrt(25) == pytest.approx(C1 + SLOPE / 5)
    assert found.highest == pytest.approx(0, abs=1e-9)


def test_it_is_least_squares_over_clients() -> None:
    values = gaps(noise=0.05)
    found = fit(SIZES, values)
    design = np.stack([np.ones(5), 1 / np.sqrt(SIZES)], 1)
    every = np.linalg.lstsq(np.tile(design, (12, 1)), values.ravel(), rcond=None)[0]
    assert [found.c1, found.slope] == pytest.approx(every.tolist())
    fitted = found.c1 + found.slope / np.sqrt(SIZES)
    assert found.mean_gaps == pytest.approx(values.mean(0).tolist())
    assert found.residuals == pytest.approx((values.mean(0) - fitted).tolist())
    assert found.highest == pytest.approx((values - fitted).max()) and found.highest > 0
    rest = ((values - fitted) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    assert found.r2_clients == pytest.approx(1 - rest)
    assert found.r2_means > found.r2_clients


def test_constants_are_not_negative() -> None:
    rising = fit(SIZES, gaps(c1=0.5, slope=-0.3))
    assert rising.slope == 0 and rising.c1 == pytest.approx(np.mean(rising.mean_gaps))
    assert rising.r2_means == pytest.approx(0)
    steep = fit(SIZES, gaps(c1=-0.05, slope=1.0))
    assert steep.c1 == 0 and 0 < steep.slope < 1


def test_intervals_hold_the_truth_and_shrink_with_clients() -> None:
    def width(found: Fit) -> float:
        assert found.slope_interval is not None and found.c1_interval is not None
        assert found.slope_interval[0] < SLOPE < found.slope_interval[1]
        assert found.c1_interval[0] < C1 < found.c1_interval[1]
        return found.slope_interval[1] - found.slope_interval[0]

    few, many = fit(SIZES, gaps(12, 0.05)), fit(SIZES, gaps(192, 0.05))
    assert width(few) / width(many) == pytest.approx(4, rel=0.4)
    assert fit(SIZES, gaps(12, 0.05)) == few
    assert fit(SIZES, gaps(12, 0.05), seed=1).slope_interval != few.slope_interval
    assert fit(SIZES, gaps(1)).c1_interval is None


def test_equal_gaps_have_no_r2() -> None:
    found = fit(SIZES, np.full((3, 5), 0.4))
    assert found.r2_means is None and found.r2_clients is None and found.slope < 1e-9


def test_two_sizes_are_too_few(runs: list[Path]) -> None:
    with pytest.raises(GatherError, match="2 sample sizes"):
        fit([5, 10], np.ones((3, 2)))
    with pytest.raises(GatherError, match="needs 3"):
        bound(runs[:2])


def test_runs_are_read_in_any_order(runs: list[Path]) -> None:
    found = bound(runs)
    assert found["sizes"] == [5, 25, 50, 100] and found["clients"] == [0, 1, 2]
    mine = found["methods"]["learngene"]
    assert (mine["c1"], mine["slope"]) == (pytest.approx(0.06), pytest.approx(0.9))
    assert mine["c2"] == pytest.approx(2 * 8 * 0.9)  # slope = c2 / (2 sigma t) at sigma = 1
    assert found["methods"]["scratch"]["c2"] is None
    assert mine["gaps"][2][0] == pytest.approx(0.05 + 0.9 / np.sqrt(5) + 0.02)


def test_a_client_that_failed_somewhere_is_left_out_everywhere(
    runs: list[Path], tmp_path: Path
) -> None:
    def fail(results: dict) -> None:
        client = results["clients"][1]
        del client["methods"]
        client["error"] = "RuntimeError: planted"

    write(tmp_path / "5", 5, fail)
    assert bound(runs)["clients"] == [0, 2]


def test_without_a_collective_there_is_no_t(tmp_path: Path) -> None:
    def change(results: dict) -> None:
        results["collective"] = None

    made = [write(tmp_path / str(shots), shots, change) for shots in (1, 2, 3)]
    found = bound(made)
    assert found["t"] is None and found["methods"]["learngene"]["c2"] is None


def test_the_command_writes_and_prints(runs, tmp_path, capsys) -> None:
    assert main(["bound", *map(str, runs)]) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "bound.json").read_text())
    assert found == json.loads(json.dumps(bound(runs)))  # tuples are lists there
    assert "learngene" in shown and "14.40" in shown and str(tmp_path / "bound.png") in shown
    with Image.open(tmp_path / "bound.png") as image:
        assert image.width == 900 and len(image.convert("RGB").getcolors(1 << 20)) > 20
    assert main(["bound", *map(str, runs), "--out", str(tmp_path / "else")]) == 0
    assert (tmp_path / "else" / "bound.json").read_bytes() == (tmp_path / "bound.json").read_bytes()


def _set(*path: Any, value: Any) -> Callable[[dict], None]:
    def change(results: dict) -> None:
        section = results
        for part in path[:-1]:
            section = section[part]
        if value is KeyError:
            del section[path[-1]]
        else:
            section[path[-1]] = value

    return change


FIRST = ("clients", 0, "methods", "learngene")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set(*FIRST, "train_accuracy", value=KeyError), "train_accuracy is None"),
        (
            _set(*FIRST, "accuracy", value=None),
            "clients[0].methods.learngene.accuracy: must be a fraction in 0..1, is None",
        ),
        (_set(*FIRST, "accuracy", value=93.1), "a fraction in 0..1, is 93.1"),
        (
            _set("clients", 0, "train_images", value="5"),
            "train_images: must be a whole number, 0 or more, is '5'",
        ),
        (_set("clients", value={}), "clients: must be a list, is {}"),
        (_set("clients", value=[]), "no client with training images"),
        (_set("learngene", value=None), "learngene.sha256 is cd"),
        (_set("run", "config", value=KeyError), "the results hold no configuration"),
        (
            _set("collective", "tasks", value=True),
            "collective.tasks: must be a whole number, 0 or more, is True",
        ),
        (_set("data", "sha256", value="cc"), "data.sha256 is ab"),
        (_set("learngene", "sha256", value="cc"), "learngene.sha256 is cd"),
        (_set("run", "config", "individual", "lr", value=0.2), "individual.lr is 0.1"),
        (lambda r: [c.update(train_images=50) for c in r["clients"]], "as in"),
    ],
)
def test_what_cannot_be_used_is_exit_2(runs, tmp_path, capsys, change, words) -> None:
    write(tmp_path / "5", 5, change)
    assert main(["bound", *map(str, runs)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("reports bound: ") and words in message
    assert str(tmp_path / "5") in message
    assert not (tmp_path / "bound.json").exists()


def test_what_does_not_change_the_theorem_may_differ(runs, tmp_path) -> None:
    write(tmp_path / "5", 5, _set("run", "config", "runtime", "name", value="serial"))
    assert len(bound(runs)["runs"]) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no results.json"),
        ("{", "no usable results: Expecting property"),
        ("[]", "no usable results: "),
    ],
)
def test_a_file_that_is_not_there_or_not_json(tmp_path, text, words) -> None:
    if text:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(GatherError, match=words):
        bound([tmp_path])
