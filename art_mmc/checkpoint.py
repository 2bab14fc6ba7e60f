"""
One file a classifier: tensors and a line of JSON. Loading executes no pickled code.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_mmc.classifiers import CLASSIFIERS, LossDefendedClassifier
from art_mmc.defences import get_defence
from art_mmc.models import DefendedNet, create_backbone, wrap_backbone

FORMAT = "art_mmc.classifier"
VERSION = 1

# what zipfile and torch.load raise on bytes that are cut short, changed or no checkpoint at all
_READ_ERRORS = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


def save_checkpoint(classifier: LossDefendedClassifier, path: str | os.PathLike[str]) -> None:
    """
    Write a classifier of the table of defences to one file; a reader never sees half of it.

    :param classifier: The classifier. Its optimizer is not part of the file.
    :param path: The file.
    :raises ValueError: For a classifier that the file could not describe: a loss of the user's own, or preprocessing
            outside the network.
    """
    row, net = classifier.row, classifier.model
    if row is None or type(net) is not DefendedNet or type(classifier.loss) is not row.loss:
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
        "reduction": classifier.loss.reduction,
        "objective": classifier.objective,
        "channels_first": classifier.channels_first,
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
        with zipfile.ZipFile(path) as archive:  # torch.save's format; torch.load compares no checksums
            if bad := archive.testzip():
                raise zipfile.BadZipFile(f"bad checksum of {bad}")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except _READ_ERRORS as err:
        raise ValueError(f"{path} is damaged, or no checkpoint of art_mmc: {' '.join(str(err).split())[:100]}") from err
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of art_mmc (expected format '{FORMAT}').")
    if missing := {"version", "config", "state"} - payload.keys():
        raise ValueError(f"{path} is damaged: it has no {', '.join(sorted(missing))}.")
    if payload["version"] > VERSION:
        raise ValueError(
            f"{path} was written by a newer art_mmc (format version {payload['version']}, known: {VERSION})."
        )
    document, state = json.loads(payload["config"]), payload["state"]
    recipe, dim, clip = document["backbone"], document["embedding_dim"], document["clip_values"]
    input_shape = tuple(document["input_shape"])
    if backbone is None and recipe is None:
        raise ValueError(
            f"{path} has a backbone of the user's own ({document['backbone_class']}): "
            "load_classifier(path, backbone=...) with a module of that architecture."
        )
    if backbone is None:
        backbone = create_backbone(recipe["name"], tuple(recipe["input_shape"]), **recipe["options"])
    backbone = wrap_backbone(backbone, input_shape)
    head, loss = get_defence(document["defence"]).build(
        dim or int(backbone.out_features), document["nb_classes"], **document["options"]  # type: ignore[arg-type]
    )
    loss.reduction = document["reduction"]
    net = DefendedNet(backbone, head, document["mean"], document["std"], projection=dim)
    net.to(next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32))
    try:
        net.load_state_dict(state)
    except RuntimeError as err:
        raise ValueError(f"{path} does not fit the backbone: {' '.join(str(err).split())[:200]}") from err
    return CLASSIFIERS[document["defence"]](
        net,
        loss,
        input_shape,
        document["nb_classes"],
        channels_first=document["channels_first"],
        clip_values=(
            None if clip is None else tuple(np.asarray(b, np.float32) if isinstance(b, list) else b for b in clip)
        ),
        device_type=device_type,
        objective=document["objective"],
    )
