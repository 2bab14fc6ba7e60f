"""
ART's adversarial trainers, unchanged, on the nine classifiers; which can't run and why stands in `art_support.py`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, FastGradientMethod, ProjectedGradientDescent
from art.data_generators import NumpyDataGenerator
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
from art_mmc.trainers import AdversarialLossTrainer
from tests.art_support import TRAINERS, failure, to_markdown, trainers
from tests.conftest import NAMES, Digits, of_the_product


def refusal(name: str, variant: str, defence: str) -> dict[str, Any] | None:
    refused = TRAINERS[name].get("refuses", {}).get(variant)
    return refused if refused is not None and defence in refused["names"] else None


def cases(*, refused: bool) -> list[Any]:
    return [
        of_the_product(trainer, variant, name)
        for trainer, entry in TRAINERS.items()
        if failure(entry) is None
        for variant in entry["variants"]
        for name in entry.get("only", {}).get(variant, NAMES)
        if (refusal(trainer, variant, name) is not None) == refused
    ]


def pgd(classifier: LossDefendedClassifier) -> ProjectedGradientDescent:
    return ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.05, max_iter=3, verbose=False)


def build(name: str, variant: str, classifier: LossDefendedClassifier) -> Trainer:
    """The trainer in a small setting; 0.001 is a rate that suits SGD on every one of the nine losses."""
    if name == "AdversarialTrainer":
        return AdversarialTrainer(classifier, pgd(classifier), ratio=0.5)
    if name == "AdversarialTrainerMadryPGD":
        return AdversarialTrainerMadryPGD(classifier, eps=0.1, eps_step=0.05, max_iter=3)
    if name == "AdversarialTrainerFBFPyTorch":
        return AdversarialTrainerFBFPyTorch(classifier, eps=0.1)
    if name == "AdversarialTrainerTRADESPyTorch":
        return AdversarialTrainerTRADESPyTorch(classifier, pgd(classifier), beta=3.0)
    if name == "AdversarialTrainerAWPPyTorch":
        proxy = classifier.clone_for_refitting()
        return AdversarialTrainerAWPPyTorch(
            classifier, proxy, pgd(classifier), mode=variant, gamma=0.01, beta=3.0, warmup=0
        )
    if name == "AdversarialTrainerOAATPyTorch":
        parameters: dict[str, Any] = {
            "epsilon": 0.1,
            "i_epsilon": 0.05,
            "max_iter": 3,
            "norm": np.inf,
            "alpha": 1.0,
            "alternate_iter_eps": 0.06 if variant == "LPIPS" else 1.0,  # reached in the fourth epoch, or never
            "lpips_weight": 1.0,
            "i_lpips_weight": 1.0,
            "layer_names_activation": ["normalize"],
            "mixup_alpha": 1.0,
            "mixup_epsilon": 0.1,
            "beta": 1.0,
            "beta_final": 1.0,
            "awp_gamma": 0.01,
            "awp_warmup": 0,
            "lr": 0.001,
            "lr_schedule": "cosine",
            "momentum": 0.9,
            "weight_decay": 0.0,
            "oaat_warmup": 0,
            "swa_save_epoch": 0,
            "list_swa_epoch": [0],
            "list_swa_tau": [0.9],
            "load_swa_model_tau": 0.9,
            "models_path": None,
        }
        copies = [classifier.clone_for_refitting() for _ in range(3)]
        return AdversarialTrainerOAATPyTorch(classifier, copies[0], copies[1], [copies[2]], pgd(classifier), parameters)
    augmentation = Mixup(num_classes=10) if variant == "Mixup" else Cutout(2, channels_first=True)
    return DPInstaHideTrainer(classifier, augmentation, noise="gaussian", scale=0.02)


def one_hot(y: np.ndarray) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[y]


def snapshot(classifier: LossDefendedClassifier) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in classifier.model.state_dict().items()}


def accuracy(classifier: LossDefendedClassifier, digits: Digits) -> float:
    return float((classifier.predict(digits.x_test).argmax(axis=1) == digits.y_test).mean())


# --- the table ------------------------------------------------------------------------------------------------------


def test_every_trainer_is_listed():
    assert len(trainers()) >= 9
    assert set(trainers()) == set(TRAINERS)


def test_support_table_names_every_trainer():
    table = to_markdown()
    for name, entry in TRAINERS.items():
        (row,) = (line for line in table.splitlines() if line.startswith(f"| {name} |"))
        assert row.count("|") == 4
        for each in [*entry.get("refuses", {}).values(), *entry.get("spoils", {}).values()]:
            assert ", ".join(each["names"]) in row


@pytest.mark.parametrize(("trainer", "variant", "name"), cases(refused=False))
def test_trainer_runs(trainer, variant, name, own, digits):
    """
    The weights move, stay finite and still classify (a collapse would end at 0.1), the class changes in nothing but
    its weights, and the samples are crafted afresh from the net in training.
    """
    if trainer == "AdversarialTrainerFBFPyTorch":  # its rates, up to 0.21, are far beyond what Adam bears
        own.set_params(optimizer=torch.optim.SGD(own.model.parameters(), lr=0.001))
    x, y = digits.x_train[:128].copy(), one_hot(digits.y_train[:128])
    before, clean = snapshot(own), accuracy(own, digits)
    built = build(trainer, variant, own)
    built.fit(x, y, batch_size=64, nb_epochs=4 if variant == "LPIPS" else 1)

    assert built.get_classifier() is own
    trained_ones = {key for key, _ in own.model.named_parameters()}
    after = snapshot(own)
    for key in trained_ones:
        assert torch.isfinite(after[key]).all(), key
        assert not torch.equal(after[key], before[key]), f"{key} was not trained"
    if name in ("mmc", "mmlda"):
        assert torch.equal(after["head.centers"], before["head.centers"])
    if name in TRAINERS[trainer].get("spoils", {}).get(variant, {}).get("names", ()):
        assert accuracy(own, digits) < 0.9 * clean  # once this fails, take it out of the table
    else:
        assert accuracy(own, digits) > 0.85 * clean
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


@pytest.mark.parametrize(("trainer", "variant", "name"), cases(refused=True))
def test_trainer_refuses_as_the_table_says(trainer, variant, name, own, digits):
    refused = refusal(trainer, variant, name)
    before = snapshot(own)
    with pytest.raises(refused["error"], match=refused["match"]):
        build(trainer, variant, own).fit(digits.x_train[:64], one_hot(digits.y_train[:64]), batch_size=64, nb_epochs=1)
    for key, value in own.model.state_dict().items():
        assert torch.equal(value, before[key])
    assert not own.model.training


@pytest.mark.parametrize("name", ["sce", "mmc"])
@pytest.mark.parametrize("trainer", [name for name, entry in TRAINERS.items() if failure(entry) is not None])
def test_trainer_fails_as_the_table_says(trainer, name, own):
    fails = failure(TRAINERS[trainer])
    with pytest.raises(fails["error"], match=fails["match"]):
        getattr(art_trainer, trainer)(own, 10, 0.1)


# --- details ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [of_the_product(name) for name in NAMES])
def test_trainer_learns_from_scratch(name, digits):
    """Adversarial training from fresh weights ends far above chance, also where the loss is no cross-entropy."""
    classifier = create_classifier(name, "cnn", input_shape=(1, 8, 8), nb_classes=10)
    trainer = AdversarialTrainer(classifier, FastGradientMethod(classifier, eps=0.1), ratio=0.5)
    trainer.fit(digits.x_train, digits.y_train, batch_size=32, nb_epochs=4)
    assert accuracy(classifier, digits) > 0.5


@pytest.mark.parametrize("logit_norm", [1.0, 15.0])
def test_trades_on_isce_needs_small_logits(logit_norm, digits):
    """The reason that the table gives, and the way round."""
    classifier = create_classifier("isce", "cnn", input_shape=(1, 8, 8), nb_classes=10, logit_norm=logit_norm)
    trainer = AdversarialTrainerTRADESPyTorch(classifier, FastGradientMethod(classifier, eps=0.1), beta=3.0)
    trainer.fit(digits.x_train, one_hot(digits.y_train), batch_size=32, nb_epochs=4)
    assert (accuracy(classifier, digits) > 0.8) == (logit_norm == 1.0)


def test_training_raises_robustness(trained, digits):
    """Adversarial training does what it is there for."""

    def robust(classifier: LossDefendedClassifier) -> float:
        attack = ProjectedGradientDescent(classifier, eps=0.15, eps_step=0.04, max_iter=10, verbose=False)
        x_adv = attack.generate(digits.x_test[:100], one_hot(digits.y_test[:100]))
        return float((classifier.predict(x_adv).argmax(axis=1) == digits.y_test[:100]).mean())

    classifier = copy.deepcopy(trained["mmc"])
    before = robust(classifier)
    attack = ProjectedGradientDescent(classifier, eps=0.15, eps_step=0.08, max_iter=3, verbose=False)
    AdversarialTrainer(classifier, attack, ratio=1.0).fit(
        digits.x_train, one_hot(digits.y_train), batch_size=64, nb_epochs=4
    )
    assert robust(classifier) > before + 0.1


@pytest.mark.parametrize("loss_type", [None, "cross_entropy"])
def test_transfer_trap(loss_type, trained, digits):
    """An objective is an attribute of the same object; an attack that rebuilds the estimator is a transfer attack."""
    classifier = copy.deepcopy(trained["mmc"])
    classifier.objective = "cross_entropy"
    attack = AutoProjectedGradientDescent(
        classifier, eps=0.1, eps_step=0.05, max_iter=1, nb_random_init=1, loss_type=loss_type, verbose=False
    )
    trainer = AdversarialTrainer(classifier, attack)
    trainer.fit(digits.x_train[:32], one_hot(digits.y_train[:32]), batch_size=32, nb_epochs=1)
    (samples,) = trainer._precomputed_adv_samples
    assert (samples is None) == (loss_type is None)


def test_index_labels_train_as_one_hot_ones(trained, digits):
    weights = []
    for labels in (digits.y_train[:64], one_hot(digits.y_train[:64])):
        np.random.seed(0)
        torch.manual_seed(0)
        classifier = copy.deepcopy(trained["mmc"])
        attack = FastGradientMethod(classifier, eps=0.1)
        AdversarialTrainer(classifier, attack).fit(digits.x_train[:64], labels, batch_size=32, nb_epochs=1)
        weights.append(snapshot(classifier))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("trainer", ["AdversarialTrainerTRADESPyTorch", "AdversarialTrainerAWPPyTorch"])
def test_art_refuses_todays_schedulers(trainer, trained, digits):
    """As the table says; `AdversarialTrainer` hands one on to `fit`, which takes it."""
    classifier = copy.deepcopy(trained["sce"])
    scheduler = torch.optim.lr_scheduler.StepLR(classifier.optimizer, step_size=1, gamma=0.5)
    built = build(trainer, "PGD", classifier)
    with pytest.raises(ValueError, match="scheduler"):
        built.fit(digits.x_train[:32], one_hot(digits.y_train[:32]), nb_epochs=1, scheduler=scheduler)
    build("AdversarialTrainer", "PGD", classifier).fit(
        digits.x_train[:64], one_hot(digits.y_train[:64]), batch_size=32, nb_epochs=1, scheduler=scheduler
    )
    # once a call of fit, which ART makes once a batch
    assert classifier.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 4)


class Normed(nn.Module):
    """A backbone with batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize(
    ("trainer", "trains"),
    [
        ("AdversarialTrainer", True),
        ("AdversarialTrainerMadryPGD", True),
        ("AdversarialTrainerTRADESPyTorch", True),
        ("AdversarialTrainerAWPPyTorch", True),
        ("AdversarialTrainerFBFPyTorch", False),
        ("DPInstaHideTrainer", True),
    ],
)
def test_batch_statistics_and_centers_move_while_training(trainer, trains, digits):
    """
    They follow the training batches, unless ART forgets to train in training mode (FBF); crafting alone would not move
    them, else FBF's would have moved too.
    """
    classifier = create_classifier("center", Normed(), input_shape=(1, 8, 8), nb_classes=10)
    classifier.set_params(optimizer=torch.optim.SGD(classifier.model.parameters(), lr=0.001))
    build(trainer, "PGD", classifier).fit(digits.x_train[:64], one_hot(digits.y_train[:64]), batch_size=32, nb_epochs=1)
    (norm,) = (module for module in classifier.model.modules() if isinstance(module, nn.BatchNorm2d))
    assert (norm.num_batches_tracked > 0) == trains
    assert bool((classifier.model.head.centers != 0).any()) == trains
    assert not classifier.model.training


