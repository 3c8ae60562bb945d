"""Models of ``results.json``: the contract, its checks and its JSON schema.

Declared fields are the contract: they are checked, written in this order and kept in the ledger
(see ``reports.ledger.compact``). Further fields may be added anywhere, with any JSON in them.
Field names are read by other programs: none is renamed.

``python -m reports.schema > docs/results.schema.json`` writes the JSON schema.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from reports.schema_types import (
    Count,
    Curve,
    Fraction,
    MaybeFraction,
    MaybeNumber,
    MaybeSigned,
    Number,
    Object,
    Section,
    Triangle,
    Wording,
    error_lines,
)

Results = Mapping[str, Any]  # the content of a file that was checked, for readers


class Seconds(Section):
    """Wall-clock seconds of the run's parts."""

    world: Number
    collective: Number
    methods: Number | None = None
    federated: Number | None = None
    clients: Number
    gradcam: Number | None = None
    total: Number


class Run(Section):
    """The run itself: what was asked for, where and how long it ran."""

    seed: Count
    versions: dict[str, str]
    config_sha256: str
    seconds: Seconds
    device: str
    shard_seed: Count | None = None
    command: str | None = None
    experiment: str | None = None
    overrides: list[str] | None = None
    collective_cached: bool | None = None
    kept_answers: Count | None = None
    collective_key: str | None = None
    collective_precision: str | None = None  # of its training: what ``auto`` came to
    config: Object | None = None
    result_sha256: str | None = None


class Classes(Section):
    """Class names of the three groups."""

    base: list[str]
    open_world: list[str]
    novel: list[str]


class Data(Section):
    """The dataset and the result of the leakage guard."""

    name: str
    image_shape: list[Count]
    classes: Classes
    sha256: str
    duplicates_dropped: Count | None = None
    leakage: Object | None = None


class Stage(Section):
    """The collective after a task; accuracies over all known classes."""

    task: Count
    known_classes: Count
    accuracy: Fraction
    parameters: Count | None = None
    image_passes: Count | None = None
    multiply_adds: Count | None = None  # of its training, forward and backward
    seconds: MaybeNumber = None  # of its training, in whatever run that was


class Continual(Section):
    """How well the collective keeps the tasks gone by; null measures: one task."""

    matrix: Triangle | None = None  # [task i][task j <= i]: accuracy on task j after task i
    average_accuracy: Fraction
    average_incremental_accuracy: Fraction
    forgetting: MaybeSigned
    backward_transfer: MaybeSigned


class Collective(Section):
    """The collective at the end of its tasks."""

    tasks: Count
    conv_widths: list[Count]
    parameters: Count
    stages: list[Stage]
    multiply_adds: Count | None = None  # of its whole training
    layers: list[str] | None = None
    continual: Continual | None = None


class Criterion(Section):
    """The learngene criterion; layers count from 1."""

    sigma: Number
    form: str | None = None  # learngene.rho; None: a kept run of before it, paper
    rho: list[list[MaybeNumber]]  # [task][layer]; null: the layer was not there yet
    selected: list[Count]
    names: list[str] | None = None
    rule: Object | None = None
    # |W' - W| / |W| by training, [task][layer]; null: the first task, or the layer was not there
    weight_change: list[list[MaybeNumber]] | None = None
    # with ``transfer.projected``, over layers; see server.transfer.held_against
    correlation: dict[str, MaybeSigned] | None = None


class TransferTask(Section):
    """A task's classes before they were learned: accuracy of class means, by depth."""

    task: Count
    ways: Count
    shots: Count
    plain: list[MaybeFraction]
    projected: list[MaybeFraction]


class Transfer(Section):
    """The transfer profile by layer of the collective at its end; null: not there yet."""

    names: list[str]
    tasks: list[TransferTask]
    plain: list[MaybeFraction]  # mean over the last third of the tasks
    projected: list[MaybeFraction]

    def problems(self) -> Iterator[str]:
        kinds = ("plain", "projected")
        rows = {kind: getattr(self, kind) for kind in kinds}
        for place, task in enumerate(self.tasks):
            rows |= {f"tasks[{place}].{kind}": getattr(task, kind) for kind in kinds}
        for name, row in rows.items():
            if len(row) != len(self.names):
                yield f"{name}: must be one value a layer, {len(self.names)}, is {len(row)}"


