"""
Reverse cross-entropy (RCE).
"""

from __future__ import annotations

import torch

from art_mmc.losses.base import LinearInLabelLoss


class ReverseCrossEntropyLoss(LinearInLabelLoss):
    """
    Cross-entropy of `softmax(o)` with the reversed label, uniform on the false classes:
    `-1 / (K - 1) sum_{i != y} log softmax(o)_i`, where `o = -a` and a are the network's logits. Training makes o_y the
    smallest entry and the others equal; the network predicts with `a = -o` (see :class:`.ReversedLinearHead`).

    | Paper link: https://arxiv.org/abs/1706.00633 (Equation 3)

    :param reduction: "mean", "sum" or "none".
    """

    def per_class(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the reverse cross-entropies, (B, K); see :meth:`LinearInLabelLoss.per_class`."""
        log_f = torch.log_softmax(-logits, dim=1)
        return (log_f - log_f.sum(dim=1, keepdim=True)) / (logits.shape[1] - 1)
