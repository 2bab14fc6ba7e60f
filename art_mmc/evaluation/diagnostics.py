"""
Symptoms of masked gradients: each a number, a threshold, and a sentence. The verdict follows from them and from the
worst case.

| Paper link: https://arxiv.org/abs/1802.00420 (obfuscated gradients: the checks of Section 3.1)
| Paper link: https://arxiv.org/abs/1902.06705 (on evaluating adversarial robustness)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.evaluation.control import positive_control
from art_mmc.evaluation.engine import TOLERANCE, Target, derived_seed, distances, run_plan, seeded
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.evaluation.records import (
    BROKEN,
    HOLDS,
    UNTRUSTWORTHY,
    AttackRecord,
    Diagnostic,
    RobustnessRecord,
    Verdict,
)
from art_mmc.evaluation.suites import PGD_ADAPTIVE, PGD_CROSS_ENTROPY, PGD_LOSS

#: samples on which the diagnostics run, and images in which an example is planted
SAMPLES, PLANTED = 128, 24

#: thresholds: shares of the samples, all of them ours
ZERO_SHARE, GAP, GAIN, RISE, BLACK_BOX, FOUND = 0.1, 0.1, 0.1, 0.05, 0.05, 0.9

#: a worst case this far below what the paper's kind of attack leaves takes the defence for broken
_BROKEN_GAP, _BROKEN_SHARE = 0.2, 0.5


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


class Examination:
    """
    Looks for the symptoms on a part of the samples.

    :param target: The classifier.
    :param x: Inputs (N, C, H, W).
    :param y: True labels (N,).
    :param standing: Which samples are classified correctly when clean, bool (N,).
    :param eps: Radius of the ball.
    :param norm: Its norm.
    :param seed: Seed of the attacks.
    :param samples: Look at so many samples, at most.
    """

    def __init__(
        self,
        target: Target,
        x: np.ndarray,
        y: np.ndarray,
        standing: np.ndarray,
        eps: float,
        norm: float,
        seed: int,
        samples: int = SAMPLES,
    ) -> None:
        self.target = target
        self.index = np.flatnonzero(standing)[:samples]
        self.x, self.y = x[self.index], y[self.index]
        self.eps, self.norm, self.seed = eps, norm, seed

    def _left(self, plan: AttackPlan) -> np.ndarray:
        """Which of the samples withstand a plan."""
        record, _, _ = run_plan(self.target, self.x, self.y, plan, np.ones(len(self.x), bool), self.seed)
        return record.standing

    def _pgd(self, eps: float, objective: str = "adaptive", steps: int = 20, restarts: int = 1) -> AttackPlan:
        step = max(2.5 / steps, 0.1) * eps
        return AttackPlan("PGD", "pgd", objective, eps, self.norm, steps, step, restarts)

    def determinism(self) -> Diagnostic:
        """Whether the same inputs give the same outputs twice."""
        outputs = []
        for run in range(2):
            with seeded(derived_seed(self.seed, 6, run)):
                outputs.append(self.target.predict(self.x))
        scale = max(float(np.abs(outputs[0]).max()), 1e-12)
        value = float(np.abs(outputs[0] - outputs[1]).max()) / scale
        changed = int((outputs[0].argmax(axis=1) != outputs[1].argmax(axis=1)).sum())
        return Diagnostic(
            "not deterministic",
            value,
            1e-4,
            value > 1e-4,
            f"Two passes over the same {len(self.x)} inputs differ by {value:.2g} of the largest output, and in "
            f"{changed} predictions"
            + (": an attack has to average over the randomness, which these do not." if value > 1e-4 else "."),
        )

    def outputs(self) -> Diagnostic:
        """Whether the network gives probabilities."""
        found = self.target.probabilities
        return Diagnostic(
            "softmax outputs",
            float(found),
            0.5,
            found,
            (
                "The outputs look like probabilities: a cross-entropy on them saturates, and so does the logarithm "
                "that the attacks here take of them. Give the logits."
                if found
                else "The network's outputs are no probabilities."
            ),
        )

    def own_methods(self) -> Diagnostic:
        """Whether the class predicts by more than its network."""
        found = self.target.own_methods
        name = type(self.target.classifier).__name__
        return Diagnostic(
            "predict of its own",
            float(found),
            0.5,
            found,
            (
                f"{name} predicts by methods of its own: attacks with gradients see its network alone and are not "
                "white-box attacks on it."
                if found
                else f"{name} predicts by its network alone."
            ),
        )

    def zero_gradients(self, objective: str) -> Diagnostic:
        """Share of the samples whose gradient is exactly zero."""
        share = float(np.mean(zero_gradient(self.target.view(objective), self.x, self.y)))
        return Diagnostic(
            f"zero gradients of {objective}",
            share,
            ZERO_SHARE,
            share > ZERO_SHARE,
            f"The input gradient of the objective '{objective}' is exactly zero for {_percent(share)} of "
            f"{len(self.x)} clean inputs" + (": an attack on it sees nothing there." if share > ZERO_SHARE else "."),
        )

    def more_steps(self) -> Diagnostic:
        """What five times the steps gain."""
        few, many = (float(self._left(self._pgd(self.eps, steps=steps)).mean()) for steps in (20, 100))
        return self._gain("more steps", few, many, "PGD adaptive with 20 steps", "with 100")

    def restarts(self) -> Diagnostic:
        """What five random starts gain over one."""
        one, five = (float(self._left(self._pgd(self.eps, restarts=restarts)).mean()) for restarts in (1, 5))
        return self._gain("restarts", one, five, "PGD adaptive with one start", "with five")

    def _gain(self, name: str, weak: float, strong: float, first: str, second: str) -> Diagnostic:
        value = weak - strong
        return Diagnostic(
            f"gain of {name}",
            value,
            GAIN,
            value > GAIN,
            f"{first} leaves {_percent(weak)} of {len(self.x)} samples, {second} {_percent(strong)}"
            + (": the attack has not converged." if value > GAIN else "."),
        )

    def unbounded(self) -> Diagnostic:
        """What is left when anything is allowed."""
        eps = 1.0 if self.norm == math.inf else math.sqrt(float(np.prod(self.x.shape[1:])))
        plan = AttackPlan("PGD", "pgd", "adaptive", eps, self.norm, 100, (eps / 10, eps / 4), 2)
        left, chance = float(self._left(plan).mean()), 1 / self.target.classifier.nb_classes
        return Diagnostic(
            "unbounded attack",
            left,
            chance,
            left > chance,
            f"With eps {eps:g}, where any image is allowed, PGD adaptive with 100 steps leaves {_percent(left)}; "
            f"chance is {_percent(chance)}" + (": the attack fails, not the network holds." if left > chance else "."),
        )

    def monotone(self, objective: str) -> Diagnostic:
        """Whether a larger ball ever helps the network."""
        most = 1.0 if self.norm == math.inf else math.inf
        radii = [radius for radius in (self.eps / 2, self.eps, 2 * self.eps) if radius <= most]
        left = [float(self._left(self._pgd(radius, objective)).mean()) for radius in radii]
        value = max((later - earlier for earlier, later in zip(left, left[1:], strict=False)), default=0.0)
        figures = ", ".join(f"{_percent(share)} at {radius:.4g}" for radius, share in zip(radii, left, strict=True))
        return Diagnostic(
            f"rise with eps of {objective}",
            value,
            RISE,
            value > RISE,
            f"PGD with 20 steps on '{objective}' leaves {figures}"
            + (": a larger ball cannot make a network more robust." if value > RISE else "."),
        )

    def one_step(self, objective: str) -> Diagnostic:
        """Whether one step does better than many."""
        single = float(self._left(AttackPlan("FGSM", "fgsm", objective, self.eps, self.norm, 1, self.eps)).mean())
        many = float(self._left(self._pgd(self.eps, objective)).mean())
        value = many - single
        return Diagnostic(
            f"one step better on {objective}",
            value,
            RISE,
            value > RISE,
            f"On the objective '{objective}' one step (FGSM) leaves {_percent(single)}, PGD-20 {_percent(many)}"
            + (": the gradients near the inputs mislead." if value > RISE else "."),
        )

    def black_box(self, record: RobustnessRecord, white: np.ndarray) -> Diagnostic:
        """
        Whether attacks without gradients find what those with gradients missed.

        :param record: What ran so far.
        :param white: Which samples withstood all white-box attacks, bool (N,).
        """
        square = self._left(AttackPlan("Square", "square", None, self.eps, self.norm, 300))
        fallen = np.zeros(len(white), bool)
        fallen[self.index[~square]] = True
        names = ["Square with 300 queries"]
        for each in record.attacks:
            if each.attack in ("Square", "SPSA", "transfer") and each.bounded and each.eps <= self.eps:
                fallen |= record.clean.standing & ~each.standing & each.attacked
                names.append(each.attack)
        part = np.zeros(len(white), bool)
        part[self.index] = True
        missed = float((white & fallen)[part].mean())
        return Diagnostic(
            "black box better",
            missed,
            BLACK_BOX,
            missed > BLACK_BOX,
            f"{_percent(missed)} of {len(self.x)} samples withstand all attacks with gradients and fall to one without "
            f"({', '.join(dict.fromkeys(names))})" + (": the gradients are masked." if missed > BLACK_BOX else "."),
        )

    def control(self) -> Diagnostic:
        """Whether the attack finds examples that are known to be there."""
        plan = AttackPlan("PGD", "pgd", "margin", self.eps, self.norm, 100, (self.eps / 10, self.eps / 4), 2)
        found, planted = positive_control(self.target, self.x[:PLANTED], plan, self.seed)
        share = found / planted if planted else 0.0
        return Diagnostic(
            "planted examples found",
            share,
            FOUND,
            share < FOUND,
            f"PGD on the margin finds {found} of {planted} adversarial examples planted in the balls of "
            f"{min(PLANTED, len(self.x))} images"
            + (": where it finds nothing there may still be something." if share < FOUND else "."),
        )

    def examples(self, examples: np.ndarray, x: np.ndarray, y: np.ndarray, fallen: np.ndarray) -> Diagnostic:
        """
        Whether the examples that were kept are still misclassified, in the ball and in the box.

        :param examples: One example for each sample (N, C, H, W).
        :param x: The clean inputs.
        :param y: True labels (N,).
        :param fallen: Which samples have an example, bool (N,).
        """
        share = 0.0
        if fallen.any():
            x_adv = examples[fallen]
            right = self.target.classes(x_adv) == y[fallen]
            far = distances(x_adv, x[fallen], self.norm) > self.eps + 10 * TOLERANCE
            low, high = (
                (-math.inf, math.inf)
                if self.target.classifier.clip_values is None
                else (self.target.classifier.clip_values)
            )
            out = ((x_adv < low - TOLERANCE) | (x_adv > high + TOLERANCE)).reshape(len(x_adv), -1).any(axis=1)
            share = float((right | far | out).mean())
        return Diagnostic(
            "stored examples fail",
            share,
            0.0,
            share > 0,
            f"Of {int(fallen.sum())} stored examples {_percent(share)} are no longer misclassified, or lie outside the "
            "ball or the box, when looked at once more"
            + (": the network does not do the same twice." if share > 0 else "."),
        )

    def run(self, record: RobustnessRecord, examples: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[Diagnostic]:
        """
        :param record: What the attacks found.
        :param examples: One example for each fallen sample, (N, C, H, W).
        :param x: All inputs (N, C, H, W).
        :param y: All true labels (N,).
        :return: All the diagnostics.
        """
        worst = record.worst_case(self.eps).standing
        fallen = record.clean.standing & ~worst
        found = [self.determinism(), self.outputs(), self.own_methods()]
        found += gaps(record, self.eps)
        found.append(self.examples(examples, x, y, fallen))
        if not len(self.x):
            return found
        white = record.clean.standing.copy()
        for each in record.attacks:
            if each.bounded and each.eps <= self.eps and each.attack not in ("Square", "SPSA", "transfer"):
                white &= each.standing | ~each.attacked if each.attacked is not None else each.standing
        objectives = ["margin", "cross_entropy", "loss"]
        found += [self.zero_gradients(objective) for objective in objectives]
        found += [self.more_steps(), self.restarts(), self.unbounded()]
        found += [self.monotone("adaptive"), self.monotone("loss")]
        found += [self.one_step("adaptive"), self.one_step("loss")]
        found += [self.black_box(record, white), self.control()]
        return found


def zero_gradient(view: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """
    :param view: The classifier, aimed at an objective.
    :param x: Inputs (N, C, H, W).
    :param y: True labels (N,).
    :param batch_size: Samples in one pass.
    :return: For which samples the input gradient is exactly zero, bool (N,).
    """
    zero = np.zeros(len(x), bool)
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        gradient = np.asarray(view.loss_gradient(x[part], y[part]))
        zero[part] = ~gradient.reshape(len(gradient), -1).any(axis=1)
    return zero


def gaps(record: RobustnessRecord, eps: float) -> list[Diagnostic]:
    """
    How far the attacks that the papers report overstate: PGD on the own loss, and on the cross-entropy.

    :param record: What the attacks found.
    :param eps: The radius.
    :return: One diagnostic for each of the two that ran, beside PGD on the adaptive objective with the same steps.
    """
    by_name = {each.attack: each for each in record.attacks if each.eps == eps}
    adaptive = by_name.get(PGD_ADAPTIVE)
    found = []
    for name, kind in ((PGD_LOSS, "own loss"), (PGD_CROSS_ENTROPY, "cross-entropy")):
        other = by_name.get(name)
        if adaptive is None or other is None:
            continue
        value = other.accuracy - adaptive.accuracy
        found.append(
            Diagnostic(
                f"gap of {kind}",
                value,
                GAP,
                value > GAP,
                f"At eps {eps:.4g} PGD on the {kind} leaves {_percent(other.accuracy)}, on the adaptive objective "
                f"{_percent(adaptive.accuracy)}, with {other.steps} steps each"
                + (f": the {kind} hides the gradient." if value > GAP else "."),
            )
        )
    return found


def judge(record: RobustnessRecord, diagnostics: Sequence[Diagnostic], nb_classes: int) -> Verdict:
    """
    The verdict on the worst case at the largest radius.

    Broken: the worst case is at chance, or less than half of what the papers' kind of attack (own loss or
    cross-entropy) leaves and 20 points below it. Untrustworthy: a diagnostic is flagged. Else it holds so far.

    :param record: What the attacks found.
    :param diagnostics: What the diagnostics found.
    :param nb_classes: Number of classes K.
    :return: The verdict.
    """
    eps, chance = record.eps[-1], 1 / nb_classes
    worst = record.worst_case(eps)
    low, high = worst.interval
    figure = (
        f"the worst case over {sum(each.bounded and each.eps <= eps for each in record.attacks)} attacks at eps "
        f"{eps:.4g} is {_percent(worst.accuracy)} of {worst.n} samples (95 % interval {_percent(low)} to "
        f"{_percent(high)}), clean {_percent(record.clean.accuracy)}"
    )
    flagged = [each.sentence for each in diagnostics if each.flagged]
    reasons = []
    if record.clean.interval[0] <= chance:
        reasons.append(f"The clean accuracy, {_percent(record.clean.accuracy)}, is no better than chance.")
    if worst.accuracy <= chance:
        best = _deadliest(record, eps)
        reasons.append(f"At chance ({_percent(chance)}) or below: {figure}{best}.")
    for each in record.attacks:
        flattering = each.eps == eps and each.attack in (PGD_LOSS, PGD_CROSS_ENTROPY)
        if (
            flattering
            and worst.accuracy < _BROKEN_SHARE * each.accuracy
            and each.accuracy - worst.accuracy > _BROKEN_GAP
        ):
            reasons.append(
                f"{each.attack} with {each.steps} steps leaves {_percent(each.accuracy)} at eps {eps:.4g}, but {figure}"
                f"{_deadliest(record, eps)}."
            )
    if reasons:
        return Verdict(BROKEN, (*reasons, *flagged))
    if flagged:
        return Verdict(UNTRUSTWORTHY, (*flagged, f"Not to be relied on: {figure}."))
    return Verdict(HOLDS, (f"No diagnostic is flagged, and {figure}.",))


def _deadliest(record: RobustnessRecord, eps: float) -> str:
    """The single attack that leaves least, in words."""
    attacks: list[AttackRecord] = [each for each in record.attacks if each.bounded and each.eps == eps]
    full = [each for each in attacks if each.attacked is None or each.attacked.sum() >= record.clean.correct]
    if not full:
        return ""
    best = min(full, key=lambda each: each.correct)
    climbed = f" on '{best.objective}'" if best.objective else ""
    return f"; {best.attack}{climbed} alone leaves {_percent(best.accuracy)}"
