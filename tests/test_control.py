"""The positive control: planted examples are found by sane attacks, and by nothing less."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from art_mmc.evaluation import AttackPlan
from art_mmc.evaluation.binarisation import METHODS, Planted, _around, _plant, positive_control
from art_mmc.evaluation.engine import Target
from art_mmc.models import DefendedNet
from art_mmc.state import derived_seed
from tests.conftest import left_alone, norms
from tests.planted import Hidden, adversarially_trained, around, digits, plain, undefended

LINF = AttackPlan("PGD", "pgd", "margin", 0.1, steps=40, step_size=(0.01, 0.025), restarts=2)
L2 = AttackPlan("PGD", "pgd", "margin", 0.8, 2, steps=40, step_size=(0.08, 0.2), restarts=2)


def images(n: int = 12) -> np.ndarray:
    return digits()[2][:n]


def planted_layers(target: Target, x: np.ndarray, plan: AttackPlan, seed: int = 0) -> tuple[Planted, np.ndarray]:
    """As the control plants them: the module with its layers, and the images that have one."""
    base = target.view("loss")
    module = Planted(base.model)
    rng = np.random.default_rng(derived_seed(seed, 5))
    with base.crafting(), torch.no_grad():
        layers = [_plant(base, module, image, plan, rng) for image in x]
    usable = [i for i, layer in enumerate(layers) if layer is not None]
    module.weight = torch.stack([layers[i][0] for i in usable])
    module.bias = torch.stack([layers[i][1] for i in usable])
    return module, x[usable]


@pytest.mark.parametrize("plan", [LINF, L2], ids=["Linf", "L2"])
@pytest.mark.parametrize("network", [undefended, adversarially_trained])
def test_a_sane_attack_finds_what_is_planted(network, plan):
    target = Target(network(), images())
    found, planted = positive_control(target, images(), plan)
    assert planted >= 9
    assert found == planted


@pytest.mark.parametrize("method", METHODS)
def test_each_method_that_keeps_the_order(method):
    found, planted = positive_control(Target(undefended(), images()), images(), replace(LINF, method=method))
    assert found >= 0.9 * planted > 0


def test_an_attack_that_is_too_weak_does_not():
    weak = replace(LINF, steps=1, step_size=0.001, restarts=1)
    found, planted = positive_control(Target(undefended(), images()), images(), weak)
    assert planted >= 9
    assert found <= 0.2 * planted


@pytest.mark.parametrize(
    "before",
    [
        lambda x: Hidden.apply(x, 0.0),
        lambda x: x.detach(),
        lambda x: torch.round(x * 16) / 16,
    ],
    ids=["zero gradients", "detached", "quantised"],
)
def test_a_masked_network_hides_what_is_planted(before):
    found, planted = positive_control(Target(around(before=before), images()), images(), LINF)
    assert planted >= 9
    assert found <= 0.2 * planted


def folded(before=lambda x: x):
    """The mean over three noisy copies in one pass, of which the last layer sees three times as many samples."""
    noise = 0.05 * torch.randn(3, 1, *images().shape[1:], generator=torch.Generator().manual_seed(0))
    return around(
        before=lambda x: (before(x) + noise).flatten(0, 1),
        behind=lambda logits: logits.unflatten(0, (3, -1)).mean(dim=0),
    )


def test_a_network_that_folds_copies_into_its_batch_is_looked_at_like_any():
    found, planted = positive_control(Target(folded(), images()), images(), LINF)
    assert found == planted >= 9
    found, planted = positive_control(Target(folded(torch.detach), images()), images(), LINF)
    assert planted >= 9
    assert found <= 0.2 * planted


@pytest.mark.parametrize(("network", "plan"), [(undefended, LINF), (adversarially_trained, L2)], ids=["Linf", "L2"])
def test_random_points_do_not_find_it(network, plan):
    """Of 2,000 points in each ball and on its edge nearly all are the clean class; the planted one is not."""
    target = Target(network(), images(4))
    module, x = planted_layers(target, images(4), plan)
    assert len(x) >= 3
    rng = np.random.default_rng(123)
    hits = np.zeros(len(x))
    for share in (0.5, 1.0):
        for _ in range(1000):
            move = rng.normal(size=x.shape)
            if plan.norm == math.inf:
                move = np.sign(move) if share == 1 else rng.uniform(-1, 1, x.shape)
            else:
                move /= norms(move, 2).reshape(-1, 1, 1, 1)
            with torch.no_grad():
                logits = module(torch.from_numpy(np.clip(x + plan.eps * move, 0, 1).astype(np.float32)))
            hits += (logits.argmax(dim=1) == 1).numpy()
    assert (hits <= 20).all()  # a layer that one point in a hundred gets past is caught by its 200 seven times of eight
    with torch.no_grad():
        assert (module(torch.from_numpy(x)).argmax(dim=1) == 0).all()


def test_samples_are_judged_by_their_own_layers(monkeypatch):
    """The found ones are a part of the batch: they must not be judged by the layers of the first samples."""
    sizes, forward = [], Planted.forward

    def watched(self, x):
        sizes.append((len(x), len(self.weight)))
        return forward(self, x)

    monkeypatch.setattr(Planted, "forward", watched)
    positive_control(Target(undefended(), images()), images(), replace(LINF, restarts=1))
    assert {size for size in sizes if size[0] != 1} == {(sizes[-1][1], sizes[-1][1])}  # 1: a look at what kind it is


def test_it_leaves_the_network_as_it_was():
    network = undefended()
    network.model.train()
    try:
        with left_alone(network.model):
            positive_control(Target(network, images()), images(), LINF)
    finally:
        network.model.eval()


class Branches(torch.nn.Module):
    """The layer that runs last is not the last one in the list of modules, and one never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = torch.nn.Linear(5, 3), torch.nn.Linear(4, 5)
        self.idle = torch.nn.Linear(7, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x.flatten(1))))


def test_the_features_are_what_the_last_layer_reads():
    x = torch.rand(3, 1, 2, 2)
    network = Branches()
    expected = torch.relu(network.first(x.flatten(1)))
    assert torch.equal(Planted(network).features(x), expected)
    sequential = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    assert Planted(DefendedNet(sequential, torch.nn.Identity())).features(x).shape == (3, 6)
    assert Planted(undefended().model).features(torch.rand(3, 1, 8, 8)).shape == (3, 128)
    no_linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
    assert Planted(no_linear).features(x).shape == (3, 4)
    wide = _around(
        Target(plain(Branches(), input_shape=(1, 2, 2), nb_classes=3), x.numpy()).view("loss"), Planted(network)
    )
    with pytest.raises(ValueError, match="belong to the samples of one batch"):
        wide.model(x)


def test_nothing_can_be_planted_where_all_points_look_alike():
    constant = around(before=lambda x: 0 * x)
    assert positive_control(Target(constant, images()), images(), LINF) == (0, 0)


@pytest.mark.parametrize("changes", [{"method": "apgd"}, {"targets": "all"}, {"transfer": True}])
def test_attacks_that_it_cannot_judge(changes):
    with pytest.raises(ValueError, match="expected an untargeted one by fgsm, pgd, bim, mim"):
        positive_control(Target(undefended(), images()), images(), replace(LINF, **changes))
