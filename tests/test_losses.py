"""
The losses: every formula against its transcription in float64 numpy, gradients, float types, label formats, reductions,
variants, and what is refused.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import pickle
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from art_mmc import losses as L  # noqa: N812
from art_mmc.defences import DEFENCES
from art_mmc.heads import CenterTrackingHead
from tests.cases import CASES, FORMULAS, SOFT, batch, published, rce, sce

CLASSES = [2, 10, 200]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]

every_loss = pytest.mark.parametrize("key", CASES)
every_soft_loss = pytest.mark.parametrize("key", SOFT)


def sizes(key, classes=CLASSES):
    """The numbers of classes for which a loss is defined."""
    return [k for k in classes if k >= CASES[key].least]


def each(key, reduction="none"):
    return CASES[key].build(reduction)


def assert_values(actual, expected, dtype, terms=1):
    """
    To a relative 1e-6, and in float32 besides within four units in the last place of 1 a term: what softmax and
    log-softmax themselves lose where the value is small.
    """
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert actual.shape == expected.shape
    kwargs = {"rtol": 1e-10, "atol": 1e-14} if dtype == torch.float64 else {"rtol": 1e-6, "atol": 4 * terms * 2.0**-24}
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, **kwargs)


# ---------------------------------------------------------------------------------------------- value and gradient


@every_loss
def test_value(key):
    """The formula's, under autocast too."""
    for k in sizes(key):
        for dtype in DTYPES:
            logits, y = batch(k, dtype=dtype)
            value = each(key)(logits, y)
            assert_values(value, CASES[key].values(logits, y), dtype, k - 1 if CASES[key].sums else 1)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                under_autocast = each(key)(logits, y)
            assert under_autocast.dtype == value.dtype
            assert torch.equal(under_autocast, value), (k, dtype)


@every_loss
def test_gradcheck(key):
    for k in sizes(key):
        logits, y = batch(k, n=3, seed=2)
        loss = each(key)
        values = functools.partial(lambda loss, y, a: loss(a, y), loss, y)
        assert torch.autograd.gradcheck(values, logits.requires_grad_(True), fast_mode=k > 10)


