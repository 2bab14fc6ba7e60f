"""
Inputs that are no images: tables (F,), signals (C, T), volumes (C, D, H, W) and films (T, H, W, C), and a sequence of
tokens (T, E), through everything that takes inputs.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent as ArtPGD
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_mmc import accelerate, create_classifier, load_classifier
from art_mmc.attacks import RandomRotation
from art_mmc.data import Dataset
from art_mmc.detectors import KernelDensityDetector
from art_mmc.evaluation import RobustnessEvaluation, transfer_matrix
from art_mmc.evaluation.suites import SUITES
from art_mmc.models import create_backbone
from art_mmc.models.network import Normalize
from art_mmc.reports import write_robustness
from art_mmc.studies.inspect import inspect_classifier
from art_mmc.theory import landing_ranks, rank_study
from art_mmc.trainers import FGSM, PGD, TRADES, AdversarialLossTrainer, FastFGSM, LossTrainer, create_trainer
from tests.conftest import THREE
from tests.planted import plain

pytestmark = pytest.mark.usefixtures("short_control")

SHAPES = {"table": (13,), "signal": (2, 12), "tokens": (6, 4), "volume": (1, 5, 5, 5), "film": (3, 5, 5, 2)}


class Attention(nn.Module):
    """A sequence of tokens through one layer of self-attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0].mean(dim=1)


class ByFrames(nn.Module):
    """A film, channels last, as a volume with the channels first, after a 2-D convolution of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.each = nn.Conv2d(channels, 3, 3, padding=1)
        self.all = nn.Conv3d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = self.each(x.flatten(0, 1).permute(0, 3, 1, 2))
        return self.all(frames.unflatten(0, x.shape[:2]).transpose(1, 2)).relu().mean(dim=(2, 3, 4))


def backbone(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return {
        "table": lambda: nn.Sequential(nn.Linear(13, 8), nn.BatchNorm1d(8), nn.ReLU()),
        "signal": lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten()),
        "tokens": lambda: Attention(4),
        "volume": lambda: nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3), nn.ReLU(), nn.Flatten()),
        "film": lambda: ByFrames(2),
    }[kind]()


def data(kind: str, number: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Three classes told apart by the mean of the input."""
    rng = np.random.default_rng(1)
    y = np.arange(number) % 3
    x = 0.4 * rng.random((number, *SHAPES[kind])) + 0.3 * y.reshape(-1, *(1,) * len(SHAPES[kind]))
    return x.astype(np.float32), y


def defended(kind: str, name: str = "mmc", **options):
    return create_classifier(name, backbone(kind), input_shape=SHAPES[kind], nb_classes=3, device_type="cpu", **options)


def softmax_of_art(kind: str) -> PyTorchClassifier:
    net = nn.Sequential(backbone(kind), nn.LazyLinear(3))
    net(torch.zeros(2, *SHAPES[kind]))
    return plain(net, input_shape=SHAPES[kind], nb_classes=3, optimizer=torch.optim.Adam(net.parameters(), 0.01))


