"""
What ART promises of a PyTorchClassifier, for each of the nine classifiers, and what these add: an objective, labels in
any format, no trace of a call that does not train, and messages that name the mend.

Oracles: autograd in float64 on the bare network, a bare training loop, and ART's own class.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from art import config
from art.attacks.evasion import ProjectedGradientDescent
from art.data_generators import PyTorchDataGenerator
from art.defences.preprocessor import FeatureSqueezing, GaussianAugmentation, JpegCompression, LabelSmoothing
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import art_mmc
from art_mmc import DEFENCES, SPSA, LossDefendedClassifier, MMCClassifier, create_classifier
from art_mmc.classifiers import CLASSIFIERS
from art_mmc.evaluation import RobustnessEvaluation
from art_mmc.heads import FixedCentersHead
from art_mmc.losses import MMCLoss, ReverseCrossEntropyLoss
from art_mmc.models import DefendedNet, create_backbone
from art_mmc.objectives import OBJECTIVES
from art_mmc.trainers import PGD, AdversarialLossTrainer
from tests.cases import ROWS, SOFT_ROWS
from tests.conftest import INPUT_SHAPE, NAMES, Digits, accuracy, assert_same, every, one_hot, read_only, traces, weights
from tests.planted import plain
from tests.training import NormedNet as Net

OBJECTIVE_NAMES = ["adaptive", "loss", *OBJECTIVES]
SHAPE = {"input_shape": INPUT_SHAPE, "nb_classes": 10}


def small(name: str = "sce", **kwargs: Any) -> LossDefendedClassifier:
    """An untrained classifier; a module as `backbone` or the package's "cnn"."""
    return create_classifier(name, kwargs.pop("backbone", "cnn"), **{**SHAPE, **kwargs})


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def batch(digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """Seven test images, read-only, and their labels."""
    return digits.x_test[:7], read_only(digits.y_test[:7])


# --- the nine and their table -----------------------------------------------------------------------------------------


@every
def test_one_call_makes_a_whole_classifier(name):
    classifier = small(name)
    assert type(classifier) is CLASSIFIERS[name]
    assert type(classifier.model) is DefendedNet
    assert type(classifier.model.head) is DEFENCES[name].head
    assert type(classifier.loss) is DEFENCES[name].loss
    assert (classifier.input_shape, classifier.nb_classes, classifier.channels_first) == (INPUT_SHAPE, 10, True)
    # ART decides these by the loss' type; with the defaults for an unknown one its trainers fail
    assert (classifier._reduce_labels, classifier._int_labels, classifier._probability_labels) == (True, True, True)
    assert classifier.layer_names == ["normalize", "backbone", "projection", "embedding", "head"]
    np.testing.assert_array_equal(classifier.clip_values, [0.0, 1.0])
    assert classifier.preprocessing_operations == []
    assert isinstance(classifier.optimizer, torch.optim.Adam)
    assert classifier.optimizer.defaults["lr"] == 1e-3
    in_optimizer = {id(p) for group in classifier.optimizer.param_groups for p in group["params"]}
    assert in_optimizer == {id(p) for p in classifier.model.parameters()}


# --- fit --------------------------------------------------------------------------------------------------------------


@every
def test_fit_is_a_plain_loop_on_the_training_loss(name, digits):
    """Bit for bit, whatever the objective: the objective is the attacker's."""
    x, y = digits.x_train[:40], digits.y_train[:40]
    objective = {"rce": "loss", "center": "cross_entropy"}.get(name, "adaptive")
    classifier = small(name, backbone=Net(), objective=objective, arithmetic="exact")
    net, loss = copy.deepcopy(classifier.model), copy.deepcopy(classifier.loss)
    torch.manual_seed(3)
    classifier.fit(x, y, batch_size=16, nb_epochs=2)

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    torch.manual_seed(3)
    net.train()
    for _ in range(2):  # drawn as ART draws it
        for images, labels in DataLoader(TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=16, shuffle=True):
            optimizer.zero_grad()
            loss(net(images), labels).backward()
            optimizer.step()
    assert same_weights(weights(classifier), net.state_dict())


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writ")
def test_labels_in_any_format(digits, batch):
    """Probabilities stand for their likeliest class, as ART's own soft labels (mixed, smoothed) are meant there."""
    x, y = digits.x_train[:40], digits.y_train[:40]
    given = [
        (x, y),
        (x.astype(np.float64), y[:, None]),
        (x, y.astype(np.int32)),
        (x, y.astype(np.float64)),
        (x, y.tolist()),
        (read_only(x), read_only(one_hot(y))),  # as with numpy.load(..., mmap_mode="r")
        (x, one_hot(y).astype(np.int64)),
        (x, one_hot(y).astype(bool)),
    ]
    results = []
    for images, labels in given:
        torch.manual_seed(0)
        classifier = small("mmc", backbone=Net())
        classifier.fit(images, labels, batch_size=16, nb_epochs=1)
        results.append(weights(classifier))
    assert all(same_weights(results[0], result) for result in results[1:])
    x, y = batch
    soft = 0.7 * one_hot(y) + 0.3 * one_hot((y + 3) % 10)
    gradient, values = classifier.loss_gradient(x, y), classifier.compute_loss(x, y)
    for labels in (y[:, None], y.astype(np.float32), one_hot(y), torch.tensor(y), torch.tensor(one_hot(y)), soft):
        np.testing.assert_array_equal(classifier.loss_gradient(x, labels), gradient)
        np.testing.assert_array_equal(classifier.compute_loss(x, labels), values)


@pytest.mark.parametrize("name", SOFT_ROWS)
def test_fit_takes_probability_labels_where_the_loss_does(name, digits):
    """0.9 of one class and 0.1 of the next: the step is that of the weighted losses."""
    x, y = digits.x_train[:16], digits.y_train[:16]
    soft = 0.9 * one_hot(y) + 0.1 * one_hot((y + 1) % 10)
    classifier = small(name)
    net, loss = copy.deepcopy(classifier.model), copy.deepcopy(classifier.loss)
    classifier.set_params(optimizer=torch.optim.SGD(classifier.model.parameters(), lr=0.01))
    classifier.fit(x, soft.astype(np.float64), batch_size=16, nb_epochs=1)
    logits, labels = net(torch.tensor(x)), torch.tensor(y)
    (0.9 * loss(logits, labels) + 0.1 * loss(logits, (labels + 1) % 10)).backward()
    torch.optim.SGD(net.parameters(), lr=0.01).step()
    for key, value in net.state_dict().items():
        torch.testing.assert_close(classifier.model.state_dict()[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("drop_last", "steps"), [(False, 6), (True, 4)])
def test_fit_counts_its_steps_and_is_silent_unless_told(drop_last, steps, digits, capsys):
    classifier = small()
    classifier.fit(digits.x_train[:40], digits.y_train[:40], batch_size=16, nb_epochs=2, drop_last=drop_last)
    assert {int(state["step"]) for state in classifier.optimizer.state.values()} == {steps}
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    classifier.fit(digits.x_train[:8], digits.y_train[:8], nb_epochs=1, verbose=True)
    assert "Epochs" in capsys.readouterr().err


@pytest.mark.parametrize("training_mode", [True, False])
def test_fit_ends_in_evaluation_mode(training_mode, digits):
    net = Net()
    classifier = small(backbone=net)
    classifier.fit(digits.x_train[:32], digits.y_train[:32], nb_epochs=1, training_mode=training_mode)
    assert not any(module.training for module in classifier._model.modules())
    assert (net.norm.num_batches_tracked > 0) == training_mode


def test_fit_generator_with_a_preprocessing_of_arrays(digits):
    """ART compares the arrays with numbers and fails: "truth value ambiguous"."""
    classifier = small("mmc", **KINDS["arrays"]())
    before, data = weights(classifier), TensorDataset(torch.tensor(digits.x_test[:8]), torch.tensor(digits.y_test[:8]))
    classifier.fit_generator(PyTorchDataGenerator(DataLoader(data, batch_size=4), size=8, batch_size=4), nb_epochs=1)
    assert not same_weights(before, weights(classifier))


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_is_the_network(classifier, digits):
    x = digits.x_test[:70]
    expected = copy.deepcopy(classifier.model).double()(torch.tensor(x, dtype=torch.float64)).detach().numpy()
    logits = classifier.predict(x)
    assert logits.dtype == np.float32
    assert logits.shape == (70, 10)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        plain = classifier.model(torch.tensor(x)).numpy()
    np.testing.assert_allclose(logits, plain, rtol=1e-5, atol=1e-5)  # perhaps in another memory format
    exact = classifier.with_objective("margin")
    exact.arithmetic = "exact"
    np.testing.assert_array_equal(exact.predict(x), plain)


def test_predict_takes_what_comes(classifier, batch):
    """In batches of any size, and arrays of any kind."""
    x, _ = batch
    expected = classifier.predict(x)
    for batch_size in (1, 3, 70, 1000):
        np.testing.assert_allclose(classifier.predict(x, batch_size=batch_size), expected, rtol=1e-5, atol=1e-5)
    for given in (
        x.astype(np.float64),
        x.astype(np.float16),  # multiples of 1 / 16 are exact
        x.tolist(),
        np.asfortranarray(x),
        np.repeat(x, 2, axis=0)[::2],
    ):
        np.testing.assert_array_equal(classifier.predict(given), expected)
    np.testing.assert_array_equal(classifier.predict(x, 128, False, logits=True), expected)


# --- the attacker's objective -----------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_values_and_gradients_against_float64(objective, classifier, batch):
    """Of the objectives' functions, which have oracles of their own, on a float64 copy of the network."""
    x, y = batch
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    loss = copy.deepcopy(classifier.loss)
    loss.reduction = "none"
    function = {"loss": loss, "adaptive": OBJECTIVES["soft_margin"], **OBJECTIVES}[objective]
    values = function(copy.deepcopy(classifier.model).double()(leaf), torch.tensor(y))
    expected, gradients = values.detach().numpy(), torch.autograd.grad(values.sum(), leaf)[0].numpy()
    with classifier.using_objective(objective):
        values, gradient = classifier.compute_loss(x, y), classifier.loss_gradient(x, y)
        mean, total = classifier.compute_loss(x, y, reduction="mean"), classifier.compute_loss(x, y, "sum")
    assert values.shape == (7,)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-4, atol=2e-4)
    assert gradient.shape == x.shape
    assert gradient.dtype == np.float32
    assert np.abs(gradients).max() > 1e-4  # something to compare
    np.testing.assert_allclose(gradient * 7, gradients, rtol=1e-3, atol=1e-4 * np.abs(gradients).max())


@pytest.mark.parametrize(("name", "reduction"), [("mmc", "mean"), ("center", "sum"), ("rce", "none")])
def test_loss_reduction_scales_the_gradient(reduction, own, batch):
    """As in ART: the mean over the batch, or the sum."""
    x, y = batch
    mean = own.loss_gradient(x, y)
    own.loss.reduction = reduction
    factor = 1 if reduction == "mean" else 7
    np.testing.assert_allclose(
        own.loss_gradient(x, y), factor * mean, rtol=1e-5, atol=1e-5 * factor * np.abs(mean).max()
    )
    assert own.loss.reduction == reduction


@pytest.mark.parametrize("objective", ["adaptive", "loss"])
def test_tensors_in_tensors_out(objective, classifier, batch):
    x, y = batch
    leaf = torch.tensor(x, requires_grad=True)
    with classifier.using_objective(objective):
        gradient = classifier.loss_gradient(leaf, torch.tensor(y))
        values = classifier.compute_loss(leaf, torch.tensor(one_hot(y)))
        expected = classifier.loss_gradient(x, y)
        expected_values = classifier.compute_loss(x, y)
    assert isinstance(gradient, torch.Tensor)
    assert isinstance(values, torch.Tensor)
    assert leaf.grad is None
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(values.detach().numpy(), expected_values, rtol=1e-5, atol=1e-5)
    values.mean().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-4, atol=1e-6)
    for parameter in classifier.model.parameters():
        parameter.grad = None


