"""The transfer profile: what each depth of the collective is worth to classes that it has not seen.

Before a task is learned, its classes are unseen. Few-shot episodes of their training images are
answered by class means on the features of every prefix, as an individual answers before it is
trained: layer by layer and task by task, what inheriting so many layers is worth to somebody new.
It is a by-product of the sequence and looks at no novel class. ``learngene.layers=auto`` reads it,
and the paper's criterion is held against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from learngene.collective.records import TransferProfile
from learngene.collective.sampling import class_positions
from learngene.networks.projection import SHRINKAGE, discriminant
from learngene.seeding import generator

if TYPE_CHECKING:
    from learngene.collective.trainer import CollectiveTrainer

# Sizes at which the profile takes some hundredths of a task's training.
EPISODES, WAYS, SHOTS, QUERIES = 20, 5, 10, 30  # shots and queries: images a class

Table = NDArray[np.int64]


def measure_transfer(trainer: CollectiveTrainer, classes: Sequence[int]) -> TransferProfile | None:
    """The profile of the collective as it is now, on classes of its next task.

    Training is not touched: episodes are drawn from a generator of their own. Of tasks with few
    images half of each class's are shots. The projections are fitted on all exemplars and no
    other image: what a task may see of the classes gone by (definition 1).

    Returns:
        None where it is not defined: fewer than two classes with two images each, or no two known
        classes with exemplars, one of them with two.
    """
    unseen = [trainer.train_rows[c] for c in classes if len(trainer.train_rows[c]) > 1]
    known = [rows for rows in trainer.memory.values() if len(rows)]
    if len(unseen) < 2 or len(known) < 2 or max(map(len, known)) < 2:
        return None
    each = min(SHOTS + QUERIES, *(len(rows) for rows in unseen))
    ways, shots = min(WAYS, len(unseen)), min(SHOTS, each // 2)
    parts = [*(rows[:each] for rows in unseen), *known]
    chance = generator(trainer.settings.seed, "transfer-profile", round=len(trainer.stages))
    episodes = draw_episodes(len(unseen), each, ways, shots, chance)
    labels = class_positions(known)
    plain, projected = [], []
    for features in trainer.prefix_features(np.concatenate(parts)):
        seen, held = features.split([len(unseen) * each, len(labels)])
        plain.append(episode_accuracy(seen, *episodes))
        projection = discriminant(held, labels, SHRINKAGE)
        projected.append(episode_accuracy(projection(seen), *episodes))
    return TransferProfile(ways, shots, plain, projected)


def draw_episodes(
    classes: int, each: int, ways: int, shots: int, chance: np.random.Generator
) -> tuple[Table, Table]:
    """Positions of ``EPISODES`` episodes among images that lie class by class, ``each`` of one.

    Returns:
        Support (episodes, ways, shots) and queries (episodes, ways, each - shots).
    """
    drawn = []
    for _ in range(EPISODES):
        chosen = chance.choice(classes, ways, replace=False)
        drawn.append([each * c + chance.permutation(each) for c in chosen])
    table = np.array(drawn)
    return table[..., :shots], table[..., shots:]


@torch.no_grad()
def episode_accuracy(features: Tensor, support: Table, queries: Table) -> float:
    """Share of the queries that class means name right, 0..1.

    What ``PrototypeHead`` answers after its start, for all episodes at once: centring, lengths and
    cosines are sums of inner products, and images occur in many episodes.

    Args:
        features: (N, D).
        support: positions in ``features`` (episodes, ways, shots).
        queries: the same (episodes, ways, images).
    """
    normal = F.normalize(features)
    products = normal @ normal.T
    few, many = (torch.from_numpy(its.reshape(len(its), -1)) for its in (support, queries))
    rows = torch.cat([few, many], dim=1)
    with_few = products[rows[:, :, None], few[:, None]]  # (episodes, images, shots)
    with_centre = with_few.mean(2, keepdim=True)  # the centre: the mean of the support
    shown = few.shape[1]
    centre = with_centre[:, :shown].mean(1, keepdim=True)  # its squared length
    length = (1 - 2 * with_centre + centre).sqrt()
    others = [its[:, :shown].mT for its in (with_centre, length)]
    cosines = (with_few - with_centre - others[0] + centre) / (length * others[1])
    sums = cosines.unflatten(2, support.shape[1:]).sum(3)  # with the sum of each way's support
    own = sums[:, :shown].unflatten(1, support.shape[1:]).sum(2)  # (episodes, ways, ways)
    lengths = own.diagonal(dim1=1, dim2=2).sqrt()
    said = (sums[:, shown:] / lengths[:, None]).argmax(2).reshape(queries.shape)
    return float((said == torch.arange(support.shape[1])[:, None]).float().mean())


def weight_change(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], there: Mapping[str, Sequence[int]]
) -> list[float | None]:
    """|W' - W| / |W| of every layer, by name; None for one that was not there.

    Args:
        before: weights (C_out, C_in, 3, 3) before a task's training.
        after: those after it.
        there: shapes before the task's growth: channels that it has made lie behind and do not
            count, and neither does what it did to the others.
    """
    changes: list[float | None] = []
    for name, now in after.items():
        if name in there:
            own = slice(there[name][0]), slice(there[name][1])
            changes.append(float((now[own] - before[name][own]).norm() / before[name][own].norm()))
        else:
            changes.append(None)
    return changes


def late_mean(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Mean of every layer over the last third of the tasks, at least one.

    Args:
        rows: ``[task][layer]``; None where a task says nothing of a layer.
    """
    late = rows[-max(1, len(rows) // 3) :]
    known = [[x for x in values if x is not None] for values in zip(*late, strict=True)]
    return [fmean(values) if values else None for values in known]


def rank_correlation(
    worth: Sequence[float | None], predictor: Sequence[float | None]
) -> float | None:
    """Spearman's rank correlation over layers; None where either is constant or there are none."""
    pairs = [p for p in zip(worth, predictor, strict=True) if None not in p]
    if len(pairs) < 3 or any(len(set(values)) < 2 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
