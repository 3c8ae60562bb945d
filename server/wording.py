"""Numbers and the answer in words: what the terminal and the report both say.

KB and MB are 1,000 and 1,000,000 bytes. Accuracies are fractions in the results and percent here;
differences of accuracies are percentage points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from statistics import fmean
from typing import Any

from server.results import MAIN, REFERENCE

Results = Mapping[str, Any]
LEAST_PAIRS = 3  # from so many on a sentence claims a difference
NONE = "–"  # shown where a number does not exist


@dataclass(frozen=True)
class MethodRow:
    """One line of the summary table, as text; ``gain``, ``wins``, ``p`` are against scratch,
    ``lead``, ``ahead`` and ``p_holm`` are the learngene's over this method."""

    name: str
    accuracy: str  # percent, with its 95 % interval
    gain: str  # percentage points, with its 95 % interval
    wins: str
    p: str
    kb_down: str  # KB that one client receives, mean
    kb_up: str  # KB that one client sends, mean
    seconds: str  # of one client, mean
    lead: str  # percentage points, with its 95 % interval
    ahead: str  # clients on which the learngene is better
    p_holm: str  # corrected for the number of methods


def answered(results: Results) -> list[Mapping[str, Any]]:
    """The clients that answered, by id."""
    return [client for client in results["clients"] if "methods" in client]


