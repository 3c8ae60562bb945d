"""A learngene on images of one's own, without a run: what a client does, as one call.

``adapt`` is the client half of the method ``learngene``: on a run's shard, with the run's settings
and seed, it gives the numbers of the run's client. ``adapt_folder`` reads the images, too, as a
node with ``data-root`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.adaptation.training import Outcome, features
from learngene.data.augment import still_views, to_batch
from learngene.data.own_images import read_own_images
from learngene.data.partition import ShardData, check_images
from learngene.data.sources.base import check_file
from learngene.data.sources.decode import Range, decode, is_wide, own_pixel_limit
from learngene.data.sources.folder import FILE_LIMIT, image_files
from learngene.errors import InputError
from learngene.gene.gene import Learngene
from learngene.gene.kept import DIVERGED, KeptIndividual, check_weights, describe_individual
from learngene.methods import learngene as method
from learngene.methods import scratch
from learngene.methods.base import ClientContext, generators
from learngene.networks.individual import Individual
from learngene.utils.files import expand_user, is_folder
from learngene.utils.hardware import pin_kernels
from learngene.utils.settings import check_settings
from learngene.utils.untrusted import first_problem

BATCH = 256  # images that are read before they are looked at
OF_A_RUN = ("stem", "bytes", "keep")  # settings of ``individual`` that only a run reads


def adapt(
    gene: Learngene,
    shard: ShardData,
    *,
    seed: int = 0,
    client: int = 0,
    individual: IndividualSettings | None = None,
    retain: RetainSettings | None = None,
) -> tuple[Individual, Outcome]:
    """An individual around ``gene``, trained on ``shard``; and its curves, the last epoch last.

    The paper's Algorithm 1: L_rec + lambda L_ret (Eq. 6 to 9). The work is done where the shard's
    tensors lie.

    Args:
        shard: images and labels, as ``shard_of`` makes them.
        seed: of everything that is drawn: weights, order and augmentation of the images, the
            sample for the Fisher information.
        client: which client of a run draws so.
        individual: classifier, training and safeguard; its stem is not read (the learngene brings
            one), nor how much a client takes. None: the defaults of a run.
        retain: the retain loss. None: the defaults of a run.

    Raises:
        InputError: the learngene does not fit the individual, a word is no choice, or a number is
            out of its range.
        ZeroFisher: ``retain.normalise`` finds a Fisher information that is zero everywhere.
        ArithmeticError: weights or curves are not finite.
        ValueError: the images have another number of channels than those it grew up on.
    """
    channels = shard.train_x.shape[1]
    if channels != gene.card.channels:
        raise ValueError(
            f"the learngene takes images of {gene.card.channels} channels, these have {channels}"
        )
    settings, trained = individual or IndividualSettings(), list[Individual]()
    context = ClientContext(
        settings=method.Settings(),
        payload=gene.arrays,
        shard=shard.with_views(mirror=settings.mirror_test, moved=settings.moved_views),
        device=shard.train_x.device,
        client=client,
        round=1,
        seed=seed,
        generator=generators(seed, "learngene", 1, client),
        individual=settings,
        retain=retain or RetainSettings(),
        card=gene.card.for_client(),
        scratch=scratch.Settings(),
        width=gene.card.width,
        block=gene.card.block or "plain",
        keep=trained.append,
    )
    outcome = method.adapt(context)
    check_weights(trained[-1])
    if not outcome.finite:
        raise ArithmeticError(DIVERGED)
    return trained[-1], outcome


def settings_from(words: Iterable[str]) -> tuple[IndividualSettings, RetainSettings]:
    """The defaults of a run, changed by ``individual.FIELD=VALUE`` and ``retain.FIELD=VALUE``.

    Raises:
        InputError: there is no such setting, only a run reads it, or it cannot have this value.
    """
    plain = {"individual": asdict(IndividualSettings()), "retain": asdict(RetainSettings())}
    for word in words:
        name, _, text = word.partition("=")
        group, _, field = name.partition(".")
        if field not in plain.get(group, {}) or field in OF_A_RUN:
            known = [f"{g}.{n}" for g, those in plain.items() for n in those if n not in OF_A_RUN]
            raise InputError(name, text, "no such setting here", f"There are {', '.join(known)}")
        # A text stays one (retain.labels=true); pydantic reads numbers and truth values.
        untyped = plain[group][field] is None or text == "null"
        try:
            plain[group][field] = yaml.safe_load(text) if untyped else text
        except (ValueError, RecursionError, yaml.YAMLError):  # a date that is none, [[[...
            raise InputError(name, text, "cannot be read", "Write a number, or null") from None
    try:
        made = (
            TypeAdapter(IndividualSettings).validate_python(plain["individual"]),
            TypeAdapter(RetainSettings).validate_python(plain["retain"]),
        )
    except ValidationError as error:
        raise InputError("SETTING=VALUE", "", first_problem(error), "Write another value") from None
    for group, settings in zip(plain, made, strict=True):
        check_settings(settings, f"{group}.")
    return made


def adapt_folder(
    gene: Learngene,
    root: str | Path,
    *,
    seed: int = 0,
    client: int = 0,
    split_seed: int = 0,
    test_share: float = 0.2,
    value_range: list[float] | None = None,
    flip: bool = True,
    individual: IndividualSettings | None = None,
    retain: RetainSettings | None = None,
) -> tuple[KeptIndividual, Outcome, tuple[str, ...]]:
    """``adapt`` on class folders; what came of it, its curves, and notes on the images.

    Args:
        root: class folders, as ``learngene.data.own_images.read_own_images`` takes them.
        split_seed: its ``seed``, of the split into training and test images.
        test_share: of each class, where the folders do not say.
        value_range: as ``read_own_images`` takes it.
        flip: whether a mirrored image keeps its class.
        individual: ``depth`` of it is how many of the learngene's layers are taken.

    Raises:
        InputError: as ``adapt`` and ``read_own_images``, or the learngene's card does not say what
            size its images had.
    """
    settings, side = individual or IndividualSettings(), gene.card.image_side
    if side is None:
        fix = "Take the learngene from a run of this release"
        raise InputError("GENE", gene.card.sha256[:12], "its card names no image size", fix)
    gene = gene.deepest if settings.depth is None else gene.prefix(settings.depth)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pin_kernels(device)
    root = expand_user(root)
    own = read_own_images(
        root, side=side, test_share=test_share, seed=split_seed, value_range=value_range
    )
    shard = own.shard(flip=flip, device=device)
    trained, outcome = adapt(
        gene, shard, seed=seed, client=client, individual=settings, retain=retain
    )
    kept = describe_individual(
        trained,
        class_names=own.class_names,
        image_side=side,
        mirror=settings.mirror_test and flip,
        moved=settings.moved_views,
        value_range=own.value_range,
        accuracy=outcome.accuracy[-1],
        images=(len(shard.train_x), len(shard.test_x)),
        learngene_sha256=gene.card.sha256,
    )
    return kept, outcome, own.notes


def predict(
    individual: Individual, images: np.ndarray, *, mirror: bool = False, moved: bool = False
) -> np.ndarray:
    """The class of each image, (N, H, H, C) uint8 -> (N,), counted from 0 as in the shard.

    As ``probabilities``.
    """
    return probabilities(individual, images, mirror=mirror, moved=moved).argmax(1)


def probabilities(
    individual: Individual, images: np.ndarray, *, mirror: bool = False, moved: bool = False
) -> np.ndarray:
    """Of each class, (N, H, H, C) uint8 -> (N, ways) float32.

    Args:
        mirror: look at the mirror image, too, as ``individual.mirror_test`` does in ``adapt``.
        moved: look at moved ones, too, as ``individual.moved_views`` does.

    Raises:
        ValueError: the images are not of this form, or have another number of channels.
    """
    check_images("images", images)
    channels = individual.channels
    if images.shape[3] != channels:
        raise ValueError(
            f"the individual takes images of {channels} channels, these have {images.shape[3]}"
        )
    device = next(individual.parameters()).device
    x = to_batch(images, device)
    with torch.no_grad():
        seen = still_views(x, mirror=mirror, moved=moved)
        views = [individual.head(features(individual, view)) for view in seen]
    return torch.stack(views).softmax(2).mean(0).cpu().numpy()


def files_in(paths: Iterable[str | Path]) -> list[Path]:
    """Image files: those named, and those below the folders that are named.

    Raises:
        InputError: one is not there or no file that may be read, or there is no image.
    """
    found: list[Path] = []
    for path in map(expand_user, paths):
        if is_folder(path):
            found += image_files(path)
        elif not path.exists():
            raise InputError("IMAGES", path, "no such file or folder", "Check the path")
        else:
            check_file(path, FILE_LIMIT)
            found.append(path)
    if not found:
        raise InputError("IMAGES", " ".join(map(str, paths)), "no image there", "Name another")
    return found


@own_pixel_limit()
def read_images(kept: KeptIndividual, files: Iterable[Path]) -> np.ndarray:
    """Files as the individual takes them: uint8 (N, side, side, 3).

    Raises:
        InputError: one does not decode, or is of more bits than it was trained on.
    """
    card = kept.card
    if card.channels != 3:
        problem = f"it takes images of {card.channels} channels, files are read as three"
        raise InputError("INDIVIDUAL", card.channels, problem, "Give it arrays: learngene.predict")
    return np.stack([_pixels(file, card.image_side, card.value_range) for file in files])


def _pixels(file: Path, side: int, value_range: Range | None) -> np.ndarray:
    if value_range is None and is_wide(file):
        problem = "more than 8 bits a value, and the individual was trained on images of 8"
        raise InputError("IMAGES", file, problem, "Convert it as those were")
    return decode(file, side, str(file), value_range)


def name_files(
    kept: KeptIndividual, paths: Iterable[str | Path]
) -> Iterator[tuple[Path, str, float]]:
    """Each image file (``files_in``) with the name of its class and that class's probability."""
    found = files_in(paths)
    for first in range(0, len(found), BATCH):
        files = found[first : first + BATCH]
        images = read_images(kept, files)
        shares = probabilities(
            kept.individual, images, mirror=kept.card.mirror, moved=kept.card.moved
        )
        for file, each in zip(files, shares, strict=True):
            yield file, kept.card.class_names[each.argmax()], float(each.max())
