"""The life of a collective in a tiny dataset: heads, memory, rows, resuming, distillation."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, astuple, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learngene.collective import trainer as evolution_module
from learngene.collective.records import Accuracy, TaskRecord
from learngene.collective.sampling import epoch_positions, one_cycle
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.augment import to_batch
from learngene.errors import InputError
from learngene.networks.collective import COLLECTIVE_END, COLLECTIVE_EQUAL, COLLECTIVE_START
from learngene.networks.growth import PlannedStep
from learngene.networks.layers import scaled
from learngene.utils.checkpoint import read_checkpoint, write_checkpoint
from tests.helpers import settings


def state(life: CollectiveTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in life.collective.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_tasks_hold_every_base_class_once_in_an_order_of_the_seed(evolve, tiny_dataset):
    tasks = evolve().tasks
    assert [len(task) for task in tasks] == [6, 6, 4]
    assert sorted(chain.from_iterable(tasks)) == sorted(tiny_dataset.class_split.base)
    assert evolve().tasks == tasks and evolve(seed=6).tasks != tasks


def test_head_and_widths_grow_with_the_tasks(evolved):
    life = evolved
    assert [stage.known_classes for stage in life.stages] == [6, 12, 16]
    assert life.known == list(chain.from_iterable(life.tasks))
    assert life.collective.head.weight.shape[0] == 16
    assert life.collective.widths == scaled(COLLECTIVE_END, 0.0625)
    assert [len(stage.widened) for stage in life.stages] == [0, 10, 10]
    assert life.stages[0].parameters < life.stages[1].parameters < life.stages[2].parameters


def test_starts_with_the_papers_narrow_widths(evolve):
    assert evolve().collective.widths == scaled(COLLECTIVE_START, 0.0625)


def test_stages_report_shares_and_thirteen_rhos(evolved):
    for stage in evolved.stages:
        assert len(stage.rho) == 13 and all(0 <= r <= 1 for r in stage.rho)
        assert max(stage.rho) > 0 and 0 <= stage.accuracy <= 1


def test_a_life_ends(evolved):
    with pytest.raises(ValueError, match="all 3 tasks are done"):
        evolved.run_task()


def test_memory_is_bounded_and_holds_no_calibration_row(evolve, evolved, tiny_dataset):
    life = evolved
    held = set(life.calibration_rows.tolist())
    assert len(held) == 16 * 3
    assert set(life.memory) == set(tiny_dataset.class_split.base)
    for c, rows in life.memory.items():
        assert len(rows) == 4 and set(tiny_dataset.train_labels[rows]) == {c}
    for c, rows in life.train_rows.items():
        every = set(tiny_dataset.rows("train", c).tolist())
        assert set(rows.tolist()) == every - held and len(rows) == len(every) - 3
    assert set(tiny_dataset.train_labels[life.calibration_rows]) == set(
        tiny_dataset.class_split.base
    )


def test_held_are_exemplars_and_all_images_of_the_last_task(evolved):
    last = evolved.tasks[-1]
    for c, rows in zip(evolved.known, evolved.held_rows(), strict=True):
        held = evolved.train_rows[c] if c in last else evolved.memory[c]
        assert np.array_equal(rows, held) and len(rows) == (9 if c in last else 4)


def test_training_reads_no_row_but_those_of_its_classes(evolve, tiny_dataset, monkeypatch):
    """Every image that reaches the network, by content."""
    seen: list[bytes] = []

    def spy(images, device="cpu"):
        seen.extend(image.tobytes() for image in np.asarray(images))
        return to_batch(images, device)

    life = evolve()
    for module in ("collective.predictor", "data.device_images"):
        monkeypatch.setattr(f"learngene.{module}.to_batch", spy)
    monkeypatch.setattr(life, "test", lambda tasks: Accuracy(0.0, []))
    life.run_task()
    first = len(seen)
    life.run_task()
    images = tiny_dataset.train_images
    allowed = [
        {images[row].tobytes() for c in classes for row in life.train_rows[c]}
        for classes in life.tasks
    ]
    kept = {images[row].tobytes() for c in life.tasks[0] for row in life.memory[c]}
    assert set(seen[:first]) <= allowed[0]
    assert set(seen[first:]) <= allowed[1] | kept
    assert set(seen[first:]) & kept


def test_an_epoch_takes_every_new_image_and_some_of_each_old_class():
    labels = np.repeat([0, 1, 2, 3], [4, 4, 9, 9])  # two old classes of four exemplars, two new
    order = np.random.default_rng(0)
    first, second = epoch_positions(labels, 2, 2, order), epoch_positions(labels, 2, 2, order)
    for positions in (first, second):
        assert len(set(positions)) == len(positions)
        assert np.bincount(labels[positions]).tolist() == [2, 2, 9, 9]
    assert first.tolist() != sorted(first) and set(first) != set(second)  # drawn anew


def test_a_balanced_epoch_shows_scarce_classes_as_often_as_the_old_one_that_has_most():
    labels = np.repeat([0, 1, 2, 3], [8, 2, 3, 9])  # old: 8 and 2 exemplars; new: 3 and 9 images
    order = np.random.default_rng(0)
    task = epoch_positions(labels, 2, 5, order, balance=True)
    assert np.bincount(labels[task]).tolist() == [5, 5, 5, 9]
    often = np.bincount(task, minlength=len(labels))
    # As evenly as can be.
    assert sorted(often[8:10]) == [2, 3] and sorted(often[10:13]) == [1, 2, 2]
    all_old = epoch_positions(labels, 4, None, order, balance=True)  # a consolidation
    assert np.bincount(labels[all_old]).tolist() == [9, 9, 9, 9]


def test_balance_changes_no_epoch_of_classes_with_equally_many_images():
    labels = np.repeat([0, 1, 2], [4, 4, 9])
    plain, balanced = (
        epoch_positions(labels, 2, 3, np.random.default_rng(0), balance=b) for b in (False, True)
    )
    assert plain.tolist() == balanced.tolist()


def test_passes_count_whole_batches(evolve):
    life = evolve(epochs=2)
    assert life.run_task().image_passes == 2 * 48  # 6 classes of 9 images: three batches of 16
    assert life.run_task().image_passes == 2 * 64  # 54 and 6 times 2 rehearsed: four batches


KINDS = [
    {},
    {"exemplars": "herding"},
    {"memory": "ewc", "growth": "none"},
    {"memory": "lwf"},
    {"block": "residual", "growth": "none"},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()) or "default")
def test_taken_up_after_two_tasks_ends_as_if_never_stopped(evolve, evolved, tmp_path, kind):
    first = evolve(**kind)
    first.run_task()
    first.run_task()
    card = {"stages": [asdict(stage) for stage in first.stages]}
    write_checkpoint(Path(tmp_path / "two"), first.state(), card)
    saved, card = read_checkpoint(tmp_path / "two")
    second = evolve(**kind)
    second.load_state([TaskRecord(**stage) for stage in card["stages"]], saved, first.memory)
    assert second.known == first.known and second.collective.widths == first.collective.widths
    last = second.run_task()
    whole = evolve(**kind) if kind else evolved
    if kind:
        while not whole.done:
            whole.run_task()
    assert_equal(second.state(), whole.state())
    assert replace(last, seconds=0) == replace(whole.stages[-1], seconds=0)
    assert {c: r.tolist() for c, r in second.memory.items()} == {
        c: r.tolist() for c, r in whole.memory.items()
    }
    assert second.done


def test_global_random_state_changes_nothing(evolve, evolved):
    life = evolve()
    while not life.done:
        torch.rand(7)
        np.random.random(3)
        life.run_task()
    assert_equal(state(life), state(evolved))


def test_residual_blocks_are_another_collective_and_plain_ones_keep_their_key(evolve):
    plain, residual = (settings(growth="none", block=block) for block in ("plain", "residual"))
    assert "block" not in plain.cache_fields()
    assert residual.cache_fields()["block"] == "residual"
    assert any(unit.skips for unit in evolve(block="residual", growth="none").collective.units)


def test_without_growth_nothing_widens(evolve):
    life = evolve(growth="none")
    assert life.collective.widths == scaled(COLLECTIVE_END, 0.0625)
    life.run_task()
    assert life.run_task().widened == []


def test_equal_layers_have_one_width_and_the_final_widths_weights(evolve):
    life = evolve(growth="equal")
    assert life.collective.widths == (round(369 * 0.0625),) * 13
    life.run_task()
    assert life.run_task().widened == []
    convolutions = [
        sum(9 * a * b for a, b in zip((3, *widths[:-1]), widths, strict=True))
        for widths in (COLLECTIVE_EQUAL, COLLECTIVE_END)
    ]
    assert convolutions[0] == pytest.approx(convolutions[1], rel=1e-3)


def test_targets_are_the_teachers_words_on_the_same_rows(evolve, tiny_dataset):
    life = evolve(temperature=3.0)
    life.run_task()
    rows = np.array([5, 90, 7, 33])
    goals = life._distillation_targets(life.collective.eval(), rows)
    for goal, row in zip(goals, rows, strict=True):
        with torch.no_grad():
            logits = life.collective(to_batch(tiny_dataset.train_images[[row]]))
        assert torch.allclose(goal, F.softmax(logits[0] / 3.0, 0), atol=1e-6)
    assert life._distillation_targets(None, rows) is None


def test_the_loss_by_hand(evolve, monkeypatch):
    """Cross-entropy, plus distill * T^2 * KL(goal, ours) over the old classes at temperature T."""
    life = evolve(temperature=2.0, distill=0.5)
    logits = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    y, batch = torch.tensor([2, 1]), torch.tensor([3, 0])
    goals = torch.full((4, 2), float("nan"))
    goals[3], goals[0] = torch.tensor([0.7, 0.3]), torch.tensor([0.2, 0.8])  # rows 3 and 0 of goals
    monkeypatch.setattr(life, "collective", lambda x: logits)
    found = life._loss(torch.zeros(2), y, goals, batch)
    entropy = -(F.log_softmax(logits, 1)[0, 2] + F.log_softmax(logits, 1)[1, 1]) / 2
    ours = F.softmax(logits[:, :2] / 2, 1)
    goal = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    divergence = (goal * (goal / ours).log()).sum() / 2
    assert float(found) == pytest.approx(float(entropy + 0.5 * 4 * divergence), abs=1e-6)
    plain = life._loss(torch.zeros(2), y, None, batch)
    assert float(plain) == pytest.approx(float(entropy), abs=1e-6)


def test_distillation_meets_the_rows_it_was_made_for(evolve, monkeypatch):
    """In a second task every row's goal is the teacher's word on that very row's image."""
    life = evolve(distill=1.0)
    life.run_task()
    kept: dict[str, list] = {"goals": [], "batches": [], "rows": []}
    targets, loss, read = life._distillation_targets, life._loss, to_batch

    def spy_targets(teacher, rows):
        kept["rows"].append(rows)
        kept["teacher"] = teacher
        return targets(teacher, rows)

    def spy_loss(x, y, goals, batch):
        kept["batches"].append((batch, goals, y))
        return loss(x, y, goals, batch)

    monkeypatch.setattr(life, "_distillation_targets", spy_targets)
    monkeypatch.setattr(life, "_loss", spy_loss)
    old = list(life.known)
    life.run_task()
    (rows,) = kept["rows"]
    known, teacher = life.known, kept["teacher"]
    assert kept["batches"]
    for batch, goals, y in kept["batches"]:
        here = rows[batch.numpy()]
        assert [known[int(label)] for label in y] == life.dataset.train_labels[here].tolist()
        with torch.no_grad():
            said = teacher(read(life.dataset.train_images[here]))
        assert goals.shape[1] == len(old)
        assert torch.allclose(goals[batch], F.softmax(said / 2.0, 1), atol=1e-5)


