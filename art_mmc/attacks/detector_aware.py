"""
Attacks that know the detector: :class:`DensityAwareCarliniL2` is the RCE paper's own, :class:`DetectorAwarePGD` works
in a ball. Both give up nothing that the detector's score can tell: the score has a gradient.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from art.config import ART_NUMPY_DTYPE
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from tqdm.auto import trange

from art_mmc.attacks.base import BaseAttack
from art_mmc.attacks.carlini import OPTIMIZERS, carlini_search, lead_term
from art_mmc.attacks.white_box import Ball, per_sample
from art_mmc.checks import check_eps, check_inputs, check_name, check_type, choice, number, several, whole
from art_mmc.detectors.base import ScoreDetector
from art_mmc.objectives import margin
from art_mmc.state import derived_seed

#: how far past the boundary, in units of the clean margin, PGD pushes a sample
_LEAD = 0.1


class _DetectorAwareAttack(BaseAttack):
    """What the two attacks share: checks, and batches of tensors."""

    _estimator_requirements = (PyTorchClassifier,)

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """
        Attack inputs.

        :param x: Inputs (N, ...).
        :param y: True labels, or for a targeted attack the targets: indices (N,) or one-hot (N, K). None for the
               predicted classes, or for one that is always targeted random ones, other than the predicted.
        :param kwargs: No effect, but a `mask` is refused.
        :return: Attacked inputs (N, ...).
        :raises ValueError: For bad inputs or labels, or a detector that has not been fitted.
        """
        self.detector.threshold_at(0.5)  # raises where it has not been fitted
        x, labels = self._checked(x, y, kwargs)
        if labels is None:
            labels = self.estimator.predict(x, batch_size=self.batch_size).argmax(axis=1)
        x_adv, name = np.array(x, dtype=ART_NUMPY_DTYPE), type(self).__name__
        for first in trange(0, len(x), self.batch_size, desc=f"{name} - batches", disable=not self.verbose):
            part = slice(first, first + self.batch_size)
            clean = torch.tensor(x_adv[part], device=self.estimator.device)
            x_adv[part] = self._attack(clean, torch.as_tensor(labels[part]), first).cpu().numpy()
        return x_adv

    @abstractmethod
    def _attack(self, clean: Tensor, y: Tensor, first: int) -> Tensor:
        """The attacked inputs of a batch (B, C, H, W), of which the first is number `first`; labels (B,) on the CPU."""

    def _ball(self, x: Tensor) -> Ball:
        """Its box is that of the clip values; without them that of the batch, as in ART's C&W."""
        box = self.estimator.clip_values
        return Ball.inside((x.amin(), x.amax()) if box is None else box, x)

    def _check_params(self) -> None:
        super()._check_params()
        check_type("detector", self.detector, ScoreDetector, "a detector of art_mmc.detectors")
        if self.detector.classifier is not self.estimator and self.detector.classifier != self.estimator:
            raise ValueError("detector: it was made for another classifier than the one that is attacked.")
        self._check(whole, "seed", 0)


