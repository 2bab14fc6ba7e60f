"""
ART `Trainer` defences that train a loss-defended classifier, and the papers' recipes.
"""

from art_mmc.trainers.augmentation import AUGMENTATIONS
from art_mmc.trainers.loss_trainer import LossTrainer, WarmUpTrainer
from art_mmc.trainers.named import (
    TRAINERS,
    CenterLossTrainer,
    GCETrainer,
    ISCETrainer,
    LGMTrainer,
    MMCTrainer,
    MMLDATrainer,
    PCTrainer,
    RCETrainer,
    SoftmaxTrainer,
    create_trainer,
)
from art_mmc.trainers.recipes import RECIPES, Recipe, get_recipe

__all__ = [
    "AUGMENTATIONS",
    "RECIPES",
    "TRAINERS",
    "CenterLossTrainer",
    "GCETrainer",
    "ISCETrainer",
    "LGMTrainer",
    "LossTrainer",
    "MMCTrainer",
    "MMLDATrainer",
    "PCTrainer",
    "RCETrainer",
    "Recipe",
    "SoftmaxTrainer",
    "WarmUpTrainer",
    "create_trainer",
    "get_recipe",
]
