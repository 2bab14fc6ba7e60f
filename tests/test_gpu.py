"""
On a CUDA device the same as on a CPU, without waiting for it. All but the half of the waiting test that is on torch's
device of shapes alone is skipped where there is none; ART_MMC_GPU=cpu runs it on the CPU, to see that the tests
themselves run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from art_mmc import create_classifier, load_classifier
from art_mmc.cli import build_parser
from art_mmc.evaluation import RobustnessEvaluation
from art_mmc.models import create_backbone
from art_mmc.trainers import (
    FGSM,
    PGD,
    TRADES,
    AdversarialLossTrainer,
    FastFGSM,
    LossTrainer,
    TrainingInterrupted,
    adversarial,
)
from art_mmc.trainers.job import Job, Step, compact
from tests.conftest import every
from tests.handmade import MACHINE
from tests.training import make, stop_at, weights

CUDA = torch.cuda.is_available()
DEVICES = {"cpu": "cpu", "gpu": "gpu" if CUDA else "cpu"}
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA and os.environ.get("ART_MMC_GPU") != "cpu", reason="torch finds no CUDA device"),
]
on_gpu = lambda test: gpu[0](gpu[1](test))  # noqa: E731


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Convolutions in float32, as on a CPU."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def moved(classifier, path, device="gpu"):
    """The same on a device, by way of a file."""
    classifier.save_checkpoint(path)
    return load_classifier(path, device_type=DEVICES[device])


def close(ours, theirs, share=1e-4):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * np.abs(theirs).max())


def fit(trainer, data, nb_epochs=2, **kwargs):
    trainer.fit(data.x_train[:256], data.y_train[:256], batch_size=64, nb_epochs=nb_epochs, **kwargs)
    return trainer


def losses(trainer):
    return [record["loss"] for record in trainer.history]


@on_gpu
@every
def test_predictions_losses_and_gradients(name, data, tmp_path):
    on_cpu = make(name, device_type="cpu")
    there = moved(on_cpu, tmp_path / "net.pt")
    assert there.device.type == ("cuda" if CUDA else "cpu")
    x, y = data.x_test[:32], data.y_test[:32]
    state = torch.cuda.get_rng_state() if CUDA else torch.get_rng_state()
    close(there.predict(x), on_cpu.predict(x))
    close(there.compute_loss(x, y, reduction="none"), on_cpu.compute_loss(x, y, reduction="none"))
    close(there.loss_gradient(x, y), on_cpu.loss_gradient(x, y))
    close(there.class_gradient(x, label=3), on_cpu.class_gradient(x, label=3))
    assert torch.equal(state, torch.cuda.get_rng_state() if CUDA else torch.get_rng_state())
    back = moved(there, tmp_path / "back.pt", "cpu")
    assert np.array_equal(back.predict(x), on_cpu.predict(x))
    assert torch.equal(weights(back), weights(on_cpu))


@on_gpu
def test_the_worst_case(trained, data, tmp_path):
    x, y = data.x_test[:100], data.y_test[:100]
    records = [
        RobustnessEvaluation("quick", eps=0.1, seed=0, verbose=False).evaluate(each, x, y)
        for each in (moved(trained["mmc"], tmp_path / "mmc.pt", device) for device in DEVICES)
    ]
    theirs, ours = (record.worst_case(0.1).accuracy for record in records)
    assert abs(ours - theirs) <= 0.03  # random starts are others there
    assert records[0].verdict.status == records[1].verdict.status


@on_gpu
@every
def test_a_training_follows_the_cpu_s(name, data):
    runs = [
        fit(LossTrainer(make(name, device_type=device), seed=1, verbose=False), data) for device in DEVICES.values()
    ]
    close(losses(runs[1]), losses(runs[0]), 2e-3)


@on_gpu
@pytest.mark.parametrize("changed", [{"channels_last": False}, {"compile_network": True}], ids=str)
def test_however_it_is_laid_out(changed, data):
    runs = [
        fit(LossTrainer(make("mmc", device_type=DEVICES["gpu"], dropout=0.0), seed=1, verbose=False, **kwargs), data)
        for kwargs in ({}, changed)
    ]
    close(losses(runs[1]), losses(runs[0]), 1e-3)
    assert all(each.is_contiguous() for each in runs[1].classifier.model.parameters())


@on_gpu
@pytest.mark.parametrize("name", ["mmc", "pc", "center"])
def test_bfloat16(name, data):
    found = {}
    for precision in ("float32", "bfloat16"):
        trainer = LossTrainer(make(name, device_type=DEVICES["gpu"]), precision=precision, seed=1, verbose=False)
        trainer.fit(data.x_train, data.y_train, batch_size=64, nb_epochs=8)
        found[precision] = (trainer.predict(data.x_test).argmax(axis=1) == data.y_test).mean()
        assert {each.dtype for each in trainer.classifier.model.parameters()} == {torch.float32}
    assert found["bfloat16"] > max(0.75, found["float32"] - 0.04), found


@on_gpu
@pytest.mark.parametrize("order", [("cpu", "gpu"), ("gpu", "cpu"), ("gpu", "gpu")], ids="-then-".join)
def test_a_run_goes_on_on_the_other_device(order, data, tmp_path):
    def trainer(device, folder=None):
        classifier = make("mmc", dropout=0.0, device_type=DEVICES[device])
        settings = {"averaging": "ema", "augmentation": "crop-flip", "seed": 1, "verbose": False, "folder": folder}
        return AdversarialLossTrainer(classifier, PGD(0.1, steps=2), **settings)

    whole = fit(trainer(order[0]), data, nb_epochs=4)
    first = trainer(order[0], tmp_path)
    stop_at(first, 6)
    with pytest.raises(TrainingInterrupted):
        fit(first, data, nb_epochs=4)
    second = fit(trainer(order[1], tmp_path), data, nb_epochs=4, resume=True)
    assert losses(second)[0] == losses(whole)[0]
    # random starts are others on the other device, and on a GPU sums come in any order
    close(losses(second), losses(whole), 0.05)


#: what makes the host wait for the device, as an operation of torch's; an index by a mask counts its entries first
WAITS = {"_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2"}


class Waits(TorchDispatchMode):
    """Notes what would make the host wait if the tensors that are not on the CPU were on a GPU: a copy to it, too."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        masks = name == "index" and any(each is not None and each.dtype == torch.bool for each in args[1])
        out = function(*args, **kwargs)
        copies = name in ("copy_", "_to_copy") and not (kwargs.get("non_blocking") or args[2:3] == (True,))
        if name in WAITS or masks or (copies and out.device != args[name == "copy_"].device):
            self.found.append(name)
        return out


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    if CUDA:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if CUDA:
            torch.cuda.set_sync_debug_mode("default")


