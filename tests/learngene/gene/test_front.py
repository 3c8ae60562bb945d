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
from learngene.gene.gene import Learngene, at_precision, check, extract, load, reconstruct, save
from learngene.gene.quantize import unpack
from learngene.gene.settings import PRECISIONS
from learngene.networks.collective import Collective
from learngene.networks.growth import deepen
from learngene.networks.layers import LAYERS
from learngene.networks.projection import Projection, discriminant
from tests.helpers import gene_of, rng, shake, torch_rng

DEPTH = 10  # of the file: deeper than an individual of seven layers


def made(block: str) -> Collective:
    widths = (4, 4, 6, 6, 8, 8, 8, 9, 9, 10, 8, 8, 8)
    return shake(Collective(widths, 7, width=0.0625, generator=torch_rng(), block=block)).eval()


@pytest.fixture(scope="module")
def collective() -> Collective:
    return made("plain")


def images(count: int = 40) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch_rng(3))


def gene_from(collective: Collective, *, projected: bool) -> Learngene:
    with torch.no_grad():
        seen = collective.prefix_features(images(), DEPTH)
    labels = torch.arange(40) % 7
    projections = [discriminant(features, labels, 1.0) for features in seen] * projected
    return gene_of(collective, range(1, DEPTH + 1), projections=projections)


@pytest.fixture(scope="module")
def gene(collective) -> Learngene:
    return gene_from(collective, projected=True)


@pytest.fixture(scope="module")
def plain(collective) -> Learngene:
    return gene_from(collective, projected=False)


def same(one: Learngene, other: Learngene) -> bool:
    equal = one.arrays.keys() == other.arrays.keys() and all(
        np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items()
    )
    return equal and one.card == other.card


def test_all_depths_are_seen_in_one_pass(collective):
    x = images(3)
    with torch.no_grad():
        seen = collective.prefix_features(x)
        for depth, features in enumerate(seen, start=1):
            for unit in collective.units[depth - 1 : depth]:
                x = unit(x)
            due = F.adaptive_avg_pool2d(x, collective.front_side(32, depth)).flatten(1)
            assert torch.equal(features, due)
    assert len(seen) == 13


@pytest.mark.parametrize("depth", range(1, DEPTH + 1))
@pytest.mark.parametrize("projected", [True, False])
def test_a_prefix_computes_what_the_collective_computes_at_that_depth(
    collective, gene, plain, tmp_path, depth, projected
):
    prefix = (gene if projected else plain).prefix(depth)
    assert read_card(asdict(prefix.card), where="here") == prefix.card
    individual = reconstruct(load(save(prefix, tmp_path)), ways=5).eval()
    assert len(individual.own) == max(0, LAYERS - depth)
    x = images(6)
    with torch.no_grad():
        due = collective.prefix_features(x, depth)[-1]
        if projected:
            mean, matrix = (
                torch.from_numpy(gene.arrays[f"projection.{depth}.{part}"])
                for part in ("mean", "matrix")
            )
            due = F.normalize(F.normalize(due) - mean) @ matrix.T
        assert torch.allclose(individual.features(x), due, atol=1e-5)
        individual.train()
        for part in individual.modules():  # as at a client: statistics stay
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eval()
        assert torch.allclose(individual.features(x), due, atol=1e-5)


@pytest.mark.parametrize("depth", [2, 4, 7, 10])
def test_of_residual_blocks_any_prefix_is_a_gene_as_well(tmp_path, depth):
    residual, x = made("residual"), images(6)
    gene = gene_from(residual, projected=False)
    prefix = load(save(gene.prefix(depth), tmp_path))
    assert prefix.card.block == prefix.card.for_client()["block"] == "residual"
    with torch.no_grad():
        due = residual.prefix_features(x, depth)[-1]
        assert torch.allclose(reconstruct(prefix, ways=5).eval().features(x), due, atol=1e-5)
    with pytest.raises(InputError, match="sha256"):  # the same arrays, computed with otherwise
        check(replace(prefix.card, block=None), prefix.arrays, where="here")
    with pytest.raises(InputError, match="block is"):
        read_card(asdict(prefix.card) | {"block": "dense"}, where="here")
    behind = extract(residual, layers=[11, 12, 13], rho=[], source={})  # a stem
    assert [unit.skips for unit in reconstruct(behind, ways=5).top] == [False, True, True]


