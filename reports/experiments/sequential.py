"""The sequence of tasks, to be laid beside experiment=joint."""

from __future__ import annotations

from reports.experiments.base import Experiment

EXPERIMENT = Experiment("sequential", needs_collective=True)
