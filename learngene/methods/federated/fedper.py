"""FedPer among the clients: FedAvg of the layers, each client's classifier stays its own.

Paper: Arivazhagan et al., "Federated Learning with Personalization Layers", 2019, algorithms 1 and
2 with one personalisation layer, the classifier.
Differences: those of ``fedavg.py``, but that the last fine-tuning goes on with the client's own
classifier in the place of a new one.
"""

from __future__ import annotations

from dataclasses import dataclass

from learngene.methods.base import Method, Private
from learngene.methods.common import federated
from learngene.utils.settings import setting


@dataclass
class Settings(federated.FederatedSettings):
    """As FedAvg's, with values from trials of its own."""

    local_epochs: int = setting(5, ge=1, le=1000)  # passes over the shard in a round
    client_body_lr: float = setting(0.0005, ge=0, le=10)  # of the backbone, then; 0 = frozen


CLASSIFIER = Private("the classifier", lambda name: name in federated.HEAD)
METHOD = Method(
    federated.adapt,
    update=federated.update,
    settings=Settings,
    private=CLASSIFIER,
)
