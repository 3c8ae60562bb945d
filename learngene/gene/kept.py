"""What a client keeps: its trained individual as safetensors, and a card of it beside.

Nothing of it travels. The card says what the network is built by, whose classes it names and how
images are brought to it, so that it is used without the learngene, the shard or Flower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError

from learngene.data.augment import CENTRE, SPREAD
from learngene.data.sources.decode import Range
from learngene.errors import InputError
from learngene.gene.card import (
    ARRAYS_LIMIT,
    CARD_LIMIT,
    HEADER_LIMIT,
    WIDTH_LIMIT,
    ImageSide,
    Share,
)
from learngene.networks.individual import DEPTH_LIMIT, HEADS, Form, Front, Individual, Whole
from learngene.networks.layers import BLOCKS, CHANNELS_LIMIT, LAYERS, shape_problem, state_of
from learngene.seeding import torch_generator
from learngene.utils.checkpoint import read_checkpoint, write_checkpoint
from learngene.utils.files import check_writable, expand_user, is_file
from learngene.utils.untrusted import first_problem, read_json

SCHEMA = 1
CLASSES_LIMIT = 100_000
NAME_LIMIT = 1000  # characters of a class's name
DIVERGED = "the training is not finite: lower individual.lr or individual.inherited_lr"
Channels = Annotated[Whole, Field(ge=1, le=CHANNELS_LIMIT)]
Count = Annotated[Whole, Field(ge=1)]
Number = Annotated[float, Strict()]


@dataclass(frozen=True)
class IndividualCard:
    """An individual's form, its classes, and how an image is brought to it."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    # class i of the network's answers; names are the node's own
    class_names: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=NAME_LIMIT)]],
        Field(min_length=2, max_length=CLASSES_LIMIT),
    ]
    image_side: ImageSide  # rows and columns
    mirror: bool  # an image and its mirror image are looked at together
    value_range: tuple[Number, Number] | None  # of images of more than 8 bits: what is 0 and 255
    learngene_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None  # None: from scratch
    accuracy: Share  # on the shard's test images
    train_images: Count
    test_images: Count
    # What the network is built by: ``networks.individual.Form``.
    width: Annotated[float, Strict(), Field(gt=0, le=WIDTH_LIMIT)]
    head: Annotated[str, Field(pattern=f"^({'|'.join(HEADS)})$")]
    inherited: Annotated[Whole, Field(ge=0, le=DEPTH_LIMIT)]
    channels: Annotated[Whole, Field(ge=1, le=16)]  # of the images
    c_in: Channels | None
    top_widths: Annotated[tuple[Channels, ...], Field(max_length=DEPTH_LIMIT)] | None
    front: Front | None
    block: Annotated[str, Field(pattern=f"^({'|'.join(BLOCKS)})$")] = "plain"
    moved: bool = False  # an image and itself moved to four sides are looked at together
    # Images come as (value - centre) / spread of values 0 to 255.
    centre: Annotated[float, Strict(), Field(ge=CENTRE, le=CENTRE)] = CENTRE
    spread: Annotated[float, Strict(), Field(ge=SPREAD, le=SPREAD)] = SPREAD
    schema: Annotated[Whole, Field(ge=SCHEMA, le=SCHEMA)] = SCHEMA

    @property
    def ways(self) -> int:
        """Number of classes."""
        return len(self.class_names)


CARD = TypeAdapter(IndividualCard)


@dataclass(frozen=True)
class KeptIndividual:
    """A trained individual and its card."""

    individual: Individual
    card: IndividualCard


def describe_individual(
    individual: Individual,
    *,
    class_names: Sequence[str],
    image_side: int,
    mirror: bool,
    moved: bool,
    accuracy: float,
    images: tuple[int, int],
    learngene_sha256: str | None,
    value_range: Range | None = None,
) -> KeptIndividual:
    """An individual with its card.

    Args:
        images: of the shard, for training and for test.
        learngene_sha256: of the learngene it was given; it is named where the network has one.
    """
    form = vars(individual.form)
    card = IndividualCard(
        class_names=list(class_names),
        image_side=image_side,
        mirror=mirror,
        moved=moved,
        value_range=value_range,
        learngene_sha256=learngene_sha256 if form["inherited"] else None,
        accuracy=accuracy,
        train_images=images[0],
        test_images=images[1],
        **{name: value for name, value in form.items() if name != "ways"},
    )
    return KeptIndividual(individual, card)