def test_gradients_work_where_gradients_are_off_or_the_network_is_frozen(own, batch):
    calls = [(own.loss_gradient, batch), (own.class_gradient, batch[:1]), (own.compute_loss, batch)]
    expected = [call(*arguments) for call, arguments in calls]
    with torch.no_grad():
        for (call, arguments), value in zip(calls, expected, strict=True):
            np.testing.assert_array_equal(call(*arguments), value)
    own.model.requires_grad_(False)
    np.testing.assert_array_equal(own.loss_gradient(*batch), expected[0])
    assert not any(parameter.requires_grad for parameter in own.model.parameters())


def test_using_objective_nests_and_comes_back_after_an_error(own):
    with own.using_objective("loss"):
        with pytest.raises(ValueError, match="unknown objective"), own.using_objective("nonsense"):
            pass
        assert own.objective == "loss"
        with pytest.raises(KeyError), own.using_objective("dlr"):
            {}[own.objective]
        assert own.objective == "loss"
    assert own.objective == "adaptive"


def test_two_classes(name, batch):
    """ART's one-hot rules have a special case there."""
    x, y = batch[0], np.arange(7) % 2
    classifier = small(name, nb_classes=2)
    classifier.fit(x, y[:, None], nb_epochs=1)
    gradients = [classifier.loss_gradient(x, labels) for labels in (y, y[:, None], np.eye(2)[y])]
    assert classifier.predict(x).shape == (7, 2)
    np.testing.assert_array_equal(gradients[0], gradients[1])
    np.testing.assert_array_equal(gradients[0], gradients[2])


