"""
What the attacks of this package share: labels, queries and their count, seeds, batches.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from art.attacks.attack import EvasionAttack
from art.config import ART_NUMPY_DTYPE
from art.estimators.classification.classifier import ClassifierMixin
from art.estimators.estimator import BaseEstimator
from art.utils import check_and_transform_label_format
from tqdm.auto import trange

from art_mmc.checks import check_images, check_labels

if TYPE_CHECKING:
    from art.utils import CLASSIFIER_TYPE

logger = logging.getLogger(__name__)


def whole_number(value: Any, least: int) -> bool:
    """Whether a parameter is a whole number of at least `least`."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def positive_number(value: Any) -> bool:
    """Whether a parameter is a finite number above 0."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(0 < value < np.inf)


def lead(predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
    """
    By how much, in predictions (M, K), another class leads over those of y (M,), `max_{k != y} a_k - a_y`: (M,),
    float64.
    """
    values, rows = predictions.astype(np.float64), np.arange(len(y))
    true = values[rows, y]
    values[rows, y] = -np.inf
    return values.max(axis=1) - true


class QueryAttack(EvasionAttack):
    """
    Base of attacks that ask for predictions alone. Each image has a random stream of its own, which depends on the seed
    and on the image's place in x: what is found for an image does not depend on the others, nor on the batch size.
    """

    attack_params = EvasionAttack.attack_params + ["targeted", "batch_size", "seed", "verbose"]
    _estimator_requirements: tuple[Any, ...] = (BaseEstimator, ClassifierMixin)

    #: how often the last `generate` had each image, or a perturbed one in its place, predicted: (N,), int64
    queries: np.ndarray

    def __init__(
        self, classifier: CLASSIFIER_TYPE, targeted: bool, batch_size: int, seed: int | None, verbose: bool
    ) -> None:
        """
        :param classifier: A trained classifier.
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left.
        :param batch_size: Images that are attacked together.
        :param seed: Seed; None draws one from numpy's global random state, which is not touched otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        self._targeted = targeted
        self.batch_size = batch_size
        self.seed = seed
        self.verbose = verbose
        self.queries = np.zeros(0, np.int64)

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """
        Generate adversarial samples and return them in an array.

        :param x: Inputs (N, ...).
        :param y: Classes, as indices (N,) or one-hot (N, K): the true ones, or for a targeted attack those to be
               reached. None for the classifier's own predictions.
        :param kwargs: `mask`, of a shape that broadcasts against x: where it is zero, x is not perturbed. Others have
               no effect.
        :return: Adversarial samples of the shape of x, float32.
        :raises ValueError: For a targeted attack without `y`, for inputs or labels that are empty, of a wrong shape or
                not finite, and where the classifier's predictions are not finite or have a single column.
        """
        if self.targeted and y is None:
            raise ValueError("Target labels `y` need to be provided for a targeted attack.")
        x = np.asarray(x)
        check_images(x)
        labels = None
        if y is not None:
            y = np.asarray(y)
            check_labels(y, self.estimator.nb_classes, length=len(x))
            labels = check_and_transform_label_format(y, nb_classes=self.estimator.nb_classes).argmax(axis=1)
        mask = kwargs.get("mask")
        if mask is not None:
            mask = np.broadcast_to(np.asarray(mask) != 0, x.shape)
        seed = int(np.random.randint(2**31)) if self.seed is None else int(self.seed)
        self.queries = np.zeros(len(x), np.int64)
        x_adv = np.empty(x.shape, ART_NUMPY_DTYPE)
        nb_fooled = 0
        name = type(self).__name__
        for start in trange(0, len(x), self.batch_size, desc=f"{name} - batches", disable=not self.verbose):
            part = slice(start, min(start + self.batch_size, len(x)))
            index = np.arange(part.start, part.stop)
            generators = [np.random.default_rng([seed, int(i)]) for i in index]
            x_adv[part], fooled = self._attack(
                x[part].astype(ART_NUMPY_DTYPE),
                None if labels is None else labels[part],
                index,
                generators,
                None if mask is None else mask[part],
            )
            nb_fooled += int(fooled.sum())
        logger.info("Success rate of %s attack: %.2f%%", name, 100 * nb_fooled / len(x))
        return x_adv

    @abstractmethod
    def _attack(
        self,
        x: np.ndarray,
        y: np.ndarray | None,
        index: np.ndarray,
        generators: list[np.random.Generator],
        mask: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Attack one batch of inputs (B, ...), float32, a copy, with classes (B,) or None for those that are predicted:
        `index` (B,) are the images' places in the whole, `generators` a random stream for each, `mask`, bool of the
        shape of x, says where x may be perturbed, None for everywhere. Adversarial samples of the shape of x and, for
        each, whether it reached its aim, bool (B,).
        """

    def _query(self, x: np.ndarray, index: np.ndarray, most: int | None = None) -> np.ndarray:
        """
        Ask for predictions (M, K), as they come from the classifier, of inputs (M, ...), and count; `index` (M,) is
        which image of the whole each stands for, `most` how many go through in one pass, None for the batch size.
        ValueError where predictions are not finite, or a single column.
        """
        most = self.batch_size if most is None else most
        parts = []
        for start in range(0, len(x), most):
            part = self.estimator.predict(x[start : start + most], batch_size=most)
            if part.ndim != 2 or part.shape[1] < 2:
                raise ValueError(
                    "This attack has not yet been tested for binary classification with a single output classifier: "
                    f"expected predictions (N, K) with K >= 2, got shape {part.shape}."
                )
            if not np.isfinite(part).all():
                bad = int((~np.isfinite(part)).any(axis=1).sum())
                raise ValueError(
                    f"The classifier's predictions are NaN or infinite for {bad} of {len(part)} inputs: no attack can "
                    "be judged by them."
                )
            parts.append(part)
        np.add.at(self.queries, index, 1)
        return np.concatenate(parts)

    def _reached(self, predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether predictions (M, K) have left the classes y (M,), or reached them, bool (M,)."""
        classes = predictions.argmax(axis=1)
        return classes == y if self.targeted else classes != y

    def _box(self) -> tuple[Any, Any]:
        """Smallest and largest values of an input, numbers or arrays."""
        if self.estimator.clip_values is None:
            return -np.inf, np.inf
        low, high = self.estimator.clip_values
        return low, high

    def _check_params(self) -> None:
        super()._check_params()
        if not isinstance(self.targeted, bool):
            raise ValueError(f"The argument `targeted` has to be of type bool, got {self.targeted!r}.")
        if not whole_number(self.batch_size, 1):
            raise ValueError(f"The batch size `batch_size` has to be a positive integer, got {self.batch_size!r}.")
        if self.seed is not None and not whole_number(self.seed, 0):
            raise ValueError(f"The argument `seed` has to be None or a non-negative integer, got {self.seed!r}.")
        if not isinstance(self.verbose, bool):
            raise ValueError(f"The argument `verbose` has to be of type bool, got {self.verbose!r}.")


class TrialAttack(QueryAttack):
    """
    Base of attacks that draw perturbations at random: the first of `nb_trials` that fools the classifier stays, and if
    none does the one nearest to it.
    """

    attack_params = QueryAttack.attack_params + ["nb_trials"]

    def __init__(
        self,
        classifier: CLASSIFIER_TYPE,
        nb_trials: int,
        targeted: bool,
        batch_size: int,
        seed: int | None,
        verbose: bool,
    ) -> None:
        """
        :param classifier: A trained classifier.
        :param nb_trials: Draws for each image, at least 1.
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left.
        :param batch_size: Images that are perturbed and predicted together.
        :param seed: Seed; None draws one from numpy's global random state, which is not touched otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(classifier, targeted, batch_size, seed, verbose)
        self.nb_trials = nb_trials

    @abstractmethod
    def _draw(self, x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One input, perturbed at random from its random stream; x itself stays as it is."""

    def _attack(
        self,
        x: np.ndarray,
        y: np.ndarray | None,
        index: np.ndarray,
        generators: list[np.random.Generator],
        mask: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        labels = self._query(x, index).argmax(axis=1) if y is None else y
        best, best_values = x.copy(), np.full(len(x), -np.inf)
        fooled = np.zeros(len(x), bool)
        for _ in range(self.nb_trials):
            left = np.flatnonzero(~fooled)
            if not len(left):
                break
            drawn = np.stack([self._draw(x[i], generators[i]) for i in left]).astype(ART_NUMPY_DTYPE, copy=False)
            if mask is not None:
                drawn = np.where(mask[left], drawn, x[left])
            predictions = self._query(drawn, index[left])
            values = lead(predictions, labels[left])
            values = -values if self.targeted else values
            fooled[left] = self._reached(predictions, labels[left])
            better = fooled[left] | (values > best_values[left])
            best[left[better]], best_values[left[better]] = drawn[better], values[better]
        return best, fooled

    def _check_params(self) -> None:
        super()._check_params()
        if not whole_number(self.nb_trials, 1):
            raise ValueError(f"The number of draws `nb_trials` has to be a positive integer, got {self.nb_trials!r}.")
