"""What results say of the collective: its layers, its depth, the streams that it met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.schema import Results

DEPTH = 13  # layers of a collective whose results do not say: a saved learngene's


def depth_label(runs: Sequence[Results]) -> str:
    """13 layers, or as many as a plan has made of them."""
    collectives = [run["collective"] for run in runs if run["collective"]]
    depths = {len(each.get("layers") or each["conv_widths"]) for each in collectives}
    return f"{either(depths or [DEPTH])} layers"


def layer_names(run: Results) -> list[str]:
    """The layers of the run's collective at its end, from below; a copy of layer 5 is ``5b``."""
    criterion = run["criterion"] or {}
    depth = len(criterion["rho"][0]) if criterion else DEPTH
    return list(criterion.get("names") or map(str, range(1, depth + 1)))


def training_seconds(run: Results) -> float | None:
    """What the tasks took when they were trained, which may have been in another run: that of this
    one (``run.seconds``) is of a look into the cache then. None where nothing says so."""
    taken = [stage.get("seconds") for stage in (run["collective"] or {"stages": [{}]})["stages"]]
    return None if None in taken else sum(taken)


def cycle_of(run: Results) -> Mapping[str, Any]:
    """``open_world.cycle`` of a run that met at least one stream, else nothing."""
    cycle = (run["open_world"] or {}).get("cycle") or {}
    return cycle if cycle.get("cycles") else {}


def either(values: Any) -> str:
    """The different values of the runs, in their order: ``13 or 15``."""
    return " or ".join(str(value) for value in sorted(set(values)))
