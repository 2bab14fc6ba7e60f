"""
A convolution of few channels and the maximum over 2x2 windows behind it, by blocks of 2x2 pixels, for gradients with
respect to the input on a CPU. A convolution works in registers of 16 channels, of which one or six fill little; a block
has four times the channels on a quarter of the pixels, its convolution a smaller kernel, and the maximum is one over
channels. That is up to 1.8 times as many products; yet for LeNet-5's first layer, of one channel, both passes together
take 0.4 of the time of torch's, channels last. For its second layer, of six, they take the same (measured on an AMD
EPYC with AVX-512).
"""

from __future__ import annotations

import math
import weakref
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

#: types of which two numbers side by side are one complex number, which is copied at once
_PAIRED = (torch.float32, torch.float64)

#: numbers in a row from which on an operation runs as fast on parts of an array as on all of it
_LONG = 64


class _Kernel(NamedTuple):
    """
    A convolution for blocks, and what it was made from.

    :param source: Weight (C', C, k, k) and bias (C') of the convolution, as they were.
    :param weight: Weight (4 C', 4 C, k', k'), channels last; channels are ordered by row, column, channel in C' and by
           channel, row, column in C.
    :param bias: Bias (4 C').
    """

    source: tuple[torch.Tensor, torch.Tensor | None]
    weight: torch.Tensor
    bias: torch.Tensor | None

    def is_of(self, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
        """
        :param weight: Weight of a convolution.
        :param bias: Its bias.
        :return: Whether they are the numbers that this was made from.
        """
        return all(_equal(old, new) for old, new in zip(self.source, (weight, bias), strict=True))


def _equal(old: torch.Tensor | None, new: torch.Tensor | None) -> bool:
    if old is None or new is None:
        return old is new
    return old.dtype == new.dtype and torch.equal(old, new)


#: convolution -> the last one for blocks
_KERNELS: weakref.WeakKeyDictionary[nn.Module, _Kernel] = weakref.WeakKeyDictionary()


class MaximumOverWindow(torch.autograd.Function):
    """
    Maximum over two dimensions of size 2, the rows and columns of windows. The gradient goes to the first of equal
    numbers, as in torch's own pooling.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, row: int, column: int) -> torch.Tensor:
        left, right = x.select(column, 0), x.select(column, 1)
        rows = torch.maximum(left, right)
        top, bottom = rows.select(row, 0), rows.select(row, 1)
        ctx.save_for_backward(right - left, bottom - top)
        ctx.dims = row, column
        return torch.maximum(top, bottom)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        right_leads, bottom_leads = ctx.saved_tensors
        row, column = ctx.dims
        return _shared_out(_shared_out(grad, bottom_leads, row), right_leads, column), None, None


def _shared_out(grad: torch.Tensor, second_leads: torch.Tensor, dim: int) -> torch.Tensor:
    """
    The gradient of a maximum of two, each number to the one that gave it.

    :param grad: Gradient with respect to the maximum.
    :param second_leads: The second one less the first one, of the same shape.
    :param dim: Where the two are to lie side by side.
    :return: Gradient with respect to the two.
    """
    if math.prod(grad.shape[dim:]) >= _LONG:  # in pieces so long that writing them where they belong pays
        both = grad.new_empty((*grad.shape[:dim], 2, *grad.shape[dim:]))
        first, second = both.unbind(dim)
        try:
            torch.ops.aten.threshold_backward.grad_input(grad, second_leads, 0, grad_input=second)
            torch.sub(grad, second, out=first)
            return both
        except RuntimeError:  # several gradients at once, or one to be differentiated in turn, go into no `out`
            pass
    second = torch.ops.aten.threshold_backward(grad, second_leads, 0)
    return torch.stack((grad - second, second), dim)


@lru_cache(maxsize=16)
def _block_index(size: int, padding: int) -> torch.Tensor:
    """
    Where in a row of the kernel the weight lies that leads from a pixel of an input block to one of an output block. A
    block is two pixels wide: the output's a-th pixel and the input's c-th, s blocks on, are 2 s + c - a apart.

    :return: Indices (a, c, s); `size` where there is none.
    """
    a, c, s = torch.arange(2).view(2, 1, 1), torch.arange(2).view(1, 2, 1), torch.arange((size + 1) // 2)
    index = 2 * (s - padding // 2) + c - a + padding
    return index.where((index >= 0) & (index < size), torch.tensor(size))


def _kernel(conv: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> _Kernel:
    """
    The convolution for blocks, kept until its numbers change: they are compared, since not every change of a weight is
    seen by torch's version counter.

    :param conv: The convolution, for its padding.
    :param weight: Its weight, with what is folded into it, (C', C, k, k).
    :param bias: Its bias, (C').
    :return: The convolution for blocks.
    """
    known = _KERNELS.get(conv)
    if known is None or not known.is_of(weight, bias):
        out, into, size, _ = weight.shape
        index = _block_index(size, conv.padding[0])
        # (C', C, k, k) -> (C', C, a, c, s, b, d, t), from a kernel with a row and a column of zeros at the end
        wide = functional.pad(weight, (0, 1, 0, 1))[:, :, index[..., None, None, None], index]
        wide = wide.permute(2, 5, 0, 1, 3, 6, 4, 7).reshape(4 * out, 4 * into, *index.shape[2:] * 2)
        _KERNELS[conv] = known = _Kernel(
            (weight.clone(), None if bias is None else bias.clone()),
            wide.contiguous(memory_format=torch.channels_last),
            None if bias is None else bias.repeat(4),
        )
    return known


def _to_blocks(x: torch.Tensor) -> torch.Tensor:
    """
    What `functional.pixel_unshuffle(x, 2)` gives, channels last. Two numbers of a row go as one, which for one channel
    takes half the time forward and backward, for six 0.7 of it forward.

    :param x: Map (B, C, H, W), H and W even, contiguous.
    :return: Map (B, 4 C, H / 2, W / 2), by channel, row, column.
    """
    if x.dtype not in _PAIRED or x.storage_offset() % 2:
        return functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    pairs = torch.view_as_complex(x.view(n, channels, height // 2, 2, width // 2, 2))
    pairs = pairs.permute(0, 2, 4, 1, 3).contiguous()
    return torch.view_as_real(pairs).view(n, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)


def _sum_of_shifted(maps: torch.Tensor, dim: int, step: int) -> torch.Tensor:
    """
    The sum of maps, each shifted by one step more than the one before; the middle one lies still, and what leaves a map
    is lost.

    :param maps: Arrays with the maps along the last dimension; overwritten.
    :param dim: Where the maps to be summed lie side by side, an odd number of them.
    :param step: Numbers in a step.
    :return: The sum, in the place of the middle ones.
    """
    half = maps.shape[dim] // 2
    total = maps.select(dim, half)
    for by in range(1, half + 1):
        total[..., step * by :].add_(maps.select(dim, half + by)[..., : -step * by])
        total[..., : -step * by].add_(maps.select(dim, half - by)[..., step * by :])
    return total


class _OfOneChannel(torch.autograd.Function):
    """
    The convolution by blocks of a map of one channel onto a map of the same size. Torch's own way backward fills 4 of
    the 16 numbers in a register; one product of matrices and a sum of shifted maps take about two thirds
    of its time.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return functional.conv2d(_to_blocks(x), weight, bias, padding=weight.shape[2] // 2).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        out, channels, size, _ = weight.shape
        n, _, height, width = grad.shape
        # what each pixel of the gradient gives to all pixels of the input that it reaches
        parts = torch.matmul(weight.permute(2, 3, 1, 0).reshape(-1, out), grad.reshape(n, out, -1))
        parts = parts.view(n, size, size, channels, height, width)
        half = size // 2
        for by in range(1, half + 1):  # what would come to lie beside the map would reach the next row of it
            parts[:, :, half + by, :, :, width - by :].zero_()
            parts[:, :, half - by, :, :, :by].zero_()
        parts = parts.view(n, size, size, channels, height * width)
        rows = _sum_of_shifted(parts, 2, 1)
        total = _sum_of_shifted(rows, 1, width)
        return functional.pixel_shuffle(total.view(n, channels, height, width), 2), None, None


def pooled_blocks(conv: Any, weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """
    Convolution and maximum over 2x2 windows side by side, by blocks of 2x2 pixels.

    :param conv: The convolution: stride 1, k odd, an even padding with zeros.
    :param weight: Its weight, with what is folded into it, (C', C, k, k); asks for no gradient.
    :param bias: Its bias, (C'); asks for none either.
    :param x: Map (B, C, H, W), H and W even.
    :return: Map (B, C', H', W'), contiguous.
    """
    kernel = _kernel(conv, weight, bias)
    padding = conv.padding[0] // 2
    x = x.flatten(1).unflatten(1, x.shape[1:])  # contiguous() leaves the strides of a single channel as they are
    if x.shape[1] == 1 and kernel.weight.shape[2] == 2 * padding + 1 and not torch.is_autocast_enabled("cpu"):
        maps = _OfOneChannel.apply(x, kernel.weight, kernel.bias)
    else:
        maps = functional.conv2d(_to_blocks(x), kernel.weight, kernel.bias, padding=padding).contiguous()
    return MaximumOverWindow.apply(maps.unflatten(1, (2, 2, len(weight))), 1, 2)
