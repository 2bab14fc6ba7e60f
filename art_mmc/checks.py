"""
Checks of what comes in from outside, each with one line that says what was expected, what came and the likely mend.
"""

import difflib
import inspect
import math
import os
import pickle
import sys
import traceback
import zipfile
import zlib
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if sys.version_info >= (3, 11):
    import tomllib as tomllib
else:
    import tomli as tomllib  # noqa: F401

#: what the readers of idx, pickle, zip, .mat, .npy and .pt files raise on bytes that are cut short or changed
READ_ERRORS = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


def users_place(err: BaseException, folder: str | None = None) -> str:
    """The innermost place, " (FILE, LINE)", where a user's own code, or that of a folder, raised an error, or ""."""
    ours = tuple(
        str(Path(str(sys.modules[name].__file__)).parent) + os.sep for name in ("torch", "art_mmc", "importlib")
    )
    places = []
    for frame in traceback.extract_tb(err.__traceback__):
        strange = frame.filename.startswith((*ours, "<")) or frame.filename == inspect.__file__
        if not strange and (folder is None or frame.filename.startswith(folder + os.sep)):
            places.append(f" ({Path(frame.filename).name}, {frame.lineno})")
    return places[-1] if places else ""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for a name of a `kind`, e.g. "defence", that no table holds: with the nearest known one and all."""
    names = list(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ValueError(f"unknown {kind} '{name}'.{hint} Known: {', '.join(names)}.")


def shown(value: Any) -> str:
    """A value as a message has it: one line, cut short."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_name(kind: str, name: Any, known: Iterable[str]) -> Any:
    """The name if it is a known one, else :func:`unknown_name`'s error is raised."""
    names = list(known)
    if not isinstance(name, Hashable) or name not in names:  # an array would compare its elements
        raise unknown_name(kind, name if isinstance(name, str) else shown(name), names)
    return name


def as_path(name: str, value: Any) -> Path:
    """The path of what a user gave, "~" being their home; TypeError for no path, ValueError for an empty one."""
    if isinstance(value, str) and not value:
        raise ValueError(f"{name}: expected a path, got ''.")
    if not isinstance(value, (str, Path)) and not isinstance(getattr(value, "__fspath__", bytes)(), str):
        raise TypeError(f"{name}: expected a path, a str or a pathlib.Path, got {shown(value)}.")
    return Path(value).expanduser()


def choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """The value of parameter `name`; ValueError if it is none of the choices."""
    known = list(choices)
    if not isinstance(value, Hashable) or value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {shown(value)}.")
    return value


def switch(name: str, value: Any) -> bool:
    """The value of parameter `name`; ValueError for anything but True and False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected True or False, got {shown(value)}.")
    return value


def whole(name: str, value: Any, least: int | None = 1) -> int:
    """The value of parameter `name` as an int; ValueError for no whole number of at least `least`, None for any."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name}: expected a whole number{bound}, got {shown(value)}.")
    if value >= 2**63:
        raise ValueError(f"{name}: expected a whole number below 2**63, got {shown(value)}.")
    return int(value)


def fraction(text: str) -> float:
    """The number that "0.1" or "8/255" stands for; ValueError or ZeroDivisionError for none."""
    over, slash, under = text.partition("/")
    return float(over) / float(under if slash else 1)


def check_seed(value: Any, name: str = "seed") -> int:
    """The seed as an int; ValueError where numpy and torch would not both take it."""
    if whole(name, value, least=0) >= 2**32:
        raise ValueError(f"{name}: expected a whole number below 2**32, got {value!r}.")
    return int(value)


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf, ends: str = "()") -> float:
    """The value as a float; ValueError when it is no number between the bounds, which `ends` has in by "[" and "]"."""
    plain = isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))
    plain = plain and not (isinstance(value, int) and abs(value) > sys.float_info.max)
    above = plain and (value > low or (ends[0] == "[" and value == low))
    if not (above and (value < high or (ends[1] == "]" and value == high))):
        expected = f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}"
        if high == math.inf:
            expected = "a positive number" if (low, ends[0]) == (0, "(") else f"a number of at least {low:g}"
            expected = "a finite number" if low == -math.inf else expected
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}.")
    return float(value)


def check_type(name: str, value: Any, kind: type, expected: str = "") -> None:
    """TypeError where the value of parameter `name` is not of a kind, in the words of `expected` if there are any."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {expected or f'a {kind.__name__}'}, got {type(value).__name__}.")


def as_array(name: str, value: Any, dtype: type | None = None, finite: bool = False) -> np.ndarray:
    """Numbers as an array; ValueError for text, objects, complex numbers, uneven rows, where asked NaN and infinity."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected an array of numbers, got {shown(value)}.")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity.")
    return array if dtype is None else array.astype(dtype, copy=False)