@pytest.fixture(scope="module")
def joined(collective) -> Learngene:
    """The features of 3 and of 6 layers, of maps of 2 x 2, beside those of all."""
    with torch.no_grad():
        seen, coarse = (collective.prefix_features(images(), DEPTH, side) for side in (4, 2))
    labels = torch.arange(40) % 7
    return gene_of(
        collective,
        range(1, DEPTH + 1),
        projections=[discriminant(features, labels, 1.0) for features in seen],
        joined={n: discriminant(coarse[n - 1], labels, 1.0) for n in (6, 3)},
    )


def projection_of(gene: Learngene, name: str) -> Projection:
    projection = Projection(*reversed(gene.arrays[f"{name}.matrix"].shape))
    for part in ("mean", "matrix"):
        getattr(projection, part).copy_(torch.from_numpy(gene.arrays[f"{name}.{part}"]))
    return projection


@pytest.mark.parametrize(
    ("depth", "beside"), [(10, [3, 6]), (7, [3, 6]), (6, [3]), (4, [3]), (3, None), (1, None)]
)
def test_projected_features_of_several_depths_stand_side_by_side(
    collective, joined, tmp_path, depth, beside
):
    prefix = load(save(joined.prefix(depth), tmp_path))
    assert read_card(prefix.card.for_client(), where="here").joined == prefix.card.joined == beside
    names = {name for name in prefix.arrays if name.endswith("matrix")}
    own = f"projection.{depth}"
    assert names == {f"{own}.matrix", *(f"joined.{each}.matrix" for each in beside or [])}
    x = images(6)
    with torch.no_grad():
        seen, coarse = (collective.prefix_features(x, depth, side) for side in (4, 2))
        parts = [projection_of(joined, f"joined.{n}")(coarse[n - 1]) for n in beside or []]
        parts.append(projection_of(joined, own)(seen[-1]))
        due = torch.cat([F.normalize(part) for part in parts], 1)
        found = reconstruct(prefix, ways=5).eval().features(x)
        assert torch.allclose(found if beside else F.normalize(found), due, atol=1e-5)
        if depth == DEPTH:
            assert torch.equal(reconstruct(joined, ways=5).eval().features(x), found)
            assert prefix.card.sha256 != replace(joined.prefix(4)).card.sha256


def test_joined_parts_are_few_bytes_and_packed_as_all(joined, gene, tmp_path):
    more = joined.deepest.card.bytes - gene.deepest.card.bytes
    assert more == 4 * sum(a.size for n, a in joined.arrays.items() if n.startswith("joined."))
    held, _ = at_precision(joined.deepest, "int8")
    x = images(6)
    with torch.no_grad():
        exact, packed = (reconstruct(g, ways=2).eval().features(x) for g in (joined.deepest, held))
    assert F.cosine_similarity(exact, packed).min() > 0.99
    back = load(save(joined, tmp_path, "int8"))
    assert back.card.joined == [3, 6] and len(back.arrays) == len(joined.arrays)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ([6, 3], "no rising depths below 10"),
        ([3, 3], "no rising depths"),
        ([3, 10], "no rising depths"),
        ([3, 4], r"array joined\.4\.matrix is missing"),
        ([3], "array joined"),
        ([], "joined"),
        ([3.0, 6], "joined"),
        (None, "array joined"),
    ],
)
def test_a_card_joins_what_there_is(joined, said, problem):
    with pytest.raises(InputError, match=problem):
        read_card(asdict(joined.card) | {"joined": said}, where="here")


def test_what_has_no_projection_or_a_stem_joins_nothing(collective, plain):
    with pytest.raises(InputError, match="beside no projection"):
        read_card(asdict(plain.card) | {"joined": [3]}, where="here")
    behind = extract(collective, layers=[11, 12, 13], rho=[], source={})
    with pytest.raises(InputError, match="joined are of layers without a stem"):
        read_card(asdict(behind.card) | {"joined": [1]}, where="here")


