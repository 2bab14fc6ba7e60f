"""
Losses on distances to Max-Mahalanobis centers. Logits come from a head with fixed centers:
`h_k = -||z - mu_k||^2 / (2 T)` with a temperature T that the losses here multiply back.
"""

import torch

from art_mmc.checks import choice, number
from art_mmc.losses.base import LinearInLabelLoss


class MMLDALoss(LinearInLabelLoss):
    """
    Max-Mahalanobis linear discriminant analysis: the negative log-likelihood of the label under a mixture of Gaussians
    around the fixed centers.

    Paper: `-log softmax(-||z - mu||^2 / 2)_y`. Released code, which produced the tables: the exponent without the 1/2,
    a softmax of twice the sharpness.

    | Paper link: https://arxiv.org/abs/1802.09308 (Equation 5)

    :param variant: "code" (default) or "paper".
    :param temperature: The head's T.
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(self, variant: str = "code", temperature: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.variant = choice("variant", variant, ("code", "paper"))
        self.temperature = number("temperature", temperature)

    def per_class(self, logits: torch.Tensor) -> torch.Tensor:
        """Return `-log softmax` of the negative distances, (B, K); see :meth:`LinearInLabelLoss.per_class`."""
        return -torch.log_softmax(logits * (self.temperature * (2 if self.variant == "code" else 1)), dim=1)


class MMCLoss(LinearInLabelLoss):
    """
    The Max-Mahalanobis center loss: the squared distance to the true class' center and nothing else, so that the
    features of a class gather densely around it.

    Paper: `||z - mu_y||^2 / 2`. Released code, which produced the tables at its learning rate: `||z - mu_y||^2`.

    | Paper link: https://arxiv.org/abs/1905.10626 (Equation 8)

    :param variant: "code" (default) or "paper".
    :param temperature: The head's T.
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(self, variant: str = "code", temperature: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.variant = choice("variant", variant, ("code", "paper"))
        self.temperature = number("temperature", temperature)

    def per_class(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the (half) squared distances, (B, K); see :meth:`LinearInLabelLoss.per_class`."""
        return logits * -(self.temperature * (2 if self.variant == "code" else 1))
