"""A learngene in fewer bytes: half precision, or 8 bits a weight with a scale for every channel.

The factory restores what it has packed (``gene.at_precision``) and puts the restored arrays'
sha256 on the card, so a client that restores the same arrays holds, bit for bit, the learngene
that the card names. Statistics and affine parts of norms (one number a channel) stay as they are:
a hundredth of it all.
"""

from __future__ import annotations

import numpy as np

SCALE = ".scale"  # how the names of int8 arrays' scales end
Arrays = dict[str, np.ndarray]


def pack(arrays: Arrays, precision: str) -> Arrays:
    """``arrays`` (float32) as they travel.

    ``int8`` is symmetric: of an array NAME with channels in front, NAME holds round(w / scale) in
    -127..127 and NAME.scale the channels' largest absolute weights over 127.

    Raises:
        ValueError: a weight does not fit into half precision.
    """
    if precision == "fp32":
        return arrays
    packed: Arrays = {}
    for name, array in arrays.items():
        if array.ndim < 2:
            packed[name] = array
        elif precision == "fp16":
            with np.errstate(over="ignore"):
                packed[name] = array.astype(np.float16)
            if not np.isfinite(packed[name]).all():
                raise ValueError(f"{name} holds weights beyond half precision")
        else:
            largest = np.abs(array).reshape(len(array), -1).max(1)
            scale = (np.where(largest > 0, largest, 1.0) / 127).astype(np.float32)
            units = np.round(array / _beside(scale, array.ndim))
            packed[name] = np.clip(units, -127, 127).astype(np.int8)
            packed[name + SCALE] = scale
    return packed


def unpack(packed: Arrays) -> Arrays:
    """float32 arrays again; arrays that were not packed are handed on as they are.

    Raises:
        KeyError: an array of 8 bits has no scale, or a scale no array.
        ValueError: scales are not one a channel.
    """
    arrays: Arrays = {}
    for name, array in packed.items():
        if name.removesuffix(SCALE) != name and packed[name.removesuffix(SCALE)].dtype == np.int8:
            continue
        if array.dtype == np.int8:
            scale = packed[name + SCALE]
            if scale.shape != array.shape[:1]:
                raise ValueError(f"{name}{SCALE} has shape {scale.shape}, {array.shape[:1]} is due")
            arrays[name] = array.astype(np.float32) * _beside(scale, array.ndim)
        else:
            arrays[name] = array.astype(np.float32) if array.dtype == np.float16 else array
    return arrays


def _beside(scale: np.ndarray, dimensions: int) -> np.ndarray:
    return scale.reshape(-1, *(1,) * (dimensions - 1))
