"""The learngene: what goes in comes out, and what is broken is refused with its own words."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from learngene.errors import InputError
from learngene.gene.gene import (
    Card,
    Learngene,
    check,
    digest,
    inherited_modules,
    load,
    reconstruct,
    save,
)
from learngene.networks.collective import Collective
from learngene.networks.growth import deepen, widen
from learngene.networks.individual import Individual
from learngene.networks.layers import STEMS
from learngene.networks.projection import Projection
from tests.helpers import gene_of, rng, shake, torch_rng

TOP = (11, 12, 13)


@pytest.fixture
def gene(evolved) -> Learngene:
    """Seven layers, each with a projection of its 4x4 maps."""
    widths = evolved.collective.widths[:7]
    projections = [shake_projection(Projection(width * 16, 5)) for width in widths]
    return gene_of(evolved.collective, projections=projections)


def shake_projection(projection: Projection) -> Projection:
    for name, number in (("mean", 1), ("matrix", 2)):
        buffer = getattr(projection, name)
        buffer.copy_(torch.randn(buffer.shape, generator=torch_rng(number)))
    return projection


@pytest.fixture
def saved(gene, tmp_path) -> Path:
    return save(gene, tmp_path)


def edit_card(path: Path, change: Callable[[dict], None]) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    change(card)
    path.with_suffix(".json").write_text(json.dumps(card))


def edit_arrays(path: Path, change: Callable[[dict], None], *, card_too: bool = False) -> None:
    """Change the arrays; with ``card_too`` the card is forged to agree."""
    arrays = {name: array.copy() for name, array in load_tensors(path.read_bytes()).items()}
    change(arrays)
    path.write_bytes(save_tensors(arrays))
    if card_too:
        said = {
            "shapes": {name: list(array.shape) for name, array in arrays.items()},
            "parameters": sum(array.size for array in arrays.values()),
            "bytes": sum(array.nbytes for array in arrays.values()),
            "top_layers_bytes": sum(a.nbytes for n, a in arrays.items() if n.startswith("top.")),
        }
        edit_card(path, lambda card: card.update(**said, sha256=digest(arrays, card)))


def run_features(collective: Collective, layers: list[int], x: torch.Tensor) -> torch.Tensor:
    """What a run of the collective's layers makes of (B, C, H, W), not pooled."""
    with torch.no_grad():
        for number in layers:
            x = collective.eval().units[number - 1](x)
    return x


def individual_of(gene: Learngene, head: str = "prototype") -> Individual:
    return reconstruct(gene, ways=5, head=head, generator=torch_rng()).eval()


def test_a_learngene_stays_as_it_was_while_the_collective_learns_on(evolved):
    """``rounds=2`` takes one in mid-sequence."""
    collective = deepcopy(evolved.collective)
    gene = gene_of(collective, range(1, 8))
    before = {name: array.copy() for name, array in gene.arrays.items()}
    with torch.no_grad():
        for value in collective.state_dict().values():
            value += 1
    assert all(np.array_equal(array, before[name]) for name, array in gene.arrays.items())


@pytest.mark.parametrize("stem", STEMS)
def test_saved_and_loaded_is_the_same(evolved, tmp_path, stem):
    gene = gene_of(evolved.collective, TOP if stem == "fresh" else range(1, 4), stem=stem)
    again = load(save(gene, tmp_path))
    assert again.card == gene.card
    assert set(again.arrays) == set(gene.arrays)
    for name, array in gene.arrays.items():
        assert np.array_equal(again.arrays[name], array) and array.dtype == np.float32
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "learngene.json", "learngene.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "run", [[1, 2, 3], [6, 7, 8], [11, 12, 13], [5, 6], [8], [1, 2, 3, 4, 5, 6]]
)
@pytest.mark.parametrize("grown", [False, True])
def test_a_run_from_anywhere_is_taken_unchanged(run, grown):
    """Front, middle and top (figure 6b), also when layers around the run were grown."""
    widths = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
    collective = Collective(widths, 3, width=0.0625, generator=torch_rng())
    lower = int(grown and run[0] > 1)
    if grown:
        for layer in (run[0], run[-1], max(run[0] - 1, 1)):
            collective = widen(collective, layer, 2 * widths[layer - 1], rng(layer))
        if run[0] > 1:
            collective = deepen(collective, run[0] - 1, rng(), 0.01)
        if run[-1] < 13:
            collective = deepen(collective, len(collective.units), rng(), 0.01)
    shake(collective)
    layers = [number + lower for number in run]
    gene = gene_of(collective, layers, stem="fresh")
    assert gene.card.layers == layers
    individual = individual_of(gene)
    for network in (individual, collective):  # equal sums need an equal layout
        network.to(memory_format=torch.channels_last)
    channels = collective.units[layers[0] - 1].conv.in_channels
    assert len(individual.stem) == 7 - len(run)
    assert individual.stem[-1].conv.out_channels == channels
    for unit, number in zip(individual.top, layers, strict=True):
        unit.pool = collective.units[number - 1].pool  # the individual has its own
    x = torch.rand(2, channels, 16, 16, generator=torch_rng(1))
    due = run_features(collective, layers, x)
    with torch.no_grad():
        for unit in individual.top:
            x = unit(x)
    assert torch.equal(x, due)


