"""
Records to and from plain data that JSON can hold: one codec for all frozen dataclasses of the package.
"""

import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, ClassVar, TypeVar

import numpy as np

R = TypeVar("R", bound="Record")

#: how an array is written: flags as a string of 1 and 0; numbers to nine digits in one string; a list, NaN as null
FLAGS, DIGITS, NUMBERS = "flags", "digits", "numbers"

_kinds: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)


def array(code: str = NUMBERS, **kwargs: Any) -> Any:
    """A dataclass' field that holds an array, written as :data:`FLAGS`, :data:`DIGITS` or :data:`NUMBERS`."""
    return field(repr=False, metadata={"code": code}, **kwargs)


def unwritten(**kwargs: Any) -> Any:
    """A dataclass' field that is no part of the JSON."""
    return field(repr=False, metadata={"code": None}, **kwargs)


class Record:
    """Mixin of a dataclass that JSON can hold: its fields and, for other readers, the properties named in `DERIVED`."""

    #: properties that are written too, and not read
    DERIVED: ClassVar[tuple[str, ...]] = ()
    #: name and version of the document, for a record that is a file of its own
    FORMAT: ClassVar[str | None] = None
    VERSION: ClassVar[int] = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold: infinity as "inf", NaN as null."""
        head = {} if self.FORMAT is None else {"format": self.FORMAT, "version": self.VERSION}
        own = {each.name: encode(getattr(self, each.name), _code(each)) for each in _written(self)}
        return {**head, **own, **{name: encode(getattr(self, name)) for name in self.DERIVED}}

    @classmethod
    def from_dict(cls: type[R], data: Mapping[str, Any]) -> R:
        """The record of what :meth:`to_dict` gave, now or before; KeyError or ValueError for another document."""
        if cls.FORMAT is not None and data.get("format", cls.FORMAT) != cls.FORMAT:
            raise ValueError(f"expected a document of format '{cls.FORMAT}', got '{data.get('format')}'.")
        if cls.FORMAT is not None and data.get("version", 1) > cls.VERSION:
            raise ValueError(f"the document has version {data['version']}, known: up to {cls.VERSION}.")
        kinds = _kinds(cls)
        return cls(
            **{
                each.name: decode(data[each.name], kinds[each.name], _code(each))
                for each in _written(cls)
                if each.name in data or each.default is each.default_factory is MISSING
            }
        )


def _code(each: Field[Any]) -> str | None:
    return each.metadata.get("code", NUMBERS)


def _written(record: Any) -> list[Field[Any]]:
    return [each for each in fields(record) if each.init and _code(each) is not None]


def encode(value: Any, code: str | None = NUMBERS) -> Any:
    """Plain data for a record, an array, written as the code says, a plain value, or containers of such."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        if code == FLAGS:
            return "".join("1" if each else "0" for each in value)
        if code == DIGITS:
            return " ".join(f"{each:.9g}" for each in value)
        return encode(value.tolist())
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, Mapping):
        return {str(key): encode(each, code) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(each, code) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def decode(value: Any, kind: Any, code: str | None = NUMBERS) -> Any:
    """The value of a type that :func:`encode` gave this for."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else decode(value, next(each for each in inner if each is not type(None)), code)
    if kind is np.ndarray:
        if code == FLAGS:
            return np.array([each == "1" for each in value], dtype=bool)
        if code == DIGITS:
            return np.array(value.split(), dtype=float)
        return np.array([math.nan if each is None else each for each in value])
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(decode(each, one, code) for each, one in zip(value, kinds, strict=True))
    if origin is list:
        return [decode(each, inner[0], code) for each in value]
    if origin is dict:
        return {key: decode(each, inner[1], code) for key, each in value.items()}
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_dict(value)
    if kind is float:
        return math.nan if value is None else float(value)
    return value
