"""Normalisation and augmentation, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learngene.data.augment import augment, draw_views, shrink, still_views, to_batch, views
from tests.helpers import rng, torch_rng


def numbered(batch: int, side: int = 16) -> torch.Tensor:
    """Images (B, 1, side, side) whose pixels are 1, 2, 3...: every one tells where it is from."""
    one = torch.arange(1.0, side * side + 1).view(1, 1, side, side)
    return one.repeat(batch, 1, 1, 1)


def test_to_batch_by_hand():
    images = np.zeros((1, 2, 3, 3), np.uint8)
    images[0, 1, 2] = (0, 128, 255)
    x = to_batch(images)
    assert x.shape == (1, 3, 2, 3) and x.dtype == torch.float32
    assert x[0, :, 1, 2].tolist() == [-127.5 / 64, 0.5 / 64, 127.5 / 64]
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_to_batch_leaves_its_input_alone():
    images = rng().integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    kept = images.copy()
    to_batch(images)
    assert np.array_equal(images, kept)


def shift_of(moved: torch.Tensor, side: int, mirrored: bool = False) -> tuple[int, int]:
    """By how many pixels a numbered image was moved; every pixel must agree."""
    found = set()
    for row, column in (moved.round() != 0).nonzero().tolist():
        number = int(moved[row, column].round()) - 1
        home = (number // side, number % side)
        assert abs(float(moved[row, column]) - number - 1) < 1e-2  # copied, not blurred
        found.add((home[0] - row, (home[1] + column if mirrored else home[1] - column)))
    assert len(found) == 1, found
    return found.pop()


def test_shifts_are_whole_pixels_up_to_an_eighth_and_the_rest_is_grey():
    moved = augment(numbered(200), torch_rng(), flip=False)
    shifts = [shift_of(image[0], 16) for image in moved]
    for axis in (0, 1):
        assert {s[axis] for s in shifts} == {-2, -1, 0, 1, 2}  # an eighth of 16
    for image, (down, right) in zip(moved, shifts, strict=True):
        assert int((image[0].round() == 0).sum()) == 256 - (16 - abs(down)) * (16 - abs(right))


def test_still_views_are_moved_by_a_sixteenth_to_four_sides_and_mirrored_behind_them():
    x = numbered(3)
    assert [view is x for view in still_views(x, mirror=False, moved=False)] == [True]
    seen = still_views(x, mirror=True, moved=True)
    plain, mirrored = seen[:5], seen[5:]
    assert [shift_of(view[1, 0], 16) for view in plain] == [
        (0, 0),
        (-1, 0),
        (1, 0),
        (0, -1),
        (0, 1),
    ]
    assert all(torch.equal(m, view.flip(3)) for m, view in zip(mirrored, plain, strict=True))
    grey = [int((view[0, 0] == 0).sum()) for view in plain]
    assert grey == [0, 16, 16, 16, 16]  # what comes in is zero, as in training
    assert torch.equal(still_views(x, mirror=True, moved=False)[1], x.flip(3))


def test_flips_mirror_half_of_the_images_and_only_when_asked():
    moved = augment(numbered(400), torch_rng(), flip=True)
    falls = [bool(image[0, 8, 9] < image[0, 8, 7]) for image in moved]
    assert 150 < sum(falls) < 250
    for image, mirrored in zip(moved, falls, strict=True):
        shift_of(image[0], 16, mirrored)  # raises unless all pixels agree
    straight = augment(numbered(50), torch_rng(), flip=False)
    assert all(bool(image[0, 8, 9] > image[0, 8, 7]) for image in straight)


def test_draws_come_from_the_generator_alone():
    first = augment(numbered(5), torch_rng(1), flip=True)
    torch.rand(3)
    assert torch.equal(augment(numbered(5), torch_rng(1), flip=True), first)
    assert not torch.equal(augment(numbered(5), torch_rng(2), flip=True), first)


@pytest.mark.parametrize("zoom", [1.0, 0.5])
def test_side_of_the_result(zoom):
    moved = views(numbered(3), draw_views(3, torch_rng()), flip=False, side=8, zoom=zoom)
    assert moved.shape == (3, 1, 8, 8)
    assert moved.is_contiguous(memory_format=torch.channels_last)


def test_zoomed_crops_lie_inside_the_image():
    """Zoomed crops show at least half of the side, magnified, and nothing from outside."""
    moved = views(numbered(100), draw_views(100, torch_rng()), flip=False, zoom=0.5)[:, 0]
    steps = (moved[:, 8, 10] - moved[:, 8, 6]) / 4  # source pixels a pixel
    assert float(steps.min()) >= 0.5 - 1e-3 and float(steps.max()) <= 1 + 1e-3
    assert float(steps.max() - steps.min()) > 0.3
    assert float(moved[:, 4:12, 4:12].min()) >= 1  # no grey within


def test_shrink_averages_and_keeps_what_has_the_size():
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    assert shrink(x, 8) is x
    small = shrink(x, 4)
    assert small.shape == (2, 3, 4, 4)
    assert torch.allclose(small.mean((2, 3)), x.mean((2, 3)))
    checkers = ((torch.arange(8)[:, None] + torch.arange(8)) % 2).float().expand(1, 3, 8, 8)
    assert shrink(checkers, 4).std() < 0.1 * checkers.std()  # antialiased, not sampled
