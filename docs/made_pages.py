"""The pages of the docs site that are no file of docs/, and links that lead out of it.

MkDocs calls ``on_files`` and ``on_page_markdown`` (``hooks`` in mkdocs.yml), mkdocstrings uses
``Fields``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import chain, groupby
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import learngene
from conf.help import comments_in, fields_of_methods, fields_of_run, run_of

ROOT = Path(__file__).resolve().parents[1]
TOP = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
# An entry of a list with what belongs to it: blank lines and lines that begin with a space.
ENTRY = re.compile(r"^(?:[-*]|\d+\.) .*(?:\n(?:[ \t].*|(?=\n)))*", re.MULTILINE)
# Pages of modules below learngene/, whose docstrings they show.
API = {
    "use": ("Load, adapt, predict", "api export errors seeding"),
    "gene": ("The learngene", "gene.gene gene.card gene.kept gene.quantize gene.hub"),
    "methods": ("Methods", "methods.base methods.registry methods.safeguard"),
    "collective": (
        "The collective",
        "collective.trainer collective.forgetting collective.criterion collective.transfer_profile",
    ),
    "adaptation": ("At the client", "adaptation.training adaptation.retain adaptation.settings"),
    "open_world": ("Open world", "open_world.detector open_world.cycle open_world.flagged"),
    "networks": (
        "Networks",
        "networks.layers networks.collective networks.growth networks.individual "
        "networks.projection",
    ),
    "data": (
        "Data",
        "data.dataset data.cache data.class_split data.partition data.own_images data.augment",
    ),
}


class Fields(griffe.Extension):
    """Shows the comments beside a class's fields as its attributes."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Write them into the docstring."""
        said = comments_in(cls.source)
        rows = [f"    {name}: {said[name]}" for name in cls.attributes if said.get(name)]
        if rows and cls.docstring:
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(rows)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is made here: the pages at the top, files that are linked, settings, API."""
    made = {uri: (ROOT / name).read_text("utf-8") for name, uri in TOP.items()}
    pages = [*TOP, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for name in pages:
        for _, target, _ in LINK.findall((ROOT / name).read_text("utf-8")):
            if (uri := _uri(name, target)) and uri.startswith("source/"):
                path = uri.removeprefix("source/").removesuffix(".md")
                kind = Path(path).suffix.lstrip(".")
                made[uri] = f"# {path}\n\n````{kind}\n{(ROOT / path).read_text('utf-8')}\n````\n"
    made["settings.md"] = "\n".join(_settings())
    made["api/index.md"] = "\n".join(_names())
    for name, (title, modules) in API.items():
        shown = "\n\n".join(f"::: learngene.{module}" for module in modules.split())
        made[f"api/{name}.md"] = f"# {title}\n\n{shown}\n"
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site.

    Lists of GitHub's form become MkDocs's: a blank line in front, and four spaces where two do.
    """
    own = page.file.src_uri
    origin = {uri: name for name, uri in TOP.items()}.get(own, f"docs/{own}")

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        uri = _uri(origin, target)
        if uri is None:
            return found[0]
        return f"[{text}]({relpath(uri, dirname(own))}{anchor or ''})" if uri else text

    parts = CODE.split(LINK.sub(link, markdown))
    parts[::2] = (ENTRY.sub(_as_entry, part) for part in parts[::2])
    return "".join(parts)


def _as_entry(entry: re.Match[str]) -> str:
    moved = re.sub(r"^ {2,3}(?=\S)", "    ", entry[0], flags=re.MULTILINE)
    before = entry.string[: entry.start()].rstrip("\n").rpartition("\n")[2]
    return moved if ENTRY.match(before) else f"\n{moved}"


def _uri(origin: str, target: str) -> str | None:
    """Where on the site the file is that ``origin`` links to, both from the root of the repository.

    Empty of a folder, which has no page; None where there is no such file, which MkDocs then says.
    """
    path = normpath(f"{dirname(origin)}/{target}".lstrip("/"))
    if (ROOT / path).is_dir():
        return ""
    if not (ROOT / path).is_file():
        return None
    return TOP.get(path) or (
        path.removeprefix("docs/") if path[:5] == "docs/" else f"source/{path}.md"
    )


def _settings() -> Iterator[str]:
    yield "# Settings\n"
    yield "Every field of a run as `python sim.py --help=all` has it, written `NAME=VALUE`."
    run = run_of([])
    run.cache = "~/.cache/learngene"  # and not that of the machine that builds the site
    every = chain(fields_of_run(run), fields_of_methods(run))
    for group, entries in groupby(every, lambda entry: entry.name.rpartition(".")[0]):
        yield f"\n## {group or 'The run'}\n\n| field | type | default | may be | what it is |"
        yield "|---|---|---|---|---|"
        for entry in entries:
            kind = entry.kind.replace(" | ", " or ")
            code = [f"`{part}`" for part in (entry.name, kind, entry.value)]
            cells = (cell.replace("|", "\\|") for cell in (*code, entry.may_be, entry.text))
            yield f"| {' | '.join(cells)} |"


def _names() -> Iterator[str]:
    yield "# learngene\n"
    yield f"{inspect.getdoc(learngene)}\n\n| `from learngene import ...` | what it is |\n|---|---|"
    for name, module in learngene.WHERE.items():
        said = (inspect.getdoc(getattr(learngene, name)) or "").split("\n\n")[0].replace("\n", " ")
        yield f"| [`{name}`][learngene.{module}.{name}] | {said} |"
