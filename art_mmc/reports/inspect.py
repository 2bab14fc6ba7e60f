"""
The report on inspected networks: the page from the document that report.json holds, the pictures from the arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from art_mmc.data import Dataset
from art_mmc.reports.figures import inspect as pictures
from art_mmc.reports.figures.style import figure_png
from art_mmc.reports.render import page
from art_mmc.reports.tables import between, format_eps, format_percent, markdown_rows, table
from art_mmc.reports.write import load, report, write_files
from art_mmc.studies.inspect import KNN, SHELL, TEST, TRAIN, Inspection
from art_mmc.studies.setup import machine

FORMAT = "art_mmc.inspection"


def _figures(inspections: Sequence[Inspection]) -> dict[str, bytes]:
    """Name of each picture -> the PNG file."""
    named = {each.name: each for each in inspections}
    histories = {name: each.history for name, each in named.items() if each.history}
    k, dim = inspections[0].k, inspections[0].knn_dim
    titles = {KNN: f"{k} nearest neighbours in {dim} dimensions", SHELL: "Contour shells, all dimensions"}
    density = {
        name: {
            title: {part: np.stack([each.loss[part], values]) for part, values in each.density[kind].items()}
            for kind, title in titles.items()
        }
        for name, each in named.items()
    }
    figures = {
        "density.png": pictures.density_figure(density),
        "density-loss.png": pictures.loss_density_figure(
            {name: sets[titles[KNN]] for name, sets in density.items()}, f"log density ({k} neighbours)"
        ),
        "boundary.png": pictures.boundary_figure(
            {name: {part: d / each.scale for part, d in each.distances.items()} for name, each in named.items()},
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
    return {name: figure_png(figure) for name, figure in figures.items()}


def _number(value: float) -> str:
    return f"{value:.4g}"


def _clean(each: Mapping[str, Any]) -> str:
    found = each["clean_accuracy"]
    return f"{between(found['accuracy'], found['interval'])}, n = {each['n_test']}"


def networks_table(networks: Sequence[Mapping[str, Any]], **style: Any) -> str:
    """What was inspected, one row a network."""
    return table(
        networks,
        [
            ("Network", lambda each: each["name"]),
            ("Defence", lambda each: each["defence"] or ""),
            ("Width of the features", lambda each: str(each["feature_width"])),
            ("Clean test accuracy, % (95 % Wilson)", _clean),
        ],
        left=2,
        **style,
    )


def _density_table(networks: Sequence[Mapping[str, Any]]) -> str:
    header = ["Network", "Shells around", "Compactness, train", "test"]
    for kind in ("Neighbours", "Shells"):
        header += [f"{kind}, median, train", "test", "trend, train", "test"]
    rows = []
    for each in networks:
        row = [each["name"], each["shell_centers"], *(_number(each["compactness_ratio"][p]) for p in (TRAIN, TEST))]
        for kind in (KNN, SHELL):
            sets = [each["log_density"][kind][part] for part in (TRAIN, TEST)]
            trends = [found["correlation_with_loss"] for found in sets]
            row += [f"{found['median']:.2f}" for found in sets]
            row += ["" if trend is None else f"{trend:.2f}" for trend in trends]
        rows.append(row)
    return markdown_rows(header, rows, left=2)


def _boundaries_table(networks: Sequence[Mapping[str, Any]]) -> str:
    header = ["Network", "Means", "Covariance", "RB", "Half distance", "Limit", "Measured, train", "test"]
    rows = []
    for each in networks:
        for found in each["robustness_measure"]:
            numbers = [
                found["rb"],
                found["approximation"],
                found["limit"],
                *(found["measured"][p] for p in (TRAIN, TEST)),
            ]
            rows.append([each["name"], found["means"], found["covariance"], *map(_number, numbers)])
    return markdown_rows(header, rows, left=3)


def _distances_table(networks: Sequence[Mapping[str, Any]]) -> str:
    parts = list(networks[0]["nearest_boundary"])
    rows = []
    for each in networks:
        found = [each["nearest_boundary"][part] for part in parts]
        medians = [_number(part["median"] / each["feature_scale"]) for part in found]
        rows.append([each["name"], *medians, *(format_percent(part["share_on_wrong_side"]) for part in found)])
    return markdown_rows(["Network", *(f"{p}: median" for p in parts), *(f"{p}: wrong, %" for p in parts)], rows)


def _gaps_table(networks: Sequence[Mapping[str, Any]]) -> str:
    words = {"mean": "mean", "median": "median", "5th percentile": "q05"}
    parts = list(networks[0]["probability_gap"])
    gaps = [[each["probability_gap"][part][key] for part in parts for key in words.values()] for each in networks]
    rows = [[each["name"], *(f"{gap:.3f}" for gap in found)] for each, found in zip(networks, gaps, strict=True)]
    return markdown_rows(["Network", *(f"{part}: {word}" for part in parts for word in words)], rows)


def _ranks_table(networks: Sequence[Mapping[str, Any]]) -> str:
    header = ["Network", "Attack", "eps", "Newly fooled", "Runner-up, %", "Rank 2, %", "Rank 3, %", "Below, %"]
    rows = []
    for each in networks:
        for attack, found in each["ranks"]["attacks"].items():
            for eps, counts in zip(each["ranks"]["eps"], found["newly_fooled_by_rank"], strict=True):
                n = sum(counts)
                groups = [*counts[:3], sum(counts[3:])] + [0] * max(0, 3 - len(counts))
                shares = [format_percent(count / n) if n else "" for count in groups]
                rows.append([each["name"], attack, format_eps(eps), str(n), *shares])
    return markdown_rows(header, rows, left=2)


def inspection_report(document: Mapping[str, Any], files: Iterable[str] = ()) -> str:
    """The whole report in Markdown, of what report.json holds; `files` are the names of the pictures beside it."""
    networks, files = document["inspections"], set(files)
    return page(
        "inspect",
        facts=document["provenance"],
        networks=networks,
        first=networks[0],
        files=files,
        features=any(f"features-{each['name']}.png" in files for each in networks),
        objectives=sorted({each["ranks"]["objective"] for each in networks}),
        tables={
            "networks": networks_table(networks),
            "density": _density_table(networks),
            "boundaries": _boundaries_table(networks),
            "distances": _distances_table(networks),
            "gaps": _gaps_table(networks),
            "ranks": _ranks_table(networks),
        },
    )


class Inspected(NamedTuple):
    """
    A report on inspected networks as it was read: the document, and the pictures beside it, which can't be made again
    without the networks.
    """

    document: dict[str, Any]
    pictures: dict[str, bytes]


def load_inspection(path: str | os.PathLike[str]) -> Inspected:
    """A report.json of `art-mmc inspect`, see :func:`.load`, and the pictures that lie beside it."""
    document = load(path, FORMAT, "inspect", lambda data: data)
    return Inspected(document, {each.name: each.read_bytes() for each in sorted(Path(path).parent.glob("*.png"))})


def inspection_text(inspected: Inspected) -> str:
    """For the terminal: the networks."""
    return networks_table(inspected.document["inspections"], style="text")


def write_inspected(inspected: Inspected, folder: str | os.PathLike[str]) -> list[Path]:
    """Write report.md, report.json and the pictures to a folder, made if need be; return the files."""
    return write_files(folder, report(inspection_report(*inspected), *inspected))


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
    document = {
        "format": FORMAT,
        "version": 1,
        "provenance": {"dataset": dataset.name, "seed": seed, "sources": dict(sources or {}), **machine(device)},
        "inspections": [each.to_dict() for each in inspections],
    }
    return write_inspected(Inspected(document, _figures(inspections)), folder)
