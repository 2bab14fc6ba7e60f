"""The networks of the package: each loads, is what its card says, and is found by its name wherever a file is."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from art_mmc import load_classifier, load_dataset, load_pretrained, pretrained
from art_mmc.evaluation import RobustnessEvaluation, wilson_interval
from art_mmc.evaluation.robustness import identity
from art_mmc.pretrained import FOLDER, find_network, pretrained_card, pretrained_names
from art_mmc.studies.evaluate import assess
from art_mmc.studies.evaluate import prepare as prepare_evaluation
from art_mmc.studies.inspect import prepare as prepare_inspection
from art_mmc.studies.settings import Evaluate, Inspect

ROOT = FOLDER.parent.parent
RECORD = runpy.run_path(str(ROOT / "examples" / "record_zoo.py"))

each_network = pytest.mark.parametrize("network", pretrained_names())


@pytest.fixture(scope="module")
def sample():
    return load_dataset("mnist-sample")


def _holds(net, bits):
    """Whether every weight and statistic has no more than so many significant bits."""
    mantissas = (
        np.frexp(each.numpy())[0] * 2.0**bits for each in net.state_dict().values() if each.is_floating_point()
    )
    return all((each == each.round()).all() for each in mantissas)


@each_network
def test_a_network_is_what_its_card_says(network, sample):
    card, file = pretrained_card(network), FOLDER / f"{network}.pt"
    content = file.read_bytes()
    classifier = load_pretrained(network, device_type="cpu")
    bits = {"bits": 16} if _holds(classifier.model, 16) else {}  # of MNIST's networks all 24
    assert card["file"] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **bits}
    assert (card["name"], card["defence"]) == (network, classifier.defence)
    assert not any(mark in card["provenance"]["dataset"] for mark in "/\\")  # no folder of a machine
    inputs, logits = RECORD["fixed_inputs"](classifier.input_shape), np.array(card["logits"])
    # other processors add in another order
    assert np.allclose(classifier.predict(inputs), logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    clean = card["evaluation"]["clean"]
    if card["evaluation"]["dataset"] == sample.name and clean["n"] == len(sample.y_test):
        assert (classifier.predict(sample.x_test).argmax(axis=1) == sample.y_test).sum() == clean["correct"]


@each_network
def test_a_card_is_complete(network):
    card = pretrained_card(network)
    assert card["dataset"] in ("mnist", "fashion-mnist", "cifar10")
    assert {"recipe", "seed", "date", "processor", "versions", "n_train"} <= card["provenance"].keys()
    assert len(card["history"]) == card["provenance"]["recipe"]["nb_epochs"]
    assert card["training_seconds"] > 0.99 * sum(epoch["seconds"] for epoch in card["history"]) > 0
    found = card["evaluation"]
    assert {"suite", "seed", "dataset", "norm", "date", "device", "processor", "threads", "versions"} <= found.keys()
    assert found["seconds"] > 0
    assert found["verdict"]["reasons"]
    figures = [found["clean"], *found["worst_case"]]
    assert [each["correct"] for each in figures] == sorted((each["correct"] for each in figures), reverse=True)
    for each in [card["clean_test_accuracy"], *figures]:
        assert each["accuracy"] == each["correct"] / each["n"]
        assert each["interval"] == pytest.approx(wilson_interval(each["correct"], each["n"]))
    assert card["clean_test_accuracy"]["n"] == 10000
    assert all(each["n"] == found["n"] for each in figures)


@pytest.mark.slow
@each_network
def test_the_recorded_worst_case(network):
    """200 images, the smallest radius: the two 95 % intervals meet."""
    card = pretrained_card(network)
    found, recorded = card["evaluation"], card["evaluation"]["worst_case"][0]
    place = os.environ.get("ART_MMC_DATA")
    data = load_dataset(
        os.path.join(place or "", found["dataset"]) if ".npz" in found["dataset"] else found["dataset"], place
    )
    evaluation = RobustnessEvaluation(found["suite"], [recorded["eps"]], seed=found["seed"], verbose=False)
    record = assess(load_pretrained(network), data, evaluation, nb_test=200, curves=0)
    low, high = record.worst_case(recorded["eps"]).interval
    assert low <= recorded["interval"][1]
    assert high >= recorded["interval"][0]


def test_a_file_that_is_not_on_its_card_is_refused(run, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    for name in ("pc-mnist.pt", "pc-mnist.json"):
        shutil.copy(FOLDER / name, package)
    monkeypatch.setattr(pretrained, "FOLDER", package)
    assert find_network("pc-mnist") == package / "pc-mnist.pt"
    shutil.copy(FOLDER / "gce-mnist.pt", package / "pc-mnist.pt")
    for load in (load_pretrained, find_network):
        with pytest.raises(ValueError, match="pc-mnist.pt is damaged, or not the network on its card: install"):
            load("pc-mnist")
    assert run("zoo")[0] == 0
    (package / "pc-mnist.json").write_text("{")
    status, out, err = run("zoo")
    assert (status, out) == (2, "")
    assert err == f"art-mmc: error: {package}/pc-mnist.json is missing or damaged: install the package again\n"


def test_all_of_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 15e6


@pytest.mark.processes
def test_it_is_read_when_it_is_asked_for():
    code = f"""
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import art_mmc.classifiers.loading, art_mmc.cli, art_mmc.data, art_mmc.studies.setup
print([path for path in opened if path.startswith({str(FOLDER)!r}) and not path.endswith((".py", ".pyc"))])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_the_wheel_holds_it(tmp_path):
    shutil.copytree(ROOT / "art_mmc", tmp_path / "art_mmc", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", ".", "."]
    subprocess.run([sys.executable, *command], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 20e6
    with zipfile.ZipFile(wheel) as archive:
        held = {name.removeprefix("art_mmc/pretrained/") for name in archive.namelist()}
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} <= held


def test_the_sample(sample):
    assert (sample.nb_classes, sample.x_train.shape) == (10, (0, 1, 28, 28))
    assert np.bincount(sample.y_test).tolist() == [100] * 10
    for refused in (lambda: sample.mean, lambda: sample.std, lambda: sample.pixel_mean):
        with pytest.raises(ValueError, match="mnist-sample has test images alone"):
            refused()


@pytest.mark.slow
def test_the_sample_is_of_mnist_s_test_images(sample):
    whole = load_dataset("mnist", os.environ["ART_MMC_DATA"])
    with np.load(FOLDER / "mnist-sample.npz") as archive:
        index = archive["index"]
    assert len(set(index.tolist())) == 1000
    assert np.array_equal(sample.x_test, whole.x_test[index])
    assert np.array_equal(sample.y_test, whole.y_test[index])


def test_a_file_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_network("mmc-mnist") == FOLDER / "mmc-mnist.pt"
    (tmp_path / "mmc-mnist").mkdir()  # a folder is no file
    assert find_network("mmc-mnist") == FOLDER / "mmc-mnist.pt"
    (tmp_path / "sce-mnist").write_bytes(b"")
    assert find_network("sce-mnist") == Path("sce-mnist")
    with pytest.raises(ValueError, match="unknown pretrained network 'mmc'. Did you mean 'mmc-mnist'?"):
        load_pretrained("mmc")


def test_evaluated_on_its_own_data_set(tmp_path, monkeypatch, mnist_folder):
    """The sample, or all of it where it is at hand; what needs training images has no use for the sample."""
    monkeypatch.chdir(tmp_path)
    job = prepare_evaluation(Evaluate(checkpoint="mmc-mnist", substitute=["sce-mnist"]))
    assert (job.dataset.name, str(job.folder)) == ("mnist-sample", "runs/evaluate-mmc-mnist-standard")
    job = prepare_evaluation(Evaluate(checkpoint="mmc-mnist", data_dir=str(mnist_folder)))
    assert job.dataset.name == "mnist"
    job = prepare_inspection(Inspect(checkpoints=["mmc-mnist"], data_dir=str(mnist_folder)))
    assert job.dataset.name == "mnist"


def test_listed(run):
    status, out, _ = run("zoo")
    assert status == 0
    lines = out.splitlines()
    for network in pretrained_names():
        (line,) = [line for line in lines if line.startswith(f"{network} ")]
        assert pretrained_card(network)["file"]["sha256"][:8] in line


@pytest.mark.thorough
def test_a_network_is_added_by_one_command(run, tmp_path):
    assert run("train", "--defence", "mmc", "--epochs", 2, "--output", "net.pt", "--quiet")[0] == 0
    package = tmp_path / "package"
    command = ["mmc-digits", "net.pt", "--suite", "quick", "--nb-test", "30", "--eps", "0.1", "--results", "results"]
    RECORD["main"]([*command, "--package", str(package)])
    card = json.loads((package / "mmc-digits.json").read_text())
    assert card.keys() == pretrained_card("mmc-mnist").keys()
    assert {"options": {}, "precision": "float32", "keep": "last"}.items() <= card["provenance"].items()
    assert card["evaluation"].keys() == pretrained_card("mmc-mnist")["evaluation"].keys()
    assert (card["name"], card["dataset"], card["evaluation"]["n"]) == ("mmc-digits", "digits", 30)
    inputs = RECORD["fixed_inputs"]((1, 8, 8))
    added, given = (load_classifier(path, device_type="cpu") for path in (package / "mmc-digits.pt", "net.pt"))
    assert np.array_equal(added.predict(inputs), given.predict(inputs))
    assert np.array_equal(added.predict(inputs), np.array(card["logits"], np.float32))
    assert (tmp_path / "results" / "evaluate-mmc-digits" / "report.md").is_file()
    first = (package / "mmc-digits.pt").read_bytes()
    assert first == RECORD["compressed"](tmp_path / "net.pt")
    assert len(first) < (tmp_path / "net.pt").stat().st_size
    RECORD["main"]([*command, "--package", str(package), "--bits", "12"])
    card, packed = json.loads((package / "mmc-digits.json").read_text()), (package / "mmc-digits.pt").read_bytes()
    assert card["clean_test_accuracy"]["n"] > 300
    assert card["file"]["bits"] == 12
    assert len(packed) < 0.8 * len(first)
    near = load_classifier(package / "mmc-digits.pt", device_type="cpu").model.state_dict()
    for name, exact in given.model.state_dict().items():
        assert np.allclose(near[name], exact, rtol=2.0**-12, atol=0), name
        assert (torch.frexp(near[name].float()).mantissa * 2**12 % 1 == 0).all(), name
    # another network of the file's name, or other radii: what the folder has of the old one is not told of it
    given.model.head.centers.mul_(2)
    given.save_checkpoint("net.pt")
    for more, radii in ((), [0.1]), (("--eps", "0.2"), [0.1, 0.2]):
        RECORD["main"]([*command, "--package", str(package), *more])
        card = json.loads((package / "mmc-digits.json").read_text())
        assert [each["eps"] for each in card["evaluation"]["worst_case"]] == radii
        report = json.loads((tmp_path / "results" / "evaluate-mmc-digits" / "report.json").read_text())
        assert report["provenance"]["fingerprint"]["classifier"] == identity(given)
