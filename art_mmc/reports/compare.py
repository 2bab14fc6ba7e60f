"""
Reports of `art-mmc compare`: defences trained under the same conditions, side by side.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_mmc.defences import get_defence
from art_mmc.evaluation import ATTACKS, PGD_ADAPTIVE, PGD_LOSS, WORST_CASE, headline
from art_mmc.reports.figures.style import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    figure_png,
    new_figure,
    radius_labels,
    style_panel,
)
from art_mmc.reports.tables import (
    device_text,
    format_eps,
    format_percent,
    markdown_rows,
    short_name,
    versions_text,
    with_interval,
)
from art_mmc.reports.write import REPORT_JSON, REPORT_MD, json_bytes, read_document, write_files
from art_mmc.studies.setup import Comparison, DefenceResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: name of the picture of a report
CURVES_PNG = "curves.png"

#: by how many points PGD on the own loss may leave more than PGD on the adaptive objective before the report says so
FLATTERY = 5.0

#: the columns of a table, for each eps, with their short names
_COLUMNS = {"FGSM": "FGSM", PGD_LOSS: "own", PGD_ADAPTIVE: "adapt", WORST_CASE: "worst"}


# ---------------------------------------------------------------------------------------------------------- sentences


def flattered(result: DefenceResult) -> tuple[float, float] | None:
    """
    Where a defence looks best on its own loss.

    :param result: A defence's result.
    :return: The eps of the largest lead of PGD on the own loss over PGD on the adaptive objective, and that lead in
             points; None when it is not above :data:`FLATTERY`.
    """
    record = result.robustness
    leads = [
        (eps, 100 * (record.get(PGD_LOSS, eps).accuracy - record.get(PGD_ADAPTIVE, eps).accuracy)) for eps in record.eps
    ]
    eps, lead = max(leads, key=lambda pair: pair[1])
    return (eps, lead) if lead > FLATTERY else None


def flattery_sentences(comparison: Comparison) -> list[str]:
    """
    :param comparison: The comparison.
    :return: One plain sentence for each defence that its own loss flatters.
    """
    sentences = []
    for result in comparison.results:
        found = flattered(result)
        if found is not None:
            eps, lead = found
            own, adaptive = (result.robustness.get(attack, eps) for attack in (PGD_LOSS, PGD_ADAPTIVE))
            sentences.append(
                f"{result.defence}: its own loss flatters it by {lead:.1f} points at eps {format_eps(eps)}: PGD on its "
                f"training loss leaves {format_percent(own.accuracy)} %, PGD on the {adaptive.objective} objective "
                f"{format_percent(adaptive.accuracy)} %."
            )
    return sentences


def _headline(comparison: Comparison) -> str:
    return headline(*(result.robustness.suite for result in comparison.results))


# ------------------------------------------------------------------------------------------------------------- tables


def text_table(comparison: Comparison, width: int = 120) -> str:
    """
    One table for the terminal: percent correct, clean and at each eps under each attack.

    :param comparison: The comparison.
    :param width: Columns of the terminal; where the radii do not fit side by side, the table goes on below.
    :return: The table, without a newline at the end.
    """
    results = comparison.results
    first = max(len("defence"), *(len(result.defence) for result in results))
    cell = 6
    block = 2 + cell * len(_COLUMNS)
    side_by_side = max(1, (width - first - 1 - cell) // block)
    eps = comparison.eps
    parts = []
    for start in range(0, len(eps), side_by_side):
        shown = eps[start : start + side_by_side]
        head = " " * (first + 1 + cell) + "".join(f" | {'eps ' + format_eps(each):^{block - 3}}" for each in shown)
        names = f"{'defence':<{first}} {'clean':>{cell}}"
        names += "".join(" |" + "".join(f"{name:>{cell}}" for name in _COLUMNS.values()) for _ in shown)
        rule = "-" * (first + 1 + cell) + ("-+" + "-" * (block - 2)) * len(shown)
        lines = [head.rstrip(), names, rule]
        for result in results:
            record = result.robustness
            line = f"{result.defence:<{first}} {format_percent(record.clean.accuracy):>{cell}}"
            for each in shown:
                cells = (format_percent(record.get(attack, each).accuracy) for attack in _COLUMNS)
                line += " |" + "".join(f"{text:>{cell}}" for text in cells)
            lines.append(line)
        parts.append("\n".join(lines))
    objectives = sorted({str(result.robustness.get(PGD_ADAPTIVE, eps[0]).objective) for result in results})
    parts.append(
        f"percent correct of {comparison.provenance['n']} test images; own: PGD on the training loss; adapt: PGD on "
        f"the {' or '.join(objectives)};\nworst: the worst case over all attacks; {_headline(comparison)}"
    )
    return "\n\n".join(parts)


def history_table(history: Sequence[Mapping[str, Any]], most: int = 10) -> str:
    """
    :param history: One record an epoch; see :class:`.LossTrainer`.
    :param most: Rows at most, spread over the training; the last epoch is one of them.
    :return: A table for the terminal: losses and accuracies in training and on the validation images.
    """
    columns = {"epoch": "d", "stage": "", "loss": ".4f", "accuracy": ".4f", "val_loss": ".4f", "val_accuracy": ".4f"}
    shown = [name for name in columns if history[-1][name] is not None]
    stride = math.ceil(len(history) / most)
    rows = [[format(record[name], columns[name]) for name in shown] for record in history[::-1][::stride][::-1]]
    widths = [max(len(text) for text in column) for column in zip(shown, *rows, strict=True)]
    return "\n".join(
        "  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)) for row in [shown, *rows]
    )


def headline_table(comparison: Comparison) -> str:
    """
    :param comparison: The comparison.
    :return: Markdown: clean accuracy and the worst case at each eps, with intervals.
    """
    header = ["Defence", "Clean", *(f"Worst case, eps {format_eps(eps)}" for eps in comparison.eps)]
    rows = [
        [
            result.defence,
            with_interval(result.robustness.clean),
            *(with_interval(result.robustness.worst_case(eps)) for eps in comparison.eps),
        ]
        for result in comparison.results
    ]
    return markdown_rows(header, rows)


def three_numbers_table(comparison: Comparison, eps: float) -> str:
    """
    :param comparison: The comparison.
    :param eps: A radius that was measured.
    :return: Markdown: PGD on the own loss, PGD on the adaptive objective and the worst case in three columns.
    """
    rows = []
    for result in comparison.results:
        own, adaptive, worst = (result.robustness.get(name, eps) for name in (PGD_LOSS, PGD_ADAPTIVE, WORST_CASE))
        shares = [format_percent(record.accuracy) for record in (own, adaptive)]
        rows.append([result.defence, shares[0], f"{shares[1]} ({adaptive.objective})", f"**{with_interval(worst)}**"])
    return markdown_rows(["Defence", "PGD own loss", "PGD adaptive", "Worst case"], rows)


def markdown_table(comparison: Comparison) -> str:
    """
    :param comparison: The comparison.
    :return: Markdown: accuracy clean and, in one column for each eps, under each attack and in the worst case, below a
             line that says how to read it.
    """
    rows = []
    for result in comparison.results:
        record = result.robustness
        cells = [result.defence, format_percent(record.clean.accuracy)]
        for eps in comparison.eps:
            shares = [format_percent(record.get(attack, eps).accuracy) for attack in (*ATTACKS, WORST_CASE)]
            cells.append(" / ".join([*shares[:-1], f"**{shares[-1]}**"]))
        rows.append(cells)
    header = ["Defence", "Clean", *(f"eps {format_eps(eps)}" for eps in comparison.eps)]
    return (
        f"Percent correct of {comparison.provenance['n']} test images; at each eps: {' / '.join(ATTACKS)} / **worst "
        f"case**: {_headline(comparison)}.\n\n{markdown_rows(header, rows)}"
    )


def training_table(paths: Iterable[str | os.PathLike[str]]) -> str:
    """
    :param paths: The .json files of runs of `art-mmc train`.
    :return: Markdown: what was trained how, and its clean test accuracy with interval.
    """
    rows = []
    for path in paths:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        facts, clean = run["provenance"], run["clean_test_accuracy"]
        low, high = (format_percent(bound) for bound in clean["interval"])
        rows.append(
            [
                run["defence"],
                short_name(facts["dataset"]),
                run["backbone"],
                facts["recipe"]["name"],
                str(facts["recipe"]["nb_epochs"]),
                str(facts["seed"]),
                f"{format_percent(clean['accuracy'])} ({low} to {high}), n = {clean['n']}",
                f"{run['training_seconds']:.0f}",
                facts["processor"],
            ]
        )
    header = ["Defence", "Data set", "Backbone", "Recipe", "Epochs", "Seed", "Clean test accuracy, %", "Seconds", "On"]
    return markdown_rows(header, rows)


def provenance_line(comparison: Comparison) -> str:
    """
    :param comparison: The comparison.
    :return: One sentence on where its numbers come from.
    """
    facts = comparison.provenance
    seconds = sum(result.training_seconds + result.evaluation_seconds for result in comparison.results)
    return (
        f"{short_name(facts['dataset'])}, {facts['n']} of {facts['n_test']} test images; {facts['backbone']}, recipe "
        f"{facts['recipe']['name']} ({facts['recipe']['nb_epochs']} epochs), seed {facts['seed']}; PGD with "
        f"{facts['steps']} steps and one random start; {versions_text(facts['versions'])}; {facts['date'][:10]}, "
        f"{seconds:.0f} s on {facts['processor']} ({facts['device']}, {facts['threads']} threads)."
    )


# ------------------------------------------------------------------------------------------------------------- report


def markdown_report(comparison: Comparison, picture: str | None = CURVES_PNG) -> str:
    """
    The whole report.

    :param comparison: The comparison.
    :param picture: Address of the picture, relative to the report; None for no picture.
    :return: Markdown.
    """
    facts = comparison.provenance
    recipe, versions = facts["recipe"], facts["versions"]
    largest = comparison.eps[-1]
    flattering = flattery_sentences(comparison) or [
        f"No defence: under PGD on its own loss none keeps more than {FLATTERY:g} points above PGD on its adaptive "
        "objective."
    ]
    count = len(comparison.results)
    sections = [
        f"# Robustness of {count} defence{'s' if count > 1 else ''} on {short_name(facts['dataset'])}",
        "Inputs lie in [0, 1], eps is the radius of an L-inf ball, and accuracy is in percent of the same "
        f"{facts['n']} test images, an image that is misclassified when clean counting as wrong; in brackets the 95 % "
        "Wilson interval. The worst case counts an image only if it withstood every attack at this and every smaller "
        f"eps. It is {_headline(comparison)}.",
        "## Worst case",
        headline_table(comparison),
    ]
    if picture is not None:
        sections.append(f"![Accuracy over eps, worst case and PGD on the own loss]({picture})")
    sections += [
        "## Flattered by their own loss",
        f"The three numbers side by side at eps {format_eps(largest)}: PGD on the loss that the network was trained "
        "by, as in the papers; PGD on the objective that sees through the defence; the worst case over all attacks.",
        three_numbers_table(comparison, largest),
        "\n".join(f"- {sentence}" for sentence in flattering),
        "## By attack",
        markdown_table(comparison),
    ]
    steps = facts["steps"]
    step = comparison.results[0].robustness.get(PGD_ADAPTIVE, comparison.eps[0])
    sections += [
        f"FGSM and PGD are ART's, with true labels. PGD takes {steps} steps of {step.eps_step / step.eps:.3g} eps "
        "from one random start. *PGD own loss* climbs the loss that the network was trained by; FGSM and *PGD "
        f"adaptive* climb an objective that sees through the defence: {_objectives_text(comparison)}.",
        "## Defences",
        "\n".join(_citation(result) for result in comparison.results),
        "## Provenance",
        markdown_rows(
            ["What", "Value"],
            [
                ["Data set", f"{facts['dataset']}, {facts['n_train']} training images"],
                ["Test images attacked", f"{facts['n']} of {facts['n_test']}"],
                ["Backbone", str(facts["backbone"])],
                ["Recipe", _recipe_text(recipe)],
                ["Seed", str(facts["seed"])],
                ["Device", device_text(facts)],
                ["Versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
                ["Date", str(facts["date"])],
                ["Training, seconds", _seconds(comparison, "training_seconds")],
                ["Attacks, seconds", _seconds(comparison, "evaluation_seconds")],
            ],
            left=2,
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _objectives_text(comparison: Comparison) -> str:
    objectives = {
        result.defence: str(result.robustness.get(PGD_ADAPTIVE, comparison.eps[0]).objective)
        for result in comparison.results
    }
    if len(set(objectives.values())) == 1:
        return f"the {next(iter(objectives.values()))}"
    return ", ".join(f"the {objective} for {name}" for name, objective in objectives.items())


def _recipe_text(recipe: Mapping[str, Any]) -> str:
    return (
        f"{recipe['name']}: {recipe['optimizer']}, rate {recipe['rate']:g}, {recipe['nb_epochs']} epochs, batches of "
        f"{recipe['batch_size']}{', adversarial training' if recipe.get('attack') else ''}; source: {recipe['source']}"
    )


def _seconds(comparison: Comparison, name: str) -> str:
    each = ", ".join(f"{result.defence} {getattr(result, name):.1f}" for result in comparison.results)
    return f"{sum(getattr(result, name) for result in comparison.results):.1f} ({each})"


def _citation(result: DefenceResult) -> str:
    row = get_defence(result.defence)
    return f"- **{row.name}**: {row.title}, `{row.formula}`; {row.paper}, {row.link}"


# ------------------------------------------------------------------------------------------------------------ picture


def curves_figure(comparison: Comparison) -> Figure:
    """
    Accuracy over eps, one panel a defence: the worst case solid, PGD on the own loss dashed, the gap between them
    shaded; the worst cases of the other defences faint behind.

    :param comparison: The comparison.
    :return: A matplotlib figure that no global state knows.
    """
    results = comparison.results
    columns = min(len(results), {4: 2}.get(len(results), 3 if len(results) <= 9 else 4))
    rows = math.ceil(len(results) / columns)
    figure = new_figure(max(3.3 * columns, 5) + 0.4, 2.7 * rows + 1.2)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for i, panel in enumerate(panels.flat):
        if i >= len(results):
            panel.set_axis_off()
            continue
        _draw_panel(panel, comparison, i)
        if i + columns >= len(results):  # the lowest of its column
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("eps (L-inf)", fontsize=9.5, color=INK)
    _draw_legend(figure, columns=4 if columns > 2 else 2, others=len(results) > 1)
    facts = comparison.provenance
    figure.suptitle(
        f"Robust accuracy on {short_name(facts['dataset'])} ({facts['n']} test images, {facts['backbone']})",
        fontsize=13,
        fontweight="bold",
        color=INK,
    )
    figure.supylabel("accuracy, %", fontsize=9.5, color=INK)
    return figure


def _draw_legend(figure: Figure, columns: int, others: bool) -> None:
    """What solid, dashed, shaded and faint mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=INK, linewidth=2.2, marker="o", markersize=4.5, label="worst case"),
        Line2D([], [], color=INK, linewidth=1.8, linestyle=DASHES, label="PGD on its own loss"),
        Patch(facecolor=INK, alpha=0.16, label="what its own loss hides"),
        Line2D([], [], color=FAINT, linewidth=1.2, label="worst case of the others"),
    ]
    figure.legend(
        handles=handles if others else handles[:-1],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
    )


