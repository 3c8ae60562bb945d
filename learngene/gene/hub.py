"""A learngene on the Hugging Face hub: ``push`` one with a model card, ``download`` one by name.

``hf://OWNER/NAME`` names a repository with ``learngene.safetensors`` and ``learngene.json``,
``hf://OWNER/NAME@REVISION`` a commit, tag or branch of it. Nothing else of a repository is read,
and each file's size is held against what a learngene may have before it is fetched. The network is
asked only for such a name; a commit that lies in the hub's cache needs none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from learngene.errors import InputError
from learngene.gene.card import CARD_LIMIT, HEADER_LIMIT, Card, read_card, refuse
from learngene.gene.gene import load
from learngene.utils.files import expand_user, is_file
from learngene.utils.untrusted import RESULTS_LIMIT, read_json

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before anything imports huggingface_hub

HUB = "hf://"
CARD, ARRAYS, MODEL_CARD = "learngene.json", "learngene.safetensors", "README.md"
COMMIT = re.compile(r"[0-9a-f]{40}")
FIX = (
    "Check the name, the network and, where the repository is private, HF_TOKEN; a commit that was "
    "fetched before (hf://OWNER/NAME@SHA) needs no network"
)


def download(name: str) -> Path:
    """Where ``learngene.safetensors`` of a repository lies on this machine, its card beside it.

    Args:
        name: ``hf://OWNER/NAME``, or with a revision ``hf://OWNER/NAME@REVISION``.

    Raises:
        InputError: the hub cannot be asked or has no such repository, a file is missing or larger
            than a learngene's may be, or the card is none. Of the arrays nothing is fetched then.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    repository, _, revision = name.removeprefix(HUB).partition("@")
    with _hub_errors("learngene.path", name):
        if COMMIT.fullmatch(revision):
            kept = [
                try_to_load_from_cache(repository, n, revision=revision) for n in (CARD, ARRAYS)
            ]
            if all(isinstance(path, str) for path in kept):
                return Path(str(kept[1]))
        hub = HfApi()
        info = hub.model_info(repository, revision=revision or None, files_metadata=True)
    sizes = {each.rfilename: each.size for each in info.siblings or []}

    def fetch(file: str, limit: int) -> Path:
        size = sizes.get(file)
        if size is None:
            raise refuse(name, f"the repository has no {file}", "Name one that push has made")
        if size > limit:
            raise refuse(name, f"its {file} has {size:,} bytes, at most {limit:,} are due")
        with _hub_errors("learngene.path", name):  # of the commit whose sizes these are
            return Path(hub.hf_hub_download(repository, file, revision=info.sha))

    card = fetch(CARD, CARD_LIMIT)
    try:
        raw = read_json(card, CARD_LIMIT)
    except (OSError, ValueError) as error:
        raise refuse(name, f"not a learngene: {str(error)[:200]}") from error
    return fetch(ARRAYS, read_card(raw, where=name).bytes + HEADER_LIMIT)


def push(
    path: Path,
    repository: str,
    *,
    results: Path | None = None,
    licence: str | None = None,
    private: bool = False,
) -> str:
    """Put a saved learngene with its model card on the hub; returns ``hf://OWNER/NAME@SHA``.

    Args:
        path: the ``learngene.safetensors`` of a run.
        repository: ``OWNER/NAME``; made where it is not there.
        results: the run's ``results.json``; None: the one beside ``path``.
        licence: the hub's identifier of one (``apache-2.0``); None: the card names none.
        private: of a repository that is made.

    Raises:
        InputError: there is no learngene, or the results are another one's; the hub cannot be asked
            or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    path = expand_user(path)
    gene = load(path)
    where = path.parent / "results.json" if results is None else expand_user(results)
    text = model_card(gene.card, where, repository, f"{HUB}{repository}", licence)
    contents = {
        CARD: path.with_suffix(".json").read_bytes(),
        ARRAYS: path.read_bytes(),
        MODEL_CARD: text.encode(),
    }
    with _hub_errors("HUB_NAME", repository):
        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.create_commit(
            repository,
            [CommitOperationAdd(file, content) for file, content in contents.items()],
            commit_message=f"Learngene {gene.card.sha256[:12]}",
        )
    return f"{HUB}{repository}@{commit.oid}"


def model_card(
    card: Card,
    results: Path,
    name: str,
    place: str,
    licence: str | None,
    *,
    source: str | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    """The README of a learngene: YAML for the hub, and the run's numbers. It names no class, no
    path and no command of the run: images may be somebody's own.

    Args:
        card: the learngene's, as it is given away.
        results: the ``results.json`` of the run that made it.
        name: what it is called, on the hub OWNER/NAME.
        place: what ``load`` is given.
        source: sha256 of the learngene that the run left, where ``card`` is of a packed one.
        more: further rows of the table at its head.

    Raises:
        InputError: that file is not there, or is of another learngene.
    """
    from huggingface_hub import EvalResult, ModelCardData

    def refused(problem: str) -> InputError:
        fix = "Name the results.json of the run that made this learngene"
        return InputError("--results", results, problem, fix)

    if not is_file(results):
        raise refused("it does not exist")
    try:
        run: Mapping[str, Any] = read_json(results, RESULTS_LIMIT)
        sha256, due = run["learngene"]["sha256"], source or card.sha256
        if sha256 != due:
            raise refused(f"its learngene is {sha256:.12}, not {due:.12}")
        data, shown = run["data"]["name"], run["summary"].get("learngene")
        group = run["run"]["config"]["data"]["clients_from"].replace("_", "-")
        measured = [] if shown is None or shown["mean"] is None else [
            EvalResult(
                task_type="image-classification",
                dataset_type=data,
                dataset_name=f"{data}, {group} classes",
                metric_type="accuracy",
                metric_value=shown["mean"],
            )
        ]  # fmt: skip
        front = ModelCardData(
            license=licence,
            library_name="learngene",
            pipeline_tag="image-classification",
            tags=["learngene", "few-shot", "federated-learning"],
            model_name=name,
            eval_results=measured or None,
        )
        texts = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        return texts.get_template("model_card.md.j2").render(
            **run,
            front=front.to_yaml(),
            name=name,
            place=place,
            group=group,
            licence=licence,
            card=card,
            more=more or {},
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TemplateError) as error:
        problem = f"not the results of a run: {type(error).__name__}: {str(error)[:200]}"
        raise refused(problem) from error


@contextmanager
def _hub_errors(field: str, value: str) -> Iterator[None]:
    """Whatever the hub's client raises, as one InputError that says it."""
    from huggingface_hub.errors import (  # HTTPError: also no network
        HTTPError,
        LocalTokenNotFoundError,
    )

    try:
        yield
    except (OSError, ValueError, HTTPError, LocalTokenNotFoundError) as error:
        said = " ".join(str(error).split())[:300]
        problem = f"the hub gives no answer that helps: {type(error).__name__}: {said}"
        raise InputError(field, value, problem, FIX) from error
