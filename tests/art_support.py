"""
What of ART runs on the nine classifiers, and what does not, with the reason: the data of the tests in
`test_art_attacks.py`, `test_art_trainers.py` and `test_art_others.py`, which stand in `art_support.toml`, and of the
table in the docs.

`python -m tests.art_support` writes the table to `examples/results/art_support.md`; a test tells when it is out of
date.
"""

from __future__ import annotations

import builtins
import importlib.util
import inspect
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from art.attacks import attack, evasion
from art.defences import trainer
from art.defences.detector.evasion import EvasionDetector
from art.defences.detector.poison import PoisonFilteringDefence

from art_mmc import LossDefendedClassifier, create_classifier
from art_mmc.checks import tomllib

TABLE = Path(__file__).parents[1] / "examples" / "results" / "art_support.md"


@dataclass(frozen=True)
class Failure:
    """Kinds of exception, pattern of its message, when it comes: "always", "numpy >= 2" or "no <package>", and why."""

    error: tuple[type[Exception], ...]
    match: str
    when: str
    reason: str


@dataclass(frozen=True)
class Attack:
    """
    How a test runs an attack of ART's.

    :param climbs: What it takes from the classifier, in words for the table.
    :param variants: Name -> constructor arguments, small, for 8x8 images and a short test; in the file `arguments` are
           those of an only one. A function gets the attack's module and the classifier, for arguments that are objects.
    :param ball: Whether the result keeps within `eps` in the `norm` of the arguments (L-inf if none); or a radius.
    :param view: Whether it is run on `classifier.with_probabilities(10)`.
    :param labels: "true", "target", or "images" for attacks that take images there.
    :param samples: How many images the test attacks.
    :param effect: "fools": at least one prediction changes on each classifier; "moves": the images change; "stays":
           neither is asked for, see the note. Or some variants or classifiers, each with its own, the others fooled.
    :param fails: How it fails, in some environments or in all.
    :param note: What a user should know.
    """

    climbs: str = ""
    variants: dict[str, Any] = field(default_factory=dict)
    ball: bool | float = False
    view: bool = False
    labels: str = "true"
    samples: int = 6
    effect: str | dict[str, str] = "fools"
    fails: Failure | None = None
    note: str = ""


@dataclass(frozen=True)
class Refusal:
    """Classifiers that refuse a trainer's variant, in which words, and why."""

    names: tuple[str, ...]
    match: str
    reason: str


@dataclass(frozen=True)
class Trainer:
    """
    How a test trains with a trainer of ART's.

    :param variants: Names of the ways in which the test uses it.
    :param note: What a user should know.
    :param only: Variant -> the classifiers that it is run on, where not all nine.
    :param refuses: Variant -> the classifiers that refuse it.
    :param fails: As of an attack.
    """

    variants: tuple[str, ...] = ("",)
    note: str = ""
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refuses: dict[str, Refusal] = field(default_factory=dict)
    fails: Failure | None = None


def _two(evasion: Any, classifier: Any) -> dict[str, Any]:
    """For AutoAttack, whose own four take minutes."""
    ball = {"eps": 0.15, "eps_step": 0.05}
    losses, settings = ("cross_entropy", "difference_logits_ratio"), {**ball, "max_iter": 3, "nb_random_init": 1}
    apgd = evasion.AutoProjectedGradientDescent
    return {**ball, "attacks": [apgd(classifier, **settings, loss_type=loss, verbose=False) for loss in losses]}


#: arguments that are objects, or none
OBJECTS: dict[str, Any] = {
    "AutoAttack": _two,
    "FrameSaliencyAttack": lambda evasion, classifier: {"attacker": evasion.FastGradientMethod(classifier, eps=0.15)},
    "LaserAttack": {"laser_generator": None},
    "LowProFool": {"importance": np.ones(1)},
    "MalwareGDTensorFlow": {"embedding_weights": np.zeros((257, 8))},
    "SNAL": {"candidates": [], "collector": None},
}


def _plain(value: Any) -> Any:
    """Lists as tuples, which ART asks for."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return tuple(_plain(each) for each in value) if isinstance(value, list) else value


def _row(kind: type, name: str, entry: dict[str, Any]) -> Any:
    """A row of the file as an attack or trainer."""
    entry = _plain(entry)
    if "fails" in entry:
        errors = tuple(getattr(builtins, each) for each in entry["fails"]["error"])
        entry["fails"] = Failure(**{**entry["fails"], "error": errors})
    if kind is Attack and "variants" not in entry:
        given, arguments = OBJECTS.get(name, {}), entry.pop("arguments", {})
        entry["variants"] = {"": given if callable(given) else {**arguments, **given}}
    if "refuses" in entry:
        entry["refuses"] = {variant: Refusal(**each) for variant, each in entry["refuses"].items()}
    return kind(**entry)


_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
ATTACKS: dict[str, Attack] = {name: _row(Attack, name, entry) for name, entry in _FILE["attacks"].items()}
TRAINERS: dict[str, Trainer] = {name: _row(Trainer, name, entry) for name, entry in _FILE["trainers"].items()}
OTHERS: dict[str, tuple[str, str]] = _plain(_FILE["others"])
RAN_ONCE: dict[str, tuple[str, str]] = _plain(_FILE["ran_once"])
NO_CLASSIFIER: dict[str, str] = _FILE["no_classifier"]


def happens(when: str) -> bool:
    """Whether the `when` of an exception holds in this environment."""
    if when == "always":
        return True
    if when == "numpy >= 2":
        return int(np.__version__.split(".")[0]) >= 2
    return importlib.util.find_spec(when.removeprefix("no ")) is None


def failure(entry: Attack | Trainer) -> Failure | None:
    """How an attack or trainer fails in this environment, or None if it runs."""
    return entry.fails if entry.fails is not None and happens(entry.fails.when) else None


def effect(entry: Attack, variant: str, classifier: str) -> str:
    """The effect of a variant of an attack on a defence: "fools", "moves" or "stays"."""
    if isinstance(entry.effect, str):
        return entry.effect
    return entry.effect.get(variant, entry.effect.get(classifier, "fools"))


def attack_classes() -> dict[str, type]:
    """ART's evasion attacks by name, those too that are in a module of its alone."""
    found: dict[str, type] = {}
    left = [attack.EvasionAttack]
    while left:
        kin = [cls for cls in left.pop().__subclasses__() if cls.__module__.startswith(evasion.__name__)]
        found.update({cls.__name__: cls for cls in kin})
        left += kin
    return dict(sorted(found.items()))


