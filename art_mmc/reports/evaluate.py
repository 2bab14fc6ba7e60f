"""
Reports of `art-mmc evaluate`: one classifier under many attacks, the verdict first.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from art_mmc.checks import UNIT_BOX
from art_mmc.evaluation import (
    BROKEN,
    CLEAN,
    HOLDS,
    SUITES,
    UNTRUSTWORTHY,
    AttackRecord,
    RobustnessRecord,
    headline,
    wilson_interval,
)
from art_mmc.evaluation.suites import QUOTE
from art_mmc.reports.figures.evaluate import robustness_pictures
from art_mmc.reports.tables import (
    device_text,
    format_eps,
    format_percent,
    markdown_rows,
    short_name,
    text_rows,
    versions_text,
    with_interval,
)
from art_mmc.reports.write import REPORT_JSON, REPORT_MD, json_bytes, read_document, write_files
from art_mmc.studies.evaluate import FORMAT, Assessment, reading

#: names of the files beside report.md and report.json
ATTACKS_CSV, EXAMPLES_NPZ = "attacks.csv", "examples.npz"

#: the columns that stand side by side in every table: their names, and the objectives that they are about
COLUMNS = {"own loss": ("loss",), "cross-entropy": ("cross_entropy",), "margin": ("adaptive", "margin")}

#: what a verdict means
MEANINGS = {
    BROKEN: "The worst case is at chance, or far below what the attacks that papers report leave.",
    UNTRUSTWORTHY: "There are signs that the attacks fail where the network does not hold.",
    HOLDS: "Nothing speaks against the figure; a better attack may still lower it.",
}

_READING = (
    "An image counts only if it withstood every attack at this and every smaller eps. That is an upper bound on the "
    "true robust accuracy: a better attack can only lower it."
)


def _headline(record: RobustnessRecord) -> str:
    """What the worst case is; under no suite one to quote where the verdict is that it can't be trusted."""
    text, verdict = headline(record.suite), record.verdict
    if text == QUOTE and verdict is not None and verdict.status == UNTRUSTWORTHY:
        return "not one to quote: see the verdict"
    return text


def strongest(record: RobustnessRecord, eps: float, objectives: Sequence[str]) -> AttackRecord | None:
    """
    The attack on an objective that leaves least at a radius, among those that attacked all samples by themselves.

    :param record: The record.
    :param eps: A radius that was measured.
    :param objectives: Names of objectives that count as one.
    :return: The attack; None if there is none.
    """
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
    """
    :param record: The record.
    :param eps: A radius that was measured.
    :return: Percent left by the strongest attack on each of :data:`COLUMNS`, "-" where none ran, and in the worst case.
    """
    found = (strongest(record, eps, objectives) for objectives in COLUMNS.values())
    cells = ["-" if each is None else format_percent(each.accuracy) for each in found]
    return [*cells, with_interval(record.worst_case(eps))]


# --------------------------------------------------------------------------------------------------------------- names