@pytest.mark.parametrize("layers", [[12, 14], [13, 14], [0, 1], [3, 2], []])
def test_layers_that_are_no_run_cannot_be_taken(evolved, layers):
    with pytest.raises(ValueError, match="no consecutive layers of a collective of 13"):
        gene_of(evolved.collective, layers, stem="fresh")


def test_a_fresh_stem_brings_the_collectives_own_top(evolved):
    collective = evolved.collective
    gene = gene_of(collective, TOP, stem="fresh")
    assert gene.card.stem == "fresh" and len(gene.arrays) == 3 * 5
    found = individual_of(gene)
    for ours, theirs in zip(found.top, collective.units[10:], strict=True):
        assert torch.equal(ours.conv.weight, theirs.conv.weight)
        assert torch.equal(ours.norm.running_var, theirs.norm.running_var)
    again = reconstruct(gene, ways=5, head="mlp", generator=torch_rng(9))
    assert not torch.equal(again.stem[0].conv.weight, found.stem[0].conv.weight)


def test_the_card_counts(gene):
    card = gene.card
    assert card.layers == list(range(1, 8)) and card.stem == "none" and card.channels == 3
    # 3x3 weights, weight, bias, mean and variance of each layer; four bytes each
    widths = (3, 4, 4, 8, 8, 16, 16, 16)
    convolutions = sum(9 * a * b for a, b in pairwise(widths))
    assert card.top_layers_bytes == 4 * (convolutions + 4 * sum(widths[1:]))
    # mean and matrix of each projection
    assert card.bytes - card.top_layers_bytes == 4 * sum(16 * 6 * width for width in widths[1:])
    assert card.bytes == sum(a.nbytes for a in gene.arrays.values()) == 4 * card.parameters
    assert card.sha256 == digest(gene.arrays, asdict(card))
    assert not any("num_batches" in name for name in gene.arrays)


def test_what_travels_has_no_history(gene):
    card = gene.card.for_client()
    assert card["rho"] == [] and card["source"] == {}
    whole = asdict(gene.card)
    assert {**whole, **card, "rho": whole["rho"], "source": whole["source"]} == whole
    check(Card(**json.loads(json.dumps(card))), gene.arrays, where="client 0")


def test_the_digest_sees_names_shapes_and_values():
    a = {"x": np.arange(6, dtype=np.float32)}
    others = [
        {"y": a["x"]},
        {"x": a["x"].reshape(2, 3)},
        {"x": np.nextafter(a["x"], np.float32(9))},
        {"x": a["x"], "y": a["x"]},
    ]
    built = {"layers": [13], "stem": "fresh", "width": 0.25, "channels": 3}
    assert len({digest(each, built) for each in [a, *others]}) == 5
    b = np.ones(2, np.float32)
    assert digest({"x": a["x"], "b": b}, built) == digest({"b": b, "x": a["x"]}, built)
    assert digest(a, built) != digest(a, {**built, "pools": [1]})


def test_retain_holds_the_inherited_parameters(gene):
    found = individual_of(gene)
    held = [p for module in inherited_modules(found) for p in module.parameters()]
    assert {id(p) for p in held} == {id(p) for p in found.top.parameters()} and len(held) == 21


