"""MMC on ART's own class: a network that ends in fixed centers, and its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from art.estimators.classification.pytorch import PyTorchClassifier

from art_mmc.heads import FixedCentersHead
from art_mmc.losses.max_mahalanobis import MMCLoss

if TYPE_CHECKING:
    from art.defences.postprocessor import Postprocessor
    from art.defences.preprocessor import Preprocessor
    from art.utils import CLIP_VALUES_TYPE, PREPROCESSING_TYPE


class MaxMahalanobisNetwork(torch.nn.Module):
    """
    A backbone, a linear layer to features of either sign, and fixed centers. Signs, centers and scale are inside the
    network, since some attacks build a classifier of their own around it.

    :param backbone: Maps inputs (N, ...) to (N, ...).
    :param width: Elements of its output for one input.
    :param nb_classes: Number of classes.
    :param embedding_dim: Width of the features.
    :param scale: Norm of a center.
    """

    def __init__(
        self, backbone: torch.nn.Module, width: int, nb_classes: int, embedding_dim: int, scale: float
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.embedding = torch.nn.Linear(width, embedding_dim)
        self.head = FixedCentersHead(embedding_dim, nb_classes, scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: Inputs (N, ...).
        :return: Logits (N, nb_classes), larger = more likely.
        """
        return self.head(self.embedding(self.backbone(x).flatten(1)))


class MaxMahalanobisClassifier(PyTorchClassifier):
    """
    A `PyTorchClassifier` that is trained to bring the features of each class to a fixed center of its own; the centers
    are as far from each other as points of one norm can be.

    Please keep in mind the limitations of defences. On its own training loss a network of this kind looks more robust
    than it is: `loss_gradient`, which most attacks climb, is flat where the features are near their center. For the
    evaluation of robustness use attacks on the logits (`AutoProjectedGradientDescent` with
    `loss_type="difference_logits_ratio"`).

    | Paper link: https://arxiv.org/abs/1905.10626
    """

    estimator_params = PyTorchClassifier.estimator_params + ["scale", "embedding_dim"]

    def __init__(
        self,
        model: torch.nn.Module,
        loss: torch.nn.Module | None = None,
        input_shape: tuple[int, ...] = (),
        nb_classes: int = 2,
        optimizer: torch.optim.Optimizer | None = None,
        use_amp: bool = False,
        opt_level: str = "O1",
        loss_scale: float | str | None = "dynamic",
        channels_first: bool = True,
        clip_values: CLIP_VALUES_TYPE | None = None,
        preprocessing_defences: Preprocessor | list[Preprocessor] | None = None,
        postprocessing_defences: Postprocessor | list[Postprocessor] | None = None,
        preprocessing: PREPROCESSING_TYPE = (0.0, 1.0),
        device_type: str = "gpu",
        scale: float = 10.0,
        embedding_dim: int = 64,
    ) -> None:
        """
        Create a :class:`.MaxMahalanobisClassifier` instance.

        :param model: A backbone, to which a linear layer and the centers are added; or a network that has them.
        :param loss: The loss; None for the Max-Mahalanobis center loss.
        :param input_shape: The shape of one input instance.
        :param nb_classes: The number of classes.
        :param optimizer: The optimizer over the parameters of `model`, which the new layer's parameters join; None for
               Adam.
        :param use_amp: As in `PyTorchClassifier`.
        :param opt_level: As in `PyTorchClassifier`.
        :param loss_scale: As in `PyTorchClassifier`.
        :param channels_first: Set channels first or last.
        :param clip_values: Tuple of the form `(min, max)`.
        :param preprocessing_defences: Preprocessing defence(s) to be applied by the classifier.
        :param postprocessing_defences: Postprocessing defence(s) to be applied by the classifier.
        :param preprocessing: Tuple of the form `(subtrahend, divisor)`.
        :param device_type: Type of device on which the classifier is run, either `gpu` or `cpu`.
        :param scale: Norm of a center.
        :param embedding_dim: Width of the features.
        """
        if not isinstance(model, MaxMahalanobisNetwork):
            like = next(model.parameters(), torch.zeros(()))
            training = model.training
            with torch.no_grad():
                width = model.eval()(torch.zeros(1, *input_shape).to(like.device)).numel()
            backbone = model.train(training)
            model = MaxMahalanobisNetwork(backbone, width, nb_classes, embedding_dim, scale).to(like.device)
            if optimizer is not None:
                optimizer.add_param_group({"params": list(model.embedding.parameters())})
        super().__init__(
            model=model,
            loss=MMCLoss(temperature=model.head.temperature) if loss is None else loss,
            input_shape=input_shape,
            nb_classes=nb_classes,
            optimizer=torch.optim.Adam(model.parameters()) if optimizer is None else optimizer,
            use_amp=use_amp,
            opt_level=opt_level,
            loss_scale=loss_scale,
            channels_first=channels_first,
            clip_values=clip_values,
            preprocessing_defences=preprocessing_defences,
            postprocessing_defences=postprocessing_defences,
            preprocessing=preprocessing,
            device_type=device_type,
        )
        self.scale = scale
        self.embedding_dim = embedding_dim
        self._reduce_labels, self._int_labels = True, True

    def reduce_labels(self, y: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """
        Reduce labels from one-hot encoded to index labels.

        :param y: Indices (N,) or one-hot (N, nb_classes).
        :return: Indices (N,), of type int64.
        """
        if y.ndim == 2:
            return y.argmax(1)
        return y.long() if isinstance(y, torch.Tensor) else y.astype(np.int64)
