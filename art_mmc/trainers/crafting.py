"""
How a training step makes its adversarial examples: one small class a strategy.

A strategy works on tensors that are on the device, takes its randomness from the trainer, and leaves the network as it
found it: modes, flags, gradients and batch statistics.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from art_mmc.attacks.white_box import Ball, per_sample
from art_mmc.checks import check_default_eps, check_eps, check_name, choice, number, whole
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.classifiers.fitting import class_weights, reduced, weighted_loss
from art_mmc.objectives import OBJECTIVES

Draw = Callable[[torch.Size], Tensor]
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CraftingContext:
    """What a strategy may know of the training around it."""

    draw: Draw  # numbers in [0, 1) of a shape (B, ...), B being the samples to craft, from the trainer's generator
    epoch: float = 0.0  # epochs finished, as a fraction inside an epoch
    scale: float = 1.0  # factor on eps, in [0, 1], for its warm-up


class Crafting(ABC):
    """
    A strategy of adversarial training: how to craft, and which loss to train on.

    Radii and steps are in the unit of the inputs; the defaults are for inputs in [0, 1], and refused for others. A
    strategy of your own is a dataclass, whose fields of these names :meth:`check` looks at and :meth:`scaled` scales.
    """

    norm: float = math.inf

    def check(self, clip_values: Any) -> None:
        """
        :param clip_values: The box of the inputs, numbers or arrays; None for none.
        :raises ValueError: When a radius is wider than the box, or a default for inputs in [0, 1] in another box.
        """
        for name in ("eps", "eps_max"):
            value = getattr(self, name, None)
            if value is not None:
                check_default_eps(value, getattr(type(self), name, None), clip_values, name)
                check_eps(value, name, clip_values if self.norm == math.inf else None)

    def scaled(self, width: float) -> "Crafting":
        """
        :param width: Width of the box of the inputs.
        :return: The same for inputs in such a box, its radii and steps having been meant for inputs in [0, 1].
        """
        given = {name: getattr(self, name, None) for name in ("eps", "eps_min", "eps_max", "step_size")}
        changed = {name: width * value for name, value in given.items() if value is not None}
        return replace(self, **changed) if changed else self  # type: ignore[type-var]

    @abstractmethod
    def craft(self, classifier: LossDefendedClassifier, x: Tensor, y: Tensor, context: CraftingContext) -> Tensor:
        """
        :param classifier: The classifier under training.
        :param x: Inputs (B, ...).
        :param y: Labels (B,), int64.
        :param context: Randomness and progress.
        :return: Adversarial inputs (B, ...), in the ball and in the box.
        """

    def training_loss(
        self,
        forward: Forward,
        loss: torch.nn.Module,
        x: Tensor,
        y: Tensor,
        x_adv: Tensor,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        :param forward: The network in training mode, inputs (B, ...) -> logits (B, K).
        :param loss: The defence's loss.
        :param x: Inputs (B, ...).
        :param y: Labels (B,) or (B, K).
        :param x_adv: What :meth:`craft` made of them, or of a share of them.
        :param weights: The samples' weights (B,), or None; handed over only where there are any.
        :return: The loss, a scalar, and the logits (B, K) by which the accuracy is counted.
        """
        logits = forward(x_adv)
        return weighted_loss(loss, logits, y, weights), logits


