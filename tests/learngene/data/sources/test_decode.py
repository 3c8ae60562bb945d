"""Images of more than 8 bits, limits before anything is read, and one decoder at a time."""

from __future__ import annotations

import io
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learngene.data.cache import build, dataset_key, open_source
from learngene.data.dataset import ImageDataset
from learngene.data.settings import SeededDataSettings
from learngene.data.sources import decode as decoding
from learngene.data.sources.decode import decode, is_wide, shared_range
from learngene.errors import InputError
from tests.learngene.data.helpers import FOLDERS, noise, png, write_folders


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand: Pillow writes none of 16-bit colour, and none that is larger than it is."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head)
    return made + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")


def _colour_of_16_bits(value: int) -> bytes:
    row = b"\0" + np.full((8, 3), value, ">u2").tobytes()
    return _png(8, 8, 16, 2, row * 8)


Make = Callable[[np.ndarray], np.ndarray]  # (8, 8) in 0..255 -> pixels of another kind
KINDS: dict[str, tuple[str, Make, tuple[float, float]]] = {
    "16 bits": ("png", lambda x: (x * 257).astype(np.uint16), (0, 65535)),
    "12 bits of 16": ("png", lambda x: (x * 16.0588).round().astype(np.uint16), (0, 4095)),
    "12 bits, tiff": ("tif", lambda x: (x * 16.0588).round().astype(np.uint16), (0, 4095)),
    "int32 of 8 bits": ("tiff", lambda x: x.astype(np.int32), (0, 255)),
    "signed": ("tiff", lambda x: (x * 16 - 1024).astype(np.int32), (-1024, 3056)),
    "floats": ("tif", lambda x: (x / 255).astype(np.float32), (0, 1)),
    "pgm": ("pgm", lambda x: (x * 257).astype(np.uint16), (0, 65535)),
}


