"""
The same results in less time: networks run in fewer operations, `accelerate`, and the arithmetics.

Oracles: the network itself in float64, where the order of operations does not show, and ART's own class bit for bit.
What is not computed is counted, since a clock is too noisy.
"""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import (
    BasicIterativeMethod,
    CarliniL2Method,
    DeepFool,
    FastGradientMethod,
    MomentumIterativeMethod,
    ProjectedGradientDescent,
)
from art.defences.preprocessor import FeatureSqueezing
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from art.estimators.classification import PyTorchClassifier
from art.preprocessing.expectation_over_transformation import EoTImageRotationPyTorch
from torch import nn
from torch.nn.utils import prune

import art_mmc
from art_mmc import LossDefendedClassifier, accelerate, create_classifier, load_classifier
from art_mmc.detectors import ConfidenceDetector, network_outputs
from art_mmc.evaluation import RobustnessEvaluation
from art_mmc.evaluation.engine import Target
from art_mmc.models import create_backbone
from art_mmc.models.features import logits_and_features
from art_mmc.models.inference import Prepared, convolution_weights, favours_channels_last
from art_mmc.state import seeded
from art_mmc.theory import rank_study
from art_mmc.trainers import LossTrainer
from tests.conftest import INPUT_SHAPE, Digits, assert_same, left_alone, one_hot, traces
from tests.planted import plain

ours_on = partial(plain, cls=LossDefendedClassifier)


def unsettle(network: nn.Module) -> nn.Module:
    """Batch statistics and affine parameters that are no round numbers."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
    return network


class Normed(nn.Module):
    """Convolutions with batch normalisation, ReLU and pooling in a Sequential, and a linear layer."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.out = nn.Linear(8 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.out.weight.dtype)  # some of ART's defences give float64
        return self.out(self.features(x).flatten(1))


class Viewing(Normed):
    """A network that takes no channels-last map and works in place on its input; it counts its passes."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        h = self.features(x.sub_(0.5))
        return self.out(h.view(len(h), -1))


def gradients(call: Any, x: torch.Tensor, learning: list[torch.Tensor]) -> list[torch.Tensor]:
    leaf = x.clone().requires_grad_(True)
    outputs = call(leaf)
    return [outputs, *torch.autograd.grad(outputs.square().sum(), [leaf, *learning])]


# --- fewer operations -------------------------------------------------------------------------------------------------


def sequence(dimensions: int, normed: bool) -> nn.Module:
    conv, norm = getattr(nn, f"Conv{dimensions}d"), getattr(nn, f"BatchNorm{dimensions}d")
    layers = [conv(3, 16, 3, bias=not normed), *[norm(16)] * normed, nn.ReLU(), conv(16, 4, 2), nn.ReLU()]
    return nn.Sequential(*layers)


#: what fewer operations may stand for, and the shape of its inputs
FUSED = {f"{d}d{'-normed' * n}": (partial(sequence, d, n), (3, *[7] * d)) for d in (1, 2, 3) for n in (False, True)}
FUSED |= {
    name: (partial(create_backbone, name, shape), shape)
    for shape, names in (
        ((1, 8, 8), ["cnn"]),
        ((1, 28, 28), ["lenet5"]),
        ((3, 32, 32), ["resnet20", "preact-resnet18", "vgg13", "mmc-resnet32v2"]),
    )
    for name in names
}


@pytest.mark.parametrize("name", FUSED)
def test_fewer_operations_give_the_same_values_and_gradients(name):
    """In float64, where another order of the sums does not show."""
    build, shape = FUSED[name]
    network = unsettle(build()).eval().double().requires_grad_(False)
    x = torch.rand(2 if len(shape) == 3 and shape[1] == 32 else 9, *shape, dtype=torch.float64)
    for a, b in zip(gradients(network, x, []), gradients(Prepared(network, fused=True), x, []), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-9 * a.abs().max().item())
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_folding_follows_the_weights():
    """Changes behind torch's back, which no version counter sees, count at once."""
    sequence, x = unsettle(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))).eval(), torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        for change in (
            lambda: sequence[0].weight.data.mul_(2),
            lambda: sequence[1].running_mean.add_(1),
            lambda: sequence.__setitem__(0, nn.Conv2d(1, 4, 3)),
        ):
            before = Prepared(sequence, fused=True)(x)
            change()
            after = Prepared(sequence, fused=True)(x)
            assert not torch.allclose(after, before)
            torch.testing.assert_close(after, sequence(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("kind", ["forward", "pre", "full backward"])
def test_hooks_run_and_see_what_they_would(kind, at):
    network = unsettle(nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))).eval()
    seen: list[torch.Tensor] = []
    hook = {
        "forward": lambda: network[at].register_forward_hook(lambda m, i, o: seen.append(o.detach().clone())),
        "pre": lambda: network[at].register_forward_pre_hook(lambda m, i: seen.append(i[0].detach().clone())),
        "full backward": lambda: network[at].register_full_backward_hook(lambda m, i, o: seen.append(o[0].clone())),
    }[kind]()
    x = torch.rand(9, 1, 12, 12)
    for call in (network, Prepared(network, fused=True)):
        gradients(call, x, [])
    hook.remove()
    assert len(seen) == 2
    torch.testing.assert_close(*seen, rtol=1e-5, atol=1e-5)


