"""
The network of a defended classifier: normalisation inside, input types, features, projection, copies.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from art_mmc.defences import DEFENCES
from art_mmc.heads import FixedCentersHead
from art_mmc.models import DefendedNet, Normalize
from tests.conftest import THREE

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.5]


class Backbone(nn.Module):
    """Three channels to six features, with batch statistics and a ReLU, as the real ones have."""

    out_features = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3))


class Mean(nn.Module):
    """No parameters at all."""

    out_features = 3

    def forward(self, x):
        return x.mean(dim=(2, 3))


def make(row="sce", mean=MEAN, std=STD, projection=None, nb_classes=4, seed=0):
    torch.manual_seed(seed)
    head, _ = DEFENCES[row].build(projection or 6, nb_classes)
    net = DefendedNet(Backbone(), head, mean, std, projection).eval()
    with torch.no_grad():
        net.backbone.norm.running_mean.uniform_(-0.1, 0.1)
    return net


def images(dtype=torch.float32, n=5):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def test_normalize_without_effect_copies_nothing():
    x = images()
    assert Normalize()(x) is Normalize(0 * torch.tensor(MEAN), [1.0, 1.0, 1.0])(x) is x
    assert not torch.equal(Normalize(0.1)(x), x)
    assert not torch.equal(Normalize(0.0, 2.0)(x), x)
    assert not list(Normalize(MEAN, STD).parameters())


@pytest.mark.parametrize(
    ("row", "dtype"),
    [
        *((row, torch.float64) for row in THREE),
        ("sce", torch.float16),
        ("sce", torch.bfloat16),
        ("sce", torch.uint8),
        ("sce", torch.int64),
    ],
    ids=str,
)
def test_input_is_cast(row, dtype):
    net, x = make(row), (3 * images(torch.float64)).to(dtype)
    leaf = x.requires_grad_(dtype.is_floating_point)
    logits = net(leaf)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, net(x.float()))
    if dtype.is_floating_point:
        logits.sum().backward()
        assert leaf.grad.dtype == dtype
        assert leaf.grad.any()


def test_a_float64_network_computes_in_float64():
    net, x = make().double(), images(torch.float64)
    logits = net(x)
    assert logits.dtype == torch.float64
    assert torch.equal(net(x.float()), net(x.float().double()))
    torch.testing.assert_close(logits.float(), net.float()(x), rtol=1e-4, atol=1e-5)


def test_a_network_without_parameters():
    net = DefendedNet(Mean(), FixedCentersHead(3, 4))
    assert list(net.parameters()) == []
    assert net(images(torch.float64)).dtype == torch.float32
    assert torch.equal(net(images(torch.float64)), net(images()))


@pytest.mark.parametrize(("row", "projection"), [("mmc", 9), ("rce", None), ("center", None)])
def test_forward_is_the_head_on_the_features(row, projection):
    net, x = make(row, projection=projection), images()
    z = net.features(x)
    assert z.shape == (5, projection or 6)
    assert net(x).shape == (5, 4)
    assert torch.equal(net(x), net.head(z))
    parts = net.backbone((x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
    if projection:
        parts = functional.linear(parts, net.projection.weight, net.projection.bias)
    torch.testing.assert_close(z, parts, rtol=1e-5, atol=1e-6)


def test_projection():
    """A linear layer: features after a ReLU reach either sign."""
    net = make(projection=9)
    assert type(net.projection) is nn.Linear
    assert (net.projection.in_features, net.projection.out_features) == (6, 9)
    assert type(make().projection) is nn.Identity
    assert {"projection.weight", "projection.bias"} <= dict(net.named_parameters()).keys()
    assert (make().features(images()) >= 0).all()
    assert (net.features(images()) < 0).any()


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
@pytest.mark.parametrize("mean", [torch.tensor(MEAN), images(n=1)[0]], ids=["a channel", "an element"])
def test_loading_a_state_switches_the_normalisation(mean, assign):
    """From none to some and back: the short cut for no normalisation must follow the loaded numbers and shapes."""
    x = images()
    some, none = Normalize(mean, STD[0]), Normalize(0 * mean, 1.0)
    state_some, state_none = copy.deepcopy(some.state_dict()), copy.deepcopy(none.state_dict())
    expected = some(x)
    none.load_state_dict(state_some, assign=assign)
    assert torch.equal(none(x), expected)
    some.load_state_dict(state_none, assign=assign)
    assert torch.equal(some(x), x)
    for copied in (copy.deepcopy(none), pickle.loads(pickle.dumps(none))):
        assert torch.equal(copied(x), expected)
