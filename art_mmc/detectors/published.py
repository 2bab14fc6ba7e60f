"""
What the RCE paper reports of its detectors, for a look beside one's own figures: Pang et al., "Towards Robust Detection
of Adversarial Examples", NeurIPS 2018, https://arxiv.org/abs/1706.00633, ResNet-32.

Not all of it could be checked against the paper's text. What could not be is marked so wherever it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

CITATION = (
    "Pang et al., Towards Robust Detection of Adversarial Examples, NeurIPS 2018, https://arxiv.org/abs/1706.00633, "
    "ResNet-32"
)

#: the detectors of Table 2, in its order
METRICS = ("confidence", "non-me", "kernel-density")


@dataclass(frozen=True)
class PublishedWhiteBox:
    """
    A cell of Table 3: the white-box attack that knows the density.

    :param failed: Share of the examples with f_2 > 0.
    :param distortion: Mean minimal distortion.
    :param failed_verified: Whether `failed` could be checked; no distortion could.
    """

    failed: float
    distortion: float
    failed_verified: bool


#: data set -> defence -> attack -> AUC x 100 of :data:`METRICS` (Table 2); none of it verified
TABLE_2: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {
    "mnist": {
        "sce": {
            "FGSM": (79.7, 66.8, 98.8),
            "BIM": (88.9, 70.5, 90.0),
            "ILCM": (98.4, 50.4, 96.2),
            "JSMA": (98.6, 60.1, 97.7),
            "C&W": (98.6, 64.1, 99.4),
            "C&W-hc": (0.0, 40.0, 91.1),
        },
        "rce": {
            "FGSM": (98.8, 98.6, 99.4),
            "BIM": (91.7, 90.6, 91.8),
            "ILCM": (100.0, 97.0, 98.6),
            "JSMA": (100.0, 99.4, 99.0),
            "C&W": (100.0, 99.5, 99.8),
            "C&W-hc": (0.1, 93.4, 99.6),
        },
    },
    "cifar10": {
        "sce": {
            "FGSM": (71.5, 66.9, 99.7),
            "BIM": (0.0, 64.6, 100.0),
            "ILCM": (16.4, 37.1, 84.2),
            "JSMA": (99.2, 27.3, 85.8),
            "C&W": (99.5, 50.2, 95.3),
            "C&W-hc": (0.0, 28.8, 75.4),
        },
        "rce": {
            "FGSM": (92.6, 91.4, 98.0),
            "BIM": (0.7, 70.2, 100.0),
            "ILCM": (64.1, 77.8, 93.9),
            "JSMA": (99.5, 91.9, 95.4),
            "C&W": (99.6, 94.7, 98.2),
            "C&W-hc": (0.2, 53.6, 91.8),
        },
    },
}

#: data set -> defence -> cell of Table 3
TABLE_3: dict[str, dict[str, PublishedWhiteBox]] = {
    "mnist": {"sce": PublishedWhiteBox(0.01, 17.12, True), "rce": PublishedWhiteBox(0.77, 31.59, True)},
    "cifar10": {"sce": PublishedWhiteBox(0.00, 1.26, False), "rce": PublishedWhiteBox(0.12, 3.89, False)},
}
