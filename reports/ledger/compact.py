"""A run's results in a few kilobytes: what tables and figures of experiments need, and no more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from reports.runs import GatherError, seeds_of
from reports.schema import Results, check_results
from reports.variants import (
    PATH_PLACEHOLDERS,
    command_of,
    portable_overrides,
    variant_settings,
)

LIMIT = 200_000  # bytes of a kept result
RUN = (  # of the run's section
    *("seed", "shard_seed", "command", "experiment", "overrides", "versions", "config_sha256"),
    *("seconds", "device", "collective_key", "config", "result_sha256"),
)
METHOD = (
    *("accuracy", "accuracy_by_epoch", "seconds", "bytes_down", "bytes_up", "train_accuracy"),
)
CLIENT = ("id", "classes", "shots", "train_images", "test_images", "device", "error")
STAGE = (*("task", "known_classes", "accuracy", "light_accuracy", "parameters", "image_passes"),)
OPEN_WORLD = (
    *("threshold", "auroc", "f1", "known_accuracy", "score", "path", "scores", "best_score"),
    *("paper_thresholds", "openness", "cycle"),
)
COLLECTIVE = ("tasks", "conv_widths", "parameters", "layers")
CONTINUAL = (  # without the matrix, which grows with the square of the tasks
    *("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer"),
)


class TooLargeError(GatherError):
    """The compact results are larger than is kept."""


def compact_results(results: Results) -> dict[str, Any]:
    """The results without what can be large; still good by the contract, marked as ``kept``."""
    collective, world = results["collective"], results["open_world"]
    kept = {
        "schema": results["schema"],
        "kept": True,  # enough for tables and figures of experiments, not for a report
        "run": _run(results),
        "data": results["data"],
        "collective": collective
        and {
            **_only(collective, COLLECTIVE),
            "stages": [_only(stage, STAGE) for stage in collective["stages"]],
            **_continual(collective),
        },
        "criterion": results["criterion"],
        "learngene": results["learngene"],
        "open_world": world and _only(world, OPEN_WORLD),
        "clients": [_client(client) for client in results["clients"]],
        "summary": results["summary"],
        "messages": {k: v for k, v in results["messages"].items() if k != "crossed"},
    }
    if results.get("rounds"):
        kept["rounds"] = [_round(each) for each in results["rounds"]]
    if results.get("gradcam"):  # pictures are large
        images = [{**each, "picture": "", "maps": ""} for each in results["gradcam"]["images"]]
        kept["gradcam"] = {**results["gradcam"], "images": images}
    for name in ("pretraining", "methods_left_out", "labelled", "tuning", "federated"):
        if results.get(name):
            kept[name] = results[name]
    return kept


def name_of(results: Results) -> str:
    """A folder's name, the same for the same settings and seeds: a repetition replaces a run."""
    text = json.dumps(variant_settings(results), sort_keys=True)
    seed, shard_seed = seeds_of(results)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:8]}-seed{seed}-{shard_seed}"


def content(results: Results) -> bytes:
    """The compact results as a file, a client a line.

    Raises:
        TooLargeError: they are larger than ``LIMIT``.
    """
    kept = compact_results(results)
    check_results(kept)
    clients = kept.pop("clients")
    lines = ",\n".join(json.dumps(client, ensure_ascii=False) for client in clients)
    rest = json.dumps(kept, ensure_ascii=False, allow_nan=False)
    written = f'{rest[:-1]},\n"clients": [\n{lines}\n]}}\n'.encode()
    if len(written) > LIMIT:
        raise TooLargeError(f"{len(written):,} bytes, at most {LIMIT:,} are kept")
    return written


def _run(results: Results) -> dict[str, Any]:
    """Of the run's section what is not of one machine: no folder of anybody's."""
    kept = _only(results["run"], RUN)
    kept |= {"overrides": portable_overrides(results), "command": command_of(results)}
    config = {k: v for k, v in kept["config"].items() if k != "cache"}
    for setting, placeholder in PATH_PLACEHOLDERS.items():
        group, name = setting.split(".")
        section = config.get(group)
        if isinstance(section, dict) and section.get(name):
            config[group] = {**section, name: placeholder}
    return {**kept, "config": config}


def _continual(collective: Mapping[str, Any]) -> dict[str, Any]:
    """The measures of not forgetting, of both paths."""
    found = collective.get("continual")
    if not found:
        return {}
    light = found.get("light")
    return {"continual": {**_only(found, CONTINUAL), "light": light and _only(light, CONTINUAL)}}


def _client(client: Mapping[str, Any]) -> dict[str, Any]:
    kept = _only(client, CLIENT)
    if "methods" in client:
        kept["methods"] = {name: _only(m, METHOD) for name, m in client["methods"].items()}
    return kept


def _round(each: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(each)
    if "clients" in each:  # the last round's are the run's
        kept["clients"] = [_client(client) for client in each["clients"]]
    return kept


def _only(section: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: section[name] for name in names if name in section}
