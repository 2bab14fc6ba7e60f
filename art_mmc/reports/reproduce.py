"""
Paper-against-ours tables: the published figure with its citation, ours with n, interval, seconds and device, and the
adaptive worst case beside it, always.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from art_mmc.evaluation import headline
from art_mmc.published import DISTANCE, UNVERIFIED_NOTE, PublishedTable, get_published
from art_mmc.reports.compare import load_report, text_table, write_report
from art_mmc.reports.evaluate import (
    evaluation_table,
    load_robustness,
    protocol_section,
    records_table,
    verdict_text,
    write_robustness,
)
from art_mmc.reports.tables import (
    device_text,
    format_eps,
    markdown_rows,
    short_name,
    text_rows,
    versions_text,
    with_interval,
)
from art_mmc.reports.write import REPORT_JSON, REPORT_MD, json_bytes, read_document, write_files
from art_mmc.studies.reproduce import FORMAT, Ours, PaperRow, Reproduction, paper_rows

#: name of the file with one row a published figure
FIGURES_CSV = "figures.csv"

_HEADER = ["Method", "Attack", "eps", "Published", "Ours (95 % interval)", "n", "Seconds", "Worst case, ours", "at eps"]


def _ours_text(ours: Ours | None, unit: str) -> str:
    if ours is None:
        return "not run"
    digits = 2 if unit == DISTANCE else 1
    low, high = ours.interval
    return f"{ours.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _cells(row: PaperRow) -> list[str]:
    cell, ours = row.cell, row.ours
    attack = cell.attack + (", mean L2" if cell.unit == DISTANCE else "")
    return [
        row.method.label,
        attack,
        "" if cell.eps is None else format_eps(cell.eps),
        cell.shown,
        _ours_text(ours, cell.unit),
        "" if ours is None else str(ours.n),
        "" if ours is None else f"{ours.seconds:.1f}",
        with_interval(row.worst),
        format_eps(row.worst.eps),
    ]


def paper_table(reproduction: Reproduction) -> str:
    """
    :param reproduction: The reproduction.
    :return: Markdown: the published figures, ours, and the worst case.
    """
    rows = [_cells(row) for row in paper_rows(reproduction)]
    for row in rows:
        row[-2] = f"**{row[-2]}**"
    return markdown_rows([*_HEADER[:-2], f"**{_HEADER[-2]}**", _HEADER[-1]], rows, left=2)


def paper_text(reproduction: Reproduction) -> str:
    """
    :param reproduction: The reproduction.
    :return: The same for the terminal.
    """
    table = get_published(reproduction.table)
    facts = reproduction.provenance
    rows = [_cells(row) for row in paper_rows(reproduction)]
    return (
        f"{text_rows(_HEADER, rows, left=2)}\n\npercent correct, n images of {reproduction.dataset}, on "
        f"{device_text(facts)}; published: {table.citation}\nworst case: over all attacks, an adaptive one among "
        f"them; {_headline(reproduction)}"
    )


def _headline(reproduction: Reproduction) -> str:
    return headline(*(each.record.suite for each in reproduction.results))


def _networks_table(reproduction: Reproduction, table: PublishedTable) -> str:
    rows = []
    for each in reproduction.results:
        record = each.record
        rows.append(
            [
                table.method(each.method).label,
                each.source,
                "" if each.training_seconds is None else f"{each.training_seconds:.0f}",
                with_interval(record.clean),
                f"{with_interval(record.worst_case(record.eps[-1]))} at {format_eps(record.eps[-1])}",
                f"{record.seconds:.0f}",
                "" if record.verdict is None else record.verdict.status,
            ]
        )
    header = ["Method", "Network", "Training, s", "Clean, %", "Worst case, %", "Attacks, s", "Verdict"]
    return markdown_rows(header, rows, left=2)


def _reasons(reproduction: Reproduction, table: PublishedTable) -> str:
    lines = []
    for each in reproduction.results:
        verdict = each.record.verdict
        if verdict is not None:
            lines.append(f"- {table.method(each.method).label}: **{verdict.status}**. {' '.join(verdict.reasons)}")
    return "\n".join(lines)


def _training(reproduction: Reproduction, table: PublishedTable) -> tuple[str, str]:
    """How the networks were trained, and which were not: those that were given came without a word."""
    facts = reproduction.provenance
    given = [table.method(each.method).label for each in reproduction.results if each.training_seconds is None]
    if len(given) == len(reproduction.results):
        return "trained networks that were given", ""
    budget = f"{facts['budget']:g} of the papers' epochs" + (", scaled-down twins" if facts["small"] else "")
    return budget, f"; given: {', '.join(given)}" if given else ""


def reproduction_report(reproduction: Reproduction) -> str:
    """
    The whole report.

    :param reproduction: The reproduction.
    :return: Markdown.
    """
    table = get_published(reproduction.table)
    facts = reproduction.provenance
    budget, given = _training(reproduction, table)
    marked = () if all(row.cell.verified for row in paper_rows(reproduction)) else (UNVERIFIED_NOTE,)
    notes = "\n".join(f"- {note}" for note in (*table.notes, *marked))
    reasons = _reasons(reproduction, table)
    provenance = [
        ["Data set", f"{short_name(reproduction.dataset)}, {facts['n']} of {facts['n_test']} test images"],
        ["Training", budget + given],
        ["Training images", str(facts["n_train"])],
        ["Suite", facts["suite"] + (f", quirks {', '.join(facts['quirks'])}" if facts["quirks"] else "")],
        *([["Substitute", facts["substitute"]]] if facts["substitute"] else []),
        ["Seed", str(facts["seed"])],
        ["Device", device_text(facts)],
        ["Versions", versions_text(facts["versions"])],
        ["Date", str(facts["date"])],
    ]
    sections = [
        f"# {table.title}: published, and ours",
        f"Published: {table.citation}; the figures as in {table.source}. Ours: {facts['n']} test images of "
        f"{short_name(reproduction.dataset)}, {budget}, on {device_text(facts)}.",
        "Percent correct unless another unit is named. The worst case is ours, over all the attacks at this and every "
        f"smaller eps, with one among them that looks at the margin of the logits: {_headline(reproduction)}. Where "
        "the published figure has no eps, or its eps was not run, the worst case is at the largest eps that was.",
        notes,
        "## Figures",
        paper_table(reproduction),
        "## Networks",
        _networks_table(reproduction, table),
        reasons,
        protocol_section(reproduction.results[0].record),
        "## Provenance",
        markdown_rows(["What", "Value"], provenance, left=2),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def figures_csv(reproduction: Reproduction) -> bytes:
    """
    :param reproduction: The reproduction.
    :return: A CSV file, one row a published figure.
    """
    table = get_published(reproduction.table)
    out = io.StringIO(newline="")
    rows = [_csv_row(row, reproduction, table) for row in paper_rows(reproduction)]
    writer: csv.DictWriter[str] = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _csv_row(row: PaperRow, reproduction: Reproduction, table: PublishedTable) -> dict[str, Any]:
    ours, (low, high) = row.ours, row.worst.interval
    return {
        "dataset": reproduction.dataset,
        "method": row.method.key,
        "attack": row.cell.attack,
        "eps": row.cell.eps,
        "unit": row.cell.unit,
        "published": row.cell.text,
        "verified": row.cell.verified,
        "ours": None if ours is None else ours.value,
        "low": None if ours is None else ours.interval[0],
        "high": None if ours is None else ours.interval[1],
        "n": None if ours is None else ours.n,
        "seconds": None if ours is None else ours.seconds,
        "worst_case": 100 * row.worst.accuracy,
        "worst_case_low": 100 * low,
        "worst_case_high": 100 * high,
        "worst_case_eps": row.worst.eps,
        "device": reproduction.provenance["device"],
        "citation": table.citation,
    }


def write_reproduction(reproduction: Reproduction, folder: str | os.PathLike[str]) -> list[Path]:
    """
    Write report.md, report.json and figures.csv.

    :param reproduction: The reproduction.
    :param folder: The folder; made if need be.
    :return: The files.
    """
    return write_files(
        folder,
        {
            REPORT_MD: reproduction_report(reproduction).encode(),
            REPORT_JSON: json_bytes(reproduction.to_dict()),
            FIGURES_CSV: figures_csv(reproduction),
        },
    )


def load_reproduction(path: str | os.PathLike[str]) -> Reproduction:
    """
    :param path: A report.json of `art-mmc reproduce`.
    :return: The reproduction.
    :raises OSError: When it can't be read.
    :raises ValueError: When the file holds something else.
    """
    data = read_document(path)
    if data["format"] != FORMAT:
        raise ValueError(f"{path} is no report of art-mmc reproduce, but of kind '{data['format']}'.")
    return Reproduction.from_dict(data)


# ---------------------------------------------------------------------------------------------------------------- anew


def rewrite(paths: Sequence[Path], folder: Path) -> tuple[str, list[Path]]:
    """
    Reports made again from their JSON: one into the folder itself; of several each into a folder of its own there, and
    a table of all evaluations side by side.

    :param paths: Files report.json of `art-mmc evaluate`, `compare` or `reproduce`.
    :param folder: The folder.
    :return: What to print, and the files.
    :raises OSError: When a file can't be read.
    :raises ValueError: When a file holds something else.
    """
    formats = [str(read_document(path)["format"]) for path in paths]  # all of them before anything is written
    if len(paths) == 1:
        return _rewrite_one(paths[0], formats[0], folder)
    other = next((path for path, kind in zip(paths, formats, strict=True) if kind != "art_mmc.robustness"), None)
    if other is not None:
        raise ValueError(f"{other} is no report of art-mmc evaluate: only those go side by side.")
    assessments = [load_robustness(path) for path in paths]
    files: list[Path] = []
    for name, assessment in zip(_names(paths), assessments, strict=True):
        files += write_robustness(assessment, folder / name)
    records = [assessment.record for assessment in assessments]
    page = (
        f"# {len(records)} evaluations side by side\n\nPercent correct; under each objective the strongest single "
        f"attack on it; the worst case, over all attacks: {headline(*(record.suite for record in records))}.\n\n"
        f"{records_table(records)}\n"
    )
    files += write_files(folder, {REPORT_MD: page.encode()})
    text = "\n\n".join(
        f"{name}\n{evaluation_table(record)}" for name, record in zip(_names(paths), records, strict=True)
    )
    return text, files


def _names(paths: Sequence[Path]) -> list[str]:
    """A folder for each, after the folder that it came from."""
    names: list[str] = []
    for path in paths:
        stem = path.resolve().parent.name if path.name == REPORT_JSON else path.stem
        same = sum(name == stem or name.startswith(f"{stem}-") for name in names)
        names.append(f"{stem}-{same + 1}" if same else stem)
    return names


def _rewrite_one(path: Path, kind: str, folder: Path) -> tuple[str, list[Path]]:
    if kind == "art_mmc.robustness":
        assessment = load_robustness(path)
        text = f"{evaluation_table(assessment.record)}\n\n{verdict_text(assessment.record)}"
        return text, write_robustness(assessment, folder)
    if kind == FORMAT:
        reproduction = load_reproduction(path)
        return paper_text(reproduction), write_reproduction(reproduction, folder)
    comparison = load_report(path)
    return text_table(comparison), write_report(comparison, folder)
