"""
Loss-defended networks as ART classifiers: the contract, the named ones, their files, and any user's own made faster.
"""

from art_mmc.classifiers.base import (
    CLASSIFIERS,
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
    load_classifier,
)
from art_mmc.classifiers.base import OneHotLoss as OneHotLoss
from art_mmc.classifiers.base import _Kinship as _Kinship
from art_mmc.classifiers.base import _Softmax as _Softmax

__all__ = [
    "CLASSIFIERS",
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
]

#: users, pickles and `repr` know them by this name
for _named in (LossDefendedClassifier, OneHotLoss, _Kinship, *CLASSIFIERS.values()):
    _named.__module__ = __name__