# What is broken, and the words that say so.


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # the last bytes are numbers, the lowest bit of one keeps it finite
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_shape(path: Path) -> None:
    edit_card(path, lambda card: card["shapes"].update({"top.6.conv.weight": [16, 16, 9, 1]}))


def missing_array(path: Path) -> None:
    edit_arrays(path, lambda arrays: arrays.pop("top.1.norm.bias"))


def extra_array(path: Path) -> None:
    edit_arrays(path, lambda arrays: arrays.update(more=np.zeros(2, np.float32)))


def not_a_number(path: Path) -> None:
    edit_arrays(path, lambda arrays: arrays["top.2.conv.weight"].fill(np.nan), card_too=True)


def without_a_layer(path: Path) -> None:
    edit_arrays(path, lambda arrays: arrays.pop("top.1.conv.weight"), card_too=True)


BROKEN: dict[Callable[[Path], object], str] = {
    Path.unlink: r"learngene\.safetensors does not exist",
    lambda path: path.with_suffix(".json").unlink(): r"learngene\.json does not exist",
    lambda path: (path.unlink(), path.mkdir()): "a folder. Name the learngene.safetensors of a",
    flip_byte: "the sha256 of card and arrays is not",
    cut: "not a learngene: ",
    lambda path: path.write_bytes(b""): "not a learngene: ",
    other_shape: r"top\.6\.conv\.weight has shape \[16, 16, 9, 1\], the network needs",
    missing_array: r"array top\.1\.norm\.bias is missing",
    without_a_layer: r"array top\.1\.conv\.weight is missing",
    extra_array: "array more has no place",
    not_a_number: r"array top\.2\.conv\.weight holds numbers that are not finite",
    lambda path: edit_card(path, lambda c: c.update(schema=99)): "card of schema 99",
    lambda path: edit_card(path, lambda c: c.update(stem="other")): "the card's stem is 'other': ",
    lambda path: edit_card(path, lambda c: c.update(layers=[])): r"the card's layers is \[\]: ",
    lambda path: edit_card(path, lambda c: c.update(sha256="0" * 64)): "that the card names",
    lambda path: edit_card(path, lambda c: c.update(width=0.0626)): "is not the one that the card",
    lambda path: edit_card(path, lambda c: c.update(sides=None)): "sides are 0, its layers 7",
    lambda path: edit_card(path, lambda c: c.pop("width")): "the card's width is missing",
    lambda path: edit_card(path, lambda c: c.update(new=1)): "the card's new is 1: Unexpected",
    lambda path: edit_card(path, lambda c: c.update(layers=3)): "the card's layers is 3: ",
    lambda path: edit_card(path, lambda c: c.update(shapes=None)): "the card's shapes is None: ",
    lambda path: path.with_suffix(".json").write_text("{"): "not a learngene: ",
    lambda path: path.with_suffix(".json").write_text("[]"): "not a learngene: ",
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "words"), BROKEN.items())
def test_what_is_broken_is_refused_with_its_own_words(saved, break_it, words):
    break_it(saved)
    with pytest.raises(InputError, match=words) as caught:
        load(saved)
    assert str(caught.value).startswith(f"learngene.path={saved}: ")


@pytest.mark.parametrize("name", ["top.1.norm.running_var", "projection.7.mean"])
def test_an_array_that_the_individual_needs_cannot_be_left_out(saved, name):
    """A forged card: file and card agree, but the individual would keep random weights."""
    edit_arrays(saved, lambda arrays: arrays.pop(name), card_too=True)
    with pytest.raises(InputError, match=f"array {name} is missing"):
        individual_of(load(saved))


def test_an_array_that_does_not_fit_is_refused(saved):
    edit_card(saved, lambda card: card.update(sides=[4] * 6 + [2]))
    edit_arrays(saved, lambda arrays: None, card_too=True)
    words = r"projection\.7\.matrix has shape \[5, 256\], the network needs \[5, 64\]"
    with pytest.raises(InputError, match=words):
        individual_of(load(saved))


def test_an_array_without_a_place_is_refused(saved):
    edit_arrays(
        saved, lambda arrays: arrays.update({"top.9.x": np.zeros(1, np.float32)}), card_too=True
    )
    with pytest.raises(InputError, match=r"array top\.9\.x has no place"):
        individual_of(load(saved))