@pytest.fixture(scope="module", params=SHAPES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def trained(kind):
    classifier = defended(kind, mean=0.5, std=0.25)
    LossTrainer(classifier, seed=0, verbose=False).fit(*data(kind), nb_epochs=6, batch_size=16)
    return classifier


@pytest.mark.parametrize("name", THREE)
def test_a_defence_learns_and_comes_back_from_its_file(kind, name, tmp_path):
    x, y = data(kind)
    classifier = defended(kind, name, mean=0.5, std=0.25)
    before = classifier.model.backbone.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    create_trainer(classifier, seed=0, verbose=False).fit(x, y, nb_epochs=1, batch_size=16)
    assert any(not torch.equal(value, before[key]) for key, value in classifier.model.backbone.state_dict().items())
    classifier.save_checkpoint(tmp_path / "it.pt")
    again = load_classifier(tmp_path / "it.pt", backbone(kind), device_type="cpu")
    np.testing.assert_array_equal(again.predict(x), classifier.predict(x))
    assert again.input_shape == SHAPES[kind]


def test_gradients_are_the_ones_of_the_definition(trained, kind):
    """Against autograd on the bare network; class gradients, activations and a view with probabilities likewise."""
    x, y = data(kind, 6)
    leaf = torch.from_numpy(x).requires_grad_(True)
    logits = trained.model.eval()(leaf)
    for k in range(3):
        (grad,) = torch.autograd.grad(logits[:, k].sum(), leaf, retain_graph=True)
        np.testing.assert_allclose(trained.class_gradient(x)[:, k], grad, atol=1e-4 * float(grad.abs().max()))
        np.testing.assert_allclose(trained.class_gradient(x, k)[:, 0], grad, atol=1e-4 * float(grad.abs().max()))
    other = logits.masked_fill(torch.eye(3, dtype=torch.bool)[y], -torch.inf).amax(dim=1)
    (grad,) = torch.autograd.grad((other - logits[torch.arange(6), y]).mean(), leaf)
    gradients = trained.with_objective("margin").loss_gradient(x, y)
    np.testing.assert_allclose(gradients, grad, atol=1e-4 * float(grad.abs().max()))
    assert trained.get_activations(x, "embedding").shape == (6, trained.model.head.in_features)
    probabilities = trained.with_probabilities(2.0).predict(x)
    np.testing.assert_allclose(probabilities, (logits.detach() / 2).softmax(dim=1), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_normalisation_by_number_by_channel_and_by_element(shape):
    x = torch.rand(2, *shape)
    for mean in (0.5, torch.rand(shape[0]), torch.rand(shape)):
        wanted = mean if np.ndim(mean) != 1 else mean.reshape(-1, *(1,) * (len(shape) - 1))
        torch.testing.assert_close(Normalize(mean, 0.5)(x), (x - wanted) / 0.5)


@pytest.mark.parametrize(
    "crafting",
    [
        PGD(eps=0.3, steps=2, norm=2, tolerance=1, eps_min=0.1, batch_norm="train"),
        FGSM(),
        FastFGSM(eps=0.05),
        TRADES(eps=0.05, steps=2),
    ],
    ids=["pgd-l2", "fgsm", "fast", "trades"],
)
def test_adversarial_training(kind, crafting):
    x, y = data(kind)
    for classifier in (defended(kind), accelerate(softmax_of_art(kind))):
        trainer = AdversarialLossTrainer(classifier, crafting, seed=0, verbose=False)
        trainer.fit(x, y, nb_epochs=1, batch_size=16, validation_data=(x[:6], y[:6]))
        assert np.isfinite(trainer.history[-1]["loss"])


SUITE_FOR = {
    "table": ("strong", 2),
    "signal": ("standard", math.inf),
    "tokens": ("quick", math.inf),
    "volume": ("quick", 2),
    "film": ("standard", 2),
}


@pytest.mark.thorough
def test_evaluation_names_what_does_not_apply(trained, kind, tmp_path, monkeypatch):
    monkeypatch.setattr("art_mmc.attacks.auto_attack._STEPS", 4)
    monkeypatch.setattr("art_mmc.attacks.auto_attack._QUERIES", 4)
    suite, norm = SUITE_FOR[kind]
    x, _ = data(kind, 6)
    y = trained.predict(x).argmax(axis=1)
    # every attack of the suite in a step or two, and the diagnostics, which have their own budget
    whole = SUITES[suite]
    short = dataclasses.replace(
        whole,
        plans=lambda *ball: [shorter(plan) for plan in whole.plans(*ball)],
        rounds=whole.rounds and (lambda *ball: [shorter(plan) for plan in whole.rounds(*ball)]),
    )
    diagnosed, eps = kind in ("table", "film"), 0.1 if norm == math.inf else 0.5
    evaluation = RobustnessEvaluation(suite, eps, norm, diagnostics=diagnosed, verbose=False)
    evaluation.suite = short
    record = evaluation.evaluate(trained, x, y)
    assert (record.verdict is not None) == diagnosed
    assert record.examples.shape == x.shape
    skipped = record.provenance.get("left_out", [])
    ran = {each.attack for each in record.attacks}
    assert not ran & set(skipped)
    assert any("DLR" in name for name in skipped) is (kind == "table")  # there are three classes
    write_robustness(dataclasses.replace(record, inputs=x), tmp_path)
    assert all(name in (tmp_path / "report.md").read_text() for name in skipped)
    assert not (tmp_path / "examples.png").exists()


def shorter(plan):
    return dataclasses.replace(plan, steps=min(plan.steps, 2), restarts=1) if plan.steps else plan


def test_detector(trained, kind):
    x, y = data(kind, 240)
    detector = KernelDensityDetector(trained)
    detector.fit(x, y)
    assert detector.scores(x).shape == (len(x),)


def test_inspection_ranks_and_transfer(trained, kind):
    x, y = data(kind)
    dataset = Dataset("it", x, y, x, y)
    assert dataset.input_shape == SHAPES[kind]
    np.testing.assert_allclose(dataset.mean, np.moveaxis(x, 1, 0).reshape(SHAPES[kind][0], -1).mean(axis=1), rtol=1e-5)
    found = inspect_classifier(trained, dataset, 0.05, nb_points=9, k=3, steps=1)
    assert found.correct.sum() == (trained.predict(x).argmax(axis=1) == y).sum()
    art = softmax_of_art(kind)
    pgd = {"PGD": lambda each: ArtPGD(each, eps=0.2, eps_step=0.1, max_iter=2, verbose=False)}
    matrix = transfer_matrix({"ours": trained, "ART's": art}, x, y, pgd)
    assert matrix.correct.shape == (1, 2, 2)
    ranks = rank_study(trained, x, y, [0.05, 0.2], steps=2)
    np.testing.assert_array_equal(ranks.correct, trained.predict(x).argmax(axis=1) == y)
    landed = trained.predict(x)[:, ::-1].argmax(axis=1)
    assert set(landing_ranks(trained.predict(x), y, landed)) <= {0, 1, 2}


def test_what_is_for_images_says_so(trained, kind):
    if len(SHAPES[kind]) != 3:
        with pytest.raises(ValueError, match="RandomRotation|images"):
            RandomRotation(trained).generate(data(kind, 3)[0])
        with pytest.raises(ValueError, match=r"augmentation 'flip' is for images \(C, H, W\)"):
            LossTrainer(trained, augmentation="flip")
        with pytest.raises(ValueError, match=r"\(C, H, W\).*for backbone 'lenet5'.*module of your own"):
            create_backbone("lenet5", SHAPES[kind])
