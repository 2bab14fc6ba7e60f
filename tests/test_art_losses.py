"""
The base class and `accelerate` beside ART's own class: every loss of torch's that ART takes, and one of a user's own,
under every reduction and with labels in every form, must give ART's weights after `fit`, ART's values and gradients;
and nothing is refused that ART takes.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.trainer import AdversarialTrainerTRADESPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_mmc import LossDefendedClassifier, accelerate
from art_mmc.trainers import LossTrainer
from tests.planted import plain

#: a batch of as many samples as there are classes, and a rest: (B, K) against (B,) broadcasts then
K, N, BATCH = 5, 12, 5


class Quartic(nn.Module):
    """A loss of a user's own, on one-hot labels."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        values = 0.01 * ((outputs - y) ** 4 * torch.arange(1, y.shape[1] + 1)).sum(dim=1)
        return values if self.reduction == "none" else getattr(values, self.reduction)()


class Net(nn.Module):
    """A linear layer and what a loss wants behind it."""

    def __init__(self, outputs: int, last: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(6, outputs), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(x))


WEIGHT = torch.arange(1.0, K + 1)
LOSSES: dict[str, Callable[..., Any]] = {
    "CrossEntropy": nn.CrossEntropyLoss,
    "CrossEntropy weighted": lambda **kw: nn.CrossEntropyLoss(weight=WEIGHT.clone(), **kw),
    "CrossEntropy smoothed": lambda **kw: nn.CrossEntropyLoss(label_smoothing=0.1, **kw),
    "CrossEntropy ignoring": lambda **kw: nn.CrossEntropyLoss(ignore_index=2, **kw),
    "NLL": nn.NLLLoss,
    "NLL weighted": lambda **kw: nn.NLLLoss(weight=WEIGHT.clone(), **kw),
    "MultiMargin": nn.MultiMarginLoss,
    "MSE": nn.MSELoss,
    "L1": nn.L1Loss,
    "SmoothL1": nn.SmoothL1Loss,
    "Huber": nn.HuberLoss,
    "KLDiv": nn.KLDivLoss,
    "SoftMargin": nn.SoftMarginLoss,
    "MultiLabelSoftMargin": nn.MultiLabelSoftMarginLoss,
    "MultiLabelMargin": nn.MultiLabelMarginLoss,
    "BCE": nn.BCELoss,
    "BCEWithLogits": nn.BCEWithLogitsLoss,
    "own": Quartic,
}


def twin(cls: type, name: str, reduction: str, **kwargs: Any) -> Any:
    """ART's class or the base class around the same network and loss; binary losses get a single output."""
    torch.manual_seed(0)
    last: Any = {"NLL": nn.LogSoftmax(1), "KLDiv": nn.LogSoftmax(1), "BCE": nn.Sigmoid()}.get(name.split()[0])
    net = Net(1 if "BCE" in name else K, last or nn.Identity())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    loss = LOSSES[name](reduction=reduction)
    return cls(net, loss, (6,), 2 if "BCE" in name else K, optimizer=optimizer, device_type="cpu", **kwargs)


