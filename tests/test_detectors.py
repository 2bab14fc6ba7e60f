"""Detectors: scores against numpy, scipy and scikit-learn, thresholds, ART's contract, and what they refuse."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.defences.detector.evasion import EvasionDetector
from art.estimators.classification import PyTorchClassifier
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from scipy.stats import betabinom
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity

from art_mmc import (
    DETECTORS,
    CenterDistanceDetector,
    ConfidenceDetector,
    KernelDensityDetector,
    LIDDetector,
    MahalanobisDetector,
    RCEClassifier,
    SoftmaxClassifier,
    ThresholdedClassifier,
    create_detector,
)
from art_mmc.detectors import REJECTED, NetworkOutputs, base, density, distance, network_outputs
from art_mmc.detectors.confidence import log_other_mass, non_maximal_entropy
from art_mmc.detectors.density import cross_validated_bandwidth
from art_mmc.evaluation.detection import DetectionRecord, auc_roc
from tests.conftest import left_alone
from tests.planted import plain

K, D = 3, 5
X = np.zeros((10, 1, 2, 2), np.float32)

#: those that any classifier can have
GENERAL = [name for name in DETECTORS if name != "center-distance"]


def untrained(nb_classes: int = K, cls: type = SoftmaxClassifier, width: int = D) -> SoftmaxClassifier:
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, width))
    return cls(backbone, input_shape=(1, 2, 2), nb_classes=nb_classes, device_type="cpu")


def made_up(n: int, seed: int = 0, offset: float = 0.0, nb_classes: int = K) -> tuple[NetworkOutputs, np.ndarray]:
    """Outputs of a network that is right about n inputs, in clusters, and the labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % nb_classes
    centers = 3 * np.random.default_rng(99).standard_normal((nb_classes, D))
    z = centers[y] + rng.standard_normal((n, D)) + offset
    logits = 4 * np.eye(nb_classes)[y] + rng.standard_normal((n, nb_classes))
    logits[np.arange(n), y] = logits.max(axis=1) + 0.1
    return NetworkOutputs(logits.astype(np.float32), z.astype(np.float32)), y


def fitted(
    cls: type, classifier: PyTorchClassifier | None = None, n: int = 120, **params: object
) -> base.ScoreDetector:
    detector = cls(classifier or untrained(), false_positive_rate=0.1, **params)
    outputs, y = made_up(n)
    detector.fit_outputs(outputs, y, made_up(60, seed=1)[0])
    return detector


# ------------------------------------------------------------------------------------------------------ kernel density


@pytest.mark.parametrize("offset", [0.0, 50.0], ids=["near the origin", "far from the origin"])
@pytest.mark.parametrize("bandwidth", [0.5, 1 / 0.26])
def test_kernel_density_is_the_brute_force_sum(bandwidth, offset):
    references, y = made_up(90, offset=offset)
    detector = KernelDensityDetector(untrained(), false_positive_rate=0.1, bandwidth=bandwidth)
    detector.fit_outputs(references, y, made_up(60, seed=1, offset=offset)[0])
    queries, _ = made_up(40, seed=2, offset=offset)
    scores = detector.score_outputs(queries)
    for score, z, k in zip(scores, queries.features.astype(float), queries.predictions, strict=True):
        z_i = references.features[y == k].astype(float)
        density = np.mean([math.exp(-sum((z - each) ** 2) / bandwidth) for each in z_i])
        assert score == pytest.approx(-math.log(density), abs=1e-6, rel=1e-6)


def test_kernel_density_of_far_points_does_not_underflow():
    detector = fitted(KernelDensityDetector, bandwidth=0.1)
    references, y = made_up(120)
    near, _ = made_up(12, seed=3)
    far = NetworkOutputs(near.logits, near.features + np.float32(1000))
    expected = [
        logsumexp(-((references.features[y == k].astype(float) - z) ** 2).sum(axis=1) / 0.1) - math.log(40)
        for z, k in zip(far.features.astype(float), far.predictions, strict=True)
    ]
    scores = detector.score_outputs(far)
    np.testing.assert_allclose(scores, -np.array(expected), rtol=1e-9)
    assert (scores > 1e6).all()
    farther = NetworkOutputs(near.logits, near.features + np.float32(1100))
    assert (detector.score_outputs(farther) > scores).all()


def test_density_of_a_given_class_and_a_sample_of_references():
    references, y = made_up(120)
    detector = fitted(KernelDensityDetector, bandwidth=2.0, samples_per_class=7, seed=5)
    kept = detector._tensors["references"].numpy()
    assert kept.shape == (3 * 7, D)
    assert all((references.features[y == k] == kept[7 * k + i]).all(1).any() for k in range(K) for i in range(7))
    z = torch.randn(6, D, dtype=torch.float64)
    got = detector.log_density(z, torch.full((6,), 2))
    want = logsumexp(-cdist(z.numpy(), kept[14:].astype(float), "sqeuclidean") / 2, axis=1) - math.log(7)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-10)


