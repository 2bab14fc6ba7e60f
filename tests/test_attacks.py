"""
The attacks that ART lacks: SPSA against closed forms, autograd and PGD; noise and rotation against what they say they
do. What all attacks promise is in `test_attack_manners.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier, SklearnClassifier
from art.estimators.classification.blackbox import BlackBoxClassifierNeuralNetwork
from art.exceptions import EstimatorError
from scipy import ndimage, stats
from scipy.optimize import linprog
from sklearn.linear_model import LogisticRegression

from art_mmc import SPSA, GaussianNoise, LossDefendedClassifier, RandomRotation
from art_mmc.attacks import random_rotation
from art_mmc.attacks.spsa import spsa_gradient
from art_mmc.objectives import OBJECTIVES
from tests.conftest import norms
from tests.planted import furthest, linear
from tests.test_attack_manners import QUICK

SHAPE = (1, 8, 8)


def margins(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The largest other logit less that of y, float64."""
    others = logits.astype(np.float64)
    true = others[np.arange(len(y)), y].copy()
    others[np.arange(len(y)), y] = -np.inf
    return others.max(axis=1) - true


def weights(nb_classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((nb_classes, 64)).astype(np.float32) / 8


class Watched(BlackBoxClassifierNeuralNetwork):
    """Linear logits, row by row and so that no row's rounding depends on the others; it notes what it is asked."""

    def __init__(self, nb_classes: int = 4, clip_values: Any = (0.0, 1.0), seed: int = 0) -> None:
        self.weight = weights(nb_classes, seed).astype(np.float64)
        self.asked: list[np.ndarray] = []

        def predict(x: np.ndarray) -> np.ndarray:
            self.asked.append(x.copy())
            return np.stack([(self.weight * row.reshape(1, -1).astype(np.float64)).sum(axis=1) for row in x])

        super().__init__(predict, SHAPE, nb_classes, clip_values=clip_values)

    @property
    def sizes(self) -> list[int]:
        return [len(each) for each in self.asked]


@pytest.fixture
def images() -> np.ndarray:
    """Six images, with many values at the edge of the box, as in MNIST."""
    images = np.random.default_rng(7).uniform(-0.5, 1.5, (6, *SHAPE)).clip(0, 1).astype(np.float32)
    images.setflags(write=False)
    return images


# --- SPSA: strength -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "eps", "optimizer", "targeted", "room"),
    [
        (np.inf, 0.05, "adam", False, "away from the box"),
        (np.inf, 0.05, "adam", True, "at the box"),
        (np.inf, 0.05, "sign", False, "at the box"),
        (np.inf, 0.05, "sign", True, "away from the box"),
        (2, 0.3, "adam", True, "away from the box"),
        (2, 0.3, "adam", False, "at the box"),
        (2, 0.3, "sign", False, "away from the box"),
        (2, 0.3, "sign", True, "at the box"),
    ],
)
def test_default_budget_reaches_the_worst_case_of_a_linear_model(norm, eps, optimizer, targeted, room, images):
    """Two classes, so that the margin is linear. Away from the box: eps ||w_1 - w_0||_1, or eps ||w_1 - w_0||_2."""
    weight = weights(2)
    ours = norm == 2 or optimizer == "sign" or room == "at the box"
    classifier = linear(weight, cls=LossDefendedClassifier if ours else PyTorchClassifier)
    eps *= 1 if room == "away from the box" else 4
    x = np.full((2, *SHAPE), 0.5, np.float32) if room == "away from the box" else images[:2].copy()
    y = np.array([0, 1])
    attack = SPSA(
        classifier, norm, eps, optimizer=optimizer, targeted=targeted, early_stop=False, seed=1, verbose=False
    )
    x_adv = attack.generate(x, y)
    assert norms(x_adv - x, norm).max() <= eps * (1 + 1e-6)
    gain = margins(classifier.predict(x_adv), y) - margins(classifier.predict(x), y)
    for label, sample, gained in zip(y, x, -gain if targeted else gain, strict=True):
        away = weight[1 - label].astype(np.float64) - weight[label]
        (worst,) = furthest(sample[None], -away if targeted else away, eps, norm, (0, 1))
        if room == "away from the box":
            assert worst == pytest.approx(eps * np.linalg.norm(away, ord=1 if norm == np.inf else 2))
        assert 0.9 * worst <= gained <= worst * (1 + 1e-4)