STEPS = {
    **{name: (name, None, {}) for name in ("sce", "mmc", "mmlda", "lgm", "center", "rce", "pc", "gce", "isce")},
    "weight": ("sce", None, {}),
    "shift": ("mmc", None, {"augmentation": "shift-nearest-flip", "averaging": "ema", "clip_gradient": 1.0}),
    "affine": ("mmc", None, {"augmentation": "rotate-crop-flip", "precision": "bfloat16"}),
    "pgd": ("mmc", PGD(0.1, steps=2, tolerance=1, eps_min=0.05), {"adv_ratio": 0.5}),
    "pgd-targeted": ("mmc", PGD(0.1, steps=2, targeted="random", batch_norm="train"), {}),
    "pgd-l2": ("pc", PGD(0.5, steps=2, norm=2, targeted="least_likely"), {"eps_warmup": 1.0}),
    "fgsm": ("pc", FGSM(0.05, 0.1), {}),
    "fast": ("sce", FastFGSM(0.1), {}),
    "trades": ("center", TRADES(0.1, steps=2), {}),
}


def stepping(setting, device):
    """A trainer that is about to take a step on a device."""
    name, attack, kwargs = STEPS[setting]
    classifier = make(name, device_type=DEVICES.get(device, "cpu"))
    if device == "meta":
        classifier._model.to(device)
        classifier._device = torch.device(device)
    classifier._optimizer = torch.optim.SGD(classifier.model.parameters(), lr=0.01)  # Adam counts its steps on the host
    if "weight" in setting:
        classifier.loss.weight = [1.0] * 9 + [2.0]
    kind = LossTrainer if attack is None else AdversarialLossTrainer
    return kind(classifier, *([] if attack is None else [attack]), seed=1, verbose=False, **kwargs)


