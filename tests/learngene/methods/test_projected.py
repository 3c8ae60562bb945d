"""Second rows: a method's body with the learngene's projection behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learngene.collective.sampling import class_positions
from learngene.data.augment import to_batch
from learngene.methods import BUILT_IN, Payload, find
from learngene.methods.common.backbone import body_of, fill
from learngene.methods.common.projected import project
from learngene.methods.protonet import class_means
from learngene.networks.projection import discriminant
from tests.learngene.methods.helpers import make_context, make_factory, same

BODIES = ("finetune", "maml")  # norms with statistics, and without


@pytest.fixture(scope="module")
def made(tiny_dataset) -> dict[str, tuple[Payload, Payload]]:
    """A method's payload, and its second row's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for name in BODIES:
        factory = make_factory(name, tiny_dataset)
        own = find(name).pretrain(factory)
        found[name] = own, project(factory, find(name).body, own, 1.0)
    torch.set_num_threads(before)
    return found


def test_what_the_factory_trains_has_a_second_row_and_nothing_else_has():
    for name in BUILT_IN:
        trained = find(name).trained_by in ("factory", "collective") and name != "linear_probe"
        assert (find(name).body is not None) == trained, name
        if trained:
            second = find(f"{name}+projection")
            assert second.training_free and second.epochs_setting is None
            assert second.settings is find(name).settings
        else:
            with pytest.raises(ValueError, match="no body of it is trained at the factory"):
                find(f"{name}+projection")
    with pytest.raises(KeyError):
        find("magic+projection")


@pytest.mark.parametrize("name", BODIES)
def test_it_sends_the_methods_body_as_it_is_and_a_projection(made, name):
    own, second = made[name]
    for array, value in own.arrays.items():
        if not array.startswith("head."):
            assert np.array_equal(second.arrays[f"body.{array}"], value), array
    assert not [array for array in second.arrays if "head." in array]
    matrix = second.arrays["projection.matrix"]
    assert matrix.shape == (16 - 1, len(second.arrays["projection.mean"]))
    assert second.card == own.card
    means = [a for n, a in second.arrays.items() if n.endswith("running_mean")]
    assert len(means) == 7 and all(np.abs(mean).max() > 0 for mean in means)  # MAML's: measured


def test_the_projection_is_the_discriminant_of_the_bodys_features_of_its_base_images(
    made, tiny_dataset
):
    own, second = made["finetune"]
    images = make_factory("finetune", tiny_dataset).images
    body = body_of(own.card, 3)
    fill(body, own.arrays)
    rows = np.concatenate(images.rows)
    with torch.no_grad():
        features = body.eval()(to_batch(tiny_dataset.train_images[rows], images.device))
    expected = discriminant(features, class_positions(images.rows), 1.0)
    found = torch.from_numpy(second.arrays["projection.matrix"])
    assert torch.allclose(found, expected.matrix, atol=1e-3)
    other = project(make_factory("finetune", tiny_dataset), find("finetune").body, own, 10.0)
    assert not same(other, second)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_a_client_names_the_nearest_class_mean_in_the_projected_space(
    made, tiny_dataset, name, flip
):
    _, second = made[name]
    context = make_context(name, tiny_dataset, second)
    shard = replace(context.shard, flip=flip)
    found = find(f"{name}+projection").adapt(replace(context, shard=shard))
    assert found.epochs == [0] and set(found.extras) == {"train_accuracy"}
    body = body_of(second.card, 3)
    of_body = {
        n.removeprefix("body."): a for n, a in second.arrays.items() if n.startswith("body.")
    }
    fill(body, of_body)
    mean, matrix = (torch.from_numpy(second.arrays[f"projection.{n}"]) for n in ("mean", "matrix"))

    def seen(x):
        with torch.no_grad():
            return F.normalize(F.normalize(body.eval()(x)) - mean) @ matrix.T

    views, labels = shard.train_x, shard.train_y
    if flip:
        views, labels = torch.cat([views, views.flip(3)]), labels.repeat(2)
    centre = F.normalize(seen(views)).mean(0)
    placed = [F.normalize(F.normalize(seen(x)) - centre) for x in (views, shard.test_x)]
    nearest = (placed[1] @ F.normalize(class_means(placed[0], labels, 3)).T).argmax(1)
    assert found.accuracy[0] == pytest.approx(float((nearest == shard.test_y).float().mean()))


def test_a_client_refuses_arrays_that_do_not_fit(made, tiny_dataset):
    _, second = made["finetune"]
    lost = next(n for n in second.arrays if n.endswith("1.conv.weight"))
    fewer = {n: a for n, a in second.arrays.items() if n != lost}
    context = make_context("finetune", tiny_dataset, Payload(fewer, second.card))
    with pytest.raises(ValueError, match=r"1\.conv\.weight"):
        find("finetune+projection").adapt(context)


def test_the_collective_has_a_second_row_too(evolved, tiny_dataset):
    own = find("full").from_collective(evolved.collective)
    second = project(make_factory("full", tiny_dataset), find("full").body, own, 1.0)
    found = find("full+projection").adapt(make_context("full", tiny_dataset, second))
    assert found.epochs == [0] and 0 <= found.accuracy[0] <= 1
