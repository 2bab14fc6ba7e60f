"""The command line: what it writes, and that a user's mistake is one line."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import art_mmc
from art_mmc import create_classifier, load_classifier
from art_mmc.classifiers.loading import build_network
from art_mmc.cli import build_parser
from art_mmc.cli.run import page
from art_mmc.data import Dataset, load_dataset
from art_mmc.defences import DEFENCES
from art_mmc.detectors import DETECTORS
from art_mmc.evaluation import SUITES
from art_mmc.models import BACKBONES
from art_mmc.reports import load_report, markdown_report, text_table
from art_mmc.studies import compare as comparison
from art_mmc.studies import setup
from art_mmc.studies.detect import ATTACKS
from art_mmc.studies.history import find_history
from art_mmc.studies.setup import (
    ORDER,
    build_classifier,
    choose_test_images,
    default_backbone,
    default_eps,
    train_defence,
)
from art_mmc.trainers import RECIPES, LossTrainer, get_recipe
from tests.conftest import left_alone
from tests.handmade import FACTORY, NETS


@pytest.fixture
def colour() -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(12, 3, 16, 16)).astype(np.float32)
    x[:, 2] = 0.5
    return Dataset("colour", x, np.arange(12) % 3, x[:6], np.arange(6) % 3)


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def is_one_error(err: str) -> bool:
    return err.startswith("art-mmc: error: ") and err.count("\n") == 1 and err.endswith("\n")


# -------------------------------------------------------------------------------------------------------------- compare


def test_compare_writes_the_report_that_it_prints(tiny, run, monkeypatch):
    """
    With a line for each defence as it comes; on the test images that are asked for; and the random state stays. An
    interrupted one goes on with what it has, to the same report.
    """
    line = "--defence sce,pc --defence sce --epochs 2 --steps 3 --eps 0.1,16/255 --seed 3 --device cpu --nb-test 50"
    with left_alone():
        status, out, err = run("compare", "--dataset", tiny, *line.split())
    assert status == 0
    folder = Path("runs/compare")
    assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "report.json", "report.md"]
    assert f"wrote {folder / 'report.md'}" in out
    for name in ("sce", "pc"):
        assert sum(line.startswith(f"{name}: clean ") for line in out.splitlines()) == 1
    assert err == ""  # no progress bar into a pipe
    report = load_report(folder / "report.json")
    assert text_table(report) in out
    assert (folder / "report.md").read_text() == markdown_report(report)
    assert [result.defence for result in report.results] == ["sce", "pc"]
    assert report.eps == (16 / 255, 0.1)
    for result in report.results:
        assert result.training_seconds > 0
        assert result.robustness.clean.n == 50
        assert {record.steps for record in result.robustness.attacks} == {1, 3}
    facts = report.provenance
    assert (facts["dataset"], facts["backbone"], facts["seed"], facts["n"]) == (str(tiny), "cnn", 3, 50)
    assert facts["recipe"]["nb_epochs"] == 2
    assert set(facts["versions"]) == {"art_mmc", "adversarial-robustness-toolbox", "torch", "numpy", "python"}
    assert facts["device"] == "cpu"
    assert facts["processor"]
    line = ("compare", "--dataset", tiny, *line.split(), "--quiet", "--output", "again")
    attack, calls = comparison.evaluate_robustness, []

    def interrupted(*args):
        calls.append(attack(*args) if not calls else interrupt())
        return calls[-1]

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "evaluate_robustness", interrupted)
        assert run(*line) == (130, "", "art-mmc: interrupted; the same command with --resume goes on\n")
    monkeypatch.setattr(LossTrainer, "_step", None)  # both are trained
    assert "again holds an unfinished comparison: --resume goes on with it, --overwrite begins" in run(*line)[2]
    assert run(*line, "--resume")[::2] == (0, "")
    assert text_table(load_report("again/report.json")) == text_table(report)
    assert sorted(path.name for path in Path("again").iterdir()) == ["curves.png", "report.json", "report.md"]


@pytest.mark.parametrize(("option", "inside"), [((), 1), (("--threads", 2), 2)])
def test_threads(tiny, run, monkeypatch, option, inside):
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(setup, "train_defence", lambda *args, **kwargs: seen.append(torch.get_num_threads()) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("compare", "--dataset", tiny, "--defence", "sce", *option)
    assert seen == [inside]
    assert torch.get_num_threads() == before


# ---------------------------------------------------------------------------------------------------------------- train


def test_train_writes_a_classifier_and_its_history(tiny, run):
    status, out, _ = run("train", "--defence", "mmc", "--dataset", tiny, "--epochs", 3, "--lr", 0.01, "--device", "cpu")
    assert status == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mmc-tiny.json", "mmc-tiny.pt", "mmc-tiny.run"]
    record = json.loads(Path("runs/mmc-tiny.json").read_text())
    classifier = load_classifier("runs/mmc-tiny.pt", device_type="cpu")
    data = load_dataset(tiny)
    correct = int((classifier.predict(data.x_test).argmax(axis=1) == data.y_test).sum())
    clean = record["clean_test_accuracy"]
    assert (clean["n"], clean["correct"], clean["accuracy"]) == (60, correct, correct / 60)
    assert clean["interval"][0] < correct / 60 < clean["interval"][1]
    assert f"clean test accuracy {100 * correct / 60:.1f} % (n = 60" in out
    assert [entry["epoch"] for entry in record["history"]] == [1, 2, 3]
    assert all(entry["val_accuracy"] is not None for entry in record["history"])
    assert (record["provenance"]["n_train"], record["n_validation"]) == (270, 30)
    assert record["provenance"]["recipe"]["rate"] == 0.01
    assert record["training_seconds"] > 0
    assert record["provenance"]["threads"] == 1
    assert out.splitlines()[0].split()[-1] == "val_accuracy"
    assert "says nothing about robustness" in out


def test_train_without_validation(tiny, run):
    status, out, err = run(
        *("train", "--defence", "pc", "--dataset", tiny, "--epochs", 2, "--batch-size", 100, "--validation", 0),
        *("--output", "deep/er/pc.model", "--quiet"),
    )
    assert (status, err) == (0, "")
    assert out.startswith("pc: clean test accuracy")
    record = json.loads(Path("deep/er/pc.json").read_text())
    assert (record["provenance"]["n_train"], record["n_validation"]) == (300, 0)
    assert record["provenance"]["recipe"]["batch_size"] == 100
    assert load_classifier("deep/er/pc.model").defence == "pc"


def _trained(run, defence, *line):
    """The parameters of a network that is hardly trained, and its record."""
    line = ("train", "--defence", defence, *line, "--optimizer", "sgd", "--lr", 1e-12, "--output", f"{defence}.pt")
    assert run(*line, "--epochs", 2, "--quiet")[0] == 0
    parameters = dict(load_classifier(f"{defence}.pt").model.named_parameters())
    return parameters, json.loads(Path(f"{defence}.json").read_text())


def test_a_training_begins_with_a_trained_network(tiny, run):
    """With its backbone, its scaling, and what follows that is the same layer: here nearly nothing is learned."""
    classifier = create_classifier("sce", "cnn", input_shape=(1, 8, 8), nb_classes=10, mean=0.3, std=0.5)
    classifier.save_checkpoint("given.pt")
    given = dict(classifier.model.named_parameters())
    backbone = {name for name in given if name.startswith("backbone.")}
    of_pc, record = _trained(run, "pc", "--dataset", tiny, "--init", "given.pt")
    assert all(torch.allclose(each, given[name], atol=1e-7) for name, each in of_pc.items())
    assert [epoch["stage"] for epoch in record["history"]] == ["pc", "pc"]  # its warm-up is behind it
    assert (record["backbone"], record["provenance"]["init"]["name"]) == ("cnn", "given")
    assert record["provenance"]["init"]["sha256"] == hashlib.sha256(Path("given.pt").read_bytes()).hexdigest()
    scaling = load_classifier("pc.pt").model.normalize
    assert (float(scaling.mean), float(scaling.std)) == (pytest.approx(0.3), 0.5)
    of_rce, _ = _trained(run, "rce", "--dataset", tiny, "--init", "given.pt")
    assert all(torch.allclose(of_rce[name], given[name], atol=1e-7) for name in backbone)
    assert not torch.allclose(of_rce["head.linear.weight"], given["head.linear.weight"], atol=1e-3)
    # a layer between backbone and centers comes along, other centers do not
    of_mmc, _ = _trained(run, "mmc", "--dataset", tiny, "--init", "rce.pt")
    of_mmlda, _ = _trained(run, "mmlda", "--dataset", tiny, "--init", "mmc.pt")
    assert all(torch.allclose(of_mmlda[name], each, atol=1e-7) for name, each in of_mmc.items())
    kept, drawn = load_classifier("mmc.pt").model.head.centers, "centers=random"
    _trained(run, "mmc", "--dataset", tiny, "--init", "mmc.pt", "--overwrite", "--set", drawn)
    assert not torch.allclose(load_classifier("mmc.pt").model.head.centers, kept, atol=1e-3)


@pytest.mark.parametrize(("begun", "resumed"), [("one.pt", "two.pt"), ("one.pt", None), (None, "two.pt")])
def test_a_run_does_not_go_on_as_if_begun_with_another_network(tiny, run, begun, resumed):
    for name in ("one.pt", "two.pt"):
        create_classifier("sce", "cnn", input_shape=(1, 8, 8), nb_classes=10).save_checkpoint(name)
    line = ("train", "--defence", "mmc", "--dataset", tiny, "--epochs", "1", "--quiet")
    first, other = (("--init", name) if name else ("--backbone", "cnn") for name in (begun, resumed))
    assert run(*line, *first)[0] == 0
    status, _, err = run(*line, *other, "--resume")
    assert status == 2
    assert is_one_error(err)
    assert "mmc-tiny.run holds another run: init" in err
    assert run(*line, *first, "--resume")[0] == 0


def test_a_training_begins_with_a_backbone_of_the_user_s(tiny, run):
    Path("usersnets.py").write_text(FACTORY)
    own = ("--factory", "usersnets:backbone", "--dataset", tiny)
    line = ("train", "--defence", "sce", *own, "--output", "given.pt", "--epochs", 1, "--quiet")
    assert run(*line)[0] == 0
    net = build_network("usersnets:backbone", (1, 8, 8), 10)
    given = dict(load_classifier("given.pt", net).model.named_parameters())
    line = ("train", "--defence", "pc", *own, "--init", "given.pt", "--optimizer", "sgd", "--lr", 1e-12, "--quiet")
    assert run(*line, "--epochs", 1, "--output", "pc.pt")[0] == 0
    net = build_network("usersnets:backbone", (1, 8, 8), 10)
    found = load_classifier("pc.pt", net).model.named_parameters()
    assert all(torch.allclose(each, given[name], atol=1e-7) for name, each in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--init", "nowhere.pt"), "no checkpoint at nowhere.pt"),
        (("--init", "mmc-mnits"), "no checkpoint at mmc-mnits, and unknown pretrained network 'mmc-mnits'"),
        (("--init", "mmc-mnist"), "mmc-mnist.pt takes inputs (1, 28, 28) of 10 classes"),
        (("--init", "given.pt", "--backbone", "cnn"), "--init brings its own backbone: leave --backbone and"),
        (("--init", "given.pt", "--activation", "silu"), "--init brings its own backbone: leave --backbone and"),
    ],
)
def test_a_network_to_begin_with_that_does_not_fit_is_a_line(tiny, run, line, message):
    create_classifier("sce", "cnn", input_shape=(1, 8, 8), nb_classes=10).save_checkpoint("given.pt")
    status, out, err = run("train", "--defence", "pc", "--dataset", tiny, *line)
    assert (status, out) == (2, "")
    assert is_one_error(err)
    assert message in err


# ------------------------------------------------------------------------------------------------------ lists and help


@pytest.mark.parametrize(("command", "names"), [("defences", DEFENCES), ("recipes", RECIPES), ("backbones", BACKBONES)])
def test_lists(run, command, names):
    status, out, _ = run(command)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(names)
    assert sorted(ORDER) == sorted(DEFENCES)  # all rows are compared by default


def test_version_and_help(run):
    assert run("--version") == (0, f"art-mmc {art_mmc.__version__}\n", "")
    status, out, _ = run("--help")
    assert status == 0
    assert "examples:\n  art-mmc compare " in out
    assert run("compare", "--help")[0] == run("train", "--help")[0] == 0


@pytest.mark.processes
def test_help_and_errors_of_usage_import_nothing_heavy():
    code = (
        "import sys\n"
        "from art_mmc.cli import main\n"
        "lines = ('--help', 'compare --help', 'compare --eps 8', 'train', '--nope')\n"
        "lines += ('evaluate --help', 'report --help', 'reproduce --help', 'evaluate x.pt --eps x', 'reproduce')\n"
        "assert [main(line.split()) for line in lines] == [0, 0, 2, 2, 2, 0, 0, 0, 2, 2]\n"
        "assert not {'torch', 'art', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# --------------------------------------------------------------------------------------------------------------- errors

#: what is typed -> what is told; before any training or attack
MISTAKES = {
    "": "a command is needed: compare, train, evaluate, report, reproduce, detect, inspect, bench, defences, recipes,",
    "comapre": "unknown command 'comapre'. Did you mean 'compare'?",
    "--quiet": "unknown option '--quiet'",
    "compare --epoch 3": "unknown option '--epoch'. Did you mean '--epochs'?",
    "compare digits": "unexpected argument 'digits'; see art-mmc compare --help",
    "compare --eps": "argument --eps: expected one argument",
    "compare --eps 8": "--eps: expected a number in (0, 1], inputs being in [0, 1], got 8; did you mean 8/255?",
    "compare --eps much": "--eps: expected a number such as 0.1 or 8/255, got 'much'",
    "compare --eps 1/0": "--eps: expected a number such as 0.1 or 8/255, got '1/0'",
    "compare --eps ,": "--eps: expected a number such as 0.1 or 8/255, got none",
    "compare --defence mmcc": "unknown defence 'mmcc'. Did you mean 'mmc'?",
    "compare --dataset mnits": "unknown data set 'mnits'. Did you mean 'mnist'?",
    "compare --dataset mnist": "mnist: data_dir is needed",
    "compare --dataset mnist --data-dir nowhere": "mnist not found under nowhere",
    "compare --dataset none.npz": "none.npz not found",
    "compare --dataset damaged.npz": "damaged.npz is damaged",
    "compare --recipe li20": "unknown recipe 'li20'. Did you mean 'li2021'?",
    "compare --backbone lenet": "unknown backbone 'lenet'. Did you mean 'lenet5'?",
    "compare --epochs -3": "argument --epochs: expected a whole number of at least 1, got '-3'",
    "compare --seed -1": "argument --seed: expected a whole number from 0 to 4294967295, got '-1'",
    "compare --threads 100000": "argument --threads: expected a whole number from 1 to 1024, got '100000'",
    "compare --device tpu": "argument --device: invalid choice: 'tpu'",
    **{
        f"compare --device {name}": f"--device {name}: torch finds no CUDA device here; use --device cpu"
        for name in ("gpu", "cuda")
        if not torch.cuda.is_available()
    },
    "compare --dataset two.npz --defence sce,gce": "defence 'gce' needs at least 3 classes",
    "compare --output mine": "mine/report.json was not written by art-mmc, and is not replaced",
    "evaluate mmc.pt --output mine": "mine/report.json was not written by art-mmc, and is not replaced",
    "detect --output page": "page/report.md was not written by art-mmc, and is not replaced",
    "bench --only losses --output mine": "mine/bench.json was not written by art-mmc, and is not replaced",
    "compare --output file/report": "file is a file, where a folder is needed; take another place",
    "train": "the following arguments are required: --defence",
    "train --defence mmc,sce": "unknown defence 'mmc,sce'",
    "train --defence mmc --lr fast": "argument --lr: expected a positive number, got 'fast'",
    "train --defence mmc --batch-size 0": "argument --batch-size: expected a whole number of at least 1",
    "train --defence mmc --validation 1": "argument --validation: expected a share in [0, 1), got '1'",
    "train --defence mmc --validation 0.001": "size: expected 10 to",
    "train --defence mmc --eps 0.1": "--eps and its like are settings of --adversarial",
    "train --defence mmc --adversarial pgd --eps 8": "did you mean 8 / 255?",
    "train --defence sce --scale-rate": "--scale-rate scales the recipe's rate: it needs --batch-size",
    "train --defence sce --scale-rate --batch-size 32 --lr 0.1": "has no use beside --lr",
    "train --defence sce --adversarial pgd --adv-ratio 2": "argument --adv-ratio: expected a share in (0, 1], got '2'",
    "train --defence sce --adversarial pgd --eps-max 0.3": "option of training attack 'pgd': 'eps_max'",
    "train --defence sce --augmentation flop": "unknown augmentation 'flop'. Did you mean 'flip'?",
    "train --defence sce --activation soft_plus": "unknown activation 'soft_plus'. Did you mean 'softplus'?",
    "train --defence mmc --set scael=3": "Did you mean 'scale'?",
    "train --defence mmc --factory usersnets:plain": "the last layer of the backbone is linear with 10 outputs",
    "train --defence mmc --factory usersnets": "--factory: expected module:function, got 'usersnets'",
    "compare --factory usersnets:pair": "--factory usersnets:pair: wrap_backbone: expected one tensor of features",
    "compare --factory usersnets:backbone --backbone cnn": "--factory takes the place of --backbone",
    "train --defence mmc --factory usersnets:backbone --activation silu": "--activation is for the backbones of this",
    "detect --factory failing:net": "--factory failing:net: ZeroDivisionError: division by zero (failing.py, 6)",
    **{
        f"train --defence sce --set {name}={value}": f"unknown option of defence 'sce': '{name}'"
        for name, value in {"seed": 3, "mean": 0.5, "nb_classes": 10, "optimizer": "adam", "loss": 1, "": 3}.items()
    },
    "train --defence sce --set label_smoothing=abc": "label_smoothing: expected a number in [0, 1], got 'abc'",
    "train --config date.toml": "--config date.toml: set: scale: expected",
    "train --config when.toml": "--config when.toml: epochs: expected a string, a number or true, got datetime.date",
    "train --config unknown.toml": "unknown defence 'mmmc'",
    "train --config switch.toml": "argument --quiet: ignored explicit argument '3'",
    "train --defence rce --set weight=[1,2]": "weight: expected 10 numbers, one a class, got 2.",
    "train --defence mmc --keep best --validation 0": "need a --validation share",
    "train --defence mmc --output file/mmc.pt": "file is a file, where a folder is needed; take another place",
    "train --defence mmc --output taken.pt": "taken.run is a file, where a folder is needed; take another place",
    "train --defence mmc --output .": ". is a folder; --output names a file",
    "train --defence mmc --output mmc.json": "name the classifier's file .pt",
    "evaluate": "the following arguments are required: CHECKPOINT",
    "evaluate none.pt": "no checkpoint at none.pt",
    "evaluate mmc-mnst": "no checkpoint at mmc-mnst, and unknown pretrained network 'mmc-mnst'. Did you mean",
    "evaluate mmc-mnist --dataset digits": "data set digits has (1, 8, 8) of 10",
    "evaluate pickled.pth": "pickled.pth is damaged, or holds more than weights, which is not read for it might run",
    "train --defence isce --set scale=null": "scale: expected a finite number, got None",
    "evaluate usersnets.py": "for a state dict of your own give --factory module:function",
    "evaluate net.pth": "for a state dict of your own give --factory module:function",
    "evaluate net.pth --factory nomodule:plain": "--factory nomodule:plain: No module named 'nomodule'",
    "evaluate net.pth --factory usersnets:plian": "module 'usersnets' has no function 'plian'",
    "evaluate net.pth --factory usersnets:nothing": "expected a torch.nn.Module, got NoneType",
    "evaluate net.pth --factory usersnets:wrong_size": "net.pth does not fit the network",
    "evaluate few.pth --factory usersnets:too_few": "gives (2, 9) for two images, expected logits of shape (2, 10)",
    "evaluate net.pth --factory badly:anything": "--factory badly:anything: SyntaxError: ",
    "evaluate net.pth --factory failing:net": "--factory failing:net: ZeroDivisionError: division by zero (failing",
    "evaluate net.pth --factory failing:leaves": "--factory failing:leaves: SystemExit: 3 (failing.py, 9)",
    "evaluate net.pth --factory failing:Net": "fails on images of shape (2, 1, 8, 8): KeyError: 'no' (failing",
    "evaluate broken.ts": "broken.ts is damaged",
    "evaluate flipped.ts": "flipped.ts is damaged",
    "evaluate nested.pth --factory usersnets:wrong_size": "nested.pth does not fit the network",
    "evaluate flipped.pth --factory usersnets:plain": "flipped.pth is damaged: bad checksum",
    "evaluate mmc.pt --substitute wide.pt": "wide.pt takes inputs in [0, 255], not in [0, 1] as",
    "evaluate wide.pt --substitute mmc.pt": "mmc.pt takes inputs in [0, 1], not in [0, 255] as",
    "reproduce li2021-table1 --dataset mnist.npz --checkpoint pc=wide.pt": "wide.pt takes inputs in [0, 255]",
    "detect --checkpoint wide.pt": "wide.pt takes inputs in [0, 255]",
    "inspect wide.pt": "wide.pt takes inputs in [0, 255]",
    "evaluate nan.pt": "nan.pt: 1 of 64 values of backbone.",
    "evaluate nan.pth --factory usersnets:plain": "nan.pth: 1 of 10 values of head.bias are nan or infinite",
    "evaluate mmc.pt --suite srtong": "unknown suite 'srtong'. Did you mean 'strong'?",
    "evaluate mmc.pt --suite quick --rounds 3": "suite 'quick' does not go on in rounds",
    "evaluate mmc.pt --norm 1": "argument --norm: invalid choice: '1'",
    "evaluate mmc.pt --norm 2": "--norm 2 needs --eps",
    "evaluate mmc.pt --norm 2 --eps 1 --suite li2021": "the paper's attacks are in the L-inf norm",
    "evaluate mmc.pt --quirk eps256": "suite 'standard' has no quirk 'eps256'",
    "evaluate mmc.pt --fail-under 30": "argument --fail-under: expected a share in [0, 1], got '30'",
    "evaluate mmc.pt --curves -1": "argument --curves: expected a whole number of at least 0",
    "evaluate mmc.pt --dataset large.npz": "takes inputs (1, 8, 8) of 10 classes, data set large.npz has (1, 9, 9)",
    "evaluate mmc.pt --substitute none.pt": "no checkpoint at none.pt",
    "evaluate mmc.pt --epochs 3": "unknown option '--epochs'",
    "report": "the following arguments are required: RECORD.json",
    "report none.json --output out": "none.json: No such file or directory",
    "report usersnets.py --output out": "usersnets.py is damaged, or no report of art_mmc",
    "report none.json": "the following arguments are required: --output",
    "reproduce": "the following arguments are required: TABLE",
    "reproduce pang2020-table4": "unknown table 'pang2020-table4'. Did you mean",
    "reproduce pang2018-table1": "pang2018-table1 has nothing that could be attacked",
    "reproduce li2021-table1": "mnist: data_dir is needed",
    "reproduce li2021-table1 --dataset digits": "has figures for mnist, kmnist, fashion-mnist, cifar10, svhn, not",
    "reproduce li2021-table1 --data-dir data --defence mcm": "unknown method of li2021-table1 'mcm'",
    "reproduce li2021-table1 --data-dir data --worst-case srtong": "unknown suite 'srtong'. Did you mean 'strong'?",
    "reproduce pang2018-table2 --data-dir data --worst-case strong": "--worst-case is no option of a table",
    "reproduce li2021-table1 --data-dir data --checkpoint pc": "--checkpoint: expected NAME=FILE, got 'pc'",
    "reproduce li2021-table1 --data-dir data --checkpoint pc=none.pt": "no checkpoint at none.pt",
    "reproduce li2021-table1 --data-dir data --checkpoint pc=usersnets.py": "is damaged",
    "reproduce li2021-table1 --data-dir data --epoch-share 0": (
        "argument --epoch-share: expected a positive number, got '0'"
    ),
    "reproduce li2021-table1 --data-dir data --attack-share 0.1": "--attack-share is for tables of detectors",
    "reproduce pang2018-table3 --data-dir data --attack-share 2": "--attack-share: expected a share",
    "reproduce li2021-table1 --data-dir data --quirk eps256": "suite 'li2021-table1' has no quirk 'eps256'",
    "reproduce pang2018-table2 --data-dir data --eps 0.1": "--eps is no option of a table of detectors",
    "reproduce pang2018-table2 --data-dir data --defence mmc": "unknown method of pang2018-table2 'mmc'",
    "detect --detector kd": "unknown detector 'kd'",
    "detect --attack fsgm": "unknown attack 'fsgm'. Did you mean 'fgsm'",
    "detect --attack cw-wb --detector lid": "--attack cw-wb attacks the kernel density",
    "detect --detector center-distance": "has no centers",
    "detect --eps 0.1,0.2": "--eps: expected a number such as 0.1 or 8/255, got '0.1,0.2'",
    "detect --bandwidth wide": "--bandwidth: expected a number, paper or cross-validation",
    "detect --attack-share 2": "--attack-share: expected a share in (0, 1], got '2'",
    "detect --fpr 0": "--fpr: expected a share in (0, 1), got '0'",
    "detect --checkpoint none.pt": "no checkpoint at none.pt",
    "detect --checkpoint none.pt --epochs 3": "--checkpoint takes the place of training",
    "detect --checkpoint mmc.pt --dataset large.npz": "takes inputs (1, 8, 8) of 10 classes, data set large.npz has",
    "detect --checkpoint mmc.pt --checkpoint ./mmc.pt": "two checkpoints would both be called",
    "inspect": "arguments are required: CHECKPOINT",
    "inspect none.pt": "no checkpoint at none.pt",
    **dict.fromkeys(
        (
            "inspect mmc-mnist --dataset mnist-sample",
            "detect --checkpoint mmc-mnist --dataset mnist-sample",
            "train --defence mmc --dataset mnist-sample",
            "compare --dataset mnist-sample",
        ),
        "mnist-sample has test images alone, on which nothing is trained or fitted: take the whole data set, --data",
    ),
    "inspect mmc-mnist": "mnist: data_dir is needed",
    "inspect mmc.pt --dataset large.npz": "takes inputs (1, 8, 8) of 10 classes, data set large.npz has (1, 9, 9)",
    "inspect mmc.pt --nb-test 0": "expected a whole number of at least 3",
    "inspect mmc.pt mmc.pt": "both be called",
    "inspect bad/mmc.pt": "no history of a training",
    "inspect mmc.pt --output file": "file",
    "inspect mmc.pt --nb-test 30 --nb-train 200 --neighbours 60": "mmc: class",
    "inspect mmc.pt --nb-test 30 --nb-train 200 --components 65": "from 1 to 64, the features' width, got 65",
    "inspect flat.pt --nb-test 30 --nb-train 200": "flat: the class means coincide",
}


FAILING = """import sys
import usersnets

