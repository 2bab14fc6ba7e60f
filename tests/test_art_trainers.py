"""
ART's adversarial trainers, unchanged, on the nine classifiers; which can't run and why stands in `art_support.toml`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.defences import trainer as art_trainer
from art.defences.preprocessor import Cutout, Mixup
from art.defences.trainer import (
    AdversarialTrainer,
    AdversarialTrainerAWPPyTorch,
    AdversarialTrainerFBFPyTorch,
    AdversarialTrainerMadryPGD,
    AdversarialTrainerOAATPyTorch,
    AdversarialTrainerTRADESPyTorch,
    DPInstaHideTrainer,
    Trainer,
)
from torch import nn

from art_mmc import LossDefendedClassifier, create_classifier
from tests.art_support import TRAINERS, failure, trainers
from tests.conftest import NAMES, accuracy, of_the_product, one_hot, weights
from tests.planted import plain
from tests.training import NormedNet


def cases(*, refused: bool) -> list[Any]:
    """Trainer, variant and defence."""

    def names(trainer: str, variant: str) -> list[str]:
        entry = TRAINERS[trainer]
        refusing = entry.refuses[variant].names if variant in entry.refuses else ()
        return [name for name in entry.only.get(variant, NAMES) if (name in refusing) == refused]

    running = {trainer: entry.variants for trainer, entry in TRAINERS.items() if failure(entry) is None}
    return of_the_product(((each, variant) for each, variants in running.items() for variant in variants), names)


def pgd(classifier: LossDefendedClassifier) -> ProjectedGradientDescent:
    return ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.05, max_iter=3, verbose=False)


_OAAT: dict[str, Any] = {
    **{"epsilon": 0.1, "i_epsilon": 0.05, "max_iter": 3, "norm": np.inf, "alpha": 1.0},
    **{"lpips_weight": 1.0, "i_lpips_weight": 1.0, "layer_names_activation": ["normalize"]},
    **{"mixup_alpha": 1.0, "mixup_epsilon": 0.1, "beta": 1.0, "beta_final": 1.0, "awp_gamma": 0.01, "awp_warmup": 0},
    **{"lr": 0.001, "lr_schedule": "cosine", "momentum": 0.9, "weight_decay": 0.0, "oaat_warmup": 0},
    **{"swa_save_epoch": 0, "list_swa_epoch": [0], "list_swa_tau": [0.9], "load_swa_model_tau": 0.9},
    "models_path": None,
}


def oaat(classifier: LossDefendedClassifier, variant: str) -> Trainer:
    copies = [classifier.clone_for_refitting() for _ in range(3)]
    # LPIPS is reached in the fourth epoch, or never
    parameters = {**_OAAT, "alternate_iter_eps": 0.06 if variant == "LPIPS" else 1.0}
    return AdversarialTrainerOAATPyTorch(classifier, copies[0], copies[1], [copies[2]], pgd(classifier), parameters)


#: the trainers in a small setting; 0.001 is a rate that suits SGD on every one of the nine losses
BUILD: dict[str, Callable[[LossDefendedClassifier, str], Trainer]] = {
    "AdversarialTrainer": lambda c, variant: AdversarialTrainer(c, pgd(c), ratio=0.5),
    "AdversarialTrainerMadryPGD": lambda c, variant: AdversarialTrainerMadryPGD(c, eps=0.1, eps_step=0.05, max_iter=3),
    "AdversarialTrainerFBFPyTorch": lambda c, variant: AdversarialTrainerFBFPyTorch(c, eps=0.1),
    "AdversarialTrainerTRADESPyTorch": lambda c, variant: AdversarialTrainerTRADESPyTorch(c, pgd(c), beta=3.0),
    "AdversarialTrainerAWPPyTorch": lambda c, variant: AdversarialTrainerAWPPyTorch(
        c, c.clone_for_refitting(), pgd(c), mode=variant, gamma=0.01, beta=3.0, warmup=0
    ),
    "AdversarialTrainerOAATPyTorch": oaat,
    "DPInstaHideTrainer": lambda c, variant: DPInstaHideTrainer(
        c, Mixup(num_classes=10) if variant == "Mixup" else Cutout(2, channels_first=True), noise="gaussian", scale=0.02
    ),
}


def test_every_trainer_is_listed():
    assert len(trainers()) >= 9
    assert set(trainers()) == set(TRAINERS)


@pytest.mark.parametrize(("trainer", "variant", "name"), cases(refused=False))
def test_trainer_runs(trainer, variant, name, own, digits):
    """
    The weights move, stay finite and still classify (a collapse would end at 0.1), the class changes in nothing but
    its weights, and the samples are crafted afresh from the net in training.
    """
    if trainer == "AdversarialTrainerFBFPyTorch":  # its rates, up to 0.21, are far beyond what Adam bears
        own.set_params(optimizer=torch.optim.SGD(own.model.parameters(), lr=0.001))
    x, y = digits.x_train[:128].copy(), one_hot(digits.y_train[:128])
    test = digits.x_test, digits.y_test
    before, clean = weights(own), accuracy(own, *test)
    built = BUILD[trainer](own, variant)
    built.fit(x, y, batch_size=64, nb_epochs=4 if variant == "LPIPS" else 1)

    assert built.get_classifier() is own
    trained_ones = {key for key, _ in own.model.named_parameters()}
    after = weights(own)
    for key in trained_ones:
        assert torch.isfinite(after[key]).all(), key
        assert not torch.equal(after[key], before[key]), f"{key} was not trained"
    if name in ("mmc", "mmlda"):
        assert torch.equal(after["head.centers"], before["head.centers"])
    assert accuracy(own, *test) > 0.85 * clean
    assert own.loss.reduction == "mean"
    assert own.objective == "adaptive"
    assert (own._reduce_labels, own._int_labels, own._probability_labels) == (True, True, True)
    inner = getattr(built, "trainer", built)
    assert all(samples is None for samples in getattr(inner, "_precomputed_adv_samples", []))
    np.testing.assert_array_equal(x, digits.x_train[:128])
    # what is left behind can be copied and trained on
    again = copy.deepcopy(own)
    again.optimizer.param_groups[0]["lr"] = 1e-3  # FBF's ends at 0
    again.fit(x, y, nb_epochs=1)
    assert not np.array_equal(again.predict(x[:4]), own.predict(x[:4]))


@pytest.mark.contract
@pytest.mark.parametrize("trainer", BUILD)
def test_on_art_s_own_class(trainer, trained, digits):
    network = copy.deepcopy(trained["sce"].model)
    classifier = plain(network, optimizer=torch.optim.SGD(network.parameters(), lr=0.001))
    built = BUILD[trainer](classifier, TRAINERS[trainer].variants[0])
    built.fit(digits.x_train[:64].copy(), one_hot(digits.y_train[:64]), batch_size=64, nb_epochs=1)
    assert np.isfinite(classifier.predict(digits.x_test[:8])).all()


@pytest.mark.parametrize(("trainer", "variant", "name"), cases(refused=True))
def test_trainer_refuses_as_the_table_says(trainer, variant, name, own, digits):
    refused = TRAINERS[trainer].refuses[variant]
    before = weights(own)
    with pytest.raises(ValueError, match=refused.match):
        BUILD[trainer](own, variant).fit(digits.x_train[:64], one_hot(digits.y_train[:64]), batch_size=64, nb_epochs=1)
    for key, value in own.model.state_dict().items():
        assert torch.equal(value, before[key])
    assert not own.model.training


@pytest.mark.parametrize("name", ["mmc"])
@pytest.mark.parametrize("trainer", [name for name, entry in TRAINERS.items() if failure(entry) is not None])
def test_trainer_fails_as_the_table_says(trainer, name, own):
    fails = failure(TRAINERS[trainer])
    with pytest.raises(fails.error, match=fails.match):
        getattr(art_trainer, trainer)(own, 10, 0.1)


@pytest.mark.thorough
@pytest.mark.parametrize("logit_norm", [1.0, 15.0])
def test_trades_on_isce_needs_small_logits(logit_norm, digits):
    """The reason that the table gives, and the way round."""
    classifier = create_classifier("isce", "cnn", input_shape=(1, 8, 8), nb_classes=10, logit_norm=logit_norm)
    trainer = AdversarialTrainerTRADESPyTorch(classifier, FastGradientMethod(classifier, eps=0.1), beta=3.0)
    trainer.fit(digits.x_train, one_hot(digits.y_train), batch_size=32, nb_epochs=4)
    assert (accuracy(classifier, digits.x_test, digits.y_test) > 0.8) == (logit_norm == 1.0)


@pytest.fixture
def normed() -> LossDefendedClassifier:
    classifier = create_classifier("center", NormedNet(), input_shape=(1, 8, 8), nb_classes=10)
    classifier.set_params(optimizer=torch.optim.SGD(classifier.model.parameters(), lr=0.001))
    return classifier


def steps(classifier: LossDefendedClassifier) -> int:
    """Batches that its statistics have seen."""
    (norm,) = (module for module in classifier.model.modules() if isinstance(module, nn.BatchNorm2d))
    return int(norm.num_batches_tracked)


@pytest.mark.parametrize("trainer", [name for name in BUILD if name != "AdversarialTrainerOAATPyTorch"])
def test_batch_statistics_and_centers_move_while_training(trainer, normed, digits):
    """
    They follow the training batches, unless ART forgets to train in training mode (FBF); crafting alone would not move
    them, else FBF's would have moved too.
    """
    trains = trainer != "AdversarialTrainerFBFPyTorch"
    BUILD[trainer](normed, "PGD").fit(digits.x_train[:64], one_hot(digits.y_train[:64]), batch_size=32, nb_epochs=1)
    assert (steps(normed) > 0) == trains
    assert bool((normed.model.head.centers != 0).any()) == trains
    assert not normed.model.training


def test_after_fbf_the_rate_can_be_saved(trained, digits, tmp_path):
    """FBF leaves a numpy scalar as the learning rate, which torch.load refuses to read."""
    classifier = copy.deepcopy(trained["sce"])
    BUILD["AdversarialTrainerFBFPyTorch"](classifier, "").fit(
        digits.x_train[:32], one_hot(digits.y_train[:32]), nb_epochs=1
    )
    rate = classifier.optimizer.param_groups[0]["lr"]
    classifier.save("after_fbf", str(tmp_path))
    other = copy.deepcopy(trained["sce"])
    other.load("after_fbf", str(tmp_path))
    assert other.optimizer.param_groups[0]["lr"] == float(rate)
    np.testing.assert_array_equal(other.predict(digits.x_test[:4]), classifier.predict(digits.x_test[:4]))
