"""
The evasion attacks that ART lacks, as ART `EvasionAttack` classes: for any ART classifier those that ask for
predictions alone, for PyTorch classifiers the L2 attack of Carlini and Wagner by Adam, APGD, PGD by a schedule, FAB and
AutoAttack. The names in `__init__.pyi` are imported when they are first used.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
