"""
The papers' theory: closed forms against Monte Carlo and numeric volumes, measurements against distributions that are
known, pictures against the data that they draw.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from scipy.special import softmax
from scipy.stats import multivariate_normal, norm

from art_mmc.evaluation import AttackError
from art_mmc.geometry import max_mahalanobis_centers, random_centers
from art_mmc.pretrained import find_network
from art_mmc.reports.figures.inspect import (
    boundary_figure,
    density_figure,
    gap_figure,
    loss_density_figure,
    spread,
)
from art_mmc.reports.figures.style import COLOURS
from art_mmc.studies.history import find_history
from art_mmc.theory import (
    FeatureError,
    approximate_robustness_bound,
    boundary_distances,
    class_means,
    compactness_ratio,
    contour_shell_density,
    contour_sphere,
    convergence_figure,
    density_exponent,
    expected_boundary_distance,
    feature_figure,
    feature_scale,
    features_and_logits,
    figure_png,
    g_sce_log_density,
    head_centers,
    head_weights,
    inspect_classifier,
    knn_density,
    landing_ranks,
    lda_boundaries,
    mahalanobis_distances,
    map_features,
    mean_boundary_distances,
    mmc_log_density,
    probability_gap,
    rank_figure,
    rank_study,
    read_history,
    reverse_prediction_bounds,
    reverse_training_error,
    robustness_bound,
    robustness_limit,
    within_class_covariance,
    write_inspection,
)
from art_mmc.theory.density import binned
from tests.conftest import left_alone
from tests.planted import Hidden, around, linear, plain


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def clusters(rng: np.random.Generator, n: int = 60, classes: int = 3, dim: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes around 8 e_k."""
    y = np.repeat(np.arange(classes), n)
    return rng.normal(size=(len(y), dim)) + 8 * np.eye(classes, dim)[y], y


def ball_volume(radius: float, dim: int) -> float:
    return math.pi ** (dim / 2) / math.gamma(dim / 2 + 1) * radius**dim


