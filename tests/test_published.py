"""Published figures: against a second copying by hand, the suites that measure ours, the recipes that train them."""

from __future__ import annotations

import math

import pytest

from art_mmc.checks import check_eps
from art_mmc.defences import DEFENCES
from art_mmc.evaluation import SUITES
from art_mmc.models import BACKBONES
from art_mmc.published import CLEAN, DISTANCE, DISTORTION, ERROR, PUBLISHED, SHARE, get_published
from art_mmc.studies.reproduce import method_recipe
from art_mmc.trainers import get_recipe
from tests.handmade import figure

MEASURED = [table for table in PUBLISHED.values() if table.suite is not None]

#: (table, data set, row, attack, eps) -> figure, copied by hand from the papers' tables
FIGURES = {
    ("pang2020-table1", "cifar10", "sce", "PGD-10 untargeted", 8 / 255): 3.7,
    ("pang2020-table1", "cifar10", "mmlda", "PGD-50 untargeted", 8 / 255): 9.7,
    ("pang2020-table1", "cifar10", "lgm", "PGD-10 targeted", 16 / 255): 26.0,
    ("pang2020-table1", "cifar10", "mmc-random", "PGD-50 targeted", 8 / 255): 20.9,
    ("pang2020-table1", "cifar10", "mmc", "PGD-10 targeted", 8 / 255): 48.7,
    ("pang2020-table1", "cifar10", "mmc", "PGD-10 untargeted", 8 / 255): 36.0,
    ("pang2020-table1", "cifar10", "mmc", "PGD-50 untargeted", 16 / 255): 17.5,
    ("pang2020-table1", "cifar10", "at-mmc", "PGD-50 untargeted", 8 / 255): 55.0,
    ("pang2020-table1", "cifar10", "at-targeted-mmc", "PGD-50 targeted", 16 / 255): 44.7,
    ("pang2020-table1", "cifar10", "mmc", CLEAN, None): 92.7,
    ("pang2020-table2", "cifar10", "mmc", "C&W targeted", None): 0.34,
    ("pang2020-table2", "cifar10", "mmc", "C&W untargeted", None): 0.17,
    ("pang2020-table2", "cifar10", "mmc", "SPSA-10 untargeted", 8 / 255): 56.9,
    ("pang2020-table2", "cifar10", "at-sce", "SPSA-10 targeted", 16 / 255): 73.7,
    ("pang2020-table2", "cifar10", "sce", "Gaussian noise", None): 52.0,
    ("pang2020-table2", "cifar10", "at-mmc", "rotation", None): 75.8,
    ("pang2020-table3", "cifar10", "mmc-110", "PGD-10 untargeted", 8 / 255): 46.0,
    ("pang2020-table3", "cifar100", "mmc-32", "PGD-50 untargeted", 8 / 255): 21.9,
    ("pang2020-table3", "cifar100", "sce-110", CLEAN, None): 74.8,
    ("li2021-table1", "mnist", "pc", "PGD-40", 0.2): 50.2,
    ("li2021-table1", "mnist", "sce", "PGD-40", 0.3): 0.8,
    ("li2021-table1", "kmnist", "pc", "BIM-10", 0.1): 82.5,
    ("li2021-table1", "fashion-mnist", "pc", "C&W, 100 steps", None): 21.8,
    ("li2021-table1", "cifar10", "sce", "FGSM", 0.12): 11.7,
    ("li2021-table1", "svhn", "pc", "MIM-40", 0.2): 26.0,
    ("li2021-table2", "mnist", "gce", "PGD-40", 0.2): 9.6,
    ("li2021-table2", "cifar10", "pc", "FGSM", 0.04): 58.4,
    ("li2021-table2", "cifar10", "gce", "C&W, 1000 steps", None): 0.8,
    ("li2021-table3", "mnist", "pc", "transfer PGD", 0.3): 85.6,
    ("li2021-table3", "cifar10", "sce", "transfer MIM", 0.2): 0.3,
    ("li2021-table3", "svhn", "pc", "SPSA", 0.3): 58.0,
    ("li2021-table4", "cifar100", "pc", "SPSA", 0.015): 22.1,
    ("li2021-table4", "cifar100", "pc", "PGD-10", 0.015): 52.6,
    ("li2021-table4", "tiny-imagenet", "gce", "MIM-10", 0.005): 7.3,
    ("li2021-table5", "mnist", "at-pc", "PGD-40", 0.3): 72.3,
    ("li2021-table5", "fashion-mnist", "pc", "MIM-40", 0.3): 2.2,
    ("li2021-table5", "cifar10", "at-sce", "SPSA", 0.3): 6.5,
    ("pang2021-table16", "cifar10", "trades", "AutoAttack", 8 / 255): 53.94,
    ("pang2021-table16", "cifar10", "trades", "AutoAttack", 0.031): 54.28,
    ("pang2021-table16", "cifar10", "rice2020", CLEAN, 8 / 255): 85.34,
    ("pang2018-table1", "mnist", "sce-32", CLEAN, None): 0.38,
    ("pang2018-table1", "cifar10", "rce-56", CLEAN, None): 6.60,
    ("pang2018-table2", "mnist", "sce", "FGSM, non-me", None): 66.8,
    ("pang2018-table2", "cifar10", "rce", "C&W-hc, kernel-density", None): 91.8,
    ("pang2018-table3", "mnist", "rce", "C&W-wb", None): 0.77,
    ("pang2018-table3", "cifar10", "sce", "C&W-wb, distortion", None): 1.26,
    ("pang2018-cost", "unstated", "sce", "FGSM", None): 0.0019,
}

