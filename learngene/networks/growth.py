"""Growth of the collective (figure 2, Eq. 1): layers widen, and layers are copied after themselves.

Both operations are pure: they return a grown copy and leave their argument as it is (a copy costs
the memory of the weights once a growth step, nothing beside a task's training). In evaluation mode
the function before and after is the same up to rounding.

**Widen.** A copied channel gives the same activations as its original. The n equal channels (the
original and its copies) share its outgoing weights in random parts a_j > 0 of sum 1, so that the
next layer sees the same sum (Net2WiderNet, Chen et al. 2016). Their filters' gradients are a_j
times the original's: equal parts would give copies equal gradients, and they would never part.
They part faster with ``noise``: random weights beside their part, ``noise`` times as large as those
of the next layer and of sum 0 over the n, so that gradients do not even point the same way.
All n leave BatchNorm scaled by 1/sqrt(n) and enter the next layer scaled by a_j sqrt(n): so that
layer's step, a sum over the n, is as large as before. In front of BatchNorm filters may have any
length; theirs becomes 1/sqrt(n) of what it was, as He initialisation has it at the new width, for a
step turns a filter by lr |gradient| / |filter|, and their gradients are 1/n. Behind the last layer
stands a classifier of cosines, which is kept if the lengths of features and of class weights are,
too; there out and in are both sqrt(a_j).

**Deepen.** Figure 2 copies a layer after itself. A copy with the same filters would not keep the
function, so the inserted layer starts as the identity (Net2DeeperNet, Chen et al. 2016): a Dirac
kernel, a BatchNorm that undoes its own running statistics, and a ReLU, which changes nothing after
a ReLU. What makes it a copy is the noise: ``noise`` times the copied layer's filters lies on the
Dirac kernel, so that the optimiser finds their features there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learngene.errors import InputError
from learngene.networks.collective import COLLECTIVE_END, COLLECTIVE_START, Collective
from learngene.networks.layers import CHANNELS_LIMIT, Unit, scaled
from learngene.utils.untrusted import is_int_in_range

# The released code's 20 steps between 21 tasks: (layer, channels added at width 1).
STEPS: tuple[tuple[int, int], ...] = (
    *((layer, 64) for layer in (3, 4, 5, 5, 6, 6, 7, 7)),
    *((layer, 128) for layer in (8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13)),
)
PARTS = (0.5, 1.5)  # how unequal the copies of a channel are, before their parts sum to 1
COPIES = "bcdefghijklmnopqrstuvwxyz"  # the names of a layer's copies: 5b, 5c, ...


@dataclass(frozen=True)
class Growth:
    """One step before ``task`` (counted from 0): the layer called ``layer`` (``5``, or ``5b`` for
    its first copy) grows to ``width`` channels, or with None is copied after itself."""

    task: int
    layer: str
    width: int | None


@dataclass(frozen=True)
class PlannedStep:
    """One entry of a growth plan as it is written: see ``read_plan``."""

    task: int  # counted from 1, at least 2: growth precedes the task
    layer: str
    widen_by: int | None  # channels at width 1; None: deepen


def growth_plan(tasks: int, scale: float, *, grow: bool) -> tuple[tuple[int, ...], list[Growth]]:
    """Widths at the start, and the widenings between ``tasks`` tasks.

    The 20 steps are spread evenly over the transitions, in the released code's order. Without
    growth, or with one task, the collective has its final widths from the start.
    """
    if not grow or tasks < 2:
        return scaled(COLLECTIVE_END, scale), []
    planned = [
        PlannedStep(2 + number * (tasks - 1) // len(STEPS), str(layer), channels)
        for number, (layer, channels) in enumerate(STEPS)
    ]
    return written_plan(planned, tasks, scale)


def read_plan(items: Any, where: str) -> tuple[PlannedStep, ...]:
    """A growth plan from what a YAML file holds: a list of steps, in the order of their tasks.

    A step is ``{task, layer, widen_by: CHANNELS}`` or ``{task, layer, deepen: true}``. Tasks are
    counted from 1 and growth precedes its task, so 2 is the first. ``layer`` is a number of the
    paper's 13, or the name of a copy: ``5b`` is the first copy of layer 5, ``5c`` the second.
    ``widen_by`` counts channels at ``collective.width=1``. Steps of one task keep their order.

    Raises:
        InputError: naming ``collective.growth``, the file ``where`` and the entry that is wrong.
    """

    if not isinstance(items, list) or not items:
        problem = "a plan is a list of at least one step"
        fix = "conf/growth/deepen.yaml is an example"
        raise InputError("collective.growth", where, problem, fix)
    for number, item in enumerate(items, start=1):
        for holds, problem, fix in _step_rules(item):
            if not holds:
                raise InputError("collective.growth", where, f"step {number}: {problem}", fix)
    steps = [PlannedStep(item["task"], str(item["layer"]), item.get("widen_by")) for item in items]
    return tuple(sorted(steps, key=lambda step: step.task))


def _step_rules(item: Any) -> Iterator[tuple[bool, str, str]]:
    """What a step has to be, each rule with its problem and fix; later ones build on earlier."""
    example = "Write - {task: 2, layer: 5, deepen: true}"
    yield isinstance(item, Mapping), f"{item!r} is no step", example
    unknown = sorted({str(key) for key in item} - {"task", "layer", "widen_by", "deepen"})
    fix = "The keys are task, layer, and widen_by or deepen"
    yield not unknown, f"there is no key {', '.join(unknown[:1])}", fix
    for key in ("task", "layer"):
        yield key in item, f"it has no {key}", f"Give it one: {key}: 2"
    deepens, task, channels = "deepen" in item, item["task"], item.get("widen_by")
    problem = "a step has either widen_by or deepen"
    yield deepens != ("widen_by" in item), problem, "Split it, or name one"
    number = isinstance(task, int) and not isinstance(task, bool)
    yield number, f"task {task!r} is no number", "Count tasks from 1"
    problem = f"widen_by {str(channels)[:40]} is no number of channels"
    fix = f"Write a whole number from 1 to {CHANNELS_LIMIT}"
    yield deepens or is_int_in_range(channels, 1, CHANNELS_LIMIT), problem, fix
    fix = "Write deepen: true, or no such step"
    yield item.get("deepen", True) is True, f"deepen {item.get('deepen')!r}", fix


def planned_names(steps: Sequence[PlannedStep]) -> list[str]:
    """The layers' names at the end of a plan, lowest first.

    Raises:
        InputError: a step names a layer that is not there, or makes one copy too many.
    """
    names = [str(n) for n in range(1, len(COLLECTIVE_START) + 1)]
    for number, step in enumerate(steps, start=1):
        _grow_names(names, step, number)
    return names


def insert_copy(names: list[str], layer: int) -> str:
    """Put the name of a new copy of ``layer`` (counted from 1) after it; returns that name.

    Raises:
        ValueError: after 25 copies of one layer of the paper's.
    """
    root = names[layer - 1].rstrip(COPIES)
    copies = sum(name.rstrip(COPIES) == root for name in names) - 1
    if copies == len(COPIES):
        raise ValueError(f"layer {root} has {copies} copies: there are no names for more")
    names.insert(layer, root + COPIES[copies])
    return names[layer]


def _grow_names(names: list[str], step: PlannedStep, number: int) -> str:
    """Follow a step in the layers' names; returns the name of the layer that is wider or new."""
    if step.layer not in names:
        problem = f"there is no such layer by then, there are {names}"
        fix = "Layers are 1 to 13; 5b is the first copy of layer 5"
        raise _illegal(number, step, problem, fix)
    if step.widen_by is not None:
        return step.layer
    try:
        return insert_copy(names, names.index(step.layer) + 1)
    except ValueError as error:
        raise _illegal(number, step, str(error), "Deepen another layer") from error


