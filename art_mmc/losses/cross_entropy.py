"""
Softmax cross-entropy (SCE), the baseline of all the papers.
"""

from collections.abc import Sequence

import torch

from art_mmc.checks import number
from art_mmc.losses.base import Loss, cross_entropy


class SoftmaxCrossEntropyLoss(Loss):
    """
    `-sum_k q_k log softmax(a)_k` with q the label, smoothed as in the Bag of Tricks: the true class gets 1 - rho and
    every other rho / (K - 1). (torch's own smoothing spreads rho over all K classes.)

    | Paper link: https://arxiv.org/abs/2010.00467 (label smoothing in adversarial training)

    :param label_smoothing: rho, in [0, 1); 0 for none.
    :param reduction: "mean", "sum" or "none".
    :param weight: One weight a class, finite and not negative, as in torch's `cross_entropy`; None for none.
    """

    def __init__(
        self, label_smoothing: float = 0.0, reduction: str = "mean", weight: Sequence[float] | None = None
    ) -> None:
        super().__init__(reduction, weight)
        self.label_smoothing = number("label_smoothing", label_smoothing, 0, 1, "[]")
        if self.label_smoothing == 1.0:
            raise ValueError("label_smoothing: expected a number in [0, 1), got 1.0, which would leave the label out.")

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy, (B,), with labels (B,) or (B, K); see :meth:`Loss.per_sample`."""
        weight = self.class_weights(logits)
        losses = cross_entropy(logits, y, weight)
        if not self.label_smoothing:
            return losses
        # with the label (1 - rho) q + rho / (K - 1) (1 - q), linear in q;
        # torch's own label_smoothing, with a rate K / (K - 1) times as large, would refuse rho > (K - 1) / K
        spread = self.label_smoothing / (logits.shape[1] - 1)
        log_f = torch.log_softmax(logits, dim=1)
        total = (log_f if weight is None else log_f * weight).sum(dim=1)
        return (1 - self.label_smoothing - spread) * losses - spread * total

    per_sample_soft = per_sample