def test_bandwidths_of_the_paper():
    assert fitted(KernelDensityDetector, untrained(), bandwidth="paper").fitted_bandwidth == 1 / 0.26
    assert fitted(KernelDensityDetector, untrained(cls=RCEClassifier), bandwidth="paper").fitted_bandwidth == 0.1 / 0.26


def test_cross_validation_maximises_scikit_learn_s_leave_one_out_likelihood():
    rng = np.random.default_rng(0)
    groups = [rng.standard_normal((14, 3)) * scale for scale in (1.0, 1.5)]

    def likelihood(bandwidth: float) -> float:
        total = 0.0
        for group in groups:
            for i in range(len(group)):
                rest = KernelDensity(bandwidth=math.sqrt(bandwidth / 2)).fit(np.delete(group, i, axis=0))
                total += rest.score(group[i : i + 1])
        return total

    found = cross_validated_bandwidth([torch.from_numpy(group) for group in groups])
    best = likelihood(found)
    assert best > max(likelihood(found * factor) for factor in (0.9, 1.1))
    assert best > max(map(likelihood, np.geomspace(0.01, 100, 15)))
    dead = [torch.from_numpy(np.column_stack([group, np.full(14, 7.0)])) for group in groups]
    assert cross_validated_bandwidth(dead) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(
    ("cls", "params"), [(KernelDensityDetector, {"bandwidth": 100.0}), (LIDDetector, {"minibatch_size": None})]
)
def test_full_size_stays_below_2_gb(cls, params, monkeypatch):
    """What grows with the data, at a tenth of 50,000 training features of width 256 and 10,000 queries."""
    n, m, width = 5000, 1000, 256
    rng = np.random.default_rng(0)
    y = np.arange(n) % 10
    outputs = NetworkOutputs(np.eye(10, dtype=np.float32)[y], rng.standard_normal((n, width), dtype=np.float32))
    queries, sizes, original = outputs.take(np.arange(m)), [], base.squared_distances

    def recorded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        sizes.append(len(a) * len(b))
        return original(a, b)

    for module in (density, distance):
        monkeypatch.setattr(module, "squared_distances", recorded)
    detector = cls(untrained(10, width=width), **params)
    detector.fit_outputs(outputs, y, queries)
    detector.score_outputs(queries)
    assert max(sizes) <= base._PAIRS
    assert sum(sizes) >= m * (n // 10 if cls is KernelDensityDetector else n)
    kept = sum(tensor.numel() * tensor.element_size() for tensor in detector._tensors.values())
    assert kept == n * width * 4
    # 50,000: features as given, as float64 for fitting and for a chunk, as kept; at most six arrays of pairs
    assert 50_000 * width * (4 + 8 + 8 + 4) + 10_000 * width * 12 + 6 * 8 * base._PAIRS < 1e9


# ------------------------------------------------------------------------------------------------ confidence and non-ME


@pytest.mark.parametrize("claimed", [None, 1])
def test_entropy_and_confidence_are_their_formulas(claimed):
    """Of the predicted class, or of one that is claimed."""
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 7)) * 4)
    classes = None if claimed is None else torch.full((50,), claimed)
    entropy, mass = (function(logits, classes).numpy() for function in (non_maximal_entropy, log_other_mass))
    for value, other, row in zip(entropy, mass, softmax(logits.numpy(), axis=1), strict=True):
        f = np.delete(row, row.argmax() if claimed is None else claimed)
        assert other == pytest.approx(math.log(f.sum()), rel=1e-9)
        f /= f.sum()
        assert value == pytest.approx(-(f * np.log(f)).sum(), rel=1e-9)
    assert (entropy >= 0).all()
    level = torch.full((1, 7), -2.0, dtype=torch.float64)
    level[0, 4] = 9.0
    assert (entropy < float(non_maximal_entropy(level))).all()
    assert float(non_maximal_entropy(level)) == pytest.approx(math.log(6), rel=1e-12)


def test_entropy_and_confidence_at_extreme_logits_have_finite_gradients():
    logits = torch.tensor([[500.0, -500.0, 0.0, -1e4]], dtype=torch.float64, requires_grad=True)
    for function in (non_maximal_entropy, log_other_mass):
        (gradient,) = torch.autograd.grad(function(logits).sum(), logits)
        assert torch.isfinite(gradient).all()


def test_the_score_of_the_confidence_does_not_saturate():
    detector = fitted(ConfidenceDetector)
    sure = np.array([[100.0, 0, 0], [200.0, 0, 0]], np.float32)
    assert (softmax(sure, axis=1).max(axis=1) == 1).all()
    np.testing.assert_allclose(
        detector.score_outputs(NetworkOutputs(sure, None)), [math.log(2) - 100, math.log(2) - 200], rtol=1e-9
    )


# ------------------------------------------------------------------------------------------------------------ distances


def lid(z: np.ndarray, references: np.ndarray, k: int) -> float:
    """Ma et al. (2018), Equation 3, with the point itself left out."""
    r = np.sort([d for d in np.linalg.norm(references.astype(float) - z.astype(float), axis=1) if d > 0])[:k]
    return -1 / np.mean([math.log(each / r[-1]) for each in r])


