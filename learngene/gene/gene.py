"""The learngene: what the factory sends and the client builds around (definition 2).

It holds consecutive conv layers of the collective with their BatchNorm: by default its first ones,
with a projection of what they see, or a run from elsewhere (the paper's top three), which stands
behind a stem that the client draws at random. It is saved as
``learngene.safetensors`` with a readable card, ``learngene.json``, beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from torch import nn

from learngene.errors import InputError
from learngene.gene.card import (
    CARD_LIMIT,
    HEADER_LIMIT,
    OPTIONAL,
    Card,
    misfit,
    read_card,
    refuse,
)
from learngene.gene.quantize import Arrays, pack, unpack
from learngene.networks.collective import Collective
from learngene.networks.individual import Individual
from learngene.networks.layers import arrays_of, load_arrays, shape_problem
from learngene.networks.projection import Projection
from learngene.seeding import torch_generator
from learngene.utils.files import expand_user, is_file, is_folder, write_atomically
from learngene.utils.untrusted import read_json, read_limited

BUILT = ("layers", "stem", "width", "channels")  # what arrays do not say


@dataclass(frozen=True)
class Learngene:
    """What is inherited from a collective (the paper's definition 2): arrays and their card.

    ``arrays`` are float32: ``top.I.conv.weight`` (C_out, C_in, 3, 3) and ``top.I.norm.*`` (C_out,)
    of the I-th inherited layer, counted from 0. A learngene that begins with layer 1 may hold
    projections, too, one for each prefix of D layers: ``projection.D.mean`` (C_out · side²,) and
    ``projection.D.matrix`` (K, C_out · side²); and for prefixes that are read beside a deeper one
    ``joined.D.mean`` and ``joined.D.matrix``, of a map of 2 x 2. ``card`` says shapes, where the
    layers stood, and the sha256 of all.
    """

    card: Card
    arrays: dict[str, np.ndarray]

    @property
    def inherited(self) -> int:
        """How many layers it holds."""
        return len(self.card.layers)

    @property
    def deepest(self) -> Learngene:
        """What a client without a limit is sent: all layers, and their own projection."""
        return self.prefix(self.inherited)

    def prefix(self, depth: int) -> Learngene:
        """The learngene of the first ``depth`` layers, with the projection of that depth and those
        that are joined below it.

        Raises:
            InputError: there is none: ``card.depths`` says which there are.
        """
        card = self.card
        if depth not in card.depths:
            problem = f"the learngene can be taken to the depths {card.depths}"
            fix = f"Write individual.depth={card.depths[-1]}, or leave it out"
            raise InputError("individual.depth", depth, problem, fix)
        joined = [each for each in card.joined or [] if each < depth]
        own = (
            *(f"top.{place}." for place in range(depth)),
            *(f"joined.{each}." for each in joined),
            f"projection.{depth}.",
        )
        arrays = {name: array for name, array in self.arrays.items() if name.startswith(own)}
        if card.depths == [depth] or len(arrays) == len(self.arrays):
            return self
        assert card.pools is not None and card.sides is not None
        built = {
            "layers": card.layers[:depth],
            "pools": [place for place in card.pools if place <= depth],
            "sides": card.sides[:depth],
            "joined": joined or None,
        }
        return _with_card(arrays, vars(card) | built)


def digest(arrays: dict[str, np.ndarray], built: Mapping[str, Any]) -> str:
    """sha256 over what the card says is built (``BUILT``), and the arrays by name."""
    said = [built[name] for name in BUILT]
    said += [built[name] for name in OPTIONAL if built.get(name) is not None]
    h = hashlib.sha256(json.dumps(said).encode())
    for name in sorted(arrays):
        h.update(f"{name}{arrays[name].shape}".encode())
        h.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
    return h.hexdigest()


def extract(
    collective: Collective,
    *,
    layers: Sequence[int],
    rho: list[list[float | None]],
    source: dict,
    image_side: int | None = None,
    projections: Sequence[Projection] = (),
    joined: Mapping[int, Projection] | None = None,
) -> Learngene:
    """The learngene of a collective: a run of its layers, unchanged.

    Args:
        layers: the numbers of consecutive layers, counted from 1 in the collective as it is now.
        image_side: rows and columns of an image, where the layers are the collective's first and
            an individual begins with them; None: it draws a stem.
        projections: of the features of each prefix of them, where they are; or none at all.
        joined: projections of prefixes, by their depth, that are read beside that of all layers.

    Raises:
        ValueError: the layers are not consecutive ones of the collective, or do not begin with
            layer 1 and have no stem.
    """
    depth, numbers = len(collective.units), list(layers)
    possible = range(1, depth + 1)
    if not numbers or numbers != [n for n in possible if numbers[0] <= n <= numbers[-1]]:
        raise ValueError(f"{numbers} are no consecutive layers of a collective of {depth}")
    arrays: dict[str, np.ndarray] = {}
    for place, number in enumerate(numbers):
        unit = collective.units[number - 1]
        arrays |= arrays_of(unit.conv, f"top.{place}.conv.")
        arrays |= arrays_of(unit.norm, f"top.{place}.norm.")
    for place, projection in enumerate(projections, start=1):
        arrays |= arrays_of(projection, f"projection.{place}.")
    for place, projection in sorted((joined or {}).items()):
        arrays |= arrays_of(projection, f"joined.{place}.")
    built: dict[str, Any] = {
        "layers": numbers,
        "stem": "fresh" if image_side is None else "none",
        "width": collective.width,
        "channels": collective.units[0].conv.in_channels,
        "block": None if collective.block == "plain" else collective.block,
        "rho": rho,
        "source": source,
    }
    if image_side is not None:
        if numbers[0] != 1:
            raise ValueError(f"layers {numbers} need a stem: they do not begin with layer 1")
        pools = [number for number in numbers if collective.units[number - 1].pool]
        sides = [collective.front_side(image_side, number) for number in numbers]
        built |= {"pools": pools, "sides": sides, "joined": sorted(joined or {}) or None}
    return _with_card(arrays, built)


def _with_card(arrays: dict[str, np.ndarray], built: Mapping[str, Any]) -> Learngene:
    """A learngene of ``arrays``: what they say themselves is not taken from ``built``."""
    measured = {
        "shapes": {name: list(a.shape) for name, a in arrays.items()},
        "parameters": sum(a.size for a in arrays.values()),
        "bytes": sum(a.nbytes for a in arrays.values()),
        "top_layers_bytes": sum(a.nbytes for n, a in arrays.items() if n.startswith("top.")),
        "sha256": digest(arrays, built),
    }
    return Learngene(Card(**{**built, **measured}), arrays)


def at_precision(gene: Learngene, precision: str) -> tuple[Learngene, Arrays]:
    """The learngene that clients will hold, and the arrays that are sent for it."""
    if precision == "fp32":
        return gene, gene.arrays
    packed = pack(gene.arrays, precision)
    arrays = unpack(packed)
    card = replace(gene.card, sha256=digest(arrays, asdict(gene.card)))
    return Learngene(card, arrays), packed


def save(gene: Learngene, folder: Path, precision: str = "fp32") -> Path:
    """Write ``learngene.safetensors`` and its card into ``folder``; returns the former's path.

    Packed (``precision``: fp32 | fp16 | int8), the card is that of what ``load`` gives back.
    """
    held, packed = at_precision(gene, precision)
    path = folder / "learngene.safetensors"
    write_atomically(path, save_tensors(packed))
    text = json.dumps(asdict(held.card), indent=1, allow_nan=False) + "\n"
    write_atomically(path.with_suffix(".json"), text.encode())
    return path


def load(path: str | Path) -> Learngene:
    """Read a saved learngene. The card is read and checked first; it says how much more is read.

    Args:
        path: a ``learngene.safetensors``, or ``hf://OWNER/NAME`` of the hub (``gene.hub``).

    Raises:
        InputError: a file is missing, too large or cannot be read, the card is none of a learngene
            that can be, the sha256 is not the card's, an array is missing or has another shape;
            the hub cannot be asked.
    """
    path, card_path = _located(path)
    try:
        card = read_card(read_json(card_path, CARD_LIMIT), where=str(path))
        packed = load_tensors(read_limited(path, card.bytes + HEADER_LIMIT))
        if sum(array.size for array in packed.values()) > 2 * card.parameters:  # with all scales
            raise refuse(str(path), "it holds more numbers than its card says")
        arrays = unpack(packed)
    except InputError:
        raise
    # KeyError: a number format that NumPy does not have.
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise refuse(str(path), f"not a learngene: {str(error)[:200]}") from error
    check(card, arrays, where=str(path))
    return Learngene(card, arrays)


def _located(path: str | Path) -> tuple[Path, Path]:
    """Where a saved learngene and its card lie, as ``load`` takes it; what the hub has is fetched.

    Raises:
        InputError: one of the two is not there; the hub cannot be asked.
    """
    if name := re.fullmatch(r"hf:/{1,2}(.+)", os.fspath(path)):  # ``Path`` takes a slash away
        from learngene.gene.hub import download  # its client is half a second

        path = download(f"hf://{name[1]}")
    path = card_path = expand_user(path)
    if is_file(path):  # what is no file need not have a name
        card_path = path.with_suffix(".json")
    if not is_file(card_path):
        fix = "Name the learngene.safetensors of a finished run; its .json lies beside it"
        problem = "a folder" if is_folder(path) else f"{card_path} does not exist"
        raise InputError("learngene.path", path, problem, fix)
    return path, card_path


def check(card: Card, arrays: dict[str, np.ndarray], where: str) -> None:
    """Raise InputError unless ``arrays`` are what ``card`` says, which ``read_card`` has read."""
    if problem := shape_problem({n: a.shape for n, a in arrays.items()}, card.shapes):
        raise refuse(where, problem)
    for name, array in sorted(arrays.items()):
        if array.dtype != np.float32:
            raise refuse(where, f"array {name} holds {array.dtype}, float32 is due")
        if not np.isfinite(array).all():
            raise refuse(where, f"array {name} holds numbers that are not finite")
        if name.endswith("running_var") and (array < 0).any():
            raise refuse(where, f"array {name} holds variances below 0")
    if digest(arrays, asdict(card)) != card.sha256:
        problem = "the sha256 of card and arrays is not the one that the card names"
        raise refuse(where, problem)


def reconstruct(
    gene: Learngene,
    *,
    ways: int,
    head: str = "prototype",
    generator: torch.Generator | None = None,
) -> Individual:
    """RECONSTRUCT of Algorithm 1: an individual around the learngene.

    Layers and projection come from the gene, of several projections the deepest (``gene.prefix``
    has the others) and those that are joined to it; a ``fresh`` stem is drawn at random.

    Args:
        ways: number of classes of the task.
        head: ``prototype`` (zeros until ``start`` gives it class means) or ``mlp`` (the paper's).
        generator: of what is not inherited; None = one of the seed 0.

    Raises:
        InputError: when an array does not fit the individual, or there is no such head.
    """
    card, arrays = gene.card, gene.arrays
    # A card that was forged could leave a part of the individual at its random start.
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    if problem := misfit(card, shapes):
        raise refuse(card.sha256[:12], problem)
    tops = [shapes[f"top.{i}.conv.weight"] for i in range(gene.inherited)]
    individual = Individual(
        inherited=gene.inherited,
        ways=ways,
        width=card.width,
        head=head,
        generator=generator or torch_generator(0, "reconstruct"),
        channels=card.channels,
        c_in=tops[0][1],
        top_widths=tuple(shape[0] for shape in tops),
        front=card.front(shapes),
        block=card.block or "plain",
    )
    load_arrays(individual, arrays)
    return individual


def inherited_modules(individual: Individual) -> list[nn.Module]:
    """The modules that the retain loss holds: conv and norm of every inherited layer."""
    return [part for unit in individual.top for part in (unit.conv, unit.norm)]
