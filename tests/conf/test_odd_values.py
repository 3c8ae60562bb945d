"""Any value in any field: legal, or refused in one line. Never a traceback."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.error_messages import explain, field_names
from conf.validate import check
from learngene.errors import InputError
from tests.composing import composed
from tests.conf.test_compose import METHOD_FIELDS

ROOT = Path(__file__).resolve().parents[2]
BASE = composed()
KEPT = pickle.dumps(BASE)  # five times as fast as a deep copy
QUICK = settings(derandomize=True, deadline=None, max_examples=100)
FIELDS = sorted([*field_names(), *METHOD_FIELDS])

ODD: list[Any] = [
    None, True, "", " ", "abc", "ünï©ødé", "٣", "a\nb", "\0", "\ud800", "${seed}", "${nowhere}",
    "${", "???", "nan", "-inf", "1e400", 0, -1, 10**20, 10**400, -0.5, 1e308, math.nan, math.inf,
    [], [None], [1, "a"], {}, {"a": 1}, "../../etc/passwd", "x" * 5000,
]  # fmt: skip


def one_line(text: str) -> None:
    assert text and "\n" not in text and "Traceback" not in text
    assert len(text) < 1500
    text.encode("utf-8", "backslashreplace")


def settle(config: DictConfig, shown: list[str]) -> bool:
    """Whether the configuration is legal; if not, what refuses it must say so in one line."""
    try:
        plain = asdict(check(config))
    except InputError as error:
        one_line(" ".join(str(error).split()))
        return False
    except OmegaConfBaseException as error:
        one_line(explain(error, shown))
        return False
    json.dumps(plain, allow_nan=False)  # a legal configuration can be kept in results.json
    json.dumps(plain, ensure_ascii=False).encode()
    return True


def put(name: str, value: Any) -> bool:
    config = pickle.loads(KEPT)
    try:
        OmegaConf.update(config, name, value, merge=False)
        if name in METHOD_FIELDS:  # a method that the run has not is passed over
            config.methods = [name.split(".")[1]]
    except (OmegaConfBaseException, OverflowError) as error:  # float(10**400) is not caught there
        one_line(explain(error, [f"{name}=..."]))
        return False
    return settle(config, [f"{name}=..."])


@pytest.mark.parametrize("name", FIELDS)
def test_odd_values_as_yaml_would_hold_them(name: str) -> None:
    """A fifth of them in each field; neighbours, which are of one kind, have other fifths."""
    for value in ODD[FIELDS.index(name) % 5 :: 5]:
        put(name, value)


@pytest.mark.chaos
def test_every_odd_value_in_every_field() -> None:
    for name in FIELDS:
        for value in ODD:
            put(name, value)


values = (
    st.integers() | st.floats() | st.text(max_size=20) | st.booleans() | st.none()
    | st.lists(st.integers() | st.text(max_size=5), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.integers(), max_size=2)
    | st.integers(min_value=2**60)
)  # fmt: skip


@QUICK
@given(st.sampled_from(FIELDS), values)
def test_any_value(name: str, value: Any) -> None:
    put(name, value)


def typed(*overrides: str) -> None:
    """What sim.py does with a command line, in this process."""
    try:
        config = composed(*overrides)
    except Exception as error:  # Hydra's parser lets errors of many kinds through
        one_line(explain(error, overrides))
        return
    settle(config, list(overrides))


WORDS = [
    "null", "", "''", "nan", "inf", "-1", "1e999", "[", "[[[[", "{", "{a:1}", "[1,2", "a,b", "a b",
    "ünï", "٣", "\\", "${seed}", "${oc.env:NOWHERE}", "${x", "?", "???", "9" * 5000, "choice(1,2)",
    "range(1,3)", "[" * 300, "'a\nb'", "\ud800", "\0", "=", "==", "/", "~",
]  # fmt: skip


@pytest.mark.parametrize("name", ["seed", "data.root", "data"])
def test_odd_words_on_the_command_line(name: str) -> None:
    for word in WORDS:
        typed(f"{name}={word}")


@pytest.mark.parametrize("override", [
    "=", "seed", "seed=1=2", "+seed=1", "~seed", "++nowhere.x=1", "seed.x=1", "data.x.y=1", "@=1",
    "+hydra.x=1", "hydra.run=1", "data@x=glyphs", "scale=../data/glyphs", "experiment=../config",
    "experiment=[fig6b_position]", "+data/glyphs=1", "-m", "--no-such", "methods.0=x", "methods=x",
    "hydra.verbose=[[", "data=null", "data=[glyphs]", "scale=", "runtime=serial,ray",
])  # fmt: skip
def test_odd_overrides(override: str) -> None:
    typed(override)


def test_ints_beyond_64_bits_and_text_that_is_none_are_named() -> None:
    config = copy.deepcopy(BASE)
    config.open_world.labels_per_cycle = 10**400
    with pytest.raises(InputError, match="64 bits do not hold it") as raised:
        check(config)
    assert raised.value.field == "open_world.labels_per_cycle"
    for text in ("a\nb", "\udcff", "a\0"):
        config = copy.deepcopy(BASE)
        config.learngene.path = text
        with pytest.raises(InputError, match="no text") as raised:
            check(config)
        assert raised.value.field == "learngene.path"


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    files = [str(tmp_path / "file"), str(tmp_path / "file" / "below")]
    for cache in ("", *files, "x" * 400, "/sys/x", "/proc/x"):  # root passes for a writer of both
        config = copy.deepcopy(BASE)
        config.cache = cache
        with pytest.raises(InputError) as raised:
            check(config)
        assert raised.value.field == "cache"
    config = copy.deepcopy(BASE)
    config.cache = str(tmp_path / "new" / "deep")
    check(config)


def test_the_safeguard_needs_images_for_its_folds() -> None:
    check(composed("individual.safeguard=true", "shots=3"))
    check(composed("shots=1"))
    with pytest.raises(InputError, match=r"a client has 2 of each \(shots\)") as raised:
        check(composed("individual.safeguard=true", "shots=2"))
    assert raised.value.field == "individual.safeguard_folds"


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("seed=" + "9" * 5000, "seed="),
        ("methods=[null]", "methods"),
        (b"data.root=\xff\xfe", "data.root"),
        ("seed=[[[[", "seed="),
        ("cache=/dev/null", "cache=/dev/null"),
    ],
)
def test_sim_says_it_in_one_line(override: str | bytes, word: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "sim.py"), override, f"hydra.run.dir={tmp_path}"],
        env={**os.environ, "LEARNGENE_CACHE": str(tmp_path / "cache")},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and word in lines[0]
    assert "Traceback" not in done.stderr and len(lines[0]) < 1500


@pytest.mark.parametrize("field", ["collective.threads", "runtime.num_cpus"])
def test_threads_have_cores(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conf.validate.usable_cores", lambda: 2)
    check(composed(f"{field}=8", "runtime.total_cpus=8"))
    with pytest.raises(InputError, match="more than 4 threads for each of 2 usable cores") as said:
        check(composed(f"{field}=9"))
    assert said.value.field == field
