"""A federation of real processes: keys, SuperLink and SuperNodes, one command to see it run."""
