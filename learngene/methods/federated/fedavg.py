"""FedAvg among the clients, then each client makes the model its own.

Paper: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, algorithm 1 with every client in every round, weighted by the number of images.
Differences: clients hold different classes, so the classifier has a row a class and each trains its
own rows; momentum (anew every round); statistics of norms are averaged with the weights; the rate
falls over the rounds; a new classifier and fine-tuning at the end. Nothing comes from the factory.
"""

from __future__ import annotations

from learngene.methods.base import Method
from learngene.methods.common import federated

METHOD = Method(federated.adapt, update=federated.update, settings=federated.FederatedSettings)
