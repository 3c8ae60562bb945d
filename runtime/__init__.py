"""Where a run happens: Flower on Ray, or one process; rounds, resources, signals."""
