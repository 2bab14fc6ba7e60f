"""
A layer of a network by index or name, and its output; the part of a network that gives logits.
"""

from typing import Any, SupportsIndex

import torch
from torch import nn

from art_mmc.checks import check_name
from art_mmc.models.inference import Prepared

#: the layer that carries the features in a :class:`.DefendedNet`
EMBEDDING = "embedding"


class Softmax(nn.Module):
    """A network and the softmax of its logits, divided by a temperature: the network of a view that gives those."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.training = network.training
        self.network = network
        self.temperature = temperature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...) to probabilities (B, K)."""
        return (self.network(x).float() / self.temperature).softmax(dim=1)


def logits_network(network: Any) -> nn.Module:
    """The network that gives logits: without the softmax, where it ends in one."""
    return network.network if isinstance(network, Softmax) else network


def find_layer(network: nn.Module, layer: SupportsIndex | str | None) -> nn.Module:
    """The module of a name, of an index among direct children, or for None the embedding; ValueError for none."""
    modules = dict(network.named_modules(remove_duplicate=False))
    if layer is None and EMBEDDING not in modules:
        raise ValueError(
            f"layer is needed: the network, a {type(network).__name__}, has no '{EMBEDDING}'; name the module whose "
            f"output are the features, one of {', '.join(name for name in modules if name)}."
        )
    if isinstance(layer, SupportsIndex) and not isinstance(layer, bool):
        children = list(network._modules.values())
        if not -len(children) <= layer.__index__() < len(children):
            raise ValueError(f"layer {layer} is out of range: the network has {len(children)} layers.")
        child = children[layer.__index__()]
        if child is None:
            raise ValueError(f"layer {layer} is an empty place in the network.")
        return child
    name = EMBEDDING if layer is None else layer
    return modules[check_name("layer", name, [name for name in modules if name])]


def logits_and_features(
    network: nn.Module, x: torch.Tensor, layer: nn.Module | None, training: bool | None = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits (B, K) and a layer's output (B, d) from one pass without a hook; `training` as in :class:`.Prepared`."""
    prepared = Prepared(network, training, learning=training is None, watched=layer)
    logits = prepared(x.to(next((p.dtype for p in network.parameters()), x.dtype)))
    if layer is not None and not prepared.seen:
        raise ValueError(f"layer {type(layer).__name__} is no step of its own in the network's forward pass.")
    return logits, prepared.seen[-1].flatten(1) if prepared.seen else None
