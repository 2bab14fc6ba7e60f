"""
Loss-defended networks as ART classifiers: the contract, the named ones, their files, and any user's own made faster.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, {"Classifier": "art_mmc.classifiers.named"})
