"""Methods named by a module: what is refused, and what becomes of the configuration."""

from __future__ import annotations

import sys

import pytest
from conf.plugins import with_own
from omegaconf import OmegaConf

from conf.error_messages import explain
from conf.validate import check
from learngene.errors import InputError
from tests.conf.test_compose import composed
from tests.own_method import SOURCE, here, write_method


def plain(*overrides: str) -> dict:
    config = composed(*overrides)
    check(config)
    return OmegaConf.to_container(config, resolve=True)


def test_it_stands_among_the_others_under_its_last_name(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    (tmp_path / "my_package_a").mkdir()
    path = write_method(tmp_path / "my_package_a", "pixels_a")
    config = plain("methods=[learngene,my_package_a.pixels_a,scratch]",
                   "+method.own.pixels_a.scale=2.5")  # fmt: skip
    found = with_own(config)
    assert found["methods"] == ["learngene", "pixels_a", "scratch"]
    assert found["method"]["pixels_a"] == {"scale": 2.5}
    own = found["own_methods"]["pixels_a"]
    assert (own["module"], own["at_once"]) == ("my_package_a.pixels_a", True)
    path.write_text(path.read_text() + "# changed\n")
    assert with_own(config)["own_methods"]["pixels_a"]["sha256"] != own["sha256"]


def test_a_run_without_one_is_left_as_it_was():
    config = plain()
    assert with_own(config) is config


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("not_there", None, "no module not_there can be imported"),
        ("scrach", None, "Write methods=[learngene,scratch]"),
        ("no_method", "x = 1\n", "has no value METHOD"),
        ("wrong_method", "METHOD = 3\n", "has no value METHOD"),
        ("no_python", "def (\n", "importing it raises SyntaxError"),
        ("wants_more", "import not_installed_at_all\n", "No module named 'not_installed_at_all'"),
        ("raises", "1 / 0\n", "importing it raises ZeroDivisionError"),
        ("leaves", "import sys; sys.exit(3)\n", "importing it raises SystemExit: 3"),
        (
            "no_function",
            "from learngene.methods import Method\nMETHOD = Method(None)\n",
            "has an adapt that is no function: None",
        ),
        ("../up", None, "no name of a module"),
        ("gain", SOURCE, "the name gain is taken"),
        ("own", SOURCE, "the name own is taken"),
        ("learngene.methods.protonet", None, "the name protonet is taken"),
    ],
)
def test_what_is_no_method_is_one_clear_message(tmp_path, monkeypatch, name, source, said):
    here(monkeypatch, tmp_path)
    if source is not None:
        write_method(tmp_path, name, source)
    with pytest.raises(InputError, match=r"^methods=") as found:
        check(composed(f"methods=[learngene,'{name}']"))
    assert said in str(found.value)
    sys.modules.pop(name, None)


def test_two_modules_of_one_name_are_refused(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    for folder in ("twin_one", "twin_two"):
        (tmp_path / folder).mkdir()
        write_method(tmp_path / folder, "same_name")
    with pytest.raises(InputError, match="same_name is taken"):
        check(composed("methods=[twin_one.same_name,twin_two.same_name]"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+method.own.nobody.lr=1"], r"method.own.nobody=.*methods names no module"),
        (["methods=[pixels_b]", "+method.own.pixels_b=3"], r"\+method.own.pixels_b.lr="),
    ],
)
def test_settings_without_a_method_are_refused(tmp_path, monkeypatch, overrides, said):
    here(monkeypatch, tmp_path)
    write_method(tmp_path, "pixels_b")
    with pytest.raises(InputError, match=said):
        check(composed(*overrides))


def test_a_saved_learngene_has_no_collective_to_read(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    (tmp_path / "g.safetensors").touch()
    changed = SOURCE.replace("Method(adapt,", "Method(adapt, take=print,")
    write_method(tmp_path, "takes_it", changed)
    write_method(tmp_path, "trains_it", changed.replace("take=", "pretrain="))
    write_method(tmp_path, "needs_none")
    asked = "learngene.path=g.safetensors"
    with pytest.raises(InputError, match="it is sent the collective"):
        check(composed(asked, "methods=[takes_it]"))
    with pytest.raises(InputError, match="Write budget="):
        check(composed(asked, "methods=[trains_it]", "budget=null"))
    check(composed(asked, "methods=[needs_none]", "budget=null"))


def test_a_setting_without_a_plus_says_that_one_is_missing():
    with pytest.raises(Exception, match="Could not override") as found:
        composed("method.own.mine.lr=1")
    said = explain(found.value, ["method.own.mine.lr=1"])
    assert "Write +method.own.mine.lr=1" in said