def _illegal(number: int, step: PlannedStep, problem: str, fix: str) -> InputError:
    kind = "deepen" if step.widen_by is None else f"widen by {step.widen_by}"
    where = f"task {step.task}, layer {step.layer}, {kind}"
    return InputError("collective.growth", where, f"step {number} of the plan: {problem}", fix)


def written_plan(
    steps: Sequence[PlannedStep], tasks: int, scale: float
) -> tuple[tuple[int, ...], list[Growth]]:
    """Widths at the start, and the steps of a plan, held to what can be grown.

    The collective starts with the paper's narrow widths and ends with what the plan makes of them.

    Raises:
        InputError: for the first step whose task or layer does not exist or that is too wide.
    """
    widths = {str(n): width for n, width in enumerate(COLLECTIVE_START, 1)}
    start, names = scaled(COLLECTIVE_START, scale), list(widths)
    plan = []
    for number, step in enumerate(steps, start=1):
        if not 2 <= step.task <= tasks:
            problem = f"growth precedes one of the tasks 2 to {tasks}"
            fix = "Change the step's task, or collective.classes_per_task"
            raise _illegal(number, step, problem, fix)
        name = _grow_names(names, step, number)
        if step.widen_by is None:
            widths[name] = widths[step.layer]
            plan.append(Growth(step.task - 1, step.layer, None))
            continue
        widths[name] += step.widen_by
        (width,) = scaled((widths[name],), scale)
        if width > CHANNELS_LIMIT:
            problem = f"{width} channels, at most {CHANNELS_LIMIT} are grown"
            raise _illegal(number, step, problem, "Widen it by less")
        plan.append(Growth(step.task - 1, name, width))
    return start, plan


