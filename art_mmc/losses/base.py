"""
What all losses share: labels in any format, float32 at least, a reduction read at call time.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from art_mmc.options import HasOptions

REDUCTIONS = ("none", "mean", "sum")

#: for torch's cross-entropy, which skips the label -100 unless told otherwise: a label that can't come
IGNORE_NONE = -(2**31)

#: numbers in a register of a CPU: on fewer classes torch's softmax goes one by one
_REGISTER = 16


def is_one_hot(y: torch.Tensor) -> bool:
    """
    :param y: Labels (B, K).
    :return: Whether every row has a single one and otherwise zeros.
    """
    return bool(((y == 0) | (y == 1)).all() and (y.sum(dim=1) == 1).all())


class Loss(HasOptions, nn.Module):
    """
    Base class of the losses. A loss gives one value a sample from the logits (larger = more likely) and the labels, in
    :meth:`per_sample`; this class does the rest.

    Constructor arguments are kept as attributes of the same name. A loss holds no tensor: what has to be moved, saved
    or trained lives in the head.

    :param reduction: "mean", "sum" or "none"; read at every call, since ART sets the attribute for a moment.
    """

    NOT_OPTIONS = HasOptions.NOT_OPTIONS + ("temperature",)

    #: fewest classes with which training by this loss makes sense
    min_classes = 2

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

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
        try:
            if y.ndim == 1:
                return self._reduced(logits, y.long(), self.reduction)
            if y.shape != logits.shape:
                raise ValueError(f"labels of shape {tuple(y.shape)} do not fit logits {tuple(logits.shape)}.")
            if is_one_hot(y):
                return self._reduced(logits, y.byte().argmax(dim=1), self.reduction)
            return reduce(self.per_sample_soft(logits, y.to(logits.dtype)), self.reduction)
        except (IndexError, RuntimeError):
            # looked at only now: a check of every batch would cost as much as a loss
            if y.ndim == 1 and y.numel() and (y.min() < 0 or y.max() >= logits.shape[1]):
                raise ValueError(
                    f"labels from {int(y.min())} to {int(y.max())} do not fit logits with {logits.shape[1]} classes."
                ) from None
            raise

    def _reduced(self, logits: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        return reduce(self.per_sample(logits, y), reduction)

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """
        :param logits: Logits (B, K), float32 or float64.
        :param y: Labels (B,), int64.
        :return: One loss a sample, (B,).
        """
        raise NotImplementedError

    def per_sample_soft(self, logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """
        :param logits: Logits (B, K), float32 or float64.
        :param probabilities: Label probabilities (B, K).
        :return: One loss a sample, (B,).
        :raises ValueError: Unless a subclass defines it: most formulas need one true class.
        """
        raise ValueError(
            f"{type(self).__name__} is defined for one true class a sample, not for probability labels; "
            "pass indices (B,) or one-hot labels (B, K)."
        )

    def extra_repr(self) -> str:
        """Return options and reduction, for `repr`."""
        shown = {**self.options(), "reduction": self.reduction}
        return ", ".join(f"{key}={value!r}" for key, value in shown.items())


class LinearInLabelLoss(Loss):
    """
    A loss that is the label's weighted sum of K class losses, hence defined for probability labels too.
    """

    def per_class(self, logits: torch.Tensor) -> torch.Tensor:
        """
        :param logits: Logits (B, K), float32 or float64.
        :return: The loss that each class would give as the label, (B, K).
        """
        raise NotImplementedError

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the true class' loss, (B,); see :meth:`Loss.per_sample`."""
        return true_entry(self.per_class(logits), y)

    def per_sample_soft(self, logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the expected loss under the labels, (B,); see :meth:`Loss.per_sample_soft`."""
        return (probabilities * self.per_class(logits)).sum(dim=1)


class ClosedFormLoss(Loss):
    """
    A loss whose gradient is written down: forward and backward pass together take about half to two thirds of the time
    that autograd would take. Second derivatives, and those of `torch.func`, are autograd's, of :meth:`formula`.
    """

    def formula(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """
        :param logits: Logits (B, K), float32 or float64.
        :param y: Labels (B,), int64.
        :return: One loss a sample, (B,), in operations that autograd can follow.
        """
        raise NotImplementedError

    def with_gradient(self, logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        :param logits: Logits (B, K), float32 or float64.
        :param y: Labels (B,), int64.
        :return: One loss a sample, (B, 1), and its gradient with respect to the logits (B, K); both are still to be
                 multiplied by :meth:`factor`.
        """
        raise NotImplementedError

    def factor(self, classes: int) -> float:
        """
        :param classes: Number of classes K.
        :return: What :meth:`with_gradient` leaves out, since it costs less in the reduction.
        """
        return 1.0

    def per_sample(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the loss, (B,); see :meth:`Loss.per_sample`."""
        return self._reduced(logits, y, "none")

    def _reduced(self, logits: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        return self._run(y, reduction, logits)

    def _run(self, y: torch.Tensor, reduction: str, *inputs: torch.Tensor) -> torch.Tensor:
        formula: Any = self.formula  # a subclass may take more than the logits
        asked = torch.is_grad_enabled() and (inputs[0].requires_grad or any(each.requires_grad for each in inputs))
        if not asked or torch._C._are_functorch_transforms_active():
            return reduce(formula(*inputs, y), reduction)
        return _WithGradient.apply(self, y, reduction, *inputs)


class _WithGradient(torch.autograd.Function):
    """One step of the computation for a loss of which the gradient is known."""

    @staticmethod
    def forward(ctx: Any, loss: Any, y: torch.Tensor, reduction: str, *inputs: torch.Tensor) -> torch.Tensor:
        values, *gradients = loss.with_gradient(*inputs, y)
        factor = loss.factor(inputs[0].shape[1])
        if reduction == "mean":
            factor /= len(y) or math.nan  # as torch's mean of nothing
        ctx.save_for_backward(y, *inputs, *gradients)
        ctx.settings = loss, reduction, factor
        values = values[:, 0] if reduction == "none" else values.sum()
        return values if factor == 1 else values.mul_(factor)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        y, *tensors = ctx.saved_tensors
        loss, reduction, factor = ctx.settings
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # the gradient is to be differentiated in turn
            inputs = tensors[: len(needed)]
            values = reduce(loss.formula(*inputs, y), reduction)
            wanted = [each for each, need in zip(inputs, needed, strict=True) if need]
            found = iter(torch.autograd.grad(values, wanted, grad, create_graph=True))
            return (None, None, None, *(next(found) if need else None for need in needed))
        weight = grad * factor
        if grad.ndim:
            weight = weight[:, None]
        pairs = zip(tensors[len(needed) :], needed, strict=True)
        return (None, None, None, *(weight * each if need else None for each, need in pairs))


def reduce(values: torch.Tensor, reduction: str) -> torch.Tensor:
    """
    :param values: One value a sample, (B,).
    :param reduction: "none", "mean" or "sum".
    :return: (B,) for "none", else a scalar.
    """
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


def _goes_one_by_one(logits: torch.Tensor) -> bool:
    """Whether torch's softmax would be slow."""
    return logits.shape[1] < _REGISTER and logits.device.type == "cpu"


def softmax_parts(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Softmax, and what makes the logarithm of it: `log f = a - top - log_total`, exact also where f is zero or one. For
    few classes it takes half the time of torch's.

    :param logits: Logits a (B, K).
    :return: f (B, K), top (B, 1), log_total (B, 1).
    """
    top = logits.amax(dim=1, keepdim=True)
    if _goes_one_by_one(logits):
        f = (logits - top).exp_()
        total = f.sum(dim=1, keepdim=True)
        return f.div_(total), top, total.log_()
    f = torch.softmax(logits, dim=1)
    return f, top, f.amax(dim=1, keepdim=True).log_().neg_()


def bounded_softmax(logits: torch.Tensor) -> torch.Tensor:
    """
    The softmax where no exponential can overflow.

    :param logits: Logits a (B, K) between -10 and 10 or so.
    :return: f (B, K).
    """
    if _goes_one_by_one(logits):
        f = logits.exp()
        return f.div_(f.sum(dim=1, keepdim=True))
    return torch.softmax(logits, dim=1)


def false_softmax(logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The softmax over the false classes, from which that over all follows without cancellation: `f_y = sigmoid(lead)` and
    `f_k = sigmoid(-lead) q_k`.

    :param logits: Logits a (B, K).
    :param y: Labels (B, 1), int64.
    :return: q (B, K), zero at the true class; lead (B, 1), how far a_y is above the log-sum-exp of the others.
    """
    q, top, log_total = softmax_parts(logits.scatter(1, y, -torch.inf))
    return q, (logits.gather(1, y) - top).sub_(log_total)


def true_entry(values: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """
    :param values: (B, K).
    :param y: Labels (B,), int64.
    :return: The entry of the true class in each row, (B,).
    """
    return values.gather(1, y[:, None])[:, 0]


def mask_true(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """
    :param logits: (B, K).
    :param y: Labels (B,), int64.
    :return: The logits with the true class' entry at minus infinity, (B, K).
    """
    return logits.scatter(1, y[:, None], -torch.inf)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """
    :param name: Name of the argument.
    :param value: The value that came.
    :param choices: The values that would do.
    :return: The value.
    :raises ValueError: When it is none of the choices.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}.")
    return value


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> float:
    """
    :param name: Name of the argument.
    :param value: The value that came.
    :param low: Smallest value allowed.
    :param high: Largest value allowed.
    :return: The value as a float.
    :raises ValueError: When it is out of range or no number.
    """
    if not low <= value <= high:
        raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}], got {value!r}.")
    return float(value)
