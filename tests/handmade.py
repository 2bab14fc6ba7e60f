"""
Records made by hand: ten images of a network that looks robust on its own loss and is not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from art_mmc.evaluation import ATTACKS as COMPARED
from art_mmc.evaluation import BROKEN, AttackRecord, Diagnostic, RobustnessRecord, Verdict
from art_mmc.evaluation.records import Curves
from art_mmc.published import Cell, get_published
from art_mmc.studies.compare import Comparison, DefenceResult
from art_mmc.studies.reproduce import Reproduced, Reproduction

N = 10
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])

MACHINE = {
    "date": "2026-01-02T03:04:05+00:00",
    "device": "cpu",
    "processor": "Abacus 1",
    "threads": 2,
    "versions": {"art_mmc": "0.1.0", "adversarial-robustness-toolbox": "1.20.1", "torch": "2.9"},
}


def figure(table: str, dataset: str, method: str, attack: str, eps: float | None = None) -> Cell:
    """The only published cell with these; a radius is typed with fewer digits."""
    cells = get_published(table).select(dataset, method)
    (found,) = (each for each in cells if each.attack == attack and each.eps == (eps and pytest.approx(eps)))
    return found


def bits(text: str) -> np.ndarray:
    """Text such as "1101" as an array of booleans."""
    return np.array([each == "1" for each in text])


def attack(name: str, objective: str | None, eps: float, standing: str, **more: Any) -> AttackRecord:
    """An attack on all images that are correct when clean."""
    more = {"attacked": bits("1111111110"), "steps": 20, "seconds": 1.5, "eps_step": eps / 4, **more}
    return AttackRecord(name, objective, eps, standing=bits(standing), **more)


def carlini(name: str, standing: str, *distances: float, **more: Any) -> AttackRecord:
    """An attack without a ball on the first three images, with the distances to what it found."""
    far = np.array([*distances, *[math.nan] * (N - len(distances))])
    return attack(name, None, 0.0, standing, bounded=False, attacked=bits("1110000000"), distances=far, **more)


#: nine of ten are correct when clean; at 0.1 the worst case is 5, at 0.2 it is 1
CLEAN = AttackRecord("clean", None, 0.0, 0.0, 0, 0.1, bits("1111111110"), queries=10)
ATTACKS = (
    attack("PGD own loss", "loss", 0.1, "1111111100", gradients=180, queries=18),
    attack("PGD cross-entropy", "cross_entropy", 0.1, "1111111110"),
    attack("PGD adaptive", "adaptive", 0.1, "1111110000"),
    attack("Square", None, 0.1, "1111100000", attacked=bits("1111110000"), black_box=True),
    attack("PGD own loss", "loss", 0.2, "1111111000"),
    attack("PGD cross-entropy", "cross_entropy", 0.2, "1111111110"),
    attack("PGD adaptive", "adaptive", 0.2, "1110000000"),
    attack("PGD margin, restarts", "margin", 0.2, "1100000000", attacked=bits("1110000000"), restarts=2),
    attack("SPSA", "margin", 0.2, "1000000000", attacked=bits("1100000000"), black_box=True),
    carlini("C&W", "0011111110", 0.5, 1.5, eps_step=0.01),
)

DIAGNOSTICS = (
    Diagnostic("softmax outputs", 0.0, 0.5, False, "The network's outputs are no probabilities."),
    Diagnostic("gap of own loss", 0.4, 0.1, True, "PGD on the own loss leaves 70.0 %, on the margin 30.0 %."),
)
VERDICT = Verdict(BROKEN, ("The worst case is 10.0 % of 10 samples.", "PGD on the own loss leaves 70.0 %."))

RECORD = RobustnessRecord(
    CLEAN,
    ATTACKS,
    seed=3,
    suite="standard",
    labels=LABELS,
    diagnostics=DIAGNOSTICS,
    verdict=VERDICT,
    provenance={
        "name": "my net",
        "classifier": "MMCClassifier",
        "checkpoint": "net.pt",
        "kind": "art_mmc checkpoint",
        "defence": "mmc",
        "backbone": "cnn",
        "options": {"scale": 10.0},
        "parameters": 1234,
        "dataset": "some/folder/mine.npz",
        "nb_classes": 3,
        "n": N,
        "n_test": 20,
        "suite": "standard",
        "quirks": [],
        "substitutes": ["other.pt"],
        "batch_size": 5,
        "seed": 3,
        **MACHINE,
    },
    predictions=np.array([0, 2, 0, 1, 0, 0, 1, 0, 1, 2]),
    diagnostics_seconds=4.0,
)

#: attacks alone, in L2 and on some of the images: no labels, no diagnostics, no verdict, no provenance
BARE = RobustnessRecord(
    CLEAN, (attack("SPSA", "margin", 0.1, "0111111110", attacked=bits("1100000000"), norm=2.0),), seed=0
)

CURVES = Curves(
    n=8,
    clean=8,
    eps=(0.1, 0.2, 0.4),
    over_eps={"loss": (8, 7, 6), "cross_entropy": (8, 8, 8), "margin": (6, 3, 0)},
    steps_over_eps=20,
    at=0.2,
    steps=(1, 10, 100),
    over_steps={"loss": (8, 7, 7), "cross_entropy": (8, 8, 8), "margin": (7, 4, 3)},
    zero={"loss": (0, 0, 0, 0), "cross_entropy": (8, 8, 6, 4), "margin": (0, 0, 0, 0)},
)

#: the pictures of its report
PICTURES = ["confusion.png", "eps.png", "examples.png", "steps.png", "zero-gradients.png"]


def images(channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Ten clean images, and examples of those that fall at 0.2, exact in float32."""
    rng = np.random.default_rng(0)
    x = rng.choice(np.array([0.25, 0.5, 0.75], np.float32), (N, channels, 6, 6))
    x_adv = x.copy()
    fallen = np.arange(1, 9)
    x_adv[fallen] += rng.choice(np.array([-0.125, 0.125], np.float32), x_adv[fallen].shape)
    return x, x_adv


