"""Trainers, recipes and augmentation."""

from __future__ import annotations

import logging
import shutil
import sys
import types
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from art.defences.trainer import Trainer

from art_mmc.classifiers import CLASSIFIERS, LossDefendedClassifier
from art_mmc.defences import DEFENCES
from art_mmc.losses import PCLogitConstraintLoss, SoftmaxCrossEntropyLoss
from art_mmc.models import BACKBONES
from art_mmc.trainers import (
    AUGMENTATIONS,
    PGD,
    RECIPES,
    TRAINERS,
    AdversarialLossTrainer,
    LossTrainer,
    MMCTrainer,
    PCTrainer,
    Recipe,
    TrainingInterrupted,
    create_trainer,
    get_recipe,
)
from art_mmc.trainers.augmentation import Chain, RandomAffine, RandomFlip, RandomShift, Sometimes
from tests.planted import plain
from tests.training import make, stop_at, weights


class TestLossTrainer:
    @pytest.mark.parametrize("name", [*DEFENCES, None])
    def test_every_defence_has_its_trainer_and_a_loss_of_one_s_own_the_plain_one(self, name):
        own = plain(torch.nn.Sequential(torch.nn.Linear(64, 10)), LossDefendedClassifier, input_shape=(64,))
        trainer = create_trainer(own if name is None else make(name), None if name is None else "default")
        assert isinstance(trainer, Trainer)
        assert type(trainer) is TRAINERS.get(name, LossTrainer)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "name", [each if each in ("mmc", "pc") else pytest.param(each, marks=pytest.mark.contract) for each in DEFENCES]
    )
    def test_every_defence_learns_the_digits(self, name, data):
        trainer = create_trainer(make(name), "default", seed=0, verbose=False)
        trainer.fit(data.x_train, data.y_train, nb_epochs=12)
        predictions = trainer.predict(data.x_test).argmax(axis=1)
        assert (predictions == data.y_test).mean() > 0.93
        assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]

    def test_same_seed_same_weights_and_the_global_state_stays(self, data):
        """Without one torch's own decides."""
        runs = []
        for seed in (1, 1, 2, None, None):
            classifier = make("mmc")
            torch.manual_seed(5)
            before = torch.random.get_rng_state()
            trainer = MMCTrainer(classifier, augmentation="crop-flip", seed=seed, verbose=False)
            trainer.fit(data.x_train[:300], data.y_train[:300], nb_epochs=2)
            assert torch.equal(torch.random.get_rng_state(), before) or seed is None
            runs.append(weights(classifier))
        assert torch.equal(runs[0], runs[1])
        assert not torch.equal(runs[0], runs[2])
        assert torch.equal(runs[3], runs[4])

    def test_history_tells_what_happened(self, data):
        classifier = make()
        trainer = LossTrainer(classifier, seed=0, verbose=False)
        validation = (data.x_test[:50], np.eye(10)[data.y_test[:50]])
        trainer.fit(data.x_train[:128], data.y_train[:128], validation, nb_epochs=3)
        assert [record["epoch"] for record in trainer.history] == [1, 2, 3]
        last = trainer.history[-1]
        logits = torch.from_numpy(classifier.predict(data.x_test[:50]))
        labels = torch.from_numpy(data.y_test[:50])
        assert last["val_loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
        assert last["val_accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
        assert last["rate"] == 1e-3
        assert not classifier.model.training

    def test_the_reported_loss_is_the_mean_over_samples_not_over_batches(self, data):
        classifier = make()
        classifier._optimizer = torch.optim.SGD(classifier.model.parameters(), lr=0.0)
        trainer = LossTrainer(classifier, verbose=False)
        trainer.fit(data.x_train[:70], data.y_train[:70], batch_size=64, nb_epochs=1)
        with classifier.using_objective("loss"):
            expected = classifier.compute_loss(data.x_train[:70], data.y_train[:70]).mean()
        assert trainer.history[0]["loss"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("trainer", ["recipe", "adversarial recipe", "another optimizer"])
    def test_a_scheduler_of_another_optimizer_is_refused(self, trainer, data):
        """It would step, and change nothing."""
        classifier = make()
        optimizer = torch.optim.SGD(classifier.model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(classifier.optimizer, 1)
        recipe = {"recipe": "default", "adversarial recipe": replace(RECIPES["default"], attack="fast")}.get(trainer)
        message = "scheduler: a StepLR came, but recipe 'default' trains with an optimizer of its own"
        if recipe is None:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            message = "its optimizer is not the classifier's"
        before = weights(classifier)
        with pytest.raises(TypeError, match=f"{message}.*pass a function that makes one from an optimizer"):
            create_trainer(classifier, recipe, verbose=False).fit(
                data.x_train[:64], data.y_train[:64], nb_epochs=1, scheduler=scheduler
            )
        assert torch.equal(before, weights(classifier))

    @pytest.mark.parametrize("own", [False, True])
    def test_a_scheduler_of_the_recipe_s_or_the_classifier_s_optimizer(self, own, data):
        """That one is made, which does for a trainer with a warm-up that warms nothing up."""
        scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
        trainer = create_trainer(make(), "default", verbose=False)
        if own:
            trainer = PCTrainer(make("pc"), warmup_epochs=0, verbose=False)
            scheduler = scheduler(trainer.classifier.optimizer)
        trainer.fit(data.x_train[:64], data.y_train[:64], nb_epochs=3, scheduler=scheduler)
        first = 1e-3 if own else 2e-3
        assert [record["rate"] for record in trainer.history] == pytest.approx([first, first / 2, first / 4])

    def test_a_network_that_learns_nothing_is_called_out(self, data, caplog):
        classifier = make()
        classifier._optimizer = torch.optim.SGD(classifier.model.parameters(), lr=0.0)
        with caplog.at_level(logging.WARNING):
            LossTrainer(classifier, verbose=False).fit(data.x_train[:256], data.y_train[:256], nb_epochs=1)
        assert "learnt next to nothing" in caplog.text

    def test_a_loss_that_diverges_stops_the_training(self, data):
        classifier = make("mmc")
        classifier._optimizer = torch.optim.SGD(classifier.model.parameters(), lr=1e6)
        with pytest.raises(FloatingPointError, match="training loss is (nan|inf).*lower rate"):
            LossTrainer(classifier, verbose=False).fit(data.x_train[:256], data.y_train[:256], nb_epochs=3)

    def test_the_progress_bar_is_there_on_a_terminal_and_can_be_silenced(self, data, capsys, monkeypatch):
        for verbose, terminal in ((False, True), (True, True), (True, False)):
            monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
            LossTrainer(make(), verbose=verbose).fit(data.x_train[:64], data.y_train[:64], nb_epochs=1)
            assert ("sce" in capsys.readouterr().err) == (verbose and terminal)


class TestCompile:
    """The steps go through the compiled network, and come to the same."""

    @staticmethod
    def losses(data, compile_network):
        torch.manual_seed(0)
        backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.Tanh())
        # the center loss reads what the head hangs on the logits
        classifier = CLASSIFIERS["center"](backbone, input_shape=(1, 8, 8), nb_classes=10)
        trainer = AdversarialLossTrainer(
            classifier, PGD(0.1, steps=2), seed=0, verbose=False, compile_network=compile_network
        )
        trainer.fit(data.x_train[:192], data.y_train[:192], nb_epochs=3, batch_size=64)
        return [record["loss"] for record in trainer.history], weights(classifier), classifier.model.head.centers

    @pytest.fixture
    def calls(self, monkeypatch):
        """What was compiled, and how often that was called."""
        seen, compiler = [], torch.compile

        def spy(network, **kwargs):
            compiled = compiler(network, **kwargs)
            seen.append(0)

            def forward(x):
                seen[-1] += 1
                return compiled(x)

            return forward

        monkeypatch.setattr(torch, "compile", spy)
        return seen

    def test_every_step_calls_it(self, data, calls, monkeypatch):
        """By a compiler that captures the graph and runs it as it is."""
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
        plain = self.losses(data, False)
        assert calls == []
        compiled = self.losses(data, True)
        assert calls == [9]
        assert plain[0] == compiled[0]
        for one, other in zip(plain[1:], compiled[1:], strict=True):
            assert torch.equal(one, other)
        assert compiled[2].any()

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
    def test_torch_s_own_compiler(self, data, calls):
        plain, compiled = self.losses(data, False), self.losses(data, True)
        assert calls == [9]
        assert compiled[0] == pytest.approx(plain[0], rel=1e-5)
        for one, other in zip(plain[1:], compiled[1:], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class TestTensorBoard:
    @staticmethod
    def trainer(folder):
        return create_trainer(make("mmc"), "default", folder=folder, seed=0, verbose=False)

    @staticmethod
    def train(trainer, data, **kwargs):
        validation = (data.x_test[:30], data.y_test[:30])
        trainer.fit(data.x_train[:128], data.y_train[:128], validation, nb_epochs=3, **kwargs)
        return trainer.history

    def test_each_figure_of_each_epoch_once_and_a_resumed_run_goes_on_behind(self, data, tmp_path, monkeypatch):
        """By a stand-in for TensorBoard."""
        made = []

        class SummaryWriter:
            def __init__(self, folder, purge_step):
                self.folder, self.purge_step, self.scalars, self.flushed = folder, purge_step, [], 0
                made.append(self)

            def add_scalar(self, name, value, step):
                self.scalars.append((name, value, step))

            def flush(self):
                self.flushed = len(self.scalars)

        module = types.ModuleType("torch.utils.tensorboard")
        module.SummaryWriter = SummaryWriter
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
        first = self.trainer(tmp_path)
        stop_at(first, 5)  # of two batches an epoch
        with pytest.raises(TrainingInterrupted):
            self.train(first, data)
        history = self.train(self.trainer(tmp_path), data, resume=True)
        names = ["loss", "accuracy", "val_loss", "val_accuracy", "rate", "seconds"]
        written = [(name, record[name], record["epoch"]) for record in history for name in names]
        assert [writer.scalars for writer in made] == [written[: 2 * len(names)], written[2 * len(names) :]]
        for writer, purge_step in zip(made, (1, 3), strict=True):
            assert (writer.folder, writer.purge_step) == (str(tmp_path), purge_step)
            assert writer.flushed == len(writer.scalars)

    def test_without_it_there_is_the_history_alone(self, data, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were not installed
        self.train(self.trainer(tmp_path), data)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "history.csv", "last.pt"]


class TestPCTrainer:
    def losses_seen(self, classifier, monkeypatch):
        seen = []
        batch_loss = PCTrainer._batch_loss

        def spy(self, x, y, step):
            optimizer = classifier.optimizer
            seen.append((type(classifier.loss), optimizer, optimizer.param_groups[0]["lr"]))
            return batch_loss(self, x, y, step)

        monkeypatch.setattr(PCTrainer, "_batch_loss", spy)
        return seen

    def test_cross_entropy_first_then_pc_with_a_fresh_optimizer(self, data, monkeypatch):
        classifier = make("pc")
        own_loss = classifier.loss
        seen = self.losses_seen(classifier, monkeypatch)
        trainer = PCTrainer(classifier, warmup_epochs=2, seed=0, verbose=False)
        trainer.fit(data.x_train[:128], data.y_train[:128], batch_size=64, nb_epochs=5)
        assert [loss for loss, _, _ in seen] == [SoftmaxCrossEntropyLoss] * 4 + [PCLogitConstraintLoss] * 6
        assert len({optimizer for _, optimizer, _ in seen[:4]}) == len({optimizer for _, optimizer, _ in seen[4:]}) == 1
        assert seen[0][1] is not seen[-1][1]
        assert [record["stage"] for record in trainer.history] == ["warm-up"] * 2 + ["pc"] * 3
        assert classifier.loss is own_loss

    def test_half_of_the_epochs_by_default_and_the_recipe_s_share(self, data):
        for recipe, epochs, warmup in ((None, 5, 2), ("li2021-mnist", 4, 2), (None, 1, 0)):
            trainer = create_trainer(make("pc"), recipe, verbose=False)
            trainer.fit(data.x_train[:64], data.y_train[:64], nb_epochs=epochs)
            assert [record["stage"] for record in trainer.history].count("warm-up") == warmup

    def test_each_stage_has_its_own_schedule(self, data, monkeypatch):
        classifier = make("pc")
        seen = self.losses_seen(classifier, monkeypatch)
        schedule = {"schedule": "piecewise", "milestones": (1,), "rate": 0.01}
        recipe = replace(RECIPES["default"], nb_epochs=4, warmup_epochs=2, batch_size=64, **schedule)
        create_trainer(classifier, recipe, verbose=False).fit(data.x_train[:64], data.y_train[:64])
        assert [rate for _, _, rate in seen] == pytest.approx([0.01, 0.001, 0.01, 0.001])

    def test_an_interrupted_warm_up_leaves_the_own_loss(self, data, monkeypatch):
        classifier = make("pc")
        own_loss = classifier.loss

        def interrupt(self, x, y, step):
            raise KeyboardInterrupt

        monkeypatch.setattr(PCTrainer, "_batch_loss", interrupt)
        with pytest.raises(KeyboardInterrupt):
            PCTrainer(classifier, verbose=False).fit(data.x_train[:64], data.y_train[:64])
        assert classifier.loss is own_loss
        assert not classifier.model.training


class TestRecipes:
    #: method, optimizer, rate, epochs, batch, milestones, gamma, weight decay, warm-up: typed off the published tables
    PUBLISHED = {
        "pang2020-cifar10": ("sgd", 0.01, 200, 50, (101, 151), 0.1, 2e-4, 0),
        "pang2020-mnist": ("sgd", 0.01, 40, 50, (31,), 0.1, 2e-4, 0),
        "li2021-mnist": ("adam", 0.01, 100, 256, (16, 33), 0.2, 0.0, 50),
        "li2021-tiny-imagenet": ("adam", 0.01, 300, 256, (49, 99), 0.2, 0.0, 150),
        "pang2018-cifar10": ("sgd", 0.1, 230, 128, (102, 153, 205), 0.1, 2e-4, 0),
        "chen2019-mnist": ("adam", 1e-3, 20, 64, (), 0.1, 0.0, 0),
        "song2022-cifar10": ("sgd", 0.1, 51, 128, (26, 38), 0.1, 0.0, 0),
    }

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_published_values(self, name):
        r = RECIPES[name]
        names = ("optimizer", "rate", "nb_epochs", "batch_size", "milestones", "gamma", "weight_decay", "warmup_epochs")
        assert tuple(getattr(r, each) for each in names) == self.PUBLISHED[name]

    def test_steps_of_the_step_counted_recipes(self):
        for name, images, steps in (
            ("pang2018-cifar10", 50_000, 90_000),
            ("pang2018-mnist", 60_000, 20_000),
            ("song2022-cifar10", 50_000, 20_000),
        ):
            recipe = RECIPES[name]
            assert recipe.nb_epochs * images / recipe.batch_size == pytest.approx(steps, rel=0.015)

    @pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
    def test_every_recipe_is_consistent_and_has_a_twin_that_says_what_it_is(self, recipe: Recipe):
        assert get_recipe(*recipe.name.split("-", 1)) is RECIPES[recipe.name] is recipe
        assert recipe.backbone in BACKBONES
        assert set(recipe.defences) <= set(DEFENCES)
        assert recipe.augmentation is None or recipe.augmentation in AUGMENTATIONS
        stage = recipe.nb_epochs - recipe.warmup_epochs
        assert list(recipe.milestones) == sorted(m for m in recipe.milestones if 0 < m < stage)
        if recipe.name != "default" and not recipe.name.endswith("-small"):
            twin = RECIPES[f"{recipe.name}-small"]
            assert twin.nb_epochs < recipe.nb_epochs
            assert "scaled-down twin" in twin.description

    def test_decay_reaches_what_it_should(self):
        net = make("mmc").model
        net.add_module("norm", torch.nn.BatchNorm2d(3))
        names = {id(parameter): name for name, parameter in net.named_parameters()}
        for decay, least in (("all", 0), ("conv", 4), ("weights", 2)):
            recipe = replace(RECIPES["default"], decay=decay, weight_decay=1e-3)
            groups = [group["params"] for group in recipe.make_optimizer(net).param_groups if group["weight_decay"]]
            chosen = {names[id(parameter)] for group in groups for parameter in group}
            assert chosen == {name for name, parameter in net.named_parameters() if parameter.ndim >= least}

    def test_sgd_has_the_papers_momentum_and_adam_the_betas(self):
        net = torch.nn.Linear(2, 2)
        assert RECIPES["pang2020-cifar10"].make_optimizer(net).defaults["momentum"] == 0.9
        assert RECIPES["chen2019-mnist"].make_optimizer(net).defaults["betas"] == (0.9, 0.99)

    def test_another_number_of_epochs_or_batch_size_keeps_the_shape(self):
        short = RECIPES["pang2020-cifar10"].scaled(20)
        assert (short.nb_epochs, short.milestones) == (20, (10, 15))
        assert RECIPES["li2021-mnist"].scaled(10).warmup_epochs == 5
        large = RECIPES["pang2021-cifar10-at"].with_batch_size(512)
        assert (large.batch_size, large.rate) == (512, pytest.approx(0.4))

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: RECIPES["default"].scaled(0), "at least 1"),
            (lambda: get_recipe("pang2002"), "unknown recipe 'pang2002'. Did you mean 'pang20"),
            (lambda: get_recipe("chen2019", "svhn"), "'chen2019' has none for data set 'svhn'. Known: chen2019-mnist"),
        ],
    )
    def test_what_there_is_not_is_refused(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()
        assert get_recipe("default", "mnist").name == "default"

    def test_the_classifier_s_own_optimizer_is_back_afterwards(self, data):
        """The recipe's rate may have gone down to nothing; a later fit must still learn."""
        classifier = make()
        optimizer = classifier.optimizer
        create_trainer(classifier, "default", verbose=False).fit(data.x_train[:64], data.y_train[:64], nb_epochs=2)
        assert classifier.optimizer is optimizer
        before = weights(classifier)
        classifier.fit(data.x_train[:64], data.y_train[:64], nb_epochs=1)
        assert not torch.equal(before, weights(classifier))

    @pytest.mark.parametrize("schedule", ["piecewise", "linear", "cosine", "cyclic"])
    def test_schedules_and_their_warm_up(self, schedule):
        recipe = replace(RECIPES["default"], schedule=schedule, milestones=(6,), rate=1.0, optimizer="sgd")
        for warmup in (0.0, 2.0):
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
            scheduler = replace(recipe, rate_warmup=warmup).make_scheduler(optimizer, steps=10, nb_epochs=10)
            rates = []
            for _ in range(100):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
            t = np.arange(100) / 10
            expected = {
                "piecewise": np.where(t >= 6, 0.1, 1.0),
                "linear": 1 - t / 10,
                "cosine": (1 + np.cos(np.pi * t / 10)) / 2,
                "cyclic": np.where(t < 4, (t + 0.1) / 4, (10 - t) / 6),
            }[schedule]
            if warmup:
                assert rates[0] > 0
                assert max(rates) <= 1.0
                assert rates[:20] == sorted(rates[:20])
                assert rates[40:] == pytest.approx(expected[40:].tolist())
            else:
                assert rates == pytest.approx(expected.tolist())

    def test_training_twice_with_another_number_of_epochs_starts_from_the_recipe(self, data):
        recipe = replace(RECIPES["default"], schedule="piecewise", milestones=(30,))
        trainer = create_trainer(make(), recipe, verbose=False)
        for epochs in (1, 4):
            trainer.fit(data.x_train[:64], data.y_train[:64], nb_epochs=epochs)
        assert [record["rate"] for record in trainer.history] == pytest.approx([2e-3, 2e-3, 2e-3, 2e-4])


class TestAugmentation:
    @pytest.fixture
    def x(self):
        return torch.rand(64, 3, 8, 10, generator=torch.Generator().manual_seed(0)) + 0.1

    @staticmethod
    def generator(seed=0):
        return torch.Generator().manual_seed(seed)

    @pytest.mark.parametrize("name", AUGMENTATIONS)
    def test_shape_seed_and_effect(self, name, x):
        augment = AUGMENTATIONS[name]
        before, state = x.clone(), torch.random.get_rng_state()
        out = augment(x, self.generator())
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert torch.equal(out, augment(x, self.generator()))
        assert not torch.equal(out, augment(x, self.generator(1)))
        assert torch.equal(x, before)
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_flip_mirrors_about_half(self, x):
        out = RandomFlip()(x, self.generator())
        mirrored = (out == x.flip(-1)).flatten(1).all(dim=1)
        assert 15 < mirrored.sum() < 49
        assert ((out == x).flatten(1).all(dim=1) | mirrored).all()

    @pytest.mark.parametrize(
        ("share", "fill", "most"),
        [(2, "zero", (2, 2)), (2, "nearest", (2, 2)), (2, "reflect", (2, 2)), (0.2, "zero", (1, 2))],
    )
    def test_shift_is_a_crop_of_the_padded_image(self, share, fill, most, x):
        """A share of the side counts each side: here one pixel of 8 and two of 10."""
        out = RandomShift(share, fill)(x, self.generator())
        mode = {"zero": "constant", "nearest": "replicate", "reflect": "reflect"}[fill]
        padded = torch.nn.functional.pad(x, (most[1], most[1], most[0], most[0]), mode=mode)
        rows, columns = (range(2 * each + 1) for each in most)
        crops = [padded[:, :, i : i + 8, j : j + 10] for i in rows for j in columns]
        found = torch.stack([(out == crop).flatten(1).all(dim=1) for crop in crops])
        assert found.any(dim=0).all()
        assert found.any(dim=1).sum() > 0.6 * len(crops)

    def test_affine_identity_and_bounds(self, x):
        """Without rotation a crop never looks outside the image, so no zeros come in but for the half-pixel border."""
        torch.testing.assert_close(RandomAffine()(x, self.generator()), x, rtol=1e-4, atol=1e-5)
        for affine, least in ((RandomAffine(10.0, 0.5), 0), (RandomAffine(0.0, 0.08), 0.999)):
            out = affine(torch.ones(200, 1, 16, 16), self.generator())
            assert out.max() <= 1 + 1e-5
            assert out[:, :, 1:-1, 1:-1].min() >= least

    def test_sometimes_and_chain(self, x):
        doubled = Sometimes(lambda batch, generator: batch * 2, 0.25)(x, self.generator())
        changed = (doubled != x).flatten(1).any(dim=1)
        assert 6 <= changed.sum() <= 28
        assert torch.equal(doubled[changed], x[changed] * 2)
        chain = Chain((RandomFlip(1.0), RandomFlip(1.0)))
        assert torch.equal(chain(x, self.generator()), x)
