"""
The evasion attacks that ART lacks, as ART `EvasionAttack` classes: for any ART classifier those that ask for
predictions alone, for PyTorch classifiers the L2 attack of Carlini and Wagner by Adam. The names below are imported
when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in _HOMES, for type checkers and editors
    from art_mmc.attacks.carlini import CarliniL2 as CarliniL2
    from art_mmc.attacks.gaussian_noise import GaussianNoise as GaussianNoise
    from art_mmc.attacks.random_rotation import RandomRotation as RandomRotation
    from art_mmc.attacks.spsa import SPSA as SPSA

#: name -> module where it lives
_HOMES = {
    "CarliniL2": "carlini",
    "GaussianNoise": "gaussian_noise",
    "RandomRotation": "random_rotation",
    "SPSA": "spsa",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"art_mmc.attacks.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'art_mmc.attacks' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
