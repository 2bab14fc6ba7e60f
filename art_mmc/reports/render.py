"""
The pages of reports: their prose is in templates/, where a person can read it; tables and facts come from Python.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from art_mmc.reports import tables

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("art_mmc.reports"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "address": quote,
        "between": tables.between,
        "cell": lambda entry: tables.escaped(str(entry)),
        "device": tables.device_text,
        "eps": tables.format_eps,
        "interval": tables.with_interval,
        "percent": tables.format_percent,
        "share": lambda value: tables.NONE if value is None else tables.between(value.value, value.interval),
        "short": tables.short_name,
        "versions": tables.versions_text,
    }
    return environment


def told(name: str, *facts: Any) -> str:
    """What the terminal is told of facts: the macro of that name in templates/lines.j2."""
    macro = getattr(_environment().get_template("lines.j2").module, name)
    return str(macro(*facts))


def page(name: str, **facts: Any) -> str:
    """The page of a name, "evaluate" say, in Markdown; a name that its template uses and `facts` lack is an error."""
    return _environment().get_template(f"{name}.md.j2").render(facts)
