"""The collective: training in sequence, what keeps old classes, the criterion."""
