"""Fixtures of ART's names for a copy of the installed ART, which has no tests; digits stand in for MNIST."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_digits


@pytest.fixture
def framework():
    return "pytorch"


@pytest.fixture
def art_warning():
    def raised(exception):
        raise exception

    return raised


@pytest.fixture(scope="session")
def digits():
    data = load_digits()
    x = np.pad(np.kron(data.images / 16, np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2)))[:, None].astype(np.float32)
    return x, np.eye(10, dtype=np.float32)[data.target]


@pytest.fixture
def get_mnist_dataset(digits):
    x, y = digits
    return (x[:1000].copy(), y[:1000].copy()), (x[1000:1100].copy(), y[1000:1100].copy())


@pytest.fixture(scope="session")
def trained(digits):
    x, y = (torch.from_numpy(each) for each in digits)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[:1000]), y[:1000]).backward()
        optimizer.step()
    return model


@pytest.fixture
def image_dl_estimator(trained):
    def make(from_logits=True, **kwargs):
        optimizer = torch.optim.Adam(trained.parameters(), 0.01)
        loss = torch.nn.CrossEntropyLoss()
        classifier = PyTorchClassifier(
            trained, loss, (1, 28, 28), 10, optimizer, clip_values=(0, 1), device_type="cpu", **kwargs
        )
        return classifier, None

    return make


@pytest.fixture
def image_dl_estimator_for_attack(image_dl_estimator):
    return lambda attack, **kwargs: image_dl_estimator(**kwargs)[0]
