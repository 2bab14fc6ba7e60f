"""
The attacks of the reverse cross-entropy paper, which know the classifier and not the detector.

| Paper link: https://arxiv.org/abs/1706.00633 (Section 4)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier

from art_mmc.state import derived_seed, seeded


@dataclass(frozen=True)
class PaperAttack:
    """An attack with the settings of the paper's released code."""

    title: str  # name in words
    method: str  # name in :data:`.METHODS`
    settings: Mapping[str, Any]  # of :func:`.build_attack`; steps and their length are by radius and budget
    targets: str | None = None  # None, "least_likely" or "random" (any class but the predicted one)
    has_eps: bool = False  # whether it stays in an L-inf ball

    def build(self, classifier: PyTorchClassifier, eps: float, budget: float, batch_size: int) -> EvasionAttack:
        """The attack, by ten steps of a tenth of the radius, or by a share of the paper's iterations."""
        from art_mmc.attacks.build import build_attack  # here, since it brings all attacks along

        settings = {"targeted": self.targets is not None, **self.settings}
        if self.has_eps:
            settings |= {"eps": eps, "steps": 10, "step_size": eps / 10}
        elif "steps" in settings:
            settings["steps"] = scaled(settings["steps"], budget)
        return build_attack(self.method, classifier, batch_size=batch_size, **settings)


#: by FISTA: in as few steps the paper's Adam leaves a third of the images of a network trained by RCE
_CARLINI = {"step_size": 0.01, "steps": 10000, "binary_search_steps": 9, "initial_const": 1.0, "optimizer": "fista"}

PAPER_ATTACKS = {
    "fgsm": PaperAttack("FGSM", "fgsm", {"eps_step": 0.1}, has_eps=True),
    "bim": PaperAttack("BIM", "bim", {}, has_eps=True),
    "ilcm": PaperAttack("ILCM", "bim", {}, "least_likely", has_eps=True),
    # the paper changes one pixel in each of 100 steps, ART two in one step; a changed pixel is full on
    "jsma": PaperAttack("JSMA", "jsma", {"theta": 1.0, "pixels": 100}, "least_likely"),
    "cw": PaperAttack("C&W", "cw-adam", {"confidence": 0.0, **_CARLINI}, "random"),
    "cw-hc": PaperAttack("C&W-hc", "cw-adam", {"confidence": 10.0, **_CARLINI}, "random"),
}


def scaled(iterations: int, budget: float) -> int:
    """A share, in (0, 1], of the paper's iterations, but at least 10."""
    return max(10, round(iterations * budget))


def craft_batch(
    name: str,
    classifier: PyTorchClassifier,
    x: np.ndarray,
    labels: np.ndarray,
    eps: float,
    budget: float,
    objective: str,
    batch_size: int,
    seed: int,
) -> tuple[np.ndarray, dict[str, Any]]:
    """
    Run an attack of :data:`PAPER_ATTACKS` on a batch of inputs (B, C, H, W), no more than the batch size, which depends
    on no other, with classes (B,) to aim at or, for an untargeted attack, to leave. Attacked inputs (B, C, H, W), and
    the attack's settings, plain data.

    `eps` is the radius of FGSM, BIM and ILCM, the steps of the latter two a tenth of it; `budget` the share, in (0, 1],
    of the iterations of the paper's C&W attacks; `objective` what FGSM, BIM and ILCM climb on a classifier of this
    package, the paper's cross-entropy or another one: a classifier of another kind has its training loss climbed.
    """
    row = PAPER_ATTACKS[name]
    attack = row.build(classifier, eps, budget, batch_size)
    aim = getattr(classifier, "using_objective", None)
    with seeded(seed), nullcontext() if aim is None else aim(objective):
        x_adv = attack.generate(x, y=labels)
    settings = plain_settings(attack)
    if row.has_eps:
        settings["objective"] = "loss" if aim is None else objective
    return x_adv, settings


def batch_seed(seed: int, first: int) -> int:
    """Seed of the batch from that sample on: the attack's own for the first one, so that none depends on another."""
    return derived_seed(seed, first) if first else seed


def choose_targets(logits: np.ndarray, rule: str | None, seed: int = 0) -> np.ndarray | None:
    """
    The classes (N,), int64, of a rule, "least_likely" by the logits (N, K) of the clean inputs, or "random" (any class
    but the predicted one); None for None.
    """
    if rule is None:
        return None
    if rule == "least_likely":
        return logits.argmin(axis=1)
    shift = np.random.default_rng(seed).integers(1, logits.shape[1], len(logits))
    return (logits.argmax(axis=1) + shift) % logits.shape[1]


def plain_settings(attack: EvasionAttack) -> dict[str, Any]:
    """An attack's class, and its parameters that are plain data, the progress bar left out."""
    settings: dict[str, Any] = {"class": type(attack).__name__}
    for name in attack.attack_params:
        value = getattr(attack, name, None)
        value = list(value) if isinstance(value, tuple) else value
        if name not in ("verbose", "summary_writer") and isinstance(value, (bool, int, float, str, list)):
            settings[name] = "inf" if value == math.inf else value
    return settings
