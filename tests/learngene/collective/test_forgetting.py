"""Herding, the Fisher of a task, and what each memory strategy does in a tiny dataset."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from learngene.adaptation.retain import Retain, fisher_diagonal
from learngene.collective.criterion import Criterion
from learngene.collective.forgetting import STRATEGIES, anchored, herd, task_fisher
from learngene.collective.predictor import Accuracy
from learngene.collective.sampling import epoch_positions, one_cycle
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.augment import draw_views, to_batch, views
from learngene.errors import InputError
from learngene.seeding import generator, torch_generator
from tests.helpers import rng, torch_rng

LATER = ("rehearsal", "lwf", "ewc", "none")


def weights(life: CollectiveTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in life.collective.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[n], other[n]) for n in one)


def lived(life: CollectiveTrainer, tasks: int = 2) -> CollectiveTrainer:
    for _ in range(tasks):
        life.run_task()
    return life


# --- herding


def test_herding_is_the_greedy_choice():
    """Against every candidate's distance, written out as in iCaRL's algorithm 4."""
    features = rng(1).standard_normal((9, 4)) * rng(2).uniform(0.1, 9, (9, 1))
    phi = [row / np.sqrt((row**2).sum()) for row in features]
    mean = sum(phi) / 9
    chosen: list[int] = []
    for k in range(1, 7):
        distances = {
            i: np.sqrt(((mean - (phi[i] + sum(phi[j] for j in chosen)) / k) ** 2).sum())
            for i in range(9)
            if i not in chosen
        }
        chosen.append(min(distances, key=lambda i: distances[i]))
    assert herd(features, 6).tolist() == chosen


def test_the_first_exemplar_is_the_best_single_one_and_any_prefix_a_smaller_choice():
    features = rng(3).standard_normal((30, 5))
    whole = herd(features, 30)
    assert sorted(whole) == list(range(30))
    phi = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert whole[0] == np.linalg.norm(phi - phi.mean(0), axis=1).argmin()
    for count in (0, 1, 7):
        assert herd(features, count).tolist() == whole[:count].tolist()
    assert herd(features, 31).tolist() == whole.tolist()


def test_herded_exemplars_stay_nearer_to_the_mean_than_random_ones():
    features = np.abs(rng(4).standard_normal((60, 16)))
    phi = features / np.linalg.norm(features, axis=1, keepdims=True)

    def away(rows):
        return np.linalg.norm(phi[rows].mean(0) - phi.mean(0))

    assert away(herd(features, 8)) < min(away(rng(i).permutation(60)[:8]) for i in range(20))


def test_equal_images_are_not_chosen_twice_and_lengths_do_not_count():
    features = np.array([[1.0, 0], [1.0, 0], [5.0, 0], [0, 1.0]])
    assert herd(features, 4).tolist() == herd(features * [[3], [1], [0.1], [7]], 4).tolist()
    assert sorted(herd(features, 4)) == [0, 1, 2, 3]


def test_herding_looks_at_the_last_layer_as_it_is_after_the_task(evolve, tiny_dataset):
    life = lived(evolve(exemplars="herding", memory_per_class=4), 1)
    for c, rows in life.memory.items():
        pool = life.train_rows[c]
        with torch.no_grad():
            features = life.collective.eval().features(to_batch(tiny_dataset.train_images[pool]))
        assert rows.tolist() == pool[herd(features.numpy(), 4)].tolist()
    random = lived(evolve(memory_per_class=4), 1)
    assert same(weights(life), weights(random))  # the first task knows no memory
    assert any(set(life.memory[c]) != set(random.memory[c]) for c in life.memory)


# --- what a later task sees


def batches_of(life: CollectiveTrainer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The base classes of every image that is trained on in the next task, by content."""
    dataset = life.dataset
    owner = {
        dataset.train_images[row].tobytes(): int(c) for row, c in enumerate(dataset.train_labels)
    }
    seen: list[int] = []

    def spy(images, device="cpu"):
        seen.extend(owner[image.tobytes()] for image in np.asarray(images))
        return to_batch(images, device)

    for module in ("data.device_images", "collective.predictor"):
        monkeypatch.setattr(f"learngene.{module}.to_batch", spy)
    monkeypatch.setattr(life, "test", lambda tasks: life_test)
    life_test = Accuracy(0.0, [0.0])
    life.run_task()
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("memory", LATER)
@pytest.mark.parametrize("exemplars", ["random", "herding"])
def test_only_rehearsal_sees_an_old_image(evolve, monkeypatch, memory, exemplars):
    life = lived(evolve(memory=memory, exemplars=exemplars, growth="none"))
    old = set(life.known)
    seen = set(batches_of(life, monkeypatch))  # the last task: consolidation would follow
    assert seen & set(life.tasks[-1]) == set(life.tasks[-1])
    assert bool(seen & old) == (memory == "rehearsal")
    assert {len(rows) for rows in life.memory.values()} == {4 if memory == "rehearsal" else 0}


