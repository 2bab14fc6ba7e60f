"""
Networks: backbones of the papers, an adapter for any other, and the module that puts a head on them.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
