"""
The losses of the papers: functions of logits (B, K) and labels, with `reduction` none, mean or sum.
"""

from art_mmc.losses.base import LinearInLabelLoss, Loss
from art_mmc.losses.center import CenterLoss
from art_mmc.losses.complement_entropy import GuidedComplementEntropyLoss
from art_mmc.losses.cross_entropy import SoftmaxCrossEntropyLoss
from art_mmc.losses.gaussian_mixture import LGMLoss
from art_mmc.losses.inference_softmax import InferenceSoftmaxLoss
from art_mmc.losses.max_mahalanobis import MMCLoss, MMLDALoss
from art_mmc.losses.probabilistically_compact import LogitConstraintLoss, PCLogitConstraintLoss, PCLoss
from art_mmc.losses.reverse_cross_entropy import ReverseCrossEntropyLoss

__all__ = [
    "CenterLoss",
    "GuidedComplementEntropyLoss",
    "InferenceSoftmaxLoss",
    "LGMLoss",
    "LinearInLabelLoss",
    "LogitConstraintLoss",
    "Loss",
    "MMCLoss",
    "MMLDALoss",
    "PCLogitConstraintLoss",
    "PCLoss",
    "ReverseCrossEntropyLoss",
    "SoftmaxCrossEntropyLoss",
]
