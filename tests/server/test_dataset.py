"""The run's dataset: it is refused where a client's image is one of the factory's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from learngene.data.settings import ShardSettings
from learngene.errors import InputError
from server import dataset
from tests.helpers import hooked


def test_images_that_leak_stop_the_run(tmp_path, tiny_dataset, monkeypatch):
    split, hashes = tiny_dataset.class_split, tiny_dataset.train_hashes.copy()
    leaking = replace(tiny_dataset, train_hashes=hashes)
    monkeypatch.setattr(dataset, "build", lambda *_: leaking)
    shards, data = ShardSettings(ways=3, shots=4, seed=0), Any
    _, sound = dataset.load_dataset(data, shards, 2, tmp_path, callback=hooked())
    assert sound["passed"]
    for c in split.novel:  # all are now one image of a base class
        hashes[tiny_dataset.rows("train", c)] = hashes[tiny_dataset.rows("train", split.base[0])[0]]
    with pytest.raises(InputError, match=r"clients' images leak: .*'shard_base_overlap': 1"):
        dataset.load_dataset(data, shards, 2, tmp_path, callback=hooked())
