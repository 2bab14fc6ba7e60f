"""
Reverse cross-entropy (RCE).
"""

from collections.abc import Sequence

import torch

from art_mmc.losses.base import Loss


class ReverseCrossEntropyLoss(Loss):
    """
    Cross-entropy of `softmax(o)` with the reversed label, uniform on the false classes:
    `-1 / (K - 1) sum_{i != y} log softmax(o)_i`, where `o = -a` and a are the network's logits. Training makes o_y the
    smallest entry and the others equal; the network predicts with `a = -o` (see :class:`.ReversedLinearHead`).

    | Paper link: https://arxiv.org/abs/1706.00633 (Equation 3)

    :param reduction: "mean", "sum" or "none".
    :param weight: One weight a class, finite and not negative: that of the sample's true class; None for none.
    """

    def __init__(self, reduction: str = "mean", weight: Sequence[float] | None = None) -> None:
        super().__init__(reduction, weight)

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the reverse cross-entropy, (B,); see :meth:`Loss.per_sample`."""
        # the true class is left out rather than taken off a sum of all, which it dominates when training has gone well
        log_f = torch.log_softmax(-logits, dim=1).scatter(1, y[:, None], 0.0)
        losses = log_f.sum(dim=1) / (1 - logits.shape[1])
        weight = self.class_weights(logits)
        return losses if weight is None else losses * weight[y]

    def per_sample_soft(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the reverse cross-entropy with probability labels, (B,); see :meth:`Loss.per_sample_soft`."""
        log_f = torch.log_softmax(-logits, dim=1)
        weight = self.class_weights(logits)
        share = y if weight is None else y * weight
        return ((share.sum(dim=1, keepdim=True) - share) * log_f).sum(dim=1) / (1 - logits.shape[1])
