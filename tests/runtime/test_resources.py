"""What a run would take of the machine's memory is said, or refused, before anything is built."""

from __future__ import annotations

import pytest

from learngene.errors import InputError
from runtime import resources
from runtime.resources import RuntimeSettings, check_memory


@pytest.mark.parametrize(
    ("settings", "clients", "free", "said"),
    [
        ({}, 100, 3e9, None),
        ({}, 100, 2e9, "8 workers take about 3.0 GB of memory, 2.0 are free"),
        ({"num_cpus": 2.5}, 100, 1e9, "3 workers take about 1.1 GB"),
        ({}, 2, 2e9, None),  # Ray starts a worker a client
        ({"name": "serial"}, 100, 0, None),
        ({"address": "auto", "total_cpus": None}, 100, 0, None),  # the memory is elsewhere
    ],
)
def test_workers_beyond_what_is_free(settings, clients, free, said, monkeypatch):
    monkeypatch.setattr(resources, "memory", lambda: (free, 4e9))
    asked = RuntimeSettings(**{"total_cpus": 8, "num_gpus": 0, **settings})
    warning = check_memory(asked, clients)
    assert warning is None if said is None else f"warning: {said}" in warning


def test_workers_beyond_what_there_is(monkeypatch):
    monkeypatch.setattr(resources, "memory", lambda: (3e9, 4e9))
    with pytest.raises(InputError, match=r"11 workers take about 4\.1 GB .* 4\.0 in all") as caught:
        check_memory(RuntimeSettings(total_cpus=11, num_gpus=0), 100)
    assert caught.value.field == "runtime.total_cpus"
