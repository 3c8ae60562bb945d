"""The factory: dataset, collective, learngene, pretraining of the other methods."""
