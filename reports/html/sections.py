"""The report's sections in order, each a function from results and figures to pieces of HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reports.figures.run import mean_curve
from reports.format import NONE, joined, percent, points, seconds, size, value_text
from reports.html.factory_sections import (
    Images,
    Parts,
    attention,
    collective,
    continual,
    criterion,
    open_world,
)
from reports.html.page import paragraph, table, text
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.summary import (
    ROUND_HEADINGS,
    answered,
    failures,
    method_names,
    method_rows,
    round_rows,
    safeguard_line,
)
from reports.traffic import statement


def clients(results: Results, images: Images) -> Parts:
    """Every client: its classes, its device, its accuracy by each method, and who failed."""
    names = method_names(results)
    compared = results["summary"]["gain"] is not None
    rows = []
    for client in answered(results):
        accuracy = {name: client["methods"][name]["accuracy"] for name in names}
        gain = [points(accuracy[MAIN] - accuracy[REFERENCE])] if compared else []
        shown = [percent(accuracy[name]) for name in names]
        rows.append((client["id"], *shown, *gain, client["device"], joined(client["classes"])))
    # The numbers first: on a phone the classes are what one scrolls to.
    numbers = [*names, *(["gain, points"] if compared else [])]
    headings = ["client", *numbers, "device", "classes"]
    parts = [images["clients_paired"]]
    if (line := safeguard_line(results)) is not None:
        parts.append(paragraph(line))
    if rows:
        parts.append(table(headings, rows, range(1, 1 + len(numbers)), sortable=True))
    if lost := failures(results):
        parts += ["<h3>Clients that failed</h3>", table(("client", "reason"), lost)]
    return parts


def evolution(results: Results, images: Images) -> Parts:
    """What the clients gain as the collective learns (figure 6a)."""
    rows = round_rows(results)
    if not rows:
        return [images["evolution"]]
    return [images["evolution"], table(ROUND_HEADINGS, rows, range(len(ROUND_HEADINGS)))]


def network(results: Results, images: Images) -> Parts:
    """What crossed between server and clients."""
    messages, gene = results["messages"], results["learngene"]
    counts = [
        (told, messages[name])
        for name, told in (
            ("asked", "asked"),
            ("answered", "answered, in every method"),
            ("failed", "failed, wholly or in a method"),
            ("missing", "missing"),
        )
    ]
    totals = [
        ("down, in all", size(messages["bytes_down"])),
        ("up, in all", size(messages["bytes_up"])),
    ]
    rows = [(row.name, row.kb_down, row.kb_up) for row in method_rows(results)]
    among = list((results.get("federated") or {"methods": {}})["methods"])
    weights = (
        f"No image left a client. Weights did, for {joined(among)}: there clients train one model "
        "together and send their weights up in every round, which is what these methods are; the "
        "bytes of all rounds are theirs."
        if among
        else "No image and no weights left a client."
    )
    parts = [
        paragraph(
            "Down went the learngene and the task's settings; up came metrics and a description "
            f"of the client's task. {weights} Bytes are those of the serialised messages."
        ),
        images["bytes"],
        images["frontier"],
        table(("messages", "count"), [*counts, *totals], [1]),
        table(("method", "received, KB per client", "sent, KB per client"), rows, [1, 2]),
    ]
    if crossing := messages.get("crossed"):
        parts += ["<h3>What crossed</h3>", paragraph(statement(crossing)), _crossed(crossing)]
    if gene is not None:
        parts += ["<h3>The learngene</h3>", table(("property", "value"), _gene_rows(gene))]
    return parts


def methods(results: Results, images: Images) -> Parts:
    """How the methods besides the learngene were made ready at the factory."""
    made, among = results.get("pretraining"), _federated(results)
    if made is None:
        return among or [paragraph("No method of this run has a half at the factory.", "note")]
    rows = [
        (
            name,
            f"{each['image_passes']:,}" if each["image_passes"] else NONE,
            "found" if each["cached"] else seconds(each["seconds"]),
            f"{each['parameters']:,}",
            size(each["bytes"]),
        )
        for name, each in made["methods"].items()
    ]
    headings = ("method", "image passes", "seconds at the factory", "numbers sent", "size")
    return [
        paragraph(
            "Equal terms: the seven layers that scratch trains, the base images that the "
            "collective is trained on, the same number of image passes. full and linear_probe are "
            "sent the collective's long path and are not trained further at the factory."
        ),
        table(headings, rows, range(1, 5)),
        *among,
    ]


def _federated(results: Results) -> Parts:
    """The methods that are trained among the clients, and which clients a round went without."""
    made = (results.get("federated") or {"methods": {}})["methods"]
    if not made:
        return []
    rows = [
        (
            name,
            str(each["rounds"]),
            str(each["local_epochs"]),
            f"{each['loss_by_round'][0][1]:.3f}",
            f"{each['loss_by_round'][-1][1]:.3f}",
            size(each["bytes_down"]),
            size(each["bytes_up"]),
        )
        for name, each in made.items()
    ]
    headings = (
        *("method", "rounds", "passes in a round", "loss, first round", "loss, last round"),
        *("down, in all", "up, in all"),
    )
    parts = [
        "<h3>Trained among the clients</h3>",
        paragraph(
            "These methods take nothing from the factory. The clients train scratch's seven layers "
            "together; each round every client sends its weights up and the factory averages them. "
            "Then each client fine-tunes the result on its own shard."
        ),
        table(headings, rows, range(1, 7)),
    ]
    lost = [
        (name, str(each["round"]), str(each["client"]), each["error"])
        for name, of in made.items()
        for each in of["left_out"]
    ]
    if lost:
        parts.append(table(("method", "round", "client left out", "reason"), lost, [1, 2]))
    return parts


def leakage(results: Results, images: Images) -> Parts:
    """Whether any image or class was where it must not be."""
    data = results["data"]
    classes = {name: data["classes"][name] for name in ("base", "open_world", "novel")}
    division = [(name.replace("_", "-"), len(c), joined(c)) for name, c in classes.items()]
    parts = [table(("division", "classes", "names"), division, [1])]
    check = data.get("leakage")
    if not check:
        return [paragraph("The results hold no leakage check.", "alert"), *parts]
    verdict = (
        paragraph("Passed: no class and no image is on both sides of a division.", "good")
        if check["passed"]
        else paragraph("FAILED: data leaked; the accuracies above are not to be trusted.", "alert")
    )
    words = {
        "classes_disjoint": "base, open-world and novel classes are disjoint",
        "shard_test_overlap": "images in a client's shard and in its test set",
        "shard_base_overlap": "images in a client's shard and in base training data",
        "test_base_overlap": "images in a client's test set and in base training data",
        "images_checked": "images checked",
    }
    rows = [(words[key], _checked(check[key])) for key in words if key in check]
    rows.append(("duplicate images dropped", value_text(data.get("duplicates_dropped"))))
    return [verdict, table(("check", "result"), rows, [1]), *parts]


def retain(results: Results, images: Images) -> Parts:
    """The retain penalty beside the loss that it is added to, by epoch."""
    holders = [c for c in answered(results) if "penalty_by_epoch" in c["methods"].get(MAIN, {})]
    penalty = dict(mean_curve(holders, MAIN, "penalty_by_epoch"))
    loss = dict(mean_curve(holders, MAIN, "train_loss_by_epoch"))
    if not penalty:
        return [paragraph("The results hold no retain penalty.", "note")]
    rows = []
    for epoch, summary in penalty.items():
        beside = loss.get(epoch, {}).get("mean")
        share = percent(summary["mean"] / (summary["mean"] + beside)) if beside else NONE
        shown = f"{beside:.4g}" if beside is not None else NONE
        rows.append((f"{epoch:g}", f"{summary['mean']:.4g}", shown, share))
    settings = ", ".join(f"{k} {value_text(v)}" for k, v in (results.get("retain") or {}).items())
    return [
        paragraph(
            "What λ·L_ret (Eq. 9) weighs beside the reconstruction loss, means over clients. A "
            "share near zero says that the penalty does nothing."
            + (f" Settings: {settings}." if settings else "")
        ),
        table(("epoch", "penalty λ·L_ret", "loss L_rec", "penalty's share"), rows, range(4)),
    ]


def configuration(results: Results, images: Images) -> Parts:
    """How to repeat the run."""
    run, data = results["run"], results["data"]
    facts = [
        ("seed", run["seed"]),
        ("shard seed", value_text(run.get("shard_seed"))),
        ("configuration, sha256", run["config_sha256"]),
        ("data, sha256", data["sha256"]),
        ("image shape", " × ".join(str(side) for side in data["image_shape"])),
        ("server's device", run["device"]),
        *((f"seconds: {name}", seconds(value)) for name, value in run["seconds"].items()),
        *((f"version: {name}", value) for name, value in run["versions"].items()),
    ]
    parts = [table(("run", "value"), facts)]
    if run.get("command"):
        parts.insert(0, f"<pre>{text(run['command'])}</pre>")
    if run.get("config"):
        parts += [
            "<h3>All settings</h3>",
            table(("setting", "value"), _flat(run["config"])),
        ]
    return parts


def _crossed(rows: Sequence[Mapping[str, Any]]) -> str:
    headings = ("record", "direction", "kind", "messages", "values", "bytes", "verdict")
    cells = [
        (
            *(row["record"], row["direction"], row["kind"], f"{row['messages']:,}"),
            *(f"{row['entries']:,}", size(row["bytes"])),
            "refused" if row["refused"] else "as declared",
        )
        for row in rows
    ]
    return table(headings, cells, [3, 4, 5])


def _checked(value: bool | int) -> str:
    return value_text(value) if isinstance(value, bool) else f"{value:,}"


def _gene_rows(gene: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("inherited layers", joined(gene["layers"])),
        ("stem", value_text(gene.get("stem"))),
        ("parameters", f"{gene['parameters']:,}"),
        ("size", size(gene["bytes"])),
        ("sha256", gene["sha256"]),
    ]
    top = gene.get("top_layers_bytes")
    if top:
        rows.insert(
            4, ("beyond the inherited layers alone", f"{100 * (gene['bytes'] / top - 1):+.1f} %")
        )
    return rows


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as the command line names them: ``retain.ewc_lambda``."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value_text(value)


SECTIONS: tuple[tuple[str, str, Callable[[Results, Images], Parts]], ...] = (
    ("clients", "Clients", clients),
    ("evolution", "Evolution", evolution),
    ("collective", "The collective", collective),
    ("continual", "Not forgetting", continual),
    ("criterion", "The criterion", criterion),
    ("open-world", "The open world", open_world),
    ("attention", "Where the collective looks", attention),
    ("methods", "The other methods", methods),
    ("network", "What crossed the network", network),
    ("leakage", "Data and leakage check", leakage),
    ("retain", "Retain", retain),
    ("configuration", "Configuration", configuration),
)
