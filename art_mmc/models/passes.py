"""
How a network is run while it does not learn: the same function in fewer operations and in the faster memory format.
Results equal those of a plain call to within rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_modules

from art_mmc.models.blocks import MaximumOverWindow, pooled_blocks
from art_mmc.models.resnets import Residual

#: how often a number of the input comes back in the maps of a typical network's convolutions
_WIDTH = 16

#: channels up to which a convolution leaves most of a CPU's registers empty; fewer samples are not worth the detour
_FEW = 8

#: networks that a channels-last input did not suit (`x.view(...)`), and those that it did
_REFUSING: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_TAKING: weakref.WeakSet[nn.Module] = weakref.WeakSet()

#: network -> numbers in the weights of its convolutions
_WEIGHTS: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _any_global_hooks() -> bool:
    return bool(
        torch_modules._global_forward_hooks
        or torch_modules._global_forward_pre_hooks
        or torch_modules._global_backward_hooks
        or torch_modules._global_backward_pre_hooks
    )


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module computes what torch's own class does, and nobody watches it."""
    return (
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and "forward" not in module.__dict__
        and not _has_hooks(module)
    )


def _is_convolution(module: nn.Module) -> bool:
    return _is_plain(module, nn.Conv2d) and type(module)._conv_forward is nn.Conv2d._conv_forward  # type: ignore


def _gives_fresh(module: nn.Module) -> bool:
    """Whether nobody but the caller holds a module's output, and no backward pass needs it: it may be changed."""
    if isinstance(module, nn.Sequential):
        return type(module) is nn.Sequential and len(module) > 0 and not _has_hooks(module) and _gives_fresh(module[-1])
    return _is_convolution(module) or _is_plain(module, nn.BatchNorm2d) or _is_plain(module, nn.Linear)


