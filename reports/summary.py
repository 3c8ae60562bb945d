"""The run's answer: rows of its tables and, in ``summary.j2``, what is said of them.

KB and MB are 1,000 and 1,000,000 bytes. Accuracies are fractions in the results and percent here;
differences of accuracies are percentage points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import Any

from reports.form import form_of
from reports.format import NONE, format_points, kilobytes, p_value, percent, seconds
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.statistics import LEAST_PAIRS, wider
from reports.text import sentence

MOST_LINES = 100  # clients up to which each is shown; beyond that, how they are spread
BELOW = " (below scratch)"  # behind the name of a method that is
ROUND_HEADINGS = ("round", "known classes", "accuracy", "gain over scratch", "wins", "answered")
NOTES = (
    "chance_note",
    "prefix_note",
    "labelled_note",
    "pretraining_note",
    "federated_note",
    "tuning_note",
)

Difference = tuple[str, str, str]  # percentage points with 95 % interval, wins of pairs, p


@dataclass(frozen=True)
class MethodRow:
    """One line of the summary table, as text."""

    name: str
    accuracy: str  # percent, with its 95 % interval
    gain: Difference  # of this method over scratch
    lead: Difference  # of the learngene over this method, p corrected for the number of methods
    kb_down: str  # KB that one client receives, mean
    kb_up: str  # KB that one client sends, mean
    seconds: str  # of one client, mean


def below_scratch(results: Results, method: str) -> bool:
    """Whether it has fewer right than scratch, on the mean over pairs: such a row says that a
    method was not trained, or not adapted, well enough to be an opponent."""
    gain = results["summary"][method].get("gain_over_scratch") or {}
    return gain.get("mean") is not None and gain["mean"] < 0


def multiply_adds(results: Results, method: str) -> int | None:
    """Of the training at the factory of what the method starts from; None: not known, or none."""
    if method == MAIN:
        return (results["collective"] or {}).get("multiply_adds")
    made = (results.get("pretraining") or {}).get("methods", {}).get(method, {})
    return made.get("multiply_adds")


def answered(results: Results) -> list[Mapping[str, Any]]:
    """The clients that answered, by id."""
    return [client for client in results["clients"] if "methods" in client]


def fewest_answered(results: Results) -> int:
    """How many clients answered in the round in which the fewest did. One whose answer lacks only
    a method that was left out has answered."""
    earlier = (results.get("rounds") or [])[:-1]
    return min([len(answered(results)), *(point["answered"] for point in earlier)])


def failures(results: Results) -> list[tuple[str, str]]:
    """Who failed and why, in all rounds, the last one's at the end."""
    earlier = [
        (f"client {client['id']} in round {point['round']}", client["error"])
        for point in (results.get("rounds") or [])[:-1]
        for client in point["clients"]
        if "error" in client
    ]
    return earlier + [(f"client {client['id']}", client["error"]) for client in failed(results)]


def failed(results: Results) -> list[Mapping[str, Any]]:
    """The clients that failed, by id."""
    return [client for client in results["clients"] if "methods" not in client]


def method_names(results: Results) -> list[str]:
    """The run's methods in the order to show them."""
    return [name for name in results["summary"] if name != "gain"]


def method_rows(results: Results) -> list[MethodRow]:
    """One row a method, in the run's order."""
    rows = []
    for name in method_names(results):
        summary = results["summary"][name]
        rows.append(
            MethodRow(
                name=name,
                accuracy=percent(summary["mean"], summary["ci95"]),
                gain=_difference(summary.get("gain_over_scratch"), "p_value"),
                lead=_difference(summary.get("lead"), "p_holm"),
                kb_down=kilobytes(client_mean(results, name, "bytes_down")),
                kb_up=kilobytes(client_mean(results, name, "bytes_up")),
                seconds=seconds(client_mean(results, name, "seconds")),
            )
        )
    return rows


def summary_rows(results: Results) -> list[tuple[str, ...]]:
    """The summary table, a row a method: name (and whether it is below scratch), accuracy, its gain
    over scratch or, with more to compare, the learngene's lead over it (three cells), KB received
    and seconds per client."""
    opponents = has_opponents(results)
    return [
        (
            row.name + BELOW * below_scratch(results, row.name),
            row.accuracy,
            *(row.lead if opponents else row.gain),
            row.kb_down,
            row.seconds,
        )
        for row in method_rows(results)
    ]


def round_rows(results: Results) -> list[tuple[str, ...]]:
    """One row a round, in the order of ``ROUND_HEADINGS``."""
    rows: list[tuple[str, ...]] = []
    for point in results.get("rounds") or []:
        summary = point["summary"].get(MAIN, {})
        accuracy = percent(summary.get("mean"), summary.get("ci95"))
        gain, wins, _ = _difference(point["gain"], "p_value")
        number, known, clients = (str(point[n]) for n in ("round", "known_classes", "answered"))
        rows.append((number, known, accuracy, gain, wins, clients))
    return rows