def in_ball(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Uniform in the unit ball."""
    z = rng.normal(size=(n, dim))
    return z / np.linalg.norm(z, axis=1, keepdims=True) * rng.uniform(size=(n, 1)) ** (1 / dim)


# ------------------------------------------------------------------------------------------------- density, in theory


def two_class_loss(z: np.ndarray, mu, mu_other, s, s_other, bias, bias_other) -> np.ndarray:
    """log(1 + exp(h_other - h)), by the definition of g-SCE."""
    h = -s * np.square(z - mu).sum(axis=-1) + bias
    h_other = -s_other * np.square(z - mu_other).sum(axis=-1) + bias_other
    return np.logaddexp(0, h_other - h)


@pytest.mark.parametrize("dim", [2, 5])
@pytest.mark.parametrize(("s", "s_other"), [(1.3, 0.4), (0.5, 1.1)])
def test_the_contour_is_where_the_loss_is(rng, dim, s, s_other):
    mu, mu_other = rng.normal(size=(2, dim))
    rest = (mu, mu_other + 2, s, s_other, 0.7, -0.2)
    for loss in (0.4, 0.9):
        center, squared_radius = contour_sphere(loss, *rest)
        assert squared_radius > 0
        for direction in rng.normal(size=(20, dim)):
            direction /= np.linalg.norm(direction)

            def gap(t, way=direction, start=center, loss=loss):
                return float(two_class_loss(start + t * way, *rest)) - loss

            radius = brentq(gap, 0, 10 * math.sqrt(squared_radius), xtol=1e-13)
            assert radius == pytest.approx(math.sqrt(squared_radius), rel=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3, 10, 64])
def test_mmc_density_divides_by_the_volume_of_the_shell(dim):
    """Derived: dV/dC of the ball of squared radius 2 C, by differences. Printed: its surface, dV/dr."""
    for c in (0.3, 2.0):
        h = 1e-5 * c
        shell = (ball_volume(math.sqrt(2 * (c + h)), dim) - ball_volume(math.sqrt(2 * (c - h)), dim)) / (2 * h)
        assert mmc_log_density(c, 0.0, dim) == pytest.approx(-math.log(shell), abs=1e-6)
        r = math.sqrt(2 * c)
        surface = (ball_volume(r + h, dim) - ball_volume(r - h, dim)) / (2 * h)
        assert mmc_log_density(c, 0.0, dim, "printed") == pytest.approx(-math.log(surface), abs=1e-6)
        assert mmc_log_density(c, 1.5, dim) - mmc_log_density(c, 0.0, dim) == pytest.approx(1.5)


def test_g_sce_density_divides_by_the_volume_of_the_shell(rng):
    """Points uniform in a cube: those whose loss is in [C, C + dC] fill the shell's volume."""
    rest = (np.array([0.3, 0.0, 0.1]), np.array([-0.4, 0.2, 0.0]), 2.0, 0.8, 0.1, -0.1)
    points = rng.uniform(-2.5, 2.5, size=(1_000_000, 3))
    losses = two_class_loss(points, *rest)
    for c in (0.8, 1.4):
        assert contour_sphere(c, *rest)[1] < 2.0**2
        volume = np.mean(np.abs(losses - c) < 0.05) / 0.1 * 5.0**3
        assert float(g_sce_log_density(c, 0.0, *rest)) == pytest.approx(-math.log(volume), abs=0.05)
        radius = math.sqrt(contour_sphere(c, *rest)[1])
        printed = float(g_sce_log_density(c, 0.0, *rest, exponent="printed"))
        assert printed == pytest.approx(-math.log(4 * math.pi * radius**2))


# --------------------------------------------------------------------------------------------------- density, measured


@pytest.mark.parametrize("dim", [3, 10])
def test_shell_density_of_uniform_features_is_their_number_over_the_volume(rng, dim):
    n = 3000
    z = np.concatenate([2 * in_ball(rng, n, dim), 5 + in_ball(rng, n // 2, dim)])
    y = np.repeat([0, 1], [n, n // 2])
    centers = np.array([[0.0] * dim, [5.0] * dim])
    measured = contour_shell_density(z, y, centers)
    c = 0.5 * np.square(z - centers[y]).sum(axis=1)
    for label, count, radius in ((0, n, 2.0), (1, n // 2, 1.0)):
        ours = y == label
        low, high = np.quantile(c[ours], (0.1, 0.5))  # the edge of the ball is no matter of the theorem
        inner = ours & (c > low) & (c < high)
        expected = math.log(count) - math.log(ball_volume(radius, dim))
        assert np.abs(measured[inner] - expected).mean() < 0.12
        if dim == 3:  # in ten dimensions the noise of the slope is as large as what is to be told apart
            assert abs(np.polyfit(np.log(c[inner]), measured[inner], 1)[0]) < 0.3
    # the printed exponent has a density that falls as the root of C, where there is none
    printed = contour_shell_density(z, y, centers, exponent="printed")
    np.testing.assert_allclose(measured - printed, 0.5 * np.log(2 * c), atol=1e-9)


def test_shells_are_around_class_means_where_no_centers_are_given(rng):
    z, y = clusters(rng)
    found = contour_shell_density(z, y)
    np.testing.assert_allclose(found, contour_shell_density(z, y, class_means(z, y)))
    # a class has its own number and its own shells, whatever the other classes do
    np.testing.assert_allclose(contour_shell_density(z + 100 * (y == 2)[:, None], y), found, atol=1e-9)


def test_reference_features_are_what_is_counted(rng):
    z, y = clusters(rng, n=400)
    points, labels = clusters(rng, n=5)
    twice = (np.concatenate([z, z]), np.concatenate([y, y]))
    for measure in (contour_shell_density, lambda *args, **kwargs: knn_density(*args, k=3, **kwargs)):
        once = measure(points, labels, reference=(z, y))
        assert once.shape == (15,)
        assert np.abs(once - measure(points, labels)).mean() > 1  # among 5 a class
    doubled, single = (contour_shell_density(points, labels, reference=each) for each in (twice, (z, y)))
    assert np.median(doubled - single) == pytest.approx(math.log(2), abs=0.1)
    own = contour_shell_density(z, y)
    np.testing.assert_allclose(contour_shell_density(z[:7], y[:7], reference=(z, y)), own[:7])


def test_knn_density_by_brute_force(rng):
    z, y = clusters(rng, n=30, dim=3)
    points, labels = clusters(rng, n=4, dim=3)
    for k in (1, 4):
        own, other = knn_density(z, y, k, dim=3), knn_density(points, labels, k, 3, reference=(z, y))
        for target, at, classes, skip in ((own, z, y, 1), (other, points, labels, 0)):
            for i in range(len(at)):
                distances = np.sort(cdist(at[i : i + 1], z[y == classes[i]])[0])
                r = distances[k - 1 + skip]
                harmonic = -np.euler_gamma + sum(1 / j for j in range(1, k))  # psi(k)
                assert target[i] == pytest.approx(harmonic - math.log(4 / 3 * math.pi * r**3))


def test_knn_density_sees_the_plane_in_which_the_classes_vary(rng):
    flat = rng.normal(size=(400, 2)) * [3, 1]
    y = np.arange(400) % 2
    basis = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    lifted = flat @ basis[:2] + 10 * y[:, None] * basis[5]  # the class means lie outside the plane
    np.testing.assert_allclose(knn_density(lifted, y, dim=2), knn_density(flat, y), atol=1e-8)


def test_scale_and_compactness_by_hand():
    # means (0, 0), (4, 0), (0, 3): distances 4, 3, 5; each feature at distance 1 from its mean
    z = np.array([[1.0, 0], [-1, 0], [4, 1], [4, -1], [1, 3], [-1, 3]])
    y = np.array([0, 0, 1, 1, 2, 2])
    assert feature_scale(z, y) == 4
    assert compactness_ratio(z, y) == pytest.approx(1 / ((16 + 9 + 25) / 3))
    # features on the reference's means; measured by its means and not by their own
    assert compactness_ratio(np.array([[0.0, 0], [4, 3]]), np.array([0, 1]), (z, y)) == pytest.approx(4.5 * 3 / 50)


def test_binned():
    x, median = binned(np.array([3.0, 1, 2, 4]), np.array([30.0, 10, 20, 50]), bins=2)
    assert x.tolist() == [0.25, 0.75]
    assert median.tolist() == [15, 40]
    assert len(binned(np.arange(3.0), np.arange(3.0), bins=10)[0]) == 3


# ----------------------------------------------------------------------------------------------------------- boundary


@pytest.mark.parametrize("delta", [0.5, 2.0, 6.0])
def test_expected_boundary_distance_is_the_mean(delta):
    mean, _ = quad(lambda d: abs(d) * norm.pdf(d, delta / 2), -10, 20, points=[0])
    assert float(expected_boundary_distance(delta)) == pytest.approx(mean, rel=1e-7)
    assert expected_boundary_distance(np.array([0, 40], np.uint8)).tolist() == pytest.approx(
        [math.sqrt(2 / math.pi), 20]
    )


def test_robustness_measure_by_simulation(rng):
    """Gaussian classes of one covariance: measured distances to the LDA boundaries against Theorem 1 of MMLDA."""
    root = rng.normal(size=(4, 4))
    covariance = root @ root.T + np.eye(4)
    means = 3 * rng.normal(size=(3, 4))
    y = np.repeat(np.arange(3), 100_000)
    z = means[y] + rng.normal(size=(len(y), 4)) @ np.linalg.cholesky(covariance).T
    weights, biases = lda_boundaries(means, covariance)
    measured = mean_boundary_distances(z, y, weights, biases, covariance)
    inverse = np.linalg.inv(covariance)
    for i in range(3):
        assert np.isnan(measured[i, i])
        for j in {0, 1, 2} - {i}:
            delta = math.sqrt((means[i] - means[j]) @ inverse @ (means[i] - means[j]))
            assert mahalanobis_distances(means, covariance)[i, j] == pytest.approx(delta)
            assert measured[i, j] == pytest.approx(float(expected_boundary_distance(delta)), abs=0.012)
    assert np.nanmin(measured) == pytest.approx(robustness_bound(means, covariance), abs=0.012)
    # LDA is Bayes' rule here: the sign says what the likelihood says
    likelihood = np.stack([multivariate_normal(mu, covariance).logpdf(z[::500]) for mu in means], axis=1)
    right = boundary_distances(z[::500], y[::500], weights, biases, covariance).min(axis=1) > 0
    np.testing.assert_array_equal(right, likelihood.argmax(axis=1) == y[::500])
    np.testing.assert_allclose(within_class_covariance(z, y), covariance, rtol=0.05, atol=0.05)


def test_max_mahalanobis_centers_reach_the_limit_and_no_others_do(rng):
    assert robustness_limit(100, 10) == pytest.approx(7.45356, abs=1e-5)
    for classes in (2, 3, 10):
        limit = robustness_limit(25, classes)
        centers = max_mahalanobis_centers(classes, 12, 5.0).double().numpy()
        assert approximate_robustness_bound(centers) == pytest.approx(limit, rel=1e-6)
        # RB itself is above half the distance, by less the farther the classes are apart
        assert 0 < robustness_bound(centers) - limit < 0.01
        for seed in range(5):
            assert approximate_robustness_bound(random_centers(classes, 12, 5.0, seed=seed).numpy()) < limit - 0.01
            moved = centers + 0.05 * rng.normal(size=centers.shape)
            moved *= 5 / np.linalg.norm(moved, axis=1, keepdims=True)
            assert approximate_robustness_bound(moved) < limit


def test_boundary_distances_by_hand():
    means = np.array([[1.0, 0], [-1, 0], [1, 4]])
    z = np.array([[0.3, 1.0], [0.3, 1.0]])
    distances = boundary_distances(z, np.array([0, 1]), *lda_boundaries(means))
    assert distances[0].tolist() == pytest.approx([math.inf, 0.3, 1.0])
    assert distances[1, 0] == pytest.approx(-0.3)
    # a covariance of 4 halves Mahalanobis distances
    covariance = 4 * np.eye(2)
    halved = boundary_distances(z, np.array([0, 1]), *lda_boundaries(means, covariance), covariance)
    np.testing.assert_allclose(halved[:, 1:][0], distances[:, 1:][0] / 2)


def test_head_weights_are_the_head_s_boundaries(classifier, digits):
    """A feature moved by its distance to a boundary gives two equal logits there."""
    z, logits = features_and_logits(classifier, digits.x_test[:40])
    y = digits.y_test[:40]
    weights, biases = head_weights(classifier)
    np.testing.assert_array_equal((z @ weights.T + biases).argmax(axis=1), logits.argmax(axis=1))
    distances = boundary_distances(z, y, weights, biases)
    np.testing.assert_array_equal(distances.min(axis=1) > 0, logits.argmax(axis=1) == y)
    rows, nearest = np.arange(len(y)), distances.argmin(axis=1)
    normal = weights[y] - weights[nearest]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    moved = torch.from_numpy(z - distances.min(axis=1, keepdims=True) * normal)
    with torch.no_grad():
        there = classifier.model.head.to(torch.float64)(moved).numpy()
    classifier.model.head.to(torch.float32)
    np.testing.assert_allclose(there[rows, y], there[rows, nearest], atol=1e-6)


def test_head_centers(trained):
    np.testing.assert_allclose(np.square(head_centers(trained["mmc"])).sum(axis=1), np.full(10, 100.0), rtol=1e-5)
    for name in ("mmlda", "lgm", "center"):
        assert head_centers(trained[name]).shape == (10, 64)
    with pytest.raises(ValueError, match=r"LinearHead\) has no centers: use the class means"):
        head_centers(trained["sce"])
    broken = copy.deepcopy(trained["sce"])
    with torch.no_grad():
        next(broken.model.parameters()).fill_(np.nan)
    with pytest.raises(FloatingPointError, match="diverged"):
        features_and_logits(broken, np.zeros((2, 1, 8, 8), np.float32))


# -------------------------------------------------------------------------------------------------------- probability


def test_probability_gap_by_hand():
    logits = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]) + 7
    y = np.array([0, 2, 2])
    np.testing.assert_allclose(probability_gap(logits, y), [0.2, -0.3, 0.2])
    np.testing.assert_allclose(probability_gap(logits, np.eye(3)[y]), [0.2, -0.3, 0.2])
    np.testing.assert_allclose(probability_gap(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0])), [1, -1])


def test_reverse_training_error_by_hand():
    # softmax(-logits) = (0.02, 0.5, 0.48): the goal for class 0 is (0, 0.5, 0.5), for class 1 (0.5, 0, 0.5)
    logits = -np.log([[0.02, 0.5, 0.48]] * 2)
    np.testing.assert_allclose(reverse_training_error(logits, np.array([0, 1])), [0.02, 0.5])


def test_a_network_trained_by_reverse_cross_entropy_is_near_its_goal(trained, digits):
    logits = trained["rce"].predict(digits.x_test)
    assert np.median(reverse_training_error(logits, digits.y_test)) < 0.05
    assert np.median(reverse_training_error(-logits, digits.y_test)) > 0.2


@pytest.mark.parametrize("classes", [3, 5, 10])
def test_rce_theorem_2_holds_for_random_logits(rng, classes):
    n = 3000
    y = rng.integers(classes, size=n)
    rows = np.arange(n)
    logits = rng.normal(size=(n, classes)) * 10 ** rng.uniform(-4, -0.5, size=(n, 1))
    logits[rows, y] += rng.uniform(3, 12, size=n)
    alpha = reverse_training_error(logits, y)
    small = alpha < 0.2 / classes  # "far below 1 / K"
    assert small.sum() > 1000
    logits, y, alpha, rows = logits[small], y[small], alpha[small], np.arange(small.sum())
    error_bound, difference_bound = reverse_prediction_bounds(alpha, classes)
    prediction = softmax(logits, axis=1)
    error = np.abs(prediction - np.eye(classes)[y]).max(axis=1)
    prediction[rows, y] = np.nan
    difference = np.nanmax(prediction, axis=1) - np.nanmin(prediction, axis=1)
    assert (error <= error_bound).all()
    assert (difference <= difference_bound).all()
    # level false classes and a small alpha reach the first bound
    tight = -np.log(np.array([[1e-5, *[(1 - 1e-5) / (classes - 1)] * (classes - 1)]]))
    bound = reverse_prediction_bounds(reverse_training_error(tight, np.array([0])), classes)[0]
    assert 0.99 < (1 - softmax(tight, axis=1)[0, 0]) / bound[0] <= 1


# --------------------------------------------------------------------------------------------------------------- ranks


def test_landing_ranks_by_hand():
    logits = np.array([[5.0, 1, 3, 2], [5, 1, 3, 2], [5, 1, 3, 2], [1, 1, 9, 1], [2, 9, 5, 1]])
    y = np.array([0, 0, 0, 2, 0])
    landed = np.array([2, 1, 0, 3, 1])
    # the last one is misclassified when clean already: its label's own logit does not count
    assert landing_ranks(logits, y, landed).tolist() == [1, 3, 0, 3, 1]


def linear_classifier(weight: np.ndarray, bias: np.ndarray) -> PyTorchClassifier:
    return linear(weight, bias, input_shape=(1, 1, weight.shape[1]))


def test_an_attack_lands_where_the_linear_model_sends_it():
    """
    Logits x, x - 0.1 and 0.8 - x: no attack on x brings the runner-up above the true class, so it lands on rank 2, from
    x = 0.6 where eps is above 0.2, from x = 0.7 where it is above 0.3; 0.3 is misclassified when clean.
    """
    classifier = linear_classifier(np.array([[1.0], [1], [-1]]), np.array([0, -0.1, 0.8]))
    x = np.array([0.6, 0.7, 0.3, 0.95], np.float32).reshape(-1, 1, 1, 1)
    study = rank_study(classifier, x, np.zeros(4, int), [0.32, 0.15, 0.22, 0.25], steps=4)
    assert study.eps == (0.15, 0.22, 0.25, 0.32)
    assert study.objective == "loss"
    assert study.correct.tolist() == [True, True, False, True]
    for attack in ("FGSM", "MIM"):
        assert study.fooled_at[attack].tolist() == [1, 3, -1, -1]
        assert study.ranks[attack].tolist() == [2, 2, 0, 0]
        assert study.counts(attack).tolist() == [[0, 0], [0, 1], [0, 0], [0, 1]]


def test_fgsm_on_a_linear_model_by_numpy(rng):
    weight, bias = rng.normal(size=(5, 8)), rng.normal(size=5) * 0.1
    classifier = linear_classifier(weight, bias)
    x = rng.uniform(0.3, 0.7, size=(80, 1, 1, 8)).astype(np.float32)
    flat = x.reshape(80, 8).astype(np.float64)
    y = (flat @ weight.T + bias).argmax(axis=1)
    y[:5] = (y[:5] + 1) % 5  # misclassified when clean
    eps = (0.02, 0.05, 0.1, 0.2)
    study = rank_study(classifier, x, np.eye(5)[y], eps, ["FGSM"], batch_size=32)
    assert study.attacks == ("FGSM",)
    logits = flat @ weight.T + bias
    step = np.sign((softmax(logits, axis=1) - np.eye(5)[y]) @ weight)  # gradient of the cross-entropy
    seen = set()
    for i in range(80):
        order = [k for k in np.argsort(-logits[i]) if k != y[i]]
        expected = (-1, 0)
        for e, radius in enumerate(eps if i >= 5 else ()):
            landed = (np.clip(flat[i] + radius * step[i], 0, 1) @ weight.T + bias).argmax()
            if landed != y[i]:
                expected = (e, order.index(landed) + 1)
                break
        assert (study.fooled_at["FGSM"][i], study.ranks["FGSM"][i]) == expected
        seen.add(expected[1])
    assert seen >= {0, 1, 2}
    assert study.counts("FGSM").sum() == np.sum(study.ranks["FGSM"] > 0)


def test_attacks_without_a_gradient_that_is_a_number_say_nothing(trained, digits):
    """ART puts zeros in its place, and the attack would stand still."""
    classifier = copy.deepcopy(trained["sce"])
    classifier.model.backbone.register_forward_pre_hook(lambda module, args: (Hidden.apply(args[0], math.nan),))
    with pytest.raises(AttackError, match="attack 'FGSM' at eps 0.1 failed: .*gradient is NaN"):
        rank_study(classifier, digits.x_test[:5], digits.y_test[:5], 0.1)
    with pytest.raises(AttackError, match="attack 'PGD' at eps 0.1 failed: .*gradient is NaN"):
        inspect_classifier(classifier, digits, 0.1, nb_test=20, nb_train=200)


def test_rank_study_of_a_defended_classifier(trained, digits):
    """By the cross-entropy unless told otherwise; the margin, which aims at the runner-up, lands there more often."""
    x, y = digits.x_test[:120], digits.y_test[:120]
    shares = {}
    for objective in ("rescaled_cross_entropy", "margin"):
        study = rank_study(trained["mmc"], x, y, (0.1, 0.2), ["MIM"], objective=objective)
        assert study.objective == objective
        counts = study.counts("MIM").sum(axis=0)
        shares[objective] = counts[0] / counts.sum()
    assert shares["rescaled_cross_entropy"] < shares["margin"]
    assert trained["mmc"].objective == "adaptive"
    document = json.loads(json.dumps(study.to_dict(), allow_nan=False))
    assert document["n"] == 120
    assert np.sum(document["attacks"]["MIM"]["newly_fooled_by_rank"]) == np.sum(study.ranks["MIM"] > 0)
    with pytest.raises(ValueError, match="unknown attack 'FGSM'"):
        study.counts("FGSM")


# ------------------------------------------------------------------------------------------------------------ features


def test_a_user_s_classifier_stays_as_it_was(rng):
    """Any module by its name, also one that ART does not list; nothing is left behind."""
    inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 6), torch.nn.Dropout(0.5))
    network = torch.nn.Sequential(inner, torch.nn.Linear(6, 3))
    classifier = plain(network, input_shape=(1, 2, 2), nb_classes=3, preprocessing=(0.5, 2.0))
    classifier.model.train()
    inner[2].eval()
    inner[1].weight.grad = torch.ones_like(inner[1].weight)
    x = rng.uniform(size=(7, 1, 2, 2)).astype(np.float32)
    with left_alone(classifier.model):
        z, logits = features_and_logits(classifier, x, "0.1", batch_size=3)
        rank_study(classifier, x, np.arange(7) % 3, 0.1)
    with torch.no_grad():
        expected = inner[1](torch.from_numpy((x - 0.5) / 2).flatten(1))
        np.testing.assert_allclose(z, expected.numpy(), rtol=1e-5)
        np.testing.assert_allclose(logits, network[1](expected).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="unknown layer '0.7'. Did you mean '0."):
        features_and_logits(classifier, x, "0.7")


def test_class_means():
    means = class_means(np.array([[1.0, 2], [3, 4], [5, 5]]), np.array([0, 0, 2]), 4)
    assert means[[0, 2]].tolist() == [[2, 3], [5, 5]]
    assert np.isnan(means[[1, 3]]).all()


def study(weight: np.ndarray | None = None, **changes) -> None:
    """A study of ranks with something wrong."""
    x, y = np.full((3, 1, 1, 2), 0.5, np.float32), np.zeros(3, int)
    classifier = linear_classifier(np.eye(2) if weight is None else weight, np.zeros(2))
    rank_study(**{"classifier": classifier, "x": x, "y": y, "eps": 0.1, **changes})


ONE = np.ones(2)
Z, Y = np.arange(12.0).reshape(6, 2) ** 2, np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: knn_density(Z[:, 0], Y, 1), r"expected features \(N, d\)"),
        (lambda: knn_density(Z, Y[:5], 1), "expected 6 class indices"),
        (lambda: knn_density(np.where(Z > 100, np.nan, Z), Y, 1), "1 of 6 features are NaN or infinite"),
        (lambda: knn_density(Z, Y + 0.5, 1), "class indices, whole numbers from 0"),
        (lambda: knn_density(Z, 0 * Y, 1), "at least two classes, got class 0 only"),
        (lambda: knn_density(Z, Y, 3), "class 0 has 3 reference features: expected at least 4 for k=3"),
        (lambda: knn_density(Z, Y, 1, 3), "from 1 to 2, the features' width, got 3"),
        (lambda: knn_density(Z, Y, 1, 1.5), "dim: expected a whole number of at least 1, got 1.5"),
        (lambda: knn_density(Z + 1j, Y, 1), "z: expected an array of numbers"),
        (lambda: knn_density(np.repeat(Z, 2, axis=0), np.repeat(Y, 2), 1), "have 1 copies"),
        (lambda: knn_density(Z, Y, 1, reference=(Z[:, :1], Y)), "width 2, the reference of width 1"),
        (lambda: knn_density(Z, Y + 1, 1, reference=(Z, Y)), "no features of class 2"),
        (lambda: knn_density(Z, Y, 1, reference=(Z[:0], Y[:0])), "reference: expected features"),
        (lambda: contour_shell_density(Z, Y, np.zeros((1, 2))), r"expected shape \(2, 2\), got \(1, 2\)"),
        (lambda: contour_shell_density(Z, Y, np.full((2, 2), np.nan)), "centers: expected finite"),
        (lambda: contour_shell_density(Z, Y, Z[[0, 5]]), "lie on the center itself"),
        (lambda: contour_shell_density(Z, np.array([0, 0, 0, 0, 0, 1])), "class 1 has 1 reference features"),
        (lambda: contour_shell_density(Z, Y, exponent="paper"), "unknown exponent"),
        (lambda: compactness_ratio(np.ones((4, 2)), np.array([0, 0, 1, 1])), "class means coincide"),
        (lambda: within_class_covariance(np.eye(2), np.array([0, 1])), "no covariance within"),
        (lambda: robustness_bound(np.ones((1, 3))), "at least two classes"),
        (lambda: robustness_bound(np.array([[1.0], [np.nan]])), "a class without features"),
        (lambda: robustness_bound(np.eye(2), np.zeros((2, 2))), "not positive definite"),
        (lambda: robustness_bound(np.eye(2), np.full((2, 2), np.nan)), "covariance: expected finite numbers"),
        (lambda: robustness_limit(-1.0, 3), "squared_norm: expected a number of at least 0"),
        (lambda: boundary_distances(Z, Y, np.eye(3), np.zeros(3)), r"weights \(K, 2\)"),
        (lambda: boundary_distances(Z, Y, np.eye(2), np.full(2, np.nan)), "biases: expected finite numbers"),
        (lambda: boundary_distances(Z, Y + 1, np.eye(2), np.zeros(2)), "at least 3 classes, got 2"),
        (lambda: boundary_distances(Z, Y, np.ones((2, 2)), np.zeros(2)), "same weights"),
        (lambda: probability_gap(np.ones((3, 1)), np.zeros(3, int)), "K of at least 2"),
        (lambda: probability_gap(np.array([[1.0, np.inf]]), np.zeros(1, int)), "NaN or infinite"),
        (lambda: map_features(Z, Y, method="umap"), "unknown method 'umap'"),
        (lambda: map_features(Z[:2], Y[:2]), "at least 3 features"),
        (lambda: map_features(Z[:, :1], Y), "width 2 or more"),
        (lambda: map_features(np.ones((6, 2)), Y), "all clean features are the same"),
        (lambda: map_features(Z, Y, Z[:3]), "y: expected 3 class indices .N,., one for each of z_adversarial"),
        (lambda: map_features(Z, Y, method="tsne", perplexity=0), "perplexity: expected a positive number, got 0"),
        (lambda: map_features(Z, Y, centers=np.eye(3)), "different widths: 2, 3"),
        (lambda: class_means(np.ones((3, 1)), np.array([0, 1, 2]), 2), "y has class 2, but there are 2 classes"),
        (lambda: contour_sphere(1.0, ONE, -ONE, 1.0, 1.0), "hyperplanes"),
        (lambda: contour_sphere(1.0, ONE, -ONE, 0, 1.0), "s: expected a positive number, got 0"),
        (lambda: contour_sphere(1.0, ONE, np.ones(3), 2.0, 1.0), "two vectors"),
        (lambda: g_sce_log_density(1e-12, 0.0, ONE, -ONE, 2.0, 1.0), "no feature has the loss 1e-12"),
        (lambda: mmc_log_density(0.0, 0.0, 3), "positive, finite"),
        (lambda: mmc_log_density("low", 0.0, 3), "loss: expected an array of numbers, got 'low'"),
        (lambda: density_exponent(3, "derive"), "Did you mean 'derived'"),
        (lambda: expected_boundary_distance(-1.0), "finite distances"),
        (lambda: reverse_prediction_bounds(0.1, 10), "where the theorem holds"),
        (lambda: study(attacks=["PGD"]), "unknown attack 'PGD'"),
        (lambda: study(attacks=[]), "at least one of FGSM, MIM"),
        (lambda: study(eps=8), "did you mean 8 / 255"),
        (lambda: study(seed=-1), "seed: expected a whole number of at least 0, got -1"),
        (lambda: study(steps=0), "steps: expected a whole number of at least 1"),
        (lambda: study(x=np.zeros((3, 1, 2), np.float32)), "expected \\(N, 1, 1, 2\\)"),
        (lambda: feature_figure([]), "at least one feature map"),
        (lambda: convergence_figure({}), "at least one training"),
        (lambda: convergence_figure({"a": []}), "at least one epoch"),
    ],
)
def test_errors(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_some_errors_have_a_class_of_their_own(tmp_path):
    for call in (lambda: knn_density(Z, Y, 3), lambda: knn_density(Z, 0 * Y, 1)):  # the features are to blame
        with pytest.raises(FeatureError):
            call()
    with pytest.raises(FloatingPointError, match="not finite"):
        study(np.array([[np.nan, 1.0], [0, 1]]))
    with pytest.raises(FileNotFoundError, match="no history at"):
        read_history(tmp_path / "a.json")


# ------------------------------------------------------------------------------------------------------------ pictures


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82") and len(data) > 10_000


def drawn_at(figure, panel: int, places: np.ndarray) -> bool:
    """Whether one of a panel's sets of markers lies just there."""
    sets = [np.asarray(each.get_offsets()) for each in figure.axes[panel].collections]
    return any(each.shape == places.shape and np.allclose(each, places) for each in sets)


def test_principal_components_and_where_they_put_the_centers(rng):
    z, y = clusters(rng)
    adversarial, centers = z + rng.normal(size=z.shape), 8 * np.eye(3, 4)
    found = map_features(z, y, adversarial, centers)
    _, values, axes = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    assert found.explained == pytest.approx(tuple(values[:2] ** 2 / np.square(values).sum()))
    for mapped, source in ((found.points, z), (found.adversarial, adversarial), (found.centers, centers)):
        expected = (source - z.mean(axis=0)) @ axes[:2].T
        np.testing.assert_allclose(np.abs(mapped), np.abs(expected), atol=1e-9)  # an axis may be turned round
    figure = feature_figure([found], eps=0.1)
    assert drawn_at(figure, 0, found.centers)
    assert drawn_at(figure, 0, found.points[y == 1])
    assert drawn_at(figure, 0, found.adversarial[y == 2])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "1", "2"]
    assert is_png(figure_png(figure))
    assert len(feature_figure([map_features(*clusters(rng, n=4, classes=25, dim=30))]).axes[0].texts) == 0