def test_the_whole_gene_is_rebuilt_by_its_deepest_projection(gene):
    x = images(4)
    with torch.no_grad():
        whole, deepest = (
            reconstruct(each, ways=2).eval().features(x) for each in (gene, gene.deepest)
        )
    assert torch.equal(whole, deepest)


def test_a_prefix_has_its_own_layers_projection_sizes_and_sha256(gene):
    prefix = gene.prefix(4)
    assert prefix.card.layers == [1, 2, 3, 4] and prefix.card.pools == [2, 4]
    assert prefix.card.sides == gene.card.sides[:4] and prefix.card.depths == [4]
    projections = {name for name in prefix.arrays if name.startswith("projection")}
    assert projections == {"projection.4.mean", "projection.4.matrix"}
    assert prefix.card.bytes == sum(array.nbytes for array in prefix.arrays.values())
    assert (prefix.card.rho, prefix.card.source) == (gene.card.rho, gene.card.source)
    hashes = {gene.prefix(depth).card.sha256 for depth in gene.card.depths}
    assert len({gene.card.sha256, *hashes}) == DEPTH + 1
    check(prefix.card, prefix.arrays, where="here")
    with pytest.raises(InputError, match="sha256"):
        check(replace(prefix.card, sha256=gene.card.sha256), prefix.arrays, where="here")


def test_a_prefix_of_a_prefix_is_the_prefix(gene, plain):
    assert same(gene.prefix(5).prefix(5), gene.prefix(5))
    assert same(plain.prefix(8).prefix(3), plain.prefix(3))
    assert plain.card.depths == gene.card.depths == list(range(1, DEPTH + 1))


@pytest.mark.parametrize(("depth", "offered"), [(0, "1, 2"), (11, "9, 10")])
def test_a_depth_that_is_not_offered_is_refused(gene, depth, offered):
    with pytest.raises(InputError, match=rf"individual.depth={depth}: .*{offered}"):
        gene.prefix(depth)
    with pytest.raises(InputError, match=r"to the depths \[5\]"):
        gene.prefix(5).prefix(4)  # its projection stayed behind


def test_behind_a_stem_the_layers_stay_together(collective):
    run = extract(collective, layers=[4, 5, 6], rho=[], source={})
    assert run.card.depths == [3] and run.prefix(3) is run
    with pytest.raises(InputError, match=r"to the depths \[3\]"):
        run.prefix(2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_prefix_travels_in_every_precision(gene, precision):
    sent, packed = at_precision(gene.prefix(6), precision)
    check(sent.card, unpack(packed), where="here")
    if precision == "int8":  # one scale for every dimension that comes out of the matrix
        matrix = packed["projection.6.matrix"]
        assert matrix.dtype == np.int8 and matrix.shape[0] == 6
        assert packed["projection.6.matrix.scale"].shape == (6,)
        assert (np.abs(matrix).max(1) == 127).all()
        x = images(8)
        exact, rounded = (
            reconstruct(each, ways=2).eval().features(x) for each in (gene.prefix(6), sent)
        )
        assert F.cosine_similarity(exact, rounded).min() > 0.99


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pools": None}, "pools"),
        ({"pools": [11]}, "pools"),
        ({"layers": list(range(2, 12))}, "need a stem"),
        ({"stem": "fresh"}, "layers"),
        ({"sides": [4] * 9}, "sides are 9, its layers 10"),
        ({"sides": None}, "sides are 0"),
        ({"sides": [4] * 9 + [10**9]}, "sides"),
        ({"sides": [4] * 6 + [2] * 4}, r"array projection\.7\.matrix has shape"),
    ],
)
def test_a_forged_card_is_refused(gene, change, word):
    with pytest.raises(InputError, match=word):
        read_card(asdict(replace(gene.card, **change)), where="here")


