"""Loggers: what is refused, what they are told, and that none can end a run."""

from __future__ import annotations

import math
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest

from conf.validate import check
from learngene.errors import InputError
from protocol.callbacks import SILENT
from reports.loggers import RunLogger, check_logger, logging
from tests.composing import composed
from tests.helpers import hooked
from tests.stand_ins.own_method import here


class Memory:
    """Keeps what it is told; raises ``error`` from its ``after``-th call on."""

    def __init__(self, error: BaseException | None = None, after: int = 1) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []
        self.calls, self.closed = 0, 0
        self._error, self._after = error, after

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Not looked at here."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.calls += 1
        if self._error is not None and self.calls >= self._after:
            raise self._error
        self.told.append((step, dict(metrics)))

    def finalize(self, status: str) -> None:
        self.closed += 1
        if self._error is not None:
            raise self._error


def write(folder: Path, name: str, source: str) -> None:
    """Each test needs a name of its own: Python imports a module once a process."""
    (folder / f"{name}.py").write_text(source)


GOOD = """
class Mine:
    def __init__(self, save_dir):
        self.file = (save_dir / "mine.txt").open("w")
    def log_hyperparams(self, params):
        pass
    def log_metrics(self, metrics, step):
        print(step, metrics, file=self.file)
    def finalize(self, status):
        print(status, file=self.file)
        self.file.close()
"""


def test_only_finite_numbers_are_handed_on() -> None:
    kept, said = Memory(), []
    log = RunLogger(kept, "mine", hooked(on_note=said.append))
    log.scalars("a", 1, {"x": 1, "none": None, "nan": math.nan, "inf": -math.inf})
    log.scalars("a", 2, {"none": None})
    log.close("success")
    log.close("success")
    assert kept.told == [(1, {"a/x": 1.0})] and kept.closed == 1 and not said


def test_one_that_raises_is_named_once_and_called_no_more() -> None:
    kept, said = Memory(ValueError("out of\n [/luck]"), after=2), []
    log = RunLogger(kept, "my.Logger", hooked(on_note=said.append))
    for step in range(5):
        log.scalars("a", step, {"x": 1.0})
    log.close("success")
    assert kept.calls == 2 and len(kept.told) == 1 and kept.closed == 1
    assert len(said) == 1
    assert "logger=my.Logger" in said[0] and "ValueError: out of [/luck]" in said[0]


def test_one_that_cannot_close_is_named() -> None:
    said: list[str] = []
    RunLogger(Memory(OSError("full"), after=99), "my.Logger", hooked(on_note=said.append)).close(
        "failed"
    )
    assert len(said) == 1 and "OSError: full" in said[0]


def test_ctrl_c_inside_a_logger_ends_the_run() -> None:
    kept = Memory(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        RunLogger(kept, "mine", SILENT).scalars("a", 1, {"x": 1.0})


def test_it_is_closed_when_the_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, tmp_path)
    write(tmp_path, "logger_good", GOOD)
    with (
        pytest.raises(ZeroDivisionError),
        logging("logger_good.Mine", tmp_path, {}, SILENT) as log,
    ):
        log.scalars("collective", 3, {"accuracy": 0.5})
        raise ZeroDivisionError
    assert (tmp_path / "mine.txt").read_text() == "3 {'collective/accuracy': 0.5}\nfailed\n"


def test_without_one_nothing_is_written(tmp_path: Path) -> None:
    with logging(None, tmp_path, {}, SILENT) as log:
        log.scalars("a", 1, {"x": 1.0})
    assert not list(tmp_path.iterdir())
    assert composed().logger is None


def test_tensorboard_holds_what_it_was_told(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with logging("tensorboard", tmp_path, {}, SILENT) as log:
        log.scalars("rho", 1, {"13": 0.75, "5b": 0.5})
        log.scalars("rho", 2, {"13": 0.25})
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"rho/13", "rho/5b"}
    assert [(e.step, e.value) for e in read.Scalars("rho/13")] == [(1, 0.75), (2, 0.25)]
    # The same command once more, which goes on and logs everything again: no step twice.
    with logging("tensorboard", tmp_path, {}, SILENT) as log:
        log.scalars("rho", 1, {"13": 0.75})
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("rho/13")] == [(1, 0.75)]


def refusal(name: str) -> InputError:
    with pytest.raises(InputError) as raised:
        check(composed(f"logger='{name}'"))
    assert raised.value.field == "logger" and "logger=" in raised.value.fix
    return raised.value


def test_a_missing_package_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    found = refusal("tensorboard")
    assert "not installed" in found.problem and 'pip install -e ".[tensorboard]"' in found.fix


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("tensorbord", None, "wandb, mlflow nor a module with a class"),
        ("", None, "wandb, mlflow nor a module with a class"),
        ("../up.Mine", None, "wandb, mlflow nor a module with a class"),
        ("logger_not_there.Mine", None, "no module logger_not_there can be imported"),
        ("logger_no_python.Mine", "def (\n", "importing it raises SyntaxError"),
        ("logger_wants_more.Mine", "import not_there_at_all\n", "No module named"),
        ("logger_raises.Mine", "1 / 0\n", "importing it raises ZeroDivisionError"),
        ("logger_leaves.Mine", "raise SystemExit(3)\n", "importing it raises SystemExit: 3"),
        ("logger_other_name.Mine", GOOD.replace("Mine", "Yours"), "has no class Mine"),
        ("logger_no_close.Mine", GOOD.replace("finalize(self", "end(self"), "has no class Mine"),
        ("logger_no_class.Mine", GOOD + "Mine = Mine.log_metrics\n", "has no class Mine"),
    ],
)
def test_what_is_no_logger_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str | None, said: str
) -> None:
    here(monkeypatch, tmp_path)
    if source is not None:
        write(tmp_path, name.rpartition(".")[0], source)
    assert said in refusal(name).problem
    sys.modules.pop(name.rpartition(".")[0], None)


