"""
What importing one class brings along of this package: `python examples/upstream/luggage.py SPSA MMCLoss ...`, by
default all public classes. What is little can be carried into another project.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

#: what people import from
PACKAGES = ("art_mmc.attacks", "art_mmc.detectors", "art_mmc.losses", "art_mmc", "art_mmc.evaluation")

_CODE = """
import importlib, json, sys
found = {}
for home, name in json.loads(sys.argv[1]):
    for module in [module for module in sys.modules if module.split(".")[0] == "art_mmc"]:
        del sys.modules[module]
    getattr(importlib.import_module(home), name)
    found[name] = {m: sys.modules[m].__file__ for m in sys.modules if m.split(".")[0] == "art_mmc"}
print(json.dumps(found))
"""


def luggage(names: list[str] | None = None) -> dict[str, dict[str, int]]:
    """
    :param names: Public names; None for all classes.
    :return: Name -> module of this package that is imported with it -> lines of the module.
    """
    homes: dict[str, str] = {}
    for home in PACKAGES:
        package = importlib.import_module(home)
        for name in package.__all__ if names is None else set(names) & set(package.__all__):
            if names is not None or isinstance(getattr(package, name), type):
                homes.setdefault(name, home)
    pairs = json.dumps([[home, name] for name, home in homes.items()])
    done = subprocess.run([sys.executable, "-c", _CODE, pairs], capture_output=True, text=True, check=True)
    return {
        name: {module: len(Path(file).read_text(encoding="utf-8").splitlines()) for module, file in files.items()}
        for name, files in json.loads(done.stdout.splitlines()[-1]).items()
    }


if __name__ == "__main__":
    print("| class | modules | lines |\n|---|---:|---:|")
    for name, modules in luggage(sys.argv[1:] or None).items():
        print(f"| {name} | {len(modules)} | {sum(modules.values())} |")
