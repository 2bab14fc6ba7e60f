"""
Loss-defended networks as ART classifiers: the contract, the named ones, their files, and any user's own made faster.
"""

from art_mmc.classifiers.base import LossDefendedClassifier
from art_mmc.classifiers.base import _Kinship as _Kinship
from art_mmc.classifiers.fitting import OneHotLoss
from art_mmc.classifiers.named import CLASSIFIERS, create_classifier, load_classifier, load_pretrained

globals().update({cls.__name__: cls for cls in CLASSIFIERS.values()})  # type checkers read the stub beside this file

__all__ = [  # noqa: PLE0604
    "CLASSIFIERS",
    "LossDefendedClassifier",
    *(cls.__name__ for cls in CLASSIFIERS.values()),
    "create_classifier",
    "load_classifier",
    "load_pretrained",
]

#: users, pickles and `repr` know them by this name
for _known in (LossDefendedClassifier, OneHotLoss, _Kinship):
    _known.__module__ = __name__