class Learngene(Section):
    """The learngene that clients may take prefixes of; sizes in fp32, with its own projection."""

    layers: list[Count]
    parameters: Count
    bytes: Count
    sha256: str
    stem: str | None = None
    top_layers_bytes: Count | None = None
    control: str | None = None  # random: its layers were drawn, not inherited
    world_sha256: str | None = None  # of a saved one: of the images that it grew up on
    # what each prefix that clients may take adds to a message, in the run's precision
    bytes_by_depth: dict[str, Count] | None = None


class CycleAccuracies(Section):
    """The collective's accuracies before or after a cycle; null: no new class."""

    accuracy: Fraction
    old_accuracy: Fraction
    new_accuracy: MaybeFraction


class CycleCounts(Section):
    """What one open-world cycle flagged, had labelled and took in."""

    cycle: Count
    images: Count
    threshold: Number
    known_images: Count
    unknown_images: Count
    called_unknown: Count
    known_called_unknown: Count
    unknown_missed: Count
    labels_spent: Count
    known_sent: Count
    called_beyond_budget: Count | None = None
    added: list[str]
    labelled_images: dict[str, Count]
    waiting_classes: Count
    known_classes: Count

    def problems(self) -> Iterator[str]:
        if sorted(self.labelled_images) != sorted(self.added):
            yield "labelled_images: must be of the classes in added"
        for part, whole in (
            ("known_sent", "labels_spent"),
            ("known_called_unknown", "known_images"),
            ("unknown_missed", "unknown_images"),
        ):
            if getattr(self, part) > getattr(self, whole):
                yield f"{part}: more than {whole}, {getattr(self, whole)}"


class CycleRecord(CycleAccuracies, CycleCounts):  # the last base's fields are written first
    """One open-world cycle, and the collective after it."""

    seconds: Number | None = None


class OpenWorldCycles(Section):
    """The open-world cycles after the last task, and their sums."""

    settings: Object
    before: CycleAccuracies
    cycles: list[CycleRecord]
    discovered: Count
    open_world_classes: Count
    labels_spent: Count
    known_sent: Count
    unknown_missed: Count
    known_called_unknown: Count

    def problems(self) -> Iterator[str]:
        for place, record in enumerate(self.cycles):
            if record.cycle != place + 1:
                yield f"cycles[{place}].cycle: must be {place + 1}, is {record.cycle}"
        sums = {
            name: sum(getattr(record, name) for record in self.cycles)
            for name in ("labels_spent", "known_sent", "unknown_missed", "known_called_unknown")
        }
        sums["discovered"] = sum(len(record.added) for record in self.cycles)
        for name, value in sums.items():
            if getattr(self, name) != value:
                yield f"{name}: must be the sum over cycles, {value}, is {getattr(self, name)}"
        if self.discovered > self.open_world_classes:
            yield f"discovered: more than open_world_classes, {self.open_world_classes}"


class OpenWorld(Section):
    """How well the collective tells unknown images from known ones."""

    threshold: Number
    auroc: Fraction
    f1: Fraction
    known_accuracy: Fraction
    score: str | None = None
    scores: dict[str, Object | None] | None = None
    best_score: str | None = None
    paper_thresholds: dict[str, Object] | None = None
    openness: MaybeNumber = None
    cycle: OpenWorldCycles | None = None


class MethodResult(Section):
    """A client's result with one method: the last epoch's, never the best one's."""

    accuracy: Fraction
    accuracy_by_epoch: Curve
    seconds: Number
    bytes_down: Count
    bytes_up: Count
    train_accuracy: MaybeFraction = None
    depth: Count | None = None  # layers of the learngene that the client took

    def problems(self) -> Iterator[str]:
        if self.accuracy_by_epoch and (last := self.accuracy_by_epoch[-1][1]) != self.accuracy:
            yield f"accuracy: must be that of the last epoch, {last}, is {self.accuracy}"


class Client(Section):
    """A client, its shard, and either its result with every method or why it failed."""

    id: Count
    classes: list[str]
    # None: any number of a class: images of its own, or a part of a class (data.partition)
    shots: Count | None
    train_images: Count
    test_images: Count
    device: str
    methods: dict[str, MethodResult] = Field(default_factory=dict)
    error: str = ""

    def problems(self) -> Iterator[str]:
        if {"methods", "error"} <= self.model_fields_set:
            yield "error: has both error and methods"
        elif not {"methods", "error"} & self.model_fields_set:
            yield "methods: missing"


