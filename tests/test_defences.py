"""
The table of defences: what a row holds, what can't be registered, building head and loss from options.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from art_mmc import heads, losses
from art_mmc.defences import DEFENCES, Defence, get_defence
from art_mmc.objectives import OBJECTIVES


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small are not worth a second thread: on a busy machine waiting for it takes all the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


ROWS = {
    "sce": (heads.LinearHead, losses.SoftmaxCrossEntropyLoss),
    "mmc": (heads.FixedCentersHead, losses.MMCLoss),
    "mmlda": (heads.FixedCentersHead, losses.MMLDALoss),
    "lgm": (heads.GaussianMeansHead, losses.LGMLoss),
    "center": (heads.CenterTrackingHead, losses.CenterLoss),
    "rce": (heads.ReversedLinearHead, losses.ReverseCrossEntropyLoss),
    "pc": (heads.LinearHead, losses.PCLogitConstraintLoss),
    "gce": (heads.LinearHead, losses.GuidedComplementEntropyLoss),
    "isce": (heads.UnitNormHead, losses.InferenceSoftmaxLoss),
}

#: another value for every option of every row
OTHER = {
    "sce": {"label_smoothing": 0.2, "weight": [1.0, 2.0, 0.5]},
    "mmc": {"scale": 100.0, "centers": "random", "center_seed": 5, "temperature": 3.0, "variant": "paper"},
    "mmlda": {"scale": 100.0, "centers": "random", "center_seed": 5, "temperature": 3.0, "variant": "paper"},
    "lgm": {"temperature": 3.0, "alpha": 0.3, "lam": 0.1},
    "center": {"center_rate": 0.2, "lam": 0.01},
    "rce": {"weight": [1.0, 2.0, 0.5]},
    "pc": {"xi": 0.8, "lam": 0.1, "variant": "paper", "constraint": "hard"},
    "gce": {"alpha": 0.2, "variant": "paper"},
    "isce": {"logit_norm": 5.0, "scale": 2.0, "margin": 0.3, "selector": "true", "clip": False},
}

BUILDS = pytest.mark.parametrize(
    ("row", "nb_classes"),
    [(row, k) for row in ROWS for k in (2, 10, 200) if (row, k) != ("gce", 2)],
    ids=lambda value: f"K{value}" if isinstance(value, int) else value,
)


def build(row, nb_classes, **options):
    torch.manual_seed(0)
    return DEFENCES[row].build(256, nb_classes, **options)


def batch(nb_classes):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 256, generator=generator), torch.arange(8) % nb_classes


# ----------------------------------------------------------------------------------------------------------- rows


def test_the_nine_rows():
    assert list(DEFENCES) == ["sce", "mmc", "mmlda", "lgm", "center", "rce", "pc", "gce", "isce"]
    assert {name: (row.head, row.loss) for name, row in DEFENCES.items()} == ROWS
    assert all(row.name == name for name, row in DEFENCES.items())


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_complete(row):
    row = DEFENCES[row]
    assert row.title
    assert row.formula
    assert row.paper
    assert row.link.startswith("https://")
    assert set(row.defaults) <= set(row.option_names)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_knows_how_to_attack_it(row):
    """Known objectives, and first of all one that no saturated softmax can stop."""
    objectives = DEFENCES[row].objectives
    assert set(objectives) <= set(OBJECTIVES)
    assert set(objectives) - {"cross_entropy"}
    assert objectives[0] == "margin"


def test_a_row_can_not_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFENCES["mmc"].objectives = ("cross_entropy",)
    with pytest.raises(TypeError):
        DEFENCES["mmlda"].defaults["temperature"] = 5.0


@pytest.mark.parametrize("objectives", [("cross_entropy",), (), ("cross_entropy", "cross_entropy")], ids=str)
def test_a_row_with_nothing_but_cross_entropy_is_refused(objectives):
    message = "defence 'flattered' needs an adaptive objective besides plain cross-entropy: .* flattering number"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DEFENCES["sce"], name="flattered", objectives=objectives)


def test_a_row_with_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="unknown objective 'margins'. Did you mean 'margin'?"):
        dataclasses.replace(DEFENCES["sce"], objectives=("margins",))


def test_a_new_row_builds():
    row = Defence("mine", "t", "f", heads.LinearHead, losses.PCLoss, ("dlr",), "p", "https://example.org")
    head, loss = row.build(4, 3, xi=0.5)
    assert type(head) is heads.LinearHead
    assert loss.xi == 0.5
    assert row.defaults == {}


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("row", ROWS)
def test_get_defence(row):
    assert get_defence(row) is DEFENCES[row]


@pytest.mark.parametrize(
    ("name", "nearest"), [("mcm", "mmc"), ("MMC", "mmc"), ("mmdla", "mmlda"), ("centre", "center"), ("i-sce", "isce")]
)
def test_unknown_defence(name, nearest):
    with pytest.raises(ValueError, match=f"unknown defence '{name}'. Did you mean '{nearest}'?") as info:
        get_defence(name)
    assert str(info.value).endswith("Known: sce, mmc, mmlda, lgm, center, rce, pc, gce, isce.")


@pytest.mark.parametrize(
    ("row", "option", "nearest"),
    [
        ("mmc", "sclae", "scale"),
        ("mmc", "temprature", "temperature"),
        ("mmlda", "varaint", "variant"),
        ("pc", "lambda", "lam"),
        ("pc", "Constraint", "constraint"),
        ("center", "rate", "center_rate"),
        ("sce", "smoothing", "label_smoothing"),
        ("isce", "select", "selector"),
        ("gce", "alhpa", "alpha"),
    ],
)
def test_unknown_option(row, option, nearest):
    with pytest.raises(ValueError, match=f"unknown option of defence '{row}'.*'{option}'. Did you mean '{nearest}'?"):
        DEFENCES[row].build(8, 3, **{option: 1})


@pytest.mark.parametrize(
    ("row", "option"),
    [("rce", "alpha"), ("sce", "temperature"), ("mmc", "reduction"), ("mmc", "nb_classes_"), ("pc", "in_feature")],
)
def test_option_of_another_row(row, option):
    """What follows from the network or from the caller is no option either."""
    with pytest.raises(ValueError, match=f"unknown option of defence '{row}'.*'{option}'") as info:
        DEFENCES[row].build(8, 3, **{option: 1})
    assert f"Known: {', '.join(OTHER[row]) or '(none)'}." in str(info.value)


# ------------------------------------------------------------------------------------------------------- building


@BUILDS
def test_build(row, nb_classes):
    """Head and loss of the row's classes that fit each other, forward and backward."""
    head, loss = build(row, nb_classes)
    assert (type(head), type(loss)) == ROWS[row]
    assert (head.in_features, head.nb_classes) == (256, nb_classes)
    z, y = batch(nb_classes)
    z.requires_grad_(True)
    logits = head(z)
    value = loss(logits, y)
    value.backward()
    assert logits.shape == (8, nb_classes)
    assert value.shape == ()
    assert torch.isfinite(value)
    assert torch.isfinite(z.grad).all()
    assert z.grad.any()


