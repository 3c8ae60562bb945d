"""``results.json``: built from the run's parts, held to the contract, written and read whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from learngene.open_world.flagged import draw_of
from learngene.utils.files import atomic_file
from learngene.utils.untrusted import RESULTS_LIMIT, read_json
from reports.schema import ResultsFile, check_results
from reports.statistics import holm, paired_gain, summarise

REFERENCE = "scratch"  # what every other method is compared with
MAIN = "learngene"  # summary.gain is this method's gain over the reference
# Wall-clock, which of several equal devices was free, and whether an earlier run had done it.
CIRCUMSTANCES = ("seconds", "device", "cached")
# Under these a text is a reason in words, with paths and limits in it: that it is there counts.
REASONS = ("error", "failed", "methods_left_out")


def build_results(
    *,
    clients: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    rounds: Sequence[Mapping[str, Any]] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """The content of ``results.json``: plain JSON types, fields in the order of the models.

    Args:
        clients: one a client, in any order. One that failed carries ``error`` (a text).
        methods: the run's methods in the order to show them.
        rounds: the points of the collective's evolution at which clients reconstructed, each
            {round, tasks, known_classes, learngene_bytes, clients}; the last one's clients are
            ``clients``. Kept with a summary each when there is more than one.
        sections: further fields of ``reports.schema.ResultsFile``; one that may be left out is,
            where it is None. With ``labelled``, summaries are over its draws: means over a draw's
            clients are the numbers compared.

    A client counts as answered when each of the run's methods has a finite accuracy; else it is
    failed: ``error`` says why (a method's own ``error`` is quoted) and its methods are left out,
    so that all methods are summarised over the same clients. A method besides learngene and
    scratch that most clients have no answer of is left out itself, and named with a reason under
    ``methods_left_out``, as are those that failed at the factory or in training among the clients.
    Numbers that are not finite elsewhere (a loss that diverged) are null.

    Raises:
        ValueError: the parts break the contract, or a method is called ``gain``.
        TypeError: a part holds what has no JSON form.
        KeyError: a section without a value is none of the contract's.
    """
    answers = to_json_types(sorted(clients, key=lambda client: client["id"]))
    if "gain" in methods:
        raise ValueError("a method cannot be called 'gain': summary.gain is taken")
    failures = _failed_methods(answers, methods)
    names = [name for name in methods if name not in failures]
    rows = [_client(client, names, failures) for client in answers]
    for name in ("pretraining", "federated"):
        failures = {**(sections[name]["failed"] if sections.get(name) else {}), **failures}
    draws = sections["labelled"]["draws"] if sections.get("labelled") else None
    sections |= {"summary": _summary(rows, names, draws), "methods_left_out": failures or None}
    fields = ResultsFile.model_fields
    content = {"schema": 1, "gradcam": None} | {
        name: section
        for name, section in sections.items()
        if section is not None or fields[name].is_required()
    }
    content = {**to_json_types(content), "clients": rows}
    if rounds is not None and len(rounds) > 1:
        content["rounds"] = _rounds(to_json_types(rounds), rows, failures.keys())
    results = check_results(content).model_dump(mode="json", exclude_unset=True)
    results["run"]["result_sha256"] = result_sha256(results)
    return results


def write_results(results: Mapping[str, Any], path: Path) -> Path:
    """Check ``results`` against the contract and write it, whole or not at all, a client a line.

    Raises:
        ValueError: it breaks the contract, or holds what is not JSON (NaN, for one).
    """
    check_results(results)
    with atomic_file(path) as file:
        try:
            file.writelines(part.encode() for part in _json_parts(results, "\n"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not valid JSON: {error}") from error
        file.write(b"\n")
    return path


def _json_parts(value: Any, newline: str) -> Iterator[str]:
    """JSON in parts: each field of an object and each element of a list begins a line."""
    plain = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    lines: Iterable[tuple[str, Iterable[str]]]
    if value and isinstance(value, Mapping):
        ends, within = "{}", newline + " "
        lines = ((f"{plain(str(name))}: ", _json_parts(value[name], within)) for name in value)
    elif value and isinstance(value, list):
        ends, lines = "[]", (("", [plain(each)]) for each in value)
    else:
        yield plain(value)
        return
    yield ends[0]
    for place, (name, parts) in enumerate(lines):
        yield f"{',' if place else ''}{newline} {name}"
        yield from parts
    yield newline + ends[1]


def read_results(path: Path) -> dict[str, Any]:
    """Read and check a ``results.json``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not JSON, or breaks the contract.
    """
    results = read_json(path, RESULTS_LIMIT)
    check_results(results)
    return results


def objective(results: Mapping[str, Any]) -> float | None:
    """What a sweeper may choose by: the mean accuracy over clients (in [0, 1], last epoch) of the
    learngene, or of the first method where the run has none; None where nobody answered."""
    summary = results["summary"]
    return summary[MAIN if MAIN in summary else next(iter(summary))]["mean"]


def comparable(results: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal, bit for bit, between two runs of one configuration.

    ``results`` without ``run`` and, wherever they stand, without ``CIRCUMSTANCES`` and without the
    words of ``REASONS``.
    """
    stripped = _strip({name: value for name, value in results.items() if name != "run"})
    assert isinstance(stripped, dict)
    return stripped


def _strip(value: Any, words: bool = False) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _strip(item, words or name in REASONS)
            for name, item in value.items()
            if name not in CIRCUMSTANCES or isinstance(item, Mapping)  # a method may be called so
        }
    if isinstance(value, list | tuple):
        return [_strip(item, words) for item in value]
    return "" if words and isinstance(value, str) else value


