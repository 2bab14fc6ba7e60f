"""
ART's own tests with our classes in the place of its `PyTorchClassifier`: what passes there passes here, but for the
differences that are listed. `ART_CHECKOUT=<checkout of ART's repository> pytest -m art_suite`; ART's data folder must
hold MNIST, and where pandas and kornia are installed a few more tests run. `ART_TESTS=<words>` keeps the files in whose
paths one of the words occurs; all of them take far longer than our own tests.
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
WORDS = os.environ.get("ART_TESTS", "").split()
HERE = Path(__file__).parent
#: test files that make one of these make a classifier of ours
MAKERS = re.compile("PyTorchClassifier|get_(image|tabular)_classifier_pt|(image|tabular)_dl_estimator")

_NAME = {r"test_deeplearning_common\.test_repr$": "the name and parameters are our class'"}
#: form -> pattern of tests that differ, and why
DIFFERENCES: dict[str, dict[str, str]] = {
    "loss": _NAME,
    "accelerate": _NAME,
    "default": {
        **_NAME,
        r"test_deeplearning_common\.test_(compute_loss|loss_gradient)$": "it is the soft margin, not the loss",
        r"test_fast_gradient\.test_minimal_perturbations_images$": "classes of the loss' examples, exactly",
        r"test_momentum_iterative_method\.test_images(_targeted)?$": "mean changes of the loss' gradients to 0.3 %",
        r"test_wasserstein\.TestWasserstein\.test_pytorch_mnist$": "the exponential of a larger gradient overflows",
        r"test_adversarial_trainer_fbf_pytorch_fit_and_predict$": "accuracy of training on the loss' examples, exactly",
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
    paths = [str(path.relative_to(CHECKOUT)) for path in found]
    return [path for path in paths if not WORDS or any(word in path for word in WORDS)]


@pytest.fixture(scope="module")
def passing(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The tests that pass on ART's own class."""
    found = outcomes("art", tmp_path_factory.mktemp("art"), files)
    passed = [name for name, outcome in found.items() if outcome == "passed"]
    assert len(passed) > (0 if WORDS else 200)
    return passed


@pytest.mark.parametrize("form", DIFFERENCES)
def test_what_passes_on_arts_class_passes_on_ours(form, files, passing, tmp_path, capsys):
    found = outcomes(form, tmp_path, files)
    differing = [name for name in passing if found.get(name) != "passed"]
    listed = {name: why for name in differing for pattern, why in DIFFERENCES[form].items() if re.search(pattern, name)}
    with capsys.disabled():
        print(f"\n{form}: {len(passing) - len(differing)} of the {len(passing)} tests that pass on ART's own class")
        for name, why in listed.items():
            print(f"  differs on purpose: {name}: {why}")
    assert [name for name in differing if name not in listed] == []
