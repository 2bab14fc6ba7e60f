"""
From records to text and pictures: pure functions, and a few that write a folder.
"""

from art_mmc.reports.compare import flattery_sentences as flattery_sentences
from art_mmc.reports.compare import headline_table as headline_table
from art_mmc.reports.compare import history_table as history_table
from art_mmc.reports.compare import load_report as load_report
from art_mmc.reports.compare import markdown_report as markdown_report
from art_mmc.reports.compare import markdown_table as markdown_table
from art_mmc.reports.compare import provenance_line as provenance_line
from art_mmc.reports.compare import text_table as text_table
from art_mmc.reports.compare import three_numbers_table as three_numbers_table
from art_mmc.reports.compare import write_report as write_report
from art_mmc.reports.evaluate import attacks_csv as attacks_csv
from art_mmc.reports.evaluate import evaluation_table as evaluation_table
from art_mmc.reports.evaluate import load_robustness as load_robustness
from art_mmc.reports.evaluate import record_text as record_text
from art_mmc.reports.evaluate import records_table as records_table
from art_mmc.reports.evaluate import report_files as report_files
from art_mmc.reports.evaluate import robustness_report as robustness_report
from art_mmc.reports.evaluate import verdict_text as verdict_text
from art_mmc.reports.evaluate import write_robustness as write_robustness
from art_mmc.reports.figures.compare import curves_figure as curves_figure
from art_mmc.reports.figures.compare import curves_png as curves_png
from art_mmc.reports.figures.style import figure_png as figure_png
from art_mmc.reports.figures.style import new_figure as new_figure
from art_mmc.reports.figures.style import radius_labels as radius_labels
from art_mmc.reports.figures.style import style_panel as style_panel
from art_mmc.reports.reproduce import figures_csv as figures_csv
from art_mmc.reports.reproduce import load_reproduction as load_reproduction
from art_mmc.reports.reproduce import paper_table as paper_table
from art_mmc.reports.reproduce import paper_text as paper_text
from art_mmc.reports.reproduce import reproduction_report as reproduction_report
from art_mmc.reports.reproduce import write_reproduction as write_reproduction
from art_mmc.reports.rewrite import rewrite as rewrite
from art_mmc.reports.tables import format_eps as format_eps
from art_mmc.reports.tables import format_percent as format_percent
from art_mmc.reports.write import json_bytes as json_bytes
from art_mmc.reports.write import read_document as read_document
from art_mmc.reports.write import write_files as write_files
