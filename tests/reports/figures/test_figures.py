"""Figures: which are drawn, what is in them, and that nothing global is touched."""

import hashlib
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from learngene.methods import BUILT_IN
from reports.figures import pareto, run
from reports.figures.captions import alt_text, caption
from reports.figures.pareto import Point, front
from reports.figures.style import FIXED, NoDataError, method_style, new_figure, spread
from reports.summary import footnotes
from tests.helpers import MANY
from tests.reports.html.helpers import section_html

ALL = {
    *("accuracy_over_epochs", "clients_paired", "criterion", "collective", "continual"),
    *("bytes", "frontier", "open_world", "cycle", "evolution", "gradcam", "transfer"),
}
THREE = ("learngene", "scratch", "retain_off")


@pytest.fixture
def canvas(monkeypatch):
    """The figures that are drawn while a test runs, to look into."""
    made = []

    def keep(height):
        made.append(new_figure(height))
        return made[-1]

    monkeypatch.setattr("reports.figures.style.new_figure", keep)
    # Looking into a figure needs no pixels, and those take most of the time.
    monkeypatch.setattr("reports.figures.style.save", lambda figure, path: path)
    return made


def test_all_figures_are_drawn_and_wide_enough_to_read(make, tmp_path):
    before = dict(matplotlib.rcParams)
    results = make(fail=(3,), rounds=True, methods=THREE)
    assert run.draw_figures(results, tmp_path / "figures") == dict.fromkeys(ALL, "")
    drawn = list((tmp_path / "figures").iterdir())
    assert {path.name for path in drawn} == {f"{n}.png" for n in ALL}
    for path in drawn:
        with Image.open(path) as image:
            assert image.width == 900
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20  # not a blank sheet
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
    words = Path(run.__file__).parent / "words"
    assert {path.stem for path in words.iterdir()} == ALL
    assert all(caption(name, results) for name in ALL)


def test_what_has_no_data_is_skipped_with_a_reason_and_an_old_one_removed(make, tmp_path):
    (tmp_path / "collective.png").write_bytes(b"of another run")
    reasons = run.draw_figures(make(n=1, collective=False), tmp_path)
    skipped = {name: reason for name, reason in reasons.items() if reason}
    assert ALL - set(skipped) == {"accuracy_over_epochs", "clients_paired", "bytes"}
    assert "one round" in skipped.pop("evolution")
    assert "fewer than three methods" in skipped.pop("frontier")
    assert set(skipped) == {
        *("criterion", "transfer", "collective", "continual", "open_world", "cycle", "gradcam"),
    }  # fmt: skip
    assert all("saved learngene" in reason for reason in skipped.values())
    assert not (tmp_path / "collective.png").exists()


def test_without_answers_or_comparison_the_reason_is_another(make, tmp_path):
    with pytest.raises(NoDataError, match="no client answered"):
        run.accuracy_over_epochs(make(n=1, fail=(0,)), tmp_path)
    with pytest.raises(NoDataError, match="did not compare learngene with scratch"):
        run.clients_paired(make(n=2, methods=("scratch",)), tmp_path)


def test_accuracy_lines_are_means_and_chance_is_one_in_five(make, canvas, tmp_path):
    results = make(n=4)
    run.accuracy_over_epochs(results, tmp_path)
    lines = {line.get_label(): line for line in canvas[0].axes[0].get_lines()}
    expected = 100 * results["summary"]["learngene"]["mean"]
    assert lines["learngene"].get_ydata()[-1] == pytest.approx(expected)
    assert lines["learngene"].get_xdata()[-1] == 30
    assert lines["chance"].get_ydata()[0] == pytest.approx(20)


def test_means_use_only_epochs_that_every_client_recorded(make):
    results = make(n=2)
    del results["clients"][0]["methods"]["learngene"]["accuracy_by_epoch"][1]
    curve = run.mean_curve(results["clients"], "learngene")
    assert [epoch for epoch, _ in curve] == [0, 5, 10, 15, 20, 25, 30]


