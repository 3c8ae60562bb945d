"""The report in headless Chromium: a phone's width, sorting, and paper.

Pages are shown in frames of a page that takes down what a probe inside them says: a window of
Chromium has at least 500 pixels, a frame may have a phone's 390.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports.figures.style import FIXED
from reports.html.report import write_report
from tests.helpers import MANY

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt install chromium)"),
]
PHONE, SHEET = 390, 718  # pixels: a phone, and what an A4 sheet has between margins of a centimetre

PROBE = """
const page = document.documentElement, table = document.querySelector('table.sortable');
const heads = Array.from(table.tHead.rows[0].cells);
const column = i => Array.from(table.tBodies[0].rows, row => row.cells[i].textContent);
const found = {width: innerWidth, needs: page.scrollWidth, heads: heads.length,
  table: table.offsetWidth, before: column(1)};
const button = heads[1].querySelector('button');
if (button) {
  button.focus();
  found.focused = document.activeElement === button;
  button.click();
  Object.assign(found, {up: column(1), up_says: heads[1].ariaSort});
  button.click();
  Object.assign(found, {down: column(1), down_says: heads[1].ariaSort});
  heads[0].querySelector('button').click();
  Object.assign(found, {by_client: column(0), left: heads[1].ariaSort});
  const gain = heads.findIndex(head => head.textContent.startsWith('gain'));
  heads[gain].querySelector('button').click();
  found.gains = column(gain);
}
parent.postMessage(JSON.stringify({name: location.pathname.split('/').pop(), found: found}), '*');
"""


def chromium(folder: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    options = ("headless", "no-sandbox", "disable-gpu", "no-first-run")
    command = [CHROMIUM, *(f"--{option}" for option in options), "--disable-background-networking"]
    return subprocess.run(
        [*command, f"--user-data-dir={folder / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout


def probed(html: str, probe: str = PROBE) -> str:
    """The page with a probe at its end, which its policy lets run beside its own script."""
    own = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    html = html.replace("script-src '", f"script-src 'sha256-{own}' '")
    return html.replace("</body>", f"<script>{probe}</script></body>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make) -> Path:
    """``two`` and ``many`` are reports of two and of twelve methods, whose figures are drawn."""
    made = tmp_path_factory.mktemp("reports")
    for name, methods in (("two", MANY[:2]), ("many", MANY)):
        write_report(make(methods=methods), made / name)
    path = "/home/somebody/" + "a_folder_with_a_long_name/" * 4
    error = {"error": f"FileNotFoundError: {path}"}
    odd = make(methods=MANY[:2], fail=(2,), change=lambda parts: parts["clients"][2].update(error))
    odd["methods_left_out"] = {"a_method_of_" + "forty_letters_" * 2: f"OSError: {path}"}
    for client, gain in zip(odd["clients"], (0.1, -0.25, 0.0, -0.05), strict=False):
        if "methods" in client:  # gains on both sides of zero
            client["methods"]["learngene"]["accuracy"] = (
                client["methods"]["scratch"]["accuracy"] + gain
            )
    write_report(odd, made / "odd")
    return made


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, dict]:
    """What the probes say, by page."""
    frames = ""
    for name in ("odd", "two", "many"):
        html = (folder / name / "report.html").read_text(encoding="utf-8")
        (folder / f"{name}.html").write_text(probed(html), encoding="utf-8")
        frames += f'<iframe src="{name}.html" width="{PHONE}" height="800"></iframe>'
    on_paper = html.replace("@media print", "@media all")
    (folder / "paper.html").write_text(probed(on_paper), encoding="utf-8")
    frames += f'<iframe src="paper.html" width="{SHEET}" height="800"></iframe>'
    script = "onmessage = e => document.body.append(e.data + '\\n')"
    (folder / "all.html").write_text(
        f"<style>iframe {{ border: 0 }}</style><body><script>{script}</script>{frames}</body>"
    )
    arguments = ["--virtual-time-budget=5000", "--window-size=1600,900", "--dump-dom"]
    dumped = unescape(chromium(folder, *arguments, (folder / "all.html").as_uri()))
    lines = [json.loads(line) for line in re.findall(r'\{"name".*\}', dumped)]
    return {line["name"].removesuffix(".html"): line["found"] for line in lines}


@pytest.mark.parametrize(
    ("page", "width"), [("two", PHONE), ("many", PHONE), ("odd", PHONE), ("paper", SHEET)]
)
def test_no_page_is_wider_than_its_screen_or_sheet(said, page, width):
    assert said[page]["width"] == width
    assert said[page]["needs"] <= width


def test_many_methods_fit_a_sheet_and_scroll_on_a_phone(said):
    assert said["paper"]["heads"] == len(MANY) + 4  # client, gain, device, classes
    assert said["paper"]["table"] <= SHEET
    assert said["many"]["table"] > PHONE  # the phone's scrolls in its own box


@pytest.mark.parametrize("page", ["two", "many"])
def test_the_table_of_clients_sorts(said, page):
    found = said[page]
    number = {text: float(text.split()[0]) for text in found["before"]}
    assert found["focused"] and found["before"] != sorted(found["before"], key=number.get)
    for name, falls, word in (("up", False, "ascending"), ("down", True, "descending")):
        values = [number[text] for text in found[name]]
        assert values == sorted(values, reverse=falls)
        assert sorted(found[name]) == sorted(found["before"])
        assert found[f"{name}_says"] == word
    assert found["by_client"] == [str(i) for i in range(20)]  # as numbers: 2 before 10
    assert found["left"] is None


def test_gains_sort_by_their_sign(said):
    shown = said["odd"]["gains"]
    assert any(text.startswith("\u2212") for text in shown)  # a minus, no hyphen
    gains = [float(text.replace("\u2212", "-")) for text in shown]
    assert gains == sorted(gains) and gains[0] < 0 < gains[-1]


@pytest.mark.parametrize("width", [PHONE + 110, 1280])  # a window has at least 500 pixels
def test_a_screenshot_shows_the_answer_and_the_figure(folder, width):
    """The picture stays in pytest's folder, to be looked at."""
    path = folder / f"two-{width}.png"
    url = (folder / "two" / "report.html").as_uri()
    chromium(
        folder, f"--window-size={width},1000", f"--screenshot={path}", "--hide-scrollbars", url
    )
    with Image.open(path) as image:
        assert image.size == (width, 1000)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    for name, colour in FIXED.items():  # the lines of the main figure
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        near = (abs(pixels - rgb).max(1) <= 24).sum()
        assert near > 100, f"{name}'s line is not on the first screen"
    dark = (pixels.max(1) < 90).mean()
    assert 0.005 < dark < 0.5  # text on white


def test_it_prints(folder):
    path = folder / "many.pdf"
    url = (folder / "many" / "report.html").as_uri()
    chromium(folder, "--no-pdf-header-footer", f"--print-to-pdf={path}", url)
    pdf = path.read_bytes()
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3
