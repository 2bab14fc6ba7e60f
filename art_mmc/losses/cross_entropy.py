"""
Softmax cross-entropy (SCE), the baseline of all the papers.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from art_mmc.losses.base import IGNORE_NONE, Loss, check_range


class SoftmaxCrossEntropyLoss(Loss):
    """
    `-sum_k q_k log softmax(a)_k` with q the label, smoothed as in the Bag of Tricks: the true class gets 1 - rho and
    every other rho / (K - 1). (torch's own smoothing spreads rho over all K classes.)

    | Paper link: https://arxiv.org/abs/2010.00467 (label smoothing in adversarial training)

    :param label_smoothing: rho, in [0, 1); 0 for none.
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(self, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.label_smoothing = check_range("label_smoothing", label_smoothing, 0.0, 1.0)
        if self.label_smoothing == 1.0:
            raise ValueError("label_smoothing: expected a number in [0, 1), got 1.0, which would leave the label out.")

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy, (B,); see :meth:`Loss.per_sample`."""
        losses = functional.cross_entropy(logits, y, reduction="none", ignore_index=IGNORE_NONE)
        return self._smooth(logits, losses)

    def per_sample_soft(self, logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy with probability labels, (B,); see :meth:`Loss.per_sample_soft`."""
        return self._smooth(logits, functional.cross_entropy(logits, probabilities, reduction="none"))

    def _smooth(self, logits: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Return the same with the label smoothed: (1 - rho) q + rho / (K - 1) (1 - q), linear in the label q."""
        if not self.label_smoothing:
            return losses
        # torch's own label_smoothing, with a rate K / (K - 1) times as large, would refuse rho > (K - 1) / K
        spread = self.label_smoothing / (logits.shape[1] - 1)
        total = torch.log_softmax(logits, dim=1).sum(dim=1)
        return (1 - self.label_smoothing - spread) * losses - spread * total