@pytest.mark.thorough
def test_tsne_embeds_the_centers_among_their_points(rng):
    z, y = clusters(rng, n=25)
    centers = 8 * np.eye(3, 4)
    with left_alone():
        found = map_features(z, y, z + 0.1, centers, "tsne", seed=3)
    assert found.explained is None
    means = np.stack([found.points[y == k].mean(axis=0) for k in range(3)])
    assert cdist(found.centers, means).argmin(axis=1).tolist() == [0, 1, 2]
    # a point and its neighbour 0.2 away end up side by side
    assert np.median(np.linalg.norm(found.points - found.adversarial, axis=1)) < 0.1 * np.ptp(found.points)
    # above 500 points of many dimensions the start is drawn at random
    wide = rng.normal(size=(520, 64))
    with left_alone():
        maps = [map_features(wide, np.zeros(520, int), method="tsne", perplexity=3, seed=1) for _ in range(2)]
    np.testing.assert_array_equal(maps[0].points, maps[1].points)
    figure = feature_figure([map_features(z, y), found])
    assert drawn_at(figure, 1, found.centers)
    assert is_png(figure_png(figure))


def test_numbers_of_classes_do_not_lie_on_each_other(rng):
    places = np.array([[0.0, 0], [0, 0], [0.1, 0], [5, 5]])
    moved = spread(places, 1.0)
    assert cdist(moved, moved)[~np.eye(4, dtype=bool)].min() > 0.99
    assert moved[3].tolist() == [5, 5]
    assert places[0].tolist() == [0, 0]
    far = rng.normal(size=(5, 2)) * 100
    np.testing.assert_array_equal(spread(far, 0.01), far)


