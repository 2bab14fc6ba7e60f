"""
Where to put class centers: Max-Mahalanobis centers and random ones. Pure functions on torch alone.

Max-Mahalanobis centers have equal norm and the largest possible smallest pairwise distance. For
`dim >= num_classes - 1` they are the vertices of a regular simplex around the origin, unique up to a rotation; for more
classes spherical codes, of which few are known exactly.

| Paper link: https://arxiv.org/abs/1802.09308 (MMLDA, Algorithm 1)
| Paper link: https://arxiv.org/abs/1905.10626 (MMC, C_MM is the norm of a center)
"""

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

import torch

from art_mmc.checks import number, whole

#: additions and products that a numeric spread may take: about 3 seconds of a core
_OPERATIONS = 200_000_000_000


def max_mahalanobis_centers(
    num_classes: int, dim: int, scale: float = 1.0, *, steps: int | None = None, seed: int = 0
) -> torch.Tensor:
    """
    Class centers of norm `scale` whose largest pairwise inner product is as small as it can be, or nearly so.

    In closed form, and optimal, for `dim >= num_classes - 1` (MMLDA, Algorithm 1: the simplex, <mu_i, mu_j> =
    -scale^2 / (num_classes - 1) for i != j, lower triangular, trailing columns zero), for num_classes <= 2 dim
    (simplices in orthogonal subspaces, inner product 0) and for dim = 2 (the regular polygon, cosine
    cos(2 pi / num_classes)). Beyond that by steps that drive each center away from its nearest ones, to a local
    optimum; where so many centers leave time for few steps, by sequences of small correlation if they are better.
    :func:`largest_cosine` tells what was reached: 0.053 for 200 classes in 64 dimensions, 0.15 for 1000.

    :param num_classes: Number of classes L, at least 2.
    :param dim: Dimension d of a center, at least 1; with d = 1 only two classes can be told apart.
    :param scale: Norm of every center (C_MM of the MMC paper; the square root of C of the MMLDA paper), positive.
    :param steps: Steps of the numeric spread (used only for dim > 2 and num_classes > 2 dim); None for 2000, or as many
           as take a few seconds of one core.
    :param seed: Seed of the numeric spread's start (used only there).
    :return: Centers of shape (num_classes, dim), float32, on the CPU.
    :raises ValueError: When no such centers exist.
    """
    _check(num_classes, dim, scale)
    if steps is not None:
        whole("steps", steps)
    if dim == 1 and num_classes > 2:
        raise ValueError(
            f"dim=1: a line has room for two centers of equal norm, not for {num_classes}; use dim >= 2 "
            f"(the simplex needs dim >= {num_classes - 1})."
        )
    if num_classes <= 2 * dim:
        centers = _simplices(num_classes, dim)
    elif dim == 2:
        angles = torch.arange(num_classes, dtype=torch.float64, device="cpu") * (2 * math.pi / num_classes)
        centers = torch.stack([angles.cos(), angles.sin()], dim=1)
    else:
        centers = _spread(int(num_classes), int(dim), steps, seed)
    return (centers * scale).float()


def largest_cosine(centers: torch.Tensor) -> float:
    """
    How far a spread of centers is from the worst case, two centers in one place (1): the simplex has -1 / (L - 1), and
    more than d + 1 centers in d dimensions have at least 0.

    :param centers: Centers (L, d), L at least 2, on any device.
    :return: The largest cosine between two of them.
    """
    unit = torch.nn.functional.normalize(centers.detach().double(), dim=1)
    return max(inner.max().item() for _, inner in _inner_products(unit))


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
    whole("num_classes", num_classes, 2), whole("dim", dim), number("scale", scale)


