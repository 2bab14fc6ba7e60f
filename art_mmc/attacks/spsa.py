"""
SPSA: simultaneous perturbation stochastic approximation, an attack by queries alone.

| Paper link: https://arxiv.org/abs/1802.05666
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from art.utils import projection
from tqdm.auto import trange

from art_mmc.attacks.base import Batch, QueryAttack, lead
from art_mmc.checks import box_width, check_name, number, switch, whole

if TYPE_CHECKING:
    from art.utils import CLASSIFIER_TYPE

    from art_mmc.objectives import Objective

_BETA_2 = 0.999  # Adam's, https://arxiv.org/abs/1412.6980


def spsa_gradient(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    x: np.ndarray,
    generators: Sequence[np.random.Generator],
    nb_samples: int = 128,
    delta: float = 0.01,
    low: Any = -np.inf,
    high: Any = np.inf,
    mask: np.ndarray | None = None,
    max_queries: int = 2048,
) -> np.ndarray:
    """
    Estimate gradients from values: `g = 1/n sum_i (f(x + delta v_i) - f(x - delta v_i)) / (2 delta) v_i`, with
    `nb_samples / 2` pairs and the entries of v_i independent, -1 or 1 with the same probability, from a random stream
    for each input. Of a function whose third derivatives are zero the estimate is unbiased, else but for terms in delta
    squared. Where a value of x is nearer than delta to the edge of the box, the two points stop at the edge, and the
    estimate is one about the middle of the two.

    `function` takes points (M, ...), at most so many at once but at least a pair, and the numbers of the inputs that
    they belong to, (M,), and gives values (M,); the inputs (B, ...) lie in the box, whose bounds broadcast against
    them. Where the mask, bool of their shape, is False the estimate, float32, is zero.

    | Paper link: https://arxiv.org/abs/1802.05666
    """
    above = np.minimum(x + delta, high).astype(x.dtype, copy=False).reshape(len(x), 1, -1)
    below = np.maximum(x - delta, low).astype(x.dtype, copy=False).reshape(above.shape)
    if mask is not None:
        above, below = (np.where(mask.reshape(above.shape), bound, x.reshape(above.shape)) for bound in (above, below))
    width = above - below
    pairs, size = nb_samples // 2, above.shape[2]
    words = -(-size // 64)
    sums = np.zeros((len(x), size), np.float32)
    pairs_at_once = min(pairs, max(1, max_queries // 2))
    inputs_at_once = max(1, max_queries // (2 * pairs)) if pairs_at_once == pairs else 1
    for first in range(0, len(x), inputs_at_once):
        part = slice(first, min(first + inputs_at_once, len(x)))
        for done in range(0, pairs, pairs_at_once):
            count = min(pairs_at_once, pairs - done)
            raw = np.stack([each.bit_generator.random_raw(count * words) for each in generators[part]])
            bits = raw.astype("<u8", copy=False).view(np.uint8).reshape(len(raw), count, -1)
            upward = np.unpackbits(bits, axis=2, count=size).astype(np.float32)
            points = np.empty((len(raw), 2, count, size), x.dtype)
            # by arithmetic, since choosing by a random condition takes ten times as long
            np.multiply(upward, width[part], out=points[:, 0])
            np.subtract(above[part], points[:, 0], out=points[:, 1])
            points[:, 0] += below[part]
            points = points.reshape(-1, *x.shape[1:])
            np.clip(points, low, high, out=points)  # rounding
            owners = np.arange(part.start, part.stop).repeat(2 * count)
            values = function(points, owners).reshape(len(raw), 2, count)
            difference = (values[:, 0] - values[:, 1]).astype(np.float32)
            # the signs are 2 upward - 1
            sums[part] += 2 * (difference[:, None] @ upward)[:, 0] - difference.sum(axis=1, keepdims=True)
    width = width[:, 0] * pairs
    return np.divide(sums, width, out=np.zeros_like(sums), where=width > 0).reshape(x.shape)


class SPSA(QueryAttack):
    """
    Simultaneous perturbation stochastic approximation: ascent on an objective J of the predictions along a gradient
    that is estimated from queries alone, so that vanishing, shattered or missing gradients do not hinder it.

    In each step and for each image for itself, n pairs of points `x' + delta v_i` and `x' - delta v_i` are queried,
    with v_i of independent random signs (:func:`spsa_gradient`), and

        g = 1/n sum_i (J(x' + delta v_i) - J(x' - delta v_i)) / (2 delta) v_i
        x' <- project(x' + learning_rate step(g))

    where `step` is Adam's, or the steepest direction of the running mean m of the estimates (its sign for the infinity
    norm, m / |m| for the 2-norm), and `project` goes to the ball around the image and to the box. Adam has no constant
    in its denominator, so that the scale of J does not matter; for the 2-norm its second moment is of the whole
    gradient's norm, since steps divided coordinate by coordinate would lead away from the gradient. All the points x'
    are queried too. Of those that fool the classifier the one with the largest J is kept, or if none does the one with
    the largest J of all: nothing is returned that is worse than the image itself.

    The noise of an estimate grows with the number d of inputs, as sqrt(d / n). On linear models with Gaussian weights
    the defaults gain 0.99 of what the worst case gains at d = 64, 0.93 at 784 and 0.82 at 3,072 (infinity norm; a
    little more for the 2-norm): for larger images raise `nb_samples` in proportion.

    Settings of the papers, inputs in [0, 1] and the infinity norm, no early stop, the last point and samples that may
    leave the box: the MMC paper, by cleverhans, has eps 8/255 and 16/255, 10 Adam steps (`max_iter`) with learning rate
    0.01, delta 0.01, 128 samples a step (64 pairs), a random start and the first 1,000 test images; the PC paper, by
    advertorch, has eps 0.3 (0.015 for CIFAR-100 and Tiny ImageNet), the same rate and delta, its code 10 steps, 128
    pairs (256 samples) from the image itself, and the margin. Ten steps of 0.01 do not reach the edge of a ball of 0.3:
    as a measure of robustness take the defaults or more.

    | Paper link: https://arxiv.org/abs/1802.05666
    | Paper link: https://arxiv.org/abs/1905.10626 (MMC paper)
    | Paper link: https://arxiv.org/abs/2012.07688 (PC paper)
    """

    def __init__(
        self,
        classifier: CLASSIFIER_TYPE,
        norm: int | float | str = np.inf,
        eps: float | None = None,
        learning_rate: float | None = None,
        delta: float | None = None,
        max_iter: int = 100,
        nb_samples: int = 256,
        optimizer: str = "adam",
        momentum: float = 0.9,
        objective: str | Objective = "margin",
        targeted: bool = False,
        random_start: bool = True,
        early_stop: bool = True,
        return_best: bool = True,
        clip_samples: bool = True,
        batch_size: int = 128,
        max_queries_per_forward: int = 2048,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create a :class:`.SPSA` instance.

        :param classifier: A trained classifier.
        :param norm: Norm of the ball: np.inf, "inf" or 2.
        :param eps: Radius of the ball, in the unit of the inputs; None for 8 / 255 of the width of their range, the
               classifier's `clip_values`, and for 8 / 255 without.
        :param learning_rate: Length of a step in that norm (for Adam about); None for eps / 10.
        :param delta: Distance of the samples from x' in each coordinate; None for a hundredth of that width.
        :param max_iter: Number of steps.
        :param nb_samples: Samples in a step for each image, an even number: half as many pairs.
        :param optimizer: "adam" or "sign".
        :param momentum: Weight of the past in the running mean of the estimates, in [0, 1), for both optimizers: Adam's
               first coefficient; 0 for steps along the last estimate alone.
        :param objective: What to climb: a name in :data:`.OBJECTIVES`, or a function (predictions (M, K), classes (M,))
               -> values (M,) on tensors in the CPU's memory, float64 and int64, larger = better for the attacker. A
               targeted attack hands over the target and descends.
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left.
        :param random_start: Whether to start from a uniform point of the ball instead of the image.
        :param early_stop: Whether an image is left alone as soon as the classifier is fooled; else all steps are gone,
               for the largest J.
        :param return_best: Whether the best point on the way is returned; else the last one, as other libraries do.
        :param clip_samples: Whether the samples about x' stay in the box; other libraries let them leave it.
        :param batch_size: Images that are attacked together.
        :param max_queries_per_forward: Most inputs in one forward pass, at least 1; the samples of a step are made in
               portions of so many, which bounds the memory.
        :param seed: Seed; None draws one from numpy's global random state, which is not touched otherwise.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        unit = 1.0 if self.estimator.clip_values is None else box_width(self.estimator.clip_values)
        eps = 8 / 255 * unit if eps is None else eps
        delta = 0.01 * unit if delta is None else delta
        self._keep(locals())

    def _attack(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        x, y, index, generators, mask = batch
        low, high = self._box()
        best = np.clip(x, low, high)
        predictions = self._query(best, index, self.max_queries_per_forward)
        labels = predictions.argmax(axis=1) if y is None else y
        best_values, fooled = self._values(predictions, labels), self._reached(predictions, labels)
        left = np.flatnonzero(~fooled) if self.early_stop else np.arange(len(x))

        def keep_best(x_adv: np.ndarray) -> np.ndarray:
            """Look where the images that are left have come to; which of them go on."""
            nonlocal left
            predictions = self._query(x_adv, index[left], self.max_queries_per_forward)
            values, reached = self._values(predictions, labels[left]), self._reached(predictions, labels[left])
            before = fooled[left]
            better = (reached & ~before) | ((reached == before) & (values > best_values[left]))
            if not self.return_best:
                better[:] = True
            best[left[better]], best_values[left[better]] = x_adv[better], values[better]
            fooled[left] = reached | (before & self.return_best)
            going = ~reached if self.early_stop else np.ones(len(left), bool)
            left = left[going]
            return going

        x_adv = best[left]
        if self.random_start and len(left):
            noise = self._noise(x_adv.shape, [generators[i] for i in left])
            if mask is not None:
                noise *= mask[left]
            x_adv = self._project(x_adv + noise, x[left], low, high)
            x_adv = x_adv[keep_best(x_adv)]
        rate = float(self.eps / 10 if self.learning_rate is None else self.learning_rate)
        moments = np.zeros((2, *x_adv.shape), np.float32)
        for step in trange(1, self.max_iter + 1, desc="SPSA - steps", leave=False, disable=not self.verbose):
            if not len(left):
                break
            now = left

            def function(points: np.ndarray, owners: np.ndarray, now: np.ndarray = now) -> np.ndarray:
                images = now[owners]
                return self._values(self._query(points, index[images], self.max_queries_per_forward), labels[images])

            gradient = spsa_gradient(
                function,
                x_adv,
                [generators[i] for i in left],
                self.nb_samples,
                self.delta,
                low if self.clip_samples else -np.inf,
                high if self.clip_samples else np.inf,
                None if mask is None else mask[left],
                self.max_queries_per_forward,
            )
            x_adv = self._project(x_adv + rate * self._step(gradient, moments, step), x[left], low, high)
            going = keep_best(x_adv)
            if not going.all():
                x_adv, moments = x_adv[going], moments[:, going]
        return best, fooled

    def _values(self, predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What the attack climbs, (M,), float64, of predictions (M, K) and classes (M,)."""
        # differences of near values are taken: float64, though the predictions are float32
        values = lead(predictions, y) if self.objective == "margin" else self._given_values(predictions, y)
        if values.shape != y.shape:
            raise ValueError(f"objective: expected one value a sample, shape {y.shape}, got shape {values.shape}.")
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ValueError(f"objective: gave NaN or infinite values for {bad} of {len(values)} samples.")
        return -values if self.targeted else values

    def _given_values(self, predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
        import torch  # here: predictions come from any framework

        from art_mmc.objectives import OBJECTIVES

        function = OBJECTIVES[self.objective] if isinstance(self.objective, str) else self.objective
        with torch.no_grad():
            return function(torch.from_numpy(predictions).double(), torch.from_numpy(y)).double().cpu().numpy()

    def _noise(self, shape: tuple[int, ...], generators: Sequence[np.random.Generator]) -> np.ndarray:
        """Uniform points of the ball about zero, (B, ...), float32, from a random stream for each image."""
        if self.norm != 2:
            noise = np.stack([each.uniform(-1, 1, shape[1:]) for each in generators])
        else:
            noise = np.stack([each.standard_normal(shape[1:]) for each in generators])
            radii = np.array([each.uniform() for each in generators]) ** (1 / noise[0].size)
            noise *= (radii / np.linalg.norm(noise.reshape(len(noise), -1), axis=1)).reshape(-1, *[1] * len(shape[1:]))
        return (self.eps * noise).astype(np.float32)

    def _step(self, gradient: np.ndarray, moments: np.ndarray, step: int) -> np.ndarray:
        """Step `step`, from 1, about of unit length in the ball's norm; updates Adam's two moments."""

        def square(values: np.ndarray) -> np.ndarray:
            if self.norm != 2:
                return values**2
            return (values**2).sum(axis=tuple(range(1, values.ndim)), keepdims=True)

        first, second = moments
        first += (1 - self.momentum) * (gradient - first)
        mean = first / (1 - self.momentum**step)
        if self.optimizer == "adam":
            second += (1 - _BETA_2) * (square(gradient) - second)
            scale = np.sqrt(second / (1 - _BETA_2**step))
        else:
            scale = np.sqrt(square(mean))
        return np.divide(mean, scale, out=np.zeros_like(mean), where=scale > 0)

    def _project(self, x_adv: np.ndarray, x: np.ndarray, low: Any, high: Any) -> np.ndarray:
        """To the box, then to the ball, which is a move towards x and stays in the box; the rest is rounding."""
        return np.clip(x + projection(np.clip(x_adv, low, high) - x, self.eps, self.norm), low, high)

    def _check_params(self) -> None:
        super()._check_params()
        self._check_ball()
        self._check(number, "delta")
        if self.learning_rate is not None:
            self._check(number, "learning_rate")
        self._check(whole, "max_iter max_queries_per_forward")
        if whole("nb_samples", self.nb_samples) % 2:
            raise ValueError(f"nb_samples: expected an even number, for pairs, got {self.nb_samples}.")
        check_name("optimizer", self.optimizer, ("adam", "sign"))
        self._check(number, "momentum", 0, 1, "[)")
        self._check_objective()
        self._check(switch, "random_start early_stop return_best clip_samples")

    def _check_objective(self) -> None:
        if not callable(self.objective) and str(self.objective) != "margin":
            from art_mmc.objectives import OBJECTIVES

            check_name("objective", self.objective, OBJECTIVES)