def test_colours_can_be_told_apart():
    """In CIELAB, also as people without the red or the green cones see them (Vienot, Brettel and Mollon 1999)."""
    linear = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS]) ** 2.2
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    green_blind, red_blind = linear @ to_lms.T, linear @ to_lms.T
    green_blind[:, 1] = 0.494207 * green_blind[:, 0] + 1.24827 * green_blind[:, 2]
    red_blind[:, 0] = 2.02344 * red_blind[:, 1] - 2.52581 * red_blind[:, 2]
    from_lms = np.linalg.inv(to_lms).T
    for rgb in (linear, np.clip(green_blind @ from_lms, 0, 1), np.clip(red_blind @ from_lms, 0, 1)):
        xyz = rgb @ to_xyz.T / [0.9505, 1, 1.089]
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
        lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
        assert cdist(lab, lab)[~np.eye(10, dtype=bool)].min() > 15


def test_the_pictures_draw_their_numbers(rng):
    loss = rng.exponential(size=100)
    sets = {"train": np.stack([loss, -loss]), "test": np.stack([loss[:50], -loss[:50]])}
    figure = density_figure({"a": {"one": sets, "two": sets}, "b": {"one": sets, "two": sets}})
    assert len(figure.axes[0].lines) == 4
    x, median = binned(loss, -loss)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), np.stack([x, median], axis=1))
    assert is_png(figure_png(figure))

    for scale, losses in {"log": 10 ** (5 * loss), "symlog": np.maximum(loss - 0.5, 0), "linear": -loss}.items():
        figure = loss_density_figure({"a": {"train": np.stack([losses, -loss])}}, "log density")
        assert figure.axes[0].get_xscale() == scale

    figure = boundary_figure({"a": {"train": loss, "test": loss[:50]}, "b": {"train": -loss}}, {"a": 0.8}, "distance")
    steps = figure.axes[0].patches[0].get_data()
    assert steps.values.sum() == pytest.approx(100)  # per cent; nothing falls outside
    assert any(line.get_xdata()[0] == 0.8 for line in figure.axes[0].lines)
    assert len(figure.axes[1].lines) == 1
    assert is_png(figure_png(figure))

    gaps = rng.uniform(-1, 1, size=99)
    figure = gap_figure({"a": {"clean": gaps, "adversarial": -gaps}, "b": {"clean": gaps}})
    bar = figure.axes[0].patches[1]
    low, high = np.quantile(-gaps, (0.25, 0.75))
    assert (bar.get_x(), bar.get_width()) == pytest.approx((low, high - low))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "a, clean",
        "a, adversarial",
        "b, clean",
    ]


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_rank_figure_stacks_to_a_hundred(rng, classes):
    weight = rng.normal(size=(classes, 8))
    bias = -0.5 * weight.sum(axis=1)
    x = rng.uniform(0.3, 0.7, size=(60, 1, 1, 8)).astype(np.float32)
    y = (x.reshape(60, 8) @ weight.T + bias).argmax(axis=1)
    study = rank_study(linear_classifier(weight, bias), x, y, (1e-6, 0.1, 0.3))
    figure = rank_figure({"a": study, "b": study})
    assert len(figure.axes) == 4
    counts = study.counts("MIM")
    assert counts[0].sum() == 0 < counts[1:].sum()
    most = counts.sum(axis=1).argmax()
    bars = figure.axes[1].patches
    shown = min(4, classes - 1)
    heights = np.array([bar.get_height() for bar in bars]).reshape(shown, 3)
    np.testing.assert_allclose(heights.sum(axis=0)[counts.sum(axis=1) > 0], 100)
    assert heights[0, most] == pytest.approx(100 * counts[most, 0] / counts[most].sum())
    assert [text.get_text() for text in figure.axes[1].texts] == [f"n = {n}" for n in counts.sum(axis=1)]
    assert is_png(figure_png(figure))


