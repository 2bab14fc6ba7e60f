"""
What the attacks of this package share: parameters, labels, queries and their count, seeds, batches.
"""

import inspect
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from art.attacks.attack import EvasionAttack
from art.config import ART_NUMPY_DTYPE
from art.estimators.classification.classifier import ClassifierMixin
from art.estimators.estimator import BaseEstimator
from tqdm.auto import trange

from art_mmc.checks import as_array, broadcasts, check_eps, check_inputs, check_labels, choice, number, switch, whole

logger = logging.getLogger(__name__)


def _arguments(cls: type) -> list[str]:
    """Names of a constructor's arguments but for self, the classifier, *args and **kwargs."""
    _, *given = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return [each.name for each in given if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)][1:]


class BaseAttack(EvasionAttack):
    """Base of all: its parameters are the arguments of its constructor but for the classifier."""

    _takes_masks = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "attack_params" not in cls.__dict__:
            cls.attack_params = list(dict.fromkeys([*cls.attack_params, *_arguments(cls)]))

    def _keep(self, given: dict[str, Any]) -> None:
        """Keep the arguments of a constructor, its `locals()`, which have its class, and check them."""
        for name in _arguments(given["__class__"]):
            setattr(self, name, given[name])
        self._check_params()

    def _check(self, check: Callable[..., Any], names: str, *bounds: Any, **more: Any) -> None:
        """Parameters, their names between blanks, by a check of a named value: `number`, `whole`, `switch`, ..."""
        for name in names.split():
            check(name, getattr(self, name), *bounds, **more)

    def _check_ball(self) -> None:
        self._check(choice, "norm", (2, np.inf, "inf"))
        check_eps(number("eps", self.eps), clip_values=None if self.norm == 2 else self.estimator.clip_values)

    def _check_params(self) -> None:
        super()._check_params()
        self._check(whole, "batch_size")
        self._check(switch, "targeted verbose")
        if getattr(self, "seed", None) is not None:
            self._check(whole, "seed", 0)

    def _checked(
        self, x: np.ndarray, y: np.ndarray | None, given: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Inputs (N, ...) and classes (N,), None for those that are predicted; ValueError for what is wrong."""
        x = check_inputs(x, self.estimator)
        if given and given.get("mask") is not None and not self._takes_masks:
            raise ValueError(f"mask: expected None, as {type(self).__name__} changes every value of an input.")
        if y is None:
            return x, self._own_classes(x)
        return x, check_labels(np.asarray(y), self.estimator.nb_classes, length=len(x))

    def _own_classes(self, x: np.ndarray) -> np.ndarray | None:
        """The classes (N,) where a user gives none; None for those that are predicted."""
        if self.targeted:
            raise ValueError("y: expected target labels, which a targeted attack needs, got None.")
        return None

    def _drawn_seed(self) -> int:
        return int(np.random.randint(2**31)) if self.seed is None else int(self.seed)


class Batch(NamedTuple):
    """What is attacked together by queries."""

    x: np.ndarray  # inputs (B, ...), float32, a copy
    y: np.ndarray | None  # classes (B,), None for those that are predicted
    places: np.ndarray  # the images' numbers in the whole (B,)
    generators: list[np.random.Generator]  # a random stream for each
    mask: np.ndarray | None  # where x may be perturbed, bool of its shape; None for everywhere


def lead(predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By how much another class leads in predictions (M, K) over those of y (M,), `max_{k != y} a_k - a_y`, float64."""
    values, rows = predictions.astype(np.float64), np.arange(len(y))
    true = values[rows, y]
    values[rows, y] = -np.inf
    return values.max(axis=1) - true


class QueryAttack(BaseAttack):
    """
    Base of attacks that ask for predictions alone. Each image has a random stream of its own, which depends on the seed
    and on the image's place in x: what is found for an image does not depend on the others, nor on the batch size.
    """

    _estimator_requirements: tuple[Any, ...] = (BaseEstimator, ClassifierMixin)
    _takes_masks = True

    #: how often the last `generate` had each image, or a perturbed one in its place, predicted: (N,), int64
    queries = np.zeros(0, np.int64)

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
        x, labels = self._checked(x, y, kwargs)
        mask = kwargs.get("mask")
        if mask is not None:
            mask = as_array("mask", mask)
            if not broadcasts(mask.shape, x.shape):
                raise ValueError(f"mask: expected a shape that broadcasts to that of x, {x.shape}, got {mask.shape}.")
            mask = np.broadcast_to(mask != 0, x.shape)
        seed = self._drawn_seed()
        self.queries = np.zeros(len(x), np.int64)
        x_adv = np.empty(x.shape, ART_NUMPY_DTYPE)
        nb_fooled = 0
        name = type(self).__name__
        for start in trange(0, len(x), self.batch_size, desc=f"{name} - batches", disable=not self.verbose):
            part = slice(start, min(start + self.batch_size, len(x)))
            index = np.arange(part.start, part.stop)
            generators = [np.random.default_rng([seed, int(i)]) for i in index]
            given, masked = (None if each is None else each[part] for each in (labels, mask))
            x_adv[part], fooled = self._attack(Batch(x[part].astype(ART_NUMPY_DTYPE), given, index, generators, masked))
            nb_fooled += int(fooled.sum())
        logger.info("Success rate of %s attack: %.2f%%", name, 100 * nb_fooled / len(x))
        return x_adv

    @abstractmethod
    def _attack(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Adversarial samples of the shape of x and, for each, whether it reached its aim, bool (B,)."""

    def _query(self, x: np.ndarray, index: np.ndarray, most: int | None = None) -> np.ndarray:
        """Predictions (M, K) of inputs, counted for images `index` (M,), `most` at once; ValueError for bad ones."""
        most = self.batch_size if most is None else most
        parts = []
        for start in range(0, len(x), most):
            part = self.estimator.predict(x[start : start + most], batch_size=most)
            if part.ndim != 2 or part.shape[1] < 2:
                raise ValueError(
                    "This attack has not yet been tested for binary classification with a single output classifier: "
                    f"expected predictions (N, K) with K >= 2, got shape {part.shape}."
                )
            if part.shape[1] != self.estimator.nb_classes:
                nb_classes = self.estimator.nb_classes
                raise ValueError(
                    f"classifier: expected predictions (N, {nb_classes}), its nb_classes, got {part.shape}."
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


class TrialAttack(QueryAttack):
    """Base of attacks that draw at random: the first of `nb_trials` that fools stays, or else the nearest to it."""

    @abstractmethod
    def _draw(self, x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One input, perturbed at random from its random stream; x itself stays as it is."""

    def _attack(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        x, y, index, generators, mask = batch
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
        self._check(whole, "nb_trials")