def _draw_panel(panel: Axes, comparison: Comparison, chosen: int) -> None:
    """One defence's curves over the faint ones of the others."""
    eps = [0.0, *comparison.eps]
    worst, own = (
        [_curve(result, attack, comparison.eps) for result in comparison.results] for attack in (WORST_CASE, PGD_LOSS)
    )
    colour = COLOURS[chosen % len(COLOURS)]
    for i, curve in enumerate(worst):
        if i != chosen:
            panel.plot(eps, curve, color=FAINT, linewidth=0.8, zorder=1)
    panel.fill_between(eps, worst[chosen], own[chosen], color=colour, alpha=0.16, linewidth=0, zorder=2)
    panel.plot(eps, own[chosen], color=colour, linewidth=1.8, linestyle=DASHES, zorder=3)
    panel.plot(eps, worst[chosen], color=colour, linewidth=2.2, marker="o", markersize=4.5, clip_on=False, zorder=4)
    found = flattered(comparison.results[chosen])
    note = "" if found is None else f"own loss: up to +{found[1]:.0f} points"
    panel.text(0.97, 0.93, note, transform=panel.transAxes, ha="right", va="top", fontsize=9, color=INK)
    panel.set_title(comparison.results[chosen].defence, loc="left", fontsize=11, fontweight="bold", color=INK, pad=5)
    panel.set_xlim(0, 1.03 * eps[-1])
    panel.set_ylim(0, 104)
    panel.set_xticks(eps, radius_labels(eps))
    panel.set_yticks(range(0, 101, 25))
    style_panel(panel)


