"""The method to the paper's letter: the top three layers behind fresh ones of the individual."""

from __future__ import annotations

from reports.experiments.base import OVER_RANDOM, Claim, Experiment
from reports.results import MAIN, REFERENCE

WHERE = "Inheriting Learngene, algorithm 1"
GAIN = "gain over scratch"
CLAIMS = (
    Claim(
        name="top-layers",
        words="the top layers carry the meta-knowledge: behind fresh layers they beat scratch",
        numbers={},
        unit="points",
        bound="about",
        quantity=GAIN,
        direction=(GAIN,),
        said_in=WHERE,
    ),
    Claim(
        name="top-layers-control",
        words="control: random layers in place of the top three are worse (learngene.control)",
        numbers={},
        unit="points",
        bound="about",
        quantity=OVER_RANDOM,
        direction=(OVER_RANDOM,),
        said_in=WHERE,
        control=True,
    ),
)
EXPERIMENT = Experiment("to_the_letter", (MAIN, REFERENCE), claims=CLAIMS)
