"""
Speed and memory, measured on the user's machine: each case beside what it replaces, alternating, in one run. The names
in `__init__.pyi` are imported when they are first used.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
