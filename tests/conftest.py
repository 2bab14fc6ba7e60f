"""
What the tests share: digits, nine trained classifiers, fixed seeds, and a data folder for ART outside the user's home.
"""

from __future__ import annotations

import copy
import os
import pickle
import random
import signal
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from art import config
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_mmc import DEFENCES, LossDefendedClassifier, create_classifier, load_dataset
from art_mmc.cli import main
from art_mmc.data import Dataset
from art_mmc.evaluation import AttackPlan
from art_mmc.evaluation.binarisation import positive_control
from art_mmc.state import seeded

matplotlib.use("Agg")
torch.set_num_threads(1)  # the networks here are tiny: threads wait for each other, for minutes on a busy machine
os.environ["OMP_NUM_THREADS"] = "1"  # the same for the programs that the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C, which is tested


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark what looks at other processes, and put the files with such tests first: where two workers share the files, none
    is left with a long one at the end.
    """
    for item in items:
        if {"ranks", "ended", "loaded"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.processes)
    first = {item.path for item in items if item.get_closest_marker("processes")}
    items.sort(key=lambda item: item.path not in first)


#: the nine rows of the table, in its order
NAMES = list(DEFENCES)

#: one with fixed centers, one with a reversed sign, one whose centers follow the features: what differs differs there
THREE = ["mmc", "rce", "center"]

#: a test of three defences becomes one of all nine
every = pytest.mark.parametrize("name", NAMES)


def of_the_product(
    entries: Iterable[tuple[str, ...]], names: Callable[..., Iterable[str]] = lambda *entry: NAMES
) -> list[ParameterSet]:
    """Each entry with each of its defences; but for one of the three, in turn, only in the full product."""
    product = []
    for number, entry in enumerate(entries):
        fitting = list(names(*entry))
        turn = [name for name in THREE if name in fitting] or fitting
        for name in fitting:
            marks = [] if name == turn[number % len(turn)] else [pytest.mark.contract]
            product.append(pytest.param(*entry, name, marks=marks, id="-".join(filter(None, (*entry, name)))))
    return product


INPUT_SHAPE = (1, 8, 8)
Digits = Dataset  # as the fixture below gives it


def one_hot(y: np.ndarray, nb_classes: int = 10) -> np.ndarray:
    return np.eye(nb_classes, dtype=np.float32)[y]


def accuracy(classifier: PyTorchClassifier, x: np.ndarray, y: np.ndarray) -> float:
    return float((classifier.predict(x).argmax(axis=1) == y).mean())


def norms(delta: np.ndarray, norm: float) -> np.ndarray:
    return np.linalg.norm(delta.reshape(len(delta), -1).astype(np.float64), ord=norm, axis=1)


def weights(classifier: PyTorchClassifier) -> dict[str, torch.Tensor]:
    """A copy of the network's state."""
    return {key: value.clone() for key, value in classifier.model.state_dict().items()}


def traces(network: nn.Module) -> dict[str, Any]:
    """All that a call that does not train could leave behind, on a network or in the world."""
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modes": {name: module.training for name, module in modules.items()},
        "hooks": {name: [len(getattr(module, each)) for each in hooks] for name, module in modules.items()},
        "own attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "state": {name: value.clone() for name, value in network.state_dict().items()},
        "requires_grad": {name: each.requires_grad for name, each in parameters.items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in parameters.items()},
        "gradient objects": {name: id(each.grad) for name, each in parameters.items()},
        "torch": torch.get_rng_state(),
        "numpy": pickle.dumps(np.random.get_state()),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_same(before: Any, after: Any, path: str = "") -> None:
    """Of plain data and tensors, to the bit; the place of the first difference."""
    if isinstance(before, dict):
        assert before.keys() == after.keys(), path
        for key in before:
            assert_same(before[key], after[key], f"{path}/{key}")
    elif isinstance(before, torch.Tensor):
        assert isinstance(after, torch.Tensor), path
        assert torch.equal(before, after), path
    else:
        assert before == after, path


