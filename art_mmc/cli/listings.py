"""
`art-mmc defences`, `recipes`, `backbones`, `zoo`: print what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from art_mmc.studies.settings import Listing


def add(commands: Any) -> None:
    """Add the commands to what `add_subparsers` gave."""
    for name, run, text in (
        ("defences", _defences, "list the defences"),
        ("recipes", _recipes, "list the papers' hyper-parameters"),
        ("backbones", _backbones, "list the networks"),
        ("zoo", _zoo, "list the trained networks of the package"),
    ):
        parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.set_defaults(settings=Listing, run=run)


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    from art_mmc.reports.tables import text_rows

    print(text_rows(rows[0], rows[1:], left=len(rows[0]), rule=False))


def _defences(settings: Listing) -> None:
    from art_mmc.defences import DEFENCES

    _print_rows([(row.name, row.title, f"{row.paper}, {row.link}") for row in DEFENCES.values()])


def _recipes(settings: Listing) -> None:
    from art_mmc.trainers import RECIPES

    _print_rows(
        [
            (
                recipe.name,
                f"{recipe.nb_epochs} epochs, batches of {recipe.batch_size}",
                recipe.backbone,
                recipe.description,
            )
            for recipe in RECIPES.values()
        ]
    )


def _backbones(settings: Listing) -> None:
    from art_mmc.models import BACKBONES

    _print_rows([(name, row.description) for name, row in BACKBONES.items()])


def _zoo(settings: Listing) -> None:
    from art_mmc.reports.pretrained import pretrained_note, pretrained_table

    print(f"{pretrained_table('text')}\n\n{pretrained_note()}")