def norm_text(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: "L-inf" or "L2".
    """
    norms = {each.norm for each in record.attacks if each.bounded}
    return "L-inf" if norms <= {math.inf} else "L2"


def name_of(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: What its provenance calls the classifier.
    """
    return str(record.provenance.get("name", "classifier"))


def _range(record: RobustnessRecord) -> str:
    """Where the inputs are, as older records do not say."""
    box = record.provenance.get("clip_values", UNIT_BOX)
    return "of any size" if box is None else f"in [{box[0]:g}, {box[1]:g}]"


def title_of(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: The classifier and its data set.
    """
    dataset = record.provenance.get("dataset")
    return name_of(record) + (f" on {short_name(dataset)}" if dataset else "")


# ---------------------------------------------------------------------------------------------------------------- text


def evaluation_table(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: For the terminal: own loss, cross-entropy, margin and worst case side by side, one row a radius.
    """
    rows = [[format_eps(eps), format_percent(record.clean.accuracy), *side_by_side(record, eps)] for eps in record.eps]
    table = text_rows(["eps", "clean", *COLUMNS, "worst case (95 % interval)"], rows)
    return (
        f"{table}\n\npercent correct of {record.clean.n} images, {norm_text(record)}; under each objective the "
        f"strongest single attack on it;\nworst case: over all attacks; {_headline(record)}"
    )


def verdict_text(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: For the terminal: flagged diagnostics by name, the verdict and its reasons.
    """
    if record.verdict is None:
        return "no verdict: the diagnostics did not run"
    flagged = [each.name for each in record.diagnostics if each.flagged]
    count = len(record.diagnostics)
    return "\n".join(
        [
            f"flagged diagnostics: {', '.join(flagged)}" if flagged else f"flagged diagnostics: none of {count}",
            f"verdict: {record.verdict.status}",
            *(f"- {reason}" for reason in record.verdict.reasons),
        ]
    )


# ------------------------------------------------------------------------------------------------------------ Markdown


def worst_case_table(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: Markdown: one row a radius, the three objectives and the worst case with its interval.
    """
    rows = []
    for eps in record.eps:
        *cells, worst = side_by_side(record, eps)
        rows.append([format_eps(eps), format_percent(record.clean.accuracy), *cells, f"**{worst}**"])
    names = (name[0].upper() + name[1:] for name in COLUMNS)
    return markdown_rows(["eps", "Clean", *names, "**Worst case** (95 % interval)"], rows)


def attacks_table(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: Markdown: the attacks inside the ball, one row each.
    """
    header = ["Attack", "Objective", "eps", "Step", "Steps", "Restarts", "Targets", "Attacked"]
    header += ["Accuracy left, % (95 % interval)", "Seconds", "Gradients", "Queries"]
    rows, notes = [], set()
    for each in record.attacks:
        if not each.bounded:
            continue
        view = reading(record.clean, each)
        notes |= {mark for mark, on in (("*", view.follows), ("+", view.n < each.n)) if on}
        marks = "\\*" * view.follows + "+" * (view.n < each.n)
        rows.append(
            [
                each.attack,
                each.objective or "",
                format_eps(each.eps),
                format_eps(each.eps_step) if each.eps_step else "",
                str(each.steps),
                str(each.restarts),
                (each.targets or "").replace("_", " ") + (", predicted labels" if each.labels == "predicted" else ""),
                str(view.attacked),
                (with_interval(view) if view.n else "-") + marks,
                f"{each.seconds:.1f}",
                f"{each.gradients:,}",
                f"{each.queries:,}",
            ]
        )
    parts = [markdown_rows(header, rows, left=2)]
    if "*" in notes:
        parts.append("\\* ran on what earlier attacks had left: the figure is theirs and its own together.")
    if "+" in notes:
        parts.append("+ ran on some of the samples only, and the figure is about these.")
    if left_out := record.provenance.get("left_out"):
        parts.append(f"Not run, having no meaning for inputs of this shape or so few classes: {', '.join(left_out)}.")
    return "\n\n".join(parts)


def free_attacks_table(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: Markdown: the attacks without a ball, with the lengths of their perturbations; "" if there are none.
    """
    rows = []
    for each in record.attacks:
        if each.bounded:
            continue
        view = reading(record.clean, each)
        found = view.found
        lengths = [f"{np.mean(found):.3f}", f"{np.median(found):.3f}"] if len(found) else ["-", "-"]
        rows.append(
            [
                each.attack,
                (each.targets or "").replace("_", " "),
                str(each.steps),
                str(view.attacked),
                str(len(found)),
                *lengths,
                with_interval(view) if view.n else "-",
                f"{each.seconds:.1f}",
            ]
        )
    header = ["Attack", "Targets", "Steps", "Attacked", "Fooled", "Mean L2", "Median L2"]
    return markdown_rows([*header, "Accuracy left, %", "Seconds"], rows) if rows else ""


def class_table(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: Markdown: accuracy by class, clean and in the worst case at the largest radius; "" if labels were not kept.
    """
    if record.labels is None:
        return ""
    rows = []
    for k, (left, n) in record.class_accuracy(record.eps[-1]).items():
        clean = int(record.clean.standing[record.labels == k].sum())
        low, high = wilson_interval(left, n)
        rows.append(
            [
                str(k),
                str(n),
                format_percent(clean / n),
                f"{format_percent(left / n)} ({format_percent(low)} to {format_percent(high)})",
            ]
        )
    return markdown_rows(["Class", "Images", "Clean, %", f"Worst case at {format_eps(record.eps[-1])}, %"], rows)


def diagnostics_table(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: Markdown: what was looked for, the flagged ones first.
    """
    ordered = sorted(record.diagnostics, key=lambda each: not each.flagged)
    rows = [
        [
            f"**{each.name}**" if each.flagged else each.name,
            "**flagged**" if each.flagged else "",
            each.sentence,
            f"{each.value:.3g}",
            f"{each.threshold:.3g}",
        ]
        for each in ordered
    ]
    return markdown_rows(["Diagnostic", "", "What was seen", "Value", "Threshold"], rows, left=3)


def protocol_section(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: Markdown: which parts of a paper's suite are exactly the paper's, as the run wrote it down (an older one
             may have attacked otherwise); empty for any other suite.
    """
    if record.suite not in SUITES or not SUITES[record.suite].protocol:
        return ""
    rows = record.provenance.get("protocol")
    if rows is None:
        told = "This run did not write down which parts of it are exactly the paper's."
    else:
        table = markdown_rows(["Part", "As in the paper", "Not as in the paper"], rows, left=3)
        told = f"{table}\n\nAll other attacks here are ours."
    return f"## The paper's protocol\n\n{told}"


def provenance_table(record: RobustnessRecord) -> str:
    """
    :param record: The record.
    :return: Markdown: where the numbers come from.
    """
    facts = dict(record.provenance)
    rows: list[list[str]] = []
    if "dataset" in facts:
        rows.append(["Data set", f"{short_name(facts['dataset'])}, {facts['n']} of {facts['n_test']} test images"])
    for key in ("checkpoint", "kind", "classifier", "defence", "backbone", "recipe", "curves"):
        if facts.get(key):
            rows.append([key.capitalize(), str(facts[key])])
    if facts.get("options"):
        rows.append(["Options", ", ".join(f"{name} = {value}" for name, value in facts["options"].items())])
    if facts.get("parameters"):
        rows.append(["Parameters", f"{facts['parameters']:,}"])
    rows.append(["Suite", record.suite or "attacks of one's own"])
    if facts.get("quirks"):
        rows.append(["Quirks of the paper", ", ".join(facts["quirks"])])
    if facts.get("substitutes"):
        rows.append(["Substitutes", ", ".join(facts["substitutes"])])
    rows.append(["Seed", str(record.seed)])
    if "batch_size" in facts:
        rows.append(["Batch size", str(facts["batch_size"])])
    if "processor" in facts:
        rows.append(["Device", device_text(facts)])
        rows.append(["Versions", versions_text(facts["versions"])])
        rows.append(["Date", str(facts["date"])])
    gradients, queries = (sum(getattr(each, kind) for each in record.attacks) for kind in ("gradients", "queries"))
    rows.append(["Gradients and queries", f"{gradients:,} samples backward, {queries:,} forward alone"])
    rows.append(["Seconds", f"{record.seconds:.1f}, diagnostics {record.diagnostics_seconds:.1f} of them"])
    return markdown_rows(["What", "Value"], rows, left=2)


def robustness_report(assessment: Assessment, pictures: Iterable[str] = ()) -> str:
    """
    The whole report.

    :param assessment: The assessment.
    :param pictures: Names of the pictures beside it.
    :return: Markdown.
    """
    record = assessment.record
    shown = dict.fromkeys(pictures)
    sections = [f"# How robust is {title_of(record)}?"]
    if record.verdict is None:
        sections.append("**No verdict**: the diagnostics did not run.")
    else:
        sections.append(f"**Verdict: {record.verdict.status}.** {MEANINGS[record.verdict.status]}")
        sections.append("\n".join(f"- {reason}" for reason in record.verdict.reasons))
    sections += [
        "## Worst case",
        f"Percent correct of {record.clean.n} images; eps is the radius of an {norm_text(record)} ball, inputs being "
        f"{_range(record)}; in brackets the 95 % Wilson interval. Under each objective the strongest single attack on "
        "it: *own loss* is what the network was trained by, as in the papers; the *margin* sees through losses that "
        f"hide the gradient. The worst case: {_headline(record)}. {_READING}",
        worst_case_table(record),
    ]
    sections += [f"![{CAPTIONS[name]}]({name})" for name in CAPTIONS if name in shown]
    sections += ["## Attacks", attacks_table(record)]
    free = free_attacks_table(record)
    if free:
        sections += ["### Without a ball", "They have no part in the worst case.", free]
    by_class = class_table(record)
    if by_class:
        sections += ["## By class", by_class]
    if record.diagnostics:
        flagged = sum(each.flagged for each in record.diagnostics)
        sections += [
            "## Diagnostics of masked gradients",
            f"{flagged} of {len(record.diagnostics)} flagged.",
            diagnostics_table(record),
        ]
    sections += [protocol_section(record)] if protocol_section(record) else []
    sections += ["## Provenance", provenance_table(record)]
    return "\n\n".join(sections) + "\n"


#: captions of the pictures, in the order of the report
CAPTIONS = {
    "eps.png": "accuracy over eps under each objective",
    "steps.png": "accuracy over the number of steps under each objective",
    "zero-gradients.png": "share of exactly zero gradients",
    "examples.png": "clean and adversarial images and their difference",
    "confusion.png": "clean class and the class that the adversarial image is taken for",
}


def records_table(records: Sequence[RobustnessRecord]) -> str:
    """
    :param records: Records, each with its provenance.
    :return: Markdown: all of them side by side, one row for each classifier and radius.
    """
    rows = []
    for record in records:
        for eps in record.eps:
            *cells, worst = side_by_side(record, eps)
            rows.append(
                [
                    name_of(record),
                    short_name(str(record.provenance.get("dataset", ""))),
                    record.suite,
                    f"{norm_text(record)} {format_eps(eps)}",
                    str(record.clean.n),
                    format_percent(record.clean.accuracy),
                    *cells,
                    f"**{worst}**",
                    "" if record.verdict is None else record.verdict.status,
                ]
            )
    names = (name[0].upper() + name[1:] for name in COLUMNS)
    header = ["Classifier", "Data set", "Suite", "eps", "n", "Clean", *names, "**Worst case**", "Verdict"]
    return markdown_rows(header, rows, left=4)


# --------------------------------------------------------------------------------------------------------------- files


def attacks_csv(record: RobustnessRecord) -> bytes:
    """
    :param record: The record.
    :return: A CSV file: the clean row, one row an attack, and the worst case at each radius.
    """
    rows = [record.clean, *record.attacks, *(record.worst_case(eps) for eps in record.eps)]
    out = io.StringIO(newline="")
    writer: csv.DictWriter[str] = csv.DictWriter(out, list(_csv_row(record.clean, record.clean)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_row(record.clean, each) for each in rows)
    return out.getvalue().encode()


def _csv_row(clean: AttackRecord, each: AttackRecord) -> dict[str, Any]:
    view = reading(clean, each)
    found = view.found
    low, high = view.interval
    return {
        "attack": each.attack,
        "objective": each.objective,
        "norm": (
            "" if each.attack == CLEAN or not each.bounded else "inf" if each.norm == math.inf else f"{each.norm:g}"
        ),
        "eps": each.eps,
        "eps_step": each.eps_step,
        "steps": each.steps,
        "restarts": each.restarts,
        "targets": each.targets,
        "labels": each.labels,
        "bounded": each.bounded,
        "attacked": 0 if each.attack == CLEAN else view.attacked,
        "follows": view.follows,
        "n": view.n,
        "correct": view.correct,
        "accuracy": view.accuracy,
        "low": low,
        "high": high,
        "fooled": len(found) if each.distances is not None else None,
        "mean_l2": float(np.mean(found)) if len(found) else None,
        "median_l2": float(np.median(found)) if len(found) else None,
        "seconds": each.seconds,
        "gradients": each.gradients,
        "queries": each.queries,
    }


def examples_npz(assessment: Assessment) -> bytes | None:
    """
    :param assessment: The assessment.
    :return: An .npz file with `x`, `x_adv`, `y`, `predictions` and `index`; None if there are no examples.
    """
    record = assessment.record
    if record.examples is None or assessment.x is None or record.labels is None or record.predictions is None:
        return None
    buffer = io.BytesIO()
    index = np.arange(len(assessment.x)) if assessment.index is None else assessment.index
    np.savez_compressed(
        buffer,
        x=assessment.x,
        x_adv=record.examples,
        y=record.labels,
        predictions=record.predictions,
        index=index,
    )
    return buffer.getvalue()


def report_files(assessment: Assessment) -> dict[str, bytes]:
    """
    :param assessment: The assessment.
    :return: Name of each file of the report -> its bytes, but for the examples.
    """
    pictures = robustness_pictures(assessment)
    return {
        REPORT_MD: robustness_report(assessment, pictures).encode(),
        REPORT_JSON: json_bytes(assessment.to_dict()),
        ATTACKS_CSV: attacks_csv(assessment.record),
        **pictures,
    }


def write_robustness(assessment: Assessment, folder: str | os.PathLike[str]) -> list[Path]:
    """
    Write report.md, report.json, attacks.csv, the pictures and, where there are examples, examples.npz.

    :param assessment: The assessment.
    :param folder: The folder; made if need be.
    :return: The files.
    """
    contents = report_files(assessment)
    examples = examples_npz(assessment)
    if examples is not None:
        contents[EXAMPLES_NPZ] = examples
    return write_files(folder, contents)


def load_robustness(path: str | os.PathLike[str]) -> Assessment:
    """
    :param path: A report.json of `art-mmc evaluate`; the examples are taken from examples.npz beside it, if it is there
           and fits.
    :return: The assessment.
    :raises OSError: When it can't be read.
    :raises ValueError: When the file holds something else.
    """
    data = read_document(path)
    if data["format"] != FORMAT:
        raise ValueError(f"{path} is no report of art-mmc evaluate, but of kind '{data['format']}'.")
    try:
        assessment = Assessment.from_dict(data)
    except (KeyError, TypeError) as err:
        raise ValueError(f"{path} is damaged: {type(err).__name__}: {err}") from err
    return _with_examples(assessment, Path(path).with_name(EXAMPLES_NPZ))


def _with_examples(assessment: Assessment, path: Path) -> Assessment:
    """The examples of the same run, if they are there."""
    record = assessment.record
    if not path.is_file() or record.labels is None or record.predictions is None:
        return assessment
    with np.load(path) as kept:
        same = np.array_equal(kept["y"], record.labels) and np.array_equal(kept["predictions"], record.predictions)
        if not same:
            return assessment
        return Assessment(replace(record, examples=kept["x_adv"]), assessment.curves, kept["x"], kept["index"])
