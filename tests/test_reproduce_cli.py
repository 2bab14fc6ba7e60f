"""`art-mmc reproduce` and its tables: the published figure, ours, and never without the worst case."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from art_mmc import create_classifier, load_dataset
from art_mmc.data import Dataset
from art_mmc.evaluation import SUITES, AttackRecord, suites
from art_mmc.evaluation.robustness import identity
from art_mmc.published import CLEAN, DISTANCE, Cell, get_published
from art_mmc.reports import (
    load_reproduction,
    paper_table,
    paper_text,
    reproduction_report,
    write_reproduction,
)
from art_mmc.reports.rewrite import rewrite
from art_mmc.studies import reproduce as module
from art_mmc.studies import setup as comparison
from art_mmc.studies.reproduce import (
    PaperRow,
    Reproduced,
    Reproduction,
    check_reproduction,
    ours_of,
    paper_rows,
    prepare,
)
from art_mmc.studies.settings import Reproduce
from art_mmc.trainers import RECIPES
from tests.handmade import RECORD, attack, bits, carlini, figure, protocol, reproduction

# --------------------------------------------------------------------------------------------------------- by hand, MMC


def test_no_row_without_the_worst_case():
    """Not in the type, and not in any row; what the pages show of them is kept in `tests/pages`."""
    field = {each.name: each for each in dataclasses.fields(PaperRow)}["worst"]
    assert field.type is AttackRecord
    assert inspect.signature(PaperRow).parameters["worst"].default is inspect.Parameter.empty
    rows = paper_rows(reproduction())
    assert len(rows) == 2 * 14
    assert all(isinstance(each.worst, AttackRecord) and each.worst.attack == "worst case" for each in rows)


def test_radii_left_out_by_choice_are_left_out():
    rows = paper_rows(reproduction(eps=(0.1, 0.2)))
    assert {each.cell.eps for each in rows} == {None, 0.1, 0.2}
    assert len(rows) == 2 * 10


def test_a_figure_in_256ths_finds_ours():
    record = replace(
        protocol(),
        attacks=(
            attack("PGD-10 untargeted", "loss", 8 / 256, "1111111100"),
            attack("PGD-50 adaptive", "adaptive", 8 / 255, "1111000000"),
        ),
    )
    cell = figure("pang2020-table1", "cifar10", "mmc", "PGD-10 untargeted", 8 / 255)
    assert ours_of(record, cell).value == 80.0
    # and the worst case is that of both
    assert module._worst(record, cell).accuracy == 0.4


def test_autoattack_is_the_worst_of_its_parts():
    eps = 8 / 255
    parts = (
        attack("APGD cross-entropy", "cross_entropy", eps, "1111111100", seconds=1.0),
        attack("APGD targeted DLR", "targeted_dlr", eps, "1111011100", seconds=2.0),
        attack("Square", None, eps, "1111110000", seconds=4.0),
        attack("PGD-50 adaptive", "adaptive", eps, "1100000000"),
    )
    cell = figure("pang2021-table16", "cifar10", "trades", "AutoAttack", eps)
    of_one = get_published("pang2021-table16").parts
    ours = ours_of(replace(protocol(), attacks=parts), cell, of_one)
    assert (ours.value, ours.n, ours.seconds) == (50.0, 10, 7.0)
    assert ours_of(replace(protocol(), attacks=parts[1:]), cell, of_one) is None


def test_a_mean_distance_counts_failures_as_zero():
    """Three attacked, distances 1 and 2 and one failure: the mean is 1, its standard error 1.96 * 0.8165 / sqrt(3)."""
    found = carlini("C&W targeted", "0011111110", 1.0, 2.0)
    cell = figure("pang2020-table2", "cifar10", "mmc", "C&W targeted")
    assert cell.unit == DISTANCE
    ours = ours_of(replace(protocol(), attacks=(found,)), cell)
    assert (ours.value, ours.n) == (1.0, 3)
    assert ours.interval == pytest.approx((0.0760, 1.9240), abs=1e-4)


def test_written_and_read_again(tmp_path):
    files = write_reproduction(reproduction(), tmp_path / "a")
    assert sorted(path.name for path in files) == ["figures.csv", "report.json", "report.md"]
    text, written = rewrite([tmp_path / "a" / "report.json"], tmp_path / "b")
    assert text == paper_text(reproduction())
    for path in written:
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
    (tmp_path / "x.json").write_text('{"format": "art_mmc.robustness"}')
    with pytest.raises(ValueError, match="no report of art-mmc reproduce"):
        load_reproduction(tmp_path / "x.json")


# -------------------------------------------------------------------------------------------------------------- running


def dataset(name: str, channels: int = 1, size: int = 28) -> Dataset:
    """Of its shape, for trainings and attacks that look at no more."""
    x, y = np.zeros((20, channels, size, size), np.float32), np.arange(20) % 10
    return Dataset(name, x, y, x, y)


@pytest.fixture
def watched(monkeypatch) -> list[tuple]:
    """Training and attacks that only say what they were asked for."""
    calls: list[tuple] = []

    def train_defence(defence, data, recipe, **options):
        calls.append(("train", defence, recipe, options))
        classifier = create_classifier(
            defence, "cnn", input_shape=data.input_shape, nb_classes=10, device_type="cpu", **options["options"]
        )
        return comparison.TrainedDefence(classifier, options["backbone"], recipe, [], 3.0)

    def assess(classifier, data, evaluation, **options):
        calls.append(("attack", classifier, evaluation, options))
        return protocol(tuple(evaluation.eps[:2]) if len(evaluation.eps) > 1 else (0.1, 0.2))

    monkeypatch.setattr(comparison, "train_defence", train_defence)
    monkeypatch.setattr(module, "assess", assess)
    monkeypatch.setattr(module, "in_main_process", lambda job: None)  # writes no network
    return calls


@pytest.fixture
def reproduce(monkeypatch) -> Callable[..., Reproduction]:
    """Reproduce a table on a data set made by hand."""

    def reproduce(table: str, data: Dataset, **settings: Any) -> Reproduction:
        monkeypatch.setattr(comparison, "load_data", lambda settings, name: data)
        return prepare(Reproduce(table=table, dataset=data.name, quiet=True, **settings)).run(None)

    return reproduce


def test_networks_are_trained_by_recipe_and_attacked_by_the_suite(watched, reproduce):
    found = reproduce(
        "pang2020-table1",
        dataset("cifar10", 3, 32),
        defence=["mmc-random", "at-targeted-sce"],
        epoch_share=0.1,
        nb_test=15,
        quirk=["predicted_labels"],
        seed=4,
    )
    trainings = [each[1:] for each in watched if each[0] == "train"]
    attacks = [each[1:] for each in watched if each[0] == "attack"]
    assert [(defence, recipe.name, recipe.nb_epochs) for defence, recipe, _ in trainings] == [
        ("mmc", "pang2020-cifar10", 20),
        ("sce", "pang2020-cifar10-at-targeted", 20),
    ]
    assert [options["options"] for *_, options in trainings] == [{"centers": "random"}, {}]
    assert {options["backbone"] for *_, options in trainings} == {"mmc-resnet32v2"}
    assert {options["seed"] for *_, options in trainings} == {4}
    for _, evaluation, options in attacks:
        assert evaluation.suite.name == "pang2020-table1"
        assert evaluation.eps == [8 / 255, 16 / 255]
        assert (evaluation.quirks, evaluation.seed, evaluation.substitutes) == (("predicted_labels",), 4, None)
        assert options["nb_test"] == 15
    assert [each.method for each in found.results] == ["mmc-random", "at-targeted-sce"]
    assert found.results[0].source == "mmc-resnet32v2, recipe pang2020-cifar10, 20 of 200 epochs"
    assert found.provenance["budget"] == 0.1


@pytest.mark.parametrize(
    ("name", "channels", "substitute", "target"), [("mnist", 1, "cnn3", "lenet5"), ("cifar10", 3, "resnet56", "vgg13")]
)
def test_black_box_tables_craft_on_the_paper_s_substitute(watched, reproduce, name, channels, substitute, target):
    data = dataset(name, channels, 28 if channels == 1 else 32)
    found = reproduce("li2021-table3", data, defence=["pc"], epoch_share=0.02, seed=4)
    (_, defence, recipe, options), (_, own, _, own_options) = [each for each in watched if each[0] == "train"]
    assert (defence, options["backbone"], options["seed"]) == ("sce", substitute, 5)
    assert (own, own_options["backbone"], own_options["seed"]) == ("pc", target, 4)
    evaluation = next(each for each in watched if each[0] == "attack")[2]
    assert [each.defence for each in evaluation.substitutes] == ["sce"]
    assert found.provenance["substitute"].startswith(f"{substitute}, recipe li2021-{name}, {recipe.nb_epochs} of ")


def test_rows_that_the_table_lacks_have_its_columns_and_no_figure():
    """RCE by the baseline's recipe, its figures beside none of the paper's."""
    table = get_published("pang2020-table1")
    row = table.method("rce")
    assert (row.defence, row.recipe, row.options) == ("rce", table.method("sce").recipe, {})
    cells = table.columns("cifar10", "rce")
    assert [(each.attack, each.eps) for each in cells] == [(e.attack, e.eps) for e in table.select("cifar10", "sce")]
    assert {(each.method, each.shown) for each in cells} == {("rce", "")}
    assert table.columns("cifar10", "mmc") == table.select("cifar10", "mmc")
    data = dataset("cifar10", 3, 32)
    assert [each.key for each in check_reproduction(table, data, ["mmc", "rce"], {})] == ["mmc", "rce"]
    assert [each.key for each in check_reproduction(table, data, None, {"isce": "x"})][-2:] == ["at-mmc", "isce"]
    lacking = replace(reproduction(), results=(*reproduction().results, Reproduced("gce", "lenet5", 1.0, protocol())))
    lines = [line for line in paper_table(lacking).splitlines() if line.startswith("| guided")]
    assert len(lines) == 14
    assert "| PGD-40 | 0.2 |  | 60.0 (31.3 to 83.2) | 10 | 2.5 | **10.0 (1.8 to 40.4)** | 0.2 |" in lines[8] + lines[9]


def test_a_second_suite_joins_the_worst_case():
    """The paper's attacks leave 1 of 10 at eps 0.2, the second suite another one: nothing stands."""
    second = replace(RECORD, attacks=(attack("APGD", "margin", 0.2, "0111111111"),), suite="strong")
    joined = Reproduced("pc", "pc.pt", None, protocol(), second)
    assert joined.whole.worst_case(0.2).correct == 0
    assert joined.whole.worst_case(0.1).correct == 4
    assert (joined.whole.verdict, joined.whole.suite) == (second.verdict, "strong")
    found = replace(reproduction(), results=(joined,), provenance={**reproduction().provenance, "second": "strong"})
    row = next(each for each in paper_rows(found) if (each.cell.attack, each.cell.eps) == ("PGD-40", 0.2))
    assert (row.ours.value, row.worst.accuracy) == (60.0, 0.0)  # ours is the paper's attack alone
    text = reproduction_report(found)
    assert "| Worst case | over the attacks of li2021-table1 and of strong |" in text
    assert Reproduction.from_dict(found.to_dict()).results[0].whole.worst_case(0.2).correct == 0


