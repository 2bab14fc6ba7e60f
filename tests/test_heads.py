"""
Heads: the geometry of logits, temperature, centers, float types.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from art_mmc.defences import DEFENCES
from art_mmc.geometry import max_mahalanobis_centers, random_centers
from art_mmc.heads import (
    CenterTrackingHead,
    FixedCentersHead,
    GaussianMeansHead,
    LinearHead,
    ReversedLinearHead,
    UnitNormHead,
)

HEADS = {
    "linear": lambda d, k: LinearHead(d, k),
    "reversed": lambda d, k: ReversedLinearHead(d, k),
    "unit-norm": lambda d, k: UnitNormHead(d, k),
    "unit-norm-15": lambda d, k: UnitNormHead(d, k, logit_norm=15.0),
    "center": lambda d, k: CenterTrackingHead(d, k, center_rate=0.3),
    "fixed": lambda d, k: FixedCentersHead(d, k),
    "fixed-100": lambda d, k: FixedCentersHead(d, k, scale=100.0),
    "fixed-random": lambda d, k: FixedCentersHead(d, k, centers="random", center_seed=4),
    "fixed-t1": lambda d, k: FixedCentersHead(d, k, temperature=1.0),
    "gaussian": lambda d, k: GaussianMeansHead(d, k),
    "gaussian-t3": lambda d, k: GaussianMeansHead(d, k, temperature=3.0),
}
DISTANCE = [name for name in HEADS if name.startswith(("fixed", "gaussian"))]
FIXED = [name for name in HEADS if name.startswith("fixed")]
LINEAR = ["linear", "reversed", "center"]


def make(name, d=16, k=10, seed=0):
    torch.manual_seed(seed)
    return HEADS[name](d, k)


def features(d=16, batch=12, seed=1, scale=5.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(batch, d, generator=generator, dtype=torch.float64)).to(dtype)


def distance_oracle(z, centers, temperature):
    """`-||z - mu||^2 / (2 T)` in float64, sample by sample, class by class."""
    z, centers = z.detach().double().numpy(), centers.detach().double().numpy()
    return np.array([[-np.sum((row - mu) ** 2) / (2 * temperature) for mu in centers] for row in z])


def rounding(z, centers, temperature):
    """Eight units in the last place of float32, of the largest squared norm that enters a logit."""
    size = z.double().square().sum(dim=1).max() + centers.double().square().sum(dim=1).max()
    return 8 * 2.0**-24 * size.item() / (2 * temperature)


# ------------------------------------------------------------------------------------------------ distance logits


@pytest.mark.parametrize("name", DISTANCE)
def test_distance_logits(name):
    for d, k in ((1, 2), (16, 2), (9, 10), (16, 10), (200, 200)):
        for dtype in (torch.float64, torch.float32):
            head, z = make(name, d, k), features(d, dtype=dtype)
            logits, centers = head(z), head.centers.detach()
            assert logits.dtype == dtype
            close = {"rtol": 1e-12}
            if dtype == torch.float32:
                close = {"rtol": 0, "atol": rounding(z, centers, head.temperature)}
            expected = distance_oracle(z, centers, head.temperature)
            np.testing.assert_allclose(logits.detach().numpy(), expected, **close)


def test_distance_logits_by_hand():
    # centers (10, 0), (-10, 0), T = 10; z = (4, 3): -(36 + 9) / 20 = -2.25 and -(196 + 9) / 20 = -10.25
    assert FixedCentersHead(2, 2)(torch.tensor([[4.0, 3.0]])).tolist() == [[-2.25, -10.25]]


@pytest.mark.parametrize("name", DISTANCE)
def test_distance_gradient_of_features(name):
    """That is (mu_k - z) / T, near a center too, where the squared distance itself has lost its digits."""
    head = make(name)
    z = (head.centers.detach()[[3]] + 1e-3 * features(batch=1)).requires_grad_(True)
    head(z)[0, 3].backward()
    expected = (head.centers[3] - z[0]).detach().double() / head.temperature
    largest = head.centers.detach().abs().max().item()
    np.testing.assert_allclose(z.grad[0].numpy(), expected.numpy(), rtol=0, atol=2.0**-22 * largest / head.temperature)


# ---------------------------------------------------------------------------------------------------- temperature


@pytest.mark.parametrize("row", ["mmc", "mmlda", "lgm"])
def test_temperature_changes_no_prediction_no_loss_and_no_gradient(row):
    z, y = features(dtype=torch.float64), torch.arange(12) % 10
    results = []
    for t in (1.0, 0.5, 10.0, 1000.0):
        torch.manual_seed(0)
        head, loss = DEFENCES[row].build(16, 10, temperature=t)
        leaf = z.clone().requires_grad_(True)
        logits = head(leaf)
        value = loss(logits, y)
        value.backward()
        results.append((t * logits.detach(), value.detach(), leaf.grad))
    for logits, value, gradient in results[1:]:
        torch.testing.assert_close(logits, results[0][0], rtol=1e-12, atol=0)
        assert torch.equal(logits.argmax(dim=1), results[0][0].argmax(dim=1))
        torch.testing.assert_close(value, results[0][1], rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, results[0][2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("nb_classes", [2, 3, 10, 100, 1000])
def test_gaps_between_centers_suit_a_softmax(nb_classes):
    for scale, spare in ((10.0, -1), (100.0, 0), (10.0, 30)):
        head = FixedCentersHead(nb_classes + spare, nb_classes, scale)
        logits = head(head.centers).double()
        gaps = logits.diagonal()[:, None] - logits
        gaps = gaps[~torch.eye(nb_classes, dtype=torch.bool)]
        assert 10 <= gaps.min() <= gaps.max() <= 25
        np.testing.assert_allclose(gaps.numpy(), 10 * nb_classes / (nb_classes - 1), rtol=1e-5)


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_cross_entropy_has_a_gradient_at_a_center(scale):
    """
    The trap: raw distances at a norm of 10 are 111 apart, float32's softmax is one-hot there and its gradient exactly
    zero, so that an attack stops where it starts. The default temperature mends it.
    """
    gradients = {}
    for temperature in (1.0, None):
        head = FixedCentersHead(10, 10, scale, temperature=temperature)
        z = head.centers.clone().requires_grad_(True)
        functional.cross_entropy(head(z), torch.arange(10), reduction="sum").backward()
        gradients[temperature] = z.grad
    assert not gradients[1.0].any()
    assert gradients[None].any(dim=1).all()


# -------------------------------------------------------------------------------------------------- fixed centers


@pytest.mark.parametrize("name", FIXED)
def test_fixed_centers_are_a_buffer_that_no_reset_and_no_step_moves(name):
    head = make(name)
    assert dict(head.named_buffers())["centers"] is head.centers
    assert list(head.state_dict()) == ["centers"]
    assert list(head.parameters()) == []
    assert not head.centers.requires_grad
    assert head.needs_signed_features
    net, centers = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), head), head.centers.clone()
    weight = net[0].weight.detach().clone()
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert not torch.equal(net[0].weight, weight)
    assert torch.equal(head.centers, centers)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=0.1)
    functional.cross_entropy(net(features()), torch.arange(12) % 10).backward()
    optimizer.step()
    assert torch.equal(head.centers, centers)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((16, 10), {}, max_mahalanobis_centers(10, 16, 10.0)),
        ((16, 10), {"scale": 100.0}, max_mahalanobis_centers(10, 16, 100.0)),
        ((16, 10), {"scale": 7.0, "centers": "random", "center_seed": 3}, random_centers(10, 16, 7.0, seed=3)),
        ((3, 7), {"center_seed": 3}, max_mahalanobis_centers(7, 3, 10.0, seed=3)),
    ],
)
def test_fixed_centers_come_from_the_geometry(shape, options, expected):
    assert torch.equal(FixedCentersHead(*shape, **options).centers, expected)


# --------------------------------------------------------------------------------------------------- linear heads


@pytest.mark.parametrize("nb_classes", [2, 10, 200])
@pytest.mark.parametrize("name", [*LINEAR, "unit-norm", "unit-norm-15"])
def test_linear_logits(name, nb_classes):
    """`W z + b`; of a reversed head less that, of the heads of unit norm `r o / ||o||`."""
    head, z = make(name, k=nb_classes), features(dtype=torch.float64)
    weight, bias = (each.detach().double().numpy() for each in (head.linear.weight, head.linear.bias))
    o = z.numpy() @ weight.T + bias
    length = {"unit-norm": 1.0, "unit-norm-15": 15.0}.get(name)
    expected = -o if name == "reversed" else o if length is None else length * o / np.sqrt((o**2).sum(1)[:, None])
    logits = head(z)
    assert logits.dtype == torch.float64
    np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("name", HEADS)
def test_half_precision_features_are_computed_in_float32(name):
    """And autocast is off in the head."""
    head = make(name)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        z = features(dtype=dtype)
        expected = head(z)
        assert expected.dtype == torch.promote_types(dtype, torch.float32)
        assert torch.equal(expected, head(z.to(expected.dtype)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = head(z)
            assert torch.is_autocast_enabled("cpu")
            assert (features() @ features().T).dtype == torch.bfloat16
        assert logits.dtype == expected.dtype
        assert torch.equal(logits, expected)
    z = features(dtype=torch.bfloat16).requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        functional.cross_entropy(head(z), torch.arange(12) % 10).backward()
    assert z.grad.dtype == torch.bfloat16
    assert z.grad.any()
    assert torch.isfinite(z.grad).all()


# ------------------------------------------------------------------------------------------------- tracked centers


def test_center_update_by_hand():
    # alpha 1/2, c_0 = (0, 0), z = (3, 0), (0, 6): sum (c - z) = (-3, -6), over 1 + 2: (-1, -2), so c_0 = (0.5, 1)
    # c_1 = (4, 4), z = (0, 0): (4, 4) / 2 = (2, 2), so c_1 = (4, 4) - (1, 1) = (3, 3)
    head = CenterTrackingHead(2, 3, center_rate=0.5)
    head.centers.copy_(torch.tensor([[0.0, 0.0], [4.0, 4.0], [7.0, 7.0]]))
    head.update_centers(torch.tensor([[3.0, 0.0], [0.0, 6.0], [0.0, 0.0]]), torch.tensor([0, 0, 1]))
    assert head.centers.tolist() == [[0.5, 1.0], [3.0, 3.0], [7.0, 7.0]]


def test_tracked_centers_are_a_buffer_that_starts_at_the_origin_and_returns_there():
    head = CenterTrackingHead(16, 10)
    assert not head.centers.any()
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]
    assert "centers" in head.state_dict()
    assert head.center_rate == 0.5
    head.update_centers(features(), torch.arange(12) % 10)
    assert head.centers.any()
    head.reset_parameters()
    assert not head.centers.any()


def test_tracked_logits_carry_the_features():
    head, z = CenterTrackingHead(16, 10), features(dtype=torch.bfloat16)
    logits = head(z)
    assert logits.center_head is head
    assert torch.equal(logits.features, z.float())
    assert not head.centers.any()  # a forward alone moves nothing


# -------------------------------------------------------------------------------------------------- trained means


def test_means_are_trained_and_start_within_glorots_bound():
    head = make("gaussian", 100, 200)
    bound = (6 / (100 + 200)) ** 0.5
    assert 0.99 * bound < head.centers.abs().max() <= bound
    assert [name for name, _ in head.named_parameters()] == ["centers"]
    functional.cross_entropy(head(features(100)), torch.arange(12)).backward()
    assert head.centers.grad.any(dim=1).all()
    assert not head.needs_signed_features


@pytest.mark.parametrize("name", HEADS)
def test_copies_and_options_give_the_same_logits(name):
    head, z = make(name), features()
    torch.manual_seed(0)
    again = type(head)(16, 10, **head.options())
    assert again.options() == head.options()
    assert torch.equal(again(z), head(z))
    for key, value in head.options().items():
        assert type(value) in (int, float, str)
        assert f"{key}={value}" in repr(head)
    if name == "center":
        head.update_centers(z, torch.arange(12) % 10)
    expected, kept, state = head(z), z.clone(), torch.get_rng_state()
    for copied in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(copied(z), expected)
        assert copied.options() == head.options()
        assert torch.equal(getattr(copied, "centers", expected), getattr(head, "centers", expected))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(z, kept)
    other = make(name, seed=9)
    assert other.load_state_dict(head.state_dict()).missing_keys == []
    assert torch.equal(other(z), expected)
