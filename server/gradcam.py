"""What figure 5 shows: where the collective looks in images of classes it does not know.

The maps of some of its stages are made from the checkpoints in the cache, and kept in
``results.json`` as small pictures, so that the figure can be drawn again from there.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learngene.collective.gradcam import choose_layer, grad_cam
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.augment import to_batch
from learngene.seeding import generator
from server.collective import TrainedCollective, collective_after

STAGES = 6  # columns that fit a page
SIDE = 96  # pixels of a kept picture, at most: a panel of the figure has about 110
GROUPS = ("open_world", "novel")


def compute_gradcam(trained: TrainedCollective, cache: Path, images: int) -> dict[str, Any] | None:
    """The section ``gradcam`` of ``results.json``.

    Args:
        cache: the folder that ``server.collective.train_collective`` was given.
        images: how many test images to look at; 0 gives None, and so does a collective that knows
            every class.

    Returns:
        ``images``: class, group, row in the dataset's test images, ``picture``, ``maps`` (gray PNG,
        one map a stage from top to bottom, 255 = the map's peak) and the classes ``predicted`` by
        each stage; ``stages``: task, known classes and layer of each; ``missing``: tasks whose
        checkpoint is gone.
    """
    trainer = trained.trainer
    dataset = trainer.dataset
    rows = draw_rows(trainer, images)
    if not len(rows):
        return None
    x = to_batch(dataset.test_images[rows], trainer.device)
    stages, missing, maps, predicted = [], [], [], []
    for number in evenly_spaced(len(trainer.stages)):
        stage = trainer.stages[number - 1]
        collective = collective_after(trained, cache, number)
        if collective is None:
            missing.append(number)
            continue
        layer = choose_layer(collective, min(dataset.image_shape[1:]))
        found, classes = grad_cam(collective, x, layer)
        stages.append({"task": number, "known_classes": stage.known_classes, "layer": layer})
        maps.append((255 * found.cpu().numpy()).round().astype(np.uint8))
        predicted.append([dataset.class_names[trainer.known[int(c)]] for c in classes])
    return {
        "images": [
            {
                "class": dataset.class_names[dataset.test_labels[row]],
                "group": _group(trainer, row),
                "row": int(row),
                "picture": encode(shrink(dataset.test_images[row], SIDE)),
                "maps": encode(np.concatenate([shrink(each[i], SIDE) for each in maps])),
                "predicted": [names[i] for names in predicted],
            }
            for i, row in enumerate(rows)
        ],
        "stages": stages,
        "missing": missing,
    }


def evenly_spaced(stages: int) -> list[int]:
    """At most ``STAGES`` numbers of 1..stages, evenly spread, the first and the last among them."""
    return [int(n) for n in np.linspace(1, stages, min(stages, STAGES)).round()]


def draw_rows(trainer: CollectiveTrainer, images: int) -> NDArray[np.int64]:
    """Rows of test images, drawn from the seed: half open-world, half novel, few of each class.

    Classes that the collective has taken in are left out. A class comes again only when every
    other one of its group has come as often; where one group is too small, there are fewer images.
    """
    dataset, known = trainer.dataset, set(trainer.known)
    taken: list[NDArray[np.int64]] = []
    for group, share in zip(GROUPS, (images - images // 2, images // 2), strict=True):
        classes = [c for c in dataset.class_split.group(group) if c not in known]
        drawn = generator(trainer.settings.seed, f"gradcam-{group}")
        rows = np.concatenate([np.empty(0, np.int64), *(dataset.rows("test", c) for c in classes)])
        rows = drawn.permutation(rows)
        seen: Counter[int] = Counter()
        rank = []
        for label in dataset.test_labels[rows].tolist():
            rank.append(seen[label])
            seen[label] += 1
        taken.append(rows[np.argsort(rank, kind="stable")][:share])
    return np.concatenate(taken)


def _group(trainer: CollectiveTrainer, row: int) -> str:
    label = int(trainer.dataset.test_labels[row])
    return next(g for g in GROUPS if label in trainer.dataset.class_split.group(g))


def encode(pixels: NDArray[np.uint8]) -> str:
    """uint8 (H, W) or (H, W, 3) as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def decode(text: str) -> NDArray[np.uint8]:
    """What ``encode`` was given.

    Raises:
        ValueError: the text is not base64, or not an image.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            return np.array(image)
    except OSError as error:
        raise ValueError(f"not a picture: {error}") from error


def shrink(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture (H, W) or (H, W, 3) with no side longer than ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.array(image)
