"""
Adversarial training of any loss-defended classifier.
"""

import logging
import math
from typing import Any

import numpy as np
import torch

from art_mmc.checks import indices, number
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.distributed import World, total, world
from art_mmc.trainers.crafting import FGSM, PGD, Crafting, CraftingContext, Draw, FastFGSM, make_crafting
from art_mmc.trainers.job import Job, Step
from art_mmc.trainers.loss_trainer import WarmUpTrainer

logger = logging.getLogger(__name__)

#: share of the one-step training accuracy below which the multi-step accuracy tells of catastrophic overfitting
OVERFITTING_SHARE = 0.3


class AdversarialLossTrainer(WarmUpTrainer):
    """
    Adversarial training by the classifier's own loss: each batch, or a share of it, is replaced by adversarial examples
    crafted on the network as it stands. What ART's trainers lack: robust accuracy to watch and to choose weights by,
    checkpoints with exact resume, the settings that the Bag of Tricks paper found to matter, and speed. Two things
    about ART's own trainers no classifier can mend: those for TRADES and AWP refuse every scheduler of torch 2 and
    later, and that for FBF (here "fast") trains in the mode that it finds, evaluation mode, in which batch statistics
    stand still, unless `classifier.model.train()` is called before its `fit`.

    | Paper link: https://arxiv.org/abs/1706.06083 (PGD)
    | Paper link: https://arxiv.org/abs/2010.00467 (Bag of Tricks for adversarial training)
    | Paper link: https://arxiv.org/abs/1905.10626 (MMC with adversarial training)
    | Paper link: https://arxiv.org/abs/2012.07688 (PC with adversarial training)
    """

    def __init__(
        self,
        classifier: LossDefendedClassifier,
        attack: str | Crafting | Any = "pgd",
        *,
        adv_ratio: float = 1.0,
        eps_warmup: float = 0.0,
        warmup_epochs: int | None = 0,
        validation_attack: Crafting | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Create a trainer.

        :param classifier: The classifier to train.
        :param attack: How to craft: a strategy of :mod:`.crafting` or its name ("pgd", "fgsm", "fast", "trades"), or an
               ART evasion attack built on the classifier.
        :param adv_ratio: Share of each batch that is replaced by adversarial examples, in (0, 1]. The PC paper has 0.5.
        :param eps_warmup: Epochs over which eps grows linearly to its full size.
        :param warmup_epochs: Epochs of plain cross-entropy on clean examples before; None for the recipe's.
        :param validation_attack: The attack behind the robust accuracy of each epoch; None for 10 steps of PGD on the
               adaptive objective with the training's eps and norm.
        :param kwargs: As in :class:`.LossTrainer`.
        :raises ValueError: For values out of range.
        """
        super().__init__(classifier, warmup_epochs=warmup_epochs, **kwargs)
        self.adv_ratio = number("adv_ratio", adv_ratio, 0.0, 1.0, "(]")
        self.eps_warmup = number("eps_warmup", eps_warmup, ends="[)")
        self.attack = make_crafting(attack)
        self.attack.check(classifier.clip_values)
        if validation_attack is not None:
            if not isinstance(validation_attack, Crafting):
                raise TypeError(f"validation_attack: expected a strategy such as PGD(eps), got {validation_attack!r}.")
            validation_attack.check(classifier.clip_values)
        self.validation_attack = self._validation_attack() if validation_attack is None else validation_attack

    def _validation_attack(self) -> PGD | None:
        """Ten steps of PGD on the adaptive objective, in the ball that the training is for."""
        inner = getattr(self.attack, "attack", self.attack)
        eps = getattr(inner, "eps_max", None) or getattr(inner, "eps", None)
        if not isinstance(eps, (int, float)):
            return None
        return PGD(float(eps), steps=10, norm=getattr(self.attack, "norm", math.inf), objective="adaptive")

    def __repr__(self) -> str:
        """Return the settings that decide the result of a training."""
        return (
            f"{super().__repr__()[:-1]}, attack={self.attack!r}, adv_ratio={self.adv_ratio}, "
            f"eps_warmup={self.eps_warmup}, warmup_epochs={self.warmup_epochs})"
        )

    def _batch_loss(self, x: torch.Tensor, y: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Craft, mix, and the strategy's loss; see :meth:`.LossTrainer._batch_loss`."""
        if self._in_warmup:
            return super()._batch_loss(x, y, step)
        labels = indices(y)
        scale = min(1.0, step.end / self.eps_warmup) if self.eps_warmup else 1.0
        # a batch is a random sample already: its first part is as good as any
        share = max(1, round(self.adv_ratio * step.samples))
        mine = world().share(share)
        context = CraftingContext(_draw(self._noise, share, world()), step.epoch, scale)
        x_adv = self.attack.craft(self._classifier, x[:mine], labels[:mine], context)
        if mine < len(x):
            x_adv = torch.cat([x_adv, x[mine:]])
        weights = {} if step.weights is None else {"weights": step.weights}
        return self.attack.training_loss(self._forward, self._classifier.loss, x, y, x_adv, **weights)

    @property
    def _in_warmup(self) -> bool:
        return self._classifier.loss is not self._own_loss

    def _validate(self, job: Job, record: dict[str, Any]) -> float:
        """Clean and robust figures; the robust accuracy is what the best weights are chosen by."""
        accuracy = super()._validate(job, record)
        record["val_robust_accuracy"] = self._robust_accuracy(*job.held_out, world(), job.batch_size)
        return accuracy if record["val_robust_accuracy"] is None else record["val_robust_accuracy"]

    def robust_accuracy(self, x: np.ndarray, y: np.ndarray, batch_size: int = 256) -> float | None:
        """
        Accuracy under the validation attack, which draws from a generator of its own: validation changes no training.

        :param x: Inputs (N, ...).
        :param y: Labels (N,) or (N, K).
        :param batch_size: Samples in one pass.
        :return: The accuracy, in [0, 1]; None without a validation attack.
        """
        return self._robust_accuracy(*self._classifier.training_tensors(x, y, fit=False), World(), batch_size)

    def _robust_accuracy(self, x_all: torch.Tensor, y_all: torch.Tensor, among: World, batch_size: int) -> float | None:
        """As :meth:`robust_accuracy`, each process on its part."""
        if self.validation_attack is None:
            return None
        generator = torch.Generator(self._device).manual_seed(0)
        correct = torch.zeros((), dtype=torch.int64, device=self._device)
        for inputs, labels in zip(x_all.split(batch_size), indices(y_all).split(batch_size), strict=True):
            context = CraftingContext(_draw(generator, len(inputs), among))
            part = among.shard(len(inputs))
            inputs, labels = inputs[part].to(self._device), labels[part].to(self._device)
            with self._autocast():
                x_adv = self.validation_attack.craft(self._classifier, inputs, labels, context)
                correct += self._correct(x_adv, labels)
        return int(total(correct) if among.size > 1 else correct) / len(x_all)

    def _close_epoch(self, job: Job, record: dict[str, Any]) -> None:
        """Robust accuracy of each epoch, and a look at what one-step training is known to do."""
        record.setdefault("val_robust_accuracy", None)
        record["robust_accuracy"] = None
        record["catastrophic_overfitting"] = False
        one_step = isinstance(self.attack, (FGSM, FastFGSM)) or getattr(self.attack, "steps", 0) == 1
        if not one_step or self._in_warmup or self.validation_attack is None:
            return
        robust = self._robust_accuracy(*job.watched(), world(), job.batch_size)
        record["robust_accuracy"] = robust
        if robust is not None and record["accuracy"] > 0.3 and robust < OVERFITTING_SHARE * record["accuracy"]:
            record["catastrophic_overfitting"] = True
            if world().is_main:
                told = "Catastrophic overfitting in epoch %s: accuracy %.3f under the one-step training attack, %.3f "
                told += "under %s steps. Train with more steps, or a smaller eps."
                steps = getattr(self.validation_attack, "steps", "several")
                logger.warning(told, record["epoch"], record["accuracy"], robust, steps)


def _draw(generator: torch.Generator, samples: int, among: World) -> Draw:
    """Numbers for this process' part of samples, drawn for all, so that a sample gets the same in any process."""

    def draw(shape: torch.Size) -> torch.Tensor:
        if among.size == 1:
            return torch.rand(shape, generator=generator, device=generator.device)
        return torch.rand((samples, *shape[1:]), generator=generator, device=generator.device)[among.shard(samples)]

    return draw
