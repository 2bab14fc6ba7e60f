"""
The L2 attack of Carlini and Wagner by Adam, against its algorithm written out with autograd, against the closed form of
a linear classifier; SPSA as other libraries run it.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from art.attacks.evasion import ElasticNet
from art.estimators.classification import PyTorchClassifier

from art_mmc import SPSA, CarliniL2
from art_mmc.attacks import spsa
from art_mmc.attacks.detector_aware import DensityAwareCarliniL2
from art_mmc.objectives import margin
from tests.conftest import norms
from tests.planted import digits, linear, undefended
from tests.test_attack_manners import make


def correct(n: int) -> tuple[PyTorchClassifier, np.ndarray, np.ndarray]:
    _, _, x, y = digits()
    right = np.flatnonzero(undefended().predict(x).argmax(axis=1) == y)[:n]
    return undefended(), x[right], y[right]


def written_out(network, x, y, targeted, confidence, rate, rounds, steps, const):
    """The algorithm of the authors' code, image by image, with its loss and its loops; float64."""
    network = copy.deepcopy(network).double().eval()
    results = []
    for image, label in zip(torch.tensor(x).double(), y, strict=True):
        c, low, high, best = const, 0.0, math.inf, (math.inf, image)
        origin = ((2 * image - 1) * 0.999999).atanh()
        for _ in range(rounds):
            w = origin.clone().requires_grad_(True)
            optimizer = torch.optim.Adam([w], lr=rate)
            success = False
            for _ in range(steps):
                x_adv = (w.tanh() / 0.999999 + 1) / 2
                logits = network(x_adv[None])[0]
                other = max(logits[k] for k in range(len(logits)) if k != label)
                gap = other - logits[label] if targeted else logits[label] - other
                distance = (x_adv - image).square().sum()
                if gap <= -confidence and gap < 0:
                    success = True
                    if distance < best[0]:
                        best = (float(distance.detach()), x_adv.detach())
                optimizer.zero_grad()
                (distance + c * (gap + confidence).clamp_min(0)).backward()
                optimizer.step()
            low, high = (low, min(high, c)) if success else (max(low, c), high)
            c = (low + high) / 2 if high < math.inf else 10 * c
        results.append(best[1].numpy())
    return np.stack(results)


@pytest.mark.parametrize(("targeted", "confidence"), [(False, 0.0), (True, 0.0), (False, 0.5)])
def test_against_the_algorithm_written_out(targeted, confidence):
    classifier, x, y = correct(2)
    aims = (y + 3) % 10 if targeted else y
    settings = {"learning_rate": 0.1, "binary_search_steps": 3, "max_iter": 20, "initial_const": 0.3}
    attack = CarliniL2(classifier, confidence, targeted, **settings, batch_size=2, verbose=False)
    got = attack.generate(x, aims)
    want = written_out(classifier.model, x, aims, targeted, confidence, 0.1, 3, 20, 0.3)
    assert (np.abs(got - x).max(axis=(1, 2, 3)) > 1e-2).any()
    np.testing.assert_allclose(got, want, atol=1e-4)


NO_DETECTOR = {"initial_const": 1.0, "start_binary_search_steps": 0, "eta": 1e9}


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (CarliniL2, {"learning_rate": 0.02}),
        (CarliniL2, {"learning_rate": 0.05, "optimizer": "fista"}),
        (DensityAwareCarliniL2, {"learning_rate": 0.02, **NO_DETECTOR}),
        (DensityAwareCarliniL2, {"learning_rate": 0.05, "optimizer": "fista", **NO_DETECTOR}),
    ],
)
def test_nearest_example_of_a_linear_classifier(cls, settings):
    """
    Two classes, and no border near: the nearest example with a lead of 1 lies (gap + 1) / ||w_1 - w_0|| away, where a
    detector, if there is one, never objects.
    """
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 64)).astype(np.float32)
    x = rng.uniform(0.45, 0.55, (5, 1, 8, 8)).astype(np.float32)
    classifier = linear(weight)
    logits = classifier.predict(x)
    attack = make(cls, classifier, confidence=1.0, binary_search_steps=7, max_iter=80, **settings)
    want = (np.abs(logits[:, 0] - logits[:, 1]) + 1) / np.linalg.norm(weight[1] - weight[0])
    got = norms(attack.generate(x, logits.argmin(axis=1) if attack.targeted else None) - x, 2)
    assert (got >= want * (1 - 1e-4)).all()
    np.testing.assert_allclose(got, want, rtol=0.02)


