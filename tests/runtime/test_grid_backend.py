"""A grid from outside: nodes that come, go, say nothing or lie; whose kept answers are whose."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, RecordDict

from clients.client_app import make_client_app
from clients.node_state import node_state
from learngene.errors import InputError
from protocol.keys import NODE, NODE_QUERY
from protocol.messages import array_record
from protocol.reply_schema import NODE_STATE
from protocol.rounds import RoundOutcome
from runtime import grid_backend
from runtime.grid_backend import OutsideGrid
from runtime.ray_backend import simulate
from runtime.resources import Federation, RuntimeSettings
from runtime.serial_backend import SerialGrid
from strategies.answer_cache import AnswerCache
from strategies.learngene import LearngeneStrategy
from tests.helpers import hooked
from tests.runtime import fake_work
from tests.runtime.fake_work import fake_task, plan, run_task

REPLY = replace(fake_work.REPLY, info={**fake_work.REPLY.info, "node": NODE_STATE})
PLAN = plan(fake_task(), {"learngene": {"w": np.ones(3, np.float32)}}, reply=REPLY)
app = make_client_app(run_task, lambda task: REPLY)
CLIENTS = 3
IMAGE = np.zeros((32, 32, 3), np.uint8)


class Nodes(SerialGrid):
    """Nodes whose owners may switch them off (``away``) or cut the cable (``mute``), by client."""

    def __init__(self, count: int = CLIENTS, **config: Any) -> None:
        super().__init__(app, count)
        self.away: set[int] = set()
        self.mute: set[int] = set()
        self.asked: list[str] = []  # kinds of all messages
        for context in self._contexts.values():
            context.node_config = {**context.node_config, **config}

    def client(self, node: int) -> int:
        return int(self._contexts[node].node_config["partition-id"])

    def get_node_ids(self) -> list[int]:
        return [node for node in self._contexts if self.client(node) not in self.away]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.asked += [each.metadata.message_type for each in messages]
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = super().pull_messages(message_ids)
        train = MessageType.TRAIN
        return [
            each
            for each in replies
            if each.metadata.message_type != train
            or self.client(each.metadata.src_node_id) not in self.mute
        ]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_backend, "POLL_S", 0.01)
    monkeypatch.setattr(grid_backend, "DEPLOYED_S", 0.3)
    monkeypatch.setattr(grid_backend, "SIMULATED_S", 0.3)


def outside(grid: SerialGrid, *, deployed: bool = True, least: int = CLIENTS) -> OutsideGrid:
    context = Context(1, 1, {}, RecordDict(), {})
    made = OutsideGrid(grid, context, ["flwr", "run"], deployed)
    made.connect(CLIENTS, least)
    return made


def ask(over: OutsideGrid | None, *plans: Any, **settings: Any) -> list[RoundOutcome]:
    """One round a plan."""
    strategy = LearngeneStrategy(CLIENTS, lambda number: [plans[number - 1]])
    runtime = RuntimeSettings("flwr" if over else "serial", **settings)
    simulate(strategy, len(plans), runtime, CLIENTS, outside=over, client_app=app)
    return strategy.rounds


def answers(each: RoundOutcome) -> list[Any]:
    return [
        (c.methods, c.error, c.bytes_down, c.bytes_up, c.received, c.sent) for c in each.clients
    ]


def test_simulated_nodes_bring_what_our_own_backends_bring() -> None:
    here, there = ask(None, PLAN, PLAN), ask(outside(Nodes(), deployed=False), PLAN, PLAN)
    assert list(map(answers, here)) == list(map(answers, there))
    assert [each.who for each in here] == [each.who for each in there] and here[0].queries == 3


def test_nodes_of_a_deployment_are_asked_once_for_all_strategies() -> None:
    grid = Nodes()
    over = outside(grid)
    first, second = ask(over, PLAN), ask(over, PLAN)
    assert grid.asked == [NODE_QUERY] * 3 + [MessageType.TRAIN] * 6
    assert [first[0].queries, second[0].queries] == [3, 0]
    held = [(entry.record, entry.name) for entry in first[0].who[0][3]]
    assert held == [(NODE, "partition"), (NODE, "state")]


@pytest.mark.parametrize(
    ("deployed", "said"),
    [(True, "Start more SuperNodes"), (False, '--federation-config "num-supernodes=3"')],
)
def test_too_few_nodes_are_refused_with_what_to_do(deployed: bool, said: str) -> None:
    with pytest.raises(InputError, match=r"2 of 3 nodes registered in 0\.3 s") as caught:
        outside(Nodes(2), deployed=deployed)
    assert said in str(caught.value) and caught.value.field == "num-clients"


def test_too_many_simulated_nodes_are_refused_and_two_of_one_client() -> None:
    with pytest.raises(InputError, match=r"has 4 nodes. Write num-clients=4"):
        outside(Nodes(4), deployed=False)
    with pytest.raises(InputError, match=r"clients \[1, 1, 1\], each of 0 to 2 is due once"):
        outside(Nodes(**{"partition-id": 1}))


def test_a_node_without_a_number_ends_a_run_before_it_has_begun() -> None:
    grid = Nodes()
    del next(iter(grid._contexts.values())).node_config["partition-id"]
    grid.client = lambda node: -1
    with pytest.raises(InputError, match=r"2 said who they are: .*no partition-id in the node's"):
        outside(grid)


def test_a_node_that_comes_late_joins_and_one_that_leaves_is_missing() -> None:
    grid = Nodes()
    grid.away = {2}
    over = outside(grid, least=2)
    strategy = LearngeneStrategy(CLIENTS, lambda number: comes_and_goes(number))

    def comes_and_goes(number: int) -> list[Any]:
        grid.away = {1: set(), 2: {0}, 3: set()}[number]  # for the round after this one
        return [PLAN]

    simulate(strategy, 3, RuntimeSettings("flwr"), CLIENTS, outside=over)
    assert [[c.error for c in each.clients] for each in strategy.rounds] == [
        [None, None, "its node was not there when the round began"],
        [None, None, None],
        ["its node was not there when the round began", None, None],
    ]
    assert [each.queries for each in strategy.rounds] == [2, 1, 0]


def test_a_second_node_of_a_client_is_left_out_of_a_run_under_way() -> None:
    grid = Nodes(4)
    taken = {client: node for node in grid._contexts for client in [grid.client(node)]}
    grid.away = {3}
    over = outside(grid)
    grid._contexts[taken[3]].node_config["partition-id"] = 0
    rounds = ask(over, PLAN, PLAN)
    assert [each.answered for each in rounds] == [3, 3]
    assert grid.asked.count(NODE_QUERY) == 4  # it is not asked again in the second round


def test_a_node_without_a_reply_is_missing_after_the_clients_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grid_backend, "ON_THE_WAY_S", 0.5)
    grid = Nodes()
    over = outside(grid)
    grid.mute = {1}
    started = time.monotonic()
    gone, back = ask(over, PLAN, PLAN, client_timeout_s=0.5)
    assert time.monotonic() - started < 60 < RuntimeSettings().timeout_s
    assert (gone.answered, gone.missing) == (back.answered, back.missing) == (2, 1)
    limit = "runtime.client_timeout_s and 0.5 s for the way"
    assert gone.clients[1].error == f"no reply within 1 s ({limit})"
    # simulated clients wait for one another: there the limit of one is not that of the round
    slow = plan(fake_task(do={"0": "slow"}, seconds=1.2))
    (round,) = ask(outside(Nodes(), deployed=False), slow, client_timeout_s=0.5)
    assert round.missing == 0


class Tampering(Nodes):
    """Between a node and the server somebody adds a record to what client 1 sends."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            if (
                reply.metadata.message_type == MessageType.TRAIN
                and self.client(reply.metadata.src_node_id) == 1
            ):
                reply.content["payload.learngene"] = array_record({"image": IMAGE})
        return replies


