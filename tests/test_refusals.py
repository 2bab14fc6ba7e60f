"""What a user gives wrongly is refused where it enters, by name: one table for the doors of the package in Python."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from art.defences.postprocessor import HighConfidence, ReverseSigmoid, Rounded
from torch import nn

from art_mmc import LossDefendedClassifier, create_classifier
from art_mmc.data import split_validation
from art_mmc.evaluation import RobustnessEvaluation, evaluate_robustness
from art_mmc.models import wrap_backbone
from art_mmc.trainers import FGSM, PGD, AdversarialLossTrainer, LossTrainer

X, Y = np.random.default_rng(0).uniform(size=(20, 1, 8, 8)).astype(np.float32), np.arange(20) % 10
EYE = np.eye(10, dtype=np.float32)[Y]
NAN = math.nan


def net(width: int = 32, *after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), *after)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net(10)

    def forward(self, x):
        return self.net(x), x


def make(name: str = "mmc", backbone: nn.Module | None = None, **settings):
    settings = {"input_shape": (1, 8, 8), "nb_classes": 10, "device_type": "cpu", **settings}
    return create_classifier(name, net(32, nn.ReLU()) if backbone is None else backbone, **settings)


def base(network: nn.Module | None = None, **settings):
    network = net(10) if network is None else network
    return LossDefendedClassifier(network, nn.CrossEntropyLoss(), (1, 8, 8), 10, device_type="cpu", **settings)


def trainer(**settings):
    return LossTrainer(make(), verbose=False, **{"seed": 0, **settings})


def evaluation(**settings):
    return RobustnessEvaluation(**{"suite": "quick", "eps": 0.1, "verbose": False, **settings})


#: the call, and how its message begins
REFUSED = [
    *(
        (lambda given=given: make(**given), message)
        for given, message in [
            ({"mean": NAN}, "mean: expected finite numbers, got nan"),
            ({"mean": (0.1, 0.2)}, "mean: expected one number, 1, one a channel, or an array of the inputs' shape"),
            ({"mean": "grey"}, "mean: expected a number, or one a channel, got 'grey'"),
            ({"std": (1.0, 1.0)}, "std: expected one number"),
            ({"std": math.inf}, "std: expected positive numbers, got inf"),
            ({"embedding_dim": 0}, "embedding_dim: expected a whole number of at least 1, got 0"),
            ({"embedding_dim": 1.5}, "embedding_dim: expected a whole number of at least 1, got 1.5"),
            ({"scale": 10**400}, "scale: expected a positive number, got 1000"),
            ({"nb_classes": "10"}, "nb_classes: expected a whole number of at least 1, got '10'"),
            ({"input_shape": 64}, "input_shape: expected positive whole numbers"),
            ({"clip_values": 1}, "clip_values: expected two numbers or arrays, such as (0, 1), got 1"),
            ({"clip_values": (0, NAN)}, "clip_values: expected finite bounds, the first below the second"),
            ({"clip_values": (1, 0)}, "clip_values: expected finite bounds, the first below the second"),
            ({"device_type": "tpu"}, "device_type: expected 'cpu' or 'gpu', got 'tpu'"),
            ({"optimizer": torch.optim.Adam}, "optimizer: expected one that is made"),
            ({"optimizer": torch.optim.SGD(net().parameters(), 0.1)}, "optimizer: none of its parameters are the"),
            ({"loss": 3}, "loss: expected a torch.nn.Module or a function"),
            ({"backbone": net(10)}, "model: the last layer of the backbone is linear with 10 outputs"),
            ({"backbone": net(1000)}, "model: the last layer of the backbone is linear with 1000 outputs"),
            ({"backbone": net(5), "name": "sce"}, "model: the last layer of the backbone is linear with 5 outputs"),
            ({"backbone": net(32, nn.ReLU()).half()}, "model: the backbone is in float16, in which training diverges"),
            (
                {"backbone": Pair()},
                "wrap_backbone: expected one tensor of features (B, d), the module returned a tuple",
            ),
        ]
    ),
    (lambda: base(Pair()).predict(X), "model: expected one tensor of logits (B, K), the network returned a tuple"),
    (lambda: base(net(10).half()).predict(X), "model: inputs are torch.float32, and the network, whose parameters"),
    (lambda: base(net(10).double()).loss_gradient(X, Y), "model: inputs are torch.float32"),
    (lambda: base().predict(X, batch_size=0), "batch_size: expected a whole number of at least 1, got 0"),
    (lambda: make().fit(X, Y, batch_size=0), "batch_size: expected a whole number of at least 1, got 0"),
    (lambda: make().fit(X, Y, nb_epochs=-1), "nb_epochs: expected a whole number of at least 0, got -1"),
    (lambda: make().predict(255 * X), "x ranges from 0"),
    (lambda: make().loss_gradient(255 * X, Y), "x ranges from 0"),
    (lambda: make().fit(X, 0 * EYE), "y: expected one-hot rows or probabilities"),
    (lambda: make("sce").fit(X, EYE + 1), "y: expected one-hot rows or probabilities"),
    (lambda: make().compute_loss(X, EYE - 0.1), "y: expected one-hot rows or probabilities"),
    (lambda: make().loss_gradient(X, make().predict(X)), "y: expected one-hot rows or probabilities"),
    (lambda: trainer().fit(X, 5 * EYE), "y: expected one-hot rows or probabilities"),
    (lambda: trainer().fit(X, Y, (X, 0 * EYE)), "validation labels: expected one-hot rows or probabilities"),
    (lambda: trainer().fit(X, Y, X), "validation_data: expected a pair (inputs, labels)"),
    (lambda: trainer().fit(X, Y, (X * NAN, Y)), "validation inputs has NaN"),
    (lambda: trainer().fit(X, Y, batch_size=10**20), "batch_size: expected a whole number below 2**63, got 1000"),
    (lambda: trainer().fit(X, Y, batch_size=0), "batch_size: expected a whole number of at least 1, got 0"),
    *(
        (lambda given=given: trainer(**given), message)
        for given, message in [
            ({"averaging": "ema", "averaging_decay": NAN}, "averaging_decay: expected a number in [0, 1], got nan"),
            ({"averaging_start": -1}, "averaging_start: expected a whole number of at least 0, got -1"),
            ({"patience": 0}, "patience: expected a whole number of at least 1, got 0"),
            ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
            ({"seed": 2**32}, "seed: expected a whole number below 2**32"),
            ({"recipe": "default"}, "recipe: expected a Recipe, such as get_recipe('default'), got 'default'"),
            ({"augmentation": 3}, "augmentation: expected a name or a function, got 3"),
        ]
    ),
    (lambda: AdversarialLossTrainer(make(), validation_attack="pgd"), "validation_attack: expected a strategy"),
    (lambda: PGD(0.1, steps=1.5), "steps: expected a whole number of at least 1, got 1.5"),
    (lambda: PGD(0.1, objective="margn"), "unknown objective 'margn'. Did you mean 'margin'?"),
    (lambda: FGSM(0.1, objective="margn"), "unknown objective 'margn'. Did you mean 'margin'?"),
    (lambda: PGD(0.1, tolerance=-1), "tolerance: expected a whole number of at least 0, got -1"),
    (lambda: PGD("8/255"), "eps: expected a number such as 0.1 or 8 / 255, got '8/255'"),
    (lambda: evaluate_robustness(make(), X, Y, "much"), "eps: expected a number such as 0.1 or 8 / 255, got 'much'"),
    (lambda: evaluation(seed=1.5), "seed: expected a whole number of at least 0, got 1.5"),
    (lambda: evaluation(suite=3), "suite: expected the name of one, or AttackPlans, got 3"),
    (lambda: evaluation(substitutes=[3]), "substitutes: expected ART PyTorchClassifiers, got int"),
    (lambda: evaluation().evaluate(make(), X, 0 * EYE), "y: expected one-hot rows or probabilities"),
    (lambda: split_validation(X, Y, 0.5, seed=-1), "seed: expected a whole number of at least 0, got -1"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_wrong_is_refused_by_name(call, message):
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}"):
        call()


def test_what_looks_like_it_and_is_right_passes():
    """Features of either sign that the user says so of, two of them, a part of the parameters, smoothed labels."""
    signed = wrap_backbone(net(10), (1, 8, 8), linear_output=True)
    assert make(backbone=signed).predict(X).shape == (20, 10)
    two = net(2)
    assert make(backbone=two, optimizer=torch.optim.SGD(two[1:].parameters(), 0.1)).predict(X + 2).shape == (20, 10)
    make("sce").fit(X, 0.9 * EYE + 0.01, nb_epochs=1)
    make().fit(X, EYE.astype(np.float16), nb_epochs=0)


@pytest.mark.parametrize("defence", [HighConfidence(0.2), ReverseSigmoid(), Rounded(2)])
def test_postprocessing_for_probabilities_is_warned_of_and_works_on_the_view_that_gives_them(defence, caplog):
    classifier = make("sce", postprocessing_defences=defence)
    assert ("made for probabilities" in caplog.text) == (not isinstance(defence, Rounded))
    shares = torch.softmax(torch.from_numpy(make("sce", classifier.model).predict(X)), dim=1).numpy()
    found = classifier.with_probabilities().predict(X)
    np.testing.assert_allclose(found, defence(shares), atol=1e-6)
