"""
Runs the cells of `examples/mmc_in_art.ipynb` in order, as Jupyter does, and keeps what they print and draw:
`python -m tests.notebook` writes it into the file, `python -m tests.notebook FILE` into another one.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "mmc_in_art.ipynb"


def lines(text: str) -> list[str]:
    """A text as a notebook keeps it."""
    return text.splitlines(keepends=True)


def pictures() -> list[bytes]:
    """The open figures as PNG, which are closed."""
    from matplotlib import pyplot as plt

    found = []
    for number in plt.get_fignums():
        stream = io.BytesIO()
        plt.figure(number).savefig(stream, format="png", dpi=72, bbox_inches="tight", metadata={"Software": None})
        found.append(stream.getvalue())
    plt.close("all")
    return found


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """A notebook, format 4, with the outputs of its cells."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    count, cells = 0, []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("".join(cell["source"]), f"cell {count}", "exec"), names)  # noqa: S102
            outputs: list[dict[str, Any]] = []
            if printed.getvalue():
                outputs.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
            for png in pictures():
                data = {"image/png": base64.b64encode(png).decode() + "\n"}
                outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK
    result = executed(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    place.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
