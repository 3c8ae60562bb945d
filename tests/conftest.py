"""What tests of several packages share: one thread, and a tiny dataset of real glyphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadFileScheduling

from learngene.collective.trainer import CollectiveTrainer
from learngene.data.cache import build
from learngene.data.dataset import ImageDataset
from learngene.data.settings import SeededDataSettings
from tests.helpers import CPU, settings, without_figures, without_rendering
from tests.reports.helpers import make_results

HERE = Path(__file__).parent


@cache
def starts_processes(path: Path) -> bool:
    """Whether a file's tests start Ray, nodes or runs in processes of their own."""
    return HERE / "runtime" in path.parents or "@pytest.mark.ray" in path.read_text()


class ProcessesAside(LoadFileScheduling):
    """Files that start processes go to one worker, one after another, beside files that compute:
    two of the former wait for each other, until limits of time are reached."""

    def _split_scope(self, nodeid: str) -> str:
        name: str = super()._split_scope(nodeid)
        return "processes" if starts_processes(self.config.rootpath / name) else name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ProcessesAside:
    return ProcessesAside(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that start processes come first, then those of whole runs: a long one at the end would
    keep one worker.

    ``chaos`` runs for whoever names it, and for nobody else.
    """
    items.sort(key=lambda item: (not starts_processes(item.path), item.path.parent != HERE))
    if "chaos" in (config.option.markexpr or ""):
        return
    for item in items:
        if item.get_closest_marker("chaos"):
            item.add_marker(pytest.mark.skip(reason="only with -m chaos"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are faster on one thread, and sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    """25 characters (16 base, 4 open-world, 5 novel), 12 training and 6 test images of each."""
    asked = SeededDataSettings(
        "glyphs", classes=25, train_per_class=12, test_per_class=6, image_size=32, seed=3
    )
    return build(asked, tmp_path_factory.mktemp("tiny-dataset"))


@pytest.fixture(scope="session")
def evolve(tiny_dataset: ImageDataset) -> Callable[..., CollectiveTrainer]:
    """Makes an evolution in the tiny dataset; keywords change its settings."""
    return lambda **changed: CollectiveTrainer(tiny_dataset, settings(**changed), CPU)


@pytest.fixture(scope="session")
def evolved(evolve: Callable[..., CollectiveTrainer]) -> CollectiveTrainer:
    """A finished evolution; nobody may change it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    made = evolve()
    while not made.done:
        made.run_task()
    torch.set_num_threads(before)
    return made


@pytest.fixture(scope="session")
def make() -> Callable[..., dict[str, Any]]:
    """The factory :func:`make_results`, for variants."""
    return make_results


@pytest.fixture
def results() -> dict[str, Any]:
    """Twenty clients that all gain."""
    return make_results()


@pytest.fixture
def unrendered() -> Iterator[None]:
    """Figures as ``without_rendering`` has them, in the whole test."""
    with without_rendering():
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    """No figures, as ``without_figures`` has it, in the whole test."""
    with without_figures():
        yield
