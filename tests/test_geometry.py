"""
Class centers: the closed form, the numeric spread, random ones, and what is refused.
"""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from art_mmc import geometry
from art_mmc.bench.cases import algorithm_1
from art_mmc.geometry import largest_cosine, max_mahalanobis_centers, random_centers
from tests.conftest import left_alone


def gram(centers):
    """Inner products in float64 of the float32 centers."""
    return (centers.double() @ centers.double().T).numpy()


def test_simplex_gram_matrix():
    every_small = [(num_classes, -1, 10.0) for num_classes in range(2, 65)]
    for num_classes, spare, scale in [*every_small, (2, 0, 1.0), (3, 7, 100.0), (1000, -1, 1.0), (1000, 0, 10.0)]:
        centers = max_mahalanobis_centers(num_classes, num_classes + spare, scale)
        assert centers.shape == (num_classes, num_classes + spare)
        assert centers.dtype == torch.float32
        assert not centers.requires_grad
        expected = (np.eye(num_classes) * num_classes - 1) / (num_classes - 1)
        assert np.abs(gram(centers) / scale**2 - expected).max() <= 1e-6, num_classes


def test_simplex_equals_algorithm_1():
    """MMLDA's own, entry by entry: the same vertices in the same rotation, not just the same Gram matrix."""
    for num_classes, dim in ((2, 2), (3, 3), (10, 10), (10, 64), (50, 50)):
        expected = 10 * algorithm_1(num_classes, dim)
        # the last diagonal entry is 0 up to the root of float64's round-off in the paper's own recursion
        actual = max_mahalanobis_centers(num_classes, dim, 10.0).numpy()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6)


def test_simplex_by_hand():
    # L = 2: opposite points. L = 3, norm 2: 2 (1, 0), 2 (-1/2, +-sqrt(3)/2) = (2, 0), (-1, 1.7320508), (-1, -1.7320508)
    assert max_mahalanobis_centers(2, 1, 3.0).tolist() == [[3.0], [-3.0]]
    expected = [[2.0, 0.0, 0.0], [-1.0, 1.7320508, 0.0], [-1.0, -1.7320508, 0.0]]
    np.testing.assert_allclose(max_mahalanobis_centers(3, 3, 2.0).numpy(), expected, rtol=0, atol=2e-7)


def test_plane_is_the_regular_polygon():
    for num_classes in (5, 7, 10, 20, 300):
        cosine = largest_cosine(max_mahalanobis_centers(num_classes, 2))
        assert cosine == pytest.approx(math.cos(2 * math.pi / num_classes), abs=1e-6)


@pytest.mark.parametrize(("num_classes", "dim"), [(4, 2), (5, 3), (6, 3), (8, 4), (10, 5), (50, 40), (1000, 512)])
def test_up_to_twice_the_dimension_at_right_angles(num_classes, dim):
    """For dim + 1 < L <= 2 dim nothing does better than 0; L - d simplices of nearly the same size reach it."""
    centers = max_mahalanobis_centers(num_classes, dim, 10.0)
    inner = gram(centers) / 100
    assert np.abs(np.diag(inner) - 1).max() < 1e-6
    sizes = (inner < -1e-3).sum(axis=1) + 1  # of the simplex that a center is of
    assert np.abs(np.where(inner < -1e-3, inner * (1 - sizes[:, None]), 1) - 1).max() < 1e-6
    assert np.abs(inner[(inner > -1e-3) & (inner < 0.5)]).max() < 1e-7
    assert (1 / sizes).sum() == pytest.approx(num_classes - dim)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(
    ("num_classes", "dim", "optimum"),
    # the square antiprism among them (8 points), the icosahedron (12), and the 27 lines of a cubic surface; angles of
    # 77.8695 and 74.8585 degrees, the best known of 7 and 8 points on a sphere
    [(7, 3, 0.210138), (8, 3, 0.261204), (12, 3, 1 / math.sqrt(5)), (10, 4, 1 / 6), (27, 6, 1 / 4)],
)
def test_spread_finds_known_optima(num_classes, dim, optimum):
    assert optimum - 1e-5 < largest_cosine(max_mahalanobis_centers(num_classes, dim)) < optimum + 1e-4


@pytest.mark.parametrize(
    ("num_classes", "dim", "cosine"),  # what 2000 steps of Adam on the log-sum-exp reach, in ten times the time
    [(20, 8, 0.1211), (50, 20, 0.0711), (200, 64, 0.0528)],
)
def test_spread_of_many_is_good(num_classes, dim, cosine):
    assert 0 < largest_cosine(max_mahalanobis_centers(num_classes, dim, seed=1)) < cosine


