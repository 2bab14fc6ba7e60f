"""
Reports of `art-mmc detect`: classifiers and detectors under attack.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from art_mmc.evaluation import BOUND
from art_mmc.evaluation.detection import AUC, SUCCESS, DetectionRecord
from art_mmc.evaluation.records import Share
from art_mmc.published import UNVERIFIED_NOTE, get_published
from art_mmc.reports.figures.detect import roc_figure, title
from art_mmc.reports.figures.style import figure_png
from art_mmc.reports.render import page, told
from art_mmc.reports.tables import NONE, format_percent, markdown_rows, text_rows
from art_mmc.reports.write import load, report, write_files
from art_mmc.studies.detect import ATTACKS, PAPER_DETECTORS, DetectionStudy

#: name of the picture of a report
ROC_PNG = "roc.png"


def _percent(value: AUC | Share | None) -> str:
    return NONE if value is None else format_percent(value.value)


def inconclusive_note(study: DetectionStudy) -> str:
    """Which attacks failed too often for a conclusion, and on how many images; empty if none did."""
    failed = [record for record in study.records if not record.conclusive]
    found = dict.fromkeys(f"{record.attack} on {record.classifier} ({_percent(record.fooled)} %)" for record in failed)
    return told("inconclusive", SUCCESS, list(found)) if found else ""


def _cells(
    study: DetectionStudy, first: str, of_all: Callable[[str, list[DetectionRecord]], str], of_one: Callable[..., str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one an attack: of each classifier a column by all its records, then one a detector."""
    header, rows = ["Attack"], [[attack] for attack in study.attacks]
    for classifier in study.classifiers:
        header += [f"{classifier}: {each}" for each in (first, *map(title, study.detectors))]
        for row, attack in zip(rows, study.attacks, strict=True):
            records = [study.get(classifier, detector, attack) for detector in study.detectors]
            row.append(of_all(attack, [each for each in records if each is not None]))
            row += [NONE if each is None else of_one(each) for each in records]
    return header, rows


def _auc_cells(study: DetectionStudy) -> tuple[list[str], list[list[str]]]:
    def pairs(attack: str, records: list[DetectionRecord]) -> str:
        return "/".join(map(str, dict.fromkeys(int(each.kept.sum()) for each in records))) or NONE

    def area(record: DetectionRecord) -> str:
        text = _percent(record.auc())
        return text if text == NONE or record.conclusive else f"({text})"  # the attack failed on too many images

    return _cells(study, "n", pairs, area)


def text_table(study: DetectionStudy) -> str:
    """The areas under the ROC curves as :func:`auc_table` has them, for the terminal."""
    return "\n\n".join(part for part in (text_rows(*_auc_cells(study)), inconclusive_note(study)) if part)


def auc_table(study: DetectionStudy) -> str:
    """Markdown: AUC x 100 by the paper's protocol, in the layout of the RCE paper's Table 2; n counts pairs."""
    return markdown_rows(*_auc_cells(study))


def joint_table(study: DetectionStudy) -> str:
    """Markdown: percent of the attacked images that are classified correctly or detected; and without a detector."""

    def alone(attack: str, records: list[DetectionRecord]) -> str:
        left = {each.adversarial_correct.mean() for each in records}
        # an attack that knows the detector is another one for each detector
        return format_percent(left.pop()) if len(left) == 1 and attack != ATTACKS["pgd-wb"] else NONE

    return markdown_rows(*_cells(study, "none", alone, lambda each: _percent(each.correct_or_detected)))


def published_tables(study: DetectionStudy) -> str:
    """Markdown: what the RCE paper has for this data set and these defences, marked if unverified; empty for none."""
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
            markdown_rows(["Attack", *(f"{defence}: {title(metric)}" for defence, metric in columns)], rows),
            markdown_rows(["Classifier (C&W-wb)", "f_2 > 0, ratio", "distortion"], other),
        ]
    )


def _longest(study: DetectionStudy) -> Iterable[DetectionRecord]:
    """For each classifier and detector the first record on the most images: C&W-wb may be on fewer."""
    records: dict[tuple[str, str], DetectionRecord] = {}
    for each in study.records:
        place = each.classifier, each.detector
        records[place] = max(records.get(place, each), each, key=lambda record: record.n)
    return records.values()


def markdown_report(study: DetectionStudy, picture: str | None = ROC_PNG) -> str:
    """The whole report in Markdown; `picture` is the name of the picture, None for none."""
    return page(
        "detect",
        study=study,
        facts=study.provenance,
        bound=BOUND,
        picture=picture,
        areas=auc_table(study),
        inconclusive=inconclusive_note(study),
        joint=joint_table(study),
        title=title,
        thresholds=[(each, Share(int(each.clean_correct.sum()), each.n)) for each in _longest(study)],
        published=published_tables(study),
    )


def write_report(study: DetectionStudy, folder: str | os.PathLike[str]) -> list[Path]:
    """Write report.md, report.json and roc.png to a folder, made if need be; return the files."""
    files = report(markdown_report(study), study.to_dict(), {ROC_PNG: figure_png(roc_figure(study))})
    return write_files(folder, files)


def load_study(path: str | os.PathLike[str]) -> DetectionStudy:
    """The study in a report.json; see :func:`.load`."""
    return load(path, DetectionStudy.FORMAT, "detect", DetectionStudy.from_dict)
