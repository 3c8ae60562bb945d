"""Packed learngenes: what is lost, what is not, and that both sides hold the same."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save as save_tensors

from conf.schema import Config
from learngene.errors import InputError
from learngene.gene.gene import Learngene, at_precision, check, load, save
from learngene.gene.quantize import pack, unpack
from learngene.gene.settings import PRECISIONS
from learngene.utils.settings import limits_of
from tests.helpers import gene_of


@pytest.fixture(scope="module")
def gene(evolved) -> Learngene:
    return gene_of(evolved.collective)


def test_the_configuration_offers_them():
    assert dict(limits_of(Config))["learngene.precision"].choices == PRECISIONS
    assert dict(limits_of(Config))["payload_precision"].choices == PRECISIONS


def test_full_precision_is_handed_through(gene):
    assert at_precision(gene, "fp32") == (gene, gene.arrays)
    assert all(unpack(gene.arrays)[n] is a for n, a in gene.arrays.items())


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.5), ("int8", 0.25)])
def test_a_client_restores_what_the_card_names_bit_for_bit(gene, precision, share):
    sent, packed = at_precision(gene, precision)
    restored = unpack(packed)
    check(sent.card, restored, where="here")  # shapes and sha256
    assert all(np.array_equal(restored[n], sent.arrays[n]) for n in gene.arrays)
    assert sent.card.sha256 != gene.card.sha256
    weights = [n for n, a in gene.arrays.items() if a.ndim > 1]
    heavy = sum(packed[n].nbytes for n in weights) / sum(gene.arrays[n].nbytes for n in weights)
    assert heavy == pytest.approx(share)
    for name, array in gene.arrays.items():
        if array.ndim < 2:
            assert np.array_equal(restored[name], array)


def test_half_a_step_is_the_most_that_8_bits_lose(gene):
    packed = pack(gene.arrays, "int8")
    for name, array in unpack(packed).items():
        if array.ndim > 1:
            step = packed[name + ".scale"].reshape(-1, 1, 1, 1)
            assert (np.abs(array - gene.arrays[name]) <= 0.5001 * step).all()
            assert (np.abs(packed[name]).reshape(len(array), -1).max(1) == 127).all()


def test_a_channel_of_zeros_and_one_beyond_half_precision():
    zeros = {"w": np.zeros((2, 3), np.float32)}
    assert np.array_equal(unpack(pack(zeros, "int8"))["w"], zeros["w"])
    with pytest.raises(ValueError, match="w holds weights beyond"):
        pack({"w": np.full((1, 2), 1e6, np.float32)}, "fp16")


def test_a_file_of_8_bits_is_what_clients_are_sent(gene, tmp_path):
    path = save(gene, tmp_path, "int8")
    sent, _ = at_precision(gene, "int8")
    found = load(path)
    assert found.card == sent.card
    assert all(np.array_equal(found.arrays[n], array) for n, array in sent.arrays.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop("top.0.conv.weight.scale"), "top.0.conv.weight.scale"),
        (lambda held: held.pop("top.0.conv.weight"), "top.0.conv.weight"),
        (  # against an array of one channel it would take memory for each of its numbers
            lambda held: held.update({"top.0.conv.weight.scale": np.ones(99, np.float32)}),
            r"has shape \(99,\)",
        ),
        (
            lambda held: held.update(more=np.zeros(10**6, np.int8)),
            "holds more numbers than its card says",
        ),
        (lambda held: held["top.0.conv.weight.scale"].__imul__(2), "sha256"),
    ],
)
def test_a_file_of_8_bits_that_was_altered_is_refused(gene, tmp_path, change, said):
    path = save(gene, tmp_path, "int8")
    held = {name: np.array(array) for name, array in load_file(path).items()}
    change(held)
    path.write_bytes(save_tensors(held))
    with pytest.raises(InputError, match=said):
        load(path)