def test_a_loss_that_is_not_finite_raises(evolve, monkeypatch):
    life = evolve()
    monkeypatch.setattr(life.collective.head.scale, "data", torch.tensor(float("nan")))
    with pytest.raises(InputError, match=r"^collective\.lr=0\.02: .* finite in task 1\. Lower"):
        life.run_task()
    assert life.stages == []


def test_consolidation_follows_the_last_task_on_equally_many_of_every_class(evolve, monkeypatch):
    life = evolve(consolidate_epochs=2, memory_per_class=3)
    taken = []
    real = evolution_module.epoch_positions

    def watched(labels, old, limit, order, balance):
        assert not balance  # a life's classes are weighed as they come
        taken.append((np.bincount(labels).tolist(), old, limit))
        return real(labels, old, limit, order, balance=balance)

    monkeypatch.setattr(evolution_module, "epoch_positions", watched)
    while not life.done:
        life.run_task()
    known = len(life.known)
    assert taken[-2:] == [([3] * known, known, None)] * 2
    assert sum(limit is None for _, _, limit in taken) == 2  # and after no other task
    assert life.stages[-1].image_passes > 2 * 3 * known - 2 * life.settings.collective.batch_size


def test_test_accuracy_by_hand(evolved, tiny_dataset):
    life = evolved
    right, total = Counter(), Counter()
    task_of = {c: task for task, classes in enumerate(life.tasks) for c in classes}
    for place, c in enumerate(life.known):
        x = to_batch(tiny_dataset.test_images[tiny_dataset.rows("test", c)])
        with torch.no_grad():
            right[task_of[c]] += int((life.collective.eval()(x).argmax(1) == place).sum())
        total[task_of[c]] += len(x)
    found, last = life.test(life.tasks), life.stages[-1]
    assert found.known == pytest.approx(right.total() / total.total())
    assert found.by_task == pytest.approx([right[t] / total[t] for t in range(3)])
    assert (last.accuracy, last.accuracy_by_task) == astuple(found)


