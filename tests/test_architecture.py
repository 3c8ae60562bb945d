"""Who may import whom, and the nevers of docs/ARCHITECTURE.md, read off the source."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
# The house, from the top down: imports go downward only, and packages of one floor never import
# each other (docs/ARCHITECTURE.md).
FLOORS = (
    ("benchmarks",),
    ("flower_run",),
    ("sim",),
    ("conf",),
    ("reports",),
    ("runtime",),
    ("server", "clients", "strategies"),
    ("protocol",),
    ("learngene",),
)
# The same inside learngene/: chapters of the paper on what they are made of.
CHAPTERS = (
    ("__main__",),
    ("command_line",),
    ("export",),
    ("api",),
    ("methods",),
    ("collective", "gene"),
    ("adaptation", "open_world"),
    ("networks",),
    ("data",),
    ("utils",),
    ("errors", "seeding"),
)
OURS = ("learngene", "protocol", "clients", "server", "strategies", "runtime", "reports", "conf")
# Flower looks for the ServerApp in server/, and a whole run lies above: the one import upward.
UPWARD = {"server/server_app.py imports flower_run"}
# learngene/ is usable by itself: the paper, without Flower and what comes with it.
NOT_IN_LEARNGENE = {"flwr", "ray", "hydra", "omegaconf", "pandas"}
# The one module that may read foreign pickles (CIFAR's own format), through a restricted Unpickler.
MAY_UNPICKLE = "learngene/data/"
SEEDERS = {
    "torch.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.seed",
    "np.random.seed",
    "numpy.random.seed",
    "random.seed",
}
# Makers of chance: generators come from learngene/seeding.py, draws from a generator.
MAKERS = {
    "default_rng", "RandomState", "SeedSequence", "PCG64", "Philox", "MT19937", "SFC64",
    "Generator", "manual_seed", "initial_seed", "fork_rng", "set_rng_state",
}  # fmt: skip
GLOBAL = ("random.", "np.random.", "numpy.random.")  # modules that hold a state of their own
# Torch's draws that take a generator, and take the global one where none is given.
DRAWS = {
    "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like",
    "randn_like", "randint_like", "normal_", "uniform_", "bernoulli_", "exponential_",
    "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_",
}  # fmt: skip
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((REPO / folder).rglob("*.py"))]
    return [*found, REPO / "sim.py", REPO / "flower_run.py"]


def name(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def imports(tree: ast.AST, path: Path) -> Iterator[str]:
    """Dotted names of all modules imported anywhere in the file, relative ones resolved."""
    package = list(path.relative_to(REPO).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def parse(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def upward(floors: Sequence[Sequence[str]], own: str, imported: Iterable[str]) -> list[str]:
    """What a file of the room ``own`` imports of its own floor or of one above it."""
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    return [
        each for each in imported if each in floor and each != own and floor[each] <= floor[own]
    ]


def rooms(paths: Iterable[Path], depth: int) -> Iterator[tuple[Path, str, set[str]]]:
    """Each file with its room, and the rooms that it imports: the ``depth``-th part of a name."""
    for path in paths:
        parts = path.relative_to(REPO).with_suffix("").parts
        found = {tuple(module.split(".")) for module in imports(parse(path), path)}
        ours = {each for each in found if len(each) > depth and each[:depth] == parts[:depth]}
        yield path, parts[depth], {each[depth] for each in ours}


def test_imports_go_downward_only() -> None:
    paths = [*sources(*OURS, "benchmarks")]
    assert {room for _, room, _ in rooms(paths, 0)} == {room for floor in FLOORS for room in floor}
    found = {
        f"{name(path)} imports {module}"
        for path, room, imported in rooms(paths, 0)
        for module in upward(FLOORS, room, imported)
    }
    assert found == UPWARD


def test_imports_inside_learngene_go_downward_only() -> None:
    paths = [
        path
        for path in (REPO / "learngene").rglob("*.py")
        if path.parent != REPO / "learngene" or path.stem != "__init__"
    ]
    chapters = {each for floor in CHAPTERS for each in floor}
    assert {room for _, room, _ in rooms(paths, 1)} == chapters
    wrong = [
        f"{name(path)} imports learngene.{module}"
        for path, room, imported in rooms(paths, 1)
        for module in upward(CHAPTERS, room, imported)
    ]
    assert wrong == []


def test_learngene_stands_by_itself() -> None:
    wrong = [
        f"{name(path)} imports {module}"
        for path in (REPO / "learngene").rglob("*.py")
        for module in imports(parse(path), path)
        if module.split(".")[0] in NOT_IN_LEARNGENE
    ]
    assert wrong == []


def test_the_floors_see_what_they_forbid() -> None:
    assert upward(FLOORS, "server", ["reports", "clients", "protocol", "learngene", "torch"]) == [
        "reports",
        "clients",
    ]
    assert upward(CHAPTERS, "adaptation", ["methods", "networks", "open_world"]) == [
        "methods",
        "open_world",
    ]


def test_one_caller_of_the_simulation():
    users = {name(path) for path in sources(*OURS) if "run_simulation(" in path.read_text()}
    importers = {
        name(path)
        for path in sources(*OURS)
        if any(module.startswith("flwr.simulation") for module in imports(parse(path), path))
    }
    assert users == importers == {"runtime/ray_backend.py"}


def test_nothing_is_pickled():
    wrong, unpicklers = [], []
    for path in sources(*OURS, "benchmarks"):
        tree = parse(path)
        if any(module.split(".")[0] in PICKLERS for module in imports(tree, path)):
            (unpicklers if name(path).startswith(MAY_UNPICKLE) else wrong).append(name(path))
        for called, node in calls(tree):
            allowing = any(
                keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True) is not False
                for keyword in node.keywords
            )
            if called in {"torch.load", "torch.save", "pickle.load", "pickle.loads"} or allowing:
                wrong.append(f"{name(path)}:{node.lineno} {called}")
    assert wrong == []
    assert len(unpicklers) <= 1
    for path in unpicklers:
        assert "pickle.Unpickler" in (REPO / path).read_text()


NO_DRAWS = {  # of what a run computes
    "learngene/seeding.py",  # keeps the global generators as they are
    "learngene/utils/files.py",  # names of temporary files
    "runtime/private_ray.py",  # the token of a run's Ray
    "runtime/serial_backend.py",  # ids of nodes
}
PEERS = "benchmarks/peer_work.py"  # what other frameworks' users write, as they write it


def test_nobody_seeds_global_state():
    wrong = [
        f"{name(path)}:{node.lineno} {called}"
        for path in sources(*OURS, "benchmarks")
        if name(path) not in ("learngene/seeding.py", PEERS)
        for called, node in calls(parse(path))
        if called in SEEDERS
    ]
    assert wrong == []


def chance(tree: ast.AST) -> Iterator[str]:
    """Calls that make a generator, or draw without one that they were given."""
    for called, node in calls(tree):
        owner, _, last = called.rpartition(".")
        numpys = owner in ("rng", "drawn", "generator")  # a generator's own method
        torchs = any(keyword.arg == "generator" for keyword in node.keywords)
        if (
            last in MAKERS
            or called.startswith(GLOBAL)
            or (last in DRAWS and not torchs and not numpys)
        ):
            yield f"{node.lineno} {called}"


def test_one_module_makes_every_generator():
    found = {
        name(path): [*chance(parse(path))]
        for path in sources(*OURS, "benchmarks")
        if name(path) not in ("learngene/seeding.py", PEERS)
    }
    imported = [
        name(path)
        for path in sources(*OURS, "benchmarks")
        if {"random", "numpy.random", "secrets"} & set(imports(parse(path), path))
        and name(path) not in NO_DRAWS
    ]
    assert {path: calls for path, calls in found.items() if calls} == {}
    assert imported == []
    found_there = [*chance(parse(REPO / "learngene" / "seeding.py"))]
    assert len(found_there) == 11  # three make a generator, eight keep the global ones


def test_the_rules_of_chance_see_what_they_forbid():
    for text in (
        "np.random.default_rng(0)", "default_rng()", "random.random()", "np.random.rand(3)",
        "torch.manual_seed(0)", "torch.Generator()", "torch.randn(3)", "x.normal_()",
        "nn.init.normal_(w, std=1)", "numpy.random.seed(1)", "torch.randperm(5)",
    ):  # fmt: skip
        assert [*chance(ast.parse(text))], text
    for text in (
        "torch.randn(3, generator=g)", "drawn.normal(size=3)", "rng.permutation(5)",
        "generator(0, 'x')", "nn.init.normal_(w, std=1, generator=g)",
    ):  # fmt: skip
        assert not [*chance(ast.parse(text))], text


def test_the_rules_see_what_they_forbid():
    """The walkers themselves, on source that breaks every rule."""
    text = "from server import server_app\nfrom . import x\nfrom ..b import c\nimport torch\n"
    text += "torch.manual_seed(0)"
    tree = ast.parse(text)
    found = set(imports(tree, REPO / "clients" / "methods" / "m.py"))
    assert {"server", "server.server_app", "clients.methods.x", "clients.b.c", "torch"} <= found
    assert [called for called, _ in calls(tree)] == ["torch.manual_seed"]


def test_the_map_names_what_is_there() -> None:
    """Every path in docs/ARCHITECTURE.md, and every package in its picture."""
    text = (REPO / "docs" / "ARCHITECTURE.md").read_text()
    named = {path.split("`")[0] for path in re.findall(r"`([\w./-]+/[\w.-]*)`", text)}
    named = {path for path in named if not path.startswith(("cache/", "settings"))}
    assert len(named) > 40
    assert [path for path in sorted(named) if not (REPO / path).exists()] == []
    picture = text[text.index("```") : text.rindex("```")]
    assert {room for floor in (*FLOORS, *CHAPTERS) for room in floor} <= set(
        re.findall(r"\w+", picture)
    )
    rows = [
        line
        for line in text[text.index("I want to change") :].splitlines()
        if line.startswith("| ")
    ]
    assert len(rows) >= 20


def test_rooms_stay_small_enough_to_look_through() -> None:
    found = [path for path in REPO.rglob("*.py") if not {"build", ".venv", "venv"} & {*path.parts}]
    folders = Counter(path.parent.relative_to(REPO).as_posix() for path in found)
    assert {folder: files for folder, files in folders.items() if files > 20} == {}
    own = [path for path in found if not path.is_relative_to(REPO / "tests")]
    lines = {path.name: len(path.read_text().splitlines()) for path in own}
    assert {file: count for file, count in lines.items() if count > 450} == {}
