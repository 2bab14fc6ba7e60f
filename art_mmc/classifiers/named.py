"""
One classifier class a row of the table of defences, and the ways to one: by the name of a defence, or from a file.
"""

import os
from typing import Any

import numpy as np
import torch

from art_mmc.checks import check_name
from art_mmc.classifiers.base import LossDefendedClassifier
from art_mmc.classifiers.checkpoint import rebuild
from art_mmc.defences import DEFENCES, Defence
from art_mmc.models import create_backbone
from art_mmc.pretrained import pretrained_file


def _made(row: Defence) -> type[LossDefendedClassifier]:
    """The class of a row, as users, pickles and `repr` know it."""
    needs = f" Needs at least {row.loss.min_classes} classes." if row.loss.min_classes > 2 else ""
    warm_up = f" Its trainer, :class:`.{row.stem}Trainer`, begins by plain cross-entropy." if row.warm_up else ""
    doc = f"""
    The defence "{row.name}", {row.title}: {row.formula} a sample.{needs}{warm_up}

    Options, see :class:`.{row.head.__name__}` and :class:`.{row.loss.__name__}`: {", ".join(row.option_names)}.

    | Paper link: {row.link}
    """
    content = {"defence": row.name, "__doc__": doc, "__module__": "art_mmc.classifiers"}
    return type(f"{row.stem}Classifier", (LossDefendedClassifier,), content)


#: name of a defence -> its classifier
CLASSIFIERS: dict[str, type[LossDefendedClassifier]] = {row.name: _made(row) for row in DEFENCES.values()}
globals().update({cls.__name__: cls for cls in CLASSIFIERS.values()})  # type checkers read the stub beside this file


def create_classifier(
    defence: str,
    backbone: str | torch.nn.Module,
    *,
    input_shape: tuple[int, ...],
    nb_classes: int,
    **kwargs: Any,
) -> LossDefendedClassifier:
    """
    A classifier of the table of defences.

    :param defence: Name of the defence, a key of :data:`CLASSIFIERS`.
    :param backbone: Name of a backbone ("lenet5", "resnet20", ...), or a module (B, ...) -> (B, d).
    :param input_shape: Shape of one input, (C, H, W), (F,) or any other.
    :param nb_classes: Number of classes K.
    :param kwargs: More arguments of :class:`LossDefendedClassifier`, options of the defence among them.
    :return: The classifier, untrained.
    :raises ValueError: For an unknown defence or backbone, or arguments that do not fit.
    """
    check_name("defence", defence, CLASSIFIERS)
    if isinstance(backbone, str):
        backbone = create_backbone(backbone, input_shape)
    return CLASSIFIERS[defence](model=backbone, input_shape=input_shape, nb_classes=nb_classes, **kwargs)


def load_pretrained(name: str, device_type: str = "gpu") -> LossDefendedClassifier:
    """
    A trained network that comes with the package; `art-mmc zoo` lists them.

    :param name: Its name, e.g. "mmc-mnist".
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :return: The classifier in evaluation mode, with a fresh optimizer.
    :raises ValueError: For an unknown name, with the nearest known one, or a file that is not the one on its card.
    """
    return load_classifier(pretrained_file(name), None, device_type)


def load_classifier(
    path: str | os.PathLike[str],
    backbone: torch.nn.Module | None = None,
    device_type: str = "gpu",
) -> LossDefendedClassifier:
    """
    Build the classifier that a file of :meth:`.LossDefendedClassifier.save_checkpoint` describes.

    :param path: The file.
    :param backbone: A module of the same architecture, where the saved backbone was the user's own. The file's weights
           go into it, and it is part of the classifier then: give a fresh one, or a copy, of what is in use.
    :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
    :return: The classifier in evaluation mode, with a fresh optimizer.
    :raises FileNotFoundError: When the file is not there.
    :raises ValueError: When the file is damaged, of another kind, or needs a backbone.
    """
    net, loss, description = rebuild(path, backbone)
    clip = description["clip_values"]
    return CLASSIFIERS[description["defence"]](
        net,
        loss,
        tuple(description["input_shape"]),
        description["nb_classes"],
        channels_first=description["channels_first"],
        clip_values=clip
        and tuple(np.asarray(bound, np.float32) if isinstance(bound, list) else bound for bound in clip),
        device_type=device_type,
        objective=description["objective"],
    )
