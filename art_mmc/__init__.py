"""
art_mmc: loss-based defences against adversarial examples as classifiers and trainers of the Adversarial Robustness
Toolbox (ART).
"""

from art_mmc.checkpoint import load_classifier
from art_mmc.classifiers import (
    CenterLossClassifier,
    GCEClassifier,
    ISCEClassifier,
    LGMClassifier,
    LossDefendedClassifier,
    MMCClassifier,
    MMLDAClassifier,
    PCClassifier,
    RCEClassifier,
    SoftmaxClassifier,
    create_classifier,
)
from art_mmc.data import load_dataset
from art_mmc.defences import DEFENCES
from art_mmc.geometry import max_mahalanobis_centers, random_centers

__version__ = "0.1.0"

__all__ = [
    "DEFENCES",
    "CenterLossClassifier",
    "GCEClassifier",
    "ISCEClassifier",
    "LGMClassifier",
    "LossDefendedClassifier",
    "MMCClassifier",
    "MMLDAClassifier",
    "PCClassifier",
    "RCEClassifier",
    "SoftmaxClassifier",
    "create_classifier",
    "load_classifier",
    "load_dataset",
    "max_mahalanobis_centers",
    "random_centers",
]