def test_a_reply_that_was_tampered_with_is_refused() -> None:
    (round,) = ask(outside(Tampering()), PLAN)
    assert [each.refused for each in round.clients] == [False, True, False]
    assert round.clients[1].methods == {}
    assert "ArrayRecord 'payload.learngene' was not declared" in str(round.clients[1].error)


def kept(over: OutsideGrid | None, cache: Path) -> Any:
    """``PLAN`` with the answers that were kept."""
    federation = Federation(RuntimeSettings("flwr"), CLIENTS, cache, outside=over)
    parts = {"device": federation.device()}
    return replace(PLAN, kept=AnswerCache(cache, parts, node_of=federation.node_of))


def reused(over: OutsideGrid | None, cache: Path) -> int:
    return ask(over, kept(over, cache))[0].kept


def test_an_answer_is_found_again_for_its_node_alone(tmp_path: Path) -> None:
    assert reused(None, tmp_path) == 0  # our own simulation keeps three
    assert reused(outside(Nodes(), deployed=False), tmp_path) == 3  # of the same shards
    grid = Nodes()
    assert reused(outside(grid), tmp_path) == 0  # no simulation's answer is a node's
    assert reused(outside(grid), tmp_path) == 3  # the server is started again
    assert reused(outside(Nodes()), tmp_path) == 0  # other nodes
    node = next(iter(grid._contexts))
    grid._contexts[node].node_config["data-root"] = str(tmp_path / "images")
    (tmp_path / "images").mkdir()
    assert [reused(outside(grid), tmp_path) for _ in range(2)] == [2, 3]
    (tmp_path / "images" / "new.png").write_bytes(b"x")
    assert [reused(outside(grid), tmp_path) for _ in range(2)] == [2, 3]


