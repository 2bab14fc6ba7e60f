"""MMC's training in ART's form."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from art.attacks.attack import EvasionAttack
from art.defences.trainer.trainer import Trainer
from art.estimators.classification.pytorch import PyTorchClassifier
from art.utils import check_and_transform_label_format
from tqdm.auto import trange

logger = logging.getLogger(__name__)


class MaxMahalanobisTrainer(Trainer):
    """
    Training of a :class:`.MaxMahalanobisClassifier` on its loss, on the data or on adversarial examples of an attack in
    their place.

    Please keep in mind the limitations of defences.

    | Paper link: https://arxiv.org/abs/1905.10626
    """

    def __init__(self, classifier: PyTorchClassifier, attack: EvasionAttack | None = None) -> None:
        """
        Create a :class:`.MaxMahalanobisTrainer` instance.

        :param classifier: Classifier to train, with an optimizer.
        :param attack: Attack on this classifier for adversarial training; None for training on the data as they are.
        """
        if not isinstance(classifier, PyTorchClassifier) or classifier.optimizer is None:
            raise ValueError("Expected a PyTorchClassifier with an optimizer.")
        super().__init__(classifier)
        self.attack = attack

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """
        Train the classifier.

        :param x: Training data.
        :param y: Labels, as indices or one-hot.
        :param validation_data: Tuple consisting of validation data, (x_val, y_val).
        :param batch_size: Size of batches.
        :param nb_epochs: Number of epochs.
        :param scheduler: Anything with a `step()`, which is called at the end of every epoch.
        :param kwargs: These will be passed as such to the `fit` function of the classifier.
        """
        if scheduler is not None and not hasattr(scheduler, "step"):
            raise ValueError("Invalid Pytorch scheduler is provided for training.")
        y = check_and_transform_label_format(y, nb_classes=self.classifier.nb_classes)
        for i_epoch in trange(nb_epochs, desc="Max-Mahalanobis Training - Epochs"):
            start_time = time.time()
            order = np.random.permutation(len(x))
            for start in range(0, len(x), batch_size):
                index = order[start : start + batch_size]
                x_batch = x[index] if self.attack is None else self.attack.generate(x[index], y=y[index])
                self.classifier.fit(x_batch, y[index], batch_size=len(index), nb_epochs=1, **kwargs)
            if scheduler is not None:
                scheduler.step()
            train_time = time.time() - start_time
            if validation_data is None:
                logger.info("epoch: %s time(s): %.1f", i_epoch, train_time)
            else:
                x_val, y_val = validation_data
                y_val = check_and_transform_label_format(y_val, nb_classes=self.classifier.nb_classes)
                correct = self.classifier.predict(x_val).argmax(axis=1) == y_val.argmax(axis=1)
                logger.info("epoch: %s time(s): %.1f acc(val): %.4f", i_epoch, train_time, correct.mean())
        self.classifier.model.eval()
