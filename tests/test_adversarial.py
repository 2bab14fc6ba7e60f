"""Adversarial training: what the strategies craft, what they leave alone, and what the settings change."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.preprocessor import GaussianAugmentation

from art_mmc.cli import build_parser, main
from art_mmc.defences import DEFENCES
from art_mmc.trainers import (
    FGSM,
    PGD,
    TRADES,
    AdversarialLossTrainer,
    ARTAttack,
    FastFGSM,
    create_trainer,
    make_crafting,
)
from art_mmc.trainers.crafting import CraftingContext
from tests.conftest import left_alone
from tests.training import make, weights

STRATEGIES = {
    "pgd": PGD(0.1, steps=4),
    "pgd-l2": PGD(0.5, steps=4, norm=2),
    "pgd-margin": PGD(0.1, steps=3, objective="margin"),
    "pgd-random-target": PGD(0.1, steps=3, targeted="random"),
    "pgd-least-likely": PGD(0.1, steps=3, targeted="least_likely"),
    "pgd-batch-statistics": PGD(0.1, steps=3, batch_norm="train"),
    "pgd-early-stop": PGD(0.1, steps=4, tolerance=1),
    "pgd-eps-range": PGD(0.1, steps=3, eps_min=0.0),
    "fgsm": FGSM(0.05, 0.1),
    "fast": FastFGSM(0.1),
    "trades": TRADES(0.1, steps=3),
}


def moment(seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return CraftingContext(lambda shape: torch.rand(shape, generator=generator), **kwargs)


def batch(data, n=64):
    return torch.from_numpy(data.x_train[:n].copy()), torch.from_numpy(data.y_train[:n].copy())


@pytest.fixture(scope="module")
def trained(data):
    classifier = make(backbone="dense")
    create_trainer(classifier, "default", seed=0, verbose=False).fit(data.x_train, data.y_train, nb_epochs=10)
    return classifier


class TestCrafting:
    @pytest.mark.parametrize("name", STRATEGIES)
    def test_in_the_ball_and_in_the_box_and_away_from_the_input(self, name, data, trained):
        x, y = batch(data)
        x_adv = STRATEGIES[name].craft(trained, x, y, moment())
        delta = (x_adv - x).flatten(1)
        eps = getattr(STRATEGIES[name], "eps_max", None) or STRATEGIES[name].eps
        size = delta.norm(dim=1) if getattr(STRATEGIES[name], "norm", None) == 2 else delta.abs().amax(dim=1)
        assert size.max() <= eps + 1e-6
        assert size.max() > eps / 2
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        assert not x_adv.requires_grad
        assert x_adv.dtype == x.dtype

    @pytest.mark.parametrize("name", STRATEGIES)
    @pytest.mark.parametrize("mode", ["train", "eval"])
    def test_the_network_is_left_as_it_was(self, name, mode, data):
        classifier = make("center", "normed", dropout=0.0)
        net = classifier.model
        net.train(mode == "train")
        net.backbone.module.last_norm.eval()
        net(batch(data)[0]).sum().backward()
        x, y = batch(data)
        inputs = x.clone()
        with left_alone(net):
            STRATEGIES[name].craft(classifier, x, y, moment())
        assert torch.equal(x, inputs)

    def test_pgd_equals_a_hand_written_loop(self, data, trained):
        x, y = batch(data)
        got = PGD(0.1, steps=5, random_start=False).craft(trained, x, y, moment())
        x_adv = x.clone()
        for _ in range(5):
            x_adv.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(trained.model(x_adv), y, reduction="sum")
            grad = torch.autograd.grad(loss, x_adv)[0]
            x_adv = (x_adv + 0.025 * grad.sign()).detach()
            x_adv = (x + (x_adv - x).clamp(-0.1, 0.1)).clamp(0, 1)
        assert torch.equal(got, x_adv)

    def test_it_climbs_what_it_is_told_to(self, data, trained):
        x, y = batch(data, 200)
        clean = trained.attack_values(trained.model(x), y, "loss").mean()
        for objective in ("loss", "margin", "dlr", "cross_entropy", "adaptive"):
            x_adv = PGD(0.1, steps=5, objective=objective).craft(trained, x, y, moment())
            before, after = (trained.attack_values(trained.model(v), y, objective).mean() for v in (x, x_adv))
            assert after > before, objective
            assert trained.attack_values(trained.model(x_adv), y, "loss").mean() > clean

    def test_a_target_is_another_class_and_comes_closer(self, data, trained):
        x, y = batch(data, 400)
        strategy = PGD(0.2, steps=5, targeted="random")
        target, sign = strategy._target(trained, x, y, moment())
        assert sign == -1
        assert (target != y).all()
        assert torch.bincount(target, minlength=10).min() > 15
        least, _ = replace(strategy, targeted="least_likely")._target(trained, x, y, moment())
        logits = trained.model(x)
        wrong = logits.scatter(1, y[:, None], math.inf)
        assert torch.equal(least, wrong.argmin(1))
        x_adv = strategy.craft(trained, x, y, moment())
        gain = trained.model(x_adv).gather(1, target[:, None]) - logits.gather(1, target[:, None])
        assert gain.median() > 0

    def test_early_stop_of_the_attack_leaves_fooled_samples_near_the_border(self, data, trained):
        x, y = batch(data, 400)
        full = PGD(0.3, steps=10, random_start=False)
        x_full = full.craft(trained, x, y, moment())
        losses = {}
        for tolerance in (0, 1, 20):
            x_adv = replace(full, tolerance=tolerance).craft(trained, x, y, moment())
            losses[tolerance] = trained.attack_values(trained.model(x_adv), y, "loss").mean()
            if tolerance == 20:
                assert torch.equal(x_adv, x_full)
        assert losses[0] < losses[1] < losses[20]
        grown = replace(full, tolerance=0, tolerance_epochs=(2,)).craft(trained, x, y, moment(epoch=2.0))
        assert torch.equal(grown, replace(full, tolerance=1).craft(trained, x, y, moment()))

    @pytest.mark.parametrize(
        ("strategy", "norm", "low", "high"),
        [
            (FGSM(0.1, 0.3), math.inf, 0.1, 0.3),
            (FGSM(0.1, None), math.inf, 0.1, 0.1),
            (PGD(0.2, steps=6, eps_min=0.1), math.inf, 0.1, 0.2),
            (PGD(0.4, steps=1, step_size=0.1, norm=2, random_start=False), 2, 0.1, 0.1),
        ],
        ids=["fgsm", "fgsm of one length", "pgd", "one step in L2"],
    )
    def test_lengths_are_spread_over_the_range(self, strategy, norm, low, high, data, trained):
        x, y = torch.full((500, 1, 8, 8), 0.5), torch.arange(500) % 10
        lengths = torch.linalg.vector_norm((strategy.craft(trained, x, y, moment()) - x).flatten(1), norm, dim=1)
        assert low - 1e-5 <= lengths.min() <= low + 0.01
        assert high - 0.01 <= lengths.max() <= high + 1e-5
        assert abs(lengths.mean() - (low + high) / 2) < 0.01

    def test_batch_statistics_change_what_is_crafted(self, data):
        classifier = make("sce", "normed")
        x, y = batch(data)
        crafted = [
            PGD(0.1, steps=2, random_start=False, batch_norm=mode).craft(classifier, x, y, moment())
            for mode in ("eval", "train")
        ]
        assert not torch.equal(*crafted)

    def test_eps_warm_up_scales_ball_and_step(self, data, trained):
        x, y = batch(data)
        half = PGD(0.2, steps=3).craft(trained, x, y, moment(scale=0.5))
        assert torch.equal(half, PGD(0.1, steps=3).craft(trained, x, y, moment()))

    def test_trades_climbs_the_divergence_and_trains_on_its_formula(self, data, trained):
        x, y = batch(data)
        strategy = TRADES(0.1, steps=5, beta=3.0)
        x_adv = strategy.craft(trained, x, y, moment())
        with torch.no_grad():
            p, q = (torch.log_softmax(trained.model(v).double(), 1).numpy() for v in (x, x_adv))
            divergence = (np.exp(p) * (p - q)).sum(axis=1)
            loss, logits = strategy.training_loss(trained.forward, trained.loss, x, y, x_adv)
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).sub(0.5).sign()
        with torch.no_grad():
            r = torch.log_softmax(trained.model((x + 0.1 * noise).clamp(0, 1)).double(), 1).numpy()
        assert divergence.mean() > 3 * (np.exp(p) * (p - r)).sum(axis=1).mean()
        cross_entropy = -p[np.arange(len(y)), y.numpy()].mean()
        assert loss.item() == pytest.approx(cross_entropy + 3.0 * divergence.mean(), rel=1e-5)
        with torch.no_grad():
            assert torch.equal(logits, trained.forward(x_adv))

    def test_an_art_attack_crafts(self, data, trained):
        attack = ProjectedGradientDescent(trained, eps=0.1, eps_step=0.05, max_iter=3, verbose=False)
        x, y = batch(data, 32)
        x_adv = ARTAttack(attack).craft(trained, x, y, moment())
        assert 0.05 < (x_adv - x).abs().max() <= 0.1 + 1e-6

    def test_a_box_of_its_own_and_none(self, data):
        x, y = batch(data, 16)
        wide = make(clip_values=(-1.0, 2.0))
        assert PGD(0.3).craft(wide, x, y, moment()).min() < -0.1
        arrays = make(clip_values=(np.full((1, 8, 8), 0.2, np.float32), np.full((1, 8, 8), 0.8, np.float32)))
        assert PGD(0.3).craft(arrays, x, y, moment()).min() >= 0.2
        assert PGD(0.3).craft(make(clip_values=None), x, y, moment()).min() < -0.1

    @pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (-0.5, 0.5), (100, 101)])
    @pytest.mark.parametrize("strategy", [PGD(0.1, steps=3), PGD(0.5, 3, norm=2), TRADES(0.1, 3), FGSM(0.05, 0.1)])
    def test_crafting_is_the_same_in_any_range(self, data, strategy, low, high):
        """The same network on images put on another range, all radii and steps in its unit: the same examples."""
        x, y = batch(data, 8)
        width, wide = high - low, {"clip_values": (low, high), "mean": float(low), "std": float(high - low)}
        expected = strategy.craft(make(), x, y, moment())
        got = strategy.scaled(width).craft(make(**wide), low + width * x, y, moment())
        different = ((got - low) / width - expected).abs() > 1e-4  # where a gradient's sign is that of rounding
        assert different.float().mean() < 0.02

    def test_a_recipe_goes_by_the_range_of_the_inputs(self):
        trainer = create_trainer(make(clip_values=(0, 255)), "li2021-cifar10-at", verbose=False)
        assert (trainer.attack.eps, trainer.attack.eps_min) == (25.5, 0.0)
        uneven = (np.zeros((1, 8, 8), np.float32), np.arange(1, 65, dtype=np.float32).reshape(1, 8, 8))
        with pytest.raises(ValueError, match="recipe 'li2021-cifar10-at' is for inputs of one range"):
            create_trainer(make(clip_values=uneven), "li2021-cifar10-at")

    @pytest.mark.parametrize("row", [DEFENCES["pc"], replace(DEFENCES["gce"], warm_up=True)], ids=lambda row: row.name)
    def test_a_row_with_a_warm_up_has_one_in_a_recipe_of_this_kind_too(self, row, monkeypatch):
        monkeypatch.setitem(DEFENCES, row.name, row)
        assert create_trainer(make(row.name), "li2021-cifar10-at", verbose=False).warmup_epochs is None
        assert create_trainer(make("sce"), "li2021-cifar10-at", verbose=False).warmup_epochs == 0


def train(data, name="sce", attack="pgd", n=192, epochs=2, backbone="dense", validation=None, **kwargs):
    classifier = make(name, backbone)
    strategy = make_crafting(attack, eps=0.1) if isinstance(attack, str) else attack
    trainer = AdversarialLossTrainer(classifier, strategy, **{"seed": 0, "verbose": False, **kwargs})
    trainer.fit(data.x_train[:n], data.y_train[:n], validation, nb_epochs=epochs, batch_size=64)
    return trainer


class TestAdversarialLossTrainer:
    @pytest.mark.parametrize(
        "name", ["mmc", *(pytest.param(each, marks=pytest.mark.contract) for each in ("pc", "center"))]
    )
    def test_a_defence_becomes_more_robust(self, name, data):
        classifier = make(name, "dense")
        clean = create_trainer(classifier, "default", seed=0, verbose=False)
        clean.fit(data.x_train, data.y_train, nb_epochs=8)
        judge = AdversarialLossTrainer(classifier, PGD(0.1, steps=4), seed=0, verbose=False)
        x, y = data.x_test[:200], data.y_test[:200]
        before = judge.robust_accuracy(x, y)
        judge.fit(data.x_train[:700], data.y_train[:700], nb_epochs=5, batch_size=64)
        assert judge.robust_accuracy(x, y) > before + 0.04

    def test_lower_precision_and_augmentation_have_an_effect(self, data):
        base, low, moved = (
            weights(train(data, **each)) for each in ({}, {"precision": "bfloat16"}, {"augmentation": "crop-flip"})
        )
        assert 0 < (low - base).abs().max() < 0.1
        assert not torch.equal(moved, base)

    @pytest.mark.parametrize(
        ("name", "settings", "expected"),
        [
            # a quarter of each batch is attacked
            ("sce", {"adv_ratio": 0.25}, [("SoftmaxCrossEntropyLoss", 16, 1.0)] * 6),
            # eps grows to the full size and no further
            ("sce", {"eps_warmup": 2}, [("SoftmaxCrossEntropyLoss", 64, min(1, each / 4)) for each in range(1, 7)]),
            # the warm-up of PC is on clean examples
            ("pc", {"warmup_epochs": 1}, [("PCLogitConstraintLoss", 64, 1.0)] * 4),
        ],
    )
    def test_what_is_crafted(self, name, settings, expected, data):
        """For which loss, of how many samples, at which share of eps; in each of two batches of three epochs."""
        seen = []

        class Spy(FGSM):
            def craft(self, classifier, x, y, context):
                seen.append((type(classifier.loss).__name__, len(x), context.scale))
                return super().craft(classifier, x, y, context)

        trainer = train(data, name, Spy(0.05, 0.1), epochs=3, n=128, **settings)
        assert seen == expected
        assert [each["stage"] for each in trainer.history] == [*["warm-up"] * (name == "pc"), *[name] * 3][:3]

    def test_it_is_the_robust_accuracy_that_must_rise(self, data, monkeypatch):
        """The clean one rises all the time here; the robust one is best in the second epoch."""
        robust = iter([0.3, 0.4, 0.4, 0.2, 0.1, 0.1])
        monkeypatch.setattr(
            AdversarialLossTrainer, "_robust_accuracy", lambda self, x, y, among, batch_size: next(robust)
        )
        kept = []

        class Spy(AdversarialLossTrainer):
            def _judge(self, job, position, record):
                stop = super()._judge(job, position, record)
                record["val_accuracy"] = float(record["epoch"])
                kept.append(weights(self.classifier))
                return stop

        trainer = Spy(make(), PGD(0.1, steps=2), seed=0, verbose=False, patience=3, keep="best")
        validation = (data.x_test[:50], data.y_test[:50])
        trainer.fit(data.x_train[:64], data.y_train[:64], validation, nb_epochs=6, batch_size=64)
        assert [record["val_robust_accuracy"] for record in trainer.history] == [0.3, 0.4, 0.4, 0.2, 0.1]
        assert torch.equal(weights(trainer.classifier), kept[1])

    @pytest.mark.parametrize("averaging", [None, "ema", "swa"])
    def test_validation_changes_no_training(self, averaging, data):
        """Not even where averaged weights are put into the network for it."""
        base = train(data, averaging=averaging, epochs=3)
        validated = train(data, averaging=averaging, epochs=3, validation=(data.x_test[:50], data.y_test[:50]))
        assert torch.equal(weights(base.classifier), weights(validated.classifier))
        assert [record["loss"] for record in base.history] == [record["loss"] for record in validated.history]

    def test_robust_accuracy_is_art_s(self, data, trained):
        x, y = data.x_test[:200], data.y_test[:200]
        trainer = AdversarialLossTrainer(
            trained, PGD(0.1), validation_attack=PGD(0.1, random_start=False, objective="margin")
        )
        attack = ProjectedGradientDescent(trained, eps=0.1, eps_step=0.025, max_iter=10, batch_size=256, verbose=False)
        with trained.using_objective("margin"):
            expected = (trained.predict(attack.generate(x, y)).argmax(1) == y).mean()
        assert trainer.robust_accuracy(x, y) == pytest.approx(expected, abs=1 / 200)

    def test_validation_goes_by_the_defences_of_a_prediction(self, data):
        """Not by those of a training, which may change labels, inputs and their number."""
        noise = GaussianAugmentation(sigma=1.0, ratio=1.0, apply_fit=True, apply_predict=False)
        plain, defended = (make(preprocessing_defences=each) for each in (None, noise))
        x, y = data.x_test[:50], data.y_test[:50]
        judges = [AdversarialLossTrainer(each, PGD(0.1, steps=1), seed=0, verbose=False) for each in (plain, defended)]
        assert judges[1].robust_accuracy(x, y) == judges[0].robust_accuracy(x, y)
        judges[1].fit(x, y, (x, y), nb_epochs=1)
        assert judges[1].history[0]["val_robust_accuracy"] == judges[1].robust_accuracy(x, y)

    @pytest.mark.thorough
    def test_catastrophic_overfitting_is_called_out(self, data, caplog):
        class Overfitted(FGSM):
            """One step against a network that reacts to the size of the step alone: plays the blinded attack."""

            def craft(self, classifier, x, y, context):
                return x

        with caplog.at_level(logging.WARNING):
            trainer = train(data, attack=Overfitted(0.3, None), epochs=14, n=1000)
        assert trainer.history[-1]["catastrophic_overfitting"]
        assert "Catastrophic overfitting" in caplog.text
        sound = train(data, attack=FGSM(0.02, None), epochs=6, n=1000).history
        assert sound[-1]["accuracy"] > 0.6  # far beyond where the watch begins
        assert sound[-1]["robust_accuracy"] > 0.3
        assert not any(record["catastrophic_overfitting"] for record in sound)

    @pytest.mark.parametrize("start", [0, 3])
    def test_averaged_weights_are_the_mean_over_epochs(self, start, data):
        """With one step an epoch, SWA is the mean of the weights after each epoch, of all or from a later one on."""
        snapshots = [weights(train(data, attack="fgsm", epochs=epochs, n=64)) for epochs in range(max(1, start), 5)]
        swa = weights(train(data, attack="fgsm", epochs=4, n=64, averaging="swa", averaging_start=start))
        torch.testing.assert_close(swa, torch.stack(snapshots).mean(dim=0), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(("decay", "start"), [(0.9, 0), (0.2, 3)])
    def test_the_exponential_average_is_its_formula(self, decay, start, data):
        """With one step an epoch: it begins with the weights after an epoch and takes in those after each step."""
        snapshots = [weights(train(data, attack="fgsm", epochs=epochs, n=64).classifier) for epochs in range(1, 6)]
        expected = snapshots[max(0, start - 1)]
        for t, snapshot in enumerate(snapshots[max(1, start) :], 1):
            grown = min(decay, (1 + t) / (10 + t))
            expected = grown * expected + (1 - grown) * snapshot
        settings = {"averaging": "ema", "averaging_decay": decay, "averaging_start": start}
        got = weights(train(data, attack="fgsm", epochs=5, n=64, **settings).classifier)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)

    def test_batch_statistics_are_computed_anew_for_averaged_weights(self, data):
        trainer = train(data, backbone="normed", averaging="swa", epochs=3)
        net = copy.deepcopy(trainer.classifier.model)
        seen = []
        net.backbone.module.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        with torch.no_grad():
            for start in range(0, 192, 64):
                net(torch.from_numpy(data.x_train[start : start + 64]))
        mean = torch.stack([inputs.mean(dim=(0, 2, 3)) for inputs in seen]).mean(dim=0)
        torch.testing.assert_close(net.backbone.module.norm.running_mean, mean, rtol=1e-4, atol=1e-5)

    def test_bytes_in_memory_give_the_same_training(self, data):
        x = (np.round(data.x_train[:128] * 255).astype(np.uint8) / np.float32(255)).astype(np.float32)
        stored = []

        class Spy(AdversarialLossTrainer):
            def _run(self, job, *state):
                stored.append(job.x.dtype)
                super()._run(job, *state)

        for inputs in (x, data.x_train[:128]):
            Spy(make(), PGD(0.1, steps=1), seed=0, verbose=False).fit(inputs, data.y_train[:128], nb_epochs=1)
        assert stored == [torch.uint8, torch.float32]


class TestCommandLine:
    """What the options of `art-mmc train` mean for the training."""

    #: options -> what they change: fields of the recipe, options of the attack, or arguments of the training
    OPTIONS = {
        "--lr 0.02": {"rate": 0.02},
        "--optimizer adamw --clip-gradient 0.5": {"optimizer": "adamw", "clip_gradient": 0.5},
        "--batch-size 32": {"batch_size": 32, "rate": 0.002},
        "--batch-size 32 --scale-rate": {"batch_size": 32, "rate": 0.001},
        "--schedule cyclic": {"schedule": "cyclic"},
        "--rate-warmup 2.5": {"rate_warmup": 2.5},
        "--weight-decay 5e-4 --decay weights": {"weight_decay": 5e-4, "decay": "weights"},
        "--augmentation crop-flip": {"augmentation": "crop-flip"},
        "--averaging ema": {"averaging": "ema"},
        "--adversarial pgd --adv-ratio 0.5 --eps-warmup 3": {"attack": "pgd", "adv_ratio": 0.5, "eps_warmup": 3.0},
        "--adversarial pgd --eps 8/255": {"eps": 8 / 255},
        "--adversarial pgd --attack-steps 3 --step-size 2/255": {"steps": 3, "step_size": 2 / 255},
        "--adversarial pgd --norm 2 --eps 0.5": {"norm": 2.0, "eps": 0.5},
        "--adversarial pgd --objective soft_margin --tolerance 1": {"objective": "soft_margin", "tolerance": 1},
        "--adversarial pgd --targeted random": {"targeted": "random"},
        "--adversarial pgd --crafting-batch-norm train": {"batch_norm": "train"},
        "--adversarial trades --beta 2": {"attack": "trades", "beta": 2.0},
        "--adversarial fgsm --eps 0.1": {"attack": "fgsm", "eps": 0.1, "eps_max": None},
        "--adversarial fgsm --eps 0.1 --eps-max 0.2": {"eps": 0.1, "eps_max": 0.2},
        "--adversarial fast --eps 0.1": {"attack": "fast", "eps": 0.1},
        "--recipe li2021-mnist-at": {"attack": "fgsm", "eps": 0.1, "eps_max": 0.3, "adv_ratio": 0.5},
        "--set label_smoothing=0.2": {"options": {"label_smoothing": 0.2}},
        "--set weight=[0.5,1,1,1,1,1,1,1,1,2]": {"options": {"weight": [0.5, *[1] * 8, 2]}},
        "--activation silu": {"activation": "silu"},
        "--keep best --patience 3": {"keep": "best", "patience": 3},
        "--precision bfloat16": {"precision": "bfloat16"},
        "--compile": {"compile_network": True},
        "--resume": {"resume": True},
        "--seed 4": {"seed": 4},
    }

    class Begun(Exception):
        """Instead of a training."""

    @pytest.fixture
    def begun(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        seen = {}

        def begin(defence, dataset, recipe, **kwargs):
            fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
            seen.update({**kwargs, **fields, **recipe.attack_options})
            raise self.Begun

        monkeypatch.setattr("art_mmc.studies.setup.train_defence", begin)
        return seen

    @pytest.mark.parametrize("line", OPTIONS)
    def test_options_reach_the_training(self, line, begun):
        with pytest.raises(self.Begun):
            main(["train", "--defence", "sce", "--device", "cpu", "--backbone", "cnn", *line.split()])
        for name, value in self.OPTIONS[line].items():
            assert begun[name] == pytest.approx(value) if isinstance(value, float) else begun[name] == value, name

    def test_every_option_is_tried(self):
        """But those of the data, the network (see test_cli), the place and the output."""
        others = {"--help", "--defence", "--output", "--config", "--dataset", "--data-dir", "--download", "--backbone"}
        others |= {"--init"}
        others |= {"--factory", "--epochs", "--device", "--threads", "--quiet", "--validation", "--overwrite"}
        known = build_parser().commands["train"]._option_string_actions
        tried = {word for line in self.OPTIONS for word in line.split() if word.startswith("--")}
        assert {name for name in known if name.startswith("--")} == tried | others