def test_global_hooks_see_every_module():
    network = unsettle(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).eval()
    seen: list[str] = []
    hook = nn.modules.module.register_module_forward_hook(lambda m, i, o: seen.append(type(m).__name__))
    with torch.no_grad():
        Prepared(network, fused=True)(torch.rand(2, 1, 8, 8))
    hook.remove()
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Sequential"]


# --- doubles of networks ----------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """Refers to its modules in every other way than as children."""

    __slots__ = ("at_last",)

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.tied = nn.Linear(6, 6)
        self.again = self.tied
        self.other = nn.Linear(6, 6)
        self.other.weight = self.tied.weight
        self.path = [self.norm, {"then": (self.tied,)}]
        self.weights = [self.tied.weight]
        self.drop = nn.Dropout(0.5)
        self.dropped = self.drop.forward  # a bound method
        self.act = lambda x: self.drop(x).relu()  # a closure
        self.part = partial(nn.functional.linear, weight=self.tied.weight)
        self.at_last = self.norm
        self.hidden = [nn.Dropout(0.5)]
        self.hidden[0].eval()
        plain = self.other.forward
        self.other.forward = lambda x: plain(self.drop(x))  # type: ignore[method-assign]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.path[1]["then"][0](self.path[0](x)) + self.again(x)  # type: ignore[index,operator]
        h = self.act(self.dropped(h)) + self.part(h) + x @ self.weights[0]
        return self.hidden[0](self.at_last(self.other(h)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 5, num_layers=2, dropout=0.5, batch_first=True)
        self.out = nn.Linear(5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x[:, None])[0][:, -1])


class Doubled(nn.Conv1d):
    """What is no plain module runs as it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def folding(conv: nn.Module | None = None, norm: nn.Module | None = None, inplace: bool = False) -> nn.Sequential:
    """Normalisation might be folded into the convolution before it."""
    layers = conv or nn.Conv1d(1, 4, 3), norm or nn.BatchNorm1d(4), nn.ReLU(inplace)
    return nn.Sequential(nn.Unflatten(1, (1, 6)), *layers, nn.Flatten())


#: networks that draw no random numbers
CERTAIN = ("shared", "folded", "in place", "subclass", "batch statistics", "instance")


def odd_networks() -> dict[str, nn.Module]:
    def dense() -> nn.Sequential:
        return nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 6))

    networks = {name: dense() for name in ("plain", "weight norm", "spectral norm", "parametrised", "pruned")}
    networks |= {"odd": Odd(), "recurrent": Recurrent(), "scripted": torch.jit.script(dense())}
    networks |= {"parallel": nn.DataParallel(dense()), "compiled": torch.compile(dense(), backend="eager")}
    networks |= {"compiled in place": dense()}
    networks["compiled in place"].compile(backend="eager")
    torch.nn.utils.weight_norm(networks["weight norm"][0])
    torch.nn.utils.spectral_norm(networks["spectral norm"][0])
    nn.utils.parametrizations.spectral_norm(networks["parametrised"][0])
    prune.random_unstructured(networks["pruned"][0], "weight", 0.5)
    shared = nn.ReLU()
    networks["shared"] = nn.Sequential(nn.Linear(6, 6), shared, nn.Linear(6, 6), shared)
    networks |= {"folded": folding(), "in place": folding(inplace=True), "subclass": folding(Doubled(1, 4, 3))}
    networks |= {"batch statistics": folding(norm=nn.BatchNorm1d(4, track_running_stats=False))}
    networks["instance"] = folding()
    plain = networks["instance"][1].forward
    networks["instance"][1].forward = lambda x: 3 * plain(x)  # type: ignore[method-assign]
    return networks


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("mode", "training"), [("train", False), ("eval", True), ("mixed", False), ("mixed", True)])
@pytest.mark.parametrize("name", odd_networks())
def test_double_of_any_network(name, mode, training):
    """Equal to a deep copy in the mode that is asked for; nothing of the network moves."""
    torch.manual_seed(0)
    network, x = odd_networks()[name], torch.randn(16, 6)
    network.train()
    for _ in range(20):  # spectral norms settle, batch statistics are no round numbers
        network(x)
    if name not in ("weight norm", "spectral norm", "pruned"):
        twin = copy.deepcopy(network)
    else:  # their hooks keep tensors that can't be copied: read the weights from a second network
        torch.manual_seed(0)
        twin = odd_networks()[name]
        twin.load_state_dict(network.state_dict())
    if isinstance(network, Odd):  # what a copy does not reach
        twin = None
    network.train(mode != "eval")
    if mode == "mixed":
        next(iter(network.children())).eval()
    before, results = traces(network), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(gradients(Prepared(network, training, fused=True), x, []))
    after = traces(network)
    for key in ("modes", "hooks", "state", "requires_grad", "gradients"):
        assert_same(before[key], after[key], key)
    random = training and name not in CERTAIN
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert torch.equal(results[0][0], results[2][0]) != random
    if twin is None:
        network.train(training)
        twin = network
    torch.manual_seed(1)
    expected = gradients(twin.train(training), x, [])
    for a, b in zip(results[0], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


class Stateful(nn.Module):
    """Counts its passes, keeps its features, and puts another buffer in the place of one."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.calls, self.kept = nn.Linear(6, 6), 0, None
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.asked = self.asked + len(x)
        self.kept = self.out(x)
        return self.kept


