"""Build a dataset once into the cache, or open the one that is there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain, count
from pathlib import Path

import numpy as np
import PIL

from learngene.data.arrays import (
    ImageFile,
    content_sha256,
    first_copies,
    sync_folder,
    write_array,
)
from learngene.data.class_split import unusable
from learngene.data.dataset import (
    FORMAT,
    GROUPS,
    SPLITS,
    ImageDataset,
    array_digest,
    forget,
    load,
    read_card,
    seal,
)
from learngene.data.settings import NAMES, SeededDataSettings
from learngene.data.sources.base import ProgressFn, Source, check_labels
from learngene.data.sources.decode import own_pixel_limit, suspicious
from learngene.errors import InputError
from learngene.utils.files import attach_filename, refuse_other, temporary_name, write_atomically
from learngene.utils.hardware import memory

CARD = "world.json"
IMAGE_BYTES = 175  # of memory for an image's label and hash, while duplicates are looked for


def open_source(settings: SeededDataSettings) -> Source:
    """The source that the settings name, checked, without reading pixels.

    Raises:
        InputError: the name is unknown, or the source cannot be used.
    """
    # Imported here: a glyph dataset should not wait for pyarrow.
    source: Source
    if settings.name == "glyphs":
        from learngene.data.sources.glyphs import GlyphSource

        source = GlyphSource(settings)
    elif settings.name in NAMES:
        from learngene.data.sources.named import open_images

        source = open_images(settings)
    else:
        fix = f"Choose {', '.join(NAMES[:-1])} or {NAMES[-1]}"
        raise InputError("data", settings.name, "no such dataset", fix)
    check_labels(source.labels, source.class_names, settings)
    return source


def dataset_key(settings: SeededDataSettings, source: Source) -> str:
    """The cache key: hash of what the dataset is made of."""
    parts = cache_key_fields(settings, source)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def cache_key_fields(settings: SeededDataSettings, source: Source) -> dict[str, object]:
    """Content of the source, settings that shape arrays, decoder, format."""
    return {
        "format": FORMAT,
        "name": settings.name,
        "content": source.content(),
        "pillow": PIL.__version__,  # it draws, decodes and resizes
        **source.shaping,
    }


@own_pixel_limit()
def build(
    settings: SeededDataSettings, cache: Path, progress: ProgressFn = lambda what, done, total: None
) -> ImageDataset:
    """Open ``cache/worlds/KEY``, building it first where it is missing or not what was written.

    Built under a temporary name beside it and renamed, so that a killed run leaves nothing under
    KEY and two runs at once end with one whole folder. One that is there and not whole (a file is
    torn, or its checksum is not the card's) is moved aside and built again. ``progress`` is told
    how far decoding is.

    Raises:
        InputError: the source cannot be used (see ``open_source``), an image is broken, or the
            folder is another dataset's.
    """
    source = open_source(settings)
    datasets = Path(cache) / "worlds"
    final = datasets / dataset_key(settings, source)
    if final.exists():
        try:
            dataset = _whole(final, partial(progress, f"dataset {settings.name} is checked"))
        except InputError:  # torn or altered: made again from its source
            progress(
                f"dataset {settings.name}: the cached one is damaged, it is made again", 0, None
            )
            _set_aside(final)
        else:
            refuse_other(final / CARD, read_card(final)["of"], cache_key_fields(settings, source))
            return dataset
    with attach_filename(final):
        _build(settings, source, final, progress)
    return load(final)


def _build(settings: SeededDataSettings, source: Source, final: Path, progress: ProgressFn) -> None:
    datasets = final.parent
    datasets.mkdir(parents=True, exist_ok=True)
    _check_room(source, datasets)
    making = temporary_name(final)
    making.mkdir()
    try:
        _write(settings, source, making, progress)
        try:
            making.rename(final)
        except OSError:
            if not final.exists():  # anything but a lost race
                raise
        else:
            sync_folder(datasets)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _check_room(source: Source, datasets: Path) -> None:
    """Refuse a dataset that the disk or the memory has no room for, before a pixel is decoded."""
    images, side = sum(map(len, source.labels.values())), source.image_size
    disk, lower = shutil.disk_usage(datasets).free, "Ask for fewer images"
    for place, due, free, fix in (
        ("disk", images * side**2 * 3, disk, f"{lower}, or write cache=DIR of a larger one"),
        ("memory", images * IMAGE_BYTES, memory()[0], lower),  # pixels are mapped: they take none
    ):
        if due > free:
            problem = f"{images:,} images of {side}x{side} take {due / 1e9:,.1f} GB of {place}"
            problem = f"{problem}, {free / 1e9:,.1f} are free"
            raise InputError("cache", datasets.parent, problem, fix)


def _whole(folder: Path, progress: Callable[[int, int], None]) -> ImageDataset:
    """The dataset in ``folder``, every image of it read once and held against its sha256.

    Raises:
        InputError: it is not complete, or not what was written.
    """
    dataset = load(folder)
    groups = {g: dataset.class_split.group(g) for g in GROUPS}
    labels = {"train": dataset.train_labels, "test": dataset.test_labels}
    if content_sha256(folder, dataset.class_names, groups, labels, progress) != dataset.sha256:
        problem = "its images are not those that were written"
        raise InputError("cache", folder, problem, "Delete that folder")
    return dataset


def _set_aside(folder: Path) -> None:
    """Take a damaged dataset away; who has it mapped keeps what is mapped."""
    aside = temporary_name(folder)
    with suppress(FileNotFoundError):  # another run was faster
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    forget()


def _write(
    settings: SeededDataSettings, source: Source, folder: Path, progress: ProgressFn
) -> None:
    size = source.image_size
    source.measure(progress)
    total, looked = sum(len(source.labels[split]) for split in SPLITS), count(1)
    for split in SPLITS:
        for data, where in chain.from_iterable(source.encoded(split)):
            if suspicious(data):
                source.decoded(data, where)
            progress(f"dataset {settings.name} is looked through", next(looked), total)
    plain: list[str] = []
    with ExitStack() as stack:
        files: dict[str, ImageFile] = {}
        done = 0
        for split in SPLITS:
            due = len(source.labels[split])
            file = ImageFile(folder / f"{split}_images.npy", due, (size, size, 3))
            stack.callback(file.close)
            files[split] = file
            for batch in source.batches(split):
                edges = (batch[:, 0] == batch[:, :1, 0]).all(axis=(1, 2))  # few are, and quickly
                plain += [
                    source.where(split, file.written + i)
                    for i in np.flatnonzero(edges).tolist()
                    if (batch[i] == batch[i, 0, 0]).all()
                ]
                file.append(batch)
                done += len(batch)
                progress(f"dataset {settings.name}", done, total)
            if file.written != due:
                problem = f"the {split} images end after {file.written} of {due}"
                raise unusable(settings, problem, "Fetch the files again")
        masks, conflicts = first_copies({s: files[s].hashes for s in SPLITS}, source.labels)
        labels = {split: source.labels[split][masks[split]] for split in SPLITS}
        check_labels(labels, source.class_names, settings)
        groups = {g: source.class_split.group(g) for g in GROUPS}
        digests = {}
        for split in SPLITS:
            files[split].keep(masks[split])
            write_array(folder / f"{split}_labels.npy", labels[split])
            write_array(folder / f"{split}_hashes.npy", files[split].hashes)
            digests[f"{split}_labels"] = array_digest(labels[split])
            digests[f"{split}_hashes"] = array_digest(files[split].hashes)
    notes = list(source.notes)
    if plain:
        notes.append(f"{len(plain):,} images are of one colour all over, the first {plain[0]}")
    card = {
        "format": FORMAT,
        "name": settings.name,
        "image_shape": [3, size, size],
        "class_names": source.class_names,
        "division": groups,
        "sha256": content_sha256(folder, source.class_names, groups, labels),
        "images": {split: len(labels[split]) for split in SPLITS},
        "duplicates_dropped": int(sum((~mask).sum() for mask in masks.values())),
        "conflicting_labels": conflicts,
        "flip": source.flip,
        "of": cache_key_fields(settings, source),
        "digests": digests,
        **({"value_range": source.value_range} if "value_range" in source.shaping else {}),
        **({"notes": notes} if notes else {}),
    }
    text = json.dumps(seal(card), indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / CARD, text.encode())  # last: it makes the folder a dataset
    sync_folder(folder)
