"""The page that the report is poured into, and the few pieces of HTML that it is made of.

Everything that is not written here goes through ``text``: class names come from folders on disk
and errors from exceptions, and either may hold a ``<``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

WIDE = 8  # columns from which on a table is set small on paper, with its headings upright

UNNAMED = 'aria-label="Table"'  # until the section that holds the table is known

# The policy forbids every request: the report must look the same without a network. It allows the
# page's own script by its hash, so nothing that slipped through ``text`` could run either.
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '$policy'">
<title>$title</title>
<style>
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d6dade; --blue: #0060a0;
 --tint: #f3f6f9; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 48rem; background: #fff;
 color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
 overflow-wrap: anywhere; }
h1 { font-size: 1.45rem; line-height: 1.3; margin: .2rem 0 .8rem; max-width: 46rem;
 text-wrap: pretty; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; padding-top: .9rem;
 border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.3rem 0 .3rem; }
p, ul { margin: .4rem 0 .7rem; max-width: 46rem; }
a { color: var(--blue); }
.setting, figcaption, .note { color: var(--soft); font-size: .875rem; }
.setting { margin: 0; }
.alert { border-left: 4px solid #d55e00; background: #fdf1e9; padding: .5rem .75rem; }
.good { border-left: 4px solid #009e73; background: #edf8f4; padding: .5rem .75rem; }
nav { margin: 1rem 0 0; font-size: .9rem; }
nav a { display: inline-block; padding: .25rem .9rem .25rem 0; }
figure { margin: .8rem 0; }
figure img { display: block; width: 100%; max-width: 38rem; height: auto; }
figcaption { max-width: 38rem; margin-top: .3rem; }
/* Shadows at the sides where there is more to scroll to; the white covers move with the table. */
.scroll { overflow-x: auto; margin: .5rem 0;
 background: linear-gradient(to right, #fff 50%, #fff0) 0 0 / 2rem 100% no-repeat local,
  linear-gradient(to left, #fff 50%, #fff0) 100% 0 / 2rem 100% no-repeat local,
  linear-gradient(to right, #0003, #0000) 0 0 / .7rem 100% no-repeat scroll,
  linear-gradient(to left, #0003, #0000) 100% 0 / .7rem 100% no-repeat scroll; }
.scroll:focus-visible, button:focus-visible { outline: 2px solid var(--blue); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .875rem; padding: .2rem 0; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top;
 border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; color: var(--soft); font-weight: 600; line-height: 1.25; }
.number { text-align: right; }
td.number { white-space: nowrap; }
th, td { overflow-wrap: normal; }
td.wrap:last-child { overflow-wrap: anywhere; min-width: 12rem; }
tbody th { font-weight: 500; }
th button { all: unset; cursor: pointer; color: var(--blue); }
th button::after { content: "\\2195" / ""; padding-left: .2em; opacity: .6; }
th[aria-sort=ascending] button::after { content: "\\2191" / ""; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193" / ""; opacity: 1; }
code, pre { font: .85rem/1.45 ui-monospace, Consolas, monospace; }
pre { background: var(--tint); padding: .6rem .75rem; white-space: pre-wrap;
 overflow-wrap: anywhere; }
@media (max-width: 34rem) {
 h1 { font-size: 1.2rem; }
 th, td { padding-right: .6rem; }
 table { font-size: .82rem; }
}
@media print {
 body { max-width: none; padding: 0; font-size: 10pt; }
 nav { display: none; }
 .scroll { overflow: visible; background: none; }
 table { font-size: 8.5pt; }
 th, td { padding-right: 6pt; }
 thead { display: table-header-group; }
 th button { color: inherit; }
 th:not([aria-sort]) button::after { content: none; }
 .wide { font-size: 6.5pt; }
 .wide th, .wide td { padding-right: 3pt; }
 .wide thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
 .wide td.wrap:last-child { min-width: 0; }
 figure, tr { break-inside: avoid; }
 h2, h3 { break-after: avoid; }
 figure img { max-width: 13cm; max-height: 11cm; width: auto; }
 #configuration table { font-size: 7pt; }
 #configuration th, #configuration td { padding-top: 0; padding-bottom: 0; }
}
</style>
</head>
<body>
$body
<script>$script</script>
</body>
</html>
""")


