"""Generators depend on (seed, phase, round, client) and on nothing else."""

from __future__ import annotations

import itertools

import torch

from learngene.seeding import generator, torch_generator


def test_equal_arguments_give_equal_draws_whatever_was_drawn_before():
    first = generator(1, "a", 2, 3).random(4).tolist()
    generator(1, "a", 2, 3).random(100)
    assert generator(1, "a", round=2, client=3).random(4).tolist() == first
    drawn = torch.rand(4, generator=torch_generator(1, "a", 2, 3))
    torch.rand(9)
    assert torch.equal(torch.rand(4, generator=torch_generator(1, "a", 2, 3)), drawn)


def test_every_argument_counts():
    asked = list(itertools.product((0, 1, 11), ("a", "b", "1/a"), (0, 1), (0, 1, 10)))
    numpy = {generator(*each).integers(2**62) for each in asked}
    torches = {torch_generator(*each).initial_seed() for each in asked}
    assert len(numpy) == len(torches) == len(asked)
    assert all(0 <= seed < 2**63 for seed in torches)


def test_stays_what_it_is():
    """A change here would change every published number."""
    assert generator(0, "task-order").permutation(8).tolist() == [2, 6, 3, 4, 5, 0, 1, 7]
    assert torch_generator(0, "collective-weights").initial_seed() == 5522516669923929523
