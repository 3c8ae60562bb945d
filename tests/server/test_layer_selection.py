"""What is asked of ``learngene.layers`` is what clients get, and auto what rho says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conf.parts import factory_settings
from conf.schema import Config, read_config
from learngene.collective.records import TrainerSettings
from learngene.collective.trainer import CollectiveTrainer
from learngene.errors import InputError
from learngene.gene.gene import save
from learngene.gene.settings import LearngeneSettings
from server import factory
from server.factory import FactoryResult, FactorySettings, train_or_load_gene, trainer_settings
from server.layer_selection import layer_numbers
from server.saved_learngene import OTHER_WORLD
from tests.helpers import CPU, hooked, settings

NAMES = ["1", "2", "2b", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13"]


def config(cache: Path, **changed: Any) -> FactorySettings:
    """A configuration whose collective is that of ``tests.helpers.settings``."""
    made = asdict(Config())
    made["collective"] = asdict(settings().collective) | {"threads": 1, "device": "cpu"}
    made["open_world"]["calibration_per_class"] = 3
    made |= {"seed": 5, "cache": str(cache)}
    for name, value in changed.items():
        group, field = name.split("__")
        made[group][field] = value
    return factory_settings(read_config(made))


@pytest.fixture
def make(tiny_dataset, tmp_path) -> Callable[..., FactoryResult]:
    def made(notes: list[str] | None = None, **changed: Any) -> FactoryResult:
        told = hooked() if notes is None else hooked(on_note=notes.append)
        return train_or_load_gene(config(tmp_path, **changed), tiny_dataset, told)

    return made


@pytest.fixture
def lives(monkeypatch) -> list[TrainerSettings]:
    """The settings of every life that was asked for."""
    seen: list[TrainerSettings] = []
    real = factory.train_collective

    def spy(dataset, asked, *args, **kwargs):
        seen.append(asked)
        return real(dataset, asked, *args, **kwargs)

    monkeypatch.setattr(factory, "train_collective", spy)
    return seen


def test_layers_are_counted_at_the_end_of_growth():
    for asked, due in (
        ("front", [1, 2, 3, 4, 5]), ("top", [12, 13, 14]), (2, [13, 14]), ([5, 6], [5, 6]),
    ):  # fmt: skip
        assert layer_numbers(LearngeneSettings(layers=asked, depth=5), NAMES) == due
    with pytest.raises(InputError, match="ends with 14 layers"):
        layer_numbers(LearngeneSettings(layers=[14, 15]), NAMES)


def test_the_collective_does_not_hang_on_what_is_inherited(tmp_path):
    plain = trainer_settings(config(tmp_path), CPU)
    top = config(tmp_path, learngene__layers="top", individual__stem="fresh")
    assert trainer_settings(top, CPU) == plain
    assert plain.plan == () and plain.collective.growth == "schedule"


@pytest.mark.parametrize(
    ("asked", "has", "told"),
    [("bf16", False, True), ("bf16", True, False), ("fp32", False, False), ("auto", False, False)],
)
def test_a_number_format_that_is_only_emulated_is_told(make, monkeypatch, asked, has, told):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

    def reached(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(factory, "train_collective", reached)
    notes: list[str] = []
    with pytest.raises(NotImplementedError):
        make(notes, collective__precision=asked)
    assert notes == [factory.EMULATED] * told


def test_a_plan_is_its_content_not_its_name(tmp_path):
    one, two, other = (tmp_path / f"{name}.yaml" for name in "abc")
    one.write_text("- {task: 2, layer: 2, deepen: true}")
    two.write_text("# the same\n- task: 2\n  layer: 2\n  deepen: true\n")
    other.write_text("- {task: 3, layer: 2, deepen: true}")
    made = [
        trainer_settings(config(tmp_path, collective__growth=str(path)), CPU)
        for path in (one, two, other)
    ]
    assert made[0] == made[1] != made[2] and made[0].collective.growth == "plan"


@pytest.mark.parametrize(
    ("text", "words"),
    [("- {task: 2", "cannot be read as YAML"), ("", "at least one step"),
     ("- {task: 2, layer: 5, wide: 3}", "there is no key wide"), ("\0", "cannot be read")],
)  # fmt: skip
def test_a_file_that_is_no_plan(tmp_path, text, words):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as raised:
        trainer_settings(config(tmp_path, collective__growth=str(path)), CPU)
    assert raised.value.field == "collective.growth" and raised.value.value == str(path)


def test_a_file_that_went_away(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        trainer_settings(config(tmp_path, collective__growth=str(tmp_path / "no.yaml")), CPU)


def test_the_example_plan_is_legal(tiny_dataset):
    example = Path(__file__).resolve().parents[2] / "conf" / "growth" / "deepen.yaml"
    asked = trainer_settings(config(Path("unused"), collective__growth=str(example)), CPU)
    eight = replace(asked.collective, classes_per_task=2)
    trained = CollectiveTrainer(tiny_dataset, replace(asked, collective=eight), CPU)  # eight tasks
    for task in range(1, 8):
        trained.grow(task)
    assert [name for name in trained.collective.names if not name.isdigit()] == ["5b", "7b"]


def test_the_default_is_seven_layers_from_the_front_and_a_projection(make):
    card = make().gene.card
    assert (card.layers, card.stem, card.sides) == ([1, 2, 3, 4, 5, 6, 7], "none", [4] * 7)
    assert card.shapes["projection.7.matrix"] == [15, 16 * 16]  # sixteen base classes
    assert card.depths == card.layers  # each prefix has a projection of its own


def test_the_projections_shrinkage_is_the_settings(evolved, tmp_path):
    one, other = (
        factory._fit_projections(evolved, [7], config(tmp_path, learngene__shrinkage=share))[7]
        for share in (1.0, 9.0)
    )
    assert not torch.equal(one.matrix, other.matrix)


def test_a_budget_that_nothing_fits_into_is_refused_before_anything_is_trained(make, lives):
    sizes = make().bytes_by_depth("int8")
    lives.clear()
    asked = {"learngene__precision": "int8", "individual__bytes": sizes[1] - 1}
    with pytest.raises(InputError, match=f"Write individual.bytes={sizes[1]} or more"):
        make(**asked)  # told by the widths at the end of growth, and by the number of classes
    assert lives == []
    made = make(**asked | {"individual__bytes": [sizes[1], sizes[7]]})
    assert made.gene.card.depths == list(range(1, 8))


@pytest.mark.parametrize(
    ("changed", "rounds", "task"),
    [({"memory": "lwf"}, 1, 4), ({"memory_per_class": 0}, 1, 4), ({"classes_per_task": 1}, 16, 1)],
)
def test_one_class_is_not_projected_and_said_before_anything_is_trained(
    tiny_dataset, make, lives, tmp_path, changed, rounds, task
):
    asked = {"classes_per_task": 5} | changed  # 5, 5, 5 and 1
    asked = {f"collective__{name}": value for name, value in asked.items()}
    settings = replace(config(tmp_path, **asked), rounds=rounds)
    with pytest.raises(InputError, match=f"after task {task} there are images of one class"):
        train_or_load_gene(settings, tiny_dataset)
    assert lives == []
    if rounds == 1:
        assert make(**asked, learngene__projection="none").gene.card.layers == list(range(1, 8))


def test_a_saved_learngene_offers_its_prefixes_and_no_others(make, tmp_path):
    path = save(make().gene, tmp_path)
    made = make(learngene__path=str(path), individual__depth=[2, 7])
    assert made.sections()["learngene"]["bytes_by_depth"].keys() == set("1234567")
    with pytest.raises(InputError, match=r"individual.depth=8: .*the depths \[1, 2"):
        make(learngene__path=str(path), individual__depth=[2, 8])
    short = save(made.gene.prefix(2), tmp_path / "short")
    with pytest.raises(InputError, match=r"individual.depth=1: .*the depths \[2\]"):
        make(learngene__path=str(short), individual__depth=1)


def test_a_saved_learngene_of_another_world_is_told_and_one_that_knows_the_clients_refused(
    make, tiny_dataset, tmp_path
):
    gene, notes = make().gene, list[str]()
    make(notes, learngene__path=str(save(gene, tmp_path / "same")))
    assert OTHER_WORLD not in notes
    other = replace(gene.card, source=gene.card.source | {"world_sha256": "0" * 64})
    path = str(save(replace(gene, card=other), tmp_path / "other"))
    found = make(notes, learngene__path=path)
    assert OTHER_WORLD in notes
    assert found.sections()["learngene"]["world_sha256"] == "0" * 64
    cycled = make(open_world__cycles=1, open_world__images_to_add=2, open_world__accept=0.3).gene
    assert cycled.card.source["found_classes"] > 0
    path = str(save(cycled, tmp_path / "cycled"))
    make(learngene__path=path)
    asked = replace(config(tmp_path, learngene__path=path), classes_from="open_world")
    with pytest.raises(InputError, match=r"has learned open-world classes \(open_world.cycles\)"):
        train_or_load_gene(asked, tiny_dataset)


def test_classes_that_cycles_may_find_weigh_something_too(tiny_dataset, make, tmp_path):
    asked = {"open_world__cycles": 1, "open_world__images_to_add": 2, "open_world__accept": 0.3}
    made = make(**asked)
    settings = config(tmp_path, **asked)
    untrained = CollectiveTrainer(tiny_dataset, trainer_settings(settings, CPU), CPU)
    planned = factory._planned_gene(untrained, list(range(1, 8)), settings)
    most = factory.bytes_by_depth(planned, "fp32")
    assert all(size <= most[depth] for depth, size in made.bytes_by_depth("fp32").items())


def test_a_named_run_is_what_the_client_gets(make):
    result = make(learngene__layers=[5, 6, 7], individual__stem="fresh")
    assert result.gene.card.layers == [5, 6, 7] and result.gene.card.stem == "fresh"
    sections = result.sections()
    assert sections["learngene"]["layers"] == [5, 6, 7]
    assert len(sections["criterion"]["rule"]["layers"]) == 13
    assert (sections["criterion"]["form"], sections["criterion"]["sigma"]) == ("invariant", 1.0)


@pytest.mark.parametrize(
    ("form", "sigma", "found"),
    [("invariant", None, 1.0), ("paper", None, 1e-3), ("paper", 0.5, 0.5)],
)
def test_sigma_is_of_its_form(tmp_path, form, sigma, found):
    made = trainer_settings(config(tmp_path, learngene__rho=form, learngene__sigma=sigma), CPU)
    assert (made.rho, made.sigma) == (form, found)


def test_a_deepening_life_reports_its_lineage(make, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("- {task: 2, layer: 5, deepen: true}\n- {task: 3, layer: 5b, widen_by: 64}\n")
    result = make(collective__growth=str(path), learngene__layers="top", individual__stem="fresh")
    assert result.gene.card.layers == [12, 13, 14]
    sections = result.sections()
    criterion = sections["criterion"]
    assert criterion["names"][4:6] == ["5", "5b"] == sections["collective"]["layers"][4:6]
    assert criterion["rho"][0][5] is None and criterion["rho"][1][5] is not None
    assert {len(row) for row in criterion["rho"]} == {14}
    assert result.gene.card.rho == criterion["rho"]
    assert sections["collective"]["stages"][1]["grown"] == [{"layer": "5", "deepened": "5b"}]
    assert sections["collective"]["conv_widths"][4:6] == [8, 12]
    ours = result.gene.arrays["top.0.conv.weight"]
    theirs = result.trained.trainer.collective.units[11].conv.weight.detach()
    assert np.array_equal(ours, theirs.numpy()) and torch.isfinite(theirs).all()
