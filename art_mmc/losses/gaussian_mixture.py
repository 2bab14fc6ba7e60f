"""
The large-margin Gaussian mixture loss (L-GM).
"""

import torch

from art_mmc.checks import number
from art_mmc.losses.base import Loss, cross_entropy


class LGMLoss(Loss):
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
        self.alpha = number("alpha", alpha, ends="[)")
        self.lam = number("lam", lam, ends="[)")
        self.temperature = number("temperature", temperature)

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return classification plus likelihood loss, (B,); see :meth:`Loss.per_sample`."""
        index = y[:, None]
        scores = logits if self.temperature == 1 else logits * self.temperature
        true = scores.gather(1, index)  # -d_y
        with_margin = scores.scatter(1, index, true * (1 + self.alpha))
        return cross_entropy(with_margin, y).sub(true[:, 0], alpha=self.lam)
