"""
What makes the attacks fast, counted, since a clock is noisy: passes forward and backward of the same attack on ART's
classifier and on ours, and gradients of weights. And one clock, with a generous bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from art_mmc.bench import Settings
from art_mmc.bench.cases import make_attack
from art_mmc.bench.subjects import SHAPES, art_classifier, images, network
from art_mmc.classifiers.accelerate import accelerate
from art_mmc.state import seeded

SETTINGS = Settings()
N = 6


@dataclass
class Counts(TorchDispatchMode):
    """
    Watches a network: its passes, and what the convolutions' backward passes compute.
    """

    forward: int = 0
    backward: int = 0
    weight_gradients: int = 0
    input_gradients: int = 0
    asked: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def watch(self, net: torch.nn.Module) -> Any:
        def look(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self.forward += 1
            if output.requires_grad:
                self.asked.append(any(parameter.requires_grad for parameter in module.parameters()))
                output.register_hook(self._count)

        return net.register_forward_hook(look)

    def _count(self, grad: torch.Tensor) -> None:
        self.backward += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.input_gradients += args[-1][0]
            self.weight_gradients += args[-1][1]
        return func(*args, **(kwargs or {}))


def counted(ours: bool, work: Any) -> tuple[Counts, Any]:
    """Do something on a fresh copy of a trained LeNet-5 behind ART's classifier or ours, and count."""
    net = network("lenet5", SETTINGS)
    classifier = art_classifier(net, "lenet5", SETTINGS)
    classifier = accelerate(classifier) if ours else classifier
    counts = Counts()
    handle = counts.watch(net)
    with seeded(0), counts:
        result = work(classifier)
    handle.remove()
    if ours:
        assert all(parameter.grad is None for parameter in net.parameters())
        assert all(parameter.requires_grad for parameter in net.parameters())
    return counts, result


def attacked(name: str, ours: bool, **settings: Any) -> tuple[Counts, np.ndarray]:
    x, y = images(SHAPES["lenet5"], N)

    def work(classifier: Any) -> np.ndarray:
        attack = make_attack(name, classifier, "lenet5", N)
        for key, value in settings.items():
            setattr(attack, key, value)
        return attack.generate(x, y)

    return counted(ours, work)


#: attack -> its settings here; passes forward and backward on ART's class; those on ours. FGSM, PGD and MIM save no
#: pass, they save the part of each that is for weights; DeepFool's one step has two gradients of all ten classes
PASSES: dict[str, tuple[dict[str, int], tuple[int, int], tuple[int, int]]] = {
    "fgsm": ({}, (1, 1), (1, 1)),
    "pgd": ({}, (12, 10), (12, 10)),
    "mim": ({}, (12, 10), (12, 10)),
    "deepfool": ({"max_iter": 1}, (4, 20), (4, 2)),
}


def compared(name: str, **settings: Any) -> tuple[list[Counts], list[np.ndarray]]:
    """On ART's class each pass backward is one for all weights too, on ours none is."""
    (theirs, x_theirs), (mine, x_mine) = (attacked(name, ours, **settings) for ours in (False, True))
    assert theirs.weight_gradients == theirs.input_gradients == 2 * theirs.backward  # the convolutions of LeNet-5
    assert mine.weight_gradients == 0
    assert not any(mine.asked)
    assert (mine.input_gradients > 0) is (name != "square")
    return [theirs, mine], [x_theirs, x_mine]


@pytest.mark.parametrize("name", PASSES)
def test_passes_of_attacks_whose_course_is_fixed(name):
    settings, *wanted = PASSES[name]
    counts, examples = compared(name, **settings)
    assert [(each.forward, each.backward) for each in counts] == wanted
    np.testing.assert_allclose(*examples, atol=0.011)  # a sign of a gradient near zero may turn


# C&W takes two gradients a step: on ART's class one pass a class that occurs, on ours a single one
@pytest.mark.parametrize(
    ("name", "wanted_theirs", "wanted_mine"), [("apgd", 10, 10), ("cw", 100, 20), ("square", 0, 0)]
)
def test_passes_of_attacks_that_search(name, wanted_theirs, wanted_mine):
    """Where they turn hangs on comparisons, and those on rounding: a few passes more or less are the same search."""
    (theirs, mine), _ = compared(name)
    assert mine.forward <= 1.1 * theirs.forward
    assert mine.backward <= wanted_mine == pytest.approx(mine.backward, rel=0.2)
    assert theirs.backward == pytest.approx(wanted_theirs, rel=0.2)


@pytest.mark.parametrize(
    ("label", "theirs", "mine"),
    [(None, 10, 1), (3, 1, 1), ([0, 1, 2, 3, 4, 4], 5, 1)],
    ids=["all classes", "one class", "a class a sample"],
)
def test_passes_of_class_gradient(label, theirs, mine):
    x, _ = images(SHAPES["lenet5"], N)
    found = [counted(ours, lambda classifier: classifier.class_gradient(x, label)) for ours in (False, True)]
    assert [(counts.forward, counts.backward) for counts, _ in found] == [(1, theirs), (1, mine)]
    assert [counts.weight_gradients for counts, _ in found] == [2 * theirs, 0]
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-4)


def test_class_gradient_of_a_large_batch_goes_class_by_class():
    """Beyond 64 gradients at once the saved overhead is nothing to the time: still no weight's gradient."""
    x, _ = images(SHAPES["lenet5"], 65)
    counts, _ = counted(True, lambda classifier: classifier.class_gradient(x))
    assert (counts.forward, counts.backward, counts.weight_gradients) == (1, 10, 0)


def test_fit_takes_one_pass_a_batch():
    x, y = images(SHAPES["lenet5"], 12)
    net = network("lenet5", SETTINGS)
    classifier = accelerate(art_classifier(net, "lenet5", SETTINGS))
    classifier.fit(x[:4], y[:4], batch_size=4, nb_epochs=1)  # which memory format it takes is found out once
    counts = Counts()
    handle = counts.watch(net)
    with counts:
        classifier.fit(x, y, batch_size=4, nb_epochs=1)
    handle.remove()
    assert (counts.forward, counts.backward, counts.weight_gradients) == (3, 3, 6)
    assert counts.input_gradients == 3  # the second convolution's; nobody asks for the images'
