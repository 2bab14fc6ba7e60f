"""
What an evaluation found, sample by sample; every figure follows from these records.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binomtest, chi2, poisson

from art_mmc.evaluation.codec import FLAGS, Record, array, unwritten

#: names of two records that are no attack, and of one that is what the diagnostics broke besides
CLEAN, WORST_CASE, DIAGNOSTICS = "clean", "worst case", "diagnostics"


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """
    :param correct: Number of successes.
    :param n: Number of trials, at least 1.
    :return: The 95 % Wilson score interval of the share.
    """
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Share(Record):
    """How many of n inputs, at least 1, have a property."""

    DERIVED = ("value", "interval")

    count: int
    n: int

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share."""
        return wilson_interval(self.count, self.n)


@dataclass(frozen=True, eq=False)
class AttackRecord(Record):
    """
    What one attack left standing.

    :param attack: Name of the attack, or "clean" or "worst case".
    :param objective: What it climbed, a name that :meth:`.LossDefendedClassifier.using_objective` takes; None where
           nothing was climbed.
    :param eps: Radius of the ball, in the unit of the inputs; 0 for an attack without a ball.
    :param eps_step: Size of a step; the first one where restarts differ.
    :param steps: Number of steps.
    :param seconds: Time that it took.
    :param standing: For each sample whether it is classified correctly under attack, bool (N,). A sample that was not
           attacked has what it had before.
    :param attacked: For each sample whether it was attacked, bool (N,); None for all that were classified correctly.
    :param norm: Norm of the ball.
    :param restarts: Number of starts.
    :param targets: None, or the class that was aimed at: "random", "least_likely" or "all".
    :param labels: Whose labels the attack was given: "true" ones, or "predicted" ones as in the MMC paper.
    :param bounded: Whether it keeps to a ball of radius eps; if not, it has no part in the worst case.
    :param gradients: Samples times passes backward that it took.
    :param queries: Samples times passes forward without a gradient.
    :param distances: For an attack without a ball, the 2-norm of each sample's perturbation (N,), NaN where it failed.
    :param black_box: Whether it took no gradients of the classifier.
    :param round: Number of the round that it was part of, from 1, in a suite that goes on until a round finds little; 0
           for what ran in any case.
    """

    DERIVED = ("n", "correct", "accuracy", "interval")

    attack: str
    objective: str | None
    eps: float
    eps_step: float
    steps: int
    seconds: float
    standing: np.ndarray = array(FLAGS)
    attacked: np.ndarray | None = array(FLAGS, default=None)
    norm: float = math.inf
    restarts: int = 1
    targets: str | None = None
    labels: str = "true"
    bounded: bool = True
    gradients: int = 0
    queries: int = 0
    distances: np.ndarray | None = array(default=None)
    black_box: bool = False
    round: int = 0

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

    def accuracy_of(self, part: np.ndarray) -> float:
        """
        :param part: Which samples to count, bool (N,).
        :return: Share of them that stand; NaN if there are none.
        """
        return float(self.standing[part].mean()) if part.any() else math.nan


def withstood(clean: AttackRecord, attacks: Sequence[AttackRecord], eps: float) -> np.ndarray:
    """Which samples are correct when clean and under all attacks in balls of this or a smaller radius, bool (N,)."""
    inside = (each.standing for each in attacks if each.bounded and each.eps <= eps)
    return np.logical_and.reduce([clean.standing, *inside])


def gains(attacks: Sequence[AttackRecord], eps: float) -> tuple[int, ...]:
    """How many samples each round of attacks, in their order, broke at a radius; () without rounds."""
    rounds: dict[int, int] = {}
    for each in attacks:
        if each.round and each.eps == eps and each.attacked is not None:
            rounds[each.round] = rounds.get(each.round, 0) + int((each.attacked & ~each.standing).sum())
    return tuple(rounds.values())


@dataclass(frozen=True)
class Diagnostic(Record):
    """
    One symptom that was looked for.

    :param name: Short name, e.g. "zero gradients".
    :param value: The figure; NaN where it could not be looked at, which is a reason for distrust too.
    :param threshold: The value at which it becomes a reason for distrust.
    :param flagged: Whether it is one.
    :param sentence: What was measured and what it means, with the figure, the attack and the objective.
    """

    name: str
    value: float
    threshold: float
    flagged: bool
    sentence: str


