"""What a run will not look at is said, and it is true: such a setting moves no number."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim as program
from conf.unread import ROWS, unread
from conf.validate import check, check_fields, check_methods
from learngene.errors import InputError
from reports.results import read_results
from tests.composing import composed
from tests.conf.test_compose import METHOD_FIELDS, choices, field_names
from tests.helpers import FEW

FIELDS = {*field_names(), *METHOD_FIELDS}


def said(*overrides: str) -> str | None:
    config = check_fields(composed(*overrides))
    return unread(config, check_methods(config)[0].methods, overrides)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.otherwise)
def test_every_row_is_of_fields_that_there_are(row) -> None:
    for pattern in row.fields.split():
        one = type(row)(pattern, row.read, row.otherwise)
        assert any(one.names(field) for field in FIELDS) or pattern == "method.learngene.*", pattern
    assert {*row.but.split()} <= FIELDS


@pytest.mark.parametrize(
    ("overrides", "unseen", "why"),
    [
        ("open_world.mirror=true", "open_world.mirror", "glyphs are drawn"),
        ("individual.mirror_test=false", "individual.mirror_test", "glyphs are drawn"),
        ("methods=[protonet,deepemd] individual.epochs=5", "individual.epochs", "no method trains"),
        ("data.alpha=1", "data.alpha", "data.partition is not dirichlet"),
        ("data=cifar100 data.root=/ data.classes=20", "data.classes", "only glyphs are drawn"),
        ("data=cifar100 data.root=/ data.novel=0.2", "data.novel", "divided as published"),
        ("runtime=serial runtime.num_gpus=1", "runtime.num_gpus", "there is no Ray"),
        ("runtime=serial runtime.cohort=5", "runtime.cohort", "only clients of runtime=batched"),
        ("learngene.path=x collective.lr=1 seed=1", "collective.lr", "there is no collective"),
        ("learngene.path=x learngene.joined=5", "learngene.joined", "there is no collective"),
        ("learngene.path=x individual.stem=fresh", "individual.stem", "there is no collective"),
        ("learngene.path=x learngene.depth=3", "learngene.depth", "there is no collective"),
        ("learngene.path=x learngene.projection=none", "learngene.projection", "no collective"),
        ("learngene.path=x learngene.shrinkage=0.5", "learngene.shrinkage", "nothing is projected"),
        ("data.value_range=[0,9]", "data.value_range", "glyphs are drawn"),
        ("data=cifar100 data.download=true data.test_share=0.5", "data.test_share", "as published"),
        ("learngene.path=x methods=[learngene,maml] collective.lr=1 collective.width=1",
         "collective.lr", "there is no collective"),
        ("method.maml.lr=1", "method.maml.lr", "methods lacks maml"),
        ("method.maml={lr:1}", "method.maml", "methods lacks maml"),
        ("methods=[learngene] method.scratch.lr=1", "method.scratch.lr", "from scratch"),
        ("methods=[learngene,maml] method.scratch.lr=1", "method.scratch.lr", "from scratch"),
        ("individual.stem=fresh learngene.layers=top learngene.projection=none",
         "learngene.projection", "individual.stem is not none"),
        ("individual.stem=fresh learngene.layers=top learngene.depth=4",
         "learngene.depth", "learngene.layers is not front"),
        ("learngene.tolerance=2", "learngene.tolerance", "learngene.layers is not auto"),
        ("learngene.layers=auto learngene.bytes=60000 learngene.tolerance=2",
         "learngene.tolerance", "learngene.bytes is set"),
        ("retain.ewc_lambda=0 retain.labels=true", "retain.labels", "ewc_lambda is 0"),
        ("methods=[scratch] individual.lr=1", "individual.lr", "no method is sent the learngene"),
        ("methods=[scratch,protonet] individual.schedule=constant", "individual.schedule",
         "none but scratch"),
        ("budget=5", "budget", "no method is trained at the factory"),
        ("collective.memory=lwf collective.exemplars=herding collective.distill=2",
         "collective.exemplars", "keeps no images"),
        ("open_world.known_share=0.4", "open_world.known_share", "open_world.cycles is 0"),
    ],
)  # fmt: skip
def test_what_is_not_looked_at_is_said_in_one_line(overrides: str, unseen: str, why: str) -> None:
    line = said(*overrides.split())
    assert line is not None and "\n" not in line
    assert line.startswith(f"not looked at in this run: {unseen} (") and why in line
    assert line.count("(") == 1


@pytest.mark.parametrize(
    "overrides",
    [
        "", "scale=tiny seed=1 shots=3", "data=cifar100 data.root=/", "collective.lr=0.1",
        "methods=[learngene] individual.safeguard=true method.scratch.lr=1",
        "methods=[learngene,fedavg] payload_precision=int8",
        "methods=[finetune_pp] individual.schedule=constant individual.epochs=5",
        "methods=[protonet,fedavg] individual.augment=false",
        "methods=[scratch,maml] individual.schedule=constant",
        "methods=[fedper,scratch] individual.schedule=constant",
        "methods=[learngene,maml] learngene.path=x budget=5 collective.threads=1",
        "open_world.cycles=1 open_world.known_share=0.4", "hydra.run.dir=x",
    ],
)  # fmt: skip
def test_what_is_looked_at_is_not(overrides: str) -> None:
    assert said(*overrides.split()) is None


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_an_experiment_that_shows_a_collective_refuses_a_saved_learngene(experiment: str) -> None:
    asked = composed(f"experiment={experiment}", "learngene.path=x.safetensors")
    shown = {"fig3_criterion", "fig5_gradcam", "fig6a_evolution", "fig6b_position", "joint",
             "sequential", "growth_ablation", "class_incremental", "open_world_cycle"}  # fmt: skip
    if experiment in shown:
        with pytest.raises(InputError, match="collective") as raised:
            check(asked)
        assert raised.value.value == "x.safetensors" or raised.value.field == "open_world.cycles"
    elif experiment in ("table2_open_world", "table3_novel"):  # their labeller, their methods
        with pytest.raises(InputError, match="a saved learngene has no"):
            check(asked)
    else:
        check(asked)


COMMON = (
    "scale=tiny",
    "runtime=serial",
    "collective.threads=1",
    "num_clients=1",
    "collective.classes_per_task=11",
    "report.gradcam_images=0",
    *FEW,
)
# As long as the defaults, since a client's settings travel and their bytes are counted.
NOT_SEEN = (
    "data.test_share=0.3", "data.download=true", "open_world.mirror=true",
    "collective.ewc_lambda=3.0", "individual.safeguard_folds=2", "open_world.known_share=0.1",
    "open_world.images_to_add=3", "budget=300", "payload_precision=int8", "runtime.num_gpus=2",
    "runtime.total_cpus=1", "method.maml.client_steps=3", "method.fedavg.lr=0.5",
)  # fmt: skip
BESIDE_A_SAVED_ONE = (
    "collective.lr=0.9", "collective.epochs=7", "collective.width=0.5", "individual.stem=fresh",
    "learngene.layers=2", "learngene.sigma=0.1", "open_world.accept=0.5", "open_world.score=energy",
)  # fmt: skip


def test_it_moves_no_number(tmp_path: Path, undrawn: None) -> None:
    def result(name: str, *overrides: str) -> str:
        asked = (*COMMON, f"cache={tmp_path / 'cache'}", "resume=false", *overrides)
        assert program.simulation(check(composed(*asked)), tmp_path / name, asked) == program.OK
        return read_results(tmp_path / name / "results.json")["run"]["result_sha256"]

    first = result("first")
    assert result("again", *NOT_SEEN) == first
    assert result("moved", "individual.lr=0.009") != first  # the hash sees what is looked at
    saved = f"learngene.path={tmp_path / 'first' / 'learngene.safetensors'}"
    beside = result("saved", saved, "individual.stem=fresh")  # as long a word as in the other
    assert result("saved again", saved, *BESIDE_A_SAVED_ONE) == beside
    for given, unseen in (((), NOT_SEEN), ((saved,), BESIDE_A_SAVED_ONE)):
        line = said(*COMMON, *given, *unseen) or ""
        assert all(each.partition("=")[0] in line for each in unseen)