def test_targeted_worst_case_among_many_classes():
    """The smallest margin to a target, max_k (a_k - a_t) over the ball, is a linear program."""
    weight, eps = weights(10).astype(np.float64), 0.05
    classifier = linear(weight, cls=LossDefendedClassifier)
    x, target = np.full((2, *SHAPE), 0.5, np.float32), np.array([3, 7])
    clean = classifier.predict(x).astype(np.float64)
    attack = SPSA(classifier, eps=eps, targeted=True, early_stop=False, seed=1, verbose=False)
    reached = margins(classifier.predict(attack.generate(x, target)), target)
    for i, t in enumerate(target):
        others = np.delete(np.arange(10), t)
        # variables: the step (64,) and the bound on all differences
        best = linprog(
            np.r_[np.zeros(64), 1.0],
            np.c_[weight[others] - weight[t], -np.ones(9)],
            clean[i, t] - clean[i, others],
            bounds=[(-eps, eps)] * 64 + [(None, None)],
        ).fun
        before = margins(clean, target)[i]
        assert before - reached[i] >= 0.9 * (before - best)
        assert before - reached[i] <= (before - best) * (1 + 1e-4)


# --- SPSA: the estimate ---------------------------------------------------------------------------------------------

DIM = 10
FALSE_ALARM = 1e-6  # of a whole test on DIM coordinates


def smooth_network() -> Callable[[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(16, DIM, generator=generator, dtype=torch.float64) / 2
    second = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    return lambda x: torch.tanh(x @ first.T) @ second.T


def smooth_values(points: np.ndarray) -> np.ndarray:
    """The margin of class 0, smooth wherever class 1 is the next (softly: a log-sum-exp of the others)."""
    logits = smooth_network()(torch.from_numpy(points))
    return (torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]).numpy()


def smooth_gradient(x: np.ndarray) -> np.ndarray:
    leaf = torch.from_numpy(x).requires_grad_(True)
    logits = smooth_network()(leaf)
    (torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]).sum().backward()
    return leaf.grad.numpy()


