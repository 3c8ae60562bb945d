"""Which settings a run will not look at, so that nobody takes them for the cause of its numbers.

A table: fields, when they are read, and what is so where they are not. A field that no row names is
always read; one that several name is read where all of them say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from conf.schema import Config
from learngene.methods.registry import BUILT_IN, base_of
from learngene.utils.files import expand_user

if TYPE_CHECKING:  # methods bring torch
    from learngene.methods.base import Method


@dataclass(frozen=True)
class Run:
    """What decides over the rows."""

    config: Config
    methods: dict[str, Method]

    def trained_by(self, *who: str) -> bool:
        """Whether one of these makes what a method starts from."""
        return any(method.trained_by in who for method in self.methods.values())

    @property
    def plugin(self) -> bool:
        """A method from elsewhere, which may read whatever a client is sent."""
        return not {base_of(name) for name in self.methods} <= {*BUILT_IN}

    @property
    def inherits(self) -> bool:
        """Whether a client is sent the learngene, or may do as if it were."""
        return self.plugin or any(method.inherits for method in self.methods.values())

    @property
    def projects(self) -> bool:
        """Whether the learngene or a method's second row ends in a projection."""
        own = self.config.individual.stem == "none"
        own &= self.config.learngene.projection == "discriminant"
        own &= self.config.learngene.path is None
        return own or any(name != base_of(name) for name in self.methods)

    @property
    def trains(self) -> bool:
        """Whether a client trains anything by the common settings."""
        return self.plugin or any(not method.training_free for method in self.methods.values())

    @property
    def scheduled(self) -> bool:
        """Whether a client trains by the common schedule; scratch has its own."""
        trained = (n for n, method in self.methods.items() if not method.training_free)
        return self.plugin or any(base_of(name) != "scratch" for name in trained)

    @property
    def scratch(self) -> bool:
        """Whether a client trains from scratch, or may."""
        guarded = self.inherits and self.config.individual.safeguard
        return self.plugin or guarded or "scratch" in self.methods


@dataclass(frozen=True)
class Row:
    """Fields that are read under one condition."""

    fields: str  # patterns, with spaces between
    read: Callable[[Run], bool]
    otherwise: str  # what is so where they are not read
    but: str = ""  # fields that match and are not meant

    def names(self, field: str) -> bool:
        """Whether the row is about a field."""
        whole = (field, f"{field}.")  # method.maml={lr: 1}
        meant = any(fnmatchcase(name, p) for name in whole for p in self.fields.split())
        return meant and field not in self.but.split()


def _divides_images(run: Run) -> bool:
    """Whether ``data.root`` may hold class folders without train/ and test/."""
    data = run.config.data
    if data.name == "imagefolder" or data.root is None:
        return data.name == "imagefolder"
    # Brings pyarrow: seconds that other runs save.
    from learngene.data.sources.cifar_pickle import find_cifar_python
    from learngene.data.sources.parquet import find_parquet

    root = expand_user(data.root)
    tables = any(find_parquet(root).values()) or find_cifar_python(root)
    return not (tables or (root / "train").is_dir())


def _has(method: str) -> Callable[[Run], bool]:
    return lambda run: any(base_of(name) == method for name in run.methods)


def _is(field: str, *values: Any) -> Callable[[Run], bool]:
    return lambda run: attrgetter(field)(run.config) in values


def _is_not(field: str, *values: Any) -> Callable[[Run], bool]:
    return lambda run: attrgetter(field)(run.config) not in values


