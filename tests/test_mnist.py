"""Runs on the real MNIST, minutes each: `ART_MMC_DATA=<folder with MNIST/raw> pytest -m slow tests/test_mnist.py`."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent

from art_mmc import create_classifier, create_trainer, load_dataset
from art_mmc.trainers import PGD, AdversarialLossTrainer

DATA = os.environ.get("ART_MMC_DATA", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir(os.path.join(DATA, "MNIST", "raw")), reason="ART_MMC_DATA has no MNIST/raw"),
]


@pytest.fixture(scope="module")
def mnist():
    return load_dataset("mnist", DATA)


def lenet5(defence):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_classifier(defence, "lenet5", input_shape=(1, 28, 28), nb_classes=10)


def accuracy(classifier, x, y):
    return float((classifier.predict(x).argmax(axis=1) == y).mean())


@pytest.mark.parametrize(
    ("defence", "recipe"), [("sce", "chen2019-mnist"), ("mmc", "pang2019-mnist"), ("pc", "li2021-mnist")]
)
def test_clean_accuracy_by_recipe(defence, recipe, mnist):
    classifier = lenet5(defence)
    create_trainer(classifier, recipe, seed=0, verbose=False).fit(mnist.x_train, mnist.y_train)
    assert accuracy(classifier, mnist.x_test, mnist.y_test) >= 0.99
    if defence == "sce":
        # 49.0 in the cross-entropy column of the PC paper's Table 1, PGD with 40 steps of 0.01 at eps 0.1
        attack = ProjectedGradientDescent(
            classifier, eps=0.1, eps_step=0.01, max_iter=40, num_random_init=1, batch_size=500, verbose=False
        )
        np.random.seed(0)
        with classifier.using_objective("loss"):
            x_adv = attack.generate(mnist.x_test, mnist.y_test)
        assert abs(accuracy(classifier, x_adv, mnist.y_test) - 0.49) <= 0.06


@pytest.mark.parametrize("defence", ["sce", "mmc"])
def test_adversarial_training_on_part_of_mnist(defence, mnist):
    """A small version of the recorded runs: 10,000 images, 10 steps, 8 epochs, eps 0.3."""
    classifier = lenet5(defence)
    trainer = AdversarialLossTrainer(
        classifier, PGD(0.3, steps=10, step_size=0.05), eps_warmup=4, seed=0, verbose=False
    )
    trainer.fit(mnist.x_train[:10000], mnist.y_train[:10000], nb_epochs=8, batch_size=100)
    assert trainer.robust_accuracy(mnist.x_test[:1000], mnist.y_test[:1000]) > 0.5
