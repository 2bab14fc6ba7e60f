"""
One trainer class a row of the table of defences, and the way from a classifier to its trainer.
"""

from typing import Any

from art_mmc.checks import box_unit
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.defences import DEFENCES, Defence
from art_mmc.trainers.adversarial import AdversarialLossTrainer
from art_mmc.trainers.crafting import make_crafting
from art_mmc.trainers.loss_trainer import LossTrainer, WarmUpTrainer
from art_mmc.trainers.recipes import Recipe, get_recipe


def _made(row: Defence) -> type[LossTrainer]:
    """The class of a row, as users and pickles know it."""
    first = ": cross-entropy for T epochs, then the loss with a fresh optimizer" if row.warm_up else ""
    doc = f"""
    Trains a :class:`.{row.stem}Classifier`{first}.

    | Paper link: {row.link}
    """
    content = {"defence": row.name, "__doc__": doc, "__module__": "art_mmc.trainers"}
    return type(f"{row.stem}Trainer", (WarmUpTrainer if row.warm_up else LossTrainer,), content)


#: name of a defence -> its trainer
TRAINERS: dict[str, type[LossTrainer]] = {row.name: _made(row) for row in DEFENCES.values()}
globals().update({cls.__name__: cls for cls in TRAINERS.values()})  # type checkers read the stub beside this file


def create_trainer(
    classifier: LossDefendedClassifier, recipe: str | Recipe | None = None, **kwargs: Any
) -> LossTrainer:
    """
    The trainer for a classifier.

    :param classifier: The classifier.
    :param recipe: A recipe or its full name ("pang2020-mnist"), whose radii and steps are those of inputs in [0, 1] and
           go by the width of the classifier's `clip_values`; None keeps the classifier's own optimizer.
    :param kwargs: More arguments of the trainer: `augmentation`, `seed`, `verbose`, for PC `warmup_epochs`.
    :return: The trainer.
    :raises ValueError: For an unknown recipe.
    """
    if isinstance(recipe, str):
        recipe = get_recipe(recipe)
    if not isinstance(classifier, LossDefendedClassifier) or not isinstance(recipe, (Recipe, type(None))):
        return LossTrainer(classifier, recipe=recipe, **kwargs)  # which refuses it
    if recipe is not None and recipe.attack is not None:
        settings = {"adv_ratio": recipe.adv_ratio, "eps_warmup": recipe.eps_warmup, **kwargs}
        if classifier.row is not None and classifier.row.warm_up:
            settings.setdefault("warmup_epochs", None)
        attack = make_crafting(settings.pop("attack", recipe.attack), **recipe.attack_options)
        attack = attack.scaled(box_unit(classifier.clip_values, f"recipe '{recipe.name}'"))
        return AdversarialLossTrainer(classifier, attack, recipe=recipe, **settings)
    trainer = TRAINERS.get(classifier.defence or "", LossTrainer)
    return trainer(classifier, recipe=recipe, **kwargs)