def failures(results: Results) -> list[tuple[str, str]]:
    """Who failed and why, in all rounds, the last one's at the end."""
    earlier = [
        (f"client {client['id']} in round {each['round']}", client["error"])
        for each in (results.get("rounds") or [])[:-1]
        for client in each["clients"]
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
        gain, lead = summary.get("gain_over_scratch"), summary.get("lead")
        answers = [client["methods"][name] for client in answered(results)]
        rows.append(
            MethodRow(
                name=name,
                accuracy=percent(summary["mean"], summary["ci95"]),
                gain=points(gain["mean"], gain["ci95"]) if gain else NONE,
                wins=f"{gain['wins']} of {gain['n']}" if gain and gain["n"] else NONE,
                p=p_value(gain["p_value"]) if gain else NONE,
                kb_down=kilobytes(_mean(answers, "bytes_down")),
                kb_up=kilobytes(_mean(answers, "bytes_up")),
                seconds=seconds(_mean(answers, "seconds")),
                lead=points(lead["mean"], lead["ci95"]) if lead else NONE,
                ahead=f"{lead['wins']} of {lead['n']}" if lead and lead["n"] else NONE,
                p_holm=p_value(lead["p_holm"]) if lead else NONE,
            )
        )
    return rows


def many(results: Results) -> bool:
    """Whether there is more to compare than learngene and scratch: leads are then shown."""
    return MAIN in results["summary"] and len(method_names(results)) > 2


def best_other(results: Results) -> str | None:
    """The most accurate method besides the learngene; None where none has a mean."""
    means = {n: results["summary"][n]["mean"] for n in method_names(results) if n != MAIN}
    known = {name: mean for name, mean in means.items() if mean is not None}
    return max(known, key=known.__getitem__) if known else None


def left_out(results: Results) -> Mapping[str, str]:
    """Methods that failed, with their reasons."""
    return results.get("methods_left_out") or {}


def over(results: Results) -> str:
    """What summaries are over: the run's clients, or draws of classes that clients share."""
    return "draws of classes" if results.get("labelled") else "clients"


def round_rows(results: Results) -> list[tuple[str, ...]]:
    """One row a round: number, known classes, accuracy, gain over scratch, wins, answered."""
    rows = []
    for each in results.get("rounds") or []:
        summary, gain = each["summary"].get(MAIN, {}), each["gain"]
        rows.append(
            (
                str(each["round"]),
                str(each["known_classes"]),
                percent(summary.get("mean"), summary.get("ci95")),
                points(gain["mean"], gain["ci95"]) if gain else NONE,
                f"{gain['wins']} of {gain['n']}" if gain else NONE,
                str(each["answered"]),
            )
        )
    return rows


ROUND_HEADINGS = ("round", "known classes", "accuracy", "gain over scratch", "wins", "answered")


def headline(results: Results) -> str:
    """The run's answer in one sentence, whichever way it turned out."""
    clients = answered(results)
    if not clients:
        return "No client answered: there is nothing to compare."
    if many(results):
        return _among(results)
    summary, gain = results["summary"], results["summary"]["gain"]
    if gain is None:
        return " ".join(_alone(name, summary[name]) for name in method_names(results))
    wins, n, mean, ci95 = gain["wins"], gain["n"], gain["mean"], gain["ci95"]
    ours, reference = percent(summary[MAIN]["mean"]), percent(summary[REFERENCE]["mean"])
    cost = size(_mean([client["methods"][MAIN] for client in clients], "bytes_down"))
    against = f"{ours} against {reference}, {points(mean)} points"
    better = (
        f"{wins} of {n} {over(results)} {'is' if wins == 1 else 'are'} better than from scratch"
    )
    if ci95 is None:
        verdict = "better than" if mean > 0 else "worse than" if mean < 0 else "as good as"
        one = one_of(results)
        return (
            f"With the learngene, the one {one} that answered is {verdict} from scratch: "
            f"{against}, for {cost} received; one {one} gives no interval."
        )
    interval = f"95 % interval ±{rounded(100 * ci95)}"
    if unclear(gain):
        why = (
            f"the {interval} includes zero"
            if abs(mean) <= ci95
            else f"{n} {over(results)} are too few to say more"
        )
        return (
            f"No clear difference: {against}, and {why}; with the "
            f"learngene, {better}, for {cost} received per client."
        )
    if mean < 0:
        return (
            f"The learngene does harm here: {against} ({interval}); {better}"
            f", for {cost} received per client."
        )
    return f"With the learngene, {better}: {against} ({interval}), for {cost} received per client."


def one_of(results: Results) -> str:
    """What a mean is over, one of them."""
    return "draw of classes" if results.get("labelled") else "client"


def unclear(difference: Mapping[str, Any]) -> bool:
    """Whether a paired difference says nothing: its interval includes zero, or two pairs make it,
    which are equally far apart by chance."""
    return abs(difference["mean"]) <= difference["ci95"] or difference["n"] < LEAST_PAIRS


def safeguard_line(results: Results) -> str | None:
    """How many clients fell back to scratch, and on what grounds; None without a safeguard."""
    guarded = [
        client["methods"][MAIN]
        for client in answered(results)
        if "safeguard_fell_back" in client["methods"].get(MAIN, {})
    ]
    if not guarded:
        return None
    back = sum(bool(method["safeguard_fell_back"]) for method in guarded)
    gene, scratch = (percent(_mean(guarded, f"safeguard_{name}")) for name in ("gene", "scratch"))
    return (
        f"Safeguard: {back} of {len(guarded)} clients fell back to scratch; on held-out images of "
        f"the shards the learngene has {gene}, scratch {scratch}."
    )


def _among(results: Results) -> str:
    """The learngene among several methods: the best of the others, and where the learngene is."""
    summary, rival = results["summary"], best_other(results)
    assert rival is not None, "some client answered"
    lead = summary[rival]["lead"]
    ours, theirs = percent(summary[MAIN]["mean"]), percent(summary[rival]["mean"])
    cost = [
        size(_mean([client["methods"][name] for client in answered(results)], "bytes_down"))
        for name in (MAIN, rival)
    ]
    others = len(method_names(results)) - 1
    mean, ci95 = lead["mean"], lead["ci95"]
    best = f"the best of {others} other method{'' if others == 1 else 's'}"
    if ci95 is None:
        place = (
            f"On the one {one_of(results)} that answered, which gives no interval, the learngene"
        )
        place += f" is {'ahead of' if mean > 0 else 'behind' if mean < 0 else 'level with'} {best}"
    elif unclear(lead):
        place = f"No clear difference between the learngene and {best}"
    else:
        place = f"The learngene is {'ahead of' if mean > 0 else 'behind'} {best}"
    return (
        f"{place}: {ours} for {cost[0]} received per client against {theirs} for "
        f"{cost[1]} with {rival}, {points(mean, ci95)} points "
        f"(p {p_value(lead['p_holm'])} after Holm's correction)."
    )


def setting(results: Results) -> str:
    """Data, seed, clients, ways and shots, in one line."""
    first = next(iter(answered(results)), {})
    parts = [f"data {results['data']['name']}", f"seed {results['run']['seed']}"]
    shard_seed = results["run"].get("shard_seed")
    if shard_seed is not None and shard_seed != results["run"]["seed"]:
        parts.append(f"shard seed {shard_seed}")
    parts.append(f"{len(answered(results))} of {len(results['clients'])} clients answered")
    if first:
        parts.append(f"{len(first['classes'])}-way {first['shots']}-shot")
    return " · ".join(parts)


def rounded(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number with so many decimals, halves to even: of ten digits, since 80.35 is not a
    binary fraction and would come out as 80.3."""
    exact = Decimal(f"{value:.10g}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN)
    if exact == 0:  # "-0.0" would claim a direction
        return f"{abs(exact)}"
    return f"{exact:+}" if sign else f"{exact}"


def percent(fraction: float | None, ci95: float | None = None) -> str:
    """A fraction as percent with one digit: ``93.1 %``, or ``93.1 ± 1.2 %`` with an interval."""
    if fraction is None:
        return NONE
    interval = "" if ci95 is None else f" ± {rounded(100 * ci95)}"
    return f"{rounded(100 * fraction)}{interval} %"


def points(fraction: float | None, ci95: float | None = None) -> str:
    """A difference of fractions as signed percentage points: ``+65.7`` or ``+65.7 ± 3.1``."""
    if fraction is None:
        return NONE
    interval = "" if ci95 is None else f" ± {rounded(100 * ci95)}"
    return rounded(100 * fraction, sign=True).replace("-", "−") + interval


def p_value(value: float | None) -> str:
    """A p value; below a thousandth only that it is."""
    return NONE if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def kilobytes(count: float | None) -> str:
    """Bytes as KB, without the unit: one digit below 100 KB, none from there on."""
    if count is None:
        return NONE
    return f"{count / 1e3:,.1f}" if 0 < count < 99_950 else f"{count / 1e3:,.0f}"


def size(count: float | None) -> str:
    """Bytes with the unit that suits them: ``312 B``, ``48.0 KB``, ``1.8 MB``."""
    if count is None:
        return NONE
    if count < 1e3:
        return f"{count:.0f} B"
    return f"{count / 1e3:.1f} KB" if count < 999_950 else f"{count / 1e6:,.1f} MB"


def seconds(value: float | None) -> str:
    """Seconds, without the unit."""
    return NONE if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def value_text(value: Any) -> str:
    """A setting as people write it."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"[{joined(value)}]" if isinstance(value, list) else str(value)


def joined(items: Sequence[Any]) -> str:
    """Items with commas between them."""
    return ", ".join(str(item) for item in items)


def _mean(answers: list[Mapping[str, Any]], field: str) -> float | None:
    return fmean(answer[field] for answer in answers) if answers else None


def _alone(name: str, summary: Mapping[str, Any]) -> str:
    """A method's result where there is nothing to compare it with."""
    n, accuracy = summary["n"], percent(summary["mean"])
    interval = (
        "" if summary["ci95"] is None else f" (95 % interval ±{rounded(100 * summary['ci95'])})"
    )
    return f"{n} client{'' if n == 1 else 's'} with {name}: {accuracy}{interval}."


def score_words(name: str) -> str:
    """The name of an open-world score as it is read."""
    return name.replace("_", " ")


def score_label(open_world: Results) -> str:
    """What the horizontal axis of the open-world histogram holds."""
    name = open_world.get("score") or "max_softmax"
    if name == "max_softmax":
        return "unknown probability (Eq. 2)"
    return f"{score_words(name)} (higher = more unknown)"
