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
from art.attacks.evasion import FastGradientMethod

from tests.utils import ARTTestException

logger = logging.getLogger(__name__)


@pytest.fixture()
def fix_get_mnist_subset(get_mnist_dataset):
    (x_train_mnist, y_train_mnist), (x_test_mnist, y_test_mnist) = get_mnist_dataset
    n_train, n_test = 1000, 100
    yield x_train_mnist[:n_train], y_train_mnist[:n_train], x_test_mnist[:n_test], y_test_mnist[:n_test]


def make(**kwargs):
    import torch
    from art.estimators.classification import MaxMahalanobisClassifier

    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 64), torch.nn.ReLU())
    optimizer = torch.optim.Adam(backbone.parameters(), lr=0.002)
    return MaxMahalanobisClassifier(
        backbone, None, (1, 28, 28), 10, optimizer, clip_values=(0, 1), device_type="cpu", embedding_dim=32, **kwargs
    )


@pytest.mark.only_with_platform("pytorch")
def test_centers(art_warning):
    """Norm as asked, and any two of ten at the largest angle that ten points can all have, cos = -1/9."""
    try:
        centers = make(scale=5.0).model.head.centers.numpy().astype(np.float64)
        inner = centers @ centers.T / 25
        np.testing.assert_allclose(inner, np.where(np.eye(10) == 1, 1, -1 / 9), atol=1e-6)
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_loss_is_the_squared_distance(art_warning, fix_get_mnist_subset):
    try:
        (x_train, y_train, _, _) = fix_get_mnist_subset
        classifier = make()
        x, y = x_train[:8], y_train[:8]
        z = classifier.get_activations(x, "embedding", batch_size=8).astype(np.float64)
        centers = classifier.model.head.centers.numpy().astype(np.float64)
        expected = ((z - centers[np.argmax(y, axis=1)]) ** 2).sum(axis=1)
        for labels in (y, np.argmax(y, axis=1)):
            loss = classifier.compute_loss(x, labels, reduction="none")
            np.testing.assert_allclose(loss, expected, rtol=1e-4)
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
@pytest.mark.parametrize("adversarial", [False, True])
def test_fit(art_warning, fix_get_mnist_subset, adversarial):
    try:
        from art.defences.trainer import MaxMahalanobisTrainer

        (x_train, y_train, x_test, y_test) = fix_get_mnist_subset
        classifier = make()
        attack = FastGradientMethod(classifier, eps=0.05) if adversarial else None
        trainer = MaxMahalanobisTrainer(classifier, attack)
        centers = classifier.model.head.centers.clone()
        trainer.fit(x_train, y_train, validation_data=(x_test, y_test), batch_size=50, nb_epochs=4)

        accuracy = (np.argmax(classifier.predict(x_test), axis=1) == np.argmax(y_test, axis=1)).mean()
        assert accuracy > 0.7
        assert (classifier.model.head.centers == centers).all()
        clone = classifier.clone_for_refitting()
        assert (clone.model.head.centers == centers).all()
        assert clone.predict(x_test[:2]).shape == (2, 10)
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_check_params(art_warning, fix_get_mnist_subset):
    try:
        from art.defences.trainer import MaxMahalanobisTrainer

        (x_train, y_train, _, _) = fix_get_mnist_subset
        with pytest.raises(ValueError, match="PyTorchClassifier"):
            MaxMahalanobisTrainer(None)
        with pytest.raises(ValueError, match="scheduler"):
            MaxMahalanobisTrainer(make()).fit(x_train, y_train, scheduler="cosine")
        with pytest.raises(ValueError, match="scale"):
            make(scale=-1.0)
    except ARTTestException as e:
        art_warning(e)