def test_a_node_that_changes_during_a_run_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Nodes(**{"data-root": str(tmp_path)})
    over = outside(grid)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert reused(over, tmp_path / "cache") == 0
    assert not (tmp_path / "cache").exists()


def test_a_line_for_each_reply_and_one_for_the_owner_of_a_node(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    fails = plan(fake_task(do={"1": "raise"}), reply=REPLY)
    strategy = LearngeneStrategy(CLIENTS, lambda _: [fails])
    runtime, told = RuntimeSettings("flwr"), hooked(on_note=notes.append)
    simulate(strategy, 1, runtime, CLIENTS, outside=outside(Nodes()), callback=told)
    assert sorted(notes) == [
        "client 0 has answered",
        "client 1 has failed",
        "client 2 has answered",
    ]

    grid = Nodes()  # as on a machine of its own: neither in the driver nor in a worker of Ray
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    grid._contexts = {k: c for k, c in grid._contexts.items() if grid.client(k) == 0}
    (context,) = grid._contexts.values()
    query = Message(RecordDict(), context.node_id, NODE_QUERY)
    with caplog.at_level("INFO", "flwr"):
        app(query, context)
        assert caplog.messages == []
        del context.node_config["in-driver"]
        app(query, context)
    (line,) = caplog.messages
    assert re.fullmatch(r"received \d+ bytes \(\), sends \d+ bytes \(node\)", line)


def test_the_state_of_a_node_tells_nothing_and_changes_with_its_images(tmp_path: Path) -> None:
    config = {"partition-id": 0, "data-root": str(tmp_path)}
    empty = node_state(config)
    (tmp_path / "melanoma").mkdir()
    (tmp_path / "melanoma" / "1.png").write_bytes(b"image")
    assert len({empty, node_state(config), node_state({**config, "seed": 1})}) == 3
    assert node_state(config) == node_state(dict(config)) and len(empty) == 16


def test_images_behind_linked_folders_are_in_the_state_of_a_node(tmp_path: Path) -> None:
    """Where images are read, links to folders of classes are followed."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root, elsewhere):
        folder.mkdir()
    (root / "melanoma").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)  # endless, if it were followed
    found = set()
    for content in (b"", b"image", b"another"):
        (elsewhere / "1.png").write_bytes(content)
        found.add(node_state({"data-root": str(root)}))
    assert len(found) == 3