def test_short_steps_fail_where_long_ones_and_fista_succeed():
    """On images that are black and white: what the PC paper's row counts is how far Adam gets, not robustness."""
    classifier, x, y = correct(8)
    x = np.round(x)
    y = classifier.predict(x).argmax(axis=1)

    def left(attack) -> float:
        return float(np.mean(classifier.predict(attack.generate(x, y)).argmax(axis=1) == y))

    few = {"binary_search_steps": 2, "initial_const": 1e3, "verbose": False}
    assert left(CarliniL2(classifier, learning_rate=0.001, max_iter=100, **few)) == 1
    assert left(CarliniL2(classifier, learning_rate=0.1, max_iter=100, **few)) == 0
    assert left(CarliniL2(classifier, learning_rate=0.001, max_iter=20, optimizer="fista", **few)) == 0
    assert left(ElasticNet(classifier, learning_rate=0.001, max_iter=20, beta=0.0, decision_rule="L2", **few)) == 0


def test_an_attack_that_fails_gives_back_its_input_and_a_misclassified_image_stays():
    classifier, x, y = correct(3)
    attack = CarliniL2(classifier, confidence=1e6, binary_search_steps=1, max_iter=3, verbose=False)
    np.testing.assert_array_equal(attack.generate(x, y), x)
    attack = CarliniL2(classifier, binary_search_steps=1, max_iter=3, verbose=False)
    np.testing.assert_allclose(attack.generate(x, (y + 1) % 10), x, atol=1e-6)


def test_spsa_of_a_library_is_adam_from_the_image_with_the_last_point(monkeypatch):
    """With the exact gradient for the estimate its path is that of torch's Adam on the perturbation, clamped."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 64)).astype(np.float32)
    classifier = linear(weight)
    x = rng.uniform(0, 1, (3, 1, 8, 8)).astype(np.float32)
    x[:, :, :2] = 0
    y = classifier.predict(x).argmax(axis=1)
    direction = torch.tensor(weight[1 - y] - weight[y]).view(-1, 1, 8, 8)
    direction = direction * torch.linspace(-1, 1, 8)  # it changes its sign, as an estimate does
    asked = []

    def exact(function, x, generators, nb_samples, delta, low, high, mask, max_queries):
        asked.append((nb_samples, delta, low, high))
        return (direction.numpy() * (1 if len(asked) < 4 else -1)).astype(np.float32)

    monkeypatch.setattr(spsa, "spsa_gradient", exact)
    settings = {"early_stop": False, "return_best": False, "clip_samples": False, "random_start": False}
    attack = SPSA(classifier, eps=0.3, learning_rate=0.01, max_iter=10, nb_samples=256, **settings, verbose=False)
    got = attack.generate(x, y)
    clean = torch.tensor(x)
    moved = torch.zeros_like(clean)
    optimizer = torch.optim.Adam([moved], lr=0.01)
    for step in range(10):
        moved.grad = -direction * (1 if step < 3 else -1)
        optimizer.step()
        moved.data = (clean + moved.clamp(-0.3, 0.3)).clamp(0, 1) - clean
    np.testing.assert_allclose(got, (clean + moved).numpy(), atol=1e-5)
    assert asked == [(256, 0.01, -np.inf, np.inf)] * 10
    values = margin(torch.tensor(classifier.predict(got)), torch.as_tensor(y)).numpy()
    attack.set_params(return_best=True)
    asked.clear()
    best = margin(torch.tensor(classifier.predict(attack.generate(x, y))), torch.as_tensor(y)).numpy()
    assert (best >= values).all()
    assert (best > values).any()