def test_accuracy_by_task_is_read_off_the_pass_over_all_known_classes(evolve, monkeypatch):
    life = evolve()
    passed: list[int] = []
    logits = life._logits

    def spy(logits_of, images, rows, side=None):
        if images is life.dataset.test_images:
            passed.append(len(rows))
        return logits(logits_of, images, rows, side)

    monkeypatch.setattr(life, "_logits", spy)
    while not life.done:
        life.run_task()
    sizes = [6 * known for known in (6, 12, 16)]  # six test images a class
    assert passed == sizes  # once
    for stage in life.stages:
        weights = [6 * len(task) for task in life.tasks[: stage.task + 1]]
        assert len(stage.accuracy_by_task) == stage.task + 1
        assert np.average(stage.accuracy_by_task, weights=weights) == pytest.approx(stage.accuracy)


def test_it_learns(evolve, tiny_dataset):
    """One task of three classes to the end: its training images are told apart."""
    life = evolve(classes_per_task=3, epochs=25, batch_size=9, width=0.125)
    life.run_task()
    rows = np.concatenate([life.train_rows[c] for c in life.known])
    truth = torch.arange(3).repeat_interleave(len(rows) // 3)
    model, x = life.collective.eval(), to_batch(tiny_dataset.train_images[rows])
    with torch.no_grad():
        assert float((model(x).argmax(1) == truth).float().mean()) > 0.8  # chance is a third


def test_progress_counts_to_the_last_step(evolve):
    told = []
    evolve(epochs=10).run_task(lambda *step: told.append(step))
    assert [done for done, _, _ in told] == [10, 20, 30]
    assert {steps for _, steps, _ in told} == {30}


def test_one_cycle():
    assert one_cycle(0.0) == pytest.approx(0.01 / 0.11)
    assert one_cycle(0.05) == pytest.approx(0.06 / 0.11)
    assert one_cycle(0.1) == pytest.approx(1.0)
    assert one_cycle(0.55) == pytest.approx(0.5)
    assert one_cycle(1.0) == pytest.approx(0.0)
    falls = [one_cycle(p) for p in np.linspace(0.1, 1, 50)]
    assert falls == sorted(falls, reverse=True)


PLAN = (
    PlannedStep(2, "5", None), PlannedStep(2, "5", 64), PlannedStep(3, "5b", 64),
    PlannedStep(3, "4", None), PlannedStep(3, "12", 256),
)  # fmt: skip


def test_a_life_by_a_written_plan(evolve):
    life = evolve(growth="plan", plan=PLAN)
    while not life.done:
        life.run_task()
    first, second, third = life.stages
    assert (first.grown, first.layers) == ([], [str(n) for n in range(1, 14)])
    assert second.grown == [{"layer": "5", "deepened": "5b"}, {"layer": "5", "width": 12}]
    assert second.layers[4:6] == ["5", "5b"]
    assert third.grown == [
        {"layer": "5b", "width": 12},
        {"layer": "4", "deepened": "4b"},
        {"layer": "12", "width": 32},
    ]
    assert third.layers[3:8] == ["4", "4b", "5", "5b", "6"]
    # numbers of that moment: 5b is the sixth, then 12 the fourteenth after both copies
    assert third.widened == [{"layer": 6, "width": 12}, {"layer": 14, "width": 32}]
    assert [len(stage.rho) for stage in life.stages] == [13, 14, 15]
    assert life.collective.names == third.layers
    assert life.collective.widths == (4, 4, 4, 4, 4, 12, 12, 8, 8, 16, 16, 16, 16, 32, 16)


@pytest.mark.parametrize("done", [1, 2])
def test_a_deepened_collective_is_taken_up_from_its_checkpoint(evolve, tmp_path, done):
    changed = {"growth": "plan", "plan": PLAN}
    first = evolve(**changed)
    for _ in range(done):
        first.run_task()
    card = {"stages": [asdict(stage) for stage in first.stages]}
    write_checkpoint(Path(tmp_path / "kept"), first.collective.state_dict(), card)
    saved, card = read_checkpoint(tmp_path / "kept")
    second = evolve(**changed)
    second.load_state([TaskRecord(**stage) for stage in card["stages"]], saved, first.memory)
    assert second.collective.names == first.collective.names
    assert [u.pool for u in second.collective.units] == [u.pool for u in first.collective.units]
    first.run_task()
    second.run_task()
    assert_equal(state(first), state(second))
    assert second.stages[-1].rho == first.stages[-1].rho


def test_a_life_is_taken_up_further_from_where_it_is(evolve):
    """What rounds need: stop by stop, each read from what was saved."""
    first, second = (evolve(growth="plan", plan=PLAN) for _ in range(2))
    while not first.done:
        first.run_task()
        second.load_state(list(first.stages), first.state(), first.memory)
        assert second.collective.names == first.collective.names
        assert_equal(state(first), state(second))


@pytest.mark.parametrize(
    "changed",
    [
        {"consolidate_epochs": 2, "memory_per_class": 3, "rehearse_per_class": 2, "batch_size": 7},
        {},
    ],
)
def test_the_passes_are_known_before_the_sequence_begins(evolve, changed):
    life = evolve(**changed)
    planned = life.planned_passes()
    while not life.done:
        life.run_task()
    assert planned == life.planned_passes() == sum(stage.image_passes for stage in life.stages)
