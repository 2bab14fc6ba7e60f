"""
The format of a classifier's file: tensors and a line of JSON. Reading it executes no pickled code.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_mmc.checks import READ_ERRORS, as_path
from art_mmc.defences import get_defence
from art_mmc.heads import Head
from art_mmc.losses import Loss
from art_mmc.models import DefendedNet, create_backbone, wrap_backbone
from art_mmc.models.base import WrappedBackbone
from art_mmc.state import write_atomically

FORMAT = "art_mmc.classifier"
VERSION = 1


def plain_name(name: str) -> str:
    """The name that a part of a network has where none is given as `torch.compile(part)`."""
    return name.replace("_orig_mod.", "")


def plain_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's state, parts of which may be given as `torch.compile(part)`, under the names that it has without."""
    return {plain_name(name): tensor for name, tensor in state.items()}


def load_state(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load a state into a network, whichever of the two has compiled parts; RuntimeError when it does not fit."""
    names = {plain_name(name): name for name in network.state_dict()}
    network.load_state_dict({names.get(name, name): tensor for name, tensor in plain_names(state).items()})


def describe(classifier: Any) -> dict[str, Any]:
    """What :func:`rebuild` makes network and loss of, plain data; ValueError for a loss or a step of the user's."""
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
    users = backbone.module if isinstance(backbone, WrappedBackbone) else backbone
    return {
        "defence": row.name,
        "input_shape": list(classifier.input_shape),
        "nb_classes": int(classifier.nb_classes),
        "backbone": getattr(backbone, "recipe", None),
        "backbone_class": f"{type(users).__module__}.{type(users).__qualname__}",
        "embedding_dim": getattr(net.projection, "out_features", None),
        "mean": net.normalize.mean.tolist(),
        "std": net.normalize.std.tolist(),
        "options": {**net.head.options(), **classifier.loss.options()},  # type: ignore[operator]
        "reduction": classifier.loss.reduction,
        "objective": classifier.objective,
        "channels_first": classifier.channels_first,
        "clip_values": None if clip is None else [np.asarray(bound).tolist() for bound in clip],
    }


def identity(classifier: Any) -> dict[str, Any]:
    """What tells a classifier's network and loss from others, weights apart: plain data that JSON can hold."""
    try:
        about = describe(classifier)
        del about["backbone_class"]
    except ValueError:
        loss, net = classifier.loss, classifier.model
        parts = [*classifier.preprocessing_operations, *(classifier.postprocessing_defences or ())]
        head = getattr(net, "head", None)
        options = head.options() if isinstance(head, Head) else {}
        about = {
            "loss": {"loss": getattr(loss, "__name__", type(loss).__name__), **scalars(getattr(loss, "__dict__", {}))},
            "processing": [{"step": type(each).__name__, **scalars(vars(each))} for each in parts],
            "options": {**options, **(loss.options() if isinstance(loss, Loss) else {})},
        }
        arrays = [{name: a for name, a in vars(each).items() if isinstance(a, np.ndarray)} for each in parts]
        sums = [{name: checksum(a) for name, a in each.items() if a.dtype != object} for each in arrays]
        if any(sums):
            about["arrays"] = [each for each in sums if each]
    if about.get("backbone") is None:
        about["layers"] = {
            plain_name(name): f"{type(module).__name__}({module.extra_repr()})"
            for name, module in classifier.model.named_modules()
            if not any(True for _ in module.children())
        }
    return json.loads(json.dumps(about))


def checksum(values: np.ndarray) -> int:
    """What tells an array from others."""
    return zlib.crc32(np.ascontiguousarray(values).data)


def scalars(values: dict[str, Any]) -> dict[str, Any]:
    """Those of some settings that are numbers, switches, names, or tuples of them."""
    kinds = (bool, int, float, str, type(None))

    def plain(value: Any) -> bool:
        return isinstance(value, kinds) or isinstance(value, tuple) and all(map(plain, value))

    return {name: each for name, each in values.items() if plain(each) and name != "training" and name[0] != "_"}


def write_payload(
    path: str | os.PathLike[str], state: dict[str, torch.Tensor], description: dict[str, Any] | None, **more: Any
) -> None:
    """Write a checkpoint: a state, what :func:`describe` gave or None, and more of tensors and plain data."""
    payload = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(description),
        "state": {name: tensor.detach().cpu() for name, tensor in plain_names(state).items()},
        **more,
    }
    write_atomically({as_path("path", path): lambda file: torch.save(payload, file)})


