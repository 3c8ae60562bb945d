"""Files, checkpoints, what is not trusted, the machine."""
