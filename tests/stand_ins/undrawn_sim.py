"""``sim.py`` as a program whose figures are not drawn: seconds of a run that a test starts."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # as sim.py has it

from tests.helpers import ROOT, without_figures  # noqa: E402

sys.argv[0] = str(ROOT / "sim.py")
with without_figures():
    runpy.run_path(sys.argv[0], run_name="__main__")
