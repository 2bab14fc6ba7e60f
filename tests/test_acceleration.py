"""
The same results in less time: networks run in fewer operations, `accelerate`, and the arithmetics.

Oracles: the network itself in float64, where the order of operations does not show, and ART's own class bit for bit.
What is not computed is counted, since a clock is too noisy.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
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
from torch import nn

import art_mmc
from art_mmc import LossDefendedClassifier, accelerate, create_classifier
from art_mmc.models import create_backbone, passes
from art_mmc.models.blocks import pooled_blocks
from art_mmc.models.passes import (
    channels_last,
    favours_channels_last,
    fewer_operations,
    run,
    run_residual,
    run_sequence,
    takes_channels_last,
)
from art_mmc.models.resnets import Residual
from tests.conftest import INPUT_SHAPE, Digits


def one_hot(y: np.ndarray) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[y]


def unsettle(network: nn.Module) -> nn.Module:
    """Batch statistics and affine parameters that are no round numbers."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
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
    """A network that takes no channels-last map; it counts its passes."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        h = self.features(x)
        return self.out(h.view(len(h), -1))


def gradients(call: Any, x: torch.Tensor, learning: list[torch.Tensor]) -> list[torch.Tensor]:
    leaf = x.clone().requires_grad_(True)
    outputs = call(leaf)
    return [outputs, *torch.autograd.grad(outputs.square().sum(), [leaf, *learning])]


# --- fewer operations -------------------------------------------------------------------------------------------------

#: kernel, padding, side of the map, normalised, learning
BLOCKS = list(itertools.product((3, 5, 7), (0, 2), (14, 15), (False, True), (False, True)))


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize(("kernel", "padding", "side", "normed", "learning"), BLOCKS)
def test_sequence_gives_the_same_values_and_gradients(kernel, padding, side, normed, learning, last):
    """In float64, where another order of the sums does not show; for one channel and for three."""
    for into, out in ((1, 6), (3, 16)):
        norm = [nn.BatchNorm2d(out)] if normed else []
        conv = nn.Conv2d(into, out, kernel, padding=padding, bias=not normed)
        sequence = unsettle(nn.Sequential(conv, *norm, nn.ReLU(), nn.MaxPool2d(2))).eval().double()
        sequence.requires_grad_(learning)
        given = torch.rand(9, into, side, 16, dtype=torch.float64)
        x = channels_last(given) if last else given
        parameters = list(sequence.parameters()) if learning else []
        blocks = passes._suits_blocks(conv, conv.weight, conv.bias, sequence[-1], x.requires_grad_(True))
        assert blocks == (not learning and kernel > 3 and side % 2 == 0)
        plain, fast = (
            gradients(lambda v, f=f: f(channels_last(v) if last else v), given, parameters)
            for f in (sequence, partial(run_sequence, sequence))
        )
        for a, b in zip(plain, fast, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            torch.testing.assert_close(run_sequence(sequence, x), plain[0].detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("learns", ["bias", "norm"])
def test_what_learns_beside_a_frozen_weight_gets_its_gradient(learns):
    """Step after step: nothing is kept from one to the next that hangs on what learns."""
    conv = nn.Conv2d(1, 3, 5, padding=2)
    norm = [nn.BatchNorm2d(3)] if learns == "norm" else []
    sequence = unsettle(nn.Sequential(conv, *norm, nn.ReLU(), nn.MaxPool2d(2))).eval().double().requires_grad_(False)
    learning = [conv.bias] if learns == "bias" else list(norm[0].parameters())
    for parameter in learning:
        parameter.requires_grad_(True)
    x = torch.rand(9, 1, 12, 12, dtype=torch.float64)
    for _ in range(2):
        plain, fast = (gradients(f, x, learning) for f in (sequence, partial(run_sequence, sequence)))
        for a, b in zip(plain, fast, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("into", [1, 6, 16])
@pytest.mark.parametrize("learning", [False, True])
def test_pooled_gradient_goes_to_the_first_of_equal_numbers(into, learning):
    """Whole numbers, so that most windows have ties; torch's pooling is the oracle, bit for bit."""
    conv, pool = nn.Conv2d(into, 6, 5, padding=2).requires_grad_(learning), nn.MaxPool2d(2)
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-1, 2, conv.weight.shape))
        conv.bias.copy_(torch.randint(-1, 2, conv.bias.shape))
    sequence = nn.Sequential(conv, nn.ReLU(), pool)
    x = torch.randint(0, 3, (9, into, 12, 12)).float()
    weights = torch.randint(1, 1000, (9, 6, 6, 6)).float()
    results = []
    for call in (sequence, lambda v: run_sequence(sequence, v)):
        leaf = x.clone().requires_grad_(True)
        outputs = call(channels_last(leaf))
        results.append((outputs, torch.autograd.grad((weights * outputs).sum(), leaf)[0]))
    assert (results[0][0] == 0).float().mean() < 0.9
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


