"""
Attacks: ART's on ART's class and on ours, ours beside torchattacks' if that is installed, and PGD by hand.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_mmc.bench.contest import ART, BY_HAND, OURS, Check, Contest, Settings
from art_mmc.bench.subjects import BATCH, SHAPES, TITLES, art_classifier, images, network, our_classifiers, pgd_steps
from art_mmc.evaluation.engine import seeded

#: radius and step for grey and for colour images, so small that the attacks leave some: that they agree says something
_RADII = {"lenet5": (0.02, 0.005), "resnet20": (8 / 255, 2 / 255)}

STEPS = 10


def make_attack(name: str, classifier: PyTorchClassifier, backbone: str, batch_size: int, steps: int = STEPS) -> Any:
    """
    :param name: "fgsm", "pgd", "mim", "apgd", "cw", "deepfool" or "square".
    :param classifier: The classifier to attack.
    :param backbone: Name of its backbone, which decides the radius.
    :param batch_size: Samples that are attacked at once.
    :param steps: Steps of the attack; C&W and DeepFool take half as many, Square twice as many.
    :return: ART's attack.
    """
    from art.attacks import evasion

    eps, step = _RADII[backbone]
    ball: dict[str, Any] = {"eps": eps, "eps_step": step, "batch_size": batch_size}
    quiet: dict[str, Any] = {"verbose": False}
    if name == "fgsm":
        return evasion.FastGradientMethod(classifier, **ball)
    if name == "pgd":
        return evasion.ProjectedGradientDescent(classifier, max_iter=steps, num_random_init=1, **ball, **quiet)
    if name == "mim":
        return evasion.MomentumIterativeMethod(classifier, max_iter=steps, **ball, **quiet)
    if name == "apgd":
        return evasion.AutoProjectedGradientDescent(classifier, max_iter=steps, nb_random_init=1, **ball, **quiet)
    if name == "cw":
        return evasion.CarliniL2Method(
            classifier, binary_search_steps=2, max_iter=steps // 2, initial_const=1.0, batch_size=batch_size, **quiet
        )
    if name == "deepfool":
        return evasion.DeepFool(classifier, max_iter=steps // 2, batch_size=batch_size, **quiet)
    if name == "square":
        return evasion.SquareAttack(classifier, max_iter=2 * steps, eps=eps, batch_size=batch_size, **quiet)
    raise ValueError(f"attack: expected fgsm, pgd, mim, apgd, cw, deepfool or square, got {name!r}.")


def attack_contest(name: str, backbone: str, samples: int, settings: Settings) -> Contest:
    """
    :param name: Name of the attack; see :func:`make_attack`.
    :param backbone: Name of the backbone.
    :param samples: Images to attack.
    :param settings: How to measure.
    :return: The attack on ART's class and on ours.
    """
    samples = settings.size(samples, 4)
    batch_size = min(samples, BATCH)
    x, y = images(SHAPES[backbone], samples)
    theirs = art_classifier(network(backbone, settings), backbone, settings)
    classifiers = {ART: theirs, **our_classifiers(theirs, settings)}

    def contender(classifier: PyTorchClassifier) -> Callable[[], np.ndarray]:
        attack = make_attack(name, classifier, backbone, batch_size, settings.size(STEPS, 2))

        def run() -> np.ndarray:
            with seeded(0):
                return attack.generate(x, y)

        return run

    unbounded = name in ("cw", "deepfool")
    return Contest(
        contenders={who: contender(classifier) for who, classifier in classifiers.items()},
        note=f"{TITLES[backbone]}, 10 classes, {samples} images, batch {batch_size}",
        check=distance_check(x) if unbounded else accuracy_check(theirs, y),
    )


def accuracy_check(classifier: PyTorchClassifier, y: np.ndarray) -> Check:
    """
    :param classifier: The classifier that judges.
    :param y: Labels (N,).
    :return: The robust accuracy, which has to be the same to within 0.2 points.
    """

    def accuracy(x_adv: np.ndarray) -> float:
        return 100 * float((classifier.predict(x_adv).argmax(axis=1) == y).mean())

    return Check("robust accuracy, %", accuracy, close=0.2, gross=10.0)


def distance_check(x: np.ndarray) -> Check:
    """
    :param x: The images (N, C, H, W).
    :return: The mean distance of the adversarial examples, for attacks without a radius.
    """

    def distance(x_adv: np.ndarray) -> float:
        return float(np.linalg.norm((x_adv - x).reshape(len(x), -1), axis=1).mean())

    return Check("mean L2 distance", distance, close=0.02, gross=0.5, relative=True)


def pgd_by_hand(
    net: nn.Module,
    x: np.ndarray,
    y: np.ndarray,
    backbone: str,
    steps: int,
    layout: torch.memory_format,
    device: torch.device,
) -> Callable[[], np.ndarray]:
    """
    PGD as short as it can be written: no gradients of weights, no check, no copy that is not needed.

    :param net: The network; a copy of it runs.
    :param x: Images (N, C, H, W).
    :param y: Labels (N,).
    :param backbone: Name of the backbone.
    :param steps: Steps of the attack.
    :param layout: Memory format of weights and images.
    :param device: The device.
    :return: A function that attacks and gives the adversarial examples (N, C, H, W).
    """
    frozen: Any = copy.deepcopy(net).to(device).eval().requires_grad_(False)
    frozen = frozen.to(memory_format=layout)
    eps, step = _RADII[backbone]

    def run() -> np.ndarray:
        done = []
        for clean, labels in zip(torch.from_numpy(x).split(BATCH), torch.from_numpy(y).split(BATCH), strict=True):
            clean, labels = clean.to(device).contiguous(memory_format=layout), labels.to(device)
            done.append(pgd_steps(frozen, clean, labels, eps, step, steps).contiguous())
        return torch.cat(done).cpu().numpy()

    return run


def by_hand_contest(backbone: str, samples: int, settings: Settings) -> Contest:
    """
    :param backbone: Name of the backbone.
    :param samples: Images to attack.
    :param settings: How to measure.
    :return: ART's PGD on our class beside a hand-written loop in the memory format that suits it better here.
    """
    samples, steps = settings.size(samples, 4), settings.size(STEPS, 2)
    x, y = images(SHAPES[backbone], samples)
    net = network(backbone, settings)
    theirs = art_classifier(net, backbone, settings)
    loops = {
        "contiguous": pgd_by_hand(net, x, y, backbone, steps, torch.contiguous_format, theirs.device),
        "channels last": pgd_by_hand(net, x, y, backbone, steps, torch.channels_last, theirs.device),
    }
    seconds = dict.fromkeys(loops, float("inf"))
    for _ in range(3):
        for layout, loop in loops.items():
            start = time.perf_counter()
            loop()  # ends on the CPU: nothing is left to wait for
            seconds[layout] = min(seconds[layout], time.perf_counter() - start)
    best = min(seconds, key=lambda layout: seconds[layout])

    def contender(classifier: PyTorchClassifier) -> Callable[[], np.ndarray]:
        attack = make_attack("pgd", classifier, backbone, BATCH, steps)

        def run() -> np.ndarray:
            with seeded(0):
                return attack.generate(x, y)

        return run

    ours = {who: contender(classifier) for who, classifier in our_classifiers(theirs, settings).items()}
    return Contest(
        contenders={f"{BY_HAND}, {best}": loops[best], **ours},
        note=f"{TITLES[backbone]}, {samples} images, batch {min(samples, BATCH)}; ART's attack ends with a prediction "
        "of the images before and after it, which the loop does without",
        check=accuracy_check(theirs, y),
    )


def spsa_contest(samples: int, settings: Settings) -> Contest:
    """
    :param samples: Images to attack.
    :param settings: How to measure.
    :return: Our SPSA on our class beside torchattacks' if that is installed.
    """
    from art_mmc.attacks import SPSA

    samples, steps = settings.size(samples, 2), settings.size(5, 1)
    backbone, eps = "lenet5", _RADII["lenet5"][0]
    x, y = images(SHAPES[backbone], samples)
    net = network(backbone, settings)
    theirs = art_classifier(net, backbone, settings)
    contenders: dict[str, Callable[[], Any]] = {}
    if importlib.util.find_spec("torchattacks") is not None:
        import torchattacks  # type: ignore[import-not-found, unused-ignore]

        other = torchattacks.SPSA(net, eps=eps, delta=0.01, lr=0.01, nb_iter=steps, nb_sample=128, max_batch_size=64)
        x_all, y_all = torch.from_numpy(x), torch.from_numpy(y)
        contenders["torchattacks"] = lambda: other(x_all, y_all).cpu().numpy()
    for who, classifier in our_classifiers(theirs, settings).items():
        attack = SPSA(
            classifier,
            eps=eps,
            learning_rate=0.01,
            max_iter=steps,
            nb_samples=128,
            random_start=False,
            early_stop=False,
            seed=0,
            verbose=False,
        )
        contenders[who] = partial(attack.generate, x, y)
    note = f"{TITLES[backbone]}, {samples} images, {steps} steps of 128 samples, all steps gone"
    alone = "" if "torchattacks" in contenders else "; torchattacks is not installed"
    return Contest(contenders, note + alone, asked_of=(OURS,) if "torchattacks" in contenders else ())
