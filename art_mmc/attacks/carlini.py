"""
The L2 attack of Carlini and Wagner: as its authors run it, by Adam in the space of arctanh, or by FISTA.

| Paper link: https://arxiv.org/abs/1608.04644
| Paper link: https://arxiv.org/abs/1709.04114 (FISTA)
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from art.config import ART_NUMPY_DTYPE
from art.estimators.classification import PyTorchClassifier
from tqdm.auto import trange

from art_mmc.attacks.base import BaseAttack
from art_mmc.attacks.white_box import Network
from art_mmc.checks import check_name, number, switch, whole
from art_mmc.objectives import margin

#: keeps arctanh finite at the borders of the box, as in ART's C&W
_TANH_SMOOTHER = 0.999999

#: points x' (B, ...) -> values f(x') (B,), zero where the goal is reached; their gradients (B, ...); and whether x'
#: counts as an example, bool (B,)
Goal = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class _TanhAdam:
    """Adam on w, with `x' = low + (high - low) (tanh(w) + 1) / 2`: no point leaves the box."""

    def __init__(self, start: torch.Tensor, low: torch.Tensor, high: torch.Tensor, rate: float, steps: int) -> None:
        self.low = low
        self.width = torch.where(high > low, high - low, torch.ones_like(high - low))
        self.w = ((2 * (start - low) / self.width - 1) * _TANH_SMOOTHER).atanh().requires_grad_(True)
        self.adam = torch.optim.Adam([self.w], lr=rate)

    def point(self) -> torch.Tensor:
        self.bent = self.w.detach().tanh()
        return self.low + self.width * (self.bent / _TANH_SMOOTHER + 1) / 2

    def step(self, gradient: torch.Tensor) -> None:
        self.w.grad = gradient * (self.width * (1 - self.bent.square()) / (2 * _TANH_SMOOTHER))
        self.adam.step()


class _Fista:
    """Accelerated projected gradients on the inputs: pixels leave the border at once, steps follow gradient and c."""

    def __init__(self, start: torch.Tensor, low: torch.Tensor, high: torch.Tensor, rate: float, steps: int) -> None:
        self.x, self.y, self.low, self.high, self.rate, self.steps, self.done = start, start, low, high, rate, steps, 0

    def point(self) -> torch.Tensor:
        return self.y.clone()

    def step(self, gradient: torch.Tensor) -> None:
        rate = self.rate * (1 - self.done / self.steps) ** 0.5
        x = torch.minimum(torch.maximum(self.y - rate * gradient, self.low), self.high)
        ahead = x + self.done / (self.done + 3) * (x - self.x)
        self.x, self.y = x, torch.minimum(torch.maximum(ahead, self.low), self.high)
        self.done += 1


#: name -> how a search steps
OPTIMIZERS: dict[str, type[_TanhAdam] | type[_Fista]] = {"adam": _TanhAdam, "fista": _Fista}


def lead_term(behind: torch.Tensor, confidence: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The term of f for the class, and whether its logit leads by as much; `behind` is by how much it lags, (B,)."""
    return (behind + confidence).clamp_min(0), (behind + confidence <= 0) & (behind < 0)


