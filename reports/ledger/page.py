"""The text of ``docs/RESULTS.md``: the main job, the paper's claims, every experiment's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from reports.collective import training_seconds
from reports.experiments import registry, table
from reports.experiments.base import CIFAR, IMAGENET, Claim, Row, gain_row
from reports.experiments.table import (
    KEY,
    format_measured,
    markdown,
    markdown_table,
    notes,
    number,
    ours_in_units,
    overview,
    with_commands,
)
from reports.form import common_form, form_of
from reports.format import NONE, format_bytes, seconds
from reports.ledger.claims import NOT_RUN, Judged, verdicts
from reports.ledger.compact import name_of
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.summary import client_mean, method_rows
from reports.text import environment
from reports.units import LEAST_SEEDS, mean_over_runs
from reports.variants import RunGroup, Variant, command_of, group_runs, portable_overrides

Key = tuple[str, str]  # experiment, dataset
Experiments = Mapping[Key, RunGroup]
Tables = Mapping[Key, list[Row]]
TABLE3 = "table3_novel", CIFAR
DATASETS = {CIFAR: "CIFAR-100", IMAGENET: "ImageNet100"}
SEEDS_HEADINGS = ("data", "form", "seeds", "13 layers", MAIN, REFERENCE, "gain", "command")
MAIN_HEADINGS = (
    *("data", "seed", "form", "learngene", "scratch", "gain", "better", "p"),
    *("received", "collective, s", "device", "command"),
)
SHORT_HEADINGS = ("data", "learngene, %", "scratch, %", "gain, points", "", "received")
# Of a command: what makes it no other form of the main job.
FREE_SETTINGS = (
    *("seed", "shard_seed", "num_clients", "data", "data.root", "data.download"),
    *("collective.threads", "methods"),
)
PLAIN_WORDS = {"shots=10", "ways=5", "scale=cpu"}  # the defaults, written out
OURS = (f"ours, {name}" for name in DATASETS.values())
CLAIM_HEADINGS = ("claim", "form", "paper, or bar", *OURS, "verdict", "figure")


def page(
    main: Sequence[Results], experiments: Experiments, tables: Tables, drawn: Set[str], base: str
) -> str:
    """The whole page, with the experiments' ``tables``; of figures those are linked that are
    ``drawn``, as paths below ``base``, the folder of the runs as the page reaches it."""
    overviews = {key: overview(group) for key, group in experiments.items()}
    shown = []
    for (experiment, data), rows in sorted(tables.items()):
        figure = _figure(experiment, data)
        where = f"{base}/{figure}" if figure in drawn else ""
        group = experiments[experiment, data]
        below = notes(group)
        shown.append((experiment, data, where, overviews[experiment, data] + markdown(rows, below)))
    text = (
        environment(Path(__file__).parent)
        .get_template("page.md.j2")
        .render(
            base=base,
            in_short=_in_short(main),
            opponents=overviews.get(TABLE3, ""),
            main=_main(main, drawn, base),
            seeds=_over_seeds(main),
            least_seeds=LEAST_SEEDS,
            claims=_claims(tables, drawn, base),
            key=KEY,
            experiments=shown,
        )
    )
    return text.rstrip() + "\n"


def _in_short(runs: Sequence[Results]) -> str:
    """The main job in the form nearest to the defaults, a row a data set; empty without runs."""
    cells = []
    for group in _by_data(runs):
        comparing = [v for v in group.variants if {MAIN, REFERENCE} <= set(v.methods)]
        if not comparing:
            continue
        variant = min(comparing, key=_changed_settings)
        gain = gain_row(variant, "gain")
        measured = variant.accuracy(MAIN), variant.accuracy(REFERENCE), gain.ours
        over = f"{gain.note}, {gain.ours.n}" if "seed" in gain.ours.n else gain.note
        shown = (format_measured(each, "points") for each in measured)
        received = format_bytes(client_mean(variant.runs[0], MAIN, "bytes_down"))
        cells.append((group.data, *shown, over, received))
    return markdown_table(SHORT_HEADINGS, cells) if cells else ""


def _changed_settings(variant: Variant) -> int:
    """How many words of its shortest command ask for something else than the defaults, whatever
    these are for its data."""
    asked = ({*portable_overrides(run)} - PLAIN_WORDS for run in variant.runs)
    return min(
        sum(word.partition("=")[0] not in FREE_SETTINGS for word in words) for words in asked
    )


def _by_data(runs: Sequence[Results]) -> list[RunGroup]:
    """The main job's runs, a group a data set."""
    names = sorted({run["data"]["name"] for run in runs})
    return [group_runs([run for run in runs if run["data"]["name"] == name]) for name in names]