#: rows x columns of the printed tables, dashes left out
COUNTS = {
    "pang2020-table1": 10 * 9,
    "pang2020-table2": 9 * 8,
    "pang2020-table3": 8 * 9,
    "li2021-table1": 14 * 3 * 2 + 14 * 2 * 2,
    "li2021-table2": 13 * 3 + 13 * 3,
    "li2021-table3": 7 * 3 * 2 + 7 * 2 * 2,
    "li2021-table4": 8 * 2 * 3,
    "li2021-table5": 5 * 3 * 4 + 5 * 2,
    "pang2021-table16": 9 * 2,
    "pang2018-table1": 2 * 4,
    "pang2018-table2": 6 * 2 * 2 * 3,
    "pang2018-table3": 2 * 2 * 2,
}


@pytest.mark.parametrize("key", FIGURES, ids=str)
def test_figures(key):
    name, dataset, method, attack, eps = key
    assert figure(name, dataset, method, attack, eps).value == FIGURES[key]


@pytest.mark.parametrize("name", COUNTS)
def test_tables_are_whole(name):
    cells = get_published(name).cells
    assert len(cells) == COUNTS[name]
    assert len({(cell.dataset, cell.method, cell.attack, cell.eps) for cell in cells}) == len(cells)


def test_bounds_and_spreads_keep_their_text():
    bound = figure("pang2020-table1", "cifar10", "center", "PGD-50 targeted", 16 / 255)
    assert (bound.text, bound.value) == ("<=1", 1.0)
    spreads = [figure("pang2021-table16", "cifar10", "trades", CLEAN, eps) for eps in (8 / 255, 0.031)]
    assert [(each.text, each.value) for each in spreads] == [("85.49+-.24", 85.49), ("85.45+-.09", 85.45)]


def test_units():
    units = {cell.attack: cell.unit for cell in get_published("pang2020-table2").cells}
    assert units["C&W targeted"] == units["C&W untargeted"] == DISTANCE
    assert {unit for attack, unit in units.items() if "C&W" not in attack} == {"accuracy, %"}
    assert {cell.unit for cell in get_published("pang2018-table1").cells} == {ERROR}
    units = {cell.attack: cell.unit for cell in get_published("pang2018-table3").cells}
    assert units == {"C&W-wb": SHARE, "C&W-wb, distortion": DISTORTION}
    assert SHARE == "ratio"


