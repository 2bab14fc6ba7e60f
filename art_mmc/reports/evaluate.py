"""
Reports of `art-mmc evaluate`: one classifier under many attacks, the verdict first.
"""

import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from art_mmc.checks import UNIT_BOX
from art_mmc.evaluation import CLEAN, SUITES, AttackRecord, RobustnessRecord, headline, wilson_interval
from art_mmc.evaluation.engine import norm_name
from art_mmc.evaluation.records import reading
from art_mmc.reports import tables
from art_mmc.reports.figures.evaluate import robustness_pictures
from art_mmc.reports.render import page, told
from art_mmc.reports.write import load, report, write_files

#: what report.json is
FORMAT = "art_mmc.robustness"

#: names of the files beside report.md and report.json
ATTACKS_CSV, EXAMPLES_NPZ = "attacks.csv", "examples.npz"

#: the columns that stand side by side in every table: their names, and the objectives that they are about
COLUMNS = {"own loss": ("loss",), "cross-entropy": ("cross_entropy",), "margin": ("adaptive", "soft_margin", "margin")}


def strongest(record: RobustnessRecord, eps: float, objectives: Sequence[str]) -> AttackRecord | None:
    """Of the attacks on all samples at a radius the one on an objective that leaves least; None if there is none."""
    own = [
        each
        for each in record.attacks
        if each.bounded
        and each.eps == eps
        and each.objective in objectives
        and not (view := reading(record.clean, each)).follows
        and view.n == each.n
    ]
    return min(own, key=lambda each: each.correct, default=None)


def side_by_side(record: RobustnessRecord, eps: float) -> list[str]:
    """Percent left at a radius by the strongest attack on each of :data:`COLUMNS`, and in the worst case."""
    found = (strongest(record, eps, objectives) for objectives in COLUMNS.values())
    cells = [tables.NONE if each is None else tables.format_percent(each.accuracy) for each in found]
    return [*cells, tables.with_interval(record.worst_case(eps))]


def norm_text(record: RobustnessRecord) -> str:
    """The norm of the attacks inside a ball, "L-inf" or "L2"."""
    return norm_name(min((each.norm for each in record.attacks if each.bounded), default=math.inf))


def _accuracies(record: RobustnessRecord, eps: float) -> list[str]:
    """Clean, then :func:`side_by_side`; the worst case in bold."""
    *cells, worst = side_by_side(record, eps)
    return [tables.format_percent(record.clean.accuracy), *cells, f"**{worst}**"]


#: titles of :func:`_accuracies` but for the last
_TITLES = ["Clean", *(name[0].upper() + name[1:] for name in COLUMNS)]


def evaluation_table(record: RobustnessRecord) -> str:
    """For the terminal: own loss, cross-entropy, margin and worst case side by side, one row a radius."""
    clean = tables.format_percent(record.clean.accuracy)
    rows = tables.text_rows(
        ["eps", "clean", *COLUMNS, "worst case (95 % interval)"],
        [[tables.format_eps(eps), clean, *side_by_side(record, eps)] for eps in record.eps],
    )
    return f"{rows}\n\n{told('evaluate', record.clean.n, norm_text(record), headline(record))}"


def verdict_text(record: RobustnessRecord) -> str:
    """For the terminal: flagged diagnostics by name, the verdict and its reasons."""
    if record.verdict is None:
        return "no verdict: the diagnostics did not run"
    flagged = [each.name for each in record.diagnostics if each.flagged]
    names = ", ".join(flagged) if flagged else f"none of {len(record.diagnostics)}"
    reasons = (f"- {reason}" for reason in record.verdict.reasons)
    return "\n".join([f"flagged diagnostics: {names}", f"verdict: {record.verdict.status}", *reasons])


def record_text(record: RobustnessRecord) -> str:
    """For the terminal: table and verdict."""
    return f"{evaluation_table(record)}\n\n{verdict_text(record)}"


def records_table(records: Sequence[RobustnessRecord]) -> str:
    """Markdown: records side by side, one row for each classifier and radius."""
    rows = []
    for each in records:
        dataset = tables.short_name(str(each.provenance.get("dataset", "")))
        verdict = "" if each.verdict is None else each.verdict.status
        for eps in each.eps:
            radius = f"{norm_text(each)} {tables.format_eps(eps)}"
            head = [str(each.provenance.get("name", "classifier")), dataset, each.suite, radius, str(each.clean.n)]
            rows.append([*head, *_accuracies(each, eps), verdict])
    header = ["Classifier", "Data set", "Suite", "eps", "n", *_TITLES, "**Worst case**", "Verdict"]
    return tables.markdown_rows(header, rows, left=4)


