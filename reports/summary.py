"""Numbers and the answer in words: what the terminal and the report both say.

KB and MB are 1,000 and 1,000,000 bytes. Accuracies are fractions in the results and percent here;
differences of accuracies are percentage points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from reports.format import NONE, joined, kilobytes, p_value, percent, points, rounded, seconds, size
from reports.results import MAIN, REFERENCE
from reports.schema import Results

LEAST_PAIRS = 3  # from so many on a sentence claims a difference


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


def _mean(answers: list[Mapping[str, Any]], field: str) -> float | None:
    return fmean(answer[field] for answer in answers) if answers else None


def _alone(name: str, summary: Mapping[str, Any]) -> str:
    """A method's result where there is nothing to compare it with."""
    n, accuracy = summary["n"], percent(summary["mean"])
    interval = (
        "" if summary["ci95"] is None else f" (95 % interval ±{rounded(100 * summary['ci95'])})"
    )
    return f"{n} client{'' if n == 1 else 's'} with {name}: {accuracy}{interval}."


def interval(results: Results) -> str:
    """What ± and p are, for the terminal."""
    what = f"± is the 95 % interval over {over(results)}; "
    pairs = "draw" if results.get("labelled") else "client"
    if not many(results):
        return f"{what}gain in percentage points, paired by {pairs}"
    return (
        f"{what}lead of the learngene in percentage points, paired by {pairs}; p of Wilcoxon's "
        "signed-rank test, Holm's correction over the methods"
    )


def footnotes(results: Results) -> list[str]:
    """The sentences under the table, in order; each says one thing."""
    said = (labelled(results), terms(results), among_clients(results), tuning(results))
    return [each for each in said if each]


def labelled(results: Results) -> str | None:
    """How open-world classes were learned (table 2); None where clients hold other images."""
    of = results.get("labelled")
    if not of:
        return None
    draws, ways = of["draws"], len(of["classes"][0])
    where = f"each of {draws} draws" if draws > 1 else "one draw"
    return (
        f"Open-world classes: in {where} of {ways} classes, clients hold images that the "
        f"collective called unknown ({of['score'].replace('_', ' ')}, {of['accept']:.0%} of known "
        f"images accepted) and a labeller named without error, {of['named']:,} of the "
        f"{of['due']:,} that are due; what was not called unknown is missing. All methods have the "
        "same named images."
    )


def terms(results: Results) -> str | None:
    """On what terms methods were trained at the factory; None where none was."""
    made = results.get("pretraining")
    if made is None:
        return None
    trained = [name for name, each in made["methods"].items() if each["image_passes"]]
    taken = [name for name, each in made["methods"].items() if not each["image_passes"]]
    light, said = made["light_path_passes"], []
    if trained:
        said.append(
            f"{joined(trained)}: scratch's seven layers, trained on the collective's base images "
            f"for {made['budget']:,} image passes each"
            + (f" (the learngene's light path: {light:,})" if light else "")
        )
    if taken:
        said.append(f"{joined(taken)}: the collective's long path as it is")
    sent_in = (results["run"].get("config") or {}).get("payload_precision", "fp32")
    if said and sent_in != "fp32":
        said.append(f"their payloads travel in {sent_in}")
    return "; ".join(said) or None


def among_clients(results: Results) -> str | None:
    """The methods that clients train together; None where there is none."""
    made = (results.get("federated") or {"methods": {}})["methods"]
    if not made:
        return None
    each = "; ".join(
        f"{name} {of['rounds']} rounds of {of['local_epochs']} passes" for name, of in made.items()
    )
    return (
        f"{joined(list(made))}: scratch's seven layers, trained among the clients ({each}), then "
        "fine-tuned by each; their weights go up in every round, and all rounds' bytes are counted"
    )


def tuning(results: Results) -> str | None:
    """Which settings were tuned, on what; None where the results do not know.

    Equal trials are a matter among opponents: without them, and without a record, nothing is said
    (how the defaults of learngene and scratch were chosen stands in docs/FINDINGS.md).
    """
    found: Mapping[str, Any] | None = results.get("tuning")
    if found is None or not (many(results) or any(found.values())):
        return None
    names = method_names(results)
    groups: dict[str, list[str]] = {}
    for name in names:
        record = found.get(name)
        if record is None:
            continue
        of = record["conditions"]
        text = (
            f"{record['trials']} trials each on {record['data']}'s open-world classes, "
            f"{of['ways']}-way {of['shots']}-shot, width {of['width']:g}, {of['budget']:,} image "
            "passes"
        )
        if not record["used"]:
            text += ", but run with other settings than the best of them"
        groups.setdefault(text, []).append(name)
    said = [f"{joined(of)} (tuned: {text})" for text, of in groups.items()]
    without = [name for name in names if found.get(name) is None]
    if without:
        said.append(f"without a record of equal trials: {joined(without)}")
    return "Settings: " + "; ".join(said)
