"""A federation of real processes: keys, SuperLink and SuperNodes, one command to see it run."""

ENDED = "ended.json"  # where a run that Flower has started writes its exit code
