"""
What an attacker maximises: plain functions of logits (B, K) and labels (B,), one value a sample, larger = better for
the attacker. torch alone.

For a targeted attack ART hands the target as the label and descends; the same functions serve.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """
    Cross-entropy of the softmax. Its float32 gradient is exactly zero where the true logit leads by more than about
    100: see :func:`margin`.

    :param logits: Logits (B, K).
    :param y: Labels (B,), int64.
    :return: (B,), not negative.
    """
    return functional.cross_entropy(logits, y, reduction="none")


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
    spread = largest[:, 0] - largest[:, 2]
    tie = spread == 0
    return margin(logits, y) / torch.where(tie, torch.ones_like(spread), spread)


#: name -> objective; a classifier also knows "loss", its own training loss, and "adaptive", its row's first objective
OBJECTIVES: dict[str, Objective] = {"margin": margin, "cross_entropy": cross_entropy, "dlr": dlr}
