"""
Speed, measured on the user's machine: each job beside what it replaces, alternating, in one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from art.defences.trainer import AdversarialTrainerMadryPGD
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_mmc.classifiers import SoftmaxClassifier
from art_mmc.models import create_backbone
from art_mmc.trainers import PGD, AdversarialLossTrainer


@dataclass(frozen=True)
class Timing:
    """
    One contender's time for one job.

    :param job: What was done.
    :param contender: Who did it.
    :param seconds: Median over the rounds.
    :param least: Smallest time.
    :param most: Largest time.
    :param ratio: Median over the rounds of this time by the reference's time in the same round.
    :param reference: Whose time it is divided by.
    """

    job: str
    contender: str
    seconds: float
    least: float
    most: float
    ratio: float
    reference: str

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        return asdict(self)


def alternate(
    job: str, contenders: dict[str, Callable[[], object]], rounds: int, on_round: Callable[[], object] | None = None
) -> list[Timing]:
    """
    Time contenders in turn, so that whatever else the machine does falls on all of them; one round to warm up first.

    :param job: What is done.
    :param contenders: Name -> the job; the first is the reference of the ratios.
    :param rounds: Rounds that count, at least 1.
    :param on_round: Called after each round.
    :return: One timing a contender.
    """
    if rounds < 1:
        raise ValueError(f"rounds: expected a whole number of at least 1, got {rounds}.")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        if on_round is not None:
            on_round()
    counted = {name: values[1:] for name, values in times.items()}
    reference = next(iter(contenders))
    return [
        Timing(
            job=job,
            contender=name,
            seconds=statistics.median(values),
            least=min(values),
            most=max(values),
            ratio=statistics.median(a / b for a, b in zip(values, counted[reference], strict=True)),
            reference=reference,
        )
        for name, values in counted.items()
    ]


def bench_adversarial_training(
    samples: int = 256,
    batch_size: int = 128,
    steps: int = 7,
    rounds: int = 5,
    device_type: str = "cpu",
    on_round: Callable[[], object] | None = None,
) -> list[Timing]:
    """
    One epoch of PGD adversarial training of ResNet-20 on CIFAR shapes: ART's AdversarialTrainerMadryPGD, this package's
    trainer in float32 and in bfloat16, and a minimal hand-written PyTorch loop that does the same work in the same
    memory format.

    :param samples: Images in the epoch.
    :param batch_size: Images in one step.
    :param steps: Steps of the attack.
    :param rounds: Rounds that count.
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :param on_round: Called after each round.
    :return: One timing a contender; the reference is ART.
    """
    rng = np.random.default_rng(0)
    x = rng.random((samples, 3, 32, 32), dtype=np.float32)
    y = rng.integers(0, 10, samples)
    eps, step_size = 8 / 255, 2 / 255

    def optimizer(net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def network() -> nn.Module:
        return Plain(create_backbone("resnet20", (3, 32, 32)))

    def synchronised(run: Callable[[], object]) -> Callable[[], object]:
        def timed() -> None:
            run()
            if device_type != "cpu" and torch.cuda.is_available():
                torch.cuda.synchronize()

        return timed

    stock_net = network()
    stock = PyTorchClassifier(
        stock_net,
        nn.CrossEntropyLoss(),
        (3, 32, 32),
        10,
        optimizer=optimizer(stock_net),
        clip_values=(0.0, 1.0),
        device_type=device_type,
    )
    madry = AdversarialTrainerMadryPGD(
        stock, nb_epochs=1, batch_size=batch_size, eps=eps, eps_step=step_size, max_iter=steps, num_random_init=1
    )

    def ours(precision: str) -> Callable[[], object]:
        classifier = SoftmaxClassifier(
            create_backbone("resnet20", (3, 32, 32)), input_shape=(3, 32, 32), nb_classes=10, device_type=device_type
        )
        classifier._optimizer = optimizer(classifier.model)
        attack = PGD(eps, steps=steps, step_size=step_size)
        trainer = AdversarialLossTrainer(classifier, attack, precision=precision, seed=0, verbose=False)
        return lambda: trainer.fit(x, y, batch_size=batch_size, nb_epochs=1)

    hand_net = network().to(stock.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    hand_optimizer = optimizer(hand_net)

    def by_hand() -> None:
        x_all, y_all = torch.from_numpy(x).to(stock.device), torch.from_numpy(y).to(stock.device)
        for index in torch.randperm(samples, device=x_all.device).split(batch_size):
            clean = x_all[index].contiguous(memory_format=torch.channels_last)
            labels = y_all[index]
            hand_net.eval()
            adversarial = (clean + torch.empty_like(clean).uniform_(-eps, eps)).clamp(0, 1)
            for _ in range(steps):
                adversarial.requires_grad_(True)
                loss = nn.functional.cross_entropy(hand_net(adversarial), labels)
                (grad,) = torch.autograd.grad(loss, adversarial)
                adversarial = (
                    (adversarial.detach() + step_size * grad.sign()).clamp(clean - eps, clean + eps).clamp(0, 1)
                )
            hand_net.train()
            hand_optimizer.zero_grad()
            nn.functional.cross_entropy(hand_net(adversarial), labels).backward()
            hand_optimizer.step()

    contenders: dict[str, Callable[[], object]] = {
        "ART AdversarialTrainerMadryPGD": lambda: madry.fit(x, np.eye(10, dtype=np.float32)[y], nb_epochs=1),
        "art_mmc, float32": ours("float32"),
        "hand-written loop, float32, channels last": by_hand,
        "art_mmc, bfloat16": ours("bfloat16"),
    }
    job = f"adversarial training, PGD-{steps}, ResNet-20, {samples} images of 3x32x32, batch {batch_size}"
    timed = {name: synchronised(run) for name, run in contenders.items()}
    return alternate(job, timed, rounds, on_round)


class Plain(nn.Module):
    """
    A backbone and a linear layer, as a user would write it.

    :param backbone: Module (B, C, H, W) -> (B, d) with `out_features`.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.out_features, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: Inputs (B, C, H, W).
        :return: Logits (B, 10).
        """
        return self.fc(self.backbone(x))
