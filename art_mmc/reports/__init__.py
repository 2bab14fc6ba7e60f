"""
From records to text and pictures: pure functions, and a few that write a folder. The names in `__init__.pyi` are
imported when they are first used.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
