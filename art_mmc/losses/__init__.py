"""
The losses of the papers: functions of logits (B, K) and labels, with `reduction` none, mean or sum.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
