"""
Where to put class centers: Max-Mahalanobis centers and random ones. Pure functions on torch alone.

Max-Mahalanobis centers have equal norm and the largest possible smallest pairwise distance. For
`dim >= num_classes - 1` they are the vertices of a regular simplex around the origin, unique up to a rotation.

| Paper link: https://arxiv.org/abs/1802.09308 (MMLDA, Algorithm 1)
| Paper link: https://arxiv.org/abs/1905.10626 (MMC, C_MM is the norm of a center)
"""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch


def max_mahalanobis_centers(
    num_classes: int, dim: int, scale: float = 1.0, *, steps: int = 2000, seed: int = 0
) -> torch.Tensor:
    """
    Class centers of norm `scale` whose largest pairwise inner product is as small as it can be.

    For `dim >= num_classes - 1` in closed form (MMLDA, Algorithm 1): <mu_i, mu_j> = scale^2 for i = j and
    -scale^2 / (num_classes - 1) otherwise, lower triangular, trailing columns zero. Below that by gradient descent
    on a smooth maximum of the inner products, which finds a local optimum: with dim 2 the regular polygon
    (cos(2 pi / L)), for dim + 1 < L <= 2 dim the orthoplex' value 0.

    :param num_classes: Number of classes L, at least 2.
    :param dim: Dimension d of a center, at least 1; with d = 1 only two classes can be told apart.
    :param scale: Norm of every center (C_MM of the MMC paper; the square root of C of the MMLDA paper), positive.
    :param steps: Gradient steps of the numeric spread (used only for dim < num_classes - 1).
    :param seed: Seed of the numeric spread's start (used only for dim < num_classes - 1).
    :return: Centers of shape (num_classes, dim), float32, on the CPU.
    :raises ValueError: When no such centers exist.
    """
    _check(num_classes, dim, scale)
    _check_whole("steps", steps, 1)
    if dim == 1 and num_classes > 2:
        raise ValueError(
            f"dim=1: a line has room for two centers of equal norm, not for {num_classes}; use dim >= 2 "
            f"(the closed form needs dim >= {num_classes - 1})."
        )
    centers = _simplex(num_classes, dim) if dim >= num_classes - 1 else _spread(num_classes, dim, steps, seed)
    return (centers * scale).float()


def random_centers(num_classes: int, dim: int, scale: float = 1.0, *, seed: int = 0) -> torch.Tensor:
    """
    Centers of norm `scale` in independent uniform directions: the "MMC (rand)" row of the MMC paper. The authors' own
    distribution is not known; a standard normal vector, normalised, is uniform on the sphere.

    :param num_classes: Number of classes L, at least 2.
    :param dim: Dimension d of a center, at least 1.
    :param scale: Norm of every center, positive.
    :param seed: Seed; the global random state is not touched.
    :return: Centers of shape (num_classes, dim), float32, on the CPU.
    :raises ValueError: When an argument is out of range.
    """
    _check(num_classes, dim, scale)
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(num_classes, dim, dtype=torch.float64, device="cpu", generator=generator)
    return (torch.nn.functional.normalize(centers) * scale).float()


def _check(num_classes: int, dim: int, scale: float) -> None:
    _check_whole("num_classes", num_classes, 2)
    _check_whole("dim", dim, 1)
    if not (isinstance(scale, Real) and math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale: expected a positive number (the norm of a center), got {scale!r}.")


def _check_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}.")


def _simplex(num_classes: int, dim: int) -> torch.Tensor:
    """
    The unit simplex. Algorithm 1 of MMLDA fills row i from the rows before it; below the diagonal all entries of a
    column turn out equal, so column j is given by its diagonal entry alone and one loop over columns does.
    """
    centers = torch.zeros(num_classes, dim, dtype=torch.float64, device="cpu")
    off = -1.0 / (num_classes - 1)  # the wanted inner product of two centers
    norm = 0.0  # squared norm of the entries left of the diagonal, the same for all rows below
    for j in range(num_classes - 1):
        diagonal = math.sqrt(1.0 - norm)
        below = (off - norm) / diagonal
        centers[j, j] = diagonal
        centers[j + 1 :, j] = below
        norm += below * below
    return centers


@torch.inference_mode(False)
@torch.enable_grad()
def _spread(num_classes: int, dim: int, steps: int, seed: int) -> torch.Tensor:
    """Minimise max_{i != j} <mu_i, mu_j> through a log-sum-exp that sharpens as it goes."""
    generator = torch.Generator().manual_seed(seed)
    free = torch.randn(num_classes, dim, dtype=torch.float64, device="cpu", generator=generator).requires_grad_(True)
    optimizer = torch.optim.Adam([free], lr=0.1)
    self_pairs = 2.0 * torch.eye(num_classes, dtype=torch.float64, device="cpu")
    best, best_value = free.detach(), math.inf
    for step in range(steps):
        progress = step / steps
        optimizer.param_groups[0]["lr"] = 0.1 * 0.01**progress
        sharpness = 10.0 * 1000.0**progress
        centers = torch.nn.functional.normalize(free)
        inner = centers @ centers.T - self_pairs  # a center with itself: -1, never the largest
        value = inner.max().item()
        if value < best_value:
            best, best_value = centers.detach().clone(), value
        loss = torch.logsumexp(sharpness * inner.flatten(), dim=0) / sharpness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best
