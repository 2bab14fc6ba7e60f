"""What the classifier's fit and the trainers share: generators, batches of one, schedulers, weights, clipping."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from art.data_generators import DataGenerator, NumpyDataGenerator, PyTorchDataGenerator
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from art_mmc import LossDefendedClassifier, create_classifier
from art_mmc.classifiers import OneHotLoss
from art_mmc.losses import SoftmaxCrossEntropyLoss
from art_mmc.models import DefendedNet
from art_mmc.trainers import (
    FGSM,
    PGD,
    RECIPES,
    TRADES,
    AdversarialLossTrainer,
    LossTrainer,
    PCTrainer,
    Recipe,
    create_trainer,
)
from tests.conftest import INPUT_SHAPE
from tests.planted import plain
from tests.training import weights


def make(name="sce", norm=False, optimizer=None, **kwargs):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *[nn.BatchNorm1d(16)] * norm, nn.ReLU())
    optimizer = None if optimizer is None else optimizer(net.parameters())
    return create_classifier(
        name, net, input_shape=INPUT_SHAPE, nb_classes=10, device_type="cpu", optimizer=optimizer, **kwargs
    )


def sgd(rate=0.1):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


TRAINERS = {
    "clean": LossTrainer,
    "warm-up": PCTrainer,
    "adversarial": lambda classifier, **kwargs: AdversarialLossTrainer(classifier, PGD(0.1, steps=1), **kwargs),
}


# --- generators -------------------------------------------------------------------------------------------------------


class Stream(DataGenerator):
    """Endless batches, each drawn anew; says how many there were and keeps none."""

    def __init__(self, size, batch_size, weighted=False):
        super().__init__(size=size, batch_size=batch_size)
        self.random, self.given, self.weighted = np.random.default_rng(0), 0, weighted

    def get_batch(self):
        self.given += 1
        x, y = self.random.random((self.batch_size, *INPUT_SHAPE), np.float32), self.random.integers(
            0, 10, self.batch_size
        )
        return (x, y, np.ones(len(x))) if self.weighted else (x, y)


@pytest.mark.parametrize("kind", TRAINERS)
def test_every_epoch_draws_anew_and_no_batch_is_kept(kind, digits):
    """Beside augmentation and validation."""
    generator, validation = Stream(size=40, batch_size=16), (digits.x_test[:40], digits.y_test[:40])
    trainer = TRAINERS[kind](make("pc"), augmentation="crop-flip", keep="best", seed=0, verbose=False)
    seen, batch_loss = [], trainer._batch_loss

    def spy(x, y, step):
        seen.append(x.sum().item())
        return batch_loss(x, y, step)

    trainer._batch_loss = spy
    trainer.fit_generator(generator, nb_epochs=4, validation_data=validation)
    assert generator.given == 4 * 3
    assert len(set(seen)) == 4 * 3
    assert ["val_accuracy" in record for record in trainer.history] == [True] * 4


@pytest.mark.parametrize("kind", ["numpy", "torch", "weighted"])
def test_a_generator_trains_as_the_same_batches_by_hand(kind, digits):
    """In the generator's order, with labels of any format; a third array weighs the samples."""
    x, y = digits.x_train[:48], digits.y_train[:48]
    if kind == "numpy":
        generator = NumpyDataGenerator(x, np.eye(10)[y], batch_size=16, shuffle=False)
    else:
        arrays = [torch.tensor(x), torch.tensor(y), *[torch.full((48,), 2.0)] * (kind == "weighted")]
        generator = PyTorchDataGenerator(DataLoader(TensorDataset(*arrays), batch_size=16), size=48, batch_size=16)
    trained, reference = make(optimizer=sgd()), make(optimizer=sgd(0.2 if kind == "weighted" else 0.1))
    LossTrainer(trained, seed=0, verbose=False).fit_generator(generator, nb_epochs=2)
    reference.model.train()
    for part in (slice(0, 16), slice(16, 32), slice(32, 48)) * 2:
        reference.optimizer.zero_grad()
        nn.functional.cross_entropy(reference.model(torch.tensor(x[part])), torch.tensor(y[part])).backward()
        reference.optimizer.step()
    torch.testing.assert_close(weights(trained), weights(reference), rtol=1e-5, atol=1e-6)
    own = make(optimizer=sgd())
    own.fit_generator(generator, nb_epochs=2)
    torch.testing.assert_close(weights(own), weights(reference), rtol=1e-5, atol=1e-6)


class InPlace(nn.Flatten):
    def forward(self, x):
        return super().forward(x.sub_(0.5).mul_(2))


