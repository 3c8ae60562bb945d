"""What the documents name is there: files, tests, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conf.help import choices
from tests.conf.test_compose import METHOD_FIELDS, field_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.stem != "RESULTS"),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
]
ROOMS = "benchmarks|conf|reports|runtime|server|clients|strategies|protocol|learngene|tests|docs"
NEW = {"add_an_experiment", "add_a_method"}  # pages on files that the reader makes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_tests_and_links_exist(page: Path) -> None:
    text = page.read_text()
    files = set(re.findall(rf"`((?:{ROOMS})/[\w./-]+\.(?:py|yaml|md|j2))", text))
    links = set(re.findall(r"\]\((?!https?:)([^)#\s]+)", text))
    gone = [path for path in files if page.stem not in NEW and not (ROOT / path).exists()]
    gone += [link for link in links if not (page.parent / link).exists()]
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", text):
        if f"def {name}(" not in (ROOT / path).read_text():
            gone.append(f"{path}::{name}")
    bare = re.findall(r"`(test_\w+\.py)", text)  # one that names no folder is found by nobody
    assert sorted(gone) + bare == []


# FINDINGS speaks of earlier forms, too, whose settings are those of the commit that it names.
@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "FINDINGS"], ids=lambda p: p.stem)
def test_settings_that_are_written_down_exist(page: Path) -> None:
    text, known = page.read_text(), {*field_names(), *METHOD_FIELDS}
    groups = "|".join({name.partition(".")[0] for name in known if "." in name})
    written = set(re.findall(rf"(?<![\w./-])((?:{groups})\.[\w.]+)=", text))
    gone = {name for name in written - known if not name.startswith("method.pixels.")}
    for group in ("experiment", "scale", "data", "runtime"):
        files = set(re.findall(rf"(?<![\w./-]){group}=([a-z]\w*)", text))
        gone |= {f"{group}={name}" for name in files - {*choices(group)} if page.stem not in NEW}
    assert gone == set()
