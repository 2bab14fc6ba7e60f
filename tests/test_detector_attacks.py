"""The attacks that detectors are judged by: those of the RCE paper, and those that know the detector."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from art.attacks.evasion import BasicIterativeMethod, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier

from art_mmc import CarliniL2, ConfidenceDetector, KernelDensityDetector
from art_mmc.attacks.detector_aware import DensityAwareCarliniL2, DetectorAwarePGD
from art_mmc.evaluation import engine
from art_mmc.evaluation.engine import Target, beyond_box, run_plan
from art_mmc.state import derived_seed
from art_mmc.studies.detect import ATTACKS, attack_plan
from art_mmc.studies.settings import Detect
from tests.conftest import left_alone, norms
from tests.planted import linear, plain
from tests.test_attack_manners import make

EPS = 0.16
QUICK = {
    "learning_rate": 0.15,
    "max_iter": 50,
    "binary_search_steps": 3,
    "start_max_iter": 40,
    "start_binary_search_steps": 1,
    "verbose": False,
}


@pytest.fixture(scope="module", params=["rce", pytest.param("sce", marks=pytest.mark.contract)])
def defended(request, trained, digits) -> SimpleNamespace:
    """A classifier, its kernel density, and 16 images that it gets right and that look clean."""
    classifier = trained[request.param]
    detector = KernelDensityDetector(classifier)
    detector.fit(digits.x_train, digits.y_train, x_calibration=digits.x_test[200:])
    report, flagged = detector.detect(digits.x_test[:100])
    good = np.flatnonzero((report["predictions"] == digits.y_test[:100]) & ~flagged)[:16]
    return SimpleNamespace(classifier=classifier, detector=detector, x=digits.x_test[good], y=digits.y_test[good])


def unnoticed(defended: SimpleNamespace, x_adv: np.ndarray) -> np.ndarray:
    report, flagged = defended.detector.detect(x_adv)
    return (report["predictions"] != defended.y) & ~flagged


# ------------------------------------------------------------------------------------------------ the paper's attacks


PAPER_ATTACKS = [name for name in ATTACKS if not name.endswith("-wb")]


def craft(name: str, classifier: PyTorchClassifier, x: np.ndarray, share: float = 0.01) -> SimpleNamespace:
    """An attack of the paper on one batch; `targets` are None for an untargeted one."""
    plan = attack_plan(name, Detect(eps=EPS, attack_share=share))
    logits = classifier.predict(x)
    shown = logits.argmax(axis=1)
    x_adv = run_plan(Target(classifier, x), x, shown, plan, np.ones(len(x), bool), 0)[1]
    targets = next(engine._aims(plan, shown, logits, logits.shape[1], derived_seed(0, 0)))
    return SimpleNamespace(x=x_adv, targets=targets, plan=plan)


@pytest.mark.thorough
@pytest.mark.parametrize("name", PAPER_ATTACKS)
def test_paper_attacks(name, defended):
    x = defended.x[: 3 if name.startswith("cw") else 8]
    with left_alone():
        crafted = craft(name, defended.classifier, x, 0.003 if name == "cw-hc" else 0.01)
    assert crafted.x.shape == x.shape
    assert not beyond_box(crafted.x, (0, 1)).any()
    changed = np.abs(crafted.x - x).max(axis=(1, 2, 3))
    if crafted.plan.bounded:
        np.testing.assert_allclose(changed, EPS, atol=1e-6)
        assert crafted.plan.objective == "cross_entropy"
    predicted, logits = (defended.classifier.predict(each) for each in (crafted.x, x))
    if name == "cw":
        assert (predicted.argmax(axis=1) == crafted.targets).any()
    if name == "bim":
        assert np.mean(predicted.argmax(axis=1) != defended.y[:8]) > 0.3
    if name == "jsma":
        assert np.mean(predicted.argmax(axis=1) == crafted.targets) > 0.6
    if name in ("fgsm", "bim"):
        assert crafted.targets is None
    elif name in ("cw", "cw-hc"):
        assert (crafted.targets != logits.argmax(axis=1)).all()
    else:
        np.testing.assert_array_equal(crafted.targets, logits.argmin(axis=1))
    if not name.startswith("cw"):  # those are slow
        np.testing.assert_array_equal(craft(name, defended.classifier, x).x, crafted.x)


@pytest.mark.thorough
def test_carlini_succeeds_at_the_default_share(defended):
    """An area over the images that were easy to fool tells nothing of a detector."""
    crafted = craft("cw", defended.classifier, defended.x[:8], Detect.attack_share)
    assert np.mean(defended.classifier.predict(crafted.x).argmax(axis=1) == crafted.targets) >= 0.95
    assert crafted.plan.steps == 200


@pytest.mark.parametrize("name", ["bim", "ilcm"])
def test_bim_is_ten_steps_of_a_tenth_on_the_cross_entropy(name, defended):
    logits = defended.classifier.predict(defended.x)
    with defended.classifier.using_objective("cross_entropy"):
        attack = BasicIterativeMethod(defended.classifier, EPS, EPS / 10, 10, targeted=name == "ilcm", verbose=False)
        want = attack.generate(defended.x, logits.argmin(axis=1) if name == "ilcm" else logits.argmax(axis=1))
    np.testing.assert_allclose(craft(name, defended.classifier, defended.x).x, want, atol=1e-7)


def test_settings_of_the_paper(trained):
    classifier = trained["sce"]

    def built(name, share):
        plan = attack_plan(name, Detect(eps=EPS, attack_share=share))
        return plan.build(classifier.with_objective("adaptive"), 0, 32, 0)

    carlini = built("cw-hc", 1.0)
    assert isinstance(carlini, CarliniL2)
    assert (carlini.confidence, carlini.binary_search_steps, carlini.initial_const) == (10.0, 9, 1.0)
    assert (carlini.targeted, carlini.learning_rate) == (True, 0.01)
    assert [built("cw-hc", share).max_iter for share in (1, 0.01, 0.0001)] == [10000, 100, 10]
    assert (built("cw", 0.05).max_iter, built("cw", 0.05).confidence) == (500, 0)
    assert built("jsma", 1.0).gamma == 1.0  # 100 pixels are more than 64
    wb = DensityAwareCarliniL2(classifier, ConfidenceDetector(classifier))
    assert (wb.confidence, wb.binary_search_steps, wb.max_iter, wb.initial_const) == (5, 9, 10000, 100)
    assert (wb.start_binary_search_steps, wb.start_max_iter, wb.start_initial_const) == (3, 5000, 10)


def test_random_targets_are_any_class_but_the_predicted_one(trained, digits):
    """Those of C&W-wb where none are given."""
    classifier, x = trained["sce"], digits.x_test

    def targets(seed):
        return DensityAwareCarliniL2(classifier, ConfidenceDetector(classifier), seed=seed).targets(x)

    predicted, ours = classifier.predict(x).argmax(axis=1), targets(3)
    assert (ours != predicted).all()
    assert (np.bincount((ours - predicted) % 10, minlength=10)[1:] > len(x) / 20).all()
    np.testing.assert_array_equal(ours, targets(3))
    assert (ours != targets(4)).any()


def test_a_classifier_of_art_s_own_is_attacked_on_the_cross_entropy_too(digits):
    """Whatever it was trained on, here the true class' logit alone."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    classifier = plain(net, loss=torch.nn.NLLLoss())
    x = torch.tensor(digits.x_test[:5], requires_grad=True)
    torch.nn.functional.cross_entropy(net(x), net(x).argmax(dim=1)).backward()
    want = (x + EPS * x.grad.sign()).clamp(0, 1).detach().numpy()
    np.testing.assert_allclose(craft("fgsm", classifier, digits.x_test[:5]).x, want, atol=1e-6)


