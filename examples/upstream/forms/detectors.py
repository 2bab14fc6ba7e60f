"""What is other in ART's tree: features come from `get_activations`, and scores from arrays alone."""

from __future__ import annotations

from typing import final

import numpy as np
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import check_images, number, whole
from art_mmc.detectors.base import NetworkOutputs


def network_outputs(
    classifier: PyTorchClassifier,
    x: np.ndarray,
    layer: int | str | None = None,
    batch_size: int = 128,
    with_features: bool = True,
) -> NetworkOutputs:
    """
    Logits and features of inputs. Several detectors of one classifier can share them.

    :param classifier: The classifier.
    :param x: Inputs (N, ...).
    :param layer: Name or index of the layer whose outputs are the features, as in `get_activations`.
    :param batch_size: Samples in one forward pass.
    :param with_features: Whether the features are wanted.
    :return: The outputs.
    """
    x = np.asarray(x, dtype=np.float32)
    check_images(x)
    logits = classifier.predict(x, batch_size=batch_size)
    if not with_features:
        return NetworkOutputs(logits, None)
    features = np.asarray(classifier.get_activations(x, layer, batch_size=batch_size))
    return NetworkOutputs(logits, features.reshape(len(x), -1))


class ScoreDetector:
    """part"""

    @final
    def scores(self, x: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """
        Scores, larger = more suspicious.

        :param x: Inputs (N, ...).
        :param batch_size: Samples in one forward pass.
        :return: Scores (N,), float64.
        :raises NotFittedError: (a ValueError) Before :meth:`fit`.
        :raises ValueError: For bad inputs, or features of another width than at fitting.
        :raises FloatingPointError: When features or logits are not finite.
        """
        self._state()
        return self.score_outputs(self.outputs(x, batch_size))

    def _check_params(self) -> None:
        if not isinstance(self.classifier, PyTorchClassifier):
            raise TypeError(f"classifier: expected a PyTorchClassifier, got {type(self.classifier).__name__}.")
        if self.needs_features and not isinstance(self.layer, (int, str)):
            names = ", ".join(self.classifier.layer_names)
            raise ValueError(f"layer: expected the name or index of a layer ({names}), got {self.layer!r}.")
        number("false_positive_rate", self.false_positive_rate, 0, 1)
        number("holdout", self.holdout, 0, 1)
        whole("seed", self.seed, 0)
