"""
What an attacker maximises: plain functions of logits (B, K) and labels (B,), one value a sample, larger = better for
the attacker. torch alone.

For a targeted attack ART hands the target as the label and descends; the same functions serve.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _or_one(spread: torch.Tensor) -> torch.Tensor:
    """What to divide by: the spread, or 1 where it is 0 or so small that its inverse is no number."""
    return torch.where(spread < torch.finfo(spread.dtype).tiny, torch.ones_like(spread), spread)


def cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """
    Cross-entropy of the softmax. Its float32 gradient is exactly zero where the true logit leads by more than about
    100: see :func:`margin`.

    :param logits: Logits (B, K).
    :param y: Labels (B,), int64.
    :return: (B,), not negative.
    """
    return functional.cross_entropy(logits, y, reduction="none")


def rescaled_cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """
    Cross-entropy of the logits divided by the gap between the two largest, which counts as a constant: whatever the
    scale of the logits, the softmax does not saturate and the gradient does not vanish. Where the two are equal, the
    logits stay as they are.

    | Paper link: https://arxiv.org/abs/2003.01690 (why a cross-entropy attack depends on the logits' scale)

    :param logits: Logits (B, K).
    :param y: Labels (B,), int64.
    :return: (B,), not negative. Its values compare along the attack on one sample only roughly, as the gap moves.
    """
    largest = logits.detach().topk(2, dim=1).values
    gap = largest[:, :1] - largest[:, 1:]
    return cross_entropy(logits / _or_one(gap), y)


def margin(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """
    `max_{k != y} a_k - a_y`: positive exactly where the prediction is wrong. Never saturates.

    | Paper link: https://arxiv.org/abs/1608.04644 (f_6)

    :param logits: Logits (B, K).
    :param y: Labels (B,), int64.
    :return: (B,).
    """
    true = logits.gather(1, y[:, None])
    return (logits.scatter(1, y[:, None], -torch.inf).amax(dim=1, keepdim=True) - true)[:, 0]


def dlr(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """
    Difference of logits ratio: `-(a_y - max_{k != y} a_k) / (a_(1) - a_(3))` with a_(i) the i-th largest logit;
    invariant to the logits' shift and scale. Where the three largest are equal there is nothing to divide by and the
    margin itself is given.

    | Paper link: https://arxiv.org/abs/2003.01690 (Equation 6)

    :param logits: Logits (B, K), K >= 3.
    :param y: Labels (B,), int64.
    :return: (B,).
    :raises ValueError: With fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"dlr needs at least 3 classes (a third largest logit), got {logits.shape[1]}; use margin.")
    largest = logits.topk(3, dim=1).values
    return margin(logits, y) / _or_one(largest[:, 0] - largest[:, 2])


def targeted_dlr(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    Difference of logits ratio for a targeted attack, which descends it: `(max_{k != t} a_k - a_t) / (a_(1) - (a_(3) +
    a_(4)) / 2)`. The paper has the true logit for the largest other one; they are the same until the example is
    misclassified, and no true label is needed. Where the four largest are equal the margin itself is given.

    | Paper link: https://arxiv.org/abs/2003.01690 (Equation 7)

    :param logits: Logits (B, K), K >= 4.
    :param target: Classes to aim at (B,), int64.
    :return: (B,), negative exactly where the target is predicted.
    :raises ValueError: With fewer than four classes.
    """
    if logits.shape[1] < 4:
        raise ValueError(
            f"targeted_dlr needs at least 4 classes (a fourth largest logit), got {logits.shape[1]}; use margin."
        )
    largest = logits.topk(4, dim=1).values
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return margin(logits, target) / _or_one(spread)


def soft_margin(logits: torch.Tensor, y: torch.Tensor, t: float = 3.0) -> torch.Tensor:
    """
    `log sum_{k != y} exp(t a_k / s) - t a_y / s` with s the standard deviation of the sample's logits (by K, not
    K - 1), which counts as a constant: the margin with a soft maximum, whose gradient goes to all the classes that are
    near, on a scale that does not depend on the network's. Invariant to the logits' shift and scale, and never
    saturates: the gradient with respect to a_y is -t / s however far y leads. Where all logits are equal, s is 1.

    :param logits: Logits (B, K), K >= 2.
    :param y: Labels (B,), int64.
    :param t: How sharp the maximum is: near 0 all other classes count alike, from about 10 on the largest alone.
    :return: (B,). Its values compare along the attack on one sample only roughly, as s moves.
    """
    spread = logits.detach().std(dim=1, correction=0, keepdim=True)
    ahead = t * ((logits - logits.gather(1, y[:, None])) / _or_one(spread))
    return ahead.scatter(1, y[:, None], -torch.inf).logsumexp(dim=1)


#: name -> objective; a classifier also knows "loss", its own training loss, and "adaptive", its row's first objective
OBJECTIVES: dict[str, Objective] = {
    "margin": margin,
    "cross_entropy": cross_entropy,
    "rescaled_cross_entropy": rescaled_cross_entropy,
    "dlr": dlr,
    "targeted_dlr": targeted_dlr,
    "soft_margin": soft_margin,
}