def check_sums(path: Path) -> None:
    """READ_ERRORS when a zip file's own checksums are not those of its content: torch compares none."""
    with zipfile.ZipFile(path) as archive:
        if bad := archive.testzip():
            raise zipfile.BadZipFile(f"bad checksum of {bad}")


def read_tensors(path: Path) -> Any:
    """Tensors and plain data that torch.save wrote, nothing that would run code; READ_ERRORS for what is damaged."""
    if zipfile.is_zipfile(path):  # not the format of torch before 1.6
        check_sums(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def check_numbers(network: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """ValueError with the name of a weight that is nan or infinite, or a buffer that is nan: a mask may be infinite."""
    bad = {name: ~each.isfinite() for name, each in network.named_parameters() if each.is_floating_point()}
    bad |= {name: each.isnan() for name, each in network.named_buffers() if each.is_floating_point()}
    for name, mask in bad.items():
        if found := int(mask.sum()):
            raise ValueError(
                f"{path}: {found} of {mask.numel()} values of {name} are nan or infinite: the training diverged, or "
                "the file is damaged."
            )


def read_payload(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The entries of a checkpoint, "config" decoded; FileNotFoundError, or ValueError for a damaged or another file."""
    path = as_path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("no zip file")
        payload = read_tensors(path)
    except READ_ERRORS as err:
        raise ValueError(f"{path} is damaged, or no checkpoint of art_mmc: {' '.join(str(err).split())[:100]}") from err
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of art_mmc (expected format '{FORMAT}').")
    if missing := {"version", "config", "state"} - payload.keys():
        raise ValueError(f"{path} is damaged: it has no {', '.join(sorted(missing))}.")
    if payload["version"] > VERSION:
        raise ValueError(
            f"{path} was written by a newer art_mmc (format version {payload['version']}, known: {VERSION})."
        )
    payload["config"] = json.loads(payload["config"])
    return payload


def rebuild(
    path: str | os.PathLike[str], backbone: torch.nn.Module | None = None
) -> tuple[DefendedNet, Loss, dict[str, Any]]:
    """Network with its weights, loss and description, built from a checkpoint as :func:`.load_classifier` says."""
    payload = read_payload(path)
    document, state = payload["config"], payload["state"]
    if document is None:
        raise ValueError(f"{path} holds the weights of a classifier with a loss of the user's own, and no more.")
    recipe, dim = document["backbone"], document["embedding_dim"]
    input_shape = tuple(document["input_shape"])
    if backbone is None and recipe is None:
        raise ValueError(
            f"{path} has a backbone of the user's own ({document['backbone_class']}): "
            "load_classifier(path, backbone=...) with a module of that architecture."
        )
    centers = state.get("head.centers")
    with torch.random.fork_rng([]):  # first weights are drawn, which the file's then replace
        if backbone is None:
            backbone = create_backbone(recipe["name"], tuple(recipe["input_shape"]), **recipe["options"])
        backbone = wrap_backbone(backbone, input_shape)
        width, nb_classes = dim or int(backbone.out_features), document["nb_classes"]  # type: ignore[arg-type]
        fits = centers is not None and centers.shape == (nb_classes, width)
        head, loss = get_defence(document["defence"]).build(
            width, nb_classes, centers if fits else None, **document["options"]
        )
        net = DefendedNet(backbone, head, document["mean"], document["std"], projection=dim)
    loss.reduction = document["reduction"]
    net.to(next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32))
    try:
        load_state(net, state)
    except RuntimeError as err:
        raise ValueError(f"{path} does not fit the backbone: {' '.join(str(err).split())[:200]}") from err
    check_numbers(net, path)
    return net, loss, document
