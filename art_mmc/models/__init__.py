"""
Networks: backbones of the papers, an adapter for any other, and the module that puts a head on them. The names in
`__init__.pyi` are imported when they are first used.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
