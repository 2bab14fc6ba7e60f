"""
The thresholding test strategy: a classifier that says "rejected" where its detector is suspicious.
"""

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from art_mmc.checks import as_array, check_labels, check_name, check_type, number
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.detectors.base import ScoreDetector
from art_mmc.models.features import find_layer, logits_and_features

#: the label of an input that is rejected
REJECTED = -1


class RejectingNet(torch.nn.Module):
    """
    A network with one more logit, that of rejection: `max_k a_k + (s - T) / u` with the fitted detector's score s, a
    threshold T and the spread u of the clean scores. It is the largest exactly where s > T, and differentiable: an
    attacker sees the detector.

    | Paper link: https://arxiv.org/abs/1705.07263 (Section 2.4: a detector as one more class)
    """

    def __init__(self, detector: ScoreDetector, threshold: float) -> None:
        super().__init__()
        self.network = detector.network
        self.detector = detector
        self.spread = detector.spread
        self.threshold = float(threshold)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs (B, C, H, W), cast to the network's own type, to logits (B, K + 1), the last that of rejection."""
        layer = find_layer(self.network, self.detector.layer) if self.detector.needs_features else None
        logits, z = logits_and_features(self.network, x, layer, training=None)
        excess = self.detector.score_tensors(logits, z) - self.threshold
        largest = logits.amax(dim=1)
        reject = largest + (excess / self.spread).to(logits.dtype)
        # an excess below the logits' rounding still rejects
        above = torch.nextafter(largest.detach(), torch.full_like(largest, torch.inf))
        reject = torch.where((excess > 0) & (reject <= largest), above, reject)
        return torch.cat([logits, reject[:, None]], dim=1)


@dataclass(frozen=True)
class SelectiveRecord:
    """A classifier that rejects above a threshold."""

    threshold: float
    n: int  # inputs
    accepted: int  # those with a score up to the threshold
    correct: int  # accepted ones that are classified correctly

    @property
    def coverage(self) -> float:
        """Share of the inputs that are accepted."""
        return self.accepted / self.n

    @property
    def accuracy(self) -> float | None:
        """Share of the accepted inputs that are classified correctly; None where none are accepted."""
        return self.correct / self.accepted if self.accepted else None


