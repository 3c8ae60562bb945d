"""The task's JSON: every field comes back, and what is not set is not written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from learngene.adaptation.settings import FEDERATED_FIELDS, IndividualSettings, RetainSettings
from learngene.data.settings import DirichletPartition
from protocol.task import ClientTask, FaultOrders, LabelledImages
from tests.protocol.helpers import client_task

WHOLE = client_task(
    world="/cache/worlds/k",
    width=0.25,
    retain=RetainSettings(ewc_lambda=7.0),
    method={"maml": {"steps": 2, "plan": None}},
    card={"layers": [11, 12, 13], "stem": "fresh"},
    faults=FaultOrders(("0:raise", "1:nan"), "/cache/faults-x"),
    limit_s=3.5,
    labelled=LabelledImages(2, {"70": "ff0a"}),
    own_methods={"mine": {"module": "a.mine", "sha256": "0", "at_once": True}},
    cards={"maml": {"width": 0.25}},
    partition=DirichletPartition(0.5, 20, 10),
    classes=20,
)


MOVED = client_task(individual=IndividualSettings(moved_views=True))


@pytest.mark.parametrize("task", [client_task(), WHOLE, MOVED])
def test_what_is_read_is_what_was_written(task):
    assert ClientTask.from_json(task.to_json()) == task


def test_fields_that_are_not_set_are_left_out():
    assert list(client_task().to_plain()) == [
        *("world", "methods", "seed", "shard_seed", "ways", "shots", "classes_from", "threads"),
        "individual",
    ]
    sent = [json.loads(task.to_json())["individual"] for task in (client_task(), MOVED)]
    assert "moved_views" not in sent[0] and sent[1]["moved_views"] is True
    assert json.loads(WHOLE.to_json())["faults"] == {
        "orders": ["0:raise", "1:nan"],
        "folder": "/cache/faults-x",
    }


def test_the_most_classes_of_a_client():
    assert client_task().most_ways == 5 and client_task(ways=[3, 8]).most_ways == 8
    assert WHOLE.most_ways == 20  # who divides them may hold all


def test_a_federated_round_is_sent_what_it_reads_of_individual():
    task = replace(client_task(), federated=4)
    plain = json.loads(task.to_json())
    assert plain["federated"] == 4 and list(plain["individual"]) == list(FEDERATED_FIELDS)
    assert ClientTask.from_json(task.to_json()).to_json() == task.to_json()


def test_what_is_no_task_is_refused():
    with pytest.raises(TypeError, match="pixels"):
        ClientTask.from_json(json.dumps(client_task().to_plain() | {"pixels": [1, 2]}))