def test_small_trains_the_twin(watched, reproduce):
    reproduce("li2021-table1", dataset("cifar10", 3, 32), defence=["sce"], small=True)
    _, _, recipe, options = watched[0]
    assert (recipe.name, recipe.nb_epochs, options["backbone"]) == ("li2021-cifar10-small", 30, "resnet20")


def test_all_rows_of_a_data_set_by_default():
    table = get_published("li2021-table5")
    assert [each.key for each in check_reproduction(table, dataset("mnist"), None, {})] == [
        *("at-sce", "at-gce", "at-pc", "pc"),
    ]
    assert [each.key for each in check_reproduction(table, dataset("cifar10", 3, 32), None, {})] == ["at-sce", "at-pc"]
    table = get_published("pang2021-table16")
    data = dataset("cifar10", 3, 32)
    assert [each.key for each in check_reproduction(table, data, None, {}, small=True)] == ["trades"]
    assert [each.key for each in check_reproduction(table, data, None, {"rice2020": "x"}, small=True)] == [
        *("trades", "rice2020"),
    ]


def test_what_does_not_fit_is_refused():
    mnist, cifar10 = dataset("mnist"), dataset("cifar10", 3, 32)
    for table, arguments, message in (
        ("li2021-table1", (mnist, []), "no row of li2021-table1 is chosen"),
        ("li2021-table1", (mnist, ["sce"], {"pc"}), "a checkpoint for pc, which is not among the chosen"),
        ("li2021-table1", (mnist, None, {"gec"}), "unknown method of li2021-table1 'gec'. Did you mean 'gce'"),
        ("li2021-table1", (mnist, None, (), -1), "budget: expected a positive number"),
        ("pang2021-table16", (cifar10, ["rice2020"]), "Rice et al. 2020, WRN-34-20 is not trained here: give a netw"),
    ):
        with pytest.raises(ValueError, match=message):
            check_reproduction(get_published(table), *arguments)


