"""
The inference-softmax cross-entropy (I-SCE).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from art_mmc.losses.base import IGNORE_NONE, ClosedFormLoss, bounded_softmax, check_choice, softmax_parts

#: logits of a smaller norm count as zeros
_SHORTEST = 1e-12


class InferenceSoftmaxLoss(ClosedFormLoss):
    """
    Cross-entropy on unit-norm logits whose predicted entry gets a bonus: with `t = a / ||a||`, `t'_k = t_k` but
    `t'_s = clip(scale (t_s + margin), -1, 1)` for the selected class s, the loss is `-log softmax(t')_y`.
    As released, s is the network's own prediction, not the label. The layer changes no prediction, so it is part of the
    loss and the network's logits are the plain ones.

    | Paper link: https://doi.org/10.3390/math10193716 (the formula as in the released code)

    :param scale: s of the released code.
    :param margin: m of the released code, the "inference information".
    :param selector: "pred" (default, as released) or "true" for the label's class.
    :param clip: Whether the selected entry is clipped to [-1, 1] (as released); the gradient through it is then zero
           above.
    :param reduction: "mean", "sum" or "none".
    """

    def __init__(
        self,
        scale: float = 1.0,
        margin: float = 0.1,
        selector: str = "pred",
        clip: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.scale = float(scale)
        self.margin = float(margin)
        self.selector = check_choice("selector", selector, ("pred", "true"))
        self.clip = bool(clip)

    def formula(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the shifted unit logits, (B,); see :meth:`ClosedFormLoss.formula`."""
        selected = logits.argmax(dim=1) if self.selector == "pred" else y
        return functional.cross_entropy(self._shift(logits, selected), y, reduction="none", ignore_index=IGNORE_NONE)

    def with_gradient(self, logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same, (B, 1), and its gradient; see :meth:`ClosedFormLoss.with_gradient`."""
        index = y[:, None]
        if self.selector == "pred":
            before, selected = logits.max(dim=1, keepdim=True)
        else:
            before, selected = logits.gather(1, index), index
        length = torch.linalg.vector_norm(logits, dim=1, keepdim=True).clamp_min_(_SHORTEST)
        inverse = length.reciprocal_()
        unit = logits * inverse
        before = before * inverse
        bonus = (before + self.margin).mul_(self.scale)
        unit.scatter_(1, selected, bonus.clamp(-1.0, 1.0) if self.clip else bonus)
        if self.clip:  # all in [-1, 1]: no probability comes near 0 or 1
            slope = bounded_softmax(unit)
            true = slope.gather(1, index)
            loss = true.log().neg_()
        else:
            slope, top, log_total = softmax_parts(unit)
            true = slope.gather(1, index)
            loss = top.sub_(unit.gather(1, index)).add_(log_total)
        slope.scatter_(1, index, true.sub_(1.0))
        # the selected entry's slope goes through the bonus, unless that was clipped
        through = slope.gather(1, selected).mul_(self.scale)
        if self.clip:
            through = torch.ops.aten.hardtanh_backward(through, bonus, -1.0, 1.0)
        slope.scatter_(1, selected, through)
        unit.scatter_(1, selected, before)
        # of the length: only the part across the unit logits counts
        along = (slope * unit).sum(dim=1, keepdim=True)
        return loss, slope.addcmul_(unit, along, value=-1.0).mul_(inverse)

    def per_sample_soft(self, logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the same with probability labels, (B,), for selector "pred"; see :meth:`Loss.per_sample_soft`."""
        if self.selector == "true":
            return super().per_sample_soft(logits, probabilities)
        return functional.cross_entropy(self._shift(logits, logits.argmax(dim=1)), probabilities, reduction="none")

    def _shift(self, logits: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        unit = functional.normalize(logits, dim=1, eps=_SHORTEST)
        bonus = self.scale * (unit.gather(1, selected[:, None]) + self.margin)
        if self.clip:
            bonus = bonus.clamp(-1.0, 1.0)
        return unit.scatter(1, selected[:, None], bonus)
