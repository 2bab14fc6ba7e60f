"""
The center loss.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from art_mmc.losses.base import IGNORE_NONE, ClosedFormLoss, check_range, softmax_parts


class CenterLoss(ClosedFormLoss):
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
        self.lam = check_range("lam", lam, 0.0)

    def _reduced(self, logits: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        z, head = getattr(logits, "features", None), getattr(logits, "center_head", None)
        if z is None or head is None:
            raise ValueError(
                "CenterLoss needs the features along with the logits: they must come straight from a network whose "
                "head is a CenterTrackingHead (a copy, a slice, or DataParallel drops them)."
            )
        centers = head.centers.index_select(0, y)
        loss = self._run(y, reduction, logits, z.to(logits.dtype), centers.to(logits.dtype))
        if head.training and torch.is_grad_enabled():
            head.update_centers(z.detach(), y)
        return loss

    def formula(  # type: ignore[override]
        self, logits: torch.Tensor, z: torch.Tensor, centers: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """
        :param logits: Logits (B, K).
        :param z: Features (B, d).
        :param centers: The center of each one's class (B, d).
        :param y: Labels (B,), int64.
        :return: Cross-entropy plus pull, (B,).
        """
        losses = functional.cross_entropy(logits, y, reduction="none", ignore_index=IGNORE_NONE)
        return losses + 0.5 * self.lam * (z - centers).square().sum(dim=1)

    def with_gradient(  # type: ignore[override]
        self, logits: torch.Tensor, z: torch.Tensor, centers: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        :param logits: Logits (B, K).
        :param z: Features (B, d).
        :param centers: The center of each one's class (B, d).
        :param y: Labels (B,), int64.
        :return: The same, (B, 1), and its gradients with respect to the first three.
        """
        index = y[:, None]
        slope, top, log_total = softmax_parts(logits)
        loss = (top - logits.gather(1, index)).add_(log_total)
        slope.scatter_(1, index, slope.gather(1, index).sub_(1.0))
        away = z - centers
        loss.add_((away * away).sum(dim=1, keepdim=True), alpha=0.5 * self.lam)
        away.mul_(self.lam)
        return loss, slope, away, away  # the last one is never asked for: the centers have a rule of their own