@dataclass(frozen=True)
class PGD(Crafting):
    """
    Projected gradient descent.

    | Paper link: https://arxiv.org/abs/1706.06083
    | Paper link: https://arxiv.org/abs/2010.00467 (batch normalisation while crafting, early stop of the attack)

    :param eps: Radius of the ball, in the unit of the inputs.
    :param eps_min: Where given, each sample's radius is uniform in [eps_min, eps], its steps in proportion.
    :param steps: Number of gradient steps, at least 1.
    :param step_size: Length of a step; None for eps / 4 (2 / 255 at 8 / 255).
    :param norm: The ball's norm, infinity or 2.
    :param random_start: Whether to start from a uniform point of the ball instead of the input.
    :param objective: What to climb: "loss", "adaptive", or any of :data:`art_mmc.objectives.OBJECTIVES`.
    :param targeted: None, or the class to aim at: "random" (uniform over the other classes) or "least_likely".
    :param batch_norm: "eval" crafts with the running averages, "train" with batch statistics; neither moves them.
    :param tolerance: Early stop of the attack: how many more steps a sample gets once it is misclassified; None for
           all.
    :param tolerance_epochs: Epochs after which the tolerance grows by one.
    """

    eps: float = 8 / 255
    steps: int = 10
    step_size: float | None = None
    norm: float = math.inf
    eps_min: float | None = None
    random_start: bool = True
    objective: str = "loss"
    targeted: str | None = None
    batch_norm: str = "eval"
    tolerance: int | None = None
    tolerance_epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_eps(self.eps, clip_values=None)
        if self.eps_min is not None:
            number("eps_min", self.eps_min, 0.0, self.eps, "[]")
        whole("steps", self.steps)
        if self.step_size is not None:
            number("step_size", self.step_size)
        if self.norm not in (2, math.inf):
            raise ValueError(f"norm: expected 2 or infinity, got {self.norm!r}.")
        check_name("objective", self.objective, ("loss", "adaptive", *OBJECTIVES))
        for epochs in (*self.tolerance_epochs, *([] if self.tolerance is None else [self.tolerance])):
            whole("tolerance", epochs, least=0)
        choice("targeted", self.targeted, (None, "random", "least_likely"))
        choice("batch_norm", self.batch_norm, ("eval", "train"))

    def craft(self, classifier: LossDefendedClassifier, x: Tensor, y: Tensor, context: CraftingContext) -> Tensor:
        with classifier.crafting(training_mode=self.batch_norm == "train"):
            target, sign = self._target(classifier, x, y, context)
            scale: Any = context.scale
            if self.eps_min is not None:
                radius = self.eps_min + (self.eps - self.eps_min) * context.draw(x.shape[:1])
                scale = scale * per_sample(radius / self.eps, x)
            eps = self.eps * scale
            step = (self.eps / 4 if self.step_size is None else self.step_size) * scale * sign
            left = None
            start = self._start(classifier, x, eps, context) if self.random_start else x
            if self.tolerance is not None:
                grown = sum(context.epoch >= epoch for epoch in self.tolerance_epochs)
                left = torch.full_like(y, self.tolerance + grown)
            values = partial(classifier.attack_values, y=target, name=self.objective)
            return climb(classifier, x, y, start, values, eps, step, self.steps, self.norm, left)

    def _target(
        self, classifier: LossDefendedClassifier, x: Tensor, y: Tensor, context: CraftingContext
    ) -> tuple[Tensor, int]:
        """The label in the objective and the direction: up for the true class, down for a target."""
        if self.targeted is None:
            return y, 1
        if self.targeted == "random":
            others = (context.draw(y.shape) * (classifier.nb_classes - 1)).long()
            return others + (others >= y), -1
        with torch.no_grad():
            logits = classifier.forward(x)
        return logits.scatter(1, y[:, None], torch.inf).argmin(dim=1), -1

    def _start(self, classifier: LossDefendedClassifier, x: Tensor, eps: Any, context: CraftingContext) -> Tensor:
        """A uniform point of the ball (2-norm: at a uniform radius, towards one of the cube), in the box."""
        noise, ball = 2 * context.draw(x.shape) - 1, Ball.inside(classifier.clip_values, x, self.norm)
        if self.norm == 2:
            radius = per_sample(context.draw(x.shape[:1]), x)
            noise = ball.direction(noise) * radius
        return ball.project(x + eps * noise, x, eps)


