"""The factory halves kept: made once, a fault contained, a key that hangs on what counts."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conf.parts import pretraining_settings
from conf.schema import Config, read_config
from learngene import methods
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.augment import to_batch, views
from learngene.data.dataset import ImageDataset
from learngene.methods import Payload
from learngene.methods.plugins import describe
from protocol.plan import plan_round
from server import pretraining as factory_side
from server.factory import trainer_settings
from server.pretraining import PretrainingSettings, payload_key, pretrain_methods
from tests.helpers import CPU, hooked, method_settings, torch_rng
from tests.protocol.helpers import client_task
from tests.stand_ins.own_method import here, write_method

NO_LIFE: Any = SimpleNamespace(trained=None)


def config_of(cache: Path, *names: str, **changed: Any) -> PretrainingSettings:
    config = asdict(Config(cache=str(cache), method=method_settings()))
    config["methods"] = list(names)
    config |= {"budget": 100, "ways": 3}
    config["collective"] |= {"width": 0.0625, "device": "cpu", "threads": 1, "precision": "fp32"}
    config["open_world"]["calibration_per_class"] = 3
    for path, value in changed.items():
        *groups, field = path.split("__")
        section = config
        for group in groups:
            section = section[group]
        section[field] = value
    return pretraining_settings(read_config(config), config)


@pytest.fixture
def halves(monkeypatch) -> dict[str, int]:
    """Counts how often each method is trained; ``broken`` fails, ``slow`` keeps half-done work."""
    counts: dict[str, int] = {}

    def pretrain(factory):
        counts[factory.name] = counts.get(factory.name, 0) + 1
        if factory.name == "fomaml":
            raise ValueError("out of luck")
        start = 0 if factory.checkpoint is None else int(factory.checkpoint[1]["step"])
        for step in range(start, 3):
            factory.keep({"at": torch.tensor([float(step + 1)])}, {"phase": 0, "step": step + 1})
            if factory.name == "maml" and counts["maml"] == 1 and step == 1:
                raise KeyboardInterrupt
        weights = np.full((2, 2), factory.settings.lr, np.float32)
        return Payload({"w": weights}, {"from": start, "budget": factory.budget})

    real = methods.find

    def find(name, plugin=None):
        method = real(name, plugin)
        return method if method.pretrain is None else replace(method, pretrain=pretrain)

    monkeypatch.setattr(factory_side, "find", find)
    monkeypatch.setattr(factory_side, "max_workers", lambda threads, device: 1)  # in this process
    return counts


def test_runs_without_a_factory_half_are_left_as_they_were(
    tmp_path, tiny_dataset: ImageDataset, halves
):
    found = pretrain_methods(config_of(tmp_path, "learngene", "scratch"), tiny_dataset, NO_LIFE)
    assert (found.methods, found.payloads, found.section) == (["learngene", "scratch"], {}, None)
    assert not halves and not (tmp_path / "methods").exists()


def test_a_payload_is_made_once(tmp_path, tiny_dataset, halves):
    config = config_of(tmp_path, "protonet", "scratch")
    first = pretrain_methods(config, tiny_dataset, NO_LIFE)
    notes: list[str] = []
    again = pretrain_methods(config, tiny_dataset, NO_LIFE, hooked(on_note=notes.append))
    assert halves == {"protonet": 1}
    assert again.payloads["protonet"].card == first.payloads["protonet"].card
    assert np.array_equal(
        again.payloads["protonet"].arrays["w"], first.payloads["protonet"].arrays["w"]
    )
    assert not first.section["methods"]["protonet"]["cached"]
    assert again.section["methods"]["protonet"]["cached"] and "earlier run" in notes[0]
    pretrain_methods(
        replace(config, factory=replace(config.factory, resume=False)), tiny_dataset, NO_LIFE
    )
    assert halves == {"protonet": 2}


def test_a_damaged_payload_is_made_again(tmp_path, tiny_dataset, halves):
    config = config_of(tmp_path, "protonet")
    pretrain_methods(config, tiny_dataset, NO_LIFE)
    (file,) = (tmp_path / "methods").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    pretrain_methods(config, tiny_dataset, NO_LIFE)
    assert halves == {"protonet": 2}


def test_what_was_interrupted_goes_on_and_leaves_nothing_behind(tmp_path, tiny_dataset, halves):
    config = config_of(tmp_path, "maml")
    with pytest.raises(KeyboardInterrupt):
        pretrain_methods(config, tiny_dataset, NO_LIFE)
    found = pretrain_methods(config, tiny_dataset, NO_LIFE)
    assert found.payloads["maml"].card["from"] == 2
    files = sorted(path.name for path in (tmp_path / "methods").rglob("*.*"))
    assert files == ["maml.json", "maml.safetensors"]


def test_a_fault_is_named_and_takes_no_other_along(tmp_path, tiny_dataset, halves):
    config = config_of(tmp_path, "learngene", "fomaml", "protonet")
    found = pretrain_methods(config, tiny_dataset, NO_LIFE)
    assert found.methods == ["learngene", "protonet"]
    assert found.failed == {"fomaml": "ValueError: out of luck"} == found.section["failed"]
    assert set(found.section["methods"]) == {"protonet"} == set(found.payloads)
    with pytest.raises(RuntimeError, match="every method failed: fomaml: ValueError: out of luck"):
        pretrain_methods(replace(config, methods=("fomaml",)), tiny_dataset, NO_LIFE)


def test_the_key_hangs_on_what_determines_a_payload_and_on_nothing_else(tmp_path, tiny_dataset):
    def key(name: str = "maml", revision: int | None = None, **changed: Any) -> str:
        config, method = config_of(tmp_path, name, **changed), methods.find(name)
        made = factory_side._factory(name, config, tiny_dataset)
        known = method.revision if revision is None else revision
        return payload_key(made, config, replace(method, revision=known))

    plain = key()
    for same in (
        {"method__maml__client_steps": 3}, {"shots": 3}, {"shard_seed": 9}, {"num_clients": 2},
        {"method__protonet__lr": 0.5}, {"individual__lr": 0.5}, {"collective__epochs": 9},
    ):  # fmt: skip
        assert key(**same) == plain, same
    for other in (
        {"method__maml__lr": 0.5}, {"budget": 101}, {"seed": 1}, {"ways": 4},
        {"collective__width": 0.125}, {"collective__zoom": 0.5},
        {"open_world__calibration_per_class": 2},
    ):  # fmt: skip
        assert key(**other) != plain, other
    assert key("protonet", ways=4) == key("protonet")  # only the MAML family is made for its ways
    assert key("fomaml") != plain and key(revision=0) != plain  # its head was in bf16 once


def test_opponents_see_the_collectives_images_as_it_does_and_no_others(tmp_path, tiny_dataset):
    asked = config_of(tmp_path, "protonet", collective__zoom=0.5)
    images = factory_side._factory("protonet", asked, tiny_dataset).images
    ours = CollectiveTrainer(tiny_dataset, trainer_settings(asked.factory, CPU), CPU)
    for c, rows in zip(tiny_dataset.class_split.base, images.rows, strict=True):
        assert np.array_equal(rows, ours.train_rows[c])
    positions, draws = images.draw(np.arange(4), torch_rng())
    x = to_batch(tiny_dataset.train_images[images.rows[0][:4]])
    due = views(x, draws, flip=tiny_dataset.flip, side=None, zoom=0.5)
    assert torch.equal(images.batch(positions, draws), due)


def life_of(*stages: tuple[int, int]) -> Any:
    """A collective's life by image passes and multiply-adds of its tasks."""
    records = [SimpleNamespace(image_passes=p, multiply_adds=m) for p, m in stages]
    return SimpleNamespace(trained=SimpleNamespace(trainer=SimpleNamespace(stages=records)))


