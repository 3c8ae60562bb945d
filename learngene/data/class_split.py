"""Which classes are base, open-world and novel: published lists, or drawn by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learngene.data.class_lists import LISTS, class_list
from learngene.data.dataset import ClassSplit
from learngene.data.settings import SeededDataSettings
from learngene.errors import InputError
from learngene.seeding import generator


def unusable(settings: SeededDataSettings, problem: str, fix: str) -> InputError:
    """The error for images that cannot be used, with the setting that says where they come from."""
    if settings.root is None and settings.download:
        return InputError("data.download", True, problem, fix)
    return InputError("data.root", settings.root, problem, fix)


def named_class_split(settings: SeededDataSettings, class_names: Sequence[str]) -> ClassSplit:
    """The published split of a named data set, as indices of ``class_names``.

    Raises:
        InputError: a listed class is missing, one is there that the lists do not have, or one is
            named twice.
    """
    name = settings.name
    groups = [group.split() for group in LISTS[name]]
    listed, present = set(class_list(name)), set(class_names)
    for lacks, names in (("lacks", listed - present), ("has the unknown", present - listed)):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
            problem = f"the source {lacks} class {shown} ({len(names)} of {len(listed)})"
            fix = f"Use {name}'s own class names, or data=imagefolder for other classes"
            raise unusable(settings, problem, fix)
    if len(class_names) > len(present):
        twice = sorted({each for each in class_names if class_names.count(each) > 1})
        problem = f"the source has class {twice[0]} twice ({len(twice)} such classes)"
        raise unusable(settings, problem, "Name every class once")
    index = {class_name: i for i, class_name in enumerate(class_names)}
    return ClassSplit(*(tuple(sorted(index[n] for n in group)) for group in groups))


def draw_class_split(classes: int, settings: SeededDataSettings) -> ClassSplit:
    """Divide ``classes`` by ``settings.base``, ``open_world`` and ``novel``, drawn by seed.

    Raises:
        InputError: a share is not above 0, they do not sum to 1, or a group would be empty.
    """
    shares = (settings.base, settings.open_world, settings.novel)
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        field, value = "data.base,data.open_world,data.novel", ",".join(f"{s:g}" for s in shares)
        problem = f"shares must be above 0 and sum to 1, they sum to {sum(shares):g}"
        raise InputError(field, value, problem, "Change them so that they do")
    # Largest remainder; rounded first because 0.29 * 100 is a little less than 29.
    exact = [round(share * classes, 6) for share in shares]
    sizes = [int(size) for size in exact]
    for i in sorted(range(3), key=lambda i: sizes[i] - exact[i])[: classes - sum(sizes)]:
        sizes[i] += 1
    if min(sizes) < 1:
        groups = f"{sizes[0]} base, {sizes[1]} open-world and {sizes[2]} novel"
        problem = f"{classes} classes divide into {groups}, each needs at least 1"
        fix = "Give more classes or change data.base, data.open_world and data.novel"
        if settings.name == "glyphs":
            raise InputError("data.classes", classes, problem, fix)
        raise unusable(settings, problem, fix)
    order = generator(settings.seed, "division").permutation(classes)
    parts = np.split(order, np.cumsum(sizes)[:2])
    return ClassSplit(*(tuple(sorted(part.tolist())) for part in parts))
