"""Copies of a network and its loss: fresh weights, fresh optimizers, and copies right after a training."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from art_mmc import LossDefendedClassifier, MMCClassifier, PCClassifier, SoftmaxClassifier
from art_mmc.losses.base import Loss
from art_mmc.models import DefendedNet
from art_mmc.models.copies import draw_anew
from art_mmc.trainers import FGSM, RECIPES, AdversarialLossTrainer, LossTrainer, PCTrainer, TrainingInterrupted
from tests.conftest import INPUT_SHAPE
from tests.planted import plain
from tests.training import stop_at

SHAPE = {"input_shape": INPUT_SHAPE, "nb_classes": 10, "device_type": "cpu"}


def body(wrap=lambda layer: layer):
    return nn.Sequential(nn.Flatten(), wrap(nn.Linear(64, 24)), nn.ReLU(), nn.Linear(24, 16), nn.ReLU())


def shown(optimizer, *keys):
    """Settings and number of weights of each group."""
    return [
        (*(group[key] for key in keys), sum(p.numel() for p in group["params"])) for group in optimizer.param_groups
    ]


def names(optimizer, classifier):
    """Names of the parameters in each group."""
    known = {id(parameter): name for name, parameter in classifier.model.named_parameters()}
    return [[known[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def grouped(net, kind=torch.optim.SGD):
    """The last layer first, at another rate and decay; the first layer not at all."""
    return kind([{"params": [net[3].bias, net[3].weight], "lr": 0.5, "weight_decay": 0.1, "mine": "kept"}], lr=0.05)


# --- optimizers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("way", ["clone", "set_params", "renew", "warm-up", "adversarial warm-up"])
def test_a_fresh_optimizer_has_the_groups_and_leaves_out_what_was_left_out(way, kind, digits):
    net = body()
    classifier = PCClassifier(net, optimizer=grouped(net, kind), **SHAPE)
    given, settings = names(classifier.optimizer, classifier), shown(classifier.optimizer, "lr", "weight_decay")
    assert [len(group) for group in given] == [2, 2]  # the head joined
    first, old = net[1].weight.detach().clone(), classifier.optimizer
    if way == "clone":
        classifier = classifier.clone_for_refitting()
    elif way == "set_params":
        classifier.set_params(model=copy.deepcopy(classifier.model))
    elif way == "renew":
        classifier.renew_optimizer()
    else:
        trainer = PCTrainer if way == "warm-up" else lambda *a, **k: AdversarialLossTrainer(*a, "fast", **k)
        trainer(classifier, seed=0, warmup_epochs=1, verbose=False).fit(
            digits.x_train[:64], digits.y_train[:64], nb_epochs=2
        )
        assert torch.equal(net[1].weight, first)
    assert classifier.optimizer is not old
    assert names(classifier.optimizer, classifier) == given
    assert shown(classifier.optimizer, "lr", "weight_decay") == settings
    assert classifier.optimizer.param_groups[0]["mine"] == "kept"


def test_a_recipe_trains_what_the_classifier_s_optimizer_trains(digits):
    net = body()
    classifier = SoftmaxClassifier(net, optimizer=grouped(net), **SHAPE)
    before = {name: each.detach().clone() for name, each in classifier.model.named_parameters()}
    for recipe in ("default", "pang2018-mnist"):
        LossTrainer(classifier, recipe=RECIPES[recipe], seed=0, verbose=False).fit(
            digits.x_train[:64], digits.y_train[:64], nb_epochs=2
        )
    moved = {name for name, each in classifier.model.named_parameters() if not torch.equal(each, before[name])}
    assert moved == {name for name in before if not name.startswith("backbone.module.1.")}


@pytest.mark.parametrize("plateau", [False, True])
def test_a_rate_that_a_schedule_brought_down_is_whole_again(plateau, digits):
    """Each stage begins at the group's own rate, and so does a clone."""
    net = body()
    groups = [{"params": net[1].parameters(), "lr": 0.02}, {"params": net[3].parameters()}]
    classifier = PCClassifier(net, optimizer=torch.optim.SGD(groups, lr=0.01), **SHAPE)

    def schedule(optimizer):
        if plateau:
            return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=1e9)
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)

    trainer = PCTrainer(classifier, seed=0, verbose=False)
    trainer.fit(digits.x_train[:64], digits.y_train[:64], nb_epochs=6, scheduler=schedule)
    rates = [record["rate"] for record in trainer.history]
    assert rates[:3] == rates[3:]
    assert rates[2] < rates[0] == 0.02
    assert [lr for lr, _ in shown(classifier.clone_for_refitting().optimizer, "lr")] == [0.02, 0.01, 0.01]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x.flatten(1)))


