"""
What a job of the bench is: who does what, what is asked of it, and how to tell that the same work was done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

#: names of contenders
ART, OURS, BY_HAND = "ART", "art_mmc", "hand-written loop"


@dataclass(frozen=True)
class Settings:
    """
    How to measure.

    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :param quick: Whether to take tiny sizes, to try it out.
    :param bfloat16: Whether to add rows under `torch.autocast`.
    :param compile: Whether to add rows with a `torch.compile`d network.
    :param trained: Whether networks are trained a little first; what memory they take does not depend on it.
    """

    device_type: str = "cpu"
    quick: bool = False
    bfloat16: bool = False
    compile: bool = False
    trained: bool = True

    def size(self, full: T, quick: T) -> T:
        """
        :param full: The size to measure with.
        :param quick: The size to try it out.
        :return: The one that is wanted.
        """
        return quick if self.quick else full

    def to_dict(self) -> dict[str, Any]:
        """
        :return: Plain data that JSON can hold.
        """
        return asdict(self)


@dataclass(frozen=True)
class Asked:
    """
    The bar for a ratio.

    :param bound: Largest ratio that meets it; for a figure where more is better the smallest.
    :param words: The bar in words.
    :param more_is_better: Whether the figure is one where more is better.
    """

    bound: float
    words: str
    more_is_better: bool = False

    def met(self, ratio: float) -> bool:
        """
        :param ratio: A ratio.
        :return: Whether it meets the bar.
        """
        return ratio >= self.bound if self.more_is_better else ratio <= self.bound


def faster(times: float) -> Asked:
    """
    :param times: How many times faster than the reference.
    :return: The bar.
    """
    return Asked(1 / times, f"<= {1 / times:.2f} ({times:g}x faster)")


def at_most(ratio: float) -> Asked:
    """
    :param ratio: Share of the reference's time.
    :return: The bar.
    """
    return Asked(ratio, f"<= {ratio:.2f}")


@dataclass(frozen=True)
class Check:
    """
    How to tell that contenders did the same work: a figure of what each of them gave.

    :param name: The figure, with its unit.
    :param score: What a contender gave -> the figure.
    :param close: Difference from the reference's up to which the results agree.
    :param gross: Difference beyond which the comparison would be one of different work.
    :param relative: Whether differences are shares of the reference's figure.
    """

    name: str
    score: Callable[[Any], float]
    close: float
    gross: float
    relative: bool = False

    def difference(self, figure: float, reference: float) -> float:
        """
        :param figure: A contender's figure.
        :param reference: The reference's.
        :return: How far they are apart.
        """
        return abs(figure - reference) / (abs(reference) if self.relative and reference else 1.0)


@dataclass(frozen=True)
class Contest:
    """
    A job, ready to run.

    :param contenders: Name -> the job, giving its result; the first is the reference.
    :param note: Sizes, and what a reader has to know to judge the comparison.
    :param asked_of: The contenders that the bar is for.
    :param check: How to tell that they did the same work.
    :param unit: "s": the contenders are timed; otherwise what they return is the figure.
    :param repeats: How often a contender runs in one timing.
    :param references: Contender -> the one that it is measured by, where that is not the first.
    """

    contenders: dict[str, Callable[[], Any]]
    note: str
    asked_of: tuple[str, ...] = (OURS,)
    check: Check | None = None
    unit: str = "s"
    repeats: int = 1
    references: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """
    One row of the table of jobs.

    :param name: Short name, as on the command line.
    :param group: Name of the group that it belongs to.
    :param description: What is done, in words.
    :param build: Makes the contenders.
    :param asked: The bar; None for none.
    :param turns: Its rounds are so many times the usual ones, where a difference is small or a run short.
    :param cuda_only: Whether it makes sense on a GPU alone.
    """

    name: str
    group: str
    description: str
    build: Callable[[Settings], Contest]
    asked: Asked | None = None
    turns: int = 1
    cuda_only: bool = False
