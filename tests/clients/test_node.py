"""A real node: its own images, what it tells of them, which paths it opens, what it keeps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients import node as node_module
from clients import work
from clients.client_app import ERROR, INFO, PAYLOAD, TASK, app
from clients.node import IN_DRIVER, NodeSettings
from clients.work import run_task
from learngene.api import adapt_folder, name_files, predict, read_images
from learngene.errors import InputError
from learngene.gene.gene import Learngene, digest
from learngene.gene.kept import load_individual
from protocol.messages import read_reply
from protocol.reply_schema import reply_schema
from protocol.task import ClientTask, FaultOrders
from tests.clients.helpers import make_task
from tests.clients.pictures import draw_folders
from tests.helpers import DIVERGING, gene_of


@pytest.fixture(scope="module")
def gene(evolved) -> Learngene:
    made = gene_of(evolved.collective)
    return replace(made, card=replace(made.card, image_side=32))


@pytest.fixture
def task(tiny_dataset, gene) -> ClientTask:
    return replace(make_task(tiny_dataset, gene), methods=("learngene",), image_side=32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two nodes' images: other classes, other numbers."""
    root = tmp_path_factory.mktemp("nodes")
    draw_folders(root / "one", {"cat": 6, "dog": 4}, seed=1)
    draw_folders(root / "two", {"ash": 5, "elm": 8, "fir": 3, "oak": 9}, seed=2)
    return root


@pytest.fixture(autouse=True)
def real(monkeypatch):
    """No Ray that another test has left open makes these nodes simulated ones."""
    monkeypatch.setattr(
        node_module, "is_simulated", lambda config: bool(config.get(IN_DRIVER, False))
    )


