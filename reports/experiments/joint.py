"""All base classes in one task: what a learngene would be if nothing came in sequence."""

from __future__ import annotations

from reports.experiments.base import Experiment

EXPERIMENT = Experiment("joint", needs_collective=True)
