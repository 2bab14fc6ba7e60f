"""
The center loss.
"""

import torch

from art_mmc.checks import number
from art_mmc.losses.base import Loss, cross_entropy


class CenterLoss(Loss):
    """
    Cross-entropy plus a pull of the features towards their class' center: `CE + lambda / 2 ||z - c_y||^2`.

    The centers live in a :class:`.CenterTrackingHead`, which hands them over with the logits. They move by their own
    rule (rate alpha, Equation 4) whenever this loss is computed on logits of a network in training mode with gradients
    on, as batch statistics do; crafting adversarial examples in evaluation mode leaves them alone.

    | Paper link: https://ydwen.github.io/papers/WenECCV16.pdf (Equation 5)

    :param lam: Weight lambda of the pull, not negative. The paper's default is 0.003.
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(self, lam: float = 0.003, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.lam = number("lam", lam, ends="[)")

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return cross-entropy plus pull, (B,), and move the centers; see :meth:`Loss.per_sample`."""
        z, head = getattr(logits, "features", None), getattr(logits, "center_head", None)
        if z is None or head is None:
            raise ValueError(
                "CenterLoss needs the features along with the logits: they must come straight from a network whose "
                "head is a CenterTrackingHead (a copy, a slice, or DataParallel drops them)."
            )
        away = (z - head.centers.index_select(0, y)).to(logits.dtype)
        losses = cross_entropy(logits, y).add(away.square().sum(dim=1), alpha=0.5 * self.lam)
        if head.training and torch.is_grad_enabled():
            head.update_centers(z.detach(), y)
        return losses