def _curve(result: DefenceResult, attack: str, eps: Sequence[float]) -> list[float]:
    record = result.robustness
    return [100 * share for share in (record.clean.accuracy, *(record.get(attack, each).accuracy for each in eps))]


def curves_png(comparison: Comparison) -> bytes:
    """
    :param comparison: The comparison.
    :return: The picture of :func:`curves_figure` as a PNG file.
    """
    return figure_png(curves_figure(comparison))


# -------------------------------------------------------------------------------------------------------------- files


def write_report(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """
    Write report.md, report.json and curves.png.

    :param comparison: The comparison.
    :param folder: The folder; made if need be.
    :return: The files.
    """
    return write_files(
        folder,
        {
            REPORT_MD: markdown_report(comparison).encode(),
            REPORT_JSON: json_bytes(comparison.to_dict()),
            CURVES_PNG: curves_png(comparison),
        },
    )


def load_report(path: str | os.PathLike[str]) -> Comparison:
    """
    :param path: A report.json.
    :return: The comparison in it.
    :raises ValueError: When the file holds something else.
    """
    data = read_document(path)
    if data["format"] != "art_mmc.comparison":
        raise ValueError(f"{path} is no report of art_mmc compare, but of kind '{data['format']}'.")
    return Comparison.from_dict(data)
