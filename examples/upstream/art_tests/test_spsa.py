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
from art.attacks.evasion import SPSA
from art.estimators.classification.classifier import ClassifierMixin
from art.estimators.estimator import BaseEstimator

from tests.attacks.utils import backend_test_classifier_type_check_fail
from tests.utils import ARTTestException

logger = logging.getLogger(__name__)

SMALL = {"max_iter": 8, "nb_samples": 64, "seed": 0, "verbose": False}


@pytest.fixture()
def fix_get_mnist_subset(get_mnist_dataset):
    (x_train_mnist, y_train_mnist), (x_test_mnist, y_test_mnist) = get_mnist_dataset
    n_train, n_test = 1000, 100
    yield x_train_mnist[:n_train], y_train_mnist[:n_train], x_test_mnist[:n_test], y_test_mnist[:n_test]


@pytest.mark.only_with_platform("pytorch")
@pytest.mark.parametrize(("norm", "eps"), [(np.inf, 0.3), ("inf", 0.3), (2, 4.0)])
def test_generate(art_warning, fix_get_mnist_subset, image_dl_estimator_for_attack, norm, eps):
    try:
        (_, _, x_test, y_test) = fix_get_mnist_subset
        x, y = x_test[:6].copy(), y_test[:6]
        classifier = image_dl_estimator_for_attack(SPSA, from_logits=True)

        x_adv = SPSA(classifier, norm=norm, eps=eps, **SMALL).generate(x, y)

        before = np.argmax(classifier.predict(x), axis=1) == np.argmax(y, axis=1)
        after = np.argmax(classifier.predict(x_adv), axis=1) == np.argmax(y, axis=1)
        assert after.sum() < before.sum()
        distance = np.linalg.norm((x_adv - x).reshape(6, -1), ord=2 if norm == 2 else np.inf, axis=1)
        assert (distance <= eps * (1 + 1e-5)).all()
        assert x_adv.min() >= 0.0
        assert x_adv.max() <= 1.0
        np.testing.assert_array_equal(x, x_test[:6])
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_generate_targeted_masked(art_warning, fix_get_mnist_subset, image_dl_estimator_for_attack):
    try:
        (_, _, x_test, _) = fix_get_mnist_subset
        x = x_test[:4]
        classifier = image_dl_estimator_for_attack(SPSA, from_logits=True)
        target = (np.argmax(classifier.predict(x), axis=1) + 1) % 10
        mask = np.ones_like(x)
        mask[..., :5] = 0

        x_adv = SPSA(classifier, eps=0.5, targeted=True, **SMALL).generate(x, target, mask=mask)

        rows = np.arange(len(x))
        assert (classifier.predict(x_adv)[rows, target] > classifier.predict(x)[rows, target]).all()
        np.testing.assert_array_equal(x_adv[..., :5], x[..., :5])
        with pytest.raises(ValueError, match="target labels"):
            SPSA(classifier, targeted=True, **SMALL).generate(x)
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_objective_of_arrays(art_warning, fix_get_mnist_subset, image_dl_estimator_for_attack):
    try:
        (_, _, x_test, y_test) = fix_get_mnist_subset
        x, y = x_test[:3], np.argmax(y_test[:3], axis=1)
        classifier = image_dl_estimator_for_attack(SPSA, from_logits=True)

        def objective(predictions, labels):
            others = predictions.copy()
            others[np.arange(len(labels)), labels] = -np.inf
            return others.max(axis=1) - predictions[np.arange(len(labels)), labels]

        by_name = SPSA(classifier, eps=0.3, **SMALL).generate(x, y)
        by_function = SPSA(classifier, eps=0.3, objective=objective, **SMALL).generate(x, y)
        np.testing.assert_array_equal(by_name, by_function)
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
@pytest.mark.parametrize(
    "argument",
    [
        {"norm": 1},
        {"eps": 0.0},
        {"eps": 8},
        {"delta": -0.1},
        {"learning_rate": 0},
        {"max_iter": 0},
        {"nb_samples": 3},
        {"optimizer": "adan"},
        {"momentum": 1.0},
        {"objective": "cross"},
        {"random_start": 1},
        {"max_queries_per_forward": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"verbose": "yes"},
    ],
)
def test_check_params(art_warning, image_dl_estimator_for_attack, argument):
    try:
        classifier = image_dl_estimator_for_attack(SPSA, from_logits=True)
        with pytest.raises(ValueError, match=next(iter(argument))):
            SPSA(classifier, **argument)
    except ARTTestException as e:
        art_warning(e)


def test_classifier_type_check_fail(art_warning):
    try:
        backend_test_classifier_type_check_fail(SPSA, [BaseEstimator, ClassifierMixin])
    except ARTTestException as e:
        art_warning(e)
