"""What the transfer profile says of layers: in results, for ``auto``, and beside the criterion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learngene.collective.control import with_random_layers
from learngene.collective.records import TaskRecord, TransferProfile
from learngene.collective.sampling import class_positions
from learngene.errors import InputError
from learngene.gene.settings import LearngeneSettings
from learngene.networks.projection import discriminant
from protocol.plan import bytes_by_depth
from server import factory
from server.factory import FactoryResult, train_or_load_gene
from server.layer_selection import criterion_section
from server.transfer import check_auto, choose_prefix, transfer_section
from tests.helpers import hooked, settings
from tests.server.test_layer_selection import config


@pytest.fixture(scope="module")
def make(tiny_dataset, tmp_path_factory) -> Callable[..., FactoryResult]:
    """A factory's result, of one cache."""
    cache: Path = tmp_path_factory.mktemp("transfer")

    def made(notes: list[str] | None = None, **changed: Any) -> FactoryResult:
        told = hooked() if notes is None else hooked(on_note=notes.append)
        return train_or_load_gene(config(cache, **changed), tiny_dataset, told)

    return made


def stage(task: int, rho: list[float], layers: list[str], **more: Any) -> TaskRecord:
    return TaskRecord(
        task=task, new_classes=[], known_classes=0, widened=[], parameters=0, accuracy=0.5,
        accuracy_by_task=[], rho=rho, image_passes=1, multiply_adds=1, seconds=0.0, layers=layers,
        **{"weight_change": [None] * len(layers), **more},
    )  # fmt: skip


def profile(*plain: float) -> TransferProfile:
    return TransferProfile(5, 10, list(plain), [share + 0.1 for share in plain])


def test_rows_are_brought_to_the_layers_of_the_end():
    stages = [
        stage(0, [0.9, 0.8], ["1", "2"]),
        stage(1, [0.7, 0.6, 0.5], ["1", "1b", "2"], transfer=profile(0.3, 0.4)),
        stage(2, [0.5, 0.4, 0.3], ["1", "1b", "2"]),  # a task without a profile
        stage(3, [0.3, 0.2, 0.1], ["1", "1b", "2"], transfer=profile(0.4, 0.5, 0.6)),
    ]
    section = transfer_section(stages)
    assert section["names"] == ["1", "1b", "2"]
    assert [(task["task"], task["plain"]) for task in section["tasks"]] == [
        (2, [0.3, None, 0.4]), (4, [0.4, 0.5, 0.6]),
    ]  # fmt: skip
    assert section["plain"] == [0.4, 0.5, 0.6]
    assert section["projected"] == pytest.approx([0.5, 0.6, 0.7])
    assert transfer_section(stages[:1]) is None


def test_the_criterion_is_held_against_it():
    """Four layers; the deeper, the smaller and steadier rho, the better, and the more they move."""
    names = ["1", "2", "3", "4"]
    rho = [[0.9] * 4, [0.9, 0.8, 0.7, 0.6], [0.9, 0.7, 0.5, 0.3], [0.7, 0.6, 0.44, 0.3]]
    change = [[None] * 4, *[[0.1, 0.2, 0.3, 0.4]] * 3]
    stages = [
        stage(n, row, names, weight_change=moved, transfer=profile(0.1, 0.2, 0.3, 0.4))
        for n, (row, moved) in enumerate(zip(rho, change, strict=True))
    ]
    section = criterion_section(stages, settings(), transfer_section(stages))
    assert section["selected"] == [3, 4] and section["weight_change"] == change
    assert section["correlation"] == pytest.approx(
        {"small rho": 1, "steady rho": 1, "trend of rho": 1, "small change of the weights": -1}
    )
    assert set(criterion_section(stages, settings(), None)["correlation"].values()) == {None}


SIZES = {depth: 1000 * depth for depth in range(1, 14)}


def choose(shares: list[float], **asked: Any) -> tuple[int, str]:
    """What is chosen of a profile whose first depths are worth ``shares``; the others fall."""
    worth = [*shares, *(0.01 * n for n in range(13 - len(shares), 0, -1))]
    transfer = {"plain": worth[::-1], "projected": worth}
    return choose_prefix(transfer, LearngeneSettings(**asked), SIZES)


def test_auto_takes_the_fewest_layers_that_are_enough():
    shares = [0.40, 0.55, 0.592, 0.601, 0.60]
    depth, why = choose(shares)
    assert depth == 3 and "layers 1 to 3 (59.2 % on unseen classes, 3,000 bytes)" in why
    assert "the fewest within 1 of the best, 60.1 % with layers 1 to 4" in why
    assert choose(shares, tolerance=0)[0] == 4
    assert choose(shares, tolerance=100)[0] == 1
    assert choose(shares, tolerance=0, projection="none")[0] == 10  # by the other row


def test_auto_takes_the_best_that_a_budget_allows():
    shares = [0.40, 0.55, 0.54, 0.60]
    assert choose(shares, bytes=3999)[0] == 2
    depth, why = choose(shares, bytes=4000)
    assert depth == 4 and why.endswith("the best within 4000 bytes")


