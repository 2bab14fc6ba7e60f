"""
What all losses share: labels in any format, float32 at least, a reduction read at call time.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from art_mmc.options import HasOptions

REDUCTIONS = ("none", "mean", "sum")


class Loss(HasOptions, nn.Module):
    """
    Base class of the losses. A loss gives one value a sample from the logits (larger = more likely) and the labels, in
    :meth:`per_sample`; this class does the rest.

    Constructor arguments are kept as attributes of the same name. A loss holds no tensor: what has to be moved, saved
    or trained lives in the head. Gradients, of any order, are autograd's.

    :param reduction: "mean", "sum" or "none"; read at every call, since ART sets the attribute for a moment.
    :param weight: One weight a class, finite and not negative, as torch's `cross_entropy` has them: a sample counts as
           much as its class, and "mean" divides by the sum of the samples' weights (with probability labels by the
           number of samples). For losses that take it.
    """

    NOT_OPTIONS = HasOptions.NOT_OPTIONS + ("temperature",)

    #: fewest classes with which training by this loss makes sense
    min_classes = 2

    #: one weight a class, where a loss takes them
    weight: list[float] | None = None

    def __init__(self, reduction: str = "mean", weight: Sequence[float] | None = None) -> None:
        super().__init__()
        self.reduction = reduction
        if weight is not None:
            try:
                self.weight = [float(each) for each in ([] if isinstance(weight, str) else weight)]
            except (TypeError, ValueError):
                self.weight = []
            if not all(0 <= each < math.inf for each in self.weight) or not any(self.weight):
                raise ValueError(
                    f"weight: expected a finite number >= 0 a class, not all of them zero, got {weight!r}."
                )

    def check_weights(self, nb_classes: int) -> None:
        """Refuse class weights that are not one a class."""
        if self.weight is not None and len(self.weight) != nb_classes:
            raise ValueError(f"weight: expected {nb_classes} numbers, one a class, got {len(self.weight)}.")

    def class_weights(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Return the weights of the classes (K,), of the logits' type and device, or None."""
        self.check_weights(logits.shape[1])
        if self.weight is None:
            return None
        return torch.tensor(self.weight, dtype=logits.dtype).to(logits.device, non_blocking=True)

    def forward(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """
        :param logits: Logits (B, K) of any floating type; half precision is computed in float32.
        :param y: Labels: indices (B,) or (B, 1), one-hot (B, K), or probabilities (B, K) where the formula allows.
        :return: The loss, (B,) for reduction "none", else a scalar; float32 or float64.
        :raises ValueError: For labels out of range, shapes that do not fit or an unknown reduction.
        """
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {self.reduction!r}.")
        if logits.ndim != 2 or y.ndim not in (1, 2) or len(y) != len(logits):
            raise ValueError(
                f"expected logits (B, K) and labels (B,) or (B, K), got {tuple(logits.shape)} and {tuple(y.shape)}."
            )
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if y.ndim == 2 and y.shape[1] == 1 != logits.shape[1]:
            y = y[:, 0]
        if y.ndim == 1 and y.is_floating_point() and (y - y.floor() != 0).any():
            raise ValueError(f"labels: expected whole numbers from 0 to {logits.shape[1] - 1}, got {y[:8].tolist()}.")
        if y.ndim == 2 and y.shape != logits.shape:
            raise ValueError(f"labels of shape {tuple(y.shape)} do not fit logits {tuple(logits.shape)}.")
        soft = y.ndim == 2 and not (((y == 0) | (y == 1)).all() and (y.sum(dim=1) == 1).all())
        if not soft:
            y = (y if y.ndim == 1 else y.byte().argmax(dim=1)).long()
        try:
            values = self.per_sample_soft(logits, y.to(logits.dtype)) if soft else self.per_sample(logits, y)
            if self.reduction != "mean":
                return values if self.reduction == "none" else values.sum()
            weights = None if soft else self.class_weights(logits)
            return values.mean() if weights is None else values.sum() / weights[y].sum()
        except (IndexError, RuntimeError):
            # looked at only now: a check of every batch would cost as much as a loss
            if y.ndim == 1 and y.numel() and (y.min() < 0 or y.max() >= logits.shape[1]):
                raise ValueError(
                    f"labels from {int(y.min())} to {int(y.max())} do not fit logits with {logits.shape[1]} classes."
                ) from None
            raise

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return one loss a sample, (B,), times its class' weight, for logits (B, K) and labels (B,) int64."""
        raise NotImplementedError

    def per_sample_soft(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the same for label probabilities (B, K), where a subclass defines it: most need one true class."""
        raise ValueError(
            f"{type(self).__name__} is defined for one true class a sample, not for probability labels; "
            "pass indices (B,) or one-hot labels (B, K)."
        )

    def extra_repr(self) -> str:
        """Return options and reduction, for `repr`."""
        shown = {**self.options(), "reduction": self.reduction}
        return ", ".join(f"{key}={value!r}" for key, value in shown.items())


class LinearInLabelLoss(Loss):
    """A loss that is the label's weighted sum of K class losses, hence defined for probability labels too."""

    def per_class(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the loss that each class would give as the label, (B, K), for logits (B, K)."""
        raise NotImplementedError

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the true class' loss, (B,); see :meth:`Loss.per_sample`."""
        return self.per_class(logits).gather(1, y[:, None])[:, 0]

    def per_sample_soft(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the expected loss under the labels, (B,); see :meth:`Loss.per_sample_soft`."""
        return (y * self.per_class(logits)).sum(dim=1)


def cross_entropy(logits: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return torch's cross-entropy, one a sample (B,), without its habit of skipping the label -100."""
    return functional.cross_entropy(logits, y, weight, reduction="none", ignore_index=-(2**31))
