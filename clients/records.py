"""The records of a message, by key: the words that server and client share.

Down: TASK and one PAYLOAD a method that is sent arrays. Up: INFO and one METRICS a method, or ERROR
alone. NODE answers the question which client a node is.
"""

from __future__ import annotations

TASK = "task"
PAYLOAD = "payload."
METRICS = "metrics."
INFO = "info"
ERROR = "error"
NODE = "node"
