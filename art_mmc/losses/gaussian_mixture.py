"""
The large-margin Gaussian mixture loss (L-GM).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from art_mmc.losses.base import ClosedFormLoss, check_range, softmax_parts, true_entry


class LGMLoss(ClosedFormLoss):
    """
    Cross-entropy over Gaussian class likelihoods with trained means, the true class' distance enlarged by a margin,
    plus a likelihood term. With `d_k = ||z - mu_k||^2 / 2`, identity covariances and equal priors, as in the released
    code: `-log [ exp(-(1 + alpha) d_y) / (exp(-(1 + alpha) d_y) + sum_{k != y} exp(-d_k)) ] + lambda d_y`.
    The margin is part of training only: it is in no logit.

    | Paper link: https://arxiv.org/abs/1803.02988 (Equations 10, 12 and 16)

    :param alpha: Margin, not negative. The released TensorFlow example has 0.1.
    :param lam: Weight lambda of the likelihood term, not negative. The released TensorFlow example has 0.01.
    :param temperature: The head's T.
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(
        self, alpha: float = 0.1, lam: float = 0.01, temperature: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.alpha = check_range("alpha", alpha, 0.0)
        self.lam = check_range("lam", lam, 0.0)
        self.temperature = check_range("temperature", temperature, 1e-12)

    def formula(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return classification plus likelihood loss, (B,); see :meth:`ClosedFormLoss.formula`."""
        scores = logits * self.temperature
        true = true_entry(scores, y)  # -d_y
        with_margin = scores.scatter(1, y[:, None], (true * (1 + self.alpha))[:, None])
        return functional.cross_entropy(with_margin, y, reduction="none") - self.lam * true

    def with_gradient(self, logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same, (B, 1), and its gradient; see :meth:`ClosedFormLoss.with_gradient`."""
        index = y[:, None]
        scores = logits * self.temperature
        true = scores.gather(1, index)
        enlarged = true * (1 + self.alpha)
        f, top, log_total = softmax_parts(scores.scatter_(1, index, enlarged))
        loss = (top - enlarged).add_(log_total).sub_(true, alpha=self.lam)
        slope = f.gather(1, index).sub_(1.0).mul_(1 + self.alpha).sub_(self.lam)
        return loss, f.scatter_(1, index, slope).mul_(self.temperature)
