"""Datasets: images decoded once, their classes divided, and the clients' private shards.

This package alone knows where images lie.
"""