@pytest.mark.parametrize("memory", LATER)
def test_only_rehearsal_and_lwf_hear_the_previous_stage(evolve, monkeypatch, memory):
    life = lived(evolve(memory=memory, growth="none"), 1)
    teachers = []
    targets = life._distillation_targets
    monkeypatch.setattr(
        life, "_distillation_targets", lambda t, rows: teachers.append(t) or targets(t, rows)
    )
    life.run_task()
    (teacher,) = teachers
    assert (teacher is not None) == (memory in ("rehearsal", "lwf"))


def test_strategies_are_what_is_left_of_rehearsal(evolve):
    """Without exemplars rehearsal is lwf; without distillation lwf is none; ewc without a penalty
    is none, and with one it is not."""
    fixed = {"growth": "none"}
    plain = weights(lived(evolve(memory="none", **fixed), 3))
    lwf = weights(lived(evolve(memory="lwf", **fixed), 3))
    assert same(lwf, weights(lived(evolve(memory_per_class=0, **fixed), 3)))
    assert same(plain, weights(lived(evolve(memory="lwf", distill=0.0, **fixed), 3)))
    assert same(plain, weights(lived(evolve(memory="ewc", ewc_lambda=0.0, **fixed), 3)))
    assert not same(plain, lwf)
    assert not same(plain, weights(lived(evolve(memory="ewc", ewc_lambda=1.0, **fixed), 3)))