def carlini_search(
    goal: Goal,
    clean: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    *,
    learning_rate: float,
    binary_search_steps: int,
    max_iter: int,
    initial_const: float,
    optimizer: str = "adam",
    check_every: int | None = None,
    start: torch.Tensor | None = None,
    anchor: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Minimise `||x' - anchor||^2 + c f(x')` in the box, for constants c that are ten times as large after each failure,
    and between the last failure and the last success from then on.

    Settings are those of :class:`CarliniL2`. Each constant begins at the start (B, ...) with a fresh optimizer, and is
    left once `check_every` steps have not lowered the batch's total loss by a ten-thousandth; the point after its last
    step is not looked at, all as in the authors' code. None for never, so that no image depends on others; for start
    and anchor it stands for the inputs (B, ...), between `low` and `high`. The nearest examples (B, ...), `start` where
    none counts, and where one does, bool (B,); FloatingPointError when a gradient is NaN or infinite.
    """
    start = clean if start is None else start
    anchor = clean if anchor is None else anchor
    best, best_distance = start.clone(), torch.full((len(clean),), torch.inf, device=clean.device)
    c = torch.full_like(best_distance, initial_const)
    lower, upper = torch.zeros_like(c), torch.full_like(c, torch.inf)
    each = (-1, *[1] * (clean.ndim - 1))
    for _ in range(binary_search_steps):
        path = OPTIMIZERS[optimizer](start, low, high, learning_rate, max_iter)
        found, finite = torch.zeros_like(c, dtype=torch.bool), torch.ones((), dtype=torch.bool, device=c.device)
        checked = math.inf
        for iteration in range(max_iter):
            x_adv = path.point()
            values, gradient, counts = goal(x_adv)
            x_adv = x_adv.detach()
            away = x_adv - anchor
            distance = away.square().flatten(1).sum(dim=1)
            better = counts & (distance < best_distance)
            best_distance = torch.where(better, distance, best_distance)
            best = torch.where(better.view(each), x_adv, best)
            found |= counts
            gradient = 2 * away + c.view(each) * gradient
            finite &= torch.isfinite(gradient).all()  # looked at once a constant: no waiting for the device
            path.step(gradient)
            if check_every is not None and iteration % check_every == 0:
                total = float((distance + c * values).sum())
                if total > 0.9999 * checked:
                    break
                checked = total
        if not finite:
            raise FloatingPointError("a gradient is NaN or infinite: an attack along it goes nowhere.")
        upper = torch.where(found, torch.minimum(upper, c), upper)
        lower = torch.where(found, lower, torch.maximum(lower, c))
        c = torch.where(upper < torch.inf, (lower + upper) / 2, 10 * c)
    # the smoothing of arctanh may leave the box by a millionth of its width
    return torch.minimum(torch.maximum(best, low), high), best_distance < torch.inf


#: settings of a search that are those of the attack
_SETTINGS = ("learning_rate", "binary_search_steps", "max_iter", "initial_const", "optimizer")


class CarliniL2(BaseAttack):
    """
    The L2 attack of Carlini and Wagner: the smallest perturbation that is taken for another class, by

    `minimise ||x' - x||^2 + c max(a_y - max_{k != y} a_k + confidence, 0)`

    with logits a and a search for the constant c (:func:`carlini_search`). A targeted attack has
    `max_{k != t} a_k - a_t` for the difference. Where no example is found the input is returned.

    Adam in the space of arctanh is the authors' way. A pixel at the border of the box must first leave it: from 0 or 1
    the way to the middle is 7.25 in that space, so `max_iter * learning_rate` must be about as much. With fewer or
    shorter steps, as in the PC paper (100 of 0.001), the share of images left tells how hard the optimisation is and
    not how robust the network. FISTA, in the space of the inputs, finds an example more often in as many steps. ART's
    own attack of that name goes along the gradient with a line search, and hardly moves on images that are black and
    white.

    | Paper link: https://arxiv.org/abs/1608.04644
    | Paper link: https://arxiv.org/abs/1709.04114 (FISTA)
    """

    _estimator_requirements = (PyTorchClassifier,)

    def __init__(
        self,
        classifier: PyTorchClassifier,
        confidence: float = 0.0,
        targeted: bool = False,
        learning_rate: float = 0.1,
        binary_search_steps: int = 9,
        max_iter: int = 100,
        initial_const: float = 1.0,
        optimizer: str = "adam",
        abort_early: bool = False,
        batch_size: int = 128,
        verbose: bool = True,
    ) -> None:
        """
        Create a :class:`.CarliniL2` instance.

        :param classifier: A trained classifier.
        :param confidence: By how much the logit of the class that is found must lead, from 0.
        :param targeted: Whether `y` are classes to be reached, instead of classes to be left.
        :param learning_rate: Learning rate: Adam's in the space of arctanh, FISTA's in that of the inputs.
        :param binary_search_steps: Number of constants c that are tried.
        :param max_iter: Steps for each c.
        :param initial_const: The first c.
        :param optimizer: "adam" or "fista".
        :param abort_early: Whether a tenth of the steps without progress of the whole batch ends those of a c.
        :param batch_size: Images that are attacked at once.
        :param verbose: Show progress bars.
        """
        super().__init__(estimator=classifier)
        self._keep(locals())

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """
        Generate adversarial samples and return them in an array.

        :param x: Inputs (N, ...), in the box of the classifier's clip values; without one the box is that of x.
        :param y: Classes, as indices (N,) or one-hot (N, K): the true ones, or for a targeted attack those to be
               reached. None for the classifier's own predictions.
        :param kwargs: No effect, but a `mask` is refused.
        :return: Adversarial samples of the shape of x, float32; the input where none was found.
        :raises ValueError: For a targeted attack without `y`, or inputs or labels that do not fit.
        :raises FloatingPointError: When a gradient is NaN or infinite.
        """
        x, labels = self._checked(x, y, kwargs)
        if labels is None:
            labels = self.estimator.predict(x, batch_size=self.batch_size).argmax(axis=1)
        low, high = (x.min(), x.max()) if self.estimator.clip_values is None else self.estimator.clip_values
        x_adv = np.array(x, dtype=ART_NUMPY_DTYPE)
        network = Network(self.estimator)
        device = network.view.device
        with network.view.crafting(), torch.enable_grad():
            for first in trange(0, len(x), self.batch_size, desc="C&W", disable=not self.verbose):
                part = slice(first, first + self.batch_size)
                clean = torch.tensor(x_adv[part], device=device)
                found, reached = carlini_search(
                    self._goal(network, torch.as_tensor(labels[part], device=device)),
                    clean,
                    torch.as_tensor(low).to(clean),
                    torch.as_tensor(high).to(clean),
                    **{name: getattr(self, name) for name in _SETTINGS},
                    check_every=max(1, self.max_iter // 10) if self.abort_early else None,
                )
                some = reached.cpu().numpy()
                x_adv[part][some] = found.cpu().numpy()[some]
        return x_adv

    def _goal(self, network: Network, labels: torch.Tensor) -> Goal:
        def behind(logits: torch.Tensor) -> torch.Tensor:
            return margin(logits, labels) * (1 if self.targeted else -1)

        def goal(x_adv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            logits, values, gradient = network.gradients(x_adv, lambda a: lead_term(behind(a), self.confidence)[0])
            return values, gradient, lead_term(behind(logits), self.confidence)[1]

        return goal

    def _check_params(self) -> None:
        super()._check_params()
        self._check(number, "learning_rate initial_const")
        self._check(whole, "binary_search_steps max_iter")
        check_name("optimizer", self.optimizer, OPTIMIZERS)
        self._check(number, "confidence", ends="[)")
        self._check(switch, "abort_early")