def test_clients_are_sorted_by_gain_with_the_largest_on_top(make, canvas, tmp_path):
    run.clients_paired(make(n=9, shift=-0.66), tmp_path)
    lines = {line.get_label(): line for line in canvas[0].axes[0].get_lines()}
    gain = lines["learngene"].get_xdata() - lines["scratch"].get_xdata()
    assert (np.diff(gain) >= 0).all() and gain[0] < 0 < gain[-1]


def test_a_thousand_clients_are_a_histogram_of_their_gains(make, canvas, tmp_path):
    few, results = make(n=run.MOST_LINES), make(n=1000, shift=-0.62)
    run.clients_paired(few, tmp_path)
    run.clients_paired(results, tmp_path)
    assert "client" in canvas[0].axes[0].get_ylabel() and "line is one" in caption(
        "clients_paired", few
    )
    axes = canvas[1].axes[0]
    counts, edges, _ = axes.patches[0].get_data()
    ours, scratch = (
        np.array([client["methods"][name]["accuracy"] for client in results["clients"]])
        for name in ("learngene", "scratch")
    )
    gains = 100 * (ours - scratch)
    assert counts.sum() == 1000 and edges[0] < min(gains) < 0 < max(gains) < edges[-1]
    # Whole multiples of a test image (of 300), with a bar around zero: none is combed.
    images = np.diff(edges) * 3
    assert images == pytest.approx(np.full(len(images), round(images[0])), rel=1e-4)
    assert any(low == pytest.approx(-high) for low, high in pairwise(edges))
    mean = {line.get_label(): line.get_xdata()[0] for line in axes.get_lines()}
    assert mean["mean, 95 % interval"] == pytest.approx(np.mean(gains))
    assert "1,000 clients" in caption("clients_paired", results)
    said = alt_text("clients_paired", results)
    assert said.startswith("Histogram of what 1,000 clients gain")
    assert f"{sum(g > 1e-9 for g in gains)} gain, {sum(g < -1e-9 for g in gains)} lose" in said


def test_equal_gains_of_many_clients_are_one_bar(make, canvas, tmp_path):
    results = make(n=101)
    for client in results["clients"]:
        client["methods"]["learngene"]["accuracy"] = client["methods"]["scratch"]["accuracy"]
    results["summary"]["gain"] |= {"mean": 0.0, "ci95": None}  # of one draw of classes
    run.clients_paired(results, tmp_path)
    counts, edges, _ = canvas[0].axes[0].patches[0].get_data()
    assert counts.tolist() == [101] and edges[0] == -edges[1]


def test_layer_13_is_on_top_and_inherited_layers_are_marked(results, canvas, tmp_path):
    run.criterion(results, tmp_path)
    axes = canvas[0].axes[0]
    assert axes.get_ylim() == (0.5, 13.5)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "1" and labels[-1] == "13 inherited"
    assert [label for label in labels if "inherited" in label] == [
        f"{layer} inherited" for layer in (11, 12, 13)
    ]
    shown = axes.collections[0].get_array()  # (layers, tasks), layer 1 first
    assert shown[12, 0] == pytest.approx(results["criterion"]["rho"][0][12])


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("paper", "ρ: share of gradients above σ = 0.001"),
        ("invariant", "ρ: share of |N rms(w) ∂L/∂w| above σ = 0.001"),  # ``criterion.in_units_of``
    ],
)
def test_the_map_of_rho_says_what_is_compared_with_sigma(make, canvas, tmp_path, form, said):
    results = make(n=1, change=lambda sections: sections["criterion"].update(form=form, sigma=1e-3))
    run.criterion(results, tmp_path)
    assert canvas[0].axes[1].get_ylabel() == said
    assert ("in units of its weights" in caption("criterion", results)) == (form == "invariant")


def test_a_layer_without_rho_is_left_blank(make, canvas, tmp_path):
    def change(sections):
        sections["criterion"]["rho"][0, 3] = np.nan

    run.criterion(make(n=1, change=change), tmp_path)
    assert np.ma.getmaskarray(canvas[0].axes[0].collections[0].get_array())[3, 0]


