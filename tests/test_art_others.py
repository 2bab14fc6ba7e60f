"""
What of ART is neither an evasion attack nor a trainer, on three of the nine classifiers and on ART's own class: each
row of `others` in `art_support.toml` is run here. Those of `ran_once` go the same ways through a classifier.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from art import metrics
from art.attacks import extraction, poisoning
from art.attacks.evasion import FastGradientMethod
from art.attacks.inference import membership_inference, model_inversion
from art.defences.detector import poison
from art.defences.detector.evasion import SubsetScanningDetector
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from art.estimators.certification.randomized_smoothing.macer.pytorch import PyTorchMACER
from art.estimators.certification.randomized_smoothing.smooth_adv.pytorch import PyTorchSmoothAdv
from art.estimators.certification.randomized_smoothing.smooth_mix.pytorch import PyTorchSmoothMix
from art.estimators.classification import (
    EnsembleClassifier,
    PyTorchClassifier,
    QueryEfficientGradientEstimationClassifier,
)
from art.preprocessing.expectation_over_transformation import EoTImageRotationPyTorch

from art_mmc import LossDefendedClassifier
from tests.art_support import NO_CLASSIFIER, OTHERS, RAN_ONCE, other_attacks
from tests.conftest import THREE, Digits, Trained, of_the_product
from tests.planted import plain

Run = Callable[[LossDefendedClassifier, np.ndarray, np.ndarray, np.ndarray], Any]


def trigger(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[..., -2:, -2:] = 1
    return x


def membership(kind: str, given: str) -> Run:
    def run(c: LossDefendedClassifier, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Any:
        attack = membership_inference.MembershipInferenceBlackBox(
            c, attack_model_type=kind, input_type=given, nn_model_epochs=1
        )
        attack.fit(x[:20], rows[:20], x[20:], rows[20:])
        return attack.infer(x, y)

    return run


_CLEVER: dict[str, Any] = {"nb_batches": 2, "batch_size": 4, "radius": 0.3, "norm": 2, "pool_factor": 2}


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
    "PoisoningAttackCleanLabelBackdoor": lambda c, x, y, rows: poisoning.PoisoningAttackCleanLabelBackdoor(
        poisoning.PoisoningAttackBackdoor(trigger), c, rows[0], pp_poison=0.5, eps=0.1, eps_step=0.1, max_iter=1
    ).poison(x, rows)[0],
    "SubsetScanningDetector": lambda c, x, y, rows: SubsetScanningDetector(
        c, x[:10], "embedding", verbose=False
    ).detect(x[10:14])[1],
    "ActivationDefence": lambda c, x, y, rows: poison.ActivationDefence(c, x, rows).detect_poison(
        nb_clusters=2, nb_dims=2, reduce="PCA"
    )[1],
    "SpectralSignatureDefense": lambda c, x, y, rows: poison.SpectralSignatureDefense(c, x, rows).detect_poison()[1],
    "adversarial_accuracy": lambda c, x, y, rows: metrics.adversarial_accuracy(
        c, x[:5], rows[:5], attack_name="fgsm", attack_params={"eps": 0.1}
    ),
    "empirical_robustness": lambda c, x, y, rows: metrics.empirical_robustness(c, x[:5], "fgsm", {"eps_step": 0.2}),
    "loss_sensitivity": lambda c, x, y, rows: metrics.loss_sensitivity(c, x[:5], rows[:5]),
    "loss_gradient_check": lambda c, x, y, rows: metrics.loss_gradient_check(c, x[:5], rows[:5], verbose=False),
    "clever_u": lambda c, x, y, rows: metrics.clever_u(c, x[0], **_CLEVER, verbose=False),
    "clever_t": lambda c, x, y, rows: metrics.clever_t(c, x[0], int(c.predict(x[:1]).argmax() + 1) % 10, **_CLEVER),
    "PDTP": lambda c, x, y, rows: metrics.PDTP(
        softmaxed(c), softmaxed(c.clone_for_refitting()), x[:10], rows[:10], indexes=np.array([0]), num_iter=1
    )[0],
    "SHAPr": lambda c, x, y, rows: metrics.SHAPr(c, x[:20], rows[:20], x[20:], rows[20:]),
    "MembershipInferenceBlackBoxRuleBased": lambda c, x, y, rows: (
        membership_inference.MembershipInferenceBlackBoxRuleBased(c).infer(x, rows)
    ),
    "MembershipInferenceBlackBox": membership("rf", "prediction"),
    "MembershipInferenceBlackBox, nn": membership("nn", "prediction"),
    "MembershipInferenceBlackBox, loss": membership("rf", "loss"),
    "ShadowModels": lambda c, x, y, rows: membership_inference.ShadowModels(
        c, num_shadow_models=1
    ).generate_shadow_dataset(x, rows)[0][2],
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
    "QueryEfficientGradientEstimationClassifier": lambda c, x, y, rows: gradients(
        QueryEfficientGradientEstimationClassifier(c, 4, 0.1, True), x, rows
    ),
    "EoTImageRotationPyTorch": rotated,
}


def softmaxed(c: PyTorchClassifier) -> PyTorchClassifier:
    """A classifier of the same weights that gives probabilities; PDTP trains copies of it."""
    if isinstance(c, LossDefendedClassifier):
        return c.with_probabilities(10)
    network = torch.nn.Sequential(c.model, torch.nn.Softmax(dim=1))
    return plain(network, optimizer=torch.optim.SGD(network.parameters(), 1e-4), clip_values=None)


def the_classifier(name: str, trained: Trained) -> PyTorchClassifier:
    """A copy of one of ours, or for "ART's" of ART's own class on the network of "sce"."""
    if name != "ART's":
        return copy.deepcopy(trained[name])
    network = copy.deepcopy(trained["sce"].model)
    return plain(network, optimizer=torch.optim.SGD(network.parameters(), 1e-3))


@pytest.mark.parametrize(("what", "name"), of_the_product([(what,) for what in RUNS], lambda what: [*THREE, "ART's"]))
def test_it_runs(what, name, trained, digits: Digits):
    x, y = digits.x_train[:40].copy(), digits.y_train[:40]
    rows = np.eye(10, dtype=np.float32)[y]
    classifier = the_classifier(name, trained)

    result = np.asarray(RUNS[what](classifier, x, y, rows), dtype=np.float64)
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
    assert not set(OTHERS) & set(RAN_ONCE)


def test_every_class_is_listed():
    """A new one of ART's must be looked at: run it, here or once, or say why it can't."""
    assert set(other_attacks()) - set(OTHERS) - set(RAN_ONCE) - set(NO_CLASSIFIER) == set()
    metric = {name for name in vars(metrics) if callable(getattr(metrics, name)) and not name.startswith("_")}
    foreign = {"ComparisonType", "RobustnessVerificationTreeModelsCliqueMethod", "clever", "wasserstein_distance"}
    assert metric - foreign - set(OTHERS) == set()
