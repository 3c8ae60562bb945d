"""The methods of a run: what is refused of names, modules and settings, and what they become."""

from __future__ import annotations

import sys

import pytest
from omegaconf import OmegaConf

from conf.error_messages import explain
from conf.validate import check
from learngene.errors import InputError
from learngene.methods import plugins
from tests.composing import composed
from tests.helpers import with_methods
from tests.stand_ins.own_method import SOURCE, here, write_method


def plain(*overrides: str) -> dict:
    config = composed(*overrides)
    check(config)
    return OmegaConf.to_container(config, resolve=True)


def test_it_stands_among_the_others_under_its_last_name(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    (tmp_path / "my_package_a").mkdir()
    path = write_method(tmp_path / "my_package_a", "pixels_a")
    config = plain("methods=[learngene,my_package_a.pixels_a,scratch]",
                   "method.pixels_a.scale=2.5")  # fmt: skip
    found = with_methods(config)
    assert found["methods"] == ["learngene", "pixels_a", "scratch"]
    assert found["method"]["pixels_a"] == {"scale": 2.5}
    plugin = found["own_methods"]["pixels_a"]
    assert plugin["module"] == "my_package_a.pixels_a" and plugin["reply"]["training_free"]
    path.write_text(path.read_text() + "# changed\n")
    monkeypatch.delitem(sys.modules, "my_package_a.pixels_a")  # as in another process
    assert with_methods(config)["own_methods"]["pixels_a"]["sha256"] != plugin["sha256"]


def test_a_run_without_one_has_its_methods_settings_and_scratchs():
    config = with_methods(plain("methods=[learngene,protonet]", "method.protonet.shots=3"))
    assert config["methods"] == ["learngene", "protonet"] and "own_methods" not in config
    assert list(config["method"]) == ["scratch", "protonet"]  # the learngene's are elsewhere
    assert config["method"]["protonet"] == {
        "budget_factor": 1.0, "lr": 0.001, "ways": 16, "shots": 3, "queries": 5,
    }  # fmt: skip
    assert config["method"]["scratch"] == {"lr": 0.01, "schedule": "cosine", "head": "prototype"}


def test_a_second_row_has_the_methods_settings_and_a_method_without_a_body_has_none():
    config = with_methods(plain("methods=[learngene,protonet+projection]"))
    assert config["methods"] == ["learngene", "protonet+projection"]
    assert list(config["method"]) == ["scratch", "protonet"]
    with pytest.raises(InputError, match=r"no body of it is trained.*Write scratch, or") as refused:
        check(composed("methods=[learngene,scratch+projection]"))
    assert refused.value.field == "methods"


def test_values_take_the_type_of_their_setting():
    config = with_methods(plain("methods=[maml]", "method.maml.lr=1", "method.maml.steps='3'"))
    assert repr(config["method"]["maml"]["lr"]) == "1.0" and config["method"]["maml"]["steps"] == 3


def test_settings_of_methods_that_the_run_has_not_are_passed_over():
    assert "fedavg" not in with_methods(plain("scale=tiny", "method.maml.client_steps=5"))["method"]


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("not_there", None, "no module not_there can be imported"),
        ("scrach", None, "Write scratch, or name a module"),
        ("no_method", "x = 1\n", "has no value METHOD"),
        ("wrong_method", "METHOD = 3\n", "has no value METHOD"),
        ("no_python", "def (\n", "no_python: importing it raises SyntaxError"),
        ("wants_more", "import not_installed_at_all\n", "No module named 'not_installed_at_all'"),
        ("raises", "1 / 0\n", "importing it raises ZeroDivisionError"),
        ("leaves", "import sys; sys.exit(3)\n", "importing it raises SystemExit: 3"),
        ("escapes", "raise type('Own', (BaseException,), {})(7)\n", "importing it raises Own: 7"),
        ("exits", "import os; os._exit(0)\n", "importing it ends the process, with exit code 0"),
        ("endless", "while True: pass\n", "importing it is not done within 0.5 s"),
        (
            "no_function",
            "from learngene.methods import Method\nMETHOD = Method(None)\n",
            "has an adapt that is no function: None",
        ),
        ("../up", None, "no name of a module"),
        ("gain", SOURCE, "the name gain is taken"),
        ("learngene.methods.protonet", None, "the name protonet is taken"),
    ],
)
def test_what_is_no_method_is_one_clear_message(tmp_path, monkeypatch, name, source, said):
    here(monkeypatch, tmp_path)
    monkeypatch.setattr(plugins, "IMPORT_S", 0.5 if name == "endless" else 60.0)
    if source is not None:
        write_method(tmp_path, name, source)
    with pytest.raises(InputError, match=r"^methods=") as found:
        check(composed(f"methods=[learngene,'{name}']"))
    assert said in str(found.value)
    sys.modules.pop(name, None)