def pictured(channels: int = 1) -> RobustnessRecord:
    """The record with curves, images and examples."""
    x, x_adv = images(channels)
    return replace(RECORD, examples=x_adv, curves=CURVES, inputs=x, index=np.arange(N) + 5)


#: percent standing of ten samples: clean, then FGSM, PGD own loss, PGD adaptive at each eps; the first ones stand
STANDING = {
    "sce": (10, (6, 5, 5), (3, 1, 2)),
    "mmc": (9, (8, 8, 6), (5, 6, 1)),
    "pc": (10, (9, 6, 6), (8, 5, 5)),
}


def compared(attack: str, objective: str | None, eps: float, correct: int) -> AttackRecord:
    return AttackRecord(attack, objective, eps, eps / 10, 40, 0.5, np.arange(10) < correct)


def comparison() -> Comparison:
    """Three defences under the three attacks of `art-mmc compare`."""
    results = []
    for name, (clean, *under) in STANDING.items():
        records = tuple(
            compared(attack, "loss" if attack == COMPARED[1] else "margin", eps, correct)
            for eps, counts in zip((0.1, 0.2), under, strict=True)
            for attack, correct in zip(COMPARED, counts, strict=True)
        )
        record = RobustnessRecord(compared("clean", None, 0.0, clean), records, seed=0)
        results.append(DefenceResult(name, "cnn", 1.25, 2.5, record))
    provenance = {
        "dataset": "folder/mine.npz",
        "n_train": 100,
        "n_test": 20,
        "n": 10,
        "backbone": "cnn",
        "recipe": {
            "name": "default",
            "optimizer": "adam",
            "rate": 1e-3,
            "nb_epochs": 5,
            "batch_size": 64,
            "source": "us",
        },
        "seed": 7,
        "steps": 40,
        **MACHINE,
    }
    return Comparison(provenance, tuple(results))


def protocol(eps: tuple[float, ...] = (0.1, 0.2)) -> RobustnessRecord:
    """A part of the PC paper's protocol: PGD-40 leaves 8 and 6 of 10, the adaptive attack 4 and 1."""
    attacks = []
    for radius, plain, adaptive in zip(eps, ("1111111100", "1111110000"), ("1111000000", "1000000000"), strict=True):
        attacks += [
            attack("FGSM", "cross_entropy", radius, "1111111110", seconds=0.25),
            attack("PGD-40", "cross_entropy", radius, plain, seconds=2.5),
            attack("PGD-40 adaptive", "adaptive", radius, adaptive, seconds=2.0),
        ]
    attacks.append(carlini("C&W, 100 steps", "1011111110", math.nan, 2.0))
    return replace(RECORD, attacks=tuple(attacks), suite="li2021-table1")


def reproduction(record: RobustnessRecord | None = None, eps: tuple[float, ...] = (0.1, 0.2, 0.3)) -> Reproduction:
    conditions = {
        "n": 10,
        "n_test": 10000,
        "n_train": 60000,
        "suite": "li2021-table1",
        "eps": list(eps),
        "quirks": [],
        "budget": 0.1,
        "small": False,
        "batch_size": 256,
        "seed": 0,
        "substitute": "",
        **MACHINE,
    }
    results = (
        Reproduced("sce", "lenet5, recipe li2021-mnist, 10 of 100 epochs", 12.5, record or protocol()),
        Reproduced("pc", "art_mmc checkpoint pc.pt", None, record or protocol()),
    )
    return Reproduction("li2021-table1", "mnist", conditions, results)


#: a module with networks of a user's own, right and wrong
FACTORY = """
import torch

class Net(torch.nn.Module):
    def __init__(self, pixels, classes):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pixels, 24), torch.nn.ReLU())
        self.head = torch.nn.Linear(24, classes)

    def forward(self, x):
        return self.head(self.layers(x))

def sized(input_shape, nb_classes):
    channels, height, width = input_shape
    return Net(channels * height * width, nb_classes)

def plain():
    return Net(64, 10)

def wrong_size():
    return Net(32, 10)

def too_few():
    return Net(64, 9)

def nothing():
    return None

class Pair(Net):
    def forward(self, x):
        return super().forward(x), x

def pair():
    return Pair(64, 10)

def backbone():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU())
"""

#: what that module holds
NETS: dict[str, Any] = {}
exec(FACTORY, NETS)
