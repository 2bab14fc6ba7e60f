"""
What is measured on: networks as a user would write them, made-up images of several classes, ART's class and ours on the
same weights.
"""

import copy
import io
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn
from torch.nn import functional

from art_mmc.bench.measure import ART, OURS, Settings
from art_mmc.classifiers.accelerate import accelerate
from art_mmc.models import create_backbone
from art_mmc.state import seeded

#: backbone -> shape of its inputs, those of MNIST and of CIFAR
SHAPES = {"lenet5": (1, 28, 28), "resnet20": (3, 32, 32)}

#: backbone -> its name and its inputs in words
TITLES = {"lenet5": "LeNet-5, 1x28x28", "resnet20": "ResNet-20, 3x32x32"}

BATCH = 128


class Plain(nn.Module):
    """A backbone (B, C, H, W) -> (B, d) and a linear layer, as a user would write it."""

    def __init__(self, backbone: Any, nb_classes: int = 10) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.out_features, nb_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        return self.fc(self.backbone(x))


def images(shape: tuple[int, int, int], samples: int, nb_classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W), float32 in [0, 1], of a coarse pattern a class under noise; labels (N,), in turn."""
    rng = np.random.default_rng(0)
    channels, height, width = shape
    coarse = rng.random((nb_classes, channels, 4, 4), dtype=np.float32)
    patterns = coarse.repeat(-(-height // 4), axis=2).repeat(-(-width // 4), axis=3)[..., :height, :width]
    y = np.arange(samples) % nb_classes
    x = rng.random((samples, *shape), dtype=np.float32)
    for part in range(0, samples, 1000):  # no second array of this size
        mixed = x[part : part + 1000]
        mixed *= 0.7
        mixed += 0.3 * patterns[y[part : part + 1000]]
    return x, y


@lru_cache(maxsize=8)
def _trained(backbone: str, nb_classes: int, steps: int) -> nn.Module:
    with seeded(0):
        net = Plain(create_backbone(backbone, SHAPES[backbone]), nb_classes)
        x, y = (torch.from_numpy(each) for each in images(SHAPES[backbone], 64 * max(steps, 1), nb_classes))
        adam = torch.optim.Adam(net.parameters(), lr=2e-3)
        for index in torch.randperm(len(x)).split(64)[:steps]:
            adam.zero_grad()
            functional.cross_entropy(net(x[index]), y[index]).backward()
            adam.step()
    return net.eval()


def network(backbone: str, settings: Settings, nb_classes: int = 10) -> nn.Module:
    """A network in evaluation mode, always of the same weights: a few steps on :func:`images` leave something to do."""
    return copy.deepcopy(_trained(backbone, nb_classes, settings.size(60, 2) if settings.trained else 0))


def repeatable(run: Callable[[], Any]) -> Callable[[], Any]:
    """With the same random numbers each time; the user's random states stay, and ART's progress bars unseen."""

    def seeded_run() -> Any:
        with seeded(0), redirect_stderr(io.StringIO()):
            return run()

    return seeded_run


def optimizer(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)


def art_classifier(net: nn.Module, backbone: str, settings: Settings, nb_classes: int = 10) -> PyTorchClassifier:
    return PyTorchClassifier(
        net,
        nn.CrossEntropyLoss(),
        SHAPES[backbone],
        nb_classes,
        optimizer=optimizer(net),
        clip_values=(0.0, 1.0),
        device_type=settings.device_type,
    )


def classifiers(backbone: str, settings: Settings, nb_classes: int = 10) -> dict[str, Any]:
    """ART's classifier and ours, in the ways of computing that are asked for, on one network, by contender."""
    theirs = art_classifier(network(backbone, settings, nb_classes), backbone, settings, nb_classes)
    ways: dict[str, dict[str, Any]] = {OURS: {}}
    if settings.bfloat16:
        ways[f"{OURS}, bfloat16"] = {"arithmetic": "bfloat16"}
    if settings.compile:
        ways |= {f"{name}, compiled": {**options, "compile": True} for name, options in ways.items()}
    return {ART: theirs, **{name: accelerate(theirs, **options) for name, options in ways.items()}}


def pgd_steps(net: nn.Module, clean: Tensor, labels: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """PGD on the cross-entropy from a random start, as short as it can be, of images (B, C, H, W) in [0, 1]."""
    low, high = (clean - eps).clamp_(0, 1), (clean + eps).clamp_(0, 1)
    adversarial = torch.empty_like(clean).uniform_(-eps, eps).add_(clean).clamp_(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_(True)
        (grad,) = torch.autograd.grad(functional.cross_entropy(net(adversarial), labels), adversarial)
        adversarial = adversarial.detach().add_(grad.sign_(), alpha=step_size).clamp_(low, high)
    return adversarial