def test_the_budget_may_be_the_collectives_multiply_adds(tmp_path, tiny_dataset, halves):
    config = config_of(tmp_path, "protonet", "proto_maml", budget=None, budget_in="compute",
                       method__proto_maml__budget_factor=4.0)  # fmt: skip
    # Seven layers of 4, 8, 16, 32, 32, 32, 32 channels on maps of 32, 16, 8, 4, 4, 4, 4, three
    # times: forward, and the gradients of inputs and weights.
    layers = [(3, 4, 32), (4, 8, 16), (8, 16, 8), (16, 32, 4), *[(32, 32, 4)] * 3]
    a_pass = 3 * sum(9 * i * o * side**2 for i, o, side in layers)
    found = pretrain_methods(config, tiny_dataset, life_of((5, 30 * a_pass), (7, 12 * a_pass)))
    assert found.section["budget"] == 42 == found.payloads["protonet"].card["budget"]
    made = found.section["methods"]
    assert made["protonet"]["image_passes"] == 42
    assert made["protonet"]["multiply_adds"] == 42 * a_pass
    assert (
        made["proto_maml"]["image_passes"] == 4 * 42 == found.payloads["proto_maml"].card["budget"]
    )
    assert made["proto_maml"]["multiply_adds"] == 4 * 42 * a_pass


