"""
Detectors that read the logits alone: confidence and non-maximal entropy.
"""

import torch
from torch import Tensor

from art_mmc.detectors.base import ScoreDetector


def log_other_mass(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """`log(1 - f_k)` (B,), f the softmax of logits (B, K), k the classes (B,) or the predicted ones; never log 0."""
    classes = (logits.argmax(dim=1) if classes is None else classes.to(logits.device))[:, None]
    others = logits.scatter(1, classes, -torch.inf)
    return others.logsumexp(dim=1) - logits.logsumexp(dim=1)


def non_maximal_entropy(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """
    Non-ME: the entropy of the softmax of logits (B, K), K >= 3, over all classes but one, `-sum_{i != k} q_i log q_i`
    with `q_i = f_i / sum_{j != k} f_j`: (B,), in [0, log(K - 1)], the most where the other classes are equally likely.
    The classes k (B,) are the predicted ones unless given.

    | Paper link: https://arxiv.org/abs/1706.00633 (Section 3)
    """
    classes = (logits.argmax(dim=1) if classes is None else classes.to(logits.device))[:, None]
    log_q = logits.scatter(1, classes, -torch.inf).log_softmax(dim=1)
    # 0 log 0 = 0, in the value and in the gradient
    return -(log_q.exp() * log_q.scatter(1, classes, 0.0)).sum(dim=1)


class ConfidenceDetector(ScoreDetector):
    """
    Low confidence is suspicious: the score is `log(1 - max_i f_i)`, f being the softmax of the logits. The logarithm
    keeps the order of the confidences and does not saturate at 1.

    | Paper link: https://arxiv.org/abs/1610.02136
    """

    needs_features = False
    needs_labels = False

    def _fit(self, z: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {}

    def _scores(self, fitted: dict[str, Tensor], z: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
        return log_other_mass(logits, classes)


class NonMaximalEntropyDetector(ConfidenceDetector):
    """
    Uneven probabilities of the classes that are not predicted are suspicious, since reverse cross-entropy trains a
    network to make them even: the score is the negative :func:`.non_maximal_entropy`, in [-log(K - 1), 0].

    | Paper link: https://arxiv.org/abs/1706.00633
    """

    title = "non-ME"

    def _fit(self, z: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        if logits.shape[1] < 3:
            raise ValueError(
                f"non-maximal entropy needs at least 3 classes, got {logits.shape[1]}: of two, one is left, and its "
                "entropy is always 0. Use the confidence."
            )
        return {}

    def _scores(self, fitted: dict[str, Tensor], z: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
        return -non_maximal_entropy(logits, classes)