def labels(form: str, classes: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    index = rng.integers(0, classes, N)
    return {
        "index": index,
        "column": index[:, None],
        "one-hot": np.eye(classes, dtype=np.float32)[index],
        "int one-hot": np.eye(classes, dtype=np.int64)[index],
        "float64 one-hot": np.eye(classes)[index],
        "soft": rng.dirichlet(np.ones(classes), N).astype(np.float32),
        "multi-hot": (rng.random((N, classes)) < 0.5).astype(np.float32),
        "listed": np.concatenate([index[:, None], np.full((N, classes - 1), -1)], axis=1),
        "object": index.astype(object),
    }[form]


X = np.random.default_rng(0).random((N, 6), dtype=np.float32)
#: ART's class, and what stands in its place
MAKERS: list[Callable[..., Any]] = [
    PyTorchClassifier,
    LossDefendedClassifier,
    lambda *args, **kwargs: accelerate(PyTorchClassifier(*args, **kwargs)),
]


def fitted(classifier: Any, y: np.ndarray, x: np.ndarray = X) -> np.ndarray:
    torch.manual_seed(1)
    classifier.fit(x, y, batch_size=BATCH, nb_epochs=2)
    return classifier.model.layer.weight.detach().numpy().copy()


CALLS: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "loss_gradient": lambda c, y: c.loss_gradient(X, y),
    "loss_gradient of tensors": lambda c, y: c.loss_gradient(torch.tensor(X), torch.tensor(y)).numpy(),
    "compute_loss none": lambda c, y: c.compute_loss(X, y, reduction="none"),
    "compute_loss mean": lambda c, y: c.compute_loss(X, y, reduction="mean"),
    "compute_loss sum": lambda c, y: c.compute_loss(X, y, reduction="sum"),
    "class_gradient": lambda c, y: c.class_gradient(X),
    "class_gradient of a class": lambda c, y: c.class_gradient(X, 0),
    "predict": lambda c, y: c.predict(X),
    "fit": fitted,
}


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except Exception as error:  # ART's own refusals are the oracle
        return error


FORMS = ("index", "soft", "multi-hot", "column", "one-hot", "int one-hot", "float64 one-hot", "listed", "object")
#: each loss with the labels that it is for in all reductions, and with every form for three that take them otherwise
CASES = [
    (name, reduction, form)
    for name in LOSSES
    for reduction, form in (("sum", "index"), ("none", "soft"), ("mean", "multi-hot"))
]
CASES += [(name, "mean", form) for name in ("CrossEntropy", "MSE", "BCE") for form in FORMS]
CASES += [("KLDiv", "batchmean", "soft"), ("MultiLabelMargin", "mean", "listed"), ("own", "mean", "one-hot")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "reduction", "form"), dict.fromkeys(CASES))
def test_whatever_works_on_arts_class_gives_the_same(name, reduction, form):
    y = labels(form, 2 if "BCE" in name else K)
    compared = 0
    for call, make in CALLS.items():
        if form == "column" and call.startswith("loss_gradient") and "BCE" not in name:
            continue  # ART takes the first class for all there
        wanted = outcome(make, twin(PyTorchClassifier, name, reduction), y)
        if isinstance(wanted, Exception):
            continue
        base = twin(LossDefendedClassifier, name, reduction, objective="loss")
        for classifier in (base, accelerate(twin(PyTorchClassifier, name, reduction))):
            got = make(classifier, y)
            assert got.shape == wanted.shape
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6, err_msg=call)
        compared += 1
    assert compared >= 3  # predictions and class gradients at the least


@pytest.mark.parametrize("shape", ["column", "flat"])
def test_one_output_neuron(shape):
    """By hand, on sigmoid(w x + b): the gradient of the summed binary cross-entropy is (p - y) w."""
    net = Net(1, nn.Flatten(0) if shape == "flat" else nn.Identity())
    classifier = LossDefendedClassifier(net, nn.BCEWithLogitsLoss(reduction="sum"), (6,), 2, device_type="cpu")
    y = labels("index", 2)
    p = 1 / (1 + np.exp(-classifier.predict(X)))
    assert p.shape == (N, 1)
    expected = (p - y[:, None]) * net.layer.weight.detach().numpy()
    for each in (y, y[:, None], np.eye(2, dtype=np.float32)[y]):
        np.testing.assert_allclose(classifier.loss_gradient(X, each), expected, rtol=1e-4, atol=1e-6)
    values = -np.log(np.where(y == 1, p[:, 0], 1 - p[:, 0]))
    np.testing.assert_allclose(classifier.compute_loss(X, y).reshape(N), values, rtol=1e-4)
    x_adv = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.1, max_iter=1, verbose=False).generate(X, y)
    np.testing.assert_allclose(x_adv - X, 0.1 * np.sign(expected), atol=1e-6)
    before = classifier.compute_loss(X, y, reduction="sum")
    classifier.fit(X, y, nb_epochs=20)
    assert classifier.compute_loss(X, y, reduction="sum") < before
    with classifier.using_objective("margin"), pytest.raises(ValueError, match="network has a single output; take 'l"):
        classifier.loss_gradient(X, y)


