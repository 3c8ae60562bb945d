"""report.html: complete, safe, without a request."""

import base64
import hashlib
import re
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from jinja2 import UndefinedError

from reports.__main__ import main
from reports.figures.captions import alt_text
from reports.figures.run import FIGURES
from reports.format import percent
from reports.html.page import Figure, render, templates
from reports.html.report import render_report, write_report
from reports.results import write_results
from reports.summary import answered, headline, interval_scope
from tests.helpers import MANY
from tests.reports.html.helpers import section_html

SCRIPT = files("reports.html").joinpath("sort.js").read_text().removesuffix("\n")
VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & {*self.open}:
            self.text.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).replace("\xa0", " ").split())


class Table(HTMLParser):
    """The cells of the first table in a piece of HTML, row by row."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.open = [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("td", "th")
        if self.open:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.open = False

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data.replace("\xa0", " ")


def read(results, folder):
    return Page(write_report(results, folder).read_text(encoding="utf-8"))


def test_the_answer_comes_first_then_figure_then_table(results, tmp_path):
    html = write_report(results, tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert headline(results) in page.words
    assert html.index("<h1>") < html.index("<img") < html.index("<table") < html.index("<section")
    first = base64.b64decode(page.of("img")[0]["src"].removeprefix("data:image/png;base64,"))
    assert first == (tmp_path / "figures" / "accuracy_over_epochs.png").read_bytes()


def of_experiment(sections):
    config = {"experiment": "fig4_curves", "num_clients": 20, "seed": 0, "shots": 10}
    sections["run"] |= {"experiment": "fig4_curves", "overrides": [], "config": config}
    sections["data"]["name"] = "cifar100"


def test_an_experiment_comes_first_with_its_figure_and_the_papers_number(
    make, tmp_path, unrendered
):
    results = make(change=of_experiment)
    page = read(results, tmp_path)
    first = base64.b64decode(page.of("img")[0]["src"].removeprefix("data:image/png;base64,"))
    assert first == (tmp_path / "figures" / "comparison.png").read_bytes()
    assert re.search(
        r"The paper: 10 epochs to adapt, 40 from scratch: 30 saved\. epochs saved: "
        r"-?\d+\.\d ± \d+\.\d; ± \d+\.\d epochs here, 30\.0 there\.",
        page.words,
    )
    alts = [each["alt"].replace("\xa0", " ") for each in page.of("img")]
    assert alts.count(alt_text("accuracy_over_epochs", results)) == 1  # the run's own is there, too


@pytest.mark.parametrize("change", [None, of_experiment])
def test_the_contents_are_all_sections_and_tables_have_names(make, tmp_path, unrendered, change):
    page = read(make(change=change), tmp_path)
    sections = [each["id"] for each in page.of("section")]
    assert [link["href"] for link in page.of("a")] == [f"#{name}" for name in sections]
    assert ("paper" in sections) == (change is not None)
    regions = [each for each in page.of("div") if each.get("class") == "scroll"]
    assert regions and all(each["role"] == "region" and each["tabindex"] == "0" for each in regions)
    names = [each["aria-label"] for each in regions]
    assert "Clients: table" in names and names.count("Table") == 1  # the first screen's
    assert len(page.of("main")) == 1


def test_every_figure_is_inside_with_its_text(make, tmp_path, unrendered):
    results = make(rounds=True, methods=("learngene", "scratch", "retain_off"))
    images = read(results, tmp_path).of("img")
    alts = [image["alt"].replace("\xa0", " ") for image in images]
    assert sorted(alts) == sorted(alt_text(name, results) for name in FIGURES)
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)


def test_no_request_and_no_script_but_its_own(results, tmp_path, unrendered):
    html = write_report(results, tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    for word in ("http://", "https://", "//", "url(", "@import"):
        assert word not in bare
    assert not page.of("link") and not page.of("iframe")
    assert page.of("script") == [{}] and f"<script>{SCRIPT}</script>" in html
    (policy,) = [m["content"] for m in page.of("meta") if "http-equiv" in m]
    own = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{own}'" in policy
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = [link["href"] for link in page.of("a")]
    assert links and all(link[0] == "#" and link[1:] in ids for link in links)


def test_names_and_reasons_are_escaped(make, tmp_path, unrendered):
    def change(sections):
        sections["data"]["classes"]["novel"][0] = "<script>alert(1)</script>"
        sections["clients"][0]["classes"][0] = "<script>"
        sections["clients"][1]["error"] = 'bad <img src="x" onerror=y> & $title'
        sections["run"]["overrides"] = ["shots=<b>"]
        sections["run"]["config"]["data"] = {"root": "</td><script>"}

    results = make(
        n=4, fail=(1,), rounds=True, change=change, methods=("learngene", "scratch", "retain_off")
    )
    page = read(results, tmp_path)
    assert len(page.of("script")) == 1  # the page's own
    assert len(page.of("img")) == len(FIGURES)
    for text in (
        "<script>alert(1)</script>",
        'bad <img src="x" onerror=y> & $title',
        "'shots=<b>'",
        "</td><script>",
    ):
        assert text in page.words


def test_sections_hold_what_they_promise(results, tmp_path, unrendered):
    words = read(results, tmp_path).words
    for text in (
        "widths of the conv layers 1 to 13: 16, 16, 32",
        "average incremental accuracy 89.0 %",
        "forgetting, points +19.5",
        "backward transfer, points −19.5",
        "Layers that the criterion selects at σ = 0.001: 11, 12, 13.",
        "known test images accepted 95.1 %",
        "No image and no weights left a client.",
        "down, in all 36.3 MB",
        "beyond the inherited layers alone +2.2 %",
        "Passed: no class and no image is on both sides of a division.",
        "duplicate images dropped 3",
        "penalty λ·L_ret",
        "Left out, since the cache no longer holds their checkpoints: tasks 4.",
        "letter b novel letter 3 letter 4",
        "python sim.py num_clients=20",
        "retain.ewc_lambda 1000.0",
        "version: torch 2.14.1",
        results["run"]["config_sha256"],
    ):
        assert text in words, text


def test_penalty_stands_beside_the_loss(make, tmp_path, unrendered):
    def change(sections):
        for client in sections["clients"]:
            client["methods"]["learngene"]["penalty_by_epoch"] = [[1, 0.25]]
            client["methods"]["learngene"]["train_loss_by_epoch"] = [[1, 0.75]]

    words = read(make(n=2, change=change), tmp_path).words
    assert "penalty's share 1 0.25 0.75 25.0 %" in words


def test_a_failed_client_is_told_on_the_first_screen_and_why_below(make, tmp_path, unrendered):
    html = write_report(make(fail=(3,)), tmp_path).read_text(encoding="utf-8")
    first, rest = " ".join(html.split()).split("</header>")
    assert "Failed and left out of every mean: 1 of 20 clients (3)." in first
    assert "RuntimeError: DataLoader worker was killed" in rest


def test_what_crossed_is_told(make, tmp_path, unrendered):
    def change(sections):
        row = {"messages": 20, "entries": 720, "bytes": 36_000_000, "refused": False}
        up = {"direction": "up", "messages": 1, "entries": 1, "bytes": 3200, "refused": True}
        sections["messages"]["crossed"] = [
            {"direction": "down", "record": "payload.learngene", "kind": "array"} | row,
            {"record": "images", "kind": "array"} | up,
        ]

    words = read(make(n=2, change=change), tmp_path).words
    assert "Up went numbers and short texts, no array and no bytes." in words
    assert "payload.learngene down array 20 720 36.0 MB as declared" in words
    assert "images up array 1 1 3.2 KB refused" in words


def test_who_failed_in_an_earlier_round_is_named_with_the_round(make, tmp_path, unrendered):
    def change(sections):
        early = sections["rounds"][0]["clients"][2]
        early.pop("methods")
        early["error"] = "ValueError: early"

    words = read(make(n=4, fail=(1,), rounds=True, change=change), tmp_path).words
    assert "client 2 in round 1 ValueError: early" in words
    assert "client 1 RuntimeError: DataLoader worker was killed" in words


def test_leaked_data_is_told_on_the_first_screen(make, tmp_path, unrendered):
    def change(sections):
        sections["data"]["leakage"] |= {"shard_test_overlap": 2, "passed": False}

    html = write_report(make(n=2, change=change), tmp_path).read_text(encoding="utf-8")
    first, rest = html.split("</header>")
    assert "The leakage check failed" in first and "FAILED" in rest and "Passed" not in rest


def test_without_a_collective_the_report_says_what_is_not_there(make, tmp_path, unrendered):
    page = read(make(n=1, collective=False), tmp_path)
    assert len(page.of("img")) == 3
    for name in ("collective", "continual", "criterion", "open_world", "gradcam"):
        reason = "the run started from a saved learngene, without a collective"
        assert f"The figure {name}.png was not drawn: {reason}." in page.words


def test_the_open_world_section_tells_scores_threshold_and_the_papers(make, tmp_path, unrendered):
    def change(sections):
        sections["open_world"]["scores"]["mahalanobis"] = None

    words = read(make(n=1, change=change), tmp_path).words.replace("\xa0", " ")
    assert "accepts 95.0 % of held-out base images" in words
    for cell in ("max softmax (chosen)", "energy (best AUROC)", "0.952"):
        assert cell in words
    assert "No exemplars to fit mahalanobis on." in words
    for cell in ("paper cifar100: 0.9587", "softmax applied twice", "0.3 %", "61.2 %"):
        assert cell in words
    assert "0.9586 for this run's N = 64" in words


def test_the_cycle_has_a_cell_for_every_number(results):
    html = section_html(results, "open-world").split("<h3>The cycle</h3>")[1]
    streams, accuracies = (Table(part) for part in html.split("</table>")[:2])
    assert html.count("its caption") == 1
    assert "5 of 16 open-world classes" in html and "552 labels, of which 173" in html
    counts = ["known images", "called unknown", "unknown images", "missed", "labels", "needless"]
    assert streams.rows == [
        ["cycle", *counts, "classes taken in, labelled images of each", "classes waiting"],
        ["1", "803", "88", "797", "594", "271", "68", "sign 1 31, sign 4 23", "11"],
        ["2", "905", "127", "595", "419", "281", "105", "sign 7 29, sign 9 17, sign 2 19", "6"],
    ]
    kinds = ("all", "old classes", "new classes")
    assert accuracies.rows == [
        [
            "after cycle",
            "known classes",
            *(f"13 layers, {k}" for k in kinds),
        ],
        ["before", "–", "31.1 %", "36.1 %", "–"],
        ["1", "66", "41.1 %", "46.1 %", "51.1 %"],
        ["2", "69", "51.1 %", "56.1 %", "61.1 %"],
    ]


def test_every_row_has_a_cell_for_every_heading(make):
    for variant in ({"rounds": True, "methods": MANY}, {"collective": False}, {"fail": (1,)}):
        results = make(n=2, **variant)
        html = render_report(results, dict.fromkeys(FIGURES, "not drawn here"))
        tables = [Table(part).rows for part in html.split("</table>")[:-1]]
        assert len(tables) > 5
        for headings, *rows in tables:
            assert rows and {len(row) for row in rows} == {len(headings)}, headings


def test_a_figure_is_a_picture_or_the_reason_why_there_is_none(results):
    assert 'alt="its alternative"' in section_html(results, "criterion")
    html = render_report(results, dict.fromkeys(FIGURES, "no <data>"))
    assert "<img" not in html
    assert "The figure criterion.png was not drawn: no &lt;data&gt;." in html


def test_a_template_refuses_a_value_that_is_not_there():
    with pytest.raises(UndefinedError, match="figures"):
        render("comparison.html.j2", comparison={"title": "a title"})


def test_captions_and_alternatives_are_escaped_and_numbers_stay_with_their_unit():
    context = dict.fromkeys(("title", "commands", "key"), "<b>1.5 ± 0.2 %</b>")
    context |= {"headings": ["<th>"], "rows": [["<td>"]], "notes": ["<p>"], "overview": []}
    picture = Figure("data:,", '"><script>', "<i>")
    html = render("comparison.html.j2", figures={"comparison": picture}, comparison=context)
    page = Page(html)
    assert page.of("img") == [{"src": "data:,", "alt": '"><script>'}]
    assert len(page.of("script")) == 1 and not page.of("b") and not page.of("i")
    assert html.count("&lt;b&gt;1.5 ±\N{NO-BREAK SPACE}0.2\N{NO-BREAK SPACE}%&lt;/b&gt;") == 4


def test_without_a_stream_the_report_says_so(make, tmp_path, unrendered):
    def change(sections):
        sections["open_world"]["cycle"] = None

    words = read(make(n=1, change=change), tmp_path).words
    assert "The figure cycle.png was not drawn: the collective met no stream" in words
    assert "The cycle" not in words


def test_a_threshold_that_was_set_is_told_as_such(make, tmp_path, unrendered):
    def change(sections):
        sections["open_world"] |= {"threshold_from": 0.3, "score": "energy"}

    words = read(make(n=1, change=change), tmp_path).words
    assert "by its energy, from the collective's 13 layers; threshold: 0.3, as set" in words


@pytest.mark.parametrize(
    ("variant", "start"),
    [
        ({"shift": -0.9}, "The learngene does harm"),
        ({"fail": (0, 1), "n": 2}, "No client answered"),
    ],
)
def test_bad_outcomes_are_the_headline(make, tmp_path, variant, start, unrendered):
    html = write_report(make(**variant), tmp_path).read_text(encoding="utf-8")
    title = unescape(re.search(r"<h1>(.*?)</h1>", html, re.S).group(1))
    assert title.startswith(start)


def test_drawn_anew_from_the_file_it_is_the_same(results, tmp_path, capsys, unrendered):
    before = write_report(results, tmp_path).read_bytes()
    write_results(results, tmp_path / "results.json")
    (tmp_path / "report.html").unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_bytes() == before
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")


def test_a_folder_without_usable_results_is_exit_2(tmp_path, capsys):
    assert main(["report"]) == 2
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no results.json there or in any folder below. Name what a run wrote" in said
    (tmp_path / "results.json").write_text('{"schema": 1')
    assert main(["report", str(tmp_path)]) == 2
    (tmp_path / "results.json").write_text('{"schema": 1}')
    assert main(["report", str(tmp_path)]) == 2
    assert "run: missing" in capsys.readouterr().err


@pytest.fixture(scope="module")
def thousand(make):
    """Results of 1,000 clients on twenty classes, of whom 30 failed."""
    return make(n=1000, fail=tuple(range(30)))


def test_a_thousand_clients_are_folded_and_what_comes_after_is_near(thousand):
    html = render_report(thousand, dict.fromkeys(FIGURES, Figure("data:,", "x", "x")))
    clients = html.split('<section id="clients">')[1].split("</section>")[0]
    assert "<details><summary>All 970 rows</summary>" in clients
    assert clients.count("<details>") == clients.count("</details>") == 1  # 30 failures are open
    assert html.count("<tr>") > 970 + 30
    alert = " ".join(html.split("</header>")[0].split("Failed and left out")[1].split())
    assert (
        "30 of 1,000 clients (0, 1, 2" in alert and "19, ...)" in alert and "20" not in alert[:99]
    )


def test_few_clients_are_not_folded(results):
    assert "<details>" not in section_html(results, "clients")
    assert "How the clients are spread" not in section_html(results, "clients")


def test_of_many_clients_the_spread_is_shown_and_the_first_rows(thousand, monkeypatch):
    monkeypatch.setitem(templates().globals, "ROWS", 200)
    clients = section_html(thousand, "clients")
    summary = "<summary>The first 200 of 970 rows; results.json has all</summary>"
    assert summary in clients and clients.count("<details>") == 1
    bodies = [part.split("</tbody>")[0] for part in clients.split("<tbody>")[1:]]
    spread, listed, _ = bodies
    assert [each.count("<tr>") for each in bodies] == [3, 200, 30]
    assert '<th scope="row" class="wrap">229</th>' in listed and ">230</th>" not in listed
    ours = [client["methods"]["learngene"]["accuracy"] for client in answered(thousand)]
    cells = re.findall(r'<td class="number">([^<]*)</td>', spread.split("</tr>")[0])
    due = np.quantile(ours, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    assert cells == [percent(each).replace(" ", "\N{NO-BREAK SPACE}") for each in due]


def test_it_is_said_whom_the_interval_speaks_for(thousand, make):
    said = "share 20 novel classes and their images: the interval speaks for further clients"
    words = " ".join(render_report(thousand, dict.fromkeys(FIGURES, "not drawn")).split())
    for_others = 100 * thousand["summary"]["gain"]["ci95_classes"]
    assert (
        f"These 970 clients {said} from these classes, not for other classes; with classes drawn "
        f"at random, too (a mixed model), that of the gain is ±{for_others:.1f}."
    ) in words
    assert interval_scope(make(n=1)) == ""  # which gives no interval


def test_what_a_run_has_not_is_no_empty_section(make, tmp_path, unrendered):
    page = read(make(), tmp_path)
    sections = {each["id"] for each in page.of("section")}
    assert not sections & {"evolution", "methods"} and "Evolution" not in page.words
    for name in ("evolution", "frontier"):  # and how one gets it
        assert page.words.count(f"The figure {name}.png was not drawn:") == 1
    assert "rounds=R reconstructs at R points" in page.words
    whole = read(make(rounds=True), tmp_path)
    assert "evolution" in {each["id"] for each in whole.of("section")}


def test_no_path_of_the_machine_is_in_it(make, tmp_path, unrendered):
    def change(sections):
        sections["run"]["command"] = "python sim.py hydra.run.dir=/home/ann/out cache=/home/ann/c"
        sections["run"]["overrides"] = [
            *("shots=10", "hydra.run.dir=/home/ann/out", "cache=/home/ann/c"),
            *("data.root=/home/ann/photos", "collective.growth=/home/ann/plan.yaml"),
        ]
        sections["run"]["config"] |= {
            "cache": "/home/ann/c",
            "data": {"root": "/home/ann/photos"},
            "learngene": {"path": "~/genes/a.safetensors"},
        }

    words = read(make(change=change), tmp_path).words
    assert "/home" not in words and "~" not in words
    assert "python sim.py shots=10 data.root=DIR collective.growth=plan.yaml" in words
    for cell in ("cache c ", "data.root photos", "learngene.path a.safetensors"):
        assert cell in words


def test_many_methods_have_leads_terms_and_a_section(make, tmp_path, unrendered):
    def change(sections):
        of = {"image_passes": 48_000, "seconds": 21.5, "cached": False, "parameters": 540_000}
        sections["collective"]["multiply_adds"] = 25 * 10**11
        sections["pretraining"] = {
            "budget": 48_000,
            "collective_passes": 50_000,
            "methods": {"maml": {**of, "bytes": 2_160_000, "multiply_adds": 35 * 10**12}},
            "failed": {"deepemd": "ValueError: out of <luck>"},
        }

    words = read(make(methods=("learngene", "scratch", "maml"), change=change), tmp_path).words
    for text in (
        "lead of the learngene, points",
        "Holm's correction over the methods",
        "trained on the collective's base images for 48,000 image passes each",
        "The method deepemd is left out: ValueError: out of <luck>",
        "maml 48,000 35 21.5 540,000 2.2 MB",
        "its own training took 2.5",
    ):
        assert text in words