def test_class_gradient_against_autograd(classifier, batch):
    x, _ = batch
    jacobian = np.stack(
        [
            torch.autograd.functional.jacobian(lambda one: classifier.model(one)[0], torch.tensor(sample)[None])
            .detach()
            .numpy()[:, 0]
            for sample in x
        ]
    )
    for labels in (None, 3, np.int64(9), [0, 1, 2, 3, 4, 5, 9], np.array([9, 0, 9, 1, 2, 3, 4]), np.full(7, 5)):
        gradient = classifier.class_gradient(x, label=labels)
        expected = jacobian
        if labels is not None:
            expected = jacobian[np.arange(7), np.broadcast_to(labels, (7,))][:, None]
        assert gradient.shape == expected.shape
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5 * np.abs(jacobian).max())


# --- ART's own class as the oracle ------------------------------------------------------------------------------------


class Blur(PreprocessorPyTorch):
    """A defence in PyTorch, with a gradient of its own (ART's spatial smoothing needs the package kornia)."""

    def __init__(self) -> None:
        super().__init__(device_type="cpu", is_fitted=True, apply_fit=False, apply_predict=True)

    def forward(self, x: torch.Tensor, y: Any = None) -> tuple[torch.Tensor, Any]:
        return nn.functional.avg_pool2d(x, 3, stride=1, padding=1), y


STATISTICS = {"preprocessing": (0.3, 0.7)}
#: ART's preprocessing, in PyTorch, in numpy, or mixed
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "none": dict,
    "mean and std": lambda: STATISTICS,
    "arrays": lambda: {"preprocessing": (np.full((1, 1, 1), 0.3, np.float32), np.full((1, 1, 1), 0.7, np.float32))},
    "blur": lambda: {"preprocessing_defences": Blur()},
    "squeezing": lambda: {"preprocessing_defences": FeatureSqueezing(clip_values=(0, 1), bit_depth=3)},
    "jpeg": lambda: {"preprocessing_defences": JpegCompression(clip_values=(0, 1), channels_first=True)},
    "blur and std": lambda: {**KINDS["blur"](), **STATISTICS},
    "squeezing and std": lambda: {**KINDS["squeezing"](), **STATISTICS},
}


@pytest.fixture
def twins(request: pytest.FixtureRequest, digits: Digits) -> tuple[LossDefendedClassifier, PyTorchClassifier]:
    """Ours, climbing the training loss, and ART's own class around the same network with the same defences."""
    ours = small("sce", backbone=Net(), objective="loss", **KINDS[request.param]())
    ours.fit(digits.x_train[:128], digits.y_train[:128], nb_epochs=2, batch_size=32)
    return ours, plain(copy.deepcopy(ours.model), **{"preprocessing": None, **KINDS[request.param]()})


