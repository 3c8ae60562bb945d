"""Methods that do to the process and to what they are given all that the others must not see."""

from __future__ import annotations

from pathlib import Path

from tests.stand_ins.own_method import SOURCE, write_method

# What is done on import, and at the beginning of ``adapt``.
DEEDS = {
    "on_the_shard": (
        "",
        "s = context.shard\n"
        "    s.train_x.sub_(s.train_x.mean()).div_(3); s.test_x.zero_()\n"
        "    s.train_y.copy_(s.train_y.flip(0))",
    ),
    "on_the_task": (
        "",
        "context.individual.lr = 0.5; context.individual.epochs = 0\n"
        "    context.retain.ewc_lambda = 1e6; context.scratch.lr = 9.0; context.card.clear()",
    ),
    "on_autograd": ("", "import torch; torch.set_grad_enabled(False)"),
    "on_import": ("import torch; torch.set_default_dtype(torch.float64)\n", ""),
    "on_torch": (
        "",
        "import torch; torch.set_num_threads(3); torch.backends.mkldnn.set_flags(False)\n"
        "    torch.set_float32_matmul_precision('medium'); torch.set_default_dtype(torch.float64)",
    ),
    "on_the_rest": (
        "",
        "import numpy, random, torch, warnings\n"
        "    torch.manual_seed(1); numpy.random.seed(1); random.seed(1)\n"
        "    numpy.seterr(all='raise'); warnings.simplefilter('error')\n"
        "    raise type('Own', (BaseException,), {})('gone')",
    ),
}


def write_hostile(folder: Path, suffix: str = "") -> list[str]:
    """One module for each deed; Python imports a name once a process, hence ``suffix``."""
    names = []
    for name, (first, deed) in DEEDS.items():
        names.append(name + suffix)
        doc, _, rest = SOURCE.partition("\n")
        body = rest.replace("def adapt(context):\n", f"def adapt(context):\n    {deed}\n")
        write_method(folder, names[-1], f"{doc}\n{first}{body}")
    return names
