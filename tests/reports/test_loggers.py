"""Loggers: what is refused, what they are told, and that none can end a run."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from conf.validate import check
from learngene.errors import InputError
from protocol.callbacks import SILENT
from reports.loggers import RunLogger, check_logger, logging
from tests.conf.test_compose import composed
from tests.helpers import hooked
from tests.own_method import here


class Memory:
    """Keeps what it is told; raises ``error`` from its ``after``-th call on."""

    def __init__(self, error: BaseException | None = None, after: int = 1) -> None:
        self.told: list[tuple[str, int, dict[str, float]]] = []
        self.calls, self.closed = 0, 0
        self._error, self._after = error, after

    def scalars(self, stage: str, step: int, values: dict[str, float]) -> None:
        self.calls += 1
        if self._error is not None and self.calls >= self._after:
            raise self._error
        self.told.append((stage, step, dict(values)))

    def close(self) -> None:
        self.closed += 1
        if self._error is not None:
            raise self._error


def write(folder: Path, name: str, source: str) -> None:
    """Each test needs a name of its own: Python imports a module once a process."""
    (folder / f"{name}.py").write_text(source)


GOOD = """
class Mine:
    def __init__(self, run_dir, config):
        self.file = (run_dir / "mine.txt").open("w")
    def scalars(self, stage, step, values):
        print(stage, step, values, file=self.file)
    def close(self):
        self.file.close()
"""


def test_only_finite_numbers_are_handed_on() -> None:
    kept, said = Memory(), []
    log = RunLogger(kept, "mine", hooked(on_note=said.append))
    log.scalars("a", 1, {"x": 1, "none": None, "nan": math.nan, "inf": -math.inf})
    log.scalars("a", 2, {"none": None})
    log.close()
    log.close()
    assert kept.told == [("a", 1, {"x": 1.0})] and kept.closed == 1 and not said


def test_one_that_raises_is_named_once_and_called_no_more() -> None:
    kept, said = Memory(ValueError("out of\n [/luck]"), after=2), []
    log = RunLogger(kept, "my.Logger", hooked(on_note=said.append))
    for step in range(5):
        log.scalars("a", step, {"x": 1.0})
    log.close()
    assert kept.calls == 2 and len(kept.told) == 1 and kept.closed == 1
    assert len(said) == 1
    assert "logger=my.Logger" in said[0] and "ValueError: out of [/luck]" in said[0]


def test_one_that_cannot_close_is_named() -> None:
    said: list[str] = []
    RunLogger(Memory(OSError("full"), after=99), "my.Logger", hooked(on_note=said.append)).close()
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
    assert (tmp_path / "mine.txt").read_text() == "collective 3 {'accuracy': 0.5}\n"


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
    assert "not installed" in found.problem and "pip install tensorboard" in found.fix


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("tensorbord", None, "neither tensorboard nor a module with a class"),
        ("", None, "neither tensorboard nor a module with a class"),
        ("../up.Mine", None, "neither tensorboard nor a module with a class"),
        ("logger_not_there.Mine", None, "no module logger_not_there can be imported"),
        ("logger_no_python.Mine", "def (\n", "importing it raises SyntaxError"),
        ("logger_wants_more.Mine", "import not_there_at_all\n", "No module named"),
        ("logger_raises.Mine", "1 / 0\n", "importing it raises ZeroDivisionError"),
        ("logger_leaves.Mine", "raise SystemExit(3)\n", "importing it raises SystemExit: 3"),
        ("logger_other_name.Mine", GOOD.replace("Mine", "Yours"), "has no class Mine"),
        ("logger_no_close.Mine", GOOD.replace("close(self)", "end(self)"), "has no class Mine"),
        ("logger_no_class.Mine", GOOD + "Mine = Mine.scalars\n", "has no class Mine"),
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
    run.close()
    run.scalars("a", 2, {"x": 1.0})
    assert len(said) == 1 and "SystemExit: 4" in said[0]


class Leaves:
    def scalars(self, stage: str, step: int, values: Any) -> None:
        raise SystemExit(4)

    def close(self) -> None:
        raise SystemExit(5)


def test_it_cannot_change_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, tmp_path)
    change = "config['shots'] = 1; config['data']['root'] = 'x'\n        self.file ="
    write(tmp_path, "logger_changes", GOOD.replace("self.file =", change))
    config: dict[str, Any] = {"shots": 10, "data": {"root": None}}
    with logging("logger_changes.Mine", tmp_path, config, SILENT):
        pass
    assert config == {"shots": 10, "data": {"root": None}}


def test_its_class_is_given_folder_and_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, tmp_path)
    source = GOOD.replace("self.file =", "print(config['seed'], file=(run_dir / 'seed').open('w'))"
                          "\n        self.file =")  # fmt: skip
    write(tmp_path, "logger_made", source)
    config: dict[str, Any] = {"seed": 7}
    with logging("logger_made.Mine", tmp_path, config, SILENT):
        pass
    assert (tmp_path / "seed").read_text() == "7\n"
