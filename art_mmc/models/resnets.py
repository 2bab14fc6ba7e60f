"""
Residual nets of the papers. All of them are a stem, stages of :class:`Residual` units, each stage after the first
halving the map, and a global average pooling, so that any input of 8x8 or more will do. They differ in what a unit
computes (:func:`post_activation`, :func:`pre_activation`) and in how its shortcut follows a change of shape.

Weights are drawn as He et al. say (normal, fan-in). Where a release came from TensorFlow, its "same" padding of a
strided convolution is one pixel at the bottom and the right; here it is one pixel on every side.

| Paper link: https://arxiv.org/abs/1512.03385 (ResNet)
| Paper link: https://arxiv.org/abs/1603.05027 (pre-activation ResNet)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from art_mmc.models.base import Activation, Backbone

#: (channels in, channels out, stride, whether it is the net's first) -> unit
Unit = Callable[[int, int, int, bool], nn.Module]
#: (channels in, channels out, stride) -> layers
Path = Callable[[int, int, int], nn.Module]

#: slope 0.1 is the RCE paper's; it stands for "leaky_relu" everywhere
LeakyReLU = partial(nn.LeakyReLU, 0.1)


class HeConv2d(nn.Conv2d):
    """A convolution that draws its weights as He et al. do, also when ART's `reset()` asks for it."""

    def reset_parameters(self) -> None:
        """Draw the weights anew; the bias is zero."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class HeLinear(nn.Linear):
    """A linear layer that draws its weights as He et al. do, also when ART's `reset()` asks for it."""

    def reset_parameters(self) -> None:
        """Draw the weights anew; the bias is zero."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.bias)


class Residual(nn.Module):
    """One unit: `after(branch(h) + shortcut(h))` with `h = before(x)`; None for the identity."""

    def __init__(
        self,
        branch: nn.Module,
        shortcut: nn.Module | None = None,
        before: nn.Module | None = None,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.before = nn.Identity() if before is None else before
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.after = nn.Identity() if after is None else after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to map (B, C', H', W')."""
        h = self.before(x)
        return self.after(self.branch(h) + self.shortcut(h))


class PadShortcut(nn.Module):
    """Average pooling over `pool` pixels' side (1: option A), new channels of zeros, half of them on either side."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, pool: int = 1) -> None:
        super().__init__()
        # as a strided 3x3 convolution does, an odd size is rounded up
        self.pool = nn.AvgPool2d(pool, stride, ceil_mode=True)
        extra = out_channels - in_channels
        self.pad = (0, 0, 0, 0, extra // 2, extra - extra // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to map (B, C', H', W')."""
        return F.pad(self.pool(x), self.pad)