# ------------------------------------------------------------------------------------------------------------- history


def test_histories_of_recorded_trainings(tmp_path):
    paths = {name: find_history(find_network(f"{name}-mnist")) for name in ("sce", "mmc", "pc")}
    histories = {name: read_history(path) for name, path in paths.items()}
    recorded = json.loads(paths["mmc"].read_text())["history"]
    assert [r["loss"] for r in histories["mmc"]] == [r["loss"] for r in recorded]
    assert histories["mmc"][0]["val_loss"] is None
    figure = convergence_figure(histories)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len(lines) == 4  # pc has two stages
    for line in lines:
        assert (max(line.get_ydata()), min(line.get_ydata())) == (1, 0)
    assert all(panel.get_ylabel() and panel.get_xlabel() == "epoch" for panel in figure.axes[:2])
    few = convergence_figure({"sce": histories["sce"][:3]})
    assert all(float(tick).is_integer() for panel in few.axes for tick in panel.get_xticks())
    drawn = [line for line in figure.axes[1].lines if len(line.get_xdata())]
    assert drawn[1].get_ydata()[-1] == pytest.approx(100 * recorded[-1]["accuracy"])
    assert is_png(figure_png(figure))
    assert plt.get_fignums() == []


def test_history_csv_and_where_histories_lie(tmp_path):
    (tmp_path / "net.run").mkdir()
    csv = tmp_path / "net.run" / "history.csv"
    csv.write_text(
        "epoch,stage,loss,accuracy,val_loss,val_accuracy,rate\n1,sce,2.5,0.25,,,0.1\n2,sce,2,0.5,3,0.4,0.1\n"
    )
    first, second = read_history(csv)
    assert first == {
        "epoch": 1, "stage": "sce", "loss": 2.5, "accuracy": 0.25, "val_loss": None, "val_accuracy": None,
    }  # fmt: skip
    assert second["val_accuracy"] == 0.4
    assert find_history(tmp_path / "net.pt") == csv
    assert find_history(tmp_path / "net.run" / "best.pt") == csv
    assert find_history(tmp_path / "other.pt") is None
    (tmp_path / "net.json").write_text("{}")
    assert find_history(tmp_path / "net.pt") == tmp_path / "net.json"
    assert is_png(figure_png(convergence_figure({"a": [first], "b": [first, second]})))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{"),
        ("a.json", '{"history": []}'),
        ("a.json", '{"history": [{"epoch": 1}]}'),
        ("a.csv", "epoch,loss,accuracy\none,1,1\n"),
    ],
)
def test_files_that_are_no_history(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="no history of a training"):
        read_history(tmp_path / name)


