"""The learngene: what goes in comes out, and what is broken is refused with its own words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
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
    extract,
    inherited_modules,
    load,
    reconstruct,
    save,
)
from learngene.networks.collective import Collective
from learngene.networks.growth import deepen, widen
from learngene.networks.individual import Individual, stem_generator
from learngene.networks.layers import STEMS
from tests.helpers import rng, shake, torch_rng

SEED = 5  # of tests.helpers.settings


def gene_of(collective: Collective, layers: int | list[int] = 3) -> Learngene:
    front = collective.stem_kind == "none"
    return extract(
        collective,
        layers=[1, 2, 3] if front else layers,
        stem_seed=SEED,
        rho=[[0.5] * 13],
        source={"run": "x"},
        side=4 if front else None,
    )


@pytest.fixture
def gene(evolved) -> Learngene:
    return gene_of(evolved("separable").collective)


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


def light_features(collective: Collective, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return collective.eval().light.features(x, collective.top)


def individual_of(gene: Learngene, head: str = "prototype") -> Individual:
    return reconstruct(gene, ways=5, head=head, generator=torch_rng()).eval()


@pytest.mark.parametrize("stem", STEMS)
def test_saved_and_loaded_is_the_same(evolved, tmp_path, stem):
    gene = gene_of(evolved(stem).collective)
    again = load(save(gene, tmp_path))
    assert again.card == gene.card
    assert set(again.arrays) == set(gene.arrays)
    for name, array in gene.arrays.items():
        assert np.array_equal(again.arrays[name], array) and array.dtype == np.float32
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "learngene.json", "learngene.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("stem", ["separable", "whole"])
def test_the_individual_sees_what_the_light_path_saw(evolved, tmp_path, stem):
    collective = evolved(stem).collective
    found = individual_of(load(save(gene_of(collective), tmp_path)))
    x = torch.randn(4, 3, 32, 32, generator=torch_rng(1))
    with torch.no_grad():
        assert torch.allclose(found.features(x), light_features(collective, x), atol=1e-5)


@pytest.mark.parametrize("layers", range(1, 7))
@pytest.mark.parametrize("stem", ["separable", "whole"])
def test_every_number_of_layers(layers, stem):
    """Norms that are not neutral, widths that are all different."""
    widths = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
    collective = Collective(
        widths, 3, stem=stem, shared=layers, width=0.0625, generator=torch_rng()
    )
    shake(collective)
    gene = gene_of(collective, layers)
    assert gene.card.layers == list(range(14 - layers, 14))
    x = torch.randn(2, 3, 32, 32, generator=torch_rng(1))
    with torch.no_grad():
        found = individual_of(gene).features(x)
    assert torch.allclose(found, light_features(collective, x), atol=1e-5)


@pytest.mark.parametrize(
    "run", [[1, 2, 3], [6, 7, 8], [11, 12, 13], [5, 6], [8], [1, 2, 3, 4, 5, 6]]
)
@pytest.mark.parametrize("stem", ["separable", "whole", "seeded"])
@pytest.mark.parametrize("grown", [False, True])
def test_a_run_from_anywhere_sees_what_the_light_path_saw(stem, run, grown):
    """Front, middle and top (figure 6b), also when layers around the run were grown."""
    widths = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
    collective = Collective(
        widths, 3, stem=stem, shared=len(run), last=run[-1], width=0.0625, generator=torch_rng(),
        stem_generator=stem_generator(SEED) if stem == "seeded" else None,
    )  # fmt: skip
    if grown:
        before = max(run[0] - 1, 1)
        for layer in (run[0], run[-1], *([before] if stem != "seeded" else [])):
            collective = widen(collective, layer, 2 * widths[layer - 1], rng(layer), 0.01)
        if run[0] > 1:
            collective = deepen(collective, run[0] - 1, rng(), 0.01)
        if run[-1] < 13:
            collective = deepen(collective, len(collective.units), rng(), 0.01)
    shake(collective.light.norms if stem == "seeded" else collective)
    lower = int(grown and run[0] > 1)
    gene = gene_of(collective, [number + lower for number in run])
    assert gene.card.layers == collective.run == [number + lower for number in run]
    x = torch.randn(2, 3, 32, 32, generator=torch_rng(1))
    collective.to(memory_format=torch.channels_last)  # equal sums need an equal layout
    with torch.no_grad():
        found = individual_of(gene).to(memory_format=torch.channels_last).features(x)
    assert torch.equal(found, light_features(collective, x))


@pytest.mark.parametrize("layers", [[12, 14], [13, 14], [0, 1], [3, 2], [], 0, 14])
def test_layers_that_are_no_run_cannot_be_taken(evolved, layers):
    with pytest.raises(ValueError, match="no consecutive layers of a collective of 13"):
        gene_of(evolved("fresh").collective, layers)


def test_a_fresh_stem_brings_any_run(evolved):
    collective = evolved("fresh").collective
    gene = gene_of(collective, [4, 5])
    assert gene.card.layers == [4, 5]
    for ours, theirs in zip(individual_of(gene).top, collective.units[3:5], strict=True):
        assert torch.equal(ours.conv.weight, theirs.conv.weight)


def test_a_seeded_stem_travels_as_an_integer(evolved):
    collective = evolved("seeded").collective
    gene = gene_of(collective)
    assert gene.card.stem_seed == SEED and not any(n.startswith("stem") for n in gene.arrays)
    assert gene.card.bytes == gene.card.top_layers_bytes
    found, x = individual_of(gene), torch.randn(4, 3, 32, 32, generator=torch_rng(1))
    for ours, theirs in zip(found.stem, collective.light.stem, strict=True):
        assert torch.equal(ours.conv.weight, theirs.conv.weight)
        ours.norm.load_state_dict(theirs.norm.state_dict())  # statistics: measured by the client
    with torch.no_grad():
        assert torch.allclose(found.features(x), light_features(collective, x), atol=1e-5)


def test_another_integer_is_another_stem(evolved):
    gene = gene_of(evolved("seeded").collective)
    other = Learngene(replace(gene.card, stem_seed=SEED + 1), gene.arrays)
    one, two = individual_of(gene), individual_of(other)
    assert not torch.equal(one.stem[0].conv.weight, two.stem[0].conv.weight)
    assert torch.equal(one.top[0].conv.weight, two.top[0].conv.weight)


def test_a_fresh_stem_brings_the_collectives_own_top(evolved):
    collective = evolved("fresh").collective
    gene = gene_of(collective)
    assert gene.card.stem_seed is None and len(gene.arrays) == 3 * 5
    found = individual_of(gene)
    for ours, theirs in zip(found.top, collective.units[10:], strict=True):
        assert torch.equal(ours.conv.weight, theirs.conv.weight)
        assert torch.equal(ours.norm.running_var, theirs.norm.running_var)
    again = reconstruct(gene, ways=5, head="mlp", generator=torch_rng(9))
    assert not torch.equal(again.stem[0].conv.weight, found.stem[0].conv.weight)


def test_the_card_counts(gene):
    card = gene.card
    assert card.layers == [11, 12, 13] and card.stem == "separable" and card.channels == 3
    # three layers of 32 channels: 3x3 weights, weight, bias, mean and variance; four bytes each
    assert card.top_layers_bytes == 4 * 3 * (32 * 32 * 9 + 4 * 32)
    assert card.bytes == sum(a.nbytes for a in gene.arrays.values()) == 4 * card.parameters
    assert card.sha256 == digest(gene.arrays, asdict(card))
    assert not any("num_batches" in name for name in gene.arrays)


def test_what_travels_has_no_history(gene):
    card = gene.card.for_client()
    assert card["rho"] == [] and card["source"] == {}
    whole = asdict(gene.card)
    assert {**whole, **card, "rho": whole["rho"], "source": whole["source"]} == whole
    assert set(whole) - set(card) == {"pools", "side"}  # of a learngene without a stem
    check(Card(**json.loads(json.dumps(card))), gene.arrays, where="client 0")


def test_the_digest_sees_names_shapes_and_values():
    a = {"x": np.arange(6, dtype=np.float32)}
    others = [
        {"y": a["x"]},
        {"x": a["x"].reshape(2, 3)},
        {"x": np.nextafter(a["x"], np.float32(9))},
        {"x": a["x"], "y": a["x"]},
    ]
    built = {"layers": [13], "stem": "seeded", "stem_seed": 1, "width": 0.25, "channels": 3}
    assert len({digest(each, built) for each in [a, *others]}) == 5
    b = np.ones(2, np.float32)
    assert digest({"x": a["x"], "b": b}, built) == digest({"b": b, "x": a["x"]}, built)
    # a seeded stem is drawn from the card's integer: another one is another learngene
    assert digest(a, built) != digest(a, {**built, "stem_seed": 2})


def test_only_what_the_light_path_shares_can_be_taken(evolved):
    with pytest.raises(ValueError, match=r"shares layers \[11, 12, 13\], not \[12, 13\]"):
        gene_of(evolved("separable").collective, layers=2)


def test_retain_holds_the_inherited_parameters(gene):
    found = individual_of(gene)
    held = [p for module in inherited_modules(found) for p in module.parameters()]
    assert {id(p) for p in held} == {id(p) for p in found.top.parameters()} and len(held) == 9


# What is broken, and the words that say so.


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # the last bytes are numbers, the lowest bit of one keeps it finite
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_shape(path: Path) -> None:
    edit_card(path, lambda card: card["shapes"].update({"top.0.conv.weight": [32, 32, 9, 1]}))


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
    flip_byte: "the sha256 of card and arrays is not",
    cut: "not a learngene: ",
    lambda path: path.write_bytes(b""): "not a learngene: ",
    other_shape: r"top\.0\.conv\.weight has shape \[32, 32, 9, 1\], the network needs",
    missing_array: r"array top\.1\.norm\.bias is missing",
    without_a_layer: r"array top\.1\.conv\.weight is missing",
    extra_array: "array more has no place",
    not_a_number: r"array top\.2\.conv\.weight holds numbers that are not finite",
    lambda path: edit_card(path, lambda c: c.update(schema=99)): "card of schema 99",
    lambda path: edit_card(path, lambda c: c.update(stem="other")): "the card's stem is 'other': ",
    lambda path: edit_card(path, lambda c: c.update(layers=[])): r"the card's layers is \[\]: ",
    lambda path: edit_card(path, lambda c: c.update(sha256="0" * 64)): "that the card names",
    lambda path: edit_card(path, lambda c: c.update(width=0.0626)): "is not the one that the card",
    lambda path: edit_card(path, lambda c: c.update(stem_seed=7)): "its stem_seed 7",
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


@pytest.mark.parametrize(
    "name", ["top.1.norm.running_var", "stem.2.conv.weight", "stem.1.depth.0.weight"]
)
def test_an_array_that_the_individual_needs_cannot_be_left_out(saved, name):
    """A forged card: file and card agree, but the individual would keep random weights."""
    edit_arrays(saved, lambda arrays: arrays.pop(name), card_too=True)
    with pytest.raises(InputError, match=f"array {name} is missing"):
        individual_of(load(saved))


def test_an_array_that_does_not_fit_is_refused(saved):
    edit_card(saved, lambda card: card.update(width=0.25))
    edit_arrays(saved, lambda arrays: None, card_too=True)
    words = r"stem\.0\.conv\.weight has shape \[4, 3, 3, 3\], the network needs \[16, "
    with pytest.raises(InputError, match=words):
        individual_of(load(saved))


def test_an_array_without_a_place_is_refused(saved):
    edit_arrays(
        saved, lambda arrays: arrays.update({"top.9.x": np.zeros(1, np.float32)}), card_too=True
    )
    with pytest.raises(InputError, match=r"array top\.9\.x has no place"):
        individual_of(load(saved))