def expectation(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, delta: float) -> np.ndarray:
    """What the estimate is on average: over all 2^DIM vectors of signs, in float64."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=DIM)))
    return (((function(x + delta * signs) - function(x - delta * signs)) / (2 * delta))[:, None] * signs).mean(axis=0)


def estimates(function: Callable, x: np.ndarray, rows: int, **arguments: Any) -> np.ndarray:
    """Independent estimates at one point, (rows, DIM)."""
    generators = [np.random.default_rng([11, i]) for i in range(rows)]
    return spsa_gradient(lambda points, _: function(points), np.repeat(x[None], rows, axis=0), generators, **arguments)


def z_scores(sample: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (sample.mean(axis=0) - truth) / (sample.std(axis=0, ddof=1) / np.sqrt(len(sample)))


def is_unbiased(sample: np.ndarray, truth: np.ndarray) -> bool:
    """A two-sided test on each coordinate, Bonferroni over all: a false alarm once in a million."""
    return bool(np.abs(z_scores(sample, truth)).max() < stats.norm.isf(FALSE_ALARM / (2 * truth.size)))


def test_estimate_is_unbiased_against_autograd():
    """
    600 estimates of 100 pairs. The bias that delta brings is known: it is below a hundredth of what the test can see.
    The same test refuses the same estimates scaled by 1.05, shifted, or with two coordinates exchanged.
    """
    x = np.random.default_rng(0).uniform(0.2, 0.8, DIM)
    truth = smooth_gradient(x[None])[0]
    sample = estimates(smooth_values, x, 600, nb_samples=200, delta=0.001).astype(np.float64)
    bias = np.abs(expectation(smooth_values, x, 0.001) - truth)
    assert bias.max() < 0.01 * (sample.std(axis=0) / np.sqrt(600)).min()
    assert is_unbiased(sample, truth)
    assert not is_unbiased(1.05 * sample, truth)
    assert not is_unbiased(sample + 0.05 * np.abs(truth).max(), truth)
    assert not is_unbiased(sample[:, [1, 0, *range(2, DIM)]], truth)


@pytest.mark.parametrize("masked", [False, True])
def test_estimate_is_its_formula(masked):
    """From the points that were asked, in float64."""
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, (3, 2, 5)).astype(np.float32)
    x.flat[::7], x.flat[3::7] = 0, 0.997  # at the box, and near it
    mask = rng.uniform(size=x.shape) < 0.5 if masked else None
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def function(points: np.ndarray, owners: np.ndarray) -> np.ndarray:
        asked.append((points, owners))
        return np.sin(7 * points.astype(np.float64)).sum(axis=(1, 2)) * (1 + owners)

    generators = [np.random.default_rng([5, i]) for i in range(3)]
    result = spsa_gradient(function, x, generators, 40, 0.01, 0.0, 1.0, mask)
    ((points, owners),) = asked
    for i in range(3):
        up, down = points[owners == i][:20], points[owners == i][20:]  # and their counterparts
        high, low = np.minimum(x[i] + np.float32(0.01), 1), np.maximum(x[i] - np.float32(0.01), 0)
        if mask is not None:
            high, low = np.where(mask[i], high, x[i]), np.where(mask[i], low, x[i])
        signs = np.where(np.abs(up - high) <= 1e-7, 1, -1)
        np.testing.assert_allclose(up, np.where(signs > 0, high, low), atol=1e-7)
        np.testing.assert_allclose(down, np.where(signs > 0, low, high), atol=1e-7)
        width = (high - low).astype(np.float64)
        values = [np.sin(7 * each.astype(np.float64)).sum(axis=(1, 2)) * (1 + i) for each in (up, down)]
        difference = (values[0] - values[1])[:, None, None]
        expected = np.where(width > 0, (difference * signs).mean(axis=0) / np.where(width > 0, width, 1), 0)
        np.testing.assert_allclose(result[i], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_samples_are_signs_independent_over_coordinates_pairs_and_images():
    """Means and all correlations of 2 x 2,000 sign vectors of length 70 (more than a word of 64 bits)."""
    points = []

    def function(batch: np.ndarray, owners: np.ndarray) -> np.ndarray:
        points.append(batch)
        return np.zeros(len(batch))

    generators = [np.random.default_rng([0, i]) for i in range(2)]
    spsa_gradient(function, np.zeros((2, 70)), generators, 4000, 1.0, max_queries=4000)
    first, second = (batch[:2000] for batch in points)
    np.testing.assert_array_equal(points[0][2000:], -first)
    assert set(np.unique(first)) == {-1.0, 1.0}
    rows = np.concatenate([first, second], axis=1)  # 140 signs that are to be independent
    correlation = rows.T @ rows / 2000
    limit = stats.norm.isf(FALSE_ALARM / (2 * 140 * 140)) / np.sqrt(2000)
    assert np.abs(rows.mean(axis=0)).max() < limit
    assert np.abs(correlation - np.eye(140)).max() < limit
    assert np.abs(first[:-1].T @ first[1:] / 2000).max() < limit  # one pair and the next


# --- SPSA: ball, box, budget, bookkeeping ---------------------------------------------------------------------------


def boxed(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """A box with another range in its upper half."""
    lows = np.full(SHAPE, low, np.float32)
    lows[0, :4] = 0.0
    return lows, np.full(SHAPE, high, np.float32)


@pytest.mark.parametrize("optimizer", ["adam", "sign"])
@pytest.mark.parametrize(
    ("norm", "eps", "box"),
    [(np.inf, 0.1, (0.0, 1.0)), ("inf", 0.1, boxed(0.2, 0.7)), (2, 0.7, (0.0, 1.0)), (np.inf, 3.0, None)],
    ids=["inf", "a box of arrays", "2", "no box"],
)
def test_ball_and_box(norm, eps, box, optimizer, images):
    """Nothing that is asked or returned leaves the box, no iterate and no result the ball."""
    low, high = (-np.inf, np.inf) if box is None else box
    classifier, x = Watched(clip_values=box), (10 * images if box is None else images.clip(low, high))
    settings = {"learning_rate": eps, "max_iter": 4, "nb_samples": 8, "early_stop": False, "verbose": False}
    x_adv = SPSA(classifier, norm, eps, optimizer=optimizer, **settings).generate(x, np.zeros(6, np.int64))
    assert all((each >= low).all() and (each <= high).all() for each in (*classifier.asked, x_adv))
    iterates = [each for each in classifier.asked if len(each) == 6]
    assert len(iterates) == 2 + 4
    radius = [norms(each - x, np.inf if norm != 2 else 2) for each in (*iterates, x_adv)]
    assert eps * 0.9 < np.max(radius) <= eps * (1 + 1e-6)
    assert box is not None or x_adv.min() < 0


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_random_start_is_uniform_in_the_ball(norm):
    """Of the uniform distribution |x|_2^d / eps^d and x_j / eps are known; tests at a false alarm of 1e-6."""
    classifier = Watched(clip_values=None)
    x = np.zeros((400, *SHAPE), np.float32)
    attack = SPSA(classifier, norm, 0.5, max_iter=1, nb_samples=2, early_stop=False, batch_size=400, verbose=False)
    attack.generate(x, np.zeros(400, np.int64))
    start = classifier.asked[1].reshape(400, 64).astype(np.float64) / 0.5
    assert len(np.unique(start[:, 0])) == 400
    if norm == 2:
        assert stats.kstest(np.linalg.norm(start, axis=1) ** 64, "uniform").pvalue > FALSE_ALARM
        assert abs(start.mean()) < 5 * start.std() / np.sqrt(start.size)
    else:
        assert stats.kstest(start.reshape(-1), stats.uniform(-1, 2).cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize("random_start", [False, True])
def test_queries_are_counted_exactly(random_start, images):
    classifier = Watched()
    settings = {"max_iter": 4, "nb_samples": 10, "random_start": random_start, "eps": 0.1, "verbose": False}
    attack = SPSA(classifier, early_stop=False, **settings)
    attack.generate(images, np.zeros(6, np.int64))
    assert attack.queries.dtype == np.int64
    np.testing.assert_array_equal(attack.queries, 1 + random_start + 4 * (10 + 1))
    assert sum(classifier.sizes) == attack.queries.sum()

    classifier = Watched()
    y = classifier.predict(images).argmax(axis=1)
    y[0] = (y[0] + 1) % 4  # misclassified from the start
    classifier.asked.clear()
    attack = SPSA(classifier, early_stop=True, learning_rate=0.03, seed=0, **settings)
    x_adv = attack.generate(images, y)
    assert sum(classifier.sizes) == attack.queries.sum()
    assert attack.queries[0] == 1
    np.testing.assert_array_equal(x_adv[0], images[0])
    assert ((attack.queries[1:] - 1 - random_start) % 11 == 0).all()


def test_early_stop_saves_queries_and_costs_no_success(images):
    classifier = Watched(seed=1)
    y = classifier.predict(images).argmax(axis=1)
    settings = {"eps": 0.3, "max_iter": 10, "nb_samples": 20, "seed": 0, "random_start": False, "verbose": False}
    patient, hasty = SPSA(classifier, early_stop=False, **settings), SPSA(classifier, early_stop=True, **settings)
    fooled = [classifier.predict(each.generate(images, y)).argmax(axis=1) != y for each in (patient, hasty)]
    np.testing.assert_array_equal(*fooled)
    assert fooled[0].sum() >= 3
    assert (hasty.queries[fooled[1]] < patient.queries[fooled[1]]).all()
    np.testing.assert_array_equal(hasty.queries[~fooled[1]], patient.queries[~fooled[1]])


@pytest.mark.parametrize("budget", [2, 3, 7, 64, 200])
def test_memory_budget_is_kept_and_does_not_matter(budget, images):
    classifier, reference = Watched(), Watched()
    settings = {"eps": 0.2, "max_iter": 3, "nb_samples": 20, "early_stop": False, "seed": 4, "verbose": False}
    attack = SPSA(classifier, max_queries_per_forward=budget, **settings)
    x_adv = attack.generate(images, np.zeros(6, np.int64))
    assert max(classifier.sizes) <= budget
    assert max(classifier.sizes) > budget / 2 or budget > 6 * 20
    expected = SPSA(reference, max_queries_per_forward=10_000, **settings).generate(images, np.zeros(6, np.int64))
    assert max(reference.sizes) == 6 * 20
    np.testing.assert_allclose(x_adv, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_result_is_never_worse_than_the_image(name, trained, digits):
    """Even by a step that overshoots by far: the value of the objective, and success, of the best point are kept."""
    classifier = trained["mmc"]
    x, y = digits.x_test[:12], digits.y_test[:12].copy()
    y[:3] = (y[:3] + 1) % 10  # misclassified from the start
    settings = {"eps": 0.05, "learning_rate": 1.0, "delta": 0.3, "max_iter": 3, "nb_samples": 2, "early_stop": False}
    x_adv = SPSA(classifier, objective=name, seed=0, verbose=False, **settings).generate(x, y)
    before, after = (
        OBJECTIVES[name](torch.from_numpy(classifier.predict(each)), torch.from_numpy(y)).numpy() for each in (x, x_adv)
    )
    fell = (classifier.predict(x_adv).argmax(axis=1) != y) & (classifier.predict(x).argmax(axis=1) == y)
    assert (fell | (after >= before)).all()
    assert (classifier.predict(x_adv).argmax(axis=1)[:3] != y[:3]).all()


def test_a_point_that_fools_is_kept_before_one_with_a_larger_objective(images):
    """An objective that leads astray: the random start fools some images, and each step takes them back."""
    classifier = Watched(nb_classes=2)
    y = classifier.predict(images).argmax(axis=1)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, images.shape)
    assert len(set((classifier.predict(images + noise.astype(np.float32)).argmax(axis=1) != y).tolist())) == 2
    classifier.asked.clear()
    settings = {"eps": 0.9, "early_stop": False, "max_iter": 5, "nb_samples": 20, "seed": 2, "verbose": False}
    away = lambda logits, labels: -OBJECTIVES["margin"](logits, labels)  # noqa: E731
    x_adv = SPSA(classifier, objective=away, **settings).generate(images, y)
    iterates = [each for each in classifier.asked if len(each) == 6]
    ever = np.any([classifier.predict(each).argmax(axis=1) != y for each in iterates], axis=0)
    assert 0 < ever.sum() < 6
    np.testing.assert_array_equal(classifier.predict(x_adv).argmax(axis=1) != y, ever)
    assert (classifier.predict(iterates[-1]).argmax(axis=1) != y).sum() < ever.sum()


@pytest.mark.parametrize(
    ("norm", "optimizer", "momentum"),
    [(np.inf, "adam", 0.9), (2, "adam", 0.9), (np.inf, "sign", 0.0), (np.inf, "sign", 0.9), (2, "sign", 0.9)],
)
def test_steps_by_their_formula(norm, optimizer, momentum):
    """Adam's, without a constant in the denominator, and the steepest ones."""
    attack = SPSA(Watched(), norm, 0.5, optimizer=optimizer, momentum=momentum, verbose=False)
    gradients = np.random.default_rng(0).standard_normal((4, 2, *SHAPE)).astype(np.float32)
    moments = np.zeros((2, 2, *SHAPE), np.float32)
    m, v = np.zeros((2, 64)), np.zeros((2, 64))
    for number, gradient in enumerate(gradients, 1):
        step = attack._step(gradient, moments, number).reshape(2, 64)
        g = gradient.reshape(2, 64).astype(np.float64)
        m = momentum * m + (1 - momentum) * g
        v = 0.999 * v + 0.001 * (g**2 if norm == np.inf else (g**2).sum(axis=1, keepdims=True))
        if optimizer == "adam":
            expected = m / (1 - 0.9**number) / np.sqrt(v / (1 - 0.999**number))
        else:
            expected = np.sign(m) if norm == np.inf else m / np.linalg.norm(m, axis=1, keepdims=True)
            np.testing.assert_allclose(np.linalg.norm(step, ord=norm, axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sign"])
def test_the_scale_of_the_logits_does_not_matter_unless_it_is_zero(optimizer, images):
    """Logits a million times smaller get the same attack; a zero estimate is a zero step, not a NaN."""
    results = []
    for scale in (1.0, 2.0**-20, 0.0):
        classifier = Watched(nb_classes=2)
        classifier.weight *= scale
        settings = {"eps": 0.1, "max_iter": 5, "nb_samples": 20, "early_stop": False, "seed": 0, "verbose": False}
        attack = SPSA(classifier, optimizer=optimizer, random_start=False, **settings)
        results.append(attack.generate(images, np.zeros(6, np.int64)))
    np.testing.assert_allclose(*results[:2], atol=1e-5)
    np.testing.assert_array_equal(results[2], images)


# --- noise ----------------------------------------------------------------------------------------------------------


def test_noise_is_gaussian_of_the_stated_deviation_and_clipped_if_asked(digits, trained):
    """Kolmogorov-Smirnov against N(0, sigma) and a chi-squared test of sigma, each at a false alarm of 1e-6."""
    x = digits.x_test[:300]
    plain, clipped = (
        GaussianNoise(trained["sce"], clip=clip, seed=0, verbose=False).generate(x) for clip in (False, True)
    )
    noise = (plain - x).reshape(-1).astype(np.float64)
    assert stats.kstest(noise, stats.norm(0, 0.05).cdf).pvalue > FALSE_ALARM
    low, high = stats.chi2(noise.size).ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2]) / noise.size
    assert low < (noise**2).mean() / 0.05**2 < high
    assert not low < ((0.95 * noise) ** 2).mean() / 0.05**2 < high  # the test has power
    assert np.abs(np.corrcoef(noise.reshape(300, -1)[:20]) - np.eye(20)).max() < 0.7
    assert plain.min() < -0.1
    assert plain.max() > 1.1
    np.testing.assert_array_equal(clipped, plain.clip(0, 1))


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_noise_trials_keep_the_first_that_fools(targeted, images):
    """A transcription from the seed scheme: draws from the image's own stream until one fools; else the nearest."""
    classifier = Watched()
    y = (classifier.predict(images).argmax(axis=1) + targeted) % 4
    attack = GaussianNoise(classifier, sigma=0.15, nb_trials=6, targeted=targeted, seed=6, verbose=False)
    x_adv = attack.generate(images, y)
    outcomes = set()
    for i, x in enumerate(images):
        rng = np.random.default_rng([6, i])
        draws = np.stack([x + np.float32(0.15) * rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(6)])
        logits = classifier.predict(draws)
        fools = (logits.argmax(axis=1) == y[i]) == targeted
        gaps = margins(logits, np.full(6, y[i])) * (-1 if targeted else 1)
        chosen = int(fools.argmax()) if fools.any() else int(gaps.argmax())
        np.testing.assert_allclose(x_adv[i], draws[chosen], rtol=1e-6)
        assert attack.queries[i] == (chosen + 1 if fools.any() else 6)
        outcomes.add("first" if fools[0] else "later" if fools.any() else "never")
    assert {"later", "never"} <= outcomes


