"""
One network trained by several processes, each on its part of every batch, as one process would train it on the whole.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from art_mmc.distributed import broadcast, total, world
from art_mmc.heads import CenterTrackingHead

logger = logging.getLogger(__name__)


def share_buffers(*modules: Any) -> None:
    """Give all processes the main one's buffers; what is no module has none."""
    for module in modules if world().size > 1 else ():
        for buffer in module.buffers() if isinstance(module, nn.Module) else ():
            broadcast(buffer)


def _trained(loss: Any) -> list[nn.Parameter]:
    return [each for each in loss.parameters() if each.requires_grad] if isinstance(loss, nn.Module) else []


def average_gradients(loss: Any) -> None:
    """The mean over the processes for the parameters of a loss, of which `DistributedDataParallel` does not know."""
    for parameter in _trained(loss) if world().size > 1 else ():
        if parameter.grad is None:  # a process without a part in the batch
            parameter.grad = torch.zeros_like(parameter)
        total(parameter.grad).div_(world().size)


@contextmanager
def synchronised(network: nn.Module) -> Iterator[None]:
    """
    Torch's synchronised layers in the places of batch normalisation, with the same parameters and buffers, for a while.
    """
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    places = [(m, name, child) for m in network.modules() for name, child in m._modules.items() if type(child) in kinds]
    try:
        for module, name, child in places:
            module._modules[name] = nn.SyncBatchNorm.convert_sync_batchnorm(child)
        yield
    finally:
        for module, name, child in places:
            module._modules[name] = child.train(module._modules[name].training)  # type: ignore[union-attr]


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
def data_parallel(network: nn.Module, loss: Any, example: torch.Tensor) -> Iterator[nn.Module]:
    """
    Prepare a network, on its device and in training mode, for training by all processes through the module that is
    given: the center loss' centers, and on GPUs batch normalisation, follow the whole batch, and gradients of what is
    computed through that module are averaged over the processes (`DistributedDataParallel`); those of the loss' own
    parameters are for :func:`average_gradients`. All start from the main process' weights; parameters and state keep
    their names. Where there is one process, nothing changes. `example` are a few inputs (B, C, H, W).

    Calls of the network itself stay in this process. ValueError when a trainable parameter has no part in the network's
    output.
    """
    if world().size == 1:
        yield network
        return
    heads = [module for module in network.modules() if isinstance(module, CenterTrackingHead)]
    with synchronised(network) if example.is_cuda else nullcontext():
        alone = {type(each).__name__ for each in network.modules() if isinstance(each, _BatchNorm)} - {"SyncBatchNorm"}
        if alone and world().is_main:
            logger.warning("%s: each process has the statistics of its part of a batch.", ", ".join(sorted(alone)))
        try:
            for head in heads:
                head.total = total
            share_buffers(network, loss)
            for parameter in _trained(loss):
                broadcast(parameter.detach())
            # they must not change between two passes of a step, as in TRADES; torch 2.15 gave the option a new name
            options = inspect.signature(DistributedDataParallel).parameters
            option = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
            still: dict[str, Any] = {option: False}
            trained = DistributedDataParallel(network, **still)
            _settle(trained, example)
            yield trained
        finally:
            for head in heads:
                del head.total