def test_the_collective_is_called_by_its_layers(make, canvas, tmp_path):
    def change(sections):
        sections["collective"]["layers"] = [*map(str, range(1, 14)), "13b", "13c"]

    results = make(n=1, change=change)
    run.FIGURES["collective"](results, tmp_path)
    run.continual(results, tmp_path)
    assert "15 layers" in {line.get_label() for line in canvas[0].axes[0].get_lines()}
    assert canvas[1].axes[0].get_title(loc="left") == "15 layers"
    section = " ".join(section_html(results, "open-world").split())
    assert "from the collective's 15 layers" in section and "<th" in section
    assert "15 layers, old classes" in section


def test_accuracy_by_task_has_blanks_above_the_diagonal(make, canvas, tmp_path):
    def three_tasks(sections):
        value = sections["collective"]["continual"]
        value["matrix"] = [[0.9], [0.4, 0.8], [0.123, 0.5, 0.7]]

    for change in (None, three_tasks):
        run.continual(make(n=1, change=change), tmp_path)
    (many, _), (axes, _) = (figure.axes for figure in canvas)  # each with its colour bar's
    shown = axes.collections[0].get_array()
    assert np.ma.getmaskarray(shown).tolist() == [
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]
    assert shown[2, 0] == pytest.approx(12.3) and shown[1, 0] == pytest.approx(40)
    assert axes.get_ylim() == (3.5, 0.5)  # the first task on top, and counted from 1
    written = {t.get_position(): t.get_text() for t in axes.texts}
    assert written[(1, 3)] == "12" and written[(2, 3)] == "50" and len(written) == 6
    assert not many.texts  # thirteen tasks: no room for numbers


def test_results_from_before_the_matrix_say_so(make, tmp_path):
    def change(sections):
        del sections["collective"]["continual"]

    with pytest.raises(NoDataError, match="no accuracy by task"):
        run.continual(make(n=1, change=change), tmp_path)


@pytest.mark.parametrize(
    ("scratch", "scale"), [(412, "log"), (2_300, "log"), (0, "linear"), (900_000, "linear")]
)
def test_bytes_are_on_a_log_scale_only_where_they_differ_much(
    make, canvas, tmp_path, scratch, scale
):
    def change(sections):
        for client in sections["clients"]:
            client["methods"]["scratch"]["bytes_down"] = scratch
            client["methods"]["learngene"]["bytes_down"] = 711_000

    run.bytes_received(make(n=2, change=change), tmp_path)
    axes = canvas[0].axes[0]
    assert axes.get_xscale() == scale
    canvas[0].draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    shown = sorted(box.extents[[0, 2]].tolist() for box in boxes if box.width)
    assert len(shown) > 1 and all(end < start for (_, end), (start, _) in pairwise(shown))


def test_open_world_shows_shares_and_the_threshold(results, canvas, tmp_path):
    run.open_world(results, tmp_path)
    axes = canvas[0].axes[0]
    assert axes.get_lines()[0].get_xdata()[0] == results["open_world"]["threshold"]
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    assert len(outlines) == 2
    for outline in outlines:
        assert outline.get_data().values.sum() == pytest.approx(100)


def test_open_world_ranks_the_scores_and_marks_the_chosen_one(results, canvas, tmp_path):
    run.open_world(results, tmp_path)
    axes = canvas[0].axes[1]
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named[0] == "mahalanobis" and named[-1] == "energy"  # the best on top
    assert [name for name in named if name.endswith("(chosen)")] == ["max softmax (chosen)"]
    dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
    areas = sorted(found["auroc"] for found in results["open_world"]["scores"].values())
    assert [dot.get_xdata()[0] for dot in dots] == areas
    dotted = [line for line in canvas[0].axes[0].get_lines() if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted] == [0.9587, 0.9733]


