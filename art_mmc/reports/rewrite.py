"""
Reports made again from their JSON: what `art-mmc report` does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from art_mmc.evaluation import headline
from art_mmc.reports import compare, detect, evaluate, inspect, reproduce
from art_mmc.reports.render import page
from art_mmc.reports.write import REPORT_JSON, REPORT_MD, read_document, write_files

#: format of a report.json -> how it is read, told in the terminal, and written as a report
KINDS: dict[str | None, tuple[Callable[[Path], Any], Callable[[Any], str], Callable[[Any, Path], list[Path]]]] = {
    compare.Comparison.FORMAT: (compare.load_report, compare.text_table, compare.write_report),
    detect.DetectionStudy.FORMAT: (detect.load_study, detect.text_table, detect.write_report),
    inspect.FORMAT: (inspect.load_inspection, inspect.inspection_text, inspect.write_inspected),
    reproduce.Reproduction.FORMAT: (reproduce.load_reproduction, reproduce.paper_text, reproduce.write_reproduction),
    evaluate.FORMAT: (evaluate.load_robustness, evaluate.record_text, evaluate.write_robustness),
}


def rewrite(paths: Sequence[Path], folder: Path) -> tuple[str, list[Path]]:
    """
    Reports made again from report.json, and what to print: of one into the folder; of several, of `art-mmc evaluate`,
    each into a folder there, with a table of all. OSError or ValueError for a file that is none.
    """
    formats = [str(read_document(path)["format"]) for path in paths]  # all of them before anything is written
    if len(paths) == 1:
        if formats[0] not in KINDS:
            known = ", ".join(f"'{kind}'" for kind in KINDS)
            raise ValueError(f"{paths[0]}: no report is made again from kind '{formats[0]}', only from {known}.")
        load, text, write = KINDS[formats[0]]
        record = load(paths[0])
        return text(record), write(record, folder)
    other = next((path for path, kind in zip(paths, formats, strict=True) if kind != evaluate.FORMAT), None)
    if other is not None:
        raise ValueError(f"{other} is no report of art-mmc evaluate: only those go side by side.")
    named = dict(zip(_names(paths), map(evaluate.load_robustness, paths), strict=True))
    files = [file for name, each in named.items() for file in evaluate.write_robustness(each, folder / name)]
    records = list(named.values())
    facts = {"headline": headline(*records), "records": evaluate.records_table(records)}
    files += write_files(folder, {REPORT_MD: page("side_by_side", count=len(records), **facts).encode()})
    texts = (f"{name}\n{evaluate.evaluation_table(each)}" for name, each in named.items())
    return "\n\n".join(texts), files


def _names(paths: Sequence[Path]) -> list[str]:
    """A folder for each, after the folder that it came from."""
    names: list[str] = []
    for path in paths:
        stem = path.resolve().parent.name if path.name == REPORT_JSON else path.stem
        same = sum(name == stem or name.startswith(f"{stem}-") for name in names)
        names.append(f"{stem}-{same + 1}" if same else stem)
    return names
