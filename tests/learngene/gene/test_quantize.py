"""Packed learngenes: what is lost, what is not, and that both sides hold the same."""

from __future__ import annotations

import numpy as np
import pytest

from conf.schema import Config
from learngene.gene.gene import Learngene, at_precision, check
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
