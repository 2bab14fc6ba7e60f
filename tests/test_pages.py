"""
Pages of records made by hand, each compared as a whole with the one in `tests/pages`, as a reader sees it. After a
change that is meant, `python -m tests.test_pages` writes them anew, and their diff is what a review looks at.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from art_mmc.reports import (
    attacks_csv,
    evaluation_table,
    figures_csv,
    markdown_report,
    paper_text,
    provenance_line,
    records_table,
    reproduction_report,
    robustness_report,
    text_table,
    verdict_text,
)
from art_mmc.studies.reproduce import Reproduction
from tests.handmade import BARE, PICTURES, RECORD, comparison, pictured, reproduction


def given() -> Reproduction:
    """With networks that nobody trained for it."""
    found = reproduction()
    return replace(found, results=tuple(replace(each, training_seconds=None) for each in found.results))


FOLDER = Path(__file__).with_name("pages")
PAGES = {
    "compare.md": lambda: markdown_report(comparison()),
    "compare-pc.md": lambda: markdown_report(replace(comparison(), results=comparison().results[2:]), picture=None),
    "compare-narrow.txt": lambda: text_table(comparison(), width=50) + "\n",
    "compare.txt": lambda: f"{text_table(comparison())}\n\n{provenance_line(comparison())}\n",
    "evaluate.md": lambda: robustness_report(pictured(), PICTURES),
    "evaluate.txt": lambda: f"{evaluation_table(RECORD)}\n\n{verdict_text(RECORD)}\n",
    "evaluate-bare.md": lambda: robustness_report(BARE),
    "evaluate-bare.txt": lambda: f"{evaluation_table(BARE)}\n\n{verdict_text(BARE)}\n",
    "evaluate.csv": lambda: attacks_csv(RECORD).decode(),
    "side-by-side.md": lambda: records_table([RECORD, replace(RECORD, provenance={}, verdict=None)]) + "\n",
    "reproduce.md": lambda: reproduction_report(reproduction()),
    "reproduce-given.md": lambda: reproduction_report(given()),
    "reproduce.txt": lambda: paper_text(reproduction()) + "\n",
    "reproduce.csv": lambda: figures_csv(reproduction()).decode(),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_the_one_that_was_kept(name):
    assert PAGES[name]() == (FOLDER / name).read_bytes().decode(), "see the head of this file"


def test_every_kept_page_is_compared():
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_bytes(page().encode())