#: what a verdict says, the best last; FIRST_LOOK where no attack of the suite is thorough enough to say more
BROKEN, UNTRUSTWORTHY, FIRST_LOOK, NOT_CONVERGED, HOLDS = (
    "broken",
    "untrustworthy",
    "a first look",
    "not converged",
    "holds so far",
)


def further(gains: Sequence[int], standing: int) -> tuple[float, float, float]:
    """
    How many of so many standing samples as much work again would break, by what rounds of doubled work, at least one,
    broke: the last gain times its ratio to the one before, at most that gain. With its 95 % interval by Poisson: below,
    what so rare a thing falls short of once in forty times; above, the largest mean of which one would see no more.
    """
    last = gains[-1]
    falls = min(1.0, last / gains[-2]) if len(gains) > 1 and gains[-2] else 1.0
    estimate = min(last * falls, standing)
    high = min(float(chi2.ppf(0.975, 2 * last + 2)) / 2, standing)
    return estimate, min(float(poisson.ppf(0.025, estimate)) if estimate else 0.0, high), high


@dataclass(frozen=True)
class Verdict(Record):
    """
    The judgement on a robust accuracy.

    :param status: "broken", "untrustworthy", "a first look", "not converged" or "holds so far".
    :param reasons: Sentences, each with the figure, the attack and the objective.
    """

    status: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Curves(Record):
    """Counts of samples, by objective; the samples are the first ones of the evaluation."""

    n: int  # samples, misclassified clean ones included
    clean: int  # how many are classified correctly when clean
    eps: tuple[float, ...]  # radii of the curve over eps, ascending
    over_eps: dict[str, tuple[int, ...]]  # how many stand at each radius under PGD
    steps_over_eps: int  # its steps
    at: float  # radius of the curve over steps
    steps: tuple[int, ...]  # numbers of steps, ascending
    over_steps: dict[str, tuple[int, ...]]  # how many stand after so many steps of PGD
    #: of the `clean` samples, for how many the gradient is zero: at the input, then at a random point of each ball
    zero: dict[str, tuple[int, ...]]
    norm: float = math.inf  # of the ball, infinity or 2
    seed: int = 0  # of random starts and points
    seconds: float = 0.0  # that it took, added up over the processes

    @property
    def objectives(self) -> tuple[str, ...]:
        """What PGD climbed: the loss that the network was trained by ("loss"), the cross-entropy, the adaptive one."""
        return tuple(self.over_eps)