def widen(
    collective: Collective,
    layer: int,
    width: int,
    generator: np.random.Generator,
    noise: float = 0.0,
) -> Collective:
    """A copy of ``collective`` whose ``layer`` (counted from 1) has ``width`` channels.

    Randomly chosen channels, none twice as long as others have no copy yet, are copied and spliced
    to the end; the function is kept, in training mode too.

    Args:
        noise: of copies' outgoing weights, in standard deviations of the next layer's. Behind the
            last layer, where class weights keep their lengths, there is none.

    Raises:
        ValueError: when ``width`` is smaller than the layer is.
    """
    old = collective.units[layer - 1].conv.out_channels
    if width < old:
        raise ValueError(f"layer {layer} has {old} channels and cannot widen to {width}")
    collective = copy.deepcopy(collective)
    units = collective.units
    unit = units[layer - 1]
    rounds = [generator.permutation(old) for _ in range(old, width, old)]
    index = torch.from_numpy(np.concatenate([np.arange(old), *rounds])[:width])
    copies = torch.bincount(index)[index].double()
    part = torch.from_numpy(generator.uniform(*PARTS, width))
    part = part / torch.bincount(index, weights=part)[index]

    filters = unit.conv.weight.data[index]
    _set_weight(unit.conv, filters * copies.rsqrt().to(filters).view(-1, 1, 1, 1))
    unit.conv.out_channels = width
    if layer < len(units):
        _splice_norm(unit.norm, index, copies, copies.rsqrt())
        above = units[layer].conv
        inputs = (part * copies.sqrt()).to(above.weight).view(1, -1, 1, 1)
        weight = above.weight.data[:, index] * inputs
        if noise > 0:
            size = noise * above.weight.data.std()
            weight += size * cancelling(weight, index, copies, generator)
        _set_weight(above, weight)
        above.in_channels = width
    else:
        _splice_norm(unit.norm, index, copies, part.sqrt())
        head = collective.head
        head.weight = nn.Parameter(head.weight.data[:, index] * part.sqrt().to(head.weight))
    return collective


