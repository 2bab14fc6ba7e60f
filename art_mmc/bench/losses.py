"""
The losses beside torch's cross-entropy, and the class centers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from art_mmc.bench.contest import OURS, Check, Contest, Settings
from art_mmc.bench.subjects import BATCH
from art_mmc.comparison import ORDER
from art_mmc.defences import get_defence
from art_mmc.evaluation.engine import seeded
from art_mmc.geometry import max_mahalanobis_centers
from art_mmc.heads import CenterTrackingHead

#: width of the features that the center loss pulls
_WIDTH = 64


def loss_contest(nb_classes: int, settings: Settings) -> Contest:
    """
    :param nb_classes: Number of classes K.
    :param settings: How to measure.
    :return: Each of the nine losses, forward and backward, beside torch's cross-entropy.
    """
    device = torch.device("cuda" if settings.device_type != "cpu" and torch.cuda.is_available() else "cpu")
    draw = torch.Generator().manual_seed(0)
    values = 3 * torch.randn(BATCH, nb_classes, generator=draw)
    features = torch.randn(BATCH, _WIDTH, generator=draw)
    y = torch.randint(nb_classes, (BATCH,), generator=draw).to(device)

    def forward_and_backward(loss: Callable[..., torch.Tensor], logits: torch.Tensor, *more: torch.Tensor) -> Any:
        return torch.autograd.grad(loss(logits, y), (logits, *more))

    def contender(name: str) -> Callable[[], object]:
        row = get_defence(name)
        with seeded(0):  # as wide as there are classes, so that centers come in closed form
            head, loss = row.build(_WIDTH if row.head is CenterTrackingHead else nb_classes, nb_classes)
        logits: Any = values.to(device, copy=True).requires_grad_(True)
        if not isinstance(head, CenterTrackingHead):
            return partial(forward_and_backward, loss, logits)
        # what the head hands over with the logits
        z = features.to(device, copy=True).requires_grad_(True)
        logits.features, logits.center_head = z, head.to(device).train()
        return partial(forward_and_backward, loss, logits, z)

    logits = values.to(device, copy=True).requires_grad_(True)
    contenders: dict[str, Callable[[], object]] = {
        "torch cross-entropy": partial(forward_and_backward, functional.cross_entropy, logits),
        **{name: contender(name) for name in ORDER},
    }
    return Contest(
        contenders,
        note=f"logits ({BATCH}, {nb_classes}), mean of the batch and its gradient; the center loss' pull on features "
        f"of width {_WIDTH} and its update of the centers included",
        asked_of=ORDER,
        repeats=settings.size(200 if nb_classes < 100 else 50, 1),
    )


def centers_contest(nb_classes: int, dim: int, settings: Settings) -> Contest:
    """
    :param nb_classes: Number of centers.
    :param dim: Their dimension.
    :param settings: How to measure.
    :return: Our centers beside the algorithm as the MMLDA paper writes it down.
    """
    nb_classes, dim = settings.size((nb_classes, dim), (10, 16))
    return Contest(
        {
            "Algorithm 1 of the MMLDA paper, numpy": lambda: algorithm_1(nb_classes, dim),
            OURS: lambda: max_mahalanobis_centers(nb_classes, dim).numpy(),
        },
        note=f"{nb_classes} centers of dimension {dim}",
        check=Check("smallest distance of two centers", smallest_distance, close=1e-4, gross=1e-2, relative=True),
    )


def algorithm_1(nb_classes: int, dim: int) -> np.ndarray:
    """
    Max-Mahalanobis centers row by row.

    | Paper link: https://arxiv.org/abs/1802.09308 (Algorithm 1)

    :param nb_classes: Number of centers L.
    :param dim: Their dimension, at least L - 1.
    :return: Centers (L, dim) of norm 1.
    """
    centers = np.zeros((nb_classes, dim))
    centers[0, 0] = 1.0
    for i in range(1, nb_classes):
        for j in range(i):
            centers[i, j] = -(1 / (nb_classes - 1) + centers[i] @ centers[j]) / centers[j, j]
        if i < dim:
            centers[i, i] = np.sqrt(abs(1.0 - centers[i] @ centers[i]))
    return centers


def smallest_distance(centers: np.ndarray) -> float:
    """
    :param centers: Centers (L, dim).
    :return: Smallest distance of two of them.
    """
    squares = (centers**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * centers @ centers.T
    np.fill_diagonal(distances, np.inf)
    return float(np.sqrt(max(distances.min(), 0.0)))
