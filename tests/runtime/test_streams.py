"""What is printed raises nothing, whatever has become of the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import subprocess, sys
from runtime.streams import steady_streams

steady_streams()
print("first", flush=True)
print("90.2 \\u00b1 1.2 \\u732b")
print("to stderr", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2, "what is printed would go into the file"
    file.write("results")
subprocess.run(["echo", "of a child"], check=False)
"""


@pytest.mark.parametrize(
    ("shell", "out"),
    [
        ('"$@"', "first\n90.2 ± 1.2 猫\nof a child\n"),
        ('PYTHONIOENCODING=ascii "$@"', "first\n90.2 +- 1.2 \\u732b\nof a child\n"),
        ('PYTHONIOENCODING=latin-1 "$@" | iconv -f latin1 -t utf8',
         "first\n90.2 ± 1.2 \\u732b\nof a child\n"),
        ('"$@" >&-', ""),
        ('"$@" 2>&-', "first\n90.2 ± 1.2 猫\nof a child\n"),
        ('"$@" <&- >&- 2>&-', ""),
        ('"$@" | head -0', ""),
        ('"$@" > /dev/full', ""),
        ('"$@" 2> /dev/full', "first\n90.2 ± 1.2 猫\nof a child\n"),
    ],
)  # fmt: skip
def test_the_program_ends_as_it_should(shell: str, out: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, tmp_path / "program.py", results := tmp_path / "results"]
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell, "bash", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": ""},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert results.read_text() == "results"
    assert done.stdout == out
