"""What a collective says of images: logits, features, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from learngene.collective.records import Accuracy, TrainerSettings
from learngene.data.augment import shrink, to_batch
from learngene.data.dataset import ImageDataset
from learngene.networks.collective import Collective
from learngene.networks.layers import FRONT_SIDE


class Predictor:
    """A collective with what it needs to look at images; ``CollectiveTrainer`` trains it, too."""

    dataset: ImageDataset
    settings: TrainerSettings
    device: torch.device
    collective: Collective

    # Told how many of how many images have been looked at; whoever wants to know sets another.
    looked: Callable[[int, int], None] = staticmethod(lambda done, images: None)

    def _batches(
        self, images: np.ndarray, rows: Sequence[int] | np.ndarray, side: int | None = None
    ) -> Iterator[Tensor]:
        """Plain images (B, C, H, W) on the device, at most 256 at once; shrunk to ``side``."""
        for start in range(0, len(rows), 256):
            x = to_batch(images[np.asarray(rows[start : start + 256])], self.device)
            yield x if side is None else shrink(x, side)
            self.looked(min(start + 256, len(rows)), len(rows))

    @torch.no_grad()
    def _logits(
        self,
        logits_of: Callable[[Tensor], Tensor],
        images: np.ndarray,
        rows: Sequence[int] | np.ndarray,
        side: int | None = None,
    ) -> Tensor:  # (N, known classes), or (N, D) where features are asked for; on the CPU
        bf16 = self.settings.collective.precision == "bf16"
        out = []
        for x in self._batches(images, rows, side):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                out.append(logits_of(x).float().cpu())
        return torch.cat(out)

    def predict(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        mirror: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, known classes) and the features in front of the head (N, D), in eval mode.

        Args:
            mirror: answers are means over the image and its mirror image, in datasets whose images
                keep their class in a mirror.
        """
        model = self.collective.eval()

        def answer(x: Tensor) -> Tensor:  # logits and features side by side: one forward pass
            features = model.features(x)
            return torch.cat([model.head(features), features], dim=1)

        def mean_of_views(x: Tensor) -> Tensor:
            return (answer(x) + answer(x.flip(3))) / 2

        views = mean_of_views if mirror and self.dataset.flip else answer
        known = len(model.head.weight)
        both = self._logits(views, images, rows)
        return both[:, :known], both[:, known:]

    def prefix_features(
        self, rows: Sequence[int] | np.ndarray, depth: int | None = None, side: int = FRONT_SIDE
    ) -> list[Tensor]:  # (N, D) a depth, in eval mode
        """What every prefix of the first ``depth`` layers sees of plain training images, in one
        pass over them; maps are pooled to ``side`` rows and columns at most."""
        model, sizes = self.collective.eval(), list[int]()

        def beside(x: Tensor) -> Tensor:
            seen = model.prefix_features(x, depth, side)
            sizes[:] = [features.shape[1] for features in seen]
            return torch.cat(seen, dim=1)

        every = self._logits(beside, self.dataset.train_images, rows)
        return list(every.split(sizes, dim=1))

    def test(self, tasks: Sequence[Sequence[int]]) -> Accuracy:
        """Accuracy on the test images of ``tasks``, the classes of each in order.

        One pass over the images of all known classes; a task's accuracy is read off its part.
        """
        dataset, known = self.dataset, [c for task in tasks for c in task]
        rows = np.concatenate([dataset.rows("test", c) for c in known])
        position = np.full(len(dataset.class_names), -1)
        position[known] = np.arange(len(known))
        truth = torch.from_numpy(position[dataset.test_labels[rows]])
        sizes = [sum(len(dataset.rows("test", c)) for c in task) for task in tasks]
        model = self.collective.eval()
        right = self._logits(model.__call__, dataset.test_images, rows).argmax(1) == truth
        by_task = [float(part.float().mean()) for part in right.split(sizes)]
        return Accuracy(float(right.float().mean()), by_task)
