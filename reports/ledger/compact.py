"""A run's results in a few kilobytes: what tables and figures of experiments need, and no more."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from reports.experiments.registry import experiment
from reports.runs import GatherError, seeds_of
from reports.schema import Results, check_results
from reports.variants import (
    PATH_PLACEHOLDERS,
    asked_settings,
    command_of,
    experiment_of,
    portable_overrides,
)

LIMIT = 200_000  # bytes of a kept result
MANY = 100  # clients; of more, curves are kept at their two ends
PER_CLIENT = 3_000  # bytes of a kept result of more clients than that
# Declared fields (``reports.schema``) that are not kept; further ones are not kept either.
NOT_KEPT: dict[str, Any] = {
    "run": {"collective_cached": True, "kept_answers": True},
    "collective": {"continual": {"matrix": True}},
    "retain": True,
}


class TooLargeError(GatherError):
    """The compact results are larger than is small."""


def compact_results(results: Results) -> dict[str, Any]:
    """The results without what can be large; still good by the contract, marked as ``kept``."""
    whole = {"schema": results["schema"], "kept": True, **results}
    declared = check_results(whole, extra="ignore")
    small = declared.model_dump(mode="json", exclude_unset=True, exclude=NOT_KEPT)
    small["run"] |= _run(results)
    if len(small["clients"]) > MANY and not experiment(experiment_of(results)).whole_curves:
        for method in (
            m for client in small["clients"] for m in client.get("methods", {}).values()
        ):
            curve = method["accuracy_by_epoch"]
            method["accuracy_by_epoch"] = curve[:1] + curve[1:][-1:]
    if small.get("gradcam") is None:
        small.pop("gradcam", None)
    else:
        for image in small["gradcam"]["images"]:
            image |= {"picture": "", "maps": ""}
    return small


def name_of(results: Results) -> str:
    """A folder's name, of the settings as they were asked for and the seeds."""
    text = json.dumps(asked_settings(results), sort_keys=True)
    seed, shard_seed = seeds_of(results)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:8]}-seed{seed}-{shard_seed}"


def content(results: Results) -> bytes:
    """The compact results as a file, a client a line.

    Raises:
        TooLargeError: they are larger than ``limit``.
    """
    small = compact_results(results)
    clients = small.pop("clients")
    lines = ",\n".join(json.dumps(client, ensure_ascii=False) for client in clients)
    rest = json.dumps(small, ensure_ascii=False, allow_nan=False)
    written = f'{rest[:-1]},\n"clients": [\n{lines}\n]}}\n'.encode()
    if len(written) > (most := limit(len(clients))):
        raise TooLargeError(f"{len(written):,} bytes, at most {most:,} are kept")
    return written


def limit(clients: int) -> int:
    """How many bytes are kept of a run of so many clients."""
    return LIMIT if clients <= MANY else PER_CLIENT * clients


def _run(results: Results) -> dict[str, Any]:
    """Of the run's section what is of one machine, without its folders."""
    config = {name: value for name, value in results["run"]["config"].items() if name != "cache"}
    for setting, placeholder in PATH_PLACEHOLDERS.items():
        group, name = setting.split(".")
        section = config.get(group)
        if isinstance(section, dict) and section.get(name):
            config[group] = {**section, name: placeholder}
    overrides = portable_overrides(results)
    return {"overrides": overrides, "command": command_of(results), "config": config}
