"""What tests of several packages share: one thread, and a tiny dataset of real glyphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from learngene.collective.trainer import CollectiveTrainer
from learngene.data.cache import build
from learngene.data.dataset import ImageDataset
from learngene.data.settings import SeededDataSettings
from tests.helpers import CPU, settings, without_rendering
from tests.reports.helpers import make_results


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that start Ray, nodes or whole runs in other processes come one after another, beside
    files that compute: two of the former wait for each other, and limits of time are reached.

    They come first, then files of whole runs, then the others: a long one at the end would keep one
    process. A file's tests share fixtures and so stay in one process.

    ``chaos`` runs for whoever names it, and for nobody else.
    """
    here = Path(__file__).parent
    starting = {item.path for item in items if item.get_closest_marker("ray")}
    starting |= {item.path for item in items if here / "runtime" in item.path.parents}
    items.sort(key=lambda item: (item.path not in starting, item.path.parent != here))
    for item in items:
        group = "processes" if item.path in starting else str(item.path.relative_to(here))
        item.add_marker(pytest.mark.xdist_group(group))
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