def result_sha256(results: Mapping[str, Any]) -> str:
    """sha256 over ``comparable(results)``, 64 hex digits; kept as ``run.result_sha256``."""
    text = json.dumps(comparable(results), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json_types(value: Any) -> Any:
    """``value`` with JSON's types: numpy to Python, tuples to lists, NaN and infinities to None.

    Raises:
        TypeError: a type that has no JSON form.
    """

    def convert(part: Any) -> Any:
        if isinstance(part, np.ndarray | np.generic):
            return part.tolist()
        raise TypeError(f"results hold plain values only, got {type(part).__name__}: {part!r}")

    return json.loads(json.dumps(value, default=convert), parse_constant=lambda word: None)


def _method_names(clients: Sequence[Mapping[str, Any]]) -> list[str]:
    """Methods in the order in which the clients' answers first name them."""
    answers = (client.get("methods") or {} for client in clients)
    return list(dict.fromkeys(name for methods in answers for name in methods))


def _failed_methods(clients: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """Methods that most clients have no answer of, with a reason: their fault, not the clients'.

    Counted over the clients of which any method answered. Learngene and scratch are what a run is
    about: without them a client has not answered.
    """
    answered = [client for client in clients if client.get("methods")]
    failures = {}
    for name in names:
        if name in (MAIN, REFERENCE):
            continue
        without = [c for c in answered if (c["methods"].get(name) or {}).get("accuracy") is None]
        if 2 * len(without) > len(answered):
            why = without[0]["methods"].get(name, {}).get("error") or without[0].get("error")
            failures[name] = f"failed on {len(without)} of {len(answered)} clients: {why}"
    return failures


def _client(
    client: Mapping[str, Any], names: Sequence[str], failures: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A client's row: with methods when it answered, else with ``error`` and without methods.

    ``error`` is dropped where nothing but the methods in ``failures`` failed.
    """
    row = {name: value for name, value in client.items() if name not in ("methods", "error")}
    answers = {name: (client.get("methods") or {}).get(name) or {} for name in names}
    error = client.get("error")
    if not error or (failures and all(answers.values())):
        bad = {name: a.get("error") for name, a in answers.items() if a.get("accuracy") is None}
        error = "; ".join(f"{name}: {why or 'no finite accuracy'}" for name, why in bad.items())
    return {**row, "error": error} if error else {**row, "methods": answers}


def _rounds(
    rounds: Sequence[dict[str, Any]], last: Sequence[Mapping[str, Any]], left_out: Set[str]
) -> list[dict[str, Any]]:
    """Every round with its summary; scratch, which is asked for in the last one, is the reference
    of all. The last round's clients are the run's and are not kept twice."""
    scratch = {
        c["id"]: c["methods"][REFERENCE]["accuracy"]
        for c in last
        if REFERENCE in c.get("methods", {})
    }
    rows = []
    for number, point in enumerate(rounds, start=1):
        names = [name for name in _method_names(point["clients"]) if name not in left_out]
        names = names or [MAIN]  # nobody answered: a mean of nothing
        final = number == len(rounds)
        clients = last if final else [_client(client, names) for client in point["clients"]]
        answered = [c for c in clients if "methods" in c]
        accuracies = {n: [c["methods"][n]["accuracy"] for c in answered] for n in names}
        pairs = [
            (c["methods"][MAIN]["accuracy"], scratch[c["id"]], c["classes"])
            for c in answered
            if MAIN in names and c["id"] in scratch
        ]
        row = {
            **{name: value for name, value in point.items() if name != "clients"},
            "answered": len(answered),
            "summary": {name: summarise(values) for name, values in accuracies.items()},
            "gain": paired_gain(*zip(*pairs, strict=True)) if pairs else None,
        }
        rows.append(row if final else {**row, "clients": clients})
    return rows


def _summary(
    clients: Sequence[Mapping[str, Any]], names: Sequence[str], draws: int | None = None
) -> dict[str, Any]:
    """Per method its accuracy (and gain over scratch) over the clients that answered, or over the
    draws of classes that these share."""
    answered = [client for client in clients if "methods" in client]
    groups = [[client] for client in answered]
    if draws:
        groups = [[c for c in answered if draw_of(c["id"], draws) == d] for d in range(draws)]
        groups = [group for group in groups if group]
    classes = [group[0]["classes"] for group in groups]
    accuracy = {
        name: [fmean(c["methods"][name]["accuracy"] for c in group) for group in groups]
        for name in names
    }
    summary: dict[str, Any] = {name: summarise(accuracy[name]) for name in names}
    if REFERENCE in names:
        for name in names:
            if name != REFERENCE:
                gain = paired_gain(accuracy[name], accuracy[REFERENCE], classes)
                summary[name]["gain_over_scratch"] = gain
    if MAIN in names:
        _compare(summary, accuracy, classes)
    summary["gain"] = summary.get(MAIN, {}).get("gain_over_scratch")
    return summary


def _compare(
    summary: dict[str, Any],
    accuracy: Mapping[str, Sequence[float]],
    classes: Sequence[Sequence[str]],
) -> None:
    """Add ``lead`` to every other method: what the learngene gains over it, paired by client, with
    Wilcoxon's p as it is and (``p_holm``) corrected for the number of these comparisons."""
    leads = {
        name: paired_gain(accuracy[MAIN], accuracy[name], classes)
        for name in summary
        if name != MAIN
    }
    corrected = holm([lead["p_value"] for lead in leads.values()])
    for (name, lead), p in zip(leads.items(), corrected, strict=True):
        summary[name]["lead"] = {**lead, "p_holm": p}
