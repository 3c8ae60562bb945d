"""Published divisions of named data sets into base, open-world and novel classes.

The few-shot worlds' validation classes are the open-world ones, their test classes the novel ones.
Each list was held against two public repositories and the published counts:

- ``cifar_fs`` (Bertinetto et al., ICLR 2019: 64/16/20): tristandeleu/pytorch-meta,
  ArnoutDevos/maml-cifar-fs. It is the division that the paper has of CIFAR-100.
- ``fc100`` (Oreshkin et al., NeurIPS 2018: 12/4/4 of CIFAR-100's superclasses, 60/20/20 classes):
  ServiceNow/TADAM, tristandeleu/pytorch-meta; the superclasses' classes are in CIFAR-100's files.
- ``mini_imagenet`` (Ravi and Larochelle, ICLR 2017: 64/16/20): twitter-research/meta-learning-lstm,
  sicara/easy-few-shot-learning. It is the division that the paper has of ImageNet100.
"""

from __future__ import annotations

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
FC100 = (  # a line a superclass
    """aquarium_fish flatfish ray shark trout
    orchid poppy rose sunflower tulip
    bottle bowl can cup plate
    apple mushroom orange pear sweet_pepper
    clock keyboard lamp telephone television
    bed chair couch table wardrobe
    bridge castle house road skyscraper
    cloud forest mountain plain sea
    crocodile dinosaur lizard snake turtle
    maple_tree oak_tree palm_tree pine_tree willow_tree
    bicycle bus motorcycle pickup_truck train
    lawn_mower rocket streetcar tank tractor""",
    """bear leopard lion tiger wolf
    camel cattle chimpanzee elephant kangaroo
    crab lobster snail spider worm
    hamster mouse rabbit shrew squirrel""",
    """beaver dolphin otter seal whale
    bee beetle butterfly caterpillar cockroach
    fox porcupine possum raccoon skunk
    baby boy girl man woman""",
)
LISTS = {
    **PAPER,
    "cifar_fs": PAPER["cifar100"],
    "fc100": FC100,
    "mini_imagenet": PAPER["imagenet100"],
}
FILES_OF = {"cifar_fs": "cifar100", "fc100": "cifar100", "mini_imagenet": "imagenet100"}


def files_of(name: str) -> str:
    """The data set whose files ``data.name`` reads: its own, or those it is another division of."""
    return FILES_OF.get(name, name)


def group_sizes(name: str) -> dict[str, int]:
    """How many classes each group of a named data set has; empty for others."""
    sizes = [len(group.split()) for group in LISTS.get(name, ())]
    return dict(zip(("base", "open_world", "novel"), sizes, strict=True)) if sizes else {}


def class_list(name: str) -> tuple[str, ...]:
    """All class names of a named data set in the order of the source's labels."""
    return tuple(sorted(" ".join(LISTS[name]).split()))
