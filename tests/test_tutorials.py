"""The tutorials as a reader does them: every block of every page, in one folder.

A python block is saved under the name that its first line gives; the lines of a sh block are
commands. ``python sim.py`` gets ``TINY`` added, as the pages say. All in one process, which is
most of a minute of imports less; what stands alone is in ``learngene/test_command_line.py``.
"""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from learngene.gene.kept import load_individual
from reports.results import read_results
from tests.helpers import FEW, commands_in

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tutorials"
# The last two read the first.
ORDER = ("own_images", "add_a_method", "log_a_run", "a_learngene_by_hand", "reuse_a_learngene")
ELSEWHERE = {
    "add_an_experiment",  # its files go into the project: tests/test_experiments.py
    "federation",  # many terminals: tests/runtime/federation/test_page.py
    "share_a_learngene",  # a stand-in of the hub: tests/learngene/gene/test_hub.py
}
TINY = ["scale=tiny", "runtime=serial"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return BLOCK.findall((PAGES / f"{page}.md").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every page has been followed in turn; ``said.txt`` holds the last command's words."""
    made, commands = tmp_path_factory.mktemp("reader"), []
    for page in ORDER:
        for language, text in blocks(page):
            if language == "python":
                name = text.splitlines()[0].removeprefix("# ")
                assert not (made / name).exists()
                (made / name).write_text(text)
            else:
                commands += [shlex.split(command) for command in text.splitlines()]
    assert all(words[0] == "python" for words in commands)
    told = [[*words[1:], *(TINY if words[1] == "sim.py" else ())] for words in commands]
    for words in told[2:]:  # draw.py, and the run whose learngene is put to use below
        words += FEW if words[0] == "sim.py" else ()
    environment = {"LEARNGENE_CACHE": str(made / "cache"), "COLUMNS": "200", "PYTHONSAFEPATH": "1"}
    ended = commands_in(made, *told, **environment)
    for done in ended:
        assert done.returncode == 0, f"{done.args}\n{done.stdout}{done.stderr}"
    (made / "said.txt").write_text(ended[-1].stdout)
    return made


def test_every_page_is_followed_and_nothing_on_it_is_left_out() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*ORDER, *ELSEWHERE}
    for page in ORDER:
        found = blocks(page)
        assert {language for language, _ in found} == {"python", "sh"}, page
        for language, text in found:
            if language == "python":
                assert re.fullmatch(r"# \w+\.py", text.splitlines()[0]), page
        assert f"docs/tutorials/{page}.md" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_own_images_become_a_dataset(folder: Path) -> None:
    results = read_results(folder / "outputs" / "first" / "results.json")
    data = results["data"]
    assert data["name"] == "imagefolder" and data["image_shape"] == [3, 32, 32]
    assert [len(data["classes"][group]) for group in ("base", "open_world", "novel")] == [16, 4, 5]
    assert all(" " in name for group in data["classes"].values() for name in group)
    assert data["leakage"]["passed"] and results["messages"]["answered"] == 3


@pytest.mark.slow
def test_a_method_in_one_file_stands_in_the_table(folder: Path) -> None:
    results = read_results(folder / "outputs" / "pixels" / "results.json")
    assert list(results["summary"])[:-1] == ["learngene", "scratch", "pixels"]
    for client in results["clients"]:
        assert [epoch for epoch, _ in client["methods"]["pixels"]["accuracy_by_epoch"]] == [0]
    assert results["run"]["config"]["method"]["pixels"] == {"scale": 0.01}
    assert "pixels" in (folder / "outputs" / "pixels" / "report.html").read_text()


@pytest.mark.slow
def test_a_logger_in_one_file_has_the_runs_numbers(folder: Path) -> None:
    with (folder / "outputs" / "logged" / "numbers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    results = read_results(folder / "outputs" / "logged" / "results.json")
    told = {(r["stage"], r["step"], r["name"]): float(r["value"]) for r in rows}
    for stage in results["collective"]["stages"]:
        assert told["collective", str(stage["task"]), "accuracy"] == stage["accuracy"]
    assert any(stage == "rho" for stage, _, _ in told)
    page = (PAGES / "log_a_run.md").read_text()
    stages = {stage.partition("/")[0] for stage, _, _ in told}
    assert all(f"| `{stage}" in page for stage in stages)


@pytest.mark.slow
def test_a_learngene_is_adapted_by_hand_and_exported(folder: Path) -> None:
    card = load_individual(folder / "me.safetensors").card
    assert card.class_names == ["bar", "diamond", "post"] and card.image_side == 32
    assert (card.train_images, card.test_images) == (30, 30) and card.accuracy > 0.4
    assert (folder / "me.pt2").stat().st_size > 10_000


@pytest.mark.slow
def test_a_learngene_is_reused_in_ten_lines(folder: Path) -> None:
    found = re.search(r"accuracy on 30 test images: ([01]\.\d+)", (folder / "said.txt").read_text())
    assert found is not None and float(found[1]) > 0.4  # three classes; 0.57 was seen
    assert re.search(r"the first of them is a (bar|post|diamond)$",
                     (folder / "said.txt").read_text().strip())  # fmt: skip
    (text,) = (text for language, text in blocks("reuse_a_learngene") if language == "python")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 13  # ten, and three for reading pictures
