"""FedProx among the clients: FedAvg whose local losses hold on to the global model.

Paper: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020: mu/2 times the
squared distance from the round's global weights is added to each local loss (Eq. 2).
Differences: those of ``fedavg.py``; every client does all its local epochs (no stragglers).
"""

from __future__ import annotations

from functools import partial

from learngene.methods import federated
from learngene.methods.base import Method

METHOD = Method(
    partial(federated.adapt, name="fedprox"), update=partial(federated.update, name="fedprox")
)