def test_projections_are_checked_as_arrays_are(gene):
    broken = {**gene.arrays, "projection.3.matrix": gene.arrays["projection.3.matrix"] * np.nan}
    with pytest.raises(InputError, match=r"projection\.3\.matrix holds numbers that are not fin"):
        check(gene.card, broken, where="here")
    less = {n: s for n, s in gene.card.shapes.items() if not n.startswith("projection.10")}
    with pytest.raises(InputError, match=r"projection\.10\.matrix is missing"):
        read_card(asdict(sized(gene, less)), where="here")
    more = {**gene.card.shapes, "projection.11.matrix": [6, 9], "projection.11.mean": [9]}
    with pytest.raises(InputError, match=r"projection\.11\.matrix has no place"):
        read_card(asdict(sized(gene, more)), where="here")


def sized(gene: Learngene, shapes: dict[str, list[int]]):
    """The card with other shapes, and the counts that these make."""
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    return replace(gene.card, shapes=shapes, parameters=count, bytes=4 * count)


def test_maps_are_pooled_to_4_rows_where_they_are_as_large(collective):
    assert [collective.front_side(32, depth) for depth in (1, 4, 7, 10, 13)] == [4, 4, 4, 2, 1]
    assert collective.front_side(84, 7) == 4


def test_a_copy_keeps_the_place_of_the_pools(collective):
    deeper = deepen(collective, 2, rng()).eval()
    gene = gene_of(deeper, range(1, 6))
    assert gene.card.pools == [3, 5] and gene.prefix(4).card.pools == [3]
    x = images(3)
    with torch.no_grad():
        due = deeper.prefix_features(x, 5)[-1]
        assert torch.allclose(reconstruct(gene, ways=2).eval().features(x), due, atol=1e-5)


def test_behind_a_stem_the_card_says_nothing_of_it(collective):
    gene = gene_of(collective, [11, 12, 13], stem="fresh")
    assert not {"pools", "sides"} & set(gene.card.for_client())


def test_layers_that_do_not_begin_with_the_first_need_a_stem(collective):
    with pytest.raises(ValueError, match="need a stem"):
        extract(collective, layers=[2, 3], rho=[], source={}, image_side=32)


@pytest.mark.parametrize("size", [12, 130])  # fewer features than images, and more
def test_the_projection_is_the_generalised_eigenproblems(size):
    """Against scipy's solver of B w = l (S + s v I) w, on unequal classes."""
    generator, shrinkage = rng(1), 0.5
    labels = np.repeat(np.arange(5), [30, 12, 20, 9, 25])
    centres = generator.normal(size=(5, size))
    raw = np.abs(centres[labels] + generator.normal(size=(len(labels), size)))
    fitted = discriminant(torch.tensor(raw, dtype=torch.float32), torch.tensor(labels), shrinkage)
    assert fitted.matrix.shape == (4, size)

    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    z = unit - unit.mean(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    means = np.stack([z[labels == c].mean(0) for c in range(5)])
    within = np.mean([np.cov(z[labels == c].T, bias=True) for c in range(5)], axis=0)
    between = np.cov(means.T, bias=True)
    within += shrinkage * np.trace(within) / size * np.eye(size)
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


@pytest.mark.parametrize("images", [400, 30])  # more than features, and fewer
def test_dead_channels_take_no_dimension_and_leave_the_others_as_they_are(images):
    """Ten classes in five live channels of forty differ in five directions, not in nine."""
    labels = torch.arange(images) % 10
    generator = torch.Generator().manual_seed(3)
    live = torch.rand(10, 5, generator=generator)[labels]
    live = live + torch.rand(images, 5, generator=generator)
    fitted = discriminant(F.pad(live, (0, 35)), labels, 1.0)
    alone = discriminant(live, labels, 1 / 8)  # the mean variance is over 40 features in the other
    assert fitted.matrix.shape == (5, 40) and not fitted.matrix[:, 5:].any()
    rows = [F.normalize(each.matrix[:, :5]) for each in (fitted, alone)]
    assert torch.allclose((rows[0] * rows[1]).sum(1).abs(), torch.ones(5), atol=1e-3)
    assert (fitted.matrix.norm(dim=1) > 0.1).all()


@pytest.mark.parametrize("features", [torch.eye(4), torch.ones(4, 3)])
def test_one_image_a_class_or_one_for_all_fits_no_projection(features):
    with pytest.raises(ValueError, match="do not differ within any class"):
        discriminant(features, torch.arange(4), 1.0)
