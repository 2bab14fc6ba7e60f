"""The patches for ART in `examples/upstream` are made of today's sources and apply to the release; their tests pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "examples" / "upstream"
sys.path.insert(0, str(HERE))
import measure  # noqa: E402
import patches  # noqa: E402


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    folder = tmp_path_factory.mktemp("art")
    patches.copy_of_art(folder)
    return folder


@pytest.mark.parametrize("name", patches.MADE)
def test_made_of_today_s_sources(name):
    text = (HERE / f"{name}.patch").read_text(encoding="utf-8")
    assert text == patches.made(name), "python examples/upstream/patches.py makes it anew"


@pytest.mark.parametrize("name", patches.PATCHES)
def test_it_applies_to_the_installed_release(name, art):
    patches.apply(name, art, "--check")


def test_the_readme_has_their_sizes():
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert text == patches.with_table(text), "python examples/upstream/patches.py writes them"


def run(folder: Path, names: Iterable[str], *options: str) -> None:
    for name in names:
        patches.apply(name, folder)
    paths = [
        line[6:].strip()
        for name in names
        for line in (HERE / f"{name}.patch").read_text().splitlines()
        if line.startswith("+++ b/tests/")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *options, *paths]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parent / 'art_suite'}"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.processes
def test_their_tests_pass_on_a_copy_of_the_installed_release(tmp_path):
    patches.copy_of_art(tmp_path)
    shutil.copytree(HERE / "stand_in", tmp_path, dirs_exist_ok=True)
    run(tmp_path, patches.PATCHES)


@pytest.mark.slow
@pytest.mark.parametrize("name", patches.PATCHES)
def test_each_stands_alone(name, tmp_path):
    patches.copy_of_art(tmp_path)
    shutil.copytree(HERE / "stand_in", tmp_path, dirs_exist_ok=True)
    run(tmp_path, (name,))


@pytest.mark.art_suite
@pytest.mark.skipif("ART_CHECKOUT" not in os.environ, reason="ART_CHECKOUT names no checkout of ART's repository")
def test_their_tests_pass_in_a_checkout_with_art_s_own_fixtures(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(os.environ["ART_CHECKOUT"], checkout, ignore=shutil.ignore_patterns(".git", "notebooks"))
    for name in patches.PATCHES:  # the docs too
        subprocess.run(["git", "apply", str(HERE / f"{name}.patch")], cwd=checkout, check=True)
        subprocess.run(["git", "apply", "-R", str(HERE / f"{name}.patch")], cwd=checkout, check=True)
    run(checkout, patches.PATCHES, "-p", "art_form", "--framework=pytorch")


@pytest.mark.slow
def test_the_classifier_s_patch_is_faster_with_the_same_examples(tmp_path):
    for name in ("before", "after"):
        patches.copy_of_art(tmp_path / name)
    patches.apply("pytorch_classifier", tmp_path / "after")
    # C&W gives back as it was what it does not fool
    for job, least, moved in (("ProjectedGradientDescent", 1.4, 1.0), ("CarliniL2Method", 4.0, 0.25)):
        ((_, before, after, same, changed),) = measure.measure(tmp_path, [job], rounds=3)
        assert same
        assert changed >= moved
        assert before / after >= least
