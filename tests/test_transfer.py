"""Black box: the transfer matrix and the substitute that knows the answers alone."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, MomentumIterativeMethod, ProjectedGradientDescent

from art_mmc import SoftmaxClassifier, accelerate
from art_mmc.evaluation import (
    AttackError,
    AttackPlan,
    TransferMatrix,
    distilled_substitute,
    seeded,
    transfer_matrix,
)
from art_mmc.evaluation.engine import Target
from tests.conftest import left_alone
from tests.planted import Hidden, adversarially_trained, around, digits, evaluated, plain, undefended

ATTACKS = {
    "FGSM": lambda classifier: FastGradientMethod(classifier, eps=0.1),
    "PGD": lambda classifier: ProjectedGradientDescent(
        classifier, eps=0.1, eps_step=0.03, max_iter=5, num_random_init=1, verbose=False
    ),
}


@pytest.fixture(scope="module")
def classifiers():
    return {
        "plain": plain(undefended().model),
        "margin": undefended().with_objective("margin"),
        "at": adversarially_trained(),
    }


@pytest.fixture(scope="module")
def matrix(classifiers) -> TransferMatrix:
    return transfer_matrix(classifiers, *digits()[2:], ATTACKS, seed=5)


def test_the_diagonal_is_the_white_box_attack(classifiers, matrix):
    _, _, x, y = digits()
    for attack, build in ATTACKS.items():
        for name, classifier in classifiers.items():
            with seeded(5):
                x_adv = build(classifier).generate(x.copy(), y=y)
            for other, judge in classifiers.items():
                right = (judge.predict(x_adv).argmax(axis=1) == y).mean()
                assert matrix.accuracy(attack, name, other) == right
    assert matrix.clean.tolist() == [int((each.predict(x).argmax(axis=1) == y).sum()) for each in classifiers.values()]
    # the same network in two classes; the attack on another one does less
    assert matrix.accuracy("PGD", "margin", "plain") == matrix.accuracy("PGD", "margin", "margin")
    assert matrix.accuracy("PGD", "at", "plain") > matrix.accuracy("PGD", "plain", "plain")


def test_names_and_json(matrix):
    text = json.dumps(matrix.to_dict(), allow_nan=False)
    again = TransferMatrix.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    assert again.accuracy("FGSM", "at", "plain") == matrix.accuracy("FGSM", "at", "plain")
    data = matrix.to_dict()
    assert np.shape(data["correct"]) == (2, 3, 3)
    low, high = data["interval"][0][0][1]
    assert low < data["correct"][0][0][1] / data["n"] < high
    with pytest.raises(ValueError, match="unknown attack 'PGF'. Known: FGSM, PGD"):
        matrix.accuracy("PGF", "at", "plain")
    with pytest.raises(ValueError, match="unknown substitute 'plane'. Did you mean 'plain'"):
        matrix.accuracy("PGD", "plane", "at")
    with pytest.raises(ValueError, match="unknown target"):
        matrix.accuracy("PGD", "plain", "none")


def test_the_seed_decides_and_the_world_is_left_as_it_was(classifiers, matrix):
    _, _, x, y = digits()
    network = classifiers["plain"].model
    network.train()
    try:
        with left_alone(network):
            again, other = (transfer_matrix(classifiers, x, np.eye(10)[y], ATTACKS, seed=seed) for seed in (5, 6))
    finally:
        network.eval()
    np.testing.assert_array_equal(again.correct, matrix.correct)
    np.testing.assert_array_equal(other.correct[0], matrix.correct[0])  # FGSM has no random part
    assert (other.correct[1] != matrix.correct[1]).any()


def test_attacks_that_misbehave(classifiers):
    class Crashes(FastGradientMethod):
        def generate(self, x, y=None, **kwargs):
            raise IndexError("planted")

    class Diverges(FastGradientMethod):
        def generate(self, x, y=None, **kwargs):
            return x * np.nan

    for attack, message in ((Crashes, "failed: IndexError: planted"), (Diverges, "gave NaN")):
        with pytest.raises(AttackError, match=f"attack 'bad' on 'plain' {message}"):
            transfer_matrix(classifiers, *digits()[2:], {"bad": lambda classifier, attack=attack: attack(classifier)})


@pytest.mark.parametrize("kind", ["ART's", "ours"])
def test_gradients_that_are_no_numbers_are_no_robustness(kind):
    """ART puts zeros in their place, and stands still."""
    blind = around(before=lambda x: Hidden.apply(x, math.nan))
    blind = blind if kind == "ART's" else accelerate(blind)
    with pytest.raises(AttackError, match="attack 'PGD' on 'blind' failed: FloatingPointError: a gradient is NaN"):
        transfer_matrix({"blind": blind}, *digits()[2:], {"PGD": ATTACKS["PGD"]})


@pytest.fixture(scope="module")
def substitute():
    return distilled_substitute(Target(undefended(), digits()[2]), digits()[2], 0.1, seed=2)


def test_a_substitute_learns_the_answers(substitute):
    """On new images it agrees with the target, and what is crafted on it fells the target."""
    x_train, _, x, y = digits()
    agrees = substitute.predict(x_train[:300]).argmax(axis=1) == undefended().predict(x_train[:300]).argmax(axis=1)
    assert agrees.mean() > 0.8
    plan = AttackPlan("transfer", "mim", "adaptive", 0.2, steps=10, step_size=0.05, transfer=True)
    found = evaluated([plan], substitutes=[substitute])
    by_hand = MomentumIterativeMethod(
        substitute.with_objective("adaptive"), eps=0.2, eps_step=0.05, max_iter=10, batch_size=100, verbose=False
    )
    x_adv = by_hand.generate(x[found.clean.standing], y[found.clean.standing])
    right = undefended().predict(x_adv).argmax(axis=1) == y[found.clean.standing]
    np.testing.assert_array_equal(found.attacks[0].standing[found.clean.standing], right)
    assert found.attacks[0].correct < found.clean.correct - 20
    assert found.attacks[0].black_box


def test_a_substitute_is_the_same_by_its_seed_and_leaves_the_world(monkeypatch):
    monkeypatch.setattr("art_mmc.evaluation.transfer._STEPS", 20)

    def made(seed: int, state: int) -> torch.Tensor:
        np.random.seed(state)
        torch.manual_seed(state)
        with left_alone():
            found = distilled_substitute(Target(undefended(), digits()[2]), digits()[2], 0.1, seed=seed)
        return torch.nn.utils.parameters_to_vector(found.model.parameters())

    assert torch.equal(made(2, 0), made(2, 77))
    assert not torch.equal(made(2, 0), made(3, 0))


@pytest.mark.thorough
def test_a_substitute_asks_for_answers_alone():
    """The gradients of a network that has none are no hindrance."""
    target = Target(around(before=lambda x: x.detach()), digits()[2])
    assert target.cut
    plan = AttackPlan("transfer", "mim", "adaptive", 0.2, steps=10, step_size=0.05, transfer=True)
    found = evaluated([plan], target.classifier)
    assert found.attacks[0].correct < found.clean.correct - 20


@pytest.mark.parametrize(("shape", "backbone"), [((1, 16, 16), "cnn"), ((3, 8, 8), "cnn"), ((1, 20, 20), "cnn3")])
def test_the_substitute_s_network(shape, backbone, monkeypatch):
    monkeypatch.setattr("art_mmc.evaluation.transfer._STEPS", 2)
    size = int(np.prod(shape))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, 4))
    classifier = plain(model, input_shape=shape, nb_classes=4, clip_values=(-1.0, 1.0))
    x = np.random.default_rng(0).uniform(-1, 1, (70, *shape)).astype(np.float32)
    found = distilled_substitute(Target(classifier, x), x, 0.1)
    assert found.model.backbone.recipe["name"] == backbone
    assert found.nb_classes == 4
    assert tuple(found.clip_values) == (-1.0, 1.0)


def test_a_substitute_is_trained_in_batches_no_larger_than_asked(monkeypatch):
    sizes, target = [], Target(undefended(), digits()[2])  # trained before its class is spied on
    monkeypatch.setattr(
        SoftmaxClassifier, "fit", lambda *_, batch_size, nb_epochs: sizes.append((batch_size, nb_epochs))
    )
    for batch_size in (8, 256):
        distilled_substitute(target, digits()[2], 0.1, batch_size=batch_size)
    assert sizes == [(8, 12), (64, 96)]  # 300 steps over 100 images and their noisy copies
