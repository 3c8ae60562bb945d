"""What a run would take of the machine's memory is said, or refused, before anything is built."""

from __future__ import annotations

import pytest

from learngene.errors import InputError
from runtime import resources
from runtime.cluster import Node
from runtime.resources import Resources, RuntimeSettings, check_memory, check_resources


@pytest.mark.parametrize(
    ("settings", "clients", "free", "said"),
    [
        ({}, 100, 3e9, None),
        ({}, 100, 2e9, "8 workers take about 3.0 GB of memory, 2.0 are free"),
        ({"num_cpus": 2.5}, 100, 1e9, "3 workers take about 1.1 GB"),
        ({}, 2, 2e9, None),  # Ray starts a worker a client
    ],
)
def test_workers_beyond_what_is_free(settings, clients, free, said, monkeypatch):
    monkeypatch.setattr(resources, "memory", lambda: (free, 4e9))
    asked = RuntimeSettings(**{"total_cpus": 8, "num_gpus": 0, **settings})
    warning = check_memory(check_resources(asked, clients), clients)
    assert warning is None if said is None else f"warning: {said}" in warning


def test_without_workers_here_none_takes_memory(monkeypatch):
    monkeypatch.setattr(resources, "memory", lambda: (0, 0))
    assert check_memory(None, 100) is None  # one process
    assert check_memory(Resources(None, None, 1, 0, "h:1", (Node(8, 0),)), 100) is None


def test_workers_beyond_what_there_is(monkeypatch):
    monkeypatch.setattr(resources, "memory", lambda: (3e9, 4e9))
    with pytest.raises(InputError, match=r"11 workers take about 4\.1 GB .* 4\.0 in all") as caught:
        check_memory(check_resources(RuntimeSettings(total_cpus=11, num_gpus=0), 100), 100)
    assert caught.value.field == "runtime.total_cpus"


def test_no_more_workers_than_clients() -> None:
    """A tenth of a core for each of three clients: one core has room for ten."""
    found = check_resources(RuntimeSettings("ray", num_cpus=0.1, num_gpus=0.0, total_cpus=4), 3)
    assert (found.total_cpus, found.workers, found.clients) == (1, 3, 3)
