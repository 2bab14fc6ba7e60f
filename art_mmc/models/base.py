"""
What a backbone is: a module from normalised inputs x (B, ...) to features z (B, d) that says how wide they are
(`out_features`) and whether they can take either sign (`linear_output`); and the adapter that makes one of a user's
own module.
"""

import itertools
import operator
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from art_mmc.checks import check_type, users_place
from art_mmc.models.inference import Prepared

#: makes one activation module; a net calls it once a place
Activation = Callable[[], nn.Module]


class Backbone(nn.Module):
    """Layers by name, in the order of the computation, with the attributes that heads and checkpoints need."""

    #: what `create_backbone` rebuilds the net from, plain data; None for a net that was built without it
    recipe: dict[str, Any] | None = None

    def __init__(self, out_features: int, linear_output: bool = False, **layers: nn.Module) -> None:
        super().__init__()
        self.out_features = out_features
        self.linear_output = linear_output  # whether features reach every point of R^d, as fixed centers need
        self.layers = nn.Sequential(OrderedDict(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised inputs (B, ...) to features (B, d)."""
        return self.layers(x)


class WrappedBackbone(nn.Module):
    """A user's module (B, ...) -> (B, d) or (B, ...), flattened, with the attributes of a :class:`Backbone`."""

    #: the module is the user's: there is nothing to rebuild it from
    recipe: dict[str, Any] | None = None

    #: whether the last layer is linear, whatever the user says of the output: it may be one that gives classes
    ends_linear = False

    def __init__(self, module: nn.Module, out_features: int, linear_output: bool) -> None:
        super().__init__()
        self.training = module.training  # the flag alone: the module's own parts keep theirs
        self.module = module
        self.out_features = out_features
        self.linear_output = linear_output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised inputs (B, ...) to features (B, d)."""
        return self.module(x).flatten(1)


def check_input_shape(input_shape: Sequence[int], images: str = "") -> tuple[int, ...]:
    """The sizes of one input as ints; ValueError for what is none, or for what wants `images`, a name, no (C, H, W)."""
    try:
        shape = tuple(operator.index(size) for size in input_shape)
    except TypeError:
        shape = ()
    if min(shape, default=0) < 1 or (images and len(shape) != 3):
        expected = "positive whole numbers, such as (C, H, W) or (F,),"
        if images:
            expected = f"(C, H, W), three positive whole numbers, for {images},"
        mend = "; for other inputs give a module of your own" if images and len(shape) not in (0, 3) else ""
        raise ValueError(f"input_shape: expected {expected} without the batch, got {input_shape!r}{mend}.")
    return shape


def wrap_backbone(
    module: nn.Module, input_shape: Sequence[int], out_features: int | None = None, linear_output: bool = False
) -> nn.Module:
    """
    Make a backbone of a user's own module, e.g. a torchvision ResNet whose `fc` was replaced by `nn.Identity()`.

    The width of its features is read from one forward of two zero samples in eval mode. The module, its modes and
    statistics, and the global random state are the same afterwards.

    :param module: Maps normalised inputs (B, ...) to floating features (B, d) or (B, ...), which are flattened.
        A module that has `out_features` and `linear_output` is a backbone already and comes back as it is.
    :param input_shape: Shape of one input, (C, H, W) or any other.
    :param out_features: The width d that is expected, checked against the one found; None for any.
    :param linear_output: Say True where the last operation is a linear layer without an activation. The package does
        not guess: an activation may follow inside `forward`, and features wrongly taken for signed ones would keep a
        Max-Mahalanobis head from training, while the other way costs one more linear layer.
    :return: The backbone.
    :raises TypeError: When it is no module or its output is not one floating tensor.
    :raises ValueError: When it does not take such inputs, or its features are not (B, d) of the expected width.
    """
    check_type("wrap_backbone", module, nn.Module, "a torch.nn.Module")
    if hasattr(module, "out_features") and hasattr(module, "linear_output"):
        backbone = module
    else:
        shape = check_input_shape(input_shape)
        z, trained = (_output_for_zeros(module, shape, training) for training in (False, True))
        if trained.shape != z.shape:  # the head can't be trained on it
            raise ValueError(
                f"wrap_backbone: the module gives features of shape {tuple(z.shape)} in evaluation mode and "
                f"{tuple(trained.shape)} in training mode, for a batch of 2."
            )
        backbone = WrappedBackbone(module, z.flatten(1).shape[1], linear_output)
        *_, last = module.modules()
        if isinstance(last, nn.Linear) and last.out_features == backbone.out_features:
            hook = last.register_forward_hook(lambda layer, inputs, out: torch.full_like(out, -1.0))
            try:  # an activation that follows changes it
                z = _output_for_zeros(module, shape, training=False)
            finally:
                hook.remove()
            backbone.ends_linear = bool((z == -1).all())
    if out_features is not None and backbone.out_features != out_features:
        raise ValueError(
            f"wrap_backbone: the module gives {backbone.out_features} features for inputs {tuple(input_shape)}, "
            f"out_features={out_features} were expected; leave out_features out, or take off the layers after them."
        )
    return backbone


def check_no_classes(backbone: nn.Module, nb_classes: int) -> None:
    """ValueError for a backbone whose last layer gives classes, these or ImageNet's or fewer, and no features."""
    if not isinstance(backbone, WrappedBackbone) or backbone.linear_output or not backbone.ends_linear:
        return
    width = backbone.out_features
    if width in (nb_classes, 1000) or 2 < width < nb_classes:
        raise ValueError(
            f"model: the last layer of the backbone is linear with {width} outputs, which look like the scores of "
            f"{width} classes; take it off (net.fc = torch.nn.Identity()), as the defence brings its own layer for "
            f"{nb_classes} classes. If they are features: wrap_backbone(net, input_shape, linear_output=True)."
        )


def _output_for_zeros(module: nn.Module, input_shape: tuple[int, ...], training: bool) -> torch.Tensor:
    """The checked output (2, ...) for two zero samples, without a trace."""
    mode = "training" if training else "evaluation"
    tensors = itertools.chain(module.parameters(), module.buffers())
    like = next((tensor for tensor in tensors if tensor.dtype.is_floating_point), torch.zeros(()))
    shape = (2, *input_shape)
    devices = [like.device] if like.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            z = Prepared(module, training)(torch.zeros(shape, device=like.device, dtype=like.dtype))
    except Exception as error:  # whatever a user's forward raises
        raise ValueError(
            f"wrap_backbone: the module refused inputs of shape {shape}, the batch first, in {mode} mode: "
            f"{type(error).__name__}: {error}{users_place(error)}. Is input_shape {input_shape} the shape that it was "
            "made for?"
        ) from error
    if not isinstance(z, torch.Tensor):
        raise TypeError(
            f"wrap_backbone: expected one tensor of features (B, d), the module returned a {type(z).__name__} in "
            f"{mode} mode; take its auxiliary outputs off (aux_logits=False), or wrap it in a module whose forward "
            "picks the features, e.g. `return self.net(x)[0]`."
        )
    if not z.dtype.is_floating_point:
        raise TypeError(f"wrap_backbone: expected floating features, the module returned {z.dtype}.")
    if z.dim() < 2 or z.shape[0] != 2:
        raise ValueError(
            f"wrap_backbone: expected features (B, d), the module returned shape {tuple(z.shape)} for a batch of 2; "
            "keep the batch as the first dimension, e.g. with `nn.Flatten()` as its last layer."
        )
    return z
