"""
art_mmc: loss-based defences against adversarial examples as classifiers and trainers of the Adversarial Robustness
Toolbox (ART).

The names below are imported when they are first used, so that `import art_mmc` and the help of the command line cost
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in _HOMES, for type checkers and editors
    from art_mmc.attacks import SPSA as SPSA
    from art_mmc.attacks import CarliniL2 as CarliniL2
    from art_mmc.attacks import GaussianNoise as GaussianNoise
    from art_mmc.attacks import RandomRotation as RandomRotation
    from art_mmc.classifiers import CenterLossClassifier as CenterLossClassifier
    from art_mmc.classifiers import GCEClassifier as GCEClassifier
    from art_mmc.classifiers import ISCEClassifier as ISCEClassifier
    from art_mmc.classifiers import LGMClassifier as LGMClassifier
    from art_mmc.classifiers import LossDefendedClassifier as LossDefendedClassifier
    from art_mmc.classifiers import MMCClassifier as MMCClassifier
    from art_mmc.classifiers import MMLDAClassifier as MMLDAClassifier
    from art_mmc.classifiers import PCClassifier as PCClassifier
    from art_mmc.classifiers import RCEClassifier as RCEClassifier
    from art_mmc.classifiers import SoftmaxClassifier as SoftmaxClassifier
    from art_mmc.classifiers import create_classifier as create_classifier
    from art_mmc.classifiers import load_classifier as load_classifier
    from art_mmc.classifiers.accelerate import accelerate as accelerate
    from art_mmc.data import load_dataset as load_dataset
    from art_mmc.defences import DEFENCES as DEFENCES
    from art_mmc.detectors import DETECTORS as DETECTORS
    from art_mmc.detectors import CenterDistanceDetector as CenterDistanceDetector
    from art_mmc.detectors import ConfidenceDetector as ConfidenceDetector
    from art_mmc.detectors import KernelDensityDetector as KernelDensityDetector
    from art_mmc.detectors import LIDDetector as LIDDetector
    from art_mmc.detectors import MahalanobisDetector as MahalanobisDetector
    from art_mmc.detectors import NonMaximalEntropyDetector as NonMaximalEntropyDetector
    from art_mmc.detectors import ThresholdedClassifier as ThresholdedClassifier
    from art_mmc.detectors import create_detector as create_detector
    from art_mmc.geometry import max_mahalanobis_centers as max_mahalanobis_centers
    from art_mmc.geometry import random_centers as random_centers
    from art_mmc.theory import inspect_classifier as inspect_classifier
    from art_mmc.theory import rank_study as rank_study
    from art_mmc.trainers import RECIPES as RECIPES
    from art_mmc.trainers import AdversarialLossTrainer as AdversarialLossTrainer
    from art_mmc.trainers import CenterLossTrainer as CenterLossTrainer
    from art_mmc.trainers import GCETrainer as GCETrainer
    from art_mmc.trainers import ISCETrainer as ISCETrainer
    from art_mmc.trainers import LGMTrainer as LGMTrainer
    from art_mmc.trainers import LossTrainer as LossTrainer
    from art_mmc.trainers import MMCTrainer as MMCTrainer
    from art_mmc.trainers import MMLDATrainer as MMLDATrainer
    from art_mmc.trainers import PCTrainer as PCTrainer
    from art_mmc.trainers import RCETrainer as RCETrainer
    from art_mmc.trainers import SoftmaxTrainer as SoftmaxTrainer
    from art_mmc.trainers import create_trainer as create_trainer
    from art_mmc.trainers import get_recipe as get_recipe

__version__ = "0.1.0"

#: module -> the public names that live there
_HOMES = {
    "classifiers.accelerate": ("accelerate",),
    "attacks": ("SPSA", "CarliniL2", "GaussianNoise", "RandomRotation"),
    "classifiers": (
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
    ),
    "data": ("load_dataset",),
    "defences": ("DEFENCES",),
    "detectors": (
        "DETECTORS",
        "CenterDistanceDetector",
        "ConfidenceDetector",
        "KernelDensityDetector",
        "LIDDetector",
        "MahalanobisDetector",
        "NonMaximalEntropyDetector",
        "ThresholdedClassifier",
        "create_detector",
    ),
    "geometry": ("max_mahalanobis_centers", "random_centers"),
    "theory": ("inspect_classifier", "rank_study"),
    "trainers": (
        "RECIPES",
        "AdversarialLossTrainer",
        "CenterLossTrainer",
        "GCETrainer",
        "ISCETrainer",
        "LGMTrainer",
        "LossTrainer",
        "MMCTrainer",
        "MMLDATrainer",
        "PCTrainer",
        "RCETrainer",
        "SoftmaxTrainer",
        "create_trainer",
        "get_recipe",
    ),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"art_mmc.{module}"), name)
    raise AttributeError(f"module 'art_mmc' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
