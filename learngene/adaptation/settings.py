"""Settings of the individual and of the retain loss (``individual``, ``retain``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from learngene.utils.settings import setting

# What a round of federated training reads of ``IndividualSettings``; it is sent no more.
FEDERATED_FIELDS = ("batch_size", "momentum", "weight_decay", "augment")


@dataclass
class IndividualSettings:
    """The individual, and how every method trains at a client."""

    # in front of what is inherited: none (it begins with the collective's first layer) | fresh
    # (random layers, up to seven with the inherited ones: the paper's)
    stem: str = setting("none", choices=("none", "fresh"))
    # layers of the learngene's that a client takes, the first ones; [2,4,7]: client i has entry i
    # modulo their number; null = all
    depth: Any = setting(None, ge=1, le=500, by_client=True)
    # in place of it: what the learngene may take of a message (arrays in learngene.precision, with
    # their framing), of which a client takes as many layers as fit; a list as above
    bytes: Any = setting(None, ge=1, le=2**40, by_client=True)
    # prototype | mlp (the paper's fully connected layers)
    head: str = setting("prototype", choices=("prototype", "mlp"))
    epochs: int = setting(30, ge=0, le=100_000)  # passes over the shard, for every method
    batch_size: int = setting(32, ge=2, le=65_536)  # images
    # of own layers and head (the paper: 0.005); null = 0.0001 times the images of a class, at most
    # 0.01: a small shard is better held to what was inherited
    lr: float | None = setting(None, ge=0, le=10)
    inherited_lr: float | None = setting(None, ge=0, le=10)  # of the inherited layers; null = as lr
    schedule: str = setting("cosine", choices=("cosine", "constant"))  # cosine | constant
    momentum: float = setting(0.9, ge=0, le=0.9999)
    weight_decay: float = setting(5e-4, ge=0, le=1)
    augment: bool = True  # shifted crops, and flips where the dataset allows them
    # test an image and its mirror image together (where the dataset allows flips), every method's
    mirror_test: bool = True
    # take class means from, and test, an image as it is and moved by a sixteenth of its side to
    # each of four sides, every method's: five times the work of a test
    moved_views: bool = False
    # epochs between tests; the first and the last are always tested
    eval_every: int = setting(10, ge=1, le=100_000)
    safeguard: bool = False  # cross-validate the learngene against scratch; fall back if it hurts
    # of that cross-validation; each class needs as many images
    safeguard_folds: int = setting(3, ge=2, le=100)
    # passes in each fold, for both; null = epochs
    safeguard_epochs: int | None = setting(None, ge=0, le=100_000)
    # keep each client's trained individual in the run folder (individuals/client-NNNN.safetensors);
    # every client is then asked, also those whose answer an earlier run has
    keep: bool = False


@dataclass
class RetainSettings:
    """The retain loss (Eq. 7 to 9)."""

    # Eq. 9's lambda, on the scale that normalise gives (the paper: 1000)
    ewc_lambda: float = setting(1.0, ge=0)
    normalise: bool = True  # scale the Fisher diagonal to mean 1, which gives ewc_lambda a scale
    fisher_samples: int = setting(128, ge=1, le=1_000_000)  # images of the shard, at most
    # exact (Eq. 7: expectation over the model's labels) | true (the shard's)
    labels: str = setting("exact", choices=("exact", "true"))
