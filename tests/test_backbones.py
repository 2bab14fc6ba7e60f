"""
The backbones: published sizes and depths, shapes, options, rebuilding from a recipe, and wrapping a user's module.
"""

from __future__ import annotations

import copy
import inspect
import json

import pytest
import torch
from torch import nn

from art_mmc.models.backbones import ACTIVATIONS, BACKBONES, create_backbone
from art_mmc.models.base import WrappedBackbone, wrap_backbone
from art_mmc.models.resnets import PadShortcut
from tests.conftest import left_alone

NAMES = list(BACKBONES)
# real weights and a real forward only where that takes no time
SMALL = ["cnn", "lenet5", "cnn3", "resnet20", "mmc-resnet32v1", "mmc-resnet32v2", "rce-resnet32", "isce-resnet32"]
LINEAR = ["mmc-resnet32v1", "mmc-resnet110v1", "mmc-resnet32v2", "mmc-resnet110v2", "isce-resnet32"]


def on_meta(name, input_shape, **options):
    """A net without weights, for counting and for shapes."""
    with torch.device("meta"):
        return create_backbone(name, input_shape, **options)


def least_shape(name, channels=3):
    return (channels, BACKBONES[name].min_size, BACKBONES[name].min_size)


def count(module):
    return sum(p.numel() for p in module.parameters())


CIFAR = (3, 32, 32)

#: trainable parameters of the backbone and a Linear(d, K) head; the number of layers with the head. Max-Mahalanobis
#: centers are not trained, so there is no head to count: the backbone with its linear layer, no moving statistics
SIZES = [
    ("lenet5", (1, 28, 28), 10, 61_706, 5),
    ("cnn3", (1, 28, 28), 10, 123_222, 5),
    ("resnet20", CIFAR, 10, 269_722, 20),
    ("resnet32", CIFAR, 10, 464_154, 32),
    ("resnet56", CIFAR, 10, 853_018, 56),
    ("resnet110", CIFAR, 10, 1_727_962, 110),
    ("vgg13", CIFAR, 10, 9_678_666, 12),  # one hidden FC layer instead of VGG-13's two
    ("vgg13", (3, 64, 64), 200, 10_562_568, 12),
    ("rce-resnet32", CIFAR, 10, 464_154, 32),
    ("rce-resnet56", CIFAR, 10, 853_018, 56),
    ("isce-resnet32", CIFAR, 10, 464_154 + 64 * 64 + 64, 32 + 1),  # + 1: the linear layer for the features
    ("preact-resnet18", CIFAR, 10, 11_172_170, 18),
    ("wrn-28-10", CIFAR, 10, 36_479_194, 26),  # the name counts the three projections and not the head
    ("wrn-34-10", CIFAR, 10, 46_160_474, 32),
    ("mmc-resnet32v1", CIFAR, 0, 471_456, 32 + 1),
    ("mmc-resnet110v1", CIFAR, 0, 1_738_176, 110 + 1),
    ("mmc-resnet32v2", CIFAR, 0, 1_453_376, 47 + 1),
    ("mmc-resnet110v2", CIFAR, 0, 5_004_768, 164 + 1),
]


@pytest.mark.parametrize(("name", "input_shape", "nb_classes", "parameters", "depth"), SIZES)
def test_parameters_and_depth_of_the_main_path(name, input_shape, nb_classes, parameters, depth):
    backbone = on_meta(name, input_shape)
    assert count(backbone) + nb_classes * (backbone.out_features + 1) == parameters
    layers = [
        path
        for path, module in backbone.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and ".shortcut" not in path
    ]
    assert len(layers) + 1 == depth
    if name.endswith("v2"):  # another depth than in the name is told
        assert str(depth - 1) in BACKBONES[name].description


@pytest.mark.parametrize("name", NAMES)
def test_shapes_on_any_size_and_channels(name):
    size = BACKBONES[name].min_size
    for shape in [(1, size, size), (2, size + 1, size + 7)]:
        backbone = on_meta(name, shape)
        z = backbone.eval()(torch.zeros(5, *shape, device="meta"))
        assert z.shape == (5, backbone.out_features)
    assert backbone.linear_output == (name in LINEAR)
    assert f"d = {backbone.out_features}" in BACKBONES[name].description


@pytest.mark.parametrize("name", SMALL)
def test_features_are_finite_and_of_the_promised_sign(name):
    torch.manual_seed(0)
    shape = least_shape(name)
    backbone = create_backbone(name, shape)
    z = backbone(torch.randn(4, *shape))
    assert z.shape == (4, backbone.out_features)
    assert z.isfinite().all()
    assert z.std() > 0
    if name in LINEAR:
        assert (z < 0).any()
    elif not name.startswith("rce"):  # a leaky ReLU
        assert (z >= 0).all()
    z.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_recipe_rebuilds_the_net(name):
    options = {"activation": "softplus", "beta": 4.0}
    options |= {"out_features": 99} if name.startswith("mmc") else {}
    options |= {"dropout": 0.25} if name == "vgg13" else {}
    backbone = on_meta(name, (1, 32, 32), **options)
    recipe = json.loads(json.dumps(backbone.recipe))
    assert recipe == {"name": name, "input_shape": [1, 32, 32], "options": options}
    again = on_meta(recipe["name"], recipe["input_shape"], **recipe["options"])
    assert again.recipe == recipe
    assert repr(again) == repr(backbone)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in backbone.state_dict().items()}