@pytest.mark.parametrize(("cls", "joined"), [(SoftmaxClassifier, "head.linear"), (MMCClassifier, "projection")])
def test_shared_and_named_parameters_and_a_tensor_for_a_rate(cls, joined):
    net = Tied()
    optimizer = torch.optim.Adam(net.named_parameters(), lr=torch.tensor(0.1), capturable=True)
    classifier = cls(net, optimizer=optimizer, **SHAPE)
    assert classifier.optimizer is optimizer
    assert optimizer.param_groups[1]["param_names"] == [f"{joined}.weight", f"{joined}.bias"]
    clone = classifier.clone_for_refitting()
    assert names(clone.optimizer, clone) == names(optimizer, classifier)
    assert [group["param_names"] for group in clone.optimizer.param_groups] == [
        group["param_names"] for group in optimizer.param_groups
    ]
    assert clone.model.backbone.module.first.weight is clone.model.backbone.module.second.weight
    assert clone.optimizer.param_groups[0]["lr"] is not optimizer.param_groups[0]["lr"]


class Scaled(Loss):
    """A loss with a trained temperature."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def per_sample(self, logits, y):
        return nn.functional.cross_entropy(logits * self.scale, y, reduction="none")


class Renewed(Scaled):
    """The same, drawn anew."""

    def reset_parameters(self):
        nn.init.ones_(self.scale)


def test_the_loss_own_parameters_are_trained_copied_renewed_and_resumed(digits, tmp_path):
    def make(folder=None):
        torch.manual_seed(0)
        net, loss = DefendedNet(body(), nn.Linear(16, 10)), Renewed()
        optimizer = torch.optim.SGD([*net.parameters(), *loss.parameters()], lr=0.1)
        classifier = plain(net, LossDefendedClassifier, loss=loss, optimizer=optimizer)
        return LossTrainer(classifier, folder=folder, seed=0, verbose=False)

    def fit(trainer, epochs, **kwargs):
        trainer.fit(digits.x_train[:128], digits.y_train[:128], batch_size=32, nb_epochs=epochs, **kwargs)
        return trainer.classifier.loss.scale.item()

    trainer = make()
    whole = fit(trainer, 3)
    assert whole != 1.0
    clone = trainer.classifier.clone_for_refitting()
    assert clone.loss.scale.item() == 1.0
    assert any(clone.loss.scale is each for each in clone.optimizer.param_groups[0]["params"])
    assert trainer.classifier.loss.scale.item() == whole

    interrupted = make(tmp_path)
    stop_at(interrupted, 6)
    with pytest.raises(TrainingInterrupted):
        fit(interrupted, 3)
    assert fit(make(tmp_path), 3, resume=True) == whole


def test_a_parameter_of_neither_network_nor_loss_has_no_copy():
    net, other = body(), nn.Parameter(torch.zeros(1))
    classifier = SoftmaxClassifier(net, optimizer=torch.optim.SGD([*net.parameters(), other], lr=0.1), **SHAPE)
    classifier.renew_optimizer()
    assert any(each is other for each in classifier.optimizer.param_groups[0]["params"])
    with pytest.raises(ValueError, match="parameters of neither network nor loss"):
        classifier.clone_for_refitting()


# --- fresh weights ----------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Torch's attention, whose in-projection has no `reset_parameters`, and more."""

    def __init__(self, token=False):
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.0, batch_first=True)
        self.register_buffer("positions", torch.randn(8, 16))
        self.frequencies = nn.Parameter(torch.arange(16.0), requires_grad=False)
        if token:
            self.token = nn.Parameter(torch.zeros(16))

    def forward(self, x):
        h = self.layer(self.embed(x[:, 0]) + self.positions + self.frequencies * 0)
        return (h.mean(dim=1) + self.token) if hasattr(self, "token") else h.mean(dim=1)


