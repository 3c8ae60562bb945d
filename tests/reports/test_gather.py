"""Rows of ``results.json`` from answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reports.client_rows import client_rows
from reports.figures.run import accuracy_over_epochs
from reports.schema import Client
from reports.summary import footnotes, interval_scope, setting

NAMES = ["a", "b", "c", "d"]


def answer(**changed: Any) -> SimpleNamespace:
    metrics = {
        "epochs": [0, 5, 6],
        "accuracy": [0.2, 0.9, 0.7],
        "loss": [1.5, 0.5, 0.6],
        "train_loss": [1.6, 0.4, 0.3],
        "penalty": [0.0, 0.1, 0.2],
        "seconds": 2.5,
        "fisher_mean": 4e-6,
    }
    made: dict[str, Any] = {
        "client": 3,
        "methods": {"learngene": metrics},
        "info": {"classes": "2,0", "train_images": 10, "test_images": 12, "device": "cuda:1"},
        "bytes_by_method": {"learngene": SimpleNamespace(down=1000, up=20)},
        "error": None,
    }
    return SimpleNamespace(**{**made, **changed})


def test_a_row_by_hand():
    (row,) = client_rows([answer()], 5, NAMES)
    assert row == {
        "id": 3,
        "classes": ["c", "a"],
        "shots": 5,
        "train_images": 10,
        "test_images": 12,
        "device": "cuda:1",
        "methods": {
            "learngene": {
                "accuracy": 0.7,  # the last epoch's, not the best
                "accuracy_by_epoch": [[0, 0.2], [5, 0.9], [6, 0.7]],
                "loss_by_epoch": [[0, 1.5], [5, 0.5], [6, 0.6]],
                "train_loss_by_epoch": [[0, 1.6], [5, 0.4], [6, 0.3]],
                "penalty_by_epoch": [[0, 0.0], [5, 0.1], [6, 0.2]],
                "epochs": 6,
                "seconds": 2.5,
                "bytes_down": 1000,
                "bytes_up": 20,
                "fisher_mean": 4e-6,
            }
        },
    }


def test_rows_hold_what_the_contract_asks_for():
    (row,) = client_rows([answer()], 5, NAMES)
    assert Client.model_validate(row).methods["learngene"].bytes_down == 1000


def test_one_failed_method_keeps_the_other():
    (row,) = client_rows([answer(error="scratch: RuntimeError: x")], 5, NAMES)
    assert row["error"] == "scratch: RuntimeError: x" and list(row["methods"]) == ["learngene"]


def test_a_client_that_never_answered_is_a_row_with_its_error():
    (row,) = client_rows(
        [answer(methods={}, info={}, bytes_by_method={}, error="no reply in 9 s")], 5, NAMES
    )
    assert row["error"] == "no reply in 9 s" and row["methods"] == {} and row["classes"] == []
    assert (row["train_images"], row["device"]) == (0, "")


def test_rows_keep_the_order_of_the_answers():
    rows = client_rows([answer(client=n) for n in (0, 1, 2)], 5, NAMES)
    assert [row["id"] for row in rows] == [0, 1, 2]


def test_curves_of_unequal_length_are_refused():
    broken = answer()
    broken.methods["learngene"]["loss"] = [1.0]
    with pytest.raises(ValueError, match="zip"):
        client_rows([broken], 5, NAMES)


def test_a_node_of_its_own_images_has_no_number_of_shots_and_classes_of_its_own():
    own = {"own_classes": 3, "train_images": 19, "test_images": 6, "device": "cpu"}
    rows = client_rows(
        [answer(info=own), answer(client=4, info=own | {"class_names": "ash\nelm\nfir"}), answer()],
        5, NAMES,
    )  # fmt: skip
    assert [row["shots"] for row in rows] == [None, None, 5]
    # Numbered classes of two nodes are not the same class.
    assert rows[0]["classes"] == [f"class {n} of client 3" for n in (1, 2, 3)]
    assert rows[1]["classes"] == ["ash", "elm", "fir"]
    assert Client.model_validate(rows[0]).shots is None


def test_the_settings_line_and_the_intervals_are_of_unequal_clients(make, tmp_path, unrendered):
    """Two with images of their own, of other numbers of classes, beside three drawn ones."""

    def change(sections):
        for client, names in ((0, ["ash", "elm"]), (1, ["a", "b", "c"])):
            own = {"shots": None, "classes": names, "train_images": 40 + client}
            sections["clients"][client] |= own

    results = make(5, change=change)
    said = setting(results)
    assert "2 with images of their own, 2 to 3 classes, 40 to 41 training images" in said
    assert "· 5-way 10-shot" in said
    assert results["summary"]["gain"]["ci95_classes"] > 0
    scope = interval_scope(results)
    assert "2 of these 5 clients hold images of their own" in scope and "share" not in scope
    assert "clients like these; with classes drawn at random" in scope
    assert accuracy_over_epochs(results, tmp_path / "curves.png").exists()
    assert "with images of their own" not in setting(make(5))


def test_clients_of_other_ways_and_of_divided_images_say_what_chance_is(make):
    def change(sections):
        for number, client in enumerate(sections["clients"]):
            client["classes"] = [f"letter {c}" for c in "abcdefgh"[: (2, 8)[number % 2]]]
            client["shots"] = (2, 20)[number % 2]

    def divide(sections):
        change(sections)
        for number, client in enumerate(sections["clients"]):
            client |= {"shots": None, "train_images": 14 + number}
        sections["run"]["config"] = {"data": {"partition": "dirichlet", "alpha": 0.5}}

    assert "chance" not in " ".join(footnotes(make(4)))
    drawn, divided = make(4, change=change), make(4, change=divide)
    assert "· 2- to 8-way 2- to 20-shot" in setting(drawn)
    assert "· 2- to 8-way, 14 to 17 training images, Dirichlet(0.5)" in setting(divided)
    for results in (drawn, divided):
        said = " ".join(footnotes(results))
        assert "Clients hold 2 to 8 classes: chance is 12.5 % to 50.0 %, 31.2 % on average" in said
        assert ("however few it has" in said) == (results is divided)
        assert "images of their own" not in setting(results) + interval_scope(results)