def _folds(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether batch normalisation by running statistics follows a convolution."""
    return (
        _is_convolution(conv)
        and _is_plain(norm, nn.BatchNorm2d)
        and not norm.training
        and norm.running_mean is not None
        and norm.running_mean.dtype == conv.weight.dtype
    )


def _swaps(relu: nn.Module, pool: nn.Module) -> bool:
    """Whether a maximum over windows follows a ReLU that leaves its input alone."""
    return (
        _is_plain(relu, nn.ReLU) and not relu.inplace and _is_plain(pool, nn.MaxPool2d) and not pool.return_indices
    )  # type: ignore[return-value]


def _folded(conv: Any, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of convolution and normalisation as one convolution, computed anew from the present ones."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean * scale if conv.bias is None else (conv.bias - norm.running_mean) * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def _halves(pool: Any) -> bool:
    """Whether a maximum pooling is over 2x2 windows side by side."""
    settings = zip((pool.kernel_size, pool.stride, pool.padding, pool.dilation), (2, 2, 0, 1), strict=True)
    return not pool.ceil_mode and all(value in (wanted, (wanted, wanted)) for value, wanted in settings)


def _is_channels_last(x: torch.Tensor) -> bool:
    return x.ndim == 4 and x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)


def _pooled(pool: Any, x: torch.Tensor) -> torch.Tensor:
    """
    The maximum over windows. On a CPU torch's own is slower than two maxima over halves: with a gradient 1.7 times for
    6 channels, without one 1.3 to 9 times.
    """
    if not (_halves(pool) and x.device.type == "cpu" and _is_channels_last(x) and min(x.shape[2:]) > 1):
        return pool(x)
    height, width = x.shape[2] // 2, x.shape[3] // 2
    even = x.permute(0, 2, 3, 1)[:, : 2 * height, : 2 * width]
    if not (torch.is_grad_enabled() and x.requires_grad):  # by rows first, which lie in one piece
        rows = torch.maximum(even[:, ::2], even[:, 1::2])
        return torch.maximum(rows[:, :, ::2], rows[:, :, 1::2]).permute(0, 3, 1, 2)
    if x.shape[1] > _FEW:
        return pool(x)
    windows = even.unflatten(2, (width, 2)).unflatten(1, (height, 2))
    return MaximumOverWindow.apply(windows, 2, 4).permute(0, 3, 1, 2)


def _suits_blocks(conv: Any, weight: torch.Tensor, bias: torch.Tensor | None, pool: Any, x: torch.Tensor) -> bool:
    """
    Whether :func:`.pooled_blocks` can do it, and faster: what gains is the gradient with respect to the input, and it
    gives no other.
    """
    return (
        torch.is_grad_enabled()
        and x.requires_grad
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and x.device.type == "cpu"
        and conv.in_channels <= _FEW
        and len(x) >= _FEW
        and conv.kernel_size in ((5, 5), (7, 7))
        and conv.padding in ((0, 0), (2, 2))
        and (conv.stride, conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), (1, 1), 1, "zeros")
        and x.ndim == 4
        and all(side % 2 == 0 and side + 2 * conv.padding[0] > conv.kernel_size[0] for side in x.shape[2:])
        and _halves(pool)
    )


def run_sequence(sequence: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """
    What `nn.Sequential.forward` computes. A convolution and the batch normalisation behind it, in evaluation mode, are
    one convolution; a convolution of few channels and the pooling behind it go by blocks of pixels; a ReLU works in
    place where nobody else reads its input, and after a maximum pooling instead of before it, which gives the same to
    the last bit. Modules with hooks run as they are.

    :param sequence: The modules.
    :param x: Their input.
    :return: Their output.
    """
    modules: list[Any] = list(sequence._modules.values())
    if _any_global_hooks():
        for module in modules:
            x = module(x)
        return x
    done = 0
    fresh = False
    by_channels = _is_channels_last(x)
    while done < len(modules):
        module, *rest = modules[done : done + 4]
        if _is_convolution(module):
            folds = bool(rest) and _folds(module, rest[0])
            weight, bias = _folded(module, rest[0]) if folds else (module.weight, module.bias)
            done += 1 + folds
            relu, pool = (*rest[folds:], None, None)[:2]
            pools = relu is not None and pool is not None and _swaps(relu, pool)
            if pools and _suits_blocks(module, weight, bias, pool, x):
                x, fresh = torch.relu(pooled_blocks(module, weight, bias, x)), False
                done += 2
                continue
            if by_channels and not _is_channels_last(x):
                x = channels_last(x)
            x, fresh = module._conv_forward(x, weight, bias) if folds else module(x), True
        elif rest and _swaps(module, rest[0]):
            x, fresh = torch.relu(_pooled(rest[0], x)), False
            done += 2
        else:
            if fresh and _is_plain(module, nn.ReLU):
                x, fresh = x.relu_(), False
            elif _is_plain(module, nn.MaxPool2d) and not module.return_indices:
                x, fresh = _pooled(module, x), False
            else:
                x, fresh = module(x), _gives_fresh(module)
            done += 1
    return channels_last(x) if by_channels and x.ndim == 4 and not _is_channels_last(x) else x


def run_residual(unit: Residual, x: torch.Tensor) -> torch.Tensor:
    """
    What `Residual.forward` computes, with the sum and the activation in place where nobody else reads the branch.

    :param unit: The residual unit.
    :param x: Map (B, C, H, W).
    :return: Map (B, C', H', W').
    """
    h = unit.before(x)
    out, shortcut = unit.branch(h), unit.shortcut(h)
    if not _gives_fresh(unit.branch) or _any_global_hooks():
        return unit.after(out + shortcut)
    out = out.add_(shortcut)
    return out.relu_() if _is_plain(unit.after, nn.ReLU) else unit.after(out)


@contextmanager
def fewer_operations(modules: Sequence[nn.Module]) -> Iterator[None]:
    """
    Inside, the plain `nn.Sequential` parts and the residual units of a network run as :func:`run_sequence` and
    :func:`run_residual` do. Calls of single modules, weights that change and modules that are replaced meanwhile are no
    matter: what is kept is compared first. May be nested.

    :param modules: All modules of the network.
    """
    changed = []
    # a compiled graph would be compiled anew, and the replicas of a parallel one would run the modules of the original
    if not any(type(module).__name__ in ("OptimizedModule", "DataParallel") for module in modules):
        for module in modules:
            way = _WAYS.get(type(module))
            if way is not None and "forward" not in module.__dict__:
                module.__dict__["forward"] = partial(way, module)
                changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            module.__dict__.pop("forward", None)


_WAYS: dict[type, Callable[..., torch.Tensor]] = {nn.Sequential: run_sequence, Residual: run_residual}


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """
    :param x: Images (B, C, H, W).
    :return: The same with the channels of a pixel side by side in memory. Images of one channel, which are so anyway,
             get the strides by which torch tells the format.
    """
    if x.shape[1] == 1:
        return x.contiguous().view(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def favours_channels_last(network: nn.Module, x: torch.Tensor) -> bool:
    """
    Whether a network is faster on channels-last images, by a rule. On the CPU the format saves the convolutions from
    rearranging their maps, but they rearrange their weights instead: it pays where the maps of a batch are the larger,
    by 1.2 to 1.7 times for LeNet-5 and ResNet-20 and batches of 16 and more (measured on an AMD EPYC with AVX-512), and
    not for VGG-13. On a GPU it is the format of the half-precision units.

    :param network: The network.
    :param x: Images (B, C, H, W).
    :return: Whether to use the format.
    """
    if x.ndim != 4 or network in _REFUSING:
        return False
    if x.device.type == "cuda":
        return torch.is_autocast_enabled("cuda") or x.dtype in (torch.float16, torch.bfloat16)
    if x.device.type != "cpu" or x.dtype == torch.float64:
        return False
    if network not in _WEIGHTS:
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        _WEIGHTS[network] = sum(conv.weight.numel() for conv in convolutions if conv.weight.dtype != torch.float64)
    return 0 < _WEIGHTS[network] <= _WIDTH * x.numel()


def takes_channels_last(network: nn.Module, x: torch.Tensor) -> bool:
    """
    Whether a network takes channels-last images at all: one that calls `x.view(...)` on a map does not. Tried once, on
    two samples, without a trace.

    :param network: The network, in any mode.
    :param x: Images (B, C, H, W).
    :return: Whether it does.
    """
    if network not in _TAKING and network not in _REFUSING:
        modes = [(module, module.training) for module in network.modules()]
        devices = [x.device] if x.device.type == "cuda" else []
        try:
            network.eval()
            with torch.no_grad(), torch.random.fork_rng(devices):
                run(network, x[:2].clone())
        finally:
            for module, mode in modes:
                module.training = mode
    return network in _TAKING


def run(network: nn.Module, x: torch.Tensor, call: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    """
    Run a network on channels-last images, or on the images as they are if it does not take such.

    :param network: The network, in evaluation mode.
    :param x: Images (B, C, H, W).
    :param call: What to call in the network's place, a compiled one say; None for the network itself.
    :return: What the network gives.
    """
    call = network if call is None else call
    if network not in _REFUSING:
        inputs = channels_last(x)
        try:
            # the first time on a copy: the network may have worked in place on it before it failed
            outputs = call(inputs if network in _TAKING else inputs.clone())
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            _REFUSING.add(network)
        else:
            _TAKING.add(network)
            return outputs
    return call(x)
