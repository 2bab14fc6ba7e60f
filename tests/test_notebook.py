"""The notebook: its cells run in order, and what is stored in it is what they print and draw."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.notebook import NOTEBOOK
from tests.readme import ROOT


def outputs(cells: list[dict]) -> list[tuple[str, str]]:
    """Kind of each output, and its text without the figures, which go by versions and machine."""
    found = [each for cell in cells for each in cell.get("outputs", [])]
    return [(each["output_type"], re.sub(r"\d[\d.]*", "#", "".join(each.get("text", [])))) for each in found]


def test_outputs_and_pictures_are_stored():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code)
    kinds = [kind for kind, _ in outputs(code)]
    assert kinds.count("display_data") == 3
    assert "error" not in kinds
    table = next(text for _, text in outputs(code) if "own loss" in text)
    assert table.count("#%") == 9


@pytest.mark.processes
def test_it_runs_and_says_the_same(tmp_path):
    place = tmp_path / "again.ipynb"
    subprocess.run([sys.executable, "-m", "tests.notebook", str(place)], cwd=ROOT, check=True, capture_output=True)
    stored, again = (json.loads(path.read_text(encoding="utf-8"))["cells"] for path in (NOTEBOOK, place))
    kinds = [[kind for kind, _ in outputs(cells)] for cells in (stored, again)]
    assert kinds[0] == kinds[1]
    assert "verdict: broken" in "".join(text for _, text in outputs(again))
