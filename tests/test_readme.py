"""The README: every block runs, every table is the generated one, and CI runs its test command."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

import art_mmc
from art_mmc import cli, load_dataset
from art_mmc.data import Dataset
from tests.readme import BLOCKS, README, ROOT, block_pattern

TEXT = README.read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
PYTHON = [code for language, code in BLOCK.findall(TEXT) if language == "python"]
SHELL = [line for language, code in BLOCK.findall(TEXT) if language == "bash" for line in code.strip().splitlines()]


@pytest.mark.thorough
def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for code in PYTHON:
        exec(compile(code, "README.md", "exec"), namespace)  # noqa: S102
    clean, robust = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[:2])
    assert clean > 0.9
    assert robust < clean
    assert (tmp_path / "runs" / "mmc.pt").is_file()
    assert namespace["centers"].shape == (10, 64)
    history = namespace["trainer"].history  # the adversarial example's; the last block that has one
    assert history[-1]["val_accuracy"] > 0.9
    assert history[-1]["val_robust_accuracy"] > 0.6


def test_every_block_is_covered():
    assert {language for language, _ in BLOCK.findall(TEXT)} == {"python", "bash"}
    assert len(PYTHON) == 6
    known = ("python3 -m venv", "art-mmc ")
    assert all(line.startswith(known) for line in SHELL)


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("art-mmc ")])
def test_commands_parse(line):
    cli.build_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.slow
def test_the_adversarial_training_ends_at_a_figure_worth_showing(run):
    (line,) = (line for line in SHELL if "--adversarial" in line)
    status, out, err = run(*shlex.split(line)[1:])
    assert (status, err) == (0, "")
    record = json.loads(Path("runs/mmc-digits.json").read_text())
    assert record["clean_test_accuracy"]["accuracy"] > 0.9
    assert max(each["val_robust_accuracy"] for each in record["history"]) > 0.65
    assert "val_robust_accuracy" in out.splitlines()[0]


def test_a_data_set_is_downloaded_where_it_is_first_used():
    seen: set[str] = set()
    for words in (shlex.split(line, comments=True) for line in SHELL if "--dataset" in line):
        name = words[words.index("--dataset") + 1]
        assert ("--download" in words) == (name not in seen)
        seen.add(name)


def test_set_up_commands():
    install = [line for line in SHELL if line.startswith("python3 -m venv")]
    assert len(install) == 2
    assert all("-m venv .venv && .venv/bin/pip install" in line for line in install)
    assert install[0].endswith(".venv/bin/art-mmc compare")


@pytest.mark.parametrize("name", BLOCKS)
def test_tables_are_the_generated_ones(name):
    match = block_pattern(name).search(TEXT)
    assert match is not None
    assert match[2].strip() == BLOCKS[name]().strip(), "run: python -m tests.readme"


def test_ci_runs_exactly_the_readme_s_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -E '([^']+)' README.md", script)[1]
    lines = [line for line in TEXT.splitlines() if re.fullmatch(pattern, line)]
    assert lines == [line for line in SHELL if line.endswith("-m pytest")]
    assert 'bash -c "$test_command"' in script


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("script", [*(ROOT / "examples").glob("[!r]*.py")], ids=lambda path: path.name)
@pytest.mark.thorough
@pytest.mark.usefixtures("short_control")
def test_examples_run(script: Path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(script)])
    # fewer images: each line runs, in a fraction of the time
    data = load_dataset("digits")
    few = Dataset("digits", data.x_train[:360], data.y_train[:360], data.x_test[:30], data.y_test[:30])
    monkeypatch.setattr(art_mmc, "load_dataset", lambda name: few)
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    expected = {
        "get_started.py": ["clean ", "PGD on MMC's own loss", "predictions equal: True"],
        "break_mmc.py": [
            "worst case: an upper bound; art-mmc evaluate CHECKPOINT --suite strong",
            "own loss",
            "no gradient of the cross-entropy",
            "broken",
        ],
        "art_script.py": ["PyTorchClassifier", "MMCClassifier", "APGD-DLR", "Square"],
    }[script.name]
    for text in expected:
        assert text in said
    assert not list(tmp_path.iterdir())


def test_the_map_names_places_that_are_there():
    (part,) = re.findall(r"## Where things are\n(.*)", TEXT, re.DOTALL)
    places = re.findall(r"`((?:art_mmc|tests)/[^`]*)`", part)
    assert all((ROOT / place).exists() for place in places)
    folders = {path.name for path in (ROOT / "art_mmc").iterdir() if (path / "__init__.py").is_file()}
    assert folders <= {place.split("/")[1] for place in places}