# --------------------------------------------------------------------------------------- C&W with the detector's score


@pytest.fixture(scope="module")
def carlini(defended) -> SimpleNamespace:
    """What the attack makes with and without the detector, from the same start and to the same targets."""
    aware = DensityAwareCarliniL2(defended.classifier, defended.detector, confidence=0.0, **QUICK)
    blind = DensityAwareCarliniL2(defended.classifier, defended.detector, confidence=0.0, eta=1e9, **QUICK)
    targets = aware.targets(defended.x)
    x_aware, x_blind = (each.generate(defended.x, targets) for each in (aware, blind))
    return SimpleNamespace(aware=aware, targets=targets, x_aware=x_aware, x_blind=x_blind)


def test_white_box_attack_evades_a_detector_that_the_plain_attack_does_not(carlini, defended):
    hit_blind, excess_blind = carlini.aware.outcome(carlini.x_blind, carlini.targets)
    hit, excess = carlini.aware.outcome(carlini.x_aware, carlini.targets)
    assert hit_blind.mean() > 0.9
    assert (excess_blind == 0).mean() < 0.3
    assert defended.detector.detect(carlini.x_blind)[1].mean() > 0.5
    succeeded = hit & (excess == 0)
    assert succeeded.mean() > 0.8
    assert defended.detector.detect(carlini.x_aware)[1].mean() < 0.2
    assert not defended.detector.detect(carlini.x_aware[succeeded])[1].any()
    # to be unnoticed costs distance
    moved = [norms(x_adv - defended.x, 2) for x_adv in (carlini.x_aware, carlini.x_blind)]
    both = succeeded & hit_blind
    assert moved[0][both].mean() > moved[1][both].mean()