def page(title: str, body: str) -> str:
    """The whole document, of a title and a body that are HTML already."""
    return PAGE.substitute(title=title, body=body, script=SCRIPT, policy=POLICY)


def text(value: object) -> str:
    """Any value as HTML text; a number stays on a line with its percent sign."""
    return escape(str(value), quote=True).replace(" %", "&nbsp;%").replace("± ", "±&nbsp;")


def section(anchor: str, title: str, *parts: str) -> str:
    """A section with a heading that the contents at the top link to."""
    inner = "\n".join(parts).replace(UNNAMED, f'aria-label="{text(title)}: table"')
    return f'<section id="{anchor}">\n<h2>{text(title)}</h2>\n{inner}\n</section>'


def paragraph(content: object, kind: str = "") -> str:
    """A paragraph of escaped text; ``kind`` is note, alert or good."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{text(content)}</p>"


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    numbers: Iterable[int] = (),
    *,
    sortable: bool = False,
) -> str:
    """A table that scrolls by itself where the screen is narrow.

    Args:
        headings: (columns,) texts.
        rows: (rows, columns) cells; each row's first is its heading.
        numbers: indices of the columns that are set to the right.
        sortable: whether a click on a heading sorts it.
    """
    named = ["sortable"] * sortable + ["wide"] * (len(headings) >= WIDE)
    attribute = f' class="{" ".join(named)}"' if named else ""
    right = frozenset(numbers)
    kinds = [' class="number"' if i in right else ' class="wrap"' for i in range(len(headings))]
    head = "".join(
        f'<th scope="col"{kind}>{text(heading)}</th>'
        for kind, heading in zip(kinds, headings, strict=True)
    )
    body = "\n".join(f"<tr>{_cells(row, kinds)}</tr>" for row in rows)
    # tabindex: a region that scrolls must be reachable with the keyboard, and have a name.
    return (
        f'<div class="scroll" tabindex="0" role="region" {UNNAMED}><table{attribute}>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _cells(row: Sequence[object], kinds: Sequence[str]) -> str:
    first, *others = zip(row, kinds, strict=True)
    cells = "".join(f"<td{kind}>{text(cell)}</td>" for cell, kind in others)
    return f'<th scope="row"{first[1]}>{text(first[0])}</th>{cells}'


def image(path: Path, alt: str, caption: str) -> str:
    """A PNG inside the page, with its text alternative and its caption."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(alt)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


SCRIPT = """
'use strict';
function key(row, column) {
  const words = row.cells[column].textContent.trim();
  const number = parseFloat(words.replace(/\\u2212/g, '-').replace(/[,\\u00a0]/g, ''));
  return {number: number, words: words === '\\u2013' ? '' : words};
}
function compare(a, b) {
  if (!isNaN(a.number) && !isNaN(b.number)) return a.number - b.number;
  return a.words.localeCompare(b.words);
}
function empty(k) { return k.words === '' ? 1 : 0; }
function sort(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const falls = head.getAttribute('aria-sort') === 'ascending';
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', falls ? 'descending' : 'ascending');
  const rows = Array.from(table.tBodies[0].rows, row => ({row: row, key: key(row, column)}));
  rows.sort((a, b) => empty(a.key) - empty(b.key)
    || (falls ? -1 : 1) * compare(a.key, b.key));
  table.tBodies[0].append(...rows.map(each => each.row));
}
for (const table of document.querySelectorAll('table.sortable')) {
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...cell.childNodes);
    button.addEventListener('click', () => sort(table, column));
    cell.append(button);
  });
}
"""
POLICY = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