# --------------------------------------------------------------------------------------------------------- command line


@pytest.mark.thorough
def test_reproduce_end_to_end(run, monkeypatch, tmp_path, mnist_folder):
    """One network trained, one from a file; a second run goes on from what the first left."""
    (tmp_path / "data").symlink_to(mnist_folder)
    small = replace(SUITES["li2021-table1"], once=())  # C&W is slow: its row says that it did not run
    monkeypatch.setitem(suites.SUITES, "li2021-table1", small)
    pc = comparison.build_classifier("pc", load_dataset("mnist", "data"), "lenet5")
    pc.save_checkpoint("mine.pt")
    line = "reproduce li2021-table1 --data-dir data --budget 0.01 --eps 0.3 --nb-test 5 --device cpu --threads 1"
    line += " --quiet --output here"
    status, out, err = run(*line.split(), "--checkpoint", "pc=mine.pt")
    assert (status, err) == (0, "")
    found = load_reproduction("here/report.json")
    assert out.startswith(paper_text(found))
    assert (found.table, found.dataset, found.provenance["n"], found.provenance["n_test"]) == (
        *("li2021-table1", "mnist", 5, 20),
    )
    sce, given = found.results
    assert sce.source == "lenet5, recipe li2021-mnist, 1 of 100 epochs"
    assert sce.training_seconds > 0
    assert (given.source, given.training_seconds) == ("art_mmc checkpoint mine.pt", None)
    for each in found.results:
        assert each.record.verdict is not None
        assert each.record.eps == (0.3,)
        assert {"FGSM", "BIM-10", "PGD-40", "MIM-40", "PGD-40 adaptive"} <= {a.attack for a in each.record.attacks}
    rows = paper_rows(found)
    assert len(rows) == 2 * 6  # clean, four attacks at 0.3, C&W
    assert [each.cell.attack for each in rows if each.ours is None] == ["C&W, 100 steps"] * 2
    names = sorted(path.name for path in Path("here").iterdir())
    assert names == ["figures.csv", "report.json", "report.md", "sce.pt", "sce.run"]
    # once more: the network is there, trained, and its row measured; the report keeps the other row
    measured = []

    def assess(classifier, *args, name, **kwargs):
        measured.append(name)
        known = {**sce.record.provenance["fingerprint"], "classifier": identity(classifier)}
        return replace(sce.record, provenance={**sce.record.provenance, "fingerprint": known})

    monkeypatch.setattr(module, "assess", assess)
    before = Path("here/sce.pt").read_bytes()
    status, _, err = run(*line.split(), "--defence", "sce")
    assert (status, err, measured) == (0, "", [])
    assert Path("here/sce.pt").read_bytes() == before
    again = load_reproduction("here/report.json")
    assert [each.to_dict() for each in again.results] == [each.to_dict() for each in found.results]
    # another network in the row's place, its training told beside it: it is measured
    with torch.no_grad():
        pc.model.head.linear.weight.mul_(2)
    pc.save_checkpoint("other.pt")
    recipe = {"name": "li2021-mnist", "nb_epochs": 7, "batch_size": 64}
    told = {"backbone": "lenet5", "training_seconds": 12.3, "provenance": {"recipe": recipe, "n_train": 120}}
    Path("other.json").write_text(json.dumps({"defence": "pc", "clean_test_accuracy": {}, **told}))
    line_of_pc = [*line.split(), "--defence", "pc", "--checkpoint", "pc=other.pt"]
    assert run(*line_of_pc)[0] == 0
    assert measured == ["PC + LC"]
    again = load_reproduction("here/report.json")
    assert [each.method for each in again.results] == ["sce", "pc"]
    assert again.results[1].source == (
        "lenet5, recipe li2021-mnist, 7 of 100 epochs, 120 images, 12 s; unlike the row's recipe (in brackets): "
        "batch size 64 (256); art_mmc checkpoint other.pt"
    )
    # told better afterwards, it says so at no cost
    told["provenance"]["precision"] = "bfloat16"
    Path("other.json").write_text(json.dumps({"defence": "pc", "clean_test_accuracy": {}, **told}))
    assert run(*line_of_pc)[0] == 0
    assert measured == ["PC + LC"]
    assert "precision bfloat16 (float32)" in load_reproduction("here/report.json").results[1].source
    # under other conditions nothing is kept: no row is lost that is not measured again
    status, _, err = run(*line_of_pc, "--seed", "3")
    assert (status, err.count("\n")) == (2, 1)
    assert "here has a report with sce, which would be lost, for seed were others" in err
    assert load_reproduction("here/report.json").to_dict()["results"][0] == found.to_dict()["results"][0]
    line_of_pc += ["--output", "there"]
    for seed in ("0", "3"):
        assert run(*line_of_pc, "--seed", seed)[0] == 0
    assert load_reproduction("there/report.json").provenance["seed"] == 3
    # nor are figures of other versions
    count = len(measured)
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "versions", dict)
        assert run(*line_of_pc, "--seed", "3")[0] == 0
    assert len(measured) == count + 1
    # with other settings the folder is in the way, and that is a line
    status, _, err = run(*line.split(), "--seed", "7", "--defence", "sce")
    assert (status, err.count("\n")) == (2, 1)
    assert "here" in err