@pytest.mark.parametrize(
    ("changed", "asked", "field"),
    [
        ({"classes_per_task": 16}, {}, "learngene.layers"),  # one task
        ({"classes_per_task": 1}, {}, "learngene.layers"),
        ({"memory_per_class": 0}, {}, "learngene.layers"),
        ({"memory_per_class": 1}, {}, "learngene.layers"),
        ({"memory": "lwf"}, {}, "learngene.layers"),
        ({}, {"bytes": 999}, "learngene.bytes"),
    ],
)
def test_auto_says_before_training_what_it_lacks(evolve, changed, asked, field):
    check_auto(evolve(), LearngeneSettings(bytes=1000), SIZES)
    with pytest.raises(InputError) as raised:
        check_auto(evolve(**changed), LearngeneSettings(**asked), SIZES)
    assert raised.value.field == field


def test_without_a_profile_there_is_no_choice():
    with pytest.raises(InputError, match="two classes with two images each"):
        choose_prefix(None, LearngeneSettings(), SIZES)


def test_auto_is_the_front_of_that_depth_in_the_bytes_that_it_says(make):
    notes: list[str] = []
    result = make(notes, learngene__layers="auto", learngene__precision="int8")
    card = result.gene.card
    depth = len(card.layers)
    assert card.layers == list(range(1, depth + 1)) and len(notes) == 1
    assert notes[0].startswith(f"learngene.layers=auto: layers 1 to {depth} (")
    assert f"{result.bytes_by_depth('int8')[depth]:,} bytes" in notes[0]
    assert make(learngene__depth=depth).gene.card.sha256 == card.sha256
    sections = result.sections()
    assert len(sections["transfer"]["projected"]) == 13 and len(sections["transfer"]["tasks"]) == 2
    assert len(sections["criterion"]["weight_change"]) == 3


def test_a_budget_that_nothing_fits_into_is_refused_before_training(make, monkeypatch):
    monkeypatch.setattr(factory, "train_collective", None)
    with pytest.raises(InputError, match=r"the smallest prefix takes [\d,]+ bytes in fp32"):
        make(learngene__layers="auto", learngene__bytes=100)


def test_a_control_is_of_layers_that_have_learned_nothing(make):
    ours = make()
    trainer = ours.trained.trainer
    control = make(learngene__control="random")
    assert control.trained.key == ours.trained.key  # one collective for both
    assert control.gene.card.layers == ours.gene.card.layers
    assert control.gene.card.shapes == ours.gene.card.shapes
    for name, array in ours.gene.arrays.items():
        same = np.array_equal(array, control.gene.arrays[name])
        assert same == (name.endswith("norm.bias") and not array.any()), name
    again = make(learngene__control="random")
    assert again.gene.card.sha256 == control.gene.card.sha256
    assert (control.gene.card.source["control"], "control" in ours.gene.card.source) == (
        "random", False,
    )  # fmt: skip
    assert control.sections()["learngene"]["control"] == "random"
    assert ours.sections()["learngene"]["control"] is None
    before = trainer.state()
    with_random_layers(trainer, [1, 2])
    assert all(torch.equal(a, b) for a, b in zip(before.values(), trainer.state().values(),
                                                 strict=True))  # fmt: skip


def test_a_control_of_the_papers_form(make):
    ours = make(learngene__layers="top", individual__stem="fresh")
    control = make(learngene__layers="top", individual__stem="fresh", learngene__control="random")
    assert control.gene.card.layers == ours.gene.card.layers == [11, 12, 13]
    assert control.gene.card.sha256 != ours.gene.card.sha256


def test_shallower_prefixes_join_with_projections_of_what_the_factory_holds(make):
    ours, alone = make(learngene__joined=[5, 2, 5]), make()
    gene, trainer = ours.gene, ours.trained.trainer
    assert gene.card.joined == [2, 5] and alone.gene.card.joined is None
    more = {name for name in gene.arrays if name not in alone.gene.arrays}
    assert more == {f"joined.{n}.{part}" for n in (2, 5) for part in ("mean", "matrix")}
    rows = trainer.held_rows()
    seen = trainer.prefix_features(np.concatenate(rows), 5, 2)
    due = discriminant(seen[4], class_positions(rows), 1.0)
    assert np.array_equal(gene.arrays["joined.5.matrix"], due.matrix.numpy())
    # A budget of bytes knows of them before anything is trained, as does the choice of a prefix.
    sizes, without = (bytes_by_depth(each.gene, "fp32") for each in (ours, alone))
    assert sizes[2] == without[2] and sizes[3] > without[3] and sizes[7] > without[7]
    least = make(learngene__joined=[2, 5], individual__bytes=sizes[3])
    assert least.gene.card.sha256 == gene.card.sha256
    with pytest.raises(InputError, match="the smallest prefix"):
        make(learngene__joined=[2, 5], individual__bytes=min(sizes.values()) - 1)
    chosen = make(learngene__joined=[2, 12], learngene__layers="auto").gene
    assert chosen.card.joined == [each for each in (2, 12) if each < chosen.inherited]