def test_both_rows_have_one_body_and_its_fault_is_both_rows(tmp_path, tiny_dataset, monkeypatch):
    trained: list[str] = []
    real = methods.find

    def find(name, plugin=None):
        method = real(name, plugin)

        def pretrain(factory):
            trained.append(factory.name)
            if factory.name == "protonet":
                raise ValueError("out of luck")
            return method.pretrain(factory)

        return replace(method, pretrain=pretrain) if method.pretrain else method

    monkeypatch.setattr(factory_side, "find", find)
    monkeypatch.setattr(factory_side, "max_workers", lambda threads, device: 1)
    names = ("finetune", "finetune+projection", "finetune_pp+projection", "protonet+projection")
    found = pretrain_methods(config_of(tmp_path, *names), tiny_dataset, NO_LIFE)
    assert trained == ["finetune", "finetune_pp", "protonet"]
    assert found.methods == list(names[:3]) == list(found.payloads)
    assert found.failed == {"protonet+projection": "ValueError: out of luck"}
    body, second = found.payloads["finetune"], found.payloads["finetune+projection"]
    name = next(iter(body.arrays))
    assert np.array_equal(second.arrays[f"body.{name}"], body.arrays[name])
    made = found.section["methods"]
    assert made["finetune"]["multiply_adds"] == made["finetune+projection"]["multiply_adds"] > 0
    sharper = config_of(tmp_path, *names[:2], learngene__shrinkage=9.0)
    again = pretrain_methods(sharper, tiny_dataset, NO_LIFE).payloads["finetune+projection"]
    matrix = "projection.matrix"
    assert trained == ["finetune", "finetune_pp", "protonet"]  # the body is kept
    assert not np.array_equal(again.arrays[matrix], second.arrays[matrix])


def test_the_budget_is_the_collectives_unless_it_is_given(tmp_path, tiny_dataset, halves):
    result = life_of((30, 0), (12, 0))
    for asked, spent in ((None, 42), (7, 7)):
        found = pretrain_methods(
            config_of(tmp_path, "protonet", budget=asked), tiny_dataset, result
        )
        assert found.payloads["protonet"].card["budget"] == found.section["budget"] == spent
        assert found.section["collective_passes"] == 42


def test_the_whole_collective_is_read_off(tmp_path, tiny_dataset, evolved):
    result: Any = SimpleNamespace(trained=SimpleNamespace(trainer=evolved))
    found = pretrain_methods(config_of(tmp_path, "full", "linear_probe"), tiny_dataset, result)
    collective = evolved.collective
    widths = [o for _, o, _ in found.payloads["full"].card["plan"]]
    assert widths == list(collective.widths)
    assert found.section["methods"]["full"]["image_passes"] is None
    spent = sum(stage.multiply_adds for stage in evolved.stages)
    assert found.section["methods"]["full"]["multiply_adds"] == spent > 0
    assert np.array_equal(
        found.payloads["linear_probe"].arrays["units.12.conv.weight"],
        collective.units[12].conv.weight.detach().numpy(),
    )


def test_messages_hold_what_is_asked_for_and_the_old_ones_are_as_they_were(
    tmp_path, tiny_dataset, halves
):
    from learngene.gene.gene import Card, Learngene

    card = Card([11, 12, 13], "fresh", 0.0625, 3, {}, 0, 0, 0, "")
    gene = Learngene(card, {"w": np.zeros(1, np.float32)})
    names = ("learngene", "scratch", "protonet")
    made = pretrain_methods(config_of(tmp_path, *names), tiny_dataset, NO_LIFE)
    task = client_task(methods=names, method=method_settings())
    (plain,) = plan_round(replace(task, methods=names[:2]), gene)
    assert "cards" not in plain.task.to_plain() and set(plain.task.method) == {"scratch"}
    assert set(plain.payloads) == {"learngene"}
    (more,) = plan_round(task, gene, 1, made.payloads)
    assert set(more.task.method) == {"scratch", "protonet"}
    assert more.task.cards == {"protonet": made.payloads["protonet"].card}
    assert set(more.payloads) == {"learngene", "protonet"}
    (packed,) = plan_round(task, gene, 1, made.payloads, payload_precision="fp16")
    assert packed.payloads["protonet"]["w"].dtype == np.float16
    assert packed.schema.payloads["protonet"] == {"w": ("float16", (2, 2))}
    assert packed.payloads["learngene"]["w"].dtype == np.float32  # it has a precision of its own
    (early,) = plan_round(task, gene, 1, made.payloads, rounds=2)
    assert set(early.payloads) == {"learngene"} and not early.task.cards