@pytest.mark.parametrize("name", ["MSE", "KLDiv", "own"])
def test_trainers_hand_indices_to_a_loss_on_rows(name):
    """ART's own trainers stop at a loss that they do not know; both they and ours train it here."""
    classifier = twin(LossDefendedClassifier, name, "mean", clip_values=(0, 1))
    y = labels("index", K)
    attack = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.1, max_iter=1, verbose=False)
    for trainer in (AdversarialTrainerTRADESPyTorch(classifier, attack, beta=1.0), LossTrainer(classifier, seed=0)):
        before = classifier.model.layer.weight.detach().clone()
        trainer.fit(X, np.eye(K, dtype=np.float32)[y], nb_epochs=1)
        assert not torch.equal(before, classifier.model.layer.weight)


def test_flags_that_a_user_sets_on_arts_class():
    """The way in ART to a loss of one's own on indices."""

    def nearest(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert y.shape == outputs.shape[:1]
        return -outputs.gather(1, y[:, None]).mean()

    art = twin(PyTorchClassifier, "MSE", "mean")
    art._loss, art._reduce_labels, art._int_labels = nearest, True, True
    y = labels("one-hot", K)
    fast = accelerate(art)
    assert fast.loss is nearest
    np.testing.assert_allclose(fast.loss_gradient(X, y), art.loss_gradient(X, y), rtol=1e-5)
    clone = fast.clone_for_refitting()
    clone.fit(X, y, nb_epochs=1)
    fast.set_params(model=clone.model)
    assert fast.loss is clone.loss is nearest
    assert np.isfinite(fast.loss_gradient(X, y)).all()
    assert np.isfinite(fast.compute_loss(X, y, reduction="mean"))
    assert not vars(nearest)  # no `reduction` is left on the user's function


def test_copies_and_parameters_of_a_wrapped_loss():
    classifier = twin(LossDefendedClassifier, "KLDiv", "batchmean", objective="loss")
    y = labels("soft", K)
    expected = classifier.loss_gradient(X, y)
    classifier.set_params(loss=classifier.get_params()["loss"])
    np.testing.assert_array_equal(classifier.loss_gradient(X, y), expected)
    np.testing.assert_array_equal(copy.deepcopy(classifier).loss_gradient(X, y), expected)
    assert isinstance(classifier.clone_for_refitting().loss.loss, nn.KLDivLoss)
    classifier.set_params(loss=nn.MSELoss())
    art = twin(PyTorchClassifier, "KLDiv", "mean")
    art.set_params(loss=nn.MSELoss())
    np.testing.assert_allclose(classifier.loss_gradient(X, y), art.loss_gradient(X, y), rtol=1e-5)


def test_a_value_asked_for_does_not_change_the_loss_of_others():
    """While one thread computes values with another reduction, a training has the loss' own."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Quartic):
        def forward(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                go_on.wait(5)
            return super().forward(outputs, y)

    classifier = twin(LossDefendedClassifier, "own", "mean", objective="loss")
    classifier.set_params(loss=Slow())
    thread = threading.Thread(target=classifier.compute_loss, args=(X, labels("index", K)))
    thread.start()
    assert inside.wait(5)
    assert classifier.loss.reduction == "mean"
    go_on.set()
    thread.join()


# --- what is not there, and what is not checked -----------------------------------------------------------------------


def test_no_loss():
    net = Net(K, nn.Identity())
    classifier = LossDefendedClassifier(net, None, (6,), K, device_type="cpu")
    y = labels("index", K)
    assert classifier.loss is None
    assert np.abs(classifier.loss_gradient(X, y)).max() > 0  # the margin needs none
    classifier.clone_for_refitting()
    with classifier.using_objective("loss"), pytest.raises(ValueError, match=r"has no loss: set_params\(loss=...\)"):
        classifier.compute_loss(X, y)
    for fit in (classifier.fit, LossTrainer(classifier).fit):
        with pytest.raises(ValueError, match="A loss is needed to train"):
            fit(X, y, nb_epochs=1)
    art = PyTorchClassifier(net, None, (6,), K, device_type="cpu")
    np.testing.assert_array_equal(accelerate(art).predict(X), art.predict(X))


class Tokens(nn.Module):
    """A text's mean embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(1000, 4), nn.Linear(4, K)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.table(x).mean(dim=1))


BYTES = np.random.default_rng(0).integers(0, 255, (N, 6))
#: inputs of ART's users, which may be images, activations, logits or tokens, and a network for them
INPUTS: dict[str, tuple[np.ndarray, Callable[[], nn.Module]]] = {
    "uint8": (BYTES.astype(np.uint8), lambda: Net(K, nn.Identity())),
    "int64": (BYTES, lambda: Net(K, nn.Identity())),
    "far from the box": (BYTES.astype(np.float32), lambda: Net(K, nn.Identity())),
    "another shape": (
        np.random.default_rng(0).random((N, 3, 6), np.float32),
        lambda: Net(K, lambda z: nn.functional.adaptive_avg_pool1d(z.flatten(1), K)),
    ),
    # integers stay integers where ART leaves them, without `preprocessing`
    "tokens": (np.random.default_rng(0).integers(0, 1000, (N, 6)), Tokens),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("clip", [None, (0, 1)])
def test_base_class_and_accelerate_take_what_art_takes(kind, clip):
    """The network takes any number of rows of 6; a box is there where one was given."""
    (x, build), y, weights = INPUTS[kind], labels("index", K), []
    settings = {"preprocessing": None} if kind == "tokens" else {}
    for make in MAKERS:
        torch.manual_seed(0)
        net = build()
        optimizer = torch.optim.SGD(net.parameters(), 0.1 if kind == "tokens" else 1e-4)
        settings |= {"optimizer": optimizer, "device_type": "cpu"} | ({} if clip is None else {"clip_values": clip})
        classifier = make(net, nn.CrossEntropyLoss(), (6,), K, **settings)
        assert (classifier.clip_values is None) == (clip is None)
        classifier.predict(x)
        weights.append(fitted(classifier, y, x))
    for each in weights[1:]:
        np.testing.assert_allclose(each, weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["base", "named"])
def test_what_an_attack_probes_with_is_not_refused(name, bad, trained, digits):
    """Some of ART's attacks make candidates that are no numbers, and drop them by themselves."""
    classifier = trained["mmc"] if name == "named" else accelerate(plain(trained["mmc"].model))
    x = digits.x_test[:4].copy()
    x[1, 0, 3, 3] = bad
    expected = classifier.predict(digits.x_test[:4])
    for values in (classifier.predict(x), classifier.compute_loss(x, digits.y_test[:4])[:, None]):
        assert np.isfinite(np.delete(values, 1, axis=0)).all()
    np.testing.assert_allclose(np.delete(classifier.predict(x), 1, 0), np.delete(expected, 1, 0), rtol=1e-5, atol=1e-5)
    if name == "named":
        with pytest.raises(ValueError, match="x has NaN or infinite values in 1 of 4 samples"):
            copy.deepcopy(classifier).fit(x, digits.y_test[:4])


def test_preprocessing_that_changes_nothing():
    """ART's default standardisation is there to be asked, as its sleeper agent does, but not run."""
    half = twin(LossDefendedClassifier, "CrossEntropy", "mean", preprocessing=(0.5, 2.0))
    assert len(half.preprocessing_operations) == 1
    half.set_params(preprocessing=(0.0, 1.0))
    for classifier in (twin(LossDefendedClassifier, "CrossEntropy", "mean", clip_values=(0, 1)), half):
        assert (float(classifier.preprocessing.mean), float(classifier.preprocessing.std)) == (0, 1)
        assert classifier.preprocessing_operations == []