def _deep_folder(root: Path, suffix: str, make: Make) -> list[np.ndarray]:
    """Four classes of four grey images; returns them in 0..255. Both ends of the range occur."""
    grey = noise(5, 16)[..., 0].copy()
    grey[0, 0, :2] = 0, 255
    for i, image in enumerate(grey):
        folder = root / "abcd"[i // 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make(image.astype(np.float64))).save(folder / f"{i:02}.{suffix}")
    return list(grey)


def _images(dataset: ImageDataset) -> list[bytes]:
    both = np.concatenate([dataset.train_images, dataset.test_images])
    assert (both[..., 0] == both[..., 1]).all() and (both[..., 0] == both[..., 2]).all()
    return sorted(image[..., 0].tobytes() for image in both)


def _settings(root: Path, **change: object) -> SeededDataSettings:
    return replace(FOLDERS, root=str(root), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_deep_images_are_what_8_bits_would_be(kind: str, tmp_path: Path) -> None:
    suffix, make, (low, high) = KINDS[kind]
    grey = _deep_folder(tmp_path / "in", suffix, make)
    dataset = build(_settings(tmp_path / "in"), tmp_path)
    assert _images(dataset) == sorted(image.tobytes() for image in grey)
    assert dataset.notes == (
        f"values {low:g}..{high:g} of images of more than 8 bits become 0..255 (data.value_range)",
    )
    given = build(_settings(tmp_path / "in", value_range=[low, high]), tmp_path)
    assert given.path != dataset.path and given.sha256 == dataset.sha256
    assert given.value_range == dataset.value_range == (low, high)  # for whoever keeps individuals


@pytest.mark.parametrize("form", [*decoding._FORMATS, "MPO"])  # JPEG's decoder reads MPO
def test_each_format_is_read(form: str) -> None:
    image, file = Image.new("RGB", (8, 8), (200, 100, 50)), io.BytesIO()
    more = {"save_all": True, "append_images": [image]} if form == "MPO" else {}
    image.save(file, form, **more)
    found = decode(file.getvalue(), 8, "a row").astype(int)
    assert found.shape == (8, 8, 3) and np.abs(found - [200, 100, 50]).max() < 8
    assert not is_wide(file.getvalue())


def test_junk_is_said_to_be_no_image() -> None:
    with pytest.raises(
        InputError, match=r"a row: .* not decode \(Unid.*: cannot identify image file"
    ):
        decode(b"this is a text\n", 8, "a row")


def test_a_range_of_ones_own_is_a_window(tmp_path: Path) -> None:
    _deep_folder(tmp_path / "in", "tif", lambda x: (x * 16 - 1024).astype(np.float32))
    with pytest.raises(InputError, match=r"floats are taken as 0\.\.1, and .* hold -1024 to 3056"):
        build(_settings(tmp_path / "in"), tmp_path)
    dataset = build(_settings(tmp_path / "in", value_range=[-160.0, 240.0]), tmp_path)
    shades = np.unique(dataset.train_images)
    assert shades[0] == 0 and shades[-1] == 255 and len(shades) > 10
    for wrong in ([0], [5, 5], [3, 1], [0, float("nan")]):
        with pytest.raises(InputError, match=r"data\.value_range=\[.*two finite numbers"):
            open_source(_settings(tmp_path / "in", value_range=wrong))


def test_one_bright_pixel_does_not_make_all_others_black(tmp_path: Path) -> None:
    _deep_folder(tmp_path / "in", "png", KINDS["12 bits of 16"][1])
    odd = np.full((8, 8), 200, np.uint16)
    odd[3, 3] = 65535
    Image.fromarray(odd).save(tmp_path / "in/a/hot.png")
    with pytest.raises(InputError) as told:
        build(_settings(tmp_path / "in"), tmp_path)
    assert "in/a/hot.png: scaled from 0..65535" in str(told.value)
    fix = told.value.fix.split("perhaps ")[1]
    low, high = (float(number) for number in fix.strip("[]").split(","))
    assert 0 <= low < 300 and 3800 < high < 70000


def test_ranges() -> None:
    def of(*extents: tuple[float, float, bool]) -> tuple[float, float]:
        return shared_range(extents, [str(i) for i in range(len(extents))])

    assert of((3, 1000, False), (0, 1023, False)) == (0, 1023)
    assert of((3, 1000, False), (0, 1024, False)) == (0, 2047)
    assert of((0, 200, False)) == (0, 255)
    assert of((-5, 100, False), (-9, 90, False)) == (-9, 100)
    assert of((0.2, 0.9, True)) == (0, 1)
    for dark in (
        [(0, 15, False)],  # a mask, or 4 bits
        [(0.0, 0.05, True)],
        [(7, 7, False)] * 3,
        [(-3, -3, False)],
        [(0, 30, False), (0, 31, False), (0, 9999, False)],
    ):
        with pytest.raises(InputError, match="most would be black or of one shade"):
            of(*dark)
    with pytest.raises(InputError, match=r"1: floats are taken as 0\.\.1"):
        of((0, 1, True), (0, 1.5, True))


def test_floats_that_are_no_numbers(tmp_path: Path) -> None:
    _deep_folder(tmp_path / "in", "tif", KINDS["floats"][1])
    for hole in (np.nan, np.inf):
        image = np.full((8, 8), 0.5, np.float32)
        image[2, 2] = hole
        Image.fromarray(image).save(tmp_path / "in/b/hole.tif")
        for change in ({}, {"value_range": [0.0, 1.0]}):
            with pytest.raises(InputError, match=r"in/b/hole\.tif: some of its values are no num"):
                build(_settings(tmp_path / "in", **change), tmp_path)


def test_depths_are_not_mixed_without_a_word(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", list("abcd"), 3)
    plain = _settings(tmp_path / "in")
    key = dataset_key(plain, open_source(plain))
    assert key == dataset_key(replace(plain, value_range=[0.0, 9.0]), open_source(plain))
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 64)
    deep.save(tmp_path / "in/a/deep.png")
    with pytest.raises(InputError, match=r"a/deep\.png: it has more .* 12 of 13 images have 8"):
        build(plain, tmp_path)
    dataset = build(replace(plain, value_range=[0.0, 4032.0]), tmp_path)
    assert len(dataset.train_labels) + len(dataset.test_labels) == 13


def test_colour_of_16_bits(tmp_path: Path) -> None:
    for i in range(16):
        folder = tmp_path / "in" / "abcd"[i // 4]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(_colour_of_16_bits(i * 256))  # black, by Pillow
    with pytest.raises(InputError, match=r"colour of 16 bits .*\[0,65535\] if its values fill 16"):
        build(_settings(tmp_path / "in"), tmp_path)
    with pytest.raises(InputError, match="colour of 16 bits"):
        build(_settings(tmp_path / "in", value_range=[0.0, 4095.0]), tmp_path)
    dataset = build(_settings(tmp_path / "in", value_range=[0.0, 65535.0]), tmp_path)
    assert np.unique(dataset.train_images).max() <= 15
    assert dataset.notes[-1].startswith("16 images are of one colour all over, the first ")


def test_what_is_wide() -> None:
    assert is_wide(_colour_of_16_bits(1)) and is_wide(_png(1, 1, 16, 0, b"\0\0\0"))
    assert not is_wide(png(noise(0, 1)[0])) and not is_wide(b"no image") and not is_wide(b"")


def test_images_of_one_colour_are_named_and_kept(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", list("abcd"), 3)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "in/b/black.png")
    dataset = build(_settings(tmp_path / "in"), tmp_path)
    blank = tmp_path / "in/b/black.png"
    assert dataset.notes == (f"1 images are of one colour all over, the first {blank}",)
    assert len(dataset.train_labels) + len(dataset.test_labels) == 13
    write_folders(tmp_path / "other", list("abcd"), 3)
    assert build(_settings(tmp_path / "other"), tmp_path).notes == ()


def test_the_header_says_how_large(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", list("abcd"), 3)
    bomb = tmp_path / "in/c/bomb.png"
    for side in (9500, 13_000, 50_000):  # Pillow: a warning, a warning, an error
        bomb.write_bytes(_png(side, side, 8, 2, bytes(1000)))
        tracemalloc.start()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InputError, match=r"c/bomb\.png: .* more than 89,478,485 pixels"):
                build(_settings(tmp_path / "in"), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()


def test_large_images_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, lock, under_way, most = decoding.PIXEL_LIMIT, threading.Lock(), [0], [0]

    def take(pixels: int) -> None:
        with decoding._room(pixels):
            with lock:
                under_way[0] += pixels
                most[0] = max(most[0], under_way[0])
            time.sleep(0.002)
            with lock:
                under_way[0] -= pixels

    sizes = [limit, 1, limit // 2, limit // 3, 5_000_000, limit] * 4
    threads = [threading.Thread(target=take, args=(pixels,)) for pixels in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert under_way[0] == 0 and limit <= most[0] <= limit + decoding._UNIT

    asked: list[int] = []
    room = decoding._room
    monkeypatch.setattr(decoding, "_room", lambda pixels: (asked.append(pixels), room(pixels))[1])
    decode(png(noise(0, 1)[0]), 8, "here")
    assert asked == [64]
