"""benchmarks/tune_methods.py, whose trials are equally many for every method and of real settings,
and what benchmarks/tune_collective.py measures."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import tune_methods as tune
from benchmarks.tune_collective import prototypes
from conf.parts import factory_settings
from conf.schema import Config, read_config
from conf.validate import check
from learngene.adaptation.training import features, measure, shard_features
from learngene.data.cache import build
from learngene.data.partition import draw_shard, read_shard
from learngene.data.settings import ShardSettings
from learngene.gene.gene import reconstruct
from learngene.methods import BUILT_IN
from learngene.networks.individual import PrototypeHead
from reports.tuning import read_records, write_record
from reports.variants import flatten
from server.factory import train_or_load_gene
from tests.benchmarks.test_command import ended
from tests.composing import composed
from tests.helpers import CPU, gene_of, method_settings, torch_rng


def test_every_method_has_a_space():
    assert set(tune.SPACES) == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_trials_are_equally_many_and_begin_with_what_is_set(name):
    config = asdict(Config(cache="", method=method_settings()))
    found = tune.trials(name, config, 8)
    assert len(found) == 8 and found == tune.trials(name, config, 8)
    assert len({str(sorted(each.items())) for each in found}) == 8
    defaults = dict(flatten(config))
    assert found[0] == {path: defaults[path] for path in found[0]}
    for each in found[1:]:
        for path, value in each.items():
            assert isinstance(value, type(defaults[path])) or defaults[path] is None


def test_a_space_that_is_too_small_says_so():
    with pytest.raises(ValueError, match=r"linear_probe: 9 settings, 50 trials"):
        tune.trials("linear_probe", asdict(Config(cache="", method=method_settings())), 50)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--methods maml,foo", "--methods: foo: there is no such method. Choose of ['learngene'"),
        ("--trials 20 --methods linear_probe", "--trials: linear_probe: 9 settings, 20 trials"),
    ],
)
def test_what_cannot_be_tuned_is_said_before_any_work(words, said, tmp_path, monkeypatch, capsys):
    config = asdict(Config(cache="", method=method_settings()))
    (tmp_path / "results.json").write_text(json.dumps({"run": {"config": config}}))
    monkeypatch.setattr(tune, "build", None)  # no dataset is opened
    run = [str(tmp_path), "--out", str(tmp_path / "out.json"), *words.split()]
    assert ended(monkeypatch, "tune_methods", *run) == 2
    assert said in capsys.readouterr().err


def test_a_trial_that_diverged_is_no_best():
    bad = {"settings": {"lr": 9}, "accuracy": None, "error": "ValueError"}
    assert tune.best([bad]) is None
    assert tune.best([bad, {"settings": {"lr": 1}, "accuracy": 0.3}]) == {"lr": 1}
    assert tune.measured([{"error": "x"}, {"accuracy": [0.1]}])["accuracy"] is None
    assert tune.measured([{"accuracy": [0.1, 0.2]}, {"accuracy": [0.4]}])["accuracy"] == (
        pytest.approx(0.3)
    )


def test_a_record_holds_the_plans_trials_and_no_others(tmp_path):
    config = asdict(Config(cache="", method=method_settings()))
    tried = tune.trials("maml", config, 3)
    done = [{"settings": each, "accuracy": 0.1 * i} for i, each in enumerate(tried)]
    older = {"settings": {"method.maml.lr": 9.0}, "accuracy": 0.99}
    conditions = {"data": "glyphs", "width": 0.25, "shots": 10, "ways": 5, "budget": 1000}
    made = tune.record_of("maml", conditions, tried, [older, *done], "python tune")
    assert made["trials"] == 3 and made["best"] == tried[2] and made["data"] == "glyphs"
    assert read_records(write_record(made, tmp_path).parent) == [made]


def test_trials_under_other_conditions_are_not_taken_for_these(tmp_path):
    out, kept = tmp_path / "out.json", {"maml": [{"settings": {}, "accuracy": 0.5}]}
    assert tune.trials_so_far(out, {"width": 0.25}) == {}
    out.write_text(json.dumps({"conditions": {"width": 0.25}, "methods": kept}))
    assert tune.trials_so_far(out, {"width": 0.25}) == kept
    with pytest.raises(ValueError, match="other conditions"):
        tune.trials_so_far(out, {"width": 0.5})


def test_a_trial_of_what_is_trained_among_the_clients(tmp_path):
    asked = ("scale=tiny", "runtime=serial", "data.clients_from=open_world", f"cache={tmp_path}")
    plain = asdict(check(composed(*asked, "num_clients=2", "collective.classes_per_task=21")))
    plain["method"] = method_settings()
    config = read_config(plain)
    dataset = build(config.dataset, tmp_path)
    result = train_or_load_gene(factory_settings(config), dataset)
    here = SimpleNamespace(starmap=lambda work, clients: [work(*client) for client in clients])
    rates = {"method.fedper.lr": 0.01, "method.fedper.rounds": 1}
    made = tune.run_trial(here, "fedper", rates, plain, dataset, result)
    assert made["settings"] == rates and 0 < made["accuracy"] < 1
    bad = tune.run_trial(here, "fedper", {"method.fedper.lr": 1e30}, plain, dataset, result)
    assert bad["accuracy"] is None and bad["error"]
    bad = tune.run_trial(here, "learngene", {"collective.lr": 1e30}, plain, dataset, result)
    assert bad["accuracy"] is None and bad["error"].startswith("collective.lr=")


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("mirror", [True, False])
def test_images_that_tasks_share_are_embedded_once_and_answers_are_theirs(
    tiny_dataset, evolved, mirror, moved
):
    config = Config(cache="", ways=3, shots=2, method=method_settings())
    config.individual.mirror_test, config.individual.moved_views = mirror, moved
    dataset = replace(tiny_dataset, flip=True)
    gene = gene_of(evolved.collective)
    individual = reconstruct(gene, ways=3, generator=torch_rng())
    accuracies = []
    for number in range(6):
        shards = ShardSettings(3, 2, tune.TUNING_SEED, "open_world")
        shard = draw_shard(dataset, shards, number)
        data = read_shard(dataset, shard, CPU)
        data = data.with_views(mirror=mirror, moved=moved)
        with torch.no_grad():
            views, labels = shard_features(individual, data)
            head = PrototypeHead(views.shape[1], 3)
            head.start(views, labels)
            test = features(individual, data.test_x)
            accuracies.append(measure(head, test, data.test_y, data.test_views)[0])
    assert len(set(accuracies)) > 1
    assert prototypes(gene, dataset, config, 6)[0] == pytest.approx(np.mean(accuracies))
