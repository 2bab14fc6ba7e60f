"""
What the white-box attacks of this package share: the network on tensors, labels and targets, restarts, batches that are
packed again, balls and boxes.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from art.config import ART_NUMPY_DTYPE
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from tqdm.auto import tqdm

from art_mmc.attacks.base import BaseAttack
from art_mmc.checks import ROUNDING, check_name, switch, whole
from art_mmc.objectives import OBJECTIVES, margin

logger = logging.getLogger(__name__)

#: values to be maximised (B,), their gradients (B, ...), whether the point is an example, bool (B,), and by how much
#: the logits say so (B,)
Answer = tuple[Tensor, Tensor, Tensor, Tensor]

#: points (B, ...) and their numbers in the whole (B,), and what else the objective takes by name
Question = Callable[..., Answer]


class Network:
    """The network of any ART `PyTorchClassifier` on tensors, after its preprocessing; nothing of it changes."""

    def __init__(self, classifier: PyTorchClassifier) -> None:
        # an attack that is only named brings no classifiers along
        from art_mmc.classifiers import LossDefendedClassifier
        from art_mmc.classifiers.accelerate import share_network

        view = classifier if isinstance(classifier, LossDefendedClassifier) else share_network(classifier)
        self.view = view._without_probabilities()
        #: whether a gradient was NaN or infinite, bool (); looked at seldom, so that nobody waits for the device
        self.broken = torch.zeros((), dtype=torch.bool, device=self.view.device)
        self.device, self.crafting = self.view.device, self.view.crafting

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        points: Any = x if self.view.all_framework_preprocessing else x.cpu().numpy()
        leaf, inputs, _ = self.view._differentiable_input(points)
        logits = self.view.forward(inputs).float()
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                "This attack has not yet been tested for binary classification with a single output classifier: "
                f"expected logits (N, K) with K >= 2, got shape {tuple(logits.shape)}."
            )
        return leaf, logits

    def _back(self, x: Tensor, gradients: Tensor) -> Tensor:
        """Gradients with respect to x, (B, ...), from those with respect to what the network got."""
        if not self.view.all_framework_preprocessing:
            gradients = torch.as_tensor(self.view._numpy_gradient(x.cpu().numpy(), gradients)).to(x)
        self.broken |= ~torch.isfinite(gradients).all()
        return gradients

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, ...), without a graph."""
        with torch.no_grad():
            return self._run(x)[1]

    def gradients(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K) of x (B, ...), the values (B,) of a function of them, and their gradients by x, (B, ...)."""
        leaf, logits = self._run(x)
        values = function(logits)
        (gradients,) = torch.autograd.grad(values.sum(), leaf)
        return logits.detach(), values.detach(), self._back(x, gradients)

    def class_gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of inputs (B, ...) and their gradients with respect to x, (B, K, ...)."""
        leaf, logits = self._run(x)
        parts = self.view._jacobian(logits.sum(dim=0), leaf).unbind(dim=1)
        return logits.detach(), torch.stack([self._back(x, each) for each in parts], dim=1)


