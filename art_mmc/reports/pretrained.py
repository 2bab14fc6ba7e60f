"""
The networks of the package in a table, made from their cards: how each was trained, and what attacks leave of it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from art_mmc.pretrained import pretrained_card, pretrained_names
from art_mmc.reports.render import told
from art_mmc.reports.tables import between, format_eps, format_percent, table

Card = Mapping[str, Any]


def pretrained_table(style: Literal["markdown", "text"] = "markdown") -> str:
    """One row a network; with intervals, seed, processor and verdict's suite in Markdown, short for the terminal."""
    long = style == "markdown"

    def figure(found: Mapping[str, Any]) -> str:
        return between(found["accuracy"], found["interval"]) if long else format_percent(found["accuracy"])

    def worst(card: Card) -> str:
        found = card["evaluation"]
        shown = ", ".join(f"{figure(each)} at {format_eps(each['eps'])}" for each in found["worst_case"])
        return shown if found["suite"] == "strong" else f"{shown} ({found['suite']})"  # which leaves more

    def recipe(card: Card) -> str:
        found = card["provenance"]["recipe"]
        seed = f", seed {card['provenance']['seed']}" if long else ""
        init = card["provenance"].get("init")
        after = f" after {init['name']}" if init else ""
        return f"{found['name']}, {found['nb_epochs']} epochs{after}{seed}"

    columns: list[tuple[str, Callable[[Card], str]]] = [
        ("Network", lambda card: card["name"]),
        ("Backbone", lambda card: card["backbone"]),
        ("Recipe", recipe),
        ("Verdict", lambda card: card["evaluation"]["verdict"]["status"]),
        ("Training, s", lambda card: f"{card['training_seconds']:.0f}"),
        ("Clean, %", lambda card: figure(card["clean_test_accuracy"])),
        ("**Worst case, %**" if long else "Worst case, %", worst),
        ("n", lambda card: str(card["evaluation"]["n"])),
        ("kB", lambda card: f"{card['file']['bytes'] / 1000:.0f}"),
        ("SHA-256", lambda card: card["file"]["sha256"][:8]),
    ]
    return table([pretrained_card(name) for name in pretrained_names()], columns, left=4, style=style)


def pretrained_note() -> str:
    suites = sorted({pretrained_card(name)["evaluation"]["suite"] for name in pretrained_names()})
    return told("networks", suites)