class Summary(Section):
    """Accuracies of a method, or paired differences of two (with ``wins`` and ``p_value``)."""

    mean: MaybeNumber
    std: MaybeNumber
    ci95: MaybeNumber
    ci95_classes: MaybeNumber = None  # of a paired difference, for new classes
    wins: Count | None = None
    losses: Count | None = None
    ties: Count | None = None
    n: Count
    p_value: MaybeNumber = None
    p_holm: MaybeNumber = None  # corrected for the number of methods
    gain_over_scratch: Summary | None = None
    lead: Summary | None = None  # the learngene's over this method


class Round(Section):
    """A point of the collective's evolution at which clients reconstructed."""

    round: Count
    tasks: Count
    known_classes: Count
    learngene_bytes: Count
    answered: Count
    summary: dict[str, Summary]
    gain: Summary | None
    clients: list[Client] = Field(default_factory=list)  # the last round's are the run's


class Messages(Section):
    """Messages and bytes of all rounds together."""

    asked: Count
    answered: Count
    failed: Count
    missing: Count
    bytes_down: Count
    bytes_up: Count
    queries: Count | None = None
    refused: Count | None = None  # among the failed

    def problems(self) -> Iterator[str]:
        if self.asked != (replies := self.answered + self.failed + self.missing):
            yield f"asked: must be answered + failed + missing, {replies}, is {self.asked}"


class GradcamImage(Section):
    """A test image and the collective's maps of it, as PNG in base64."""

    class_: str = Field(alias="class")
    group: str | None = None
    row: Count | None = None
    picture: str
    maps: str
    predicted: list[str]


class GradcamStage(Section):
    """The stage of the collective that a map is of."""

    task: Count
    known_classes: Count
    layer: Count


class Gradcam(Section):
    """Where the collective looks in images of classes that it does not know (figure 5)."""

    images: list[GradcamImage]
    stages: list[GradcamStage]
    missing: list[Count]


class ResultsFile(Section):
    """``results.json`` of a run; null sections: the run began with a saved learngene."""

    schema_: Annotated[Literal[1], Wording("must be 1")] = Field(alias="schema")
    kept: bool | None = None  # compacted for the ledger: enough for tables, not for a report
    run: Run
    data: Data
    collective: Collective | None
    criterion: Criterion | None
    transfer: Transfer | None = None
    learngene: Learngene | None
    open_world: OpenWorld | None
    clients: list[Client]
    summary: dict[str, Summary | None]  # of each method; ``gain``: learngene minus scratch
    messages: Messages
    gradcam: Gradcam | None = None
    pretraining: Object | None = None
    tuning: Object | None = None
    labelled: Object | None = None
    federated: Object | None = None
    methods_left_out: dict[str, str] | None = None
    retain: Object | None = None
    rounds: list[Round] | None = None

    def problems(self) -> Iterator[str]:
        for number, times in Counter(client.id for client in self.clients).items():
            if times > 1:
                yield f"clients: id {number} occurs {times} times"
        if "gain" not in self.summary:
            yield "summary.gain: missing"
        for name, summary in self.summary.items():
            if summary is None and name != "gain":
                yield f"summary.{name}: must be an object, is None"
            elif summary is not None and name == "gain":
                for field in ("wins", "p_value"):
                    if field not in summary.model_fields_set:
                        yield f"summary.gain.{field}: missing"


def check_results(results: Any, extra: Literal["ignore"] | None = None) -> ResultsFile:
    """Hold the content of a file to the contract.

    Args:
        extra: ``ignore`` leaves fields out of the model that it does not declare.

    Raises:
        ValueError: every broken rule, one a line, each with the field's path and value.
    """
    try:
        return ResultsFile.model_validate(results, extra=extra)
    except ValidationError as error:
        lines = [line for detail in error.errors() for line in error_lines(detail)]
        raise ValueError("results.json breaks its contract:\n" + "\n".join(lines)) from None


if __name__ == "__main__":
    print(json.dumps(ResultsFile.model_json_schema(), indent=1))
