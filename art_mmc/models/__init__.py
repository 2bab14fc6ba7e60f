"""
Networks: backbones of the papers, an adapter for any other, and the module that puts a head on them.
"""

from art_mmc.models.backbones import BACKBONES, create_backbone
from art_mmc.models.base import wrap_backbone
from art_mmc.models.network import DefendedNet, Normalize

__all__ = ["BACKBONES", "DefendedNet", "Normalize", "create_backbone", "wrap_backbone"]