def test_one_that_cannot_be_made_is_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, tmp_path)
    write(tmp_path, "logger_unmade", GOOD.replace("self.file =", "raise OSError('log in') #"))
    check_logger("logger_unmade.Mine")
    with (
        pytest.raises(InputError, match="making it raises OSError: log in"),
        logging("logger_unmade.Mine", tmp_path, {}, SILENT),
    ):
        pass


def test_one_that_ends_the_process_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, tmp_path)
    at_start = GOOD.replace("self.file =", "raise SystemExit(3) #")
    write(tmp_path, "logger_exits", at_start)
    with (
        pytest.raises(InputError, match="making it raises SystemExit: 3"),
        logging("logger_exits.Mine", tmp_path, {}, SILENT),
    ):
        pass
    said: list[str] = []
    run = RunLogger(Leaves(), "Leaves", hooked(on_note=said.append))
    run.scalars("a", 1, {"x": 1.0})
    run.close("success")
    run.scalars("a", 2, {"x": 1.0})
    assert len(said) == 1 and "SystemExit: 4" in said[0]


class Leaves:
    def log_hyperparams(self, params: Any) -> None:
        raise SystemExit(3)

    def log_metrics(self, metrics: Any, step: int) -> None:
        raise SystemExit(4)

    def finalize(self, status: str) -> None:
        raise SystemExit(5)


def test_it_cannot_change_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, tmp_path)
    change = "params['shots'] = 1; params['data']['root'] = 'x'"
    write(tmp_path, "logger_changes", GOOD.replace("pass", change))
    config: dict[str, Any] = {"shots": 10, "data": {"root": None}}
    with logging("logger_changes.Mine", tmp_path, config, SILENT):
        pass
    assert config == {"shots": 10, "data": {"root": None}}


def test_its_class_is_given_folder_and_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, tmp_path)
    write(tmp_path, "logger_made", GOOD.replace("pass", "print(params['seed'], file=self.file)"))
    with logging("logger_made.Mine", tmp_path, {"seed": 7}, SILENT):
        pass
    assert (tmp_path / "mine.txt").read_text() == "7\nsuccess\n"


def test_csv_holds_what_it_was_told(tmp_path: Path) -> None:
    for values in ({"13": 0.5, "5b": 0.1}, {"13": 0.75, "5b": math.nan}):  # the same run once more
        with logging("csv", tmp_path, {}, SILENT) as log:
            log.scalars("rho", 1, values)
    assert (tmp_path / "csv" / "metrics.csv").read_text() == "step,name,value\n1,rho/13,0.75\n"


class Service(ModuleType):
    """A package that takes every call and keeps what it was asked."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, origin="here")
        self.calls = Mock()
        self.calls.get_experiment_by_name.return_value = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.calls, name)


def test_wandb_is_told_and_stays_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    package = Service("wandb")
    monkeypatch.setitem(sys.modules, "wandb", package)
    with logging("wandb", tmp_path, {"seed": 7}, SILENT) as log:
        log.scalars("rho", 2, {"13": 0.5})
    asked = package.calls.init.call_args.kwargs
    assert asked["mode"] == "offline" and asked["dir"] == tmp_path / "wandb"
    run = package.calls.init.return_value
    run.config.update.assert_called_once_with({"seed": 7})
    run.log.assert_called_once_with({"rho/13": 0.5, "step": 2})
    run.finish.assert_called_once_with(exit_code=0)
    monkeypatch.setenv("WANDB_MODE", "online")  # the user's own word
    with pytest.raises(ZeroDivisionError), logging("wandb", tmp_path, {}, SILENT):
        raise ZeroDivisionError
    assert package.calls.init.call_args.kwargs["mode"] == "online"
    assert run.finish.call_args.kwargs == {"exit_code": 1}


def test_mlflow_is_told_and_stays_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    package = Service("mlflow")
    client = package.calls.MlflowClient.return_value
    client.get_experiment_by_name.return_value = None
    for name in ("mlflow", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, package)
    with logging("mlflow", tmp_path, {"data": {"name": "glyphs"}}, SILENT) as log:
        log.scalars("clients/finetune+projection", 2, {"mean": 0.5})
    (place,) = package.calls.MlflowClient.call_args.args
    assert place == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    run = client.create_run.return_value.info.run_id
    client.log_param.assert_called_once_with(run, "data.name", "glyphs")
    client.log_metric.assert_called_once_with(run, "clients/finetune projection/mean", 0.5, step=2)
    client.set_terminated.assert_called_once_with(run, "FINISHED")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_folder_of_that_name_is_no_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such folders lie where these packages have written."""
    (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(InputError, match=rf'not installed. Install it .*"\.\[{name}\]"'):
        check_logger(name)
