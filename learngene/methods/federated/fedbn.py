"""FedBN among the clients: FedAvg of all but the norms, which stay each client's own.

Paper: Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization",
ICLR 2021, algorithm 1: scale, shift and statistics of each batch norm are not averaged.
Differences: those of ``fedavg.py``. The paper's clients share their classes and differ in how
images look; here classes differ.
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
    lr: float = setting(0.05, gt=0, le=10)  # at the clients, in the first round
    client_lr: float = setting(0.05, gt=0, le=10)  # of the new classifier, in the end


NORMS = Private("the norms", lambda name: ".norm." in name)
METHOD = Method(
    federated.adapt,
    update=federated.update,
    settings=Settings,
    private=NORMS,
)
