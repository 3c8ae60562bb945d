"""What a client says of its images: what cannot be is refused, and never reaches a table."""

from __future__ import annotations

import pytest

from protocol.messages import MOST_CLASSES, _odd


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"own_classes": 1}, "own_classes is 1, a whole number from 2"),
        ({"own_classes": MOST_CLASSES + 1}, f"to {MOST_CLASSES} is due"),
        ({"own_classes": True}, "own_classes is True"),
        ({"train_images": -1}, "train_images is -1"),
        ({"test_images": "3"}, "test_images is '3'"),
        ({"classes": "1,-2"}, "classes are numbers with commas"),
        ({"classes": "1,x"}, "classes are numbers with commas"),
        ({"classes": "1,,2"}, "classes are numbers with commas"),
        ({"classes": "1,2,01"}, "it names a class twice"),
        ({"own_classes": 2, "class_names": "my cat\nmy dog\nmy owl"}, "class_names are 3, its"),
        ({"class_names": "my cat"}, "its own classes are None"),
    ],
)
def test_what_cannot_be_is_named(told: dict, problem: str) -> None:
    assert problem in (_odd(told) or "")


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"classes": "0,12,7", "train_images": 50, "test_images": 300},
        {"own_classes": 2, "class_names": "my cat\nmy dog"},
        {"own_classes": MOST_CLASSES},
    ],
)
def test_what_can_be_passes(told: dict) -> None:
    assert _odd(told) is None