# ---------------------------------------------------------------------------------------------------------- inspection


def test_inspection_of_a_user_s_classifier(digits, tmp_path):
    """Any network whose feature layer is named; it shows no head of ours, so its class means stand for centers."""
    classifier, layer = around(), "network.backbone"
    sizes = {"nb_train": 500, "nb_test": 60, "nb_points": 40, "steps": 3}
    with left_alone(classifier.model):
        found = inspect_classifier(classifier, digits, (0.05, 0.1), layer=layer, **sizes)
    assert (found.name, found.defence, found.shell_centers) == ("PyTorchClassifier", None, "class means")
    assert found.eps == 0.05
    assert found.correct.mean() > 0.8
    assert found.distance_limit is None
    assert {part: len(values) for part, values in found.loss.items()} == {"train": 500, "test": 60}
    assert (found.gaps["clean"] > 0).tolist() == found.correct.tolist()
    assert found.gaps["adversarial"].mean() < found.gaps["clean"].mean() - 0.1
    files = write_inspection([found], tmp_path, digits, classifier.device)
    assert {"report.md", "report.json", "features-PyTorchClassifier.png"} <= {path.name for path in files}
    # the loss is the cross-entropy
    chosen = np.sort(np.random.default_rng(0).permutation(768)[:500])
    z, logits = features_and_logits(classifier, digits.x_train[chosen], layer)
    y = digits.y_train[chosen]
    np.testing.assert_allclose(found.loss["train"], -np.log(softmax(logits.astype(float), axis=1))[np.arange(500), y])
    np.testing.assert_allclose(found.density["k nearest neighbours"]["train"], knn_density(z / feature_scale(z, y), y))
    nearest = boundary_distances(z, y, *lda_boundaries(class_means(z, y))).min(axis=1)
    np.testing.assert_allclose(found.distances["train"], nearest, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="different names, got"):
        write_inspection([found, found], tmp_path, digits, classifier.device)


