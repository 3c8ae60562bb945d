"""Training images where they are computed with: held on a GPU, read where they lie on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from learngene.data.augment import to_batch


class DeviceImages:
    """Images by their position, as batches on a device.

    A GPU is given all of them once, as uint8 (3 KB for an image of 32 pixels). On a CPU a batch is
    read out of the dataset, which is mapped into memory and copied by nobody.
    """

    def __init__(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        device: torch.device,
        *,
        held: bool | None = None,
    ) -> None:
        """
        Args:
            images: uint8 (M, H, W, C).
            rows: of the images meant, (N,); positions count along them.
            held: copy them to the device; None: where it is not the CPU.
        """
        self._images, self._rows, self._held = images, rows, None
        if device.type != "cpu" if held is None else held:
            self._held = torch.from_numpy(images[rows]).to(device)

    def __getitem__(self, positions: Tensor) -> Tensor:
        """(B,) positions on the device -> float (B, C, H, W) there, as ``to_batch`` makes them."""
        if self._held is None:
            return to_batch(self._images[self._rows[positions.numpy()]])
        return to_batch(self._held.index_select(0, positions))