@pytest.mark.parametrize("cls", [GaussianNoise, RandomRotation])
def test_one_trial_asks_once_and_returns_the_draw(cls, images):
    classifier = Watched()
    attack = cls(classifier, seed=0, verbose=False)
    attack.generate(images, np.zeros(6, np.int64))
    np.testing.assert_array_equal(attack.queries, 1)
    attack.generate(images)  # the labels are asked for
    np.testing.assert_array_equal(attack.queries, 2)
    assert sum(classifier.sizes) == 6 * 3


# --- rotation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 17.0, -30.0, 90.0, 123.0])
@pytest.mark.parametrize("channels_first", [True, False])
def test_rotation_equals_torch_s(angle, channels_first):
    """Counter-clockwise, the sampling grid clamped to the edge pixels; square images."""
    images = np.random.default_rng(0).uniform(size=(2, 3, 9, 9)).astype(np.float32)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(2, 2, 3)
    grid = torch.nn.functional.affine_grid(matrix, [*images.shape], align_corners=False)
    x = torch.from_numpy(images.astype(np.float64))
    expected = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False).numpy()
    for image, other in zip(images, expected, strict=True):
        given = image if channels_first else image.transpose(1, 2, 0)
        rotated = random_rotation.rotate_image(given, angle, channels_first)
        rotated = rotated if channels_first else rotated.transpose(2, 0, 1)
        np.testing.assert_allclose(rotated, other, atol=1e-5)