def test_a_file_that_changes_under_a_process_is_refused(tmp_path, monkeypatch):
    """What was imported would run under the sha256 of what lies there now."""
    here(monkeypatch, tmp_path)
    path = write_method(tmp_path, "edited")
    described = check(composed("methods=[learngene,edited]"))
    assert described.methods == ["learngene", "edited"]
    path.write_text(path.read_text() + "# another\n")
    with pytest.raises(InputError, match="has changed since it was imported: start the command"):
        check(composed("methods=[learngene,edited]"))


def test_two_modules_of_one_name_are_refused(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    for folder in ("twin_one", "twin_two"):
        (tmp_path / folder).mkdir()
        write_method(tmp_path / folder, "same_name")
    with pytest.raises(InputError, match="same_name is taken"):
        check(composed("methods=[twin_one.same_name,twin_two.same_name]"))


TYPED = SOURCE.replace(
    "def adapt(",
    """from dataclasses import dataclass

from learngene.utils.settings import setting


@dataclass
class Settings:
    scale: float = setting(1.0, gt=0, le=10)


def adapt(""",
    1,
).replace("training_free=True", "training_free=True, settings=Settings")


@pytest.mark.parametrize(
    ("name", "setting", "field", "said"),
    [
        ("maml", "maml.lr=11", "maml.lr", "must be above 0 and at most 10"),
        ("maml", "maml.lr=fast", "maml.lr", "not a value of type float"),
        ("maml", "maml.lr=null", "maml.lr", "not a value of type float"),
        ("maml", "maml.steps=1.5", "maml.steps", "not a value of type int"),
        ("maml", "maml.step=1", "maml.step", r"no setting of that name. Write method.maml.steps=1"),
        (
            "maml",
            "maml.q=1",
            "maml.q",
            "no setting of that name. It has budget_factor, lr",
        ),
        ("maml", "maml=3", "maml", r"no settings with names. Write method.maml.NAME=VALUE"),
        ("scratch", "scratch.head=lp", "scratch.head", "not one of prototype, mlp"),
        ("learngene", "learngene.lr=1", "learngene.lr", "those of individual and retain"),
        ("maml", "mam.lr=1", "mam", "no built-in method.* Write method.maml.FIELD=VALUE"),
        ("maml", "nobody.lr=1", "nobody", r"Write methods=\[learngene,scratch,nobody\]"),
        ("pixels_b", "pixels_b=3", "pixels_b", "no settings with names"),
        ("typed_b", "typed_b.scale=11", "typed_b.scale", "must be above 0 and at most 10"),
        ("typed_b", "typed_b.scales=1", "typed_b.scales", r"Write method.typed_b.scale=1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, monkeypatch, name, setting, field, said):
    here(monkeypatch, tmp_path)
    write_method(tmp_path, "pixels_b")
    write_method(tmp_path, "typed_b", TYPED)
    with pytest.raises(InputError, match=said) as refused:
        check(composed(f"methods=[{name}]", f"method.{setting}"))
    assert refused.value.field == f"method.{field}"


def test_a_plugins_settings_have_their_defaults(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    write_method(tmp_path, "typed_c", TYPED)
    assert with_methods(plain("methods=[typed_c]"))["method"]["typed_c"] == {"scale": 1.0}


def test_a_saved_learngene_has_no_collective_to_read(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path)
    (tmp_path / "g.safetensors").touch()
    changed = SOURCE.replace("Method(adapt,", "Method(adapt, from_collective=print,")
    write_method(tmp_path, "takes_it", changed)
    write_method(tmp_path, "trains_it", changed.replace("from_collective=", "pretrain="))
    write_method(tmp_path, "needs_none")
    asked = "learngene.path=g.safetensors"
    with pytest.raises(InputError, match="it is sent the collective"):
        check(composed(asked, "methods=[takes_it]"))
    with pytest.raises(InputError, match="Write budget="):
        check(composed(asked, "methods=[trains_it]", "budget=null"))
    check(composed(asked, "methods=[needs_none]", "budget=null"))


def test_a_methods_setting_without_its_group_is_named():
    with pytest.raises(Exception, match="Could not override") as refused:
        composed("maml.lr=1")
    assert "Did you mean method.maml.lr=1" in explain(refused.value, ["maml.lr=1"])


def test_what_an_import_prints_is_printed_once(tmp_path, monkeypatch, capfd):
    here(monkeypatch, tmp_path)
    write_method(tmp_path, "says", SOURCE + "\nimport os\nos.write(1, b'hello ')\n")
    check(composed("methods=[learngene,says]"))
    assert capfd.readouterr().out.count("hello") == 1