@pytest.mark.parametrize("twins", KINDS, indirect=True)
@pytest.mark.parametrize("training_mode", [False, True], ids=["eval", "train"])
def test_softmax_classifier_is_arts_class(twins, training_mode, batch):
    ours, arts = twins
    x, y = batch
    # first what is in evaluation mode always: in training mode ART's calls move its own batch statistics
    for labels in (one_hot(y), y):
        for reduction in ("none", "mean", "sum"):
            np.testing.assert_allclose(
                ours.compute_loss(x, labels, reduction), arts.compute_loss(x, labels, reduction), rtol=1e-6, atol=1e-6
            )
    theirs = arts.loss_gradient(x, one_hot(y), training_mode)  # index labels fail in ART
    for labels in (one_hot(y), y):
        np.testing.assert_allclose(ours.loss_gradient(x, labels, training_mode), theirs, atol=1e-6)
    for label in (None, 4, [1, 2, 3, 4, 5, 6, 7], np.arange(7)):
        theirs = arts.class_gradient(x, label, training_mode)
        np.testing.assert_allclose(ours.class_gradient(x, label, training_mode), theirs, atol=1e-6)
        assert np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(
        ours.predict(x, training_mode=training_mode), arts.predict(x, training_mode=training_mode), rtol=1e-6, atol=1e-6
    )
    if training_mode:
        return
    assert ours.layer_names == arts.layer_names
    for layer in (0, 1, 3, 4, "backbone", "head"):
        theirs = arts.get_activations(x, layer, batch_size=3)
        np.testing.assert_allclose(ours.get_activations(x, layer, batch_size=3), theirs, atol=1e-6)
    leaf, rows = torch.tensor(x), torch.tensor(one_hot(y))
    if ours.all_framework_preprocessing:
        torch.testing.assert_close(ours.loss_gradient(leaf, rows), arts.loss_gradient(leaf, rows), atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.compute_loss(leaf, rows), arts.compute_loss(leaf, rows), atol=1e-6, rtol=1e-6)
    else:
        with pytest.raises(NotImplementedError, match="PyTorch"):
            ours.loss_gradient(leaf, rows)


def test_custom_loss_gradient_of_every_step_of_a_sequence(digits):
    """Also of those that prediction runs as one operation."""
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
    network = nn.Sequential(*layers[:4], nn.Sequential(*layers[4:]), nn.LogSoftmax(1))
    arts, ours = (each(network, nn.NLLLoss(), INPUT_SHAPE, 10) for each in (PyTorchClassifier, LossDefendedClassifier))
    assert ours.layer_names == arts.layer_names
    assert len(arts.layer_names) == 6
    for name in arts.layer_names:
        arguments = torch.norm, digits.x_test[:3].copy(), digits.x_test[3:6].copy(), name
        expected = arts.custom_loss_gradient(*arguments)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(ours.custom_loss_gradient(*arguments), expected, atol=1e-6)


# --- preprocessing, postprocessing, devices ---------------------------------------------------------------------------


def test_label_smoothing_of_arts(digits):
    """It asks for one-hot labels, whatever the user gave."""
    results, smooth = [], LabelSmoothing(max_value=0.8)
    y = digits.y_train[:32]
    for labels, smoothing in ((y, smooth), (one_hot(y), smooth), (y, None)):
        torch.manual_seed(0)
        classifier = small(preprocessing_defences=smoothing)
        classifier.fit(digits.x_train[:32], labels, nb_epochs=1, batch_size=32)
        results.append(weights(classifier))
    assert same_weights(*results[:2])
    assert not same_weights(*results[1:])


def test_augmentation_may_lengthen_the_training_data(digits):
    augment = GaussianAugmentation(sigma=0.1, augmentation=True, ratio=1.0)
    classifier = small("mmc", preprocessing_defences=augment)
    classifier.fit(digits.x_train[:32], digits.y_train[:32], nb_epochs=1, batch_size=16)
    assert {int(state["step"]) for state in classifier.optimizer.state.values()} == {4}
    plain = small("mmc")
    plain.set_params(model=classifier.model)
    np.testing.assert_array_equal(classifier.predict(digits.x_test[:4]), plain.predict(digits.x_test[:4]))


@pytest.mark.parametrize("device_type", ["cpu", "gpu"])
def test_device_type(device_type, batch):
    classifier = small("center", device_type=device_type)
    kind = "cuda" if device_type == "gpu" and torch.cuda.is_available() else "cpu"
    assert classifier.device.type == kind
    assert classifier.device_type == device_type
    assert {tensor.device.type for tensor in classifier.model.state_dict().values()} == {kind}
    classifier.fit(*batch, nb_epochs=1)
    assert np.isfinite(classifier.loss_gradient(*batch)).all()
    clone = classifier.clone_for_refitting()
    assert clone.device_type == device_type
    assert clone.device == classifier.device


# --- no trace of a call -----------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[LossDefendedClassifier, np.ndarray, np.ndarray, bool], Any]] = {
    "predict": lambda c, x, y, train: c.predict(x, batch_size=4, training_mode=train),
    "loss_gradient": lambda c, x, y, train: c.loss_gradient(x, y, training_mode=train),
    "loss_gradient of the loss": lambda c, x, y, train: _of_loss(c, "loss_gradient", x, y, training_mode=train),
    "class_gradient": lambda c, x, y, train: c.class_gradient(x, training_mode=train),
    "class_gradient of one": lambda c, x, y, train: c.class_gradient(x, label=y, training_mode=train),
    "compute_loss": lambda c, x, y, train: c.compute_loss(x, y),
    "compute_loss of the loss": lambda c, x, y, train: _of_loss(c, "compute_loss", x, y),
    "compute_losses": lambda c, x, y, train: c.compute_losses(x, y),
    "get_activations": lambda c, x, y, train: c.get_activations(x, 3, batch_size=2),
    "get_activations, framework": lambda c, x, y, train: c.get_activations(x, "backbone", framework=True),
    "custom_loss_gradient": lambda c, x, y, train: c.custom_loss_gradient(
        lambda difference, p: difference.norm(p=p), x, x[::-1].copy(), "embedding", training_mode=train
    ),
    "repr": lambda c, x, y, train: repr(c),
    "get_params": lambda c, x, y, train: c.get_params(),
    "pickle": lambda c, x, y, train: pickle.loads(pickle.dumps(c)),
    "deepcopy": lambda c, x, y, train: copy.deepcopy(c),
}


def _of_loss(classifier: LossDefendedClassifier, call: str, *args: Any, **kwargs: Any) -> Any:
    with classifier.using_objective("loss"):
        return getattr(classifier, call)(*args, **kwargs)


