"""
Training of a loss-defended classifier as an ART `Trainer`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from art.defences.trainer import Trainer
from tqdm.auto import tqdm

from art_mmc.checks import check_labels, unknown_name
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.losses import SoftmaxCrossEntropyLoss
from art_mmc.trainers.augmentation import AUGMENTATIONS, Augmentation
from art_mmc.trainers.recipes import Recipe

logger = logging.getLogger(__name__)

#: batch size and epochs where neither the caller nor a recipe says any, as in ART's trainers
BATCH_SIZE, NB_EPOCHS = 128, 20


class LossTrainer(Trainer):
    """
    Trains a :class:`.LossDefendedClassifier` on clean examples by its own loss. What ART's `fit` lacks: a loss and an
    accuracy to watch, validation, augmentation on the device, a seed, the papers' recipes.

    Training on clean examples alone gives no robustness that survives an attack on the difference of logits; see the
    report of `art-mmc compare`.
    """

    #: name of the defence that this trainer is for; None for any
    defence: str | None = None

    def __init__(
        self,
        classifier: LossDefendedClassifier,
        *,
        recipe: Recipe | None = None,
        augmentation: str | Augmentation | None = None,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create a trainer.

        :param classifier: The classifier to train.
        :param recipe: A paper's hyper-parameters; its optimizer replaces the classifier's own. None keeps that one.
        :param augmentation: Name of an augmentation, or a callable (images (B, C, H, W), generator) -> images; None for
               the recipe's, or none.
        :param seed: Seed of the data order, the augmentation and the network's own randomness (dropout). Two runs from
               the same weights with the same seed are equal on a CPU. None takes torch's global random state.
        :param verbose: Whether to show a progress bar.
        :raises TypeError: For a classifier of another kind.
        :raises ValueError: For a classifier of another defence, or an unknown augmentation.
        """
        if not isinstance(classifier, LossDefendedClassifier):
            raise TypeError(f"classifier: expected a LossDefendedClassifier, got {type(classifier).__name__}.")
        if self.defence is not None and classifier.defence != self.defence:
            raise ValueError(
                f"{type(self).__name__} trains defence '{self.defence}', got a {type(classifier).__name__} "
                f"(defence '{classifier.defence}')."
            )
        super().__init__(classifier)
        if augmentation is None and recipe is not None:
            augmentation = recipe.augmentation
        if isinstance(augmentation, str):
            if augmentation not in AUGMENTATIONS:
                raise unknown_name("augmentation", augmentation, AUGMENTATIONS)
            augmentation = AUGMENTATIONS[augmentation]
        self._classifier: LossDefendedClassifier = classifier
        self.recipe = recipe
        self._plan = recipe  # the recipe for the number of epochs that a call of fit asks for
        self.augmentation = augmentation
        self.seed = seed
        self.verbose = verbose
        #: one record an epoch: epoch, stage, loss, accuracy, val_loss, val_accuracy, rate, seconds
        self.history: list[dict[str, Any]] = []

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        batch_size: int | None = None,
        nb_epochs: int | None = None,
        scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """
        Train the classifier.

        :param x: Inputs (N, C, H, W) in [0, 1].
        :param y: Labels: indices (N,), one-hot, or probabilities (N, K) where the loss allows.
        :param validation_data: Inputs and labels on which loss and accuracy are reported after each epoch.
        :param batch_size: Samples in one step; None for the recipe's, or 128. A last batch of one sample is left out,
               for batch normalisation has no variance there.
        :param nb_epochs: Passes over the data; None for the recipe's, or 20.
        :param scheduler: Learning-rate scheduler, stepped once an epoch: anything with a `step()`, or a function that
               makes one from an optimizer. None for the recipe's, or none.
        :param kwargs: None is known.
        :raises ValueError: For data that does not fit.
        :raises TypeError: For unknown arguments or a scheduler without a step.
        """
        if kwargs:
            raise TypeError(f"fit() got unknown arguments: {', '.join(kwargs)}.")
        if batch_size is None:
            batch_size = self.recipe.batch_size if self.recipe else BATCH_SIZE
        if nb_epochs is None:
            nb_epochs = self.recipe.nb_epochs if self.recipe else NB_EPOCHS
        for name, value in (("batch_size", batch_size), ("nb_epochs", nb_epochs)):
            if value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value}.")
        self._plan = None if self.recipe is None else self.recipe.scaled(nb_epochs)
        x_all, y_all = self._classifier.training_tensors(x, y)
        validation = None if validation_data is None else self._validation(validation_data)
        self.history = []
        with self._randomness() as generator, self._classifier.training():
            self._stages(
                x_all.to(self._device), y_all.to(self._device), validation, batch_size, nb_epochs, scheduler, generator
            )
        self._warn_if_stuck()

    def _stages(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        validation: tuple[np.ndarray, np.ndarray] | None,
        batch_size: int,
        nb_epochs: int,
        scheduler: Any,
        generator: torch.Generator,
    ) -> None:
        """The training as a sequence of stages; one here."""
        self._new_optimizer()
        self._run(
            x, y, validation, batch_size, nb_epochs, self._scheduler(scheduler), generator, stage=self._stage_name
        )

    @property
    def _stage_name(self) -> str:
        return self._classifier.defence or "loss"

    @property
    def _device(self) -> torch.device:
        return self._classifier.device

    def _new_optimizer(self) -> None:
        if self._plan is not None:
            self._classifier._optimizer = self._plan.make_optimizer(self._classifier.model)

    def _scheduler(self, scheduler: Any) -> Any:
        """A scheduler object from what the caller or the recipe gave, or None."""
        if scheduler is None and self._plan is not None:
            scheduler = self._plan.make_scheduler
        if scheduler is None or hasattr(scheduler, "step"):
            return scheduler
        if not callable(scheduler):
            raise TypeError(f"scheduler: expected something with a step(), got {type(scheduler).__name__}.")
        return scheduler(self._classifier.optimizer)

    def _validation(self, data: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        x, y = data
        y = np.asarray(y)
        check_labels(y, self._classifier.nb_classes, name="validation labels", length=len(x))
        return np.asarray(x), np.asarray(self._classifier.reduce_labels(y))

    @contextmanager
    def _randomness(self) -> Iterator[torch.Generator]:
        """The generator of data order and augmentation; with a seed, torch's global random state is put back."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=self.seed is not None):
            if self.seed is not None:
                torch.manual_seed(self.seed)
            yield torch.Generator().manual_seed(int(torch.randint(2**62, ())))

    def _run(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        validation: tuple[np.ndarray, np.ndarray] | None,
        batch_size: int,
        nb_epochs: int,
        scheduler: Any,
        generator: torch.Generator,
        stage: str,
    ) -> None:
        """Train for some epochs on tensors that are on the device, and keep a record of each."""
        steps = math.ceil(len(x) / batch_size)
        with tqdm(total=nb_epochs * steps, disable=not self.verbose, desc=stage, unit="batch", leave=False) as bar:
            for epoch in range(nb_epochs):
                start = time.perf_counter()
                rate = self._classifier.optimizer.param_groups[0]["lr"]
                loss, accuracy = self._epoch(x, y, batch_size, generator, bar)
                record = {
                    "epoch": len(self.history) + 1,
                    "stage": stage,
                    "loss": loss,
                    "accuracy": accuracy,
                    "val_loss": None,
                    "val_accuracy": None,
                    "rate": rate,
                    "seconds": time.perf_counter() - start,
                }
                if not math.isfinite(loss):
                    raise ValueError(
                        f"the training loss is {loss} in epoch {epoch + 1} ({stage}): a lower rate may help."
                    )
                if validation is not None:
                    record["val_loss"], record["val_accuracy"] = self._score(*validation)
                self.history.append(record)
                bar.set_postfix({k: f"{v:.4f}" for k, v in record.items() if k in _SHOWN and v is not None})
                logger.info(
                    "epoch: %s stage: %s time(s): %.1f loss: %.4f acc(tr): %.4f acc(val): %s",
                    *(record[key] for key in ("epoch", "stage", "seconds", "loss", "accuracy", "val_accuracy")),
                )
                if scheduler is not None:
                    scheduler.step()

    def _epoch(
        self, x: torch.Tensor, y: torch.Tensor, batch_size: int, generator: torch.Generator, bar: Any
    ) -> tuple[float, float]:
        """One pass over the data; mean loss and accuracy, summed on the device so that no step waits for them."""
        totals = torch.zeros(3, dtype=torch.float64 if x.device.type != "mps" else torch.float32, device=x.device)
        for index in torch.randperm(len(x), generator=generator).to(x.device).split(batch_size):
            if len(index) > 1 or len(x) == 1:
                batch, labels = x[index], y[index]
                if self.augmentation is not None:
                    batch = self.augmentation(batch, generator)
                loss, outputs = self._classifier.train_batch(batch, labels)
                true = labels if labels.ndim == 1 else labels.argmax(dim=1)
                totals[0] += loss * len(index)
                totals[1] += (outputs.argmax(dim=1) == true).sum()
                totals[2] += len(index)
            bar.update()
        loss_sum, correct, count = totals.tolist()
        return loss_sum / count, correct / count

    def _score(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """Training loss and accuracy of the network as it stands, in evaluation mode."""
        with self._classifier.using_objective("loss"):
            losses = [
                self._classifier.compute_loss(x[start : start + 1000], y[start : start + 1000], reduction="none")
                for start in range(0, len(x), 1000)
            ]
        true = y if y.ndim == 1 else y.argmax(axis=1)
        return float(np.mean(np.concatenate(losses))), float(
            (self._classifier.predict(x).argmax(axis=1) == true).mean()
        )

    def _warn_if_stuck(self) -> None:
        accuracy, chance = self.history[-1]["accuracy"], 1 / self._classifier.nb_classes
        if accuracy < chance + 0.1 * (1 - chance):
            logger.warning(
                "The network has learnt next to nothing: training accuracy %.3f, chance %.3f. A lower learning rate, "
                "or a warm-up, may help.",
                accuracy,
                chance,
            )

    def fit_generator(
        self,
        generator: Any,
        nb_epochs: int | None = None,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Train on all the batches of one pass of an ART data generator, put together.

        :param generator: Generator with `size`, `batch_size` and `get_batch()`.
        :param nb_epochs: Passes over the data; None for the recipe's, or 20.
        :param validation_data: As in :meth:`fit`.
        :param kwargs: As in :meth:`fit`.
        """
        batches = [generator.get_batch() for _ in range(math.ceil(generator.size / generator.batch_size))]
        x, y = (np.concatenate([np.asarray(batch[i]) for batch in batches]) for i in (0, 1))
        self.fit(x, y, validation_data, batch_size=generator.batch_size, nb_epochs=nb_epochs, **kwargs)

    def predict(self, x: np.ndarray, **kwargs: Any) -> np.ndarray:
        """
        Logits of the trained classifier.

        :param x: Inputs (N, C, H, W).
        :param kwargs: As in the classifier's `predict`.
        :return: Logits (N, K).
        """
        return self._classifier.predict(x, **kwargs)


_SHOWN = ("loss", "accuracy", "val_accuracy")


class WarmUpTrainer(LossTrainer):
    """
    Trains by plain cross-entropy first and then, with a fresh optimizer, by the classifier's own loss.

    | Paper link: https://arxiv.org/abs/2012.07688 (PC loss, implementation details)
    """

    def __init__(self, classifier: LossDefendedClassifier, *, warmup_epochs: int | None = None, **kwargs: Any) -> None:
        """
        Create a trainer.

        :param classifier: The classifier to train.
        :param warmup_epochs: Epochs of cross-entropy, T in the paper; None for the recipe's, or half of all epochs.
        :param kwargs: As in :class:`LossTrainer`.
        """
        super().__init__(classifier, **kwargs)
        if warmup_epochs is not None and warmup_epochs < 0:
            raise ValueError(f"warmup_epochs: expected a whole number of at least 0, got {warmup_epochs}.")
        self.warmup_epochs = warmup_epochs

    def _stages(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        validation: tuple[np.ndarray, np.ndarray] | None,
        batch_size: int,
        nb_epochs: int,
        scheduler: Any,
        generator: torch.Generator,
    ) -> None:
        """Warm-up, fresh optimizer, the defence's own loss."""
        if hasattr(scheduler, "step"):
            raise TypeError(
                "scheduler: two stages need two schedulers; pass a function that makes one from an optimizer, e.g. "
                "lambda optimizer: MultiStepLR(optimizer, [50], 0.2)."
            )
        warmup = self.warmup_epochs
        if warmup is None:
            warmup = self._plan.warmup_epochs if self._plan and self._plan.warmup_epochs else nb_epochs // 2
        if warmup >= nb_epochs:
            raise ValueError(
                f"warmup_epochs={warmup} leaves nothing of nb_epochs={nb_epochs} for the defence's own loss."
            )
        classifier, own_loss = self._classifier, self._classifier.loss
        for epochs, loss, stage in (
            (warmup, SoftmaxCrossEntropyLoss(), "warm-up"),
            (nb_epochs - warmup, own_loss, self._stage_name),
        ):
            if epochs:
                self._new_optimizer()
                classifier._loss = loss
                try:
                    self._run(x, y, validation, batch_size, epochs, self._scheduler(scheduler), generator, stage)
                finally:
                    classifier._loss = own_loss

    def _new_optimizer(self) -> None:
        """A fresh optimizer for each stage, also without a recipe."""
        super()._new_optimizer()
        if self._plan is None:
            self._classifier.renew_optimizer()
