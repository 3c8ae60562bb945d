"""What stands under the table of methods: over what an interval is, on what terms, tuned or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.wording import Results, joined, many, method_names, over


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