def test_open_world_without_scores_or_with_other_units(make, canvas, tmp_path):
    def change(sections):
        found = sections["open_world"]
        found["score"], found["threshold"] = "energy", 99.0
        found["scores"]["mahalanobis"] = None
        edges = np.array(found["histogram"]["edges"])
        found["histogram"]["edges"] = (edges * 40 - 50).tolist()

    run.open_world(make(n=1, change=change), tmp_path)
    axes, ranking = canvas[0].axes
    assert axes.get_xlim()[0] == -50 and axes.get_xlim()[1] > 99  # the threshold stays in sight
    assert not [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert axes.get_xlabel().startswith("energy") and len(ranking.get_yticks()) == 4
    run.open_world(
        make(n=1, change=lambda sections: sections["open_world"].pop("scores")), tmp_path
    )
    assert len(canvas[1].axes) == 1


def test_every_axis_has_a_label(make, canvas, tmp_path):
    run.draw_figures(make(rounds=True, methods=THREE), tmp_path)
    axes = [axes for figure in canvas for axes in figure.axes]
    assert len(canvas) == len(ALL)
    for one in axes:
        if one.axison:  # a picture has no axes to label
            assert one.get_xlabel() or one.get_ylabel()


def test_evolution_shows_every_round_and_scratch_as_a_level(make, canvas, tmp_path):
    results = make(rounds=True)
    run.FIGURES["evolution"](results, tmp_path)
    lines = {line.get_label().split(",")[0]: line for line in canvas[0].axes[0].get_lines()}
    assert list(lines["learngene"].get_xdata()) == [20, 40, 60]
    means = [100 * each["summary"]["learngene"]["mean"] for each in results["rounds"]]
    assert list(lines["learngene"].get_ydata()) == pytest.approx(means) and means == sorted(means)
    level = 100 * results["summary"]["scratch"]["mean"]
    assert list(lines["scratch"].get_ydata()) == pytest.approx([level, level])


def test_equal_results_give_equal_files(make, tmp_path):
    def digest(folder):
        path = run.accuracy_over_epochs(make(n=2), tmp_path / folder)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert digest("a") == digest("b")


def test_methods_have_their_own_colour_and_marker():
    style = method_style(["scratch", "prototype", "learngene", "maml"])
    assert len({s["color"] for s in style.values()}) == len({s["marker"] for s in style.values()})
    assert {name: style[name]["color"] for name in FIXED} == FIXED


def test_alt_texts_carry_the_numbers(results):
    assert "learngene from" in alt_text("accuracy_over_epochs", results)
    assert "20 clients" in alt_text("clients_paired", results)
    assert "13 layers and 13 tasks" in alt_text("criterion", results)
    assert "83.6 % on 65 classes after task 13" in alt_text("collective", results)
    assert "98.0 % when it was learned, 62.0 % at the end" in alt_text("continual", results)
    assert "learngene 1,812 KB" in alt_text("bytes", results)
    assert "threshold at 0.410" in alt_text("open_world", results)
    assert "energy 0.952, mahalanobis 0.812" in alt_text("open_world", results)
    said = alt_text("cycle", results).replace("\xa0", " ")
    assert said.endswith(
        "over 2 cycles: 13 layers, old classes 36.1 % before and 56.1 % after, new classes "
        "61.1 % after."
    )
    assert "2 images of unknown classes (letter a, letter b)" in alt_text("gradcam", results)


def deepened(sections):
    """Fifty tasks; a copy of layer 5 from the thirteenth on, layers 9 to 11 selected."""
    rho = np.full((50, 14), 0.5)
    rho[:12, 5] = np.nan
    names = ["1", "2", "3", "4", "5", "5b", *(str(n) for n in range(6, 14))]
    layers = [
        {"layer": i, "name": name, "early": 0.6, "late": 0.1, "fall": 0.833, "unsteadiness": 0.02,
         "trend": 0.813}
        for i, name in enumerate(names, start=1)
    ]  # fmt: skip
    rule = {"longest": 3, "bar": 0.5, "large": 0.1, "tasks_needed": 3, "layers": layers}
    sections["criterion"] |= {"rho": rho, "names": names, "selected": [9, 10, 11], "rule": rule}
    sections["learngene"]["layers"] = [12, 13, 14]


def test_the_heat_map_of_a_deepened_collective(make, canvas, tmp_path):
    run.criterion(make(n=1, change=deepened), tmp_path)
    axes = canvas[0].axes[0]
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert ticks[4:7] == ["5", "6 (5b)", "7 (6)"] and ticks[13] == "14 (13) inherited"
    (mark,) = axes.lines
    assert [round(y, 1) for y in mark.get_ydata()] == [8.6, 11.4]
    assert "selected" in [text.get_text() for text in axes.texts]
    shown = axes.collections[0].get_array()
    assert shown.shape == (14, 50) and shown.mask[5].sum() == 12 == shown.mask.sum()


def test_the_report_shows_the_rule_for_every_layer(make):
    html = section_html(make(n=1, change=deepened), "criterion")
    rule = html.split("The rule: ")[1]
    assert rule.count("<tr>") == 1 + 14 and html.count(">yes<") == 3
    assert "6 (5b)" in html and "0.813" in html and "experiment=growth_ablation" in html


def test_many_methods_are_told_apart_and_one_point_is_a_level(make, canvas, tmp_path):
    results = make(methods=MANY)
    styles = method_style(BUILT_IN)
    assert len({style["color"] for style in styles.values()}) == len(BUILT_IN)
    assert len({style["marker"] for style in styles.values()}) == len(BUILT_IN)
    run.accuracy_over_epochs(results, tmp_path)
    axes = canvas[0].axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(MANY) <= set(lines)
    assert len(lines["protonet"].get_xdata()) == 1 and len(lines["maml"].get_xdata()) > 1
    level = 100 * results["summary"]["protonet"]["mean"]
    flat = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert len(flat) == 3
    assert min(abs(line.get_ydata()[0] - level) for line in flat) < 1e-9
    reasons = run.draw_figures(results, tmp_path)
    assert not any(reasons[n] for n in ("accuracy_over_epochs", "bytes", "clients_paired"))


def test_the_front_is_what_no_other_beats():
    def point(name, received, accuracy):
        return Point(name, name, 10_000 * received, accuracy, None)

    a, b, c = point("a", 10, 0.5), point("b", 20, 0.7), point("c", 30, 0.8)
    beaten = [point("d", 20, 0.6), point("e", 25, 0.7), point("f", 40, 0.8)]
    assert front([c, *beaten, b, a]) == [a, b, c]
    longer = point("a method of a longer name", 20.0002, 0.71)  # two bytes more are no cost
    assert front([a, b, longer, c]) == [a, longer, c]
    assert front([]) == []


@pytest.mark.parametrize(
    ("values", "at"),
    [
        ([], []),
        ([5.0], [5.0]),
        ([9.0, 1.0], [9.0, 1.0]),
        ([5.0, 5.0, 5.0], [4.0, 5.0, 6.0]),  # the first is below the others
        ([4.9, 5.0, 1.0], [4.45, 5.45, 1.0]),
        ([10.0, 10.0], [9.0, 10.0]),  # not above high
        ([0.0, 0.0], [0.0, 1.0]),  # nor below low
        ([5.0] * 12, [float(i) for i in range(12)]),  # too many: from low on
    ],
)
def test_labels_stand_apart_and_near_their_values(values, at):
    assert spread(values, 1.0, 0.0, 10.0) == pytest.approx(at)


def test_every_scratch_is_a_level_of_its_own(canvas, tmp_path):
    made = [
        Point("scratch", f"scratch (shots={n})", 412, a, 0.02) for n, a in ((10, 0.3), (20, 0.6))
    ]
    made += [Point("learngene", "learngene 1-7", 2e6, 0.7, 0.02)]
    pareto.save_points(made, tmp_path)
    texts = {text.get_text() for text in canvas[0].axes[0].texts}
    assert texts == {"learngene 1-7", "scratch (shots=10), 412 B",
                     "scratch (shots=20), 412 B (on the front)"}  # fmt: skip


@pytest.mark.parametrize(
    ("taken", "named", "said"),
    [
        ([7], "learngene 1-7", ""),
        ([4], "learngene 1-4", "Clients take 4 of the learngene's 7 layers and receive 40.0 KB."),
        ([2, 4, 7], "learngene 1-2 to 1-7", "Clients take 2, 4, 7 of the learngene's 7 layers and "
         "receive 20.0 KB to 70.0 KB, 43.3 KB on average."),
    ],
)  # fmt: skip
def test_a_learngene_is_named_after_the_layers_that_clients_took(make, taken, named, said):
    results = make(n=3)
    results["learngene"]["layers"] = list(range(1, 8))
    for client in results["clients"]:
        depth = taken[client["id"] % len(taken)]
        client["methods"]["learngene"] |= {"depth": depth, "bytes_down": 10_000 * depth}
    assert pareto.cost_accuracy_points(results)[0].label == named
    assert [note for note in footnotes(results) if "layers" in note] == [said] * bool(said)


@pytest.mark.parametrize(
    ("taken", "named"), [(7, "learngene 1-7+2+5"), (4, "learngene 1-4+2"), (2, "learngene 1-2")]
)
def test_joined_prefixes_are_named_where_they_are_shallower_than_what_was_taken(make, taken, named):
    results = make(n=3)
    results["learngene"]["layers"] = list(range(1, 8))
    results["run"]["config"]["learngene"] = {"joined": [2, 5]}
    for client in results["clients"]:
        client["methods"]["learngene"] |= {"depth": taken}
    assert pareto.cost_accuracy_points(results)[0].label == named


def test_the_frontier_names_the_learngenes_layers_and_precision(make, canvas, tmp_path):
    def change(sections):
        sections["run"]["config"]["learngene"] = {"precision": "int8"}

    results = make(methods=MANY, change=change)
    pareto.frontier(results, tmp_path)
    texts = {text.get_text() for text in canvas[0].axes[0].texts}
    assert texts == {"learngene 11-13", *MANY[2:], "scratch, 412 B (on the front)"}
    said = alt_text("frontier", results)
    assert said.endswith("On the Pareto front: scratch, learngene 11-13 int8.")


# Machado, Oliveira and Fernandes (2009), severity 1: what is left of linear RGB.
BLINDNESS = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
               (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
               (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602),
               (0.004733, 0.691367, 0.303900)),
}  # fmt: skip


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB of a colour as eyes with that matrix see it."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                       [0.0193, 0.1192, 0.9505]])  # fmt: skip
    xyz = to_xyz @ np.clip(seen @ linear, 0, 1) / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", [*BLINDNESS, "none"])
