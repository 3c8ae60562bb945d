"""Records of tuning, and what the footnote says of methods with and without one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from conf.schema import Config
from reports.summary import footnotes
from reports.tuning import FOLDER, read_records, tuning, write_record
from tests.helpers import method_settings


def record(method: str = "maml", data: str = "cifar100", **changed: Any) -> dict[str, Any]:
    tried = [{"settings": {f"method.{method}.lr": lr}, "accuracy": lr} for lr in (0.002, 0.05)]
    made = {
        "method": method, "data": data, "classes": "open_world", "trials": 2, "tried": tried,
        "best": tried[1]["settings"], "command": "python benchmarks/tune_methods.py RUN",
        "conditions": {"width": 0.25, "shots": 10, "ways": 5, "budget": 60000},
    }  # fmt: skip
    return made | changed


def config_of(data: str = "cifar100", **lr: float) -> dict[str, Any]:
    config = asdict(Config(cache="", method=method_settings()))
    config["data"]["name"] = data
    for name, value in lr.items():
        config["method"][name]["lr"] = value
    return config


def test_what_is_written_is_read(tmp_path):
    path = write_record(record(), tmp_path)
    assert path.name == "cifar100-maml.json"
    write_record(record("fomaml"), tmp_path)
    assert [each["method"] for each in read_records(tmp_path)] == ["fomaml", "maml"]
    assert read_records(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"trials": 3}, "3 trials, 2 were tried"), ({"classes": "novel"}, "tuned on novel classes")],
)
def test_a_record_that_cannot_be_is_refused(tmp_path, changed, words):
    with pytest.raises(ValueError, match=words):
        write_record(record(**changed), tmp_path)
    (tmp_path / "x.json").write_text(json.dumps(record(**changed)))
    with pytest.raises(ValueError, match=words):
        read_records(tmp_path)
    (tmp_path / "x.json").write_text(json.dumps(record(conditions={"width": 1.0})))
    with pytest.raises(ValueError, match="no condition shots"):
        read_records(tmp_path)
    (tmp_path / "x.json").write_text('{"method": "maml"}')
    with pytest.raises(ValueError, match="no field data"):
        read_records(tmp_path)


def test_the_runs_own_data_counts_first_and_settings_must_be_the_best():
    records = [record(data="aaa"), record(), record("fomaml")]
    found = tuning(config_of(maml=0.05, fomaml=0.002), ["maml", "fomaml", "protonet"], records)
    assert found["maml"]["data"] == "cifar100" and found["maml"]["used"]
    assert found["maml"]["trials"] == 2 and not found["fomaml"]["used"]
    assert found["protonet"] is None
    assert tuning(config_of("glyphs"), ["maml"], records)["maml"]["data"] == "aaa"
    failed = tuning(config_of(), ["maml"], [record(best=None)])
    assert not failed["maml"]["used"]


def test_the_footnote_names_all(make):
    results = dict(make(methods=("learngene", "scratch", "maml", "fomaml", "protonet")))
    assert footnotes(results) == []  # results of before
    results["tuning"] = tuning(
        config_of(maml=0.05, fomaml=0.002),
        ["learngene", "scratch", "maml", "fomaml", "protonet"],
        [record(), record("fomaml")],
    )
    terms = "2 trials each on cifar100's open-world classes, 5-way 10-shot, width 0.25, "
    terms += "60,000 image passes"
    assert footnotes(results) == [
        f"Settings: maml (tuned: {terms}); fomaml (tuned: {terms}, but run with other settings "
        "than the best of them); without a record of equal trials: learngene, scratch, protonet"
    ]


def test_the_records_that_come_along_are_whole():
    assert FOLDER.name == "tuned" and FOLDER.parent == Path("reports").resolve()
    for each in read_records():
        assert each["trials"] >= 1 and each["command"]


def test_nothing_is_said_where_there_are_no_opponents(make):
    results = make()
    results["tuning"] = {"learngene": None, "scratch": None}
    assert footnotes(results) == []
    results["tuning"] = tuning(config_of(), ["learngene", "scratch"], [record("scratch")])
    (note,) = footnotes(results)
    assert "scratch (tuned: 2 trials" in note
