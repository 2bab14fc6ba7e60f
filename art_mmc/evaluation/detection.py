"""
What a detector is worth: AUC-ROC by two protocols, and what is left when classifier and detector stand together.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from art_mmc.checks import check_name
from art_mmc.evaluation.codec import DIGITS, FLAGS, Record, array, encode
from art_mmc.evaluation.records import Share

#: which inputs an AUC is over; see :meth:`DetectionRecord.auc`
PROTOCOLS = ("paper", "usual")

#: share of the images that an attack without a ball must fool before its areas are compared
SUCCESS = 0.95

#: draws of a bootstrap
_DRAWS = 1000

_SCORES, _FLAGS = ("clean_scores", "adversarial_scores"), ("clean_correct", "adversarial_correct")


@dataclass(frozen=True)
class AUC(Record):
    """Area under the ROC curve, ties counting one half, with its 95 % bootstrap interval."""

    value: float
    interval: tuple[float, float]
    n_clean: int
    n_adversarial: int


def auc_roc(
    clean: np.ndarray, adversarial: np.ndarray, paired: bool = False, seed: int = 0, draws: int = _DRAWS
) -> AUC | None:
    """
    Area under the ROC curve, mid-ranks for ties, and its bootstrap interval, of scores of clean (N,) and adversarial
    inputs (M,), in pairs where `paired`; None where one is empty, ValueError for what is not finite or paired.
    """
    clean, adversarial = np.asarray(clean, float), np.asarray(adversarial, float)
    for name, scores in (("clean", clean), ("adversarial", adversarial)):
        if scores.ndim != 1 or not np.isfinite(scores).all():
            raise ValueError(f"{name}: expected finite scores of shape (N,), got shape {scores.shape}.")
    if paired and len(clean) != len(adversarial):
        raise ValueError(f"paired scores: expected as many clean as adversarial ones, got {len(clean)} and "
                         f"{len(adversarial)}.")  # fmt: skip
    n, m = len(clean), len(adversarial)
    if not n or not m:
        return None
    scores = np.concatenate([clean, adversarial])
    value = float(roc_auc_score(np.repeat([0, 1], [n, m]), scores))
    # the sorting is done once; a draw then costs a few passes over the counts (scikit-learn's: 50 times as long)
    distinct, index = np.unique(scores, return_inverse=True)
    rng = np.random.default_rng(seed)
    areas = np.empty(draws)
    for i in range(draws):
        of_clean = rng.multinomial(n, np.full(n, 1 / n))
        of_adversarial = of_clean if paired else rng.multinomial(m, np.full(m, 1 / m))
        mass = np.bincount(index[:n], of_clean, len(distinct))
        areas[i] = of_adversarial @ (np.cumsum(mass) - mass / 2)[index[n:]] / (n * m)
    low, high = np.quantile(areas, (0.025, 0.975))
    return AUC(value, (float(low), float(high)), n, m)


@dataclass(frozen=True, eq=False)
class DetectionRecord(Record):
    """One detector of one classifier under one attack, input by input; scores are kept to nine digits."""

    DERIVED = (
        "n",
        "correct_or_detected",
        "correct_and_accepted",
        "detection_rate",
        "measured_false_positive_rate",
        "clean_correct_and_accepted",
    )

    classifier: str
    detector: str
    attack: str
    eps: float | None  # radius of the attack's L-inf ball; None where there is none
    settings: dict[str, Any]  # the attack's; plain data
    seconds: float  # that the attack took
    seed: int  # of the attack and of the bootstrap
    threshold: float  # score above which an input counts as adversarial
    false_positive_rate: float  # for which the threshold was set
    calibrated_on: str  # which clean data it was set on, in words
    clean_scores: np.ndarray = array(DIGITS)  # (N,)
    adversarial_scores: np.ndarray = array(DIGITS)  # of their attacked versions, (N,)
    clean_correct: np.ndarray = array(FLAGS)  # whether they are classified correctly, (N,)
    adversarial_correct: np.ndarray = array(FLAGS)  # whether the attacked ones are, (N,)
    _areas: dict[str, AUC | None] = field(default_factory=dict, init=False, repr=False)  # by protocol, once computed

    def __post_init__(self) -> None:
        arrays = {name: np.asarray(getattr(self, name)) for name in _SCORES + _FLAGS}
        if len({each.shape for each in arrays.values()}) > 1 or arrays["clean_scores"].ndim != 1:
            shapes = ", ".join(f"{name} {each.shape}" for name, each in arrays.items())
            raise ValueError(f"expected four arrays of the same shape (N,), got {shapes}.")
        if not len(arrays["clean_scores"]):
            raise ValueError("a record needs at least one input.")
        for name in _SCORES:  # what a file holds is then exactly what was computed with
            arrays[name] = np.array([float(f"{score:.9g}") for score in arrays[name]])
        for name, each in arrays.items():
            object.__setattr__(self, name, each.astype(bool) if name in _FLAGS else each)

    @property
    def n(self) -> int:
        """Number of inputs, clean or attacked."""
        return len(self.clean_scores)

    @property
    def kept(self) -> np.ndarray:
        """Which inputs the paper's protocol keeps: correct when clean and misclassified after the attack, bool (N,)."""
        return self.clean_correct & ~self.adversarial_correct

    @property
    def fooled(self) -> Share | None:
        """Of the inputs that are classified correctly when clean, those that the attack fooled; None without any."""
        n = int(self.clean_correct.sum())
        return Share(int(self.kept.sum()), n) if n else None

    @property
    def conclusive(self) -> bool:
        """Whether an area says anything: what an attack without a ball leaves it failed on, and the rest was easy."""
        return self.eps is not None or (self.fooled is not None and self.fooled.value >= SUCCESS)

    def auc(self, protocol: str = "paper") -> AUC | None:
        """
        Area under the ROC curve; None where no input is left. By protocol "paper", that of the RCE paper's code: of the
        inputs that are correct when clean and misclassified after the attack, the clean versions against the attacked
        ones, in pairs; "usual": all clean inputs against all attacked ones that are misclassified.
        """
        check_name("protocol", protocol, PROTOCOLS)
        if protocol not in self._areas:
            paired = protocol == "paper"
            clean = self.clean_scores[self.kept] if paired else self.clean_scores
            adversarial = self.adversarial_scores[self.kept if paired else ~self.adversarial_correct]
            self._areas[protocol] = auc_roc(clean, adversarial, paired, self.seed)
        return self._areas[protocol]

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """False- and true-positive rates by the paper's protocol, ascending; empty where no input is left."""
        kept = self.kept
        if not kept.any():
            return np.empty(0), np.empty(0)
        scores = np.concatenate([self.clean_scores[kept], self.adversarial_scores[kept]])
        false_positive, true_positive, _ = roc_curve(np.repeat([0, 1], kept.sum()), scores)
        return false_positive, true_positive

    @property
    def detected(self) -> np.ndarray:
        """Which attacked inputs are called adversarial, bool (N,)."""
        return self.adversarial_scores > self.threshold

    @property
    def correct_or_detected(self) -> Share:
        """The joint figure: attacked inputs classified correctly or detected; the rest went wrong unnoticed."""
        return self._share(self.adversarial_correct | self.detected)

    @property
    def correct_and_accepted(self) -> Share:
        """The stricter one: attacked inputs that are classified correctly and not rejected."""
        return self._share(self.adversarial_correct & ~self.detected)

    @property
    def detection_rate(self) -> Share | None:
        """Of the inputs that the paper's protocol keeps, those whose attacked version is detected; None without any."""
        kept = self.kept
        return Share(int((kept & self.detected).sum()), int(kept.sum())) if kept.any() else None

    @property
    def measured_false_positive_rate(self) -> Share:
        """Clean inputs that are called adversarial."""
        return self._share(self.clean_scores > self.threshold)

    @property
    def clean_correct_and_accepted(self) -> Share:
        """Clean inputs that are classified correctly and not rejected."""
        return self._share(self.clean_correct & (self.clean_scores <= self.threshold))

    def _share(self, mask: np.ndarray) -> Share:
        return Share(int(mask.sum()), self.n)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold, and what follows from it for readers without this package."""
        areas = {protocol: encode(self.auc(protocol)) for protocol in PROTOCOLS}
        return {**super().to_dict(), "n_kept": int(self.kept.sum()), "auc": areas}
