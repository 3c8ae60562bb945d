"""The records of a message, by key: the words that server and client share.

Down: TASK and one PAYLOAD a method that is sent arrays. Up: INFO and one METRICS a method, or ERROR
alone; in a federated round one WEIGHTS a method, too. NODE answers the question which client a
node is.
"""

from __future__ import annotations

TASK = "task"
PAYLOAD = "payload."
METRICS = "metrics."
WEIGHTS = "weights."  # of methods that are trained among the clients, and of no others
INFO = "info"
ERROR = "error"
NODE = "node"
NODE_QUERY = "query.node"  # type of the question that a node of its own owner is asked
