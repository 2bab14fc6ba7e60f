"""
What an evaluation found, sample by sample; every figure follows from these records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from scipy.stats import binomtest

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


@dataclass(frozen=True, eq=False)
class AttackRecord:
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
    """

    attack: str
    objective: str | None
    eps: float
    eps_step: float
    steps: int
    seconds: float
    standing: np.ndarray = field(repr=False)
    attacked: np.ndarray | None = field(default=None, repr=False)
    norm: float = math.inf
    restarts: int = 1
    targets: str | None = None
    labels: str = "true"
    bounded: bool = True
    gradients: int = 0
    queries: int = 0
    distances: np.ndarray | None = field(default=None, repr=False)
    black_box: bool = False

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

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold; `standing` and `attacked` as strings of 1 and 0, infinity as "inf".
        """
        return {
            "attack": self.attack,
            "objective": self.objective,
            "norm": "inf" if self.norm == math.inf else self.norm,
            "eps": self.eps,
            "eps_step": self.eps_step,
            "steps": self.steps,
            "restarts": self.restarts,
            "targets": self.targets,
            "labels": self.labels,
            "bounded": self.bounded,
            "black_box": self.black_box,
            "n": self.n,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "seconds": self.seconds,
            "gradients": self.gradients,
            "queries": self.queries,
            "standing": _bits(self.standing),
            "attacked": None if self.attacked is None else _bits(self.attacked),
            "distances": (
                None if self.distances is None else [None if np.isnan(d) else float(d) for d in self.distances]
            ),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AttackRecord:
        """
        :param data: What :meth:`to_dict` gave; counts and interval follow from `standing`. What an older version did
               not write has its default.
        :return: The record.
        """
        plain = [each.name for each in fields(cls) if each.name not in ("norm", "standing", "attacked", "distances")]
        attacked, distances = data.get("attacked"), data.get("distances")
        return cls(
            **{name: data[name] for name in plain if name in data},
            norm=float(data.get("norm", "inf")),
            standing=_from_bits(data["standing"]),
            attacked=None if attacked is None else _from_bits(attacked),
            distances=None if distances is None else np.array([math.nan if d is None else d for d in distances]),
        )


def _bits(values: np.ndarray) -> str:
    return "".join("1" if each else "0" for each in values)


def _from_bits(text: str) -> np.ndarray:
    return np.array([each == "1" for each in text], dtype=bool)


@dataclass(frozen=True)
class Diagnostic:
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

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        value = None if math.isnan(self.value) else float(self.value)
        return {**vars(self), "value": value, "threshold": float(self.threshold)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Diagnostic:
        """
        :param data: What :meth:`to_dict` gave.
        :return: The same.
        """
        return cls(**{**data, "value": math.nan if data["value"] is None else data["value"]})


BROKEN, UNTRUSTWORTHY, HOLDS = VERDICTS = ("broken", "untrustworthy", "holds so far")


@dataclass(frozen=True)
class Verdict:
    """
    The judgement on a robust accuracy.

    :param status: "broken", "untrustworthy" or "holds so far".
    :param reasons: Sentences, each with the figure, the attack and the objective.
    """

    status: str
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        return {"status": self.status, "reasons": list(self.reasons)}


@dataclass(frozen=True, eq=False)
class RobustnessRecord:
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
    :param examples: The worst-case examples (N, C, H, W), clean where none was found; not part of the JSON.
    :param diagnostics_seconds: Time of the diagnostics.
    """

    clean: AttackRecord
    attacks: tuple[AttackRecord, ...]
    seed: int
    suite: str = ""
    labels: np.ndarray | None = field(default=None, repr=False)
    diagnostics: tuple[Diagnostic, ...] = ()
    verdict: Verdict | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    predictions: np.ndarray | None = field(default=None, repr=False)
    examples: np.ndarray | None = field(default=None, repr=False)
    diagnostics_seconds: float = 0.0

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
        standing = np.logical_and.reduce([self.clean.standing, *(record.standing for record in inside)])
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

    def _class_accuracy(self, eps: float) -> dict[str, Any]:
        classes = [{"class": k, "correct": c, "n": n} for k, (c, n) in self.class_accuracy(eps).items()]
        return {"eps": eps, "classes": classes}

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold; worst cases and figures by class too, for readers without this package.
        """
        return {
            "suite": self.suite,
            "seed": self.seed,
            "clean": self.clean.to_dict(),
            "attacks": [record.to_dict() for record in self.attacks],
            "worst_case": [self.worst_case(eps).to_dict() for eps in self.eps],
            "class_accuracy": [] if self.labels is None else [self._class_accuracy(eps) for eps in self.eps],
            "labels": None if self.labels is None else self.labels.tolist(),
            "predictions": None if self.predictions is None else self.predictions.tolist(),
            "diagnostics": [each.to_dict() for each in self.diagnostics],
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
            "provenance": self.provenance,
            "diagnostics_seconds": self.diagnostics_seconds,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RobustnessRecord:
        """
        :param data: What :meth:`to_dict` gave; what an older version did not write has its default.
        :return: The record, without the examples.
        """
        verdict, labels, predictions = (data.get(name) for name in ("verdict", "labels", "predictions"))
        return cls(
            clean=AttackRecord.from_dict(data["clean"]),
            attacks=tuple(AttackRecord.from_dict(each) for each in data["attacks"]),
            seed=data["seed"],
            suite=data.get("suite", ""),
            labels=None if labels is None else np.array(labels),
            diagnostics=tuple(Diagnostic.from_dict(each) for each in data.get("diagnostics", ())),
            verdict=None if verdict is None else Verdict(verdict["status"], tuple(verdict["reasons"])),
            provenance=data.get("provenance", {}),
            predictions=None if predictions is None else np.array(predictions),
            diagnostics_seconds=data.get("diagnostics_seconds", 0.0),
        )
