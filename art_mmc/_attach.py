"""
Names that a package hands out when they are first used. They stand once, in the stub beside the package, where type
checkers and editors see them too.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    package: str, file: str, made: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """
    `__getattr__`, `__dir__` and `__all__` of a package, of its `__name__` and its `__file__`; `made` has, for an ending
    of a name, the module that has the classes made from a table, those too that the stub lacks.
    """
    with open(os.path.join(os.path.dirname(file), "__init__.pyi"), encoding="utf-8") as stub:
        lines = stub.read().splitlines()
    homes = {words[3]: words[1] for words in map(str.split, lines) if words[:1] == ["from"]}
    listed = [*homes, *(line.split("(")[0][6:] for line in lines if line.startswith("class "))]

    def get(name: str) -> Any:
        home = homes.get(name) or next((module for end, module in (made or {}).items() if name.endswith(end)), None)
        missing = AttributeError(f"module '{package}' has no attribute '{name}'")
        if home is None:
            raise missing
        try:
            return getattr(importlib.import_module(home), name)
        except AttributeError:
            if name in homes:
                raise
            raise missing from None

    return (
        get,
        lambda: sorted({*vars(sys.modules[package]), *listed}),
        sorted(name for name in listed if name[0] != "_"),
    )