def net():
    zero = 0
    return 1 / zero

def leaves():
    sys.exit(3)

class Net(usersnets.Net):
    def __init__(self):
        super().__init__(64, 10)

    def forward(self, x):
        return {}["no"]
"""


#: a backbone that does its work so many times
TIRED = """
import torch

class Net(torch.nn.Module):
    seen = 0

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 16)

    def forward(self, x):
        Net.seen += 1
        if Net.seen > {seen}: raise KeyError("too tired")
        return self.layer(x.flatten(1)).relu()

def backbone():
    return Net()
"""


#: files that something is wrong with
ODD = {
    "file": "",
    "taken.run": "mine",
    "damaged.npz": "no zip",
    "usersnets.py": FACTORY,
    "badly.py": "def net(:\n",
    "failing.py": FAILING,
    "date.toml": 'defence = "mmc"\n[set]\nscale = 2020-01-01\n',
    "when.toml": 'defence = "mmc"\nepochs = 2020-01-01\n',
    "unknown.toml": 'defence = "mmmc"\n',
    "switch.toml": 'defence = "mmc"\nquiet = 3\n',
    "page/report.md": "my thesis",
    **dict.fromkeys(("mine/report.json", "mine/bench.json"), '{"mine": true}'),
    "bad/mmc.json": "{",
}


@pytest.fixture(scope="module")
def odds(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path) -> Path:
    """A folder of such files, of networks with something wrong, and of a few that are right."""
    folder = tmp_path_factory.mktemp("odds")
    for name in ("bad", "mine", "page"):
        (folder / name).mkdir()
    for name, text in ODD.items():
        (folder / name).write_text(text)
    (folder / "data").symlink_to(mnist_folder)
    x, y = np.zeros((20, 9, 9), np.float32), np.arange(20) % 10
    np.savez(folder / "large.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    tiny = np.zeros((20, 8, 8), np.float32)
    np.savez(folder / "mnist.npz", x_train=tiny, y_train=y, x_test=tiny, y_test=y)
    np.savez(folder / "two.npz", x_train=x, y_train=y % 2, x_test=x, y_test=y % 2)
    with torch.random.fork_rng():
        mmc = create_classifier("mmc", "cnn", input_shape=(1, 8, 8), nb_classes=10, device_type="cpu")
    for place in (folder, folder / "bad"):
        mmc.save_checkpoint(place / "mmc.pt")
    with torch.no_grad():
        for parameter in mmc.model.backbone.parameters():
            parameter.zero_()
    mmc.save_checkpoint(folder / "flat.pt")
    box = {"input_shape": (1, 8, 8), "nb_classes": 10, "clip_values": (0.0, 255.0), "device_type": "cpu"}
    create_classifier("sce", "cnn", **box).save_checkpoint(folder / "wide.pt")
    torch.save(NETS["plain"]().state_dict(), folder / "net.pth")
    torch.save(NETS["too_few"]().state_dict(), folder / "few.pth")
    torch.save(torch.nn.Sequential(torch.nn.Linear(64, 10)), folder / "pickled.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(NETS["plain"]().eval(), torch.zeros(2, 1, 8, 8)).save(str(folder / "net.ts"))
    (folder / "broken.ts").write_bytes((folder / "net.ts").read_bytes()[:-1000])
    for name in ("net.ts", "net.pth"):
        raw = (folder / name).read_bytes()
        with zipfile.ZipFile(folder / name) as archive:
            largest = max(archive.infolist(), key=lambda each: each.file_size)
            middle = raw.index(archive.read(largest)) + largest.file_size // 2
        flipped = raw[:middle] + bytes([raw[middle] ^ 0x10]) + raw[middle + 1 :]
        (folder / f"flipped{Path(name).suffix}").write_bytes(flipped)
    torch.save({"net": NETS["plain"]().state_dict(), "acc": 90.1, "epoch": 3}, folder / "nested.pth")
    torch.save({**NETS["plain"]().state_dict(), "head.bias": torch.tensor([math.inf] + [0.0] * 9)}, folder / "nan.pth")
    mmc.model.backbone.get_parameter([*mmc.model.backbone.state_dict()][-1]).data[0] = math.nan
    mmc.save_checkpoint(folder / "nan.pt")
    return folder


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line(run, odds, tmp_path, monkeypatch, line):
    """And it comes before any training or attack."""
    for file in odds.iterdir():
        (tmp_path / file.name).symlink_to(file)

    def begin(*args, **kwargs):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("art_mmc.studies.setup.train_defence", begin)
    for place in ("evaluate", "reproduce"):
        monkeypatch.setattr(f"art_mmc.studies.{place}.assess", begin)
    monkeypatch.setattr("art_mmc.studies.detect.run_detection_study", begin)
    status, out, err = run(*line.split())
    assert (status, out) == (2, "")
    assert is_one_error(err), err
    assert MISTAKES[line] in err


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [("detect --budget 0.01", "attack_share", 0.01), ("reproduce pang2020-table1 --budget 3", "epoch_share", 3.0)],
)
def test_names_that_flags_had_before(line, name, value):
    assert getattr(build_parser().parse_args(line.split()), name) == value


def test_a_folder_that_cannot_be_written(run, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    told = "art-mmc: error: there: no file can be written there (Read-only file system)\n"
    assert run("train", "--defence", "mmc", "--output", "there/mmc.pt") == (2, "", told)


def test_diverged_training_is_a_line(tiny, run):
    status, _, err = run("train", "--defence", "mmc", "--dataset", tiny, "--epochs", 2, "--lr", 1e30, "--quiet")
    assert status == 2
    assert is_one_error(err)
    assert "the training loss is nan" in err
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]


def test_ctrl_c_is_a_line_and_leaves_no_file(tiny, run, monkeypatch):
    monkeypatch.setattr("art_mmc.studies.train.training_summary", interrupt)
    status, _, err = run("train", "--defence", "mmc", "--dataset", tiny, "--epochs", 1, "--quiet")
    assert (status, err) == (130, "art-mmc: interrupted\n")
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert not [path for path in files if path.parent.suffix != ".run"]  # the training's checkpoints stay


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError])
@pytest.mark.parametrize("place", ["studies.compare.evaluate_robustness", "trainers.LossTrainer.fit"])
def test_a_bug_keeps_its_traceback(tiny, run, monkeypatch, place, error):
    """And in a training it is no divergence."""

    def fail(*args, **kwargs):
        raise error("planted")

    monkeypatch.setattr(f"art_mmc.{place}", fail)
    with pytest.raises(error, match="planted"):
        run("compare", "--defence", "sce", "--dataset", tiny, "--epochs", 1, "--quiet")


def test_a_report_that_cannot_be_written_is_a_line(tiny, run, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    status, _, err = run("compare", "--defence", "sce", "--dataset", tiny, "--epochs", 1, "--steps", 1, "--quiet")
    assert (status, is_one_error(err)) == (2, True)
    assert err.endswith(": No space left on device\n")
    assert not [path for path in Path("runs/compare").rglob("*") if path.is_file()]


def test_a_disk_that_is_full_while_training_is_a_line(tiny, run):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        status, _, err = run("train", "--defence", "sce", "--dataset", tiny, "--epochs", 1, "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (status, err) == (2, "art-mmc: error: runs/sce-tiny.run/best.pt: File too large\n")


def test_names_with_a_dot_have_files_of_their_own(tiny, run):
    """In a folder in which a user's own page and table lie, and stay."""
    theirs = {"report.md": "mine", "attacks.csv": "a,b"}
    for file, text in theirs.items():
        Path(file).write_text(text)
    for name in ("mmc-eps0.1", "mmc-eps0.3", "net.pt"):
        assert run("train", "--defence", "mmc", "--dataset", tiny, "--epochs", 1, "--quiet", "--output", name)[0] == 0
    names = {f"{name}{ending}" for name in ("mmc-eps0.1", "mmc-eps0.3") for ending in ("", ".json", ".run")}
    assert {path.name for path in Path().iterdir()} == names | {"net.pt", "net.json", "net.run"} | theirs.keys()
    assert all(Path(file).read_text() == text for file, text in theirs.items())
    assert find_history("mmc-eps0.1") == Path("mmc-eps0.1.json")
    assert find_history("net.pt") == Path("net.json")


