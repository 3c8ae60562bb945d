"""One file an experiment of the paper: its rows, its figure, the paper's numbers."""
