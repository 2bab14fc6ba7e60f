"""
The README's generated tables. `python -m tests.readme` writes them anew from the table of defences and the recorded
runs.
"""

from __future__ import annotations

import json
import re
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from art_mmc.evaluation import RobustnessRecord

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "examples" / "results"


def defences_table() -> str:
    """Name, classifier, loss and paper of each row."""
    from art_mmc.classifiers import CLASSIFIERS
    from art_mmc.defences import DEFENCES

    lines = ["| name | classifier | loss of a sample | paper |", "|---|---|---|---|"]
    for name, row in DEFENCES.items():
        formula = row.formula.replace("|", "\\|")
        lines.append(f"| `{name}` | `{CLASSIFIERS[name].__name__}` | `{formula}` | [{row.paper}]({row.link}) |")
    return "\n".join(lines)


def compare_table() -> str:
    """The recorded default run of `art-mmc compare`."""
    from art_mmc.reports import load_report, markdown_table, provenance_line

    report = load_report(RESULTS / "compare-digits" / "report.json")
    picture = "![robust accuracy over eps](examples/results/compare-digits/curves.png)"
    return f"{markdown_table(report)}\n\n{provenance_line(report)}\n\n{picture}"


def networks_table() -> str:
    """The networks of the package, from their cards."""
    from art_mmc.reports.pretrained import pretrained_note, pretrained_table

    return f"{pretrained_table()}\n\n{pretrained_note()}"


def evaluations() -> list[RobustnessRecord]:
    """The recorded runs of `art-mmc evaluate`, in the order of their folders' names."""
    from art_mmc.reports import load_robustness

    return [load_robustness(path) for path in sorted(RESULTS.glob("evaluate-*/report.json"))]


def evaluations_table() -> str:
    """The recorded runs of `art-mmc evaluate`, but for the PC paper's protocol."""
    from art_mmc.reports.evaluate import records_table

    return records_table([record for record in evaluations() if record.suite != "li2021-table1"])


def protocol_table() -> str:
    """The PC paper's protocol on MNIST: its strongest attack, its figure, and what other attacks leave."""
    from art_mmc.published import get_published
    from art_mmc.reports import format_percent

    published = {
        (cell.method, cell.eps): cell.shown
        for cell in get_published("li2021-table2").cells
        if (cell.dataset, cell.attack) == ("mnist", "PGD-40")
    }
    records = {(record.suite, str(record.provenance["name"])): record for record in evaluations()}
    attacks = ("PGD-40", "PGD-40 own loss", "PGD-40 adaptive", "PGD-100 adaptive, large steps")
    lines = [
        "| Classifier | eps | Published, PGD-40 | PGD-40 on cross-entropy | on own loss | on the margin "
        "| 100 large steps | **`strong`** |",
        "| --- | ---: " + "| ---: " * 6 + "|",
    ]
    for (suite, name), record in records.items():
        if suite != "li2021-table1":
            continue
        strong = records["strong", name]
        for eps in record.eps:
            left = {attack.attack: attack.accuracy for attack in record.attacks if attack.eps == eps}
            figures = [format_percent(left[attack]) for attack in attacks]
            worst = format_percent(strong.worst_case(eps).accuracy)
            cells = [name, f"{eps:g}", published.get((name, eps), ""), *figures, f"**{worst}**"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def objectives_table() -> str:
    """The recorded run of examples/record_objectives.py on MNIST: some of its columns."""
    from art_mmc.reports.tables import table

    found = json.loads((RESULTS / "objectives" / "objectives.json").read_text(encoding="utf-8"))["left"]["mnist"]
    titles = {
        "clean": "Clean",
        "ART's own class": "ART's own class",
        "loss": "own loss",
        "margin": "margin",
        "soft_margin, t = 3": "soft margin, the default",
        "ScheduledPGD": "`ScheduledPGD`",
        "worst case known": "**worst case known**",
    }

    def shown(row: tuple[str, dict[str, float]], column: str) -> str:
        cell = f"{row[1][column]:.1f}"
        return f"**{cell}**" if column == "worst case known" else cell

    return table(
        list(found.items()),
        [("Defence", itemgetter(0)), *((title, partial(shown, column=each)) for each, title in titles.items())],
    )


def speed_table() -> str:
    """The recorded run of `art-mmc bench`."""
    from art_mmc.bench import GROWTH_PNG, summary_table
    from art_mmc.bench.report import conditions
    from art_mmc.reports import read_document

    bench = read_document(RESULTS / "bench" / "bench.json")
    picture = f"![time and memory over samples and classes](examples/results/bench/{GROWTH_PNG})"
    return f"{summary_table(bench)}\n\n{conditions(bench)}\n\n{picture}"


BLOCKS = {
    "compare": compare_table,
    "defences": defences_table,
    "evaluations": evaluations_table,
    "networks": networks_table,
    "objectives": objectives_table,
    "protocol": protocol_table,
    "speed": speed_table,
}


def block_pattern(name: str) -> re.Pattern[str]:
    """The text between a table's two markers."""
    return re.compile(rf"(<!-- table: {name} -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write the tables."""
    text = README.read_text(encoding="utf-8")
    for name, make in BLOCKS.items():
        table = make()
        text = block_pattern(name).sub(lambda match, table=table: f"{match[1]}{table}\n{match[3]}", text)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
