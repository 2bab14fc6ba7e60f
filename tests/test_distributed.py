"""
Training in two processes against one process; the tests look at what the two left behind. Networks are float64 where
two curves are compared, so that rounding stays far below what any wrong share of a batch would do.
"""

from __future__ import annotations

import copy
import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from art_mmc import load_classifier, load_dataset
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.cli import main
from art_mmc.distributed import (
    World,
    broadcast_object,
    gather_objects,
    largest,
    launched,
    process_group,
    shard,
    total,
    world,
)
from art_mmc.models import DefendedNet
from art_mmc.trainers import (
    FGSM,
    PGD,
    TRADES,
    AdversarialLossTrainer,
    TrainingInterrupted,
    create_trainer,
    loss_trainer,
)
from art_mmc.trainers.data_parallel import synchronised
from tests.training import LIMIT, NormedNet, forked, make, stop_at, wait_for


class Scaled(nn.Module):
    """A loss with something of its own to learn, and a buffer."""

    def __init__(self):
        super().__init__()
        self.reduction = "mean"
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 10))
        self.register_buffer("shift", torch.linspace(0, 1, 10))

    def forward(self, logits, y):
        return nn.functional.cross_entropy(logits * self.scale + self.shift, y, reduction=self.reduction)


#: defence, backbone, crafting, arguments of the trainer, arguments of fit
SETTINGS = {
    "sce-clean": ("sce", "cnn", None, {"augmentation": "crop-flip", "recipe": "default"}, {}),
    "sce-float32": ("sce", "dense", None, {}, {}),
    "mmc-pgd": ("mmc", "cnn", PGD(0.1, steps=3, eps_min=0.02), {"averaging": "ema", "keep": "best"}, {}),
    "mmc-l2-targeted": ("mmc", "dense", PGD(0.5, steps=2, norm=2, targeted="random"), {"eps_warmup": 2.0}, {}),
    "center-pgd": ("center", "dense", PGD(0.1, steps=2), {"averaging": "swa"}, {}),
    "pc-fgsm-warm-up": ("pc", "dense", FGSM(0.05, 0.1), {"warmup_epochs": 1, "adv_ratio": 0.5}, {}),
    "gce-trades": ("gce", "dense", TRADES(0.1, steps=2), {}, {}),
    "few-adversarial": ("sce", "dense", PGD(0.1, steps=2), {"adv_ratio": 0.01}, {}),
    "one-sample": ("mmc", "dense", PGD(0.1, steps=2), {}, {"n": 1, "held_out": 1}),
    "sum-of-losses": ("own", nn.CrossEntropyLoss(reduction="sum"), FGSM(0.05, 0.1), {}, {}),
    "class-weights": ("own", nn.CrossEntropyLoss(weight=torch.linspace(0.2, 2, 10)), FGSM(0.05, 0.1), {}, {}),
    "trades-on-class-weights": ("own", nn.CrossEntropyLoss(weight=torch.linspace(0.2, 2, 10)), TRADES(0.1, 2), {}, {}),
    "trades-on-a-sum": ("own", nn.CrossEntropyLoss(reduction="sum"), TRADES(0.1, steps=2), {}, {}),
    "a-loss-that-learns": ("own", Scaled(), FGSM(0.05, 0.1), {}, {}),
    "batch-norm": ("center", "normed", PGD(0.1, steps=2, batch_norm="train"), {"averaging": "swa", "keep": "best"}, {}),
}
FLOAT32 = ("sce-float32",)
COMPARED = [setting for setting in SETTINGS if setting != "batch-norm"]
EPOCHS, N, BATCH = 3, 85, 16  # 6 batches, the last one of 5
STOPS = (3, 8)


def make_trainer(setting, folder=None, seed=0):
    name, backbone, attack, kwargs, _ = SETTINGS[setting]
    if name == "own":
        torch.manual_seed(seed)
        net = DefendedNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.Identity())  # casts its inputs
        net.spare = nn.Linear(2, 2)  # it plays no part: nobody waits for its gradients, and it does not decay
        loss = copy.deepcopy(backbone).double()
        for each in loss.parameters():  # other ones in another process, of which the main one's count
            each.data += 0.1 * seed
        optimizer = torch.optim.Adam([*net.parameters(), *loss.parameters()], lr=1e-3, weight_decay=0.01)
        classifier = LossDefendedClassifier(net, loss, (1, 8, 8), 10, optimizer, objective="loss")
    else:
        classifier = make(name, backbone, seed, dropout=0.0)
    if setting not in FLOAT32:
        classifier.model.double()
    kwargs = {"seed": 1, "verbose": False, "folder": folder, **kwargs}
    return AdversarialLossTrainer(classifier, attack, **kwargs) if attack else create_trainer(classifier, **kwargs)