def test_lid_is_the_brute_force_estimate_over_minibatches():
    outputs, _ = made_up(95)
    detector = fitted(LIDDetector, n=95, k=6, minibatch_size=30, nb_minibatches=5)
    minibatches = detector._tensors["references"].numpy()
    assert minibatches.shape == (3, 30, D)  # 95 samples fill three
    rows = {tuple(row) for row in minibatches.reshape(-1, D)}
    assert len(rows) == 90
    assert rows <= {tuple(row) for row in outputs.features}
    queries, _ = made_up(20, seed=2)
    want = [np.mean([lid(z, minibatch, 6) for minibatch in minibatches]) for z in queries.features]
    np.testing.assert_allclose(detector.score_outputs(queries), want, rtol=1e-9)


def test_lid_leaves_the_input_itself_out():
    detector = fitted(LIDDetector, k=5, minibatch_size=None)
    outputs, _ = made_up(120)
    want = [lid(z, outputs.features, 5) for z in outputs.features]
    np.testing.assert_allclose(detector.score_outputs(outputs), want, rtol=1e-7)


def test_mahalanobis_is_scikit_learn_s():
    detector = fitted(MahalanobisDetector)
    outputs, y = made_up(120)
    z = outputs.features.astype(float)
    means = np.stack([z[y == k].mean(axis=0) for k in range(K)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(z - means[y])
    queries, _ = made_up(30, seed=2)
    want = np.min([covariance.mahalanobis(queries.features - mean) for mean in means], axis=0)
    np.testing.assert_allclose(detector.score_outputs(queries), want, rtol=1e-8)


def test_mahalanobis_leaves_out_what_does_not_vary():
    outputs, y = made_up(120)
    calibration, queries = made_up(60, seed=1)[0], made_up(30, seed=2)[0]

    def dead(each: NetworkOutputs) -> NetworkOutputs:
        z = np.column_stack([each.features, np.full(len(each.features), 3.0), 2 * each.features[:, 0]])
        return NetworkOutputs(each.logits, z.astype(np.float32))

    narrow, wide = fitted(MahalanobisDetector), MahalanobisDetector(untrained(), false_positive_rate=0.1)
    wide.fit_outputs(dead(outputs), y, dead(calibration))
    np.testing.assert_allclose(wide.score_outputs(dead(queries)), narrow.score_outputs(queries), rtol=1e-6)
    with pytest.raises(ValueError, match="all the same"):
        wide.fit_outputs(NetworkOutputs(outputs.logits, np.ones_like(outputs.features)), y)


@pytest.mark.parametrize("defence", ["mmc", "lgm", "center"])
def test_center_distance(defence, trained, digits):
    classifier = trained[defence]
    detector = CenterDistanceDetector(classifier)
    detector.fit(digits.x_train)
    x = digits.x_test[:20]
    z, centers = classifier.get_activations(x, "embedding"), classifier.model.head.centers.detach().numpy()
    want = ((z - centers[classifier.predict(x).argmax(axis=1)]).astype(float) ** 2).sum(axis=1)
    np.testing.assert_allclose(detector.scores(x), want, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ threshold


@pytest.mark.parametrize(("n", "rate", "rank"), [(19, 0.05, 19), (99, 0.1, 90), (100, 0.1, 91), (60, 0.5, 31)])
def test_threshold_is_the_stated_order_statistic(n, rate, rank):
    detector = ConfidenceDetector(untrained(), false_positive_rate=rate)
    outputs, y = made_up(100)
    calibration, _ = made_up(n, seed=1)
    detector.fit_outputs(outputs, y, calibration)
    assert detector.threshold == np.sort(detector.score_outputs(calibration))[rank - 1]


@pytest.mark.parametrize("given", [True, False], ids=["given data", "held-out share"])
@pytest.mark.parametrize("name", GENERAL)
def test_thresholds_give_the_stated_rate_on_fresh_data(name, given):
    """The false positives of fresh data are beta-binomial: the threshold itself is random."""
    rate, n, fresh = 0.1, 999, 2000
    detector = create_detector(name, untrained(), false_positive_rate=rate, holdout=0.5)
    outputs, y = made_up(1998)
    detector.fit_outputs(outputs, y, made_up(n, seed=1)[0] if given else None)
    assert detector.calibrated_on == (
        "999 clean samples given for it" if given else "999 held-out samples of the 1998 fitting data"
    )
    flagged = int((detector.score_outputs(made_up(fresh, seed=2)[0]) > detector.threshold).sum())
    above = n + 1 - math.ceil((n + 1) * (1 - rate))
    low, high = betabinom(fresh, above, n + 1 - above).ppf([1e-4, 1 - 1e-4])
    assert low <= flagged <= high
    assert 0.05 * fresh < low  # the bound says something
    assert high < 0.16 * fresh


def test_held_out_samples_are_not_fitted_on():
    outputs, y = made_up(100)
    detector = KernelDensityDetector(untrained(), false_positive_rate=0.2, holdout=0.25, bandwidth=1.0)
    detector.fit_outputs(outputs, y)
    kept = {tuple(row) for row in detector._tensors["references"].numpy()}
    assert len(kept) == 76  # 8 of each class are held out
    held_out = [i for i, row in enumerate(outputs.features) if tuple(row) not in kept]
    assert np.bincount(y[held_out]).tolist() == [8, 8, 8]
    np.testing.assert_array_equal(detector._calibration[0], np.sort(detector.score_outputs(outputs.take(held_out))))


def test_a_new_rate_moves_the_threshold_and_another_parameter_unfits():
    detector = fitted(KernelDensityDetector, bandwidth=1.0)
    scores = detector._calibration[0]
    detector.set_params(false_positive_rate=0.5)
    assert detector.threshold == scores[30] == detector.threshold_at(0.5)
    with pytest.raises(ValueError, match="needs at least 999"):
        detector.set_params(false_positive_rate=0.001)
    assert detector.false_positive_rate == 0.5
    assert detector.is_fitted
    detector.set_params(bandwidth=2.0)
    assert not detector.is_fitted


def test_typical_scores_are_medians_by_predicted_class():
    detector = fitted(KernelDensityDetector, bandwidth=1.0)
    calibration, _ = made_up(60, seed=1)
    scores = detector.score_outputs(calibration)
    want = [np.median(scores[calibration.predictions == k]) for k in (2, 0)]
    np.testing.assert_array_equal(detector.typical_scores(np.array([2, 0])), want)
    assert detector.spread == pytest.approx(scores.std())


# ------------------------------------------------------------------------------------------------------- ART's contract


@pytest.fixture(scope="module")
def attacked(trained, digits):
    """SCE, its detectors on digits, clean images and FGSM's."""
    classifier = trained["sce"]
    detectors = {}
    for name in GENERAL:
        detectors[name] = create_detector(name, classifier)
        detectors[name].fit(digits.x_train, digits.y_train, x_calibration=digits.x_test[200:400])
    x = digits.x_test[:100]
    x_adv = FastGradientMethod(classifier.with_objective("margin"), eps=0.2).generate(x, digits.y_test[:100])
    x_adv.setflags(write=False)
    return SimpleNamespace(classifier=classifier, detectors=detectors, x=x, x_adv=x_adv, y=digits.y_test[:100])


@pytest.mark.parametrize("name", GENERAL)
def test_detect(name, attacked):
    detector = attacked.detectors[name]
    assert isinstance(detector, EvasionDetector)
    report, is_adversarial = detector.detect(attacked.x_adv)
    assert set(report) == {"scores", "threshold", "predictions"}
    assert report["scores"].shape == report["predictions"].shape == is_adversarial.shape == (100,)
    assert is_adversarial.dtype == bool
    np.testing.assert_array_equal(is_adversarial, report["scores"] > report["threshold"])
    np.testing.assert_array_equal(report["predictions"], attacked.classifier.predict(attacked.x_adv).argmax(axis=1))
    clean_report, clean = detector.detect(attacked.x, batch_size=7)
    assert is_adversarial.sum() > clean.sum()
    assert (~clean).sum() > 80
    assert roc_auc_score(np.repeat([0, 1], 100), np.concatenate([clean_report["scores"], report["scores"]])) > 0.55
    np.testing.assert_allclose(clean_report["scores"], detector.scores(attacked.x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GENERAL)
def test_tensor_scores_are_the_numpy_scores_and_have_a_gradient(name, attacked):
    detector = attacked.detectors[name]
    x = torch.tensor(attacked.x_adv[:20], requires_grad=True)
    scores = detector.scores(x)
    np.testing.assert_allclose(scores.detach().numpy(), detector.scores(attacked.x_adv[:20]), rtol=1e-9)
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", list(DETECTORS))
def test_gradcheck(name, trained, digits):
    classifier = copy.deepcopy(trained["mmc"])
    classifier.model.double()
    params = {"k": 3, "minibatch_size": 20, "nb_minibatches": 2} if name == "lid" else {}
    detector = create_detector(name, classifier, false_positive_rate=0.2, **params)
    detector.fit(digits.x_train[:200], digits.y_train[:200])
    # smooth where no ReLU and no max-pooling switches: a point of uneven pixels
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: detector.scores(x), x, eps=1e-7, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", GENERAL)
def test_parameters(name, attacked):
    detector = attacked.detectors[name]
    params = detector.get_params()
    assert list(params) == detector.defence_params
    assert {"classifier", "layer", "false_positive_rate", "holdout", "seed"} <= set(params)
    other = type(detector)(**params)
    assert other.get_params() == params
    other.set_params(seed=3, holdout=0.2)
    assert (other.seed, other.holdout) == (3, 0.2)
    with pytest.raises(ValueError, match="unknown parameter 'fasle_positive_rate'. Did you mean 'false_positive_rate'"):
        other.set_params(fasle_positive_rate=0.1)
    with pytest.raises(ValueError, match="unknown parameter"):
        create_detector(name, attacked.classifier, bandwith=1)


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
@pytest.mark.parametrize("name", GENERAL)
def test_a_copy_detects_the_same(name, way, attacked):
    detector = attacked.detectors[name]
    other = copy.deepcopy(detector) if way == "deepcopy" else pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(other.scores(attacked.x_adv), detector.scores(attacked.x_adv))
    assert other.threshold == detector.threshold
    assert other.classifier is not detector.classifier


def test_the_world_is_left_as_it_was(trained, digits):
    classifier = copy.deepcopy(trained["sce"])
    classifier.model.train()
    classifier.model.head.eval()
    x = digits.x_test[:30]
    with left_alone(classifier.model):
        for name in GENERAL:
            detector = create_detector(name, classifier, false_positive_rate=0.2)
            detector.fit(digits.x_train[:300], digits.y_train[:300])
            detector.detect(x)
            detector.scores(torch.tensor(x, requires_grad=True)).sum()


class Net(torch.nn.Module):
    """A user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU())
        self.unused = torch.nn.Linear(1, 1)
        self.last = torch.nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x))


@pytest.mark.parametrize("layer", ["body", "body.2", 0])
def test_a_user_s_classifier_with_a_layer_named(layer, digits):
    classifier = plain(Net(), preprocessing=(0.5, 0.25))
    detector = KernelDensityDetector(classifier, layer, bandwidth=3.0)
    detector.fit(digits.x_train, digits.y_train)
    threshold = detector.threshold
    detector.fit(digits.x_train, np.eye(10)[digits.y_train])
    assert detector.threshold == threshold
    x = digits.x_test[:10]
    z = classifier.model.body(torch.from_numpy((x - 0.5) / 0.25)).detach().numpy()
    np.testing.assert_allclose(network_outputs(classifier, x, layer).features, z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(detector.scores(torch.tensor(x)).detach(), detector.scores(x), rtol=1e-6)
    assert detector.detect(x)[1].shape == (10,)
    both = ThresholdedClassifier(detector, threshold=float(np.median(detector.scores(x))))
    np.testing.assert_array_equal(both.predict_labels(x) == REJECTED, detector.scores(x) > both.threshold)


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", list(DETECTORS))
def test_not_fitted(name, trained, digits):
    detector = create_detector(name, trained["mmc"])
    for use in (
        lambda: detector.detect(digits.x_test[:2]),
        lambda: detector.scores(digits.x_test[:2]),
        lambda: detector.scores(torch.tensor(digits.x_test[:2])),
        lambda: detector.threshold,
        lambda: detector.spread,
        lambda: ThresholdedClassifier(detector),
    ):
        with pytest.raises(ValueError, match=r"has not been fitted: call fit\(x, y\)"):
            use()


def fit(name: str, rows=lambda y: y >= 0, labels: bool = True, classes: int = K, held_out: int | None = None) -> Any:
    """Fit a detector on some of 120 made-up outputs, and others that it is calibrated on."""
    outputs, y = made_up(120, nb_classes=classes)
    chosen, calibration = rows(y), None if held_out is None else made_up(held_out, seed=1)[0]
    detector = create_detector(name, untrained(classes))
    detector.fit_outputs(outputs.take(chosen), y[chosen] if labels else None, calibration)
    return detector


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: cross_validated_bandwidth([torch.zeros(5, 2), torch.zeros(1, 2)]), "at least 2 samples of each class"),
        (lambda: cross_validated_bandwidth([torch.zeros(5, 2), torch.ones(5, 2)]), "no two features"),
        (lambda: fit("non-me", classes=2), "at least 3 classes, got 2"),
        (lambda: fit("lid", lambda y: np.arange(120) // 6 * 6), "k=20 neighbours need more than 20 different features"),
        (lambda: CenterDistanceDetector(untrained()), "LinearHead, has no centers; MahalanobisDetector"),
        (lambda: fit("confidence", held_out=18), "at least 19 clean samples to set the threshold on, there are 18"),
        (lambda: fit("kernel-density", lambda y: y != 1), "no samples of class 1: .* some of each of the 3 classes"),
        (lambda: fit("mahalanobis", lambda y: y == 0), "all of class 0"),
        (lambda: fit("mahalanobis", labels=False), "y is needed"),
        (lambda: KernelDensityDetector(plain(Net())), "layer is needed: the network, a Net, has no 'embedding'"),
        (lambda: KernelDensityDetector(plain(Net()), "bodi"), "unknown layer 'bodi'. Did you mean 'body'"),
        (lambda: KernelDensityDetector(plain(Net()), 9), "layer 9 is out of range: the network has 3 layers"),
        (lambda: KernelDensityDetector(plain(Net()), "unused").scores(torch.zeros(1, 1, 8, 8)), "no step of its own"),
        (lambda: create_detector("lid", untrained()).fit(X, x_calibraton=X), "argument 'x_calibraton'. Did you"),
        (lambda: create_detector("lid", untrained()).detect(X, treshold=1), "unknown argument"),
        (lambda: create_detector("lid", untrained()).fit(X[:, 0]), "x has shape"),
        (lambda: create_detector("lid", untrained()).fit(X, np.full(10, K)), "y has labels from 3 to 3, expected"),
        (lambda: create_detector("lid", untrained()).fit(X, batch_size=0), "batch_size: expected a whole number of at"),
        (
            lambda: create_detector("lid", untrained()).fit(255 * X + 90),
            "x ranges from .*, far outside the clip_values",
        ),
        (lambda: NetworkOutputs(np.zeros((4, 3)), np.zeros((5, 2))), r"logits, features: .* got \(4, 3\), \(5, 2\)"),
        (
            lambda: fit("kernel-density", held_out=20).log_density(torch.zeros(4, D), torch.full((4,), 9)),
            "classes: expected 0 to 2, got 9",
        ),
        (
            lambda: fit("kernel-density", held_out=20).log_density(torch.zeros(4, D), torch.zeros(3)),
            r"expected 4 classes \(B,\)",
        ),
        (lambda: create_detector("lidd", untrained()), "unknown detector 'lidd'. Did you mean 'lid'"),
        (lambda: auc_roc(np.zeros(3), np.zeros(4), paired=True), "as many clean as adversarial"),
        (lambda: auc_roc(np.array([0.0, np.nan]), np.zeros(4)), "expected finite scores"),
    ],
)
def test_what_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_detector_is_made_for_a_classifier():
    with pytest.raises(TypeError, match="^classifier: expected an ART PyTorchClassifier, got int"):
        KernelDensityDetector(7)
    with pytest.raises(TypeError, match="^outputs: expected NetworkOutputs, got ndarray"):
        create_detector("lid", untrained()).fit_outputs(X)
    assert ConfidenceDetector(plain(Net())).layer is None


@pytest.mark.parametrize(
    ("cls", "params", "message"),
    [
        (KernelDensityDetector, {"bandwidth": 0}, "bandwidth: expected a positive number"),
        (KernelDensityDetector, {"bandwidth": "silverman"}, "'paper', 'cross-validation', got 'silverman'"),
        (KernelDensityDetector, {"samples_per_class": 0}, "samples_per_class: expected a whole number of at least 1"),
        (LIDDetector, {"k": 1}, "k: expected a whole number of at least 2"),
        (LIDDetector, {"k": 20, "minibatch_size": 20}, "minibatch_size: expected a whole number of at least 21"),
        (LIDDetector, {"nb_minibatches": 0}, "nb_minibatches"),
        (ConfidenceDetector, {"false_positive_rate": 0}, r"false_positive_rate: expected a number in \(0, 1\), got 0"),
        (ConfidenceDetector, {"holdout": 1.0}, "holdout"),
        (ConfidenceDetector, {"seed": -1}, "seed"),
    ],
)
def test_parameters_out_of_range(cls, params, message):
    with pytest.raises(ValueError, match=message):
        cls(untrained(), **params)
    detector = cls(untrained())
    before = detector.get_params()
    with pytest.raises(ValueError, match=message):
        detector.set_params(**params)
    assert detector.get_params() == before


@pytest.mark.parametrize("name", [name for name in GENERAL if DETECTORS[name].needs_features])
def test_features_of_another_width(name):
    detector = fitted(DETECTORS[name])
    outputs, _ = made_up(10)
    narrow = "features have width 4, the detector was fitted on features of width 5: the network or"
    for features, match in ((outputs.features[:, :4], narrow), (None, "needs features, the outputs hold none")):
        with pytest.raises(ValueError, match=match):
            detector.score_outputs(NetworkOutputs(outputs.logits, features))


@pytest.mark.parametrize("name", GENERAL)
def test_features_or_logits_that_are_not_finite(name):
    outputs, y = made_up(120)
    z, logits = outputs.features.copy(), outputs.logits.copy()
    z[[3, 7], 1] = np.nan, np.inf
    logits[5, 0] = np.inf
    bad = NetworkOutputs(outputs.logits, z) if DETECTORS[name].needs_features else NetworkOutputs(logits, None)
    what = "features are not finite for 2 of 120 samples .first: 3." if DETECTORS[name].needs_features else "logits are"
    with pytest.raises(FloatingPointError, match=what):
        create_detector(name, untrained()).fit_outputs(bad, y)
    with pytest.raises(FloatingPointError, match="not finite"):
        fitted(DETECTORS[name]).score_outputs(bad)


# ------------------------------------------------------------------------------------------------ ThresholdedClassifier


def test_thresholded_classifier_rejects_what_its_detector_detects(attacked):
    x = attacked.x_adv
    for detector in attacked.detectors.values():
        both = ThresholdedClassifier(detector)
        logits = both.predict(x)
        assert logits.shape == (100, 11)
        np.testing.assert_allclose(logits[:, :10], attacked.classifier.predict(x), rtol=1e-5, atol=1e-6)
        report, rejected = detector.detect(x)
        np.testing.assert_array_equal(both.predict_labels(x), np.where(rejected, REJECTED, report["predictions"]))
        np.testing.assert_array_equal(logits.argmax(axis=1) == 10, rejected)
    assert 0 < rejected.sum() < 100


@torch.no_grad()
def test_an_excess_below_the_rounding_of_the_logits_still_rejects(attacked):
    detector, x = attacked.detectors["confidence"], torch.tensor(attacked.x[:50])
    scores = detector.scores(x).numpy()
    for i in range(5):
        above = ThresholdedClassifier(detector, threshold=scores[i] - 1e-12).model(x)[i]
        assert above.argmax() == 10
        assert above[10] > above[:10].max()
        at = ThresholdedClassifier(detector, threshold=scores[i]).model(x)[i]
        assert at.argmax() != 10


def test_coverage_and_accuracy(attacked):
    detector = attacked.detectors["confidence"]
    both = ThresholdedClassifier(detector)
    scores = detector.scores(attacked.x_adv)
    records = both.coverage_and_accuracy(attacked.x_adv, attacked.y, [np.median(scores), scores.max()])
    accepted = scores <= np.median(scores)
    right = attacked.classifier.predict(attacked.x_adv).argmax(axis=1) == attacked.y
    assert records[0].coverage == accepted.mean() == 0.5
    assert records[0].accuracy == right[accepted].mean()
    assert (records[1].coverage, records[1].accuracy) == (1.0, right.mean())
    curve = both.coverage_and_accuracy(attacked.x, attacked.y)
    np.testing.assert_allclose([record.coverage for record in curve], np.linspace(0.05, 1, 20), atol=0.011)
    assert both.coverage_and_accuracy(attacked.x, attacked.y, [-1e9])[0].accuracy is None


def test_art_s_attack_on_a_thresholded_classifier_gets_past_the_detector(attacked):
    """The same ART attack, aimed at the classifier alone and at classifier and detector."""
    detector = attacked.detectors["kernel-density"]
    both = ThresholdedClassifier(detector)
    settings = {"eps": 0.2, "eps_step": 0.02, "max_iter": 30, "verbose": False}

    def unnoticed(x_adv: np.ndarray) -> float:
        labels = both.predict_labels(x_adv)
        return np.mean((labels != attacked.y) & (labels != REJECTED))

    aims = attacked.classifier, both
    blind, aware = (ProjectedGradientDescent(each, **settings).generate(attacked.x, attacked.y) for each in aims)
    assert np.abs(aware - attacked.x).max() <= 0.2 + 1e-6
    assert unnoticed(aware) > unnoticed(blind) + 0.1


def test_the_adaptive_objective_of_a_thresholded_classifier(attacked):
    both = ThresholdedClassifier(attacked.detectors["kernel-density"])
    values = both.compute_loss(attacked.x_adv, attacked.y)
    labels = both.predict_labels(attacked.x_adv)
    np.testing.assert_array_equal(values > 0, (labels != attacked.y) & (labels != REJECTED))
    outputs = torch.tensor([[1.0, 4.0, 2.0, 3.0], [1.0, 4.0, 2.0, 3.0], [1.0, 2.0, 0.0, 5.0]])
    both = ThresholdedClassifier(fitted(ConfidenceDetector))
    assert both.attack_values(outputs, torch.tensor([0, 1, 0])).tolist() == [1.0, -2.0, -3.0]
    assert both.attack_values(outputs, torch.tensor([0, 1, 0]), "margin").tolist() == [3.0, -1.0, 4.0]


def test_a_thresholded_classifier_is_not_trained_and_keeps_its_parts(attacked):
    detector = attacked.detectors["confidence"]
    both = ThresholdedClassifier(detector, threshold=-3.0)
    assert both.detector is detector
    assert both.get_params()["threshold"] == -3.0
    both.set_params(threshold=-2.0)
    assert both.threshold == -2.0
    np.testing.assert_array_equal(both.predict_labels(attacked.x) == REJECTED, detector.scores(attacked.x) > -2)
    again = pickle.loads(pickle.dumps(both))
    np.testing.assert_array_equal(again.predict(attacked.x), both.predict(attacked.x))
    np.testing.assert_array_equal(copy.deepcopy(both).predict(attacked.x), both.predict(attacked.x))
    with pytest.raises(NotImplementedError, match="train the classifier, fit the detector, and wrap them"):
        both.fit(attacked.x, attacked.y)
    with pytest.raises(NotImplementedError):
        both.clone_for_refitting()
    with pytest.raises(ValueError, match="unknown parameter 'loss'"):
        both.set_params(loss=torch.nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="finite"):
        ThresholdedClassifier(detector, threshold=math.inf)
    with pytest.raises(TypeError, match="expected a detector"):
        ThresholdedClassifier(attacked.classifier)


# ----------------------------------------------------------------------------------------------------------- evaluation


def test_auc_by_hand():
    # of 2 x 3 pairs (adversarial, clean): 1 beats 0 and ties twice with 1, 2 beats all: (1 + 2/2 + 3) / 6
    area = auc_roc(np.array([0.0, 1.0, 1.0]), np.array([1.0, 2.0]))
    assert area.value == pytest.approx(5 / 6)
    assert (area.n_clean, area.n_adversarial) == (3, 2)
    assert auc_roc(np.zeros(4), np.zeros(5)).value == 0.5
    assert auc_roc(np.zeros(4), np.ones(5)).interval == (1.0, 1.0)
    assert auc_roc(np.zeros(0), np.ones(5)) is None


@pytest.mark.parametrize("paired", [False, True])
def test_bootstrap_is_scikit_learn_s_area_over_draws(paired):
    """The same draws, written out sample by sample; scores with many ties."""
    rng = np.random.default_rng(0)
    clean, adversarial = rng.integers(0, 6, 30).astype(float), rng.integers(2, 9, 30).astype(float)
    areas, draws = [], np.random.default_rng(7)
    for _ in range(50):
        i = draws.multinomial(30, np.full(30, 1 / 30))
        j = i if paired else draws.multinomial(30, np.full(30, 1 / 30))
        scores = np.concatenate([np.repeat(clean, i), np.repeat(adversarial, j)])
        areas.append(roc_auc_score(np.repeat([0, 1], 30), scores))
    area = auc_roc(clean, adversarial, paired, seed=7, draws=50)
    np.testing.assert_allclose(area.interval, np.quantile(areas, (0.025, 0.975)), rtol=1e-12)
    assert area == auc_roc(clean, adversarial, paired, seed=7, draws=50)
    assert area.interval != auc_roc(clean, adversarial, paired, seed=8, draws=50).interval
    assert area.interval[0] < area.value < area.interval[1]


@pytest.fixture
def record() -> DetectionRecord:
    """
    Six inputs, threshold 2: 0 and 1 are right and turned wrong, the second unnoticed; 2 withstands; 3 withstands and is
    rejected; 4 was wrong from the start and stays so, unnoticed; 5 was wrong and is put right.
    """
    return DetectionRecord(
        "sce", "lid", "BIM", 0.1, {"max_iter": 10}, 1.5, 0, 2.0, 0.05, "given",
        clean_scores=np.array([0.0, 1.0, 0.0, 1.0, 3.0, 1.0]),
        adversarial_scores=np.array([2.5, 1.0, 0.0, 2.1, 2.0, 0.0]),
        clean_correct=np.array([1, 1, 1, 1, 0, 0], bool),
        adversarial_correct=np.array([0, 0, 1, 1, 0, 1], bool),
    )  # fmt: skip


def test_record_by_hand(record):
    with pytest.raises(ValueError, match="four arrays of the same shape"):
        replace(record, clean_scores=np.zeros(3))
    with pytest.raises(ValueError, match="at least one input"):
        replace(record, **{name: each[:0] for name, each in vars(record).items() if isinstance(each, np.ndarray)})
    assert record.n == 6
    assert record.kept.tolist() == [True, True, False, False, False, False]
    assert record.detected.tolist() == [True, False, False, True, False, False]
    # 2.5 beats 0 and 1; 1 beats 0 and ties with 1
    assert record.auc().value == pytest.approx(3.5 / 4)
    # 2.5, 1 and 2 against all six: 5, 2 + 3/2 and 5
    assert record.auc("usual").value == pytest.approx((5 + 3.5 + 5) / 18)
    assert record.correct_or_detected.count == 4
    assert record.correct_and_accepted.count == 2
    assert (record.detection_rate.count, record.detection_rate.n) == (1, 2)
    assert record.measured_false_positive_rate.count == 1
    assert record.clean_correct_and_accepted.count == 4
    assert record.correct_or_detected.interval[0] < 4 / 6 < record.correct_or_detected.interval[1]
    false_positive, true_positive = record.roc()
    assert np.trapezoid(true_positive, false_positive) == pytest.approx(3.5 / 4)
    with pytest.raises(ValueError, match="unknown protocol 'papre'. Did you mean 'paper'"):
        record.auc("papre")


def test_record_survives_json(record):
    data = json.loads(json.dumps(record.to_dict()))
    again = DetectionRecord.from_dict(data)
    assert again.to_dict() == data
    assert data["auc"]["paper"]["n_clean"] == 2
    assert data["n_kept"] == 2
    noisy = replace(record, clean_scores=np.random.default_rng(0).standard_normal(6) * 1e5)
    again = DetectionRecord.from_dict(json.loads(json.dumps(noisy.to_dict())))
    np.testing.assert_array_equal(again.clean_scores, noisy.clean_scores)
    np.testing.assert_allclose(noisy.clean_scores, np.random.default_rng(0).standard_normal(6) * 1e5, rtol=1e-8)


def test_a_record_without_successful_attacks(record):
    right = replace(record, adversarial_correct=np.ones(6, bool))
    assert right.auc() is None
    assert right.auc("usual") is None
    assert right.detection_rate is None
    assert len(right.roc()[0]) == 0
    assert DetectionRecord.from_dict(right.to_dict()).to_dict() == right.to_dict()
