"""The package as a whole: what an import costs, and the names that others rely on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import art_mmc
import art_mmc.losses

PUBLIC = [
    "max_mahalanobis_centers",
    "LossDefendedClassifier",
    "SoftmaxClassifier",
    "MMCClassifier",
    "MMLDAClassifier",
    "LGMClassifier",
    "CenterLossClassifier",
    "RCEClassifier",
    "PCClassifier",
    "GCEClassifier",
    "ISCEClassifier",
    "LossTrainer",
    "MMCTrainer",
    "PCTrainer",
    "create_classifier",
    "load_classifier",
    "load_dataset",
]

LOSSES = [
    "MMCLoss",
    "MMLDALoss",
    "LGMLoss",
    "CenterLoss",
    "ReverseCrossEntropyLoss",
    "PCLoss",
    "LogitConstraintLoss",
    "GuidedComplementEntropyLoss",
    "InferenceSoftmaxLoss",
]


def modules_after(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_heavy():
    assert not {"torch", "art", "matplotlib", "sklearn", "torchvision"} & modules_after("import art_mmc")


def test_a_classifier_costs_torch_and_art_s_classifier_and_no_more():
    ours = modules_after("from art_mmc import MMCClassifier")
    theirs = modules_after("from art.estimators.classification import PyTorchClassifier")
    foreign = {name.split(".")[0] for name in ours - theirs} - {"art_mmc"}
    assert not {name for name in foreign if not name.startswith("_")} & {"matplotlib", "torchvision", "pandas", "PIL"}
    assert len(foreign) < 10, foreign


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name):
    assert name in dir(art_mmc)
    assert getattr(art_mmc, name).__doc__


@pytest.mark.parametrize("name", LOSSES)
def test_public_losses(name):
    assert "Paper link" in getattr(art_mmc.losses, name).__doc__


def test_every_listed_name_exists():
    for name in art_mmc.__all__:
        getattr(art_mmc, name)
    with pytest.raises(AttributeError, match="no attribute 'MCMClassifier'"):
        art_mmc.MCMClassifier  # noqa: B018


def test_type_checkers_see_the_same_names():
    """The names imported under TYPE_CHECKING are those that are handed out at run time."""
    with open(art_mmc.__file__, encoding="utf-8") as file:
        seen = {line.split(" as ")[1].strip() for line in file if line.startswith("    from art_mmc.")}
    assert seen == set(art_mmc.__all__)
