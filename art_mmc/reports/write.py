"""
Files that belong together, and JSON documents of this package.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from art_mmc.state import check_replaceable, write_atomically

Record = TypeVar("Record")

#: a list of numbers, one a line; no string has a line break
_NUMBERS = re.compile(r'\[\n[^][{}"]*\]')

#: names of the files of a report
REPORT_MD, REPORT_JSON = "report.md", "report.json"

#: what may lie beside them, of whichever command
BESIDE = (
    *("attacks.csv", "figures.csv", "examples.npz", "curves.png", "roc.png", "eps.png", "steps.png", "examples.png"),
    *("zero-gradients.png", "confusion.png", "density.png", "boundary.png", "gap.png", "ranks.png", "convergence.png"),
)


def is_document(path: Path) -> bool:
    """Whether a file is a JSON document of this package."""
    try:
        return bool(read_document(path))
    except (OSError, ValueError):
        return False


def check_report(folder: Path, names: Iterable[str] = (REPORT_JSON, REPORT_MD, *BESIDE)) -> None:
    """ValueError where a report would replace what this package did not write: what lies about no document of ours."""
    names = list(names)
    documents = [name for name in names if name.endswith(".json")]
    for name in documents:
        check_replaceable(folder / name, is_document)
    ours = not documents or any((folder / name).exists() for name in documents)
    for name in names:
        check_replaceable(folder / name, lambda path: ours)


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> list[Path]:
    """
    Write files that belong together, name -> its bytes, to a folder, made if need be, and return their paths; see
    :func:`check_report` and :func:`.write_atomically`. ValueError when something else is there.
    """
    check_report(Path(folder), contents)
    return write_atomically({Path(folder) / name: content for name, content in contents.items()})


def json_bytes(document: Any) -> bytes:
    """Plain data as a JSON file, lists of numbers in one line; ValueError for NaN or infinity, which JSON lacks."""
    text = json.dumps(document, indent=1, allow_nan=False)
    return (_NUMBERS.sub(lambda found: f"[{' '.join(found[0][1:-1].split())}]", text) + "\n").encode()


def report(page: str, document: Any, others: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a report: its page, its JSON document, and what lies beside them."""
    return {REPORT_MD: page.encode(), REPORT_JSON: json_bytes(document), **others}


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    The content of a JSON file that this package wrote, a dictionary with "format"; OSError when it can't be read,
    ValueError when it holds something else.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as err:
        raise ValueError(f"{path} is damaged, or no report of art_mmc: {err}") from err
    if not isinstance(data, dict) or not str(data.get("format", "")).startswith("art_mmc."):
        raise ValueError(f"{path} is no report of art_mmc.")
    return data


def load(
    path: str | os.PathLike[str], kind: str | None, command: str, from_dict: Callable[[dict[str, Any]], Record]
) -> Record:
    """The record in a report.json of `command`; OSError when it can't be read, ValueError when it is none."""
    data = read_document(path)
    if data["format"] != kind:
        raise ValueError(f"{path} is no report of art-mmc {command}, but of kind '{data['format']}'.")
    try:
        return from_dict(data)
    except (KeyError, TypeError) as err:
        raise ValueError(f"{path} is damaged: {type(err).__name__}: {err}") from err
