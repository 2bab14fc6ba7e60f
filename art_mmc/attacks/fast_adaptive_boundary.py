"""
FAB, the fast adaptive boundary attack: the nearest adversarial example.

| Paper link: https://arxiv.org/abs/1907.02044
"""

import math

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_mmc.attacks.white_box import Ball, Batch, Network, WhiteBoxAttack, per_sample
from art_mmc.checks import ROUNDING, choice, number
from art_mmc.objectives import margin

#: evaluations on the line between the image and its example, at the end of a run
_FINAL_SEARCH = 3


def project_onto_plane(ball: Ball, x: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """
    The shortest way from points (B, ...) to a hyperplane, in the box: `min ||d||_p` with `<w, d> + b = 0`, normals w of
    their shape and offsets b (B,), and x + d in the box. Each coordinate goes against the sign of b w_i, by t (L-inf)
    or t |w_i| (L2), until the box stops it; the way that this gains is concave in t, so Newton's method from t = 0 ends
    at its solution. Where the box does not meet the plane, the way to the point of it that is nearest by `<w, d> + b`.

    | Paper link: https://arxiv.org/abs/1907.02044 (Equations 4 and 5)
    """
    towards = -normal * per_sample(offset.sign(), x)
    room = torch.where(towards > 0, ball.high - x, x - ball.low).flatten(1)
    weight = normal.abs().flatten(1)
    speed = torch.ones_like(weight) if ball.norm == math.inf else weight
    wanted = offset.abs()[:, None]
    largest = torch.finfo(x.dtype).max
    time = torch.zeros_like(wanted)
    for _ in range(room.shape[1]):
        moved = torch.minimum(time * speed, room)
        lacking = wanted - (weight * moved).sum(dim=1, keepdim=True)
        slope = (weight * speed * (moved < room)).sum(dim=1, keepdim=True)
        more = (lacking > 1e-6 * wanted) & (slope > 0)
        if not more.any():
            break
        time = torch.where(more, time + lacking / slope, time)
    # all that is left has met the box
    time = torch.where((lacking > 1e-6 * wanted) & (slope == 0), torch.full_like(time, largest), time)
    return towards.sign() * torch.minimum((time * speed).clamp_max(largest), room).view_as(x)


class FastAdaptiveBoundary(WhiteBoxAttack):
    """
    FAB: the nearest adversarial example. Each step goes to the linearised boundary between two classes, from the
    current point and, in part, from the image itself, which keeps it near:

    `x' <- (1 - alpha) (x' + eta d(x')) + alpha (x + eta d(x))`, `alpha = min(|d(x')| / (|d(x')| + |d(x)|), alpha_max)`

    with d the shortest way to the plane in the box (:func:`project_onto_plane`). An example that is found is pulled
    back to `(1 - beta) x + beta x'`, and at the end three evaluations on the line to the image look for the boundary.

    With `nb_targets` the boundary is that with each of so many classes in turn, those with the highest logits at the
    image, which is FAB-T as in AutoAttack: one gradient a step. Without, it is that which is nearest of all, the box
    left out of account as in the paper, at K gradients a step.

    What is returned is the nearest example, and the image itself where none is found. With `eps` an example farther
    away counts as none: what is returned then lies in the ball.

    | Paper link: https://arxiv.org/abs/1907.02044
    | Paper link: https://arxiv.org/abs/2003.01690 (FAB-T)
    """

    def __init__(
        self,
        classifier: PyTorchClassifier,
        norm: int | float | str = np.inf,
        eps: float | None = None,
        max_iter: int = 100,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
        nb_restarts: int = 1,
        targeted: bool = False,
        nb_targets: int = 9,
        early_stop: bool = False,
        batch_size: int = 128,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create a :class:`.FastAdaptiveBoundary` instance.

        :param classifier: A trained classifier.
        :param norm: Norm of the distance: np.inf, "inf" or 2.
        :param eps: Radius of the ball in which an example counts, in the unit of the inputs; None for any distance.
        :param max_iter: Number of steps.
        :param alpha_max: Largest weight of the step from the image, in [0, 1].
        :param eta: How far to go beyond the plane, as a multiple of the way to it, at least 1.
        :param beta: How much of the perturbation is left by a backward step, in (0, 1).
        :param nb_restarts: Number of starts, for each target: the image itself, then random points at half the distance
               that is to be beaten, the nearest so far or eps.
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left; needs `nb_targets=0`.
        :param nb_targets: How many other classes to aim at in turn, the likeliest first, at most all; what is found on
               the way to one counts whatever class it is taken for. 0 for the nearest boundary in each step.
        :param early_stop: Whether an image is left alone once an example inside `eps` is found, for those who count and
               do not measure.
        :param batch_size: Images that are attacked together.
        :param seed: Seed of the restarts; None draws one from numpy's global random state, which is not touched
               otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        self._keep(locals())

    def _attack(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        ball, x, y, targets, directions, start, values = batch
        clean = ball.boxed(x)
        limit = torch.full_like(values, math.inf if self.eps is None else self.eps)
        nearest, distance = clean.clone(), torch.full_like(values, math.inf)
        rows, point = torch.arange(len(x), device=x.device), clean
        if start:
            radius = torch.minimum(-values, limit) / 2
            radius = torch.where(radius < math.inf, radius, torch.zeros_like(radius))
            point = ball.boxed(clean + per_sample(radius, x) * directions)
        for step in range(self.max_iter):
            if self.early_stop and (x.device.type == "cpu" or step % 10 == 0):  # elsewhere looking means waiting
                going = distance[rows] > limit[rows]
                if not going.all():
                    rows, point = rows[going], point[going]
                    if not len(rows):
                        break
            origin = clean[rows]
            ahead, normal = self._plane(network, point, y[rows], None if targets is None else targets[rows])
            back = ahead + ((origin - point) * normal).flatten(1).sum(dim=1)
            both = project_onto_plane(
                ball, torch.cat((point, origin)), torch.cat((normal, normal)), torch.cat((ahead, back))
            )
            here, there = both.chunk(2)
            way, whole = ball.length(here), ball.length(here) + ball.length(there)
            alpha = (way / torch.where(whole > 0, whole, torch.ones_like(whole))).clamp_max(self.alpha_max)
            point = ball.boxed((1 - alpha) * (point + self.eta * here) + alpha * (origin + self.eta * there))
            hit = self._reached(network.logits(point), y[rows])
            far = ball.length(point - origin).flatten()
            nearer = hit & (far < distance[rows])
            if self.early_stop:
                nearer &= distance[rows] > limit[rows]
            nearest[rows] = torch.where(per_sample(nearer, point), point, nearest[rows])
            distance[rows] = torch.where(nearer, far, distance[rows])
            point = torch.where(per_sample(hit, point), origin + self.beta * (point - origin), point)
        found = distance < math.inf
        if not self.early_stop:
            nearest = self._final_search(network, clean, nearest, y, found)
            distance = torch.where(found, ball.length(nearest - clean).flatten(), distance)
        counts = found & (distance <= limit)
        return torch.where(per_sample(counts, x), nearest, x), counts, -distance

    def _plane(self, network: Network, point: Tensor, y: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        """By how much the logit of another class leads over that of y, (B,), and the gradients of that, (B, ...)."""
        if targets is None and not self.targeted:
            logits, slopes = network.class_gradients(point)
            rows = torch.arange(len(point), device=point.device)
            leads, ways = logits - logits.gather(1, y[:, None]), slopes - slopes[rows, y][:, None]
            dual = torch.linalg.vector_norm(ways.flatten(2), 1 if self.norm != 2 else 2, dim=2)
            away = torch.where(dual > 0, leads.abs() / dual, torch.inf).scatter(1, y[:, None], torch.inf)
            other = away.argmin(dim=1)
            return leads[rows, other], ways[rows, other]

        def lead(logits: Tensor) -> Tensor:
            if targets is None:
                return -margin(logits, y)
            return (logits.gather(1, targets[:, None]) - logits.gather(1, y[:, None]))[:, 0]

        _, values, gradients = network.gradients(point, lead)
        return values, gradients

    def _final_search(self, network: Network, clean: Tensor, nearest: Tensor, y: Tensor, found: Tensor) -> Tensor:
        """Where the line from image to example meets the boundary, by false position, from outside."""

        inner, inner_ahead = clean, self._lead(network.logits(clean), y)
        logits = network.logits(nearest)
        outer_ahead, aim = self._lead(logits, y), 2 * ROUNDING * logits.abs().amax(
            dim=1
        )  # by as much as an example needs
        for _ in range(_FINAL_SEARCH):
            share = ((outer_ahead - aim) / (outer_ahead - inner_ahead)).nan_to_num(0).clamp(0, 1)
            between = nearest + per_sample(share, clean) * (inner - nearest)
            logits = network.logits(between)
            lead, hit = self._lead(logits, y), self._reached(logits, y) & found
            nearest = torch.where(per_sample(hit, clean), between, nearest)
            inner = torch.where(per_sample(hit, clean), inner, between)
            outer_ahead, inner_ahead = torch.where(hit, lead, outer_ahead), torch.where(hit, inner_ahead, lead)
        return nearest

    def _check_ball(self) -> None:
        if self.eps is not None:
            super()._check_ball()
        else:
            self._check(choice, "norm", (2, np.inf, "inf"))

    def _check_params(self) -> None:
        super()._check_params()
        self._check(number, "alpha_max", 0, 1, "[]")
        self._check(number, "eta", 1, ends="[)")
        self._check(number, "beta", 0, 1)
        if self.early_stop and self.eps is None:
            raise ValueError("early_stop: needs eps, the ball in which an example counts.")
