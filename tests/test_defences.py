"""
The table of defences: what a row holds, what can't be registered, building head and loss from options.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re

import pytest
import torch
from torch import nn

from art_mmc import heads, losses
from art_mmc.defences import DEFENCES, Defence, adaptive_objective, get_defence
from art_mmc.objectives import OBJECTIVES
from tests.cases import FORMULAS, ROWS, published
from tests.conftest import THREE

BUILDS = pytest.mark.parametrize(
    ("row", "nb_classes"),
    [(row, k) for row in ROWS for k in ((2, 10, 200) if row in THREE else (10,))],
    ids=lambda value: f"K{value}" if isinstance(value, int) else value,
)


def build(row, nb_classes, **options):
    torch.manual_seed(0)
    return DEFENCES[row].build(256, nb_classes, **options)


def batch(nb_classes):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 256, generator=generator), torch.arange(8) % nb_classes


def test_the_nine_rows():
    assert list(DEFENCES)[:9] == ["sce", "mmc", "mmlda", "lgm", "center", "rce", "pc", "gce", "isce"]
    assert {name: (row.head, row.loss) for name, row in DEFENCES.items()} == {
        name: (row.head, row.loss) for name, row in ROWS.items()
    }
    assert all(row.name == name for name, row in DEFENCES.items())


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_complete(name):
    """And knows how to attack it: known objectives, first of all one that no saturated softmax can stop."""
    row = DEFENCES[name]
    assert row.title
    assert row.formula
    assert row.paper
    assert row.link.startswith("https://")
    assert set(row.defaults) <= set(row.option_names)
    assert set(row.objectives) <= set(OBJECTIVES)
    assert set(row.objectives) - {"cross_entropy"}
    assert adaptive_objective(row) == adaptive_objective(None) == "soft_margin"
    assert row.loss.min_classes == ROWS[name].least
    assert get_defence(name) is row


def test_a_row_can_not_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFENCES["mmc"].objectives = ("cross_entropy",)
    with pytest.raises(TypeError):
        DEFENCES["mmlda"].defaults["temperature"] = 5.0


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        *(
            (each, "defence 'flattered' needs an adaptive objective besides plain cross-entropy: .* flattering number")
            for each in (("cross_entropy",), (), ("cross_entropy", "cross_entropy"))
        ),
        (("margins",), "unknown objective 'margins'. Did you mean 'margin'?"),
    ],
    ids=str,
)
def test_a_row_without_a_known_adaptive_objective_is_refused(objectives, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DEFENCES["sce"], name="flattered", objectives=objectives)


def test_a_new_row_builds():
    row = Defence("mine", "t", "f", heads.LinearHead, losses.PCLoss, ("dlr",), "p", "https://example.org")
    head, loss = row.build(4, 3, xi=0.5)
    assert type(head) is heads.LinearHead
    assert loss.xi == 0.5
    assert row.defaults == {}


#: option -> values that every head and loss refuses that has it, and what was expected
REFUSED = {
    **dict.fromkeys(("temperature", "logit_norm"), ((0, -1.0, math.nan), "a positive number")),
    **dict.fromkeys(("center_rate", "xi"), ((-0.1, 1.1, math.nan), "a number in [0, 1]")),
    **dict.fromkeys(("lam", "alpha"), ((-0.1, math.nan), "a number of at least 0")),
    "scale": ((math.nan, "10"), "a "),  # a positive number, or any
    "margin": ((math.nan, None), "a finite number"),
    "label_smoothing": ((-0.1, 1.0, 2), "a number "),
    "center_seed": ((0.5, "abc"), "a whole number"),
    "centers": (("simplex",), "one of 'max_mahalanobis', 'random'"),
    "variant": (("codes",), "one of 'code', 'paper'"),
    "constraint": (("firm",), "one of 'soft', 'hard'"),
    "selector": (("label",), "one of 'pred', 'true'"),
    "weight": (
        ([], [0.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf], "12", 3.0, ["a"]),
        "a finite number >= 0 a class, not all of them zero",
    ),
}


@pytest.mark.parametrize("cls", dict.fromkeys([*FORMULAS, *(row.head for row in ROWS.values())]))
def test_impossible_options(cls):
    sizes = {"in_features": 16, "nb_classes": 10} if issubclass(cls, heads.Head) else {}
    for name in set(inspect.signature(cls).parameters) - {*sizes, "reduction", "positions", "clip"}:
        values, expected = REFUSED[name]
        for value in values:
            with pytest.raises(
                ValueError, match=f"^{name}: expected {re.escape(expected)}.*, got {re.escape(repr(value))}"
            ):
                cls(**sizes, **{name: value})


def test_impossible_centers():
    message = r"positions: expected centers of shape \(10, 16\), got \(16, 10\)"
    with pytest.raises(ValueError, match=message):
        heads.FixedCentersHead(16, 10, positions=torch.zeros(16, 10))


@BUILDS
def test_options_round_trip(row, nb_classes):
    """What head and loss say of themselves builds the same again, through JSON too; the defaults are the published."""
    defaults = {**ROWS[row].defaults, **published(ROWS[row].formula)}
    for options in ({}, ROWS[row].options(nb_classes)):
        head, loss = build(row, nb_classes, **options)
        written = {**head.options(), **loss.options()}
        assert list(written) == DEFENCES[row].option_names == list(ROWS[row].other)
        assert written == {**defaults, **options}
        assert json.loads(json.dumps(written)) == written
        again_head, again_loss = build(row, nb_classes, **json.loads(json.dumps(written)))
        assert {**again_head.options(), **again_loss.options()} == written
        z, y = batch(nb_classes)
        assert torch.equal(again_head(z), head(z))
        assert torch.equal(again_loss(again_head(z), y), loss(head(z), y))
    assert not [name for name in options if options[name] == defaults[name]]  # so that none was left out


@pytest.mark.parametrize("row", ROWS)
def test_too_few_classes_are_refused(row):
    least = ROWS[row].least
    with pytest.raises(
        ValueError, match=f"'{row}' needs at least {least} classes, got {least - 1}: .* same for every input"
    ):
        build(row, least - 1, **{k: v for k, v in ROWS[row].other.items() if k != "weight"})
    build(row, least)


@pytest.mark.parametrize("row", ROWS)
def test_training_by_the_loss_leads_to_the_label(row):
    """The signs of head and loss agree: descent on the loss makes the label's logit the largest."""
    torch.manual_seed(0)
    head, loss = DEFENCES[row].build(16, 5)
    net = nn.Sequential(nn.Linear(20, 16), head)
    x, y = torch.eye(20), torch.arange(20) % 5
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    before = loss(net(x), y).item()
    assert (net(x).argmax(dim=1) == y).float().mean() < 0.6
    for _ in range(200):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
    assert loss(net(x), y).item() < before
    assert torch.equal(net(x).argmax(dim=1), y)