def test_every_figure_says_whether_it_was_verified():
    """Of the RCE paper those that an independent reading confirms are; all others of it are quoted from memory."""
    cells = [(table.name, cell) for table in PUBLISHED.values() for cell in table.cells]
    verified = {(name, cell.dataset, cell.method, cell.attack) for name, cell in cells if cell.verified}
    assert {each for each in verified if each[0].startswith("pang2018")} == {
        ("pang2018-table1", "mnist", "sce-32", CLEAN),
        ("pang2018-table1", "mnist", "rce-56", CLEAN),
        ("pang2018-table3", "mnist", "sce", "C&W-wb"),
        ("pang2018-table3", "mnist", "rce", "C&W-wb"),
        ("pang2018-cost", "unstated", "sce", "FGSM"),
        ("pang2018-cost", "unstated", "sce", "C&W-wb"),
    }
    assert all(cell.verified for name, cell in cells if not name.startswith("pang2018"))
    assert all(("from memory" in cell.source) != cell.verified for _, cell in cells)
    assert all(cell.shown == cell.text + "*" * (not cell.verified) for _, cell in cells)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_the_networks_of_the_pc_paper(number):
    """LeNet-5 on grey images; on colour VGG-13, but for Table 2, which has ResNet-56."""
    table = get_published(f"li2021-table{number}")
    for dataset in table.datasets:
        for method in table.methods:
            wanted = "lenet5" if "mnist" in dataset else "resnet56" if number == 2 else "vgg13"
            found = method.backbone_for(dataset) or method_recipe(method, dataset).backbone
            assert found == wanted, (dataset, method.key)


@pytest.mark.parametrize("table", PUBLISHED.values(), ids=list(PUBLISHED))
def test_every_table_has_its_citation(table):
    for part in (table.authors, table.venue, table.number, table.link):
        assert part in table.citation
    assert table.link.startswith("https://arxiv.org/abs/")
    assert table.source
    assert {cell.method for cell in table.cells} <= {method.key for method in table.methods}
    assert len({method.key for method in table.methods}) == len(table.methods)
    for cell in table.cells:
        assert 0 <= cell.value <= (math.inf if cell.unit == "seconds" else 100)
        assert cell.eps is None or check_eps(cell.eps)


@pytest.mark.parametrize("table", MEASURED, ids=lambda table: table.name)
def test_the_suite_measures_every_figure(table):
    """Each attack at each radius is among the plans that the suite builds for the data set."""
    suite = SUITES[table.suite]
    for dataset in table.datasets:
        plans = suite.build(suite.eps_for(dataset), nb_classes=10)
        at = {(plan.name, round(plan.eps, 6) if plan.bounded else None) for plan in plans}
        for cell in table.select(dataset):
            if cell.attack == CLEAN:
                continue
            for part in table.parts.get(cell.attack, (cell.attack,)):
                assert (part, None if cell.eps is None else round(cell.eps, 6)) in at, cell


@pytest.mark.parametrize("table", PUBLISHED.values(), ids=list(PUBLISHED))
def test_every_row_has_a_recipe_or_is_not_trained(table):
    for method in table.methods:
        for dataset in {cell.dataset for cell in table.cells if cell.method == method.key}:
            if method.defence is None:
                with pytest.raises(ValueError, match="not trained here"):
                    method_recipe(method, dataset)
                continue
            if dataset == "unstated":
                continue
            assert method.defence in DEFENCES
            assert set(method.options) <= set(DEFENCES[method.defence].option_names)
            backbone = method.backbone_for(dataset)
            assert backbone is None or backbone in BACKBONES
            full, twin = method_recipe(method, dataset), method_recipe(method, dataset, small=True)
            assert twin.name == f"{full.name}-small"
            assert twin.nb_epochs < full.nb_epochs
            assert (full.attack is not None) == (method.key.startswith("at-") or method.key == "trades")


def test_budget_scales_the_epochs():
    mmc = get_published("pang2020-table1").method("mmc")
    assert method_recipe(mmc, "cifar10") == get_recipe("pang2020-cifar10")
    assert method_recipe(mmc, "cifar10", 0.1) == get_recipe("pang2020-cifar10").scaled(20)
    assert method_recipe(mmc, "cifar10", 1e-9).nb_epochs == 1
    with pytest.raises(ValueError, match="budget"):
        method_recipe(mmc, "cifar10", 0)


def test_gce_has_its_own_recipe_on_mnist_alone():
    gce = get_published("li2021-table2").method("gce")
    assert method_recipe(gce, "mnist").name == "chen2019-mnist"
    assert method_recipe(gce, "cifar10").name == "li2021-cifar10"