def test_what_a_forward_writes_reaches_the_network():
    network, x = nn.Sequential(Stateful()), torch.randn(3, 6, requires_grad=True)
    for _ in range(2):
        prepared = Prepared(network)
        prepared(x), prepared(x)
        assert network[0].kept.requires_grad
    assert (network[0].calls, network[0].asked.item()) == (4, 12)
    Prepared(network, training=True)(x)
    assert network[0].asked.item() == 12


def test_lazy_network_is_made_by_its_first_pass():
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.ReLU())
    x = torch.rand(3, 2, 2)
    first = Prepared(network)(x)
    assert type(network[1]) is nn.Linear
    assert torch.equal(Prepared(network)(x), first)


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_control")
def test_nothing_is_switched_while_a_call_runs(digits: Digits):
    """Deterministic: each public call is looked at from inside a pass, where another thread might be."""
    looks = []

    class Looking(Normed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            looks.append([(m.training, len(m._forward_hooks), "forward" in m.__dict__) for m in network.modules()])
            looks[-1] += [p.requires_grad for p in network.parameters()]
            return super().forward(x)

    network = unsettle(Looking())
    network.features[0].weight.requires_grad_(False)
    arts, ours = plain(network), ours_on(network, objective="loss")
    network.train()
    network.out.eval()
    expected = [(m.training, 0, False) for m in network.modules()] + [p.requires_grad for p in network.parameters()]
    x, y = digits.x_test[:12], digits.y_test[:12]
    detector = ConfidenceDetector(ours, layer="features")
    calls = [
        lambda: ours.predict(x),
        lambda: ours.predict(x, training_mode=True),
        lambda: ours.loss_gradient(x, y),
        lambda: ours.loss_gradient(x, y, training_mode=True),
        lambda: ours.class_gradient(x),
        lambda: ours.compute_loss(x, y),
        lambda: ours.get_activations(x, "features"),
        lambda: ours.get_activations(x, 0, framework=True),
        lambda: ours.custom_loss_gradient(torch.norm, x[:1], x[1:2], "features"),
        lambda: accelerate(arts).predict(x),
        lambda: network_outputs(arts, x, "features"),
        lambda: detector.outputs(x),
        lambda: RobustnessEvaluation("quick", eps=0.1, verbose=False).evaluate(arts, x, y),
        lambda: rank_study(arts, x, y, eps=[0.1], steps=2),
    ]
    for i, call in enumerate(calls):
        looks.clear()
        call()
        assert looks, i
        assert all(look == expected for look in looks), i


def test_a_call_in_one_thread_knows_nothing_of_another_s(digits: Digits):
    """A prediction waits in its first batch, in evaluation mode, while another thread crafts in training mode."""
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(Normed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if threading.current_thread() is not threading.main_thread() and not inside.is_set():
                inside.set()
                go_on.wait(10)
            return super().forward(x)

    classifier = ours_on(unsettle(Waiting(dropout=0.5)))
    x, found = digits.x_test[:9], []
    expected = classifier.predict(x, batch_size=3)
    thread = threading.Thread(target=lambda: found.append(classifier.predict(x, batch_size=3)))
    thread.start()
    assert inside.wait(10)
    with classifier.crafting(training_mode=True):
        go_on.set()
        thread.join()
    np.testing.assert_array_equal(found[0], expected)


# --- memory format ----------------------------------------------------------------------------------------------------


def test_rule_of_the_format():
    narrow, wide, dense = map(convolution_weights, ([nn.Conv2d(1, 4, 3)], [nn.Conv2d(512, 512, 3)], [nn.Linear(4, 4)]))
    x = torch.rand(4, 1, 8, 8)
    assert favours_channels_last(narrow, x)
    for weights, inputs in ((wide, x), (dense, x), (narrow, x.flatten(1)), (narrow, x.double())):
        assert not favours_channels_last(weights, inputs)


def test_network_that_takes_no_channels_last_is_asked_once():
    """`x.view` fails on such maps; from then on the network gets what it can take, and the second try the input."""
    network = unsettle(Viewing()).eval()
    classifier = ours_on(network, objective="loss")
    x, y = np.random.default_rng(0).random((9, *INPUT_SHAPE), np.float32), np.arange(9)
    network.calls = 0
    with torch.no_grad():
        expected = network(torch.tensor(x)).numpy()
    np.testing.assert_allclose(classifier.predict(x), expected, rtol=1e-4, atol=1e-4)
    assert network.calls == 3  # by hand, refused, and again
    np.testing.assert_allclose(classifier.predict(x), expected, rtol=1e-4, atol=1e-4)
    classifier.loss_gradient(x, y)
    assert network.calls == 5
    for fit in (classifier.fit, LossTrainer(classifier, verbose=False).fit):
        fit(x, y, nb_epochs=1)
        assert not any(module.training for module in network.modules())


def test_training_asks_without_a_trace():
    networks = unsettle(Viewing(dropout=0.5)), Normed()
    fails, takes = map(ours_on, networks)
    for i, module in enumerate(networks[0].modules()):
        module.training = i % 2 == 0
    x = torch.rand(4, 1, 8, 8)
    networks[0].calls = 0  # the network counts its passes by itself
    with left_alone(networks[0]):
        assert fails.laid_out(x) is x
    assert takes.laid_out(x).stride() == (64, 1, 8, 1)
    assert torch.equal(takes.laid_out(x), x)


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory, say")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Failing(), "out of memory"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Linear(5, 5).double()), "mat1 and mat2"),
    ],
    ids=["memory", "two types"],
)
def test_an_error_of_the_networks_own_is_raised(network, message):
    with pytest.raises(RuntimeError, match=message):
        ours_on(network).predict(np.zeros((2, *INPUT_SHAPE), np.float32))


