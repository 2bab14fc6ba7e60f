"""The house's floors: whoever imports whom, nobody imports upward, and there is no circle."""

from __future__ import annotations

import ast
import functools
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "art_mmc"

#: each floor may use those before it
FLOORS = (
    {"_attach", "checks", "options", "state", "distributed", "pretrained"},
    {"geometry", "objectives"},
    {"heads"},
    {"losses", "models"},
    {"defences"},
    {"classifiers"},
    {"data", "trainers", "attacks", "detectors"},
    {"evaluation", "theory"},
    {"published", "studies"},
    {"reports"},
    {"bench", "cli"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


@functools.cache
def imports() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, wherever in the file; but for what type checkers alone see."""
    found = {}
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        hidden = {
            id(each)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for each in ast.walk(node)
        }
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in hidden:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import) and id(node) not in hidden:
                names |= {alias.name for alias in node.names}
        module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        found[module] = {name for name in names if name.startswith("art_mmc.")}
    return {module: {n for n in names if n in found and n != module} for module, names in found.items()}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_its_floor():
    assert {room(module) for module in imports() if module != "art_mmc"} <= set(FLOOR)


def test_nobody_imports_upward():
    up = [
        f"{module} -> {name}"
        for module, names in imports().items()
        for name in names
        if module != "art_mmc" and FLOOR[room(name)] > FLOOR[room(module)]
    ]
    assert not up


def test_there_is_no_circle():
    found = imports()
    packages = {module for module in found if any(other.startswith(f"{module}.") for other in found)}
    # a package's face hands its modules' names on; who names a module of it does not mean the face
    graph = {module: names - packages for module, names in found.items() if module not in packages}
    list(TopologicalSorter(graph).static_order())
