"""
The probabilistically compact (PC) loss and the logit constraint (LC).

| Paper link: https://arxiv.org/abs/2012.07688
"""

from __future__ import annotations

import torch

from art_mmc.losses.base import ClosedFormLoss, check_choice, check_range, false_softmax, mask_true, true_entry


class PCLoss(ClosedFormLoss):
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
        self.xi = check_range("xi", xi, 0.0, 1.0)
        self.variant = check_choice("variant", variant, ("code", "paper"))

    def factor(self, classes: int) -> float:
        """Return the released code's mean over the false classes, or 1; see :meth:`ClosedFormLoss.factor`."""
        return 1 / (classes - 1) if self.variant == "code" else 1.0

    def formula(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the PC loss, (B,); see :meth:`ClosedFormLoss.formula`."""
        f = torch.softmax(logits, dim=1)
        # the true class' own term is xi exactly, and has no gradient
        hinge = torch.relu(f - f.gather(1, y[:, None]) + self.xi).sum(dim=1) - self.xi
        return hinge * self.factor(logits.shape[1])

    def with_gradient(self, logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the PC loss, (B, 1), and its gradient; see :meth:`ClosedFormLoss.with_gradient`."""
        index = y[:, None]
        q, lead = false_softmax(logits, index)
        loss, slope = self.hinges(q, lead, index)
        return loss, _balanced(slope.mul_(q), index)

    def hinges(self, q: torch.Tensor, lead: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        :param q: Softmax over the false classes (B, K), zero at the true one.
        :param lead: The true logit's lead (B, 1); see :func:`.false_softmax`.
        :param y: Labels (B, 1).
        :return: Sum of the hinges (B, 1), and its gradient with respect to the false logits, still to be multiplied by
                 q, (B, K).
        """
        true, rest = torch.sigmoid(lead), torch.sigmoid(-lead)
        hinge = (q * rest).add_(self.xi - true).scatter_(1, y, 0.0).relu_()
        loss = hinge.sum(dim=1, keepdim=True)
        # each open hinge pulls its class' probability down, and all of them the true one up
        open_ = hinge.ceil_().clamp_max_(1.0)  # their sign, in half the time
        count = open_.sum(dim=1, keepdim=True)
        mass = (q * open_).sum(dim=1, keepdim=True).mul_(rest)
        return loss, open_.sub_(mass.addcmul_(count, true, value=-1.0)).mul_(rest)


class LogitConstraintLoss(ClosedFormLoss):
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
        self.constraint = check_choice("constraint", constraint, ("soft", "hard"))

    def formula(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the logit constraint, (B,); see :meth:`ClosedFormLoss.formula`."""
        false = mask_true(logits, y)
        if self.constraint == "hard":
            return torch.relu(true_entry(logits, y) - false.amax(dim=1))
        weights = torch.softmax(false, dim=1)
        return (weights * torch.relu(logits.gather(1, y[:, None]) - logits)).sum(dim=1)

    def with_gradient(self, logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logit constraint, (B, 1), and its gradient; see :meth:`ClosedFormLoss.with_gradient`."""
        index = y[:, None]
        if self.constraint == "hard":
            largest, rival = mask_true(logits, y).max(dim=1, keepdim=True)
            loss = torch.relu(logits.gather(1, index) - largest)
            slope = loss.sign()
            return loss, torch.zeros_like(logits).scatter_(1, rival, -slope).scatter_(1, index, slope)
        weights = false_softmax(logits, index)[0]
        loss, slope = self.weighted_leads(weights, logits, index)
        return loss, _balanced(slope.mul_(weights), index)

    @staticmethod
    def weighted_leads(
        weights: torch.Tensor, logits: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        :param weights: Softmax over the false classes (B, K), zero at the true one.
        :param logits: Logits (B, K).
        :param y: Labels (B, 1).
        :return: The soft constraint (B, 1), and its gradient with respect to the false logits, still to be multiplied
                 by the weights, (B, K).
        """
        leads = (logits.gather(1, y) - logits).relu_()
        weighted = weights * leads
        loss = weighted.sum(dim=1, keepdim=True)
        # through the weights, w_k (lead_k - loss), and through the leads, -w_k where there is one
        ahead = torch.ceil(leads, out=weighted).clamp_max_(1.0)
        return loss, leads.sub_(ahead).sub_(loss)


class PCLogitConstraintLoss(ClosedFormLoss):
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
        super().__init__(reduction)
        self.lam = check_range("lam", lam, 0.0)
        self.pc = PCLoss(xi, variant)
        self.logit_constraint = LogitConstraintLoss(constraint)

    @property
    def xi(self) -> float:
        """The wanted gap of probabilities."""
        return self.pc.xi

    @property
    def variant(self) -> str:
        """The scale of the PC term."""
        return self.pc.variant

    @property
    def constraint(self) -> str:
        """The kind of logit constraint."""
        return self.logit_constraint.constraint

    def factor(self, classes: int) -> float:
        """Return that of the PC loss; see :meth:`ClosedFormLoss.factor`."""
        return self.pc.factor(classes)

    def formula(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the sum, (B,); see :meth:`ClosedFormLoss.formula`."""
        return self.pc.formula(logits, y) + self.lam * self.logit_constraint.formula(logits, y)

    def with_gradient(self, logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum, (B, 1), and its gradient, (B, K); see :meth:`ClosedFormLoss.with_gradient`."""
        pc, constraint = self.pc, self.logit_constraint
        index, lam = y[:, None], self.lam / pc.factor(logits.shape[1])
        if constraint.constraint == "hard":
            loss, gradient = pc.with_gradient(logits, y)
            distance, slope = constraint.with_gradient(logits, y)
            return loss.add_(distance, alpha=lam), gradient.add_(slope, alpha=lam)
        q, lead = false_softmax(logits, index)  # one softmax serves both
        loss, slope = pc.hinges(q, lead, index)
        distance, more = constraint.weighted_leads(q, logits, index)
        return loss.add_(distance, alpha=lam), _balanced(slope.add_(more, alpha=lam).mul_(q), index)


def _balanced(gradient: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The true logit's entry, zero so far: the losses do not change when all logits do, so the entries add up to 0."""
    return gradient.scatter_(1, y, gradient.sum(dim=1, keepdim=True).neg_())