# --- the arithmetics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["fast", "exact", "bfloat16"])
def test_arithmetics_agree(arithmetic, digits: Digits):
    network = unsettle(Normed(dropout=0.3))
    classifier = ours_on(network, objective="loss", arithmetic=arithmetic)
    x, y = digits.x_test[:20], digits.y_test[:20]
    double = copy.deepcopy(network).double().eval()
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    logits = double(leaf)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, torch.tensor(y)), leaf)
    rtol = 0.05 if arithmetic == "bfloat16" else 1e-4
    atol = rtol * logits.abs().max().item()
    np.testing.assert_allclose(classifier.predict(x), logits.detach().numpy(), atol=atol)
    assert classifier.predict(x).dtype == np.float32
    ours = classifier.loss_gradient(x, y)
    assert ours.dtype == np.float32
    cosine = (ours * gradient.numpy()).sum() / np.linalg.norm(ours) / np.linalg.norm(gradient.numpy())
    assert cosine > (0.98 if arithmetic == "bfloat16" else 1 - 1e-6)
    if arithmetic == "bfloat16":
        assert not np.allclose(classifier.predict(x), logits.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bfloat16_on_a_processor_without_instructions_for_it_is_warned_of(has_instructions, monkeypatch, caplog):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_instructions)
    classifier = ours_on(unsettle(Normed()), arithmetic="bfloat16")
    LossTrainer(classifier, precision="bfloat16")
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    assert told == ([] if has_instructions else ["arithmetic='bfloat16'", "precision='bfloat16'"])


