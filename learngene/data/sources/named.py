"""CIFAR-100 and mini-ImageNet: find out in which form they lie under ``data.root``."""

from __future__ import annotations

from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import Source
from learngene.data.sources.cifar_pickle import find_cifar_python, open_cifar_python
from learngene.data.sources.folder import open_folder
from learngene.data.sources.parquet import HUB, find_parquet, open_hub, open_parquet
from learngene.errors import InputError
from learngene.utils.files import expanded

_SIZE = {"cifar100": 32, "imagenet100": 84}  # sides in pixels


def open_named(settings: SeededDataSettings) -> Source:
    """``cifar100`` or ``imagenet100`` as parquet, original pickles, class folders or from the hub.

    Raises:
        InputError: there is no root and no leave to download, or nothing usable lies there.
    """
    size = settings.image_size or _SIZE[settings.name]
    if size < 8:
        problem = "images need a side of at least 8 pixels"
        raise InputError("data.image_size", size, problem, f"Try {_SIZE[settings.name]}")
    if settings.root is None:
        if settings.download:
            return open_hub(settings, size)
        raise InputError(
            "data.root",
            None,
            f"{settings.name} has to come from somewhere",
            "Give a folder with data.root=DIR, or let the Hugging Face hub be asked for "
            f"{HUB[settings.name]} with data.download=true",
        )
    root = expanded(settings.root).resolve()
    if not root.is_dir():
        raise InputError(
            "data.root",
            settings.root,
            "no such folder",
            "Check the path, or leave data.root out and give data.download=true",
        )
    files = find_parquet(root)
    if any(files.values()):
        return open_parquet(files, settings, size)
    if settings.name == "cifar100" and (folder := find_cifar_python(root)):
        return open_cifar_python(folder, settings, size)
    if any(entry.is_dir() for entry in root.iterdir()):
        return open_folder(settings, size)
    forms = "train*.parquet with test*.parquet, class folders"
    if settings.name == "cifar100":
        forms += ", cifar-100-python/"
    raise InputError(
        "data.root",
        settings.root,
        f"found no {settings.name} there (looked for {forms})",
        "Point data.root at the folder that holds them",
    )