@pytest.mark.parametrize("way", ["clone", "reset"])
def test_attention_is_fresh_as_torch_makes_it(way, digits):
    classifier = SoftmaxClassifier(Attention(), **SHAPE)
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            parameter.add_(5.0)
    kept = {"frequencies": None, "positions": None}
    for name in kept:
        kept[name] = getattr(classifier.model.backbone.module, name).clone()
    if way == "clone":
        fresh = classifier.clone_for_refitting()
    else:
        classifier.fit(digits.x_train[:8], digits.y_train[:8], nb_epochs=1)
        fresh = classifier
        assert fresh.reset() is None
        assert not fresh.optimizer.state
    attention = fresh.model.backbone.module.layer.self_attn
    bound = math.sqrt(6 / (16 + 3 * 16))  # Glorot uniform
    assert attention.in_proj_weight.abs().max() <= bound
    assert attention.in_proj_weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert (attention.in_proj_bias == 0).all()
    assert (attention.out_proj.bias == 0).all()
    for name, value in kept.items():
        assert torch.equal(getattr(fresh.model.backbone.module, name), value), name


@pytest.mark.parametrize("way", ["clone", "reset", "loss"])
def test_what_cannot_be_drawn_anew_is_refused_by_name_and_nothing_changes(way, digits):
    if way == "loss":
        net = DefendedNet(body(), nn.Linear(16, 10))
        classifier = LossDefendedClassifier(net, Scaled(), INPUT_SHAPE, 10, device_type="cpu")
    else:
        classifier = SoftmaxClassifier(Attention(token=True), **SHAPE)
    classifier.fit(digits.x_train[:32], digits.y_train[:32], nb_epochs=1)
    before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    name = "1.scale" if way == "loss" else "backbone.module.token"
    with pytest.raises(ValueError, match=f"^{name}: trained parameters that cannot be drawn anew.*reset_parameters"):
        classifier.clone_for_refitting() if way == "clone" else classifier.reset()
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.model.state_dict().items())
    assert classifier.optimizer.state


class Replaced(nn.Linear):
    """Puts new parameters in the place of the old ones."""

    def reset_parameters(self):
        self.weight = nn.Parameter(torch.randn(self.out_features, self.in_features))
        nn.init.normal_(self.bias)


def test_parameters_put_in_the_place_of_the_old_ones_stay_the_optimizer_s():
    net = nn.Sequential(Replaced(6, 4), nn.Linear(4, 3))
    old, before = list(net.parameters()), copy.deepcopy(net.state_dict())
    draw_anew(net)
    assert all(new is given for new, given in zip(net.parameters(), old, strict=True))
    assert all(tensor.isfinite().all() and not torch.equal(tensor, before[n]) for n, tensor in net.named_parameters())


class Own(torch.optim.SGD):
    """A constructor that calls the rate something else, as many of users' own do."""

    def __init__(self, params, rate, around=None):
        super().__init__(params, lr=rate, momentum=0.5)
        self.scale, self.around = 2.0, around


def test_an_optimizer_with_a_constructor_of_its_own():
    net = body()
    optimizer = Own([{"params": net[3].parameters()}], 0.3)
    classifier = plain(net, LossDefendedClassifier, nb_classes=16, optimizer=optimizer)
    classifier.optimizer.state[net[3].weight]["momentum_buffer"] = torch.ones(16, 24)
    clone = classifier.clone_for_refitting()
    assert shown(clone.optimizer, "lr", "momentum") == [(0.3, 0.5, 24 * 16 + 16)]
    assert names(clone.optimizer, clone) == [["3.weight", "3.bias"]]
    assert type(clone.optimizer) is Own
    assert clone.optimizer.scale == 2.0
    assert not clone.optimizer.state
    before, first = copy.deepcopy(clone.model.state_dict()), copy.deepcopy(net.state_dict())
    clone.fit(np.random.default_rng(0).random((8, *INPUT_SHAPE), np.float32), np.arange(8), nb_epochs=1)
    assert [n for n, t in clone.model.state_dict().items() if not torch.equal(t, before[n])] == ["3.weight", "3.bias"]
    assert all(torch.equal(tensor, first[name]) for name, tensor in net.state_dict().items())
    wrapped = Own(net.parameters(), 0.3, around=torch.optim.SGD(net.parameters(), lr=0.1))
    classifier.set_params(optimizer=wrapped)
    with pytest.raises(ValueError, match="Own can't be made anew: .*rate"):
        classifier.clone_for_refitting()


