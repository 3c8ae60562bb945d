"""The cores that a process may use: a container's quota counts, not what the machine has."""

import os

import pytest
import torch

from conf.parts import factory_settings
from conf.schema import Config
from learngene.collective.settings import CollectiveSettings
from learngene.utils import hardware
from learngene.utils.hardware import torch_threads, usable_cores


@pytest.fixture
def quota(monkeypatch, tmp_path):
    """Writes what the kernel says of the container's quota; eight cores are there."""
    path = tmp_path / "cpu.max"
    monkeypatch.setattr(hardware, "_QUOTA", path)
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
