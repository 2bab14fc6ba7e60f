"""
Checks of what comes in from outside: what passes, and every message.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from art_mmc.checks import (
    as_array,
    check_eps,
    check_images,
    check_labels,
    check_radii,
    check_type,
    choice,
    indices,
    number,
    several,
    switch,
    unknown_name,
    whole,
)


def test_unknown_name():
    known = ["sce", "mmc", "mmlda", "center", "isce"]
    near = {"mcm": "mmc", "MMC": "mmc", "mmdla": "mmlda", "centre": "center", "icse": "isce"}
    for name, nearest in near.items():
        error = unknown_name("defence", name, known)
        assert isinstance(error, ValueError)
        assert (
            str(error) == f"unknown defence '{name}'. Did you mean '{nearest}'? Known: sce, mmc, mmlda, center, isce."
        )
    for name in ("zzzz", None, 3, ("a",)):
        assert str(unknown_name("attack", name, iter(["pgd", "fgsm"]))) == f"unknown attack '{name}'. Known: pgd, fgsm."


def test_values_that_pass():
    assert choice("p", "b", ("a", "b")) == "b"
    assert choice("p", None, (None, 1)) is None
    assert whole("p", np.int64(3)) == 3
    assert type(whole("p", np.int64(3))) is int
    assert whole("p", 0, least=0) == 0
    assert switch("p", False) is False
    several("p", np.array([1.0, 2.0]), 1, 2)
    assert number("p", np.float32(0.5)) == 0.5
    assert type(number("p", 1)) is float
    assert number("p", 0, 0, 1, "[)") == 0
    assert number("p", 1, 0, 1, "(]") == 1


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: choice("p", "c", ("a", "b")), "p: expected one of 'a', 'b', got 'c'."),
        *(
            (lambda value=value: whole("p", value), f"p: expected a whole number of at least 1, got {value!r}.")
            for value in (0, True, 1.0, "1", None)
        ),
        (lambda: switch("p", 1), "p: expected True or False, got 1."),
        *(
            (lambda value=value: as_array("p", value), f"p: expected an array of numbers, got {value!r}.")
            for value in ("a", None, [1j], [[1], [1, 2]])
        ),
        (lambda: as_array("p", [0.0, math.nan], finite=True), "p: expected finite numbers, got NaN or infinity."),
        *(
            (
                lambda value=value: several("p", value, 1),
                f"p: expected one or more numbers of at least 1, got {value!r}.",
            )
            for value in (2.0, (), "12")
        ),
        (lambda: several("p", (1, 2), length=3), "p: expected 3 numbers of at least 0, got (1, 2)."),
        (lambda: several("p", [1, -1]), "p: expected a number of at least 0, got -1."),
        (lambda: whole("p", 1, least=2), "p: expected a whole number of at least 2, got 1."),
        *(
            (lambda value=value: number("p", value), f"p: expected a positive number, got {value!r}.")
            for value in (0, -1.0, math.inf, math.nan, True, "1", None)
        ),
        (lambda: number("p", -1, 0, ends="[)"), "p: expected a number of at least 0, got -1."),
        (lambda: number("p", 1, 0, 1), "p: expected a number in (0, 1), got 1."),
        (lambda: number("p", 2.0, 0, 1, "[]"), "p: expected a number in [0, 1], got 2.0."),
    ],
)
def test_values_that_do_not(check, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check()


def test_a_type():
    check_type("p", 1, int)
    with pytest.raises(TypeError, match=r"^p: expected a whole number, got str\.$"):
        check_type("p", "1", int, "a whole number")


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_indices_of_labels(kind):
    for labels in ([2, 0], [[2], [0]], [[0, 0, 1], [1, 0, 0]]):
        assert indices(kind(labels)).tolist() == [2, 0]


def test_images_that_pass():
    for dtype in ("float32", "float64", "float16", "uint8", "int64"):
        x = np.ones((2, 3, 4, 4), dtype)
        assert check_images(x) is x
        assert check_images(x, (3, 4, 4)) is x
        assert check_images(x, [3, 4, 4]) is x
        assert (x == 1).all()


FIRST = "; the channels come last here: x.transpose(0, 3, 1, 2) puts them first"


@pytest.mark.parametrize(
    ("x", "shape", "message"),
    [
        *(
            (np.zeros(s), None, f"x is empty (shape {s}): at least one sample is needed.")
            for s in ((0, 3, 4, 4), (0,), ())
        ),
        (np.zeros((2, 1, 28, 28)), (3, 32, 32), "x has shape (2, 1, 28, 28), expected (N, 3, 32, 32)."),
        (
            np.zeros((3, 8, 8)),
            (3, 8, 8),
            "x has shape (3, 8, 8), expected (N, 3, 8, 8); for a single sample pass x[None].",
        ),
        (np.zeros((5, 8, 6, 3)), (3, 8, 6), f"x has shape (5, 8, 6, 3), expected (N, 3, 8, 6){FIRST}."),
        # not where the sides are swapped as well
        (np.zeros((5, 6, 8, 3)), (3, 8, 6), "x has shape (5, 6, 8, 3), expected (N, 3, 8, 6)."),
    ],
)
def test_images_of_another_shape(x, shape, message):
    with pytest.raises(ValueError, match="x") as info:
        check_images(x, shape)
    assert str(info.value) == message
    with pytest.raises(ValueError, match="^x_train"):
        check_images(x, shape, name="x_train")
    if FIRST in message:  # the mend that the message offers does mend
        assert check_images(x.transpose(0, 3, 1, 2), shape).shape[1:] == shape


def test_images_not_finite():
    for dtype in ("float16", "float32", "float64"):
        for bad in (np.nan, np.inf, -np.inf):
            x = np.zeros((6, 2, 3), dtype)
            x[2, 1, 0] = x[5, 0, 0] = x[5, 1, 1] = bad
            with pytest.raises(ValueError, match=r"^x has NaN or infinite values in 2 of 6 samples \(first: 2\)\.$"):
                check_images(x)


@pytest.mark.filterwarnings("error")
def test_infinities_that_cancel_and_sums_that_overflow():
    """Plus and minus infinity sum to NaN, which is no number; a sum may overflow though each term is one."""
    x = np.zeros((3, 4), np.float32)
    x[1, 0], x[1, 1] = np.inf, -np.inf
    with pytest.raises(ValueError, match=r"in 1 of 3 samples \(first: 1\)"):
        check_images(x)
    for dtype, value in (("float16", 1.0), ("float32", 3e38), ("float64", 1e308)):
        assert len(check_images(np.full((2, 300, 300), value, dtype))) == 2


@pytest.mark.parametrize(
    "y",
    [
        np.array([0, 1, 2]),
        np.array([0, 1, 2], np.uint8),
        np.array([0.0, 2.0]),
        np.array([False, True]),
        np.array([[0], [2]]),
        np.eye(3)[[0, 2]],
        np.eye(3, dtype=np.int64),
        np.array([[0.2, 0.3, 0.5]]),
    ],
    ids=["int64", "uint8", "float", "bool", "column", "one-hot", "one-hot int", "probabilities"],
)
def test_labels_that_pass(y):
    kept = y.copy()
    found = check_labels(y, 3, length=len(y))
    assert (found.shape, found.dtype) == ((len(y),), np.int64)
    for row, label in zip(y.tolist(), found, strict=True):
        assert label == (row if not isinstance(row, list) else row[0] if len(row) == 1 else row.index(max(row)))
    assert (y == kept).all()


WHOLE = "y has labels that are no whole numbers: expected class indices 0 to 2."


@pytest.mark.parametrize(
    ("y", "message"),
    [
        *((np.zeros(shape), f"y is empty (shape {shape}): at least one label is needed.") for shape in ((0,), (0, 3))),
        (np.array(None), "y: expected labels (N,) or (N, 3), got None."),
        *(
            (np.zeros(shape), f"y has shape {shape}, expected (N,) indices or (N, 3) one-hot labels.")
            for shape in ((4, 2), (4, 4), (4, 3, 1), (4, 1, 1))
        ),
        *((np.array([[0.0, bad, 0.0]]), "y has NaN or infinite values.") for bad in (np.nan, np.inf)),
        *((np.array(y), WHOLE) for y in ([0.5, 1.0], [np.nan], [np.inf], [[1.5], [0.0]], ["0", "1"], [1j])),
        (np.array([None, 1], dtype=object), WHOLE),
        *(
            (np.array(y), f"y has labels from {low} to {high}, expected 0 to 2 (nb_classes=3).")
            for y, low, high in (
                ([0, 3], 0, 3),
                ([-1, 2], -1, 2),
                ([-100, 0], -100, 0),
                ([1, 2, 3], 1, 3),
                ([[0], [7]], 0, 7),
                ([5.0], 5, 5),
            )
        ),
    ],
    ids=str,
)
def test_labels_that_do_not_fit(y, message):
    with pytest.raises(ValueError, match="y") as info:
        check_labels(y, 3)
    assert str(info.value) == message
    with pytest.raises(ValueError, match="^y_train"):
        check_labels(y, 3, name="y_train")
    with pytest.raises(ValueError, match=r"^y has 2 labels for 5 samples\.$"):
        check_labels(np.array([0, 1]), 3, length=5)


@pytest.mark.parametrize("eps", [8 / 255, 1, 1.0, 1e-9, np.float32(0.25), np.float64(0.3)], ids=str)
def test_eps_that_passes(eps):
    assert type(check_eps(eps)) is float
    assert check_eps(eps) == eps


@pytest.mark.parametrize(
    ("eps", "message"),
    [
        (8, "got 8; did you mean 8 / 255?"),
        (8.0, "got 8; did you mean 8 / 255?"),
        (1.5, "got 1.5; did you mean 1.5 / 255?"),
        *((each, f"got {each}") for each in (0, -0.1, math.nan)),
    ],
    ids=str,
)
def test_eps_out_of_range(eps, message):
    with pytest.raises(ValueError, match="eps") as info:
        check_eps(eps, name="eps_step")
    assert str(info.value) == f"eps_step: expected a number in (0, 1], inputs being in [0, 1], {message}"


BANDS = (np.zeros((3, 1, 1), np.float32), np.array([1, 2, 4], np.float32).reshape(3, 1, 1))


@pytest.mark.parametrize(
    ("box", "eps", "message"),
    [
        ((0, 255), 25.5, None),
        ((0, 255), 256, "in (0, 255], inputs being in [0, 255], got 256"),  # and no hint: they are pixels already
        ((-1, 1), 2.0, None),
        ((-1, 1), 8, "in (0, 2], inputs being in [-1, 1], got 8"),
        ((-0.5, 0.5), 8, "in (0, 1], inputs being in [-0.5, 0.5], got 8"),
        ((0.1, 0.3), 0.3 - 0.1, None),
        (BANDS, 4, None),
        (BANDS, 4.1, "in (0, 4], inputs being in [0, 4], got 4.1"),
        (None, 1e6, None),
        (None, np.inf, "a positive number, got inf"),
        (None, 0, "a positive number, got 0"),
    ],
)
def test_eps_is_in_the_unit_of_the_inputs(box, eps, message):
    if message is None:
        assert check_eps(eps, clip_values=box) == eps
        assert check_radii([eps, eps / 2], clip_values=box) == [eps / 2, eps]
        return
    with pytest.raises(ValueError, match="eps") as info:
        check_eps(eps, clip_values=box)
    assert str(info.value) == f"eps: expected {'a number ' * (box is not None)}{message}"
