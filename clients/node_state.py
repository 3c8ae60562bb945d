"""What the answers of a node are made of beside their message, as one digest.

The server keeps answers, and takes one up again only while the node says the same of itself. It
tells nothing else of the node: names, sizes and times of its images go into the digest alone. No
torch is imported, since in a deployment each question is a new process.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clients.node import private
from learngene.utils.files import expand_user
from learngene.utils.hardware import library_version
from protocol.reply_schema import NODE_STATE

DATA_ROOT = "data-root"  # in a node's config: the folder of its own images
LIBRARIES = ("torch", "torchvision", "numpy", "pillow")


def node_state(config: Mapping[str, Any]) -> str:
    """16 hex digits of all that its owner wrote into the node's config, its images, its libraries
    and the devices that it may use.

    Raises:
        PrivateProblem: a folder of its images cannot be read.
    """
    root = config.get(DATA_ROOT)
    with private("the node's own images cannot be read"):
        images = None if root is None else _files(expand_user(str(root)))
    parts = {
        "config": dict(config),
        "images": images,
        "libraries": {name: library_version(name) for name in LIBRARIES},
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    return digest.hexdigest()[:NODE_STATE]


def _files(root: Path) -> list[tuple[str, int, int]]:
    """Each file below ``root``: name, bytes, time of its last change in nanoseconds.

    As where images are read, linked folders count and hidden ones do not.
    """
    found: list[tuple[str, int, int]] = []

    def walk(folder: Path, around: tuple[Path, ...]) -> None:
        around = (*around, folder.resolve())
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_file():
                about = path.stat()
                named = path.relative_to(root).as_posix()
                found.append((named, about.st_size, about.st_mtime_ns))
            elif path.is_dir() and path.resolve() not in around:  # a link may lead back
                walk(path, around)

    if root.is_dir():
        walk(root, ())
    return found