@pytest.mark.parametrize("setting", STEPS)
def test_a_training_step_would_not_wait_for_a_device(setting, data, monkeypatch):
    """On the device of shapes alone, which has no numbers to wait for, and refuses what is on the CPU."""
    trainer = stepping(setting, "meta")
    classifier, device = trainer.classifier, trainer.classifier.device
    x, y = compact(torch.from_numpy(data.x_train[:128])).to(device), torch.from_numpy(data.y_train[:128]).to(device)
    job, index = Job(classifier, 64, [], None, None, None, x=x, y=y), torch.arange(64, device=device)
    # it has neither random numbers of its own nor autocast
    monkeypatch.setattr(adversarial, "_draw", lambda *_: lambda shape: torch.rand(shape, device=device))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(trainer, "_autocast", contextlib.nullcontext)
    trainer._order, trainer._noise, trainer._own_loss = torch.Generator(), None, classifier.loss
    trainer._forward, trainer._average = classifier.forward, trainer._new_average()
    if trainer._average is not None:
        trainer._average.after_epoch(1)
    with classifier.training(), Waits() as waits:
        part, labels, about = trainer._part(job, index)
        trainer._step(job, part, labels, Step(0.0, 0.5, **about))
    assert not waits.found


@on_gpu
@pytest.mark.parametrize("setting", STEPS)
def test_a_training_step_does_not_wait_for_the_device(setting, data, monkeypatch):
    trainer, seen = stepping(setting, "gpu"), []

    def watched(inner):
        def call(job, *args):
            seen.append(inner.__name__)
            if len(seen) <= 4:  # cuDNN tries its algorithms in the first
                return inner(job, *args)
            with no_waiting():
                return inner(job, *args)

        return call

    monkeypatch.setattr(trainer, "_part", watched(trainer._part))
    monkeypatch.setattr(trainer, "_step", watched(trainer._step))
    fit(trainer, data)
    assert seen.count("_step") == 8


@on_gpu
def test_memory(data):
    """Nothing stays behind, and a training step takes no more than torch's own loop."""
    rng = np.random.default_rng(0)
    x, y = rng.random((256, 3, 32, 32), dtype=np.float32), np.arange(256) % 10
    classifier = create_classifier(
        "sce", "resnet20", input_shape=(3, 32, 32), nb_classes=10, device_type=DEVICES["gpu"]
    )

    def peak(job):
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        gc.collect()
        return torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before

    def theirs():
        images, labels = (torch.from_numpy(each).to(classifier.device) for each in (x, y))
        net = torch.nn.Sequential(create_backbone("resnet20", (3, 32, 32)), torch.nn.Linear(64, 10)).to(images.device)
        sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        for part in torch.arange(256).split(128):
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(net(images[part]), labels[part]).backward()
            sgd.step()

    jobs = {
        "training": lambda: LossTrainer(classifier, seed=1, verbose=False).fit(x, y, batch_size=128, nb_epochs=1),
        "prediction": lambda: classifier.predict(x),
        "gradient": lambda: classifier.loss_gradient(x[:128], y[:128]),
    }
    for job in jobs.values():
        job()
    if not CUDA:
        theirs()
        return
    found = {name: peak(job) for name, job in jobs.items()}
    assert all(left == 0 for _, left in found.values()), found
    assert found["training"][0] <= 1.1 * peak(theirs)[0]


@pytest.mark.parametrize("quick", [False, True])
def test_what_is_recorded(quick, tmp_path, monkeypatch):
    """Its commands are ones that there are; what is finished is not done again, what was stopped is, and attacked."""
    recording = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "record_gpu.py"))
    data = ["--dataset", str(tmp_path / "made.npz") if quick else "cifar10"]
    parts = list(recording["parts"](tmp_path, data, quick))
    assert sum(share for *_, share in parts) == pytest.approx(1.0)
    names, done, status = {tuple(command): name for name, command, _ in parts}, [], {"mmc": "stopped"}

    def run(command, limit, quick):
        done.append(names[tuple(command)])
        if command[1:3] == ["-m", "art_mmc.cli"]:
            build_parser().parse_args(command[3:])
        return {"status": status.pop(done[-1], "finished"), "seconds": 1.0, "command": command}

    patched = {"run": run, "machine": lambda device: MACHINE}
    for name, function in patched.items():
        monkeypatch.setitem(recording["main"].__globals__, name, function)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    state = tmp_path / "evaluate-mmc" / "state"
    for _ in range(2):
        assert recording["main"](["--output", str(tmp_path), *(["--quick"] if quick else [])]) == 0
        assert not state.exists()
        state.mkdir(parents=True)  # of the network that was stopped
    assert done == ["tests", "mmc", "sce-at", "evaluate-mmc", "evaluate-sce-at", "bench", "mmc", "evaluate-mmc"]
    assert "| mmc | finished |" in (tmp_path / "report.md").read_text()
