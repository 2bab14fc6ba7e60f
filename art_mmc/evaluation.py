"""
How robust is a trained classifier? ART's own FGSM and PGD, aimed where they hurt, and the worst case over them.

PGD on the training loss is what the papers report. It stands beside PGD on the objective of the defence's row, so that
the difference can be read off. What is measured is an upper bound: a better attack can only lower it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from scipy.stats import binomtest
from tqdm.auto import tqdm

from art_mmc.checks import check_eps, check_images, check_labels
from art_mmc.classifiers import LossDefendedClassifier

#: names of the attacks, in the order in which they run
FGSM, PGD_LOSS, PGD_ADAPTIVE = ATTACKS = ("FGSM", "PGD own loss", "PGD adaptive")

#: names of two records that are no attack
CLEAN, WORST_CASE = "clean", "worst case"

#: rounding may take an example this far out of the ball or the box
_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class AttackRecord:
    """
    What one attack left standing.

    :param attack: Name of the attack, or "clean" or "worst case".
    :param objective: What it climbed, a name that :meth:`.LossDefendedClassifier.using_objective` takes; None where
           nothing was climbed.
    :param eps: Radius of the L-inf ball, inputs being in [0, 1].
    :param eps_step: Size of a step.
    :param steps: Number of steps.
    :param seconds: Time that it took.
    :param standing: For each sample whether it is classified correctly under attack, bool (N,).
    """

    attack: str
    objective: str | None
    eps: float
    eps_step: float
    steps: int
    seconds: float
    standing: np.ndarray = field(repr=False)

    @property
    def n(self) -> int:
        """Number of samples, misclassified clean ones included."""
        return len(self.standing)

    @property
    def correct(self) -> int:
        """Number of samples that stand."""
        return int(self.standing.sum())

    @property
    def accuracy(self) -> float:
        """Share of the samples that stand."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.n)

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold; `standing` as a string of 1 and 0.
        """
        return {
            "attack": self.attack,
            "objective": self.objective,
            "eps": self.eps,
            "eps_step": self.eps_step,
            "steps": self.steps,
            "n": self.n,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "seconds": self.seconds,
            "standing": "".join("1" if each else "0" for each in self.standing),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AttackRecord:
        """
        :param data: What :meth:`to_dict` gave; counts and interval follow from `standing`.
        :return: The record.
        """
        names = ("attack", "objective", "eps", "eps_step", "steps", "seconds")
        return cls(
            **{name: data[name] for name in names}, standing=np.array([each == "1" for each in data["standing"]])
        )


@dataclass(frozen=True, eq=False)
class RobustnessRecord:
    """
    Accuracy of one classifier, clean and under each attack at each eps, on the same samples.

    :param clean: The record without attack.
    :param attacks: One record for each attack and eps.
    :param seed: Seed of the random starts.
    """

    clean: AttackRecord
    attacks: tuple[AttackRecord, ...]
    seed: int

    @property
    def eps(self) -> tuple[float, ...]:
        """The radii, ascending."""
        return tuple(sorted({record.eps for record in self.attacks}))

    def get(self, attack: str, eps: float) -> AttackRecord:
        """
        :param attack: Name of an attack, or "worst case".
        :param eps: A radius that was measured.
        :return: The record.
        :raises ValueError: When there is none.
        """
        if attack == WORST_CASE:
            return self.worst_case(eps)
        for record in self.attacks:
            if record.attack == attack and record.eps == eps:
                return record
        raise ValueError(f"no record of attack '{attack}' at eps {eps:g}.")

    def worst_case(self, eps: float) -> AttackRecord:
        """
        The headline. A sample stands if it withstood every attack at this and at every smaller eps: what breaks it in
        the small ball lies in the large one too.

        :param eps: A radius that was measured.
        :return: The record.
        :raises ValueError: When nothing was measured at this eps.
        """
        if eps not in self.eps:
            raise ValueError(f"nothing was measured at eps {eps:g}, only at {', '.join(f'{e:g}' for e in self.eps)}.")
        inside = [record for record in self.attacks if record.eps <= eps]
        standing = np.logical_and.reduce([self.clean.standing, *(record.standing for record in inside)])
        seconds = sum(record.seconds for record in inside)
        return AttackRecord(WORST_CASE, None, eps, 0.0, 0, seconds, standing)

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold; the worst cases too, for readers without this package.
        """
        return {
            "seed": self.seed,
            "clean": self.clean.to_dict(),
            "attacks": [record.to_dict() for record in self.attacks],
            "worst_case": [self.worst_case(eps).to_dict() for eps in self.eps],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RobustnessRecord:
        """
        :param data: What :meth:`to_dict` gave.
        :return: The record.
        """
        attacks = tuple(AttackRecord.from_dict(each) for each in data["attacks"])
        return cls(AttackRecord.from_dict(data["clean"]), attacks, data["seed"])


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """
    :param correct: Number of successes.
    :param n: Number of trials, at least 1.
    :return: The 95 % Wilson score interval of the share.
    """
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def check_radii(eps: float | Sequence[float]) -> list[float]:
    """
    :param eps: Radius or radii.
    :return: The radii, ascending, none twice.
    :raises ValueError: When there is none, or one is no number in (0, 1].
    """
    radii = sorted({check_eps(each) for each in np.atleast_1d(np.asarray(eps, dtype=float)).tolist()})
    if not radii:
        raise ValueError("eps: expected at least one radius, got none.")
    return radii


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """
    Seed the global random states of numpy and torch, which ART's attacks and torch's layers draw from; afterwards they
    are as before.

    :param seed: The seed.
    """
    state = np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)


