"""
Symptoms of masked gradients: each a number, a threshold, and a sentence. The verdict follows from them and from the
worst case.

A diagnostic is flagged where the headline, the worst case over all attacks that ran, is not to be relied on. How far an
attack with one start had converged is no reason for that by itself, if the others found what it missed. Two attacks on
the same samples differ by chance too: their difference counts by the lower end of its 95 % interval.

| Paper link: https://arxiv.org/abs/1802.00420 (obfuscated gradients: the checks of Section 3.1)
| Paper link: https://arxiv.org/abs/1902.06705 (on evaluating adversarial robustness)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from art_mmc.checks import box_width
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.distributed import progress, share_out
from art_mmc.evaluation import records, suites
from art_mmc.evaluation.binarisation import positive_control
from art_mmc.evaluation.engine import Substitutes, Target, beyond_ball, beyond_box, distances, run_plan, timed
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.evaluation.records import AttackRecord, Diagnostic, RobustnessRecord, Verdict, further, gains
from art_mmc.evaluation.suites import PGD_ADAPTIVE, PGD_CROSS_ENTROPY, PGD_LOSS, QUOTE, SUITES, crossing, fits, headline
from art_mmc.state import Stream, derived_seed, seeded

#: samples on which the diagnostics run, fewer for a first look, and inputs in which an example is planted, at most;
#: queries of the attack by queries alone
SAMPLES, FEW, PLANTED, QUERIES = 64, 24, 24, 100

#: samples on which gradients are compared with differences, and directions for each; pairs between which the border of
#: two classes is looked for, and steps of that search, down to float32's own; a short way beside an example, as a share
#: of the inputs' range
COMPARED, DIRECTIONS, PAIRS, HALVINGS, BESIDE = 16, 4, 16, 24, 1e-3

#: thresholds, all of them ours: relative difference of two passes; share of exactly zero gradients; by how much an
#: attack on the own loss or the cross-entropy may overstate; what more steps or starts may break beyond the worst case;
#: by how much a larger ball or more steps may be worse; what attacks without gradients may break that those with
#: gradients missed; share of the planted examples that must be found. Then what a copy that was never asked before may
#: judge otherwise; least correlation of gradients and differences; jump of the logits from one class to another, as a
#: share of what there is between the two. Shares are of the samples looked at.
NOISE, ZERO_SHARE, GAP, GAIN, RISE, BLACK_BOX, FOUND = 1e-4, 0.1, 0.1, 0.1, 0.05, 0.1, 0.9
MEMORY, AGREEMENT, JUMP = 0.05, 0.5, 0.3

#: fewest samples on which a figure may be said to hold: on 100 the 95 % interval of a half is 20 points wide
FEWEST = 100

#: a worst case this far below what the papers' kind of attack leaves, and less than this share of it: broken
BROKEN_GAP, BROKEN_SHARE = 0.2, 0.5

#: what a paper's attack climbs, by its name in sentences, and the plan that shows it in our suites
FLATTERING = {"loss": ("own loss", PGD_LOSS), "cross_entropy": ("cross-entropy", PGD_CROSS_ENTROPY)}

#: diagnostics, and number of each sample that was broken in the ball -> its example and the class it is taken for
Part = tuple[list[Diagnostic], dict[int, tuple[np.ndarray, int]]]

#: takes a part's number and what runs it, and gives what that gave, now or before
Keep = Callable[[int, Callable[[], tuple[Part, float]]], tuple[Part, float]]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _spread(index: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the indices, evenly spread: data may be sorted by class."""
    return index if len(index) <= most else index[np.linspace(0, len(index) - 1, most).round().astype(int)]


def found(
    name: str, value: float, threshold: float, sentence: str, tail: str, flagged: bool | None = None
) -> Diagnostic:
    """A diagnostic, flagged above its threshold unless told; the tail of its sentence says what that means."""
    flagged = value > threshold if flagged is None else flagged
    return Diagnostic(name, value, threshold, flagged, f"{sentence}: {tail}." if flagged else f"{sentence}.")


