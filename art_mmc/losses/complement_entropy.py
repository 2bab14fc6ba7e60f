"""
Guided complement entropy (GCE).
"""

import math

import torch

from art_mmc.checks import choice, number
from art_mmc.losses.base import Loss, cross_entropy


class GuidedComplementEntropyLoss(Loss):
    """
    Flattens the false classes, guided by the confidence in the true one: with `f = softmax(a)` and
    `q_j = f_j / (1 - f_y)`, `f_y^alpha sum_{j != y} q_j log q_j / log(K - 1)` (paper); the released code divides by
    `log K`. Values in [-1, 0]. With two classes the sum is empty of information: the loss is 0 for every input.

    | Paper link: https://arxiv.org/abs/1903.09799 (Equation 4)

    :param alpha: Guiding exponent, not negative. The released default (MNIST) is 0.333.
    :param variant: "code" (default) or "paper".
    :param reduction: "mean", "sum" or "none".
    """

    min_classes = 3

    def __init__(self, alpha: float = 0.333, variant: str = "code", reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.alpha = number("alpha", alpha, ends="[)")
        self.variant = choice("variant", variant, ("code", "paper"))

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the guided complement entropy, (B,); see :meth:`Loss.per_sample`."""
        scale = logits.shape[1] - (self.variant == "paper")
        if scale < 2:
            raise ValueError("guided complement entropy divides by log(K - 1): it needs at least 3 classes.")
        log_f = -cross_entropy(logits, y)
        # log q from the false classes alone: log f_j - log(1 - f_y) cancels where f_y is near 1
        index = y[:, None]
        log_q = torch.log_softmax(logits.scatter(1, index, -torch.inf), dim=1).scatter(1, index, 0.0)
        complement = (log_q.exp() * log_q).sum(dim=1)  # the true class adds exp(0) * 0
        return (log_f * self.alpha).exp() * complement / math.log(scale)