def cancelling(
    like: Tensor, index: Tensor, copies: Tensor, generator: np.random.Generator
) -> Tensor:
    """Normal numbers of variance 1 for each weight (C_out, C_in, 3, 3), minus the mean over the
    input channels that are copies of one: 0 where there is no copy. On the device of ``like``.

    Args:
        index: of each input channel, the one that it is a copy of (C_in,).
        copies: how many are copies of the same (C_in,).
    """
    drawn = torch.from_numpy(generator.standard_normal(tuple(like.shape))).to(like)
    total = torch.zeros_like(drawn).index_add_(1, index.to(drawn.device), drawn)  # at the originals
    return drawn - (total / copies.to(drawn).view(1, -1, 1, 1))[:, index]


def deepen(
    collective: Collective, layer: int, generator: np.random.Generator, noise: float = 0.0
) -> Collective:
    """A copy of ``collective`` with one layer more, a copy of ``layer`` (counted from 1) after it.

    The inserted layer starts as the identity, plus ``noise`` times the copied layer's filters. If
    these take fewer channels than the layer gives, random ones are spliced to them; if they take
    more, random ones are left out. A pool of the layer moves to its copy. The inserted BatchNorm's
    running statistics are those of a rectified normal variable, which is what the layer in front
    gives by its own BatchNorm; its affine part undoes them. So the identity holds exactly in
    evaluation mode. In training mode it does not, since a batch's own statistics take their place:
    five layers inserted into random networks moved logits of standard deviation 2.1 to 2.7 by up to
    1.4 to 2.6.
    """
    collective = copy.deepcopy(collective)
    unit = collective.units[layer - 1]
    copied = unit.conv.weight.data
    c_out, c_in = copied.shape[:2]
    inserted = Unit(c_out, c_out, pool=unit.pool).to(copied)
    weight = nn.init.dirac_(torch.empty(c_out, c_out, 3, 3)).to(copied)
    if noise > 0:
        more = generator.choice(c_in, max(c_out - c_in, 0), replace=c_out > 2 * c_in)
        inputs = np.arange(c_in) if c_out >= c_in else generator.permutation(c_in)[:c_out]
        weight += noise * copied[:, torch.from_numpy(np.concatenate([inputs, more]))]
    _set_weight(inserted.conv, weight)
    _undo_statistics(inserted.norm, unit.norm)
    unit.pool = False
    inserted.train(collective.training)
    collective.units.insert(layer, inserted)
    insert_copy(collective.names, layer)
    return collective


def _undo_statistics(norm: nn.BatchNorm2d, before: nn.BatchNorm2d) -> None:
    """Make ``norm`` the identity on its running statistics: those of relu(x), x ~ N(b, g^2).

    ``before`` gives x, with b its bias and g its weight, as far as its own statistics hold:
    E = g phi(b/g) + b Phi(b/g) and E2 = (b^2 + g^2) Phi(b/g) + b g phi(b/g).
    """
    b = before.bias.data
    g = before.weight.data.abs().clamp_min(1e-6)
    density = torch.exp(-0.5 * (b / g) ** 2) / math.sqrt(2 * math.pi)
    below = 0.5 * torch.erfc(-b / g / math.sqrt(2))
    mean = g * density + b * below
    variance = ((b**2 + g**2) * below + b * g * density - mean**2).clamp_min(0)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.data.copy_((variance + norm.eps).sqrt())
    norm.bias.data.copy_(mean)


def _splice_norm(norm: nn.BatchNorm2d, index: Tensor, copies: Tensor, factor: Tensor) -> None:
    """Copy channels behind filters of 1/sqrt(copies) the length; ``factor`` scales what leaves."""
    scale, shorter = factor.to(norm.weight), copies.rsqrt().to(norm.weight)
    norm.weight = nn.Parameter(norm.weight.data[index] * scale)
    norm.bias = nn.Parameter(norm.bias.data[index] * scale)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean = norm.running_mean[index] * shorter
    # sqrt(variance + eps) shrinks exactly as the filters do
    variance = (norm.running_var[index] + norm.eps) * shorter**2 - norm.eps
    norm.running_var = variance.clamp_min(0)
    norm.num_features = len(index)


def _set_weight(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
