"""Records of tuning, a JSON file a method and data set, as benchmarks/tune_methods.py writes them.

A record says which settings were tried on open-world classes, how many trials that were, with which
command, and which came out best. There is none of a method that was not tuned; none is made up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learngene.methods.registry import base_of
from learngene.utils.files import write_atomically
from learngene.utils.untrusted import MEBIBYTE, read_json
from reports.variants import flatten

FOLDER = Path(__file__).parent / "tuned"
LIMIT = MEBIBYTE  # bytes of a record
Record = Mapping[str, Any]
FIELDS = ("method", "data", "classes", "conditions", "trials", "tried", "best", "command")
# Of a trial and, in this order, in the footnote: collective.width, shots, ways, budget.
CONDITIONS = ("width", "shots", "ways", "budget")


def write_record(record: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write ``DATA-METHOD.json``; gives its path.

    Raises:
        ValueError: a field is missing, or trials are not as many as were tried.
    """
    _check(record, f"the record of {record.get('method')}")
    path = folder / f"{record['data']}-{record['method']}.json"
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def read_records(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All records, by name of the file; none where there is no folder.

    Raises:
        ValueError: a file is no record.
    """
    records = {path: read_json(path, LIMIT) for path in sorted(folder.glob("*.json"))}
    for path, record in records.items():
        _check(record, str(path))
    return list(records.values())


def _check(record: Any, where: str) -> None:
    missing = [name for name in FIELDS if not isinstance(record, Mapping) or name not in record]
    if missing:
        raise ValueError(f"{where}: no field {missing[0]}")
    absent = [name for name in CONDITIONS if name not in record["conditions"]]
    if absent:
        raise ValueError(f"{where}: no condition {absent[0]}")
    if record["classes"] != "open_world":
        raise ValueError(f"{where}: tuned on {record['classes']} classes, open_world ones are due")
    if record["trials"] != len(record["tried"]):
        raise ValueError(f"{where}: {record['trials']} trials, {len(record['tried'])} were tried")


def tuning(
    config: Mapping[str, Any], methods: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """``tuning`` of ``results.json``: per method its trials, their data and conditions (which may
    differ from the run's), and whether the run has the settings that came out best; null without
    a record.

    Of several data sets' records that of the run's own counts, else the first.
    """
    data = config["data"]["name"]
    ordered = sorted(records, key=lambda record: record["data"] != data)
    by_method = {record["method"]: record for record in reversed(ordered)}  # the first one counts
    return {name: _summary(config, by_method.get(base_of(name))) for name in methods}


def _summary(config: Mapping[str, Any], record: Record | None) -> Record | None:
    if record is None:
        return None
    best, settings = record["best"] or {}, dict(flatten(config))
    return {
        "trials": record["trials"],
        "data": record["data"],
        "conditions": {name: record["conditions"][name] for name in CONDITIONS},
        "command": record["command"],
        "used": bool(best) and all(settings.get(path) == best[path] for path in best),
    }
