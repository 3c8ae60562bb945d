"""Files that somebody else may have written: refused in words, before anything is allocated."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from learngene.errors import InputError
from learngene.gene.card import ARRAYS_LIMIT, CARD_LIMIT, Card, read_card
from learngene.gene.gene import BUILT, Learngene, digest, extract, load, save
from learngene.networks.collective import Collective
from learngene.networks.projection import Projection
from learngene.utils.untrusted import JSON_DEPTH, map_npy, parse_json, read_limited
from tests.helpers import torch_rng

QUICK = settings(derandomize=True, deadline=None, max_examples=150)
POSITIONS = 150  # of a file's bytes that are tried


def small() -> Learngene:
    """A learngene of a few kilobytes."""
    made = Collective((4,) * 13, 3, width=0.0625, generator=torch_rng())
    rho: list[list[float | None]] = [[0.5] * 13, [None] * 13]
    projections = [Projection(64, 3), Projection(64, 3)]
    return extract(
        made, layers=[1, 2], rho=rho, source={"run": "x"}, image_side=8, projections=projections
    )


GENE = small()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(GENE, tmp_path)


def positions(size: int) -> Iterator[int]:
    """Evenly over the file, its first and last bytes all among them."""
    tried = {*range(min(24, size)), *range(max(0, size - 8), size)}
    yield from sorted(tried | set(range(0, size, max(1, size // POSITIONS))))


def refused_or_equal(path: Path) -> bool:
    """Whether it is refused with our own error; if not, it must be the learngene itself."""
    try:
        found = load(path)
    except InputError as error:
        assert str(error).startswith("learngene.path=") and len(str(error)) < 1000
        return True
    assert {name: getattr(found.card, name) for name in BUILT} == {
        name: getattr(GENE.card, name) for name in BUILT
    }
    assert set(found.arrays) == set(GENE.arrays)
    assert all(np.array_equal(found.arrays[name], GENE.arrays[name]) for name in GENE.arrays)
    return False


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_bit_flips_anywhere(saved: Path, suffix: str) -> None:
    path = saved.with_suffix(suffix)
    whole, refused = path.read_bytes(), 0
    for at in positions(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        path.write_bytes(bytes(data))
        refused += refused_or_equal(saved)
    assert refused > POSITIONS / 3  # in JSON, history and white space may change unseen


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_truncations_anywhere(saved: Path, suffix: str) -> None:
    path = saved.with_suffix(suffix)
    whole = path.read_bytes()
    for length in positions(len(whole)):
        path.write_bytes(whole[:length])
        assert refused_or_equal(saved) or length == len(whole) - 1  # the last line's end
    path.write_bytes(whole + b"x")
    assert refused_or_equal(saved)


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_as_card_or_arrays(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = save(GENE, tmp_path_factory.getbasetemp() / "any-bytes")
    path.with_suffix(".json").write_bytes(data)
    assert refused_or_equal(path)
    save(GENE, path.parent)
    path.write_bytes(data)
    assert refused_or_equal(path)
    path.write_bytes(len(data).to_bytes(8, "little") + data)  # a header's length in front
    assert refused_or_equal(path)


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([2**63, -1, 10**30, 10**400, 1e308, math.nan, math.inf, "11", [11, 12]]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip


@QUICK
@given(st.sampled_from(sorted(asdict(GENE.card))), odd)
def test_cards_with_odd_values(field: str, value: Any) -> None:
    raw = asdict(GENE.card) | {field: value}
    try:
        card = read_card(raw, "here")
    except InputError as error:
        assert error.field == "learngene.path" and len(str(error)) < 500
        return
    assert isinstance(card, Card) and asdict(card) == raw
    json.dumps({name: raw[name] for name in raw if name != "source"}, allow_nan=False)


def test_a_number_of_a_thousand_digits_is_not_told_whole() -> None:
    with pytest.raises(InputError, match="this release reads 2") as raised:
        read_card(asdict(GENE.card) | {"schema": 10**1000}, "here")
    assert len(str(raised.value)) < 500


@QUICK
@given(st.sampled_from(sorted(GENE.card.shapes)), odd)
def test_cards_with_odd_shapes(name: str, value: Any) -> None:
    if value == GENE.card.shapes[name]:
        return
    shapes = GENE.card.shapes | {name: value}
    with pytest.raises(InputError):
        read_card(asdict(GENE.card) | {"shapes": shapes}, "here")


def with_counts(shapes: dict[str, list[int]]) -> dict[str, Any]:
    """A card's fields that agree with ``shapes``."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    top = sum(size for name, size in sizes.items() if name.startswith("top."))
    total = sum(sizes.values())
    return {"shapes": shapes, "parameters": total, "bytes": 4 * total, "top_layers_bytes": 4 * top}


