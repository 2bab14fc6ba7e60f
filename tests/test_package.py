"""The package as a whole: what an import costs, and the names that others rely on."""

from __future__ import annotations

import ast
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import art_mmc
import art_mmc.attacks
import art_mmc.classifiers
import art_mmc.detectors
import art_mmc.losses
import art_mmc.models
import art_mmc.theory
import art_mmc.trainers


@pytest.fixture(scope="module")
def loaded() -> list[set[str]]:
    """Which modules are there after each of some imports, in one fresh process: starting more takes seconds each."""
    code = """
import json, sys
for step in (
    "import art_mmc",
    "import art_mmc.attacks, art_mmc.detectors, art_mmc.losses",
    "from art.estimators.classification import PyTorchClassifier",
    "from art_mmc import MMCClassifier",
    "from art_mmc.reports import write_report, write_robustness",
):
    exec(step)
    print(json.dumps(list(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(json.loads(line)) for line in done.stdout.splitlines()[-5:]]


def test_importing_the_package_imports_nothing_heavy(loaded):
    assert not {"torch", "art", "matplotlib", "sklearn", "torchvision"} & loaded[0]
    assert not {"torch", "art", "scipy"} & loaded[1]


def test_reports_import_no_pictures_before_one_is_drawn(loaded):
    assert "matplotlib.figure" not in loaded[4]


def test_a_classifier_costs_torch_and_art_s_classifier_and_no_more(loaded):
    theirs, ours = loaded[2:4]
    foreign = {name.split(".")[0] for name in ours - theirs} - {"art_mmc"}
    assert not {name for name in foreign if not name.startswith("_")} & {"matplotlib", "torchvision", "pandas", "PIL"}
    assert len(foreign) < 10, foreign


#: what may be carried elsewhere -> all that comes along: its base, and what that needs
_ATTACK = {"attacks", "attacks.base", "checks"}
_WHITE_BOX = _ATTACK | {"attacks.white_box", "objectives"}
_DETECTOR = {"detectors", "detectors.base", "checks", "models", "models.features", "models.inference"}
_LOSS = {"losses", "losses.base", "checks", "options"}
LUGGAGE = {
    name: base | {f"{folder}.{file}"}
    for folder, base, files in [
        ("attacks", _ATTACK, "spsa SPSA|gaussian_noise GaussianNoise|random_rotation RandomRotation"),
        ("attacks", _WHITE_BOX, "auto_pgd AutoPGD|fast_adaptive_boundary FastAdaptiveBoundary"),
        ("attacks", _WHITE_BOX, "scheduled_pgd ScheduledPGD"),
        ("detectors", _DETECTOR, "confidence ConfidenceDetector NonMaximalEntropyDetector"),
        ("detectors", _DETECTOR, "density KernelDensityDetector"),
        ("detectors", _DETECTOR, "distance CenterDistanceDetector LIDDetector MahalanobisDetector"),
        ("losses", _LOSS, "center CenterLoss|complement_entropy GuidedComplementEntropyLoss"),
        ("losses", _LOSS, "inference_softmax InferenceSoftmaxLoss|gaussian_mixture LGMLoss"),
        ("losses", _LOSS, "probabilistically_compact LogitConstraintLoss PCLoss PCLogitConstraintLoss"),
        ("losses", _LOSS, "max_mahalanobis MMCLoss MMLDALoss|cross_entropy SoftmaxCrossEntropyLoss"),
        ("losses", _LOSS - {"checks"}, "reverse_cross_entropy ReverseCrossEntropyLoss"),
    ]
    for file, *names in map(str.split, files.split("|"))
    for name in names
} | {
    "AutoAttackStandard": _WHITE_BOX
    | {"attacks.auto_attack", "attacks.auto_pgd", "attacks.fast_adaptive_boundary", "state"},
    "CarliniL2": _WHITE_BOX | {"attacks.carlini"},
}
#: what brings a floor of the house along -> at most so many modules
FLOORS = {"MMCClassifier": 36, "ThresholdedClassifier": 40, "MMCTrainer": 50, "RobustnessEvaluation": 62}


@pytest.mark.processes
def test_a_class_brings_little_along():
    """No training, no evaluation, no reports, not even the classifiers, where they are not needed."""
    script = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "upstream" / "luggage.py"))
    found = script["luggage"]([*LUGGAGE, *FLOORS])
    for name, modules in LUGGAGE.items():
        assert {module[8:] for module in found[name]} - {"", "_attach"} == modules, name
    for name, most in FLOORS.items():
        assert len(found[name]) <= most, name


@pytest.mark.parametrize(
    "package",
    [
        art_mmc,
        art_mmc.attacks,
        art_mmc.classifiers,
        art_mmc.detectors,
        art_mmc.losses,
        art_mmc.models,
        art_mmc.theory,
        art_mmc.trainers,
    ],
    ids=lambda package: package.__name__,
)
def test_every_name_of_the_stub_is_handed_out(package):
    """At run time and to type checkers: mypy reads the stub alone, and what it says must be there."""
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    imported = [alias.name for node in stub if isinstance(node, ast.ImportFrom) for alias in node.names]
    declared = [node.name for node in stub if isinstance(node, ast.ClassDef)]
    assert {name for name in imported + declared if not name.startswith("_")} - {"OneHotLoss"} <= set(package.__all__)
    for name in package.__all__:
        home = getattr(package, name)
        assert getattr(home, "__module__", "art_mmc.").startswith("art_mmc.")
        assert home.__doc__
        if package is art_mmc.losses and name not in ("Loss", "LinearInLabelLoss", "SoftmaxCrossEntropyLoss"):
            assert "Paper link" in home.__doc__
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'MCMClassifier'"):
        package.MCMClassifier  # noqa: B018
