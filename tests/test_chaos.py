"""``tests/chaos.py`` as a test: ``python -m pytest -m chaos``."""

from __future__ import annotations

import pytest

from tests import chaos


@pytest.mark.chaos
def test_thirty_random_kills_and_faults_end_in_the_same_results() -> None:
    assert chaos.main(["--runs", "30"]) == 0