def _difference(difference: Mapping[str, Any] | None, p: str) -> Difference:
    if difference is None:
        return NONE, NONE, NONE
    wins = f"{difference['wins']} of {difference['n']}" if difference["n"] else NONE
    return format_points(difference["mean"], difference["ci95"]), wins, p_value(difference[p])


def spread_rows(results: Results) -> list[tuple[str, ...]]:
    """How accuracies, and the learngene's gain over scratch, are spread over clients: least, the
    quantiles 5, 25, 50, 75 and 95 %, most. Empty where the clients can be looked at one by one."""
    clients = answered(results)
    if len(clients) <= MOST_LINES:
        return []
    right = {
        name: [client["methods"][name]["accuracy"] for client in clients]
        for name in method_names(results)
    }
    rows = [(name, *map(percent, _spread(values))) for name, values in right.items()]
    if results["summary"]["gain"] is not None:
        gains = [ours - theirs for ours, theirs in zip(right[MAIN], right[REFERENCE], strict=True)]
        rows.append(("gain", *map(format_points, _spread(gains))))
    return rows


def _spread(values: Sequence[float]) -> list[float]:
    cuts = quantiles(values, n=20, method="inclusive")
    return [min(values), *(cuts[place] for place in (0, 4, 9, 14, 18)), max(values)]


def client_mean(results: Results, method: str, field: str) -> float | None:
    """The mean over the clients that answered of a number of a method; None where none did."""
    values = [client["methods"][method][field] for client in answered(results)]
    return fmean(values) if values else None


def has_opponents(results: Results) -> bool:
    """Whether there is more to compare than learngene and scratch: leads are then shown."""
    return MAIN in results["summary"] and len(method_names(results)) > 2


def best_opponent(results: Results) -> str | None:
    """The most accurate method besides the learngene; None where none has a mean."""
    means = {name: results["summary"][name]["mean"] for name in method_names(results)}
    opponents = [name for name, mean in means.items() if name != MAIN and mean is not None]
    return max(opponents, key=means.__getitem__, default=None)


def left_out(results: Results) -> Mapping[str, str]:
    """Methods that failed, with their reasons."""
    return results.get("methods_left_out") or {}


def unit_name(results: Results) -> str:
    """What summaries are over: the run's clients, or draws of classes that clients share."""
    return "draws of classes" if results.get("labelled") else "clients"


def is_inconclusive(difference: Mapping[str, Any]) -> bool:
    """Whether a paired difference says nothing: the wider of its intervals includes zero, or two
    pairs make it, which are equally far apart by chance."""
    half = wider(difference["ci95"], difference.get("ci95_classes"))
    return abs(difference["mean"]) <= half or difference["n"] < LEAST_PAIRS


def is_open_for_new_classes(difference: Mapping[str, Any]) -> bool:
    """Whether the interval for new classes includes zero where that over units does not."""
    return (
        (difference["ci95"] or 0.0)
        < abs(difference["mean"])
        <= (difference.get("ci95_classes") or 0.0)
    )


def headline(results: Results) -> str:
    """The run's answer in one sentence, whichever way it turned out."""
    return _sentence(results, "headline")


def setting(results: Results) -> str:
    """Data, seed, clients, ways and shots, in one line."""
    return _sentence(results, "setting")


def interval_note(results: Results) -> str:
    """What ± and p are, for the terminal."""
    return _sentence(results, "interval_note")


def interval_scope(results: Results) -> str:
    """Over what ± speaks: further clients on the classes that these share, not further classes."""
    return _sentence(results, "interval_scope")


def safeguard_line(results: Results) -> str | None:
    """How many clients fell back to scratch, and on what grounds; None without a safeguard."""
    return _sentence(results, "safeguard") or None


def footnotes(results: Results) -> list[str]:
    """The sentences under the table, in order; each says one thing."""
    return [note for name in NOTES if (note := _sentence(results, name))]


def divided(results: Results) -> float | None:
    """The concentration of the Dirichlet distribution by which clients divide the images; None:
    each draws its own."""
    data = (results["run"].get("config") or {}).get("data", {})
    return data["alpha"] if data.get("partition") == "dirichlet" else None


def _sentence(results: Results, macro: str) -> str:
    draws, names = bool(results.get("labelled")), method_names(results)
    alpha, there = divided(results), answered(results)
    # Clients with images of their own, and those with a shard of the dataset.
    own = [client for client in there if client["shots"] is None and alpha is None]
    drawn = [client for client in there if client["shots"] is not None or alpha is not None]
    return sentence(
        "summary.j2",
        macro,
        results=results,
        clients=there,
        methods=names,
        form=form_of(results),
        opponent=best_opponent(results),
        received={name: client_mean(results, name, "bytes_down") for name in names},
        has_opponents=has_opponents(results),
        is_inconclusive=is_inconclusive,
        is_open_for_new_classes=is_open_for_new_classes,
        units=unit_name(results),
        unit="draw of classes" if draws else "client",
        pair="draw" if draws else "client",
        divided=alpha,
        own=own,
        drawn=drawn,
        shared_classes={name for client in there for name in client["classes"]},
        fmean=fmean,
    )
