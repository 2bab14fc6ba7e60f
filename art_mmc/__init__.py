"""
art_mmc: loss-based defences against adversarial examples as classifiers and trainers of the Adversarial Robustness
Toolbox (ART).

The names in `__init__.pyi` are imported when they are first used, so that `import art_mmc` and the help of the command
line cost nothing.
"""

from art_mmc._attach import attach

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = attach(
    __name__, __file__, {"Classifier": "art_mmc.classifiers", "Trainer": "art_mmc.trainers"}
)