def files(*folders: str) -> list[str]:
    return sorted(
        os.path.join(root, name) for folder in folders for root, _, names in os.walk(folder) for name in names
    )


def state_of(classifier: LossDefendedClassifier) -> dict[str, Any]:
    return {
        **traces(classifier._model),
        "optimizer": copy.deepcopy(classifier.optimizer.state_dict()),
        "attributes": sorted(vars(classifier)),
        "objective": classifier.objective,
        "reduction": classifier.loss.reduction,
    }


def mixed(name: str, dropout: float) -> LossDefendedClassifier:
    """
    A network in the middle of someone's work: each module in a mode of its own, some of the parameters frozen, some
    with gradients, batch statistics and centers that are no round numbers.
    """
    classifier = small(name, backbone=Net(dropout))
    rng = np.random.default_rng(0)
    classifier.fit(rng.random((32, *INPUT_SHAPE), np.float32), np.arange(32) % 10, nb_epochs=1, batch_size=16)
    for i, module in enumerate(classifier._model.modules()):
        module.training = i % 2 == 0
    for i, parameter in enumerate(classifier.model.parameters()):
        parameter.requires_grad = i % 3 != 0
        parameter.grad = torch.rand_like(parameter) if i % 2 else None
    return classifier


NINE_CALLS = ["loss_gradient", "loss_gradient of the loss"]  # what runs the head and the loss of each


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        *(("center", call) for call in CALLS),
        *((name, call) for name in NAMES if name != "center" for call in NINE_CALLS),
    ],
)
def test_call_leaves_no_trace(call, train, name, batch, monkeypatch, tmp_path):
    # in training mode the user asks for dropout's randomness, which moves the random state
    classifier = mixed(name, dropout=0.0 if train else 0.5)
    monkeypatch.chdir(tmp_path)
    x, y = batch  # read-only
    copies = x.copy(), y.copy()
    before, listed = state_of(classifier), files(config.ART_DATA_PATH, str(tmp_path))
    CALLS[call](classifier, x, y, train)
    assert_same(before, state_of(classifier))
    assert files(config.ART_DATA_PATH, str(tmp_path)) == listed
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_crafting_on_tensors_leaves_no_trace(train, name, batch):
    """Nothing of the network is switched inside, where `forward` runs in the mode that is asked for."""
    classifier = mixed(name, dropout=0.0)
    before = state_of(classifier)
    leaf = torch.tensor(batch[0], requires_grad=True)

    def craft() -> None:
        assert_same(before, state_of(classifier))
        outputs = classifier.forward(leaf)
        twin = copy.deepcopy(classifier.model).train(train)
        torch.testing.assert_close(outputs, twin(leaf), rtol=1e-4, atol=1e-4)
        values = classifier.attack_values(outputs, torch.tensor(batch[1]))
        values.sum().backward()
        assert leaf.grad.abs().max() > 0
        raise KeyError

    with pytest.raises(KeyError), classifier.crafting(training_mode=train):
        craft()
    assert_same(before, state_of(classifier))


def test_recurrent_network(batch):
    """ART runs these in training mode for cuDNN's sake, with dropout and batch statistics off."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1)
            self.lstm = nn.LSTM(8, 6, batch_first=True)
            self.drop = nn.Dropout(0.5)
            self.out = nn.Linear(6, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.drop(self.lstm(self.norm(x)[:, 0])[0][:, -1]))

    x, y = batch
    classifier = plain(Recurrent(), LossDefendedClassifier)
    assert classifier.is_rnn
    before = state_of(classifier)
    gradients = [classifier.loss_gradient(x, y) for _ in range(2)]
    np.testing.assert_array_equal(*gradients)
    assert_same(before, state_of(classifier))
    other = plain(Net(), LossDefendedClassifier)
    assert not other.is_rnn
    other.set_params(model=classifier.model)
    assert other.is_rnn


# --- get_activations --------------------------------------------------------------------------------------------------


def test_embedding_is_what_the_head_reads(classifier, batch):
    x, _ = batch
    classifier = classifier.with_objective("margin")
    classifier.arithmetic = "exact"
    with torch.no_grad():
        z = classifier.model.features(torch.tensor(x))
        logits = classifier.model.head(z)
    np.testing.assert_array_equal(classifier.get_activations(x, "embedding"), z.numpy())
    np.testing.assert_array_equal(classifier.get_activations(x, 3), z.numpy())
    np.testing.assert_array_equal(classifier.get_activations(x, np.int64(3)), z.numpy())
    np.testing.assert_array_equal(classifier.get_activations(x, -1), logits.numpy())
    np.testing.assert_array_equal(classifier.get_activations(x, "normalize"), x)
    np.testing.assert_allclose(
        classifier.get_activations(x, "embedding", batch_size=2), z.numpy(), rtol=1e-5, atol=1e-5
    )


def test_framework_activations_carry_their_graph(classifier, batch):
    leaf = torch.tensor(batch[0], requires_grad=True)
    z = classifier.get_activations(leaf, "embedding", framework=True)
    (gradient,) = torch.autograd.grad(z.sum(), leaf)
    expected = torch.tensor(batch[0], requires_grad=True)
    classifier.model.features(expected).sum().backward()
    torch.testing.assert_close(gradient, expected.grad)
    for parameter in classifier.model.parameters():
        parameter.grad = None


# --- clone_for_refitting, reset ---------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("way", ["clone", "reset"])
def test_weights_are_drawn_anew_but_for_fixed_centers(way, own, digits):
    """The center loss' centers follow the features and start anew, at the origin."""
    before = weights(own)
    fresh = own.clone_for_refitting() if way == "clone" else own
    if way == "reset":
        assert own.reset() is None
    after, learning = fresh.model.state_dict(), dict(fresh.model.named_parameters())
    assert type(fresh) is type(own)
    assert before.keys() == after.keys()
    for key, value in own.model.state_dict().items():
        tracked = own.defence == "center" and key == "head.centers"
        assert torch.equal(before[key], after[key]) == (key not in learning and not tracked), key
        assert (after[key].data_ptr() == value.data_ptr()) == (way == "reset")
        assert not tracked or (before[key].any() and not after[key].any())
    assert accuracy(fresh, digits.x_test, digits.y_test) < 0.5


