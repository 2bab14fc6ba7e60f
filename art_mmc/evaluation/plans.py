"""
What an evaluation is made of: plans of attacks, as data.

The attacks are ART's own, and the few of this package that ART lacks. They are aimed through a view of the classifier,
which also keeps what ART drops: PGD and its kin return their last point, while every point on the way counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from art.attacks.attack import EvasionAttack

from art_mmc.attacks.build import METHODS as METHODS
from art_mmc.attacks.build import build_attack
from art_mmc.checks import check_name, unknown_name
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.objectives import OBJECTIVES

#: classes that a plan with targets "all" aims at, the likeliest first, as in AutoAttack
MOST_TARGETS = 9


@dataclass(frozen=True)
class AttackPlan:
    """
    One attack at one radius.

    :param name: Name in tables.
    :param method: Name in :data:`METHODS`.
    :param objective: What it climbs: "loss", "adaptive" or a name in :data:`.OBJECTIVES`; None where it follows the
           logits themselves (C&W, EAD, DeepFool, JSMA, Square) or climbs nothing.
    :param eps: Radius of the ball; 0 for a method without one.
    :param norm: Norm of the ball, infinity or 2.
    :param steps: Number of steps, or of queries for Square.
    :param step_size: Length of a step; several for restarts that differ, taken in turn.
    :param restarts: Number of starts. Samples that have fallen leave.
    :param targets: None for untargeted; "random" for one other class a sample, "least_likely" for the class with the
           smallest logit, "all" for up to nine other classes in turn, the likeliest first.
    :param labels: Whose labels the attack is given: "true" ones; "predicted" ones as in the MMC paper's code, where
           a misclassified sample may be pushed onto the right class.
    :param samples: Attack at most so many samples; None for all. The first ones of those that are attacked: that are
           classified correctly when clean, or, with labels "predicted", of all.
    :param round: Number of the round that it is part of, from 1, in a suite that goes on until a round finds little; 0
           for what runs in any case.
    :param independent: Whether it attacks all that were classified correctly when clean, which figures to compare need;
           else only what still stands, which is faster and gives the same worst case.
    :param transfer: Whether it crafts on the substitutes and not on the classifier: a black-box attack.
    :param every_point: Whether each point on the way counts; if not only the last one does, as in the papers. Of effect
           for PGD and its kin, which ART has return their last point.
    :param options: More arguments of the attack, by ART's names; for JSMA "pixels", a number, in the place of "gamma".
    """

    name: str
    method: str
    objective: str | None = None
    eps: float = 0.0
    norm: float = math.inf
    steps: int = 1
    step_size: float | tuple[float, ...] = 0.0
    restarts: int = 1
    targets: str | None = None
    labels: str = "true"
    samples: int | None = None
    round: int = 0
    independent: bool = True
    transfer: bool = False
    every_point: bool = True
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        check_name("attack method", self.method, METHODS)
        if self.objective not in (None, "adaptive", "loss", *OBJECTIVES):
            raise unknown_name("objective", self.objective, ("adaptive", "loss", *OBJECTIVES))
        if self.targets not in (None, "random", "least_likely", "all"):
            raise unknown_name("targets", self.targets, ("random", "least_likely", "all"))
        check_name("labels", self.labels, ("true", "predicted"))
        if self.norm not in (2, math.inf):
            raise ValueError(f"norm: expected 2 or infinity, got {self.norm!r}.")
        if self.bounded and not 0 < self.eps < math.inf:
            raise ValueError(f"attack '{self.name}' needs an eps above 0, got {self.eps!r}.")
        if min(self.restarts, self.steps, 1 if self.samples is None else self.samples) < 1 or not self.step_sizes:
            raise ValueError(f"attack '{self.name}': steps, step sizes, restarts and samples are at least 1.")
        aims = METHODS[self.method].aims
        if aims is not None and aims != (self.targets is not None):
            raise ValueError(
                f"attack '{self.name}': {self.method} "
                + ("always aims at a class: targets is needed." if aims else "aims at no class: targets must be None.")
            )
        if self.transfer and not METHODS[self.method].white_box:
            raise ValueError(f"attack '{self.name}': {self.method} takes no gradients and needs no substitute.")
        if self.method == "spsa" and self.objective == "loss":
            raise ValueError(f"attack '{self.name}': SPSA climbs a function of the logits, e.g. 'margin'.")

    @property
    def bounded(self) -> bool:
        """Whether the attack keeps to the ball."""
        return METHODS[self.method].bounded

    @property
    def black_box(self) -> bool:
        """Whether it takes no gradients of the classifier."""
        return self.transfer or not METHODS[self.method].white_box

    @property
    def watched(self) -> bool:
        """Whether each point at which it asks for a gradient counts."""
        return METHODS[self.method].watched and self.every_point and not self.transfer

    @property
    def step_sizes(self) -> tuple[float, ...]:
        """The steps of the restarts, in turn."""
        return self.step_size if isinstance(self.step_size, tuple) else (self.step_size,)

    @property
    def packs(self) -> bool:
        """Whether the attack goes through restarts and "all" targets by itself, without what it has broken."""
        return METHODS[self.method].packs

    def build(self, view: LossDefendedClassifier, restart: int, batch: int, seed: int) -> EvasionAttack:
        """
        :param view: The classifier, aimed at the objective.
        :param restart: Number of the restart, from 0.
        :param batch: Inputs in one pass at most.
        :param seed: Seed, for attacks that take one; the others draw from the global states.
        :return: The attack; its own random starts are one.
        """
        step = self.step_sizes[restart % len(self.step_sizes)]
        every = self.packs and self.targets == "all"
        return build_attack(
            self.method,
            view,
            eps=self.eps,
            norm=self.norm,
            steps=self.steps,
            step_size=step,
            targeted=self.targets is not None and not every,
            restarts=self.restarts,
            targets=MOST_TARGETS if every else 0,
            batch_size=batch,
            seed=seed,
            **self.options,
        )

    def __repr__(self) -> str:
        """Return all that decides the outcome."""
        shown = {**vars(self), "options": dict(self.options)}
        return f"AttackPlan({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