def check_weights(individual: Individual) -> None:
    """Hold that a training has not diverged.

    Raises:
        ArithmeticError: a weight is not finite.
    """
    if not all(value.isfinite().all() for value in state_of(individual).values()):
        raise ArithmeticError(DIVERGED)


def check_path(path: str | Path) -> Path:
    """``path``, with its home, where ``save_individual`` can write it; to ask before a training.

    Raises:
        InputError: it has another suffix, or no file can be written there.
    """
    path = expand_user(path)
    if path.suffix != ".safetensors":
        problem, fix = "an individual is a .safetensors file", f"Write {path}.safetensors"
        raise InputError("INDIVIDUAL", path, problem, fix)
    check_writable(path, "INDIVIDUAL")
    return path


def save_individual(kept: KeptIndividual, path: str | Path) -> Path:
    """Write ``path`` (``.safetensors``) and its card ``.json``, which is last; returns the former.

    Raises:
        InputError: as ``check_path``.
        ArithmeticError: a weight is not finite, as after a training that diverged.
        OSError: it cannot be written to the end.
    """
    path = check_path(path)
    check_weights(kept.individual)
    write_checkpoint(path.with_suffix(""), state_of(kept.individual), asdict(kept.card))
    return path


def load_individual(path: str | Path) -> KeptIndividual:
    """Read what ``save_individual`` has written; on the CPU, in evaluation mode.

    The card is read first, and says how much more is read.

    Raises:
        InputError: a file is missing, too large or cannot be read, the card is none of an
            individual that can be, or the arrays are not those of the card.
    """
    path = expand_user(path)
    if not is_file(path) or not is_file(path.with_suffix(".json")):
        problem, fix = "no such file, or its .json does not lie beside it", "Check the path"
        raise InputError("INDIVIDUAL", path, problem, fix)
    try:
        plain = read_json(path.with_suffix(".json"), CARD_LIMIT)
        if isinstance(plain, dict):
            plain.pop("sha256", None)  # ``read_checkpoint`` looks at it
        card = CARD.validate_python(plain)
        with torch.device("meta"):  # shapes alone: no memory is taken
            due = {name: value.shape for name, value in state_of(_build(card)).items()}
        size = 4 * sum(shape.numel() for shape in due.values())
        if size > ARRAYS_LIMIT:
            raise ValueError(f"{size:,} bytes of arrays, at most {ARRAYS_LIMIT:,} are read")
        limits = (CARD_LIMIT, size + HEADER_LIMIT)
        found = read_checkpoint(path.with_suffix(""), limits=limits)
        if found is None:
            raise ValueError("the two files are not what was written together")
        state = found[0]
        shapes = {name: value.shape for name, value in state.items()}
        if (misfit := shape_problem(shapes, due)) is not None:
            raise ValueError(misfit)
        for name, value in state.items():
            if value.dtype != torch.float32 or not value.isfinite().all():
                raise ValueError(f"array {name} holds other numbers than finite float32")
            if name.endswith("running_var") and (value < 0).any():
                raise ValueError(f"array {name} holds variances below 0")
    except ValidationError as error:
        raise _refuse(path, f"its card's {first_problem(error)}") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise _refuse(path, str(error)[:200]) from error
    individual = _build(card)
    individual.load_state_dict(state, strict=False)  # all but the norms' batch counters
    return KeptIndividual(individual.eval(), card)


def _refuse(path: Path, problem: str) -> InputError:
    fix = "Copy the file and its .json again from the node that made them"
    return InputError("INDIVIDUAL", path, f"not an individual: {problem}", fix)


def _build(card: IndividualCard) -> Individual:
    if card.front is None and card.inherited >= LAYERS:
        raise ValueError(f"{card.inherited} inherited layers, behind a stem there are 6 at most")
    if len(card.top_widths or ()) != (card.inherited if card.top_widths is not None else 0):
        raise ValueError(f"{card.inherited} inherited layers have {card.top_widths} channels")
    if card.front is not None:
        if card.image_side >> len(card.front.pools) == 0:
            raise ValueError(
                f"{len(card.front.pools)} pools, of side {card.image_side} none is left"
            )
        depths = [each.depth for each in card.front.joined]
        if depths != sorted({*depths}) or (depths and depths[-1] >= card.inherited):
            raise ValueError(f"joined {depths} are no rising depths below {card.inherited}")
        if depths and card.front.dimensions is None:
            raise ValueError(f"joined {depths} stand beside no projection")
    form = {each.name: getattr(card, each.name) for each in fields(Form)}
    return Individual(**form, generator=torch_generator(0, "kept"))
