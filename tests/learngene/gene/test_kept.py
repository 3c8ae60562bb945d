"""The kept individual's two files: read as they were written, and nothing else is read."""

from __future__ import annotations

import json
import os

import pytest
import torch

from learngene.errors import InputError
from learngene.gene.gene import reconstruct
from learngene.gene.kept import describe_individual, load_individual, save_individual
from learngene.networks.collective import Collective
from learngene.networks.individual import Individual
from learngene.networks.projection import Projection
from learngene.utils.checkpoint import write_checkpoint
from tests.helpers import gene_of, shake, torch_rng


def kept_of(individual):
    shake(individual)
    return describe_individual(
        individual.eval(), class_names=["a", "b", "ß"], image_side=32, mirror=True, moved=False,
        accuracy=0.5, images=(9, 6), learngene_sha256="0" * 64, value_range=(0.0, 4095.0),
    )  # fmt: skip


FRONT = {"pools": [2, 4, 7], "side": 4, "dimensions": None}
VARIANCES = "top.0.norm.running_var"
JOINED = {"depth": 2, "side": 2, "dimensions": 3}


@pytest.fixture
def path(evolved, tmp_path):
    kept = kept_of(reconstruct(gene_of(evolved.collective), ways=3))
    return save_individual(kept, tmp_path / "i.safetensors")


@pytest.mark.parametrize("form", ["front", "joined", "stem", "scratch", "mlp", "residual"])
def test_it_comes_back_as_it_was(evolved, tmp_path, form):
    if form == "scratch":
        made = Individual(ways=3, width=0.0625, head="prototype", generator=torch_rng())
    else:
        stem = {"layers": [5, 6], "stem": "fresh"} if form == "stem" else {}
        collective = evolved.collective
        if form == "residual":
            drawn, widths = torch_rng(2), collective.widths
            collective = Collective(widths, 7, width=0.0625, generator=drawn, block="residual")
        if form == "joined":
            stem = {
                "projections": [Projection(16 * width, 5) for width in collective.widths[:7]],
                "joined": {n: Projection(4 * collective.widths[n - 1], 3) for n in (1, 4)},
            }
        gene = gene_of(collective, **stem)
        made = reconstruct(gene, ways=3, head="mlp" if form == "mlp" else "prototype")
    kept = kept_of(made)
    read = load_individual(save_individual(kept, tmp_path / "i.safetensors"))
    assert read.card == kept.card and read.individual.form == made.form
    assert read.card.learngene_sha256 == (None if form == "scratch" else "0" * 64)
    x = torch.randn(4, 3, 32, 32, generator=torch_rng(1))
    with torch.no_grad():
        assert torch.equal(read.individual(x), made(x))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 1e9}, "width is"),
        ({"top_widths": [8192] * 40, "inherited": 40}, "bytes of arrays"),
        ({"top_widths": [64]}, "inherited layers have"),
        ({"inherited": 499}, "inherited layers have"),
        ({"front": {"pools": [], "side": 10**9, "dimensions": None}}, "front.side is"),
        ({"front": FRONT | {"joined": [JOINED]}}, "beside no projection"),
        ({"front": FRONT | {"dimensions": 3, "joined": [JOINED, JOINED]}}, "no rising depths"),
        ({"front": FRONT | {"dimensions": 3, "joined": [JOINED | {"depth": 7}]}}, "depths below 7"),
        ({"front": FRONT | {"joined": [JOINED | {"dimensions": 0}]}}, "dimensions is"),
        ({"front": FRONT | {"pools": [1, 2, 3, 4, 5, 6]}}, "6 pools, of side 32 none is left"),
        ({"class_names": ["a"]}, "class_names is"),
        ({"class_names": ["a", "b", "c", "d"]}, "has shape"),
        ({"centre": 0.0}, "centre is"),
        ({"channels": True}, "channels is True"),
        ({"schema": 2}, "schema is 2"),
        ({"more": 1}, "more is 1"),
    ],
)
def test_a_card_that_lies_is_refused_before_its_arrays_take_memory(path, changed, said):
    """Its sha256 is right: whoever forges a card can hash it, too."""
    read = load_individual(path)
    card = json.loads(path.with_suffix(".json").read_text())
    del card["sha256"]
    state = {k: v for k, v in read.individual.state_dict().items() if "num_batches" not in k}
    write_checkpoint(path.with_suffix(""), state, {**card, **changed})
    with pytest.raises(InputError, match=said):
        load_individual(path)


def test_files_that_are_not_what_was_written_are_refused(path, tmp_path):
    good = path.read_bytes()
    path.write_bytes(good[:-4] + b"\0\0\xc0\x7f")
    with pytest.raises(InputError, match="not what was written together"):
        load_individual(path)
    path.write_bytes(good + bytes(2 << 20))
    with pytest.raises(InputError, match="not what was written together"):
        load_individual(path)
    os.truncate(path, 10)
    with pytest.raises(InputError, match="not what was written together"):
        load_individual(path)
    path.with_suffix(".json").write_text('{"a": NaN}')
    with pytest.raises(InputError, match="NaN is not JSON"):
        load_individual(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match="no such file"):
        load_individual(path)
    with pytest.raises(InputError, match=r"a \.safetensors file"):
        save_individual(kept_of(Individual(ways=3, width=0.1, head="mlp", generator=torch_rng())),
                        tmp_path / "i.pt")  # fmt: skip


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    kept = kept_of(Individual(ways=3, width=0.1, head="mlp", generator=torch_rng()))
    next(kept.individual.parameters()).data[0] = torch.nan
    with pytest.raises(ArithmeticError, match="not finite"):
        save_individual(kept, tmp_path / "i.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state | {"head.scale": state["head.scale"].double()}, "finite float32"),
        (lambda state: state | {"head.scale": torch.tensor(torch.inf)}, "finite float32"),
        (lambda state: state | {VARIANCES: -state[VARIANCES]}, "holds variances below 0"),
        (lambda state: state | {"more": torch.zeros(1)}, "array more has no place"),
    ],
)
def test_arrays_of_another_kind_are_refused(path, change, said):
    card = json.loads(path.with_suffix(".json").read_text())
    del card["sha256"]
    individual = load_individual(path).individual
    state = {k: v for k, v in individual.state_dict().items() if "num_batches" not in k}
    write_checkpoint(path.with_suffix(""), change(state), card)
    with pytest.raises(InputError, match=said):
        load_individual(path)


def test_names_with_dots_are_files_of_their_own(path):
    first, kept = path.read_bytes(), load_individual(path)
    shake(kept.individual, 5)
    other = save_individual(kept, path.with_name("i.v2.safetensors"))
    assert other.is_file() and other.with_suffix(".json").is_file()
    assert path.read_bytes() == first != other.read_bytes()
    assert load_individual(other).card == load_individual(path).card
