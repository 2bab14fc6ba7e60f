"""
The report on inspected networks: words, tables, pictures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from art_mmc.data import Dataset
from art_mmc.evaluation import wilson_interval
from art_mmc.reports import format_eps, format_percent, write_files
from art_mmc.reports.figures import inspect as pictures
from art_mmc.studies.inspect import KNN, SHELL, TEST, TRAIN, Inspection
from art_mmc.studies.setup import machine

#: names of the files of a report
REPORT_MD, REPORT_JSON = "report.md", "report.json"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    lines = [header, [*["---"] * text_columns, *["---:"] * (len(header) - text_columns)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _figures(inspections: Sequence[Inspection]) -> dict[str, bytes]:
    """Name of each picture -> the PNG file."""
    named = {each.name: each for each in inspections}
    histories = {name: each.history for name, each in named.items() if each.history}
    kinds = (KNN, SHELL)
    k, dim = inspections[0].k, inspections[0].knn_dim
    titles = {
        KNN: f"{k} nearest neighbours in {dim} dimensions",
        SHELL: "Contour shells, all dimensions",
    }
    figures = {
        "density.png": pictures.density_figure(
            {
                name: {
                    titles[kind]: {p: np.stack([each.loss[p], v]) for p, v in each.density[kind].items()}
                    for kind in kinds
                }
                for name, each in named.items()
            }
        ),
        "density-loss.png": pictures.loss_density_figure(
            {
                name: {p: np.stack([each.loss[p], v]) for p, v in each.density[KNN].items()}
                for name, each in named.items()
            },
            f"log density ({k} neighbours)",
        ),
        "boundary.png": pictures.boundary_figure(
            {name: {p: d / each.scale for p, d in each.distances.items()} for name, each in named.items()},
            {n: e.distance_limit / e.scale for n, e in named.items() if e.distance_limit is not None},
            "distance / distance of class means",
        ),
        "gap.png": pictures.gap_figure({name: each.gaps for name, each in named.items()}),
        "ranks.png": pictures.rank_figure({name: each.ranks for name, each in named.items()}),
    }
    if histories:
        figures["convergence.png"] = pictures.convergence_figure(histories)
    for name, each in named.items():
        if each.maps:
            figures[f"features-{name}.png"] = pictures.feature_figure(each.maps, f"Features of {name}", each.eps)
    return {name: pictures.figure_png(figure) for name, figure in figures.items()}


def markdown_report(inspections: Sequence[Inspection], provenance: Mapping[str, Any], files: Sequence[str] = ()) -> str:
    """
    The report in words and tables.

    :param inspections: At least one.
    :param provenance: Where the numbers come from; see :func:`write_inspection`.
    :param files: Names of the pictures that lie beside it.
    :return: Markdown.
    """
    first = inspections[0]
    sections = [
        f"# Inside {len(inspections)} network{'s' if len(inspections) > 1 else ''} on {provenance['dataset']}",
        "What the papers explain their losses by, measured. None of it says how robust a network is: that takes "
        "attacks (`art-mmc compare`).",
        _table(
            ["Network", "Defence", "Width of the features", "Clean test accuracy, % (95 % Wilson)"],
            [[i.name, i.defence or "", str(i.dim), _accuracy(i)] for i in inspections],
            text_columns=2,
        ),
    ]

    def picture(name: str, words: str) -> None:
        if name in files:
            sections.append(f"![{words}]({quote(name)})")

    if "convergence.png" in files:
        sections.append("## Convergence")
        picture("convergence.png", "Loss and accuracy over the epochs")
        sections.append(
            "Each loss is another function, so it is drawn as its share of its own range, from its highest to its "
            "lowest epoch; a training in two stages has two. The numbers are in report.json."
        )
    sections += [
        "## Sample density",
        f"Log density (natural) of the {first.nb_train} training features around each feature of its class, the "
        "features divided by the mean distance of two class means. "
        f"*Neighbours*: the {first.k} nearest, in the {first.knn_dim} leading components of the variation within "
        "classes. *Shells*: between contours of the squared distance to the class center, in all dimensions, so "
        "that only networks of one width compare; the exponent is the derived (d - 2) / 2. *Compactness* is the mean "
        "squared distance to the class mean over that between class means: smaller is denser. *Trend* is the rank "
        "correlation of density and training loss: -1 where a lower loss always means a higher density, as MMC claims "
        "for its own. Images that the training held out are among the training images here.",
        _table(
            [
                "Network", "Shells around", "Compactness, train", "test", "Neighbours, median, train", "test",
                "trend, train", "test", "Shells, median, train", "test", "trend, train", "test",
            ],
            [_density_row(i) for i in inspections],
            text_columns=2,
        ),
    ]  # fmt: skip
    picture("density.png", "Log density over the quantile of the loss")
    picture("density-loss.png", "Log density against the training loss")
    sections += [
        "## Distance to the boundaries",
        "The robustness measure of the MMLDA paper: RB is the smallest, over pairs of classes, of the expected "
        "distance to their boundary, by theory for Gaussian classes of one covariance. It is about half the smallest "
        "distance of two means, which can't be above the limit for means of this norm, and reaches it for "
        "Max-Mahalanobis centers only. Measured is the same quantity on the network's features. With the identity as "
        "covariance, distances are in the unit of the features; with the measured one (shrunk after Ledoit and Wolf) "
        "they are Mahalanobis distances, large where the classes are compact, and the training features, whose means "
        "they are, agree with the theory by construction unless the classes overlap: look at the test features.",
        _table(
            ["Network", "Means", "Covariance", "RB", "Half distance", "Limit", "Measured, train", "test"],
            [
                [i.name, m.means, m.covariance, *map(_number, (m.rb, m.approximation, m.limit)),
                 *(_number(m.measured[part]) for part in (TRAIN, TEST))]
                for i in inspections for m in i.boundaries
            ],
            text_columns=3,
        ),
    ]  # fmt: skip
    picture("boundary.png", "Distances to the nearest boundary")
    sections += [
        f"Nearest boundary of each feature in units of the distance of class means; adversarial: PGD on the "
        f"classifier's objective, eps {format_eps(first.eps)}, {first.ranks.steps} steps.",
        _table(
            ["Network", *(f"{part}: median" for part in first.distances), *(f"{p}: wrong, %" for p in first.distances)],
            [
                [i.name, *(_number(float(np.median(d)) / i.scale) for d in i.distances.values()),
                 *(format_percent(float((d < 0).mean())) for d in i.distances.values())]
                for i in inspections
            ],
        ),
        "## Probability gap",
        "Softmax probability of the true class minus that of the likeliest false one, which the PC loss widens. For "
        "heads with centers the softmax depends on the head's temperature.",
        _table(
            ["Network", *(f"{part}: {word}" for part in first.gaps for word in ("mean", "median", "5th percentile"))],
            [
                [i.name, *(f"{value:.3f}" for gap in i.gaps.values()
                           for value in (gap.mean(), np.median(gap), np.quantile(gap, 0.05)))]
                for i in inspections
            ],
        ),
    ]  # fmt: skip
    picture("gap.png", "Probability gaps")
    sections += [
        "## Where attacks land",
        "Of the test images that an attack fools at an eps and at no smaller one, the share that it turns into the "
        "runner-up of the clean prediction, into the next one, and so on. Both attacks push away from the true class "
        f"({', '.join(sorted({i.ranks.objective for i in inspections})).replace('_', ' ')}) and aim at no other.",
        _table(
            ["Network", "Attack", "eps", "Newly fooled", "Runner-up, %", "Rank 2, %", "Rank 3, %", "Below, %"],
            [row for i in inspections for row in _rank_rows(i)],
            text_columns=2,
        ),
    ]
    picture("ranks.png", "Ranks that newly successful attacks land on")
    if any(each.maps for each in inspections):
        sections += [
            "## Features in the plane",
            f"Test images, clean and under PGD at eps {format_eps(first.eps)}; colours are true classes. Principal "
            "components project everything by the axes of the clean points; t-SNE embeds points and centers together, "
            "and only neighbourhoods mean something there.",
        ]
        for each in inspections:
            picture(f"features-{each.name}.png", f"Features of {each.name}")
    versions = provenance["versions"]
    sections += [
        "## Provenance",
        _table(
            ["What", "Value"],
            [
                ["Data set", str(provenance["dataset"])],
                ["Images", f"{first.nb_train} training, {first.nb_test} test"],
                *([f"{name}", source] for name, source in provenance["sources"].items()),
                ["Seed", str(provenance["seed"])],
                ["Device", f"{provenance['device']} ({provenance['processor']}), {provenance['threads']} threads"],
                ["Versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
                ["Date", str(provenance["date"])],
            ],
            text_columns=2,
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _accuracy(each: Inspection) -> str:
    correct = int(each.correct.sum())
    low, high = (format_percent(bound) for bound in wilson_interval(correct, each.nb_test))
    return f"{format_percent(correct / each.nb_test)} ({low} to {high}), n = {each.nb_test}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _density_row(each: Inspection) -> list[str]:
    row = [each.name, each.shell_centers, *(_number(each.compactness[part]) for part in (TRAIN, TEST))]
    for kind in (KNN, SHELL):
        row += [f"{np.median(each.density[kind][part]):.2f}" for part in (TRAIN, TEST)]
        trends = (each.density_trend(kind, part) for part in (TRAIN, TEST))
        row += ["" if trend is None else f"{trend:.2f}" for trend in trends]
    return row


def _rank_rows(each: Inspection) -> list[list[str]]:
    rows = []
    for attack in each.ranks.attacks:
        for eps, counts in zip(each.ranks.eps, each.ranks.counts(attack), strict=True):
            n = int(counts.sum())
            groups = [*counts[:3], counts[3:].sum()] + [0] * max(0, 3 - len(counts))
            shares = [format_percent(int(count) / n) if n else "" for count in groups]
            rows.append([each.name, attack, format_eps(eps), str(n), *shares])
    return rows


def write_inspection(
    inspections: Sequence[Inspection],
    folder: str | os.PathLike[str],
    dataset: Dataset,
    device: Any,
    seed: int = 0,
    sources: Mapping[str, str] | None = None,
) -> list[Path]:
    """
    Write report.md, report.json and the pictures.

    :param inspections: At least one, of different names and on the same data.
    :param folder: The folder; made if need be.
    :param dataset: The data set.
    :param device: The `torch.device` of the measurements.
    :param seed: Their seed.
    :param sources: Name of each network -> where it comes from, a file say.
    :return: The files.
    :raises ValueError: For no inspection, two of one name, or measurements by different settings.
    """
    names = [each.name for each in inspections]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"inspections: expected at least one, with different names, got {names}.")
    for what in ("nb_train", "nb_test", "k", "knn_dim", "eps"):
        values = [getattr(each, what) for each in inspections]
        if len(set(values)) > 1:
            raise ValueError(f"{', '.join(names)} were measured with different {what} ({values}): they do not compare.")
    provenance = {
        "dataset": dataset.name,
        "seed": seed,
        "sources": dict(sources or {}),
        **machine(device),
    }
    figures = _figures(inspections)
    document = {
        "format": "art_mmc.inspection",
        "version": 1,
        "provenance": provenance,
        "inspections": [each.to_dict() for each in inspections],
    }
    return write_files(
        folder,
        {
            REPORT_MD: markdown_report(inspections, provenance, list(figures)).encode(),
            REPORT_JSON: (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(),
            **figures,
        },
    )
