"""Check what fields say together, one clear message each; ranges stand beside the fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig

from clients.faults import IN_TRAINING, Order
from conf.methods import RunMethods, add_cwd_to_path, resolve_methods
from conf.schema import Config
from conf.typed import to_typed
from learngene.collective.settings import GROWTHS
from learngene.data.class_lists import group_sizes
from learngene.data.settings import divided_images, value_bounds
from learngene.errors import InputError
from learngene.utils.files import is_file, is_folder
from learngene.utils.hardware import usable_cores
from learngene.utils.settings import by_client
from reports.experiments.registry import compared_methods, needs_collective
from reports.loggers import check_logger
from runtime.resources import Resources, check_resources

MOST_INHERITED = 6  # of the individual's seven layers
COLLECTIVE_DEPTH = 13  # without deepening
MOST_THREADS = 4  # for a core
THRESHOLDS = ("calibrated", "paper_cifar100", "paper_imagenet100")  # or a number


Problem = tuple[str, str, str]  # field, what is wrong with its value, fix


def check(composed: DictConfig) -> Config:
    """The configuration as an object, held to all that can be known before the data are opened.

    Raises:
        InputError: for the first field that is out of its range or does not fit another.
    """
    config = check_fields(composed)
    check_methods(config)
    return config


def check_fields(composed: DictConfig) -> Config:
    """As ``check``, without what needs the methods: they bring torch, seconds that a wrong word
    and the first line of a run need not wait for."""
    config = to_typed(composed)
    _refuse(config, _problems(config))
    return config


def check_methods(config: Config) -> tuple[RunMethods, Resources | None]:
    """The rest of ``check``: the run's methods, and what Ray is started with (None: no Ray)."""
    run = resolve_methods(config.methods, config.method)
    _refuse(config, _of_halves(config, run))
    ray = config.runtime.name == "ray"
    return run, check_resources(config.runtime, config.num_clients) if ray else None


def _refuse(config: Config, problems: Iterator[Problem]) -> None:
    for field, problem, fix in problems:
        raise InputError(field, _shown(attrgetter(field)(config)), problem, fix)


def _shown(value: Any) -> Any:
    """The value as one writes it on the command line."""
    if value is None:
        return "null"
    return "''" if value == "" else value


def _problems(config: Config) -> Iterator[Problem]:
    """All that is wrong. Raises InputError itself for one item of a list, whose value is shown."""
    yield from _of_methods(config.methods)
    if config.logger is not None:
        add_cwd_to_path()
        check_logger(config.logger)
    yield from _of_growth(config.collective.growth)
    yield from _of_layers(config.learngene.layers, config.collective.growth)
    if not config.learngene.path:
        yield from _of_stem(config)
    elif config.learngene.control:
        problem = "layers are drawn in a collective, and with learngene.path there is none"
        yield "learngene.control", problem, "Leave out one of the two"
    yield from _of_depths(config)
    yield from _of_joined(config)
    yield from _of_open_world(config)
    yield from _of_shards(config)
    yield from _of_labelled(config)
    _check_faults(config)
    yield from _of_data(config)
    yield from _of_the_run(config)
    yield from _of_threads(config)


def _of_methods(methods: Any) -> Iterator[Problem]:
    if not isinstance(methods, Sequence) or isinstance(methods, str):
        yield "methods", "no list", "Write methods=[learngene,scratch]"
    elif not methods:
        yield "methods", "nothing to compare", "Write methods=[learngene,scratch]"
    elif len(set(methods)) < len(methods):
        yield "methods", "a method is named twice", "Name each method once"


def _of_growth(growth: str) -> Iterator[Problem]:
    if growth not in GROWTHS and not is_file(Path(growth)):
        problem = f"neither {' nor '.join(GROWTHS)}, nor a file that exists"
        fix = "Write collective.growth=schedule, or name a plan like conf/growth/deepen.yaml"
        yield "collective.growth", problem, fix


