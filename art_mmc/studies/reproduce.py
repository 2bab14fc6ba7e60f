"""
A paper's table once more: train its networks, or take trained ones, attack them by its protocol, and put the figures
beside the published ones, with the worst case that the paper lacks. What `art-mmc reproduce` runs.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.classifiers.checkpoint import describe
from art_mmc.data import Dataset
from art_mmc.defences import get_defence
from art_mmc.distributed import in_main_process
from art_mmc.evaluation import AttackRecord, RobustnessEvaluation, RobustnessRecord, get_suite
from art_mmc.evaluation.codec import Record, encode
from art_mmc.evaluation.records import Share, reading
from art_mmc.evaluation.robustness import identity
from art_mmc.pretrained import find_network
from art_mmc.published import CLEAN, DISTANCE, Cell, Method, PublishedTable, get_published
from art_mmc.studies import setup
from art_mmc.studies.detect import DetectionStudy, run_detection_study, settled
from art_mmc.studies.evaluate import assess
from art_mmc.studies.history import beside
from art_mmc.studies.settings import Detect, Reproduce
from art_mmc.studies.train import is_summary
from art_mmc.trainers import RECIPES, Recipe, get_recipe


@dataclass(frozen=True, eq=False)
class Reproduced(Record):
    """A row, ours: whence its network, seconds of its training, what the attacks left, and those of a second suite."""

    method: str
    source: str
    training_seconds: float | None
    record: RobustnessRecord
    second: RobustnessRecord | None = None

    @cached_property
    def whole(self) -> RobustnessRecord:
        """What all attacks left, with the verdict of the second suite, if there was one."""
        if self.second is None:
            return self.record
        return replace(self.second, attacks=(*self.record.attacks, *self.second.attacks))


@dataclass(frozen=True, eq=False)
class Reproduction(Record):
    """A table, or a part of it, reproduced, and the conditions, plain data."""

    FORMAT = "art_mmc.reproduction"

    table: str
    dataset: str
    provenance: dict[str, Any]
    results: tuple[Reproduced, ...]


@dataclass(frozen=True)
class Ours:
    """A figure in the published one's unit; its 95 % interval is Wilson's for a share, the normal one for a mean."""

    value: float
    interval: tuple[float, float]
    n: int
    seconds: float


@dataclass(frozen=True, eq=False)
class PaperRow:
    """A published figure; ours, None where it was not run; and our worst case at its radius, or at the largest."""

    method: Method
    cell: Cell
    ours: Ours | None
    worst: AttackRecord


def paper_rows(reproduction: Reproduction) -> list[PaperRow]:
    """Every published figure of the rows that were reproduced but for the radii that were left out by choice."""
    table = get_published(reproduction.table)
    usual = get_suite(str(table.suite)).eps_for(reproduction.dataset) or ()
    omitted = [eps for eps in usual if not any(_same(eps, each) for each in reproduction.provenance["eps"])]
    return [
        PaperRow(table.method(each.method), cell, ours_of(each.record, cell, table.parts), _worst(each.whole, cell))
        for each in reproduction.results
        for cell in table.columns(reproduction.dataset, each.method)
        if cell.eps is None or not any(_same(eps, cell.eps) for eps in omitted)
    ]


def _same(measured: float, published: float) -> bool:
    """Whether two radii are the same, if need be up to the paper's 256 for 255."""
    return any(math.isclose(measured, each, rel_tol=1e-6) for each in (published, published * 255 / 256))


def _worst(record: RobustnessRecord, cell: Cell) -> AttackRecord:
    at = [eps for eps in record.eps if cell.eps is not None and _same(eps, cell.eps)]
    return record.worst_case(at[-1] if at else record.eps[-1])


