"""
Figures in words: what all reports share.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from art_mmc.evaluation.records import AttackRecord, Reading

Row = TypeVar("Row")

#: names of versions where those of the packages are long
SHORT_NAMES = {"adversarial-robustness-toolbox": "ART", "python": "Python"}

#: what stands where there is no figure
NONE = "-"


def format_eps(eps: float) -> str:
    """A radius as people write it: "0.05", or "8/255" where the decimals would go on."""
    pixels = eps * 255
    if len(f"{eps:.6g}") > 6 and math.isclose(pixels, round(pixels), abs_tol=1e-6):
        return f"{round(pixels)}/255"
    return f"{eps:.4g}"


def format_percent(share: float) -> str:
    """A number in [0, 1] as percent with one decimal, without the sign."""
    return f"{100 * share:.1f}"


def between(share: float, interval: Sequence[float]) -> str:
    """A share and its interval in percent, "62.1 (57.3 to 66.7)"."""
    low, high = interval
    return f"{format_percent(share)} ({format_percent(low)} to {format_percent(high)})"


def with_interval(record: AttackRecord | Reading) -> str:
    """The accuracy of a record as :func:`between` writes it."""
    return between(record.accuracy, record.interval)


def short_name(path: str) -> str:
    """The name of a data set, or of a user's own file without its folder."""
    return path.replace("\\", "/").rpartition("/")[2]


def versions_text(versions: Mapping[str, str]) -> str:
    """Versions of packages, "torch 2.9, ART 1.20.1"."""
    return ", ".join(f"{SHORT_NAMES.get(name, name)} {version}" for name, version in versions.items())


def device_text(facts: Mapping[str, Any]) -> str:
    """The device and its processor, of what :func:`.machine` gave."""
    # records of earlier versions were all made by one process
    shared = f" in each of {facts['processes']} processes" if facts.get("processes", 1) > 1 else ""
    return f"{facts['device']} ({facts['processor']}), {facts['threads']} threads{shared}"


def escaped(entry: str) -> str:
    """An entry of a Markdown table in which a bar is no border."""
    return entry.replace("|", "\\|")


def markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first so many columns are words, aligned to the left, the others numbers."""
    alignment = ["---"] * left + ["---:"] * (len(header) - left)
    lines = [header, alignment, *([escaped(entry) for entry in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text_rows(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, rule: bool = True) -> str:
    """The same as :func:`markdown_rows`, for the terminal; with a `rule` below the header."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *([["-" * width for width in widths]] if rule else []), *rows):
        cells = [cell.ljust(widths[i]) if i < left else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def table(
    rows: Iterable[Row],
    columns: Sequence[tuple[str, Callable[[Row], str]]],
    left: int = 1,
    style: Literal["markdown", "text"] = "markdown",
) -> str:
    """A table of rows by the title and the function of each column; `left` as in :func:`markdown_rows`."""
    header, entries = [title for title, _ in columns], [[cell(row) for _, cell in columns] for row in rows]
    return markdown_rows(header, entries, left) if style == "markdown" else text_rows(header, entries, left)


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of the same keys, at least one, as a CSV file; None as an empty entry."""
    out = io.StringIO(newline="")
    writer: csv.DictWriter[str] = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