@contextmanager
def left_alone(network: nn.Module | None = None) -> Iterator[None]:
    """Around calls that leave the random states, and a network, as they were."""
    network = network or nn.Identity()
    before = traces(network)
    yield
    assert_same(before, traces(network))


def timeless(value: Any) -> Any:
    """Plain data but for seconds, which no two runs share, and when and by how many processes it was made."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in k and k not in ("date", "processes")}
    return [timeless(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.setflags(write=False)
    return x


@pytest.fixture(scope="session", autouse=True)
def art_data_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """ART's data folder, in a temporary place: ART and the tests of files must not meet the user's own."""
    before = config.ART_DATA_PATH
    config.set_data_path(str(tmp_path_factory.mktemp("art_data")))
    yield config.ART_DATA_PATH
    config.ART_DATA_PATH = before


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same global random states."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def short_control() -> Iterator[None]:
    """The positive control of an evaluation in two of its eight starts; all of them are for its own tests."""

    def short(target: Any, x: np.ndarray, plan: AttackPlan, *rest: Any) -> tuple[int, int]:
        return positive_control(target, x, replace(plan, restarts=2), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("art_mmc.evaluation.diagnostics.positive_control", short)
        yield


@pytest.fixture(scope="session")
def data() -> Dataset:
    """All of the digits."""
    return load_dataset("digits")


@pytest.fixture(scope="session")
def tiny(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 training and 60 test images of the digits, in a file."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    train, test = (data.x_train[:300], data.y_train[:300]), (data.x_test[:60], data.y_test[:60])
    np.savez(path, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    return path


@pytest.fixture(scope="session")
def digits(data: Dataset) -> Digits:
    """Half of the digits for training; the test set is read-only, so that whatever writes into it fails at once."""
    test = read_only(data.x_test), read_only(data.y_test)
    return Dataset("digits", data.x_train[:768], data.y_train[:768], *test)


class Trained(Mapping[str, LossDefendedClassifier]):
    """One small classifier a defence, trained in a second when it is first asked for."""

    def __init__(self, digits: Digits) -> None:
        self.digits = digits
        self.made: dict[str, LossDefendedClassifier] = {}

    def __getitem__(self, name: str) -> LossDefendedClassifier:
        if name not in self.made:
            with seeded(0):
                self.made[name] = create_classifier(name, "cnn", input_shape=INPUT_SHAPE, nb_classes=10)
                self.made[name].fit(self.digits.x_train, self.digits.y_train, nb_epochs=15, batch_size=64)
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


@pytest.fixture(scope="session")
def trained(digits: Digits) -> Trained:
    """The nine trained classifiers. Shared: a test that changes one takes a copy."""
    return Trained(digits)


@pytest.fixture(params=THREE)
def name(request: pytest.FixtureRequest) -> str:
    """Each of three defences, or of all nine where a test is marked with `every`."""
    return request.param


@pytest.fixture
def classifier(name: str, trained: Trained) -> LossDefendedClassifier:
    """The defence's classifier, trained; not to be changed."""
    return trained[name]


@pytest.fixture
def own(classifier: LossDefendedClassifier) -> LossDefendedClassifier:
    """The defence's classifier, trained, a copy that a test may change."""
    return copy.deepcopy(classifier)


@pytest.fixture(scope="session")
def easy(digits: Digits, trained: Trained) -> np.ndarray:
    """Indices of the test images that all nine classifiers get right."""
    right = np.ones(len(digits.x_test), bool)
    for each in trained.values():
        right &= each.predict(digits.x_test).argmax(axis=1) == digits.y_test
    return np.flatnonzero(right)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in an empty folder; status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def mnist_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in torchvision's layout with 120 training and 20 test images of 28 x 28, which are enlarged digits."""
    folder = tmp_path_factory.mktemp("torchvision")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    data = load_dataset("digits")
    pixels = (255 * np.pad(data.x_train[:140, 0].repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))).round()
    for prefix, part in (("train", slice(0, 120)), ("t10k", slice(120, 140))):
        images, labels = pixels[part].astype(np.uint8), data.y_train[:140][part].astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, *images.shape) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, len(labels)) + labels.tobytes())
    return folder
