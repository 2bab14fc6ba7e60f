"""
ART's evasion attacks, unchanged, on the nine classifiers. The table of `art_support.toml` says how each is run, and
which can't run and why; an attack that a new ART release brings fails `test_every_attack_is_listed` until it is there.
"""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks import evasion
from art.attacks.evasion import AutoProjectedGradientDescent, GeoDA, ProjectedGradientDescent, SquareAttack

from art_mmc import LossDefendedClassifier, create_classifier
from tests.art_support import ATTACKS, TABLE, attack_classes, effect, evasion_attacks, failure, to_markdown
from tests.conftest import Digits, Trained, accuracy, assert_same, norms, of_the_product, one_hot, traces
from tests.planted import plain

CASES = of_the_product(
    (attack, variant) for attack, entry in ATTACKS.items() if failure(entry) is None for variant in entry.variants
)
FAILURES = of_the_product((attack,) for attack, entry in ATTACKS.items() if failure(entry) is not None)


def quiet(cls: type) -> dict[str, bool]:
    return {"verbose": False} if "verbose" in inspect.signature(cls.__init__).parameters else {}


def build(name: str, variant: str, classifier: LossDefendedClassifier) -> tuple[Any, dict[str, Any]]:
    cls = attack_classes()[name]
    if ATTACKS[name].view and isinstance(classifier, LossDefendedClassifier):
        classifier = classifier.with_probabilities(10)
    arguments = ATTACKS[name].variants[variant]
    arguments = arguments(evasion, classifier) if callable(arguments) else dict(arguments)
    return cls(classifier, **arguments, **quiet(cls)), arguments


