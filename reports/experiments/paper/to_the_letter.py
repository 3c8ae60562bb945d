"""The method to the paper's letter: the top three layers behind fresh ones of the individual."""

from __future__ import annotations

from reports.experiments.base import OVER_RANDOM, Claim, Experiment
from reports.results import MAIN, REFERENCE

WHERE = "Inheriting Learngene, algorithm 1"
CLAIMS = (
    Claim(
        "top-layers",
        "the top layers carry the meta-knowledge: behind fresh layers they beat scratch",
        "gain over scratch",
        said_in=WHERE,
    ),
    Claim(
        "top-layers-control",
        "control: random layers in place of the top three are worse (learngene.control)",
        OVER_RANDOM,
        said_in=WHERE,
        control=True,
    ),
)
EXPERIMENT = Experiment("to_the_letter", (MAIN, REFERENCE), claims=CLAIMS)