class Apart(nn.Flatten):
    def forward(self, x):
        return super().forward((x - 0.5) * 2)


@pytest.mark.parametrize(("way", "averaging"), [("fit", "swa"), ("generator", "ema"), ("own generator", None)])
def test_a_network_that_works_in_place_changes_no_data(way, averaging, digits):
    x, y = digits.x_train[:60].copy(), digits.y_train[:60]  # no bytes: floats are kept as they are
    x[0, 0, 0, 0] = 0.123
    results = []
    for first in (InPlace(), Apart()):
        torch.manual_seed(0)
        net = nn.Sequential(first, nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
        classifier = create_classifier("sce", net, input_shape=INPUT_SHAPE, nb_classes=10, device_type="cpu")
        trainer = AdversarialLossTrainer(classifier, FGSM(0.1), averaging=averaging, seed=0, verbose=False)
        given = x.copy()
        generator = NumpyDataGenerator(given, y, batch_size=20, shuffle=False)
        if way == "fit":
            trainer.fit(given, y, nb_epochs=2, batch_size=20, validation_data=(given, y))
        else:
            (trainer if way == "generator" else classifier).fit_generator(generator, nb_epochs=2)
        np.testing.assert_array_equal(given, x)
        watched = [record.get("robust_accuracy") for record in trainer.history]
        results.append((watched, weights(classifier)))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1])


# --- batches of one ---------------------------------------------------------------------------------------------------


def fit(kind, classifier, x, y, **kwargs):
    if kind == "classifier":
        return classifier.fit(x, y, **kwargs)
    return TRAINERS[kind](classifier, seed=0, verbose=False).fit(x, y, **{"nb_epochs": 2, **kwargs})


@pytest.mark.parametrize("kind", ["classifier", *TRAINERS])
def test_batches_of_one_sample(kind, digits):
    x, y = digits.x_train[:5], digits.y_train[:5]
    for n, batch_size in ((5, 1), (5, 4), (1, 8), (1, 1)):
        classifier = make("pc")
        before = weights(classifier)
        fit(kind, classifier, x[:n], y[:n], batch_size=batch_size)
        assert not torch.equal(before, weights(classifier)), (n, batch_size)


@pytest.mark.parametrize(("norm", "steps"), [(False, 2), (True, 1)])
@pytest.mark.parametrize("kind", ["classifier", "clean"])
def test_a_rest_of_one_sample_is_trained_on_where_it_can_be(kind, norm, steps, digits):
    classifier = make(norm=norm, optimizer=torch.optim.Adam)
    fit(kind, classifier, digits.x_train[:9], digits.y_train[:9], batch_size=8, nb_epochs=1)
    assert {int(state["step"]) for state in classifier.optimizer.state.values()} == {steps}


@pytest.mark.parametrize("kind", ["classifier", *TRAINERS])
@pytest.mark.parametrize(("n", "batch_size"), [(5, 1), (1, 8)])
def test_batch_normalisation_and_batches_of_one(kind, n, batch_size, digits):
    with pytest.raises(
        ValueError, match="^batch_size: expected batches of at least 2 samples, got one, in which batch"
    ):
        fit(kind, make("pc", norm=True), digits.x_train[:n], digits.y_train[:n], batch_size=batch_size)