def test_a_row_says_what_is_not_as_in_its_recipe(tmp_path):
    """Adversarial training by another attack, random centers, mixed precision, rounded weights; by hand."""
    recipe = replace(RECIPES["pang2020-cifar10"].scaled(30), batch_size=128, rate=0.0256, schedule="cosine")
    recipe = replace(recipe, attack="fast", attack_options={"eps": 8 / 255})
    facts = comparison.provenance(dataset("cifar10", 3, 32), recipe, 0, torch.device("cpu"))
    facts |= {"precision": "bfloat16", "keep": "best", "init": {"name": "mmc-cifar10"}}
    found = {"defence": "mmc", "backbone": "resnet20", "clean_test_accuracy": {}, "training_seconds": 7.1}
    (tmp_path / "net.json").write_text(json.dumps({**found, "n_validation": 1000, "provenance": facts}))
    net = create_classifier("mmc", "cnn", input_shape=(3, 32, 32), nb_classes=10, centers="random")
    for tensor in net.model.state_dict().values():
        tensor.copy_(tensor.bfloat16())
    row = get_published("pang2020-table1").method("at-mmc")
    assert module._told(tmp_path / "net.pt", net, row, "cifar10") == (
        "resnet20, begun with mmc-cifar10, recipe pang2020-cifar10, 30 of 200 epochs, 20 images, 7 s; unlike the row's "
        "recipe (in brackets): rate 0.0256 (0.01), batch size 128 (50), schedule cosine (piecewise), attack fast "
        "(pgd), attack options eps 0.03137 (eps 0.03137 steps 10 step_size 0.007843 batch_norm train), images held out "
        "1000 (0), "
        "significant bits 8 (24), precision bfloat16 (float32), keep best (last), centers random (max_mahalanobis); "
    )


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ("mmc", {"defence": "sce"}, "MMC-10 has defence 'mmc', the network 'sce'"),
        ("mmc-random", {"defence": "mmc"}, "MMC-10 (rand) has centers 'random', the network 'max_mahalanobis'"),
        ("mmc-random", {"defence": "mmc", "centers": "random"}, None),
    ],
)
def test_a_network_of_another_defence_has_no_place_in_a_row(row, options, message):
    net = create_classifier(backbone="cnn", input_shape=(3, 32, 32), nb_classes=10, **options)
    with nullcontext() if message is None else pytest.raises(ValueError, match=re.escape(message)):
        module._check_network(get_published("pang2020-table1").method(row), net, Path("net.pt"))