def test_a_reset_that_fails_changes_nothing():
    class Breaks(nn.Linear):
        def reset_parameters(self):
            if hasattr(self, "made"):
                raise RuntimeError("no more")
            super().reset_parameters()
            self.made = True

    net = nn.Sequential(nn.Linear(3, 3), Breaks(3, 3), nn.BatchNorm1d(3))
    net[2].running_mean.fill_(2.0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(RuntimeError, match="no more"):
        draw_anew(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


# --- weights that are computed from others ----------------------------------------------------------------------------

COMPUTED = {
    "weight norm by hooks": nn.utils.weight_norm,
    "weight norm of all by hooks": lambda layer: nn.utils.weight_norm(layer, dim=None),
    "spectral norm by hooks": nn.utils.spectral_norm,
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.fixture(params=COMPUTED)
def computed(request, digits):
    """A network with such a layer, right after a training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = body(COMPUTED[request.param])
    classifier = SoftmaxClassifier(net, **SHAPE)
    classifier.fit(digits.x_train[:128], digits.y_train[:128], nb_epochs=2, batch_size=32)
    return classifier


@pytest.mark.thorough
def test_copies_right_after_a_training(computed, digits):
    again = copy.deepcopy(computed)
    np.testing.assert_array_equal(again.predict(digits.x_test[:20]), computed.predict(digits.x_test[:20]))
    clone = computed.clone_for_refitting()
    assert not any(
        torch.equal(a, b) for a, b in zip(clone.model.parameters(), computed.model.parameters(), strict=True)
    )
    layer = clone.model.backbone.module[1]
    clone.model(torch.from_numpy(digits.x_test[:1].copy()))  # hooks compute the weight in a pass
    reference = computed.model.backbone.module[1]
    if hasattr(reference, "weight_mask"):
        assert torch.equal(layer.weight == 0, reference.weight_mask == 0)
    elif len([name for name, _ in reference.named_parameters() if name != "bias"]) == 1:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1.0, rel=0.2)
    else:  # weight norm gives what the plain layer draws: uniform up to 1 / 8
        assert layer.weight.abs().max() <= 1 / 8
        assert layer.weight.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)
    clone.fit(digits.x_train, digits.y_train, nb_epochs=10, batch_size=32)
    assert (clone.predict(digits.x_test).argmax(axis=1) == digits.y_test).mean() > 0.6


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_averages_right_after_a_training(averaging, computed, digits):
    """Of the plain mean over two epochs: that of what is trained."""
    states = []

    class Spy(LossTrainer):
        def _close_epoch(self, job, record):
            states.append({name: each.detach().clone() for name, each in self.classifier.model.named_parameters()})

    trainer = Spy(computed, averaging=averaging, averaging_decay=0.0, seed=0, verbose=False)
    trainer.fit(digits.x_train[:64], digits.y_train[:64], nb_epochs=2, batch_size=64)
    for name, each in computed.model.named_parameters():
        expected = states[1][name] if averaging == "ema" else (states[0][name] + states[1][name]) / 2
        torch.testing.assert_close(each, expected)


def test_results_that_modules_keep_are_no_matter(digits):
    class Keeps(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            self.last, self.all = out, [*getattr(self, "all", [])[-1:], {"out": (out,)}]
            return out

    classifier = SoftmaxClassifier(nn.Sequential(nn.Flatten(), Keeps(64, 16)), **SHAPE)
    trainer = AdversarialLossTrainer(classifier, FGSM(0.05), averaging="ema", seed=0, verbose=False)
    trainer.fit(digits.x_train[:32], digits.y_train[:32], nb_epochs=2)
    classifier.fit(digits.x_train[:32], digits.y_train[:32], nb_epochs=1)
    expected = classifier.predict(digits.x_test[:2])
    np.testing.assert_array_equal(copy.deepcopy(classifier).predict(digits.x_test[:2]), expected)
    assert classifier.clone_for_refitting().predict(digits.x_test[:2]).shape == expected.shape
