"""Long work is safe: checkpoints, Ctrl-C, kill -9, and a resumed run that equals an uninterrupted one bit for bit."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import signal
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.data_generators import NumpyDataGenerator
from torch.nn.functional import leaky_relu
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR

from art_mmc import MMCClassifier, load_classifier
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.cli import main
from art_mmc.models import create_backbone
from art_mmc.trainers import (
    FGSM,
    PGD,
    TRADES,
    AdversarialLossTrainer,
    ARTAttack,
    LossTrainer,
    TrainingInterrupted,
    create_trainer,
    get_recipe,
)
from art_mmc.trainers.run_folder import RunMismatchError
from tests.planted import plain
from tests.training import dense, forked, make, stop_at, wait_for, weights

SETTINGS = {
    "mmc-clean": ("mmc", None, {"augmentation": "crop-flip", "recipe": "default"}),
    "mmc-pgd-ema-best": ("mmc", PGD(0.1, steps=2), {"averaging": "ema", "augmentation": "crop-flip", "keep": "best"}),
    "center-trades": ("center", TRADES(0.1, steps=2), {}),
    "pc-fgsm-warm-up-swa": ("pc", FGSM(0.05, 0.1), {"warmup_epochs": 1, "averaging": "swa"}),
    "sce-art-attack": ("sce", "art", {"adv_ratio": 0.5}),
    "pc-warm-up-recipe": ("pc", None, {"recipe": "li2021-mnist"}),
    "sce-plateau": ("sce", None, {}),
}
DEFAULT = ("mmc-pgd-ema-best", "pc-warm-up-recipe", "sce-plateau")
EPOCHS, BATCHES, N = 4, 5, 75


def make_trainer(setting, folder=None, seed=0):
    name, attack, kwargs = SETTINGS[setting]
    classifier = make(name, "dense", seed)
    kwargs = {**kwargs, "seed": 1, "verbose": False, "folder": folder}
    if attack is None:
        trainer = create_trainer(classifier, **kwargs)
        if setting == "sce-plateau":
            plateau = partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.5)
            trainer.fit = partial(trainer.fit, scheduler=plateau)
        return trainer
    if attack == "art":
        settings = {"eps": 0.1, "eps_step": 0.05, "max_iter": 2, "num_random_init": 1, "verbose": False}
        attack = ARTAttack(ProjectedGradientDescent(classifier, **settings))
    return AdversarialLossTrainer(classifier, attack, **kwargs)


def fit(trainer, data, resume=False, epochs=EPOCHS):
    x, y, validation = data.x_train[:N], data.y_train[:N], (data.x_test[:20], data.y_test[:20])
    trainer.fit(x, y, validation, batch_size=16, nb_epochs=epochs, resume=resume)


def test_a_run_of_another_device_goes_on(data, tmp_path, caplog):
    """The state of a CUDA generator is 16 bytes long, a CPU's 5056: of a GPU's file the CPU takes all but that."""
    first = make_trainer("mmc-pgd-ema-best", tmp_path)
    stop_at(first, BATCHES + 2)
    with pytest.raises(TrainingInterrupted):
        fit(first, data)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    saved["training"]["noise"] = torch.arange(16, dtype=torch.uint8)
    saved["training"]["processes"][0]["cuda"] = torch.arange(16, dtype=torch.uint8)
    torch.save(saved, tmp_path / "last.pt")
    second = make_trainer("mmc-pgd-ema-best", tmp_path)
    fit(second, data, resume=True)
    assert "another kind of device" in caplog.text
    whole = make_trainer("mmc-pgd-ema-best")
    fit(whole, data)
    assert second.history[0]["loss"] == whole.history[0]["loss"]
    # the order of the images is the same, random starts are others
    assert [record["loss"] for record in second.history] == pytest.approx(
        [record["loss"] for record in whole.history], rel=0.05
    )
    assert second.history[-1]["loss"] != whole.history[-1]["loss"]


@pytest.mark.parametrize(
    "setting",
    [pytest.param(each, marks=[] if each in DEFAULT else [pytest.mark.thorough]) for each in SETTINGS],
)
def test_interrupted_anywhere_a_run_goes_on_as_if_never_stopped(setting, data, tmp_path):
    whole = make_trainer(setting)
    fit(whole, data)
    if setting == "sce-plateau":
        assert len({record["rate"] for record in whole.history}) > 1
    more = (1, 3, BATCHES, 2 * BATCHES, 4 * BATCHES - 1) if setting == "mmc-pgd-ema-best" else ()
    for batch in (2 * BATCHES + 2, *more):
        folder = tmp_path / str(batch)
        first = make_trainer(setting, folder)
        stop_at(first, batch)
        with pytest.raises(TrainingInterrupted, match="resume=True"):
            fit(first, data)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        second = make_trainer(setting, folder, seed=5)
        fit(second, data, resume=True)
        assert torch.equal(weights(second), weights(whole)), batch
        for one, other in zip(second.history, whole.history, strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_seconds_are_those_of_all_sessions(data, tmp_path, monkeypatch):
    """By a clock on which only a batch takes time, one second; also where an older version saved the state."""
    now = [0.0]
    monkeypatch.setattr("art_mmc.trainers.loss_trainer.time.perf_counter", lambda: now[0])

    def session(batch=None):
        trainer = make_trainer("center-trades", tmp_path)
        loss = trainer._batch_loss
        trainer._batch_loss = lambda *args: now.__setitem__(0, now[0] + 1) or loss(*args)
        if batch is None:
            fit(trainer, data, resume=True)
        else:
            stop_at(trainer, batch)
            with pytest.raises(TrainingInterrupted):
                fit(trainer, data, resume=True)
        return trainer.seconds

    assert session(3) == 3
    now[0] += 1000
    assert session(4) == 7
    payload = torch.load(tmp_path / "last.pt", weights_only=True)
    del payload["training"]["position"]["spent"]
    torch.save(payload, tmp_path / "last.pt")
    assert session() == session() == EPOCHS * BATCHES


def test_a_finished_run_is_not_trained_again(data, tmp_path):
    trainer = make_trainer("mmc-pgd-ema-best", tmp_path)
    fit(trainer, data)
    again = make_trainer("mmc-pgd-ema-best", tmp_path)
    stop_at(again, 1)
    fit(again, data, resume=True)
    assert torch.equal(weights(again), weights(trainer))
    assert len(again.history) == EPOCHS


@pytest.mark.parametrize("setting", ["mmc-clean", "pc-warm-up-recipe"])
def test_a_finished_run_is_extended(setting, data, tmp_path):
    """By the rates that the schedule of all epochs has there; interrupted meanwhile it goes on the same."""
    short, whole = make_trainer(setting, tmp_path / "a"), make_trainer(setting)
    fit(short, data)
    fit(whole, data, epochs=2 * EPOCHS)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    longer = make_trainer(setting, tmp_path / "a", seed=5)
    fit(longer, data, resume=True, epochs=2 * EPOCHS)
    assert longer.extended == [EPOCHS]
    assert longer.history[:EPOCHS] == short.history
    assert [record["epoch"] for record in longer.history] == list(range(1, 2 * EPOCHS + 1))
    assert not torch.equal(weights(longer), weights(short))
    if setting == "mmc-clean":
        assert [each["rate"] for each in longer.history[EPOCHS:]] == [each["rate"] for each in whole.history[EPOCHS:]]
    else:  # the warm-up is over: what is added is of the defence's own loss
        assert [each["stage"] for each in longer.history] == 2 * ["warm-up"] + 6 * ["pc"]
    interrupted = make_trainer(setting, tmp_path / "b", seed=5)
    stop_at(interrupted, BATCHES + 2)
    with pytest.raises(TrainingInterrupted):
        fit(interrupted, data, resume=True, epochs=2 * EPOCHS)
    last = make_trainer(setting, tmp_path / "b", seed=5)
    fit(last, data, resume=True, epochs=2 * EPOCHS)
    assert torch.equal(weights(last), weights(longer))
    with pytest.raises(RunMismatchError, match="stages"):
        fit(make_trainer(setting, tmp_path / "b"), data, resume=True)


def test_the_files_of_a_run(data, tmp_path):
    trainer = make_trainer("mmc-pgd-ema-best", tmp_path)
    fit(trainer, data)
    last, best = (load_classifier(tmp_path / name, dense(), device_type="cpu") for name in ("last.pt", "best.pt"))
    predictions = trainer.classifier.predict(data.x_test)
    assert np.array_equal(last.predict(data.x_test), predictions)
    assert np.array_equal(best.predict(data.x_test), predictions)  # keep="best"
    with open(tmp_path / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [record["loss"] for record in trainer.history]
    assert {"val_robust_accuracy", "rate", "seconds", "accuracy"} <= set(rows[0])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_recipe_in_other_words_is_the_same_recipe(data, tmp_path):
    recipe = get_recipe("li2021-mnist")
    told = {"description": 'Li et al.\'s "own", and more.', "source": "Here, backbone and all.", "defences": ("sce",)}

    def train(recipe, resume):
        trainer = create_trainer(make("pc", "dense"), recipe=recipe, folder=tmp_path, seed=1, verbose=False)
        fit(trainer, data, resume)

    train(recipe, False)
    train(dataclasses.replace(recipe, **told), True)
    with pytest.raises(RunMismatchError, match="rate=0.5"):
        train(dataclasses.replace(recipe, rate=0.5), True)


def test_a_damaged_state_is_told(data, tmp_path):
    fit(make_trainer("center-trades", tmp_path), data)
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match="last.pt is damaged"):
        fit(make_trainer("center-trades", tmp_path), data, resume=True)


def test_without_a_folder_ctrl_c_is_what_it_always_was(data):
    trainer = make_trainer("center-trades")
    stop_at(trainer, 2)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(trainer, data)
    assert not isinstance(caught.value, TrainingInterrupted)


def command(output, *more):
    return [
        *("train", "--defence", "mmc", "--adversarial", "pgd", "--eps", "0.1", "--attack-steps", "2"),
        *("--epochs", "5", "--threads", "1", "--device", "cpu", "--quiet", "--output", str(output), *more),
    ]


@pytest.mark.processes
def test_kill_minus_9_leaves_a_state_from_which_the_command_goes_on(tmp_path):
    whole, killed = tmp_path / "whole.pt", tmp_path / "killed.pt"
    assert main(command(whole)) == 0
    state = tmp_path / "killed.run" / "last.pt"

    def kill(pids):
        wait_for(state)
        os.kill(pids[0], signal.SIGKILL)

    (ended,) = forked(lambda: main(command(killed)), tmp_path / "said", kill, processes=1)
    assert ended.status == -signal.SIGKILL
    assert not killed.exists()
    load_classifier(state)
    assert main(command(killed, "--resume")) == 0
    for name, tensor in load_classifier(whole).model.state_dict().items():
        assert torch.equal(load_classifier(killed).model.state_dict()[name], tensor), name


class Functional(torch.nn.Module):
    """A backbone whose activation is no layer; with dropout that is always on its outputs are never twice the same."""

    def __init__(self, activation=torch.relu, dropout=0.0):
        super().__init__()
        self.linear, self.activation, self.dropout = torch.nn.Linear(64, 32), activation, dropout

    def forward(self, x):
        return torch.nn.functional.dropout(self.activation(self.linear(x.flatten(1))), self.dropout)


def begin(data, folder, classifier=None, averaging=None, n=64, way="arrays", validated=None, **kwargs):
    """Begin a run, or go on with it."""
    classifier = make("mmc") if classifier is None else classifier()
    trainer = LossTrainer(classifier, averaging=averaging, folder=folder, seed=0, verbose=False)
    x, y = data.x_train[:n], data.y_train[:n]
    if way == "generator":
        return trainer.fit_generator(NumpyDataGenerator(x, y, 32), nb_epochs=1, resume=True)
    validation = None if validated is None else (data.x_test[validated], data.y_test[validated])
    return trainer.fit(x, y, validation, nb_epochs=1, resume=True, **kwargs)


def functional(activation):
    return make("sce", Functional(activation))


def own(activation):
    return make("mmc", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 9), activation()))


def at_rate(rate):
    net = make("mmc").model
    return MMCClassifier(net, optimizer=torch.optim.Adam(net.parameters(), rate), input_shape=(1, 8, 8), nb_classes=10)


def standardised(mean):
    pair = (np.full((1, 8, 8), mean, np.float32), np.ones((1, 8, 8), np.float32))
    return plain(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), LossDefendedClassifier, preprocessing=pair
    )


#: what the refusal names -> another network or optimizer
NETWORKS = {
    "scale": lambda: make("mmc", scale=5.0),
    "temperature": lambda: make("mmc", temperature=3.0),
    "centers": lambda: make("mmc", centers="random"),
    "variant": lambda: make("mmc", variant="paper"),
    "backbone.name": lambda: make("mmc", "resnet20"),
    "activation": lambda: make("mmc", create_backbone("cnn", (1, 8, 8), activation="gelu")),
    "mean": lambda: make("mmc", mean=0.5),
    "embedding_dim": lambda: make("mmc", embedding_dim=7),
    "optimizer.lr": lambda: at_rate(0.5),
}
#: what older versions did not write down
LATER = ("network", "optimizer", "validation")


def of(make, one, other):
    """A classifier, and another one, as settings of two runs."""
    return {"classifier": lambda: make(one)}, {"classifier": lambda: make(other)}


def headed(bias):
    layers = OrderedDict(flatten=torch.nn.Flatten(), head=torch.nn.Linear(64, 10, bias))
    return plain(torch.nn.Sequential(layers), LossDefendedClassifier)


#: pattern of the refusal, a run, another run
OTHERS = [
    *((rf"{name}\S*: was .*, is ", {}, {"classifier": other}) for name, other in NETWORKS.items()),
    (r"layers\S*: was .*, is ", *of(own, torch.nn.ReLU, torch.nn.GELU)),
    ("layers.head: was bias=True, is bias=False", *of(headed, True, False)),
    ("its code is another", *of(functional, torch.relu, leaky_relu)),
    ("its code is another", *of(functional, torch.tanh, torch.sigmoid)),
    ("arrays", *of(standardised, 0.1, 0.2)),
    ("averaging='ema'", {"averaging": "ema"}, {}),
    ("samples", {}, {"n": 65}),
    ("validation: was", {"validated": slice(0, 20)}, {"validated": slice(1, 21)}),
    ("another run: data", {"sample_weight": np.arange(64)}, {"sample_weight": np.ones(64)}),
    ("another run: data", {"sample_weight": np.arange(64)}, {}),
    *(
        ("scheduler", {"scheduler": one}, {"scheduler": other})
        for one, other in (
            (lambda optimizer: StepLR(optimizer, 5, 0.1), lambda optimizer: StepLR(optimizer, 5, 0.2)),
            (partial(StepLR, step_size=5), partial(StepLR, step_size=6)),
            (partial(StepLR, step_size=5), partial(ExponentialLR, gamma=5)),
        )
    ),
]


@pytest.mark.parametrize(
    ("row", "way"),
    [
        *((row, "arrays") for row in OTHERS),
        *((row, "old") for row in OTHERS[: len(NETWORKS) - 1]),
        *((row, "generator") for row in OTHERS if "code" in row[0]),
    ],
    ids=lambda each: each if isinstance(each, str) else each[0],
)
def test_a_run_goes_on_as_no_other(row, way, data, tmp_path):
    """With another network, loss or optimizer, other data or settings; of the runs of older versions too."""
    told, first, other = row
    begin(data, tmp_path, way=way, **first)
    if way == "old":
        payload = torch.load(tmp_path / "last.pt", weights_only=True)
        for entry in LATER:
            del payload["training"]["fingerprint"][entry]
        torch.save(payload, tmp_path / "last.pt")
    begin(data, tmp_path, way=way, **first)
    with pytest.raises(RunMismatchError, match=told):
        begin(data, tmp_path, way=way, **other)


def test_a_network_that_gives_no_output_twice_is_told_by_its_layers_alone(data, tmp_path):
    for dropout in (0.5, 0.2):
        begin(data, tmp_path, lambda dropout=dropout: make("sce", Functional(dropout=dropout)))
