"""
ART `Trainer` defences that train a loss-defended classifier, and the papers' recipes. The names in `__init__.pyi` are
imported when they are first used.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, {"Trainer": "art_mmc.trainers.named"})
