"""
Prediction and training: ART's class and trainers, ours, and loops written by hand.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from art_mmc.bench.contest import ART, BY_HAND, OURS, Check, Contest, Settings
from art_mmc.bench.subjects import (
    BATCH,
    SHAPES,
    TITLES,
    art_classifier,
    images,
    network,
    optimizer,
    our_classifiers,
    pgd_steps,
)
from art_mmc.classifiers import create_classifier
from art_mmc.comparison import ORDER
from art_mmc.evaluation.engine import seeded


def predict_contest(samples: int, settings: Settings) -> Contest:
    """
    :param samples: Images to predict.
    :param settings: How to measure.
    :return: `predict` of ART's class and of ours.
    """
    backbone = "lenet5"
    samples = settings.size(samples, 20)
    x, _ = images(SHAPES[backbone], samples)
    theirs = art_classifier(network(backbone, settings), backbone, settings)
    classifiers = {ART: theirs, **our_classifiers(theirs, settings)}

    def contender(classifier: Any) -> Callable[[], np.ndarray]:
        return lambda: classifier.predict(x, batch_size=BATCH)

    return Contest(
        {who: contender(classifier) for who, classifier in classifiers.items()},
        note=f"{TITLES[backbone]}, {samples} images, batch {BATCH}",
        check=Check("mean of the largest logit", _largest, close=0.001, gross=0.05, relative=True),
    )


def _largest(logits: np.ndarray) -> float:
    return float(logits.max(axis=1).mean())


def fit_contest(samples: int, settings: Settings) -> Contest:
    """
    :param samples: Images in the epoch.
    :param settings: How to measure.
    :return: One epoch of `fit` of ART's class, of ours, and of a loop written by hand, each on a network of its own.
    """
    backbone = "lenet5"
    samples = settings.size(samples, 20)
    x, y = images(SHAPES[backbone], samples)
    net = network(backbone, settings)
    theirs = art_classifier(net, backbone, settings)
    (ours,) = our_classifiers(art_classifier(copy.deepcopy(net), backbone, settings), Settings()).values()
    hand_net = copy.deepcopy(net).to(theirs.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    hand_optimizer = optimizer(hand_net)

    def by_hand() -> None:
        hand_net.train()
        x_all, y_all = torch.from_numpy(x).to(theirs.device), torch.from_numpy(y).to(theirs.device)
        for index in torch.randperm(samples, device=theirs.device).split(BATCH):
            hand_optimizer.zero_grad()
            batch = x_all[index].contiguous(memory_format=torch.channels_last)
            functional.cross_entropy(hand_net(batch), y_all[index]).backward()
            hand_optimizer.step()

    def fit(classifier: Any) -> Callable[[], None]:
        return lambda: classifier.fit(x, y, batch_size=BATCH, nb_epochs=1)

    return Contest(
        {ART: _repeatable(fit(theirs)), OURS: _repeatable(fit(ours)), BY_HAND: _repeatable(by_hand)},
        note=f"{TITLES[backbone]}, one epoch of {samples} images, batch {BATCH}, SGD with momentum",
    )


def _repeatable(run: Callable[[], object]) -> Callable[[], None]:
    """With the same order of the images each time; the user's random states stay, and ART's progress bars unseen."""

    def seeded_run() -> None:
        with seeded(0), redirect_stderr(io.StringIO()):
            run()

    return seeded_run


def adversarial_training_contest(settings: Settings) -> Contest:
    """
    :param settings: How to measure.
    :return: One epoch of PGD adversarial training by ART's AdversarialTrainerMadryPGD, by this package's trainer in
             float32 and in bfloat16, and by a minimal loop that does the same work in the same memory format.
    """
    from art.defences.trainer import AdversarialTrainerMadryPGD

    from art_mmc.trainers import PGD

    backbone, steps = "resnet20", settings.size(7, 1)
    samples = settings.size(256, 4)
    batch_size = min(samples, BATCH)
    x, y = images(SHAPES[backbone], samples)
    eps, step_size = 8 / 255, 2 / 255
    stock = art_classifier(network(backbone, settings), backbone, settings)
    madry = AdversarialTrainerMadryPGD(
        stock, nb_epochs=1, batch_size=batch_size, eps=eps, eps_step=step_size, max_iter=steps, num_random_init=1
    )
    hand_net = network(backbone, settings).to(stock.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    hand_optimizer = optimizer(hand_net)

    def by_hand() -> None:
        x_all, y_all = torch.from_numpy(x).to(stock.device), torch.from_numpy(y).to(stock.device)
        for index in torch.randperm(samples, device=x_all.device).split(batch_size):
            clean = x_all[index].contiguous(memory_format=torch.channels_last)
            labels = y_all[index]
            hand_net.eval()
            hand_net.requires_grad_(False)
            adversarial = pgd_steps(hand_net, clean, labels, eps, step_size, steps)
            hand_net.train()
            hand_net.requires_grad_(True)
            hand_optimizer.zero_grad()
            functional.cross_entropy(hand_net(adversarial), labels).backward()
            hand_optimizer.step()

    one_hot = np.eye(10, dtype=np.float32)[y]
    attack = PGD(eps, steps=steps, step_size=step_size)
    contenders: dict[str, Callable[[], object]] = {
        f"{ART} AdversarialTrainerMadryPGD": lambda: madry.fit(x, one_hot, nb_epochs=1),
        OURS: _our_trainer(backbone, attack, "float32", x, y, batch_size, settings),
        f"{BY_HAND}, channels last": by_hand,
        f"{OURS}, bfloat16": _our_trainer(backbone, attack, "bfloat16", x, y, batch_size, settings),
    }
    return Contest(
        {who: _repeatable(run) for who, run in contenders.items()},
        note=f"{TITLES[backbone]}, one epoch of {samples} images, batch {batch_size}, PGD with {steps} steps",
    )


def trades_contest(settings: Settings) -> Contest:
    """
    :param settings: How to measure.
    :return: One epoch of TRADES by ART's trainer and by this package's.
    """
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainerTRADESPyTorch

    from art_mmc.trainers import TRADES

    backbone, steps = "lenet5", settings.size(7, 1)
    samples = settings.size(512, 4)
    batch_size = min(samples, BATCH)
    x, y = images(SHAPES[backbone], samples)
    eps, step_size = 0.1, 0.025
    stock = art_classifier(network(backbone, settings), backbone, settings)
    inner = ProjectedGradientDescent(
        stock, eps=eps, eps_step=step_size, max_iter=steps, num_random_init=1, batch_size=batch_size, verbose=False
    )
    trainer = AdversarialTrainerTRADESPyTorch(stock, inner, beta=6.0)
    one_hot = np.eye(10, dtype=np.float32)[y]
    attack = TRADES(eps, steps=steps, step_size=step_size)
    contenders: dict[str, Callable[[], object]] = {
        f"{ART} AdversarialTrainerTRADES": lambda: trainer.fit(x, one_hot, nb_epochs=1, batch_size=batch_size),
        OURS: _our_trainer(backbone, attack, "float32", x, y, batch_size, settings),
    }
    return Contest(
        {who: _repeatable(run) for who, run in contenders.items()},
        note=f"{TITLES[backbone]}, one epoch of {samples} images, batch {batch_size}, {steps} steps; ART's climbs the "
        "cross-entropy and predicts the whole set again after each epoch, ours the divergence, as in the paper",
    )


def _our_trainer(
    backbone: str, attack: Any, precision: str, x: np.ndarray, y: np.ndarray, batch_size: int, settings: Settings
) -> Callable[[], object]:
    from art_mmc.trainers import AdversarialLossTrainer

    with seeded(0):
        classifier = create_classifier(
            "sce", backbone, input_shape=SHAPES[backbone], nb_classes=10, device_type=settings.device_type
        )
    classifier._optimizer = optimizer(classifier.model)
    trainer = AdversarialLossTrainer(classifier, attack, precision=precision, seed=0, verbose=False)
    return lambda: trainer.fit(x, y, batch_size=batch_size, nb_epochs=1)


def step_contest(backbone: str, settings: Settings) -> Contest:
    """
    :param backbone: Name of the backbone.
    :param settings: How to measure.
    :return: A training step by each of the nine losses beside one by torch's cross-entropy on the same network.
    """
    batch = settings.size(BATCH, 4)
    x, y = (torch.from_numpy(each) for each in images(SHAPES[backbone], batch))

    def step_of(defence: str, loss: nn.Module | None = None) -> tuple[str, Callable[[], object]]:
        with seeded(0):
            classifier = create_classifier(
                defence,
                backbone,
                input_shape=SHAPES[backbone],
                nb_classes=10,
                device_type=settings.device_type,
                **({} if loss is None else {"loss": loss}),
            )
        classifier._optimizer = optimizer(classifier.model)
        x_device, y_device = x.to(classifier.device), y.to(classifier.device)

        def step() -> None:
            with classifier.training():
                classifier.train_batch(x_device, y_device)

        network: Any = classifier.model
        added = "" if isinstance(network.projection, nn.Identity) else " behind a linear layer"
        return type(network.head).__name__ + added, step

    heads = {}
    steps = {}
    for defence in ORDER:
        heads[defence], steps[defence] = step_of(defence)
    contenders: dict[str, Callable[[], object]] = {}
    references: dict[str, str] = {}
    for head in dict.fromkeys(heads.values()):
        defences = [defence for defence in ORDER if heads[defence] == head]
        reference = f"torch cross-entropy ({head})"
        contenders[reference] = step_of(defences[0], nn.CrossEntropyLoss())[1]
        contenders |= {defence: steps[defence] for defence in defences}
        references |= dict.fromkeys((reference, *defences), reference)
    return Contest(
        contenders,
        note=f"{TITLES[backbone]}, batch {batch}, SGD with momentum; on the same network, with the defence's own head",
        asked_of=ORDER,
        repeats=settings.size(2 if backbone == "lenet5" else 1, 1),  # a difference of a few percent of 7 ms
        references=references,
    )