def several(name: str, value: Any, low: float = 0.0, length: int | None = None) -> None:
    """ValueError for no list, tuple or array of numbers of at least `low`, at least one or exactly so many."""
    listed = isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim == 1)
    if not listed or not len(value) or length not in (None, len(value)):
        raise ValueError(f"{name}: expected {length or 'one or more'} numbers of at least {low:g}, got {shown(value)}.")
    for each in value:
        number(name, each, low, ends="[)")


def indices(y: Any) -> Any:
    """Labels (N,), (N, 1) or (N, K), arrays or tensors checked before, as class indices (N,), the likeliest."""
    if y.ndim == 1:
        return y
    return y.reshape(-1) if y.shape[1] == 1 else y.argmax(1)


def check_images(
    x: Any, input_shape: tuple[int, ...] | None = None, name: str = "x", finite: bool = True
) -> np.ndarray:
    """Inputs (N, ...) as an array; ValueError for none, another shape, None for any, or NaN where they are `finite`."""
    x = as_array(name, x)
    if x.ndim == 0 or x.shape[0] == 0:
        raise ValueError(f"{name} is empty (shape {x.shape}): at least one sample is needed.")
    if input_shape is not None and tuple(x.shape[1:]) != tuple(input_shape):
        hint = ""
        if tuple(x.shape) == tuple(input_shape):
            hint = f"; for a single sample pass {name}[None]"
        elif x.ndim == 4 and (x.shape[3], x.shape[1], x.shape[2]) == tuple(input_shape):
            hint = f"; the channels come last here: {name}.transpose(0, 3, 1, 2) puts them first"
        raise ValueError(f"{name} has shape {x.shape}, expected (N, {', '.join(map(str, input_shape))}){hint}.")
    # One pass without a temporary array; only a non-finite sum (NaN, infinity or overflow) earns the exact look.
    if x.dtype.kind != "f" or not finite:
        return x
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum(x)
    if not np.isfinite(total) and not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
        raise ValueError(f"{name} has NaN or infinite values in {len(bad)} of {len(x)} samples (first: {bad[0]}).")
    return x


def check_inputs(x: Any, classifier: Any, name: str = "x", widths: float = 1.0) -> np.ndarray:
    """Inputs that an ART classifier takes: :func:`check_images`, of any shape where they are preprocessed, and unit."""
    x = check_images(x, None if classifier.preprocessing_defences else classifier.input_shape, name)
    check_near(x, classifier.clip_values, widths)
    return x


#: by how much a row of probabilities may sum to more or less than 1: the rounding of a thousand halves
ROWS = 1e-2


def check_labels(y: np.ndarray, nb_classes: int, name: str = "y", length: int | None = None) -> np.ndarray:
    """
    Labels as class indices (N,), int64, of probabilities the likeliest: they are (N,) or (N, 1), whole and in [0,
    nb_classes), or (N, nb_classes), each row of sum 1. ValueError when there are none, or not `length` of them, when
    they are of another shape or out of range; `name` is what the message calls them.
    """
    if y.dtype == object:
        y = np.asarray(y.tolist())
    if y.ndim == 0:
        raise ValueError(f"{name}: expected labels (N,) or (N, {nb_classes}), got {shown(y.item())}.")
    if y.shape[0] == 0:
        raise ValueError(f"{name} is empty (shape {y.shape}): at least one label is needed.")
    if length is not None and len(y) != length:
        raise ValueError(f"{name} has {len(y)} labels for {length} samples.")
    if y.ndim == 2 and y.shape[1] == nb_classes and nb_classes > 1:
        if not np.isfinite(y).all():
            raise ValueError(f"{name} has NaN or infinite values.")
        sums = y.sum(axis=1, dtype=np.float64)
        wrong = np.flatnonzero((y < 0).any(axis=1) | (abs(sums - 1) > ROWS))
        if len(wrong):
            raise ValueError(
                f"{name}: expected one-hot rows or probabilities, not below 0 and of sum 1, got a row from "
                f"{y[wrong[0]].min():g} to {y[wrong[0]].max():g} of sum {sums[wrong[0]]:g} (row {wrong[0]}, one of "
                f"{len(wrong)} such); of logits take the softmax, or the argmax."
            )
        return indices(y)
    if y.ndim != 1 and not (y.ndim == 2 and y.shape[1] == 1):
        raise ValueError(f"{name} has shape {y.shape}, expected (N,) indices or (N, {nb_classes}) one-hot labels.")
    counts = y.dtype.kind in "iub" or (y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all())
    if not counts:
        raise ValueError(f"{name} has labels that are no whole numbers: expected class indices 0 to {nb_classes - 1}.")
    low, high = y.min(), y.max()
    if low < 0 or high >= nb_classes:
        raise ValueError(
            f"{name} has labels from {int(low)} to {int(high)}, expected 0 to {nb_classes - 1} "
            f"(nb_classes={nb_classes})."
        )
    return indices(y).astype(np.int64)


#: the box of inputs as most papers have them
UNIT_BOX = (0.0, 1.0)

