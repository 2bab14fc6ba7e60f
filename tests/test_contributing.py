"""The pages for contributors: the diffs fit today's sources, the changelog's first entry is the version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

import art_mmc
from tests.readme import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DIFFS = dict(re.findall(r"## An? (.*?)\n.*?```diff\n(.*?)```", PAGE, re.DOTALL))
#: what the tests of each addition are called by, and where they are
TESTS = {
    "loss": ("cosface", "test_losses.py"),
    "attack": ("uniform_noise", "test_attacks.py"),
    "detector": ("max_logit", "test_detectors.py"),
    "published table": ("madry2018", "test_published.py"),
    "data set": ("usps", "test_data.py"),
}


def test_every_addition_is_shown():
    assert list(DIFFS) == list(TESTS)


@pytest.mark.parametrize("title", DIFFS)
def test_a_diff_fits_the_sources(title):
    command = ["git", "apply", "--check", "--recount", "-C1", "-"]
    done = subprocess.run(command, input=DIFFS[title], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_all_additions_pass_their_tests(tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(ROOT, copied, ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
    for title in DIFFS:
        subprocess.run(["git", "apply", "--recount", "-C1", "-"], input=DIFFS[title], cwd=copied, text=True, check=True)
    names, files = zip(*TESTS.values(), strict=True)
    command = [sys.executable, "-m", "pytest", "-v", "-k", " or ".join(names), *(f"tests/{file}" for file in files)]
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=copied, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert all(re.search(f"{name}.* PASSED", done.stdout) for name in names), done.stdout


def test_a_loss_takes_four_files_and_eighty_lines_with_the_line_of_the_readme():
    added = [line for line in DIFFS["loss"].splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert len(added) + 1 <= 80
    assert DIFFS["loss"].count("+++ b/") + 1 <= 4


def test_the_changelog_begins_with_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert entries[0] == art_mmc.__version__
    assert entries == sorted(entries, key=lambda version: [int(part) for part in version.split(".")], reverse=True)