@pytest.mark.parametrize("name", ["net.pt", "net.json"])
@pytest.mark.parametrize("kind", ["file", "link", "device"])
def test_what_was_not_written_here_is_not_replaced(tiny, run, name, kind):
    if kind == "file":
        Path(name).write_text('{"mine": true}')
    elif kind == "link":
        Path(name).symlink_to("elsewhere")
    else:
        os.mkfifo(name)
    before = os.lstat(name)[:7]  # but for the time at which it was last read
    status, _, err = run("train", "--defence", "sce", "--dataset", tiny, "--epochs", 1, "--output", "net.pt")
    assert status == 2
    assert is_one_error(err)
    assert f"{name} {'is a link' if kind == 'link' else 'was not written by art-mmc'}, and is not replaced" in err
    assert os.lstat(name)[:7] == before
    assert [path.name for path in Path().iterdir()] == [name]


def test_an_unfinished_run_is_kept_unless_told_otherwise(tiny, run, monkeypatch):
    line = ("train", "--defence", "sce", "--dataset", tiny, "--epochs", 3, "--quiet", "--output", "net.pt")
    close = LossTrainer._run_stage

    def stop(self, job, position, name, epochs):
        close(self, job, position, name, 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LossTrainer, "_run_stage", stop)
        assert run(*line)[0] == 130
    before = Path("net.run/last.pt").read_bytes()
    told = "net.run holds an unfinished run, after 2 epochs: --resume goes on with it, --overwrite begins anew"
    assert run(*line) == (2, "", f"art-mmc: error: {told}\n")
    assert Path("net.run/last.pt").read_bytes() == before
    assert run(*line, "--resume")[0] == run(*line)[0] == 0  # what is finished may be done again
    Path("net.run/last.pt").write_bytes(before)
    assert run(*line, "--overwrite")[0] == 0
    assert len(json.loads(Path("net.json").read_text())["history"]) == 3


