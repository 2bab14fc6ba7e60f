"""
What the papers say of a network's probabilities: the gap that PC widens, and the bounds of reverse cross-entropy.
"""

from typing import Any

import numpy as np
from scipy.special import softmax

from art_mmc.checks import as_array, check_labels, whole


def check_logits(logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K), K >= 2, as float64, and labels as indices (N,); ValueError for what does not fit."""
    logits, y = as_array("logits", logits), np.asarray(y)
    if logits.ndim != 2 or len(logits) == 0 or logits.shape[1] < 2:
        raise ValueError(f"logits: expected shape (N, K) with K of at least 2, got {logits.shape}.")
    if not np.isfinite(logits).all():
        raise ValueError("logits: NaN or infinite values.")
    return logits.astype(np.float64), check_labels(y, logits.shape[1], length=len(logits))


def probability_gap(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """
    Softmax probability of the true class minus that of the likeliest false one, which the PC loss widens. Positive
    exactly where the prediction is right.

    The softmax is that of the network's logits, which for MMC, MMLDA and L-GM are distances over the head's
    temperature: with those the gap depends on a constant that training does not.

    | Paper link: https://arxiv.org/abs/2012.07688 (Section 3, "probability gap")

    :param logits: Logits (N, K), larger = likelier.
    :param y: True labels: indices (N,) or one-hot (N, K).
    :return: The gaps (N,), in [-1, 1].
    :raises ValueError: For what does not fit.
    """
    logits, y = check_logits(logits, y)
    probabilities = softmax(logits, axis=1)
    rows = np.arange(len(y))
    true = probabilities[rows, y]
    probabilities[rows, y] = -np.inf
    return true - probabilities.max(axis=1)


def reverse_training_error(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """
    How far a network trained by reverse cross-entropy is from its goal: `alpha = ||softmax(-logits) - R_y||_inf`, where
    R_y is 0 for the true class and 1 / (K - 1) for each other one.

    :param logits: Logits (N, K) as the networks of this package give them, larger = likelier: the paper's reversed.
    :param y: True labels: indices (N,) or one-hot (N, K).
    :return: alpha (N,).
    :raises ValueError: For what does not fit.
    """
    logits, y = check_logits(logits, y)
    goal = np.full(logits.shape, 1 / (logits.shape[1] - 1))
    goal[np.arange(len(y)), y] = 0
    return np.abs(softmax(-logits, axis=1) - goal).max(axis=1)


def reverse_prediction_bounds(alpha: Any, nb_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """
    What a training error alpha of reverse cross-entropy means for the prediction `F = softmax(logits)`: `||F -
    1_y||_inf` is at most `alpha (K - 1)^2`, and two false classes differ by at most `2 alpha^2 (K - 1)^2`.

    | Paper link: https://arxiv.org/abs/1706.00633 (Theorem 2)

    :param alpha: The training error, see :func:`reverse_training_error`; a number or an array, in [0, 1 / K): the paper
           asks for alpha far below 1 / K.
    :param nb_classes: Number of classes K, at least 2.
    :return: The bound on the error and the bound on the difference, of the shape of `alpha`.
    :raises ValueError: When an argument is out of range.
    """
    alpha = as_array("alpha", alpha, float)
    whole("nb_classes", nb_classes, 2)
    if not ((alpha >= 0) & (alpha < 1 / nb_classes)).all():
        raise ValueError(f"alpha: expected numbers in [0, {1 / nb_classes:g}), 1 / K, where the theorem holds.")
    return alpha * (nb_classes - 1) ** 2, 2 * np.square(alpha) * (nb_classes - 1) ** 2