def test_rehearsal_is_this_loop(evolve):
    """A later task of the default strategy, written out: the order of operations is its numbers."""
    life = lived(evolve(epochs=2), 1)
    hand = copy.deepcopy(life)
    life.run_task()

    s, dataset = hand.settings.collective, hand.dataset
    seed = hand.settings.seed
    old, new = hand.tasks[0], hand.tasks[1]
    teacher = copy.deepcopy(hand.collective).eval()
    hand.grow(1)
    model = hand.collective
    drawn = torch_generator(seed, "head", round=1)
    model.head.grow(len(new), drawn)
    parts = [hand.train_rows[c][: s.memory_per_class] for c in old]
    parts += [hand.train_rows[c] for c in new]
    rows = np.concatenate(parts)
    labels = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]))
    with torch.no_grad():
        said = [
            teacher(to_batch(dataset.train_images[rows[i : i + 256]]))
            for i in range(0, len(rows), 256)
        ]
        goals = F.softmax(torch.cat(said) / s.temperature, 1)
    every = list(model.parameters())
    optimiser = torch.optim.SGD(
        [
            {"params": [p for p in every if p.ndim > 1], "weight_decay": s.weight_decay},
            {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=s.lr, momentum=0.9, nesterov=True,
    )  # fmt: skip
    order, chance = (
        generator(seed, "task-order", round=1),
        torch_generator(seed, "task-augment", round=1),
    )
    criterion = Criterion(hand.settings.rho, hand.settings.sigma, 13)
    epochs = [
        epoch_positions(labels.numpy(), len(old), s.rehearse_per_class, order) for _ in range(2)
    ]
    batches = [e[i : i + 16] for e in epochs for i in range(0, len(e) - 15, 16)]
    model.train()
    for step, positions in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = s.lr * one_cycle(step / len(batches))
        x = to_batch(dataset.train_images[rows[positions]])
        drawn = draw_views(len(x), chance)
        x = views(x, drawn, flip=dataset.flip, side=s.train_size, zoom=s.zoom)
        optimiser.zero_grad(set_to_none=True)
        logits = model(x)
        goal = goals[positions]
        ours = F.log_softmax(logits[:, : len(old)] / s.temperature, dim=1)
        loss = F.cross_entropy(logits, labels[positions])
        loss = loss + s.distill * s.temperature**2 * F.kl_div(ours, goal, reduction="batchmean")
        loss.backward()
        criterion.observe(model)
        torch.nn.utils.clip_grad_norm_(every, 5.0)
        optimiser.step()
    assert same(weights(life), weights(hand))
    assert life.stages[-1].rho == criterion.result()


# --- elastic weight consolidation


def test_the_fisher_of_a_task_has_mean_one_and_is_that_of_its_images(evolve, tiny_dataset):
    life = lived(evolve(memory="ewc", growth="none"), 1)
    rows = np.concatenate([life.train_rows[c] for c in life.known])
    x = to_batch(tiny_dataset.train_images[rows])
    model = life.collective.eval()
    layers = [part for unit in model.units for part in (unit.conv, unit.norm)]
    drawn = torch_generator(life.settings.seed, "ewc-labels", round=0)
    with torch.no_grad():
        labels = torch.multinomial(model(x).softmax(1), 1, generator=drawn)[:, 0]
    plain = fisher_diagonal(model, layers, x, labels)
    mean = torch.cat([f.flatten() for f in plain]).double().mean()
    held = anchored(model)
    assert len(held) == 39 and len(life.fisher) == 39
    for name, found, expected in zip(held, life.fisher, plain, strict=True):
        assert found.shape == held[name].shape, name
        assert torch.allclose(found, expected / mean, rtol=1e-3, atol=1e-5), name
    assert torch.cat([f.flatten() for f in life.fisher]).mean() == pytest.approx(1, abs=1e-4)


def test_drawn_labels_give_the_expectation_over_the_models_labels(evolve, tiny_dataset):
    """Eq. 7 by its definition, against many draws of one label a image."""
    life = lived(evolve(memory="none", growth="none", classes_per_task=3), 1)
    x = to_batch(tiny_dataset.train_images[life.train_rows[life.known[0]][:4]])
    model = life.collective.eval()
    layers = [m for m in model.units.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    exact = torch.cat([f.flatten() for f in fisher_diagonal(model, layers, x)])
    drawn = torch_rng(7)
    many = torch.cat([f.flatten() for f in task_fisher(model, [x] * 150, drawn)])
    exact = exact / exact.mean()
    assert float((many - exact).abs().mean()) < 0.15
    assert float(torch.corrcoef(torch.stack([many, exact]))[0, 1]) > 0.98


def test_fishers_add_up_over_the_tasks(evolve):
    life = evolve(memory="ewc", growth="none")
    means = []
    for _ in life.tasks:
        life.run_task()
        means.append(float(torch.cat([f.flatten() for f in life.fisher]).mean()))
    assert means == pytest.approx([1, 2, 3], abs=1e-3)


def test_the_penalty_pulls_to_the_previous_stage(evolve):
    """The stiffer, the nearer the held weights stay; the heads are free."""
    start = lived(evolve(memory="ewc", growth="none"), 1)
    before = {n: p.detach().clone() for n, p in anchored(start.collective).items()}

    def moved(stiffness: float) -> tuple[float, float]:
        life = lived(evolve(memory="ewc", growth="none", ewc_lambda=stiffness), 2)
        fisher = zip(before, start.fisher, strict=True)
        now = {n: p.detach() for n, p in anchored(life.collective).items()}
        away = sum(float((f * (now[n] - before[n]).square()).sum()) for n, f in fisher)
        head = life.collective.head.weight[: len(start.known)]
        return away, float((head - start.collective.head.weight).detach().norm())

    found = [moved(stiffness) for stiffness in (0.0, 1.0, 1e6)]
    away = [a for a, _ in found]
    assert away[0] > 2 * away[1] > 0 and away[2] < 1e-3 * away[0]
    assert all(head > 1e-3 for _, head in found)


def test_ewcs_step_is_lambda_times_the_rate(evolve, monkeypatch):
    life = lived(evolve(memory="ewc", growth="none", ewc_lambda=3.0), 1)
    taken: list[tuple[float, float]] = []
    monkeypatch.setattr(
        Retain,
        "proximal_step",
        lambda self, step, *, momentum: taken.append((float(step), momentum)),
    )
    life.run_task()
    assert taken == [(pytest.approx(3.0 * 0.02 * one_cycle(n / 3)), 0.9) for n in range(3)]


def test_ewc_needs_layers_that_keep_their_widths(evolve):
    with pytest.raises(
        InputError, match=r"collective.growth=schedule.*Write collective.growth=none"
    ):
        evolve(memory="ewc", growth="schedule")
    for memory, growth in itertools.product(set(STRATEGIES) - {"ewc"}, ("schedule", "none")):
        evolve(memory=memory, growth=growth)
