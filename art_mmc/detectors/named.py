"""
The table of detectors.
"""

from typing import Any

from art_mmc.checks import check_name
from art_mmc.detectors.base import ScoreDetector
from art_mmc.detectors.confidence import ConfidenceDetector, NonMaximalEntropyDetector
from art_mmc.detectors.density import KernelDensityDetector
from art_mmc.detectors.distance import CenterDistanceDetector, LIDDetector, MahalanobisDetector

#: name -> detector; the three metrics of the RCE paper first
DETECTORS: dict[str, type[ScoreDetector]] = {
    "confidence": ConfidenceDetector,
    "non-me": NonMaximalEntropyDetector,
    "kernel-density": KernelDensityDetector,
    "lid": LIDDetector,
    "mahalanobis": MahalanobisDetector,
    "center-distance": CenterDistanceDetector,
}


def create_detector(name: str, classifier: Any, **params: Any) -> ScoreDetector:
    """
    A detector by its name.

    :param name: "confidence", "non-me", "kernel-density", "lid", "mahalanobis" or "center-distance".
    :param classifier: The trained classifier.
    :param params: Parameters of the detector; see its `defence_params`.
    :return: The detector, not fitted.
    :raises ValueError: For an unknown name or parameter, or a value out of range.
    """
    check_name("detector", name, DETECTORS)
    for param in params:
        check_name(f"parameter of detector '{name}':", param, DETECTORS[name].defence_params)
    return DETECTORS[name](classifier, **params)