@cache
def classifier() -> LossDefendedClassifier:
    """One that the attacks are asked whether they take it."""
    return create_classifier("sce", "cnn", input_shape=(1, 8, 8), nb_classes=10)


def evasion_attacks() -> dict[str, bool]:
    """The names of ART's evasion attacks, each with whether it takes a PyTorch classifier."""
    one = classifier()
    return {name: cls.is_estimator_valid(one, cls._estimator_requirements) for name, cls in attack_classes().items()}


def other_attacks() -> list[str]:
    """The names of ART's attacks of other kinds that take a PyTorch classifier by its type, and of its detectors."""
    for name in ("art.attacks.poisoning", "art.attacks.inference", "art.attacks.extraction"):
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if "audio" not in module.name:  # asks for a package for sounds
                importlib.import_module(module.name)
    found, left = [], [attack.Attack]
    while left:
        for cls in left.pop().__subclasses__():
            left.append(cls)
            foreign = not cls.__module__.startswith("art.") or ".evasion" in cls.__module__ or inspect.isabstract(cls)
            wanted = getattr(cls, "_estimator_requirements", None)
            if not foreign and wanted is not None and cls.is_estimator_valid(classifier(), wanted):
                found.append(cls.__name__)
    detectors = EvasionDetector.__subclasses__() + PoisonFilteringDefence.__subclasses__()
    return sorted({*found, *(cls.__name__ for cls in detectors if cls.__module__.startswith("art."))})


def trainers() -> list[str]:
    """The names of ART's trainers."""
    return [
        name
        for name, cls in sorted(vars(trainer).items())
        if isinstance(cls, type) and issubclass(cls, trainer.Trainer) and not inspect.isabstract(cls)
    ]


def to_markdown() -> str:
    """The table for the docs."""

    def sentence(*parts: str) -> str:
        return "; ".join(part for part in parts if part)

    def runs(entry: Attack | Trainer) -> str:
        if entry.fails is None:
            return "yes"
        when = entry.fails.when
        return "no" if when == "always" else f"not with {when}".replace("with no ", "without ")

    def on_arts(entry: Attack) -> str:
        return "behind a softmax" if entry.view else runs(entry)

    def reason(entry: Attack | Trainer) -> str:
        return entry.fails.reason if entry.fails is not None else ""

    lines = [
        "# What of ART runs on the nine classifiers",
        "",
        "Written by `python -m tests.art_support` from what the tests run, with ART 1.20; a test compares. *The "
        "objective* is the classifier's `objective`: the defence's adaptive one unless told otherwise. *ART's* is "
        "ART's own `PyTorchClassifier` on a network of the same kind.",
        "",
        "## Evasion attacks",
        "",
        "| attack | runs | on ART's | climbs | remarks |",
        "|---|---|---|---|---|",
    ]
    for name, entry in sorted(ATTACKS.items()):
        about = sentence(reason(entry), entry.note)
        lines.append(f"| {name} | {runs(entry)} | {on_arts(entry)} | {entry.climbs} | {about} |")
    others = [name for name, fits in evasion_attacks().items() if not fits]
    lines += ["", f"For other kinds of estimators: {', '.join(others)}.", "", "## Trainers", ""]
    lines += ["| trainer | runs | on ART's | remarks |", "|---|---|---|---|"]
    for name, entry in sorted(TRAINERS.items()):
        refused = [f"{', '.join(each.names)}: {each.reason}" for each in entry.refuses.values()]
        lines.append(f"| {name} | {runs(entry)} | {runs(entry)} | {sentence(reason(entry), entry.note, *refused)} |")
    lines += ["", "## Detectors, metrics, poisoning, inference, extraction, wrappers", ""]
    lines += ["| class | kind | runs | on ART's | remarks |", "|---|---|---|---|---|"]
    for word, rows in (("yes", OTHERS), ("once", RAN_ONCE)):
        lines += [f"| {name} | {kind} | {word} | {word} | {note} |" for name, (kind, note) in rows.items()]
    lines += ["", "*Once*: ran with ART 1.20, no test runs it; it goes the ways of others through a classifier."]
    without = [f"{name} ({why})" for name, why in NO_CLASSIFIER.items()]
    lines += ["", f"Nothing for them: {', '.join(without)}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(to_markdown(), encoding="utf-8")