def run(
    name: str, variant: str, classifier: LossDefendedClassifier, digits: Digits, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Attacked images, the originals, their labels, and the attack's arguments."""
    entry = ATTACKS[name]
    chosen = chosen[: entry.samples]
    x, y = digits.x_test[chosen].copy(), digits.y_test[chosen]
    # one image of another class for each, for the attacks on features
    others = np.array([np.flatnonzero(digits.y_test != label)[0] for label in y])
    labels = {"true": one_hot(y), "target": one_hot((y + 1) % 10), "images": digits.x_test[others].copy()}
    attack, arguments = build(name, variant, classifier)
    x_adv = attack.generate(x, labels[entry.labels])
    if isinstance(x_adv, tuple):  # a patch and its mask
        x_adv = attack.apply_patch(x, scale=0.5)
    np.testing.assert_array_equal(x, digits.x_test[chosen], err_msg="the attack changed its input")
    return x_adv, x, y, arguments


@pytest.fixture
def _untouched(request: pytest.FixtureRequest, trained: Trained) -> Iterator[None]:
    """An attack leaves the shared classifier as it was: weights, modes, hooks, objective, loss."""
    classifier = trained[request.node.callspec.params["name"]]
    before = traces(classifier.model)
    yield
    after = traces(classifier.model)
    for key in ("state", "modes", "hooks"):
        assert_same(before[key], after[key], key)
    assert classifier.objective == "adaptive"
    assert classifier.loss.reduction == "mean"
    for parameter in classifier.model.parameters():
        parameter.grad = None  # the patch attacks run a full backward pass of their own


def test_every_attack_is_listed():
    """A new attack of ART's must be looked at: run it in the table, or say why it can't."""
    fitting = {name for name, fits in evasion_attacks().items() if fits}
    assert len(fitting) > 40  # the enumeration itself works
    assert fitting - set(ATTACKS) == set(), "not in the table"
    gone = {name for name in set(ATTACKS) - fitting if failure(ATTACKS[name]) is None}
    assert gone == set(), "in the table, but no attack of ART's"


def test_support_table_is_current():
    assert TABLE.read_text(encoding="utf-8") == to_markdown(), "run python -m tests.art_support"


@pytest.mark.usefixtures("_untouched")
@pytest.mark.parametrize(("attack", "variant", "name"), CASES)
def test_attack_runs(attack, variant, name, trained, digits, easy):
    classifier = trained[name]
    x_adv, x, y, arguments = run(attack, variant, classifier, digits, easy)
    assert x_adv.shape == x.shape
    assert np.isfinite(x_adv).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    ball = ATTACKS[attack].ball
    if ball:
        eps = arguments["eps"] if ball is True else ball
        assert norms(x_adv - x, arguments.get("norm", np.inf)).max() <= eps * (1 + 1e-5)
    wanted = effect(ATTACKS[attack], variant, name)
    if wanted != "stays":
        assert not np.array_equal(x_adv, x)
    if wanted == "fools":
        assert accuracy(classifier, x_adv, y) < 1


@pytest.mark.contract
@pytest.mark.parametrize("attack", ATTACKS)
def test_on_art_s_own_class(attack, trained, digits, easy):
    """What runs on ours runs there, what does not does not; those that ask for probabilities get a softmax."""
    network = copy.deepcopy(trained["sce"].model)
    if ATTACKS[attack].view:
        network = torch.nn.Sequential(network, torch.nn.Softmax(dim=1))
    classifier = plain(network)
    fails = failure(ATTACKS[attack])
    # ours refuses by name what ART's class passes on to a network that then fails
    errors = (RuntimeError, *np.atleast_1d(fails.error if fails else ValueError))
    with nullcontext() if fails is None else pytest.raises(errors):
        x_adv, x, *_ = run(attack, next(iter(ATTACKS[attack].variants)), classifier, digits, easy)
        assert x_adv.shape == x.shape
        assert np.isfinite(x_adv).all()


@pytest.mark.parametrize(("attack", "name"), FAILURES)
def test_attack_fails_as_the_table_says(attack, name, trained, digits, easy):
    """Once this fails, ART has mended it or the package is there: take the exception out of the table."""
    fails = failure(ATTACKS[attack])
    (variant,) = ATTACKS[attack].variants
    with pytest.raises(fails.error, match=fails.match):
        run(attack, variant, trained[name], digits, easy)


EVERYDAY = ["FastGradientMethod", "BasicIterativeMethod", "MomentumIterativeMethod", "ProjectedGradientDescent"]
EVERYDAY += ["AutoProjectedGradientDescent", "CarliniL2Method", "DeepFool", "SquareAttack", "HopSkipJump"]


@pytest.mark.parametrize(
    ("attack", "labels", "name"),
    of_the_product((attack, labels) for labels in ("one-hot", "none") for attack in EVERYDAY),
)
def test_everyday_attack_lowers_accuracy(attack, labels, classifier, digits):
    """Without labels ART attacks the predictions: what was wrong may come right, but not more than fell."""
    x, y = digits.x_test[:24], digits.y_test[:24]
    built, _ = build(attack, next(iter(ATTACKS[attack].variants)), classifier)
    x_adv = built.generate(x, one_hot(y) if labels == "one-hot" else None)
    assert x_adv.shape == x.shape
    assert accuracy(classifier, x_adv, y) < accuracy(classifier, x, y)


def test_targeted_attack_reaches_its_target(classifier, digits, easy):
    x, y = digits.x_test[easy[:12]], digits.y_test[easy[:12]]
    target = (y + 1) % 10
    attack = ProjectedGradientDescent(classifier, eps=0.6, eps_step=0.1, max_iter=15, targeted=True, verbose=False)
    x_adv = attack.generate(x, one_hot(target))
    assert norms(x_adv - x, np.inf).max() <= 0.6 * (1 + 1e-6)
    # class 9 is hardly known to "pc": half is far above the chance of 0.1 and of an untargeted attack
    assert accuracy(classifier, x_adv, target) >= 0.5
    assert accuracy(classifier, x, target) == 0


@pytest.mark.parametrize("name", ["mmc", "pc", "rce"])
def test_own_loss_flatters_and_the_default_does_not(name, trained, digits):
    """What the package is for: on these defences an attack on the training loss overstates the robust accuracy."""
    classifier = trained[name]
    right = classifier.predict(digits.x_test).argmax(1) == digits.y_test
    x, y = digits.x_test[right][:60], digits.y_test[right][:60]
    attack = ProjectedGradientDescent(classifier, eps=0.2, eps_step=0.04, max_iter=12, verbose=False)
    adaptive = accuracy(classifier, attack.generate(x, one_hot(y)), y)
    with classifier.using_objective("loss"):
        own = accuracy(classifier, attack.generate(x, one_hot(y)), y)
    assert adaptive < own


@pytest.mark.parametrize("loss_type", ["cross_entropy", "difference_logits_ratio"])
def test_rebuilt_estimator_sees_the_same_logits(loss_type, classifier, digits):
    """APGD takes `classifier.model` into an estimator of its own: signs, scales and casts must be in the network."""
    attack = AutoProjectedGradientDescent(classifier, loss_type=loss_type, verbose=False)
    assert attack.estimator is not classifier
    rebuilt, ours = (each.predict(digits.x_test[:16]) for each in (attack.estimator, classifier))
    np.testing.assert_allclose(rebuilt, ours, rtol=1e-5, atol=1e-5)  # ours may run in another memory format


def test_geoda_runs_with_its_mend(trained, digits, easy, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # it writes its basis there
    monkeypatch.setattr(np, "mat", np.asmatrix, raising=False)
    x, y = digits.x_test[easy[:2]], digits.y_test[easy[:2]]
    x_adv = GeoDA(trained["mmc"], max_iter=500, sub_dim=4, verbose=False).generate(x, one_hot(y))
    assert accuracy(trained["mmc"], x_adv, y) == 0


@pytest.mark.parametrize("name", ["rce"])
def test_autoattack_runs_with_its_package(name, trained, digits, easy, monkeypatch):
    """The package multiprocess is multiprocessing with another pickle; without a pool nothing of it is used."""
    monkeypatch.setitem(sys.modules, "multiprocess", multiprocessing)
    test_attack_runs("AutoAttack", "", name, trained, digits, easy)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("side", [8, 16])
def test_l2_square_attack_drops_what_is_no_number(side, trained, digits, easy):
    """Below ten pixels a side ART divides by zero: its NaN must not pass for an adversarial image."""
    x, classifier = digits.x_test[easy[:3]], trained["mmc"]
    if side == 16:
        x = x.repeat(2, axis=2).repeat(2, axis=3)
        classifier = create_classifier("mmc", "cnn", input_shape=(1, 16, 16), nb_classes=10)
    y = classifier.predict(x).argmax(axis=1)
    attack = SquareAttack(classifier, norm=2, eps=1.5, max_iter=10, verbose=False)
    with np.errstate(invalid="ignore"):
        x_adv = attack.generate(x, one_hot(y))
    assert np.isfinite(x_adv).all()
    assert (side == 16) <= (not np.array_equal(x_adv, x))
    assert norms(x_adv - x, 2).max() <= 1.5 * (1 + 1e-5)
