"""The table at the end of a run, and the answer in words."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from reports.console import Console as RunConsole
from reports.console import _Left, print_summary
from reports.figures.run import FIGURES
from reports.format import format_bytes, format_points, kilobytes, p_value, percent
from reports.html.report import write_report
from reports.summary import best_opponent, headline, round_rows
from tests.helpers import MANY


def shown(results, width=80, report=Path("/runs/one/report.html")):
    text = io.StringIO()
    print_summary(results, report, Console(file=text, width=width))
    return text.getvalue()


def test_every_number_is_in_the_table(results):
    text = shown(results)
    summary = results["summary"]
    ours = f"{100 * summary['learngene']['mean']:.1f} ± {100 * summary['learngene']['ci95']:.1f}"
    gain = f"+{100 * summary['gain']['mean']:.1f} ± {100 * summary['gain']['ci95']:.1f}"
    line = next(line for line in text.splitlines() if "learngene" in line)
    for cell in (ours, gain, "20 of 20", "<0.001", "1,812"):
        assert cell in line
    for word in ("glyphs", "seed 0", "20 of 20 clients answered", "5-way 10-shot"):
        assert word in text
    assert "Report: /runs/one/report.html" in text


@pytest.mark.parametrize("width", [80, 50, 30])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut(make, width):
    results = make(methods=("learngene", "scratch", "retain_off"))
    text = shown(results, width, report=None)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text


def test_rows_stay_on_one_line_at_80_columns(make):
    text = shown(make(methods=("learngene", "scratch", "retain_off")))
    assert len([line for line in text.splitlines() if " of 20 " in line and "±" in line]) == 2


def test_a_long_report_path_is_not_broken(results):
    path = Path("/runs") / ("x" * 150) / "report.html"
    assert f"Report: {path}" in shown(results, report=path)


def test_failed_clients_are_listed_with_their_reason(make):
    text = shown(make(fail=(3, 7)))
    assert "client 3 failed: RuntimeError: DataLoader worker was killed" in text
    assert "client 7 failed" in text and "18 of 20 clients answered" in text


def test_of_many_that_failed_the_first_are_listed_and_the_others_counted(make):
    text = shown(make(n=40, fail=tuple(range(5, 30))))
    assert text.count("failed: RuntimeError") == 20 and "client 24 failed" in text
    assert "and 5 more failed: see results.json" in text


def test_brackets_in_a_reason_are_not_markup(make):
    def change(sections):
        sections["clients"][3]["error"] = "bad [red]index[/red] [3]"

    assert "bad [red]index[/red] [3]" in shown(make(fail=(3,), change=change))


def test_headline_of_a_clear_gain(results):
    gain = results["summary"]["gain"]
    ours, scratch = (results["summary"][name]["mean"] for name in ("learngene", "scratch"))
    assert headline(results) == (
        "With the learngene, 20 of 20 clients are better than from scratch: "
        f"{100 * ours:.1f} % against {100 * scratch:.1f} %, +{100 * gain['mean']:.1f} points "
        f"(95 % interval ±{100 * gain['ci95']:.1f}), for 1.8 MB received per client."
    )


def test_headline_of_a_loss_says_so(make):
    text = headline(make(shift=-0.9))
    assert text.startswith("The learngene does harm here") and "−25" in text
    assert "0 of 20 clients are better" in text


def test_headline_of_an_interval_with_zero_claims_nothing(make):
    results = make(n=6, shift=-0.66)
    gain = results["summary"]["gain"]
    assert abs(gain["mean"]) < gain["ci95"]
    assert headline(results).startswith("No clear difference")
    assert "includes zero" in headline(results)


@pytest.mark.parametrize("shift", [0.0, -0.9])
def test_a_headline_claims_nothing_where_new_classes_may_differ(make, shift):
    """A claim must be off zero in both intervals, over clients and for new classes."""
    results = make(shift=shift)
    gain = results["summary"]["gain"]
    assert not headline(results).startswith("No clear difference")
    gain["ci95_classes"] = 1.01 * abs(gain["mean"])
    said, half = headline(results), f"{100 * gain['ci95_classes']:.1f}"
    assert said.startswith("No clear difference")
    assert f", and the 95 % interval for new classes, ±{half}, includes zero; with the" in said
    many = make(methods=MANY[:3], shift=shift)
    assert "of 2 other methods" in headline(many) and "No clear" not in headline(many)
    lead = many["summary"][best_opponent(many)]["lead"]
    lead["ci95_classes"] = 1.01 * abs(lead["mean"])
    said, half = headline(many), f"{100 * lead['ci95_classes']:.1f}"
    assert said.startswith("No clear difference between the learngene and the best of 2")
    assert said.endswith(f"), but the 95 % interval for new classes, ±{half}, includes zero.")


def test_headline_of_one_client_has_no_interval(make):
    text = headline(make(n=1))
    assert "the one client that answered is better than from scratch" in text
    assert "±" not in text and "one client gives no interval" in text


def test_headline_of_one_client_and_many_methods_has_no_interval(make):
    said = headline(make(n=1, methods=MANY[:3], shift=-0.9))
    assert said.startswith(
        "On the one client that answered, which gives no interval, the learngene"
    )
    assert "is behind the best of 2 other methods" in said and "±" not in said


def test_headline_of_two_clients_claims_nothing(make):
    results = make(n=2, shift=-0.9)
    gain = results["summary"]["gain"]
    gain["ci95"] = 0.0  # equally far apart, by chance
    assert headline(results).startswith("No clear difference")
    assert "2 clients are too few to say more" in headline(results)
    many = make(n=2, methods=MANY[:3], shift=-0.9)
    for each in many["summary"].values():
        if "lead" in each:
            each["lead"]["ci95"] = 0.0
    assert headline(many).startswith("No clear difference")


def test_headline_without_comparison_or_answer(make):
    assert headline(make(methods=("scratch",))).startswith("20 clients with scratch: 2")
    assert headline(make(n=1, fail=(0,))) == "No client answered: there is nothing to compare."


def test_numbers_in_words():
    assert percent(0.9312, 0.0119) == "93.1 ± 1.2 %"
    assert percent(None) == format_points(None) == p_value(None) == format_bytes(None) == "–"
    assert format_points(-0.0801, 0.02) == "−8.0 ± 2.0"
    assert format_points(-0.0004) == "0.0"  # no sign where there is nothing
    assert (p_value(0.00099), p_value(0.0312)) == ("<0.001", "0.031")
    assert [format_bytes(n) for n in (0, 999, 48_000, 999_949, 999_950)] == [
        *("0 B", "999 B", "48.0 KB", "999.9 KB", "1.0 MB")
    ]
    assert [kilobytes(n) for n in (0, 412, 99_949, 99_950, 1_812_345)] == [
        *("0", "0.4", "99.9", "100", "1,812")
    ]


def test_rounds_have_a_table_of_their_own(make):
    console = Console(record=True, width=80, file=io.StringIO())
    results = make(rounds=True)
    print_summary(results, None, console)
    text = console.export_text()
    assert "by the collective's evolution" in text and "known classes" in text
    for each in results["rounds"]:
        assert percent(each["summary"]["learngene"]["mean"]).removesuffix(" %") in text


def test_a_round_that_nobody_answered_has_no_number(make):
    results = make(n=1, fail=(0,), rounds=True)
    assert round_rows(results)[-1][2:5] == ("–", "–", "–")


def pretrained(sections):
    of = {"image_passes": 48_000, "seconds": 21.5, "cached": False, "parameters": 5, "bytes": 20}
    whole = {**of, "image_passes": None}
    sections["pretraining"] = {
        "budget": 48_000,
        "collective_passes": 50_000,
        "methods": {"maml": of, "protonet": of, "full": whole},
        "failed": {"deepemd": "ValueError: out of luck"},
    }


def test_many_methods_stand_in_one_table_with_leads_and_terms(make):
    names = tuple(name for name in MANY if name != "deepemd")
    results = make(methods=names, change=pretrained)
    text = shown(results)
    assert max(len(line) for line in text.splitlines()) <= 80 and "…" not in text
    rows = [line for line in text.splitlines() if "±" in line]
    for name in names:
        (row,) = (line for line in rows if line.split()[0] == name)
        assert name == "learngene" or " of 20 " in row
    lead = results["summary"]["full"]["lead"]
    assert f"+{100 * lead['mean']:.1f} ± {100 * lead['ci95']:.1f}" in text
    assert "Holm" in text and "48,000 image passes" in text and "50,000" in text
    assert "deepemd is left out: ValueError: out of luck" in text
    assert "travel in" not in text
    results["run"]["config"]["payload_precision"] = "fp16"
    assert "payloads travel in fp16" in " ".join(shown(results).split())


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.0, "ahead of the best of 11 other methods"),
        (-0.3, "behind the best of 11 other methods"),
        (-0.16, "No clear difference between the learngene and the best of 11 other methods"),
    ],
)
def test_headline_of_many_methods_names_the_best_of_the_others(make, shift, words):
    results = make(methods=MANY, shift=shift)
    said = headline(results)
    assert words in said and "with linear_probe" in said and "Holm" in said
    assert "1.8 MB" in said and "2.2 MB" in said


def test_every_stage_has_a_bar_that_says_what_is_under_way():
    said: list[tuple[str, float, float | None]] = []
    console = RunConsole()

    def note():
        (bar,) = console._progress.tasks
        said.append((bar.description, bar.completed, bar.total))

    console.on_progress("nobody looks", 1, 2)  # between stages
    with console.bar("dataset glyphs"):
        note()
        console.on_progress("dataset glyphs", 512, 1600)
        note()
    with console.bar("collective, task 1"):
        stage = SimpleNamespace(known_classes=8, accuracy=0.5, seconds=1.0)
        for done in (1, 2):
            console.on_progress("collective looks at images", 256, 700)
            note()
            console.on_step(10, 40, 0.0)
            note()
            trainer = SimpleNamespace(stages=[stage] * done, tasks=[0, 1])
            console.on_task_end(trainer, False)
            note()
    assert said == [
        ("dataset glyphs", 0, None),
        ("dataset glyphs", 512, 1600),
        ("collective looks at images", 256, 700),
        ("collective, task 1", 10, 40),
        ("collective, task 2", 0, None),
        ("collective looks at images", 256, 700),
        ("collective, task 2", 10, 40),
        ("collective, how it tells unknown images", 0, None),  # no task 3 of 2
    ]


def test_a_bar_says_how_long_it_will_take_yet():
    now = [100.0]
    console = RunConsole()

    def left(after: float) -> list[str]:
        now[0] += after
        return [_Left().render(task).plain for task in console._progress.tasks]

    with console.bar("clients"):
        console._progress.get_time = lambda: now[0]
        console.on_clients_begin(5)
        console._progress.tasks[0]._get_time = lambda: now[0]
        assert left(3) == [""]
        console.on_progress("clients, Ray starts")
        assert left(9) == [""] and console._progress.tasks[0].total is None
        for client in (0, 1):
            console.on_reply(client, True)
        (bar,) = console._progress.tasks
        assert (bar.description, bar.completed, bar.total) == ("clients", 2, 5)
        console.on_reply(2, True)
        assert left(10) == ["0:00:10 left"]  # two in 10 s since the first was there


def test_methods_that_are_trained_side_by_side_have_a_bar_each():
    console = RunConsole()
    with console.bar("methods"):
        for done, steps in ((1, 4), (4, 4)):
            console.on_method_step("maml", done, steps)
            console.on_method_step("protonet", 3, 9)
            names = [bar.description for bar in console._progress.tasks]
            assert names == ["methods", "maml", "protonet"][:: 1 if done < steps else 2]


def test_the_report_says_what_it_is_at(results, tmp_path, unrendered):
    said = []
    write_report(results, tmp_path, lambda *what: said.append(what))
    assert said[0] == ("report, figures", 0, len(FIGURES)) and len(said) == len(FIGURES)