@pytest.mark.parametrize(
    ("table", "name", "shape", "classes", "second"),
    [
        ("li2021-table1", "kmnist", (1, 28, 28), 10, "quick"),
        ("li2021-table1", "svhn", (3, 32, 32), 10, None),
        ("li2021-table4", "tiny-imagenet", (3, 64, 64), 200, None),
        ("pang2020-table3", "cifar100", (3, 32, 32), 100, None),
    ],
)
def test_data_sets_of_the_tables_on_made_images(run, monkeypatch, tmp_path, table, name, shape, classes, second):
    """Each table's line runs on its data set, here in a file that is called so, with a network that is given."""
    for suite in (SUITES[table], SUITES["quick"]):
        plans, beside = (
            lambda eps, norm, make=make: [replace(p, steps=1) for p in make(eps, norm)]
            for make in (suite.plans, suite.beside)
        )
        monkeypatch.setitem(suites.SUITES, suite.name, replace(suite, once=(), plans=plans, beside=beside))
    monkeypatch.setattr(module, "RobustnessEvaluation", partial(module.RobustnessEvaluation, diagnostics=False))
    x = np.random.default_rng(0).integers(0, 256, (classes, *shape), dtype=np.uint8)
    y = np.arange(classes)
    np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    create_classifier("sce", "cnn", input_shape=shape, nb_classes=classes).save_checkpoint(tmp_path / "net.pt")
    row = next(each.key for each in get_published(table).methods if each.key.startswith("sce"))
    line = f"reproduce {table} --dataset {name}.npz --defence {row} --checkpoint {row}=net.pt --nb-test 3 --device cpu"
    line += f" --worst-case {second}" if second else ""
    status, out, err = run(*line.split(), "--quiet", "--output", "here")
    assert (status, err) == (0, "")
    found = load_reproduction("here/report.json")
    assert (found.dataset, found.provenance["n"]) == (name, 3)
    (result,) = found.results
    cells = [row for row in paper_rows(found) if row.cell.attack != CLEAN and "C&W" not in row.cell.attack]
    assert cells
    assert any(row.ours is not None for row in cells)
    assert (result.second is not None) == (second is not None)
    assert len(result.whole.attacks) > len(result.record.attacks) or second is None


