"""
One network trained by several processes, each on its part of every batch, as one process would train it on the whole.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from art_mmc.distributed import broadcast, total, world
from art_mmc.heads import CenterTrackingHead

logger = logging.getLogger(__name__)


def share_buffers(*modules: Any) -> None:
    """Give all processes the main one's buffers; what is no module has none."""
    for module in modules if world().size > 1 else ():
        for buffer in module.buffers() if isinstance(module, nn.Module) else ():
            broadcast(buffer)


def average_gradients(*modules: Any) -> None:
    """Make gradients the means over the processes; what none has a gradient of gets none, so that it does not decay."""
    if world().size == 1:
        return
    networks = [module for module in modules if isinstance(module, nn.Module)]
    parameters = [each for network in networks for each in network.parameters() if each.requires_grad]
    if not parameters:
        return
    had = torch.tensor([float(each.grad is not None) for each in parameters], device=parameters[0].device)
    for parameter, processes in zip(parameters, total(had).tolist(), strict=True):
        if processes:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            total(parameter.grad).div_(world().size)


@contextmanager
def synchronised(network: nn.Module) -> Iterator[None]:
    """Torch's synchronised layers, with the same parameters and buffers, in the places of batch normalisation."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    places = [(m, name, child) for m in network.modules() for name, child in m._modules.items() if type(child) in kinds]
    try:
        for module, name, child in places:
            module._modules[name] = nn.SyncBatchNorm.convert_sync_batchnorm(child)
        yield
    finally:
        for module, name, child in places:
            module._modules[name] = child.train(module._modules[name].training)  # type: ignore[union-attr]


@contextmanager
def data_parallel(network: nn.Module, loss: Any) -> Iterator[None]:
    """Around a training by several processes: centers and, on GPUs, batch normalisation follow the whole batch."""
    if world().size == 1:
        yield
        return
    heads = [module for module in network.modules() if isinstance(module, CenterTrackingHead)]
    with synchronised(network) if any(each.is_cuda for each in network.parameters()) else nullcontext():
        alone = {type(each).__name__ for each in network.modules() if isinstance(each, _BatchNorm)} - {"SyncBatchNorm"}
        if alone and world().is_main:
            logger.warning("%s: each process has the statistics of its part of a batch.", ", ".join(sorted(alone)))
        share_buffers(network, loss)
        for module in (network, loss):
            for parameter in module.parameters() if isinstance(module, nn.Module) else ():
                broadcast(parameter.detach())
        try:
            for head in heads:
                head.total = total
            yield
        finally:
            for head in heads:
                del head.total