def test_of_two_runs_at_once_to_one_place_the_second_is_refused(tiny, run):
    more = ("--dataset", tiny, "--epochs", 1, "--quiet", "--output")
    with contextlib.ExitStack() as stack:
        for place in (Path("net.run"), Path("out")):  # as another process holds them
            place.mkdir()
            handle = os.open(place, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        data = load_dataset(tiny)
        own = create_classifier("sce", "cnn", input_shape=(1, 8, 8), nb_classes=10)
        trainer = LossTrainer(own, folder="net.run")
        with pytest.raises(BlockingIOError, match="another run is writing there"):
            trainer.fit(data.x_train, data.y_train, nb_epochs=1)
        for line in (("train", "--defence", "sce", *more, "net.pt"), ("compare", "--defence", "sce", *more, "out")):
            status, _, err = run(*line)
            assert status == 2
            assert is_one_error(err)
            assert "another run is writing there" in err
        assert run("train", "--defence", "sce", *more, "other.pt")[0] == 0
    assert run("train", "--defence", "sce", *more, "net.pt")[0] == 0


@pytest.mark.parametrize("seen", [6, 60])
def test_what_fails_in_a_user_s_network_later_on_is_a_line_with_its_place(tiny, run, seen):
    """In training, and in the attacks."""
    Path("tired.py").write_text(TIRED.format(seen=seen))
    sys.modules.pop("tired", None)
    line = ("compare", "--defence", "sce", "--dataset", tiny, "--epochs", 1, "--steps", 99, "--eps", 0.1, "--quiet")
    status, out, err = run(*line, "--factory", "tired:backbone")
    assert (status, out) == (2, "")
    assert is_one_error(err)
    assert err.endswith("KeyError: 'too tired' (tired.py, 13)\n")
    assert ("attack 'PGD own loss' at eps 0.1 failed" in err) == (seen > 6)


def test_a_backbone_of_the_user_s_own_is_trained_compared_and_evaluated(tiny, run):
    Path("usersnets.py").write_text(FACTORY)
    own = ("--factory", "usersnets:backbone", "--dataset", tiny, "--quiet")
    line = ("train", "--defence", "pc", *own, "--output", "own.pt", "--adversarial", "fast", "--eps", "0.05")
    status, out, _ = run(*line, "--epochs", 2)
    assert status == 0
    assert json.loads(Path("own.json").read_text())["backbone"] == "usersnets:backbone"
    before = json.loads(Path("own.json").read_text())["history"]
    assert run(*line, "--epochs", 3, "--resume")[0] == 0
    record = json.loads(Path("own.json").read_text())
    assert (record["extended_after_epochs"], record["history"][:2]) == ([2], before)
    line = ("evaluate", "own.pt", *own, "--suite", "quick", "--eps", 0.1, "--no-diagnostics", "--curves", 0)
    status, out, _ = run(*line, "--fail-under", 0.0)
    assert status == 1
    assert "failed, 60 images say too little, at least 100 are needed (--min-n) and there is no verdict" in out
    assert run("compare", *own, "--defence", "sce", "--epochs", 1, "--steps", 1, "--eps", 0.1)[0] == 0
    assert load_report("runs/compare/report.json").provenance["backbone"] == "usersnets:backbone"


def test_the_defence_may_stand_in_the_config(tiny, run):
    Path("run.toml").write_text(f'defence = "mmc"\nepochs = 1\nquiet = true\ndataset = "{tiny}"\n')
    assert run("train", "--config", "run.toml")[0] == 0
    assert load_classifier("runs/mmc-tiny.pt").defence == "mmc"
    assert run("train", "--config=run.toml", "--defence", "sce")[0] == 0
    assert load_classifier("runs/sce-tiny.pt").defence == "sce"


# ----------------------------------------------------------------------------------------------- below the command line


def test_default_backbones(colour):
    assert default_backbone((1, 8, 8)) == "cnn"
    assert default_backbone((1, 28, 28)) == "lenet5"
    assert default_backbone((3, 32, 32)) == "resnet20"
    assert default_backbone((1, 28, 28), get_recipe("default")) == "lenet5"
    assert default_backbone((1, 28, 28), get_recipe("pang2020-mnist")) == RECIPES["pang2020-mnist"].backbone


def test_default_eps(colour, tiny):
    assert default_eps(load_dataset(tiny)) == (0.05, 0.1, 0.15, 0.2)
    assert default_eps(colour) == (2 / 255, 4 / 255, 8 / 255, 16 / 255)


def test_grey_is_not_normalised_inside_the_network(tiny):
    """As colour is, by default: see the next test."""
    grey = build_classifier("sce", load_dataset(tiny), "cnn").model.normalize
    assert (float(grey.mean), float(grey.std)) == (0, 1)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("pang2020-cifar10", lambda x, data: x - data.x_train.mean(axis=0, dtype=np.float64)),
        ("pang2020-cifar10-at-small", lambda x, data: x - data.x_train.mean(axis=0, dtype=np.float64)),
        ("pang2018-cifar10", lambda x, data: x - 0.5),
        ("li2021-cifar10", lambda x, data: x),
        ("default", lambda x, data: (x - np.reshape(data.mean, (3, 1, 1))) / np.reshape([*data.std[:2], 1], (3, 1, 1))),
    ],
)
def test_inputs_are_scaled_as_the_recipe_says_and_again_after_loading(colour, recipe, expected, tmp_path):
    recipe = replace(get_recipe(recipe), nb_epochs=1, warmup_epochs=0, milestones=(), augmentation=None, attack=None)
    classifier = train_defence("sce", colour, recipe, backbone="cnn", verbose=False).classifier
    classifier.save_checkpoint(tmp_path / "net.pt")
    x = colour.x_test[:5]
    for each in (classifier, load_classifier(tmp_path / "net.pt")):
        np.testing.assert_allclose(each.model.normalize(torch.as_tensor(x)), expected(x, colour), atol=2e-6)


