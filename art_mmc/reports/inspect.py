"""
The report on inspected networks: the page from the document that report.json holds, the pictures from the arrays.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from art_mmc.data import Dataset
from art_mmc.reports.figures import inspect as pictures
from art_mmc.reports.figures.style import figure_png
from art_mmc.reports.render import page
from art_mmc.reports.tables import between, table
from art_mmc.reports.write import load, report, write_files
from art_mmc.studies.inspect import KNN, SHELL, Inspection
from art_mmc.studies.setup import machine

FORMAT = "art_mmc.inspection"


def _figures(inspections: Sequence[Inspection]) -> dict[str, bytes]:
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


def networks_table(networks: Sequence[Mapping[str, Any]], **style: Any) -> str:
    """What was inspected, one row a network."""

    def clean(each: Mapping[str, Any]) -> str:
        found = each["clean_accuracy"]
        return f"{between(found['accuracy'], found['interval'])}, n = {each['n_test']}"

    return table(
        networks,
        [
            ("Network", lambda each: each["name"]),
            ("Defence", lambda each: each["defence"] or ""),
            ("Width of the features", lambda each: str(each["feature_width"])),
            ("Clean test accuracy, % (95 % Wilson)", clean),
        ],
        left=2,
        **style,
    )


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
        table=networks_table(networks),
    )


class Inspected(NamedTuple):
    """A report as it was read: the document, and the pictures, which can't be made again without the networks."""

    document: dict[str, Any]
    pictures: dict[str, bytes]


def load_inspection(path: str | os.PathLike[str]) -> Inspected:
    """A report.json of `art-mmc inspect`, see :func:`.load`, and the pictures that lie beside it."""
    document = load(path, FORMAT, "inspect", lambda data: data)
    return Inspected(document, {each.name: each.read_bytes() for each in sorted(Path(path).parent.glob("*.png"))})


def inspection_text(inspected: Inspected) -> str:
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
