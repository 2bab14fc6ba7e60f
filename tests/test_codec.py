"""
Records to plain data and back: what JSON has no word for, and what an older version did not write.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from art_mmc.evaluation.codec import DIGITS, FLAGS, Record, array, unwritten


@dataclass(frozen=True)
class Part(Record):
    count: int
    share: float = 0.5


@dataclass(frozen=True, eq=False)
class Whole(Record):
    FORMAT = "art_mmc.test"
    VERSION = 2
    DERIVED = ("total", "first")

    parts: tuple[Part, ...]
    flags: np.ndarray = array(FLAGS)
    scores: np.ndarray = array(DIGITS)
    numbers: np.ndarray | None = array(default=None)
    by_name: dict[str, tuple[int, ...]] | None = None
    bound: float = math.inf
    pair: tuple[float, float] = (0.0, 1.0)
    more: list[Part] | None = None
    facts: Any = None
    seen: np.ndarray | None = unwritten(default=None)

    @property
    def total(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def first(self) -> Part:
        return self.parts[0]


def whole(**changes: Any) -> Whole:
    values: dict[str, Any] = {
        "parts": (Part(1), Part(2, math.nan)),
        "flags": np.array([True, False]),
        "scores": np.array([1 / 3, -2e20]),
        "numbers": np.array([1.5, math.nan]),
        "by_name": {"a": (1, 2), "b": ()},
        "pair": (-math.inf, np.float32(0.5)),
        "more": [Part(np.int64(3))],
        "facts": {"x": [1, None, "text"], 3: (math.inf,)},
        "seen": np.zeros(3),
    }
    return Whole(**{**values, **changes})


def test_what_is_written():
    assert json.loads(json.dumps(whole().to_dict(), allow_nan=False)) == {
        "format": "art_mmc.test",
        "version": 2,
        "parts": [{"count": 1, "share": 0.5}, {"count": 2, "share": None}],
        "flags": "10",
        "scores": "0.333333333 -2e+20",
        "numbers": [1.5, None],
        "by_name": {"a": [1, 2], "b": []},
        "bound": "inf",
        "pair": ["-inf", 0.5],
        "more": [{"count": 3, "share": 0.5}],
        "facts": {"x": [1, None, "text"], "3": ["inf"]},
        "total": 3,
        "first": {"count": 1, "share": 0.5},
    }


def test_and_read_again():
    again = Whole.from_dict(json.loads(json.dumps(whole().to_dict())))
    assert again.to_dict() == whole().to_dict()
    assert again.parts[0] == Part(1)
    assert math.isnan(again.parts[1].share)
    assert again.flags.dtype == bool
    np.testing.assert_array_equal(again.flags, [True, False])
    np.testing.assert_array_equal(again.scores, [0.333333333, -2e20])
    np.testing.assert_array_equal(again.numbers, [1.5, math.nan])
    assert (again.by_name, again.bound, again.pair) == ({"a": (1, 2), "b": ()}, math.inf, (-math.inf, 0.5))
    assert again.more == [Part(3)]
    assert again.seen is None


@pytest.mark.parametrize(("flags", "scores"), [([True], [1.0]), ([False], [0.0]), ([], [])])
def test_a_single_flag_is_no_score(flags, scores):
    again = Whole.from_dict(json.loads(json.dumps(whole(flags=np.array(flags), scores=np.array(scores)).to_dict())))
    assert (again.flags.tolist(), again.scores.tolist()) == (flags, scores)


def test_what_an_older_version_did_not_write_has_its_default():
    again = Whole.from_dict({"parts": [], "flags": "", "scores": "", "what was": "once there"})
    assert (again.parts, again.numbers, again.bound, again.pair) == ((), None, math.inf, (0.0, 1.0))
    with pytest.raises(KeyError, match="scores"):
        Whole.from_dict({"parts": [], "flags": ""})


def test_documents_of_another_kind_or_of_the_future_are_refused():
    document = whole().to_dict()
    with pytest.raises(ValueError, match=r"expected a document of format 'art_mmc\.test', got 'other'"):
        Whole.from_dict({**document, "format": "other"})
    with pytest.raises(ValueError, match="the document has version 3, known: up to 2"):
        Whole.from_dict({**document, "version": 3})
