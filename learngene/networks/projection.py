"""Project a prefix's features onto what tells classes apart: shrunk discriminant analysis.

The layers in front know what novel classes need, but spread it over many directions that do not
matter. Fisher's linear discriminant of the factory's own classes, in closed form, says which ones
matter: it whitens by the scatter within classes and keeps the directions between class means. One
matrix travels; means, covariance and images stay at the factory.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHRINKAGE = 1.0  # chosen on open-world classes
RANK = 1e-10  # of the largest ratio: below it a direction is rounding (float32's square is 1e-14)


class Projection(nn.Module):
    """Features (B, D) to (B, K): brought to length 1, centred, to length 1 again, projected. K is
    at most the number of classes it was fitted on, less one, and the rank of their means."""

    mean: Tensor  # (D,), of the factory's features at length 1
    matrix: Tensor  # (K, D)

    def __init__(self, features: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("matrix", torch.zeros(dimensions, features))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to (B, K)."""
        return F.linear(F.normalize(F.normalize(features) - self.mean), self.matrix)


@torch.no_grad()
def discriminant(features: Tensor, labels: Tensor, shrinkage: float) -> Projection:
    """Fisher's linear discriminant, the covariance within classes shrunk towards a sphere.

    Solves max_w (w' B w) / (w' (S + shrinkage v I) w) with B the covariance of the class means,
    S the pooled covariance within classes and v the mean of its variances (Friedman 1989;
    Ledoit and Wolf 2004 on the target). In both a class counts as one, however many images it has;
    the centre is the mean over images, of which the factory's last task has more than the others
    (``CollectiveTrainer.held_rows``).

    Args:
        features: (N, D), float32, not negative or centred in any way.
        labels: (N,), of at least two classes.
        shrinkage: above 0; the nearer to 0, the nearer to plain LDA, which needs more images than
            features.

    Returns:
        A projection to (number of classes - 1) dimensions, or as many as there are in which the
        class means differ (channels may be dead); rows ordered by their separation.

    Raises:
        ValueError: features do not differ within classes, or class means do not differ.
    """
    normal = F.normalize(features)
    mean = normal.mean(0)
    centred = F.normalize(normal - mean).double()
    classes = labels.unique()
    own = [centred[labels == label] for label in classes]
    means = torch.stack([images.mean(0) for images in own])
    apart = torch.cat(
        [(x - m) / math.sqrt(len(x) * len(own)) for x, m in zip(own, means, strict=True)]
    )  # (N, D), S = apart' apart
    between = means - means.mean(0)  # (C, D)
    if not (apart.any() and between.any()):
        raise ValueError("features do not differ within any class, or not between classes")
    ridge = shrinkage * apart.square().sum() / apart.shape[1]
    if len(apart) < apart.shape[1]:  # the inverse by Woodbury's identity: N x N in place of D x D
        factor = torch.linalg.cholesky(_ridged(apart @ apart.T, ridge))
        inside = torch.cholesky_solve(apart @ between.T, factor)
        solved = (between.T - apart.T @ inside) / ridge
    else:
        factor = torch.linalg.cholesky(_ridged(apart.T @ apart, ridge))
        solved = torch.cholesky_solve(between.T, factor)  # (S + ridge I)^-1 B', (D, C)
    ratios, mixtures = torch.linalg.eigh(between @ solved)  # rising; the first is 0
    lengths = ratios.clamp_min(torch.finfo(ratios.dtype).tiny).sqrt()
    rank = max(1, int((ratios > RANK * ratios[-1]).sum()))
    most = min(len(classes) - 1, centred.shape[1], rank)
    matrix = (solved @ (mixtures / lengths)).T.flip(0)[:most]
    projection = Projection(*reversed(matrix.shape))
    projection.mean.copy_(mean)
    # One scale for all: what follows looks at directions, and int8 and fp16 want numbers near 1.
    projection.matrix.copy_(matrix / matrix.square().mean().sqrt())
    return projection


def _ridged(matrix: Tensor, ridge: Tensor) -> Tensor:
    matrix.diagonal().add_(ridge)
    return matrix
