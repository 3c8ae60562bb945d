"""Slips on the command line: what is meant is said, and paths are what was typed."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from conf.command_line import prepared
from conf.error_messages import explain
from conf.schema import Config
from conf.typed import to_typed
from conf.validate import check
from learngene.errors import InputError
from learngene.gene.gene import load
from learngene.utils.files import expand_user
from learngene.utils.settings import limits_of
from tests.composing import CONF, composed
from tests.conf.test_compose import ROOT, choices
from tests.helpers import command_line

HOME = pwd.getpwuid(os.getuid()).pw_dir


def refused(*words: str) -> str:
    """What is said of words that cannot be composed."""
    with pytest.raises((HydraException, InputError)) as raised:
        composed(*prepared(words))
    if isinstance(raised.value, InputError):
        return str(raised.value)
    return explain(raised.value, words)


@pytest.mark.parametrize("group", ["experiment", "limit", "scale", "data", "runtime"])
def test_a_choice_that_is_none_is_refused_with_the_list(group: str) -> None:
    nearly = choices(group)[0][:-1]
    said = refused(f"{group}={nearly}")
    assert said.startswith(f"{group}={nearly}: there is no such choice. ")
    assert f"Did you mean {group}={choices(group)[0]}? " in said
    assert said.endswith(f"Choose one of: {', '.join(choices(group))}.")


def test_no_group_is_optional_so_hydra_passes_no_typing_error_over() -> None:
    assert "optional" not in (CONF / "config.yaml").read_text()
    assert choices("limit") == choices("scale")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--num_clients=5", "Write num_clients=5."),
        ("--num_clients 5", "Write num_clients=5."),
        ("--num-clients 5 shots=1", "Write num_clients=5."),
        ("seed=1 --shots", "Write shots=VALUE."),
        ("--lr=1", "Write collective.lr=1 or individual.lr=1."),
        ("num_clients 5", "num_clients 5: there is no = between them. Write num_clients=5."),
        ("seed=1 data cifar100", "Write data=cifar100."),
        ("lr=0.1", "Did you mean collective.lr=0.1 or individual.lr=0.1?"),
        ("learning_rate=0.1", "Did you mean collective.lr=0.1 or individual.lr=0.1?"),
        ("dataset=cifar100", "Did you mean data=cifar100?"),
        ("width=0.5", "Did you mean collective.width=0.5?"),
        ("individual.width=1", "Did you mean collective.width=1?"),
        ("growth=none", "Did you mean collective.growth=none?"),
        ("batchsize=8", "Did you mean collective.batch_size=8 or individual.batch_size=8?"),
        ("num_client=20", "Did you mean num_clients=20?"),
        ("experimen=bound", "Did you mean experiment=bound?"),
        ("learngene.layer=2", "Did you mean learngene.layers=2?"),
        ("output_dir=x", "Did you mean hydra.run.dir=x?"),
        ("maml.lr=1", "Did you mean method.maml.lr=1?"),
        ("methods=learngene", "Write methods=[learngene]."),
        ("shots=1,5", "which -m asks for. A list has brackets: 'shots=[1,5]'."),
        ("individual.lr=0,01", "which -m asks for. A decimal number has a point."),
        (
            "cache=/a,b",
            """If it is one value: Put it into quotes of its own, inside those of """
            """the shell: 'cache="/a,b"'.""",
        ),
    ],
)
def test_a_slip_is_told_what_was_meant(words: str, said: str) -> None:
    assert refused(*words.split()).endswith(said)


def test_a_field_that_was_added_is_told_what_was_meant() -> None:
    with pytest.raises(InputError, match=r"of that name\. Write seed=1"):
        check(composed("+seeed=1"))
    with pytest.raises(InputError, match="Write collective"):
        check(composed("+individual.width=1"))


def test_of_two_words_the_wrong_one_is_blamed() -> None:
    assert refused("runtime=serial", "runtime=local").startswith("runtime=local: ")
    assert refused("seed=1", "seed=many").startswith("seed=many: not a value of type int")


def test_what_is_no_slip_stays_as_it_is() -> None:
    words = ["--cfg", "job", "experiment=bound", "-m", "shots=1,2", "methods=[a,b]", "logger=~"]
    assert prepared(words) == [word for word in words if word != "-m"] + ["-m"]


def test_glyphs_has_as_many_classes_as_its_message_says() -> None:
    from learngene.data.sources.glyphs import CHARACTERS

    limits = dict(limits_of(Config))["data.classes"]
    assert limits.le == len(CHARACTERS)
    for count in ("9", f"{len(CHARACTERS) + 1}"):
        with pytest.raises(InputError, match="at least 10 and at most 108"):
            check(composed(f"data.classes={count}"))
    for words, said in {
        "num_clients=0": "at least 1 and at most 100,000. Write",
        "seed=-1": "seed=-1: must be at least 0. Write",  # not 9.2e+18, which is that of 64 bits
    }.items():
        with pytest.raises(InputError, match=said):
            check(composed(words))
    for count in ("10", f"{len(CHARACTERS)}"):
        check(composed(f"data.classes={count}", "ways=2"))


PATHS = [name for name, limits in limits_of(Config) if limits.path]


def test_the_paths_of_the_schema() -> None:
    assert PATHS == ["cache", "data.root", "collective.growth", "learngene.path"]


def value_of(name: str, *words: str) -> str:
    *groups, last = name.split(".")
    owner = to_typed(composed(*prepared(words)))
    for group in groups:
        owner = getattr(owner, group)
    return getattr(owner, last)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("typed", "due"),
    [
        ("~/x", "HOME/x"),
        ("'~/a b'", "HOME/a b"),
        ('"~"', "HOME"),
        ('"/a/${seed}/${x}"', "/a/${seed}/${x}"),
        ("'./~'", "./~"),
        ("a/../b/", "a/../b/"),
    ],
)
def test_a_path_is_what_was_typed_and_the_home_is_known(
    name: str, typed: str, due: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = str(tmp_path / "my [home]")
    monkeypatch.setenv("HOME", home)
    assert value_of(name, f"{name}={typed}") == due.replace("HOME", home)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("typed", ["", "''", "' '", '"  "'])
def test_a_blank_path_is_refused(name: str, typed: str) -> None:
    with pytest.raises(InputError, match="a blank path") as raised:
        value_of(name, f"{name}={typed}")
    assert raised.value.field == name


@pytest.mark.parametrize("name", PATHS)
def test_nobodys_home_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="nobody has a home of that name") as raised:
        value_of(name, f"{name}=~nobody-at-all/x")
    assert raised.value.field == name


@pytest.mark.parametrize("name", ["hydra.run.dir", "hydra.sweep.dir"])
def test_hydras_folders_are_paths_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert prepared([f"{name}=~/a/${{now:%H}}"]) == [f"{name}=/home/me/a/${{now:%H}}"]
    for wrong in ("", "' '", "~nobody-at-all/x"):
        with pytest.raises(InputError, match=r"a blank path|a home of that name"):
            prepared([f"{name}={wrong}"])


def test_an_empty_home_is_that_of_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ("", " "):
        monkeypatch.setenv("HOME", empty)
        assert expand_user("~/x") == Path(HOME, "x") and expand_user("~") == Path(HOME)
    monkeypatch.delenv("HOME")
    assert expand_user("~/x") == Path(HOME, "x") and expand_user("./~") == Path("./~")


@pytest.mark.parametrize(
    ("variable", "due"),
    [(None, "~/.cache/learngene"), ("", "~/.cache/learngene"), ("~/c", "~/c"),
     ("/x/c${seed}x", "/x/c${seed}x")],
)  # fmt: skip
def test_the_cache_of_the_environment(
    variable: str | None, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("LEARNGENE_CACHE", raising=False)
    if variable is not None:
        monkeypatch.setenv("LEARNGENE_CACHE", variable)
    assert to_typed(composed()).cache == due.replace("~", HOME)
    assert to_typed(composed("cache=/told")).cache == "/told"


def test_a_blank_cache_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARNGENE_CACHE", " ")
    with pytest.raises(InputError, match="cache=' ': a blank path"):
        check(composed())


def test_a_learngene_is_read_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"{tmp_path}/no.safetensors does not exist"):
        load("~/no.safetensors")


def test_reports_take_folders_from_home(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reports", "compare", "~/runs", "--out=~/out"],
        env={**os.environ, "HOME": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2 and f"{tmp_path}/runs: no results.json" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=TYPO"],
        ["-m", "experiment=fig4_curves,TYPO", "hydra.sweep.dir=sweep"],
        ["limit=TYPO"],
        ["--num_clients", "5"],
        ["learngene.path=x.safetensors", "experiment=fig3_criterion"],
    ],
)
def test_sim_refuses_before_anything_is_begun(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARNGENE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    done = command_line("scale=tiny", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""
    assert not (tmp_path / "cache").exists()