def _of_layers(layers: Any, growth: str) -> Iterator[Problem]:
    """A word, a number of top layers, or consecutive ones; how deep a plan leads is seen later."""
    if layers in ("front", "top", "auto"):
        return
    fix = "Write learngene.layers=front, learngene.layers=top or learngene.layers=[5,6,7]"
    if _whole(layers):
        if not 1 <= layers <= MOST_INHERITED:
            rule = f"must be at least 1 and at most {MOST_INHERITED}"
            problem = f"{rule}: an individual has seven layers, the first its own"
            yield "learngene.layers", problem, fix
        return
    listed = list(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else []
    if not listed or not all(_whole(layer) for layer in listed):
        yield "learngene.layers", "no number of layers, no list of them", fix
    if listed != list(range(listed[0], listed[0] + len(listed))) or listed[0] < 1:
        yield "learngene.layers", "must be consecutive, lowest first", fix
    if growth in GROWTHS and listed[-1] > COLLECTIVE_DEPTH:
        yield "learngene.layers", f"the collective has {COLLECTIVE_DEPTH} layers", fix


def _of_stem(config: Config) -> Iterator[Problem]:
    """Only what begins with layer 1 does without a stem, and a stem is part of the seven layers."""
    layers = config.learngene.layers
    inherited = config.learngene.depth if layers == "front" else 0
    if isinstance(layers, Sequence) and not isinstance(layers, str):
        inherited = len(layers)
    first = layers in ("front", "auto") or (inherited > 0 and layers[0] == 1)
    if config.individual.stem == "none" and not first:
        shown = str(layers).replace(" ", "")
        problem = f"learngene.layers={shown} does not begin with the collective's layer 1"
        yield "individual.stem", problem, "Write individual.stem=fresh"
    if config.individual.stem == "fresh" and layers == "auto":
        problem = "learngene.layers=auto takes the collective's first layers, which need no stem"
        yield "individual.stem", problem, "Write individual.stem=none"
    if config.individual.stem == "fresh" and inherited > MOST_INHERITED:
        problem = f"a stem before {inherited} inherited layers: an individual has seven in all"
        fix = "Write individual.stem=none" if first else "Name fewer layers"
        yield "individual.stem", problem, f"{fix}, or learngene.layers=top"


def _of_depths(config: Config) -> Iterator[Problem]:
    """How much of the learngene clients take; what a saved or chosen one offers is seen later."""
    individual, layers = config.individual, config.learngene.layers
    if individual.depth is not None and individual.bytes is not None:
        problem = f"individual.depth={_shown(individual.depth)} says already how much is taken"
        yield "individual.bytes", problem, "Write one of the two"
    if individual.depth is None or config.learngene.path:
        return
    if layers == "auto":
        problem = "learngene.layers=auto finds itself how many layers are enough"
        yield "individual.depth", problem, "Write individual.depth=null"
    if individual.stem == "fresh":
        problem = "behind individual.stem=fresh the learngene's layers stay together"
        yield "individual.depth", problem, "Write individual.depth=null"
    deepest, more = _deepest(config)
    if max(by_client(individual.depth)) > deepest:
        fix = f"Write {deepest} or less, or more in {more}"
        yield "individual.depth", f"the learngene has {deepest} layers", fix


def _of_joined(config: Config) -> Iterator[Problem]:
    """Prefixes beside the deepest: they are shallower, and their features are projected."""
    layers, joined = config.learngene.layers, by_client(config.learngene.joined)
    if not joined or config.learngene.path:
        return
    if config.individual.stem != "none" or config.learngene.projection == "none":
        problem = "what is joined are projected features, and nothing is projected"
        fix = "Write learngene.projection=discriminant individual.stem=none, or leave it out"
        yield "learngene.joined", problem, fix
    if layers != "auto":  # of its prefix the shallower ones count
        deepest, more = _deepest(config)
        if max(joined) >= deepest:
            fix = f"Write depths below {deepest}, or more in {more}"
            yield "learngene.joined", f"the learngene has {deepest} layers itself", fix


def _deepest(config: Config) -> tuple[int, str]:
    """How many layers the learngene has, and the setting that says so; not of ``auto``."""
    layers = config.learngene.layers
    if layers == "front":
        return config.learngene.depth, "learngene.depth"
    return len(layers), "learngene.layers"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _of_open_world(config: Config) -> Iterator[Problem]:
    settings, memory = config.open_world, config.collective.memory
    threshold, score, cycles = settings.threshold, settings.score, settings.cycles
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not (number and math.isfinite(threshold)) and threshold not in THRESHOLDS:
        problem = f"neither a finite number nor one of {', '.join(THRESHOLDS)}"
        yield "open_world.threshold", problem, "Write open_world.threshold=calibrated"
    if not number and threshold.startswith("paper_") and score != "max_softmax":
        problem = f"the paper's thresholds are for max_softmax (Eq. 2), not for {score}"
        fix = "Write open_world.score=max_softmax or open_world.threshold=calibrated"
        yield "open_world.threshold", problem, fix
    if cycles and config.data.clients_from == "open_world":
        learned = "the collective would learn the classes that clients hold"
        fix = "Write open_world.cycles=0 or data.clients_from=novel"
        yield "open_world.cycles", f"{learned} (data.clients_from=open_world)", fix
    if cycles and memory != "rehearsal":
        needed = "classes are taken in beside exemplars of the old ones"
        problem = f"{needed}, and collective.memory={memory} keeps none"
        yield "open_world.cycles", problem, "Write collective.memory=rehearsal"
    if cycles and config.learngene.path:
        problem = "a saved learngene meets no stream: there is no collective"
        fix = "Write open_world.cycles=0, or leave learngene.path out"
        yield "open_world.cycles", problem, fix
    exemplars = config.collective.memory_per_class
    if score.endswith("mahalanobis") and (memory != "rehearsal" or exemplars == 0):
        setting = f"memory_per_class={exemplars}" if memory == "rehearsal" else f"memory={memory}"
        problem = f"it is fitted on exemplars, and collective.{setting} keeps none"
        fix = "Write open_world.score=energy or collective.memory=rehearsal with exemplars"
        yield "open_world.score", problem, fix


def _of_shards(config: Config) -> Iterator[Problem]:
    """How many classes and images clients have, each its own number or divided among them."""
    for name in ("ways", "shots"):
        if getattr(config, name) is None:
            yield name, "every client has some", f"Write {name}=5, or {name}=[2,5]"
    ways, shots = by_client(config.ways), by_client(config.shots)
    divided = config.data.partition == "dirichlet"
    if config.queries is not None and (divided or config.labelled.draws):
        others = "data.partition=dirichlet" if divided else "labelled.draws"
        problem = f"with {others} only training images are drawn, and all test images are tests"
        yield "queries", problem, "Write queries=null, or data.partition=few_shot labelled.draws=0"
    if config.labelled.draws:
        drawn = "clients of a draw have as many classes and images (labelled.draws)"
        if divided:
            yield "data.partition", drawn, "Write data.partition=few_shot or labelled.draws=0"
        for name, entries in (("ways", ways), ("shots", shots)):
            if len(entries) > 1:
                yield name, drawn, f"Write {name}={entries[0]} or labelled.draws=0"
        if config.individual.safeguard:
            problem = "each fold holds out images of every class, and few of one may be named"
            fix = "Write individual.safeguard=false or labelled.draws=0"
            yield "individual.safeguard", f"{problem} (labelled.draws)", fix
    if not divided:
        return
    images = divided_images(config.ways, config.shots, config.num_clients)
    if config.data.min_images * config.num_clients > images:
        problem = f"ways times shots is {images / config.num_clients:g} images a client in the mean"
        yield "data.min_images", problem, "Lower it, or raise shots or ways"
    if config.individual.safeguard:
        problem = "each fold holds out images of every class, and a client may have one of a class"
        fix = "Write individual.safeguard=false or data.partition=few_shot"
        yield "individual.safeguard", f"{problem} (data.partition=dirichlet)", fix


def _of_labelled(config: Config) -> Iterator[Problem]:
    draws, source = config.labelled.draws, config.data.clients_from
    if not draws:
        return
    if source != "open_world":
        needed = "only open-world images are called unknown and named"
        fix = "Write data.clients_from=open_world or labelled.draws=0"
        yield "labelled.draws", f"{needed}, and clients hold {source} classes", fix
    if draws > config.num_clients:
        problem = f"more draws than clients (num_clients={config.num_clients})"
        yield "labelled.draws", problem, f"Write labelled.draws={config.num_clients} or less"
    if draws < config.num_clients and config.experiment not in (None, "table2_open_world"):
        problem = f"{config.experiment} is about clients with classes of their own"
        yield "labelled.draws", problem, f"Write labelled.draws={config.num_clients} or 0"
    if config.rounds > 1:
        problem = f"images are called unknown by the finished collective (labelled.draws={draws})"
        yield "rounds", problem, "Write rounds=1 or labelled.draws=0"
    if config.learngene.path:
        problem = "a saved learngene has no collective to call images unknown"
        yield "labelled.draws", problem, "Write labelled.draws=0, or leave learngene.path out"


def _check_faults(config: Config) -> None:
    fix = "Write, for instance, faults=[0:raise,1:kill_once@2]"
    if not isinstance(config.faults, list):
        raise InputError("faults", config.faults, "not a list", fix)
    seen: set[int] = set()
    for text in config.faults:
        try:
            order = Order.read(text)
        except ValueError as error:
            raise InputError("faults", text, str(error), fix) from error
        if order.client >= config.num_clients:
            raise InputError("faults", text, f"clients are 0 to {config.num_clients - 1}", fix)
        if order.client in seen:
            raise InputError("faults", text, "that client has a fault already", fix)
        epochs = config.individual.epochs
        if order.kind in IN_TRAINING and order.epoch > epochs:
            never = f"after epoch {order.epoch} it never strikes"
            raise InputError("faults", text, f"{never}, individual.epochs is {epochs}", fix)
        seen.add(order.client)


def _is_cache(cache: str) -> bool:
    """The folder must be there, or the first of its parents that is must be one to write in."""
    path = Path(cache).absolute()
    try:
        for there in (path, *path.parents):
            with suppress(FileNotFoundError):
                there.lstat()
                break
        with TemporaryDirectory(dir=there):  # os.access says yes to root, also of /sys
            return True
    except OSError:  # besides: a name that is too long, a file where a folder should be
        return False


def _of_halves(config: Config, run: RunMethods) -> Iterator[Problem]:
    """What the methods' halves need besides base images, and rounds besides methods."""
    if config.rounds > 1 and not any(method.inherits for method in run.methods.values()):
        problem = "no method builds on the collective's evolution"
        yield "rounds", problem, "Write rounds=1, or name learngene among the methods"
    unequal = config.data.partition == "dirichlet" or len(set(by_client(config.ways))) > 1
    for name, method in run.methods.items():
        if config.queries is not None and method.trained_by == "clients":
            shared = f"{name} is one model of all clients, and images to test one are drawn from"
            problem = f"{shared} those that others may train on"
            yield "queries", problem, f"Write queries=null, or leave {name} out"
        if unequal and method.depends_on_ways:
            problem = "it is trained for one number of classes, and clients have several"
            fix = "Leave it out, or write ways=5 and data.partition=few_shot"
            raise InputError("methods", name, problem, fix)
    cycles = config.open_world.cycles
    if not config.learngene.path and not cycles:
        return
    for name, method in run.methods.items():
        if method.trained_by in ("clients", "none"):
            continue
        if cycles:
            more = "the open-world cycles give the collective further images and passes"
            fix = "Leave it out, or write open_world.cycles=0"
            raise InputError("methods", name, f"{more}, and {name} none: no equal terms", fix)
        if method.trained_by == "collective":
            problem = "it is sent the collective, and a saved learngene has none"
            raise InputError("methods", name, problem, "Leave it out, or leave learngene.path out")
        if config.budget is None:
            budget = f"{name} gets the image passes of the collective"
            problem = f"{budget}, and a saved learngene has no collective"
            yield "budget", problem, "Write budget=50000"


def _of_data(config: Config) -> Iterator[Problem]:
    """What can be known of the data before anything of it is read; as ``_problems``."""
    data, source = config.data, config.data.clients_from
    if config.collective.memory == "ewc" or config.collective.block == "residual":
        # Brings torch: seconds that other runs save.
        from learngene.collective.forgetting import check_growth

        check_growth(config.collective)
    value_bounds(data)
    if data.root is not None and data.name == "glyphs":
        fix = "Say what it holds (data=cifar100, data=imagefolder, ...), or leave it out"
        yield "data.root", "glyphs, the default data, are drawn and read no folder", fix
    if data.root is not None and not is_folder(data.root):
        yield "data.root", "no such folder", "Name a folder that exists"
    if data.partition == "dirichlet":  # how many that takes of a class is seen with the data
        return
    ways, shots = max(by_client(config.ways)), max(by_client(config.shots))
    if sizes := group_sizes(data.name):
        group = sizes[source]
        if ways > group:
            yield "ways", f"{data.name} has {group} {source} classes", f"Write ways={group} or less"
    if data.name == "glyphs":
        count = data.classes * {"novel": data.novel, "open_world": data.open_world}[source]
        if ways > math.ceil(count):
            problem = f"{data.classes} glyph classes hold {count:.0f} {source} ones"
            yield "ways", problem, f"Lower it, or raise data.classes or data.{source}"
        images = data.train_per_class
        if config.queries is not None:
            images += data.test_per_class - config.queries
        if images < 1:
            yield "queries", "no image of a class is left to train on", "Lower it"
        if shots > images:
            problem = f"more than the {images} training images of a class"
            yield "shots", problem, "Lower it, or raise data.train_per_class"


def _of_the_run(config: Config) -> Iterator[Problem]:
    individual, clients = config.individual, config.num_clients
    if config.budget_in == "compute" and config.budget is not None:
        problem = f"image passes are given (budget={config.budget})"
        yield "budget_in", problem, "Write budget=null, or budget_in=passes"
    fewest = min(by_client(config.shots))
    if individual.safeguard and fewest < individual.safeguard_folds:
        needed = "each fold holds out images of every class"
        problem = f"{needed}, and a client has {fewest} of each (shots)"
        fix = "Lower it, raise shots, or write individual.safeguard=false"
        yield "individual.safeguard_folds", problem, fix
    compared = compared_methods(config.experiment)
    for name in compared:
        if name not in config.methods:
            every = ",".join(dict.fromkeys((*compared, *config.methods)))
            problem = f"experiment={config.experiment} compares {name}"
            yield "methods", problem, f"Write methods=[{every}]"
    if config.learngene.path and needs_collective(config.experiment):
        problem = f"it has no collective, which experiment={config.experiment} shows"
        yield "learngene.path", problem, "Leave learngene.path out, or the experiment"
    if config.rounds > 1 and config.learngene.path:
        problem = "a saved learngene does not evolve: there is no collective"
        yield "rounds", problem, "Write rounds=1, or leave learngene.path out"
    least = config.runtime.min_answered
    if least is not None and least > clients:
        problem = f"more than the {clients} clients that are asked"
        yield "runtime.min_answered", problem, f"Lower it to {clients} or raise num_clients"
    if config.runtime.name == "batched" and config.runtime.client_timeout_s is not None:
        problem = "clients of runtime=batched train together: none of them is cut short alone"
        fix = "Write runtime.client_timeout_s=null, or runtime=serial"
        yield "runtime.client_timeout_s", problem, fix
    if not _is_cache(config.cache):
        fix = "Write cache=DIR, or set LEARNGENE_CACHE"
        yield "cache", "no folder that can be written in", fix
    shares = config.data.base + config.data.open_world + config.data.novel
    if abs(shares - 1) > 1e-6:
        problem = f"base, open_world and novel shares add up to {shares:g}, not 1"
        yield "data.base", problem, "Change data.base, data.open_world or data.novel"


def _of_threads(config: Config) -> Iterator[Problem]:
    """Threads beyond a few a core only wait for one another, and for the rest of the machine."""
    cores = usable_cores()
    asked = {"collective.threads": float(config.collective.threads)}
    if not config.runtime.address:  # the cores of a cluster are elsewhere
        asked["runtime.num_cpus"] = config.runtime.num_cpus
    for field, threads in asked.items():
        if threads > MOST_THREADS * cores:
            problem = f"more than {MOST_THREADS} threads for each of {cores} usable cores"
            yield field, problem, f"Write {field}={cores}"