@dataclass(frozen=True)
class Ball:
    """A ball about the inputs, of the norm infinity or 2, cut off by the box, whose bounds broadcast."""

    norm: float
    low: Tensor
    high: Tensor

    @classmethod
    def inside(cls, box: Any, x: Tensor, norm: float = math.inf) -> "Ball":
        """The ball in a box, two numbers, arrays or tensors, None for no box; nobody waits for the device of x."""
        low, high = (-math.inf, math.inf) if box is None else box
        return cls(norm, *(torch.as_tensor(bound).to(x, non_blocking=True) for bound in (low, high)))

    def boxed(self, x: Tensor) -> Tensor:
        """The nearest points of the box."""
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def length(self, delta: Tensor) -> Tensor:
        """The ball's norms of perturbations (B, ...), in a shape that broadcasts against them."""
        return per_sample(torch.linalg.vector_norm(delta.flatten(1), self.norm, dim=1), delta)

    def project(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        """Of points x_adv (B, ...) the nearest of the ball of radius eps about x, then of the box, where x lies."""
        delta = x_adv - x
        if self.norm == math.inf:
            return self.boxed(x + delta.clamp(-eps, eps))
        return self.boxed(x + delta * (eps / self.length(delta).clamp_min(1e-30)).clamp(max=1))

    def direction(self, gradients: Tensor) -> Tensor:
        """The steps of length 1 that go up most, by gradients (B, ...); 0 where the gradient is."""
        if self.norm == math.inf:
            return gradients.sign()
        largest = per_sample(gradients.flatten(1).abs().amax(dim=1), gradients)  # squares of small numbers would be 0
        gradients = gradients / torch.where(largest > 0, largest, torch.ones_like(largest))
        return gradients / self.length(gradients).clamp_min(1)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Values (B,) in a shape that broadcasts against a batch (B, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


class Found:
    """The best point of each sample so far: an example before any other, then the first one, or that of most value."""

    def __init__(self, start: Tensor, early_stop: bool) -> None:
        self.points, self.early_stop = start.clone(), early_stop
        self.hit = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        self.values = torch.full_like(start.flatten(1)[:, 0], -torch.inf)

    def see(self, rows: Tensor, points: Tensor, hit: Tensor, values: Tensor) -> None:
        """Look at points (M, ...) of samples `rows` (M,): whether each is an example, and what it is worth, (M,)."""
        before = self.hit[rows]
        better = (hit & ~before) | ((hit == before) & (values > self.values[rows]))
        if self.early_stop:
            better &= ~before
        self.points[rows] = torch.where(per_sample(better, points), points, self.points[rows])
        self.values[rows] = torch.where(better, values, self.values[rows])
        self.hit[rows] |= hit


class Batch(NamedTuple):
    """What is attacked together."""

    ball: Ball
    x: Tensor  # inputs (B, ...), float32
    y: Tensor  # the classes to be left, or for a targeted attack to be reached, (B,)
    targets: Tensor | None  # other ones to aim at, (B,); None for none in particular
    directions: Tensor  # random perturbations of length 1
    start: int  # which time it is, from 0
    values: Tensor  # what the images' best points so far are worth, minus infinity for none, (B,)


class WhiteBoxAttack(BaseAttack):
    """
    Base of attacks by gradients on tensors. Each image has a random stream of its own, by the seed and its place in x:
    what is found for it does not depend on the others, nor, but for rounding, on the batch size.
    """

    _estimator_requirements = (PyTorchClassifier,)

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """
        Generate adversarial samples and return them in an array.

        :param x: Inputs (N, ...), in the box of the classifier's clip values.
        :param y: Classes, as indices (N,) or one-hot (N, K): the true ones, or for a targeted attack those to be
               reached. None for the classifier's own predictions.
        :param kwargs: No effect, but a `mask` is refused.
        :return: Adversarial samples of the shape of x, float32. An image that is misclassified as it is stays.
        :raises ValueError: For a targeted attack without `y`, or inputs or labels that do not fit.
        :raises FloatingPointError: When a logit or a gradient is NaN or infinite.
        """
        x, y = self._checked(x, y, kwargs)
        seed = self._drawn_seed()
        x_adv = np.array(x, dtype=ART_NUMPY_DTYPE)
        network = Network(self.estimator)
        name = type(self).__name__
        with network.crafting(), torch.enable_grad():
            parts = [
                network.logits(torch.tensor(x_adv[first : first + self.batch_size], device=network.device)).cpu()
                for first in range(0, len(x), self.batch_size)
            ]
            logits = torch.cat(parts)
            if not torch.isfinite(logits).all():
                raise FloatingPointError(
                    f"{name}: the network's logits are NaN or infinite; no attack is judged by them."
                )
            labels = logits.argmax(dim=1) if y is None else torch.from_numpy(y)
            best = Found(torch.from_numpy(x_adv), self.early_stop)
            best.hit = (logits.argmax(dim=1) == labels) == self.targeted
            best.values[best.hit] = torch.inf
            others = logits.scatter(1, labels[:, None], -torch.inf)
            targets = others.topk(min(self.nb_targets, logits.shape[1] - 1), dim=1).indices
            rounds = [(start, aim) for start in range(self.nb_restarts) for aim in range(max(1, targets.shape[1]))]
            for start, aim in tqdm(rounds, desc=f"{name} - rounds", disable=not self.verbose):
                left = np.flatnonzero(~best.hit if self.early_stop else best.values < torch.inf)
                for first in range(0, len(left), self.batch_size):
                    index = left[first : first + self.batch_size]
                    clean = torch.tensor(x[index], dtype=torch.float32, device=network.device)
                    noise = [self._noise(x.shape[1:], [seed, int(i), start, aim]) for i in index]
                    batch = Batch(
                        self._ball(clean),
                        clean,
                        labels[index].to(clean.device),
                        targets[index, aim].to(clean.device) if targets.shape[1] else None,
                        torch.tensor(np.stack(noise), device=clean.device),
                        start,
                        best.values[index].to(clean.device),
                    )
                    found, hit, worth = self._attack(network, batch)
                    if network.broken:
                        raise FloatingPointError(
                            f"{name}: a gradient is NaN or infinite: an attack along it goes nowhere."
                        )
                    best.see(torch.from_numpy(index), found.cpu(), hit.cpu(), worth.cpu())
        logger.info("Success rate of %s attack: %.2f%%", name, 100 * best.hit.float().mean())
        return best.points.numpy()

    @abstractmethod
    def _attack(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """
        Attack a batch once: points (B, ...), whether each is an example, bool (B,), and what it is worth (B,). Of two
        examples, or two points that are none, the one that is worth more stays.
        """

    def _ball(self, x: Tensor) -> Ball:
        return Ball.inside(self.estimator.clip_values, x, 2 if self.norm == 2 else math.inf)

    def _noise(self, shape: tuple[int, ...], seed: list[int]) -> np.ndarray:
        generator = np.random.default_rng(seed)
        if self.norm == 2:
            noise = generator.standard_normal(shape)
            return (noise / np.linalg.norm(noise.ravel())).astype(np.float32)
        noise = generator.uniform(-1, 1, shape)
        return (noise / np.abs(noise).max()).astype(np.float32)

    def _reached(self, logits: Tensor, y: Tensor) -> Tensor:
        """Whether classes y (B,) are left, or reached, by more than rounding in another order explains, bool (B,)."""
        return self._lead(logits, y) > ROUNDING * logits.abs().amax(dim=1)

    def _lead(self, logits: Tensor, y: Tensor) -> Tensor:
        return margin(logits, y) * (-1 if self.targeted else 1)

    def _check_params(self) -> None:
        super()._check_params()
        self._check_ball()
        self._check(whole, "max_iter nb_restarts")
        self._check(whole, "nb_targets", 0)
        self._check(switch, "early_stop")
        if self.targeted and self.nb_targets:
            raise ValueError(
                f"nb_targets: expected 0 for a targeted attack, whose targets are y, got {self.nb_targets}."
            )


class ObjectiveAttack(WhiteBoxAttack):
    """Base of attacks that maximise an objective in a ball, towards several classes in turn if asked."""

    @abstractmethod
    def _maximise(self, question: Question, ball: Ball, x: Tensor, start: Tensor, turn: int) -> Found:
        """What was found in maximising the question about inputs (B, ...) from `start`; `turn` counts starts from 0."""

    def _attack(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        ball, x, y, targets, directions, start, _ = batch
        aims, sign = (y, -1 if self.targeted else 1) if targets is None else (targets, -1)
        objective = self.objective
        if not callable(objective):
            objective = OBJECTIVES["targeted_dlr" if sign < 0 and objective == "dlr" else objective]
        clean = ball.boxed(x)

        def question(x_adv: Tensor, rows: Tensor, **settings: float) -> Answer:
            def worth(logits: Tensor) -> Tensor:
                found = objective(logits, aims[rows], **settings)
                if found.shape != rows.shape:
                    raise ValueError(
                        f"objective: expected one value a sample, shape {tuple(rows.shape)}, got shape "
                        f"{tuple(found.shape)}."
                    )
                return sign * found

            logits, found, gradients = network.gradients(x_adv, worth)
            return found, gradients, self._reached(logits, y[rows]), self._lead(logits, y[rows])

        random = ball.project(clean + self.eps * directions, clean, self.eps)
        found = self._maximise(question, ball, clean, random, start)
        # what was found on the way to another class compares by the margin
        worth = found.values if targets is None else margin(network.logits(found.points), y)
        return found.points, found.hit, worth

    def _check_params(self) -> None:
        super()._check_params()
        if not callable(self.objective):
            check_name("objective", self.objective, OBJECTIVES)
