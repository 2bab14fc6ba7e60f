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
from art.attacks.evasion import (
    AutoAttack,
    AutoConjugateGradient,
    AutoProjectedGradientDescent,
    DeepFool,
    ProjectedGradientDescent,
    RescalingAutoConjugateGradient,
)

from tests.utils import ARTTestException

logger = logging.getLogger(__name__)


@pytest.fixture()
def fix_get_mnist_subset(get_mnist_dataset):
    (x_train_mnist, y_train_mnist), (x_test_mnist, y_test_mnist) = get_mnist_dataset
    n_train, n_test = 1000, 100
    yield x_train_mnist[:n_train], y_train_mnist[:n_train], x_test_mnist[:n_test], y_test_mnist[:n_test]


@pytest.mark.only_with_platform("pytorch")
@pytest.mark.parametrize(
    "attack", [AutoProjectedGradientDescent, AutoConjugateGradient, RescalingAutoConjugateGradient]
)
def test_difference_logits_ratio(art_warning, image_dl_estimator, attack):
    """By the formula, sample by sample; where the three largest logits are equal it and its gradient are finite."""
    try:
        import torch

        classifier, _ = image_dl_estimator(from_logits=True)
        loss = attack(classifier, loss_type="difference_logits_ratio", verbose=False).estimator.loss
        logits = np.random.default_rng(0).normal(size=(6, 10))
        logits[5] = 1.0
        y = np.eye(10)[[0, 1, 2, 3, int(logits[4].argmax()), 7]]
        tensor = torch.tensor(logits, requires_grad=True)
        loss.reduction = "none"
        values = loss(tensor, torch.tensor(y))
        for i in range(5):
            true = logits[i, y[i].argmax()]
            other = np.delete(logits[i], y[i].argmax()).max()
            ordered = np.sort(logits[i])
            np.testing.assert_allclose(values[i].item(), -(true - other) / (ordered[-1] - ordered[-3]), rtol=1e-6)
        assert values[5].item() == 0.0
        (gradient,) = torch.autograd.grad(values.sum(), tensor)
        assert torch.isfinite(gradient).all()
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_a_failing_attack_is_no_robustness(art_warning, fix_get_mnist_subset, image_dl_estimator, monkeypatch):
    try:
        (_, _, x_test, y_test) = fix_get_mnist_subset
        classifier, _ = image_dl_estimator(from_logits=True)
        attack = ProjectedGradientDescent(classifier, eps=0.01, eps_step=0.01, max_iter=1, verbose=False)
        generate = attack.generate

        def failing(x, y, **kwargs):
            if attack.targeted:
                raise ValueError("out of luck")
            return generate(x, y, **kwargs)

        monkeypatch.setattr(attack, "generate", failing)
        ensemble = AutoAttack(classifier, eps=0.01, attacks=[attack], targeted=True)
        with pytest.raises(ValueError, match="out of luck"):
            ensemble.generate(x_test[:4], y_test[:4])
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
def test_an_attack_without_targets_is_left_out(art_warning, fix_get_mnist_subset, image_dl_estimator):
    try:
        (_, _, x_test, y_test) = fix_get_mnist_subset
        classifier, _ = image_dl_estimator(from_logits=True)
        attack = DeepFool(classifier, max_iter=1, verbose=False)
        ensemble = AutoAttack(classifier, eps=0.01, attacks=[attack], targeted=True)
        assert ensemble.generate(x_test[:2], y_test[:2]).shape == x_test[:2].shape
    except ARTTestException as e:
        art_warning(e)


@pytest.mark.only_with_platform("pytorch")
@pytest.mark.parametrize("one_hot", [False, True])
def test_trades_on_a_sequential_model(art_warning, fix_get_mnist_subset, one_hot):
    """The last of the outputs is the model's, labels may be rows, and the schedulers of today's PyTorch are taken."""
    try:
        import torch
        from art.defences.trainer import AdversarialTrainerTRADESPyTorch
        from art.estimators.classification import PyTorchClassifier

        class Loss(torch.nn.MSELoss):
            def forward(self, input, target):
                return super().forward(input, target.float())

        (x_train, y_train, _, _) = fix_get_mnist_subset
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = Loss() if one_hot else torch.nn.CrossEntropyLoss()
        classifier = PyTorchClassifier(model, loss, (1, 28, 28), 10, optimizer, clip_values=(0, 1), device_type="cpu")
        attack = ProjectedGradientDescent(classifier, eps=0.05, eps_step=0.05, max_iter=1, verbose=False)
        trainer = AdversarialTrainerTRADESPyTorch(classifier, attack, beta=1.0)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        trainer.fit(x_train[:50], y_train[:50], batch_size=25, nb_epochs=2, scheduler=scheduler)
        assert optimizer.param_groups[0]["lr"] == 0.025
    except ARTTestException as e:
        art_warning(e)
