"""
Flags of the command line from the fields of a settings class: name, default, range and help stand there, once.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable
from typing import Any

from art_mmc.checks import fraction


def flag(
    help: str,
    metavar: str | None = None,
    kind: Callable[[str], Any] | None = None,
    default: Any = None,
    *,
    needed: bool = False,
    option: str | None = None,
    old: str | None = None,
    group: str | None = None,
    late: bool = False,
    **told: Any,
) -> Any:
    """
    A field of a settings class that is a flag: `--like-this` for `like_this`, or `option`, "" for an argument by its
    place; a switch where the default is False. `needed` is one without a default, `old` a name that is still taken, and
    one that is `late` comes after the verb's own in the help.
    """
    value: dict[str, Any] = {"action": "store_true"} if default is False else {"metavar": metavar, "type": kind}
    told |= {"help": help, **value}
    metadata = {"told": told, "group": group, "option": option, "old": old, "late": late}
    if needed or option == "":
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def add_flags(parser: argparse.ArgumentParser, settings: type) -> None:
    """Add a settings class' fields to a parser, those of one group together."""
    groups: dict[str | None, Any] = {None: parser}
    flags = [each for each in dataclasses.fields(settings) if each.metadata]
    for each in sorted(flags, key=lambda each: each.metadata["late"]):
        title, option, told = each.metadata["group"], each.metadata["option"], each.metadata["told"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        if option == "":
            groups[title].add_argument(each.name, **told)
            continue
        needed = each.default is dataclasses.MISSING
        more = {"dest": each.name, "required": True} if needed else {"dest": each.name, "default": each.default}
        groups[title].add_argument(option or "--" + each.name.replace("_", "-"), **more, **told)
        if each.metadata["old"]:
            hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            groups[title].add_argument(each.metadata["old"], **{**more, **told, **hidden})


def from_args(settings: type, args: argparse.Namespace) -> Any:
    """The settings that were parsed; in a list of names or numbers that can be repeated none is twice."""
    values = {}
    for each in dataclasses.fields(settings):
        if each.metadata:
            value, extends = getattr(args, each.name), each.metadata["told"].get("action") == "extend"
            values[each.name] = list(dict.fromkeys(value)) if extends and value is not None else value
    return settings(**values)


def _kind(convert: Callable[[str], Any], expected: str, fits: Callable[[Any], bool] = lambda value: True) -> Any:
    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except (ValueError, ZeroDivisionError):
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got '{text}'")
        return value

    return parse


def whole(low: int, high: int | None = None) -> Any:
    """Whole numbers from `low`."""
    limit = f"of at least {low}" if high is None else f"from {low} to {high}"
    return _kind(int, f"a whole number {limit}", lambda value: low <= value <= (math.inf if high is None else high))


def _several(kind: Callable[[str], Any], expected: str, metavar: str) -> dict[str, Any]:
    """A flag that can be repeated, each time with values between commas: what argparse is told."""

    def parse(text: str) -> list[Any]:
        found = [kind(part.strip()) for part in text.split(",") if part.strip()]
        if not found:
            raise argparse.ArgumentTypeError(f"expected {expected}, got none")
        return found

    return {"action": "extend", "kind": parse, "metavar": metavar}


_NUMBER = "a number such as 0.1 or 8/255"
number = _kind(fraction, _NUMBER)
positive = _kind(float, "a positive number", lambda value: 0 < value < math.inf)
share = _kind(float, "a share in [0, 1)", lambda value: 0 <= value < 1)
part = _kind(float, "a share in (0, 1]", lambda value: 0 < value <= 1)
inner = _kind(float, "a share in (0, 1)", lambda value: 0 < value < 1)
unit = _kind(float, "a share in [0, 1]", lambda value: 0 <= value <= 1)
bandwidth = _kind(
    lambda text: text if text in ("paper", "cross-validation") else float(text), "a number, paper or cross-validation"
)
NUMBERS, NAMES = _several(number, _NUMBER, "EPS[,EPS]"), _several(str, "a name", "NAME[,NAME]")
