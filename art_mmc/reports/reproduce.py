"""
Paper-against-ours tables: the published figure with its citation, ours with n, interval, seconds and device, and the
adaptive worst case beside it, always.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from art_mmc.evaluation import headline
from art_mmc.published import DISTANCE, UNVERIFIED_NOTE, PublishedTable, get_published
from art_mmc.reports.evaluate import protocol_section
from art_mmc.reports.render import page, told
from art_mmc.reports.tables import NONE, csv_bytes, format_eps, table, with_interval
from art_mmc.reports.write import load, report, write_files
from art_mmc.studies.reproduce import PaperRow, Reproduced, Reproduction, method_recipe, paper_rows

#: name of the file with one row a published figure
FIGURES_CSV = "figures.csv"


def _ours_text(row: PaperRow) -> str:
    if row.ours is None:
        return "not run"
    digits = 2 if row.cell.unit == DISTANCE else 1
    low, high = row.ours.interval
    return f"{row.ours.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _columns(mark: str = "") -> list[tuple[str, Callable[[PaperRow], str]]]:
    """The columns of the tables; the worst case and its title between two marks."""
    return [
        ("Method", lambda row: row.method.label),
        ("Attack", lambda row: row.cell.attack + (", mean L2" if row.cell.unit == DISTANCE else "")),
        ("eps", lambda row: "" if row.cell.eps is None else format_eps(row.cell.eps)),
        ("Published", lambda row: row.cell.shown),
        ("Ours (95 % interval)", _ours_text),
        ("n", lambda row: "" if row.ours is None else str(row.ours.n)),
        ("Seconds", lambda row: "" if row.ours is None else f"{row.ours.seconds:.1f}"),
        (f"{mark}Worst case, ours{mark}", lambda row: f"{mark}{with_interval(row.worst)}{mark}"),
        ("at eps", lambda row: format_eps(row.worst.eps)),
    ]


def paper_table(reproduction: Reproduction) -> str:
    """Markdown: the published figures, ours, and the worst case."""
    return table(paper_rows(reproduction), _columns("**"), left=2)


def paper_text(reproduction: Reproduction) -> str:
    """The same as :func:`paper_table` for the terminal, with the citation and the conditions below."""
    below = told("paper", reproduction, get_published(reproduction.table).citation, _headline(reproduction))
    return f"{table(paper_rows(reproduction), _columns(), left=2, style='text')}\n\n{below}"


def _headline(reproduction: Reproduction) -> str:
    return headline(*(each.whole for each in reproduction.results))


def reproduction_report(reproduction: Reproduction) -> str:
    """The whole report in Markdown."""
    published, facts = get_published(reproduction.table), reproduction.provenance
    labelled = [(published.method(each.method).label, each) for each in reproduction.results]
    given = [label for label, each in labelled if each.training_seconds is None]
    if len(given) == len(labelled):
        training, given = "trained networks that were given", []
    else:
        training = f"{facts['budget']:g} of the papers' epochs" + (", scaled-down twins" if facts["small"] else "")

    def theirs(each: Reproduced) -> str:
        method = published.method(each.method)
        if method.defence is None or method.recipe_for(reproduction.dataset) is None:
            return NONE
        recipe = method_recipe(method, reproduction.dataset)
        attacked = f", adversarial ({recipe.attack})" if recipe.attack else ""
        return f"{method.backbone_for(reproduction.dataset) or recipe.backbone}, {recipe.nb_epochs} epochs{attacked}"

    verified = all(row.cell.verified for row in paper_rows(reproduction))
    return page(
        "reproduce",
        table=published,
        facts=facts,
        dataset=reproduction.dataset,
        training=training,
        given=given,
        headline=_headline(reproduction),
        notes=[*published.notes, *([] if verified else [UNVERIFIED_NOTE])],
        figures=paper_table(reproduction),
        results=labelled,
        theirs=theirs,
        verdicts=[(label, each.whole.verdict) for label, each in labelled if each.whole.verdict is not None],
        protocol=protocol_section(reproduction.results[0].record),
    )


def figures_csv(reproduction: Reproduction) -> bytes:
    """A CSV file, one row a published figure."""
    published = get_published(reproduction.table)
    return csv_bytes([_csv_row(row, reproduction, published) for row in paper_rows(reproduction)])


def _csv_row(row: PaperRow, reproduction: Reproduction, published: PublishedTable) -> dict[str, Any]:
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
        "citation": published.citation,
    }


def write_reproduction(reproduction: Reproduction, folder: str | os.PathLike[str]) -> list[Path]:
    """Write report.md, report.json and figures.csv to a folder, made if need be; return the files."""
    figures = {FIGURES_CSV: figures_csv(reproduction)}
    return write_files(folder, report(reproduction_report(reproduction), reproduction.to_dict(), figures))


def load_reproduction(path: str | os.PathLike[str]) -> Reproduction:
    """The reproduction in a report.json; see :func:`.load`."""
    return load(path, Reproduction.FORMAT, "reproduce", Reproduction.from_dict)