def test_outcome_is_what_classifier_and_density_say(carlini, defended):
    hit, excess = carlini.aware.outcome(carlini.x_aware, carlini.targets)
    np.testing.assert_array_equal(hit, defended.classifier.predict(carlini.x_aware).argmax(axis=1) == carlini.targets)
    z = torch.tensor(defended.classifier.get_activations(carlini.x_aware, "embedding"))
    scores = -defended.detector.log_density(z, torch.tensor(carlini.targets)).numpy()
    eta = defended.detector.typical_scores(carlini.targets)
    np.testing.assert_allclose(excess, np.maximum(scores - eta, 0), rtol=1e-4, atol=1e-3)


def test_softmax_in_the_success_test_never_lets_one_pass(defended):
    """The released code: the start is all that ever comes back, though on the logits better examples count."""
    x = defended.x[:5]
    settings = {**QUICK, "max_iter": 20, "binary_search_steps": 1, "eta": 1e9}
    given = defended.classifier, defended.detector
    attack = DensityAwareCarliniL2(*given, confidence=1.0, success_on="softmax", **settings)
    targets = attack.targets(x)
    clean, target = torch.tensor(x), torch.as_tensor(targets)
    start, found = attack._search(clean, clean, target, None)
    np.testing.assert_array_equal(attack.generate(x, targets), start.numpy())
    attack.set_params(success_on="logits", start_binary_search_steps=0, max_iter=50)
    assert attack.outcome(attack.generate(x, targets), targets)[0].mean() >= found.float().mean() > 0


def test_distance_from_the_start_keeps_the_start():
    """The released code: a start that counts is itself the nearest to the start, however far from the input."""
    weight = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    classifier = linear(weight)
    x = np.random.default_rng(1).uniform(0.4, 0.6, (4, 1, 8, 8)).astype(np.float32)
    target = classifier.predict(x).argmin(axis=1)
    settings = {**QUICK, "confidence": 0.5, "eta": 1e9, "start_initial_const": 1e3}
    moved = {}
    for origin in ("clean", "start"):
        attack = make(DensityAwareCarliniL2, classifier, distance_from=origin, initial_const=1.0, **settings)
        start, found = attack._search(torch.tensor(x), torch.tensor(x), torch.as_tensor(target), None)
        assert found.all()
        x_adv = attack.generate(x, target)
        moved[origin] = norms(x_adv - x, 2)
        from_start = np.abs(x_adv - start.numpy()).max()
        assert from_start < 1e-3 if origin == "start" else from_start > 1e-2
    assert (moved["clean"] < moved["start"]).all()