def protocol_section(record: RobustnessRecord) -> str:
    """Markdown: what of a paper's suite is exactly the paper's, as the run wrote it down; empty for other suites."""
    if record.suite not in SUITES or not SUITES[record.suite].protocol:
        return ""
    rows = record.provenance.get("protocol")
    if rows is None:
        told = "This run did not write down which parts of it are exactly the paper's."
    else:
        parts = tables.markdown_rows(["Part", "As in the paper", "Not as in the paper"], rows, left=3)
        told = f"{parts}\n\nAll other attacks here are ours."
    return f"## The paper's protocol\n\n{told}"


def robustness_report(record: RobustnessRecord, pictures: Iterable[str] = ()) -> str:
    """The whole report in Markdown; `pictures` are the names of those that lie beside it."""
    views = [reading(record.clean, each) for each in record.attacks]
    bounded = [view for view in views if view.record.bounded]
    return page(
        "evaluate",
        record=record,
        facts=record.provenance,
        norm=norm_text(record),
        box=record.provenance.get("clip_values", UNIT_BOX),  # older records do not say
        headline=headline(record),
        titles=_TITLES,
        accuracies=partial(_accuracies, record),
        pictures=set(pictures),
        bounded=bounded,
        partial=any(view.n < view.record.n for view in bounded),
        free=[view for view in views if not view.record.bounded],
        mean=np.mean,
        median=np.median,
        by_class={} if record.labels is None else record.class_accuracy(record.eps[-1]),
        wilson=wilson_interval,
        protocol=protocol_section(record),
    )


def attacks_csv(record: RobustnessRecord) -> bytes:
    """A CSV file: the clean row, one row an attack, and the worst case at each radius."""
    rows = [record.clean, *record.attacks, *(record.worst_case(eps) for eps in record.eps)]
    return tables.csv_bytes([_csv_row(record.clean, each) for each in rows])


def _fields(record: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def _csv_row(clean: AttackRecord, each: AttackRecord) -> dict[str, Any]:
    view = reading(clean, each)
    found, (low, high) = view.found, view.interval
    norm = "inf" if each.norm == math.inf else f"{each.norm:g}"
    return {
        "attack": each.attack,
        "objective": each.objective,
        "norm": norm if each.bounded and each.attack != CLEAN else "",
        **_fields(each, "eps", "eps_step", "steps", "restarts", "targets", "labels", "bounded"),
        "attacked": 0 if each.attack == CLEAN else view.attacked,
        **_fields(view, "follows", "n", "correct", "accuracy"),
        "low": low,
        "high": high,
        "fooled": len(found) if each.distances is not None else None,
        "mean_l2": float(np.mean(found)) if len(found) else None,
        "median_l2": float(np.median(found)) if len(found) else None,
        **_fields(each, "seconds", "gradients", "queries"),
    }


def examples_npz(record: RobustnessRecord) -> bytes | None:
    """An .npz file with `x`, `x_adv`, `y`, `predictions` and `index`; None if there are no examples."""
    x, labels, predictions = record.inputs, record.labels, record.predictions
    if record.examples is None or x is None or labels is None or predictions is None:
        return None
    buffer = io.BytesIO()
    index = np.arange(len(x)) if record.index is None else record.index
    np.savez_compressed(buffer, x=x, x_adv=record.examples, y=labels, predictions=predictions, index=index)
    return buffer.getvalue()


def report_files(record: RobustnessRecord) -> dict[str, bytes]:
    """Name of each file of the report -> its bytes, but for the examples."""
    pictures = robustness_pictures(record)
    document = {"format": FORMAT, "version": 1, **record.to_dict()}
    return report(robustness_report(record, pictures), document, {ATTACKS_CSV: attacks_csv(record), **pictures})


def write_robustness(record: RobustnessRecord, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the report and, where there are examples, examples.npz to a folder, made if need be; return the files."""
    examples = examples_npz(record)
    return write_files(folder, report_files(record) | ({} if examples is None else {EXAMPLES_NPZ: examples}))


def load_robustness(path: str | os.PathLike[str]) -> RobustnessRecord:
    """
    The record in a report.json, see :func:`.load`; its examples are taken from examples.npz beside it, if that is there
    and fits.
    """
    record = load(path, FORMAT, "evaluate", RobustnessRecord.from_dict)
    examples = Path(path).with_name(EXAMPLES_NPZ)
    if not examples.is_file() or record.labels is None or record.predictions is None:
        return record
    with np.load(examples) as kept:
        same = np.array_equal(kept["y"], record.labels) and np.array_equal(kept["predictions"], record.predictions)
        if not same:
            return record
        return replace(record, examples=kept["x_adv"], inputs=kept["x"], index=kept["index"])
