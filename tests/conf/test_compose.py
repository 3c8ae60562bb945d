"""The YAML files against the schema: every choice composes, every field is bounded."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from conf.error_messages import explain, field_names, type_of
from conf.schema import Config, read_config
from conf.typed import to_typed
from conf.validate import THRESHOLDS, check
from learngene.collective.forgetting import STRATEGIES
from learngene.errors import InputError
from learngene.methods import BUILT_IN, find
from learngene.utils.settings import limits_of
from tests.composing import CONF, by_hydra, composed

ROOT = CONF.parent


LIMITS = dict(limits_of(Config)) | {
    f"method.{name}.{field}": limits
    for name in BUILT_IN
    for field, limits in limits_of(find(name).settings)
}
METHOD_FIELDS = {
    f"method.{name}.{each.name}": str(each.type)
    for name in BUILT_IN
    for each in fields(find(name).settings)
}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    "asked",
    [
        ("experiment=class_incremental", "scale=tiny", "individual.epochs=7", "data.root=/x"),
        ("learngene.joined=[5,7]", "learngene.depth=9", "seed=1", "seed=2", "runtime=serial"),
        ("method.maml.shots=3", "collective.threads=1", "labelled.flags=random"),
    ],
)
def test_tests_compose_as_hydra_does(asked: tuple[str, ...]) -> None:
    made, due = composed(*asked), by_hydra(asked)
    assert made == due and OmegaConf.is_struct(made) and OmegaConf.is_struct(due)
    assert composed() == by_hydra([])  # no copy remembers what another was given


@pytest.mark.parametrize(
    ("data", "scale"), itertools.product(choices("data"), choices("scale")), ids=str
)
def test_every_dataset_and_scale_is_valid(data: str, scale: str, tmp_path: Path) -> None:
    more = [] if data == "glyphs" else [f"data.root={tmp_path}"]
    config = composed(f"data={data}", f"scale={scale}", *more)
    check(config)
    assert config.data.name == data and config.scale == scale


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_is_valid_and_names_its_command(experiment: str) -> None:
    check(composed(f"experiment={experiment}"))
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    lines = text.splitlines()
    assert lines[1].startswith(f"# python sim.py experiment={experiment}")  # 0: Hydra's package


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_scale_tiny_is_tiny_whatever_an_experiment_asks_for(experiment: str) -> None:
    made = composed(f"experiment={experiment}", "scale=tiny")
    check(made)
    assert made.collective.epochs == 1 and made.collective.memory_per_class == 10
    assert made.collective.width == 0.0625 and made.individual.epochs == 2 and made.budget == 200
    assert made.experiment == experiment and made.num_clients <= 3


def test_the_later_of_dataset_scale_experiment_and_command_line_wins() -> None:
    assert composed("data=glyphs").collective.epochs == 12  # the dataset over the schema
    assert composed("data=glyphs", "scale=paper").collective.epochs == 40  # the scale over it
    asked = ["scale=paper", "experiment=class_incremental"]
    assert composed(*asked).collective.epochs == 70  # the experiment over the scale
    assert composed(*asked).collective.width == 0.25
    assert composed("experiment=class_incremental", "scale=tiny").collective.epochs == 1
    asked = ["experiment=fig4_curves", "scale=tiny", "individual.epochs=7"]
    assert composed(*asked).individual.epochs == 7  # and the command line over everything


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_fits_another_dataset(experiment: str, tmp_path: Path) -> None:
    check(composed(f"experiment={experiment}", "data=imagenet100", f"data.root={tmp_path}"))


@pytest.mark.parametrize(("name", "open_world"), [("cifar_fs", 16), ("fc100", 20)])
def test_few_shot_worlds_bring_their_protocol(name: str, open_world: int, tmp_path: Path) -> None:
    asked = [f"data={name}", f"data.root={tmp_path}", "data.clients_from=open_world"]
    assert check(composed(*asked, f"ways={open_world}")).queries == 15
    with pytest.raises(InputError, match=f"{name} has {open_world} open_world classes"):
        check(composed(*asked, f"ways={open_world + 1}"))


def test_equal_divisions_have_equal_settings(tmp_path: Path) -> None:
    """Whoever asks for one of them finds the collectives of the other."""
    root = f"data.root={tmp_path}"
    for name, paper in (("cifar_fs", "cifar100"), ("mini_imagenet", "imagenet100")):
        world, same = (check(composed(f"data={n}", root)) for n in (name, paper))
        assert (world.collective, world.learngene) == (same.collective, same.learngene)


def test_every_number_and_choice_is_checked() -> None:
    bounded = set(LIMITS)
    free = {"data.download", "data.value_range", "individual.augment", "individual.mirror_test",
            "individual.moved_views",
            "scale", "methods", "method",
            "resume", "faults",
            "experiment", "retain.normalise", "individual.safeguard", "individual.keep", "logger",
            "runtime.address", "runtime.deterministic", "learngene.layers",
            "open_world.threshold", "open_world.mirror"}  # fmt: skip
    assert {*field_names(), *METHOD_FIELDS} == bounded | free
    assert not bounded & free


@pytest.mark.parametrize("value", ["[5]", "[]", "[3,1]", "[2,2]", "[0,1,2]"])
def test_a_range_of_values_is_two_numbers(value: str) -> None:
    assert check(composed("data.value_range=[-1024,3071]")).data.value_range == [-1024, 3071]
    with pytest.raises(InputError, match=r"data\.value_range=\[.*two finite numbers are due"):
        check(composed(f"data.value_range={value}"))


def test_every_field_is_documented() -> None:
    """Fields whose name says all (a decay, a momentum) may go without a comment."""
    owners = [
        each for each in (ROOT / "learngene").rglob("settings.py") if each.parent.name != "utils"
    ]
    files = [CONF / "schema.py", ROOT / "runtime" / "resources.py", *owners]
    lines = [line for path in files for line in path.read_text().splitlines()]
    for path in sorted((ROOT / "learngene" / "methods").glob("*.py")):
        text = path.read_text().splitlines()
        lines += [
            line
            for above, line in pairwise(text)
            if "= setting(" in line and "#" not in above + line
        ]
    bare = [
        line.split(":")[0].strip()
        for above, line in pairwise(lines)
        if re.match(r"    \w+: [\w\[\], |]+ = ", line) and "#" not in above + line
    ]
    plain = {"weight_decay", "momentum", "lr", "name", "methods", "experiment"}
    groups = {"data", "collective", "learngene", "individual", "retain", "open_world",
              "labelled", "runtime", "report"}  # fmt: skip
    assert set(bare) <= plain | groups


@pytest.mark.parametrize(
    "name", sorted(n for n, each in LIMITS.items() if not each.choices and not each.path)
)
def test_a_number_out_of_its_range_is_named(name: str) -> None:
    limits = LIMITS[name]
    low, high, closed = limits.gt or limits.ge or 0, limits.le, limits.gt is None
    whole = (METHOD_FIELDS.get(name) or type_of(name)).startswith("int")
    run = [f"methods=[{name.split('.')[1]}]"] if name in METHOD_FIELDS else []
    below = low - 1 if closed else low
    for value in [below] + ([high + 1] if high < 1e15 else []):
        text = f"{int(value) if whole else value}"
        with pytest.raises(InputError) as raised:
            check(composed(*run, f"{name}={text}"))
        assert raised.value.field == name
        assert "must be" in raised.value.problem


def test_ewc_is_refused_where_layers_widen() -> None:
    with pytest.raises(InputError) as raised:
        check(composed("collective.memory=ewc", "collective.growth=schedule"))
    assert raised.value.field == "collective.growth" and "widened" in raised.value.problem
    check(composed("collective.memory=ewc"))


def test_residual_blocks_are_refused_where_layers_widen() -> None:
    with pytest.raises(InputError) as raised:
        check(composed("collective.block=residual", "collective.growth=schedule"))
    assert raised.value.field == "collective.growth" and "input" in raised.value.problem
    check(composed("collective.block=residual", "collective.growth=equal"))


def test_a_choice_that_yaml_takes_for_a_boolean_is_the_word() -> None:
    assert check(composed("retain.labels=true")).retain.labels == "true"


def test_the_memory_strategies_of_the_schema_are_those_of_the_code() -> None:
    assert set(LIMITS["collective.memory"].choices) == set(STRATEGIES)


def test_every_memory_strategy_fits_the_class_incremental_protocol() -> None:
    for memory in STRATEGIES:
        asked = composed("experiment=class_incremental", f"collective.memory={memory}")
        check(asked)
        assert (asked.collective.memory, asked.collective.exemplars) == (memory, "herding")
    assert composed().collective.exemplars == "random"


@pytest.mark.parametrize("value", ["calibrated", "paper_cifar100", "0.5", "-12", "1e-3"])
def test_open_world_thresholds(value: str) -> None:
    check(composed(f"open_world.threshold={value}"))


@pytest.mark.parametrize(
    ("overrides", "field", "problem"),
    [
        (["threshold=often"], "threshold", "neither a finite number nor one of calibrated"),
        (["threshold=null"], "threshold", "neither a finite number"),
        (["threshold=true"], "threshold", "neither a finite number"),
        (["threshold=.inf"], "threshold", "neither a finite number"),
        (["threshold=[1]"], "threshold", "neither a finite number"),
        (["threshold=paper_cifar100", "score=energy"], "threshold", "for max_softmax"),
        (["score=mahalanobis", "collective.memory_per_class=0"], "score", "fitted on exemplars"),
        *(
            (
                [f"score={score}", f"collective.memory={memory}", "collective.growth=none"],
                "score",
                f"collective.memory={memory} keeps none",
            )
            for score in ("mahalanobis", "relative_mahalanobis")
            for memory in ("ewc", "lwf", "none")
        ),
        (["score=softmax"], "score", "not one of max_softmax"),
    ],
)
def test_open_world_settings_that_do_not_go_together(
    overrides: list[str], field: str, problem: str
) -> None:
    named = [text if "." in text.split("=")[0] else f"open_world.{text}" for text in overrides]
    with pytest.raises(InputError, match=problem) as raised:
        check(composed(*named))
    assert raised.value.field == f"open_world.{field}"


def test_the_choices_are_those_of_the_open_world() -> None:
    from learngene.open_world.detector import PAPER_THRESHOLDS, SCORES
    from learngene.open_world.settings import OpenWorldSettings

    assert LIMITS["open_world.score"].choices == SCORES
    assert list(THRESHOLDS) == ["calibrated", *PAPER_THRESHOLDS]
    own = OmegaConf.to_container(composed())["open_world"]  # type: ignore[index, call-overload]
    assert OpenWorldSettings(**{f: own[f] for f in asdict(OpenWorldSettings())}) == (
        OpenWorldSettings()
    )


def test_the_types_of_fields() -> None:
    assert type_of("num_clients") == "int"
    assert type_of("data.root") == "str | None"
    assert OmegaConf.to_container(composed())["rounds"] == 1  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    "overrides",
    [
        *("", "layers=front", "layers=auto", "layers=[1]", "layers=[1,2,3,4,5,6,7,8]", "depth=13"),
        *(f"layers={layers} individual.stem=fresh" for layers in (
            "top", "1", "6", "[5,6,7]", "[13]", "[1,2,3,4,5,6]")),
        "depth=6 individual.stem=fresh",
        "path=x layers=[5,6,7]",  # a saved learngene says itself what it is
    ],
)  # fmt: skip
def test_layers_that_can_be_inherited(overrides: str) -> None:
    named = [word if "." in word else f"learngene.{word}" for word in overrides.split()]
    check(composed(*named))


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        *((f"learngene.layers={layers}", "Write individual.stem=fresh")
          for layers in ("top", "3", "[5,6,7]", "[11,12,13]")),
        ("individual.stem=fresh", "Write individual.stem=none, or learngene.layers=top"),
        ("individual.stem=fresh learngene.layers=auto", "Write individual.stem=none"),
        ("individual.stem=fresh learngene.layers=[1,2,3,4,5,6,7]", "Write individual.stem=none"),
        ("individual.stem=fresh learngene.layers=[2,3,4,5,6,7,8]", "Name fewer layers"),
    ],
)  # fmt: skip
def test_only_what_begins_with_layer_1_does_without_a_stem(overrides: str, fix: str) -> None:
    with pytest.raises(InputError, match=fix) as raised:
        check(composed(*overrides.split()))
    assert raised.value.field == "individual.stem"


@pytest.mark.parametrize(
    "words",
    [
        *("individual.depth=7", "individual.depth=[1,4,7]", "individual.bytes=60000"),
        *("individual.bytes=[10000,60000]", "individual.depth=13 learngene.depth=13"),
        *("individual.depth=2 learngene.layers=[1,2]", "individual.depth=9 learngene.path=x"),
        *("learngene.joined=5", "learngene.joined=[5,7] learngene.depth=9"),
        "learngene.joined=[9] learngene.layers=auto",
        "learngene.joined=[1,2] individual.depth=2",
        "individual.bytes=60000 individual.stem=fresh learngene.layers=top",
    ],
)
def test_clients_may_take_any_prefix_and_different_ones(words: str) -> None:
    check(composed(*words.split()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("individual.depth=8", "individual.depth=8: the learngene has 7 layers. .*learngene.depth"),
        ("individual.depth=[2,8]", r"the learngene has 7 layers. Write 7 or less"),
        ("individual.depth=3 learngene.layers=[1,2]", "has 2 layers. .*more in learngene.layers"),
        ("individual.depth=0", "individual.depth=0: must be at least 1"),
        ("individual.depth=[2,two]", "individual.depth=two: not a whole number"),
        ("individual.depth=2.5", "individual.depth=2.5: not a whole number"),
        ("individual.depth=[]", r"individual.depth=\[\]: an empty list"),
        ("individual.bytes=-1", "individual.bytes=-1: must be at least 1"),
        ("individual.bytes=9000 individual.depth=[1,2]", "Write one of the two"),
        ("individual.depth=2 individual.stem=fresh learngene.layers=top", "stay together"),
        ("learngene.joined=[5,7]", r"learngene.joined=\[5, 7\]: the learngene has 7 layers itself"),
        ("learngene.joined=2 learngene.layers=[1,2]", "has 2 layers itself. Write depths below 2"),
        ("learngene.joined=0", "learngene.joined=0: must be at least 1"),
        ("learngene.joined=[5,six]", "learngene.joined=six: not a whole number"),
        ("learngene.joined=5 learngene.projection=none", "nothing is projected"),
        ("learngene.joined=1 individual.stem=fresh learngene.layers=top", "nothing is projected"),
    ],
)
def test_a_prefix_that_cannot_be_is_refused(words: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(composed(*words.split()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ways=[2,5] shots=[1,3,10]", None),
        ("data.partition=dirichlet ways=[2,5] data.alpha=0.01", None),
        ("data.partition=dirichlet ways=30 shots=1", None),  # a mean: who holds how many is drawn
        ("ways=null", "ways=null: every client has some"),
        ("shots=[]", r"shots=\[\]: an empty list"),
        ("ways=[2,1]", "ways=1: must be at least 2"),
        ("shots=2.5", "shots=2.5: not a whole number"),
        ("ways=[2,25]", "100 glyph classes hold 20 novel ones"),
        ("shots=[5,101]", "more than the 100 training images of a class"),
        ("data.partition=iid", "not one of few_shot, dirichlet"),
        ("data.alpha=0", "data.alpha=0.0: must be above 0"),
        ("data.partition=dirichlet shots=[1,2]", r"data.min_images=10: .* is 7.5 images a client"),
        (
            "data.partition=dirichlet queries=5",
            "queries=5: with data.partition=dirichlet only training",
        ),
        ("data.partition=dirichlet individual.safeguard=true", "individual.safeguard=true: each"),
        ("individual.safeguard=true shots=[10,2]", r"a client has 2 of each \(shots\)"),
        ("methods=[maml] ways=[3,5]", "methods=maml: it is trained for one number of classes"),
        ("methods=[maml] data.partition=dirichlet", "Leave it out, or write ways=5"),
        ("data.clients_from=open_world labelled.draws=2 ways=[3,5]", "Write ways=3 or labelled"),
        ("data.clients_from=open_world labelled.draws=2 data.partition=dirichlet", "few_shot or"),
        (
            "data.clients_from=open_world labelled.draws=2 individual.safeguard=true",
            "few of one may be named",
        ),
        (
            "experiment=retain_curves labelled.draws=2",
            "retain_curves is about clients with classes of their own",
        ),
        ("experiment=retain_curves labelled.draws=20", None),
        ("queries=200", "queries=200: no image of a class is left to train on"),
        ("queries=5", None),
        ("queries=5 methods=[learngene,fedavg]", "queries=5: fedavg is one model of all clients"),
    ],
)
def test_clients_may_differ(words: str, said: str | None) -> None:
    if said is None:
        check(composed(*words.split()))
        return
    with pytest.raises(InputError, match=said):
        check(composed(*words.split()))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("0", "at least 1"), ("7", "at most 6"), ("true", "no number"), ("bottom", "no number"),
        ("[]", "no number"), ("[5,7]", "consecutive"), ("[7,6,5]", "consecutive"),
        ("[0,1]", "consecutive"), ("[12,13,14]", "has 13 layers"),
        ("[a,b]", "no number"), ("2.5", "no number"),
    ],
)  # fmt: skip
def test_layers_that_cannot(layers: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        check(composed(f"learngene.layers={layers}"))
    assert raised.value.field == "learngene.layers"


def test_growth_is_a_word_or_a_file(tmp_path: Path) -> None:
    check(composed("collective.growth=none"))
    plan = CONF / "growth" / "deepen.yaml"
    check(
        composed(
            f"collective.growth={plan}", "learngene.layers=[13,14,15]", "individual.stem=fresh"
        )
    )
    with pytest.raises(InputError, match="nor a file that exists") as raised:
        check(composed(f"collective.growth={tmp_path}/nowhere.yaml"))
    assert raised.value.field == "collective.growth"


def test_faults_are_written_without_quotes() -> None:
    asked = composed("faults=[3:raise,5:kill_once@2,0:none,1:nan,2:inf]")
    check(asked)
    assert list(asked.faults) == ["3:raise", "5:kill_once@2", "0:none", "1:nan", "2:inf"]


@pytest.mark.parametrize(
    ("faults", "problem"),
    [
        ("[raise]", "not of the form"),
        ("[3:explode]", "there is no such fault, there are kill_once"),
        ("[20:raise]", "clients are 0 to 19"),
        ("[3:raise,3:nan]", "that client has a fault already"),
        ("[3:hang@31]", "never strikes, individual.epochs is 30"),
    ],
)
def test_faults_that_cannot_be_planted(faults: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as raised:
        check(composed(f"faults={faults}"))
    assert raised.value.field == "faults"


@pytest.mark.parametrize(
    ("overrides", "field", "problem"),
    [
        (["labelled.draws=2"], "labelled.draws", "clients hold novel classes"),
        (["data.clients_from=open_world", "labelled.draws=21"], "labelled.draws", "num_clients=20"),
        (["data.clients_from=open_world", "labelled.draws=2", "rounds=2"], "rounds", "finished"),
        (["data.clients_from=open_world", "labelled.draws=2", "learngene.path=a.safetensors"],
         "labelled.draws", "no collective"),
    ],
)  # fmt: skip
def test_named_images_need_what_can_be_called_unknown(
    overrides: list[str], field: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as raised:
        check(composed(*overrides))
    assert raised.value.field == field


def test_federated_methods_need_no_factory() -> None:
    check(composed("learngene.path=a.safetensors", "methods=[learngene,fedavg]", "budget=null"))


@pytest.mark.parametrize("name", ["protonet", "full"])
def test_after_cycles_no_method_is_trained_or_taken_on_other_terms(name: str) -> None:
    check(composed("open_world.cycles=1", "methods=[learngene,scratch,fedavg]"))
    with pytest.raises(InputError, match="no equal terms") as raised:
        check(composed("open_world.cycles=1", f"methods=[learngene,{name}]"))
    assert raised.value.field == "methods"


def test_methods_that_need_a_collective_or_a_budget_say_so() -> None:
    saved = "learngene.path=learngene.safetensors"
    check(composed(saved))
    check(composed(saved, "methods=[learngene,protonet]", "budget=1000"))
    with pytest.raises(InputError, match="saved learngene has no collective") as raised:
        check(composed(saved, "methods=[learngene,protonet]", "budget=null"))
    assert raised.value.field == "budget"
    with pytest.raises(InputError, match="it is sent the collective") as raised:
        check(composed(saved, "methods=[full]", "budget=1000"))
    assert raised.value.field == "methods"


def test_an_unknown_method_is_refused_with_the_list() -> None:
    with pytest.raises(
        InputError, match=r"no method of that name \(there are learngene, .*deepemd, full"
    ):
        check(composed("methods=[learngene,magic]"))


@pytest.mark.parametrize(
    ("experiment", "methods", "absent"),
    [
        ("fig4_curves", "[learngene]", "scratch"),
        ("fig4_samples", "[scratch,protonet]", "learngene"),
        ("fig6a_evolution", "[scratch]", "learngene"),
        ("fig6b_position", "[scratch]", "learngene"),
    ],
)
def test_an_experiment_has_the_methods_that_it_compares(experiment, methods, absent):
    asked = [f"experiment={experiment}", "scale=tiny", f"methods={methods}"]
    if experiment == "fig6a_evolution":
        asked.append("rounds=1")
    with pytest.raises(InputError, match=f"compares {absent}. Write methods=") as refused:
        check(composed(*asked))
    assert refused.value.field == "methods"
    check(composed(f"experiment={experiment}", "scale=tiny"))


@pytest.mark.parametrize("value", ["~/nope", "/tmp/my pics (2024), best", "a b,c", "it's here"])
def test_a_path_that_hydra_cannot_read_is_named_with_its_quotes(value):
    override = f"data.root={value}"
    with pytest.raises(HydraException) as refused:
        composed("data=imagefolder", override)
    said = explain(refused.value, ["data=imagefolder", override])
    assert said.startswith(f"{override}: ")
    offered = said.partition("those of the shell: ")[2].removesuffix(".")
    assert shlex.split(offered) == [f'data.root="{value}"']  # as a shell hands it on
    quoted = composed("data=imagefolder", f'data.root="{value}"')
    assert quoted.data.root == value


def test_a_path_from_home_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    check(composed("data=imagefolder", 'data.root="~/pictures"'))
    with pytest.raises(InputError, match="no such folder"):
        check(composed("data=imagefolder", 'data.root="~/pictues"'))


@pytest.mark.parametrize(
    ("words", "blamed"),
    [
        (["/tmp/pics"], "/tmp/pics"),
        (["/tmp/pics", "seed=1"], "/tmp/pics"),  # and not the innocent one
        (["num clients=3"], "num clients=3"),
        ([f"methods=[{','.join(['scratch'] * 40)}]", "data.root=~/a"], "data.root=~/a"),
    ],
)
def test_the_word_that_cannot_be_read_is_the_one_that_is_named(words, blamed):
    with pytest.raises(HydraException) as refused:
        composed(*words)
    said = explain(refused.value, words)
    assert said.startswith(f"{blamed}: ") and "\n" not in said
    if blamed != "data.root=~/a":  # quotes would not help
        assert "quotes" not in said and "Write NAME=VALUE" in said


def test_a_home_that_nobody_has_is_no_folder():
    with pytest.raises(InputError, match="no such folder"):
        check(composed("data=imagefolder", 'data.root="~nosuchuser/pics"'))


def test_the_object_is_what_was_composed_and_is_read_back() -> None:
    asked = ["experiment=frontier", "learngene.layers=[5,6,7]", "method.mine.lr=1", "cache=c"]
    asked = composed(*asked)
    config = to_typed(asked)
    assert asdict(config) == OmegaConf.to_container(asked, resolve=True)
    assert config.method["mine"] == {"lr": 1}
    plain = json.loads(json.dumps(asdict(config)))
    assert read_config({**plain, "own_methods": {}}) == config


@pytest.mark.parametrize(("shard_seed", "drawn"), [(None, 3), (0, 0), (7, 7)])
def test_shards_are_drawn_from_the_seed_unless_they_have_one(
    shard_seed: int | None, drawn: int
) -> None:
    config = Config(cache="", seed=3, shard_seed=shard_seed)
    assert config.partition_seed == config.shards.seed == drawn
    assert config.dataset.seed == 3


def test_a_wrong_word_is_refused_without_waiting_for_torch() -> None:
    code = "import sys, conf.validate; sys.exit(bool({'torch', 'flwr', 'ray'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
