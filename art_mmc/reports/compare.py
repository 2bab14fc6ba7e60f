"""
Reports of `art-mmc compare`: defences trained under the same conditions, side by side.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from art_mmc.defences import get_defence
from art_mmc.evaluation import ATTACKS, PGD_ADAPTIVE, PGD_LOSS, WORST_CASE, headline
from art_mmc.reports.figures.compare import FLATTERY, curves_png, flattered
from art_mmc.reports.render import page, told
from art_mmc.reports.tables import format_eps, format_percent, table, text_rows
from art_mmc.reports.write import load, report, write_files
from art_mmc.studies.compare import Comparison, DefenceResult

#: name of the picture of a report
CURVES_PNG = "curves.png"

#: the columns of a table, for each eps, with their short names
_COLUMNS = {"FGSM": "FGSM", PGD_LOSS: "own", PGD_ADAPTIVE: "adapt", WORST_CASE: "worst"}


def flattery_sentences(comparison: Comparison) -> list[str]:
    """One plain sentence for each defence that its own loss flatters."""
    found = [(each, *lead) for each in comparison.results if (lead := flattered(each)) is not None]
    return [
        told("flattery", each.defence, lead, *(each.robustness.get(attack, eps) for attack in (PGD_LOSS, PGD_ADAPTIVE)))
        for each, eps, lead in found
    ]


def _headline(comparison: Comparison) -> str:
    return headline(*(result.robustness for result in comparison.results))


def _objectives(comparison: Comparison) -> dict[str, str]:
    """Defence -> the objective that PGD adaptive climbed."""
    eps = comparison.eps[0]
    found = {each.defence: each.robustness.get(PGD_ADAPTIVE, eps) for each in comparison.results}
    return {name: str(record.objective).replace("_", " ") for name, record in found.items()}


def text_table(comparison: Comparison, width: int = 120) -> str:
    """
    For the terminal: percent correct, clean and at each eps under each attack; where the radii do not fit side by side
    into `width` columns, the table goes on below.
    """
    results, cell = comparison.results, 6
    first = max(len("defence"), *(len(result.defence) for result in results))
    start, block = first + 1 + cell, 2 + cell * len(_COLUMNS)
    at_once = max(1, (width - start) // block)

    def line(defence: str, clean: str, blocks: Iterable[Iterable[str]]) -> str:
        told = ("".join(f"{text:>{cell}}" for text in each) for each in blocks)
        return " |".join([f"{defence:<{first}} {clean:>{cell}}", *told])

    parts = []
    for i in range(0, len(comparison.eps), at_once):
        shown = comparison.eps[i : i + at_once]
        head = " | ".join([" " * start, *(f"{'eps ' + format_eps(eps):^{block - 3}}" for eps in shown)])
        lines = [head.rstrip(), line("defence", "clean", [_COLUMNS.values() for _ in shown])]
        lines.append("-+".join(["-" * start, *("-" * (block - 2) for _ in shown)]))
        for result in results:
            record = result.robustness
            blocks = ([format_percent(record.get(name, eps).accuracy) for name in _COLUMNS] for eps in shown)
            lines.append(line(result.defence, format_percent(record.clean.accuracy), blocks))
        parts.append("\n".join(lines))
    objectives = sorted(set(_objectives(comparison).values()))
    parts.append(told("columns", comparison.provenance["n"], objectives, _headline(comparison)))
    return "\n\n".join(parts)


def history_table(history: Sequence[Mapping[str, Any]], most: int = 10) -> str:
    """
    For the terminal: losses and accuracies of a :class:`.LossTrainer`'s history, in `most` rows at most, spread over
    the training with the last epoch among them.
    """
    columns = {"epoch": "d", "stage": "", "loss": ".4f", "accuracy": ".4f", "val_loss": ".4f", "val_accuracy": ".4f"}
    columns["val_robust_accuracy"] = ".4f"
    shown = [name for name in columns if all(record.get(name) is not None for record in history)]
    stride = math.ceil(len(history) / most)
    rows = [[format(record[name], columns[name]) for name in shown] for record in history[::-1][::stride][::-1]]
    return text_rows(shown, rows, left=0, rule=False)


def markdown_table(comparison: Comparison) -> str:
    """
    Markdown: accuracy clean and, in one column for each eps, under each attack and in the worst case, below a line that
    says how to read it.
    """

    def cell(each: DefenceResult, eps: float) -> str:
        *shares, worst = (format_percent(each.robustness.get(name, eps).accuracy) for name in (*ATTACKS, WORST_CASE))
        return " / ".join([*shares, f"**{worst}**"])

    rows = table(
        comparison.results,
        [
            ("Defence", lambda each: each.defence),
            ("Clean", lambda each: format_percent(each.robustness.clean.accuracy)),
            *((f"eps {format_eps(eps)}", lambda each, eps=eps: cell(each, eps)) for eps in comparison.eps),
        ],
    )
    return (
        f"Percent correct of {comparison.provenance['n']} test images; at each eps: {' / '.join(ATTACKS)} / **worst "
        f"case**: {_headline(comparison)}.\n\n{rows}"
    )


def provenance_line(comparison: Comparison) -> str:
    """One sentence on where the numbers come from."""
    seconds = sum(each.training_seconds + each.evaluation_seconds for each in comparison.results)
    return told("comparison", comparison.provenance, seconds)


def markdown_report(comparison: Comparison, picture: str | None = CURVES_PNG) -> str:
    """The whole report in Markdown; `picture` is the address of the picture relative to it, None for no picture."""
    results, largest = comparison.results, comparison.eps[-1]
    step = results[0].robustness.get(PGD_ADAPTIVE, comparison.eps[0])
    objectives = _objectives(comparison)
    same = len(set(objectives.values())) == 1
    return page(
        "compare",
        facts=comparison.provenance,
        results=results,
        radii=comparison.eps,
        largest=largest,
        own_loss=PGD_LOSS,
        adaptive_objective=PGD_ADAPTIVE,
        picture=picture,
        headline=_headline(comparison),
        by_attack=markdown_table(comparison),
        flattered=flattery_sentences(comparison),
        flattery=FLATTERY,
        step=step.eps_step / step.eps,
        objectives=(
            f"the {objectives[results[0].defence]}"
            if same
            else ", ".join(f"the {objective} for {name}" for name, objective in objectives.items())
        ),
        defences=[get_defence(result.defence) for result in results],
    )


def write_report(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Write report.md, report.json and curves.png to a folder, made if need be; return the files."""
    files = report(markdown_report(comparison), comparison.to_dict(), {CURVES_PNG: curves_png(comparison)})
    return write_files(folder, files)


def load_report(path: str | os.PathLike[str]) -> Comparison:
    """The comparison in a report.json; see :func:`.load`."""
    return load(path, Comparison.FORMAT, "compare", Comparison.from_dict)
