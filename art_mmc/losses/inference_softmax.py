"""
The inference-softmax cross-entropy (I-SCE).
"""

import math

import torch

from art_mmc.checks import choice, number
from art_mmc.losses.base import Loss, cross_entropy


class InferenceSoftmaxLoss(Loss):
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
        self.scale = number("scale", scale, -math.inf)
        self.margin = number("margin", margin, -math.inf)
        self.selector = choice("selector", selector, ("pred", "true"))
        self.clip = bool(clip)

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the shifted unit logits, (B,); see :meth:`Loss.per_sample`."""
        selected = logits.argmax(dim=1, keepdim=True) if self.selector == "pred" else y[:, None]
        unit = logits / torch.linalg.vector_norm(logits, dim=1, keepdim=True).clamp_min(1e-12)
        bonus = self.scale * (unit.gather(1, selected) + self.margin)
        if self.clip:
            bonus = bonus.clamp(-1.0, 1.0)
        return cross_entropy(unit.scatter(1, selected, bonus), y)

    def per_sample_soft(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the same with probability labels, (B,), for selector "pred"; see :meth:`Loss.per_sample_soft`."""
        return (self.per_sample if self.selector == "pred" else super().per_sample_soft)(logits, y)
