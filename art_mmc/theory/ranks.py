"""
Where attacks land: the rank that the class of an adversarial example had in the prediction of the clean one.

| Paper link: https://arxiv.org/abs/2012.07688 (Figure 2)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from art.estimators.classification import PyTorchClassifier

from art_mmc.checks import check_inputs, check_name, check_radii, check_type, whole
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.evaluation.engine import Target, run_plan
from art_mmc.evaluation.plans import AttackPlan
from art_mmc.state import seeded
from art_mmc.theory.probability import check_logits

#: names of the attacks of the study
RANK_ATTACKS = ("FGSM", "MIM")


def landing_ranks(logits: np.ndarray, y: np.ndarray, landed: np.ndarray) -> np.ndarray:
    """
    The rank that a class had among the false ones.

    :param logits: Clean outputs (N, K); probabilities serve as well.
    :param y: True labels: indices (N,) or one-hot (N, K).
    :param landed: Predicted classes under attack (N,).
    :return: (N,): 1 for the runner-up, the likeliest false class, to K - 1; 0 where `landed` is the true class. Of
             equal outputs the lower index comes first.
    :raises ValueError: For what does not fit.
    """
    logits, y = check_logits(logits, y)
    _, landed = check_logits(logits, landed)
    rows = np.arange(len(y))
    logits[rows, y] = np.inf  # the true class first, whatever its place
    order = np.argsort(-logits, axis=1, kind="stable")
    return np.argmax(order == landed[:, None], axis=1)


@dataclass(frozen=True, eq=False)
class RankStudy:
    """
    Ranks that newly successful attacks land on.

    :param eps: Radii, ascending.
    :param attacks: Names of the attacks.
    :param objective: What they climbed.
    :param steps: Steps of MIM.
    :param nb_classes: Number of classes K.
    :param correct: For each sample whether it is classified correctly when clean, bool (N,); only these are attacked.
    :param fooled_at: Attack -> for each sample the index into `eps` of the smallest radius that fooled it, -1 for none,
           int (N,).
    :param ranks: Attack -> the rank that it landed on there, 1 to K - 1, 0 where it never was fooled, int (N,).
    """

    eps: tuple[float, ...]
    attacks: tuple[str, ...]
    objective: str
    steps: int
    nb_classes: int
    correct: np.ndarray = field(repr=False)
    fooled_at: dict[str, np.ndarray] = field(repr=False)
    ranks: dict[str, np.ndarray] = field(repr=False)

    def counts(self, attack: str) -> np.ndarray:
        """
        :param attack: Name of an attack.
        :return: Number of samples newly fooled at each radius, by rank, (E, K - 1).
        :raises ValueError: For an attack that was not run.
        """
        check_name("attack", attack, self.attacks)
        counts = np.zeros((len(self.eps), self.nb_classes - 1), int)
        fooled = self.fooled_at[attack] >= 0
        np.add.at(counts, (self.fooled_at[attack][fooled], self.ranks[attack][fooled] - 1), 1)
        return counts

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold: the counts, and for each sample where and when it fell.
        """
        return {
            "eps": list(self.eps),
            "objective": self.objective,
            "steps": self.steps,
            "n": len(self.correct),
            "n_correct": int(self.correct.sum()),
            "attacks": {
                name: {
                    "newly_fooled_by_rank": self.counts(name).tolist(),
                    "fooled_at": self.fooled_at[name].tolist(),
                    "rank": self.ranks[name].tolist(),
                }
                for name in self.attacks
            },
        }


def rank_study(
    classifier: PyTorchClassifier,
    x: np.ndarray,
    y: np.ndarray,
    eps: float | Sequence[float],
    attacks: Sequence[str] = RANK_ATTACKS,
    *,
    steps: int = 10,
    objective: str = "rescaled_cross_entropy",
    batch_size: int = 256,
    seed: int = 0,
) -> RankStudy:
    """
    Attack over a grid of radii, and see on which rank of the clean prediction the newly successful attacks land: those
    that fool a sample at this radius and at no smaller one. ART's FGSM and MIM (steps of eps / steps, decay 1), L-inf,
    untargeted, with true labels.

    The attacks must not aim at the runner-up by themselves, or the answer would be theirs and not the network's. So a
    :class:`.LossDefendedClassifier` is attacked by the cross-entropy, which pushes away from the true class, and not by
    the margin; rescaled, since otherwise many a defended network's softmax is saturated and gives no gradient. Other
    classifiers are attacked by their own loss. The study says where attacks land, not how robust a network is.

    | Paper link: https://arxiv.org/abs/2012.07688 (Figure 2)

    :param classifier: Any ART `PyTorchClassifier`, trained.
    :param x: Inputs (N, ...) in [0, 1].
    :param y: True labels: indices (N,) or one-hot (N, K).
    :param eps: Radius or radii.
    :param attacks: "FGSM", "MIM" or both.
    :param steps: Steps of MIM.
    :param objective: What a :class:`.LossDefendedClassifier` is attacked by: a name that its `objective` takes, "loss"
           for the training loss as in the paper.
    :param batch_size: Samples attacked at once.
    :param seed: Seed of whatever the classifier or its preprocessing draws; the attacks draw nothing.
    :return: The study.
    :raises ValueError: For bad inputs, labels, radii, names or numbers.
    :raises FloatingPointError: When the outputs are not finite.
    :raises AttackError: When an attack crashes, meets a gradient that is not finite, or leaves the ball or the box.
    """
    check_type("classifier", classifier, PyTorchClassifier, "an ART PyTorchClassifier")
    whole("steps", steps)
    whole("batch_size", batch_size)
    for attack in attacks:
        check_name("attack", attack, RANK_ATTACKS)
    if not attacks:
        raise ValueError(f"attacks: expected at least one of {', '.join(RANK_ATTACKS)}, got none.")
    radii = check_radii(eps, clip_values=classifier.clip_values)
    x = check_inputs(x, classifier).astype(np.float32, copy=False)
    if not isinstance(classifier, LossDefendedClassifier):
        objective = "loss"
    fooled_at, ranks = {}, {}
    with seeded(seed):
        target = Target(classifier, x)
        logits, labels = check_logits(target.predict(x, batch_size), y)
    correct = logits.argmax(axis=1) == labels
    for name in dict.fromkeys(attacks):
        fooled_at[name], ranks[name] = np.full(len(x), -1), np.zeros(len(x), int)
        standing = correct
        for i, radius in enumerate(radii):
            settings: dict[str, Any] = {"step_size": radius / steps, "steps": steps, "every_point": False}
            plan = AttackPlan(name, name.lower(), objective, radius, **settings)
            record, _, landed = run_plan(target, x, labels, plan, standing, seed, batch_size)
            fallen = standing & ~record.standing
            fooled_at[name][fallen] = i
            ranks[name][fallen] = landing_ranks(logits[fallen], labels[fallen], landed[fallen]) if fallen.any() else 0
            standing = record.standing
    return RankStudy(tuple(radii), tuple(fooled_at), objective, steps, logits.shape[1], correct, fooled_at, ranks)
