"""
The nine defences as the tests know them: one row each, the only list. A row has the loss for one sample in float64, as
the paper's equation has it, with loops over the classes; the formula's own default arguments are the published ones.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from art_mmc import heads
from art_mmc import losses as L  # noqa: N812

# a: logits (K,) float64; y: the true class; the options by the names that the losses have for them


def log_softmax(a):
    shifted = a - a.max()
    return shifted - math.log(sum(math.exp(v) for v in shifted))


def others(a, y):
    return [k for k in range(len(a)) if k != y]


def sce(a, y, label_smoothing=0.0, weight=None):
    log_f, rho = log_softmax(a), label_smoothing
    value = sum(-(1 - rho if k == y else rho / (len(a) - 1)) * log_f[k] for k in range(len(a)))
    return value if weight is None else weight[y] * value


def mmc(a, y, variant="code", temperature=1.0):
    squared_distance = -2 * temperature * a[y]
    return squared_distance / 2 if variant == "paper" else squared_distance


def mmlda(a, y, variant="code", temperature=1.0):
    squared_distances = -2 * temperature * a
    return -log_softmax(-squared_distances / 2 if variant == "paper" else -squared_distances)[y]


def lgm(a, y, alpha=0.1, lam=0.01, temperature=1.0):
    d = -temperature * a
    scores = -d
    scores[y] = -d[y] * (1 + alpha)
    return -log_softmax(scores)[y] + lam * d[y]


def center(a, y, lam=0.003):
    """Behind the head of ThroughCenterHead, where the logits are the features too."""
    return -log_softmax(a)[y] + lam / 2 * sum((a - center_positions(len(a)).double().numpy()[y]) ** 2)


def rce(a, y, weight=None):
    log_f = log_softmax(-a)
    value = -sum(log_f[k] for k in others(a, y)) / (len(a) - 1)
    return value if weight is None else weight[y] * value


def pc(a, y, xi=0.995, variant="code"):
    f = np.exp(log_softmax(a))
    total = sum(max(0.0, f[k] + xi - f[y]) for k in others(a, y))
    return total / (len(a) - 1) if variant == "code" else total


def lc(a, y, constraint="soft"):
    if constraint == "hard":
        return max(0.0, a[y] - max(a[k] for k in others(a, y)))
    w = np.exp(log_softmax(np.array([a[k] for k in others(a, y)])))
    return sum(max(0.0, w_k * (a[y] - a[k])) for w_k, k in zip(w, others(a, y), strict=True))


def pc_lc(a, y, xi=0.995, lam=0.05, variant="code", constraint="soft"):
    return pc(a, y, xi, variant) + lam * lc(a, y, constraint)


def gce(a, y, alpha=0.333, variant="code"):
    f_y = math.exp(log_softmax(a)[y])
    log_q = log_softmax(np.array([a[k] for k in others(a, y)]))  # f_k / (1 - f_y) is the softmax of the others alone
    return f_y**alpha * sum(math.exp(v) * v for v in log_q) / math.log(len(a) if variant == "code" else len(a) - 1)


def isce(a, y, scale=1.0, margin=0.1, selector="pred", clip=True):
    t = a / math.sqrt(sum(v * v for v in a))
    s = y if selector == "true" else int(np.argmax(a))
    t[s] = scale * (t[s] + margin)
    if clip:
        t[s] = min(1.0, max(-1.0, t[s]))
    return -log_softmax(t)[y]


def center_positions(k):
    return torch.linspace(-2, 3, k * k).reshape(k, k)


class ThroughCenterHead(nn.Module):
    """
    The center loss as a function of logits alone: behind a head whose weight is the identity, the logits are the
    features too. The head is in evaluation mode, so that its centers stay.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.loss, self.heads = L.CenterLoss(**options), {}
        self.reduction = "mean"

    def options(self):
        return self.loss.options()

    def forward(self, logits, y):
        k = logits.shape[1]
        if k not in self.heads:
            head = heads.CenterTrackingHead(k, k).eval().requires_grad_(False)
            head.linear.weight.copy_(torch.eye(k))
            head.linear.bias.zero_()
            head.centers.copy_(center_positions(k))
            self.heads[k] = head
        self.loss.reduction = self.reduction
        return self.loss(self.heads[k](logits), y)


@dataclass(frozen=True)
class Row:
    """
    One defence.

    :param head: Class of its last layer.
    :param loss: Class of its loss.
    :param formula: The loss of one sample, float64.
    :param defaults: The head's published options.
    :param other: Another value for every option of head and loss; of class weights the first alone, the rest are 1.
    :param soft: Whether it is defined for probability labels.
    :param least: Fewest classes.
    """

    head: type[heads.Head]
    loss: type[L.Loss]
    formula: Callable[..., float]
    other: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    soft: bool = False
    least: int = 2

    def options(self, nb_classes: int = 10) -> dict[str, Any]:
        """The other options, for so many classes."""
        weight = {"weight": [self.other["weight"], *[1.0] * (nb_classes - 1)]} if "weight" in self.other else {}
        return {**self.other, **weight}


CENTERS = {"scale": 10.0, "centers": "max_mahalanobis", "center_seed": 0}
OTHER_CENTERS = {"scale": 100.0, "centers": "random", "center_seed": -5, "temperature": 3.0, "variant": "paper"}

