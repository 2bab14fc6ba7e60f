"""
From records to text and pictures: pure functions, and a few that write a folder.
"""

from art_mmc.reports.compare import (
    CURVES_PNG,
    flattery_sentences,
    headline_table,
    history_table,
    load_report,
    markdown_report,
    markdown_table,
    provenance_line,
    text_table,
    three_numbers_table,
    training_table,
    write_report,
)
from art_mmc.reports.evaluate import (
    attacks_csv,
    evaluation_table,
    load_robustness,
    record_text,
    records_table,
    report_files,
    robustness_report,
    verdict_text,
    write_robustness,
)
from art_mmc.reports.figures.compare import FLATTERY, curves_figure, curves_png, flattered
from art_mmc.reports.figures.evaluate import robustness_pictures
from art_mmc.reports.figures.style import figure_png, new_figure, radius_labels, style_panel
from art_mmc.reports.reproduce import (
    figures_csv,
    load_reproduction,
    paper_table,
    paper_text,
    reproduction_report,
    write_reproduction,
)
from art_mmc.reports.rewrite import rewrite
from art_mmc.reports.tables import format_eps, format_percent, markdown_rows, text_rows, with_interval
from art_mmc.reports.write import REPORT_JSON, REPORT_MD, json_bytes, read_document, write_files

__all__ = [
    "CURVES_PNG",
    "FLATTERY",
    "REPORT_JSON",
    "REPORT_MD",
    "attacks_csv",
    "curves_figure",
    "curves_png",
    "evaluation_table",
    "figure_png",
    "figures_csv",
    "flattered",
    "flattery_sentences",
    "format_eps",
    "format_percent",
    "headline_table",
    "history_table",
    "json_bytes",
    "load_report",
    "load_reproduction",
    "load_robustness",
    "markdown_report",
    "markdown_rows",
    "markdown_table",
    "new_figure",
    "paper_table",
    "paper_text",
    "provenance_line",
    "radius_labels",
    "read_document",
    "record_text",
    "records_table",
    "report_files",
    "reproduction_report",
    "rewrite",
    "robustness_pictures",
    "robustness_report",
    "style_panel",
    "text_rows",
    "text_table",
    "three_numbers_table",
    "training_table",
    "verdict_text",
    "with_interval",
    "write_files",
    "write_report",
    "write_reproduction",
    "write_robustness",
]
