"""Flower strategies, and the answers that are kept of them."""
