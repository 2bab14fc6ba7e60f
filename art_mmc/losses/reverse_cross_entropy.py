"""
Reverse cross-entropy (RCE).
"""

from __future__ import annotations

import torch

from art_mmc.losses.base import Loss


class ReverseCrossEntropyLoss(Loss):
    """
    Cross-entropy of `softmax(o)` with the reversed label, uniform on the false classes:
    `-1 / (K - 1) sum_{i != y} log softmax(o)_i`, where `o = -a` and a are the network's logits. Training makes o_y the
    smallest entry and the others equal; the network predicts with `a = -o` (see :class:`.ReversedLinearHead`).

    | Paper link: https://arxiv.org/abs/1706.00633 (Equation 3)

    :param reduction: "mean", "sum" or "none".
    """

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the reverse cross-entropy, (B,); see :meth:`Loss.per_sample`."""
        # the true class is left out rather than taken off a sum of all, which it dominates when training has gone well
        log_f = torch.log_softmax(-logits, dim=1).scatter(1, y[:, None], 0.0)
        return log_f.sum(dim=1) / (1 - logits.shape[1])

    def per_sample_soft(self, logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the reverse cross-entropy with probability labels, (B,); see :meth:`Loss.per_sample_soft`."""
        log_f = torch.log_softmax(-logits, dim=1)
        return ((1 - probabilities) * log_f).sum(dim=1) / (1 - logits.shape[1])