def test_tables_of_detectors_run_the_study_of_detectors(run, monkeypatch, tmp_path, mnist_folder):
    """The networks by the paper's recipe or from files, its attacks, and those that know the detector."""
    from art_mmc.reports import detect as report

    (tmp_path / "data").symlink_to(mnist_folder)
    asked = []
    monkeypatch.setattr(module, "run_detection_study", lambda *args, folder: asked.append((*args, folder)) or "study")
    monkeypatch.setattr(report, "write_report", lambda found, folder: [folder / "report.md"])
    monkeypatch.setattr(report, "text_table", lambda found: f"the table of the {found}")
    create_classifier("rce", "lenet5", input_shape=(1, 28, 28), nb_classes=10).save_checkpoint("rce.pt")
    line = ["--data-dir", "data", "--device", "cpu", "--quiet", "--defence", "rce", "--checkpoint", "rce=rce.pt"]
    for table in ("pang2018-table2", "pang2018-table3"):
        status, out, err = run("reproduce", table, *line)
        assert (status, err) == (0, "")
        assert out.startswith("the table of the study")
    (classifiers, data, second, sources, folder), (*_, third, _, _) = asked
    assert folder.parent.name == "reproduce-pang2018-table2-mnist"  # from which the same command goes on
    assert list(classifiers) == ["rce"]
    assert data.name == "mnist"
    assert {"fgsm", "bim", "cw", "cw-wb", "pgd-wb"} <= set(second.attack)
    assert third.attack == ["cw-wb"]
    assert (second.nb_test, second.attack_share, second.eps) == (10, 0.02, 0.16)
    assert sources == {"rce": {"checkpoint": "rce.pt"}}


def test_a_cell_has_no_ours_where_nothing_was_attacked():
    record = replace(protocol(), attacks=(attack("SPSA", "margin", 0.3, "1111111110", attacked=bits("0" * 10)),))
    assert ours_of(record, Cell("mnist", "pc", "SPSA", 0.3, 1.0, "1.0")) is None
    assert json.dumps(record.to_dict(), allow_nan=False)