def _main(runs: Sequence[Results], drawn: Set[str], base: str) -> str:
    """The table of the main job; empty where no run of it is kept."""
    cells = []
    for run in sorted(runs, key=lambda run: (run["data"]["name"], command_of(run))):
        rows = {row.name: row for row in method_rows(run)}
        ours, scratch = rows.get(MAIN), rows.get(REFERENCE)
        cells.append(
            (
                _linked(run["data"]["name"], _main_figure(run), drawn, base) or run["data"]["name"],
                str(run["run"]["seed"]),
                ", ".join(form_of(run)),
                *(ours.accuracy if ours else NONE, scratch.accuracy if scratch else NONE),
                *(ours.gain if ours else (NONE, NONE, NONE)),
                format_bytes(client_mean(run, MAIN, "bytes_down") if ours else None),
                seconds(training_seconds(run)),
                _trained_on(run),
                command_of(run),
            )
        )
    return with_commands(MAIN_HEADINGS, cells) if cells else ""


def _trained_on(run: Results) -> str:
    """The device and, of runs that say so, the number format of the collective's training."""
    of = run["run"]
    return ", ".join(filter(None, (of["device"], of.get("collective_precision"))))


def _over_seeds(runs: Sequence[Results]) -> str:
    """The main job's settings of which three or more seeds are kept; empty where none is."""
    cells = []
    for group in _by_data(runs):
        for variant in group.variants:
            seeds = {run["run"]["seed"] for run in variant.runs}
            if len(seeds) < LEAST_SEEDS or not {MAIN, REFERENCE} <= set(variant.methods):
                continue
            named = [
                (run, 100 * run["collective"]["stages"][-1]["accuracy"])
                for run in variant.runs
                if run["collective"]
            ]
            gain = variant.mean_difference(variant.differences(MAIN, REFERENCE))
            ours, scratch = variant.accuracy(MAIN), variant.accuracy(REFERENCE)
            measured = mean_over_runs(named), ours, scratch, gain
            about = group.data, common_form(variant.runs), str(len(seeds))
            shown = (format_measured(each, "points") for each in measured)
            cells.append((*about, *shown, variant.command))
    return with_commands(SEEDS_HEADINGS, cells) if cells else ""


def _claims(tables: Tables, drawn: Set[str], base: str) -> str:
    cells = []
    for experiment, claim in registry.claims():
        rows = {
            data: [row for row in tables.get((experiment.name, data), []) if not row.of_control]
            for data in DATASETS
        }
        said = claim.numbers or dict.fromkeys(DATASETS)
        judged = {data: verdicts(claim, paper, rows[data]) for data, paper in said.items()}
        papers = [
            f"{number(paper.value, paper.spread, unit=claim.unit)} {claim.unit}"
            if (paper := claim.numbers.get(data))
            else NONE
            for data in DATASETS
        ]
        same = papers[0] == papers[1] or papers[1] == NONE
        figures = {name: _figure(experiment.name, data) for data, name in DATASETS.items()}
        links = [_linked(name, figure, drawn, base) for name, figure in figures.items()]
        bound = "" if claim.bound == "about" else f"{claim.bound} "
        shown = "; ".join(f"{DATASETS[data]}: {_verdict(held)}" for data, held in judged.items())
        cells.append(
            (
                f"{claim.words} ({claim.where})",
                _forms(claim, rows),
                bound + (papers[0] if same else " / ".join(papers)),
                *(*(_ours(claim, rows[data]) for data in DATASETS), shown),
                ", ".join(filter(None, links)) or NONE,
            )
        )
    return markdown_table(CLAIM_HEADINGS, cells)


def _forms(claim: Claim, rows: Mapping[str, Sequence[Row]]) -> str:
    """What the individuals are made of that were measured."""
    forms = {
        data: list(dict.fromkeys(row.form for row in its if row.name == claim.quantity))
        for data, its in rows.items()
    }
    shown = [f"{DATASETS[data]}: {'; '.join(its)}" for data, its in forms.items() if any(its)]
    return "; ".join(shown) or NONE


def _verdict(judged: Sequence[Judged]) -> str:
    if not judged:
        return NOT_RUN
    if len(judged) == 1:
        return f"**{judged[0].verdict}**"
    return ", ".join(f"**{one.verdict}** ({one.label or 'defaults'})" for one in judged)


def _ours(claim: Claim, rows: Sequence[Row]) -> str:
    """What was measured; also where the paper says nothing for this data set."""
    cells = [
        f"{ours_in_units(row)} ({row.ours.n}" + (f"; {row.reached})" if row.reached else ")")
        for row in rows
        if row.name == claim.quantity
    ]
    return "; ".join(cells) or NOT_RUN


def _linked(name: str, figure: str, drawn: Set[str], base: str) -> str:
    """A link to the figure; empty where it is not there."""
    return f"[{name}]({base}/{figure})" if figure in drawn else ""


def _main_figure(run: Results) -> str:
    return f"{run['data']['name']}/main/{name_of(run)}/accuracy_over_epochs.png"


def _figure(experiment: str, data: str) -> str:
    return f"{data}/{experiment}/{table.NAME}.png"
