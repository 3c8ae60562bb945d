"""Methods that are trained among the clients: what they share is in ``common/federated.py``."""