def test_an_attack_that_fails_gives_back_its_start_or_the_input(defended):
    settings = {**QUICK, "max_iter": 10, "binary_search_steps": 1}
    attack = DensityAwareCarliniL2(defended.classifier, defended.detector, confidence=1e6, **settings)
    np.testing.assert_array_equal(attack.generate(defended.x[:3]), defended.x[:3])
    attack.set_params(confidence=0.0, eta=-1e9, start_binary_search_steps=5)
    targets = attack.targets(defended.x[:3])
    x_adv = attack.generate(defended.x[:3], targets)
    hit, excess = attack.outcome(x_adv, targets)
    assert hit.any()
    assert (excess > 0).all()
    attack.set_params(start_binary_search_steps=0)  # what fools the classifier alone does not count
    np.testing.assert_array_equal(attack.generate(defended.x[:3], targets), defended.x[:3])


# ---------------------------------------------------------------------------------------- PGD with the detector's score


def test_joint_pgd_evades_more_than_plain_pgd(defended):
    blind = ProjectedGradientDescent(defended.classifier, eps=EPS, eps_step=0.02, max_iter=40, verbose=False)
    attack = DetectorAwarePGD(defended.classifier, defended.detector, eps=EPS, max_iter=25, verbose=False)
    x_adv = attack.generate(defended.x, defended.y)
    assert np.abs(x_adv - defended.x).max() <= EPS + 1e-6
    assert not beyond_box(x_adv, (0, 1)).any()
    x_blind = blind.generate(defended.x, defended.y)
    assert unnoticed(defended, x_adv).mean() > unnoticed(defended, x_blind).mean()


def test_weight_0_does_not_see_the_detector(defended):
    settings = {"eps": EPS, "max_iter": 20, "verbose": False}
    blind = DetectorAwarePGD(defended.classifier, defended.detector, weights=(0.0,), **settings)
    aware = DetectorAwarePGD(defended.classifier, defended.detector, weights=(0.0, 1.0), num_random_init=1, **settings)
    x_blind, x_aware = (attack.generate(defended.x, defended.y) for attack in (blind, aware))
    # more weights and starts only help: what fell stays fallen
    assert (unnoticed(defended, x_aware) >= unnoticed(defended, x_blind)).all()
    assert unnoticed(defended, x_aware).sum() > unnoticed(defended, x_blind).sum()


def test_targeted_joint_pgd(defended):
    settings = {"eps": 0.5, "max_iter": 40, "weights": (0.1,), "verbose": False}
    attack = DetectorAwarePGD(defended.classifier, defended.detector, targeted=True, **settings)
    target = (defended.y + 1) % 10
    x_adv = attack.generate(defended.x, target)
    assert np.mean(defended.classifier.predict(x_adv).argmax(axis=1) == target) > 0.5


def test_fgsm_of_a_linear_classifier_is_the_worst_case():
    """One step of eps on the margin of a linear classifier; the confidence detector pulls at nothing at weight 0."""
    weight = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
    classifier = linear(weight)
    x = np.full((1, 1, 8, 8), 0.5, np.float32)
    y = classifier.predict(x).argmax(axis=1)
    attack = make(DetectorAwarePGD, classifier, eps=0.01, eps_step=0.01, max_iter=1, weights=(0.0,))
    step = 0.01 * np.sign(weight[1 - y[0]] - weight[y[0]]).reshape(1, 1, 8, 8)
    np.testing.assert_allclose(attack.generate(x, y), x + step, atol=1e-6)


@pytest.mark.parametrize("cls", [DensityAwareCarliniL2, DetectorAwarePGD])
def test_detectors_that_do_not_fit(cls, trained, digits):
    with pytest.raises(TypeError, match="expected a detector"):
        cls(trained["sce"], trained["sce"])
    with pytest.raises(ValueError, match="made for another classifier"):
        cls(trained["sce"], ConfidenceDetector(trained["rce"]))
    with pytest.raises(ValueError, match="has not been fitted"):
        cls(trained["sce"], ConfidenceDetector(trained["sce"]), verbose=False).generate(digits.x_test[:2])
