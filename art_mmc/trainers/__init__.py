"""
ART `Trainer` defences that train a loss-defended classifier, and the papers' recipes.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, {"Trainer": "art_mmc.trainers.named"})
