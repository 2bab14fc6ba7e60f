"""Reports of one evaluation, from records made by hand."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace

import numpy as np
import pytest

from art_mmc.evaluation import (
    BOUND,
    HOLDS,
    QUOTE,
    SUITES,
    UNTRUSTWORTHY,
    AttackRecord,
    Verdict,
    headline,
    wilson_interval,
)
from art_mmc.evaluation.records import reading
from art_mmc.reports import (
    evaluation_table,
    load_robustness,
    report_files,
    robustness_report,
    write_robustness,
)
from art_mmc.reports.figures.evaluate import (
    confusion_figure,
    eps_figure,
    examples_figure,
    shown_examples,
    steps_figure,
    zero_gradient_figure,
)
from art_mmc.reports.rewrite import rewrite
from tests.handmade import ATTACKS, BARE, CLEAN, CURVES, LABELS, PICTURES, RECORD, attack, bits, pictured

FILES = sorted(["attacks.csv", *PICTURES, "examples.npz", "report.json", "report.md"])


# ------------------------------------------------------------------------------------------------------------- readings


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (ATTACKS[0], (10, 8, 9, False)),
        (ATTACKS[3], (10, 5, 6, True)),  # on what others left
        (ATTACKS[-1], (3, 1, 3, False)),  # C&W took the first three and fooled two: one of three, and not eight of ten
        (attack("SPSA", "margin", 0.1, "1111111110", attacked=bits("0" * 10)), (0, 0, 0, False)),
    ],
)
def test_what_an_attack_s_figure_is_about(each, expected):
    view = reading(CLEAN, each)
    assert (view.n, view.correct, view.attacked, view.follows) == expected
    if view.n:
        assert (view.accuracy, view.interval) == (view.correct / view.n, wilson_interval(view.correct, view.n))
    else:
        assert math.isnan(view.accuracy)
    np.testing.assert_array_equal(view.found, [0.5, 1.5] if each is ATTACKS[-1] else [])


def test_misclassified_clean_images_before_the_last_attacked_count():
    clean = AttackRecord("clean", None, 0, 0, 0, 0.0, bits("0111"))
    view = reading(clean, attack("SPSA", "margin", 0.1, "0011", attacked=bits("0110")))
    assert (view.n, view.correct) == (3, 1)


# --------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("suite", [*SUITES, "own plans", ""])
def test_only_a_suite_that_is_meant_for_it_has_the_number_to_quote(suite):
    record = replace(RECORD, suite=suite)
    for text in (evaluation_table(record), robustness_report(record)):
        assert (QUOTE in text, BOUND in text) == (suite == "strong", suite != "strong")
    assert headline(suite, suite) == (QUOTE if suite == "strong" else BOUND)
    both = headline("strong", "quick")
    assert both == f"under the suite strong {QUOTE}, under any other {BOUND}"


def test_a_worst_case_that_is_not_trusted_is_none_to_quote(tmp_path):
    """Alone it loses the words; in a table of several they are withheld where the verdict says so."""
    trusted = replace(RECORD, suite="strong", verdict=Verdict(HOLDS, ("It holds.",)))
    doubted = replace(trusted, verdict=Verdict(UNTRUSTWORTHY, ("A symptom.",)))
    paths = [tmp_path / f"{name}.json" for name in ("one", "two", "three")]
    for path, record in zip(paths, (trusted, doubted, doubted), strict=True):
        path.write_bytes(report_files(record)["report.json"])
    for text in (evaluation_table(doubted), robustness_report(doubted)):
        assert "not one to quote: see the verdict" in text
        assert QUOTE not in text
    for given, expected in (
        (paths[:2], f": {QUOTE} but where the verdict is untrustworthy."),
        (paths[1:], ": not one to quote: see the verdict."),
    ):
        rewrite(given, tmp_path / "report")
        assert expected in (tmp_path / "report" / "report.md").read_text()
    mixed = headline(trusted, doubted, "quick")
    assert mixed == f"under the suite strong {QUOTE} but where the verdict is untrustworthy, under any other {BOUND}"


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.thorough
def test_written_and_read_again(tmp_path):
    before = pictured()
    files = write_robustness(before, tmp_path / "new" / "folder")
    assert sorted(path.name for path in files) == FILES
    again = load_robustness(tmp_path / "new" / "folder" / "report.json")
    assert again.to_dict() == before.to_dict()
    written = {path.name: path.read_bytes() for path in files if path.suffix != ".npz"}
    assert report_files(again) == written  # pictures and all
    np.testing.assert_array_equal(again.inputs, before.inputs)
    np.testing.assert_array_equal(again.examples, before.examples)
    np.testing.assert_array_equal(again.index, np.arange(10) + 5)


def test_files_of_a_bare_record():
    assert sorted(report_files(BARE)) == ["attacks.csv", "report.json", "report.md"]


def test_examples_of_another_run_are_left_alone(tmp_path):
    write_robustness(replace(pictured(), curves=None), tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    assert (document["format"], document["version"]) == ("art_mmc.robustness", 1)
    json.dumps(document, allow_nan=False)  # it is strict
    document["predictions"][1] = 0
    (tmp_path / "report.json").write_text(json.dumps(document))
    again = load_robustness(tmp_path / "report.json")
    assert again.inputs is None
    assert again.examples is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "no report of art_mmc"),
        ("{}", "no report of art_mmc"),
        ('{"format": "art_mmc.comparison"}', "no report of art-mmc evaluate, but of kind 'art_mmc.comparison'"),
        ('{"format": "art_mmc.robustness"}', "damaged: KeyError"),
    ],
)
def test_other_files_are_no_evaluations(tmp_path, text, message):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_robustness(tmp_path / "report.json")


def test_rewrite_several(tmp_path):
    for name in ("x/a", "y/a", "z"):
        write_robustness(replace(pictured(), curves=None, inputs=None), tmp_path / name)
    paths = [tmp_path / name / "report.json" for name in ("x/a", "y/a", "z")]
    text, _ = rewrite(paths, tmp_path / "all")
    assert text.count("percent correct of 10 inputs") == 3
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["a", "a-2", "report.md", "z"]
    assert (tmp_path / "all" / "report.md").read_text().count("| my net |") == 6
    (tmp_path / "other.json").write_text('{"format": "art_mmc.comparison"}')
    with pytest.raises(ValueError, match="only those go side by side"):
        rewrite([*paths, tmp_path / "other.json"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


# ------------------------------------------------------------------------------------------------------------- pictures


def test_eps_picture_is_the_curves():
    panel = eps_figure(RECORD, CURVES).axes[0]
    lines = {line.get_label(): line for line in panel.lines}
    margin, worst = lines["PGD, margin"], lines["worst case,\nall attacks"]
    assert list(margin.get_xdata()) == [0, 0.1, 0.2, 0.4]
    assert list(margin.get_ydata()) == [100, 75, 37.5, 0]
    # the worst case of the same first eight images: five stand at 0.1, one at 0.2
    assert list(worst.get_xdata()) == [0, 0.1, 0.2]
    assert list(worst.get_ydata()) == [100, 62.5, 12.5]
    assert len({line.get_color() for line in panel.lines}) == 4
    assert len({line.get_marker() for line in panel.lines}) == 4
    assert "the first 8 of 10 images" in panel.get_title(loc="left")


def test_of_a_single_radius_the_worst_case_is_a_point():
    record = replace(RECORD, attacks=tuple(each for each in RECORD.attacks if each.eps == 0.2 or not each.bounded))
    panel = eps_figure(record, CURVES).axes[0]
    worst = panel.lines[-1]
    assert (list(worst.get_xdata()), list(worst.get_ydata()), worst.get_linestyle()) == ([0.2], [12.5], "None")
    assert panel.get_ylim()[0] < 0


def test_steps_picture_is_the_curves():
    panel = steps_figure(RECORD, CURVES).axes[0]
    lines = {line.get_label(): line for line in panel.lines}
    assert list(lines["PGD, own loss"].get_ydata()) == [100, 87.5, 87.5]
    assert list(lines["PGD, own loss"].get_xdata()) == [1, 10, 100]
    assert set(lines["worst case,\nall attacks"].get_ydata()) == {12.5}
    assert set(lines["clean"].get_ydata()) == {100}


def test_zero_gradient_picture_is_the_counts():
    panel = zero_gradient_figure(RECORD, CURVES).axes[0]
    shown = [text.get_text() for text in panel.texts]
    assert shown == ["0", "0", "0", "0", "100", "100", "75", "50", "0", "0", "0", "0"]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["own loss", "cross-entropy", "margin"]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["0", "0.1", "0.2", "0.4"]


def test_confusion_picture_is_the_counts():
    panel = confusion_figure(RECORD).axes[0]
    counts = np.zeros((3, 3), dtype=int)
    for text in panel.texts:
        column, row = text.get_position()
        counts[int(row), int(column)] = int(text.get_text())
    expected = np.zeros((3, 3), dtype=int)
    for true, predicted in zip(LABELS, RECORD.predictions, strict=True):
        expected[true, predicted] += 1
    np.testing.assert_array_equal(counts, expected)


def test_shown_examples_have_fallen_and_are_of_all_classes():
    """Samples 1 to 8 have fallen; one of each class in turn."""
    assert shown_examples(RECORD).tolist() == [3, 1, 2, 6, 4, 5, 7, 8]
    assert shown_examples(RECORD, 4).tolist() == [3, 1, 2, 6]


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_picture(channels):
    panels = examples_figure(pictured(channels)).axes
    assert len(panels) == 24
    assert [panel.get_title() for panel in panels[:3]] == ["0", "1", "2"]
    assert panels[8].get_title() == "\N{RIGHTWARDS ARROW} 1"  # sample 3 is taken for class 1
    x = pictured(channels).inputs[3]
    shown = np.asarray(panels[0].images[0].get_array())
    np.testing.assert_allclose(shown if channels == 1 else shown.transpose(2, 0, 1), x[0] if channels == 1 else x)
    difference = np.asarray(panels[16].images[0].get_array())
    # magnified: the largest change is at the ends of the scale
    assert np.abs(difference if channels == 1 else difference - 0.5).max() == pytest.approx(
        0.125 if channels == 1 else 0.5
    )
    if channels == 1:
        assert panels[16].images[0].get_clim() == (-0.125, 0.125)


def test_no_examples_no_picture():
    held = replace(pictured(), attacks=(attack("A", "margin", 0.1, "1111111110"),))
    assert examples_figure(held) is None
    assert "examples.png" not in report_files(held)


def test_pictures_of_awkward_records():
    """A hundred classes, a long name, one image."""
    labels = np.arange(10) * 11
    record = replace(
        pictured(),
        labels=labels,
        predictions=labels + 1,
        provenance={**RECORD.provenance, "nb_classes": 101, "name": "a name that goes on " * 6},
    )
    figure = confusion_figure(record)
    assert not figure.axes[0].texts
    assert all(len(line) < 80 for line in figure.get_suptitle().splitlines())
    for png in report_files(record).values():
        if png[:4] == b"\x89PNG":
            width, height = struct.unpack(">II", png[16:24])
            assert 500 < width < 2000
            assert 250 < height < 1200
