"""
Where a training's loss and accuracy over the epochs are read from.
"""

import csv
import json
import os
from pathlib import Path
from typing import Any

#: endings of a classifier's file in the place of which another comes; what else follows a dot is part of the name
ENDINGS = (".pt", ".pth", ".ckpt", ".model", ".bin")


def beside(checkpoint: Path, ending: str) -> Path:
    """What `art-mmc train` writes beside a classifier's file: net.json for net.pt, mmc-eps0.1.json for mmc-eps0.1."""
    stem = checkpoint.stem if checkpoint.suffix.lower() in ENDINGS else checkpoint.name
    return checkpoint.with_name(stem + ending)


def read_history(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """
    Read the records of a training: the .json file that `art-mmc train` writes, or the history.csv of its run folder.

    :param path: The file.
    :return: One record an epoch, with "epoch", "stage", "loss", "accuracy", "val_loss" and "val_accuracy"; the last two
             are None where nothing was held out.
    :raises FileNotFoundError: When the file is not there.
    :raises ValueError: When it is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no history at {path}")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".csv":
            rows: Any = list(csv.DictReader(text.splitlines()))
        else:
            rows = json.loads(text)["history"]
        records = [
            {
                "epoch": int(row["epoch"]),
                "stage": row.get("stage") or "",
                **{
                    key: None if row.get(key) in (None, "") else float(row[key])
                    for key in ("loss", "accuracy", "val_loss", "val_accuracy")
                },
            }
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise ValueError(f"{path} is damaged, or no history of a training: {' '.join(str(err).split())[:100]}") from err
    if not records or any(record["loss"] is None or record["accuracy"] is None for record in records):
        raise ValueError(f"{path} is no history of a training: expected epochs with loss and accuracy.")
    return records


def find_history(checkpoint: str | os.PathLike[str]) -> Path | None:
    """The .json file beside a checkpoint, or history.csv in its run folder or beside it; None where there is none."""
    checkpoint = Path(checkpoint)
    places = (
        beside(checkpoint, ".json"),
        beside(checkpoint, ".run") / "history.csv",
        checkpoint.with_name("history.csv"),
    )
    return next((place for place in places if place.is_file()), None)