def climb(
    classifier: LossDefendedClassifier,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    values: Callable[[Tensor], Tensor],
    eps: Any,
    step: Any,
    steps: int,
    norm: float = math.inf,
    left: Tensor | None = None,
) -> Tensor:
    """
    Gradient steps, by numbers or (B, 1, ...), that make `values` (of logits (B, K), one a sample) larger in the ball
    and the box; `left` (B,) says how many more a sample gets once it is misclassified.
    """
    x_adv, ball = start, Ball.inside(classifier.clip_values, x, norm)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        logits = classifier.forward(x_adv)
        (grad,) = torch.autograd.grad(values(logits).sum(), x_adv)
        with torch.no_grad():
            moved = ball.project(x_adv + step * ball.direction(grad), x, eps)
            if left is not None:
                left = left - (logits.argmax(dim=1) != y).to(left.dtype)
                moved = torch.where(per_sample(left >= 0, x), moved, x_adv)
            x_adv = moved
    return x_adv.detach()


@dataclass(frozen=True)
class FGSM(Crafting):
    """
    One gradient step of a random length for each sample, as the PC paper trains on grey images.

    | Paper link: https://arxiv.org/abs/1412.6572
    | Paper link: https://arxiv.org/abs/2012.07688 (Table 5: eps in [0.1, 0.3], sampling not stated; uniform here)

    :param eps: Smallest step, in the unit of the inputs.
    :param eps_max: Largest step; None for always `eps`.
    :param objective: What to climb; see :class:`PGD`.
    """

    eps: float = 0.1
    eps_max: float | None = 0.3
    objective: str = "loss"

    def __post_init__(self) -> None:
        check_eps(self.eps, clip_values=None)
        if self.eps_max is not None and check_eps(self.eps_max, "eps_max", None) < self.eps:
            default = " (the default, for inputs in [0, 1])" if self.eps_max == FGSM.eps_max else ""
            raise ValueError(
                f"eps_max={self.eps_max}{default} is below eps={self.eps}: give it in the same unit, or None for "
                "always eps."
            )
        self._pgd()

    def _pgd(self) -> PGD:
        far = self.eps if self.eps_max is None else self.eps_max
        return PGD(far, 1, step_size=far, eps_min=self.eps, random_start=False, objective=self.objective)

    def craft(self, classifier: LossDefendedClassifier, x: Tensor, y: Tensor, context: CraftingContext) -> Tensor:
        return self._pgd().craft(classifier, x, y, context)


@dataclass(frozen=True)
class FastFGSM(Crafting):
    """
    One long step from a random start (FGSM-RS). Cheap, and known for catastrophic overfitting, for which the trainer
    watches.

    | Paper link: https://arxiv.org/abs/2001.03994

    :param eps: Radius of the ball, in the unit of the inputs.
    :param step_size: Length of the step; None for 1.25 eps.
    :param objective: What to climb; see :class:`PGD`.
    """

    eps: float = 8 / 255
    step_size: float | None = None
    objective: str = "loss"

    def __post_init__(self) -> None:
        self._pgd()

    def _pgd(self) -> PGD:
        step = 1.25 * self.eps if self.step_size is None else self.step_size
        return PGD(self.eps, steps=1, step_size=step, objective=self.objective)

    def craft(self, classifier: LossDefendedClassifier, x: Tensor, y: Tensor, context: CraftingContext) -> Tensor:
        return self._pgd().craft(classifier, x, y, context)


