"""benchmarks/collective_throughput.py: a row for each batch size, on whatever there is."""

from __future__ import annotations

import re
import sys

import pytest

from benchmarks import collective_throughput as throughput


def test_it_prints_images_a_second_of_every_batch_size(monkeypatch, capsys):
    monkeypatch.setattr(throughput, "IMAGES", 8)
    monkeypatch.setattr(throughput, "LEAST", 20)
    asked = "--batch 2 4 --width 0.0625 --steps 20 --device cpu --precision fp32 --threads 1"
    monkeypatch.setattr(sys, "argv", ["throughput", *asked.split()])
    assert throughput.main() == 0
    rows = re.findall(
        r"^\| (\d+) \| off \| ([\d,]+) \| (\d\.\d+) \|$", capsys.readouterr().out, re.M
    )
    assert [row[0] for row in rows] == ["2", "4"]
    for _, rate, loss in rows:
        assert int(rate.replace(",", "")) > 0 and 0 < float(loss) < 10


def test_too_few_steps_for_a_rate_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["throughput", "--steps", "10"])
    with pytest.raises(SystemExit, match="2"):
        throughput.main()
    assert "--steps: at least 300" in capsys.readouterr().err