def _simplices(num_classes: int, dim: int) -> torch.Tensor:
    """One unit simplex, or for L > d + 1 L - d of about equal size, in orthogonal subspaces."""
    count = max(1, num_classes - dim)
    sizes = [(num_classes + i) // count for i in range(count)]
    pad = torch.zeros(0, max(0, dim - num_classes + 1), dtype=torch.float64, device="cpu")
    return torch.block_diag(*(_simplex(size) for size in sizes), pad)


def _simplex(num_classes: int) -> torch.Tensor:
    """
    The unit simplex. Algorithm 1 of MMLDA fills row i from the rows before it; below the diagonal all entries of a
    column turn out equal, so column j is given by its diagonal entry alone and one loop over columns does.
    """
    centers = torch.zeros(num_classes, num_classes - 1, dtype=torch.float64, device="cpu")
    off = -1.0 / (num_classes - 1)  # the wanted inner product of two centers
    norm = 0.0  # squared norm of the entries left of the diagonal, the same for all rows below
    for j in range(num_classes - 1):
        diagonal = math.sqrt(1.0 - norm)
        below = (off - norm) / diagonal
        centers[j, j] = diagonal
        centers[j + 1 :, j] = below
        norm += below * below
    return centers


def _inner_products(unit: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Slices of rows (16 MB in float32), and their inner products with all rows; a center with itself: -1."""
    rows = max(1, 2**22 // len(unit))
    for start in range(0, len(unit), rows):
        inner = unit[start : start + rows] @ unit.T
        inner[:, start:].fill_diagonal_(-1.0)
        yield slice(start, start + rows), inner


@lru_cache(maxsize=4)  # a command line builds a network to check its options, and again to train it
@torch.inference_mode(False)
@torch.no_grad()
def _spread(num_classes: int, dim: int, steps: int | None, seed: int) -> torch.Tensor:
    """
    More than 2 d unit centers: each moves by falling angles away from the others' mean under a softmax that sharpens,
    which is the gradient of a smooth maximum of its inner products.
    """
    bounded = steps is None
    if steps is None:  # an element of the softmax takes the time of some 200 additions
        steps = min(2000, _OPERATIONS // (num_classes**2 * (4 * dim + 200)))
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(num_classes, dim, dtype=torch.float64, device="cpu", generator=generator)
    centers = torch.nn.functional.normalize(centers).float()
    momentum, away = torch.zeros_like(centers), torch.empty_like(centers)
    reach = min(0.3, num_classes ** (-1 / (dim - 1)))  # an angle below the distance of neighbours
    best, best_cosine = centers, 1.0
    for step in range(steps):
        progress = step / steps
        angle, sharpness = reach * 1e-4**progress, min(1e4**progress / reach**2, 1e6)
        cosine = -1.0
        for rows, inner in _inner_products(centers):
            cosine = max(cosine, inner.max().item())
            torch.mm(inner.mul_(sharpness).softmax(dim=1), centers, out=away[rows])
        if cosine < best_cosine:
            best, best_cosine = centers, cosine
        away -= (away * centers).sum(dim=1, keepdim=True) * centers
        momentum = torch.lerp(torch.nn.functional.normalize(away), momentum, 0.9)
        centers = torch.nn.functional.normalize(centers - angle * momentum)
    prime = next((p for p in range(dim // 2, 2, -1) if all(p % q for q in range(2, math.isqrt(p) + 1))), None)
    if prime and bounded:
        degree = next(degree for degree in itertools.count(2) if 4 * prime**degree >= num_classes)
        if degree < prime and (degree - 1) / math.sqrt(prime) < best_cosine:
            return _chirps(num_classes, dim, prime, degree)
    return torch.nn.functional.normalize(best.double())


def _chirps(num_classes: int, dim: int, prime: int, degree: int) -> torch.Tensor:
    """
    Up to 4 p^degree unit vectors of p complex elements i^j exp(2 pi i f(t) / p), f a polynomial without constant term:
    two of them have an inner product of at most (degree - 1) / sqrt(p), by Weil's bound on exponential sums.
    """
    index = torch.arange(num_classes, device="cpu")[:, None]
    t = torch.arange(prime, device="cpu")
    quarter, index = index % 4, index // 4
    power, phase = torch.ones_like(t), torch.zeros(num_classes, prime, dtype=torch.int64, device="cpu")
    for _ in range(degree):
        power = power * t % prime
        phase = (phase + index % prime * power) % prime
        index = index // prime
    angles = (phase.double() / prime + quarter.double() / 4) * (2 * math.pi)
    vectors = torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(prime)
    return torch.nn.functional.pad(vectors, (0, dim - 2 * prime))
