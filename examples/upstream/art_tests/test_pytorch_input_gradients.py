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

from tests.utils import ARTTestException

logger = logging.getLogger(__name__)


def with_batch_norm():
    import torch
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    )
    classifier = PyTorchClassifier(model, torch.nn.CrossEntropyLoss(), (1, 8, 8), 5, device_type="cpu")
    return classifier, np.random.default_rng(0).random((9, 1, 8, 8)).astype(np.float32)


@pytest.mark.only_with_platform("pytorch")
def test_gradients_of_parameters_stay(art_warning):
    try:
        import torch

        classifier, x = with_batch_norm()
        y = np.eye(5, dtype=np.float32)[np.arange(9) % 5]
        for parameter in classifier.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        classifier.loss_gradient(x, y)
        classifier.class_gradient(x)
        classifier.class_gradient(x, label=2)
        classifier.class_gradient(x, label=np.arange(9) % 5)
        for parameter in classifier.model.parameters():
            assert (parameter.grad == 1).all()
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
@pytest.mark.parametrize("training_mode", [False, True])
def test_a_label_a_sample(art_warning, training_mode):
    """The rows of the gradients of all classes, also where batch normalization mixes the samples."""
    try:
        classifier, x = with_batch_norm()
        label = np.arange(9) % 5
        every = classifier.class_gradient(x, training_mode=training_mode)
        assert every.shape == (9, 5, 1, 8, 8)
        one = classifier.class_gradient(x, label=label, training_mode=training_mode)
        np.testing.assert_array_equal(one[:, 0], every[np.arange(9), label])
        two = classifier.class_gradient(x, label=2, training_mode=training_mode)
        np.testing.assert_array_equal(two[:, 0], every[:, 2])
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_loss_gradient_by_differences(art_warning):
    try:
        import torch

        classifier, x = with_batch_norm()
        y = np.eye(5, dtype=np.float32)[np.arange(9) % 5]
        model = classifier.model.double().eval()
        labels = torch.from_numpy(y)

        def loss(values):
            return float(torch.nn.functional.cross_entropy(model(torch.from_numpy(values)), labels))

        inputs = x.astype(np.float64)
        step = np.zeros_like(inputs)
        step[3, 0, 4, 4] = 1e-5
        expected = (loss(inputs + step) - loss(inputs - step)) / 2e-5
        model.float()
        gradient = classifier.loss_gradient(x, y)
        assert gradient.shape == x.shape
        np.testing.assert_allclose(gradient[3, 0, 4, 4], expected, rtol=1e-3)
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_predict_leaves_the_inputs(art_warning):
    """A model that works in place on its input gets a copy; batches of any size give the same."""
    try:
        import torch
        from art.estimators.classification import PyTorchClassifier

        class InPlace(torch.nn.Module):
            def forward(self, x):
                return x.mul_(2.0)

        classifier = PyTorchClassifier(InPlace(), None, (3,), 3, preprocessing=None, device_type="cpu")
        x = np.arange(15, dtype=np.float32).reshape(5, 3)
        for batch_size in (1, 2, 128):
            np.testing.assert_array_equal(classifier.predict(x, batch_size=batch_size), 2 * x)
        np.testing.assert_array_equal(x.ravel(), np.arange(15))
    except ARTTestException as e:
        art_warning(e)
