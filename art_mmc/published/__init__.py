"""
Published figures, to stand beside measured ones: what the papers' tables say, with their citation. One JSON file a
table; each figure says where it was read, and whether it was verified there.

None of them is ours, and none is a statement about how robust a network is: see the notes of each table.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from art_mmc.checks import check_name, fraction
from art_mmc.defences import DEFENCES

#: attack of the row without an attack, and units
CLEAN = "clean"
ACCURACY, DISTANCE, SHARE, ERROR, SECONDS = "accuracy, %", "mean L2 distance", "ratio", "error, %", "seconds"
AUC, DISTORTION = "AUC x 100", "RMS distortion x 255"

#: what follows a figure that was not verified, and what a report says of it
UNVERIFIED = "*"
UNVERIFIED_NOTE = "Figures with a star (*) are quoted from memory and could not be verified against the paper."


@dataclass(frozen=True)
class Cell:
    """One published figure."""

    dataset: str  # as :func:`.load_dataset` takes it
    method: str  # the row, a key of :attr:`PublishedTable.methods`
    attack: str  # as the suite of the same name calls it, or "clean"
    eps: float | None  # radius, inputs being in [0, 1]; None without a ball
    value: float  # the figure
    text: str  # as printed, e.g. "<=1" or "53.94+-.10"
    unit: str = ACCURACY  # what it counts
    source: str = ""  # where it was read
    verified: bool = True  # whether it was read there, and not quoted from memory

    @property
    def shown(self) -> str:
        """The figure as printed, with a star where it was not verified."""
        return self.text if self.verified else self.text + UNVERIFIED


@dataclass(frozen=True)
class Method:
    """A row of a published table, and how it is trained here."""

    key: str  # short name, for the command line
    label: str  # name in the paper
    defence: str | None = None  # None where the package does not train it
    recipe: str | Mapping[str, str] | None = None  # see :func:`.get_recipe`; or data set -> recipe, "" for all others
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # of the defence
    backbone: str | Mapping[str, str] | None = None  # or data set -> name; None for the recipe's

    def recipe_for(self, dataset: str) -> str | None:
        """Name of the recipe for a data set, or its first part; None where the package does not train it."""
        return self.recipe.get(dataset, self.recipe[""]) if isinstance(self.recipe, Mapping) else self.recipe

    def backbone_for(self, dataset: str) -> str | None:
        """Name of the backbone for a data set; None for the recipe's."""
        return self.backbone.get(dataset) if isinstance(self.backbone, Mapping) else self.backbone


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper."""

    name: str  # that of the suite with its attacks if there is one
    title: str  # what it shows
    authors: str  # and paper
    venue: str  # and year
    number: str  # which table of the paper it is
    link: str  # address of the paper
    methods: tuple[Method, ...]  # its rows
    cells: tuple[Cell, ...]  # its figures
    suite: str | None = None  # what measures ours; None where it is no table of robust accuracies
    notes: tuple[str, ...] = ()  # what a reader must know to compare
    detection: Sequence[str] = ()  # of a table of detectors the attacks, as `art-mmc detect` calls them
    parts: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # attacks that are several of ours, the worst counts
    substitutes: Mapping[str, str] = field(default_factory=dict)  # of a black-box table, by the number of channels

    @property
    def datasets(self) -> tuple[str, ...]:
        """Its data sets, in the order of the table."""
        return tuple(dict.fromkeys(cell.dataset for cell in self.cells))

    @property
    def source(self) -> str:
        """Where the figures were read."""
        return "; ".join(dict.fromkeys(cell.source for cell in self.cells))

    @property
    def citation(self) -> str:
        """Authors, venue, table and address."""
        return f"{self.authors}, {self.venue}, {self.number}, {self.link}"

    def method(self, key: str) -> Method:
        """The row of a short name, or, for a table with a suite, a defence that it lacks, trained as the others are."""
        rows, like = {each.key: each for each in self.methods}, self.baseline
        for name, row in DEFENCES.items() if self.suite is not None else ():
            rows.setdefault(
                name, Method(name, f"{row.title}, not in the table", name, like.recipe, backbone=like.backbone)
            )
        return rows[check_name(f"method of {self.name}", key, rows)]

    @property
    def baseline(self) -> Method:
        """The first row that trains a defence as it is."""
        return next((each for each in self.methods if each.key in DEFENCES), self.methods[0])

    def select(self, dataset: str, method: str | None = None) -> list[Cell]:
        """The figures of a data set, and of the row of that short name or of all, in the order of the table."""
        return [each for each in self.cells if each.dataset == dataset and method in (None, each.method)]

    def columns(self, dataset: str, method: str) -> list[Cell]:
        """The same for a row; for one that the table lacks, the columns of the baseline without a figure."""
        if method in {each.key for each in self.methods}:
            return self.select(dataset, method)
        like = self.select(dataset, self.baseline.key)
        return [replace(each, method=method, value=math.nan, text="", source="", verified=True) for each in like]


def _read(text: str) -> PublishedTable:
    data = json.loads(text)
    columns, sources = data.pop("columns"), data.pop("sources")
    cells = []
    for values in data.pop("cells"):
        cell = dict(zip(columns, values, strict=True))
        if isinstance(cell["eps"], str):  # "8/255"
            cell["eps"] = fraction(cell["eps"])
        # the figure in what is printed: the bound of "<=1", the mean of "53.94+-.10"
        value = float(cell["text"].removeprefix("<=").removeprefix("about ").partition("+-")[0])
        cells.append(Cell(**{**cell, "value": value, "source": sources[cell["source"]]}))
    methods = tuple(Method(**each) for each in data.pop("methods"))
    return PublishedTable(**{**data, "notes": tuple(data["notes"])}, methods=methods, cells=tuple(cells))


_FILES = sorted((file for file in files(__name__).iterdir() if file.name.endswith(".json")), key=lambda file: file.name)

#: name -> table
PUBLISHED: dict[str, PublishedTable] = {
    table.name: table for table in (_read(file.read_text("utf-8")) for file in _FILES)
}


def get_published(name: str) -> PublishedTable:
    """The table of a name; ValueError for an unknown one, with the nearest known one."""
    return PUBLISHED[check_name("table", name, PUBLISHED)]