def fit(trainer, setting, data, **kwargs):
    n = SETTINGS[setting][4].get("n", N)
    held_out = SETTINGS[setting][4].get("held_out", 61)
    validation = (data.x_test[:held_out], data.y_test[:held_out])
    trainer.fit(data.x_train[:n], data.y_train[:n], validation, BATCH, EPOCHS, **kwargs)


def report(trainer):
    state = trainer.classifier.model.state_dict()
    loss = trainer.classifier.loss
    parameters = {f"loss.{name}": tensor for name, tensor in getattr(loss, "loss", loss).state_dict().items()}
    return {"history": trainer.history, "state": {**state, **parameters}, "kinds": kinds(trainer)}


def kinds(trainer):
    return [type(module).__name__ for module in trainer.classifier.model.modules()]


# ------------------------------------------------------------------------------------------ what the processes do


def interrupted_and_resumed(data, out, here):
    """Ctrl-C reaches the second process alone; both stop after the same batch, and go on."""

    def run(folder, stop=None, **kwargs):
        classifier = make("center", "normed", here.rank, dropout=0.3)  # the first process' weights are those that count
        pgd = PGD(0.1, steps=2)
        trainer = AdversarialLossTrainer(classifier, pgd, folder=folder, averaging="ema", seed=1, verbose=False)
        seen = [] if stop is None else stop_at(trainer, stop, rank=1)
        try:
            x, y, validation = data.x_train[:N], data.y_train[:N], (data.x_test[:61], data.y_test[:61])
            trainer.fit(x, y, validation, BATCH, EPOCHS, **kwargs)
        except TrainingInterrupted:
            return len(seen)
        return report(trainer)

    results = {"whole": run(out / "whole")}
    for batch in STOPS:
        results[f"stopped {batch}"] = run(out / str(batch), stop=batch)
        results[f"resumed {batch}"] = run(out / str(batch), resume=True)
    left = make_trainer("sce-clean", out / "left")
    stop_at(left, 8)
    try:
        fit(left, "sce-clean", data)
    except TrainingInterrupted:
        results["left"] = True
    return results


def mismatched(data, here):
    """The second process has the samples in another order."""
    trainer = make_trainer("sce-clean")
    order = slice(None, None, -1) if here.rank else slice(None)
    try:
        trainer.fit(data.x_train[:64][order], data.y_train[:64][order], nb_epochs=1)
    except ValueError as err:
        return str(err)
    return None


def work(out: Path):
    """Everything that the tests look at, in one start of the processes."""
    torch.set_num_threads(1)
    data = load_dataset("digits")
    results = {}
    alone = torch.zeros(1)
    results["before"] = (world(), launched(), float(total(alone)))
    with process_group("cpu") as here:
        things = np.arange(7)
        results["helpers"] = {
            "world": here,
            "part": things[shard(7)],
            "total": total(torch.tensor([1.0, here.rank])),
            "gathered": gather_objects({"rank": here.rank}),
            "broadcast": broadcast_object(f"from {here.rank}"),
            "largest": largest(2 * here.rank),
        }
        for setting in SETTINGS:
            trainer = make_trainer(setting, out / setting, seed=here.rank)
            loss_trainer.SAVE_EVERY = 0.0 if here.is_main else 1e9  # one clock decides
            fit(trainer, setting, data)
            results[setting] = report(trainer)
        loss_trainer.SAVE_EVERY = 300.0
        results["resumed"] = interrupted_and_resumed(data, out, here)
        results["mismatched"] = mismatched(data, here)
        torch.save(results, out / f"rank{here.rank}.pt")

        failing, steps = make_trainer("mmc-pgd"), []
        batch_loss = failing._batch_loss

        def fail(x, y, step):
            steps.append(step)
            if here.rank == 1 and len(steps) == 3:
                raise RuntimeError("planted")
            return batch_loss(x, y, step)

        failing._batch_loss = fail
        fit(failing, "mmc-pgd", data)


