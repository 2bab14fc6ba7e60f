"""
Figures in words: what all reports share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

#: names of versions where those of the packages are long
SHORT_NAMES = {"adversarial-robustness-toolbox": "ART", "python": "Python"}


class Counted(Protocol):
    """
    A share of samples, with its interval.
    """

    @property
    def accuracy(self) -> float:
        """The share."""

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""


def format_eps(eps: float) -> str:
    """
    :param eps: A radius.
    :return: As people write it: "0.05", or "8/255" where the decimals would go on.
    """
    pixels = eps * 255
    if len(f"{eps:.6g}") > 6 and math.isclose(pixels, round(pixels), abs_tol=1e-6):
        return f"{round(pixels)}/255"
    return f"{eps:.4g}"


def format_percent(share: float) -> str:
    """
    :param share: A number in [0, 1].
    :return: Percent with one decimal, without the sign.
    """
    return f"{100 * share:.1f}"


def with_interval(record: Counted) -> str:
    """
    :param record: A share with an interval.
    :return: Percent, "62.1 (57.3 to 66.7)".
    """
    low, high = record.interval
    return f"{format_percent(record.accuracy)} ({format_percent(low)} to {format_percent(high)})"


def short_name(path: str) -> str:
    """
    :param path: The name of a data set, or the path of a user's own file.
    :return: The name without the folder.
    """
    return path.replace("\\", "/").rpartition("/")[2]


def versions_text(versions: Mapping[str, str]) -> str:
    """
    :param versions: Package -> version.
    :return: "torch 2.9, ART 1.20.1".
    """
    return ", ".join(f"{SHORT_NAMES.get(name, name)} {version}" for name, version in versions.items())


def device_text(facts: Mapping[str, Any]) -> str:
    """
    :param facts: What :func:`.machine` gave.
    :return: The device and its processor.
    """
    # records of earlier versions were all made by one process
    shared = f" in each of {facts['processes']} processes" if facts.get("processes", 1) > 1 else ""
    return f"{facts['device']} ({facts['processor']}), {facts['threads']} threads{shared}"


def markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """
    :param header: Names of the columns.
    :param rows: Their entries.
    :param left: The first so many columns are words, aligned to the left; the others numbers.
    :return: A Markdown table.
    """
    alignment = ["---"] * left + ["---:"] * (len(header) - left)
    escaped = [[entry.replace("|", "\\|") for entry in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, alignment, *escaped])


def text_rows(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """
    :param header: Names of the columns.
    :param rows: Their entries.
    :param left: The first so many columns are words, aligned to the left; the others numbers.
    :return: A table for the terminal.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [cell.ljust(widths[i]) if i < left else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