#: what the rounding of a calculation in float32 may add, as a share of the values in it
ROUNDING = 8 * float(np.finfo(np.float32).eps)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of a shape broadcasts to another one."""
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def check_box(clip_values: Any, input_shape: tuple[int, ...]) -> None:
    """Refuse a box that is no pair of finite bounds, the first below the second, that broadcast to an input."""
    if clip_values is None:
        return
    try:
        low, high = (np.asarray(bound, dtype=np.float64) for bound in clip_values)
    except (TypeError, ValueError):
        raise ValueError(f"clip_values: expected two numbers or arrays, such as (0, 1), got {clip_values!r}.") from None
    for shape in (low.shape, high.shape):
        if not broadcasts(shape, (1, *input_shape)):
            mend = f"; one a channel are of shape {(*shape, *[1] * (len(input_shape) - 1))}" if len(shape) == 1 else ""
            raise ValueError(f"clip_values: bounds of shape {shape} do not fit inputs {tuple(input_shape)}{mend}.")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and np.less(low, high).all()):
        raise ValueError(f"clip_values: expected finite bounds, the first below the second, got {clip_values!r}.")


def check_near(x: Any, clip_values: Any, widths: float) -> None:
    """Refuse finite inputs that are so many widths of the box, None for none, outside of it: in another unit."""
    if clip_values is None:
        return
    low, high = float(np.min(clip_values[0])), float(np.max(clip_values[1]))
    reach = widths * (high - low)
    if len(x) and (high + reach < x.max() < math.inf or -math.inf < x.min() < low - reach):
        raise ValueError(
            f"x ranges from {x.min():g} to {x.max():g}, far outside the clip_values ({low:g}, {high:g}): scale the "
            "inputs (x / 255.0?) or give other clip_values."
        )


def box_width(clip_values: Any) -> float:
    """Width of the box of the inputs, its bounds numbers or arrays, where it is widest; infinity for None, no box."""
    return math.inf if clip_values is None else float(np.max(np.subtract(clip_values[1], clip_values[0])))


def box_unit(clip_values: Any, what: str) -> float:
    """By how much `what` is for [0, 1] is to be multiplied: the box's width, 1 for None; ValueError where it varies."""
    if clip_values is None:
        return 1.0
    widths = np.subtract(clip_values[1], clip_values[0])
    width = box_width(clip_values)
    if (widths < width * (1 - ROUNDING)).any():
        raise ValueError(
            f"{what} is for inputs of one range, and the clip_values are {float(np.min(widths)):g} to {width:g} apart: "
            "let the network normalise inputs in [0, 1] (mean, std), or give radii and steps of your own."
        )
    return width


def _plain(value: Any, name: str) -> float:
    try:
        if isinstance(value, (str, bool)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected a number such as 0.1 or 8 / 255, got {value!r}.") from None


def check_eps(eps: float, name: str = "eps", clip_values: Any = UNIT_BOX) -> float:
    """An attack budget as a float; ValueError when it is no positive number, or wider than the box, None for any."""
    value, width = _plain(eps, name), box_width(clip_values)
    if not 0 < value <= width * (1 + ROUNDING) or math.isinf(value):
        if clip_values is None:
            raise ValueError(f"{name}: expected a positive number, got {value:g}")
        low, high = float(np.min(clip_values[0])), float(np.max(clip_values[1]))
        hint = f"; did you mean {value:g} / 255?" if value > width and (low, high) == UNIT_BOX else ""
        raise ValueError(
            f"{name}: expected a number in (0, {width:g}], inputs being in [{low:g}, {high:g}], got {value:g}{hint}"
        )
    return value


def check_radii(eps: float | Sequence[float], norm: float = math.inf, clip_values: Any = UNIT_BOX) -> list[float]:
    """
    :param eps: Radius or radii, in the unit of the inputs.
    :param norm: Norm of the ball.
    :param clip_values: The box of the inputs; None for any.
    :return: The radii, ascending, none twice.
    :raises ValueError: When there is none, or one is no positive number, or in the L-inf norm wider than the box.
    """
    radii = sorted({_plain(each, "eps") for each in np.ravel(np.asarray(eps, dtype=object))})
    if not radii:
        raise ValueError("eps: expected at least one radius, got none.")
    if norm == math.inf:
        return [check_eps(each, clip_values=clip_values) for each in radii]
    if not all(0 < each < math.inf for each in radii):
        raise ValueError(f"eps: expected positive numbers, got {radii}.")
    return radii


def check_default_eps(eps: float, default: float | None, clip_values: Any, name: str = "eps") -> None:
    """ValueError for a budget that is the default, made for inputs in [0, 1], where their box is wider or narrower."""
    width = box_width(clip_values)
    if eps == default and math.isfinite(width) and not math.isclose(width, 1, rel_tol=ROUNDING):
        raise ValueError(
            f"{name}: the default {default:g} is for inputs in [0, 1], and the classifier's clip_values are {width:g} "
            f"apart: give it in their unit, e.g. {name}={default * width:g}"
        )