def ask(task: ClientTask, gene: Learngene, client: int = 1, **config) -> Message:
    """What the node of this config replies."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    arrays = ArrayRecord({name: Array(array) for name, array in gene.arrays.items()})
    sent = {TASK: ConfigRecord({"json": task.to_json()}), PAYLOAD + "learngene": arrays}
    message = Message(RecordDict(sent), dst_node_id=9, message_type=MessageType.TRAIN, group_id="1")
    config = {"partition-id": client, **{k.replace("_", "-"): v for k, v in config.items()}}
    context = Context(1, 9, config, state=RecordDict(), run_config={})
    return app(message, context)


def reason(reply: Message) -> str:
    return str(reply.content.config_records[ERROR]["reason"])


def told(reply: Message) -> dict:
    return json.loads(str(reply.content.config_records[INFO]["json"]))


def test_nodes_of_unequal_folders_answer_and_tell_no_name(task, gene, folders, monkeypatch):
    monkeypatch.setattr(work, "load", lambda path: pytest.fail("the world was opened"))
    replies = [
        ask(replace(task, world="/etc"), gene, client, data_root=str(folders / name))
        for client, name in enumerate(("one", "two"))
    ]
    due = [
        {"own_classes": 2, "train_images": 8, "test_images": 2},
        {"own_classes": 4, "train_images": 19, "test_images": 6},
    ]
    for client, reply in enumerate(replies):
        assert due[client].items() <= told(reply).items()
        assert set(told(reply)) == {*due[client], "device", "node"}
        checked = read_reply(reply, client, task.methods, reply_schema(task))
        assert checked.errors == [] and checked.methods["learngene"]["epochs"] == [0, 1, 2]
        assert not any(name in str(reply.content) for name in ("cat", "elm", str(folders)))


def test_names_leave_where_the_node_says_so(task, gene, folders):
    reply = ask(task, gene, data_root=str(folders / "one"), class_names=True)
    assert told(reply)["class_names"] == "cat\ndog"
    assert read_reply(reply, 1, task.methods, reply_schema(task)).errors == []


def test_names_that_are_too_long_stay_and_the_answer_goes(task, gene, tmp_path, monkeypatch):
    notes: list[str] = []
    monkeypatch.setattr(work, "log", lambda level, said, *of: notes.append(said % of))
    draw_folders(tmp_path, {f"{letter} " * 110: 3 for letter in "abcde"}, seed=1)
    reply = ask(task, gene, data_root=str(tmp_path), class_names=True)
    assert "class_names" not in told(reply) and told(reply)["own_classes"] == 5
    assert read_reply(reply, 1, task.methods, reply_schema(task)).errors == []
    assert "the server is told none: class_names has 1,1" in notes[-1]


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"own_classes": 1}, "own_classes is 1"),
        ({"own_classes": True}, "own_classes is True"),
        ({"own_classes": 3, "class_names": "a\nb"}, "its own classes are 3"),
        ({"train_images": -4}, "train_images is -4"),
        ({"test_images": 2.5}, "test_images is 2.5"),
    ],
)
def test_what_a_tampered_node_says_of_its_images_is_refused(task, gene, folders, info, said):
    reply = ask(task, gene, data_root=str(folders / "one"))
    head = reply.content.config_records[INFO]
    reply.content[INFO] = ConfigRecord({**head, "json": json.dumps({**told(reply), **info})})
    checked = read_reply(reply, 1, task.methods, reply_schema(task))
    assert checked.methods == {} and said in checked.errors[0]


@pytest.mark.parametrize("path", ["/home/me/pictures", "../worlds/x", "worlds/../../etc"])
def test_a_server_that_names_a_path_is_refused(task, gene, path):
    said = reason(ask(replace(task, world=path), gene))
    assert "the server names a path, and a node opens none that a message names" in said


def test_a_real_node_looks_for_the_runs_dataset_in_its_own_cache(
    task, gene, tiny_dataset, tmp_path, monkeypatch
):
    monkeypatch.setenv("LEARNGENE_CACHE", str(tmp_path))
    assert "this node's own cache has no such dataset" in reason(ask(task, gene))
    own = str(tiny_dataset.path.parents[1])
    elsewhere = replace(task, world=f"/the/servers/worlds/{tiny_dataset.path.name}")
    reply = ask(elsewhere, gene, cache=own)
    assert len(told(reply)["classes"].split(",")) == task.ways
    simulated = ask(task, gene, **{IN_DRIVER: True})
    assert told(simulated) == told(reply)


def test_what_is_wrong_with_its_images_stays_in_the_nodes_log(task, gene, tmp_path, caplog):
    folder = draw_folders(tmp_path / "private", {"cancer": 3, "healthy": 3})
    (folder / "cancer" / "01.png").write_bytes(b"no image")
    said = reason(ask(task, gene, data_root=str(folder)))
    assert (
        said == "PrivateProblem: the node's own images cannot be used: the node's own log says why"
    )
    assert "cancer/01.png: this image does not decode" in caplog.text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"data_root": "x"}, "Write data-root"),
        ({"dataroot": "x"}, "Write data-root"),
        ({"Class-Names": True}, "Write class-names"),
        ({"data-root": 3}, "data_root is 3"),
        ({"class-names": "yes"}, "class_names is 'yes'"),
        ({"seed": -1}, "seed=-1"),
        ({"test-share": 1.5}, "test-share=1.5"),
        ({"keep": " "}, "a blank path"),
    ],
)
def test_a_node_config_that_is_mistyped_is_refused(config, said):
    with pytest.raises(InputError, match=said):
        NodeSettings.read(config)
    assert NodeSettings.read({"partition-id": 1, "dataset-of-another-app": "x"}).data_root is None


def test_a_run_over_the_servers_classes_has_no_place_for_a_nodes_own(task, gene, folders):
    labelled = {"labelled": {"draws": 1, "flags": {}}}
    plain = ClientTask.from_json(json.dumps(task.to_plain() | labelled))
    assert "the server's own classes" in reason(ask(plain, gene, data_root=str(folders / "one")))


def test_the_kept_individual_is_that_of_the_answer_and_of_adapt(task, gene, folders, tmp_path):
    """What a node keeps names its test images as it did when it answered; by hand the same."""
    node = NodeSettings(data_root=str(folders / "two"), seed=4, keep=str(tmp_path / "kept"))
    answer = run_task(3, 1, replace(task, seed=6), {"learngene": gene.arrays}, node)
    theirs = answer["methods"]["learngene"]
    kept = load_individual(tmp_path / "kept" / "individual.safetensors")
    card = kept.card
    assert (card.class_names, card.mirror) == (["ash", "elm", "fir", "oak"], True)
    assert (card.accuracy, card.learngene_sha256) == (theirs["accuracy"][-1], gene.card.sha256)

    own = work.read_own_images(node.data_root, side=32, seed=4)
    found = predict(kept.individual, own.images["test"], mirror=card.mirror)
    assert np.mean(found == own.labels["test"]) == theirs["accuracy"][-1]

    by_hand, outcome, _ = adapt_folder(
        gene, node.data_root, seed=6, client=3, split_seed=4, individual=task.individual
    )
    assert {**outcome.metrics(), "seconds": 0} == {**theirs, "seconds": 0}
    assert by_hand.card == card
    (file, name, probability) = next(name_files(kept, [folders / "two" / "elm" / "00.png"]))
    assert file.name == "00.png" and name in card.class_names and 0 < probability <= 1
    assert read_images(kept, [file]).shape == (1, 32, 32, 3)


def test_a_folder_that_a_message_names_is_written_to_in_a_simulation_alone(
    task, gene, folders, tmp_path
):
    asked = replace(task, keep=str(tmp_path / "named"))
    assert ERROR not in ask(asked, gene, data_root=str(folders / "one")).content
    assert not (tmp_path / "named").exists()
    assert ERROR not in ask(asked, gene, client=2, **{IN_DRIVER: True}).content
    assert load_individual(tmp_path / "named" / "client-0002.safetensors").card.mirror is False
    assert "keep" not in task.to_json()  # off, the message is what it was


def test_a_real_node_takes_no_order_to_fail(task, gene, folders, tmp_path, monkeypatch):
    """``kill_once`` would also write into a folder that the message names."""
    monkeypatch.setattr("clients.client_app.is_simulated", node_module.is_simulated)
    asked = replace(task, faults=FaultOrders(("1:raise",), str(tmp_path / "marks")))
    refused = reason(ask(asked, gene, data_root=str(folders / "one")))
    assert "a real node takes no order to fail" in refused
    simulated = ask(asked, gene, **{IN_DRIVER: True}).content.config_records[INFO]
    assert "PlantedFault" in str(simulated["errors"])


def test_a_client_that_fell_back_keeps_what_it_trained_from_scratch(task, gene, folders, tmp_path):
    poisoned = {name: np.zeros_like(array) for name, array in gene.arrays.items()}
    card = {**task.card, "sha256": digest(poisoned, task.card)}
    guarded = replace(task.individual, safeguard=True, safeguard_folds=2)
    node = NodeSettings(data_root=str(folders / "one"), keep=str(tmp_path))
    asked = replace(task, card=card, individual=guarded)
    answer = run_task(0, 1, asked, {"learngene": poisoned}, node)["methods"]["learngene"]
    kept = load_individual(tmp_path / "individual.safetensors").card
    assert answer["safeguard_fell_back"] == 1
    assert (kept.learngene_sha256, kept.inherited) == (None, 0)
    assert kept.accuracy == answer["accuracy"][-1]


def test_what_the_safeguard_tried_is_kept_for_no_other_method(task, gene, folders, tmp_path):
    guarded = replace(task.individual, safeguard=True, safeguard_folds=2)
    for name, methods in (("alone", ("learngene",)), ("both", ("learngene", "scratch"))):
        node = NodeSettings(data_root=str(folders / "two"), keep=str(tmp_path / name))
        asked = replace(task, individual=guarded, methods=methods)
        run_task(0, 1, asked, {"learngene": gene.arrays}, node)
    files = [tmp_path / name / "individual.safetensors" for name in ("alone", "both")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_individual_that_diverged_is_the_methods_error_and_not_kept(
    task, gene, folders, tmp_path
):
    node = NodeSettings(data_root=str(folders / "two"), keep=str(tmp_path))
    diverging = replace(task.individual, **DIVERGING)
    asked = replace(task, individual=diverging, methods=("learngene", "scratch"))
    answers = run_task(0, 1, asked, {"learngene": gene.arrays}, node)["methods"]
    assert answers["learngene"]["error"].startswith("ArithmeticError: the training is not finite")
    assert "accuracy" in answers["scratch"] and not list(tmp_path.iterdir())
