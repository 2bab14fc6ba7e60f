"""
ART `Trainer` defences that train a loss-defended classifier, and the papers' recipes.
"""

from art_mmc.trainers.adversarial import AdversarialLossTrainer
from art_mmc.trainers.augmentation import AUGMENTATIONS
from art_mmc.trainers.crafting import CRAFTINGS, FGSM, PGD, TRADES, ARTAttack, Crafting, FastFGSM, make_crafting
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
from art_mmc.trainers.run_folder import TrainingInterrupted

__all__ = [
    "AUGMENTATIONS",
    "CRAFTINGS",
    "FGSM",
    "PGD",
    "RECIPES",
    "TRADES",
    "TRAINERS",
    "ARTAttack",
    "AdversarialLossTrainer",
    "CenterLossTrainer",
    "Crafting",
    "FastFGSM",
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
    "TrainingInterrupted",
    "WarmUpTrainer",
    "create_trainer",
    "get_recipe",
    "make_crafting",
]
