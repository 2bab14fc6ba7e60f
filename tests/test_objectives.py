"""
What an attacker maximises: values, signs, invariances and ties.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from art_mmc.objectives import OBJECTIVES, cross_entropy, dlr, margin, rescaled_cross_entropy, soft_margin, targeted_dlr

every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
BY_HAND = torch.tensor([[5.0, 3.0, 1.0, 0.0]] * 4, dtype=torch.float64)


def make(nb_classes, batch=16, seed=0, dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch, nb_classes, generator=generator, dtype=torch.float64)
    y = torch.randint(nb_classes, (batch,), generator=generator)
    y[: batch // 2] = logits[: batch // 2].argmax(dim=1)  # half of them right
    return logits.to(dtype), y


def by_sample(logits, y, value):
    """The values of a function of a row and its class."""
    return np.array([value(row, k) for row, k in zip(logits.double().numpy(), y.tolist(), strict=True)])


def margin_oracle(logits, y):
    return by_sample(logits, y, lambda row, k: max(np.delete(row, k)) - row[k])


def dlr_oracle(logits, y):
    def value(row, k):
        first, _, third = sorted(row, reverse=True)[:3]
        return -(row[k] - max(np.delete(row, k))) / (first - third)

    return by_sample(logits, y, value)


def targeted_dlr_oracle(logits, target):
    def value(row, k):
        first, _, third, fourth = sorted(row, reverse=True)[:4]
        return -(row[k] - max(np.delete(row, k))) / (first - (third + fourth) / 2)

    return by_sample(logits, target, value)


def rescaled_cross_entropy_oracle(logits, y):
    """Values and gradients, the gap being a constant: (softmax(a / gap) - onehot(y)) / gap."""
    values, gradients = [], []
    for row, k in zip(logits.double().numpy(), y.tolist(), strict=True):
        first, second = sorted(row, reverse=True)[:2]
        scaled = (row - first) / (first - second)
        f = np.exp(scaled) / np.exp(scaled).sum()
        values.append(-np.log(f[k]))
        gradients.append((f - np.eye(len(row))[k]) / (first - second))
    return np.array(values), np.array(gradients)


def soft_margin_oracle(logits, y, t=3):
    """Values and gradients, the deviation being a constant: t / s times (softmax over the others, -1 at y)."""
    values, gradients = [], []
    for row, k in zip(logits.double().numpy(), y.tolist(), strict=True):
        s = np.sqrt(np.mean((row - row.mean()) ** 2))
        terms = np.exp(t * (row - row.max()) / s)
        terms[k] = 0
        values.append(np.log(terms.sum()) + t * row.max() / s - t * row[k] / s)
        gradients.append(t / s * (terms / terms.sum() - np.eye(len(row))[k]))
    return np.array(values), np.array(gradients)


def test_table_of_names():
    functions = [margin, cross_entropy, rescaled_cross_entropy, dlr, targeted_dlr, soft_margin]
    assert {each.__name__: each for each in functions} == OBJECTIVES


@pytest.mark.parametrize(
    ("objective", "oracle", "least"),
    [(margin, margin_oracle, 2), (dlr, dlr_oracle, 3), (targeted_dlr, targeted_dlr_oracle, 4)],
)
def test_value_and_gradient(objective, oracle, least):
    for nb_classes in (least, 10, 200):
        logits, y = make(nb_classes, batch=64)
        np.testing.assert_allclose(objective(logits, y).numpy(), oracle(logits, y), rtol=1e-12)
    logits, y = make(5, batch=4, seed=3)
    assert torch.autograd.gradcheck(lambda a: objective(a, y), logits.requires_grad_(True))


def test_values_by_hand():
    # a = (5, 3, 1, 0). y = 0: 3 - 5 = -2, over 5 - 1 = 4: -0.5. y = 1: 5 - 3 = 2 -> 0.5. y = 3: 5 - 0 = 5 -> 1.25
    y = torch.arange(4)
    assert margin(BY_HAND, y).tolist() == [-2.0, 2.0, 4.0, 5.0]
    assert dlr(BY_HAND, y).tolist() == [-0.5, 0.5, 1.0, 1.25]
    # a_(1) - (a_(3) + a_(4)) / 2 = 5 - 1/2 = 4.5. t = 0: -2 -> -4/9. t = 1: 2 -> 4/9. t = 2: 8/9. t = 3: 10/9
    np.testing.assert_allclose(9 * targeted_dlr(BY_HAND, y), [-4, 4, 8, 10])
    # gap 2: a / 2 = (2.5, 1.5, 0.5, 0), less 2.5: (0, -1, -2, -2.5)
    total = np.log(1 + np.exp(-1) + np.exp(-2) + np.exp(-2.5))
    np.testing.assert_allclose(rescaled_cross_entropy(BY_HAND, y), total + np.array([0, 1, 2, 2.5]))


SCALED = {rescaled_cross_entropy: rescaled_cross_entropy_oracle, soft_margin: soft_margin_oracle}
SHARPER = {partial(soft_margin, t=t): partial(soft_margin_oracle, t=t) for t in (0.5, 8)}


@pytest.mark.parametrize("nb_classes", [2, 3, 10, 200])
@pytest.mark.parametrize("objective", SCALED | SHARPER)
def test_value_and_gradient_of_those_with_a_scale_that_counts_as_a_constant(objective, nb_classes):
    """The scale's own derivative is left out, so finite differences are no oracle here."""
    logits, y = make(nb_classes, batch=64)
    values, gradients = (SCALED | SHARPER)[objective](logits, y)
    leaf = logits.clone().requires_grad_(True)
    result = objective(leaf, y)
    result.sum().backward()
    np.testing.assert_allclose(result.detach().numpy(), values, rtol=1e-12)
    np.testing.assert_allclose(leaf.grad.numpy(), gradients, rtol=1e-9, atol=1e-12)


