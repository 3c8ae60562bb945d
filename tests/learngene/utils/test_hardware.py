"""The machine: a container's quota and limit count, not what the machine has."""

import math
import os
from importlib.metadata import version

import pytest
import torch

from conf.parts import factory_settings
from conf.schema import Config
from learngene.collective.settings import CollectiveSettings
from learngene.utils import hardware
from learngene.utils.hardware import (
    contention,
    library_version,
    memory,
    torch_threads,
    usable_cores,
)


@pytest.fixture
def quota(monkeypatch, tmp_path):
    """Writes what the kernel says of the container's quota; eight cores are there."""
    path = tmp_path / "cpu.max"
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return path.write_text


@pytest.mark.parametrize(
    ("said", "cores"),
    [("max 100000", 8), ("300000 100000", 3), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_the_quota_bounds_the_cores(quota, said, cores):
    quota(said)
    assert usable_cores() == cores


def test_without_a_quota_the_affinity_counts(quota):
    assert usable_cores() == 8  # no file was written: no cgroup v2


def test_the_factory_takes_the_quota_unless_told(quota):
    quota("300000 100000")
    assert factory_settings(Config(cache="")).threads == 3
    config = Config(cache="", collective=CollectiveSettings(threads=5))
    assert factory_settings(config).threads == 5


def test_threads_are_as_before_when_the_work_fails():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError
    assert torch.get_num_threads() == before


MEMINFO = """MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:    8000000 kB
SwapTotal:       2000000 kB
SwapFree:        1000000 kB
HugePages_Total:       0
"""


@pytest.mark.parametrize(
    ("files", "free", "there"),
    [
        ({}, math.inf, math.inf),
        ({"meminfo": MEMINFO}, 9_000_000 * 1024, 18_000_000 * 1024),
        ({"meminfo": MEMINFO, "memory.max": "max"}, 9_000_000 * 1024, 18_000_000 * 1024),
        ({"meminfo": MEMINFO, "memory.max": "4000000000", "memory.current": "3000000000",
          "memory.stat": "anon 2500000000\ninactive_file 500000000"}, 1.5e9, 4e9),
        ({"memory.max": "4000000000", "memory.current": "1", "memory.stat": "inactive_file 0"},
         3_999_999_999, 4e9),
    ],
)  # fmt: skip
def test_memory_is_the_machines_or_less(files, free, there, monkeypatch, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for folder in ("_CGROUP", "_PROC"):
        monkeypatch.setattr(hardware, folder, tmp_path)
    assert memory() == (free, there)


def test_a_library_without_metadata_has_a_version_all_the_same():
    assert library_version("torch") == version("torch")
    assert library_version("no-such-distribution") == "unknown"


@pytest.mark.parametrize(
    ("container", "machine", "threads", "said"),
    [
        ("26.00", "0.00", 2, "26%"),
        ("24.00", "99.00", 2, None),  # the container's own counts
        ("26.00", "99.00", 1, None),  # waits for nobody
        (None, "99.85", 4, "4 threads"),
        (None, None, 4, None),
    ],
)
def test_threads_that_share_their_cores_are_told(
    container, machine, threads, said, monkeypatch, tmp_path
):
    for folder, path, waited in (
        ("_CGROUP", tmp_path / "cpu.pressure", container),
        ("_PROC", tmp_path / "pressure" / "cpu", machine),
    ):
        monkeypatch.setattr(hardware, folder, tmp_path)
        path.parent.mkdir(exist_ok=True)
        if waited is not None:
            path.write_text(f"some avg10={waited} avg60=99.96 avg300=99.70 total=22773193313\n")
    found = contention(threads)
    assert found is None if said is None else said in str(found)
