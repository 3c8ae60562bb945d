"""Train the collective on a sequence of tasks: grow, rehearse, distil, train, test.

Each task brings new base classes. The collective sees their images together with the exemplars
of the classes gone by, through a head that grows, and is held to what its previous stage said of
the old classes (distillation). After the last task the collective may consolidate: it trains on
its exemplars alone, equally many of every class.

That is ``collective.memory=rehearsal``. The other strategies (``forgetting``) keep no exemplars,
hence do not consolidate; of them only ``lwf`` distils.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from learngene.adaptation.retain import Retain
from learngene.adaptation.training import decay_groups
from learngene.collective.criterion import Criterion
from learngene.collective.forgetting import STRATEGIES, anchored, check_growth, herd, task_fisher
from learngene.collective.predictor import Predictor
from learngene.collective.records import TaskRecord, TrainerSettings
from learngene.collective.sampling import class_positions, epoch_positions, hold_out, one_cycle
from learngene.collective.transfer_profile import measure_transfer, weight_change
from learngene.data.augment import draw_views, views
from learngene.data.dataset import ImageDataset
from learngene.data.device_images import DeviceImages
from learngene.errors import InputError
from learngene.networks.collective import COLLECTIVE_EQUAL, Collective
from learngene.networks.compute import TRAINING, multiply_adds
from learngene.networks.growth import Growth, deepen, growth_plan, widen, written_plan
from learngene.networks.layers import scaled
from learngene.seeding import generator, torch_generator
from learngene.utils.steps import LossSum, rate_options, set_rate, step_form, steps_to_a_look

MOMENTUM = 0.9  # of SGD, Nesterov's


@dataclass
class CollectiveTrainer(Predictor):
    """A collective and its place in the sequence; ``run_task`` takes it one task further."""

    dataset: ImageDataset
    settings: TrainerSettings
    device: torch.device
    stages: list[TaskRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        s, dataset = self.settings.collective, self.dataset
        check_growth(s)
        self.strategy = STRATEGIES[s.memory]
        order = generator(self.settings.seed, "task-order").permutation(dataset.class_split.base)
        step = s.classes_per_task
        self.tasks: list[list[int]] = [
            [int(c) for c in order[i : i + step]] for i in range(0, len(order), step)
        ]
        self.train_rows, self.calibration_rows = hold_out(
            dataset, self.settings.seed, self.settings.calibration_per_class
        )
        start, self.plan = self._growth()
        self.collective = self._build(start, len(self.tasks[0]))
        self.memory: dict[int, np.ndarray] = {}  # rows of the exemplars of every known class
        self.fisher: list[Tensor] = []  # of ``anchored``, added up over the tasks (ewc)

    def _growth(self) -> tuple[tuple[int, ...], list[Growth]]:
        """Widths at the start and the steps of growth."""
        s, tasks = self.settings, len(self.tasks)
        growth, width = s.collective.growth, s.collective.width
        if growth == "plan":
            return written_plan(s.plan, tasks, width)
        if growth == "equal":
            return scaled(COLLECTIVE_EQUAL, width), []
        return growth_plan(tasks, width, grow=growth == "schedule")

    def _build(self, widths: tuple[int, ...], classes: int) -> Collective:
        s = self.settings
        collective = Collective(
            widths,
            classes,
            width=s.collective.width,
            generator=torch_generator(s.seed, "collective-weights"),
            channels=self.dataset.image_shape[0],
            block=s.collective.block,
        )
        return collective.to(memory_format=torch.channels_last).to(self.device)

    @property
    def known(self) -> list[int]:
        """Known classes, in the order of the head's outputs."""
        return [c for stage in self.stages for c in stage.new_classes]

    @property
    def done(self) -> bool:
        """Whether every task has been learned."""
        return len(self.stages) == len(self.tasks)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next task goes on from: the weights and the Fisher."""
        names = anchored(self.collective) if self.fisher else {}
        fisher = {f"fisher.{n}": f for n, f in zip(names, self.fisher, strict=True)}
        return {**self.collective.state_dict(), **fisher}

    def load_state(
        self, stages: list[TaskRecord], state: dict[str, Tensor], memory: dict[int, np.ndarray]
    ) -> None:
        """Go on from where another trainer was saved.

        Args:
            stages: the tasks that are done.
            state: what ``state()`` was after them.
            memory: the exemplars' rows then; they cannot be found again, since herding chose them
                by weights that are gone.
        """
        for task in range(len(self.stages), len(stages)):  # depth, names, pools: not in weights
            self.grow(task)
        before = len(self.known) or len(self.tasks[0])
        self._grow_head(stages[-1].known_classes - before, round=0)
        self.stages = stages
        weights = {n: v for n, v in state.items() if not n.startswith("fisher.")}
        self.collective.load_state_dict(weights)
        self.memory = {c: memory[c] for c in self.known}
        if self.strategy.anchors:
            names = anchored(self.collective)
            self.fisher = [state[f"fisher.{n}"].to(self.device) for n in names]

    def grow(self, task: int) -> tuple[list[dict[str, Any]], list[dict[str, int]]]:
        """Take the steps that precede ``task``; returns ``TaskRecord.grown`` and ``widened``."""
        noise = self.settings.collective.growth_noise
        grown: list[dict[str, Any]] = []
        widened = []
        for number, step in enumerate(self.plan):
            if step.task != task:
                continue
            drawn = generator(self.settings.seed, "growth", round=number)
            layer = self.collective.names.index(step.layer) + 1
            if step.width is None:
                self.collective = deepen(self.collective, layer, drawn, noise)
                grown.append({"layer": step.layer, "deepened": self.collective.names[layer]})
            else:
                self.collective = widen(self.collective, layer, step.width, drawn, noise)
                grown.append({"layer": step.layer, "width": step.width})
                widened.append({"layer": layer, "width": step.width})
        return grown, widened

    def _grow_head(self, classes: int, round: int) -> None:
        """The classifier learns of ``classes`` more; their weights are of ``round``."""
        self.collective.head.grow(classes, torch_generator(self.settings.seed, "head", round=round))

    def clone(self) -> CollectiveTrainer:
        """A copy that can go on by itself; the dataset is shared."""
        twin = copy.copy(self)
        twin.collective = copy.deepcopy(self.collective)
        twin.stages, twin.tasks = list(self.stages), list(self.tasks)
        twin.train_rows, twin.memory = dict(self.train_rows), dict(self.memory)
        twin.fisher = [f.clone() for f in self.fisher]
        return twin

    def add_task(self, rows: dict[int, np.ndarray], held_out: np.ndarray) -> None:
        """Append a task of new classes to the sequence: what the open-world cycle found.

        Args:
            rows: labelled training images of each new class.
            held_out: further ones, kept for the open-world threshold.
        """
        if strangers := sorted(set(rows) & set(self.train_rows)):
            raise ValueError(f"classes {strangers} are in the sequence already")
        self.tasks.append(list(rows))
        self.train_rows |= rows
        self.calibration_rows = np.concatenate([self.calibration_rows, held_out])

    def run_task(
        self,
        progress: Callable[[int, int, float], None] | None = None,
        consolidate_epochs: int | None = None,
        balance: bool = False,
    ) -> TaskRecord:
        """Grow, learn the next task and test.

        Args:
            progress: called with (steps done, steps in this task, mean loss of the collective).
            consolidate_epochs: passes over all exemplars after the task; None takes the settings'
                after the last task, and none after the others.
            balance: show the images of scarce classes several times an epoch (``epoch_positions``).

        Raises:
            ValueError: when there is no task left.
            InputError: the loss is not finite.
        """
        if self.done:
            raise ValueError(f"all {len(self.tasks)} tasks are done")
        started = time.perf_counter()
        task = len(self.stages)
        new, old = self.tasks[task], self.known
        distils = old and self.strategy.distils and self.settings.collective.distill
        teacher = copy.deepcopy(self.collective).eval() if distils else None
        transfer = measure_transfer(self, new) if old else None
        there = {name: weight.shape for name, weight in self._weights().items()} if old else {}
        grown, widened = self.grow(task)
        before = {name: weight.clone() for name, weight in self._weights().items()}
        if old:
            self._grow_head(len(new), round=task)
        s = self.settings.collective
        rho, passes = self._train(
            "task", task, old, new, teacher, progress, s.epochs, s.rehearse_per_class, balance
        )
        self._update_memory(task, new)
        known = [*old, *new]
        if consolidate_epochs is None:
            consolidate_epochs = s.consolidate_epochs if task == len(self.tasks) - 1 else 0
        if consolidate_epochs and s.memory_per_class and self.strategy.exemplars:
            passes += self._train(
                "consolidate", task, known, [], None, progress, consolidate_epochs, None, balance
            )[1]
        tested = self.test([*(stage.new_classes for stage in self.stages), new])
        self.stages.append(
            TaskRecord(
                task=task,
                new_classes=new,
                known_classes=len(known),
                widened=widened,
                parameters=sum(p.numel() for p in self.collective.parameters()),
                accuracy=tested.known,
                accuracy_by_task=tested.by_task,
                rho=rho,
                image_passes=passes,
                multiply_adds=passes * self._pass_multiply_adds(),
                seconds=time.perf_counter() - started,
                layers=list(self.collective.names),
                grown=grown,
                transfer=transfer,
                weight_change=weight_change(before, self._weights(), there),
            )
        )
        return self.stages[-1]

    def planned_passes(self) -> int:
        """Image passes of the whole sequence, as ``TaskRecord.image_passes`` will add up to: known
        before it begins, since numbers of images decide them."""
        s = self.settings.collective
        keeps = s.memory_per_class if self.strategy.exemplars else 0
        memory, passes = list[int](), 0
        for task in self.tasks:
            new = [len(self.train_rows[c]) for c in task]
            drawn = [min(kept, s.rehearse_per_class) for kept in memory]
            passes += s.epochs * self._in_batches(sum(new) + sum(drawn))
            memory += [min(keeps, images) for images in new]
        if keeps:
            passes += s.consolidate_epochs * self._in_batches(sum(memory))
        return passes

    def _in_batches(self, images: int) -> int:
        """Of the images of an epoch those that are used: what is left fills no batch."""
        size = min(self.settings.collective.batch_size, images)
        return images // size * size

    def held_rows(self) -> list[np.ndarray]:
        """Rows of the images that the factory holds now, by known class: all of the last task's,
        the exemplars of the others."""
        last = self.stages[-1].new_classes
        return [self.train_rows[c] if c in last else self.memory[c] for c in self.known]

    def _weights(self) -> dict[str, Tensor]:
        """Of every convolution, by its layer's name."""
        units = self.collective.units
        weights = (unit.conv.weight.detach() for unit in units)
        return dict(zip(self.collective.names, weights, strict=True))

    def _pass_multiply_adds(self) -> int:
        """Multiply-adds of an image that goes forward and backward, in the network as it is."""
        channels, side, _ = self.dataset.image_shape
        side = self.settings.collective.train_size or side
        return TRAINING * multiply_adds(self.collective, channels, side)

    def _update_memory(self, task: int, new: list[int]) -> None:
        """Keep of the task that was just learned what the strategy needs later."""
        s, images = self.settings.collective, self.dataset.train_images
        count = s.memory_per_class if self.strategy.exemplars else 0
        for c in new:
            rows = self.train_rows[c]  # in random order
            if count and s.exemplars == "herding":
                features = self._logits(self.collective.eval().features, images, rows)
                rows = rows[herd(features.numpy(), count)]
            self.memory[c] = rows[:count]
        if self.strategy.anchors:
            rows = np.concatenate([self.train_rows[c] for c in new])
            drawn = torch_generator(self.settings.seed, "ewc-labels", round=task)
            fresh = task_fisher(self.collective, self._batches(images, rows), drawn)
            before = self.fisher or [torch.zeros_like(f) for f in fresh]
            self.fisher = [b + f for b, f in zip(before, fresh, strict=True)]

    def _train(
        self,
        phase: str,
        task: int,
        old: list[int],
        new: list[int],
        teacher: Collective | None,
        progress: Callable[[int, int, float], None] | None,
        number_of_epochs: int,
        rehearse: int | None,
        balance: bool,
    ) -> tuple[list[float], int]:
        """Train on a task; returns rho of every layer and the number of images passed."""
        s, dataset, model = self.settings.collective, self.dataset, self.collective
        seed = self.settings.seed
        # Positions below index this union of the task's images and the memory.
        parts = [*(self.memory[c] for c in old), *(self.train_rows[c] for c in new)]
        rows = np.concatenate(parts)
        labels = class_positions(parts)
        order = generator(seed, f"{phase}-order", round=task)
        chance = torch_generator(seed, f"{phase}-augment", round=task)
        epochs = [
            epoch_positions(labels.numpy(), len(old), rehearse, order, balance=balance)
            for _ in range(number_of_epochs)
        ]
        size = min(s.batch_size, len(epochs[0]))
        used = self._in_batches(len(epochs[0]))
        steps = number_of_epochs * used // size
        # From here on all that a step reads and writes lies on the device.
        form = step_form(s.capture, self.device)
        images = DeviceImages(dataset.train_images, rows, self.device)
        labels = labels.to(self.device)
        targets = self._distillation_targets(teacher, rows)
        # One anchor, the previous stage, for the Fishers of all tasks: penalties of the same form
        # around every task's own end add up to one around the last (Huszár, PNAS 2018).
        held = list(anchored(model).values())
        anchor = Retain(held, self.fisher, normalise=False) if self.fisher else None
        groups = decay_groups(model.parameters(), s.weight_decay)
        optimiser = torch.optim.SGD(
            groups, momentum=MOMENTUM, nesterov=True, **rate_options(s.lr, self.device, form)
        )
        criterion = Criterion(self.settings.rho, self.settings.sigma, len(model.units), self.device)
        losses, look = LossSum(self.device), steps_to_a_look(self.device)

        def work(batch: Tensor, draws: Tensor) -> None:
            x = views(images[batch], draws, flip=dataset.flip, side=s.train_size, zoom=s.zoom)
            optimiser.zero_grad(set_to_none=True)
            loss = self._loss(x, labels[batch], targets, batch)
            loss.backward()
            criterion.observe(model)
            losses.add(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            if anchor is not None:
                step = optimiser.param_groups[0]["lr"] * s.ewc_lambda
                anchor.proximal_step(step, momentum=MOMENTUM)

        take = work if form is None else form(work)
        done = 0
        model.train()
        for positions in epochs:  # two copies to the device for each
            batches = torch.from_numpy(positions[:used]).to(self.device).split(size)
            draws = draw_views(used, chance).to(self.device).split(size)
            for batch, drawn in zip(batches, draws, strict=True):
                set_rate(optimiser, s.lr * one_cycle(done / steps))
                take(batch, drawn)
                done += 1
                if done % look == 0 or done == steps:
                    if (mean := losses.mean(done)) is None:
                        problem = f"the collective's loss is not finite in task {task + 1}"
                        raise InputError("collective.lr", s.lr, problem, "Lower it")
                    if progress and done % look == 0:
                        progress(done, steps, mean)
        optimiser.zero_grad(set_to_none=True)  # gradients may lie in a recording's memory
        return criterion.result(), done * size

    def _loss(self, x: Tensor, y: Tensor, targets: Tensor | None, batch: Tensor) -> Tensor:
        s = self.settings.collective
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            logits = self.collective(x)
        logits = logits.float()
        loss = F.cross_entropy(logits, y, label_smoothing=s.label_smoothing)
        if targets is None:
            return loss
        target = targets[batch]  # (B, old classes), probabilities
        ours = F.log_softmax(logits[:, : target.shape[1]] / s.temperature, dim=1)
        return loss + s.distill * s.temperature**2 * F.kl_div(ours, target, reduction="batchmean")

    def _distillation_targets(self, teacher: Collective | None, rows: np.ndarray) -> Tensor | None:
        """What the previous stage says of ``rows``: softened probabilities, (N, old classes).

        Taken once a task on the plain images, not anew on every augmented batch: a forward pass
        less for each epoch but one. Images are shrunk to the size of the training crops, which
        the teacher knows as well and which costs less.
        """
        if teacher is None:
            return None
        s, images = self.settings.collective, self.dataset.train_images
        logits = self._logits(teacher.__call__, images, rows, s.train_size)
        return F.softmax(logits / s.temperature, 1).to(self.device)
