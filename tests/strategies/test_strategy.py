"""The strategy against a hand-made grid: order, counting, deadlines, replies not to be trusted."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.common.serde import message_to_proto
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message

from clients.client_app import INFO, METRICS
from protocol.keys import NODE
from protocol.messages import counted, message_bytes, read_reply
from protocol.reply_schema import UndeclaredError
from reports.traffic import write_messages_csv
from runtime.serial_backend import SerialGrid, run_on
from server.server_app import Stopped, WatchedGrid, make_server_app
from strategies.learngene import LearngeneStrategy
from tests.helpers import hooked
from tests.runtime.fake_work import REPLY, app, fake_task, plan

PLAN = plan(fake_task(), {"learngene": {"w": np.zeros((10, 10), np.float32)}})


class LateGrid(SerialGrid):
    """Nodes register late, as they do with Ray."""

    def __init__(self, num_clients: int, delay_s: float) -> None:
        super().__init__(app, num_clients)
        self._ready = time.monotonic() + delay_s

    def get_node_ids(self) -> list[int]:
        nodes = list(super().get_node_ids())
        return nodes if time.monotonic() >= self._ready else nodes[:1]


def configure(strategy: LearngeneStrategy, grid: SerialGrid) -> list[Message]:
    return list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))


def test_waits_for_all_nodes():
    grid = LateGrid(4, delay_s=0.3)
    assert len(configure(LearngeneStrategy(4, lambda _: [PLAN]), grid)) == 4


def test_gives_up_on_nodes_that_do_not_come():
    strategy = LearngeneStrategy(4, lambda _: [PLAN])
    strategy.nodes.wait_s = 0.2
    with pytest.raises(RuntimeError, match=r"1 of 4 nodes registered in 0\.2 s"):
        configure(strategy, LateGrid(4, delay_s=60))


class Silent(SerialGrid):
    """One node never answers a query; ``claims`` makes others say that they are that client."""

    def __init__(self, num_clients: int, claims: int | None = None, times: int = 1) -> None:
        super().__init__(app, num_clients)
        self.claims, self.times = claims, times
        self.silent = min(self._contexts)  # asked first

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        for reply in replies:
            if self.claims is not None and reply.metadata.message_type == MessageType.QUERY:
                reply.content.config_records[NODE]["partition"] = self.claims
        first = [each for each in replies if each.metadata.src_node_id == self.silent]
        if first and first[0].metadata.message_type == MessageType.QUERY and self.times:
            self.times -= 1
            return []
        return replies


def test_a_client_that_does_not_say_who_it_is_is_missing_and_asked_again():
    strategy, grid = LearngeneStrategy(3, lambda _: [PLAN]), Silent(3)
    strategy.nodes.wait_s = 1.0
    strategy.aggregate_train(1, grid.send_and_receive(configure(strategy, grid)))
    assert len(configure(strategy, grid)) == 3
    strategy.finish_round()
    first, second = strategy.rounds
    lost = grid._contexts[grid.silent].node_config["partition-id"]
    assert (first.asked, first.answered, first.missing, first.queries) == (3, 2, 1, 2)
    assert first.clients[lost].error == "its node did not say who it is within 1 s"
    assert [each.client for each in first.clients] == [0, 1, 2]
    assert second.queries == 1 and second.who[0][0] == lost


def test_no_client_says_who_it_is():
    strategy = LearngeneStrategy(1, lambda _: [PLAN])
    strategy.nodes.wait_s = 1.0
    assert configure(strategy, Silent(1)) == []
    assert strategy.finish_round().clients[0].error == "its node did not say who it is within 1 s"


@pytest.mark.parametrize("claims", [1, 3])
def test_two_nodes_are_one_client_or_one_that_is_not_there(claims):
    strategy = LearngeneStrategy(3, lambda _: [PLAN])
    strategy.nodes.wait_s = 1.0
    with pytest.raises(RuntimeError, match=f"clients \\[{claims}.*each of 0 to 2 is due once"):
        configure(strategy, Silent(3, claims, times=0))


def test_order_of_arrival_does_not_matter():
    strategy = LearngeneStrategy(5, lambda _: [PLAN])
    grid = SerialGrid(app, 5)
    replies = list(grid.send_and_receive(configure(strategy, grid)))
    arrays, counts = strategy.aggregate_train(1, [replies[i] for i in (3, 0, 4, 2, 1)])
    assert arrays is None  # nothing is averaged
    assert dict(counts) == {"asked": 5, "answered": 5, "failed": 0, "missing": 0}
    (done,) = strategy.rounds
    assert [each.client for each in done.clients] == [0, 1, 2, 3, 4]
    assert [each.methods["scratch"]["steps"] for each in done.clients] == [
        [1, 1, client] for client in range(5)
    ]


def test_error_reply_and_no_reply_at_all():
    strategy = LearngeneStrategy(3, lambda _: [PLAN])
    grid = SerialGrid(app, 3)
    messages = configure(strategy, grid)
    grid.push_messages(messages)
    died = Message(Error(code=8, reason="<class 'X'>:<'worker\n died'>"), reply_to=messages[1])
    answered = next(iter(grid.pull_messages([messages[0].metadata.message_id])))
    strategy.aggregate_train(1, [died, answered])
    (done,) = strategy.rounds
    assert (done.asked, done.answered, done.failed, done.missing) == (3, 1, 1, 1)
    assert done.clients[1].error == "CLIENT_APP_CRASHED: <class 'X'>:<'worker died'>"
    # the runtime made that reply up, no client sent it
    assert done.clients[1].replied and done.clients[1].bytes_up == 0
    assert done.clients[2].error == "no reply before the run ended"


def test_a_second_reply_changes_nothing():
    strategy = LearngeneStrategy(1, lambda _: [PLAN])
    grid = SerialGrid(app, 1)
    messages = configure(strategy, grid)
    (reply,) = grid.send_and_receive(messages)
    first = strategy.receive(reply)
    again = Message(Error(code=0, reason="late"), reply_to=messages[0])
    assert strategy.receive(again) is first and first.error is None


def test_clients_are_sent_what_their_entry_says_and_counted_so():
    """Two plans, three entries, five clients; what the plans share is held once."""
    shared = {"w": np.zeros((300, 10), np.float32)}
    small, large = (
        plan(fake_task(("learngene", "scratch", "maml")), {"learngene": {"w": own}, "maml": shared})
        for own in (np.ones((2, 2), np.float32), np.ones((99, 9), np.float32))
    )
    strategy, grid = LearngeneStrategy(5, lambda _: [small, large, small]), SerialGrid(app, 5)
    messages = configure(strategy, grid)
    sent = [each.content.array_records for each in messages]
    assert [tuple(each["payload.learngene"]["w"].shape) for each in sent] == [
        (2, 2), (99, 9), (2, 2), (2, 2), (99, 9)
    ]  # fmt: skip
    assert len({id(each["payload.maml"]) for each in sent}) == 1
    strategy.aggregate_train(1, grid.send_and_receive(messages))
    (done,) = strategy.rounds
    down = [each.bytes_down for each in done.clients]
    assert down == [message_bytes(counted(each)) for each in messages] and len(set(down)) == 2
    received = [each.received[1].shape for each in done.clients]
    assert received == ["2x2", "99x9", "2x2", "2x2", "99x9"]
    by_method = [each.bytes_by_method for each in done.clients]
    gains = [each["learngene"].down - each["scratch"].down for each in by_method]
    assert gains[1] - gains[0] > 4 * (99 * 9 - 2 * 2) - 10 > 0
    # of three plans one is declared for each client: another's message is not let out to it
    nodes = {client: node for node, client in strategy.nodes.clients.items()}
    configure(strategy, grid)
    swapped = Message(messages[1].content, nodes[0], MessageType.TRAIN, group_id="1")
    with pytest.raises(UndeclaredError, match=r"'w' is float32 \[99, 9\]"):
        strategy.guarded(grid).push_messages([swapped])


def test_payload_of_an_unknown_method():
    stray = plan(fake_task(("scratch",)), PLAN.payloads)
    with pytest.raises(ValueError, match="payloads for \\['learngene'\\]"):
        configure(LearngeneStrategy(1, lambda _: [stray]), SerialGrid(app, 1))


def test_bytes_are_those_of_the_serialised_message():
    (message,) = configure(LearngeneStrategy(1, lambda _: [PLAN]), SerialGrid(app, 1))
    message.metadata.__dict__.update(
        _run_id=2**64 - 1, _src_node_id=2**64 - 1, _dst_node_id=2**64 - 1, _message_id="x" * 36
    )
    assert message_bytes(message) == len(message_to_proto(message).SerializeToString())


def reply_with(content: RecordDict) -> Message:
    (message,) = configure(LearngeneStrategy(1, lambda _: [PLAN]), SerialGrid(app, 1))
    return Message(content, reply_to=message)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (RecordDict(), "refused: info is missing"),
        (
            RecordDict({INFO: ConfigRecord({"client": 0, "json": "{", "errors": "{}"})}),
            "unreadable reply: JSONDecodeError",
        ),
        (
            RecordDict(
                {
                    INFO: ConfigRecord({"client": 0, "json": "{}", "errors": "{}"}),
                    METRICS + "scratch": MetricRecord(),
                }
            ),
            "scratch: no metrics in the reply",
        ),
    ],
)
def test_reply_that_makes_no_sense(content, error):
    answer = read_reply(reply_with(content), 0, ["scratch"], REPLY)
    assert answer.methods == {} and answer.errors[0].startswith(error)


def test_weight_of_what_protobuf_refuses_is_zero():
    strategy = LearngeneStrategy(1, lambda _: [PLAN])
    grid = SerialGrid(app, 1)
    (message,) = configure(strategy, grid)
    head = ConfigRecord({"client": 0, "json": "{}", "errors": "{}"})
    huge = MetricRecord({"accuracy": 2**70})
    content = RecordDict({INFO: head, METRICS + "learngene": huge, METRICS + "scratch": huge})
    outcome = strategy.receive(Message(content, reply_to=message))
    assert outcome.bytes_up == 0


def test_nodes_that_fail_alike_are_told_of_once():
    """Their errors stand in the results of every client that is missing for it."""
    grid = SerialGrid(app, 9)
    for number, context in enumerate(grid._contexts.values()):
        if number:
            del context.node_config["partition-id"]
    strategy = LearngeneStrategy(9, lambda _: [PLAN])
    configure(strategy, grid)
    outcome = strategy.finish_round()
    assert [each.error for each in outcome.clients[1:]] == [outcome.clients[8].error] * 8
    said = outcome.clients[8].error
    assert said.startswith("its node did not say who it is; 8 nodes said: ") and len(said) < 400


def test_watched_grid_stops_waiting():
    """A dead backend ends the wait at once, whatever the timeout."""

    class Deaf(SerialGrid):
        def pull_messages(self, message_ids):
            return []

    stop = threading.Event()
    grid = WatchedGrid(Deaf(app, 1), stop, lambda reply: None)
    strategy = LearngeneStrategy(1, lambda _: [PLAN])
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        configure(strategy, grid)
    assert time.monotonic() - started < 30


class Counting(SerialGrid):
    """Remembers how many messages were out after each push."""

    def __init__(self, num_clients: int) -> None:
        super().__init__(app, num_clients)
        self.out: list[int] = []

    def push_messages(self, messages):
        pushed = super().push_messages(messages)
        self.out.append(len(self._pending))
        return pushed


def watched(grid: SerialGrid, in_flight: int | None) -> list[Message]:
    grid = WatchedGrid(grid, threading.Event(), lambda reply: None, in_flight)
    return list(grid.send_and_receive(configure(LearngeneStrategy(7, lambda _: [PLAN]), grid)))


@pytest.mark.parametrize("in_flight", [1, 3, 7, 100])
def test_no_more_messages_are_out_than_allowed(in_flight):
    grid = Counting(7)
    replies = watched(grid, in_flight)
    questions, *work = grid.out  # which client a node is: no work, all at once
    assert questions == 7 and max(work) == min(in_flight, 7)
    assert len({reply.metadata.src_node_id for reply in replies}) == 7


def test_what_was_taken_in_is_not_held_until_the_round_is_over():
    strategy, seen = LearngeneStrategy(3, lambda _: [PLAN]), []

    def observe(reply: Message) -> None:
        held = len(reply.content)
        strategy.receive(reply)
        seen.append((held > 0, len(reply.content)))

    grid = WatchedGrid(SerialGrid(app, 3), threading.Event(), observe)
    replies = list(grid.send_and_receive(configure(strategy, grid)))
    assert seen[-3:] == [(True, 0)] * 3
    strategy.aggregate_train(1, replies)
    assert [each.error for each in strategy.rounds[0].clients] == [None] * 3


def test_a_pull_does_not_go_through_all_that_is_due():
    class Due(set):
        def __iter__(self):
            raise AssertionError("all ids were looked at")

    grid = SerialGrid(app, 5)
    due = Due(grid.push_messages(configure(LearngeneStrategy(5, lambda _: [PLAN]), grid)))
    assert [len(grid.pull_messages(due)) for _ in range(6)] == [1, 1, 1, 1, 1, 0]


def test_what_was_not_pulled_by_its_deadline_is_dropped():
    strategy, grid = LearngeneStrategy(3, lambda _: [PLAN]), SerialGrid(app, 3)
    messages = configure(strategy, grid)
    grid._timeout_s = 0.0
    grid.push_messages(messages)
    grid._timeout_s = 60.0
    assert set(grid.push_messages(messages[:1])) == set(grid._pending) == set(grid._deadlines)


def test_the_deadline_is_that_of_all_messages_also_of_those_not_sent_yet():
    class Slow(Counting):
        def pull_messages(self, message_ids):
            time.sleep(0.2)
            return super().pull_messages(message_ids)

    strategy, grid = LearngeneStrategy(7, lambda _: [PLAN]), Slow(7)
    messages = configure(strategy, grid)
    late: set[str] = set()
    limited = WatchedGrid(
        grid, threading.Event(), lambda reply: None, 2, on_push=strategy.pushed, late=late
    )
    replies = list(limited.send_and_receive(messages, timeout=0.5))
    assert 1 <= len(replies) < 7
    out = {each.metadata.message_id for each in messages if each.metadata.message_id}
    assert late == out - {each.metadata.reply_to_message_id for each in replies} and late
    strategy.aggregate_train(1, replies)
    sent = [each.bytes_down > 0 for each in strategy.rounds[0].clients]
    assert len(replies) <= sum(sent) <= len(replies) + 2 and sent == sorted(sent, reverse=True)
    assert {each.metadata.ttl for each in messages} == {max(each.metadata.ttl for each in messages)}


class Losing(SerialGrid):
    """Flower has no node of client 0 any more, and loses that of client 1 at work."""

    lost: Message | None = None

    def push_messages(self, messages):
        ids = dict(zip(super().push_messages(messages), messages, strict=True))
        for number, message in ids.items():
            client = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
            train = message.metadata.message_type == MessageType.TRAIN
            if train and client < 2:
                del self._pending[number]
            if train and client == 1:
                self.lost = create_message_error_unavailable_res_message(
                    message.metadata, "node_unavail"
                )
            yield None if train and client == 0 else number

    def pull_messages(self, message_ids):
        lost, self.lost = self.lost, None
        return [lost] if lost is not None else super().pull_messages(message_ids)


def test_what_was_never_sent_is_not_counted_and_a_lost_node_is_named(tmp_path):
    strategy, seen = LearngeneStrategy(3, lambda _: [PLAN]), []
    watch = hooked(on_reply=lambda client, ok: seen.append((client, ok)))
    make_server_app(strategy, 1, 30.0, watch)(Losing(app, 3), None)
    (done,) = strategy.rounds
    never, lost, good = done.clients
    assert (never.bytes_down, never.received, never.replied) == (0, (), False)
    assert {(each.down, each.up) for each in never.bytes_by_method.values()} == {(0, 0)}
    assert lost.bytes_down == good.bytes_down > 0 and lost.received == good.received
    assert seen == [(1, False), (2, True)] and not lost.replied and lost.bytes_up == 0
    assert "NODE_UNAVAILABLE: Error: Node Unavailable" in str(lost.error)
    listed = write_messages_csv(strategy.rounds, tmp_path / "messages.csv").read_text()
    assert "1,down,0," not in listed and "1,down,1," in listed


def test_the_guard_sees_all_messages_before_the_first_goes():
    """The last of three holds what was not declared; one may be out at a time."""

    class Leaking(LearngeneStrategy):
        def configure_train(self, *args):
            *good, last = super().configure_train(*args)
            last.content["more"] = ConfigRecord({"image": 1})
            return [*good, last]

    grid = Counting(3)
    server_app = make_server_app(Leaking(3, lambda _: [PLAN]), 1, 5.0, in_flight=1)
    server_app(grid, None)
    assert isinstance(server_app.error, UndeclaredError)
    assert grid.out == [3]  # the questions which client each node is


def test_what_one_client_may_be_sent_is_looked_at_again_for_another():
    plans = [
        plan(fake_task(), {"learngene": {"w": np.ones(shape, np.float32)}})
        for shape in ((2, 2), (9, 9))
    ]
    strategy, grid = LearngeneStrategy(2, lambda _: plans), SerialGrid(app, 2)
    _, large = configure(strategy, grid)
    nodes = {client: node for node, client in strategy.nodes.clients.items()}
    both = [
        Message(large.content, nodes[client], MessageType.TRAIN, group_id="1") for client in (1, 0)
    ]
    with pytest.raises(UndeclaredError, match=r"'w' is float32 \[9, 9\]"):
        strategy.guarded(grid).push_messages(both)


def test_server_app_keeps_the_error():
    def broken(server_round: int):
        raise KeyError("no such round")

    server_app = make_server_app(LearngeneStrategy(1, broken), 1, 5.0)
    run_on(SerialGrid(app, 1), server_app)
    assert isinstance(server_app.error, KeyError) and server_app.finished.is_set()


def test_rounds_count_from_one():
    asked: list[int] = []

    def prepare(server_round: int):
        asked.append(server_round)
        return [PLAN]

    strategy = LearngeneStrategy(2, prepare)
    run_on(SerialGrid(app, 2), make_server_app(strategy, 3, 5.0))
    assert asked == [1, 2, 3] == [each.round for each in strategy.rounds]
