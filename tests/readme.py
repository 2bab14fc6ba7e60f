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


def protocol_table() -> str:
    """The PC paper's Table 1 in part: its strongest attack, its figure, what other attacks leave, and all together."""
    from art_mmc.published import get_published
    from art_mmc.reports import format_percent, load_reproduction
    from art_mmc.reports.tables import table

    titles = {
        "PGD-40": "PGD-40, cross-entropy",
        "PGD-40 own loss": "own loss",
        "PGD-40 adaptive": "soft margin",
        "PGD-100 adaptive, large steps": "100 large steps",
    }
    rows = []
    for path in sorted(RESULTS.glob("reproduce-li2021-table1*/report.json")):
        found = load_reproduction(path)
        published = get_published(found.table)
        for each in found.results:
            for eps in each.record.eps:
                row = {"Data set": found.dataset, "Network": published.method(each.method).label, "eps": f"{eps:g}"}
                cells = published.columns(found.dataset, each.method)
                row["Published, PGD-40"] = next(c.shown for c in cells if (c.attack, c.eps) == ("PGD-40", eps))
                row |= {title: format_percent(each.record.get(name, eps).accuracy) for name, title in titles.items()}
                row["**worst case**"] = f"**{format_percent(each.whole.worst_case(eps).accuracy)}**"
                rows.append(row)
    return table(rows, [(title, itemgetter(title)) for title in rows[0]], left=2)


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
