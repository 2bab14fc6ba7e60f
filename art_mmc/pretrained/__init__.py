"""
Trained networks that come with the package, a checkpoint and a card each, and a thousand images to attack them on.
Nothing is read before it is asked for. `examples/record_zoo.py` adds a network.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from art_mmc.checks import as_path, check_name, unknown_name

FOLDER = Path(__file__).parent


def pretrained_names() -> list[str]:
    """Names of the networks, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.pt"))


def pretrained_card(name: str) -> dict[str, Any]:
    """
    What is known of a network: who trained it how, the size and checksum of its file, and what attacks leave of it.
    Plain data: what `art-mmc train` writes beside a classifier ("defence", "backbone", "clean_test_accuracy",
    "training_seconds", "provenance", "history"), and "name", "dataset", "file", "logits" and "evaluation".

    :param name: Its name, e.g. "mmc-mnist".
    :return: The card.
    :raises ValueError: For an unknown name, with the nearest known one, or a card that is missing or damaged.
    """
    check_name("pretrained network", name, pretrained_names())
    path = FOLDER / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ValueError(f"{path} is missing or damaged: install the package again") from err


def pretrained_file(name: str) -> Path:
    """The file of a network; ValueError where it is not the one that its card describes."""
    card, path = pretrained_card(name), FOLDER / f"{name}.pt"
    if hashlib.sha256(path.read_bytes()).hexdigest() != card["file"]["sha256"]:
        raise ValueError(f"{path} is damaged, or not the network on its card: install the package again")
    return path


def find_network(path: str | os.PathLike[str]) -> Path:
    """
    The file of a network: that of the path or, where there is none, of the network of the package that has the name.
    FileNotFoundError where there is neither.
    """
    file, names = as_path("path", path), pretrained_names()
    if not file.is_file() and os.fspath(path) in names:
        return pretrained_file(os.fspath(path))
    if not file.is_file():
        bare = file.name == os.fspath(path) and not file.suffix
        hint = f", and {unknown_name('pretrained network', path, names)}" if bare else ""
        raise FileNotFoundError(f"no checkpoint at {file}{hint}")
    return file
