"""
The bench's table, files and picture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from art_mmc.bench.measure import OURS, Row
from art_mmc.reports.figures import style
from art_mmc.reports.render import page, told
from art_mmc.reports.tables import markdown_rows, text_rows
from art_mmc.reports.write import json_bytes, write_files

#: names of the bench's files
BENCH_MD, BENCH_JSON, GROWTH_PNG = "bench.md", "bench.json", "growth.png"

HEADER = ("Job", "Contender", "Median", "Least", "Most", "Ratio", "Goal", "Met")
_CURVE_HEADER = ["Growth", "With", "Slope of time", "Slope of memory", "Largest step up"]
_CURVE_HEADER += ["Time at the largest", "Memory"]
_MARKERS = "osD^v"
_MET = {None: "", True: "yes", False: "no"}


def format_figure(value: float, unit: str) -> str:
    """Three digits of a figure and its unit; seconds become milliseconds and microseconds where they are few."""
    if unit != "s":
        return f"{value:,.0f} {unit}"
    for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1 or name == "µs":
            break
    scaled = value * factor
    return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {name}"


def row_cells(row: Row) -> tuple[str, ...]:
    """A row's entries under :data:`HEADER`."""
    spread = (format_figure(value, row.unit) for value in (row.median, row.least, row.most))
    return (row.name, row.contender, *spread, f"{row.ratio:.2f}", row.asked or "", _MET[row.met])


def bench_text(rows: Sequence[Row]) -> str:
    return text_rows(HEADER, [row_cells(row) for row in rows], left=2)


def curve_cells(curve: dict[str, Any]) -> tuple[str, ...]:
    """A curve's entries: what, with what, slopes, largest step, and the figures at the largest size."""
    last = curve["points"][-1]
    return (
        curve["title"],
        curve["axis"],
        *(f"{curve[key]:.2f}" for key in ("slope_seconds", "slope_megabytes", "worst_step")),
        f"{format_figure(last['seconds'], 's')} at {last['size']:,}",
        format_figure(last["megabytes"], "MB"),
    )


def curves_text(curves: Sequence[dict[str, Any]]) -> str:
    return text_rows(_CURVE_HEADER, [curve_cells(curve) for curve in curves], left=2)


def conditions(bench: dict[str, Any]) -> str:
    """Rounds, device, versions and date of what :func:`.run_bench` gave, in a sentence."""
    return told("bench", bench)


def read_rows(bench: dict[str, Any]) -> dict[str, list[Row]]:
    """The rows of what :func:`.run_bench` gave, or of its file, by the name of their case."""
    found: dict[str, list[Row]] = {}
    for data in bench["rows"]:
        found.setdefault(data["name"], []).append(Row(**data))
    return found


def summary_table(bench: dict[str, Any]) -> str:
    """
    A Markdown table, one line a case: of the contenders that the goal is for, or of all, the one that is farthest from
    the reference.
    """
    lines = []
    for rows in read_rows(bench).values():
        asked = [row for row in rows if row.asked] or [row for row in rows if row.contender == OURS]
        asked = asked or [row for row in rows if row.contender != row.reference]
        if len(rows) < 2:
            continue
        worst = max(asked, key=lambda row: row.ratio)
        reference = next(row for row in rows if row.contender == worst.reference)
        job = f"{worst.job}; {worst.note.partition(';')[0]}"
        who = worst.contender + (f", the slowest of {len(asked)}" if len(asked) > 1 else "")
        figures = [format_figure(each.median, each.unit) for each in (reference, worst)]
        judged = (f"{worst.ratio:.2f}", worst.asked or "", _MET[worst.met])
        lines.append((job, reference.contender, who, *figures, *judged))
    header = ("Job", "Reference", "Contender", "Reference's", "Contender's", "Ratio", "Goal", "Met")
    return markdown_rows(header, lines, left=3)


def bench_markdown(bench: dict[str, Any]) -> str:
    groups: dict[str, dict[str, list[Row]]] = {}
    for name, rows in read_rows(bench).items():
        groups.setdefault(rows[0].group, {})[name] = rows
    titles = {"titles": HEADER, "curve_titles": _CURVE_HEADER, "picture": GROWTH_PNG}
    curves = [curve_cells(curve) for curve in bench["growth"]]
    return page("bench", conditions=conditions(bench), groups=groups, entries=row_cells, curves=curves, **titles)


def growth_figure(curves: Sequence[dict[str, Any]]) -> style.Figure:
    """A picture of seconds and memory over samples and over classes, on logarithmic axes."""
    axes = list(dict.fromkeys(curve["axis"] for curve in curves))
    figure = style.new_figure(12.5, 3.4 * len(axes))
    titles = list(dict.fromkeys(curve["title"] for curve in curves))
    panels = figure.subplots(len(axes), 2, squeeze=False)
    for panel_row, axis in zip(panels, axes, strict=True):
        shown = [curve for curve in curves if curve["axis"] == axis]
        for panel, key, label in zip(panel_row, ("seconds", "megabytes"), ("seconds", "peak memory, MB"), strict=True):
            for curve in shown:
                index = titles.index(curve["title"])
                sizes = [point["size"] for point in curve["points"]]
                # a logarithmic axis has no room for nothing
                figures = [max(point[key], 1.0) if key == "megabytes" else point[key] for point in curve["points"]]
                look: dict[str, Any] = {"color": style.COLOURS[index], "marker": _MARKERS[index % len(_MARKERS)]}
                look["label"] = f"{curve['title']}: {curve['slope_' + key]:.2f}"
                panel.plot(sizes, figures, markersize=5, linewidth=1.6, **look)
            panel.set_xscale("log")
            panel.set_yscale("log")
            ticks = sorted({point["size"] for curve in shown for point in curve["points"]})
            panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            panel.minorticks_off()
            style.style_panel(panel, xlabel=axis, ylabel=label, size=9)
            # beside the panel: inside, it would lie on a curve
            beside: dict[str, Any] = {"alignment": "left", "loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
            panel.legend(fontsize=7.5, frameon=False, title="slope", title_fontsize=7.5, **beside)
    figure.suptitle("Growth of time and memory; slope 1 is linear", fontsize=10.5, color=style.INK, x=0.01, ha="left")
    return figure


def write_bench(bench: dict[str, Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Write the report, the figures and, if growth was measured, the picture to a folder; return the files."""
    contents = {BENCH_MD: bench_markdown(bench).encode(), BENCH_JSON: json_bytes(bench)}
    if bench["growth"]:
        contents[GROWTH_PNG] = style.figure_png(growth_figure(bench["growth"]))
    return write_files(folder, contents)