def evaluate_robustness(
    classifier: LossDefendedClassifier,
    x: np.ndarray,
    y: np.ndarray,
    eps: float | Sequence[float],
    steps: int = 40,
    batch_size: int = 256,
    seed: int = 0,
    verbose: bool = True,
) -> RobustnessRecord:
    """
    Attack a classifier in L-inf with true labels: FGSM and PGD on the adaptive objective of the defence's row (the
    margin, for a loss of the user's own), and PGD on the training loss.

    PGD has one random start and steps of 2.5 eps / steps, but no less than eps / 10: far enough to cross the ball, and
    not smaller than needed, as the last point is taken. Only samples that are classified correctly when clean are
    attacked; the others count as wrong.

    :param classifier: The classifier, trained.
    :param x: Inputs (N, C, H, W) in [0, 1].
    :param y: True labels: indices (N,) or one-hot (N, K).
    :param eps: Radius or radii of the ball.
    :param steps: Steps of PGD.
    :param batch_size: Samples that are attacked at once.
    :param seed: Seed of the random starts, the same for each attack.
    :param verbose: Whether to show a progress bar.
    :return: The record.
    :raises TypeError: For another kind of classifier.
    :raises ValueError: For bad inputs, labels, radii or numbers.
    :raises FloatingPointError: When the logits are not finite.
    :raises RuntimeError: When an attack leaves the ball or the box.
    """
    if not isinstance(classifier, LossDefendedClassifier):
        raise TypeError(f"classifier: expected a LossDefendedClassifier, got {type(classifier).__name__}.")
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: expected a whole number of at least 1, got {value}.")
    radii = check_radii(eps)
    x, y = np.asarray(x), np.asarray(y)
    check_images(x, classifier.input_shape)
    check_labels(y, classifier.nb_classes, length=len(x))
    x, y = x.astype(np.float32, copy=False), np.asarray(classifier.reduce_labels(y))
    y = y if y.ndim == 1 else y.argmax(axis=1)

    start = time.perf_counter()
    standing = _predicted(classifier, x, batch_size) == y
    clean = AttackRecord(CLEAN, None, 0.0, 0.0, 0, time.perf_counter() - start, standing)

    adaptive = classifier.row.objectives[0] if classifier.row else "margin"
    records = []
    batches = math.ceil(clean.correct / batch_size)
    jobs = [(attack, radius) for attack in ATTACKS for radius in radii]
    with tqdm(total=len(jobs) * batches, disable=not verbose, desc="attacks", unit="batch", leave=False) as bar:
        for attack, radius in jobs:
            bar.set_postfix_str(f"{attack}, eps {radius:.4g}")
            step = radius if attack == FGSM else max(2.5 / steps, 0.1) * radius
            record = AttackRecord(
                attack,
                "loss" if attack == PGD_LOSS else adaptive,
                radius,
                step,
                1 if attack == FGSM else steps,
                0.0,
                standing.copy(),
            )
            records.append(_attack(classifier, x, y, record, batch_size, seed, bar))
    return RobustnessRecord(clean, tuple(records), seed)


def _attack(
    classifier: LossDefendedClassifier,
    x: np.ndarray,
    y: np.ndarray,
    plan: AttackRecord,
    batch_size: int,
    seed: int,
    bar: Any,
) -> AttackRecord:
    """Run what a record plans on the samples that stand in it; the record of what is left."""
    start = time.perf_counter()
    settings: dict[str, Any] = {"norm": np.inf, "eps": plan.eps, "eps_step": plan.eps_step, "batch_size": batch_size}
    if plan.attack != FGSM:
        settings.update(max_iter=plan.steps, num_random_init=1, verbose=False)
    attack = (FastGradientMethod if plan.attack == FGSM else ProjectedGradientDescent)(classifier, **settings)
    standing = np.zeros_like(plan.standing)
    attacked = np.flatnonzero(plan.standing)
    with classifier.using_objective(str(plan.objective)), seeded(seed):
        for first in range(0, len(attacked), batch_size):
            index = attacked[first : first + batch_size]
            x_adv = attack.generate(x[index], y=y[index])
            _check_examples(x_adv, x[index], plan, classifier.clip_values)
            standing[index] = _predicted(classifier, x_adv, batch_size) == y[index]
            bar.update()
    seconds = time.perf_counter() - start
    return AttackRecord(plan.attack, plan.objective, plan.eps, plan.eps_step, plan.steps, seconds, standing)


def _predicted(classifier: LossDefendedClassifier, x: np.ndarray, batch_size: int) -> np.ndarray:
    """Predicted classes (N,); logits that are not finite raise, since NaN would pass for some class."""
    logits = classifier.predict(x, batch_size=batch_size)
    if not np.isfinite(logits).all():
        raise FloatingPointError(
            "the classifier's logits are not finite: its training has diverged, or its weights are damaged."
        )
    return logits.argmax(axis=1)


def _check_examples(x_adv: np.ndarray, x: np.ndarray, plan: AttackRecord, clip_values: Any) -> None:
    """An attack that breaks its own rules says nothing about robustness."""
    name = f"attack '{plan.attack}' at eps {plan.eps:g}"
    if not np.isfinite(x_adv).all():
        raise RuntimeError(f"{name} gave NaN or infinite values.")
    distance = float(np.abs(x_adv - x).max(initial=0))
    if distance > plan.eps + _TOLERANCE:
        raise RuntimeError(f"{name} left the ball: L-inf distance {distance:.8g}.")
    if clip_values is not None and (
        (x_adv < clip_values[0] - _TOLERANCE).any() or (x_adv > clip_values[1] + _TOLERANCE).any()
    ):
        raise RuntimeError(f"{name} left the box: values from {x_adv.min():.8g} to {x_adv.max():.8g}.")