@pytest.mark.parametrize("name", [name for name in NAMES if "110" not in name and "56" not in name])
def test_activation_option_keeps_the_weights_names(name):
    default = on_meta(name, (3, 32, 32))
    for activation, options in (("softplus", {"beta": 9.0}), ("leaky_relu", {})):
        other = on_meta(name, (3, 32, 32), activation=activation, **options)
        assert list(other.state_dict()) == list(default.state_dict())
        used = [m for m in other.modules() if type(m).__module__ == "torch.nn.modules.activation"]
        assert {type(each) for each in used} == {type(ACTIVATIONS[activation]())}
        assert {getattr(each, "beta", 9.0) for each in used} == {9.0}


def test_option_a_shortcut_by_hand():
    x = torch.arange(50.0).reshape(1, 2, 5, 5)
    shortcut = PadShortcut(2, 4, stride=2)
    assert count(shortcut) == 0
    z = shortcut(x)
    assert z.shape == (1, 4, 3, 3)  # an odd size is rounded up, as by the strided convolution
    assert torch.equal(z[:, 1:3], x[:, :, ::2, ::2])
    assert not z[:, [0, 3]].any()
    pooled = PadShortcut(2, 4, stride=2, pool=2)(x[..., :4, :4])
    assert pooled[0, 1, 0, 0] == (0 + 1 + 5 + 6) / 4


def test_shortcut_parameters_and_batch_norm_constants():
    # a projection: weight and bias, in two places, without normalisation
    for name, parameters, eps, momentum in (
        ("resnet20", 0, 1e-5, 0.1),
        ("rce-resnet32", 0, 1e-3, 0.1),
        ("mmc-resnet32v1", 2 * 2, 1e-3, 0.01),
    ):
        net = on_meta(name, CIFAR)
        assert len([key for key, _ in net.named_parameters() if ".shortcut" in key]) == parameters
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(m.eps, m.momentum) for m in norms} == {(eps, momentum)}


def test_he_init_survives_the_reset_of_the_host():
    torch.manual_seed(0)
    backbone = create_backbone("mmc-resnet32v2", (3, 8, 8))
    before = copy.deepcopy(backbone.state_dict())
    for module in backbone.modules():  # what ART's `reset` does
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert not any(torch.equal(p, before[name]) for name, p in backbone.named_parameters() if p.ndim > 1)
    for module in backbone.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.2)
            assert not module.bias.any()


@pytest.mark.parametrize("name", NAMES)
def test_an_input_too_small_is_refused(name):
    channels, size, _ = least_shape(name)
    with pytest.raises(ValueError, match=f"'{name}' needs inputs of at least {size}x{size}"):
        on_meta(name, (channels, size + 9, size - 1))


def test_rows_are_complete():
    for name, row in BACKBONES.items():
        assert row.description, name
        assert row.source, name
        assert "\n" not in row.description
        assert "input_shape" in inspect.signature(row.build).parameters
        assert "activation" in row.option_names()


# ---------------------------------------------------------------------------------------------- a user's own module


@pytest.mark.parametrize(
    ("module", "width"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 7)), 7),
        (nn.Conv2d(3, 5, 3), 5 * 2 * 2),  # a map is flattened
        (nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1)), 5),
        (nn.Flatten(), 48),  # no parameters
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 7)).double(), 7),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(6)), 6),
    ],
)
def test_wrap_finds_the_width(module, width):
    backbone = wrap_backbone(module, (3, 4, 4))
    assert backbone.out_features == width
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    assert backbone(torch.zeros(3, 3, 4, 4, dtype=dtype)).shape == (3, width)
    assert not backbone.linear_output  # never guessed


def test_wrap_leaves_no_trace():
    class Noisy(nn.Module):
        """Draws random numbers in eval mode too."""

        def forward(self, x):
            return x + torch.rand_like(x)

    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), Noisy(), nn.Conv2d(4, 2, 1))
    module[1].eval()  # a frozen BatchNorm in a training net keeps its own flag
    module[4].weight.requires_grad_(False)
    with left_alone(module):
        backbone = wrap_backbone(module, (3, 8, 8))
    assert backbone.training
    assert not wrap_backbone(module.eval(), (3, 8, 8)).training


def test_wrap_returns_a_backbone_unchanged():
    backbone = create_backbone("cnn", (1, 8, 8))
    assert wrap_backbone(backbone, (1, 8, 8)) is backbone
    wrapped = wrap_backbone(nn.Flatten(), (1, 8, 8))
    assert isinstance(wrapped, WrappedBackbone)
    assert wrap_backbone(wrapped, (1, 8, 8)) is wrapped
    with pytest.raises(ValueError, match="gives 64 features"):
        wrap_backbone(backbone, (1, 8, 8), out_features=10)


class Returns(nn.Module):
    """Returns what a function makes of the input."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.dropout = nn.Dropout()

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: (x, x), TypeError, "returned a tuple.*picks the features"),
        (lambda x: [x], TypeError, "returned a list"),
        (lambda x: {"features": x}, TypeError, "returned a dict"),
        (lambda x: x.flatten(1).argmax(1, keepdim=True), TypeError, "floating features, the module returned torch.int"),
        (lambda x: x.mean(dim=(1, 2, 3)), ValueError, r"shape \(2,\) for a batch of 2"),
        (lambda x: x.flatten(), ValueError, "nn.Flatten"),
        (lambda x: x.transpose(0, 1), ValueError, "batch as the first dimension"),
        (lambda x: x @ torch.zeros(7, 7), ValueError, r"refused inputs of shape \(2, 3, 4, 4\).*Is input_shape"),
    ],
)
def test_wrap_says_what_came(function, error, message):
    module = Returns(function)
    module.dropout.eval()
    with pytest.raises(error, match=message):
        wrap_backbone(module, (3, 4, 4))
    assert module.training
    assert not module.dropout.training
