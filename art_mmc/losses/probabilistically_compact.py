"""
The probabilistically compact (PC) loss and the logit constraint (LC).

| Paper link: https://arxiv.org/abs/2012.07688
"""

import torch

from art_mmc.checks import choice, number
from art_mmc.losses.base import Loss

CONSTRAINTS = ("soft", "hard")


class PCLoss(Loss):
    """
    Keeps the true class' probability ahead of every other by a gap: with `f = softmax(a)`,
    paper (Equation 6): `sum_{k != y} max(0, f_k + xi - f_y)`; released code: the same over K - 1.

    Since the logit constraint is added with the same weight in both, the code weighs it K - 1 times more.

    | Paper link: https://arxiv.org/abs/2012.07688 (Equation 6)

    :param xi: The wanted gap, in [0, 1].
    :param variant: "code" (default) or "paper".
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(self, xi: float = 0.995, variant: str = "code", reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.xi = number("xi", xi, 0, 1, "[]")
        self.variant = choice("variant", variant, ("code", "paper"))

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the PC loss, (B,); see :meth:`Loss.per_sample`."""
        f = torch.softmax(logits, dim=1)
        # the true class' own term is xi exactly, and has no gradient
        hinge = torch.relu(f - f.gather(1, y[:, None]) + self.xi).sum(dim=1) - self.xi
        return hinge / (logits.shape[1] - 1) if self.variant == "code" else hinge


class LogitConstraintLoss(Loss):
    """
    Keeps the true logit close to its runner-up. Paper (Equation 16), constraint "hard": `max(0, a_y - a_j)` with j the
    most probable false class (its constant C' has no gradient and is left out). Released code, constraint "soft":
    `sum_j max(0, w_j (a_y - a_j))` with w the softmax over the false classes, through which the gradient flows too.

    | Paper link: https://arxiv.org/abs/2012.07688 (Equation 16)

    :param constraint: "soft" (default) or "hard".
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(self, constraint: str = "soft", reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.constraint = choice("constraint", constraint, CONSTRAINTS)

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the logit constraint, (B,); see :meth:`Loss.per_sample`."""
        return _logit_constraint(logits, y[:, None], self.constraint)


class PCLogitConstraintLoss(PCLoss):
    """
    The loss that the paper trains with after its warm-up: `PC + lambda LC`.

    | Paper link: https://arxiv.org/abs/2012.07688 (Equations 6 and 16)

    :param xi: The wanted gap of probabilities, in [0, 1].
    :param lam: Weight lambda of the logit constraint, not negative.
    :param variant: "code" (default) or "paper", for the scale of the PC term; see :class:`PCLoss`.
    :param constraint: "soft" (default) or "hard"; see :class:`LogitConstraintLoss`.
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(
        self,
        xi: float = 0.995,
        lam: float = 0.05,
        variant: str = "code",
        constraint: str = "soft",
        reduction: str = "mean",
    ) -> None:
        super().__init__(xi, variant, reduction)
        self.lam = number("lam", lam, ends="[)")
        self.constraint = choice("constraint", constraint, CONSTRAINTS)

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the sum, (B,); see :meth:`Loss.per_sample`."""
        constraint = _logit_constraint(logits, y[:, None], self.constraint)
        return super().per_sample(logits, y).add(constraint, alpha=self.lam)


def _logit_constraint(logits: torch.Tensor, index: torch.Tensor, constraint: str) -> torch.Tensor:
    """The constraint (B,) for logits (B, K) and labels (B, 1)."""
    false, true = logits.scatter(1, index, -torch.inf), logits.gather(1, index)
    if constraint == "hard":
        return torch.relu(true[:, 0] - false.amax(dim=1))
    return (torch.softmax(false, dim=1) * torch.relu(true - logits)).sum(dim=1)