def test_compiled_network_gives_the_same(digits: Digits):
    network = unsettle(Normed())
    usual = ours_on(network)
    compiled = accelerate(usual, "adaptive", compile="aot_eager")
    x, y = digits.x_test[:9], digits.y_test[:9]
    for _ in range(2):
        np.testing.assert_allclose(compiled.class_gradient(x), usual.class_gradient(x), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(compiled.predict(x), usual.predict(x), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(compiled.loss_gradient(x, y), usual.loss_gradient(x, y), rtol=1e-3, atol=1e-5)
        network.features[0].weight.data.mul_(1.5)
    assert compiled._compiled is not None
    assert network._compiled_call_impl is None  # it would run the double, which has no gradients, in a training too
    pickle.dumps(compiled)


def test_fast_training_is_exact_training_to_within_rounding(digits: Digits):
    """One step of SGD; Adam's first would blow up roundings of gradients near zero."""
    x, y = digits.x_train[:32], digits.y_train[:32]
    start = unsettle(Normed())
    results = []
    for arithmetic in ("exact", "fast"):
        network = copy.deepcopy(start)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        classifier = ours_on(network, optimizer=optimizer, arithmetic=arithmetic)
        classifier.fit(x, y, batch_size=32, nb_epochs=1)
        results.append(network.state_dict())
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-5)
        assert key.endswith("num_batches_tracked") or not torch.equal(value, start.state_dict()[key])


# --- accelerate -------------------------------------------------------------------------------------------------------

ATTACKS: dict[str, tuple[type, dict[str, Any]]] = {
    "FGSM": (FastGradientMethod, {"eps": 0.1}),
    "BIM": (BasicIterativeMethod, {"eps": 0.1, "eps_step": 0.03, "max_iter": 3, "verbose": False}),
    "MIM": (MomentumIterativeMethod, {"eps": 0.1, "eps_step": 0.03, "max_iter": 3, "verbose": False}),
    "PGD": (ProjectedGradientDescent, {"eps": 0.1, "max_iter": 3, "num_random_init": 1, "verbose": False}),
    "PGD-2": (ProjectedGradientDescent, {"norm": 2, "eps": 0.5, "eps_step": 0.1, "max_iter": 3, "verbose": False}),
    "C&W": (
        CarliniL2Method,
        {"max_iter": 4, "binary_search_steps": 2, "initial_const": 1e3, "learning_rate": 0.1, "verbose": False},
    ),
    "DeepFool": (DeepFool, {"max_iter": 3, "batch_size": 8, "verbose": False}),
}


def users(kind: str, digits: Digits) -> PyTorchClassifier:
    """A classifier as a user of ART has it."""
    torch.manual_seed(0)
    net: nn.Module = Normed()
    if kind == "sequential":
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    squeezing = FeatureSqueezing(clip_values=(0, 1), bit_depth=4)
    more: dict[str, Any] = {
        "tuple": {"preprocessing": (0.3, 0.7)},
        "none": {"preprocessing": None},
        "squeezing": {"preprocessing": None, "preprocessing_defences": squeezing},
    }.get(kind, {})
    classifier = plain(net, optimizer=torch.optim.Adam(net.parameters(), lr=0.01), **more)
    classifier.fit(digits.x_train[:128], one_hot(digits.y_train[:128]), batch_size=32, nb_epochs=3)
    return classifier


@pytest.mark.parametrize(
    ("kind", "attack"),
    [
        *(("tuple", attack) for attack in ATTACKS),
        *((kind, "PGD") for kind in ("module", "sequential", "none", "squeezing")),
    ],
)
def test_adversarial_examples_are_arts_bit_for_bit(kind, attack, digits: Digits):
    arts = users(kind, digits)
    ours = accelerate(arts, arithmetic="exact")
    cls, arguments = ATTACKS[attack]
    x, y = digits.x_test[:8], one_hot(digits.y_test[:8])
    results = []
    for classifier in (arts, ours):
        np.random.seed(0)
        torch.manual_seed(0)
        results.append(cls(classifier, **arguments).generate(x, y))
    np.testing.assert_array_equal(results[1], results[0])
    assert not np.array_equal(results[0], x)


def test_accelerate_shares_and_leaves_the_network_as_it_is(digits: Digits):
    arts = users("module", digits)
    arts.model.train()
    arts.model.out.eval()
    with left_alone(arts.model), seeded(0):  # ART's PGD draws numbers
        ours = accelerate(arts)
        ProjectedGradientDescent(ours, eps=0.1, max_iter=2, verbose=False).generate(digits.x_test[:4])
    assert ours.model is arts.model
    assert ours.optimizer is arts.optimizer
    assert ours.loss is arts.loss
    assert (ours.objective, ours.arithmetic, ours.compile) == ("loss", "fast", False)
    assert ours.preprocessing_operations == []  # ART's default subtracts 0 and divides by 1
    before = arts.predict(digits.x_test[:4])
    ours.fit(digits.x_train[:32], digits.y_train[:32], nb_epochs=1)
    assert not np.array_equal(arts.predict(digits.x_test[:4]), before)


def test_accelerate_of_our_own_is_itself_or_a_view():
    ours = create_classifier("sce", "cnn", input_shape=INPUT_SHAPE, nb_classes=10, objective="loss")
    assert accelerate(ours) is ours
    view = accelerate(ours, "dlr")
    assert (view.objective, view == ours, view is ours) == ("dlr", True, False)
    exact = accelerate(ours, arithmetic="exact")
    assert (exact.arithmetic, ours.arithmetic, exact.model is ours.model) == ("exact", "fast", True)
    assert accelerate(exact).arithmetic == "exact"


class Wrapping(PyTorchClassifier):
    """As ART's class for networks of transformers: a wrapper of its own."""

    def _make_model_wrapper(self, model: nn.Module) -> nn.Module:
        return super()._make_model_wrapper(model)


class Reversed(nn.Sequential):
    """ART runs its children: on the network itself it would be another classifier."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -super().forward(x)


def test_accelerate_refuses_what_is_more_than_a_network():
    optimizer = torch.optim.Adam(Normed().parameters())
    for given, message in (
        (plain(Normed(), PyTorchRandomizedSmoothing, optimizer=optimizer), "Smoothing has its own .*predict"),
        (plain(Normed(), Wrapping), "Wrapping has its own _make_model_wrapper"),
        (plain(Reversed(nn.Flatten(), nn.Linear(64, 10))), "PyTorchClassifier has its own ModelWrapper"),
        (nn.Linear(2, 2), "expected an ART PyTorchClassifier, got Linear"),
    ):
        with pytest.raises(TypeError, match=message):
            accelerate(given)
    assert art_mmc.accelerate is accelerate


class Inverting(PyTorchClassifier):
    def _apply_preprocessing(self, x: Any, y: Any, fit: bool = False, no_grad: bool = True) -> tuple[Any, Any]:
        return super()._apply_preprocessing(1 - x, y, fit=fit, no_grad=no_grad)


class Doubling(PyTorchClassifier):
    def _apply_postprocessing(self, preds: Any, fit: bool) -> np.ndarray:
        return 2 * super()._apply_postprocessing(preds, fit)


def assert_arts(arts: PyTorchClassifier, ours: PyTorchClassifier, x: np.ndarray, y: np.ndarray, *more: Any) -> None:
    """Values and gradients bit for bit, and what else is called, random numbers included."""
    calls = [lambda c: c.predict(x), lambda c: c.loss_gradient(x, y), lambda c: c.class_gradient(x)]
    calls += [lambda c, reduction=each: c.compute_loss(x, y, reduction) for each in ("none", "mean")]
    for call in (*calls, *more):
        results = []
        for classifier in (arts, ours):
            with seeded(0):
                results.append(call(classifier))
        np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.parametrize("kind", ["preprocessing", "postprocessing", "on the object"])
def test_accelerate_keeps_what_a_class_does_itself(kind, digits: Digits):
    """Values of ART's class through the user's own method, also where the evaluation attacks."""
    arts = plain(
        unsettle(Normed()), {"preprocessing": Inverting, "postprocessing": Doubling}.get(kind, PyTorchClassifier)
    )
    if kind == "on the object":
        arts._apply_preprocessing = lambda x, y, fit=False, no_grad=True: (1 - x, y)
    ours = accelerate(arts, arithmetic="exact")
    x, y = digits.x_test[:6], one_hot(digits.y_test[:6])
    assert_arts(arts, ours, x, y)
    again = copy.deepcopy(ours) if kind == "on the object" else pickle.loads(pickle.dumps(copy.deepcopy(ours)))
    np.testing.assert_array_equal(again.predict(x), arts.predict(x))
    target = Target(arts, x)
    np.testing.assert_array_equal(target.predict(x), arts.predict(x))
    expected = accelerate(arts, "margin").loss_gradient(x, y)
    np.testing.assert_array_equal(target.view("margin").loss_gradient(x, y), expected)


def test_the_evaluation_attacks_a_sequence_as_art_runs_it():
    arts = plain(Reversed(nn.Flatten(), nn.Linear(64, 10)))
    x, y = np.random.default_rng(0).random((4, *INPUT_SHAPE), np.float32), np.eye(10, dtype=np.float32)[:4]
    view = Target(arts, x).view("loss")
    np.testing.assert_allclose(view.predict(x), arts.predict(x), rtol=1e-5)
    np.testing.assert_allclose(view.loss_gradient(x, y), arts.loss_gradient(x, y), rtol=1e-3, atol=1e-6)


def test_layers_of_a_sequence_keep_their_places(tmp_path):
    """Indices, names and files are ART's; activations too, of a layer that is there twice as well."""
    relu = nn.ReLU()
    named = OrderedDict(
        conv=nn.Conv2d(1, 4, 3), norm=nn.BatchNorm2d(4), one=relu, flat=nn.Flatten(), out=nn.Linear(144, 10)
    )
    x = np.random.default_rng(0).random((5, *INPUT_SHAPE), np.float32)
    for network in (nn.Sequential(named), nn.Sequential(*named.values(), relu, nn.Linear(10, 10))):
        unsettle(network)
        arts = plain(network)
        ours = accelerate(arts)
        assert ours.layer_names == arts.layer_names
        for i in [*range(5), -1]:
            expected = arts.get_activations(x, i)
            np.testing.assert_allclose(ours.get_activations(x, i), expected, rtol=1e-4, atol=1e-5)
            found = ours.get_activations(x, arts.layer_names[i], batch_size=2)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        arts.save("net", str(tmp_path))
        fresh = ours_on(copy.deepcopy(network))
        nn.init.zeros_(fresh.model[0].weight)
        fresh.load("net", str(tmp_path))
        np.testing.assert_allclose(fresh.predict(x), arts.predict(x), rtol=1e-4, atol=1e-5)
        nn.init.zeros_(network[0].weight)
        fresh.save("ours", str(tmp_path))
        network.load_state_dict(torch.load(tmp_path / "ours.model", weights_only=True))
        np.testing.assert_allclose(fresh.predict(x), arts.predict(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("attack", "samples"), [("FGSM", 1), ("PGD", 3)])
def test_many_samples_of_one_input_as_on_arts_class(samples, attack, digits: Digits):
    """Expectation over transformation: values and attacks bit for bit."""
    eot = EoTImageRotationPyTorch(nb_samples=samples, clip_values=(0, 1), angles=30.0)
    arts = plain(unsettle(Normed()), preprocessing_defences=eot)
    x, y = digits.x_test[:5], digits.y_test[:5]
    cls, arguments = ATTACKS[attack]
    attacked = lambda c: cls(c, **arguments).generate(x, one_hot(y))  # noqa: E731
    assert_arts(arts, accelerate(arts, arithmetic="exact"), x, one_hot(y), attacked)
    defended = create_classifier(
        "mmc", "cnn", input_shape=INPUT_SHAPE, nb_classes=10, preprocessing_defences=eot, device_type="cpu"
    )
    assert defended.loss_gradient(x, y).shape == x.shape
    assert defended.class_gradient(x, label=y).shape == (5, 1, *INPUT_SHAPE)


def test_network_that_works_in_place(digits: Digits):
    """Bit for bit as on ART's class, the inputs left alone, also tensors."""

    class InPlace(Normed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.sub_(0.5).relu_())

    arts = plain(unsettle(InPlace()))
    x, y = digits.x_test[:5].copy(), one_hot(digits.y_test[:5])
    exact = accelerate(arts, arithmetic="exact")
    assert_arts(arts, exact, x, y)
    leaf = torch.tensor(x, requires_grad=True)
    for ours in (exact, accelerate(arts)):
        with ours.crafting():
            assert torch.autograd.grad(ours.forward(leaf).sum(), leaf)[0].abs().max() > 0
        ours.compute_loss(leaf, torch.tensor(y))
        logits_and_features(arts.model, leaf, arts.model.features)
        network_outputs(arts, x, "features")
    np.testing.assert_array_equal(leaf.detach(), x)
    np.testing.assert_array_equal(x, digits.x_test[:5])


def test_gradients_inside_inference_mode_are_refused_in_a_sentence(digits: Digits):
    classifier = create_classifier("sce", "cnn", input_shape=INPUT_SHAPE, nb_classes=10, device_type="cpu")
    x, y = digits.x_test[:4], digits.y_test[:4]
    with torch.inference_mode():
        expected = classifier.predict(x)
        kept = torch.tensor(x)
        with pytest.raises(RuntimeError, match=r"gradients can't be computed inside torch\.inference_mode"):
            FastGradientMethod(classifier, eps=0.1).generate(x, y)
        with torch.inference_mode(False):
            FastGradientMethod(classifier, eps=0.1).generate(x, y)
    np.testing.assert_array_equal(classifier.predict(x), expected)
    assert classifier.loss_gradient(kept, torch.tensor(y)).shape == x.shape


@pytest.mark.parametrize(("written", "read"), [("compiled", "plain"), ("plain", "compiled"), ("before", "compiled")])
def test_files_of_compiled_backbones(written, read, tmp_path, digits: Digits):
    """Under plain names, into either kind; and those with torch's prefix, as they were once written."""

    def made(kind: str) -> LossDefendedClassifier:
        backbone: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        backbone = torch.compile(backbone, backend="eager") if kind != "plain" else backbone
        return create_classifier("sce", backbone, input_shape=INPUT_SHAPE, nb_classes=10, device_type="cpu")

    first, second, x = made(written), made(read), digits.x_test[:4]
    first.save_checkpoint(tmp_path / "net.pt")
    first.save("net", str(tmp_path))
    if written == "before":
        payload = torch.load(tmp_path / "net.pt", weights_only=True)
        payload["state"] = first.model.state_dict()
        torch.save(payload, tmp_path / "net.pt")
        torch.save(payload["state"], tmp_path / "net.model")
    else:
        assert not any("_orig_mod" in name for name in torch.load(tmp_path / "net.pt", weights_only=True)["state"])
    second.load("net", str(tmp_path))
    loaded = load_classifier(tmp_path / "net.pt", backbone=made(read).model.backbone.module)
    for other in (second, loaded):
        np.testing.assert_allclose(other.predict(x), first.predict(x), rtol=1e-5, atol=1e-6)


def test_auxiliary_outputs_are_seen_at_once(digits: Digits):
    class Aux(nn.Module):
        def __init__(self, wide: bool = False) -> None:
            super().__init__()
            self.out, self.wide = nn.Linear(64, 10), wide

        def forward(self, x: torch.Tensor) -> Any:
            z = self.out(x.flatten(1))
            if not self.training:
                return z
            return torch.cat([z, z], dim=1) if self.wide else (z, z)

    with pytest.raises(TypeError, match="returned a tuple in training mode; take its auxiliary outputs off"):
        create_classifier("sce", Aux(), input_shape=INPUT_SHAPE, nb_classes=10)
    with pytest.raises(ValueError, match=r"\(2, 10\) in evaluation mode and \(2, 20\) in training mode"):
        create_classifier("sce", Aux(wide=True), input_shape=INPUT_SHAPE, nb_classes=10)
    with pytest.raises(TypeError, match="the network returned a tuple; take its auxiliary outputs off"):
        ours_on(Aux()).fit(digits.x_train[:8], digits.y_train[:8], nb_epochs=1)


# --- work that nobody reads, counted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 100])
def test_class_gradients_in_parts_and_one_by_one(count, digits: Digits, monkeypatch):
    """However many gradients are computed at once, and where torch can't run an operation for several."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return 3 * x

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return torch.from_numpy(3 * grad.numpy())

    class Net(Normed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(Own.apply(x))

    x = digits.x_test[:4]
    for net in (unsettle(Normed()), unsettle(Net())):
        classifier = ours_on(net)
        expected = accelerate(classifier, "adaptive", "exact").class_gradient(x)
        monkeypatch.setitem(art_mmc.classifiers.base._GRADIENTS_AT_ONCE, "cpu", 4 * count)
        np.testing.assert_allclose(classifier.class_gradient(x), expected, rtol=1e-3, atol=1e-5)


def test_normalisation_is_folded(digits: Digits):
    """Counted by the operations that torch ran."""
    classifier = accelerate(users("module", digits))
    classifier.predict(digits.x_test[:8])  # the question whether it takes channels-last images runs it as it is
    with torch.profiler.profile() as profile:
        classifier.loss_gradient(digits.x_test[:8], digits.y_test[:8])
    names = [event.name for event in profile.events()]
    assert "aten::convolution_backward" in names
    assert not any("batch_norm" in name for name in names)


def test_doubles_do_not_wait_for_the_garbage_collector(digits: Digits, monkeypatch):
    """Their folded weights would fill the memory of a GPU, of which Python's collector knows nothing."""
    made, init = [], Prepared.__init__
    monkeypatch.setattr(
        Prepared, "__init__", lambda self, *a, **k: (init(self, *a, **k), made.append(weakref.ref(self)))[0]
    )
    classifier, x, y = accelerate(users("module", digits)), digits.x_test[:8], digits.y_test[:8]
    gc.disable()
    try:
        classifier.predict(x), classifier.loss_gradient(x, y), classifier.class_gradient(x)
        classifier.get_activations(x, 0), classifier.compute_loss(x, y)
        assert [each() for each in made] == [None] * 5
    finally:
        gc.enable()
