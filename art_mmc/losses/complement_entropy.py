"""
Guided complement entropy (GCE).
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from art_mmc.losses.base import ClosedFormLoss, check_choice, check_range, mask_true, softmax_parts, true_entry


class GuidedComplementEntropyLoss(ClosedFormLoss):
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
        self.alpha = check_range("alpha", alpha, 0.0)
        self.variant = check_choice("variant", variant, ("code", "paper"))

    def factor(self, classes: int) -> float:
        """Return the normalisation; see :meth:`ClosedFormLoss.factor`."""
        scale = classes - (self.variant == "paper")
        if scale < 2:
            raise ValueError("guided complement entropy divides by log(K - 1): it needs at least 3 classes.")
        return 1 / math.log(scale)

    def formula(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the guided complement entropy, (B,); see :meth:`ClosedFormLoss.formula`."""
        factor = self.factor(logits.shape[1])
        log_f = true_entry(torch.log_softmax(logits, dim=1), y)
        # log q from the false classes alone: log f_j - log(1 - f_y) cancels where f_y is near 1
        log_q = torch.log_softmax(mask_true(logits, y), dim=1).scatter(1, y[:, None], 0.0)
        complement = (log_q.exp() * log_q).sum(dim=1)  # the true class adds exp(0) * 0
        return torch.exp(self.alpha * log_f) * complement * factor

    def with_gradient(self, logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the guided complement entropy, (B, 1), and its gradient; see :meth:`ClosedFormLoss.with_gradient`."""
        index = y[:, None]
        # not minus infinity, of which the product with q = 0 would be no number
        false = logits.scatter(1, index, torch.finfo(logits.dtype).min / 4)
        q, top, log_total = softmax_parts(false)
        log_q = false.sub_(top).sub_(log_total)
        lead = (logits.gather(1, index) - top).sub_(log_total)  # f_y = sigmoid(lead), without cancellation
        rest = torch.sigmoid(-lead)  # 1 - f_y
        guide = functional.logsigmoid(lead).mul_(self.alpha).exp_()
        complement = (q * log_q).sum(dim=1, keepdim=True)
        loss = guide * complement
        # of the entropy: guide q_j (log q_j - complement), zero at the true class;
        # of the guide: alpha loss (1[j = y] - f_j), where f_j = q_j rest
        pull = loss.mul(self.alpha).mul_(rest)
        gradient = log_q.sub_(complement).mul_(guide).sub_(pull).mul_(q)
        return loss, gradient.scatter_(1, index, pull)