def test_inspection_of_mmc(trained, digits):
    found = inspect_classifier(trained["mmc"], digits, 0.1, nb_train=768, nb_test=100, nb_points=50, steps=3)
    x, y = digits.x_train, digits.y_train
    z = trained["mmc"].get_activations(x, layer="embedding").astype(float)
    centers = head_centers(trained["mmc"])
    # the code's loss is the squared distance to the center, and the density around it falls as it grows
    np.testing.assert_allclose(found.loss["train"], np.square(z - centers[y]).sum(axis=1), rtol=1e-3, atol=1e-4)
    assert found.shell_centers == "head's centers"
    scale = feature_scale(z, y)
    np.testing.assert_allclose(
        found.density["contour shells"]["train"], contour_shell_density(z / scale, y, centers / scale), atol=1e-2
    )
    assert found.density_trend("contour shells", "train") < -0.99
    assert found.density_trend("k nearest neighbours", "test") < -0.5
    by_centers, by_means = found.boundaries
    assert by_centers.rb == pytest.approx(7.4536, abs=1e-3)
    assert by_centers.limit == pytest.approx(by_centers.approximation, rel=1e-5)
    assert found.distance_limit == by_centers.limit
    assert by_centers.measured["test"] < by_centers.measured["train"] < 7.6
    assert by_means.approximation < by_means.limit
    np.testing.assert_allclose(found.maps[0].centers.shape, (10, 2))
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["nearest_boundary"]["test"]["share_on_wrong_side"] == pytest.approx(1 - found.correct.mean())