def test_colours_stay_apart_for_the_colour_blind(kind):
    seen = np.array(BLINDNESS[kind]) if kind in BLINDNESS else np.eye(3)
    style = method_style(["learngene", "scratch", "a", "b", "c", "d"])
    found = [lab(each["color"], seen) for each in style.values()]
    for place, one in enumerate(found):
        for other in found[:place]:
            assert np.linalg.norm(one - other) > 11  # a difference of 2.3 is just seen
    assert np.linalg.norm(found[0] - found[1]) > 40  # the two of every run


def test_the_transfer_profile_says_what_each_depth_is_worth(results, make, canvas, tmp_path):
    run.FIGURES["transfer"](results, tmp_path)
    panels = canvas[0].subfigs[0].axes[:2]
    assert [axes.get_title() for axes in panels] == ["class means", "behind the projection"]
    assert [label.get_text() for label in panels[0].get_yticklabels()][::12] == ["1", "13"]
    said = alt_text("transfer", results)
    assert "class means 49.0 % with layer 1, 63.0 % at the best depth, layer 8, 53.0 %" in said
    assert "behind the projection 61.0 % with layer 1, 73.0 % at the best depth, layer 7" in said
    one_task = make(n=1, change=lambda sections: sections.update(transfer=None))
    with pytest.raises(NoDataError, match="no transfer profile"):
        run.FIGURES["transfer"](one_task, tmp_path)


def test_the_report_says_whether_the_criterion_tells_the_profile(results, make):
    html = section_html(results, "criterion")
    assert ">small rho</th>" in html and "-0.423" in html and html.count("<figure") == 2
    assert "rank correlation" not in section_html(
        make(change=lambda sections: sections.update(transfer=None)), "criterion"
    )
