"""The docs site: it builds without a warning, asks no network, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conf.test_compose import METHOD_FIELDS, field_names

for extra in ("material", "mkdocstrings"):
    pytest.importorskip(extra, reason="the site's extra is not installed: pip install -e '.[docs]'")
ROOT = Path(__file__).resolve().parents[1]


class Reader(HTMLParser):
    """What a page loads, where it leads to, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.ids.add(said.get("id", ""))
        self.loads += [said[name] for name in ("src",) if name in said]
        if "href" in said:
            (self.links if tag == "a" else self.loads).append(said["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(made)]
    told = subprocess.run(
        build,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    return made


def test_nothing_is_loaded_from_elsewhere_and_every_link_leads_somewhere(site: Path) -> None:
    pages = {page: Reader(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 25
    outside = r"https?:|//|mailto:|data:"
    elsewhere = {it for page in pages.values() for it in page.loads if re.match(outside, it)}
    gone = []
    for page, read in pages.items():
        for link in {link for link in (*read.links, *read.loads) if not re.match(outside, link)}:
            name, _, anchor = unquote(link).partition("#")
            target = (page.parent / name).resolve() if name else page
            known = pages[target].ids if target in pages else set()
            if not target.is_file() or (anchor and target in pages and anchor not in known):
                gone.append(f"{page.relative_to(site)}: {link}")
    assert elsewhere == set() and gone == []
    assert not re.search(r"url\(.?https?:", "".join(p.read_text() for p in site.rglob("*.css")))


def test_settings_and_api_are_those_of_the_code(site: Path) -> None:
    rows = re.findall(
        r"<tr>\s*<td><code>([\w.]+)</code></td>", (site / "settings.html").read_text()
    )
    assert {*rows} == {*field_names(), *METHOD_FIELDS} - {"method"}
    assert str(Path.home()) not in (site / "settings.html").read_text()
    gene = (site / "api" / "gene.html").read_text()
    assert 'id="learngene.gene.gene.load"' in gene and "Raises:" in gene
    card = gene.partition('id="learngene.gene.card.Card"')[2].partition("<h4")[0]
    assert "Attributes:" in card  # the comments beside its fields
