"""
The table of backbones and the function that builds one by its name.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from art_mmc.checks import check_name, number, whole
from art_mmc.models import plain, resnets
from art_mmc.models.base import Activation, Backbone, check_input_shape

#: activations by name; "softplus" takes the option `beta` besides, "leaky_relu" has slope 0.1
ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "leaky_relu": resnets.LeakyReLU,
}


@dataclass(frozen=True)
class BackboneRow:
    """One row of the table."""

    build: Callable[..., Backbone]  # from an input shape (C, H, W) and options; what a `partial` fixes is no option
    description: str  # one line, the true depth included
    source: str  # where the net is from
    min_size: int = 8  # the least height and width of an input

    def option_names(self) -> list[str]:
        """The names of the options that :func:`create_backbone` takes for this net."""
        fixed = {"input_shape", *getattr(self.build, "keywords", {})}
        return [*(name for name in inspect.signature(self.build).parameters if name not in fixed), "beta"]


_RESNET = "He et al., CVPR 2016, https://arxiv.org/abs/1512.03385; used by PC, https://arxiv.org/abs/2012.07688"
_MMC = "Pang et al., ICLR 2020, https://arxiv.org/abs/1905.10626"
_RCE = "Pang et al., NeurIPS 2018, https://arxiv.org/abs/1706.00633"
_PC = "Li et al., AAAI 2021, https://arxiv.org/abs/2012.07688"
_WRN = "Zagoruyko and Komodakis, BMVC 2016, https://arxiv.org/abs/1605.07146"

BACKBONES: dict[str, BackboneRow] = {
    "cnn": BackboneRow(plain.cnn, "two 3x3 convolutions and one FC layer, for tiny images; d = 64", "art_mmc", 4),
    "lenet5": BackboneRow(
        plain.lenet5,
        "LeNet-5 with ReLU and max-pooling; d = 84",
        "LeCun et al., Proc. IEEE 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-01a.pdf",
        12,
    ),
    "cnn3": BackboneRow(plain.cnn3, "three 5x5 convolutions and one FC layer, PC's substitute; d = 100", _PC, 20),
    "vgg13": BackboneRow(
        plain.vgg13,
        "VGG-13 with batch normalisation, ten convolutions and one FC layer; d = 512",
        f"Simonyan and Zisserman, ICLR 2015, https://arxiv.org/abs/1409.1556; as in {_PC}",
        32,
    ),
    **{
        f"resnet{6 * n + 2}": BackboneRow(
            partial(resnets.cifar_resnet, blocks=n),
            f"CIFAR ResNet, {6 * n + 2} layers with the head, option-A shortcuts; d = 64",
            _RESNET,
        )
        for n in (3, 5, 9, 18)
    },
    **{
        f"mmc-resnet{6 * n + 2}v1": BackboneRow(
            partial(resnets.mmc_resnet_v1, blocks=n),
            f"MMC's ResNet v1, {6 * n + 2} layers with the head, and a linear one for the features; d = 64",
            _MMC,
        )
        for n in (5, 18)
    },
    **{
        f"mmc-resnet{6 * n + 2}v2": BackboneRow(
            partial(resnets.mmc_resnet_v2, blocks=n),
            f"MMC's ResNet v2, called {6 * n + 2}, truly {9 * n + 2} layers with the head, and a linear one for the "
            "features; d = 256",
            _MMC,
        )
        for n in (5, 18)
    },
    **{
        f"rce-resnet{6 * n + 2}": BackboneRow(
            partial(resnets.rce_resnet, blocks=n),
            f"RCE's pre-activation ResNet, {6 * n + 2} layers with the head, leaky ReLU; d = 64",
            _RCE,
        )
        for n in (5, 9)
    },
    "isce-resnet32": BackboneRow(
        partial(resnets.isce_resnet, blocks=5),
        "RCE's ResNet, 32 layers with the head, and a linear one for the features; d = 64",
        "Song et al., Mathematics 2022, https://doi.org/10.3390/math10193716",
    ),
    "preact-resnet18": BackboneRow(
        partial(resnets.wide_resnet, stem=64, widths=(64, 128, 256, 512), blocks=2),
        "pre-activation ResNet, 18 layers with the head; d = 512",
        "He et al., ECCV 2016, https://arxiv.org/abs/1603.05027; used by Pang et al., https://arxiv.org/abs/2010.00467",
    ),
    **{
        f"wrn-{6 * n + 4}-10": BackboneRow(
            partial(resnets.wide_resnet, stem=16, widths=(160, 320, 640), blocks=n),
            f"wide ResNet, {6 * n + 4} convolutions with the three projections, width 10; d = 640",
            _WRN,
        )
        for n in (4, 5)
    },
}


def make_activation(name: str = "relu", beta: float | None = None) -> Activation:
    """What makes one activation of a name of :data:`ACTIVATIONS`; `beta`, of "softplus", is the sharper the larger."""
    made = ACTIVATIONS[check_name("activation", name, ACTIVATIONS)]
    if beta is None:
        return made
    if name != "softplus":
        raise ValueError("beta: goes with activation='softplus' alone.")
    return partial(nn.Softplus, number("beta", beta))


def create_backbone(name: str, input_shape: Sequence[int], **options: Any) -> Backbone:
    """
    Build a backbone by its name, weights drawn from the global random state.

    :param name: A name of :data:`BACKBONES`.
    :param input_shape: Shape (C, H, W) of one input.
    :param options: `activation` (a name of :data:`ACTIVATIONS`) and `beta` for all nets; `dropout` for "vgg13" and
        `out_features` for the MMC ResNets.
    :return: The net. Its `recipe` holds these arguments as plain data: `create_backbone(recipe["name"],
        recipe["input_shape"], **recipe["options"])` builds it again.
    :raises ValueError: When a name is unknown or the input too small.
    """
    row = BACKBONES[check_name("backbone", name, BACKBONES)]
    for option in options:
        check_name(f"option of backbone '{name}'", option, row.option_names())
    shape = check_input_shape(input_shape, images=f"backbone '{name}'")
    size = min(shape[1:])
    if size < row.min_size:
        others = [other for other, it in BACKBONES.items() if it.min_size <= size]
        raise ValueError(
            f"backbone '{name}' needs inputs of at least {row.min_size}x{row.min_size}, input_shape {shape} being "
            f"(C, H, W) has {shape[1]}x{shape[2]}; enlarge the inputs"
            + (f" or take one of {', '.join(others)}." if others else ".")
        )
    keywords = dict(options)
    whole("out_features", keywords.get("out_features", 1))
    if "activation" in options or "beta" in options:
        keywords["activation"] = make_activation(options.get("activation", "relu"), keywords.pop("beta", None))
    backbone = row.build(shape, **keywords)
    backbone.recipe = {"name": name, "input_shape": list(shape), "options": dict(options)}
    return backbone