class ThresholdedClassifier(LossDefendedClassifier):
    """
    A classifier and its detector as one ART classifier of K + 1 classes, the last of which means "rejected": the label
    where the score is at most the threshold, else none. :meth:`predict_labels` gives -1 for it.

    ART's attacks run on it and see the detector, since it is part of the network. "adaptive", the objective that
    `loss_gradient` follows by default, is an attacker's real goal, to be misclassified and accepted: the largest logit
    of a wrong class minus the larger one of the true class and of rejection. For targeted attacks, to which ART gives
    the target as the label, use `objective="margin"`: towards the target, away from all others and from rejection.

    It is not to be trained: train the classifier, fit the detector, and wrap them.

    | Paper link: https://arxiv.org/abs/1706.00633 (Section 3, thresholding test strategy)
    """

    estimator_params = LossDefendedClassifier.estimator_params + ["threshold"]

    def __init__(self, detector: ScoreDetector, threshold: float | None = None, objective: str = "adaptive") -> None:
        """
        Create a :class:`.ThresholdedClassifier` instance.

        :param detector: The detector, fitted; it brings its classifier along, whose network is shared, not copied.
        :param threshold: Score above which an input is rejected; None for the detector's threshold as it is now.
        :param objective: What `loss_gradient` and `compute_loss` follow; see the class.
        :raises TypeError: For anything but a detector of this package.
        :raises ValueError: For a detector that has not been fitted, or an unknown objective.
        """
        check_type("detector", detector, ScoreDetector, "a detector of art_mmc.detectors")
        threshold = number("threshold", detector.threshold if threshold is None else threshold, -math.inf)
        classifier = detector.classifier
        super().__init__(
            RejectingNet(detector, threshold),
            torch.nn.CrossEntropyLoss(),
            classifier.input_shape,
            classifier.nb_classes + 1,
            channels_first=classifier.channels_first,
            clip_values=classifier.clip_values,
            preprocessing_defences=classifier.preprocessing_defences,
            preprocessing=classifier.preprocessing,
            device_type="cpu" if classifier.device.type == "cpu" else "gpu",
            objective=objective,
        )

    @property
    def detector(self) -> ScoreDetector:
        """The detector."""
        return self.model.detector

    @property
    def threshold(self) -> float:
        """Score above which an input is rejected."""
        return self.model.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.model.threshold = number("threshold", value, -math.inf)

    def predict_labels(self, x: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """
        Labels, or "rejected".

        :param x: Inputs (N, ...).
        :param batch_size: Samples in one forward pass.
        :return: Classes (N,), int64; -1 where the input is rejected.
        """
        labels = self.predict(x, batch_size=batch_size).argmax(axis=1)
        return np.where(labels == self.nb_classes - 1, REJECTED, labels)

    def coverage_and_accuracy(
        self, x: np.ndarray, y: np.ndarray, thresholds: np.ndarray | None = None, batch_size: int = 128
    ) -> list[SelectiveRecord]:
        """
        What is accepted, and how much of that is right, at each threshold.

        :param x: Inputs (N, ...).
        :param y: True labels: indices (N,) or one-hot (N, K).
        :param thresholds: Thresholds; None for those that accept 5 %, 10 %, ..., 100 % of the inputs.
        :param batch_size: Samples in one forward pass.
        :return: One record a threshold, ascending.
        :raises ValueError: For bad inputs or labels.
        """
        labels = check_labels(np.asarray(y), self.nb_classes - 1, length=len(as_array("x", x)))
        outputs = self.detector.outputs(x, batch_size)
        scores = self.detector.score_outputs(outputs)
        if thresholds is None:
            thresholds = np.quantile(scores, np.linspace(0.05, 1, 20), method="inverted_cdf")
        thresholds = as_array("thresholds", thresholds, finite=True)
        right = outputs.predictions == labels
        each = [(float(threshold), scores <= threshold) for threshold in np.unique(thresholds)]
        return [
            SelectiveRecord(threshold, len(y), int(accepted.sum()), int((accepted & right).sum()))
            for threshold, accepted in each
        ]

    def attack_values(
        self, outputs: torch.Tensor, y: torch.Tensor, name: str | None = None, reduction: str | None = "none"
    ) -> torch.Tensor:
        """
        The objective that an attacker climbs.

        :param outputs: Logits (B, K + 1).
        :param y: Labels: indices (B,) or probabilities (B, K + 1).
        :param name: Name of the objective; None for the classifier's own.
        :param reduction: "none", "mean" or "sum"; None for the loss' own.
        :return: One value a sample, (B,), or a scalar if reduced; for "adaptive" positive exactly where the input is
                 misclassified and accepted.
        """
        if (self.objective if name is None else name) != "adaptive":
            return super().attack_values(outputs, y, name, reduction)
        y = (y if y.ndim == 1 else y.argmax(dim=1))[:, None]
        true, reject = outputs.gather(1, y)[:, 0], outputs[:, -1]
        wrong = outputs.scatter(1, y, -torch.inf)[:, :-1].amax(dim=1)
        values = wrong - torch.maximum(true, reject)
        return values if reduction == "none" else values.sum() if reduction == "sum" else values.mean()

    def set_params(self, **kwargs: Any) -> None:
        """
        Set parameters by name.

        :param kwargs: "threshold", "objective" or "clip_values".
        :raises ValueError: For another name; what else there is belongs to the classifier or the detector.
        """
        for name in kwargs:
            check_name("parameter", name, ("threshold", "objective", "clip_values"))
        super().set_params(**kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> NoReturn:  # type: ignore[override]
        """
        Not to be trained.

        :param args: Whatever a training takes.
        :param kwargs: Whatever a training takes.
        :raises NotImplementedError: Always.
        """
        raise NotImplementedError(
            "a ThresholdedClassifier is not to be trained: train the classifier, fit the detector, and wrap them."
        )

    fit_generator = fit
    clone_for_refitting = fit
