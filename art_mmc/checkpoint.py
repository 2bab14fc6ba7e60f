"""
One file a classifier: tensors and a line of JSON. Loading executes no pickled code.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_mmc.classifiers import LossDefendedClassifier, create_classifier
from art_mmc.models import DefendedNet

FORMAT = "art_mmc.classifier"
VERSION = 1


def save_checkpoint(classifier: LossDefendedClassifier, path: str | os.PathLike[str]) -> None:
    """
    Write a classifier of the table of defences to one file; a reader never sees half of it.

    :param classifier: The classifier. Its optimizer is not part of the file.
    :param path: The file.
    :raises ValueError: For a classifier that the file could not describe: a loss of the user's own, or preprocessing
            outside the network.
    """
    row, net = classifier.row, classifier.model
    if row is None or not isinstance(net, DefendedNet) or not isinstance(classifier.loss, row.loss):
        raise ValueError(
            f"{type(classifier).__name__} with loss {type(classifier.loss).__name__} is none of the table of defences: "
            "use save() for the weights alone, or pickle."
        )
    if classifier.preprocessing_operations or classifier.postprocessing_defences:
        raise ValueError("ART pre- and postprocessing lies outside the network and can't be written; use mean and std.")
    clip = classifier.clip_values
    backbone = net.backbone
    document = {
        "defence": row.name,
        "input_shape": list(classifier.input_shape),
        "nb_classes": int(classifier.nb_classes),
        "backbone": getattr(backbone, "recipe", None),
        "backbone_class": f"{type(backbone).__module__}.{type(backbone).__qualname__}",
        "embedding_dim": getattr(net.projection, "out_features", None),
        "mean": net.normalize.mean.tolist(),
        "std": net.normalize.std.tolist(),
        "options": {**net.head.options(), **classifier.loss.options()},  # type: ignore[operator]
        "objective": classifier.objective,
        "clip_values": None if clip is None else [np.asarray(bound).tolist() for bound in clip],
    }
    payload = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(document),
        "state": {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()},
    }
    write_atomically(payload, Path(path))


def write_atomically(payload: dict[str, Any], path: Path) -> None:
    """
    `torch.save` to a neighbouring file, then rename: whatever happens, the file is the old one or the new one.

    :param payload: What to write.
    :param path: The file; its folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(payload, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_classifier(
    path: str | os.PathLike[str],
    backbone: torch.nn.Module | None = None,
    device_type: str = "gpu",
) -> LossDefendedClassifier:
    """
    Build the classifier that a file of :meth:`.LossDefendedClassifier.save_checkpoint` describes.

    :param path: The file.
    :param backbone: A module of the same architecture, where the saved backbone was the user's own.
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :return: The classifier in evaluation mode, with a fresh optimizer.
    :raises FileNotFoundError: When the file is not there.
    :raises ValueError: When the file is damaged, of another kind, or needs a backbone.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile, KeyError, ValueError, OSError) as err:
        raise ValueError(f"{path} is damaged, or no checkpoint of art_mmc: {str(err).splitlines()[0][:100]}") from err
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of art_mmc (expected format '{FORMAT}').")
    if payload["version"] > VERSION:
        raise ValueError(
            f"{path} was written by a newer art_mmc (format version {payload['version']}, known: {VERSION})."
        )
    document = json.loads(payload["config"])
    input_shape = tuple(document["input_shape"])
    if backbone is None and document["backbone"] is None:
        raise ValueError(
            f"{path} has a backbone of the user's own ({document['backbone_class']}): "
            "load_classifier(path, backbone=...) with a module of that architecture."
        )
    if backbone is None:
        from art_mmc.models import create_backbone

        recipe = document["backbone"]
        backbone = create_backbone(recipe["name"], tuple(recipe["input_shape"]), **recipe["options"])
    clip = document["clip_values"]
    classifier = create_classifier(
        document["defence"],
        backbone,
        input_shape=input_shape,
        nb_classes=document["nb_classes"],
        clip_values=(
            None if clip is None else tuple(np.asarray(b, np.float32) if isinstance(b, list) else b for b in clip)
        ),
        mean=document["mean"],
        std=document["std"],
        embedding_dim=document["embedding_dim"],
        objective=document["objective"],
        device_type=device_type,
        **document["options"],
    )
    try:
        classifier.model.load_state_dict(payload["state"])
    except RuntimeError as err:
        raise ValueError(f"{path} does not fit the backbone: {' '.join(str(err).split())[:200]}") from err
    return classifier
