"""
What of ART is neither an evasion attack nor a trainer, on three of the nine classifiers: each row of `OTHERS` in
`art_support.py` is run here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks import extraction, poisoning
from art.attacks.evasion import FastGradientMethod
from art.attacks.inference import attribute_inference, membership_inference, model_inversion
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from art.estimators.certification.randomized_smoothing.macer.pytorch import PyTorchMACER
from art.estimators.certification.randomized_smoothing.smooth_adv.pytorch import PyTorchSmoothAdv
from art.estimators.certification.randomized_smoothing.smooth_mix.pytorch import PyTorchSmoothMix
from art.estimators.classification import (
    DeepPartitionEnsemble,
    EnsembleClassifier,
    QueryEfficientGradientEstimationClassifier,
)
from art.preprocessing.expectation_over_transformation import EoTImageRotationPyTorch

from art_mmc import LossDefendedClassifier, create_classifier
from tests.art_support import OTHERS
from tests.conftest import THREE, Digits, of_the_product

Run = Callable[[LossDefendedClassifier, np.ndarray, np.ndarray, np.ndarray], Any]


def trigger(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[..., -2:, -2:] = 1
    return x


def hidden_trigger(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
    attack = poisoning.HiddenTriggerBackdoor(
        c,
        eps=0.3,
        target=np.eye(10)[0],
        source=np.eye(10)[1],
        feature_layer="embedding",
        backdoor=poisoning.PoisoningAttackBackdoor(trigger),
        max_iter=2,
        batch_size=2,
        poison_percent=0.5,
        verbose=False,
        print_iter=100,
    )
    return attack.poison(x, rows)[0]


def membership(kind: str, given: str) -> Run:
    def run(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
        attack = membership_inference.MembershipInferenceBlackBox(
            c, attack_model_type=kind, input_type=given, nn_model_epochs=1
        )
        attack.fit(x[:20], rows[:20], x[20:], rows[20:])
        return attack.infer(x, y)

    return run


def label_only(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
    budget = {"max_iter": 1, "max_eval": 10, "init_eval": 5, "init_size": 10, "verbose": False}
    attack = membership_inference.LabelOnlyDecisionBoundary(c)
    attack.calibrate_distance_threshold(x[:2], rows[:2], x[20:22], rows[20:22], **budget)
    return attack.infer(x[:2], rows[:2], **budget)


def sleeper(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
    attack = poisoning.SleeperAgentAttack(
        c,
        percent_poison=0.5,
        patch=np.ones((1, 2, 2), dtype=np.float32),
        indices_target=np.flatnonzero(y == 1),
        max_trials=1,
        max_epochs=1,
        learning_rate_schedule=([0.1], [1]),
        clip_values=(0, 1),
        verbose=0,
    )
    source = x[y == 0]
    return attack.poison(source, rows[y == 1][[0] * len(source)], x, rows, x, rows)[0]


def attribute(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
    """Of a table: a column that is 0 or 1 is guessed from the others."""
    table = x[:, 0, 3, 1:7].copy()
    table[:, 0] = table[:, 0] > 0.5
    on_tables = create_classifier(str(c.defence), torch.nn.Linear(6, 8), input_shape=(6,), nb_classes=10)
    rule = membership_inference.MembershipInferenceBlackBoxRuleBased(on_tables)
    attack = attribute_inference.AttributeInferenceMembership(on_tables, rule, attack_feature=0)
    guessed = attack.infer(table[:, 1:], rows, values=[0.0, 1.0])
    assert set(guessed) <= {0.0, 1.0}
    return guessed


def steal(cls: type, **kwargs: Any) -> Run:
    def run(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
        attack = cls(c, batch_size_fit=10, batch_size_query=10, nb_epochs=1, nb_stolen=20, **kwargs)
        return attack.extract(x, rows, thieved_classifier=c.clone_for_refitting()).predict(x)

    return run


def smoothed(cls: type, loss: Any = None) -> Run:
    def run(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
        estimator = cls(
            model=c.model,
            loss=c.loss if loss is None else loss,
            input_shape=c.input_shape,
            nb_classes=10,
            optimizer=torch.optim.SGD(c.model.parameters(), 1e-4),
            sample_size=4,
            scale=0.1,
            clip_values=(0, 1),
            device_type="cpu",
        )
        estimator.fit(x, rows, nb_epochs=1, batch_size=20)
        return estimator.predict(x[:4])

    return run


def gradients(estimator: Any, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return FastGradientMethod(estimator, eps=0.1).generate(x[:2], rows[:2])


def partition(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
    ensemble = DeepPartitionEnsemble(
        [c, c.clone_for_refitting()], ensemble_size=2, clip_values=(0, 1), channels_first=True
    )
    ensemble.fit(x, rows, nb_epochs=1)
    return ensemble.predict(x)


def rotated(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
    turn = EoTImageRotationPyTorch(nb_samples=3, clip_values=(0, 1), angles=10.0, label_type="classification")
    c.set_params(preprocessing_defences=turn)
    return gradients(c, x, rows)


RUNS: dict[str, Run] = {
    "BullseyePolytopeAttackPyTorch": lambda c, x, y, rows: poisoning.BullseyePolytopeAttackPyTorch(
        c, x[:1], feature_layer="embedding", max_iter=2, verbose=False
    ).poison(x[1:3], rows[1:3])[0],
    "FeatureCollisionAttack": lambda c, x, y, rows: poisoning.FeatureCollisionAttack(
        c, x[:1], feature_layer="embedding", max_iter=2, verbose=False
    ).poison(x[1:2])[0],
    "GradientMatchingAttack": lambda c, x, y, rows: poisoning.GradientMatchingAttack(
        c, 0.2, max_trials=1, max_epochs=1, batch_size=10, learning_rate_schedule=([0.1], [1]), verbose=0
    ).poison(x[:1], rows[1:2], x, rows)[0],
    "HiddenTriggerBackdoor": hidden_trigger,
    "PoisoningAttackCleanLabelBackdoor": lambda c, x, y, rows: poisoning.PoisoningAttackCleanLabelBackdoor(
        poisoning.PoisoningAttackBackdoor(trigger), c, rows[0], pp_poison=0.5, eps=0.1, eps_step=0.1, max_iter=1
    ).poison(x, rows)[0],
    "SleeperAgentAttack": sleeper,
    "MembershipInferenceBlackBox": membership("rf", "prediction"),
    "MembershipInferenceBlackBox, nn": membership("nn", "prediction"),
    "MembershipInferenceBlackBox, loss": membership("rf", "loss"),
    "LabelOnlyDecisionBoundary": label_only,
    "ShadowModels": lambda c, x, y, rows: membership_inference.ShadowModels(
        c, num_shadow_models=1
    ).generate_shadow_dataset(x, rows)[0][2],
    "AttributeInferenceMembership": attribute,
    "MIFace": lambda c, x, y, rows: model_inversion.MIFace(c, max_iter=2, verbose=False).infer(None, y[:2]),
    "CopycatCNN": steal(extraction.CopycatCNN),
    "KnockoffNets": steal(extraction.KnockoffNets, verbose=False, sampling_strategy="adaptive"),
    "PyTorchRandomizedSmoothing": smoothed(PyTorchRandomizedSmoothing),
    "PyTorchMACER": smoothed(PyTorchMACER, torch.nn.CrossEntropyLoss()),
    "PyTorchSmoothAdv": smoothed(PyTorchSmoothAdv, torch.nn.CrossEntropyLoss()),
    "PyTorchSmoothMix": smoothed(PyTorchSmoothMix, torch.nn.CrossEntropyLoss()),
    "EnsembleClassifier": lambda c, x, y, rows: gradients(
        EnsembleClassifier([c, c], clip_values=(0, 1), channels_first=True), x, rows
    ),
    "DeepPartitionEnsemble": partition,
    "QueryEfficientGradientEstimationClassifier": lambda c, x, y, rows: gradients(
        QueryEfficientGradientEstimationClassifier(c, 4, 0.1, True), x, rows
    ),
    "EoTImageRotationPyTorch": rotated,
}


@pytest.mark.parametrize(("what", "name"), of_the_product([(what,) for what in RUNS], lambda what: THREE))
def test_it_runs(what, name, trained, digits: Digits):
    x, y = digits.x_train[:40].copy(), digits.y_train[:40]
    classifier = copy.deepcopy(trained[name])
    result = np.asarray(RUNS[what](classifier, x, y, np.eye(10, dtype=np.float32)[y]), dtype=np.float64)
    assert result.size
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(x, digits.x_train[:40])


@pytest.mark.parametrize("cls", [PyTorchMACER, PyTorchSmoothAdv, PyTorchSmoothMix])
def test_smoothed_training_wants_a_loss_that_art_knows(cls, trained, digits: Digits):
    """As the table says: ART's own class reduces labels for no other loss, and these take a cross-entropy of them."""
    x, y = digits.x_train[:40], digits.y_train[:40]
    with pytest.raises(RuntimeError, match="target tensor|repeat dims"):
        smoothed(cls)(copy.deepcopy(trained["mmc"]), x, y, np.eye(10, dtype=np.float32)[y])


def test_every_row_is_run():
    assert set(RUNS) == set(OTHERS)