@every
def test_clone_carries_everything_over(name):
    options = ROWS[name].options()
    blur = Blur()
    classifier = small(
        name,
        backbone=Net(),
        mean=0.3,
        std=0.6,
        embedding_dim=12,
        objective="dlr",
        arithmetic="exact",
        compile="eager",
        clip_values=(-1.0, 2.0),
        preprocessing_defences=blur,
        preprocessing=(0.1, 0.9),
        device_type="cpu",
        **options,
    )
    classifier.loss.reduction = "sum"
    written = {**classifier.model.head.options(), **classifier.loss.options()}
    assert {key: written[key] for key in options} == options
    clone = classifier.clone_for_refitting()
    assert {**clone.model.head.options(), **clone.loss.options()} == written
    assert clone.loss is not classifier.loss
    assert clone.loss.reduction == "sum"
    assert (clone.objective, clone.arithmetic, clone.compile) == ("dlr", "exact", "eager")
    np.testing.assert_array_equal(clone.clip_values, classifier.clip_values)
    assert clone.preprocessing_defences == [blur]
    assert (clone.preprocessing.mean, clone.preprocessing.std) == (0.1, 0.9)
    assert clone.preprocessing_operations == [blur, clone.preprocessing]
    assert torch.equal(clone.model.normalize.mean, classifier.model.normalize.mean)
    assert clone.model.projection.out_features == 12
    assert clone.nb_classes == 10
    assert clone.input_shape == INPUT_SHAPE
    assert (clone._reduce_labels, clone._int_labels) == (True, True)


def test_clone_takes_no_hooks_along(own, batch):
    calls = []
    handle = own.model.embedding.register_forward_hook(lambda *_: calls.append(1))
    clone = own.clone_for_refitting()
    handle.remove()
    clone.predict(batch[0])
    assert calls == []


def test_clone_of_a_subclass_with_a_parameter_of_its_own():
    class Mine(MMCClassifier):
        estimator_params = MMCClassifier.estimator_params + ["note"]

        def __init__(self, *args: Any, note: str = "", **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.note = note

    classifier = Mine(create_backbone("cnn", INPUT_SHAPE), **SHAPE, note="kept")
    clone = classifier.clone_for_refitting()
    assert type(clone) is Mine
    assert clone.note == "kept"


# --- save and load, pickle, deepcopy ----------------------------------------------------------------------------------


def continue_training(classifier: LossDefendedClassifier, digits: Digits) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    classifier.fit(digits.x_train[:64], digits.y_train[:64], batch_size=16, nb_epochs=1)
    return weights(classifier)


@pytest.mark.parametrize(("name", "folder"), [("mmc", "given"), ("rce", "ART's"), ("center", "given")])
def test_save_and_load(folder, own, digits, tmp_path):
    """Weights and the optimizer's state: training goes on bit for bit as if nothing had been."""
    path = str(tmp_path / "new" / "folder") if folder == "given" else None
    bare = copy.deepcopy(own)
    bare.set_params(optimizer=None)
    bare.save("bare", str(tmp_path / "bare"))
    assert os.listdir(tmp_path / "bare") == ["bare.model"]
    copy.deepcopy(own).load("bare", str(tmp_path / "bare"))
    own.save(f"saved_{own.defence}", path)
    other = small(own.defence)
    assert not same_weights(weights(own), weights(other))
    other.load(f"saved_{own.defence}", path)
    assert same_weights(weights(own), weights(other))
    np.testing.assert_array_equal(own.predict(digits.x_test[:5]), other.predict(digits.x_test[:5]))
    assert same_weights(continue_training(own, digits), continue_training(other, digits))


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda c: pickle.loads(pickle.dumps(c, 2))}


@pytest.mark.parametrize("make", COPIES)
def test_copy_is_whole_and_independent(make, classifier, digits, monkeypatch):
    original = copy.deepcopy(classifier)
    original.objective, original.arithmetic = "dlr", "exact"
    listed = files(config.ART_DATA_PATH)
    monkeypatch.setattr("time.time", lambda: 0.0)  # ART names its side files by the clock
    twin = COPIES[make](original)
    assert files(config.ART_DATA_PATH) == listed
    assert type(twin) is type(original)
    assert (twin.objective, twin.arithmetic) == ("dlr", "exact")
    assert twin.layer_names == original.layer_names
    assert not any(module.training for module in twin._model.modules())
    np.testing.assert_array_equal(twin.predict(digits.x_test[:9]), original.predict(digits.x_test[:9]))
    bound = {id(p) for group in twin.optimizer.param_groups for p in group["params"]}
    assert bound == {id(p) for p in twin.model.parameters()}
    before = weights(original)
    after = continue_training(twin, digits)
    assert same_weights(before, weights(original))
    assert not same_weights(before, after)
    # with the state of Adam: the same step from the same place
    assert same_weights(after, continue_training(original, digits))


# --- get_params, set_params, repr -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", COPIES)
def test_copy_of_a_copy_and_its_modes(make, name):
    classifier = mixed(name, dropout=0.5)
    twin = COPIES[make](COPIES[make](classifier))
    states = [state_of(each) for each in (classifier, twin)]
    del states[0]["modes"][""], states[1]["modes"][""]  # the wrapper's, which ART makes anew
    for key in ("modes", "state", "requires_grad", "reduction"):
        assert_same(states[0][key], states[1][key], key)


