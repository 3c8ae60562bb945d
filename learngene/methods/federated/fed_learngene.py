"""FedAvg begun as the learngene: the clients train on together what they inherit.

Not in the paper, where a client adapts alone. Every round is ``fedavg.py``'s; the model is the
individual around the whole learngene, whose norms keep their statistics as at any client. At the
end each client puts class means behind it and fine-tunes it, without the retain loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from learngene.methods.base import Method
from learngene.methods.common import federated
from learngene.utils.settings import setting


@dataclass
class Settings(federated.FederatedSettings):
    """As FedAvg's, with values from trials of its own: low rates, for layers that have learned
    already."""

    local_epochs: int = setting(1, ge=1, le=1000)  # passes over the shard in a round
    lr: float = setting(0.0003, gt=0, le=10)  # at the clients, in the first round


METHOD = Method(federated.adapt, update=federated.update, settings=Settings, from_learngene=True)
