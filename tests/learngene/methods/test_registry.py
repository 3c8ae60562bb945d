"""The registry: no torch for a list of names, and a new built-in method is its file and a line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from learngene.methods import registry
from tests.helpers import FEW, ROOT, commands_in

PACKAGES = ("clients", "conf", "learngene", "protocol", "reports", "runtime", "server",
            "strategies")  # fmt: skip
METHOD = '''"""The shard's first class, always."""

from dataclasses import dataclass

import torch

from learngene.methods.common.backbone import evaluate_once
from learngene.methods.base import Method
from learngene.utils.settings import setting


@dataclass
class Settings:
    certainty: float = setting(0.9, gt=0, le=0.99)  # probability of the first class


def adapt(context):
    ways = context.shard.ways
    rest = (1 - context.settings.certainty) / (ways - 1)
    row = torch.tensor([context.settings.certainty, *[rest] * (ways - 1)]).log()
    return evaluate_once(context, lambda x: row.expand(len(x), ways))


METHOD = Method(adapt, settings=Settings, training_free=True)
'''


def test_the_names_bring_no_torch() -> None:
    code = (
        "import sys\n"
        "from learngene.methods import BUILT_IN, find\n"
        "assert BUILT_IN and 'torch' not in sys.modules\n"
        "from learngene.methods import Method, Payload\n"
        "assert isinstance(find('scratch'), Method)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_a_new_built_in_method_is_its_file_and_one_line(tmp_path: Path) -> None:
    house = tmp_path / "house"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, house / name)
    shutil.copy(ROOT / "sim.py", house)
    methods = house / "learngene" / "methods"
    (methods / "first_class.py").write_text(METHOD)
    text = (methods / "registry.py").read_text()
    assert text.count('    "linear_probe",\n') == 1
    line = '    "linear_probe",\n    "first_class",\n'
    (methods / "registry.py").write_text(text.replace('    "linear_probe",\n', line))

    words = ("sim.py", "scale=tiny", "runtime=serial", "num_clients=2",
             "methods=[scratch,first_class]", "collective.classes_per_task=21", *FEW,
             "report.gradcam_images=0", f"cache={tmp_path / 'cache'}",
             f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    certain = "method.first_class.certainty"
    refused, done = commands_in(house, *((*words, f"{certain}={value}") for value in ("1", "0.5")))
    assert refused.returncode == 2
    assert "method.first_class.certainty=1.0: must be above 0 and at most 0.99" in refused.stderr
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["run"]["config"]["method"]["first_class"] == {"certainty": 0.5}
    for client in results["clients"]:
        assert client["methods"]["first_class"]["accuracy"] == 1 / results["run"]["config"]["ways"]


def test_an_unknown_name() -> None:
    with pytest.raises(KeyError, match="magic"):
        registry.find("magic")
