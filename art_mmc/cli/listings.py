"""
`art-mmc defences`, `recipes`, `backbones`: print what there is.
"""

from __future__ import annotations

import argparse
from typing import Any

from art_mmc.cli.common import print_rows


def add(commands: Any) -> None:
    """
    Add the command to the parser.

    :param commands: What `add_subparsers` gave.
    """
    for name, run, text in (
        ("defences", _defences, "list the defences"),
        ("recipes", _recipes, "list the papers' hyper-parameters"),
        ("backbones", _backbones, "list the networks"),
    ):
        parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.set_defaults(run=run)


def _defences(args: argparse.Namespace) -> None:
    from art_mmc.defences import DEFENCES

    print_rows([(row.name, row.title, f"{row.paper}, {row.link}") for row in DEFENCES.values()])


def _recipes(args: argparse.Namespace) -> None:
    from art_mmc.trainers import RECIPES

    print_rows(
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


def _backbones(args: argparse.Namespace) -> None:
    from art_mmc.models import BACKBONES

    print_rows([(name, row.description) for name, row in BACKBONES.items()])
