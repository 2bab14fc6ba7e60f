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
import pickle

import numpy as np
import pytest
from art.attacks.evasion import FastGradientMethod

from tests.utils import ARTTestException

logger = logging.getLogger(__name__)


@pytest.fixture()
def fix_get_mnist_subset(get_mnist_dataset):
    (x_train_mnist, y_train_mnist), (x_test_mnist, y_test_mnist) = get_mnist_dataset
    n_train, n_test = 1000, 100
    yield x_train_mnist[:n_train], y_train_mnist[:n_train], x_test_mnist[:n_test], y_test_mnist[:n_test]


def detectors(classifier):
    from art.defences.detector.evasion import ConfidenceDetector, KernelDensityDetector, NonMaximalEntropyDetector

    layer = classifier.layer_names[-2]
    return [
        KernelDensityDetector(classifier, layer=layer),
        ConfidenceDetector(classifier),
        NonMaximalEntropyDetector(classifier),
    ]


@pytest.mark.only_with_platform("pytorch")
def test_detect(art_warning, fix_get_mnist_subset, image_dl_estimator):
    try:
        (x_train, y_train, x_test, y_test) = fix_get_mnist_subset
        classifier, _ = image_dl_estimator(from_logits=True)
        x_adv = FastGradientMethod(classifier, eps=0.2).generate(x_test, y_test)
        for detector in detectors(classifier):
            with pytest.raises(ValueError, match="fitted"):
                detector.detect(x_test)
            detector.fit(x_train, y_train)
            report, clean = detector.detect(x_test)
            _, adversarial = detector.detect(x_adv)
            assert set(report) == {"scores", "threshold", "predictions"}
            np.testing.assert_array_equal(clean, report["scores"] > report["threshold"])
            assert (~clean).sum() > 0
            assert adversarial.sum() > 0
            np.testing.assert_array_equal(detector.scores(x_test), report["scores"])
            fitted = {name: value for name, value in vars(detector).items() if name != "classifier"}
            assert pickle.loads(pickle.dumps(fitted)).keys() == fitted.keys()
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_scores_by_hand(art_warning, fix_get_mnist_subset, image_dl_estimator):
    """Confidence and non-maximal entropy from the softmax, the density from all distances, in float64."""
    try:
        from art.defences.detector.evasion import KernelDensityDetector

        (x_train, y_train, x_test, _) = fix_get_mnist_subset
        classifier, _ = image_dl_estimator(from_logits=True)
        _, confidence, entropy = detectors(classifier)
        density = KernelDensityDetector(classifier, layer=classifier.layer_names[-2], bandwidth=10.0)
        for detector in (density, confidence, entropy):
            detector.fit(x_train, y_train, x_calibration=x_test)
        logits = classifier.predict(x_test[:5]).astype(np.float64)
        f = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(confidence.scores(x_test[:5]), np.log(1 - f.max(axis=1)), rtol=1e-3)
        z = classifier.get_activations(x_train, classifier.layer_names[-2]).reshape(len(x_train), -1).astype(np.float64)
        v = classifier.get_activations(x_test[:5], classifier.layer_names[-2]).reshape(5, -1).astype(np.float64)
        for i in range(5):
            q = np.delete(f[i], f[i].argmax())
            q /= q.sum()
            np.testing.assert_allclose(entropy.scores(x_test[:5])[i], (q * np.log(q)).sum(), rtol=1e-3)
            of_class = z[np.argmax(y_train, axis=1) == logits[i].argmax()]
            values = -((of_class - v[i]) ** 2).sum(axis=1) / 10.0
            expected = -np.log(np.exp(values).mean())
            np.testing.assert_allclose(density.scores(x_test[:5])[i], expected, rtol=1e-4)
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_check_params(art_warning, image_dl_estimator):
    try:
        from art.defences.detector.evasion import KernelDensityDetector

        classifier, _ = image_dl_estimator(from_logits=True)
        for name, arguments in (
            ("layer", {}),
            ("bandwidth", {"layer": 0, "bandwidth": -1.0}),
            ("false_positive_rate", {"layer": 0, "false_positive_rate": 2.0}),
        ):
            with pytest.raises(ValueError, match=name):
                KernelDensityDetector(classifier, **arguments)
        with pytest.raises(TypeError):
            KernelDensityDetector("a classifier", layer=0)
    except ARTTestException as e:
        art_warning(e)