SAVED = "with learngene.path there is no collective"
# What the methods' own halves at the factory share with the collective.
FACTORY = (
    "collective.width collective.block collective.train_size collective.zoom collective.precision "
    "collective.device collective.threads collective.capture open_world.calibration_per_class"
)
OF_A_COLLECTIVE = (
    "collective.* open_world.* learngene.layers learngene.depth learngene.projection learngene.rho "
    "learngene.sigma learngene.tolerance learngene.bytes learngene.joined individual.stem "
    "report.gradcam_images"
)
EXEMPLARS = (
    "collective.exemplars collective.memory_per_class collective.rehearse_per_class "
    "collective.consolidate_epochs"
)
CYCLES = (
    "open_world.*_per_cycle open_world.images_to_add open_world.known_share "
    "open_world.cycle_consolidate_epochs"
)
OF_THE_LEARNGENE = (
    "individual.depth individual.bytes individual.head individual.lr individual.inherited_lr "
    "individual.safeguard* individual.keep retain.* learngene.precision"
)
GLYPHS = "data.classes data.train_per_class data.test_per_class"
IMAGES = "data.download data.test_share data.value_range open_world.mirror individual.mirror_test"
SHARES = "data.base data.open_world data.novel"
DIVIDED = "data.alpha data.min_images"
DISTILLATION = "collective.distill collective.temperature"
TRAINING = (
    "individual.epochs individual.batch_size individual.momentum individual.weight_decay "
    "individual.augment individual.eval_every"
)
FISHER = "retain.normalise retain.fisher_samples retain.labels"
RAY = "runtime.num_gpus runtime.total_cpus runtime.total_gpus runtime.address"
MEMORY, PATH, LAYERS = "collective.memory", "learngene.path", "learngene.layers"
ROWS = (
    Row(GLYPHS, _is("data.name", "glyphs"), "only glyphs are drawn"),
    Row(IMAGES, _is_not("data.name", "glyphs"), "glyphs are drawn, and mirror into others"),
    Row("data.test_share", _divides_images, "the images are divided as published"),
    Row(DIVIDED, _is("data.partition", "dirichlet"), "data.partition is not dirichlet"),
    Row("data.download", _is("data.root", None), "data.root is given"),
    Row(
        SHARES,
        _is("data.name", "glyphs", "imagefolder"),
        "the classes are divided as published",
    ),
    Row(OF_A_COLLECTIVE, _is(PATH, None), SAVED, but=FACTORY),
    Row(FACTORY, lambda run: _is(PATH, None)(run) or run.trained_by("factory"), SAVED),
    Row(EXEMPLARS, _is(MEMORY, "rehearsal"), f"{MEMORY} keeps no images"),
    Row(DISTILLATION, _is(MEMORY, "rehearsal", "lwf"), f"{MEMORY} does not distil"),
    Row("collective.temperature", _is_not("collective.distill", 0), "collective.distill is 0"),
    Row("collective.ewc_lambda", _is(MEMORY, "ewc"), f"{MEMORY} is not ewc"),
    Row("collective.growth_noise", _is_not("collective.growth", "none", "equal"), "nothing grows"),
    Row("labelled.flags", _is_not("labelled.draws", 0), "labelled.draws is 0: nothing is flagged"),
    Row("learngene.depth", _is(LAYERS, "front"), f"{LAYERS} is not front"),
    Row("learngene.tolerance learngene.bytes", _is(LAYERS, "auto"), f"{LAYERS} is not auto"),
    Row("learngene.tolerance", _is("learngene.bytes", None), "learngene.bytes is set"),
    Row("learngene.projection", _is("individual.stem", "none"), "individual.stem is not none"),
    Row("learngene.shrinkage", lambda run: run.projects, "nothing is projected"),
    Row(
        "open_world.accept",
        _is("open_world.threshold", "calibrated"),
        "open_world.threshold is set",
    ),
    Row(CYCLES, _is_not("open_world.cycles", 0), "open_world.cycles is 0"),
    Row(OF_THE_LEARNGENE, lambda run: run.inherits, "no method is sent the learngene"),
    Row(TRAINING, lambda run: run.trains, "no method trains at a client"),
    Row("individual.schedule", lambda run: run.scheduled, "none but scratch, with its own, trains"),
    Row(
        "individual.safeguard_*",
        _is("individual.safeguard", True),
        "individual.safeguard is false",
    ),
    Row(FISHER, _is_not("retain.ewc_lambda", 0), "retain.ewc_lambda is 0"),
    Row(
        "budget budget_in",
        lambda run: run.trained_by("factory"),
        "no method is trained at the factory",
    ),
    Row(
        "payload_precision",
        lambda run: run.trained_by("factory", "collective", "clients"),
        "no method but the learngene is sent anything",
    ),
    Row(RAY, _is("runtime.name", "ray"), "without runtime=ray there is no Ray"),
    Row(
        "runtime.cohort",
        _is("runtime.name", "batched"),
        "only clients of runtime=batched train together",
    ),
    Row("method.scratch.*", lambda run: run.scratch, "nobody trains from scratch"),
    *(
        Row(f"method.{name}.*", _has(name), f"methods lacks {name}")
        for name in BUILT_IN
        if name != "scratch"
    ),
)


def unread(config: Config, methods: dict[str, Method], overrides: Sequence[str]) -> str | None:
    """One line on what of the overrides, as they were typed, this run will not look at.

    None: it looks at all of them.
    """
    run = Run(config, methods)
    reasons: dict[str, list[str]] = {}
    for field in (override.lstrip("+~").partition("=")[0] for override in overrides):
        rows = (row for row in ROWS if row.names(field) and not row.read(run))
        if row := next(rows, None):
            reasons.setdefault(row.otherwise, []).append(field)
    said = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
    return f"not looked at in this run: {said}" if said else None
