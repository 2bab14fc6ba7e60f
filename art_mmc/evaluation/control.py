"""
The positive control: an attack that is to be trusted must find an adversarial example that is known to be there.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.evaluation.engine import Target, attack_batch, derived_seed
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.models import DefendedNet

#: points of the ball that a planted classifier must tell from the planted one
INNER = 200

#: share of eps that the inner points keep to, and corners that are tried for each image
_INNER_SHARE, _CORNERS = 0.95, 5


class Planted(nn.Module):
    """
    The network up to its last layer, and for each sample of a batch its own linear layer with two classes: 0 for the
    ball around a clean input, 1 for a planted point.

    :param network: The network, (B, C, H, W) -> (B, K).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._seen: list[torch.Tensor] = []
        self.weight: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None

    def _last_layer(self) -> nn.Module | None:
        if isinstance(self.network, DefendedNet):
            return self.network.head
        linear = [module for module in self.network.modules() if isinstance(module, nn.Linear)]
        return linear[-1] if linear else None

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: Inputs (B, C, H, W).
        :return: What the last linear layer reads, or the outputs if there is none, (B, d).
        """
        last = self._last_layer()
        if last is None:
            return self.network(x).flatten(1)
        seen: list[torch.Tensor] = []
        handle = last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        try:
            outputs = self.network(x)
        finally:
            handle.remove()
        return (seen[-1] if seen else outputs).flatten(1).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: Inputs (B, C, H, W), the first samples in the order of the weights.
        :return: Logits (B, 2).
        """
        if self.weight is None or self.bias is None or len(x) > len(self.weight):
            raise ValueError("the planted layers belong to the samples of one batch.")
        score = (self.features(x) * self.weight[: len(x)]).sum(dim=1) + self.bias[: len(x)]
        return torch.stack([-score, score], dim=1)


def positive_control(
    target: Target,
    x: np.ndarray,
    plan: AttackPlan,
    seed: int = 0,
) -> tuple[int, int]:
    """
    Plant an adversarial example in the ball of each image and see whether an attack finds one: the network's features
    get a new linear layer that tells a corner of the ball from many points inside it.

    | Paper link: https://arxiv.org/abs/2206.13991 (binarisation test)

    :param target: The classifier.
    :param x: A few inputs (M, C, H, W).
    :param plan: The attack in question.
    :param seed: Seed of the points and of the attack.
    :return: For how many images the attack found an example, and for how many one could be planted.
    """
    base = target.view("loss")
    planted = Planted(base.model)
    rng = np.random.default_rng(derived_seed(seed, 5))
    usable, weights, biases = [], [], []
    with base.crafting(), torch.no_grad():
        for index, image in enumerate(x):
            layer = _plant(base, planted, image, plan, rng)
            if layer is not None:
                usable.append(index)
                weights.append(layer[0])
                biases.append(layer[1])
    if not usable:
        return 0, 0
    left = np.arange(len(usable))
    modes = [(module, module.training) for module in planted.modules()]
    try:
        for restart, step in enumerate(plan.step_sizes[r % len(plan.step_sizes)] for r in range(plan.restarts)):
            if not len(left):
                break
            planted.weight = torch.stack([weights[i] for i in left])
            planted.bias = torch.stack([biases[i] for i in left])
            inputs = x[[usable[i] for i in left]]
            once = replace(plan, restarts=1, step_size=step)
            inner = np.zeros(len(left), dtype=np.int64)
            outcome = attack_batch(
                Target(_around(base, planted), inputs), inputs, inner, once, derived_seed(seed, restart)
            )
            left = left[outcome.standing]
    finally:
        for module, mode in modes:
            module.training = mode
    return len(usable) - len(left), len(usable)


def _around(base: LossDefendedClassifier, planted: Planted) -> LossDefendedClassifier:
    return LossDefendedClassifier(
        planted,
        nn.CrossEntropyLoss(),
        base.input_shape,
        2,
        optimizer=base.optimizer,
        channels_first=base.channels_first,
        clip_values=base.clip_values,
        preprocessing_defences=base.preprocessing_defences,
        preprocessing=base.preprocessing,
        device_type="cpu" if base.device.type == "cpu" else "gpu",
        objective="margin",
    )


def _plant(
    base: LossDefendedClassifier, planted: Planted, image: np.ndarray, plan: AttackPlan, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weights (d,) and bias of a layer that is 1 at a corner of the ball and 0 at all inner points, if there is one."""
    low, high = (-math.inf, math.inf) if base.clip_values is None else base.clip_values

    def features(points: np.ndarray) -> torch.Tensor:
        points = np.clip(image + points, low, high).astype(np.float32)
        preprocessed, _ = base._apply_preprocessing(points, y=None, fit=False)
        return planted.features(torch.as_tensor(preprocessed, device=base.device)).double()

    def directions(count: int) -> np.ndarray:
        if plan.norm == math.inf:
            return rng.uniform(-1, 1, (count, *image.shape))
        points = rng.normal(size=(count, *image.shape))
        lengths = np.sqrt((points**2).reshape(count, -1).sum(axis=1)).reshape(-1, *[1] * image.ndim)
        return points / lengths * rng.uniform(0, 1, lengths.shape)

    inner = features(_INNER_SHARE * plan.eps * np.concatenate([directions(INNER), np.zeros((1, *image.shape))]))
    mean = inner.mean(dim=0)
    centred = inner - mean
    scale = float(centred.square().mean()) or 1.0
    spread = centred.T @ centred / len(inner) + 0.1 * scale * torch.eye(inner.shape[1], dtype=inner.dtype).to(inner)
    for _ in range(_CORNERS):
        corner: Any = directions(1)
        corner = np.sign(corner) if plan.norm == math.inf else corner / np.sqrt((corner**2).sum())
        point = features(plan.eps * corner)[0]
        weight = torch.linalg.solve(spread, point - mean)  # Fisher's discriminant
        nearest, reached = float((inner @ weight).max()), float(point @ weight)
        if reached > nearest + 1e-6 * abs(nearest):
            weight = weight / (reached - nearest)
            return weight.float(), torch.tensor(-(nearest + reached) / 2 / (reached - nearest)).to(weight).float()
    return None