#: channels, kernel, padding: of one channel onto a map of the same size, of one onto another size, of several
BY_BLOCKS = [(1, 5, 2), (1, 5, 0), (1, 7, 2), (2, 5, 2)]


def convolved_by_blocks(into: int, kernel: int, padding: int) -> Any:
    conv = nn.Conv2d(into, 3, kernel, padding=padding).double().requires_grad_(False)
    return partial(pooled_blocks, conv, conv.weight, conv.bias)


@pytest.mark.parametrize(("into", "kernel", "padding"), BY_BLOCKS)
def test_gradients_of_blocks_by_differences(into, kernel, padding):
    """First and second, as an attack that differentiates a gradient takes them."""
    run = convolved_by_blocks(into, kernel, padding)
    x = torch.rand(2, into, 8, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, x)
    assert torch.autograd.gradgradcheck(lambda v: run(v) ** 2, x, fast_mode=True)


@pytest.mark.parametrize(("into", "kernel", "padding"), BY_BLOCKS)
def test_several_gradients_of_blocks_at_once(into, kernel, padding):
    run = convolved_by_blocks(into, kernel, padding)
    x = torch.rand(2, into, 8, 10, dtype=torch.float64, requires_grad=True)
    outputs = run(x).flatten()
    directions = torch.randn(3, len(outputs), dtype=torch.float64)
    together = torch.autograd.grad(outputs, x, directions, retain_graph=True, is_grads_batched=True)[0]
    for direction, grad in zip(directions, together, strict=True):
        torch.testing.assert_close(grad, torch.autograd.grad(outputs, x, direction, retain_graph=True)[0])


@pytest.mark.parametrize("into", [1, 2])
def test_blocks_of_any_memory(into):
    """Parts of an array, that start anywhere in it: not all pairs of numbers there can be taken for complex ones."""
    run = convolved_by_blocks(into, 5, 2)
    stored = torch.rand(1 + 5 * 2 * 12 * 14, dtype=torch.float64)
    maps = stored[1:].view(5, 2, 12, 14)[1:, :into]
    parts = [maps, maps[:, :, 1:9, 3:11], maps.transpose(2, 3), maps[:1].expand(4, -1, -1, -1), channels_last(maps)]
    for part in parts:
        torch.testing.assert_close(run(part), run(part.clone(memory_format=torch.contiguous_format)))


