"""
ART's own tests with our classes in the place of its `PyTorchClassifier`: what passes there passes here, but for the
differences that are listed. `ART_CHECKOUT=<checkout of ART's repository> pytest -m art_suite`; ART's data folder must
hold MNIST. It takes half an hour.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

CHECKOUT = os.environ.get("ART_CHECKOUT")
HERE = Path(__file__).parent
#: test files that make one of these make a classifier of ours
MAKERS = re.compile("PyTorchClassifier|get_(image|tabular)_classifier_pt|(image|tabular)_dl_estimator")

#: form -> pattern of tests that differ, and why
DIFFERENCES: dict[str, dict[str, str]] = {
    "loss": {
        r"TestPyTorchClassifier.*test_repr": "the name and parameters are our class'",
        r"test_projected_gradient_descent.*binary": "declares a shape that its network does not take; ours is asked",
    },
    "accelerate": {
        r"TestPyTorchClassifier.*test_repr": "the name and parameters are our class'",
    },
    "default": {
        r"TestPyTorchClassifier.*(test_repr|loss_gradient)": "the objective is the margin, not the loss",
        r"test_deeplearning_(common|specific).*loss": "the objective is the margin, not the loss",
        r"momentum_iterative_method": "its figures are those of the loss",
        r"FBF": "its figures are those of the loss",
    },
}

pytestmark = [
    pytest.mark.art_suite,
    pytest.mark.skipif(CHECKOUT is None, reason="ART_CHECKOUT names no checkout of ART's repository"),
]


def outcomes(form: str, folder: Path, tests: list[str]) -> dict[str, str]:
    """Name of each of ART's tests -> "passed", or what became of it."""
    report = folder / f"{form}.xml"
    paths = [str(HERE / "art_suite"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "art_form", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run(
        [*command, "--framework=pytorch", "--continue-on-collection-errors", *tests],
        cwd=CHECKOUT,
        env={**os.environ, "ART_FORM": form, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
        capture_output=True,
    )
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        bad = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        found[f"{case.get('classname')}.{case.get('name')}"] = bad[0] if bad else "passed"
    return found


@pytest.fixture(scope="module")
def files() -> list[str]:
    """ART's test files in which our classes can stand."""
    assert CHECKOUT is not None
    found = [path for path in sorted(Path(CHECKOUT, "tests").rglob("test_*.py")) if MAKERS.search(path.read_text())]
    return [str(path.relative_to(CHECKOUT)) for path in found]


@pytest.fixture(scope="module")
def passing(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The tests that pass on ART's own class."""
    found = outcomes("art", tmp_path_factory.mktemp("art"), files)
    passed = [name for name, outcome in found.items() if outcome == "passed"]
    assert len(passed) > 200
    return passed


@pytest.mark.parametrize("form", DIFFERENCES)
def test_what_passes_on_arts_class_passes_on_ours(form, files, passing, tmp_path):
    found = outcomes(form, tmp_path, files)
    differing = [name for name in passing if found.get(name) != "passed"]
    listed = [name for name in differing if any(re.search(pattern, name) for pattern in DIFFERENCES[form])]
    assert [name for name in differing if name not in listed] == []