def test_get_params_are_the_constructors_arguments(own, batch):
    params = own.get_params()
    assert set(params) == set(PyTorchClassifier.estimator_params) | {"objective", "arithmetic", "compile"}
    assert params["model"] is own.model
    assert params["optimizer"] is own.optimizer
    assert params["loss"] is own.loss
    assert params["objective"] == "adaptive"
    assert params["use_amp"] is False
    twin = type(own)(**params)
    np.testing.assert_array_equal(twin.predict(batch[0]), own.predict(batch[0]))
    np.testing.assert_array_equal(twin.loss_gradient(*batch), own.loss_gradient(*batch))


def test_set_model_replaces_the_network(own, digits):
    """ART would put the raw network in the wrapper's place: predictions of shape (10, 1)."""
    fresh = small(own.defence)
    optimizer = torch.optim.SGD(own.model.parameters(), lr=0.02, momentum=0.8, nesterov=True)
    own.set_params(optimizer=optimizer)
    own.set_params(model=fresh.model)
    assert own.model is fresh.model
    np.testing.assert_array_equal(own.predict(digits.x_test[:5]), fresh.predict(digits.x_test[:5]))
    assert own.layer_names == fresh.layer_names
    assert isinstance(own.optimizer, torch.optim.SGD)
    assert own.optimizer is not optimizer
    before = weights(own)
    own.fit(digits.x_train[:32], digits.y_train[:32], nb_epochs=1)
    assert not same_weights(before, weights(own))
    assert own.optimizer.defaults == optimizer.defaults


def test_set_model_with_its_optimizer_or_loss(batch):
    classifier, net = small("sce"), small("sce").model
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    classifier.set_params(model=net, optimizer=optimizer)
    assert classifier.optimizer is optimizer
    classifier.set_params(optimizer=None)
    classifier.set_params(model=small("sce").model)
    assert classifier.optimizer is None
    classifier, other = small("mmc"), small("mmc", scale=5.0)  # whose loss has another temperature
    classifier.set_params(model=other.model, loss=other.loss)
    np.testing.assert_array_equal(classifier.predict(batch[0]), other.predict(batch[0]))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.NLLLoss(), ReverseCrossEntropyLoss()])
def test_flags_survive_a_change_of_loss(loss):
    """ART neither sets them anew nor keeps them in a clone."""
    classifier = LossDefendedClassifier(small().model, nn.MultiMarginLoss(), INPUT_SHAPE, 10)
    classifier.set_params(loss=loss)
    for each in (classifier, classifier.clone_for_refitting(), copy.deepcopy(classifier)):
        flags = each._reduce_labels, each._int_labels, each._probability_labels
        assert flags == (True, True, not isinstance(loss, nn.NLLLoss))


def test_set_preprocessing(own, batch):
    plain = own.predict(batch[0])
    seen = ((batch[0] - np.float32(0.2)) / np.float32(0.5)).astype(np.float32)
    expected = own.predict(seen)
    own.set_params(preprocessing=(0.2, 0.5))
    np.testing.assert_allclose(own.predict(batch[0]), expected, rtol=1e-4, atol=1e-4)
    own.set_params(preprocessing=None, preprocessing_defences=FeatureSqueezing(clip_values=(0, 1), bit_depth=1))
    np.testing.assert_array_equal(own.predict(batch[0]), own.predict(np.rint(batch[0])))
    own.set_params(preprocessing_defences=None)
    np.testing.assert_array_equal(own.predict(batch[0]), plain)


# --- networks of the user's -------------------------------------------------------------------------------------------