def test_batch_normalisation_of_maps_takes_batches_of_one(digits):
    """There are the pixels; ART trains there too."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    for kind in ("classifier", "adversarial"):
        classifier = create_classifier("sce", net, input_shape=INPUT_SHAPE, nb_classes=10, device_type="cpu")
        fit(kind, classifier, digits.x_train[:3], digits.y_train[:3], batch_size=1, nb_epochs=1)
    trainer = LossTrainer(classifier, averaging="swa", verbose=False)
    trainer.fit(digits.x_train[:3], digits.y_train[:3], batch_size=1, nb_epochs=1)
    assert net[1].running_var.isfinite().all()
    assert not torch.equal(net[1].running_mean, torch.zeros(2))


@pytest.mark.parametrize("kind", ["clean", "adversarial"])
def test_validation_keeps_to_the_batch_size(kind, digits):
    classifier = make()
    largest = []
    hook = classifier.model.register_forward_hook(lambda module, args, out: largest.append(len(args[0])))
    trainer = TRAINERS[kind](classifier, seed=0, averaging="ema", keep="best", verbose=False)
    trainer.fit(digits.x_train[:64], digits.y_train[:64], (digits.x_test[:50], digits.y_test[:50]), 8, 1)
    hook.remove()
    assert max(largest) == 8


# --- schedulers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classifier", "clean", "adversarial", "without validation"])
@pytest.mark.parametrize(("mode", "made"), [("min", True), ("max", False)])
def test_a_plateau_follows_the_figures(kind, mode, made, digits):
    """Those of validation where there is some, else the epoch's; at a rate of 0 the classifier's never change."""
    seen = []

    class Spy(lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, *args):
            seen.append((metrics, self.optimizer.param_groups[0]["lr"]))
            super().step(metrics, *args)

    def scheduler(optimizer):
        return Spy(optimizer, mode, factor=0.5, patience=0, threshold=0.05)

    classifier = make(optimizer=sgd(0.0 if kind == "classifier" else 0.5))
    x, y, given = digits.x_train[:50], digits.y_train[:50], scheduler(classifier.optimizer) if made else scheduler
    if kind == "classifier":
        classifier.fit(x, y, 16, 2, scheduler=given)
        logits, true = torch.from_numpy(classifier.predict(x)), torch.from_numpy(y)
        loss, accuracy = nn.functional.cross_entropy(logits, true), (logits.argmax(1) == true).float().mean()
        assert [figure for figure, _ in seen] == pytest.approx(
            2 * [{"min": loss, "max": accuracy}[mode].item()], rel=1e-5
        )
        return
    trainer = TRAINERS["adversarial" if kind == "adversarial" else "clean"](classifier, seed=0, verbose=False)
    validation = None if kind == "without validation" else (digits.x_test[:40], digits.y_test[:40])
    trainer.fit(digits.x_train[:96], digits.y_train[:96], validation, 32, 6, given)
    figure = {"min": "loss", "max": "robust_accuracy" if kind == "adversarial" else "accuracy"}[mode]
    key = figure if kind == "without validation" else f"val_{figure}"
    assert seen == [(record[key], record["rate"]) for record in trainer.history]
    assert len({rate for _, rate in seen}) > 1 or mode == "max"


def cycle(total):
    return lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total)


@pytest.mark.parametrize("kind", ["classifier", "clean", "adversarial"])
@pytest.mark.parametrize(
    ("scheduler", "interval", "steps"),
    [
        (cycle(12), None, 12),
        (cycle(3), None, 3),
        (cycle(20), None, 3),
        (cycle(20), "batch", 12),
        (cycle(12), "epoch", 3),
        (lambda optimizer: lr_scheduler.StepLR(optimizer, 1), "batch", 12),
    ],
)
def test_how_often_a_scheduler_steps(scheduler, interval, steps, kind, digits):
    classifier = make(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9))
    made = scheduler(classifier.optimizer)
    x, y = digits.x_train[:50], digits.y_train[:50]
    fit(kind, classifier, x, y, batch_size=16, nb_epochs=3, scheduler=made, scheduler_interval=interval)
    assert made.last_epoch == steps


# --- sample weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classifier", "clean"])
def test_a_weight_of_two_is_a_sample_that_is_there_twice(kind, name, digits):
    """One step over all: weights 0, 1 and 2 against samples that are there so often."""
    x, y = digits.x_train[:6], digits.y_train[:6]
    weight = np.array([0, 1, 2, 1, 2, 0], np.float32)
    often = np.repeat(np.arange(6), weight.astype(int))
    classifiers = []
    for inputs, labels, given, rate in ((x, y, weight, 0.06), (x[often], y[often], None, 0.06)):
        classifier = make(name, optimizer=sgd(rate))
        if name == "center":  # whose centers count samples, not weights
            classifier.model.head.center_rate = 0.0
        fit(kind, classifier, inputs, labels, batch_size=8, nb_epochs=1, sample_weight=given)
        classifiers.append(weights(classifier))
    torch.testing.assert_close(*classifiers, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["classifier", "clean"])
def test_weights_of_one_are_no_weights_whatever_those_of_the_classes(kind, digits):
    states = []
    for given in (np.ones(6), None):
        classifier = make("sce", optimizer=sgd(0.1), loss=SoftmaxCrossEntropyLoss(weight=np.linspace(0.2, 2, 10)))
        fit(kind, classifier, digits.x_train[:6], digits.y_train[:6], batch_size=8, nb_epochs=1, sample_weight=given)
        states.append(weights(classifier))
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "attack", [PGD(0.1, steps=1), TRADES(0.1, steps=1), FGSM(0.05)], ids=lambda a: type(a).__name__
)
def test_weights_in_adversarial_training(attack, digits):
    """A sample of weight 0 has no part in it, whatever it is; of weight 1 all is as without."""
    x, y = digits.x_train[:8], digits.y_train[:8]
    other = np.concatenate([1 - x[:2], x[2:]])
    results = []
    for inputs, weight in (
        (x, [0, 0, 1, 1, 1, 1, 2, 2]),
        (other, [0, 0, 1, 1, 1, 1, 2, 2]),
        (x, np.ones((8, 1))),
        (x, None),
    ):
        classifier = make(optimizer=sgd())
        trainer = AdversarialLossTrainer(classifier, attack, seed=0, verbose=False)
        trainer.fit(inputs, y, nb_epochs=1, sample_weight=weight)
        results.append(weights(classifier))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[2], results[3], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(results[0], results[2], atol=1e-4)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction="sum"), nn.NLLLoss(), OneHotLoss(nn.MSELoss())])
def test_weights_with_losses_of_the_user_s_own(loss, digits):
    results = []
    x, y = digits.x_train[:4], digits.y_train[:4]
    for index, weight in (([0, 1, 2, 3], [1, 0, 2, 1]), ([0, 2, 2, 3], None)):
        torch.manual_seed(0)
        net = DefendedNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.LogSoftmax(dim=1))
        classifier = plain(net, LossDefendedClassifier, loss=loss, optimizer=sgd()(net.parameters()))
        classifier.fit(x[index], y[index], nb_epochs=1, sample_weight=weight)
        results.append(weights(classifier))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


# --- gradients, optimizers, averages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["trainer", "recipe"])
def test_a_long_gradient_is_shortened(way, digits):
    """A step of SGD is as long as rate times norm allows, in the direction that it had."""
    steps = []
    for limit in (None, 0.01, 1e6):
        classifier = make(optimizer=sgd(1.0))
        before = weights(classifier)
        if way == "trainer":
            trainer = create_trainer(classifier, clip_gradient=limit, seed=0, verbose=False)
        else:
            recipe = Recipe("mine", "", "", (), "", "sgd", 1.0, 1, 64, clip_gradient=limit)
            trainer = create_trainer(classifier, recipe, seed=0, verbose=False)
        trainer.fit(digits.x_train[:64], digits.y_train[:64], batch_size=64, nb_epochs=1)
        steps.append(weights(classifier) - before)
    assert steps[1].norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(steps[1] / 0.01, steps[0] / steps[0].norm(), rtol=1e-2, atol=1e-4)
    assert torch.equal(steps[0], steps[2])


def test_clipping_is_part_of_what_a_run_is(digits):
    assert "clip_gradient=0.5" in repr(LossTrainer(make(), clip_gradient=0.5))
    assert "clip_gradient" not in repr(LossTrainer(make(), recipe=RECIPES["default"]))  # runs begun before can go on


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nesterov", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01)),
    ],
)
def test_the_recipe_s_optimizers(name, expected, digits):
    trained, reference = make(), make()
    recipe = Recipe("mine", "", "", (), "", name, 0.1, 3, 64, weight_decay=0.01)
    create_trainer(trained, recipe, seed=0, verbose=False).fit(digits.x_train[:64], digits.y_train[:64])
    reference.set_params(optimizer=expected(reference.model.parameters()))
    LossTrainer(reference, seed=0, verbose=False).fit(
        digits.x_train[:64], digits.y_train[:64], batch_size=64, nb_epochs=3
    )
    assert torch.equal(weights(trained), weights(reference))
    with pytest.raises(ValueError, match="unknown optimizer 'adanw'. Did you mean 'adamw'"):
        Recipe("mine", "", "", (), "", "adanw", 0.1, 3, 64)


def test_the_warning_looks_at_the_weights_that_are_kept(digits, caplog):
    """Of an average that begins at weights far from those at the end, and stays there."""

    class Stays(LossTrainer):
        def _new_average(self):
            average = super()._new_average()
            average.after_step = lambda: None
            with torch.no_grad():
                before = {name: each.clone() for name, each in self.classifier.model.state_dict().items()}
                for parameter in self.classifier.model.parameters():
                    parameter.zero_()
                average.after_epoch(1)
                self.classifier.model.load_state_dict(before)
            return average

    with caplog.at_level(logging.WARNING):
        trainer = Stays(make(), averaging="ema", seed=0, verbose=False)
        trainer.fit(digits.x_train, digits.y_train, batch_size=32, nb_epochs=6)
    assert trainer.history[-1]["accuracy"] > 0.4
    assert "learnt next to nothing" in caplog.text
