"""
A detection study as tables, a picture of ROC curves, and files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_mmc.evaluation import BOUND
from art_mmc.evaluation.detection import AUC, SUCCESS, DetectionRecord, Share
from art_mmc.published import UNVERIFIED_NOTE, get_published
from art_mmc.reports.figures.style import COLOURS, FAINT, INK, figure_png, new_figure, style_panel
from art_mmc.reports.tables import (
    device_text,
    format_eps,
    format_percent,
    markdown_rows,
    short_name,
    text_rows,
    versions_text,
)
from art_mmc.reports.write import json_bytes, load, write_files
from art_mmc.studies.detect import PAPER_DETECTORS, DetectionStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: names of the files of a report
REPORT_MD, REPORT_JSON, ROC_PNG = "report.md", "report.json", "roc.png"

#: detectors as tables name them
TITLES = {
    "confidence": "confidence",
    "non-me": "non-ME",
    "kernel-density": "K-density",
    "lid": "LID",
    "mahalanobis": "Mahalanobis",
    "center-distance": "center distance",
}

_NONE = "-"
_LINES: Sequence[Any] = ("solid", (0, (3.2, 1.6)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))


def _percent(value: AUC | Share | None) -> str:
    return _NONE if value is None else format_percent(value.value)


def _area(record: DetectionRecord) -> str:
    """In brackets where the attack failed on too many images."""
    text = _percent(record.auc())
    return text if text == _NONE or record.conclusive else f"({text})"


def inconclusive_note(study: DetectionStudy) -> str:
    """
    :param study: The study.
    :return: Which attacks failed too often for a conclusion, and on how many images; empty if none did.
    """
    failed = [record for record in study.records if not record.conclusive]
    found = dict.fromkeys(f"{record.attack} on {record.classifier} ({_percent(record.fooled)} %)" for record in failed)
    if not found:
        return ""
    return (
        f"Areas in brackets are no evidence: an attack without a ball fooled fewer than {SUCCESS:.0%} of the images, "
        f"and the area is over those that were easy to fool: {', '.join(found)}. A larger --attack-share gives more "
        "steps."
    )


def _with_interval(value: AUC | Share | None) -> str:
    if value is None:
        return _NONE
    low, high = value.interval
    return f"{format_percent(value.value)} ({format_percent(low)} to {format_percent(high)})"


def _auc_cells(study: DetectionStudy) -> tuple[list[str], list[list[str]]]:
    header, rows = ["Attack"], [[attack] for attack in study.attacks]
    for classifier in study.classifiers:
        header += [f"{classifier}: n", *(f"{classifier}: {TITLES[detector]}" for detector in study.detectors)]
        for row, attack in zip(rows, study.attacks, strict=True):
            records = [study.get(classifier, detector, attack) for detector in study.detectors]
            numbers = dict.fromkeys(int(record.kept.sum()) for record in records if record is not None)
            row.append("/".join(map(str, numbers)) or _NONE)
            row += [_NONE if record is None else _area(record) for record in records]
    return header, rows


def text_table(study: DetectionStudy) -> str:
    """
    :param study: The study.
    :return: The areas under the ROC curves as :func:`auc_table` has them, for the terminal.
    """
    return "\n\n".join(part for part in (text_rows(*_auc_cells(study)), inconclusive_note(study)) if part)


def auc_table(study: DetectionStudy) -> str:
    """
    Area under the ROC curve x 100 by the paper's protocol, in the layout of the RCE paper's Table 2: a row an attack, a
    column a classifier and detector; n is the number of pairs.

    :param study: The study.
    :return: The table in Markdown.
    """
    return markdown_rows(*_auc_cells(study))


def joint_table(study: DetectionStudy) -> str:
    """
    What classifier and detector hold together: percent of the attacked images that are classified correctly or
    detected; without a detector, classified correctly.

    :param study: The study.
    :return: The table in Markdown.
    """
    header, rows = ["Attack"], [[attack] for attack in study.attacks]
    for classifier in study.classifiers:
        header += [f"{classifier}: none", *(f"{classifier}: {TITLES[detector]}" for detector in study.detectors)]
        for row, attack in zip(rows, study.attacks, strict=True):
            records = [study.get(classifier, detector, attack) for detector in study.detectors]
            alone = {record.adversarial_correct.mean() for record in records if record is not None}
            # an attack that knows the detector is another one for each detector
            row.append(format_percent(alone.pop()) if len(alone) == 1 and attack != "PGD-wb" else _NONE)
            row += [_NONE if record is None else _percent(record.correct_or_detected) for record in records]
    return markdown_rows(header, rows)


def details_table(study: DetectionStudy) -> str:
    """
    Everything with its interval, one row a record.

    :param study: The study.
    :return: The table in Markdown.
    """
    header = ["Classifier", "Detector", "Attack", "n", "pairs", "AUC, paper's protocol", "AUC, all inputs"]
    header += ["detected of the pairs", "correct or detected", "correct and accepted", "s"]
    rows = [
        [
            record.classifier,
            TITLES[record.detector],
            record.attack,
            str(record.n),
            str(int(record.kept.sum())),
            _with_interval(record.auc()) + ("" if record.conclusive else ", no evidence"),
            _with_interval(record.auc("usual")),
            _with_interval(record.detection_rate),
            _with_interval(record.correct_or_detected),
            _with_interval(record.correct_and_accepted),
            f"{record.seconds:.1f}",
        ]
        for record in study.records
    ]
    return markdown_rows(header, rows, left=3)


def thresholds_table(study: DetectionStudy) -> str:
    """
    The detectors on clean images: thresholds, false alarms, and what is left of the clean accuracy.

    :param study: The study.
    :return: The table in Markdown.
    """
    header = ["Classifier", "Detector", "threshold set on", "threshold", "false positives", "clean", "clean, accepted"]
    rows = []
    for classifier in study.classifiers:
        for detector in study.detectors:
            records = [study.get(classifier, detector, attack) for attack in study.attacks]
            # C&W-wb may be on fewer images
            record = max((each for each in records if each is not None), key=lambda each: each.n)
            clean = Share(int(record.clean_correct.sum()), record.n)
            rows.append(
                [
                    classifier,
                    TITLES[detector],
                    record.calibrated_on,
                    f"{record.threshold:.4g}",
                    _with_interval(record.measured_false_positive_rate),
                    _with_interval(clean),
                    _with_interval(record.clean_correct_and_accepted),
                ]
            )
    return markdown_rows(header, rows, left=3)


def white_box_table(study: DetectionStudy) -> str:
    """
    C&W-wb against the kernel density, in the layout of the RCE paper's Table 3.

    :param study: The study, in which that attack ran.
    :return: The table in Markdown.
    """
    header = ["Classifier", "n", "f_2 > 0, %", "target reached and f_2 = 0, %", "distortion of the latter", "s"]
    rows = [
        [
            record.classifier,
            str(len(record.hit)),
            _with_interval(record.failed),
            _with_interval(record.succeeded),
            _NONE if record.mean_distortion is None else f"{record.mean_distortion:.2f}",
            f"{record.seconds:.1f}",
        ]
        for record in study.white_box
    ]
    return markdown_rows(header, rows)


def published_tables(study: DetectionStudy) -> str:
    """
    What the RCE paper reports for this data set and these defences, marked where it could not be verified.

    :param study: The study.
    :return: Tables in Markdown; empty where the paper has none.
    """
    dataset = study.provenance["dataset"]
    areas, white_box = get_published("pang2018-table2"), get_published("pang2018-table3")
    cells = {(cell.method, cell.attack): cell.shown for cell in (*areas.select(dataset), *white_box.select(dataset))}
    defences = dict.fromkeys(study.provenance["classifiers"][name]["defence"] for name in study.classifiers)
    shown = [defence for defence in defences if any(method == defence for method, _ in cells)]
    if not shown:
        return ""
    columns = [(defence, metric) for defence in shown for metric in PAPER_DETECTORS]
    attacks = dict.fromkeys(cell.attack.partition(", ")[0] for cell in areas.select(dataset))
    rows = [[attack, *(cells[defence, f"{attack}, {metric}"] for defence, metric in columns)] for attack in attacks]
    other = [[defence, cells[defence, "C&W-wb"], cells[defence, "C&W-wb, distortion"]] for defence in shown]
    return "\n\n".join(
        [
            f"{areas.citation}, and {white_box.number}. {areas.notes[0]} {UNVERIFIED_NOTE}",
            markdown_rows(["Attack", *(f"{defence}: {TITLES[metric]}" for defence, metric in columns)], rows),
            markdown_rows(["Classifier (C&W-wb)", "f_2 > 0, ratio", "distortion"], other),
        ]
    )


def markdown_report(study: DetectionStudy, picture: str | None = ROC_PNG) -> str:
    """
    The whole report.

    :param study: The study.
    :param picture: Name of the picture; None for none.
    :return: Markdown.
    """
    facts = study.provenance
    parts = [
        f"# Detection of adversarial examples on {short_name(facts['dataset'])}",
        "Area under the ROC curve x 100 by the RCE paper's protocol: of the attacked images those that are classified "
        "correctly when clean and misclassified after the attack (n), the clean versions against the attacked ones. 50 "
        "is a coin, and below 50 the detector takes attacked images for cleaner than clean ones. C&W-wb and PGD-wb "
        "know the detector; the others do not, but an attacker may. What is right under attack here is "
        f"{BOUND}.",
        auc_table(study),
        *([inconclusive_note(study)] if inconclusive_note(study) else []),
    ]
    if picture is not None:
        parts.append(f"![ROC curves]({picture})")
    parts += [
        "## Classifier and detector together",
        "Percent of all attacked images that are classified correctly or detected, at the thresholds below; the rest "
        'went wrong unnoticed. "none": classified correctly, without a detector.',
        joint_table(study),
        "## Thresholds, and clean images",
        f"Set for {format_percent(facts['false_positive_rate'])} % false positives.",
        thresholds_table(study),
    ]
    if study.white_box:
        parts += [
            "## C&W with the density in its objective",
            "Target: a random wrong class; f_2 = 0 where the density is that of a typical clean image of that class. "
            "Distortion: root mean squared change of a pixel, in units of 1 / 255.",
            white_box_table(study),
        ]
    published = published_tables(study)
    if published:
        parts += ["## Published", published]
    parts += [
        "## With intervals",
        '95 % intervals: bootstrap for areas, Wilson for shares. "All inputs": all clean images against all attacked '
        "ones that are misclassified. Seconds are the attack's.",
        details_table(study),
        "## Conditions",
        _conditions(study),
    ]
    return "\n\n".join(parts) + "\n"


def _conditions(study: DetectionStudy) -> str:
    facts = study.provenance
    lines = [
        f"- {facts['dataset']}: {facts['n']} test images attacked, {facts['n_calibration']} others for the thresholds, "
        f"{facts['n_fit']} training images for the detectors; seed {facts['seed']}",
        f"- eps {format_eps(facts['eps'])} for FGSM, BIM, ILCM and PGD-wb; the first three climb: "
        f"{facts['objective']}; C&W with {100 * facts['budget']:g} % of the paper's 10,000 "
        "steps for each constant",
    ]
    for name in study.classifiers:
        classifier = facts["classifiers"][name]
        accuracy = format_percent(classifier["clean_accuracy"]["value"])
        bandwidth = classifier["detectors"].get("kernel-density", {}).get("fitted_bandwidth")
        lines.append(
            f"- {name}: defence {classifier['defence']}, {accuracy} % of the clean images correct"
            + ("" if bandwidth is None else f"; sigma^2 {bandwidth:.4g}")
            + "".join(f"; {key} {value}" for key, value in classifier.get("source", {}).items())
        )
    lines.append(f"- {versions_text(facts['versions'])}; {device_text(facts)}; {facts['date']}")
    return "\n".join(lines)


def roc_figure(study: DetectionStudy) -> Figure:
    """
    ROC curves by the paper's protocol, a panel an attack: a colour a detector, a kind of line a classifier.

    :param study: The study.
    :return: A matplotlib figure that no global state knows.
    """
    from matplotlib.lines import Line2D

    attacks = study.attacks
    columns = min(4, len(attacks))
    rows = -(-len(attacks) // columns)
    figure = new_figure(max(5.0, 2.6 * columns + 0.4), 2.6 * rows + 1.2)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for i, panel in enumerate(panels.flat):
        if i >= len(attacks):
            panel.set_axis_off()
            continue
        _draw_panel(panel, study, attacks[i])
        if i + columns >= len(attacks):  # the lowest of its column
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("false positives", fontsize=9, color=INK)
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=2, label=TITLES[detector])
        for i, detector in enumerate(study.detectors)
    ]
    handles += [
        Line2D([], [], color=INK, linewidth=1.6, linestyle=_LINES[i % len(_LINES)], label=classifier)
        for i, classifier in enumerate(study.classifiers)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9
    )  # fmt: skip
    facts = study.provenance
    figure.suptitle(
        f"Detection on {short_name(facts['dataset'])} ({facts['n']} test images)",
        fontsize=13,
        fontweight="bold",
        color=INK,
    )
    figure.supylabel("true positives", fontsize=9, color=INK)
    return figure


def _draw_panel(panel: Axes, study: DetectionStudy, attack: str) -> None:
    """One attack's curves over the diagonal."""
    panel.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, zorder=1)
    drawn = 0
    for i, detector in enumerate(study.detectors):
        for j, classifier in enumerate(study.classifiers):
            record = study.get(classifier, detector, attack)
            if record is None or not record.kept.any():
                continue
            false_positive, true_positive = record.roc()
            panel.plot(
                false_positive,
                true_positive,
                color=COLOURS[i % len(COLOURS)],
                linestyle=_LINES[j % len(_LINES)],
                linewidth=1.6,
                zorder=2,
                clip_on=False,
            )
            drawn += 1
    if not drawn:
        panel.text(0.5, 0.5, "no image misclassified", ha="center", va="center", fontsize=8.5, color=INK)
    style_panel(panel)
    panel.set_title(attack, loc="left", fontsize=11, fontweight="bold", color=INK, pad=5)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    panel.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


def write_report(study: DetectionStudy, folder: str | os.PathLike[str]) -> list[Path]:
    """
    Write report.md, report.json and roc.png.

    :param study: The study.
    :param folder: The folder; made if need be.
    :return: The files.
    """
    return write_files(
        folder,
        {
            REPORT_MD: markdown_report(study).encode(),
            REPORT_JSON: json_bytes(study.to_dict()),
            ROC_PNG: figure_png(roc_figure(study)),
        },
    )


def load_study(path: str | os.PathLike[str]) -> DetectionStudy:
    """
    :param path: A report.json of :func:`write_report`.
    :return: The study in it.
    :raises ValueError: When the file holds something else.
    """
    return load(path, "art_mmc.detection", "detect", DetectionStudy.from_dict)