def test_fbf_trains_a_network_that_is_in_training_mode_before(digits):
    """As the table says: no gradient that ART asks for changes the mode."""
    classifier = create_classifier("center", Normed(), input_shape=(1, 8, 8), nb_classes=10)
    classifier.set_params(optimizer=torch.optim.SGD(classifier.model.parameters(), lr=0.001))
    classifier.model.train()
    validation = (digits.x_test[:64], one_hot(digits.y_test[:64]))
    build("AdversarialTrainerFBFPyTorch", "", classifier).fit(
        digits.x_train[:64], one_hot(digits.y_train[:64]), validation, batch_size=32, nb_epochs=2
    )
    (norm,) = (module for module in classifier.model.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.num_batches_tracked == 4  # the steps; crafting and validation move nothing
    assert (classifier.model.head.centers != 0).any()
    assert classifier.model.training


def test_the_trainer_to_take_instead_of_fbf(digits):
    """The same training, labels as indices, any optimizer, and in training mode."""
    classifier = create_classifier("center", Normed(), input_shape=(1, 8, 8), nb_classes=10)
    AdversarialLossTrainer(classifier, "fast", seed=0, verbose=False).fit(
        digits.x_train[:64], digits.y_train[:64], batch_size=32, nb_epochs=2
    )
    (norm,) = (module for module in classifier.model.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.num_batches_tracked == 4
    assert not classifier.model.training


def test_the_trainer_to_take_where_art_refuses_a_scheduler(trained, digits):
    classifier = copy.deepcopy(trained["sce"])
    scheduler = torch.optim.lr_scheduler.StepLR(classifier.optimizer, step_size=1, gamma=0.5)
    trainer = AdversarialLossTrainer(classifier, "trades", seed=0, verbose=False)
    trainer.fit(digits.x_train[:64], digits.y_train[:64], batch_size=32, nb_epochs=2, scheduler=scheduler)
    assert [record["rate"] for record in trainer.history] == pytest.approx([1e-3, 5e-4])


def test_after_fbf_the_rate_can_be_saved(trained, digits, tmp_path):
    """FBF leaves a numpy scalar as the learning rate, which torch.load refuses to read."""
    classifier = copy.deepcopy(trained["sce"])
    build("AdversarialTrainerFBFPyTorch", "", classifier).fit(
        digits.x_train[:32], one_hot(digits.y_train[:32]), nb_epochs=1
    )
    rate = classifier.optimizer.param_groups[0]["lr"]
    classifier.save("after_fbf", str(tmp_path))
    other = copy.deepcopy(trained["sce"])
    other.load("after_fbf", str(tmp_path))
    assert other.optimizer.param_groups[0]["lr"] == float(rate)
    np.testing.assert_array_equal(other.predict(digits.x_test[:4]), classifier.predict(digits.x_test[:4]))


@pytest.mark.parametrize("name", ["sce", "mmc", "center"])
@pytest.mark.parametrize(
    "trainer", ["AdversarialTrainer", "AdversarialTrainerTRADESPyTorch", "AdversarialTrainerFBFPyTorch"]
)
def test_trainer_takes_a_generator(trainer, name, own, digits):
    own.set_params(optimizer=torch.optim.SGD(own.model.parameters(), lr=0.001))
    before = snapshot(own)
    generator = NumpyDataGenerator(digits.x_train[:64], one_hot(digits.y_train[:64]), batch_size=32)
    build(trainer, "PGD", own).fit_generator(generator, nb_epochs=1)
    after = snapshot(own)
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(after[key], before[key]) for key, _ in own.model.named_parameters())