@pytest.mark.parametrize("bias", [False, True])
def test_blocks_follow_the_weights(bias):
    """The kernel for blocks is kept; yet a change that no version counter sees, behind torch's back, counts at once."""
    conv = unsettle(nn.Conv2d(1, 3, 5, padding=2, bias=bias)).requires_grad_(False)
    pool = nn.MaxPool2d(2)
    x = torch.rand(9, 1, 8, 8)
    changes = [lambda: conv.weight.data.mul_(-2), lambda: conv.weight.data[0, 0, 0, 0].add_(1), lambda: conv.double()]
    if bias:
        changes += [lambda: conv.bias.data.add_(1), lambda: setattr(conv, "bias", None)]
    for change in (lambda: None, *changes):
        change()
        x = x.to(conv.weight.dtype)
        for _ in range(2):
            found = pooled_blocks(conv, conv.weight, conv.bias, x)
            torch.testing.assert_close(found, pool(conv(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_blocks_in_bfloat16(autocast):
    conv = nn.Conv2d(1, 6, 5, padding=2).requires_grad_(False)
    x = torch.rand(9, 1, 12, 12).requires_grad_(True)
    plain = torch.autograd.grad(nn.functional.max_pool2d(conv(x), 2).sum(), x)[0]
    kind = torch.float32 if autocast else torch.bfloat16
    conv, x = conv.to(kind), x.detach().to(kind).requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = pooled_blocks(conv, conv.weight, conv.bias, x)
    assert outputs.dtype == torch.bfloat16
    grad = torch.autograd.grad(outputs.float().sum(), x)[0]
    assert grad.dtype == kind
    # a window's maximum may move where two are equal to 8 bits
    assert (grad.float() - plain).abs().mean() < 0.05 * plain.abs().mean()


@pytest.mark.parametrize("name", ["cnn", "lenet5", "resnet20", "preact-resnet18", "vgg13", "mmc-resnet32v2"])
def test_backbones_give_the_same(name):
    shape = (1, 28, 28) if name == "lenet5" else (1, 8, 8) if name == "cnn" else (3, 32, 32)
    network = unsettle(create_backbone(name, shape)).eval().double().requires_grad_(False)
    x = torch.rand(2 if name != "lenet5" else 9, *shape, dtype=torch.float64)
    plain = gradients(network, x, [])
    with fewer_operations(list(network.modules())):
        fast = gradients(network, x, [])
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-9 * a.abs().max().item())
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_folding_follows_the_weights():
    """Changes behind torch's back, which no version counter sees, count at once."""
    sequence = unsettle(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))).eval()
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad(), fewer_operations([sequence]):
        for change in (
            lambda: sequence[0].weight.data.mul_(2),
            lambda: sequence[1].running_mean.add_(1),
            lambda: sequence[1].weight.data.fill_(0.3),
            lambda: sequence.__setitem__(0, nn.Conv2d(1, 4, 3)),
        ):
            before = sequence(x)
            change()
            assert not torch.allclose(sequence(x), before)
            torch.testing.assert_close(sequence(x), sequence[1](sequence[0](x)), rtol=1e-5, atol=1e-5)


def test_single_modules_are_not_touched():
    """A network may take what lies between convolution and normalisation."""
    sequence = unsettle(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))).eval()
    x = torch.rand(3, 1, 8, 8)
    expected = sequence[0](x), sequence[1](x.expand(3, 4, 8, 8)), sequence[:1](x)
    with fewer_operations([sequence]):
        got = sequence[0](x), sequence[1](x.expand(3, 4, 8, 8)), sequence[:1](x)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


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
    for call in (network, lambda v: run_sequence(network, v)):
        gradients(call, x, [])
    hook.remove()
    assert len(seen) == 2
    torch.testing.assert_close(*seen, rtol=1e-5, atol=1e-5)


def test_what_a_hook_has_kept_is_not_overwritten():
    """ReLU and sum work in place only where nobody else holds their input."""
    block = Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)), after=nn.ReLU())
    network = unsettle(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), block)).eval()
    kept: list[torch.Tensor] = []
    watched = [network[0], block.branch, block.branch[1], network[1]]
    x = torch.randn(2, 2, 6, 6)
    for module in watched:
        hook = module.register_forward_hook(lambda m, i, o: kept.extend([o, o.clone()]))
        with torch.no_grad(), fewer_operations(list(network.modules())):
            network(x)
        hook.remove()
    assert len(kept) == 2 * len(watched)
    for now, then in zip(kept[::2], kept[1::2], strict=True):
        assert torch.equal(now, then)


def test_global_hooks_see_every_module():
    network = unsettle(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).eval()
    seen: list[str] = []
    hook = nn.modules.module.register_module_forward_hook(lambda m, i, o: seen.append(type(m).__name__))
    with torch.no_grad(), fewer_operations([network]):
        network(torch.rand(2, 1, 8, 8))
    hook.remove()
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Sequential"]


