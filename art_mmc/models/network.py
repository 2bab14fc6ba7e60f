"""
The network of a defended classifier: normalisation, backbone, embedding, head, in one module.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import nn

#: one number, one a channel, or one an element of an input (an array or nested lists)
Moments: TypeAlias = "float | Sequence"


class Normalize(nn.Module):
    """
    `(x - mean) / std`, as part of the network: attacks work on inputs in [0, 1] and see it in the gradient.

    :param mean: One number, one a channel (C,), or one an element, of the shape of an input (C, ...).
    :param std: As `mean`; positive.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Moments = 0.0, std: Moments = 1.0) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            try:
                numbers = torch.as_tensor(value, dtype=torch.float32)
            except (TypeError, ValueError, RuntimeError):
                raise ValueError(f"{name}: expected a number, or one a channel, got {value!r}.") from None
            if not torch.isfinite(numbers).all():
                raise ValueError(
                    f"{name}: expected {'positive' if name == 'std' else 'finite'} numbers, got {value!r}."
                )
            self.register_buffer(name, numbers.reshape(1) if numbers.ndim == 0 else numbers)
        if not (self.std > 0).all():
            raise ValueError(f"std: expected positive numbers, got {std!r}.")
        self._identity = bool((self.mean == 0).all() and (self.std == 1).all())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: Inputs (B, C, ...).
        :return: Normalised inputs of the same shape.
        """
        if self._identity:
            return x
        mean, std = (
            numbers.to(x.dtype).view(-1, *(1,) * (x.ndim - 2)) if numbers.ndim == 1 else numbers.to(x.dtype)
            for numbers in (self.mean, self.std)
        )
        return (x - mean) / std

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(*args, **kwargs)
        self._identity = bool((self.mean == 0).all() and (self.std == 1).all())

    def extra_repr(self) -> str:
        """Return mean and std, or their shapes where there is one an element, for `repr`."""
        shown = (v.tolist() if v.ndim == 1 else f"of shape {tuple(v.shape)}" for v in (self.mean, self.std))
        return "mean={}, std={}".format(*shown)


class DefendedNet(nn.Module):
    """
    `normalize -> backbone -> projection -> embedding -> head`. `forward(x)` gives logits (B, K), `features(x)` the
    features z (B, d) that the head reads.

    `embedding` is an identity that carries z: a direct child, so that ART's `get_activations`, which knows direct
    children only, and its detectors can ask for it by name.

    :param backbone: Module (B, ...) -> (B, d').
    :param head: Module (B, d) -> (B, K).
    :param mean: Mean of the inputs, one number, one a channel or one an element; see :class:`Normalize`.
    :param std: Standard deviation of the inputs, likewise.
    :param projection: Width d of a linear layer between backbone and head, for heads whose centers have negative
           coordinates that features after a ReLU could never reach; None for no such layer (d = d').
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        mean: Moments = 0.0,
        std: Moments = 1.0,
        projection: int | None = None,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.backbone = backbone
        self.projection = nn.Identity() if projection is None else nn.Linear(backbone.out_features, projection)  # type: ignore
        self.embedding = nn.Identity()
        self.head = head

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: Inputs (B, ...) of any floating type; cast to the network's own.
        :return: Features z (B, d).
        """
        # some ART attacks hand over float64, which the layers would refuse
        x = x.to(next((p.dtype for p in self.parameters()), torch.float32))
        return self.embedding(self.projection(self.backbone(self.normalize(x))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        :param x: Inputs (B, ...) of any floating type; cast to the network's own.
        :return: Logits (B, K), larger = more likely.
        """
        return self.head(self.features(x))
