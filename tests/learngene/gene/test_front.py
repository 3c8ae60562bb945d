"""The learngene as the collective's first layers: unchanged, projected, any prefix of them."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import eigh

from learngene.errors import InputError
from learngene.gene.card import read_card
from learngene.gene.gene import Learngene, check, extract, load, reconstruct, save
from learngene.gene.quantize import at_precision, unpack
from learngene.networks.collective import Collective
from learngene.networks.growth import deepen
from learngene.networks.layers import LAYERS
from learngene.networks.projection import Projection, discriminant
from tests.helpers import gene_of, rng, shake, torch_rng


@pytest.fixture(scope="module")
def collective() -> Collective:
    made = Collective(
        (4, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 8, 8),
        7,
        width=0.0625,
        generator=torch_rng(),
    )
    shake(made)
    return made.eval()


def images(count: int = 40, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch_rng(3))


def front_gene(collective: Collective, depth: int, *, projected: bool = True) -> Learngene:
    side = collective.front_side(32, depth)
    with torch.no_grad():
        features = collective.front_features(images(), depth, side)
    projection = discriminant(features, torch.arange(40) % 7, 1.0) if projected else None
    return gene_of(collective, range(1, depth + 1), projection=projection)


@pytest.mark.parametrize("depth", [1, 4, 7, 8, 13])
@pytest.mark.parametrize("projected", [True, False])
def test_an_untrained_individual_computes_what_was_inherited(collective, depth, projected):
    gene = front_gene(collective, depth, projected=projected)
    individual = reconstruct(gene, ways=5).eval()
    assert len(individual.own) == max(0, LAYERS - depth)
    assert not list(individual.stem)
    x = images(6)
    with torch.no_grad():
        due = collective.front_features(x, depth, gene.card.side)
        if projected:
            mean = torch.from_numpy(gene.arrays["projection.0.mean"])
            matrix = torch.from_numpy(gene.arrays["projection.0.matrix"])
            due = F.normalize(F.normalize(due) - mean) @ matrix.T
        assert torch.allclose(individual.features(x), due, atol=1e-5)
        individual.train()
        for part in individual.modules():  # as at a client: statistics stay
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eval()
        assert torch.allclose(individual.features(x), due, atol=1e-5)


def test_maps_are_pooled_to_4_rows_where_they_are_as_large(collective):
    assert [collective.front_side(32, depth) for depth in (1, 4, 7, 10, 13)] == [4, 4, 4, 2, 1]
    assert collective.front_side(84, 7) == 4


def test_a_copy_keeps_the_place_of_the_pools(collective):
    deeper = deepen(collective, 2, rng())
    gene = front_gene(deeper, 5)
    assert gene.card.pools == [3, 5]
    x = images(3)
    with torch.no_grad():
        due = deeper.eval().front_features(x, 5, gene.card.side)
        plain = reconstruct(front_gene(deeper, 5, projected=False), ways=2).eval()
        assert torch.allclose(plain.features(x), due, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_travels_and_is_kept_like_any_learngene(collective, tmp_path, precision):
    sent, packed = at_precision(front_gene(collective, 7), precision)
    assert "pools" in sent.card.for_client()
    check(sent.card, unpack(packed), where="here")
    assert load(save(sent, tmp_path)).card == sent.card
    if precision == "int8":
        assert packed["projection.0.matrix"].dtype == np.int8


def test_behind_a_stem_the_card_says_nothing_of_it(evolved):
    gene = gene_of(evolved.collective, [11, 12, 13], stem="fresh")
    assert not {"pools", "side"} & set(gene.card.for_client())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pools": None}, "pools"),
        ({"pools": [9]}, "pools"),
        ({"side": 0}, "side"),
        ({"side": 10**9}, "side"),
        ({"layers": [2, 3, 4, 5, 6, 7, 8]}, "need a stem"),
        ({"stem": "fresh"}, "layers"),
        ({"side": 2}, "projection.0"),
    ],
)
def test_a_forged_card_is_refused(collective, change, word):
    gene = front_gene(collective, 7)
    with pytest.raises(InputError, match=word):
        read_card(asdict(replace(gene.card, **change)), where="here")


def test_layers_that_do_not_begin_with_the_first_need_a_stem(collective):
    with pytest.raises(ValueError, match="need a stem"):
        extract(collective, layers=[2, 3], rho=[], source={}, side=4)


def test_the_projection_is_the_generalised_eigenproblems():
    """Against scipy's solver of B w = l (S + s v I) w, on unequal classes."""
    generator, shrinkage = rng(1), 0.5
    labels = np.repeat(np.arange(5), [30, 12, 20, 9, 25])
    centres = generator.normal(size=(5, 12))
    raw = np.abs(centres[labels] + generator.normal(size=(len(labels), 12)))
    fitted = discriminant(torch.tensor(raw, dtype=torch.float32), torch.tensor(labels), shrinkage)
    assert fitted.matrix.shape == (4, 12)

    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    z = unit - unit.mean(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    means = np.stack([z[labels == c].mean(0) for c in range(5)])
    within = np.mean([np.cov(z[labels == c].T, bias=True) for c in range(5)], axis=0)
    between = np.cov(means.T, bias=True)
    within += shrinkage * np.trace(within) / 12 * np.eye(12)
    vectors = eigh(between, within)[1][:, ::-1][:, :4]
    ours, due = fitted.matrix.numpy().T, vectors
    cosines = (ours * due).sum(0) / np.linalg.norm(ours, axis=0) / np.linalg.norm(due, axis=0)
    assert np.abs(cosines) == pytest.approx(1, abs=1e-4)
    # All rows on one scale, S-orthonormal up to it: distances behind it are Mahalanobis'.
    gram = ours.T @ within @ ours
    assert gram / gram[0, 0] == pytest.approx(np.eye(4), abs=1e-3)


def test_a_projection_finds_what_noise_hides():
    """Two classes apart in one weak direction among loud ones: class means, before and after."""
    generator = rng(2)
    labels = torch.arange(400) % 2
    raw = torch.tensor(generator.normal(size=(400, 20)) * 3, dtype=torch.float32)
    raw[:, 0] = raw[:, 0] / 10 + labels.float()

    def right(features: torch.Tensor) -> float:
        centred = F.normalize(features - features.mean(0))
        means = torch.stack([centred[:40][labels[:40] == c].mean(0) for c in (0, 1)])
        said = (centred @ F.normalize(means).T).argmax(1)
        return float((said == labels)[40:].float().mean())

    projection: Projection = discriminant(raw, labels, 0.01)
    assert right(projection(raw)) > 0.9 > right(F.normalize(raw))