class DensityAwareCarliniL2(_DetectorAwareAttack):
    """
    C&W-wb: Carlini and Wagner's L2 attack with one more term for a detector,

    `||x' - x||^2 + c (f_1(x') + f_2(x'))`, `f_1 = max(max_{k != t} a_k - a_t + confidence, 0)`,
    `f_2 = max(-log KD_t(x') - eta, 0)`,

    with the same constant c, found by binary search, and eta the median score of clean inputs of the target class t. An
    example counts where f_1 = 0, on the logits, and f_2 = 0; the nearest such one to the clean input wins. Of another
    detector than the kernel density its score takes the place of -log KD. Targeted. First, as in the paper, an attack
    that knows nothing of the detector looks for a start, which is the result, or the input itself where that fails too,
    where no example counts; :meth:`outcome` tells them apart.

    Two quirks of the released code can be switched on: `success_on="softmax"` subtracts the confidence from softmax
    outputs, so that with a confidence of 1 or more no example ever counts; `distance_from="start"` measures from there.

    | Paper link: https://arxiv.org/abs/1706.00633 (Section 4.3)
    | Paper link: https://arxiv.org/abs/1705.07263
    """

    def __init__(
        self,
        classifier: PyTorchClassifier,
        detector: ScoreDetector,
        confidence: float = 5.0,
        eta: float | str = "median",
        learning_rate: float = 0.01,
        binary_search_steps: int = 9,
        max_iter: int = 10000,
        initial_const: float = 100.0,
        start_binary_search_steps: int = 3,
        start_max_iter: int = 5000,
        start_initial_const: float = 10.0,
        success_on: str = "logits",
        distance_from: str = "clean",
        batch_size: int = 128,
        seed: int = 0,
        verbose: bool = True,
        optimizer: str = "adam",
    ) -> None:
        """
        Create a :class:`.DensityAwareCarliniL2` instance. The defaults are the paper's settings. FISTA from a
        first c of 0.01 succeeds more often in as many steps; a c that is too large for any example only grows.

        :param classifier: The classifier.
        :param detector: A fitted detector of it; in the paper a :class:`.KernelDensityDetector`.
        :param confidence: By how much the target's logit must lead.
        :param eta: Score that the detector may see at most: "median" of the clean inputs predicted as the target,
               "threshold", which is just undetected, or a number.
        :param learning_rate: Learning rate: Adam's in the space of arctanh, FISTA's in that of the inputs.
        :param binary_search_steps: Number of constants c that are tried.
        :param max_iter: Steps for each c.
        :param initial_const: The first c.
        :param start_binary_search_steps: The same of the search for a start; 0 for the clean input as the start.
        :param start_max_iter: Likewise.
        :param start_initial_const: Likewise.
        :param success_on: "logits", or "softmax" as in the released code.
        :param distance_from: "clean", or "start" as in the released code.
        :param batch_size: Samples that are attacked at once.
        :param seed: Seed of the random targets, where none are given.
        :param verbose: Whether to show a progress bar.
        :param optimizer: "adam" or "fista", of both searches.
        """
        super().__init__(estimator=classifier)
        self._targeted = True
        self._keep(locals())

    def targets(self, x: np.ndarray) -> np.ndarray:
        """The random targets that :meth:`generate` takes where none are given: (N,), int64, none the predicted one."""
        logits = self.estimator.predict(check_inputs(x, self.estimator), batch_size=self.batch_size)
        shift = np.random.default_rng(self.seed).integers(1, logits.shape[1], len(logits))
        return (logits.argmax(axis=1) + shift) % logits.shape[1]

    def outcome(self, x_adv: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Whether attacked inputs reach the two goals.

        :param x_adv: What :meth:`generate` gave, (N, C, H, W).
        :param y: The targets: indices (N,) or one-hot (N, K).
        :return: Whether the target is predicted, bool (N,), and f_2 (N,), 0 where the detector sees no more than eta.
        """
        targets = torch.as_tensor(self._checked(x_adv, np.asarray(y))[1])
        hit, excess = [], []
        with torch.no_grad():
            for batch, target in zip(
                torch.tensor(x_adv, dtype=torch.float32).split(self.batch_size),
                targets.split(self.batch_size),
                strict=True,
            ):
                logits, z = self.detector.forward(batch)
                hit.append(logits.argmax(dim=1).cpu() == target)
                excess.append(
                    (self.detector.score_tensors(logits, z, target).cpu() - self._limits(target)).clamp_min(0)
                )
        return torch.cat(hit).numpy(), torch.cat(excess).numpy()

    def _own_classes(self, x: np.ndarray) -> np.ndarray:
        return self.targets(x)

    def _limits(self, targets: Tensor) -> Tensor:
        """The eta of each target, (B,)."""
        if self.eta == "median":
            return torch.as_tensor(self.detector.typical_scores(targets.numpy()))
        eta = self.detector.threshold if self.eta == "threshold" else float(self.eta)
        return torch.full((len(targets),), eta, dtype=torch.float64)

    def _attack(self, clean: Tensor, y: Tensor, first: int) -> Tensor:
        start, _ = self._search(clean, clean, y, None)
        return self._search(clean, start, y, self._limits(y))[0]

    def _search(self, clean: Tensor, start: Tensor, target: Tensor, limit: Tensor | None) -> tuple[Tensor, Tensor]:
        """The nearest examples (B, ...), else `start`, and where one counts, bool (B,), past eta, None for blind."""
        aware = limit is not None
        names = ("binary_search_steps", "max_iter", "initial_const")
        settings = {name: getattr(self, name if aware else f"start_{name}") for name in names}
        labels = target.to(clean.device)
        limit = None if limit is None else limit.to(clean.device)

        def goal(x_adv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            leaf = x_adv.requires_grad_(True)
            logits, z = self.detector.forward(leaf)
            values, counts = lead_term(margin(logits, labels), self.confidence)
            if aware and self.success_on == "softmax":
                _, counts = lead_term(margin(logits.softmax(dim=1), labels), self.confidence)
            if limit is not None:
                f_2 = (self.detector.score_tensors(logits, z, target) - limit).clamp_min(0)
                counts, values = counts & (f_2 == 0), values + f_2
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
            return values.detach(), gradient, counts

        ball = self._ball(clean)
        return carlini_search(
            goal,
            clean,
            ball.low,
            ball.high,
            learning_rate=self.learning_rate,
            **settings,
            optimizer=self.optimizer,
            # not soon: pixels at the border of the box are slow to leave it; never by FISTA, whose loss swings
            check_every=max(100, settings["max_iter"] // 10) if self.optimizer == "adam" else None,
            start=start,
            anchor=start if aware and self.distance_from == "start" else clean,
        )

    def _check_params(self) -> None:
        super()._check_params()
        self._check(number, "learning_rate initial_const start_initial_const")
        self._check(whole, "binary_search_steps max_iter start_max_iter")
        self._check(whole, "start_binary_search_steps", 0)
        self._check(number, "confidence", ends="[)")
        if isinstance(self.eta, str):
            self._check(choice, "eta", ("median", "threshold"))
        else:
            self._check(number, "eta", -math.inf)
        self._check(choice, "success_on", ("logits", "softmax"))
        self._check(choice, "distance_from", ("clean", "start"))
        check_name("optimizer", self.optimizer, OPTIMIZERS)


class DetectorAwarePGD(_DetectorAwareAttack):
    """
    Projected gradient descent on both goals at once, in an L-inf ball: to be misclassified, and to score no more than
    the detector's threshold T. It climbs

    `min(m / g, 0.1) - w max(s, M) / u`

    with the margin `m = max_{k != y} a_k - a_y`, the score s, the median M of clean scores, and their units: g, the
    clean input's gap between its two largest logits, and u, the spread of the clean scores. The weights w are tried in
    turn, each from the input and from random points of the ball, on the inputs that still stand. Of the points that
    reach both goals the one with the lowest score is the result; where none does, the point nearest to them.

    | Paper link: https://arxiv.org/abs/1706.06083
    | Paper link: https://arxiv.org/abs/1705.07263 (a detector belongs in the attacker's objective)
    """

    def __init__(
        self,
        classifier: PyTorchClassifier,
        detector: ScoreDetector,
        eps: float = 0.3,
        eps_step: float | None = None,
        max_iter: int = 100,
        weights: Sequence[float] = (1.0, 0.1, 10.0),
        num_random_init: int = 0,
        targeted: bool = False,
        batch_size: int = 128,
        seed: int = 0,
        verbose: bool = True,
    ) -> None:
        """
        Create a :class:`.DetectorAwarePGD` instance.

        :param classifier: The classifier.
        :param detector: A fitted detector of it.
        :param eps: Radius of the L-inf ball, in (0, 1].
        :param eps_step: Length of a step; None for 2.5 eps / max_iter, but at least eps / 20.
        :param max_iter: Number of steps for each start and weight.
        :param weights: Weights w of the score, not negative, in the order in which they are tried.
        :param num_random_init: Number of random starts after the one from the input.
        :param targeted: Whether `y` are classes to aim at.
        :param batch_size: Samples that are attacked at once.
        :param seed: Seed of the random starts.
        :param verbose: Whether to show a progress bar.
        """
        super().__init__(estimator=classifier)
        self._keep(locals())

    def _attack(self, clean: Tensor, y: Tensor, first: int) -> Tensor:
        """All weights and starts on a batch; each on the samples that still stand."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, first))
        y = y.to(clean.device)
        with torch.no_grad():
            top = self.detector.forward(clean)[0].topk(2, dim=1).values
        gap = (top[:, 0] - top[:, 1]).double().clamp_min(1e-6)
        best, best_value = clean.clone(), torch.full_like(gap, -torch.inf)
        for weight in self.weights:
            for restart in range(1 + self.num_random_init):
                rest = (best_value < 0).nonzero()[:, 0]
                if not len(rest):
                    return best
                noise = torch.zeros_like(clean[rest])
                if restart:
                    noise = ((2 * torch.rand(noise.shape, generator=generator) - 1) * self.eps).to(clean)
                x_adv, value = self._climb(clean[rest], y[rest], gap[rest], noise, weight)
                better = value > best_value[rest]
                best[rest[better]], best_value[rest[better]] = x_adv[better], value[better]
        return best

    def _climb(self, clean: Tensor, y: Tensor, gap: Tensor, noise: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """One run of PGD: the best points (B, C, H, W), and their worth (B,), negative where a goal is missed."""
        ball = self._ball(clean)
        step = max(2.5 / self.max_iter, 0.05) * self.eps if self.eps_step is None else self.eps_step
        # the score is pushed on to that of a typical clean input: one just below the threshold still looks suspicious
        threshold, typical = self.detector.threshold, self.detector.threshold_at(0.5)
        unit = self.detector.spread
        x_adv = ball.project(clean + noise, clean, self.eps)
        best, best_value = x_adv, torch.full_like(gap, -torch.inf)
        for iteration in range(self.max_iter + 1):
            x_adv = x_adv.detach().requires_grad_(True)
            logits, z = self.detector.forward(x_adv)
            lead = (margin(logits, y) * (-1 if self.targeted else 1)).double()
            score = self.detector.score_tensors(logits, z)
            with torch.no_grad():
                # misclassified strictly: a tie of logits does not count
                lack = (lead / gap).clamp_max(0) - (score - threshold).clamp_min(0) / unit - 1e-9 * (lead <= 0)
                value = torch.where(lack < 0, lack, (threshold - score.clamp_min(typical)) / unit)
                better = value > best_value
                best_value = torch.where(better, value, best_value)
                best = torch.where(per_sample(better, best), x_adv, best)
            if iteration == self.max_iter:
                break
            goal = (lead / gap).clamp_max(_LEAD) - weight * score.clamp_min(typical) / unit
            (gradient,) = torch.autograd.grad(goal.sum(), x_adv)
            x_adv = ball.project(x_adv.detach() + step * ball.direction(gradient), clean, self.eps)
        return best.detach(), best_value

    def _check_params(self) -> None:
        super()._check_params()
        check_eps(self.eps, clip_values=self.estimator.clip_values)
        if self.eps_step is not None:
            check_eps(self.eps_step, "eps_step", self.estimator.clip_values)
        self._check(whole, "max_iter")
        self._check(whole, "num_random_init", 0)
        self._check(several, "weights")