@dataclass(frozen=True)
class TRADES(Crafting):
    """
    Trade-off between the loss on clean inputs and the divergence between clean and adversarial predictions:
    `loss(x, y) + beta KL(f(x) || f(x'))`, x' climbing the divergence. The loss on clean inputs is the defence's own.

    | Paper link: https://arxiv.org/abs/1901.08573 (Algorithm 1)

    :param eps: Radius of the L-inf ball, in the unit of the inputs.
    :param steps: Number of gradient steps, at least 1.
    :param step_size: Length of a step; None for eps / 4.
    :param beta: Weight of the divergence (1 / lambda in the paper).
    :param start: Standard deviation of the Gaussian start around the input, as in the released code, as a share of the
           width of the inputs' box.
    """

    eps: float = 8 / 255
    steps: int = 10
    step_size: float | None = None
    beta: float = 6.0
    start: float = 0.001

    def __post_init__(self) -> None:
        PGD(self.eps, self.steps, self.step_size)  # which checks them
        number("beta", self.beta, ends="[)")
        number("start", self.start, ends="[)")

    def craft(self, classifier: LossDefendedClassifier, x: Tensor, y: Tensor, context: CraftingContext) -> Tensor:
        eps = self.eps * context.scale
        step = (self.eps / 4 if self.step_size is None else self.step_size) * context.scale
        low, high = classifier.bounds(x)
        with classifier.crafting():
            with torch.no_grad():
                clean = torch.log_softmax(classifier.forward(x), dim=1)
            # a uniform number of the same spread stands for the Gaussian, which the trainer's source does not draw
            width = 1.0 if low is None else high - low
            start = x + self.start * width * math.sqrt(12) * (context.draw(x.shape) - 0.5)
            start = Ball.inside(classifier.clip_values, x).project(start, x, eps)
            return climb(classifier, x, y, start, partial(self._divergence, clean), eps, step, self.steps)

    @staticmethod
    def _divergence(log_clean: Tensor, logits: Tensor) -> Tensor:
        """KL(clean || adversarial) of the softmax outputs, (B,)."""
        log_adv = torch.log_softmax(logits, dim=1)
        return functional.kl_div(log_adv, log_clean, reduction="none", log_target=True).sum(dim=1)

    def training_loss(
        self,
        forward: Forward,
        loss: torch.nn.Module,
        x: Tensor,
        y: Tensor,
        x_adv: Tensor,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        logits = forward(x)
        # before the next forward pass: the center loss reads what came with the logits
        clean_loss = weighted_loss(loss, logits, y, weights)
        adversarial = forward(x_adv)
        divergence = self._divergence(torch.log_softmax(logits, dim=1), adversarial)
        for each in (weights, class_weights(loss, y)):  # a sample counts as much in it as in the loss
            divergence = divergence if each is None else divergence * each
        return clean_loss + self.beta * reduced(loss, divergence, y), adversarial


@dataclass(frozen=True)
class ARTAttack(Crafting):
    """
    Any ART evasion attack as the crafting attack; the batch goes to numpy and back.

    :param attack: The attack, built on the classifier under training. Built on another one, it crafts transferred
           examples.
    """

    attack: Any

    def craft(self, classifier: LossDefendedClassifier, x: Tensor, y: Tensor, context: CraftingContext) -> Tensor:
        if len(x) == 0:  # a process without a part of a small batch; ART has no result for nothing
            return x
        with classifier.crafting(), torch.enable_grad():
            x_adv = self.attack.generate(x.cpu().numpy(), y=None if self.attack.targeted else y.cpu().numpy())
        return torch.from_numpy(np.ascontiguousarray(x_adv, dtype=np.float32)).to(x.device)


#: name on the command line -> strategy
CRAFTINGS: dict[str, type[Crafting]] = {"pgd": PGD, "fgsm": FGSM, "fast": FastFGSM, "trades": TRADES}


def make_crafting(attack: str | Crafting | Any, **options: Any) -> Crafting:
    """
    :param attack: Name of a strategy ("pgd", "fgsm", "fast", "trades"), a strategy, or an ART evasion attack.
    :param options: Options of the strategy, by name.
    :return: The strategy.
    :raises ValueError: For an unknown name or option.
    """
    if isinstance(attack, Crafting):
        return replace(attack, **options) if options else attack  # type: ignore[type-var]
    if not isinstance(attack, str):
        return ARTAttack(attack)
    kind = CRAFTINGS[check_name("training attack", attack, CRAFTINGS)]
    for name in options:
        check_name(f"option of training attack '{attack}':", name, kind.__dataclass_fields__)  # type: ignore
    return kind(**options)
