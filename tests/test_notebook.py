"""The notebook: its cells run in order, and what is stored in it is what they print and draw."""

from __future__ import annotations

import json
import re

import pytest

import art_mmc
from art_mmc.data import Dataset, load_dataset
from tests.notebook import NOTEBOOK, executed


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


@pytest.mark.thorough
@pytest.mark.usefixtures("short_control")
def test_it_runs_and_says_the_same(monkeypatch):
    """On fewer images: each line runs, in a fraction of the time."""

    def few(name: str) -> Dataset:
        data = load_dataset(name)
        return Dataset(name, data.x_train[:360], data.y_train[:360], data.x_test[:300], data.y_test[:300])

    monkeypatch.setattr(art_mmc, "load_dataset", few)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    stored, again = (each["cells"] for each in (notebook, executed(notebook)))
    kinds = [[kind for kind, _ in outputs(cells)] for cells in (stored, again)]
    assert kinds[0] == kinds[1]
    assert "verdict: broken" in "".join(text for _, text in outputs(again))