CONV = "top.0.conv.weight"
ABSURD: dict[str, dict[str, Any]] = {
    "width": {"width": 1e9},
    "not a width": {"width": math.nan},
    "channels": {"channels": 10**12},
    "layers": {"layers": list(range(1, 10**6))},
    "a layer": {"layers": [10**30, 10**30 + 1]},
    "no layers": {"layers": []},
    "a side": {"sides": [4, 10**400]},
    "a field nobody asked for": {"stem_seed": 3},
    "a list for a stem": {"stem": ["fresh"]},
    "elements": with_counts({**GENE.card.shapes, CONV: [10**6, 10**6, 3, 3]}),
    "channels of a layer": with_counts({**GENE.card.shapes, CONV: [9000, 3, 3, 3]}),
    "nothing": with_counts({**GENE.card.shapes, CONV: [0, 3, 3, 3]}),
    "below nothing": with_counts({**GENE.card.shapes, CONV: [-4, -4, 3, 3]}),
    "no kernel": with_counts({**GENE.card.shapes, CONV: [4, 4]}),
    "other layers": with_counts({**GENE.card.shapes, CONV: [4, 5, 3, 3]}),
    "a stranger": with_counts({**GENE.card.shapes, "../../etc/passwd": [1]}),
    "many strangers": with_counts({f"top.{i}.conv.weight": [4, 4, 3, 3] for i in range(2000)}),
    "bytes": {"bytes": ARRAYS_LIMIT * 100},
    "no parameters": {"parameters": "all"},
}


@pytest.mark.parametrize("name", ABSURD)
def test_forged_cards_are_refused_before_the_arrays_are_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Their digests are right; what they ask for would take the memory of any machine."""
    card = asdict(GENE.card) | ABSURD[name]
    card["sha256"] = digest(GENE.arrays, card)
    saved.with_suffix(".json").write_text(json.dumps(card))

    def fail(*_: object) -> None:
        raise AssertionError("the arrays were read")

    monkeypatch.setattr("learngene.gene.gene.load_tensors", fail)
    monkeypatch.setattr("learngene.gene.gene.read_limited", fail)
    assert refused_or_equal(saved)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("float64", "float32 is due"), ("float16", "sha256"), ("int32", "float32 is due")],
)
def test_other_number_formats_are_refused(saved: Path, kind: str, said: str) -> None:
    saved.write_bytes(save_tensors({name: a.astype(kind) for name, a in GENE.arrays.items()}))
    with pytest.raises(InputError, match=said):  # 16 bits may be: but the card is of 32
        load(saved)


def test_a_format_that_numpy_does_not_have(saved: Path) -> None:
    header = json.dumps({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    saved.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    assert refused_or_equal(saved)


def test_negative_variances_are_refused(saved: Path) -> None:
    arrays = GENE.arrays | {"top.0.norm.running_var": -np.ones(4, np.float32)}
    saved.write_bytes(save_tensors(arrays))
    with pytest.raises(InputError, match="variances below 0"):
        load(saved)


def test_larger_files_are_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved.read_bytes()
    os.truncate(saved, 1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(InputError, match="at most"):
        load(saved)
    saved.write_bytes(whole)
    os.truncate(saved.with_suffix(".json"), CARD_LIMIT + 1)
    with pytest.raises(InputError, match="at most"):
        load(saved)


@pytest.mark.parametrize("name", ["/", ".", "", "..", "/nowhere", "a\0b", "x" * 5000, "~no"])
def test_paths_that_are_no_file(name: str) -> None:
    with pytest.raises(InputError, match=r"a folder|does not exist"):
        load(name)


def test_a_folder_or_a_pipe_is_no_file(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
    for path in (tmp_path, tmp_path / "pipe.safetensors"):
        with pytest.raises(InputError, match=r"a folder|does not exist"):
            load(path)


# The readers themselves.


@pytest.mark.parametrize("text", ["NaN", "[1, -Infinity]", "{", "", "\ufeff1", "9" * 5000, "\xff"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text.encode("latin1") if text == "\xff" else text)


def test_depth_is_limited() -> None:
    for depth in (JSON_DEPTH, JSON_DEPTH - 1):
        assert parse_json("[" * depth + "]" * depth) is not None
    for text in ("[" * (JSON_DEPTH + 2) + "]" * (JSON_DEPTH + 2), "[" * 10**6, '{"a":' * 10**5):
        with pytest.raises(ValueError):
            parse_json(text)


def test_a_file_that_grows_is_not_read_on(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_limited(tmp_path / "x", 5) == b"12345"
    with pytest.raises(ValueError, match="at most 4"):
        read_limited(tmp_path / "x", 4)
    with pytest.raises(ValueError, match="no regular file"):
        read_limited(Path("/dev/zero"), 10)


def test_npy_of_another_shape_or_size(tmp_path: Path) -> None:
    path, due = tmp_path / "x.npy", np.dtype(np.int64)
    np.save(path, np.arange(6))
    assert map_npy(path, due, (6,)).tolist() == list(range(6))
    for dtype, shape in ((due, (7,)), (due, (2, 3)), (np.dtype(np.uint8), (6,))):
        with pytest.raises(ValueError, match="is due"):
            map_npy(path, dtype, shape)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ValueError, match="bytes"):
        map_npy(path, due, (6,))
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError):
        map_npy(path, due, (1,))


def test_a_header_cannot_ask_for_memory(tmp_path: Path) -> None:
    path, shape = tmp_path / "x.npy", (10**12, 10**6)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<i8", "fortran_order": False, "shape": shape}
        )
    with pytest.raises(ValueError, match="bytes"):
        map_npy(path, np.dtype(np.int64), shape)