@pytest.mark.parametrize("changed", [False, True], ids=["defaults", "other"])
@BUILDS
def test_options_round_trip(row, nb_classes, changed):
    """What head and loss say of themselves builds the same again, through JSON too."""
    options = dict(OTHER[row]) if changed else {}
    if "weight" in options:
        options["weight"] = [0.5, *[1.0] * (nb_classes - 1)]
    head, loss = build(row, nb_classes, **options)
    written = {**head.options(), **loss.options()}
    assert list(written) == DEFENCES[row].option_names
    assert json.loads(json.dumps(written)) == written
    assert options.items() <= written.items()
    again_head, again_loss = build(row, nb_classes, **json.loads(json.dumps(written)))
    assert {**again_head.options(), **again_loss.options()} == written
    z, y = batch(nb_classes)
    assert torch.equal(again_head(z), head(z))
    assert torch.equal(again_loss(again_head(z), y), loss(head(z), y))


@pytest.mark.parametrize("row", ROWS)
def test_every_option_has_another_value_here(row):
    """So that the round trip leaves none out; each differs from its default."""
    assert list(OTHER[row]) == DEFENCES[row].option_names
    head, loss = build(row, 10)
    defaults = {**head.options(), **loss.options()}
    assert not [name for name, value in OTHER[row].items() if defaults[name] == value]


@pytest.mark.parametrize(("row", "temperature"), [("mmc", 10.0), ("mmlda", 1.0), ("lgm", 1.0)])
def test_the_loss_takes_the_heads_temperature(row, temperature):
    head, loss = build(row, 10)
    assert head.temperature == loss.temperature == pytest.approx(temperature)
    head, loss = build(row, 10, temperature=7.0)
    assert head.temperature == loss.temperature == 7.0
    assert DEFENCES[row].build_loss(head).temperature == 7.0


def test_mmc_at_norm_100_is_as_far_apart_as_at_norm_10():
    head, loss = build("mmc", 10, scale=100.0)
    assert head.temperature == loss.temperature == 1000.0


def test_build_loss_for_a_head_that_is_there():
    head, _ = build("pc", 10)
    loss = DEFENCES["pc"].build_loss(head, xi=0.5, constraint="hard")
    assert loss.options() == {"xi": 0.5, "lam": 0.05, "variant": "code", "constraint": "hard"}


@pytest.mark.parametrize("row", ROWS)
def test_one_class_is_refused(row):
    with pytest.raises(ValueError, match=f"defence '{row}' needs at least [23] classes, got 1"):
        build(row, 1)


@pytest.mark.parametrize("options", [{}, {"variant": "paper"}, {"alpha": 0.2}], ids=str)
def test_gce_of_two_classes_is_refused(options):
    with pytest.raises(ValueError, match="'gce' needs at least 3 classes, got 2: .* loss is the same for every input"):
        build("gce", 2, **options)
    build("gce", 3, **options)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ("mmc", {"scale": -1.0}, "scale: expected a positive number"),
        ("mmc", {"centers": "simplex"}, "centers: expected"),
        ("mmc", {"variant": "both"}, "variant: expected one of 'code', 'paper', got 'both'"),
        ("lgm", {"temperature": 0.0}, "temperature: expected a positive number"),
        ("center", {"center_rate": 2.0}, "center_rate: expected a number in"),
        ("pc", {"xi": 2.0}, "xi: expected a number in"),
        ("isce", {"selector": "none"}, "selector: expected one of"),
        ("isce", {"logit_norm": 0}, "logit_norm: expected a positive number, got 0"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.split(":")[0],
)
def test_impossible_values_are_refused(row, options, message):
    with pytest.raises(ValueError, match=message):
        build(row, 10, **options)


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