def ours_of(
    record: RobustnessRecord, cell: Cell, parts: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Ours | None:
    """Ours for the same attack, or all of its parts, at the same radius; None if it did not run."""
    if cell.attack == CLEAN:
        return _share(record.clean.standing, record.clean.seconds)
    wanted = parts.get(cell.attack, (cell.attack,))
    found = [
        each
        for each in record.attacks
        if each.attack in wanted and (cell.eps is None or not each.bounded or _same(each.eps, cell.eps))
    ]
    if {each.attack for each in found} != set(wanted):
        return None
    views = [reading(record.clean, each) for each in found]
    seconds = sum(each.seconds for each in found)
    if cell.unit == DISTANCE:
        lengths = np.nan_to_num(np.asarray(found[0].distances)[np.asarray(found[0].attacked)])
        if not len(lengths):
            return None
        mean, spread = float(lengths.mean()), 1.96 * float(lengths.std()) / math.sqrt(len(lengths))
        return Ours(mean, (mean - spread, mean + spread), len(lengths), seconds)
    part = np.logical_and.reduce([view.part for view in views])
    standing = np.logical_and.reduce([each.standing for each in found])[part]
    return _share(standing, seconds) if len(standing) else None


def _share(standing: np.ndarray, seconds: float) -> Ours:
    share = Share(int(standing.sum()), len(standing))
    low, high = share.interval
    return Ours(100 * share.value, (100 * low, 100 * high), share.n, seconds)


def method_recipe(method: Method, dataset: str, budget: float = 1.0, small: bool = False) -> Recipe:
    """A row's recipe, or its twin's, by a share of the paper's epochs; ValueError for one that is not trained here."""
    name = method.recipe_for(dataset)
    if method.defence is None or name is None:
        raise ValueError(f"{method.label} is not trained here: give a network by --checkpoint {method.key}=FILE")
    if not 0 < budget < math.inf:
        raise ValueError(f"budget: expected a positive number, got {budget!r}.")
    recipe = get_recipe(name, dataset)
    recipe = get_recipe(f"{recipe.name}-small") if small else recipe
    return recipe.scaled(max(1, round(recipe.nb_epochs * budget)))


def check_reproduction(
    table: PublishedTable,
    dataset: Dataset,
    methods: Sequence[str] | None = None,
    given: Collection[str] = (),
    budget: float = 1.0,
    small: bool = False,
) -> list[Method]:
    """Which rows: by default all with figures that can be trained or are given; ValueError for what does not fit."""
    with_figures = {cell.method for cell in table.select(dataset.name)}
    more = [row for row in map(table.method, given) if row not in table.methods]
    if methods is None:
        possible = (each for each in table.methods if each.key in given or each.defence is not None)
        rows = [*(each for each in possible if each.key in with_figures), *more]
    else:
        rows = [table.method(key) for key in methods]
    if not rows:
        raise ValueError(f"no row of {table.name} is chosen: expected some of {', '.join(sorted(with_figures))}.")
    unused = [key for key in given if key not in {each.key for each in rows}]
    if unused:
        raise ValueError(f"a checkpoint for {unused[0]}, which is not among the chosen rows.")
    for each in rows:
        if each.key not in with_figures and each in table.methods:
            raise ValueError(f"{table.name} has no figures of '{each.key}' on {dataset.name}.")
        if each.key not in given:
            recipe = method_recipe(each, dataset.name, budget, small)
            setup.build_classifier(
                str(each.defence), dataset, _backbone(each, recipe, dataset.name, small), **each.options
            )
    return rows


def _backbone(method: Method, recipe: Recipe, dataset: str, small: bool) -> str:
    return recipe.backbone if small else method.backbone_for(dataset) or recipe.backbone


def prepare(settings: Reproduce, device_type: str = "cpu") -> setup.Job:
    """Train or take a table's networks, attack them: a :class:`Reproduction`, or of detectors a detection study."""
    table = get_published(settings.table)
    if table.suite is None and not table.detection:
        raise ValueError(f"{table.name} has nothing that could be attacked")
    if table.suite is not None and settings.attack_share is not None:
        raise ValueError("--attack-share is for tables of detectors; the suites have the papers' iterations")
    for option, value in (("--eps", settings.eps), ("--quirk", settings.quirk), ("--worst-case", settings.second)):
        if table.suite is None and value:
            raise ValueError(f"{option} is no option of a table of detectors; see art-mmc detect")
    file = settings.dataset if str(settings.dataset).lower().endswith(".npz") else None
    name = Path(file).stem if file else settings.dataset or table.datasets[0]
    if name not in table.datasets:
        raise ValueError(f"--dataset: {table.name} has figures for {', '.join(table.datasets)}, not for '{name}'")
    files = _files(settings.checkpoint or [])
    if settings.second is not None:
        get_suite(settings.second)
    dataset = setup.load_data(settings, file or name)
    if file:  # the table's data set in a file of the user's
        dataset = replace(dataset, name=name)
    loaded = {key: setup.load_network(file, dataset, None, device_type) for key, file in files.items()}
    for key, (classifier, _) in loaded.items():
        setup.check_range(classifier, files[key])
    rows = check_reproduction(table, dataset, settings.defence, files, settings.epoch_share, settings.small)
    for row in rows:
        if row.key in loaded:
            _check_network(row, loaded[row.key][0], files[row.key])
    networks = _Networks(
        settings,
        device_type,
        dataset,
        Path(settings.output or f"runs/reproduce-{table.name}-{name}").expanduser(),
        {key: (loaded[key], file) for key, file in files.items()},
    )
    return _of_detectors(table, rows, networks) if table.suite is None else _of_accuracies(table, rows, networks)


def _files(given: Sequence[str]) -> dict[str, Path]:
    """Row -> file, from NAME=FILE."""
    files = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ValueError(f"--checkpoint: expected NAME=FILE, got '{text}'")
        files[name] = find_network(path)
    return files


def _check_network(row: Method, classifier: PyTorchClassifier, file: Path) -> None:
    """ValueError for a network of the package's that is of another defence than the row, or lacks the row's options."""
    if row.defence is not None and isinstance(classifier, LossDefendedClassifier):
        own = {"defence": classifier.defence, **describe(classifier)["options"]}
        for name, value in {"defence": row.defence, **row.options}.items():
            if own.get(name) != value:
                raise ValueError(
                    f"--checkpoint {row.key}={file}: {row.label} has {name} '{value}', the network '{own.get(name)}'"
                )


@dataclass(frozen=True, eq=False)
class _Networks:
    """The networks of a table: trained, kept in the folder, or given."""

    settings: Reproduce
    device_type: str
    dataset: Dataset
    folder: Path
    #: row -> ((classifier, what the file was), the file)
    given: Mapping[str, tuple[tuple[PyTorchClassifier, str], Path]]

    def get(self, row: Method) -> tuple[PyTorchClassifier, str, float | None, dict[str, Any]]:
        """A row's network; whence it came, in words; seconds of its training, None for a given one; and plain data."""
        if row.key in self.given:
            (classifier, kind), file = self.given[row.key]
            told = _told(file, classifier, row, self.dataset.name)
            return classifier, f"{told}{kind} {file.name}", None, {"checkpoint": file.name}
        trained = self.train(row)
        return trained.classifier, _in_words(trained, self.dataset), trained.seconds, trained.source

    def train(self, row: Method, substitute: str | None = None) -> setup.TrainedDefence:
        """A row's network, or of its recipe one with another backbone, from another seed."""
        settings, key = self.settings, "substitute" if substitute else row.key
        recipe = method_recipe(row, self.dataset.name, settings.epoch_share, settings.small)
        backbone = substitute or _backbone(row, recipe, self.dataset.name, settings.small)
        asked = setup.told(settings, self.device_type)
        asked["seed"] += bool(substitute)
        kept: dict[str, Any] = {"folder": self.folder / f"{key}.run", "options": row.options}
        trained = setup.train_defence(str(row.defence), self.dataset, recipe, backbone=backbone, **kept, **asked)
        in_main_process(lambda: trained.classifier.save_checkpoint(self.folder / f"{key}.pt"))
        return trained


def _of_detectors(table: PublishedTable, rows: Sequence[Method], networks: _Networks) -> setup.Job:
    settings, dataset = networks.settings, networks.dataset
    asked = Detect(
        attack=list(table.detection),
        attack_share=settings.attack_share or Detect.attack_share,
        nb_test=min(settings.nb_test, max(1, len(dataset.y_test) // 2)),
        seed=settings.seed,
        batch_size=settings.batch_size,
        quiet=settings.quiet,
    )
    wanted = settled(asked, dataset)

    def run(on_result: Any = None) -> DetectionStudy:
        found = {row.key: networks.get(row) for row in rows}
        classifiers, sources = ({key: each[i] for key, each in found.items()} for i in (0, 3))
        return run_detection_study(classifiers, dataset, wanted, sources, folder=state)

    state = networks.folder / "state"
    states = (*(state / row.key for row in rows), state)
    return setup.Job(dataset, networks.folder, run, setup.SAME_COMMAND, states=states)


def _of_accuracies(table: PublishedTable, rows: Sequence[Method], networks: _Networks) -> setup.Job:
    settings, dataset, folder = networks.settings, networks.dataset, networks.folder
    suite = get_suite(str(table.suite))
    radii = list(settings.eps or suite.eps_for(dataset.name) or ())
    suites = list(dict.fromkeys([suite.name, settings.second or suite.name]))

    def attacks(name: str, **more: Any) -> RobustnessEvaluation:
        quirks = settings.quirk or () if name == suite.name else ()
        more |= {"batch_size": settings.batch_size, "seed": settings.seed, "verbose": not settings.quiet}
        return RobustnessEvaluation(name, radii, quirks=quirks, **more)

    for each in suites:
        attacks(each)  # says now what is wrong
    n = len(setup.choose_test_images(dataset, settings.nb_test, settings.seed))
    conditions: dict[str, Any] = {
        "n": n,
        "n_test": len(dataset.y_test),
        "n_train": len(dataset.y_train),
        "suite": suite.name,
        "eps": radii,
        "quirks": list(settings.quirk or ()),
        "budget": settings.epoch_share,
        **{name: getattr(settings, name) for name in ("second", "small", "batch_size", "seed")},
    }
    states = {(row.key, each): folder / f"{row.key}.{each}.state" for row in rows for each in suites}
    at_hand = {"table": table.name, "dataset": dataset.name, **conditions, "versions": setup.versions()}
    before = _finished(folder, at_hand, {row.key for row in rows})

    def run(on_result: Callable[[Reproduced], None] | None = None) -> Reproduction:
        substitutes: list[PyTorchClassifier] | None = None
        crafted_on = ""
        if table.substitutes:
            # trained as the table's baseline is
            trained = networks.train(table.method("sce"), table.substitutes[str(dataset.input_shape[0])])
            substitutes, crafted_on = [trained.classifier], _in_words(trained, dataset)
        results = dict(before)
        for row in rows:
            classifier, source, seconds, _ = networks.get(row)
            old = before.get(row.key)
            if old is None or old.record.provenance["fingerprint"]["classifier"] != identity(classifier):
                evaluations = [attacks(each, substitutes=substitutes, folder=states[row.key, each]) for each in suites]
                options: dict[str, Any] = {"nb_test": settings.nb_test, "curves": 0, "name": row.label}
                records = [assess(classifier, dataset, each, **options) for each in evaluations]
                results[row.key] = Reproduced(row.key, source, seconds, *records)
            else:
                results[row.key] = replace(old, source=source, training_seconds=seconds)
            if on_result is not None:
                on_result(results[row.key])
        order = [each.key for each in table.methods]
        shown = sorted(results.values(), key=lambda each: (order.index(each.method) if each.method in order else 99))
        facts = {**conditions, "substitute": crafted_on, **setup.machine(classifier.device)}
        return Reproduction(table.name, dataset.name, facts, tuple(shown))

    return setup.Job(dataset, folder, run, goes_on=setup.SAME_COMMAND, states=tuple(states.values()))


def _finished(folder: Path, conditions: Mapping[str, Any], asked: Collection[str]) -> dict[str, Reproduced]:
    """
    The rows that are in the folder's report already, measured under the same conditions; ValueError where there are
    some under other ones that would be lost, not being asked for.
    """
    try:
        found = Reproduction.from_dict(json.loads((folder / "report.json").read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or none of this command's
        return {}
    theirs = {**found.provenance, "table": found.table, "dataset": found.dataset}
    trained_by = ("budget", "small", "n_train")  # each row's own words say it
    other = [key for key, value in conditions.items() if key not in trained_by and theirs.get(key) != value]
    lost = [each.method for each in found.results if each.method not in asked]
    if other and lost:
        raise ValueError(
            f"{folder} has a report with {', '.join(lost)}, which would be lost, for {', '.join(other)} were others: "
            "take another --output"
        )
    return {} if other else {each.method: each for each in found.results}


def _told(file: Path, classifier: PyTorchClassifier, row: Method, dataset: str) -> str:
    """What `art-mmc train` wrote beside a network on how it was trained, and what is not as in the row's recipe."""
    document = beside(file, ".json")
    if not (document.is_file() and is_summary(document)):
        return ""
    found = json.loads(document.read_bytes())
    facts, recipe = found["provenance"], found["provenance"]["recipe"]
    known = recipe["name"].removesuffix("-small")
    full = f" of {RECIPES[known].nb_epochs}" if known in RECIPES else ""
    begun = f"begun with {facts['init']['name']}, " if "init" in facts else ""
    ours = {**recipe, "images held out": found.get("n_validation", 0), "significant bits": _bits(classifier.model)}
    ours |= {name: facts[name] for name in ("precision", "keep") if name in facts}
    theirs = {"images held out": 0, "significant bits": 24, "precision": "float32", "keep": "last"}
    if (name := row.recipe_for(dataset)) is not None:
        scaled = get_recipe(name, dataset).scaled(recipe["nb_epochs"])
        theirs |= {each.name: getattr(scaled, each.name) for each in fields(Recipe) if each.name not in _NAMES}
    if row.defence is not None and isinstance(classifier, LossDefendedClassifier):
        ours |= describe(classifier)["options"]
        head, loss = get_defence(row.defence).build(
            classifier.model.head.in_features, classifier.nb_classes, **row.options
        )
        theirs |= {**head.options(), **loss.options()}
    unlike = [
        f"{name.replace('_', ' ')} {_short(value)} ({_short(theirs[name])})"
        for name, value in ours.items()
        if name in theirs and encode(value) != encode(theirs[name])
    ]
    return (
        f"{found['backbone']}, {begun}recipe {recipe['name']}, {recipe['nb_epochs']}{full} epochs, "
        f"{facts['n_train']} images, {found['training_seconds']:.0f} s; "
        + (f"unlike the row's recipe (in brackets): {', '.join(unlike)}; " if unlike else "")
    )


#: what tells a recipe from others, and says nothing of how a network was trained
_NAMES = ("name", "description", "source", "defences", "backbone")


def _bits(network: torch.nn.Module) -> int:
    """The most significant bits that a weight or statistic has: 24, or fewer where they were rounded."""
    mantissas = [
        torch.frexp(each.float()).mantissa for each in network.state_dict().values() if each.is_floating_point()
    ]
    return next(bits for bits in range(25) if bits == 24 or all((m * 2**bits % 1 == 0).all() for m in mantissas))


def _short(value: Any) -> str:
    """A setting in a sentence."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_short(each)}" for name, each in value.items()) or "none"
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _in_words(trained: setup.TrainedDefence, dataset: Dataset) -> str:
    """How a network was trained, with the epochs that its recipe has in full."""
    recipe = trained.recipe
    full = get_recipe(recipe.name.removesuffix("-small"), dataset.name).nb_epochs
    return f"{trained.backbone}, recipe {recipe.name}, {recipe.nb_epochs} of {full} epochs"
