"""
What an evaluation is made of: plans of attacks, as data, and how ART builds each.

The attacks are ART's own, and the few of this package that ART lacks. They are aimed through a view of the classifier,
which also keeps what ART drops: PGD and its kin return their last point, while every point on the way counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from art.attacks import evasion
from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier

from art_mmc.attacks import SPSA, CarliniL2, GaussianNoise, RandomRotation
from art_mmc.checks import unknown_name
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.objectives import OBJECTIVES


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
    independent: bool = True
    transfer: bool = False
    every_point: bool = True
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("attack method", self.method, METHODS)
        if self.objective not in (None, "adaptive", "loss", *OBJECTIVES):
            raise unknown_name("objective", self.objective, ("adaptive", "loss", *OBJECTIVES))
        if self.targets not in (None, "random", "least_likely", "all"):
            raise unknown_name("targets", self.targets, ("random", "least_likely", "all"))
        if self.labels not in ("true", "predicted"):
            raise unknown_name("labels", self.labels, ("true", "predicted"))
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

    def build(self, view: LossDefendedClassifier, restart: int, batch: int, seed: int) -> EvasionAttack:
        """
        :param view: The classifier, aimed at the objective.
        :param restart: Number of the restart, from 0.
        :param batch: Inputs in one pass at most.
        :param seed: Seed, for attacks that take one; the others draw from the global states.
        :return: The attack; its own random starts are one.
        """
        step = self.step_sizes[restart % len(self.step_sizes)]
        return METHODS[self.method].build(self, view, step, batch, seed)

    def __repr__(self) -> str:
        """Return all that decides the outcome."""
        shown = {**vars(self), "options": dict(self.options)}
        return f"AttackPlan({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


Build = Callable[[AttackPlan, Any, float, int, int], EvasionAttack]


@dataclass(frozen=True)
class Method:
    """
    How ART builds an attack.

    :param build: (plan, view, step size, batch size, seed) -> attack.
    :param bounded: Whether it keeps to a ball.
    :param watched: Whether each point at which it asks for a gradient is in the ball and may count.
    :param white_box: Whether it takes gradients.
    :param aims: Whether it aims at a class: True for always, False for never, None for as the plan says.
    """

    build: Build
    bounded: bool = True
    watched: bool = False
    white_box: bool = True
    aims: bool | None = None


def _fgsm(plan: AttackPlan, view: LossDefendedClassifier, step: float, batch: int, seed: int) -> EvasionAttack:
    return evasion.FastGradientMethod(
        view,
        norm=plan.norm,
        eps=plan.eps,
        eps_step=plan.eps,
        targeted=plan.targets is not None,
        batch_size=batch,
        **plan.options,
    )


def _iterative(cls: type[EvasionAttack], **settings: Any) -> Build:
    def build(plan: AttackPlan, view: LossDefendedClassifier, step: float, batch: int, seed: int) -> EvasionAttack:
        return cls(  # type: ignore[call-arg]
            view,
            norm=plan.norm,
            eps=plan.eps,
            eps_step=step,
            max_iter=plan.steps,
            targeted=plan.targets is not None,
            batch_size=batch,
            verbose=False,
            **settings,
            **plan.options,
        )

    return build


def _square(plan: AttackPlan, view: LossDefendedClassifier, step: float, batch: int, seed: int) -> EvasionAttack:
    if view.clip_values is None:  # ART's Square clips without asking
        view.set_params(clip_values=(-np.inf, np.inf))
    height, width = view.input_shape[1:] if view.channels_first else view.input_shape[:2]
    # ART's first windows are of this share of the image, and must be smaller than its shorter side
    share = min(0.8, (min(height, width) - 1) ** 2 / (height * width))
    return evasion.SquareAttack(
        view,
        norm=plan.norm,
        eps=plan.eps,
        max_iter=plan.steps,
        nb_restarts=1,
        batch_size=batch,
        verbose=False,
        **{"p_init": share, **plan.options},
    )


def _spsa(plan: AttackPlan, view: LossDefendedClassifier, step: float, batch: int, seed: int) -> EvasionAttack:
    return SPSA(
        view,
        norm=plan.norm,
        eps=plan.eps,
        max_iter=plan.steps,
        learning_rate=step,
        objective=view.objective,
        targeted=plan.targets is not None,
        batch_size=batch,
        max_queries_per_forward=batch,
        seed=seed,
        verbose=False,
        **plan.options,
    )


def _minimal(cls: type[EvasionAttack], **settings: Any) -> Build:
    """An attack that looks for the smallest perturbation, by steps of a learning rate."""

    def build(plan: AttackPlan, view: LossDefendedClassifier, step: float, batch: int, seed: int) -> EvasionAttack:
        return cls(  # type: ignore[call-arg]
            view,
            learning_rate=step,
            max_iter=plan.steps,
            targeted=plan.targets is not None,
            batch_size=batch,
            verbose=False,
            **{**settings, **plan.options},
        )

    return build


def _deepfool(plan: AttackPlan, view: LossDefendedClassifier, step: float, batch: int, seed: int) -> EvasionAttack:
    # the default is nb_grads=10, the ten likeliest classes
    return evasion.DeepFool(view, max_iter=plan.steps, batch_size=batch, verbose=False, **plan.options)


def _saliency(plan: AttackPlan, view: PyTorchClassifier, step: float, batch: int, seed: int) -> EvasionAttack:
    options = dict(plan.options)
    if "pixels" in options:  # ART goes on, two at a time, while their share is up to gamma
        options["gamma"] = min(1.0, (options.pop("pixels") - 0.01) / math.prod(view.input_shape))
    return evasion.SaliencyMapMethod(view, batch_size=batch, verbose=False, **options)


def _trials(cls: type[EvasionAttack]) -> Build:
    def build(plan: AttackPlan, view: LossDefendedClassifier, step: float, batch: int, seed: int) -> EvasionAttack:
        return cls(view, batch_size=batch, seed=seed, verbose=False, **plan.options)  # type: ignore[call-arg]

    return build


#: name -> how it is built. APGD: with ART's loss_type None it climbs the view's objective; with a name ART would
#: rebuild the classifier and drop the view. BIM is PGD from the input itself, in either norm. "ead" is ART's ElasticNet
#: with beta 0, which is the L2 attack of Carlini and Wagner but for its steps, for inputs in a box; "cw-adam" has the
#: steps of their code too. ART's own of that name, "cw", goes along a gradient that vanishes where a pixel is black or
#: white, and hardly moves on MNIST.
METHODS: dict[str, Method] = {
    "fgsm": Method(_fgsm),
    "pgd": Method(_iterative(evasion.ProjectedGradientDescent, num_random_init=1), watched=True),
    "bim": Method(_iterative(evasion.ProjectedGradientDescent, num_random_init=0), watched=True),
    "mim": Method(_iterative(evasion.MomentumIterativeMethod), watched=True),
    "apgd": Method(_iterative(evasion.AutoProjectedGradientDescent, nb_random_init=1), watched=True),
    "square": Method(_square, white_box=False, aims=False),
    "spsa": Method(_spsa, white_box=False),
    "cw": Method(_minimal(evasion.CarliniL2Method), bounded=False),
    "cw-adam": Method(_minimal(CarliniL2), bounded=False),
    "ead": Method(_minimal(evasion.ElasticNet, beta=0.0, decision_rule="L2"), bounded=False),
    "deepfool": Method(_deepfool, bounded=False, aims=False),
    "jsma": Method(_saliency, bounded=False, aims=True),
    "noise": Method(_trials(GaussianNoise), bounded=False, white_box=False, aims=False),
    "rotation": Method(_trials(RandomRotation), bounded=False, white_box=False, aims=False),
}
