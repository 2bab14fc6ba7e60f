"""
Small networks for the tests of the evaluation: honest ones, and planted defences that only look robust.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_mmc import create_classifier, load_dataset
from art_mmc.evaluation import AttackPlan, RobustnessEvaluation, RobustnessRecord
from art_mmc.state import seeded
from art_mmc.trainers import PGD, AdversarialLossTrainer

SHAPE = (1, 8, 8)


class Linear(nn.Module):
    """A linear classifier of flat inputs, which has no layer that the positive control could replace."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight.astype(np.float32)))
        self.bias = nn.Parameter(torch.from_numpy(bias.astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.flatten(1), self.weight, self.bias)


class Backbone(nn.Module):
    """Two layers, 64 -> 128 -> 128."""

    out_features = 128

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 128), nn.Linear(128, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x.flatten(1)))))


class Around(nn.Module):
    """A network with something before it and something behind it."""

    def __init__(
        self,
        network: nn.Module,
        before: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
        behind: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.network, self.before, self.behind = network, before, behind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.behind(self.network(self.before(x)))


def linear(weight: np.ndarray, bias: Any = 0.0, cls: type = PyTorchClassifier, **settings: Any) -> Any:
    """Logits W x + b, in ART's own class unless told."""
    return plain(Linear(weight, bias + np.zeros(len(weight))), cls, **{"nb_classes": len(weight), **settings})


def furthest(x: np.ndarray, w: np.ndarray, eps: float, norm: float, box: tuple[float, float] | None) -> np.ndarray:
    """
    The largest rise of w x in the ball about x and in the box, (N,). In L-inf each coordinate goes eps far or to the
    wall; in L2 the solution of the optimality conditions is t w, cut off at the walls, with t such that it is eps long.
    """
    low, high = (-np.inf, np.inf) if box is None else box
    flat = x.reshape(len(x), -1).astype(np.float64)
    least, most = low - flat, high - flat
    if norm == math.inf:
        return np.clip(eps * np.sign(w), least, most) @ w
    small, large = np.zeros((len(flat), 1)), np.full((len(flat), 1), 1e6)
    for _ in range(200):
        middle = (small + large) / 2
        long = np.linalg.norm(np.clip(middle * w, least, most), axis=1, keepdims=True) > eps
        small, large = np.where(long, small, middle), np.where(long, middle, large)
    return np.clip(small * w, least, most) @ w


class Hidden(torch.autograd.Function):
    """The identity, whose gradient is what is asked for: zero, or NaN."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: float) -> torch.Tensor:
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.full_like(grad, ctx.value), None


class Memory(nn.Module):
    """A network that answers what is near an earlier question as it answered that, with the gradient of the network."""

    def __init__(self, network: nn.Module, radius: float) -> None:
        super().__init__()
        self.network, self.radius = network, radius
        self.asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        live = self.network(x)
        answers = live.detach().clone()
        known = torch.zeros(len(x), dtype=torch.bool)
        for questions, replies in self.asked:
            distance = torch.cdist(x.detach().flatten(1), questions.flatten(1), p=math.inf)
            nearest = distance.min(dim=1)
            near = (nearest.values <= self.radius) & ~known
            answers[near] = replies[nearest.indices[near]]
            known |= near
        if not known.all() and len(self.asked) < 3:
            self.asked.append((x.detach()[~known].clone(), live.detach()[~known].clone()))
        return live + (answers - live).detach()


class OneHotWithNoise(nn.Module):
    """The decision alone, and a little of a linear function that has nothing to do with it."""

    def __init__(self, network: nn.Module, noise: float = 1e-2) -> None:
        super().__init__()
        self.network, self.noise = network, noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        size, k = x[0].numel(), logits.shape[1]
        weights = torch.randn(size, k, generator=torch.Generator().manual_seed(0)) / size**0.5
        return nn.functional.one_hot(logits.argmax(dim=1), k).float() + self.noise * x.flatten(1) @ weights


class Nearest(nn.Module):
    """The network on the nearest training image, with the gradient as if it were on the input itself."""

    def __init__(self, network: nn.Module, images: np.ndarray) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("images", torch.from_numpy(images))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(x.detach().flatten(1), self.images.flatten(1)).argmin(dim=1)
        return self.network(x + (self.images[nearest] - x).detach())


@cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels for training, and 100 each for tests, read-only."""
    data = load_dataset("digits")
    x, y = data.x_test[:100].copy(), data.y_test[:100].copy()
    x.setflags(write=False)
    y.setflags(write=False)
    return data.x_train, data.y_train, x, y


def create(defence: str = "sce", **options: Any) -> Any:
    with seeded(0):
        return create_classifier(defence, Backbone(), input_shape=SHAPE, nb_classes=10, device_type="cpu", **options)


@cache
def taught(defence: str = "sce", nb_epochs: int = 20, **options: Any) -> Any:
    """A network after plain training. Not to be changed."""
    x, y, _, _ = digits()
    classifier = create(defence, **options)
    with seeded(0):
        classifier.fit(x, y, nb_epochs=nb_epochs, batch_size=64)
    return classifier


def undefended() -> Any:
    """Falls with eps as honest networks do. Not to be changed."""
    return taught()


@cache
def adversarially_trained() -> Any:
    """Keeps about 80 % at eps 0.1. Not to be changed."""
    x, y, _, _ = digits()
    classifier = create()
    trainer = AdversarialLossTrainer(classifier, PGD(0.1, steps=5, step_size=1 / 30), seed=0, verbose=False)
    trainer.fit(x, y, nb_epochs=20, batch_size=64)
    return classifier


def plain(network: nn.Module, cls: type[PyTorchClassifier] = PyTorchClassifier, **settings: Any) -> PyTorchClassifier:
    """ART's own class, as a user of ART has it."""
    settings = {"loss": nn.CrossEntropyLoss(), "input_shape": SHAPE, "nb_classes": 10, **settings}
    return cls(network, clip_values=settings.pop("clip_values", (0.0, 1.0)), device_type="cpu", **settings)


def around(before: Any = None, behind: Any = None, network: nn.Module | None = None) -> PyTorchClassifier:
    """The undefended network, planted into something that masks its gradients."""
    hiding = {name: value for name, value in (("before", before), ("behind", behind)) if value is not None}
    return plain(Around(network or undefended().model, **hiding))


def evaluated(
    plans: str | list[AttackPlan], classifier: Any = None, n: int | None = None, **settings: Any
) -> RobustnessRecord:
    """What plans or a suite find on the first n test images; on the undefended network, undiagnosed, unless told."""
    _, _, x, y = digits()
    evaluation = RobustnessEvaluation(plans, **{"diagnostics": False, "verbose": False, **settings})
    return evaluation.evaluate(classifier or undefended(), x[:n], y[:n])