def test_interpolations_are_the_named_ones():
    image = np.random.default_rng(0).uniform(size=(1, 9, 9)).astype(np.float32)
    results = {name: random_rotation.rotate_image(image, 20.0, True, name) for name in random_rotation.INTERPOLATIONS}
    assert set(np.unique(results["nearest"])) <= set(np.unique(image))
    assert len({each.tobytes() for each in results.values()}) == 3
    rows, columns = np.mgrid[:9, :9] - 4.0
    angle = np.deg2rad(20.0)
    source = [rows * np.cos(angle) + columns * np.sin(angle) + 4, columns * np.cos(angle) - rows * np.sin(angle) + 4]
    spline = ndimage.map_coordinates(image[0].astype(np.float64), source, order=3, mode="nearest")
    np.testing.assert_allclose(results["cubic"][0], spline, atol=1e-5)


def test_angles_are_uniform_and_the_result_is_clipped(monkeypatch, images):
    angles = []
    genuine = random_rotation.rotate_image

    def note(image: np.ndarray, angle: float, *arguments: Any) -> np.ndarray:
        angles.append(angle)
        return image

    monkeypatch.setattr(random_rotation, "rotate_image", note)
    RandomRotation(Watched(), seed=0, verbose=False).generate(np.zeros((500, *SHAPE)), np.zeros(500, np.int64))
    assert len(angles) == 500
    assert np.abs(angles).max() <= 30
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > FALSE_ALARM
    monkeypatch.setattr(random_rotation, "rotate_image", genuine)
    y = np.zeros(6, np.int64)
    x_adv = RandomRotation(Watched(), interpolation="cubic", seed=0, verbose=False).generate(images, y)
    free = RandomRotation(Watched(clip_values=None), interpolation="cubic", seed=0, verbose=False).generate(images, y)
    assert free.max() > 1
    np.testing.assert_array_equal(x_adv, free.clip(0, 1))
    angle = np.random.default_rng([0, 4]).uniform(-30, 30)
    np.testing.assert_allclose(free[4], genuine(images[4], angle, True, "cubic"), atol=1e-6)


