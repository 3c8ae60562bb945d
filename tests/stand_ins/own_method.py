"""A method in one file, for the tests that write it somewhere and change it there."""

from __future__ import annotations

from pathlib import Path

import pytest

SOURCE = '''"""Nearest class mean of the plain pixels: no network at all."""
import torch.nn.functional as F

from learngene.methods import Method
from learngene.methods.protonet import class_means, nearness
from learngene.methods.common.backbone import evaluate_once


def adapt(context):
    shard = context.shard
    scale = context.settings.get("scale", 1.0)
    means = class_means(shard.train_x.flatten(1), shard.train_y, shard.ways)

    def said(x):
        return F.log_softmax(scale * nearness(x.flatten(1), means), dim=1)

    return evaluate_once(context, said)


METHOD = Method(adapt, training_free=True)
'''


def write_method(folder: Path, name: str, source: str = SOURCE) -> Path:
    """Each test needs a name of its own: Python imports a module once a process."""
    path = folder / f"{name}.py"
    path.write_text(source.replace("{name}", name))
    return path


def here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As in a process that was started in ``folder``."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))  # taken back at the end, as what is appended is not
