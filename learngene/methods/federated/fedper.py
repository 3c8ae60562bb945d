"""FedPer among the clients: FedAvg of the layers, each client's classifier stays its own.

Paper: Arivazhagan et al., "Federated Learning with Personalization Layers", 2019, algorithms 1 and
2 with one personalisation layer, the classifier.
Differences: those of ``fedavg.py``, but that the last fine-tuning goes on with the client's own
classifier in the place of a new one. Settings are FedAvg's, not tuned.
"""

from __future__ import annotations

from learngene.methods.base import Method, Private
from learngene.methods.common import federated

CLASSIFIER = Private("the classifier", lambda name: name in federated.HEAD)
METHOD = Method(
    federated.adapt,
    update=federated.update,
    settings=federated.FederatedSettings,
    private=CLASSIFIER,
)
