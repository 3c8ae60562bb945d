"""Which classes are base, open-world and novel: the paper's lists, or drawn by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learngene.data.dataset import ClassSplit
from learngene.data.settings import SeededDataSettings
from learngene.errors import InputError
from learngene.seeding import generator

# The paper's appendix A.1.2. Its list of base classes names 65, one of them also open-world;
# 64/16/20 is the class split without that overlap (docs/FIDELITY.md).
PAPER: dict[str, tuple[str, str, str]] = {  # name -> base, open-world, novel
    "cifar100": (
        """apple aquarium_fish bear bee bottle bowl boy bridge bus can castle caterpillar chair
        clock cloud cockroach couch cup dinosaur dolphin elephant forest girl hamster house
        kangaroo keyboard lawn_mower lion lizard lobster mountain mouse mushroom oak_tree
        orange orchid palm_tree pear pine_tree plate porcupine possum rabbit raccoon ray
        road seal shrew skunk skyscraper snake spider squirrel streetcar sunflower tank
        tiger train trout tulip turtle willow_tree wolf""",
        """beetle beaver butterfly camel cattle crab crocodile flatfish lamp maple_tree
        motorcycle otter sea shark television tractor""",
        """baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose
        snail sweet_pepper table telephone wardrobe whale woman worm""",
    ),
    "imagenet100": (
        """n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367
        n02089867 n02091831 n02101006 n02105505 n02108089 n02108551 n02108915 n02111277
        n02113712 n02120079 n02165456 n02457408 n02606052 n02687172 n02747177 n02795169
        n02823428 n02966193 n03017168 n03047690 n03062245 n03207743 n03220513 n03337140
        n03347037 n03400231 n03476684 n03527444 n03676483 n03838899 n03854065 n03888605
        n03908618 n03924679 n03998194 n04067472 n04243546 n04251144 n04258138 n04275548
        n04296562 n04389033 n04435653 n04443257 n04509417 n04515003 n04596742 n04604644
        n04612504 n06794110 n07584110 n07697537 n07747607 n09246464 n13054560 n13133613""",
        """n02971356 n03535780 n03770439 n03075370 n03417042 n03584254 n09256479 n02114548
        n02091244 n01855672 n02950826 n03773504 n02174001 n02138441 n02981792 n03980874""",
        """n02110341 n01981276 n03146219 n04149813 n02219486 n02871525 n02110063 n04418357
        n02116738 n03544143 n04522168 n02129165 n07613480 n03775546 n03127925 n03272010
        n01930112 n02443484 n04146614 n02099601""",
    ),
}


def class_list(name: str) -> tuple[str, ...]:
    """All class names of ``cifar100`` or ``imagenet100`` in the order of the source's labels."""
    return tuple(sorted(" ".join(PAPER[name]).split()))


def unusable(settings: SeededDataSettings, problem: str, fix: str) -> InputError:
    """The error for images that cannot be used, with the setting that says where they come from."""
    if settings.root is None and settings.download:
        return InputError("data.download", True, problem, fix)
    return InputError("data.root", settings.root, problem, fix)


def paper_class_split(settings: SeededDataSettings, class_names: Sequence[str]) -> ClassSplit:
    """The appendix's split of ``cifar100`` or ``imagenet100``, as indices of ``class_names``.

    Raises:
        InputError: a listed class is missing, one is there that the lists do not have, or one is
            named twice.
    """
    name = settings.name
    groups = [group.split() for group in PAPER[name]]
    listed, present = set(class_list(name)), set(class_names)
    for problem, names in (("lacks", listed - present), ("has the unknown", present - listed)):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
            raise unusable(
                settings,
                f"the source {problem} class {shown} ({len(names)} of {len(listed)})",
                f"Use {name}'s own class names, or data=imagefolder for other classes",
            )
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
