"""What a run's individual is made of, in a line: a number without it invites the wrong reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from learngene.utils.settings import by_client
from reports.schema import Results

EXEMPLARS = 100  # of a class: with more, definition 1's sequence of tasks is nearly joint training
NEARLY_JOINT = "nearly joint"


def form_of(run: Results) -> tuple[str, ...]:
    """Inherited layers, own layers in front, projection, number format, classifier, views, width,
    in what the collective was trained where that was asked for, blocks, and what makes the run a
    control or the training nearly joint; plain layers in fp32 are not named."""
    return tuple(_parts(run, run["run"].get("config") or {}))


def joined_below(learngene: Mapping[str, Any], depth: int) -> list[int]:
    """Prefixes read beside one of ``depth`` layers, by the settings of the learngene."""
    return [each for each in by_client(learngene.get("joined")) if each < depth]


def _parts(run: Results, config: Mapping[str, Any]) -> Iterator[str]:
    gene, asked = run.get("learngene"), config.get("learngene", {})
    own, collective = config.get("individual", {}), config.get("collective", {})
    if gene:
        depths = _taken(run) or [len(gene["layers"])]
        yield f"layers {layers_text(gene['layers'][: depths[-1]])}"
        if len(depths) > 1:
            yield f"of which clients take {', '.join(map(str, depths))}"
    if asked.get("control") == "random":
        yield "control: layers drawn at random"
    if (stem := own.get("stem", "none")) != "none":
        yield f"{stem} stem"
    elif gene and gene["layers"][0] == 1 and asked.get("projection", "none") != "none":
        yield f"{asked['projection']} projection"
        if beside := joined_below(asked, depths[-1]):
            yield f"joined with depth {' and '.join(map(str, beside))}"
    if (precision := asked.get("precision", "fp32")) != "fp32":
        yield precision
    if "head" in own:
        yield f"{own['head']} head"
    if own.get("moved_views"):
        yield "moved views"
    if "width" in collective:
        yield f"width {collective['width']:g}"
    if (trained_in := collective.get("precision", "auto")) != "auto":
        yield f"trained in {trained_in}"
    if collective.get("block", "plain") != "plain":
        yield f"{collective['block']} blocks"
    if collective.get("classes_per_task", 0) >= len(run["data"]["classes"]["base"]):
        yield "joint training"
    elif _exemplars(collective) > EXEMPLARS:
        yield f"{NEARLY_JOINT} ({_exemplars(collective)} exemplars a class)"
    if (config.get("labelled") or {}).get("flags") == "random":
        yield "control: random flags"


def _taken(run: Results) -> list[int]:
    """How many of the learngene's layers clients took, in order; empty where nobody says."""
    answers = (client.get("methods", {}).get("learngene", {}) for client in run["clients"])
    return sorted({answer["depth"] for answer in answers if "depth" in answer})


def nearly_joint(runs: Sequence[Results]) -> str:
    """What a number of these runs is called beside its settings: definition 1 is not kept in one
    of them, which keeps more than ``EXEMPLARS`` of a class that has gone by."""
    said = (part for run in runs for part in form_of(run))
    return NEARLY_JOINT if any(part.startswith(NEARLY_JOINT) for part in said) else ""


def _exemplars(collective: Mapping[str, Any]) -> int:
    rehearses = collective.get("memory", "rehearsal") == "rehearsal"
    return int(collective.get("memory_per_class", 0)) if rehearses else 0


def layers_text(layers: Sequence[int]) -> str:
    """Layers as people write them: ``1 to 7``, ``2, 5``."""
    first, last = layers[0], layers[-1]
    run = len(layers) > 1 and list(layers) == list(range(first, last + 1))
    return f"{first} to {last}" if run else ", ".join(map(str, layers))


def common_form(runs: Sequence[Results]) -> str:
    """What all runs are made of, as text."""
    forms = [form_of(run) for run in runs]
    return ", ".join(part for part in forms[0] if all(part in other for other in forms))
