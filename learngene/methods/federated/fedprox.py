"""FedProx among the clients: FedAvg whose local losses hold on to the global model.

Paper: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020: mu/2 times the
squared distance from the round's global weights is added to each local loss (Eq. 2).
Differences: those of ``fedavg.py``; every client does all its local epochs (no stragglers).
"""

from __future__ import annotations

from dataclasses import dataclass

from learngene.methods.base import ClientContext, Method, Update
from learngene.methods.common import federated
from learngene.utils.settings import setting


@dataclass
class Settings(federated.FederatedSettings):
    """As FedAvg's, with values from trials of its own, and the proximal term's weight."""

    local_epochs: int = setting(5, ge=1, le=1000)  # passes over the shard in a round
    client_body_lr: float = setting(0.0005, ge=0, le=10)  # of the backbone; 0 = frozen
    mu: float = setting(0.01, ge=0, le=1000)  # of the proximal term mu/2 ||w - w_global||^2


def update(context: ClientContext) -> Update:
    settings: Settings = context.settings
    return federated.update(context, mu=settings.mu)


METHOD = Method(federated.adapt, update=update, settings=Settings)
