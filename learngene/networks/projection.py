"""Project a prefix's features onto what tells classes apart: shrunk discriminant analysis.

The layers in front know what novel classes need, but spread it over many directions that do not
matter. Fisher's linear discriminant of the factory's own classes, in closed form, says which ones
matter: it whitens by the scatter within classes and keeps the directions between class means. One
matrix travels; means, covariance and images stay at the factory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projection(nn.Module):
    """Features (B, D) to (B, K): brought to length 1, centred, to length 1 again, projected.

    Args:
        features: D.
        dimensions: K, at most the number of classes it was fitted on, less one.
    """

    mean: Tensor  # (D,), of the factory's features at length 1
    matrix: Tensor  # (K, D)

    def __init__(self, features: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("matrix", torch.zeros(dimensions, features))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(F.normalize(features) - self.mean), self.matrix)


@torch.no_grad()
def discriminant(features: Tensor, labels: Tensor, shrinkage: float) -> Projection:
    """Fisher's linear discriminant, the covariance within classes shrunk towards a sphere.

    Solves max_w (w' B w) / (w' (S + shrinkage v I) w) with B the covariance of the class means,
    S the pooled covariance within classes and v the mean of its variances (Friedman 1989;
    Ledoit and Wolf 2004 on the target). A class counts as one, however many images it has.

    Args:
        features: (N, D), float32, not negative or centred in any way.
        labels: (N,), of at least two classes.
        shrinkage: 0 is plain LDA, which needs more images than features.

    Returns:
        A projection to (number of classes - 1) dimensions, rows ordered by their separation.
    """
    normal = F.normalize(features)
    mean = normal.mean(0)
    centred = F.normalize(normal - mean).double()
    classes = labels.unique()
    within = torch.zeros(centred.shape[1], centred.shape[1], dtype=torch.float64)
    means = []
    for label in classes:
        own = centred[labels == label]
        means.append(own.mean(0))
        deviations = own - means[-1]
        within.addmm_(deviations.T, deviations, alpha=1 / (len(own) * len(classes)))
    between = torch.stack(means)
    between = between - between.mean(0)  # (C, D)
    within.diagonal().add_(shrinkage * within.diagonal().mean())
    factor = torch.linalg.cholesky(within)
    white = torch.linalg.solve_triangular(factor, between.T, upper=False)  # (D, C)
    directions = torch.linalg.svd(white, full_matrices=False).U[:, : len(classes) - 1]
    matrix = torch.linalg.solve_triangular(factor.T, directions, upper=True).T
    projection = Projection(*reversed(matrix.shape))
    projection.mean.copy_(mean)
    # One scale for all: what follows looks at directions, and int8 and fp16 want numbers near 1.
    projection.matrix.copy_(matrix / matrix.square().mean().sqrt())
    return projection
