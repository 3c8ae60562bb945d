"""Data worlds: images decoded once, their classes divided, and the clients' private shards.

This package alone knows where images lie.
"""

from learngene.data.cache import build
from learngene.data.dataset import Division, World, WorldSettings, load
from learngene.data.partition import Shard, check_leakage, draw_shard

__all__ = [
    "Division",
    "Shard",
    "World",
    "WorldSettings",
    "build",
    "check_leakage",
    "draw_shard",
    "load",
]