def test_inspection_of_every_defence(classifier, digits):
    """All heads and losses; the training loss and the distances fit the predictions."""
    found = inspect_classifier(classifier, digits, 0.1, nb_train=300, nb_test=30, nb_points=1, k=3, steps=1)
    assert found.maps == ()  # too few points
    assert np.isfinite(found.loss["train"]).all()
    np.testing.assert_array_equal(found.distances["test"] > 0, found.correct)
    json.dumps(found.to_dict(), allow_nan=False)


def test_inspection_says_what_is_wrong(trained, digits):
    other = replace(digits, name="other", x_train=digits.x_train[:, :, :4], x_test=digits.x_test[:, :, :4])
    for kwargs, match in (
        ({"dataset": other}, r"takes inputs \(1, 8, 8\) of 10 classes, data set other has \(1, 4, 8\)"),
        ({"eps": 0}, r"number in \(0, 1\]"),
        ({"nb_test": 0}, "nb_test"),
        ({"nb_train": 0}, "nb_train"),
        ({"nb_train": 40}, "for k=10 neighbours"),
        ({"layer": "embeding"}, "Did you mean 'embedding'"),
    ):
        with pytest.raises(ValueError, match=match):
            inspect_classifier(**{"classifier": trained["sce"], "dataset": digits, "eps": 0.1, **kwargs})