@dataclass(frozen=True, eq=False)
class RobustnessRecord(Record):
    """
    Accuracy of one classifier, clean and under each attack at each eps, on the same samples.

    :param clean: The record without attack.
    :param attacks: One record for each attack and eps, in the order in which they ran.
    :param seed: Seed of all randomness.
    :param suite: Name of the suite of attacks.
    :param labels: True labels (N,), for figures by class; None if not kept.
    :param diagnostics: The symptoms of masked gradients that were looked for.
    :param verdict: The judgement; None where only attacks ran.
    :param provenance: Versions, device, machine and settings.
    :param predictions: Classes that the worst-case examples are taken for (N,); None if not kept.
    :param examples: The worst-case examples (N, ...), clean where none was found; not part of the JSON.
    :param diagnostics_seconds: Time of the diagnostics.
    :param curves: Curves for pictures; None if not measured.
    :param inputs: The clean inputs (N, ...); None if not at hand. Not part of the JSON.
    :param index: Which test inputs they are, (N,); None if not known. Not part of the JSON.
    """

    clean: AttackRecord
    attacks: tuple[AttackRecord, ...]
    seed: int
    suite: str = ""
    labels: np.ndarray | None = array(default=None)
    diagnostics: tuple[Diagnostic, ...] = ()
    verdict: Verdict | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    predictions: np.ndarray | None = array(default=None)
    examples: np.ndarray | None = unwritten(default=None)
    diagnostics_seconds: float = 0.0
    curves: Curves | None = None
    inputs: np.ndarray | None = unwritten(default=None)
    index: np.ndarray | None = unwritten(default=None)

    @property
    def eps(self) -> tuple[float, ...]:
        """The radii, ascending."""
        return tuple(sorted({record.eps for record in self.attacks if record.bounded}))

    @property
    def seconds(self) -> float:
        """Time of all the attacks and diagnostics."""
        return self.clean.seconds + sum(record.seconds for record in self.attacks) + self.diagnostics_seconds

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
        the small ball lies in the large one too. Attacks without a ball have no part in it.

        :param eps: A radius that was measured.
        :return: The record.
        :raises ValueError: When nothing was measured at this eps.
        """
        if eps not in self.eps:
            known = ", ".join(f"{e:g}" for e in self.eps) or "(none)"
            raise ValueError(f"nothing was measured at eps {eps:g}, only at {known}.")
        inside = [record for record in self.attacks if record.bounded and record.eps <= eps]
        standing = withstood(self.clean, self.attacks, eps)
        return AttackRecord(
            WORST_CASE,
            None,
            eps,
            0.0,
            0,
            sum(record.seconds for record in inside),
            standing,
            norm=inside[0].norm,
            gradients=sum(record.gradients for record in inside),
            queries=sum(record.queries for record in inside),
        )

    def progress(self, eps: float) -> list[tuple[int, int]]:
        """
        :param eps: A radius that was measured.
        :return: After each attack in the ball how many gradients it took so far, and how many samples stand; the clean
                 ones first.
        """
        standing, gradients = self.clean.standing, 0
        points = [(0, self.clean.correct)]
        for each in self.attacks:
            if each.bounded and each.eps <= eps:
                standing, gradients = standing & each.standing, gradients + each.gradients
                points.append((gradients, int(standing.sum())))
        return points

    def class_accuracy(self, eps: float) -> dict[int, tuple[int, int]]:
        """
        :param eps: A radius that was measured.
        :return: For each class that occurs, how many of its samples stand in the worst case, and how many there are.
        :raises ValueError: When the labels were not kept.
        """
        if self.labels is None:
            raise ValueError("the record has no labels.")
        standing = self.worst_case(eps).standing
        return {
            int(k): (int(standing[self.labels == k].sum()), int((self.labels == k).sum()))
            for k in np.unique(self.labels)
        }

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold; worst cases and figures by class too, for readers without this package.
        """
        classes = []
        for eps in self.eps if self.labels is not None else ():
            counts = self.class_accuracy(eps).items()
            classes.append({"eps": eps, "classes": [{"class": k, "correct": c, "n": n} for k, (c, n) in counts]})
        worst = [self.worst_case(eps).to_dict() for eps in self.eps]
        curve = [
            {"eps": eps, "points": [{"gradients": spent, "correct": left} for spent, left in self.progress(eps)]}
            for eps in self.eps
        ]
        return {**super().to_dict(), "worst_case": worst, "class_accuracy": classes, "progress": curve}


@dataclass(frozen=True, eq=False)
class Reading:
    """What an attack's figure is about."""

    record: AttackRecord  # the attack
    part: np.ndarray  # samples it is about, bool (N,): all, or where it stops early those up to the last that it took
    follows: bool  # whether it ran only on what earlier attacks had left, so that its figure is theirs and its own

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.part.sum())

    @property
    def correct(self) -> int:
        """How many of them stand."""
        return int(self.record.standing[self.part].sum())

    @property
    def accuracy(self) -> float:
        """Share of them that stand."""
        return self.correct / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.n) if self.n else (math.nan, math.nan)

    @property
    def attacked(self) -> int:
        """How many samples were attacked."""
        taken = self.record.attacked
        return self.n if taken is None else int(taken.sum())

    @property
    def found(self) -> np.ndarray:
        """Distances of the examples that an attack without a ball found, (M,)."""
        distances = self.record.distances
        return np.empty(0) if distances is None else distances[~np.isnan(distances)]


def reading(clean: AttackRecord, attack: AttackRecord) -> Reading:
    """What the figure of an attack is about, beside the record without attack."""
    part, follows = np.ones(attack.n, bool), False
    if attack.attacked is not None:
        follows = bool((clean.standing & ~attack.attacked & ~attack.standing).any())
        if (attack.standing & ~attack.attacked).any():  # it stopped before these, or took some of them
            taken = np.flatnonzero(attack.attacked)
            part = np.arange(attack.n) <= (taken[-1] if len(taken) else -1)
            if (attack.standing & ~attack.attacked & part).any():
                part = attack.attacked.copy()
    return Reading(attack, part, follows)
