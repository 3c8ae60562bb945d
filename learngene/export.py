"""An individual for another runtime: ONNX, or ``torch.export``'s own file, held against itself.

What is exported takes pixel values and gives probabilities: normalisation and further views of an
image are part of it, so that whoever runs it decodes and resizes images and does no more.
"""

from __future__ import annotations

import io
import json
import timeit
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learngene.api import files_in, read_images
from learngene.data.augment import CENTRE, SPREAD, still_views
from learngene.errors import InputError
from learngene.gene.kept import KeptIndividual
from learngene.networks.individual import Individual
from learngene.seeding import generator
from learngene.utils.files import check_writable, expand_user, temporary_name

TOLERANCE = 1e-4  # of a probability: rounding of another order of sums
NOISE = 64  # images, where none are named
TIMED = 20  # calls with one image, of which the median is said
BATCH = 256
CARD = "card.json"  # in either file: the individual's card

Run = Callable[[np.ndarray], np.ndarray]  # (N, C, side, side) float32 -> (N, ways)


class ExportError(RuntimeError):
    """What was exported gives other answers; there is no file."""


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    images: int  # it was held against
    difference: float  # largest, of a probability
    bytes: int  # of the file
    milliseconds: float  # an image alone, median
    reference: float  # the same of the individual in torch


class WholeIndividual(nn.Module):
    """Pixel values 0 to 255, (N, C, side, side) float32, to probabilities (N, ways)."""

    def __init__(self, individual: Individual, *, mirror: bool, moved: bool) -> None:
        super().__init__()
        self.individual, self.mirror, self.moved = individual, mirror, moved

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, side, side) to (N, ways)."""
        x = (pixels - CENTRE) / SPREAD
        seen = still_views(x, mirror=self.mirror, moved=self.moved)
        shares = [self.individual(view).softmax(1) for view in seen]
        return torch.stack(shares).mean(0)


def export_individual(
    kept: KeptIndividual, path: str | Path, images: Iterable[str | Path] = ()
) -> Exported:
    """Write ``path`` (``.onnx`` or ``.pt2``) with any number of images a call, and check it.

    Args:
        images: files and folders that both are shown; none: images of noise.

    Raises:
        InputError: another suffix, no file can be written there, a package is missing, or images
            cannot be read.
        ExportError: it names an image otherwise, or a probability differs by more than rounding.
        OSError: it cannot be written to the end.
    """
    path, card = expand_user(path), kept.card
    writers = {".onnx": _onnx, ".pt2": _pt2}
    if path.suffix not in writers:
        raise InputError("--out", path, "its suffix is neither .onnx nor .pt2", "Name one of both")
    check_writable(path, "--out")
    individual = deepcopy(kept.individual).cpu()  # as a node without an accelerator runs it
    network = WholeIndividual(individual, mirror=card.mirror, moved=card.moved).eval()
    if named := list(images):
        pixels = read_images(kept, files_in(named)).transpose(0, 3, 1, 2)
    else:
        shape = (NOISE, card.channels, card.image_side, card.image_side)
        pixels = generator(0, "export").integers(0, 256, shape)
    x = np.ascontiguousarray(pixels, dtype=np.float32)

    reference = _in_torch(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(temporary_name(path).name + path.suffix)
    try:
        two = np.resize(x[:2], (2, *x.shape[1:]))  # of one image torch would make a fixed number
        run = writers[path.suffix](network, torch.from_numpy(two), kept, making)
        due, found = _in_batches(reference, x), _in_batches(run, x)
        difference = float(np.abs(due - found).max())
        others = int((due.argmax(1) != found.argmax(1)).sum())
        if others or not difference <= TOLERANCE:
            said = f"{others} of {len(x)} images are named otherwise"
            raise ExportError(f"{path}: {said}, probabilities differ by {difference:.1e}")
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
    size = path.stat().st_size
    return Exported(len(x), difference, size, _milliseconds(run, x), _milliseconds(reference, x))


def _pt2(network: nn.Module, example: Tensor, kept: KeptIndividual, path: Path) -> Run:
    program, file = _program(network, example), io.BytesIO()
    torch.export.save(program, file, extra_files={CARD: json.dumps(asdict(kept.card))})
    path.write_bytes(file.getvalue())  # torch makes a RuntimeError of what the disk refuses
    return _in_torch(torch.export.load(path).module())


def _in_torch(network: nn.Module) -> Run:
    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(x)).numpy()

    return run


def _program(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("n")},))


def _onnx(network: nn.Module, example: Tensor, kept: KeptIndividual, path: Path) -> Run:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch writes with it
    except ImportError as error:
        fix = 'Run python -m pip install "flower-learngene[onnx]", or write a .pt2'
        raise InputError("--out", path.suffix, f"needs the package {error.name}", fix) from error
    program = torch.onnx.export(
        _program(network, example),
        dynamo=True,
        input_names=["pixels"],
        output_names=["probabilities"],
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[CARD] = json.dumps(asdict(kept.card))
    program.save(path)
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"pixels": x})[0]


def _in_batches(run: Run, x: np.ndarray) -> np.ndarray:
    return np.concatenate([run(x[first : first + BATCH]) for first in range(0, len(x), BATCH)])


def _milliseconds(run: Run, x: np.ndarray) -> float:
    return 1000 * float(np.median(timeit.repeat(lambda: run(x[:1]), number=1, repeat=TIMED)))