@pytest.mark.parametrize(
    ("num_classes", "dim", "bound"),
    # p = 13 and 17 complex elements, quadratic and cubic; random directions have 0.7 and 0.6
    [(600, 27, 1 / math.sqrt(13)), (1500, 34, 2 / math.sqrt(17))],
)
def test_too_many_for_steps_have_a_bound(num_classes, dim, bound, monkeypatch):
    monkeypatch.setattr(geometry, "_OPERATIONS", 10**7)
    geometry._spread.cache_clear()
    centers = max_mahalanobis_centers(num_classes, dim)
    assert centers.shape == (num_classes, dim)
    np.testing.assert_allclose(centers.double().norm(dim=1), 1.0, rtol=1e-6)
    assert 0 < largest_cosine(centers) <= bound + 1e-6 < largest_cosine(random_centers(num_classes, dim))


def test_spread_is_the_seeds():
    first, other = (max_mahalanobis_centers(7, 3, steps=20, seed=seed) for seed in (1, 2))
    geometry._spread.cache_clear()
    assert torch.equal(max_mahalanobis_centers(7, 3, steps=20, seed=1), first)
    assert not torch.allclose(first, other, atol=1e-2)


def test_what_is_kept_of_a_spread_is_out_of_reach():
    expected = max_mahalanobis_centers(7, 3, steps=20).clone()
    max_mahalanobis_centers(7, 3, steps=20).zero_()
    assert torch.equal(max_mahalanobis_centers(7, 3, steps=20), expected)


def test_largest_cosine_by_hand():
    # (3, 0), (0, 2), (-1, 1): 0 between the first two, 1 / sqrt(2) between the last two, -1 / sqrt(2) else
    assert largest_cosine(torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])) == pytest.approx(math.sqrt(0.5))
    assert largest_cosine(torch.tensor([[3.0], [-1.0]])) == -1.0


def test_random_centers_have_their_norm_and_are_the_seeds():
    for num_classes, dim, scale in ((2, 1, 1.0), (10, 3, 10.0), (10, 64, 1.0), (1000, 64, 10.0)):
        centers = random_centers(num_classes, dim, scale)
        assert (centers.shape, centers.dtype) == ((num_classes, dim), torch.float32)
        np.testing.assert_allclose(centers.double().norm(dim=1), scale, rtol=1e-6)
    assert torch.equal(random_centers(10, 64, seed=5), random_centers(10, 64, seed=5))
    for other in (random_centers(10, 64, seed=6), max_mahalanobis_centers(10, 64)):
        assert not torch.allclose(random_centers(10, 64, seed=5), other, atol=1e-2)


def test_random_centers_point_everywhere():
    """Of uniform directions in d dimensions the mean is 0 and the covariance 1 / d; 6 standard errors at 20,000."""
    centers = random_centers(20_000, 4).double()
    assert centers.mean(dim=0).abs().max() < 6 * 0.5 / math.sqrt(20_000)
    assert (centers.T @ centers / 20_000 - torch.eye(4) / 4).abs().max() < 6 * 0.25 / math.sqrt(20_000)


@contextmanager
def doubles():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, doubles, lambda: torch.device("meta"), lambda: left_alone(nn.Identity())],
    ids=["no_grad", "inference_mode", "float64", "meta", "left alone"],
)
@pytest.mark.parametrize("dim", [6, 4, 3, 2], ids=["simplex", "simplices", "spread", "polygon"])
def test_circumstances_do_not_matter(dim, around):
    """Centers are float32 on the CPU whatever torch's defaults are, and nothing is left changed."""
    expected = max_mahalanobis_centers(7, dim, steps=20), random_centers(7, dim)
    geometry._spread.cache_clear()
    with around():
        before = torch.is_grad_enabled()
        got = max_mahalanobis_centers(7, dim, steps=20), random_centers(7, dim)
        assert torch.is_grad_enabled() == before
    for a, b in zip(got, expected, strict=True):
        assert (a.device.type, a.dtype) == ("cpu", torch.float32)
        assert torch.equal(a, b)


MISTAKES = {
    "num_classes: expected a whole number of at least 2": [1, 0, -4, 2.5, 10.0, True, "ten", None, math.nan],
    "dim: expected a whole number of at least 1": [0, -2, 2.0],
    "scale: expected a positive number": [0, -1.0, math.nan, math.inf, "10"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_impossible_arguments(message):
    name = message.split(":")[0]
    for value in MISTAKES[message]:
        for make in (max_mahalanobis_centers, random_centers):
            with pytest.raises(ValueError, match=f"{message}.* got {value!r}"):
                make(**{"num_classes": 3, "dim": 3, name: value})
    with pytest.raises(ValueError, match="dim=1: a line has room for two centers .* not for 3; .* needs dim >= 2"):
        max_mahalanobis_centers(3, 1)
    for steps in (0, -1, 1.5, True, "many"):
        with pytest.raises(ValueError, match=f"steps: expected a whole number of at least 1, got {steps!r}"):
            max_mahalanobis_centers(5, 2, steps=steps)
