"""
One network trained by several processes, each on its part of every batch, as one process would train it on the whole.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from art_mmc.distributed import broadcast, total, world
from art_mmc.heads import CenterTrackingHead

logger = logging.getLogger(__name__)


class _Total(torch.autograd.Function):
    """The sum over the processes, as a step of the computation: what comes back is summed as well."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return total(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return total(grad.clone())


class CUDASyncedBatchNorm(nn.SyncBatchNorm):
    """
    Batch normalisation by the statistics of the whole batch, as torch has it for GPUs. A module that becomes one keeps
    its parameters and buffers.
    """

    process_group = None


class CPUSyncedBatchNorm(_BatchNorm):
    """
    The same for CPUs, for which torch has none: adds up two small vectors over the processes. A process' part of the
    batch may be empty.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: This process' part of the batch, (B, C, ...).
        :return: The same, normalised.
        """
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        others = [dim for dim in range(x.ndim) if dim != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = wide.new_full((1,), x.numel() / x.shape[1])
        *sums, n = _Total.apply(torch.cat([wide.sum(others), count])).split([x.shape[1], 1])
        if n == 1:
            raise ValueError(f"expected more than 1 value per channel, got inputs of shape {tuple(x.shape)}.")
        mean = sums[0] / n
        # the squares in a second round: a difference of two large sums would lose digits
        centred = wide - mean.view(shape)
        variance = _Total.apply(centred.square().sum(others)) / n
        self._track(mean.detach(), (variance * n / (n - 1)).detach())
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            out = out * self.weight.view(shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        return out.to(x.dtype)

    def _check_input_dim(self, x: torch.Tensor) -> None:
        """Any number of dimensions will do; the module was another, which knew its own, before."""

    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics, as every batch normalisation of torch's does."""
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore
        for running, now in ((self.running_mean, mean), (self.running_var, variance)):
            running.mul_(1 - momentum).add_(momentum * now)  # type: ignore[union-attr]


def share_buffers(network: nn.Module) -> None:
    """
    Give all processes the main one's buffers. Those of batch normalisation and of the center loss are the same in all
    anyway; a module of the user's own may keep something else.

    :param network: The network.
    """
    for buffer in network.buffers():
        broadcast(buffer)


def _settle(trained: DistributedDataParallel, x: torch.Tensor) -> None:
    """
    One backward pass that leaves nothing behind, but that torch knows from it in which order gradients come and will
    put them so into its buffers. The sum of more than two numbers depends on their place there: otherwise the first
    step of a resumed run would differ in the last digit from that of a run that was not interrupted.
    """
    before = [(buffer, buffer.clone()) for buffer in trained.module.buffers()]
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        trained(x).sum().backward()
    idle = [name for name, each in trained.module.named_parameters() if each.requires_grad and each.grad is None]
    if idle:
        raise ValueError(
            f"{', '.join(idle)}: parameters without a part in the network's output, for whose gradients the processes "
            "would wait; take them out, or set requires_grad_(False) on them."
        )
    trained.zero_grad(set_to_none=True)
    for buffer, value in before:
        buffer.copy_(value)


@contextmanager
def data_parallel(network: nn.Module, example: torch.Tensor) -> Iterator[nn.Module]:
    """
    Prepare a network for training by all processes: batch normalisation and the center loss' centers follow the whole
    batch, and gradients of what is computed through the module given are averaged over the processes
    (`DistributedDataParallel`). All start from the main process' weights. Where there is one process, nothing changes.

    Calls of the network itself stay in this process.

    :param network: The network, on its device, in training mode; its modules, parameters and state keep their names.
    :param example: A few inputs (B, C, H, W).
    :return: The module to train through.
    :raises ValueError: When a trainable parameter has no part in the network's output.
    """
    if world().size == 1:
        yield network
        return
    kinds: list[tuple[nn.Module, type]] = []
    for module in network.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
            kinds.append((module, type(module)))
        elif isinstance(module, _BatchNorm):
            logger.warning("%s takes its statistics from each process' part of a batch.", type(module).__name__)
    heads = [module for module in network.modules() if isinstance(module, CenterTrackingHead)]
    try:
        # of the same modules, so that whoever holds one of them (an optimizer, a hook) still does
        for module, _ in kinds:
            on_gpu = all(parameter.is_cuda for parameter in network.parameters())
            module.__class__ = CUDASyncedBatchNorm if on_gpu else CPUSyncedBatchNorm
        for head in heads:
            head.total = total
        share_buffers(network)
        # they must not change between two passes of a step, as in TRADES; torch 2.15 gave the option a new name
        options = inspect.signature(DistributedDataParallel).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
        still: dict[str, Any] = {option: False}
        trained = DistributedDataParallel(network, **still)
        _settle(trained, example)
        yield trained
    finally:
        for module, kind in kinds:
            module.__class__ = kind
        for head in heads:
            del head.total