def test_soft_margin_by_hand():
    # a = (4, 2, 0): mean 2, s = sqrt((4 + 0 + 4) / 3) = 1.632993; 3 / s = 1.837117
    # y = 0: log(exp(-2 * 1.837117) + exp(-4 * 1.837117)); y = 1: log(exp(2 * 1.837117) + exp(-2 * 1.837117))
    # of two classes s is half the gap: a = (5, 1) gives 3 * (1 - 5) / 2 = -6 and 6
    logits = torch.tensor([[4.0, 2.0, 0.0]] * 2, dtype=torch.float64)
    expected = [np.log(np.exp(-3.674235) + np.exp(-7.348469)), np.log(np.exp(3.674235) + np.exp(-3.674235))]
    np.testing.assert_allclose(soft_margin(logits, torch.tensor([0, 1])).numpy(), expected, rtol=1e-6)
    assert soft_margin(torch.tensor([[5.0, 1.0]] * 2), torch.tensor([0, 1])).tolist() == [-6.0, 6.0]


@every_objective
def test_saturation(objective):
    """In float32 the plain cross-entropy alone has no gradient once the true logit leads by far."""
    for scale in (1.0, 1e2, 1e4):
        logits = (scale * torch.tensor([[3.0, 1.0, 0.5, -1.0]])).requires_grad_(True)
        objective(logits, torch.tensor([0])).sum().backward()
        largest = logits.grad.abs().max() * scale  # the invariant ones have gradients that shrink with the scale
        if objective is cross_entropy and scale > 1:
            assert largest == 0
        else:
            assert largest > 0.1


@pytest.mark.parametrize(("objective", "least"), [(dlr, 3), (targeted_dlr, 4)])
def test_ratios_refuse_too_few_classes(objective, least):
    for k in range(1, least):
        with pytest.raises(
            ValueError, match=f"{objective.__name__} needs at least {least} classes .*, got {k}; use margin"
        ):
            objective(torch.zeros(4, k), torch.zeros(4, dtype=torch.int64))


def test_cross_entropy_is_torchs():
    for nb_classes, dtype in ((2, torch.float64), (10, torch.float32), (200, torch.float32)):
        logits, y = make(nb_classes, dtype=dtype)
        assert torch.equal(cross_entropy(logits, y), functional.cross_entropy(logits, y, reduction="none"))


TIES = {
    "all equal": [2.0, 2.0, 2.0, 2.0],
    "zeros": [0.0, 0.0, 0.0, 0.0],
    "three largest equal": [3.0, 3.0, 3.0, 1.0],
    "two largest equal": [3.0, 3.0, 2.0, 1.0],
    "second and third equal": [3.0, 2.0, 2.0, 1.0],
    "huge and equal": [1e4, 1e4, 1e4, 1e4],
    "huge and opposite": [1e4, -1e4, -1e4, 1e4],
    "all but equal": [1e-40, 0.0, 0.0, 0.0],
}


@every_objective
def test_ties_give_numbers(objective):
    for name, row in TIES.items():
        for k in range(4):
            logits = torch.tensor([row], requires_grad=True)
            value = objective(logits, torch.tensor([k]))
            value.sum().backward()
            assert torch.isfinite(value).all(), name
            assert torch.isfinite(logits.grad).all(), name
    for dtype in (torch.bfloat16, torch.float16):
        low = torch.tensor(list(TIES.values()), dtype=dtype)
        assert torch.isfinite(objective(low, torch.zeros(len(low), dtype=torch.int64))).all()


def test_where_there_is_nothing_to_divide_by_it_is_the_margin():
    for row in (TIES["all equal"], TIES["three largest equal"], TIES["two largest equal"]):
        for objective in (margin, dlr, targeted_dlr):
            assert objective(torch.tensor([row]), torch.tensor([0])).tolist() == [0.0]
    assert dlr(torch.tensor([TIES["three largest equal"]]), torch.tensor([3])).tolist() == [2.0]
    assert targeted_dlr(torch.tensor([[3.0, 3.0, 3.0, 3.0, 1.0]]), torch.tensor([4])).tolist() == [2.0]


def test_rescaled_cross_entropy_of_a_tie_is_the_cross_entropy():
    for name in ("all equal", "three largest equal", "two largest equal", "huge and opposite"):
        logits = torch.tensor([TIES[name]])
        for k in range(4):
            assert torch.equal(
                rescaled_cross_entropy(logits, torch.tensor([k])), cross_entropy(logits, torch.tensor([k]))
            )


@every_objective
def test_one_value_a_sample(objective):
    """(B,), each sample's own, with the arguments left alone."""
    logits, y = make(4)
    kept = logits.clone(), y.clone()
    values = objective(logits, y)
    assert values.shape == y.shape
    assert torch.equal(logits, kept[0])
    assert torch.equal(y, kept[1])
    for i in range(len(y)):
        torch.testing.assert_close(objective(logits[i : i + 1], y[i : i + 1])[0], values[i], rtol=1e-14, atol=0)
