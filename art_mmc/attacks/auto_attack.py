"""
AutoAttack's standard version: APGD on the cross-entropy, targeted APGD, targeted FAB and Square, in sequence.

| Paper link: https://arxiv.org/abs/2003.01690
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from art.attacks.attack import EvasionAttack
from art.attacks.evasion.square_attack import SquareAttack
from art.config import ART_NUMPY_DTYPE
from art.estimators.classification import PyTorchClassifier
from art.utils import is_probability

from art_mmc.attacks.auto_pgd import AutoPGD
from art_mmc.attacks.base import BaseAttack
from art_mmc.attacks.fast_adaptive_boundary import FastAdaptiveBoundary
from art_mmc.state import derived_seed, seeded, untouched

logger = logging.getLogger(__name__)

#: steps of APGD and FAB, targets at most, queries of Square
_STEPS, _TARGETS, _QUERIES = 100, 9, 5000


def remembering(predict: Callable[..., np.ndarray], calls: int = 3) -> Callable[..., np.ndarray]:
    """A `predict` that asks for no input of the last calls again: ART's Square asks for each point three times."""
    memory: deque[dict[bytes, np.ndarray]] = deque(maxlen=calls)

    def asked(x: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        keys = [row.tobytes() for row in x]
        known: dict[bytes, np.ndarray] = {}
        for each in memory:
            known.update(each)
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            known.update(zip((keys[i] for i in new), predict(x[new], *args, **kwargs), strict=True))
        memory.append({key: known[key] for key in keys})
        return np.stack([known[key] for key in keys])

    return asked


def _double(estimator: Any) -> Any:
    """Another object of the same contents, whose attributes can be set; copying would take an ART classifier apart."""
    view = object.__new__(type(estimator))
    view.__dict__.update(vars(estimator))
    return view


class Square(SquareAttack):
    """ART's Square for images of any size, in a box or none; its schedule is stretched to 10,000 steps, or as it is."""

    def __init__(self, estimator: Any, *, stretched: bool = True, **settings: Any) -> None:
        if estimator.clip_values is None:  # ART's clips without asking
            estimator = _double(estimator)
            estimator._clip_values = np.array([-math.inf, math.inf], dtype=ART_NUMPY_DTYPE)
        super().__init__(estimator, **{"p_init": 0.8, "nb_restarts": 1, **settings})
        self._stretched = stretched

    def _get_percentage_of_elements(self, i_iter: int) -> float:
        step = i_iter * 10000 / self.max_iter if self._stretched else i_iter
        halvings = int(np.searchsorted((10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), step))
        height, width = (
            self.estimator.input_shape[1:] if self.estimator.channels_first else self.estimator.input_shape[:2]
        )
        # a square must be smaller than the image, which ART does not see to
        largest = (min(height, width) - 1) ** 2 / (height * width)
        return min(self.p_init / 2**halvings, largest)


class AutoAttackStandard(BaseAttack):
    """
    AutoAttack, standard version: APGD on the cross-entropy, APGD towards each of the nine likeliest other classes on
    the targeted DLR, FAB towards each of them, and Square with 5,000 queries; 100 steps, one start. Each attacks what
    is still classified correctly by the classifier's own `predict` after those before it, so that the share that is
    left at the end is the worst case. An attack that fails raises an error with its name and is never counted as
    robustness.

    With K < 10 classes there are K - 1 targets. The targeted DLR needs four classes: with two or three, APGD goes
    towards its targets on the margin.

    How it differs from the authors' code: an image that is broken leaves at once, FAB too once it is inside the ball,
    which changes the time and not the figure; each image has a random stream of its own; an example must lead by more
    than rounding. Square is ART's, on the reference's schedule: squares, places and signs are drawn once a step for the
    whole batch and not for each image, and never touch the last row and column. It is for images alone: inputs of
    another number of dimensions are attacked by the other three, with a warning. ART's own `AutoAttack` has neither FAB
    nor targets of APGD, and takes an attack that crashes for one that found nothing.

    | Paper link: https://arxiv.org/abs/2003.01690
    """

    _estimator_requirements = (PyTorchClassifier,)

    #: after the last `generate`, name of each attack that ran -> share of all samples that it left; "clean" first
    robust_accuracy: dict[str, float]

    def __init__(
        self,
        classifier: PyTorchClassifier,
        norm: int | float | str = np.inf,
        eps: float = 8 / 255,
        batch_size: int = 250,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create an :class:`.AutoAttackStandard` instance.

        :param classifier: A trained classifier that gives logits.
        :param norm: Norm of the ball: np.inf, "inf" or 2.
        :param eps: Radius of the ball, in the unit of the inputs.
        :param batch_size: Images that are attacked together.
        :param seed: Seed; None draws one from numpy's global random state, which is not touched otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        self.robust_accuracy = {}
        self._keep(locals())

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """
        Generate adversarial samples and return them in an array.

        :param x: Inputs (N, ...), in the box of the classifier's clip values.
        :param y: True classes, as indices (N,) or one-hot (N, K); None for the classifier's own predictions.
        :param kwargs: No effect, but a `mask` is refused.
        :return: Adversarial samples of the shape of x, float32; the input where none was found.
        :raises ValueError: For inputs or labels that do not fit.
        :raises RuntimeError: When one of the attacks fails, with its name.
        """
        x, y = self._checked(x, y, kwargs)
        seed = self._drawn_seed()
        with untouched(self.estimator.model):  # ART's own `predict` draws numbers
            return self._in_sequence(x.astype(ART_NUMPY_DTYPE), y, seed)

    def _in_sequence(self, x: np.ndarray, y: np.ndarray | None, seed: int) -> np.ndarray:
        outputs = self._predict(x)
        if all(is_probability(row) for row in outputs[:16]):
            logger.warning(
                "The classifier's outputs look like probabilities: AutoAttack is for logits, and on probabilities it "
                "may overstate robustness."
            )
        y = outputs.argmax(axis=1) if y is None else y
        robust = outputs.argmax(axis=1) == y
        self.robust_accuracy = {"clean": float(robust.mean())}
        for place, (name, attack) in enumerate(self._attacks(x.ndim, outputs.shape[1]).items()):
            left = np.flatnonzero(robust)
            if len(left):
                try:
                    # on small images ART's Square divides by 0
                    with seeded(derived_seed(seed, place)), np.errstate(divide="ignore", invalid="ignore"):
                        examples = attack.generate(x[left], y[left])
                    broken = self._predict(examples).argmax(axis=1) != y[left]
                except Exception as err:
                    raise RuntimeError(f"AutoAttackStandard: {name} failed: {type(err).__name__}: {err}") from err
                x[left[broken]], robust[left[broken]] = examples[broken], False
            self.robust_accuracy[name] = float(robust.mean())
            logger.info("Robust accuracy after %s: %.2f%%", name, 100 * robust.mean())
        return x

    def _attacks(self, dimensions: int, nb_classes: int) -> dict[str, EvasionAttack]:
        """The attacks, in their order."""
        targets = min(_TARGETS, nb_classes - 1)
        settings: dict[str, Any] = {"norm": self.norm, "eps": self.eps, "batch_size": self.batch_size}
        quiet = {**settings, "verbose": self.verbose}
        white = {**quiet, "max_iter": _STEPS, "early_stop": True}
        aimed = "dlr" if nb_classes >= 4 else "margin"
        attacks: dict[str, EvasionAttack] = {
            "APGD-CE": AutoPGD(self.estimator, objective="cross_entropy", **white),
            "APGD-T": AutoPGD(self.estimator, objective=aimed, nb_targets=targets, **white),
            "FAB-T": FastAdaptiveBoundary(self.estimator, nb_targets=targets, **white),
        }
        if dimensions != 4:
            logger.warning("Square is for images, and the inputs have %d dimensions: it is left out.", dimensions)
            return attacks
        view = _double(self._fast())
        view.predict = remembering(view.predict)
        attacks["Square"] = Square(view, max_iter=_QUERIES, stretched=False, **quiet)
        return attacks

    def _fast(self) -> Any:
        from art_mmc.classifiers.accelerate import on_double  # here: one that is only named brings no classifiers along

        return on_double(self.estimator)

    def _predict(self, x: np.ndarray) -> np.ndarray:
        """The classifier's outputs (N, K); FloatingPointError where they are not finite: NaN would pass for a class."""
        outputs = self._fast().predict(np.asarray(x, dtype=ART_NUMPY_DTYPE), batch_size=self.batch_size)
        if not np.isfinite(outputs).all():
            bad = int((~np.isfinite(outputs)).any(axis=1).sum())
            raise FloatingPointError(f"the classifier's outputs are NaN or infinite for {bad} of {len(x)} inputs.")
        return outputs

    def _check_params(self) -> None:
        super()._check_params()
        self._check_ball()
