"""
One trainer a defence, and the way from a classifier to its trainer.
"""

from __future__ import annotations

from typing import Any

from art_mmc.checks import box_unit
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.trainers.adversarial import AdversarialLossTrainer
from art_mmc.trainers.crafting import make_crafting
from art_mmc.trainers.loss_trainer import LossTrainer, WarmUpTrainer
from art_mmc.trainers.recipes import Recipe, get_recipe


class SoftmaxTrainer(LossTrainer):
    """Trains a :class:`.SoftmaxClassifier`."""

    defence = "sce"


class MMCTrainer(LossTrainer):
    """
    Trains a :class:`.MMCClassifier`.

    | Paper link: https://arxiv.org/abs/1905.10626
    """

    defence = "mmc"


class MMLDATrainer(LossTrainer):
    """
    Trains a :class:`.MMLDAClassifier`.

    | Paper link: https://arxiv.org/abs/1802.09308
    """

    defence = "mmlda"


class LGMTrainer(LossTrainer):
    """
    Trains a :class:`.LGMClassifier`.

    | Paper link: https://arxiv.org/abs/1803.02988
    """

    defence = "lgm"


class CenterLossTrainer(LossTrainer):
    """
    Trains a :class:`.CenterLossClassifier`.

    | Paper link: https://ydwen.github.io/papers/WenECCV16.pdf
    """

    defence = "center"


class RCETrainer(LossTrainer):
    """
    Trains a :class:`.RCEClassifier`.

    | Paper link: https://arxiv.org/abs/1706.00633
    """

    defence = "rce"


class PCTrainer(WarmUpTrainer):
    """
    Trains a :class:`.PCClassifier`: cross-entropy for T epochs, then PC with logit constraint and a fresh optimizer.

    | Paper link: https://arxiv.org/abs/2012.07688
    """

    defence = "pc"


class GCETrainer(LossTrainer):
    """
    Trains a :class:`.GCEClassifier`.

    | Paper link: https://arxiv.org/abs/1903.09799
    """

    defence = "gce"


class ISCETrainer(LossTrainer):
    """
    Trains a :class:`.ISCEClassifier`.

    | Paper link: https://doi.org/10.3390/math10193716
    """

    defence = "isce"


#: name of a defence -> its trainer
TRAINERS: dict[str, type[LossTrainer]] = {
    cls.defence: cls  # type: ignore[misc]
    for cls in (
        SoftmaxTrainer,
        MMCTrainer,
        MMLDATrainer,
        LGMTrainer,
        CenterLossTrainer,
        RCETrainer,
        PCTrainer,
        GCETrainer,
        ISCETrainer,
    )
}


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
    if recipe is not None and recipe.attack is not None:
        settings = {"adv_ratio": recipe.adv_ratio, "eps_warmup": recipe.eps_warmup, **kwargs}
        if classifier.defence == "pc":
            settings.setdefault("warmup_epochs", None)
        attack = make_crafting(settings.pop("attack", recipe.attack), **recipe.attack_options)
        attack = attack.scaled(box_unit(classifier.clip_values, f"recipe '{recipe.name}'"))
        return AdversarialLossTrainer(classifier, attack, recipe=recipe, **settings)
    trainer = TRAINERS.get(classifier.defence or "", LossTrainer)
    return trainer(classifier, recipe=recipe, **kwargs)
