"""``--help`` is one screen that works; ``--help=all`` has every field and what it means."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
from hydra.errors import HydraException

from conf.help import FIRST, WIDTH, choices, comments, help_asked
from conf.schema import Config
from conf.validate import check
from learngene.data.settings import DataSettings
from learngene.errors import InputError
from learngene.methods import find
from tests.composing import composed
from tests.conf.test_compose import LIMITS, METHOD_FIELDS, ROOT, field_names


def page(*words: str) -> str:
    made = help_asked(words)
    assert made is not None
    return made


def test_one_screen() -> None:
    lines = page("--help").splitlines()
    assert 24 <= len(lines) <= 40 and max(map(len, lines)) <= WIDTH
    assert page("-h") == page("--help") and help_asked(["shots=1"]) is None


def test_its_ten_settings_can_be_written_so_and_show_what_the_run_has(tmp_path) -> None:
    assert len(FIRST) == 10 and {name for *_, name in FIRST} <= {*field_names()}
    for example, _, _ in FIRST:
        check(composed(*shlex.split(example.replace("DIR", str(tmp_path))), "budget=100"))
    row = re.search(r"num_clients=40 .* (\d+)$", page("--help", "num_clients=7"), re.MULTILINE)
    assert row is not None and row[1] == "7"
    for experiment in choices("experiment"):
        assert experiment in page("--help")


def test_it_has_the_run_that_the_words_have_without_it(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert "/home/somebody/x" in page("--help", "cache=~/x")
    several = page("-m", "shots=10,20", "seed=choice(1,2)", "num_clients=7", "--help")
    assert several == page("--help", "num_clients=7")
    assert several == page("shots=10,20", "--multirun", "num_clients=7", "-h", "data=glyphs,cub")
    with pytest.raises(HydraException):  # without -m it is one run
        help_asked(["--help", "shots=10,20"])


def test_every_field_stands_there_with_its_value_range_and_comment() -> None:
    made = page("--help=all", "data=cifar100")
    assert max(map(len, made.splitlines())) <= WIDTH
    entries = re.split(r"^  ([\w.]+) = ", made, flags=re.MULTILINE)[1:]
    entries = dict(zip(entries[::2], entries[1::2], strict=True))
    assert {*entries} == {*field_names(), *METHOD_FIELDS} - {"method"}
    words = {name: " ".join(text.split()) for name, text in entries.items()}
    for name, limits in LIMITS.items():
        assert all(choice in words[name] for choice in limits.choices), name
    assert words["data.name"].startswith("cifar100 ")  # of this run
    assert words["shots"].startswith("10 (at least 1) images of a class in a client's shard; ")
    assert words["collective.label_smoothing"] == "0.0 (at least 0 and at most 0.9) 0..1"
    assert words["method.maml.steps"].startswith("1 (at least 1 and at most 100) on a task's")


def test_comments_are_those_of_the_source() -> None:
    assert comments(DataSettings)["classes"] == "glyphs: number of classes"
    assert (
        comments(DataSettings)["base"] == "glyphs, imagefolder: share of the classes that are base"
    )
    both = comments(Config)["faults"]
    assert both.startswith("To see what") and both.endswith("CLIENT:KIND or CLIENT:KIND@EPOCH")
    # those that a parent says, and where the child changes the default its own
    assert comments(find("fedprox").settings)["local_epochs"] == "passes over the shard in a round"


def test_another_page_or_a_run_that_cannot_be() -> None:
    with pytest.raises(InputError, match="--help=al: there is no such page"):
        help_asked(["--help=al"])
    done = subprocess.run(
        [sys.executable, "sim.py", "--help", "experiment=TYPO"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "experiment=TYPO: there is no such choice" in done.stderr


def test_the_screen_needs_neither_torch_nor_a_folder(tmp_path) -> None:
    code = "import sys, sim; sys.argv = ['sim.py', '--help']; sim.main(); print({*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # LEARNGENE_CACHE is on the screen
        capture_output=True,
        text=True,
        check=True,
    )
    *screen, modules = done.stdout.splitlines()
    assert screen == page("--help").splitlines() and "'torch'" not in modules
    assert list(tmp_path.iterdir()) == []
