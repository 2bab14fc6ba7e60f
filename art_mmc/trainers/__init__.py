"""
ART `Trainer` defences that train a loss-defended classifier, and the papers' recipes.
"""

from art_mmc.trainers.adversarial import AdversarialLossTrainer
from art_mmc.trainers.augmentation import AUGMENTATIONS
from art_mmc.trainers.crafting import CRAFTINGS, FGSM, PGD, TRADES, ARTAttack, Crafting, FastFGSM, make_crafting
from art_mmc.trainers.loss_trainer import LossTrainer, WarmUpTrainer
from art_mmc.trainers.named import TRAINERS, create_trainer
from art_mmc.trainers.recipes import RECIPES, Recipe, get_recipe
from art_mmc.trainers.run_folder import TrainingInterrupted

globals().update({cls.__name__: cls for cls in TRAINERS.values()})  # type checkers read the stub beside this file

__all__ = [  # noqa: PLE0604
    "AUGMENTATIONS",
    "CRAFTINGS",
    "FGSM",
    "PGD",
    "RECIPES",
    "TRADES",
    "TRAINERS",
    "ARTAttack",
    "AdversarialLossTrainer",
    "Crafting",
    "FastFGSM",
    "LossTrainer",
    "Recipe",
    "TrainingInterrupted",
    "WarmUpTrainer",
    *(cls.__name__ for cls in TRAINERS.values()),
    "create_trainer",
    "get_recipe",
    "make_crafting",
]