@pytest.mark.parametrize("kind", ["subclass", "instance", "statistics of the batch", "training", "in place"])
def test_what_is_no_plain_module_runs_as_it_is(kind):
    class Doubled(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    conv: nn.Module = Doubled(1, 4, 3) if kind == "subclass" else nn.Conv2d(1, 4, 3)
    norm = nn.BatchNorm2d(4, track_running_stats=kind != "statistics of the batch")
    network = unsettle(nn.Sequential(conv, norm, nn.ReLU(inplace=kind == "in place"), nn.MaxPool2d(2))).eval()
    if kind == "instance":
        plain = conv.forward
        conv.forward = lambda x: 3 * plain(x)  # type: ignore[method-assign]
    norm.training = kind == "training"
    x = torch.rand(9, 1, 8, 8)
    statistics = copy.deepcopy(norm.state_dict())
    with torch.no_grad():
        expected = network(x)
        norm.load_state_dict(statistics)
        torch.testing.assert_close(run_sequence(network, x), expected, rtol=1e-5, atol=1e-5)


def test_residual_unit_leaves_its_input_alone():
    for branch in (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1)), nn.Sequential(nn.ReLU()), nn.Identity()):
        unit = Residual(branch, after=nn.ReLU()).double()
        x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
        kept = x.clone()
        for a, b in zip(gradients(unit, x, []), gradients(lambda v, u=unit: run_residual(u, v), x, []), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(x, kept)


def test_passes_nest_and_come_off_after_an_error():
    network = unsettle(Normed()).eval()
    modules = list(network.modules())

    def fail() -> None:
        with fewer_operations(modules):
            with fewer_operations(modules):
                assert "forward" in network.features.__dict__
            assert "forward" in network.features.__dict__
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any("forward" in module.__dict__ for module in modules)


def test_threads_at_once():
    """One leaves while the other is in the middle of its pass."""
    classifier = LossDefendedClassifier(unsettle(Normed()), nn.CrossEntropyLoss(), INPUT_SHAPE, 10)
    x = np.random.default_rng(0).random((9, *INPUT_SHAPE), np.float32)
    expected = classifier.predict(x)
    wrong: list[int] = []

    def work() -> None:
        for i in range(100):
            if not np.allclose(classifier.predict(x), expected, atol=1e-4):
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- memory format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_changes_strides_alone(channels):
    x = torch.rand(4, channels, 5, 6, requires_grad=True)
    y = channels_last(x)
    assert y.stride() == (30 * channels, 1, 6 * channels, channels)
    assert torch.equal(x, y)
    assert torch.equal(torch.autograd.grad(y.square().sum(), x)[0], 2 * x)


def test_rule_of_the_format():
    narrow, wide, dense = nn.Conv2d(1, 4, 3), nn.Conv2d(512, 512, 3), nn.Linear(4, 4)
    x = torch.rand(4, 1, 8, 8)
    assert favours_channels_last(narrow, x)
    assert not favours_channels_last(wide, x)
    assert not favours_channels_last(dense, x)
    assert not favours_channels_last(narrow, x.flatten(1))
    assert not favours_channels_last(narrow, x.double())


def test_network_that_takes_no_channels_last_is_asked_once():
    """`x.view` fails on such maps; from then on the network gets what it can take."""
    network = unsettle(Viewing()).eval()
    classifier = LossDefendedClassifier(network, nn.CrossEntropyLoss(), INPUT_SHAPE, 10, objective="loss")
    rng = np.random.default_rng(0)
    x, y = rng.random((9, *INPUT_SHAPE), np.float32), np.arange(9)
    network.calls = 0
    with torch.no_grad():
        expected = network(torch.tensor(x)).numpy()
    np.testing.assert_allclose(classifier.predict(x), expected, rtol=1e-4, atol=1e-4)
    assert network.calls == 3  # by hand, refused, and again
    np.testing.assert_allclose(classifier.predict(x), expected, rtol=1e-4, atol=1e-4)
    classifier.loss_gradient(x, y)
    assert network.calls == 5
    classifier.fit(x, y, nb_epochs=1)
    assert not any(module.training for module in network.modules())


def test_training_asks_without_a_trace():
    network = unsettle(Viewing(dropout=0.5))
    for i, module in enumerate(network.modules()):
        module.training = i % 2 == 0
    modes, state = [m.training for m in network.modules()], copy.deepcopy(network.state_dict())
    other, x = Normed(), torch.rand(4, 1, 8, 8)
    random = torch.get_rng_state()
    assert not takes_channels_last(network, x)
    assert takes_channels_last(other, x)
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_error_of_the_networks_own_is_raised():
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of memory, say")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(Failing(), torch.rand(1, 1, 2, 2))


def test_in_place_network_that_refuses_the_format(digits: Digits):
    """The second try starts from the input, not from what the first made of it."""

    class InPlace(Viewing):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x -= 0.5
            return super().forward(x)

    network = unsettle(InPlace()).eval()
    classifier = LossDefendedClassifier(network, nn.CrossEntropyLoss(), INPUT_SHAPE, 10)
    x = digits.x_test[:9]
    with torch.no_grad():
        expected = network(torch.tensor(x)).numpy()
    for _ in range(2):
        np.testing.assert_allclose(classifier.predict(x), expected, rtol=1e-4, atol=1e-4)


# --- the arithmetics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["fast", "exact", "bfloat16"])
def test_arithmetics_agree(arithmetic, digits: Digits):
    network = unsettle(Normed(dropout=0.3))
    classifier = LossDefendedClassifier(
        network, nn.CrossEntropyLoss(), INPUT_SHAPE, 10, objective="loss", arithmetic=arithmetic
    )
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


def test_unknown_arithmetic_and_compile():
    with pytest.raises(ValueError, match=r"unknown arithmetic 'fats'\. Did you mean 'fast'"):
        create_classifier("sce", "cnn", input_shape=INPUT_SHAPE, nb_classes=10, arithmetic="fats")
    with pytest.raises(TypeError, match="compile: expected True, False or the name of a backend"):
        create_classifier("sce", "cnn", input_shape=INPUT_SHAPE, nb_classes=10, compile=3)


def test_options_are_carried_over():
    classifier = create_classifier(
        "sce", "cnn", input_shape=INPUT_SHAPE, nb_classes=10, arithmetic="exact", compile="eager"
    )
    for other in (classifier.clone_for_refitting(), copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        assert (other.arithmetic, other.compile) == ("exact", "eager")
    classifier.set_params(arithmetic="fast", compile=False)
    assert (classifier.arithmetic, classifier.compile) == ("fast", False)


def test_compiled_network_gives_the_same(digits: Digits):
    network = unsettle(Normed())
    plain = LossDefendedClassifier(network, nn.CrossEntropyLoss(), INPUT_SHAPE, 10)
    compiled = accelerate(plain, "margin", compile="eager")
    x, y = digits.x_test[:9], digits.y_test[:9]
    for _ in range(2):
        np.testing.assert_allclose(compiled.predict(x), plain.predict(x), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(compiled.loss_gradient(x, y), plain.loss_gradient(x, y), rtol=1e-3, atol=1e-5)
        network.features[0].weight.data.mul_(1.5)
    assert compiled._compiled is not None
    pickle.dumps(compiled)


def test_fast_training_is_exact_training_to_within_rounding(digits: Digits):
    """One step of SGD; Adam's first would blow up roundings of gradients near zero."""
    x, y = digits.x_train[:32], digits.y_train[:32]
    start = unsettle(Normed())
    results = []
    for arithmetic in ("exact", "fast"):
        network = copy.deepcopy(start)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        classifier = LossDefendedClassifier(
            network, nn.CrossEntropyLoss(), INPUT_SHAPE, 10, optimizer=optimizer, arithmetic=arithmetic
        )
        classifier.fit(x, y, batch_size=32, nb_epochs=1)
        results.append(network.state_dict())
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-5)
        assert key.endswith("num_batches_tracked") or not torch.equal(value, start.state_dict()[key])


def test_robust_accuracy_is_the_same(trained, digits: Digits):
    """Within 0.2 points: of these images none may change sides."""
    x, y = digits.x_test[:200], digits.y_test[:200]
    for name in ("sce", "mmc", "pc"):
        accuracies = []
        for arithmetic in ("exact", "fast"):
            view = accelerate(trained[name], "margin", arithmetic)
            np.random.seed(0)
            attack = ProjectedGradientDescent(view, eps=0.1, eps_step=0.03, max_iter=10, verbose=False)
            accuracies.append((view.predict(attack.generate(x, y)).argmax(axis=1) == y).mean())
        assert accuracies[0] < 0.9
        assert accuracies[0] == accuracies[1]


# --- accelerate -------------------------------------------------------------------------------------------------------

ATTACKS: dict[str, tuple[type, dict[str, Any]]] = {
    "FGSM": (FastGradientMethod, {"eps": 0.1}),
    "BIM": (BasicIterativeMethod, {"eps": 0.1, "eps_step": 0.03, "max_iter": 3, "verbose": False}),
    "MIM": (MomentumIterativeMethod, {"eps": 0.1, "eps_step": 0.03, "max_iter": 3, "verbose": False}),
    "PGD": (ProjectedGradientDescent, {"eps": 0.1, "max_iter": 3, "num_random_init": 1, "verbose": False}),
    "PGD-2": (ProjectedGradientDescent, {"norm": 2, "eps": 0.5, "eps_step": 0.1, "max_iter": 3, "verbose": False}),
    "C&W": (
        CarliniL2Method,
        {"max_iter": 4, "initial_const": 1e3, "learning_rate": 0.1, "batch_size": 8, "verbose": False},
    ),
    "DeepFool": (DeepFool, {"max_iter": 3, "batch_size": 8, "verbose": False}),
}


class HalvedLoss(nn.Module):
    """A loss that ART does not know: it gets one-hot labels."""

    reduction = "mean"

    def forward(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert y.shape == outputs.shape
        assert y.dtype == torch.float32
        losses = -(torch.log_softmax(outputs, dim=1) * y).sum(dim=1) / 2
        return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[self.reduction]()


def users(kind: str, digits: Digits) -> PyTorchClassifier:
    """A classifier as a user of ART has it."""
    torch.manual_seed(0)
    net: nn.Module = Normed()
    if kind == "sequential":
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    more: dict[str, Any] = {
        "tuple": {"preprocessing": (0.3, 0.7)},
        "none": {"preprocessing": None},
        "squeezing": {
            "preprocessing": None,
            "preprocessing_defences": FeatureSqueezing(clip_values=(0, 1), bit_depth=4),
        },
    }.get(kind, {})
    classifier = PyTorchClassifier(
        net,
        HalvedLoss() if kind == "one-hot loss" else nn.CrossEntropyLoss(),
        INPUT_SHAPE,
        10,
        optimizer=torch.optim.Adam(net.parameters(), lr=0.01),
        clip_values=(0.0, 1.0),
        device_type="cpu",
        **more,
    )
    classifier.fit(digits.x_train[:128], one_hot(digits.y_train[:128]), batch_size=32, nb_epochs=3)
    return classifier


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", ["module", "sequential", "tuple", "none", "squeezing", "one-hot loss"])
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
    modes = [module.training for module in arts.model.modules()]
    state = copy.deepcopy(arts.model.state_dict())
    ours = accelerate(arts)
    assert ours.model is arts.model
    assert ours.optimizer is arts.optimizer
    assert ours.loss is arts.loss
    assert (ours.objective, ours.arithmetic, ours.compile) == ("loss", "fast", False)
    assert ours.preprocessing_operations == []  # ART's default subtracts 0 and divides by 1
    ProjectedGradientDescent(ours, eps=0.1, max_iter=2, verbose=False).generate(digits.x_test[:4])
    assert [module.training for module in arts.model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in arts.model.state_dict().items())
    before = arts.predict(digits.x_test[:4])
    ours.fit(digits.x_train[:32], digits.y_train[:32], nb_epochs=1)
    assert not np.array_equal(arts.predict(digits.x_test[:4]), before)


def test_accelerate_aims_at_an_objective(digits: Digits):
    arts = users("module", digits)
    x, y = digits.x_test[:4], digits.y_test[:4]
    own, margin = accelerate(arts).loss_gradient(x, y), accelerate(arts, "margin").loss_gradient(x, y)
    np.testing.assert_allclose(own, arts.loss_gradient(x, one_hot(y)), rtol=1e-3, atol=1e-6)
    assert not np.allclose(own, margin, atol=1e-3)


def test_accelerate_of_our_own_is_itself_or_a_view():
    ours = create_classifier("sce", "cnn", input_shape=INPUT_SHAPE, nb_classes=10, objective="loss")
    assert accelerate(ours) is ours
    view = accelerate(ours, "dlr")
    assert (view.objective, view == ours, view is ours) == ("dlr", True, False)
    exact = accelerate(ours, arithmetic="exact")
    assert (exact.arithmetic, ours.arithmetic, exact.model is ours.model) == ("exact", "fast", True)
    assert accelerate(exact).arithmetic == "exact"


def test_accelerate_refuses_what_is_more_than_a_network(digits: Digits):
    net = Normed()
    smoothed = PyTorchRandomizedSmoothing(
        net, nn.CrossEntropyLoss(), INPUT_SHAPE, 10, optimizer=torch.optim.Adam(net.parameters()), device_type="cpu"
    )
    with pytest.raises(TypeError, match="PyTorchRandomizedSmoothing has its own .*predict"):
        accelerate(smoothed)
    with pytest.raises(TypeError, match="expected an ART PyTorchClassifier, got Linear"):
        accelerate(nn.Linear(2, 2))
    assert art_mmc.accelerate is accelerate


# --- work that nobody reads, counted ----------------------------------------------------------------------------------


class Counted:
    """Counts passes through a network, and looks at what asks for a gradient meanwhile."""

    def __init__(self, network: nn.Module) -> None:
        self.forward = self.backward = 0
        self.asking = False
        self.network = network
        self.handle = network.register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> None:
        self.forward += 1
        self.asking |= any(parameter.requires_grad for parameter in self.network.parameters()) and outputs.requires_grad
        if outputs.requires_grad:
            outputs.register_hook(self._count)

    def _count(self, grad: torch.Tensor) -> None:
        self.backward += 1


@pytest.mark.parametrize("attack", ["PGD", "MIM"])
def test_passes_of_a_gradient_attack(attack, digits: Digits):
    """One forward and one backward pass a step, none for the weights; two predictions for ART's success rate."""
    classifier = accelerate(users("module", digits))
    classifier.model.zero_grad(set_to_none=True)
    counted = Counted(classifier.model)
    cls, arguments = ATTACKS[attack]
    cls(classifier, **arguments).generate(digits.x_test[:8], one_hot(digits.y_test[:8]))
    assert (counted.forward, counted.backward, counted.asking) == (3 + 2, 3, False)
    assert all(parameter.grad is None for parameter in classifier.model.parameters())


def test_passes_of_class_gradients(digits: Digits):
    """A label a sample takes one backward pass, however many labels there are; all classes one for each at most."""
    classifier = accelerate(users("module", digits))
    classifier.model.zero_grad(set_to_none=True)
    x = digits.x_test[:10]
    for label, at_most in ((np.arange(10), 1), (3, 1), (None, 10)):
        counted = Counted(classifier.model)
        classifier.class_gradient(x, label=label)
        counted.handle.remove()
        assert counted.forward == 1
        assert 1 <= counted.backward <= at_most
        assert not counted.asking


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
        classifier = LossDefendedClassifier(net, nn.CrossEntropyLoss(), INPUT_SHAPE, 10)
        expected = accelerate(classifier, "adaptive", "exact").class_gradient(x)
        monkeypatch.setitem(art_mmc.classifiers._GRADIENTS_AT_ONCE, "cpu", 4 * count)
        np.testing.assert_allclose(classifier.class_gradient(x), expected, rtol=1e-3, atol=1e-5)


def test_normalisation_is_folded(digits: Digits):
    """Counted by the operations that torch ran."""
    classifier = accelerate(users("module", digits))
    with torch.profiler.profile() as profile:
        classifier.loss_gradient(digits.x_test[:8], digits.y_test[:8])
    names = [event.name for event in profile.events()]
    assert "aten::convolution_backward" in names
    assert not any("batch_norm" in name for name in names)
