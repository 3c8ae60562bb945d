"""Work in processes of its own: what ends it, what it says, and that nothing is left running."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from server import parallel
from server.parallel import max_workers, run_parallel


def work(kind: str, file: str, tell) -> None:
    Path(file).write_text(str(os.getpid()))
    tell(1, 2)
    if kind == "raises":
        raise ValueError("out of luck")
    if kind == "dies":
        os._exit(9)
    if kind == "endless":
        while True:
            time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def asked(tmp_path):
    return lambda *kinds: {kind: (kind, str(tmp_path / kind)) for kind in kinds}


def test_each_end_is_named_and_takes_no_other_along(asked):
    steps = []
    ends = run_parallel(work, asked("well", "raises", "dies"), 2, lambda *told: steps.append(told))
    found = {end.name: end.error for end in ends}
    assert found == {
        "well": None,
        "raises": "ValueError: out of luck",
        "dies": "its process ended with exit code 9",
    }
    assert sorted(steps) == [("dies", 1, 2), ("raises", 1, 2), ("well", 1, 2)]


def test_whoever_stops_waiting_leaves_no_process_behind(asked, tmp_path):
    ends = run_parallel(work, asked("endless", "well"), 2, lambda *told: None)
    assert next(ends).name == "well"
    while not (tmp_path / "endless").exists():  # it starts beside
        time.sleep(0.05)
    pid = int((tmp_path / "endless").read_text())
    assert alive(pid)
    ends.close()
    assert not alive(pid)


def test_as_many_places_as_the_cores_have_room_for(monkeypatch):
    monkeypatch.setattr(parallel, "usable_cores", lambda: 5)
    cpu = torch.device("cpu")
    assert [max_workers(n, cpu) for n in (0, 1, 2, 8)] == [1, 5, 2, 1]
    assert max_workers(1, torch.device("cuda")) == 1


def test_whoever_has_it_ended_leaves_no_process_behind(asked, tmp_path):
    def over() -> bool:
        return (tmp_path / "endless").exists() and bool((tmp_path / "endless").read_text())

    assert list(run_parallel(work, asked("endless"), 1, over=over)) == []
    assert not alive(int((tmp_path / "endless").read_text()))
