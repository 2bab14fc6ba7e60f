# MIT License
#
# Copyright (C) The Adversarial Robustness Toolbox (ART) Authors 2026
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
# documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
# rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
# persons to whom the Software is furnished to do so, subject to the following conditions:
#
# The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
# Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
# WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
# AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
# TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
# SOFTWARE.
import logging

import numpy as np
import pytest
from art.attacks.evasion import AutoAttackStandard, AutoPGD, FastAdaptiveBoundary, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier

from tests.attacks.utils import backend_test_classifier_type_check_fail
from tests.utils import ARTTestException

logger = logging.getLogger(__name__)


@pytest.fixture()
def fix_get_mnist_subset(get_mnist_dataset):
    (x_train_mnist, y_train_mnist), (x_test_mnist, y_test_mnist) = get_mnist_dataset
    n_train, n_test = 1000, 100
    yield x_train_mnist[:n_train], y_train_mnist[:n_train], x_test_mnist[:n_test], y_test_mnist[:n_test]


def correct(classifier, x, y):
    return np.argmax(classifier.predict(x), axis=1) == np.argmax(y, axis=1)


@pytest.mark.only_with_platform("pytorch")
def test_generate_auto_attack(art_warning, fix_get_mnist_subset, image_dl_estimator_for_attack):
    try:
        (_, _, x_test, y_test) = fix_get_mnist_subset
        x, y = x_test[:8].copy(), y_test[:8]
        classifier = image_dl_estimator_for_attack(AutoAttackStandard, from_logits=True)

        attack = AutoAttackStandard(classifier, eps=0.3, seed=0, verbose=False)
        x_adv = attack.generate(x, y)

        assert np.abs(x_adv - x).max() <= 0.3 + 1e-6
        assert list(attack.robust_accuracy) == ["clean", "APGD-CE", "APGD-T", "FAB-T", "Square"]
        left = list(attack.robust_accuracy.values())
        assert left == sorted(left, reverse=True)
        assert correct(classifier, x_adv, y).mean() == left[-1]
        pgd = ProjectedGradientDescent(classifier, eps=0.3, eps_step=0.05, max_iter=10, verbose=False).generate(x, y)
        assert left[-1] <= correct(classifier, pgd, y).mean()
        np.testing.assert_array_equal(x, x_test[:8])
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_a_failing_attack_is_no_robustness(
    art_warning, fix_get_mnist_subset, image_dl_estimator_for_attack, monkeypatch
):
    try:
        (_, _, x_test, y_test) = fix_get_mnist_subset
        classifier = image_dl_estimator_for_attack(AutoAttackStandard, from_logits=True)
        monkeypatch.setattr(AutoPGD, "generate", lambda self, x, y: 1 / 0)
        with pytest.raises(RuntimeError, match="APGD-CE failed: ZeroDivisionError"):
            AutoAttackStandard(classifier, verbose=False).generate(x_test[:4], y_test[:4])
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
@pytest.mark.parametrize("norm", [np.inf, 2])
def test_generate_fab(art_warning, fix_get_mnist_subset, image_dl_estimator_for_attack, norm):
    """The nearest example: inside the ball a hair larger than its distance, outside one a hair smaller."""
    try:
        (_, _, x_test, y_test) = fix_get_mnist_subset
        classifier = image_dl_estimator_for_attack(FastAdaptiveBoundary, from_logits=True)
        right = correct(classifier, x_test, y_test)
        x, y = x_test[right][:3], y_test[right][:3]
        common = {"norm": norm, "max_iter": 15, "nb_targets": 3, "seed": 0, "verbose": False}

        x_adv = FastAdaptiveBoundary(classifier, **common).generate(x, y)

        assert not correct(classifier, x_adv, y).any()
        distance = np.linalg.norm((x_adv - x).reshape(3, -1), ord=norm, axis=1)
        eps = float(distance.max()) * 1.001
        inside = FastAdaptiveBoundary(classifier, eps=eps, **common).generate(x, y)
        assert not correct(classifier, inside, y).any()
        wide = FastAdaptiveBoundary(classifier, eps=float(distance.min()) / 2, **common).generate(x, y)
        moved = np.linalg.norm((wide - x).reshape(3, -1), ord=norm, axis=1)
        assert (moved <= distance.min() / 2).all()
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
@pytest.mark.parametrize("arguments", [{"objective": "dlr"}, {"objective": "dlr", "nb_targets": 4}, {"norm": 2}])
def test_generate_auto_pgd(art_warning, fix_get_mnist_subset, image_dl_estimator_for_attack, arguments):
    try:
        (_, _, x_test, y_test) = fix_get_mnist_subset
        x, y = x_test[:6], y_test[:6]
        classifier = image_dl_estimator_for_attack(AutoPGD, from_logits=True)
        eps = 4.0 if arguments.get("norm") == 2 else 0.3

        x_adv = AutoPGD(classifier, eps=eps, max_iter=20, seed=0, verbose=False, **arguments).generate(x, y)

        assert correct(classifier, x_adv, y).sum() < correct(classifier, x, y).sum()
        distance = np.linalg.norm((x_adv - x).reshape(6, -1), ord=arguments.get("norm", np.inf), axis=1)
        assert (distance <= eps * (1 + 1e-5)).all()
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_check_params(art_warning, image_dl_estimator_for_attack):
    try:
        classifier = image_dl_estimator_for_attack(AutoPGD, from_logits=True)
        for attack, name, arguments in [
            (AutoPGD, "eps", {"eps": 8}),
            (AutoPGD, "objective", {"objective": "dlp"}),
            (AutoPGD, "nb_targets", {"targeted": True, "nb_targets": 2}),
            (AutoPGD, "norm", {"norm": 1}),
            (FastAdaptiveBoundary, "alpha_max", {"alpha_max": 2.0}),
            (FastAdaptiveBoundary, "early_stop", {"early_stop": True}),
            (AutoAttackStandard, "batch_size", {"batch_size": 0}),
            (AutoAttackStandard, "verbose", {"verbose": 1}),
        ]:
            with pytest.raises(ValueError, match=name):
                attack(classifier, **arguments)
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.parametrize("attack", [AutoAttackStandard, AutoPGD, FastAdaptiveBoundary])
def test_classifier_type_check_fail(art_warning, attack):
    try:
        backend_test_classifier_type_check_fail(attack, [PyTorchClassifier])
    except ARTTestException as e:
        art_warning(e)
