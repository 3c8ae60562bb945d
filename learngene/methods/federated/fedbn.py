"""FedBN among the clients: FedAvg of all but the norms, which stay each client's own.

Paper: Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization",
ICLR 2021, algorithm 1: scale, shift and statistics of each batch norm are not averaged.
Differences: those of ``fedavg.py``. The paper's clients share their classes and differ in how
images look; here classes differ. Settings are FedAvg's, not tuned.
"""

from __future__ import annotations

from learngene.methods.base import Method, Private
from learngene.methods.common import federated

NORMS = Private("the norms", lambda name: ".norm." in name)
METHOD = Method(
    federated.adapt,
    update=federated.update,
    settings=federated.FederatedSettings,
    private=NORMS,
)
