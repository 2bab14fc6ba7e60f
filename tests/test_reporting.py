"""Reports from records made by hand: no training here."""

from __future__ import annotations

import json
import re
import struct
import sys
from dataclasses import replace

import pytest

from art_mmc.reports import (
    curves_figure,
    curves_png,
    format_eps,
    history_table,
    json_bytes,
    load_report,
    markdown_report,
    radius_labels,
    write_report,
)
from art_mmc.studies.compare import Comparison
from tests.handmade import STANDING, comparison


@pytest.fixture(name="comparison")
def the_comparison() -> Comparison:
    return comparison()


@pytest.mark.parametrize(
    ("eps", "text"),
    [(0.05, "0.05"), (0.2, "0.2"), (8 / 255, "8/255"), (16 / 255, "16/255"), (0.12345, "0.1235"), (0.031, "0.031")],
)
def test_format_eps(eps, text):
    assert format_eps(eps) == text


def test_history_table_shows_ten_epochs_and_the_last():
    history = [
        {"epoch": i, "stage": "mmc", "loss": 1 / i, "accuracy": 0.5, "val_loss": None, "val_accuracy": 0.25}
        for i in range(1, 96)
    ]
    lines = history_table(history).splitlines()
    assert lines[0].split() == ["epoch", "stage", "loss", "accuracy", "val_accuracy"]
    assert [int(line.split()[0]) for line in lines[1:]] == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert lines[-1].split() == ["95", "mmc", "0.0105", "0.5000", "0.2500"]


def test_written_reports_can_be_read_again(comparison, tmp_path):
    files = write_report(comparison, tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "curves.png",
        "report.json",
        "report.md",
    ]
    again = load_report(files[1])
    assert json.loads(files[1].read_text())["format"] == "art_mmc.comparison"  # the word is no name of a module
    assert again.to_dict() == comparison.to_dict()
    assert markdown_report(again) == files[0].read_text() == markdown_report(comparison)


def test_lists_of_numbers_stand_in_one_line_and_nothing_else_does():
    document = {"a": [1, 2.5, None, True], "b": [[1, 2], [3]], "c": ["[\n 1]", 1], "d": [], "e": [{"f": [-1e-9]}]}
    text = json_bytes(document).decode()
    assert json.loads(text) == document
    lines = ['"a": [1, 2.5, null, true],', "[1, 2],", "[3]", r'"[\n 1]",', "1", '"d": [],', '"f": [-1e-09]']
    assert [line.strip() for line in text.splitlines() if re.search(r"\d|d", line)] == lines


def test_curves_are_the_records(comparison):
    panels = [panel for panel in curves_figure(comparison).axes if panel.get_title(loc="left")]
    assert [panel.get_title(loc="left") for panel in panels] == list(STANDING)
    faint, others, own, worst = panels[1].lines
    assert list(worst.get_xdata()) == list(own.get_xdata()) == [0, 0.1, 0.2]
    assert list(worst.get_ydata()) == [90, 60, 10]
    assert worst.get_linestyle() == "-"
    assert list(own.get_ydata()) == [90, 80, 60]
    assert own.get_linestyle() == "--"
    assert list(faint.get_ydata()) == [100, 50, 10]
    assert list(others.get_ydata()) == [100, 60, 50]
    assert [text.get_text() for text in panels[1].texts] == ["own loss: up to +50 points"]
    assert len({panel.lines[-1].get_color() for panel in panels}) == len(panels)


def test_of_a_single_radius_no_line_is_drawn(comparison):
    """Nothing was measured between it and the clean figure; and a worst case of 0 stands above the axis."""
    first = comparison.results[0]
    attacks = tuple(each for each in first.robustness.attacks if each.eps == 0.2)
    first = replace(first, robustness=replace(first.robustness, attacks=attacks))
    panel = curves_figure(replace(comparison, results=(first,))).axes[0]
    assert [list(line.get_xdata()) for line in panel.lines] == [[0, 0.2]] * len(panel.lines)
    assert {line.get_linestyle() for line in panel.lines} == {"None"}
    assert not panel.collections
    assert panel.get_ylim()[0] < 0


def test_labels_of_crowded_radii_are_left_out():
    assert radius_labels([0, 0.05, 0.1, 0.15, 0.2]) == ["0", "0.05", "0.1", "0.15", "0.2"]
    assert radius_labels([0, 2 / 255, 4 / 255, 8 / 255, 16 / 255]) == ["0", "", "4/255", "8/255", "16/255"]
    assert radius_labels([0, 0.01, 0.29, 0.3]) == ["0", "", "", "0.3"]


@pytest.mark.parametrize("count", [1, 4, 11])
def test_pictures_of_any_number_of_defences(comparison, count):
    many = Comparison(comparison.provenance, (comparison.results * 4)[:count])
    png = curves_png(many)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert 700 < width < 2600
    assert 400 < height < 2600


def test_the_picture_leaves_matplotlib_s_global_state_alone(comparison, monkeypatch):
    """No pyplot, hence no choice of a backend."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert len(curves_png(comparison)) > 10000