# --- what ART asks of an attack -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("box", "width"), [((0, 1), 1), ((0, 255), 255), ((-1, 1), 2), (None, 1)])
def test_defaults_follow_the_range_of_the_inputs(box, width):
    spsa, noise = SPSA(Watched(clip_values=box)), GaussianNoise(Watched(clip_values=box))
    assert (spsa.eps, spsa.delta, noise.sigma) == pytest.approx((8 / 255 * width, 0.01 * width, 0.05 * width))


TWO = np.zeros((2, *SHAPE), np.float32)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda c: SPSA(c, eps=8), r"in \(0, 1\], inputs being in \[0, 1\], got 8; did you mean 8 / 255\?"),
        (lambda c: SPSA(c, objective="margins"), "Did you mean 'margin'"),
        (lambda c: SPSA(c, optimizer="adamw"), "Did you mean 'adam'"),
        (lambda c: SPSA(c, objective=lambda logits, y: logits.mean()).generate(TWO), "one value a sample"),
        (lambda c: SPSA(c, objective=lambda logits, y: logits[:, 0] * torch.nan).generate(TWO), "infinite .* 2 of 2"),
        (lambda c: SPSA(c, objective=lambda logits, y: logits[:, 0] / 0).generate(TWO + 1), "infinite values for 2"),
        (lambda c: RandomRotation(c).generate(TWO.reshape(2, -1), np.zeros(2, int)), "only images"),
    ],
)
def test_what_one_of_them_refuses(call, match):
    with pytest.raises(ValueError, match=match):
        call(Watched())


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("cls", [SPSA, GaussianNoise])
def test_mask(cls, whole, images):
    """Where the mask is zero the image stays as it is; one mask for all or one for each."""
    mask = np.random.default_rng(0).integers(0, 2, SHAPE if whole else (6, *SHAPE))
    x_adv = cls(Watched(), **QUICK[cls], seed=0, verbose=False).generate(images, np.zeros(6, np.int64), mask=mask)
    moved = x_adv != images
    hidden = np.broadcast_to(mask == 0, images.shape)
    assert not moved[hidden].any()
    assert moved[~hidden].any(axis=0).any()
    if cls is SPSA:
        classifier = Watched()
        SPSA(classifier, **QUICK[SPSA], norm=2, seed=0, verbose=False).generate(images, mask=np.zeros(SHAPE))
        for each in classifier.asked:
            assert (np.isin(each.reshape(len(each), -1)[:, 0], images.reshape(6, -1)[:, 0])).all()