@every_loss
def test_gradient_in_low_precision(key):
    """The gradient of the float64 loss on the same rounded logits, to float32's digits (bfloat16's: what it stores)."""
    for k in sizes(key):
        for dtype, rtol in ((torch.float32, 1e-5), (torch.bfloat16, 2.0**-8)):
            logits, y = batch(k, dtype=dtype)
            reference, leaf = logits.double().requires_grad_(True), logits.requires_grad_(True)
            each(key)(reference, y).sum().backward()
            each(key)(leaf, y).sum().backward()
            assert leaf.grad.dtype == dtype
            atol = 1e-6 * max(1.0, reference.grad.abs().max().item())
            np.testing.assert_allclose(leaf.grad.double().numpy(), reference.grad.numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("key", ["mmc-code", "lgm", "pc+lc-code-soft"])
def test_second_derivatives_and_gradients_of_torch_func(key):
    """Per-sample gradients, as people take them by vmap."""
    logits, y = batch(10, n=3, seed=5)
    loss = each(key, "mean")
    assert torch.autograd.gradgradcheck(lambda a: loss(a, y), logits.clone().requires_grad_(True))
    loss.reduction = "sum"
    rows = torch.func.vmap(torch.func.grad(lambda a, label: loss(a[None], label[None])))(logits, y)
    leaf = logits.clone().requires_grad_(True)
    loss(leaf, y).backward()
    np.testing.assert_allclose(rows.numpy(), leaf.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("key", ["gce-code", "gce-paper", "lc-soft", "pc+lc-code-soft", "isce-no-clip", "lgm"])
def test_a_true_class_of_certainty_still_has_a_gradient(key):
    """Where 1 - f_y is far below float32's 1e-7, what is left of the gradient is right to its own digits."""
    logits = torch.zeros(1, 10, dtype=torch.float64)
    logits[0, 3], logits[0, 5] = 40.0, 1.0
    reference, leaf = logits.clone().requires_grad_(True), logits.float().requires_grad_(True)
    y = torch.tensor([3])
    each(key, "sum")(reference, y).backward()
    each(key, "sum")(leaf, y).backward()
    tolerance = 1e-6 * reference.grad.abs().max().item()
    np.testing.assert_allclose(leaf.grad.numpy(), reference.grad.numpy(), rtol=1e-4, atol=tolerance)


def test_losses_of_no_samples():
    """As torch's: nothing, a sum of zero, a mean that is no number."""
    logits, y = torch.zeros(0, 10, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for key in CASES:
        assert each(key, "none")(logits, y).shape == (0,)
        assert each(key, "sum")(logits, y) == 0
        assert torch.isnan(each(key, "mean")(logits, y))


EXTREMES = {
    "true class ahead": lambda k: torch.eye(k)[0] * 1e4,
    "true class far ahead": lambda k: torch.eye(k)[0] * 2e4 - 1e4,
    "false class ahead": lambda k: torch.eye(k)[1] * 1e4,
    "true class far behind": lambda k: 1e4 - torch.eye(k)[0] * 2e4,
    "all large": lambda k: torch.full((k,), 1e4),
    "all very negative": lambda k: torch.full((k,), -1e4),
    "all zero": lambda k: torch.zeros(k),
    "spread": lambda k: torch.linspace(-1e4, 1e4, k),
    "spread down": lambda k: torch.linspace(1e4, -1e4, k),
}


@every_loss
def test_extreme_logits(key):
    """Finite in value and gradient, and the value still the formula's."""
    for k in sizes(key):
        for dtype in DTYPES:
            logits = torch.stack([make(k) for make in EXTREMES.values()]).to(dtype).requires_grad_(True)
            y = torch.zeros(9, dtype=torch.int64)
            values = each(key)(logits, y)
            values.mean().backward()
            for i, name in enumerate(EXTREMES):
                assert torch.isfinite(values[i]), (name, dtype)
                assert torch.isfinite(logits.grad[i]).all(), (name, dtype)
            defined = torch.arange(9) != list(EXTREMES).index("all zero")  # a unit vector along zero is not
            expected = CASES[key].values(logits[defined], y[defined])
            np.testing.assert_allclose(values[defined].detach().double().numpy(), expected, rtol=2e-6, atol=1e-7)
    for row in ([1.0, 1.0, 1.0], [2.0, 2.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 0.0]):  # ties
        logits = torch.tensor([row], requires_grad=True)
        value = each(key)(logits, torch.tensor([0]))
        value.sum().backward()
        assert torch.isfinite(value).all()
        assert torch.isfinite(logits.grad).all()


GOLDEN = [
    # two classes, logits (log 3, 0): f = (3/4, 1/4)
    # -log 3/4 = 0.2876821; -log 1/4 = 1.3862944
    ("sce", [math.log(3), 0.0], 0, 0.2876821),
    ("sce", [math.log(3), 0.0], 1, 1.3862944),
    # smoothed: 0.8 * 0.2876821 + 0.2 * 1.3862944
    ("sce-smooth.2", [math.log(3), 0.0], 0, 0.5074045),
    # -1 sum_{i != y} log softmax(-a)_i: softmax(-a) = (1/4, 3/4); y = 0: -log 3/4; y = 1: -log 1/4
    ("rce", [math.log(3), 0.0], 0, 0.2876821),
    ("rce", [math.log(3), 0.0], 1, 1.3862944),
    # logits -||z - mu||^2 / 2 = (-2, -8): squared distances 4 and 16
    ("mmc-code", [-2.0, -8.0], 0, 4.0),
    ("mmc-code", [-2.0, -8.0], 1, 16.0),
    ("mmc-paper", [-2.0, -8.0], 1, 8.0),
    ("mmc-code-t10", [-2.0, -8.0], 1, 160.0),
    # a = (0, -log(3) / 2): code doubles it, softmax (3/4, 1/4)
    ("mmlda-code", [0.0, -math.log(3) / 2], 0, 0.2876821),
    ("mmlda-paper", [0.0, -math.log(3)], 0, 0.2876821),
    # d = (1, 1), alpha 0.1, lambda 0.01: -log(e^-1.1 / (e^-1.1 + e^-1)) + 0.01 = log(1 + e^0.1) + 0.01
    ("lgm", [-1.0, -1.0], 0, 0.7543967),
    # 1/4 + 0.995 - 3/4 = 0.495; 3/4 + 0.995 - 1/4 = 1.495
    ("pc-code", [math.log(3), 0.0], 0, 0.495),
    ("pc-code", [math.log(3), 0.0], 1, 1.495),
    ("lc-hard", [3.0, 1.0], 0, 2.0),
    ("lc-soft", [3.0, 1.0], 0, 2.0),
    ("lc-soft", [3.0, 1.0], 1, 0.0),
    # 0.495 + 0.05 * log 3
    ("pc+lc-code-soft", [math.log(3), 0.0], 0, 0.5499306),
    ("gce-code", [math.log(3), 0.0], 0, 0.0),
    # t = (0.6, 0.8), predicted 1: (0.6, 0.9): y = 1: log(1 + e^-0.3); y = 0: log(1 + e^0.3)
    ("isce", [3.0, 4.0], 1, 0.5543552),
    ("isce", [3.0, 4.0], 0, 0.8543552),
    # the label's own entry raised: (0.7, 0.8): log(1 + e^0.1)
    ("isce-true", [3.0, 4.0], 0, 0.7443967),
    # t = (1, 0), 1.1 clipped to 1: log(1 + e^-1)
    ("isce", [5.0, 0.0], 0, 0.3132617),
    # 2 (1 + 0.3) = 2.6 without a clip: log(1 + e^-2.6)
    ("isce-no-clip", [5.0, 0.0], 0, 0.07164469),
    # three classes, logits (log 2, 0, 0): f = (1/2, 1/4, 1/4)
    ("sce", [math.log(2), 0.0, 0.0], 0, 0.6931472),
    # 0.8 log 2 + 0.1 (log 4 + log 4)
    ("sce-smooth.2", [math.log(2), 0.0, 0.0], 0, 0.8317766),
    # softmax(-a) = (1/5, 2/5, 2/5); y = 0: -1/2 (2 log 2/5); y = 1: -1/2 (log 1/5 + log 2/5)
    ("rce", [math.log(2), 0.0, 0.0], 0, 0.9162907),
    ("rce", [math.log(2), 0.0, 0.0], 1, 1.2628643),
    # 2 (1/4 + 0.995 - 1/2) = 1.49, over 2; y = 1: (0.995 + 1/4) + 0.995 = 2.24, over 2
    ("pc-paper", [math.log(2), 0.0, 0.0], 0, 1.49),
    ("pc-code", [math.log(2), 0.0, 0.0], 0, 0.745),
    ("pc-paper", [math.log(2), 0.0, 0.0], 1, 2.24),
    ("pc-code", [math.log(2), 0.0, 0.0], 1, 1.12),
    # xi = 0.1: 1/4 + 0.1 - 1/2 < 0, nothing to pay
    ("pc-xi.1", [math.log(2), 0.0, 0.0], 0, 0.0),
    # a = (log 8, log 3, 0): w = (3/4, 1/4): 3/4 log(8/3) + 1/4 log 8; the hard one log(8/3)
    ("lc-soft", [math.log(8), math.log(3), 0.0], 0, 1.2554823),
    ("lc-hard", [math.log(8), math.log(3), 0.0], 0, 0.9808293),
    # y = 1 of (log 8, log 3, 0): w = (8/9, 1/9), only the last is behind: 1/9 log 3; the runner-up is ahead: 0
    ("lc-soft", [math.log(8), math.log(3), 0.0], 1, 0.12206803),
    ("lc-hard", [math.log(8), math.log(3), 0.0], 1, 0.0),
    # f_y = 1/2, q = (1/2, 1/2), entropy log 2: -(1/2)^0.333 log 2 / log 3; paper, alpha 0.2: -(1/2)^0.2
    ("gce-code", [math.log(2), 0.0, 0.0], 0, -0.5008850),
    ("gce-paper", [math.log(2), 0.0, 0.0], 0, -0.8705506),
    # y = 1: f_y = 1/4, q = (2/3, 1/3): -(1/4)^0.2 (2/3 log 3/2 + 1/3 log 3) / log 2 = -0.7578583 * 0.9182958
    ("gce-paper", [math.log(2), 0.0, 0.0], 1, -0.6959381),
    # t = (2, 1, 2) / 3; the first of the equal largest is predicted: (2/3 + 0.1, 1/3, 2/3);
    # y = 1: log(e^(13/30) + 1 + e^(1/3)) = log(1.5423903 + 1 + 1.3956124)
    ("isce", [2.0, 1.0, 2.0], 1, 1.3706737),
    # center, c = linspace(-2, 3, 4) = ((-2, -1/3), (4/3, 3)), z = a = (0, 0), y = 0:
    # log 2 + 0.1 / 2 (4 + 1/9) = 0.6931472 + 0.2055556
    ("center", [0.0, 0.0], 0, 0.8987027),
]


@pytest.mark.parametrize(
    ("key", "a", "y", "expected"), GOLDEN, ids=[f"{key}-K{len(a)}-y{y}-{i}" for i, (key, a, y, _) in enumerate(GOLDEN)]
)
def test_golden_value(key, a, y, expected):
    value = each(key)(torch.tensor([a], dtype=torch.float64), torch.tensor([y]))
    np.testing.assert_allclose(value.item(), expected, rtol=2e-7, atol=1e-12)


# -------------------------------------------------------------------------------------------------- label formats


def formats(y, k):
    one_hot = functional.one_hot(y, k)
    return {
        "int32": y.int(),
        "int16": y.short(),
        "uint8": y.to(torch.uint8),
        "float32 indices": y.float(),
        "float64 indices": y.double(),
        "column": y[:, None],
        "float column": y[:, None].float(),
        "one-hot int": one_hot,
        "one-hot bool": one_hot.bool(),
        "one-hot uint8": one_hot.to(torch.uint8),
        "one-hot float32": one_hot.float(),
        "one-hot float64": one_hot.double(),
        "one-hot bfloat16": one_hot.bfloat16(),
        "one-hot not contiguous": one_hot.T.contiguous().T,
    }


@every_loss
def test_label_formats_agree_exactly(key):
    """Also in a batch as large as the classes: nothing may be taken for something else in (K, K) logits."""
    loss = each(key)
    for k, n, dtype in [*((k, 8, dtype) for k in sizes(key) for dtype in DTYPES), (3, 3, torch.float64)]:
        logits, y = batch(k, n, dtype=dtype)
        expected = loss(logits, y)
        for name, labels in formats(y, k).items():
            kept = labels.clone()
            assert torch.equal(loss(logits, labels), expected), (name, k, dtype)
            assert torch.equal(labels, kept), (name, k, dtype)
    single = loss(logits[:1], y[:1])
    assert torch.equal(loss(logits[:1], y[:1, None]), single)
    torch.testing.assert_close(single[0], expected[0], rtol=1e-14, atol=0)


@every_soft_loss
def test_probability_labels_are_the_weighted_sum(key):
    """Every formula here is linear in the label, up to its vertices."""
    for k in sizes(key):
        logits, _ = batch(k)
        generator = torch.Generator().manual_seed(3)
        probabilities = torch.softmax(torch.randn(8, k, generator=generator, dtype=torch.float64), dim=1)
        probabilities[:2] = 0
        probabilities[0, :2] = 0.5
        probabilities[1, 0], probabilities[1, 1] = 1 - 1e-9, 1e-9
        expected = sum(probabilities[:, j].numpy() * CASES[key].values(logits, torch.full((8,), j)) for j in range(k))
        assert_values(each(key)(logits, probabilities), expected, torch.float64)
        for reduction, value in (("mean", expected.mean()), ("sum", expected.sum())):
            assert each(key, reduction)(logits, probabilities).item() == pytest.approx(value, rel=1e-10)
        single = each(key)(logits.float(), probabilities)  # labels of another type are cast to the logits'
        assert single.dtype == torch.float32
        np.testing.assert_allclose(single.numpy(), expected, rtol=2e-6, atol=1e-7)
        leaf, loss = logits[:3].clone().requires_grad_(True), each(key)
        values = functools.partial(lambda loss, y, a: loss(a, y), loss, probabilities[:3])
        assert torch.autograd.gradcheck(values, leaf, fast_mode=k > 10)


@pytest.mark.parametrize("key", [key for key in CASES if key not in SOFT])
def test_probability_labels_refused_by_name(key):
    message = f"{CASES[key].loss.__name__} is defined for one true class a sample, not for probability labels"
    for row in ([1 / 3, 1 / 3, 1 / 3], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, -1.0, 0.0]):
        with pytest.raises(ValueError, match=message):
            each(key)(batch(3)[0], torch.tensor([row] * 8))


def test_smoothing_of_probability_labels():
    """A label (0.7, 0.3, 0) smoothed by rho = 0.2 is 0.8 q + 0.1 (1 - q) = (0.59, 0.31, 0.1)."""
    a = torch.tensor([[1.0, -1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    each("sce-smooth.2")(a, torch.tensor([[0.7, 0.3, 0.0]])).sum().backward()
    target = torch.softmax(a.detach(), dim=1) - a.grad
    np.testing.assert_allclose(target.numpy(), [[0.59, 0.31, 0.1]], rtol=1e-7)


# ------------------------------------------------------------------------------- reductions, permutations, manners


@every_loss
def test_reduction_is_read_at_call_time(key):
    for k in sizes(key):
        logits, y = batch(k)
        loss, values = CASES[key].build(), CASES[key].values(logits, y)
        for reduction, expected in (("sum", values.sum()), ("none", values), ("mean", values.mean())):
            loss.reduction = reduction
            np.testing.assert_allclose(loss(logits, y).numpy(), expected, rtol=1e-10, atol=1e-14)


@every_loss
def test_options_and_copies_give_the_same_loss(key):
    logits, y = batch(10)
    loss = each(key)
    expected = loss(logits, y)
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == list(loss.buffers()) == []  # a loss holds no tensor
    kept = logits.clone(), y.clone(), torch.get_rng_state()
    loss(logits.requires_grad_(True), y).sum().backward()
    assert torch.equal(logits.detach(), kept[0])
    assert torch.equal(y, kept[1])
    assert torch.equal(torch.get_rng_state(), kept[2])
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert copied.reduction == "none"
        assert copied.options() == loss.options()
        assert torch.equal(copied(logits, y), expected)
    if key == "center":
        return
    temperature = {"temperature": loss.temperature} if hasattr(loss, "temperature") else {}
    again = type(loss)(**loss.options(), **temperature, reduction="sum")
    assert again.options() == loss.options()
    torch.testing.assert_close(again(logits, y), expected.sum(), rtol=1e-14, atol=0)
    for name, value in loss.options().items():
        assert f"{name}={value!r}" in repr(loss)


def test_published_defaults():
    exported = {getattr(L, name) for name in L.__all__} - {L.Loss, L.LinearInLabelLoss}
    assert exported | {row.loss for row in DEFENCES.values()} == set(FORMULAS)
    for loss, formula in FORMULAS.items():
        assert loss().options() == published(formula)
        assert loss.option_names() == list(published(formula))


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        *(
            (torch.tensor(y), f"labels from {low} to {high} do not fit logits with 3 classes")
            for y, low, high in (
                ([0, 3], 0, 3),
                ([[-1], [2]], -1, 2),
                ([-100.0, -100.0], -100, -100),  # which torch's cross-entropy skips
                ([-3, 0], -3, 0),
            )
        ),
        *(
            (torch.zeros(shape), rf"labels.*\(2, 3\).*{re.escape(str(shape))}|{re.escape(str(shape))}.*\(2, 3\)")
            for shape in ((7,), (9, 3), (2, 2), (2, 4), (2, 3, 1), (2, 1, 1), ())
        ),
        *(
            (torch.tensor(y), "labels.*whole numbers from 0 to 2")
            for y in ([0.3, 0.0], [math.nan, 0.0], [[math.inf]] * 2)
        ),
    ],
    ids=str,
)
def test_labels_that_do_not_fit(labels, message):
    for key in CASES:
        with pytest.raises(ValueError, match=message):
            each(key)(batch(3, n=2)[0], labels)
        if "-100" in message:  # which of 200 classes would be a fine index from the end
            with pytest.raises(ValueError, match="labels from -100 to -100 do not fit logits with 200 classes"):
                each(key)(batch(200, n=2)[0], labels)


def test_logits_and_reductions_that_do_not_fit():
    for shape in ((8,), (8, 3, 1)):
        with pytest.raises(ValueError, match=r"expected logits \(B, K\)"):
            each("sce")(torch.zeros(shape), torch.zeros(8, dtype=torch.int64))
    for reduction in ("avg", "", None, "Mean"):
        with pytest.raises(ValueError, match=f"reduction: expected one of none, mean, sum, got {reduction!r}"):
            each("mmc-code", reduction)(*batch(3))


# -------------------------------------------------------------------------------------------------------- variants


def test_gce_of_two_classes():
    """One false class is always level with itself: the released code's value is 0 everywhere, the paper's is 0 / 0."""
    logits = torch.tensor([[0.0, 0.0], [5.0, -5.0], [-1e4, 1e4], [0.3, 0.2]], requires_grad=True)
    values = L.GuidedComplementEntropyLoss(reduction="none")(logits, torch.tensor([0, 1, 0, 1]))
    assert not values.any()
    values.sum().backward()
    assert not logits.grad.any()
    with pytest.raises(ValueError, match=r"divides by log\(K - 1\): it needs at least 3 classes"):
        L.GuidedComplementEntropyLoss(variant="paper")(logits, torch.tensor([0, 1, 0, 1]))


def test_inference_softmax_clips_below_too():
    below = torch.tensor([[-5.0, -5.1, -5.2]], dtype=torch.float64)
    low = L.InferenceSoftmaxLoss(2.0, -0.1, reduction="none")
    t = below / below.norm()
    expected = -torch.log_softmax(torch.tensor([[-1.0, t[0, 1], t[0, 2]]], dtype=torch.float64), dim=1)[0, 0]
    torch.testing.assert_close(low(below, torch.tensor([0]))[0], expected, rtol=1e-12, atol=0)


# ---------------------------------------------------------------------------------------------------- class weights


def class_weights(k):
    """From 0 for the first class, which then does not count, to 2."""
    return [2 * j / (k - 1) for j in range(k)]


@pytest.mark.parametrize("k", CLASSES)
def test_sce_is_torchs(k):
    """Also where the label is smoothed, which torch does over all K classes; see the test of the smoothing."""
    products = itertools.product(DTYPES, (0.0, 0.3), ("none", "mean", "sum"), (None, class_weights(k)))
    for dtype, rho, reduction, weights in products:
        logits, y = batch(k, dtype=dtype)
        probabilities = torch.softmax(batch(k, seed=1)[0], dim=1)
        loss = L.SoftmaxCrossEntropyLoss(rho, reduction, weights)
        computed_in = torch.promote_types(dtype, torch.float32)
        settings = {"reduction": reduction, "label_smoothing": rho * k / (k - 1)}
        for labels in (y, probabilities.to(computed_in)):
            weight = None if weights is None else torch.tensor(weights, dtype=computed_in)
            expected = functional.cross_entropy(logits.to(computed_in), labels, weight, **settings)
            torch.testing.assert_close(loss(logits, labels), expected, rtol=3e-6, atol=0)


@pytest.mark.parametrize("k", CLASSES)
@pytest.mark.parametrize(("build", "formula"), [(L.SoftmaxCrossEntropyLoss, sce), (L.ReverseCrossEntropyLoss, rce)])
def test_weighted_losses_are_the_formulas(build, formula, k):
    logits, y = batch(k)
    weight = np.array(class_weights(k))
    values = np.array([[formula(row.copy(), j) for j in range(k)] for row in logits.numpy()])
    mine = weight[y] * values[np.arange(8), y]
    probabilities = torch.softmax(batch(k, seed=1)[0], dim=1)
    for labels in (y, y[:, None], functional.one_hot(y, k).float()):
        expected = {"none": mine, "sum": mine.sum(), "mean": mine.sum() / weight[y].sum()}
        for reduction, value in expected.items():
            actual = build(reduction=reduction, weight=weight)(logits, labels)
            np.testing.assert_allclose(actual.numpy(), value, rtol=1e-10, atol=1e-14)
    mine = (probabilities.numpy() * weight * values).sum(axis=1)
    for reduction, value in {"none": mine, "sum": mine.sum(), "mean": mine.mean()}.items():
        actual = build(reduction=reduction, weight=weight)(logits, probabilities)
        np.testing.assert_allclose(actual.numpy(), value, rtol=1e-10, atol=1e-14)


# ----------------------------------------------------------------------------------------------------- center loss


def center_setup(training=True, dtype=torch.float64, rate=0.5):
    torch.manual_seed(0)
    head = CenterTrackingHead(16, 10, center_rate=rate).to(dtype).train(training)
    head.centers.copy_(batch(16, n=10, seed=4)[0])
    z, y = batch(16, n=12)[0].to(dtype), torch.tensor([0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 4, 4])
    return head, z, y


@pytest.mark.parametrize(("rate", "labels"), [(0.0, "indices"), (0.3, "one-hot"), (1.0, "column"), (0.3, "indices")])
def test_center_loss_moves_the_centers_by_equation_4(rate, labels):
    head, z, y = center_setup(rate=rate)
    expected = head.centers.numpy().copy()
    for j in range(10):
        mine = [z[i].numpy() for i in range(12) if y[i] == j]
        expected[j] -= rate * sum((head.centers[j].numpy() - z_i for z_i in mine), np.zeros(16)) / (1 + len(mine))
    given = {"indices": y, "one-hot": functional.one_hot(y, 10).double(), "column": y[:, None]}[labels]
    L.CenterLoss()(head(z), given)
    np.testing.assert_allclose(head.centers.numpy(), expected, rtol=0, atol=1e-12)


def test_center_loss_moves_the_centers_in_training_only():
    head, z, y = center_setup()
    loss, before = L.CenterLoss(), head.centers.clone()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            loss(head(z), y)
        assert torch.equal(head.centers, before)
    head.eval()
    loss(head(z.clone().requires_grad_(True)), y).backward()
    assert torch.equal(head.centers, before)
    head.train()
    loss(head(z), y)
    assert not torch.equal(head.centers, before)


def test_center_loss_is_of_the_centers_before_their_update():
    """Its value, and its gradient: that of the softmax part plus lambda (z - c_y)."""
    head, z, y = center_setup()
    before, reference = head.centers.clone(), z.clone().requires_grad_(True)
    value = L.CenterLoss(0.2, "none")(head(z.requires_grad_(True)), y)
    value.sum().backward()
    softmax, apart = functional.cross_entropy(head.linear(reference), y, reduction="none"), z.detach() - before[y]
    softmax.sum().backward()
    torch.testing.assert_close(value, softmax + 0.2 / 2 * apart.square().sum(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(z.grad, reference.grad + 0.2 * apart, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(head.centers[:5], before[:5], rtol=1e-2)
    assert head.centers.grad is None


FEATURES = "CenterLoss needs the features .* CenterTrackingHead"
#: what is done to logits and labels, and what is said
SPOILT = {
    "detach": (lambda a, y: (a.detach(), y), FEATURES),
    "slice": (lambda a, y: (a[:], y), FEATURES),
    "clone": (lambda a, y: (a.clone(), y), FEATURES),
    "arithmetic": (lambda a, y: (a * 1.0, y), FEATURES),
    "cast": (lambda a, y: (a.bfloat16(), y), FEATURES),
    "another tensor": (lambda a, y: (torch.zeros(12, 10), y), FEATURES),
    **{
        str(bad): (lambda a, y, bad=bad: (a, torch.where(y == 2, bad, y)), "do not fit logits with 10 classes")
        for bad in (-1, 10, -100)
    },
}


@pytest.mark.parametrize("kind", SPOILT)
def test_center_loss_refuses_logits_without_features_and_bad_labels_and_moves_no_center(kind):
    head, z, y = center_setup()
    before, (spoil, message) = head.centers.clone(), SPOILT[kind]
    with pytest.raises(ValueError, match=message):
        L.CenterLoss()(*spoil(head(z), y))
    assert torch.equal(head.centers, before)
