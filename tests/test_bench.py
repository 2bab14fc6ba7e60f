"""The bench: fair turns, true ratios, and work that nobody reads left undone."""

from __future__ import annotations

import json

import pytest
import torch

from art_mmc import create_classifier
from art_mmc.bench import alternate, bench_adversarial_training
from art_mmc.cli import main
from art_mmc.trainers import PGD
from art_mmc.trainers.crafting import Moment


def test_contenders_take_turns_and_the_first_round_does_not_count(monkeypatch):
    clock = iter([0, 9, 9, 29, 29, 31, 31, 35, 35, 39, 39, 47])  # two contenders, three rounds: 9 20, 2 4, 4 8
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    calls = []
    first, second = alternate("a job", {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert (first.seconds, first.ratio, first.reference) == (3.0, 1.0, "a")
    assert (second.seconds, second.least, second.most, second.ratio) == (6.0, 4.0, 8.0, 2.0)


def test_no_rounds():
    with pytest.raises(ValueError, match="rounds"):
        alternate("a job", {"a": lambda: None}, rounds=0)


def test_every_contender_trains(tmp_path, capsys):
    timings = bench_adversarial_training(samples=8, batch_size=4, steps=1, rounds=1)
    assert len(timings) == 4
    assert timings[0].ratio == 1.0
    assert all(timing.seconds > 0 for timing in timings)
    out = tmp_path / "bench.json"
    sizes = ["--samples", "8", "--batch-size", "4", "--steps", "1", "--rounds", "1", "--device", "cpu"]
    assert main(["bench", *sizes, "--output", str(out)]) == 0
    assert "ART AdversarialTrainerMadryPGD" in capsys.readouterr().out
    document = json.loads(out.read_text())
    assert document["versions"]["torch"] == torch.__version__
    assert len(document["timings"]) == 4


def test_crafting_computes_no_weight_gradient():
    """Counted, since a clock is too noisy: no parameter asks for a gradient while the attack climbs."""
    classifier = create_classifier("sce", "cnn", input_shape=(1, 8, 8), nb_classes=10)
    asked, passes = [], []

    def look(module, inputs, output):
        asked.append(any(parameter.requires_grad for parameter in classifier.model.parameters()))
        passes.append(len(output))

    handle = classifier.model.register_forward_hook(look)
    draw = torch.Generator().manual_seed(0)
    moment = Moment(lambda shape: torch.rand(shape, generator=draw))
    PGD(0.1, steps=7).craft(classifier, torch.rand(4, 1, 8, 8), torch.arange(4), moment)
    handle.remove()
    assert asked == [False] * 7
    assert passes == [4] * 7
    assert all(parameter.requires_grad for parameter in classifier.model.parameters())