def test_any_classifier_of_art(digits):
    """A logistic regression of scikit-learn's, which knows images as vectors and gives probabilities."""
    x, y = digits.x_train[:300].reshape(300, 64), digits.y_train[:300]
    model = LogisticRegression(max_iter=200).fit(x, y)
    classifier = SklearnClassifier(model, clip_values=(0.0, 1.0))
    right = np.flatnonzero(model.predict(x) == y)[:6]
    x_adv = SPSA(classifier, eps=0.3, max_iter=15, nb_samples=32, seed=0, verbose=False).generate(x[right], y[right])
    assert (model.predict(x_adv) != y[right]).mean() > 0.5
    GaussianNoise(classifier, verbose=False).generate(x[right])
    with pytest.raises(EstimatorError):
        RandomRotation(classifier)
    last = BlackBoxClassifierNeuralNetwork(
        lambda batch: np.eye(4)[np.zeros(len(batch), int)], (8, 8, 1), 4, channels_first=False, clip_values=(0, 1)
    )
    x, y = digits.x_train[:3], np.zeros(3, np.int64)
    expected = RandomRotation(Watched(), seed=0, verbose=False).generate(x, y)
    rotated = RandomRotation(last, seed=0, verbose=False).generate(x.transpose(0, 2, 3, 1), y)
    np.testing.assert_array_equal(rotated[..., 0], expected[:, 0])