class Doubled(nn.Sequential):
    """A Sequential whose own forward ART would ignore."""

    def __init__(self, width: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(x) - 1.0


def test_sequential_subclass_runs_its_own_forward(batch):
    x, y = batch
    net = Doubled()
    leaf = torch.tensor(x, requires_grad=True)
    logits = net(leaf)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, torch.tensor(y)), leaf)
    as_network = LossDefendedClassifier(net, nn.CrossEntropyLoss(), INPUT_SHAPE, 10, objective="loss")
    np.testing.assert_allclose(as_network.predict(x), logits.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(as_network.loss_gradient(x, y), gradient.numpy(), atol=1e-6)
    as_backbone = small("sce", backbone=Doubled(12))
    expected = as_backbone.model.head(as_backbone.model.backbone.module(torch.tensor(x)))
    np.testing.assert_allclose(as_backbone.predict(x), expected.detach().numpy(), atol=1e-6)


def test_ready_network_is_taken_as_it_is(batch):
    net = DefendedNet(Net(), FixedCentersHead(16, 10, scale=3.0))
    classifier = MMCClassifier(net, **SHAPE)
    assert classifier.model is net
    assert isinstance(classifier.loss, MMCLoss)
    assert classifier.loss.temperature == net.head.temperature
    assert {id(p) for g in classifier.optimizer.param_groups for p in g["params"]} == {id(p) for p in net.parameters()}


# --- messages ---------------------------------------------------------------------------------------------------------


def test_0_to_255_is_fine_where_clip_values_say_so(digits):
    x = digits.x_train[:8] * 255
    classifier = small("mmc", clip_values=(0, 255), mean=127.5, std=127.5)
    classifier.fit(x, digits.y_train[:8], nb_epochs=1)
    np.testing.assert_array_equal(classifier.predict(x.astype(np.uint8)), classifier.predict(np.floor(x)))
    small("mmc", preprocessing=(0.0, 255.0)).fit(x, digits.y_train[:8], nb_epochs=1)  # or where preprocessing scales it
    small("mmc", clip_values=None).fit(x, digits.y_train[:8], nb_epochs=1)  # or there is no box
    unit = (np.arange(64).reshape(1, 1, 8, 8) % 2).astype(np.int64)
    np.testing.assert_array_equal(classifier.predict(unit), classifier.predict(unit.astype(np.float32)))


BOUNDS = {"channel": (3, 1, 1), "element": (3, 8, 8), "batch": (1, 3, 1, 1)}


@pytest.mark.parametrize("shape", BOUNDS.values(), ids=BOUNDS)
def test_boxes_of_arrays(shape, tmp_path):
    """Each channel or element has bounds of its own: every example stays in them, and they come back from a file."""
    low, high = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    low.reshape(3, -1)[1], high.reshape(3, -1)[2] = -1.0, 3.0
    classifier = create_classifier("mmc", "cnn", input_shape=(3, 8, 8), nb_classes=10, clip_values=(low, high))
    rng = np.random.default_rng(0)
    x = (low + (high - low) * rng.random((8, 3, 8, 8))).astype(np.float32)
    y = np.arange(8)
    for bound, expected in zip(classifier.bounds(torch.tensor(x)), (low, high), strict=True):
        np.testing.assert_array_equal(bound.numpy(), expected)
    AdversarialLossTrainer(classifier, PGD(eps=0.3, steps=2), verbose=False).fit(x, y, nb_epochs=1, batch_size=4)
    pgd = ProjectedGradientDescent(classifier, eps=0.3, eps_step=0.2, max_iter=3, verbose=False)
    record = RobustnessEvaluation("quick", eps=0.3, diagnostics=False, verbose=False).evaluate(classifier, x, y)
    for x_adv in (pgd.generate(x, y), SPSA(classifier, eps=0.3, max_iter=2, verbose=False).generate(x, y)):
        assert (x_adv >= low - 1e-6).all()
        assert (x_adv <= high + 1e-6).all()
        assert 0.25 < np.abs(x_adv - x).max() < 0.3 + 1e-5
        assert ((x_adv < -0.1) | (x_adv > 1.1)).any()  # beyond the box of the others
    assert record.worst_case(0.3).n == 8
    classifier.save_checkpoint(tmp_path / "box.pt")
    np.testing.assert_array_equal(art_mmc.load_classifier(tmp_path / "box.pt").clip_values, (low, high))


# --- views ------------------------------------------------------------------------------------------------------------


def test_views_equal_their_classifier_and_no_other(own, batch):
    views = [own.with_objective("dlr"), own.with_probabilities(), own.with_objective("loss").with_objective("margin")]
    assert [view.objective for view in views] == ["dlr", "adaptive", "margin"]
    assert views[0].model is own.model
    assert views[0].optimizer is own.optimizer
    for view in views:
        assert view == own
        assert not (view != own)  # noqa: SIM202
        assert hash(view) == hash(own)
        with own.using_objective(view.objective):
            np.testing.assert_array_equal(view.loss_gradient(*batch), own.loss_gradient(*batch))
    assert len({own, *views}) == 1
    assert own.objective == "adaptive"
    assert copy.deepcopy(own) != own
    assert own != "a classifier"
    assert small(own.defence) != small(own.defence)


def test_copies_keep_classifier_and_view_together(own):
    pair = (own, own.with_objective("dlr"))
    for copied, view in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert copied == view
        assert copied != own
        assert view.objective == "dlr"


@pytest.mark.parametrize(("name", "part"), [("mmc", "base"), ("center", "view")])
def test_a_new_network_parts_views(part, own):
    view = own.with_objective("dlr")
    {"base": own, "view": view}[part].set_params(model=small(own.defence).model)
    assert view != own
    assert view.model is not own.model


@pytest.mark.parametrize(("name", "temperature"), [("mmc", 1.0), ("rce", 4), ("isce", 4)])
def test_view_with_probabilities(temperature, classifier, batch):
    x, y = batch
    view = classifier.with_probabilities(temperature)
    logits = classifier.predict(x).astype(np.float64) / temperature
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(view.predict(x), expected / expected.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)
    for objective in OBJECTIVE_NAMES:
        with view.using_objective(objective), classifier.using_objective(objective):
            np.testing.assert_array_equal(view.compute_loss(x, y), classifier.compute_loss(x, y))
            np.testing.assert_array_equal(view.loss_gradient(x, y), classifier.loss_gradient(x, y))
    np.testing.assert_array_equal(view.get_activations(x, "embedding"), classifier.get_activations(x, "embedding"))
    assert view.layer_names == classifier.layer_names
    # the gradient of a probability, not of a logit: over the classes they add up to nothing
    assert np.abs(view.class_gradient(x).sum(axis=1)).max() < 1e-4


def test_view_with_probabilities_trains_logits(digits):
    results = []
    for as_view in (False, True):
        torch.manual_seed(0)
        classifier = small("mmc", backbone=Net())
        torch.manual_seed(1)
        (classifier.with_probabilities() if as_view else classifier).fit(digits.x_train[:32], digits.y_train[:32])
        results.append(weights(classifier))
    assert same_weights(*results)


def test_files_and_copies_of_a_view_with_probabilities(own, batch, tmp_path):
    view = own.with_probabilities(3.0)
    view.save("view", str(tmp_path))
    view.save_checkpoint(tmp_path / "view.pt")
    other = small(own.defence)
    other.load("view", str(tmp_path))
    np.testing.assert_array_equal(other.predict(batch[0]), own.predict(batch[0]))
    np.testing.assert_array_equal(
        art_mmc.load_classifier(tmp_path / "view.pt").predict(batch[0]), own.predict(batch[0])
    )
    for copied in (copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        np.testing.assert_array_equal(copied.predict(batch[0]), view.predict(batch[0]))
    clone = view.clone_for_refitting()
    np.testing.assert_allclose(clone.predict(batch[0]).sum(axis=1), 1, rtol=1e-5)
    assert type(clone.model.network) is type(own.model)
    view.set_params(loss=copy.deepcopy(own.loss))
    np.testing.assert_allclose(view.predict(batch[0]).sum(axis=1), 1, rtol=1e-5)