class Examination:
    """
    Looks for the symptoms at the largest radius, on so many samples at most that are correct when clean; `record` is
    what the attacks found, `pristine` predicts (N, K) by a copy that was asked nothing yet, `planted` is in how many
    samples at most an example is planted, `substitutes` are for a transfer attack; None for what there is not.
    """

    def __init__(
        self,
        target: Target,
        x: np.ndarray,
        y: np.ndarray,
        record: RobustnessRecord,
        seed: int,
        samples: int = SAMPLES,
        batch_size: int = 256,
        pristine: Callable[[np.ndarray], np.ndarray] | None = None,
        planted: int = PLANTED,
        substitutes: Substitutes | None = None,
    ) -> None:
        self.target, self.record, self.seed, self.batch_size = target, record, seed, batch_size
        self.eps = record.eps[-1]
        self.norm = record.worst_case(self.eps).norm
        self.all_x, self.all_y = x, y
        self.index = _spread(np.flatnonzero(record.clean.standing), samples)
        self.any = _spread(np.arange(len(x)), samples)
        self.x, self.y = x[self.index], y[self.index]
        #: which of the samples stand in the worst case
        self.standing = record.worst_case(self.eps).standing[self.index]
        self.pristine, self.substitutes, self.planted = pristine, substitutes, planted
        self._known: dict[str, np.ndarray] = {}
        self._points: np.ndarray | None = None
        #: number of each sample that was broken in the ball -> its example and the class that it is taken for
        self.found: dict[int, tuple[np.ndarray, int]] = {}
        #: time of all that :meth:`run` did, added up over the processes
        self.seconds = 0.0

    @property
    def n(self) -> int:
        """Number of samples that are looked at."""
        return len(self.x)

    def _left(self, plan: AttackPlan, among: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """Which of the samples, or of some of them, withstand a plan, bool (n,)."""
        key = f"{plan!r} {among is None} {seed}"
        if key not in self._known:
            among = np.ones(self.n, bool) if among is None else among
            record, examples, classes = run_plan(
                self.target,
                self.x,
                self.y,
                plan,
                among,
                derived_seed(self.seed, Stream.DIAGNOSTIC_ATTACK, seed),
                self.batch_size,
            )
            self._known[key] = record.standing
            if plan == self._pgd(self.eps):
                self._points = examples
            if plan.eps <= self.eps:
                self._take(among & ~record.standing, examples, classes)
        return self._known[key]

    def _take(self, broken: np.ndarray, examples: np.ndarray, classes: np.ndarray) -> None:
        """Keep the first example of each sample that stood under the attacks."""
        for i in np.flatnonzero(broken & self.standing):
            self.found.setdefault(int(self.index[i]), (examples[i], int(classes[i])))

    def _pgd(self, eps: float, objective: str = "adaptive", steps: int = 20, restarts: int = 1) -> AttackPlan:
        return AttackPlan("PGD", "pgd", objective, eps, self.norm, steps, crossing(eps, steps), restarts)

    def determinism(self) -> Diagnostic:
        """Whether the same inputs give the same outputs twice."""
        outputs = []
        for run in range(2):
            with seeded(derived_seed(self.seed, Stream.DETERMINISM, run)):
                outputs.append(self.target.predict(self.all_x[self.any], self.batch_size))
        scale = max(float(np.abs(outputs[0]).max()), 1e-12)
        value = float(np.abs(outputs[0] - outputs[1]).max()) / scale
        changed = int((outputs[0].argmax(axis=1) != outputs[1].argmax(axis=1)).sum())
        sentence = (
            f"Two passes over the same {len(self.any)} inputs differ by {value:.2g} of the largest output, and in "
            f"{changed} predictions"
        )
        tail = "an attack has to average over the randomness, which these do not"
        return found("not deterministic", value, NOISE, sentence, tail)

    def memory(self) -> Diagnostic:
        """Whether a copy that was asked nothing yet takes PGD's examples, or points beside them, for another class."""
        stands = self._left(self._pgd(self.eps))
        assert self._points is not None
        stands = np.flatnonzero(stands & self.standing)
        order = np.random.default_rng(derived_seed(self.seed, Stream.MEMORY)).permutation(stands)
        predict = self.pristine or partial(self.target.predict, batch_size=self.batch_size)
        broken = np.zeros(self.n, bool)
        examples, classes = self.x.copy(), np.full(self.n, -1)
        if len(order):
            x, points = self.x[order], self._points[order]
            for each in (points, self._beside(points, x)):
                answers = predict(each).argmax(axis=1)
                wrong = (answers != self.y[order]) & ~broken[order]
                examples[order[wrong]], classes[order[wrong]] = each[wrong], answers[wrong]
                broken[order[wrong]] = True
            self._take(broken, examples, classes)
        value = float(broken.mean())
        copied = "A copy of the network that was asked nothing before" if self.pristine else "The network, in new order"
        sentence = (
            f"{copied} takes PGD's examples, or points {BESIDE:g} of the range beside them, for another class in "
            f"{_percent(value)} of {self.n} samples for which the network itself did not"
        )
        return found("memory of questions", value, MEMORY, sentence, "its answers depend on what it was asked before")

    def _beside(self, points: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Points of the ball and the box right beside others of the ball."""
        rng = np.random.default_rng(derived_seed(self.seed, Stream.MEMORY, 1))
        moved = points + min(BESIDE * box_width(self._box()), self._coordinate() / 10) * rng.choice(
            (-1, 1), points.shape
        )
        low, high = self._box()
        moved = np.clip(moved, low, high)
        if self.norm == math.inf:
            return np.clip(moved, x - self.eps, x + self.eps).astype(np.float32)
        away = distances(moved, x, 2).reshape(-1, *[1] * (x.ndim - 1))
        return (x + (moved - x) * np.minimum(1, self.eps / np.maximum(away, 1e-30))).astype(np.float32)

    def _box(self) -> tuple[Any, Any]:
        """The box of the inputs; where there is none, that of the samples."""
        clip = self.target.classifier.clip_values
        return (self.all_x.min(), self.all_x.max()) if clip is None else (clip[0], clip[1])

    def _coordinate(self) -> float:
        """How far a point on the edge of the ball is from its center in each coordinate, if equally in all."""
        return self.eps if self.norm == math.inf else self.eps / math.sqrt(self.x[0].size)

    def differences(self) -> Diagnostic:
        """Whether the gradients of the margin are those that differences along random directions show."""
        chosen = _spread(np.arange(self.n), COMPARED)
        x, y = self.x[chosen], self.y[chosen]
        view = self.target.view("margin")
        mean = getattr(view.loss, "reduction", "mean") == "mean"
        gradients = []
        for first in range(0, len(x), self.batch_size):
            part = slice(first, first + self.batch_size)
            gradients.append(np.asarray(view.loss_gradient(x[part], y[part])) * (len(x[part]) if mean else 1))
        gradient = np.concatenate(gradients).astype(np.float64)
        length = np.sqrt((gradient**2).reshape(len(x), -1).sum(axis=1))
        value = 1.0 if not (length > 0).any() else -1.0
        low, high = self._box()
        rng = np.random.default_rng(derived_seed(self.seed, Stream.DIFFERENCES))
        signs = rng.choice((-1.0, 1.0), (DIRECTIONS, *x.shape))
        scale = self._coordinate()
        for step in (BESIDE * box_width(self._box()), scale / 4, scale):
            seen, told = [], []
            for sign in signs:
                ahead, back = (np.clip(x + way * step * sign, low, high).astype(np.float32) for way in (1, -1))
                ends = []
                for points in (ahead, back):
                    with seeded(derived_seed(self.seed, Stream.DIFFERENCES, 1)):
                        ends.append(self.target.margins(points, y, self.batch_size).astype(np.float64))
                moved = ahead.astype(np.float64) - back
                told.append((gradient * moved).reshape(len(x), -1).sum(axis=1))
                seen.append(ends[0] - ends[1])
            each = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
            a, b = np.array(seen) * each, np.array(told) * each
            size = math.sqrt(float((a**2).sum() * (b**2).sum()))
            value = max(value, float((a * b).sum()) / size if size > 0 else 0.0 if value < 0 else value)
        sentence = (
            f"Along random directions gradients and differences of the margin have a correlation of {value:.2f} on "
            f"{len(x)} samples, at the best of three distances"
        )
        tail = "the gradients are not those of the network's answers"
        return found("gradients beside differences", value, AGREEMENT, sentence, tail, value < AGREEMENT)

    def border(self) -> Diagnostic:
        """Whether the logits go from one class to another without a jump."""
        chosen = _spread(self.any, 4 * PAIRS)
        x = self.all_x[chosen]
        classes = self.target.classes(x, self.batch_size)
        pairs: list[tuple[int, int]] = []
        for i, k in enumerate(classes):
            others = np.flatnonzero(np.roll(classes, -i) != k)
            if len(others) and len(pairs) < PAIRS:
                pairs.append((i, (i + others[len(pairs) % len(others)]) % len(x)))
        value = 0.0
        if pairs:
            start, end = (x[[pair[side] for pair in pairs]].astype(np.float64) for side in (0, 1))
            k = classes[[pair[0] for pair in pairs]]

            def margins(t: np.ndarray) -> np.ndarray:
                at = start + t.reshape(-1, *[1] * (x.ndim - 1)) * (end - start)
                with seeded(derived_seed(self.seed, Stream.BORDER)):
                    return self.target.margins(at.astype(np.float32), k, self.batch_size)

            near, far = np.zeros(len(k)), np.ones(len(k))
            at_near, at_far = margins(near), margins(far)
            between = np.abs(at_near) + np.abs(at_far)
            for _ in range(HALVINGS):
                middle = (near + far) / 2
                here = margins(middle)
                left = here < 0  # still of the first class
                near, at_near = np.where(left, middle, near), np.where(left, here, at_near)
                far, at_far = np.where(left, far, middle), np.where(left, at_far, here)
            value = float(np.median((at_far - at_near) / np.maximum(between, 1e-30)))
        sentence = (
            f"On the lines between {len(pairs)} pairs of inputs of different classes the logits jump by "
            f"{_percent(value)} (median) of what lies between the two where the class changes"
        )
        return found("jump between classes", value, JUMP, sentence, "no gradient tells how near another class is")

    def outputs(self) -> Diagnostic:
        """Whether the network gives probabilities."""
        sentence = "The network's outputs are no probabilities."
        if self.target.probabilities:
            sentence = (
                "The outputs look like probabilities: a cross-entropy on them saturates, and so does the logarithm "
                "that the attacks here take of them. Give the logits."
            )
        return Diagnostic("softmax outputs", float(self.target.probabilities), 0.5, self.target.probabilities, sentence)

    def own_methods(self) -> Diagnostic:
        """Whether the class predicts by more than its network."""
        own, sentence = bool(self.target.own_methods), f"{type(self.target.classifier).__name__} "
        if own:
            sentence += (
                f"has its own {', '.join(self.target.own_methods)}: attacks with gradients see its network alone and "
                "are not white-box attacks on it."
            )
        else:
            sentence += "predicts by its network alone."
        return Diagnostic("predict of its own", float(own), 0.5, own, sentence)

    def gap(self, objective: str) -> Diagnostic:
        """
        How far an attack on the own loss or the cross-entropy overstates beside the adaptive objective, by the suite's
        figures or PGD's; a reason for distrust where the gradient vanishes and it is no chance.
        """
        kind, figure = FLATTERING[objective]
        by_name = {each.attack: each for each in self.record.attacks if each.eps == self.eps}
        if figure in by_name and PGD_ADAPTIVE in by_name:
            steps, other, adaptive = by_name[figure].steps, by_name[figure].standing, by_name[PGD_ADAPTIVE].standing
        else:
            steps = 20
            other, adaptive = (self._left(self._pgd(self.eps, each)) for each in (objective, "adaptive"))
        low, high = difference_interval(other, adaptive)
        value = float(other.mean() - adaptive.mean())
        sentence = (
            f"At eps {self.eps:.4g} PGD with {steps} steps on the {kind} leaves {_percent(other.mean())} of "
            f"{len(other)} samples, on the adaptive objective '{self.target.adaptive}' {_percent(adaptive.mean())}"
        )
        flagged = low > GAP and self._zero_share(objective) > ZERO_SHARE
        if value > GAP and not flagged:
            sentence += (
                f" (95 % interval of the difference {_percent(low)} to {_percent(high)}); the worst case has both"
            )
        return found(f"gap of {kind}", value, GAP, sentence, f"the {kind} hides the gradient", flagged)

    def _zero_share(self, objective: str) -> float:
        """Share of the samples whose gradient is exactly zero."""
        return float(np.mean(zero_gradient(self.target.view(objective), self.x, self.y, self.batch_size)))

    def zero_gradients(self, objective: str, gap: Diagnostic | None = None) -> Diagnostic:
        """Share of samples whose gradient is zero; no fault where, by the gap, it costs the attack on it nothing."""
        share = self._zero_share(objective)
        many = share > ZERO_SHARE
        flagged = many and (gap is None or gap.flagged)
        sentence = (
            f"The input gradient of the objective '{objective}' is exactly zero for {_percent(share)} of {self.n} "
            "clean inputs"
        )
        if many:
            sentence += ": an attack on it sees nothing there" if flagged else ", which costs an attack on it little"
        return Diagnostic(f"zero gradients of {objective}", share, ZERO_SHARE, flagged, sentence + ".")

    def more_steps(self) -> Diagnostic:
        """What five times the steps break beyond the worst case."""
        return self._gain("more steps", self._pgd(self.eps, steps=100), "PGD adaptive with 100 steps")

    def restarts(self) -> Diagnostic:
        """What five more starts break beyond the worst case."""
        return self._gain(
            "restarts", self._pgd(self.eps, restarts=5), "PGD adaptive with 20 steps from five new starts"
        )

    def _gain(self, name: str, plan: AttackPlan, what: str) -> Diagnostic:
        broken = int((self.standing & ~self._left(plan, self.standing, seed=1)).sum())
        value = broken / self.n
        sentence = (
            f"Of {self.n} samples {int(self.standing.sum())} withstand the attacks, of which {what} breaks {broken} "
            f"more ({_percent(value)})"
        )
        return found(f"gain of {name}", value, GAIN, sentence, "the attacks have not converged")

    def unbounded(self) -> Diagnostic:
        """What is left when anything is allowed."""
        box = self._box()
        width = np.broadcast_to(np.asarray(box[1]) - np.asarray(box[0]), self.x.shape[1:]).astype(np.float64)
        eps = float(width.max() if self.norm == math.inf else np.sqrt((width**2).sum()))
        plan = AttackPlan("APGD", "auto-pgd", "adaptive", max(eps, self.eps), self.norm, 100, restarts=2)
        left, chance = float(self._left(plan).mean()), 1 / self.target.classifier.nb_classes
        sentence = (
            f"With eps {eps:.4g}, where any input is allowed, APGD adaptive with 100 steps leaves {_percent(left)}; "
            f"chance is {_percent(chance)}"
        )
        return found("unbounded attack", left, chance, sentence, "the attack fails, not the network holds")

    def monotone(self, objective: str) -> Diagnostic:
        """Whether a larger ball ever helps the network against PGD on an objective."""
        most = box_width(self.target.classifier.clip_values) if self.norm == math.inf else math.inf
        radii = [radius for radius in (self.eps / 2, self.eps, 2 * self.eps) if radius <= most]
        left = [self._left(self._pgd(radius, objective)) for radius in radii]
        figures = [f"{_percent(each.mean())} at {radius:.4g}" for radius, each in zip(radii, left, strict=True)]
        sentence = f"PGD with 20 steps on '{objective}' leaves {', '.join(figures)}"
        tail = "a larger ball cannot make a network more robust"
        return self._rise(f"rise with eps of {objective}", left, sentence, tail)

    def one_step(self, objective: str) -> Diagnostic:
        """Whether one step on an objective does better than many."""
        single = self._left(AttackPlan("FGSM", "fgsm", objective, self.eps, self.norm, 1, self.eps))
        many = self._left(self._pgd(self.eps, objective))
        shares = _percent(single.mean()), _percent(many.mean())
        sentence = f"On the objective '{objective}' one step (FGSM) leaves {shares[0]}, PGD-20 {shares[1]}"
        tail = "the gradients near the inputs mislead"
        return self._rise(f"one step better on {objective}", [single, many], sentence, tail)

    def _rise(self, name: str, left: Sequence[np.ndarray], sentence: str, tail: str) -> Diagnostic:
        """By how much more stands under an attack than under the weaker one before; flagged where that is no chance."""
        steps = list(zip(left[1:], left, strict=False))
        value = max((float(later.mean() - earlier.mean()) for later, earlier in steps), default=0.0)
        surely = max((difference_interval(later, earlier)[0] for later, earlier in steps), default=0.0)
        return found(name, value, RISE, sentence, tail, surely > RISE)

    def black_box(self) -> Diagnostic:
        """Whether attacks without gradients find what those with gradients missed."""
        inside = [each for each in self.record.attacks if each.bounded and each.eps <= self.eps]
        tried, withstood = np.zeros(self.n, bool), np.ones(self.n, bool)  # by attacks with gradients
        fallen, names = np.zeros(self.n, bool), []
        for each in inside:
            attacked = (self.record.clean.standing if each.attacked is None else each.attacked)[self.index]
            fell = attacked & ~each.standing[self.index]
            if each.black_box:
                fallen |= fell
                names.append(each.attack)
            else:
                tried |= attacked
                withstood &= ~fell
        if not any(each.black_box and each.eps == self.eps for each in inside):
            plan = AttackPlan(f"Square with {QUERIES} queries", "square", None, self.eps, self.norm, QUERIES)
            about = self.target.classifier.nb_classes, self.target.image_size
            if not fits(plan, *about):
                few = MappingProxyType({"nb_samples": 64})
                plan = AttackPlan("SPSA", "spsa", "margin", self.eps, self.norm, 20, self.eps / 5, options=few)
            names.append(plan.name)
            fallen |= self.standing & ~self._left(plan, self.standing)
            transfer = AttackPlan("MIM", "mim", "adaptive", self.eps, self.norm, 40, self.eps / 10, transfer=True)
            if fallen.any():
                longer = replace(plan, steps=3 * plan.steps)
                self._in_full([longer, transfer] if self.substitutes and fits(transfer, *about) else [longer])
        missed = float((tried & withstood & fallen).mean())
        sentence = (
            f"{_percent(missed)} of {self.n} samples withstand all attacks with gradients and fall to one without "
            f"({', '.join(dict.fromkeys(names))})"
        )
        return found("black box better", missed, BLACK_BOX, sentence, "the gradients are masked")

    def _in_full(self, plans: Sequence[AttackPlan]) -> None:
        """Attack all the samples of the evaluation that stand, what a few of them have shown to be worth it."""
        standing = self.record.worst_case(self.eps).standing.copy()
        standing[list(self.found)] = False
        for number, plan in enumerate(plans):
            seed = derived_seed(self.seed, Stream.DIAGNOSTIC_ATTACK, 2, number)
            given = self.target, self.all_x, self.all_y, plan, standing, seed, self.batch_size
            record, examples, classes = run_plan(*given, self.substitutes or tuple)
            for i in np.flatnonzero(standing & ~record.standing):
                self.found[int(i)] = examples[i], int(classes[i])
            standing = record.standing

    def control(self) -> Diagnostic:
        """Whether the attack finds examples that are known to be there."""
        steps = (self.eps / 4, self.eps / 2, self.eps, self.eps / 10)
        plan = AttackPlan("PGD", "pgd", "margin", self.eps, self.norm, 40, steps, 8)
        inputs = self.x[_spread(np.arange(self.n), self.planted)]
        seen, planted = positive_control(self.target, inputs, plan, self.seed, self.batch_size)
        share = seen / planted if planted else 1.0
        sentence = (
            f"PGD on the margin finds {seen} of {planted} adversarial examples that could be planted in the balls of "
            f"{len(inputs)} inputs"
        )
        tail = "where it finds nothing there may still be something"
        return found("planted examples found", share, FOUND, sentence, tail, share < FOUND)

    def examples(self) -> Diagnostic:
        """Whether the examples that were kept are still misclassified, in the ball and in the box."""
        fallen = self.record.clean.standing & ~self.record.worst_case(self.eps).standing
        share = 0.0
        if fallen.any() and self.record.examples is not None:
            x_adv = self.record.examples[fallen]
            right = self.target.classes(x_adv, self.batch_size) == self.all_y[fallen]
            far = beyond_ball(x_adv, self.all_x[fallen], self.eps, self.norm)
            share = float((right | far | beyond_box(x_adv, self.target.classifier.clip_values)).mean())
        sentence = (
            f"Of {int(fallen.sum())} stored examples {_percent(share)} are no longer misclassified, or lie outside the "
            "ball or the box, when looked at once more"
        )
        return found("stored examples fail", share, 0.0, sentence, "the network does not do the same twice")

    def run(self, keep: Keep | None = None, verbose: bool = False) -> list[Diagnostic]:
        """
        All the diagnostics; without samples that are classified correctly only those that need none. One that fails is
        flagged under its name, with the reason: it loses nothing of what the attacks have found. `keep` is called as
        (number, run) for each part instead of `run()`, to keep results or take kept ones.
        """
        parts: dict[str, Callable[[], list[Diagnostic]]] = {
            "not deterministic": lambda: [self.determinism()],
            "softmax outputs": lambda: [self.outputs()],
            "predict of its own": lambda: [self.own_methods()],
            "stored examples fail": lambda: [self.examples()],
        }
        suite = SUITES.get(self.record.suite)
        if self.n and (suite is None or suite.eps is not None):  # suites of ours have more steps and starts themselves
            parts["gain of more steps"] = lambda: [self.more_steps()]
            parts["gain of restarts"] = lambda: [self.restarts()]
        if self.n:
            parts |= {
                f"zero gradients of {self.target.adaptive}": lambda: [self.zero_gradients(self.target.adaptive)],
                **{f"gap of {FLATTERING[each][0]}": partial(self._flattered, each) for each in FLATTERING},
                "unbounded attack": lambda: [self.unbounded()],
                "rise with eps of adaptive": lambda: [self.monotone("adaptive"), self.one_step("adaptive")],
                "black box better": lambda: [self.black_box()],
                "planted examples found": lambda: [self.control()],
                "memory of questions": lambda: [self.memory()],
                "gradients beside differences": lambda: [self.differences()],
                "jump between classes": lambda: [self.border()],
            }
        diagnostics: list[Diagnostic] = []
        broken: dict[int, tuple[np.ndarray, int]] = {}
        with progress(verbose, total=len(parts), desc="diagnostics", unit="part") as bar:

            def job(number: int, name: str, part: Callable[[], list[Diagnostic]]) -> tuple[Part, float]:
                bar.set_postfix_str(name)
                run = partial(timed, partial(self._part, number, name, part))
                return run() if keep is None else keep(number, run)

            jobs = [partial(job, number, *each) for number, each in enumerate(parts.items())]
            for (seen, examples), seconds in share_out(jobs):
                diagnostics += seen
                broken = {**examples, **broken}
                self.seconds += seconds
                bar.update()
        self.found = broken
        return diagnostics

    def _part(self, number: int, name: str, part: Callable[[], list[Diagnostic]]) -> Part:
        """A part with its own randomness, and what it broke: which others ran before it, here, must not matter."""
        before, self.found = self.found, {}
        with seeded(derived_seed(self.seed, Stream.DIAGNOSTIC, number)):
            try:
                diagnostics = part()
            except Exception as err:
                text = " ".join(str(err).split())
                sentence = f"'{name}' could not be looked at: {type(err).__name__}: {text}"
                diagnostics = [Diagnostic(name, math.nan, 0.0, True, sentence)]
        mine, self.found = self.found, {**self.found, **before}
        return diagnostics, mine

    def record_of_found(self) -> AttackRecord | None:
        """What is left after what the diagnostics broke in the ball besides the attacks; None for nothing."""
        if not self.found:
            return None
        standing = self.record.worst_case(self.eps).standing.copy()
        attacked = np.zeros_like(standing)
        attacked[[*self.index, *self.found]] = standing[[*self.index, *self.found]]
        standing[list(self.found)] = False
        return AttackRecord(records.DIAGNOSTICS, None, self.eps, 0.0, 0, 0.0, standing, attacked, self.norm)

    def _flattered(self, objective: str) -> list[Diagnostic]:
        gap = self.gap(objective)
        return [gap, self.zero_gradients(objective, gap if objective == "loss" else None)]


def zero_gradient(view: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """For which samples the gradient of a view's objective is zero, bool (N,); FloatingPointError for no number."""
    zero = np.zeros(len(x), bool)
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        gradient = np.asarray(view.loss_gradient(x[part], y[part]))
        if not np.isfinite(gradient).all():
            raise FloatingPointError(f"the input gradient of the objective '{view.objective}' is not finite.")
        zero[part] = ~gradient.reshape(len(gradient), -1).any(axis=1)
    return zero


def difference_interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """95 % Wald interval of the difference of the shares of samples that withstand two attacks, both bool (N,)."""
    n, difference = len(one), one.astype(float) - other
    half = 1.96 * math.sqrt(difference.var() / n)
    return float(difference.mean() - half), float(difference.mean() + half)


def judge(
    record: RobustnessRecord, diagnostics: Sequence[Diagnostic], nb_classes: int, converged: float = suites.CONVERGED
) -> Verdict:
    """
    The verdict on the worst case at the largest radius. Broken: the clean accuracy is no better than chance, or the
    worst case is at chance, or less than half of what the papers' kind of attack (untargeted, on the own loss or the
    cross-entropy) leaves and 20 points below that. Untrustworthy: a diagnostic is flagged. Else a first look, where the
    suite is made for no more, or on fewer than :data:`FEWEST` samples; not converged, where the last round of attacks
    still broke more than a share `converged` of the samples; or it holds so far, by its figure.
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
    told = f"{figure}{_deadliest(record, eps)}."
    if worst.accuracy <= chance:
        reasons.append(f"At chance ({_percent(chance)}) or below: {told}")
        told = "the worst case is far below."
    flattering = []
    for objective, (kind, _) in FLATTERING.items():
        alone = [each for each in _alone(record, eps) if each.objective == objective and each.targets is None]
        best = min(alone, key=lambda each: each.correct, default=None)
        if (
            best is not None
            and worst.accuracy < BROKEN_SHARE * best.accuracy
            and best.accuracy - worst.accuracy > BROKEN_GAP
            and not best.black_box
        ):
            flattering.append(
                f"{best.attack} on the {kind} with {best.steps} steps leaves {_percent(best.accuracy)} at eps {eps:.4g}"
            )
    if flattering:
        reasons.append(f"{' and '.join(flattering)}, but {told}")
    if reasons:
        return Verdict(records.BROKEN, (*reasons, *flagged))
    if flagged:
        return Verdict(records.UNTRUSTWORTHY, (*flagged, f"Not to be relied on: {figure}{_deadliest(record, eps)}."))
    status = records.HOLDS
    reasons = [f"No diagnostic is flagged, and {figure}{_deadliest(record, eps)}."]
    if found := gains(record.attacks, eps):
        more = [_percent(count / worst.n) for count in further(found, worst.correct)]
        reasons.append(
            f"The last of {len(found)} rounds of attacks, some three quarters of the work of all before it, broke "
            f"{found[-1]} of {worst.n} samples ({_percent(found[-1] / worst.n)}); as much again would break another "
            f"{more[0]} by estimate (95 % interval {more[1]} to {more[2]})."
        )
        if found[-1] >= converged * worst.n:
            status = records.NOT_CONVERGED
    suite = SUITES.get(record.suite)
    if worst.n < FEWEST:
        reasons.append(f"{worst.n} samples say too little for more than a first look: at least {FEWEST} are needed.")
    if worst.n < FEWEST or (suite is not None and suite.look):
        status = records.FIRST_LOOK
    if headline(record.suite) != QUOTE:
        reasons.append(f"The suite '{record.suite}' is no last word: its worst case is {headline(record.suite)}.")
    return Verdict(status, tuple(reasons))


def _alone(record: RobustnessRecord, eps: float) -> list[AttackRecord]:
    """The attacks at a radius that ran on all samples and have a figure of their own."""
    clean = record.clean.standing
    return [
        each
        for each in record.attacks
        if each.bounded and each.eps == eps and (each.attacked is None or bool(each.attacked[clean].all()))
    ]


def _deadliest(record: RobustnessRecord, eps: float) -> str:
    """The single attack that leaves least, in words."""
    alone = _alone(record, eps)
    if not alone:
        return ""
    best = min(alone, key=lambda each: each.correct)
    climbed = f" on '{best.objective}'" if best.objective else ""
    return f"; {best.attack}{climbed} alone leaves {_percent(best.accuracy)}"