def test_side_by_side_and_one_by_one_make_the_same_payloads(tmp_path, tiny_dataset, monkeypatch):
    names, seen = ("finetune", "finetune_pp"), {}
    for at_once in (1, 2):
        monkeypatch.setattr(factory_side, "max_workers", lambda threads, device, n=at_once: n)
        config = config_of(tmp_path / str(at_once), *names, budget=700)
        steps: list[tuple[str, int, int]] = []
        found = pretrain_methods(
            config,
            tiny_dataset,
            NO_LIFE,
            hooked(on_method_step=lambda *told, all=steps: all.append(told)),
        )
        assert not found.failed
        assert list(found.payloads) == list(found.section["methods"]) == list(names)
        assert {name for name, *_ in steps} == set(names)
        seen[at_once] = found.payloads
    for name in names:
        one, other = seen[1][name], seen[2][name]
        assert one.card == other.card and one.arrays.keys() == other.arrays.keys()
        assert all(np.array_equal(a, other.arrays[n]) for n, a in one.arrays.items()), name


IN_PLACE = (
    "import torch; torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)\n"
    "    [p.detach().zero_() for p in getattr(given, 'parameters', list)()]\n"
    "    return Payload({'w': np.ones(3, np.float32)}, {})"
)
HALVES = {  # what a plugin's half at the factory does, and what is said of it
    "in_place": (IN_PLACE, None),
    "escapes": ("raise type('Own', (BaseException,), {})('gone')", "Own: gone"),
    "forgets": ("pass", "TypeError: it returned NoneType, a Payload is due"),
    "too_large": (
        "return Payload({'w': np.broadcast_to(np.float32(1), (3, 2**28))}, {})",
        "ValueError: the payload has 3,221,225,472 bytes of arrays, at most 1,073,741,824",
    ),
    "not_float32": ("return Payload({'w': np.zeros(3)}, {})", "w of the payload is float64"),
    "long_card": (
        "return Payload({}, {'text': 'x' * 20_000})",
        "ValueError: the payload's card has 20,012 characters of JSON",
    ),
}
IN_ITS_PROCESS = {
    "in_place_too": (IN_PLACE, None),
    "ends_it": ("import os; os._exit(7)", "its process ended with exit code 7"),
}


@pytest.mark.parametrize(
    ("half", "halves"), [("from_collective", HALVES), ("pretrain", IN_ITS_PROCESS)]
)
def test_a_plugins_half_is_named_and_takes_no_other_along(
    tmp_path, monkeypatch, tiny_dataset, evolved, half, halves
):
    here(monkeypatch, tmp_path)
    own, trainer = {}, evolved
    for name, (body, _) in halves.items():
        source = "import numpy as np\nfrom learngene.methods import Method, Payload\n\n\n"
        source += f"def half(given):\n    {body}\n\n\nMETHOD = Method(print, {half}=half)\n"
        write_method(tmp_path, name, source)
        own[name] = describe(name)
    monkeypatch.setattr(factory_side, "max_workers", lambda threads, device: 1)
    config = config_of(tmp_path, "full", "finetune", budget=60)
    life: Any = SimpleNamespace(trained=SimpleNamespace(trainer=trainer))
    before = {name: value.clone() for name, value in trainer.collective.state_dict().items()}
    alone = pretrain_methods(config, tiny_dataset, life).payloads
    elsewhere = replace(config.factory, cache=tmp_path / "other")
    config = replace(config, methods=(*own, *config.methods), plugins=own, factory=elsewhere)
    found = pretrain_methods(config, tiny_dataset, life)
    for name, (_, said) in halves.items():
        assert (name in found.payloads) == (said is None)
        assert said is None or said in found.failed[name]
    for name, payload in alone.items():
        beside = found.payloads[name]
        assert beside.card == payload.card
        assert all(np.array_equal(array, beside.arrays[n]) for n, array in payload.arrays.items())
    after = trainer.collective.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