ROWS = {
    "sce": Row(heads.LinearHead, L.SoftmaxCrossEntropyLoss, sce, {"label_smoothing": 0.2, "weight": 0.5}, soft=True),
    "mmc": Row(heads.FixedCentersHead, L.MMCLoss, mmc, OTHER_CENTERS, {**CENTERS, "temperature": 10.0}, soft=True),
    "mmlda": Row(heads.FixedCentersHead, L.MMLDALoss, mmlda, OTHER_CENTERS, {**CENTERS, "temperature": 1.0}, soft=True),
    "lgm": Row(
        heads.GaussianMeansHead, L.LGMLoss, lgm, {"temperature": 3.0, "alpha": 0.3, "lam": 0.1}, {"temperature": 1.0}
    ),
    "center": Row(
        heads.CenterTrackingHead, L.CenterLoss, center, {"center_rate": 0.2, "lam": 0.01}, {"center_rate": 0.5}
    ),
    "rce": Row(heads.ReversedLinearHead, L.ReverseCrossEntropyLoss, rce, {"weight": 0.5}, soft=True),
    "pc": Row(
        heads.LinearHead,
        L.PCLogitConstraintLoss,
        pc_lc,
        {"xi": 0.8, "lam": 0.1, "variant": "paper", "constraint": "hard"},
    ),
    "gce": Row(heads.LinearHead, L.GuidedComplementEntropyLoss, gce, {"alpha": 0.2, "variant": "paper"}, least=3),
    "isce": Row(
        heads.UnitNormHead,
        L.InferenceSoftmaxLoss,
        isce,
        {"logit_norm": 5.0, "scale": 2.0, "margin": 0.3, "selector": "true", "clip": False},
        {"logit_norm": 1.0},
        soft=True,
    ),
}

#: whose losses are defined for probability labels
SOFT_ROWS = [name for name, row in ROWS.items() if row.soft]

#: the formula of every loss; two are parts of the loss of "pc"
FORMULAS = {row.loss: row.formula for row in ROWS.values()} | {L.PCLoss: pc, L.LogitConstraintLoss: lc}


def published(formula: Callable[..., float]) -> dict[str, Any]:
    """A formula's default arguments, but for the temperature, which is the head's."""
    parameters = list(inspect.signature(formula).parameters.values())[2:]
    return {each.name: each.default for each in parameters if each.name != "temperature"}


@dataclass(frozen=True)
class Case:
    """A loss with options."""

    loss: type[L.Loss]
    options: dict[str, Any] = field(default_factory=dict)
    soft: bool = False  # defined for probability labels
    least: int = 2  # fewest classes
    sums: bool = False  # a sum of K - 1 differences of probabilities, with their rounding

    def build(self, reduction: str = "mean") -> nn.Module:
        loss = ThroughCenterHead(**self.options) if self.loss is L.CenterLoss else self.loss(**self.options)
        loss.reduction = reduction
        return loss

    def values(self, logits: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        """The formula for a batch, float64."""
        rows, formula = logits.detach().double().numpy(), FORMULAS[self.loss]
        return np.array([formula(row.copy(), k, **self.options) for row, k in zip(rows, y.tolist(), strict=True)])


CASES = {
    "sce": Case(L.SoftmaxCrossEntropyLoss, soft=True),
    "sce-smooth.2": Case(L.SoftmaxCrossEntropyLoss, {"label_smoothing": 0.2}, soft=True),
    "sce-smooth.6": Case(L.SoftmaxCrossEntropyLoss, {"label_smoothing": 0.6}, soft=True),
    "mmc-code": Case(L.MMCLoss, soft=True),
    "mmc-paper": Case(L.MMCLoss, {"variant": "paper"}, soft=True),
    "mmc-code-t10": Case(L.MMCLoss, {"temperature": 10.0}, soft=True),
    "mmlda-code": Case(L.MMLDALoss, soft=True),
    "mmlda-paper": Case(L.MMLDALoss, {"variant": "paper"}, soft=True),
    "mmlda-paper-t3": Case(L.MMLDALoss, {"variant": "paper", "temperature": 3.0}, soft=True),
    "lgm": Case(L.LGMLoss),
    "lgm-a.3-l.1-t2": Case(L.LGMLoss, {"alpha": 0.3, "lam": 0.1, "temperature": 2.0}),
    "rce": Case(L.ReverseCrossEntropyLoss, soft=True),
    "pc-code": Case(L.PCLoss),
    "pc-paper": Case(L.PCLoss, {"variant": "paper"}, sums=True),
    "pc-xi.1": Case(L.PCLoss, {"xi": 0.1}),
    "lc-soft": Case(L.LogitConstraintLoss),
    "lc-hard": Case(L.LogitConstraintLoss, {"constraint": "hard"}),
    "pc+lc-code-soft": Case(L.PCLogitConstraintLoss),
    "pc+lc-paper-hard": Case(
        L.PCLogitConstraintLoss, {"xi": 0.8, "lam": 0.5, "variant": "paper", "constraint": "hard"}, sums=True
    ),
    "gce-code": Case(L.GuidedComplementEntropyLoss),
    "gce-paper": Case(L.GuidedComplementEntropyLoss, {"alpha": 0.2, "variant": "paper"}, least=3),
    "isce": Case(L.InferenceSoftmaxLoss, soft=True),
    "isce-true": Case(L.InferenceSoftmaxLoss, {"selector": "true"}),
    "isce-no-clip": Case(L.InferenceSoftmaxLoss, {"scale": 2.0, "margin": 0.3, "clip": False}, soft=True),
    "center": Case(L.CenterLoss, {"lam": 0.1}),
}
SOFT = [key for key, case in CASES.items() if case.soft]


def batch(k, n=8, seed=0, scale=2.0, dtype=torch.float64):
    """Logits and labels; every second sample is classified right, and in one of them with confidence."""
    generator = torch.Generator().manual_seed(1000 * seed + k)
    logits = scale * torch.randn(n, k, generator=generator, dtype=torch.float64)
    y = torch.randint(k, (n,), generator=generator)
    y[::2] = logits[::2].argmax(dim=1)
    logits[0, y[0]] += 6
    return logits.to(dtype), y