@dataclass(frozen=True)
class Layers:
    """What one net is made of: makers of an activation and, by channels, a normalisation; biases or none."""

    activation: Activation
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    bias: bool = False

    def conv(self, into: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        """A convolution that keeps the size but for the stride; the kernel is odd."""
        return HeConv2d(into, out, kernel, stride, padding=kernel // 2, bias=self.bias)

    def projection(self, into: int, out: int, stride: int) -> nn.Module:
        """A 1x1 convolution, the shortcut where the shape changes."""
        return self.conv(into, out, 1, stride)

    def norm_act(self, channels: int) -> nn.Sequential:
        """Normalisation and activation."""
        return nn.Sequential(self.norm(channels), self.activation())

    def stem(self, into: int, out: int) -> nn.Sequential:
        """Convolution, normalisation, activation."""
        return nn.Sequential(self.conv(into, out), *self.norm_act(out))

    def basic(self, into: int, out: int, stride: int) -> nn.Sequential:
        """Two 3x3 convolutions, the first with the stride, with normalisation and activation between."""
        return nn.Sequential(self.conv(into, out, 3, stride), *self.norm_act(out), self.conv(out, out))


def post_activation(layers: Layers, shortcut: Path) -> Unit:
    """The unit of the first ResNet paper, activation after the sum; `shortcut` is for where the shape changes."""

    def unit(into: int, out: int, stride: int, first: bool) -> nn.Module:
        branch = nn.Sequential(*layers.basic(into, out, stride), layers.norm(out))
        changes = into != out or stride != 1
        return Residual(branch, shortcut(into, out, stride) if changes else None, after=layers.activation())

    return unit


def pre_activation(layers: Layers, branch: Path, shortcut: Path, shared: bool = False) -> Unit:
    """
    The unit of the second ResNet paper, normalisation and activation, which the first unit has from the stem, before
    the convolutions of `branch`; `shortcut` starts from the activated map if it is `shared`, else from the raw one.
    """

    def unit(into: int, out: int, stride: int, first: bool) -> nn.Module:
        before = nn.Identity() if first else layers.norm_act(into)
        path = branch(into, out, stride)
        if into == out and stride == 1:
            return Residual(nn.Sequential(before, path))
        if shared:
            return Residual(path, shortcut(into, out, stride), before=before)
        return Residual(nn.Sequential(before, path), shortcut(into, out, stride))

    return unit


def stages(unit: Unit, into: int, widths: tuple[int, ...], blocks: int) -> nn.Sequential:
    """The units in sequence, `blocks` a stage; all stages but the first halve the map, of `into` channels at first."""
    units = []
    for stage, out in enumerate(widths):
        for block in range(blocks):
            units.append(unit(into, out, 2 if stage and not block else 1, not stage and not block))
            into = out
    return nn.Sequential(*units)


def global_pool() -> nn.Sequential:
    """The mean over the map, (B, C, H, W) -> (B, C)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def cifar_resnet(input_shape: tuple[int, int, int], *, blocks: int, activation: Activation = nn.ReLU) -> Backbone:
    """ResNet for CIFAR (Section 4.2 of the first paper): basic units, option-A shortcuts, widths 16, 32, 64; d = 64."""
    layers = Layers(activation)
    return Backbone(
        64,
        stem=layers.stem(input_shape[0], 16),
        stages=stages(post_activation(layers, PadShortcut), 16, (16, 32, 64), blocks),
        pool=global_pool(),
    )


def _keras(activation: Activation) -> Layers:
    """Layers with the defaults of Keras, in which the MMC release was written; its momentum of 0.99 is 0.01 here."""
    return Layers(activation, partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01), bias=True)


def mmc_resnet_v1(
    input_shape: tuple[int, int, int], *, blocks: int, activation: Activation = nn.ReLU, out_features: int = 64
) -> Backbone:
    """MMC's version 1: basic units, and a linear layer, so that features reach centers with negative coordinates."""
    layers = _keras(activation)
    return Backbone(
        out_features,
        linear_output=True,
        stem=layers.stem(input_shape[0], 16),
        stages=stages(post_activation(layers, layers.projection), 16, (16, 32, 64), blocks),
        pool=global_pool(),
        fc=HeLinear(64, out_features),
    )


def mmc_resnet_v2(
    input_shape: tuple[int, int, int], *, blocks: int, activation: Activation = nn.ReLU, out_features: int = 256
) -> Backbone:
    """MMC's version 2: pre-activation bottleneck units and a linear layer, of width d as in :func:`mmc_resnet_v1`."""
    layers = _keras(activation)

    def bottleneck(into: int, out: int, stride: int) -> nn.Module:
        middle = 16 if out == 64 else out // 2  # the release widens fourfold in the first stage, twofold in the others
        return nn.Sequential(
            layers.conv(into, middle, 1, stride),
            *layers.norm_act(middle),
            layers.conv(middle, middle),
            *layers.norm_act(middle),
            layers.conv(middle, out, 1),
        )

    return Backbone(
        out_features,
        linear_output=True,
        stem=layers.stem(input_shape[0], 16),
        stages=stages(pre_activation(layers, bottleneck, layers.projection), 16, (64, 128, 256), blocks),
        norm_act=layers.norm_act(256),
        pool=global_pool(),
        fc=HeLinear(256, out_features),
    )


def _rce_layers(channels: int, blocks: int, activation: Activation) -> dict[str, nn.Module]:
    """The layers of the RCE ResNet by name."""
    # TensorFlow's moving average with decay 0.9 is a momentum of 0.1 here
    layers = Layers(activation, partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1))
    unit = pre_activation(layers, layers.basic, partial(PadShortcut, pool=2))
    return {
        "stem": layers.stem(channels, 16),
        "stages": stages(unit, 16, (16, 32, 64), blocks),
        "norm_act": layers.norm_act(64),
        "pool": global_pool(),
    }


def rce_resnet(input_shape: tuple[int, int, int], *, blocks: int, activation: Activation = LeakyReLU) -> Backbone:
    """RCE's pre-activation ResNet: basic units, leaky ReLU, average-pooling shortcuts padded with zeros; d = 64."""
    return Backbone(64, False, **_rce_layers(input_shape[0], blocks, activation))


def isce_resnet(input_shape: tuple[int, int, int], *, blocks: int, activation: Activation = LeakyReLU) -> Backbone:
    """The RCE ResNet with a linear layer after the pooling, as the I-SCE script has it; d = 64."""
    return Backbone(64, True, **_rce_layers(input_shape[0], blocks, activation), fc=nn.Linear(64, 64))


def wide_resnet(
    input_shape: tuple[int, int, int],
    *,
    stem: int,
    widths: tuple[int, ...],
    blocks: int,
    activation: Activation = nn.ReLU,
) -> Backbone:
    """Pre-activation ResNet whose projections start from the activated map, `stem` channels first; d = widths[-1]."""
    layers = Layers(activation)
    unit = pre_activation(layers, layers.basic, layers.projection, shared=True)
    return Backbone(
        widths[-1],
        stem=layers.stem(input_shape[0], stem),
        stages=stages(unit, stem, widths, blocks),
        norm_act=layers.norm_act(widths[-1]),
        pool=global_pool(),
    )
