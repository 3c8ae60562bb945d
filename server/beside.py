"""Methods' halves trained beside the collective, on the cores that its threads leave idle.

They need nothing of it but the number of its image passes, their budget, which numbers of images
decide. What is done lies in the cache, where ``server.pretraining`` finds it; what is half done
when the collective is through is ended there and taken up, with the same numbers.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, closing
from dataclasses import replace

from learngene.collective.trainer import CollectiveTrainer
from learngene.data.dataset import ImageDataset
from learngene.methods import find
from learngene.methods.registry import base_of
from protocol.callbacks import RunCallback
from server import pretraining
from server.factory import CPU, choose_device, trainer_settings
from server.parallel import run_parallel
from server.pretraining import Job, PretrainingSettings


class HalvesBeside(RunCallback, AbstractContextManager["HalvesBeside"]):
    """Begins when the collective is seen to train; one that is kept needs nobody beside it. What it
    has begun ends with the context."""

    def __init__(self, settings: PretrainingSettings, dataset: ImageDataset) -> None:
        self._settings, self._dataset = settings, dataset
        self._asked, self._over = False, threading.Event()
        self._thread: threading.Thread | None = None
        self.seconds: dict[str, float] = {}  # of those that were trained to their end, by name

    def on_step(self, done: int, steps: int, loss: float) -> None:
        if self._asked:
            return
        self._asked = True
        asked, factory = self._settings.factory.collective, self._settings.factory
        room = pretraining.max_workers(asked.threads, choose_device(asked.device)) - 1
        if room and factory.resume and (jobs := self._jobs()):
            arguments = jobs, room
            self._thread = threading.Thread(target=self._train, args=arguments, daemon=True)
            self._thread.start()

    def _jobs(self) -> dict[str, Job]:
        """What is not in the cache yet. With the collective's threads, which the key names."""
        settings, dataset = self._settings, self._dataset
        if settings.budget is None and settings.budget_in != "passes":
            return {}  # the cost of a pass grows with the network
        device = choose_device(settings.factory.collective.device)
        trainer = CollectiveTrainer(dataset, trainer_settings(settings.factory, device), CPU)
        settings = replace(settings, budget=settings.budget or trainer.planned_passes())
        methods = {base_of(n): find(base_of(n), settings.plugins.get(n)) for n in settings.methods}
        return {
            name: (name, settings, dataset)
            for name, method in methods.items()
            if method.pretrain is not None
            and pretraining.cached(name, method, settings, dataset) is None
        }

    def _train(self, jobs: dict[str, Job], room: int) -> None:
        # One that fails here fails again where its reason is said.
        told = run_parallel(pretraining.train, jobs, room, over=self._over.is_set)
        with closing(told):
            self.seconds |= {job.name: job.seconds for job in told if job.error is None}

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