def test_weights_follow_the_seed_and_are_the_same_for_each_defence(colour):
    with left_alone():
        sce, pc, other = (build_classifier(n, colour, "cnn", seed) for n, seed in (("sce", 1), ("pc", 1), ("sce", 2)))
    pairs = list(zip(sce.model.state_dict().items(), pc.model.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for (_, a), b in pairs)
    assert not torch.equal(next(sce.model.parameters()), next(other.model.parameters()))


def test_choice_of_test_images(tiny):
    data = load_dataset(tiny)
    np.testing.assert_array_equal(choose_test_images(data, None), np.arange(60))
    np.testing.assert_array_equal(choose_test_images(data, 100), np.arange(60))
    chosen = choose_test_images(data, 20, seed=1)
    assert len(np.unique(chosen)) == 20
    np.testing.assert_array_equal(chosen, choose_test_images(data, 20, seed=1))
    assert not np.array_equal(chosen, choose_test_images(data, 20, seed=2))
    with pytest.raises(ValueError, match="nb_test: expected a whole number of at least 1"):
        choose_test_images(data, 0)


def test_the_help_names_all_there_is():
    pages = {name: " ".join(page(name).values()) for name in ("evaluate", "detect")}
    for name in SUITES:
        assert name.rstrip("0123456789") in pages["evaluate"], name
    for name in (*DETECTORS, *ATTACKS):
        assert name in pages["detect"], name
