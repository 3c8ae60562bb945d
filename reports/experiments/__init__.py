"""One file an experiment: its rows, its figure, its numbers. The paper's are in ``paper/``."""