def written(folder):
    """Names of all files but TensorBoard's, which are there or not."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {path for path in paths if "tfevents" not in path}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def ended(out):
    """How the processes ended: the last thing that happens is an error in one of them."""
    return forked(lambda: work(out), out / "said")


@pytest.fixture(scope="module")
def ranks(ended, out):
    files = [out / f"rank{rank}.pt" for rank in (0, 1)]
    assert all(file.is_file() for file in files), ended
    return [torch.load(file, weights_only=False) for file in files]


# ------------------------------------------------------------------------------------------ the tests


@pytest.fixture(scope="module")
def alone(data):
    """The same trainings in this process, made when asked for."""
    made = {}

    def train(setting):
        if setting not in made:
            trainer = make_trainer(setting)
            fit(trainer, setting, data)
            made[setting] = report(trainer)
        return made[setting]

    return train


@pytest.mark.parametrize("setting", COMPARED)
def test_the_curve_is_that_of_one_process(setting, ranks, alone):
    tolerance = 1e-4 if setting in FLOAT32 else 1e-8
    one, two = alone(setting), ranks[0][setting]
    assert len(two["history"]) == EPOCHS
    for record, expected in zip(two["history"], one["history"], strict=True):
        assert record.keys() == expected.keys()
        for name in record.keys() - {"seconds"}:
            if isinstance(expected[name], float):
                assert record[name] == pytest.approx(expected[name], rel=tolerance, abs=1e-12), name
            else:
                assert record[name] == expected[name], name
    assert list(two["state"]) == list(one["state"])
    if setting == "a-loss-that-learns":  # it did
        assert not torch.allclose(one["state"]["loss.scale"].float(), Scaled().scale, atol=1e-3)
    for name, tensor in one["state"].items():
        # Adam divides by the root of the squared gradient: where that is all rounding, so is the step
        torch.testing.assert_close(two["state"][name], tensor, rtol=0, atol=1e-3 if setting in FLOAT32 else 1e-7)


@pytest.mark.parametrize("setting", SETTINGS)
def test_both_processes_end_with_the_same(setting, ranks):
    first, second = (rank[setting] for rank in ranks)
    assert first["history"] == second["history"]
    for name, tensor in first["state"].items():
        assert torch.equal(second["state"][name], tensor), name
    assert first["kinds"] == second["kinds"] == kinds(make_trainer(setting))


@pytest.mark.parametrize("batch", STOPS)
def test_a_run_that_is_resumed_equals_one_that_was_not(batch, ranks):
    """Bit for bit, dropout included, which is another one in each process."""
    assert [rank["resumed"][f"stopped {batch}"] for rank in ranks] == [batch, batch]
    for rank in ranks:
        whole, resumed = rank["resumed"]["whole"], rank["resumed"][f"resumed {batch}"]
        for key, tensor in whole["state"].items():
            assert torch.equal(resumed["state"][key], tensor), key
        timeless = [[{**record, "seconds": 0} for record in each["history"]] for each in (whole, resumed)]
        assert timeless[0] == timeless[1]


def test_a_run_of_two_processes_goes_on_in_one(ranks, out, data, alone, tmp_path, caplog):
    """Up to rounding, and it says so."""
    assert all(rank["resumed"]["left"] for rank in ranks)
    shutil.copytree(out / "left", tmp_path / "left")
    trainer = make_trainer("sce-clean", tmp_path / "left", seed=3)
    with caplog.at_level(logging.WARNING):
        fit(trainer, "sce-clean", data, resume=True)
    assert "begun by 2 processes and goes on with 1" in caplog.text
    expected = alone("sce-clean")
    for name in ("loss", "accuracy", "val_loss"):
        figures = [[record[name] for record in history] for history in (trainer.history, expected["history"])]
        assert figures[0] == pytest.approx(figures[1], rel=1e-8), name


def test_one_process_writes(ranks, out):
    """And a checkpoint knows nothing of the other one."""
    folder = out / "mmc-pgd"
    assert written(folder) == {"best.pt", "history.csv", "last.pt"}
    state = load_classifier(folder / "last.pt").model.state_dict()
    assert list(state) == list(ranks[0]["mmc-pgd"]["state"])
    for name, tensor in ranks[0]["mmc-pgd"]["state"].items():
        assert torch.equal(state[name], tensor)
    with open(folder / "history.csv", encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses == [record["loss"] for record in ranks[0]["mmc-pgd"]["history"]]


def test_batch_normalisation_is_torch_s_synchronised_one_meanwhile():
    net, alone = NormedNet(), NormedNet()
    alone.load_state_dict(net.state_dict())
    x, before = torch.rand(8, 1, 8, 8), dict(net.named_modules())
    with synchronised(net):
        inside = {name for name, module in net.named_modules() if isinstance(module, nn.SyncBatchNorm)}
        assert inside == {"norm", "last_norm"}
        assert [id(each) for each in net.parameters()] == [id(each) for each in before[""].parameters()]
        net(x).sum().backward()
        net.eval()
    alone(x).sum().backward()
    assert all(module is before[name] for name, module in net.named_modules())
    assert not net.norm.training
    for name, tensor in alone.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name
    for one, other in zip(net.parameters(), alone.parameters(), strict=True):
        assert not one.requires_grad or torch.equal(one.grad, other.grad)


def test_helpers(ranks):
    for rank, results in enumerate(ranks):
        assert results["before"] == (World(0, 1), True, 0.0)
        helpers = results["helpers"]
        assert helpers["world"] == (rank, 2)
        assert helpers["part"].tolist() == [[0, 2, 4, 6], [1, 3, 5]][rank]
        assert helpers["total"].tolist() == [2.0, 1.0]
        assert helpers["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert helpers["broadcast"] == "from 0"
        assert helpers["largest"] == 2


def test_helpers_in_one_process():
    assert world() == (0, 1)
    assert not launched()
    assert np.arange(3)[shard(3)].tolist() == [0, 1, 2]
    tensor = torch.ones(2)
    assert total(tensor) is tensor
    assert gather_objects("x") == ["x"]
    assert broadcast_object("x") == "x"
    assert largest(2) == 2
    with process_group() as here:
        assert here == (0, 1)
        assert not torch.distributed.is_initialized()


def test_processes_with_other_data_are_refused(ranks):
    for results in ranks:
        assert "processes 0 and 1 are not about to train the same: data: was" in results["mismatched"]


def test_an_error_in_one_process_ends_all(ended):
    first, second = ended
    assert first.status != 0
    assert second.status == 1
    assert "RuntimeError: planted" in second.err


@pytest.mark.processes
def test_torchrun_starts_them_and_ends_all_where_one_fails(tmp_path):
    """As a user does."""
    (tmp_path / "script.py").write_text(
        "import torch\n"
        "from art_mmc.distributed import process_group, total\n"
        "with process_group('cpu') as here:\n"
        "    both = total(torch.tensor([1, here.rank]))\n"
        "    print(both.tolist() if here.is_main else '', flush=True)\n"
        "    assert here.is_main, 'planted'\n"
        "    total(both)\n"  # waits for the other
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert ended.returncode != 0
    assert "[2, 1]" in ended.stdout
    assert "planted" in ended.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {
        "RANK": 2,
        "LOCAL_RANK": 2,
        "WORLD_SIZE": 3,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="process 2 of this machine has no GPU of its own, there are 2"):
        process_group("gpu").__enter__()


@pytest.mark.parametrize(("rank", "told"), [("0", True), ("1", False)])
def test_a_mistake_is_told_once(rank, told, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert main(["train", "--defence", "mcm"]) == 2
    assert ("unknown defence 'mcm'" in capsys.readouterr().err) == told


@pytest.mark.processes
def test_the_command_line(tmp_path):
    """Ctrl-C, --resume, and the files of one process."""
    command = [*("train", "--defence", "mmc", "--adversarial", "pgd", "--eps", "0.1", "--attack-steps", "2")]
    command += ["--epochs", "6", "--device", "cpu", "--quiet", "--output"]
    two = tmp_path / "two" / "mmc.pt"

    def press_ctrl_c(pids):
        wait_for(two.parent / "mmc.run" / "last.pt")
        for pid in pids:
            os.kill(pid, signal.SIGINT)

    first = forked(lambda: main([*command, str(two)]), tmp_path / "first", press_ctrl_c)
    assert {each.status for each in first} == {130}
    assert [each.out for each in first] == ["", ""]
    told = "art-mmc: interrupted; the same command with --resume goes on"
    assert sum(each.err.count(told) for each in first) == 1, first
    assert not two.exists()

    second = forked(lambda: main([*command, str(two), "--resume"]), tmp_path / "second")
    assert [each.status for each in second] == [0, 0], second
    assert second[1].out == ""
    out = second[0].out
    assert out.count("mmc: clean test accuracy") == out.count("wrote") == 1
    assert len(out.splitlines()) == 2
    assert written(two.parent) == {"mmc.pt", "mmc.json", "mmc.run/last.pt", "mmc.run/best.pt", "mmc.run/history.csv"}
    assert len(json.loads(two.with_suffix(".json").read_text())["history"]) == 6
    load_classifier(two)
