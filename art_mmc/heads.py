"""
Heads: the last map of a network, from features z (B, d) to logits (B, K), larger = more likely, always.

The geometry of a defence (centers, signs, scales) lives here and not in the loss or in the classifier, because the
network alone is what ART's strongest attacks take from a classifier. Every head computes in float32 at least, also
under autocast: distances between far centers do not survive bfloat16.
"""

from collections.abc import Callable

import torch
from torch import nn

from art_mmc.checks import choice, number, whole
from art_mmc.geometry import max_mahalanobis_centers, random_centers
from art_mmc.options import HasOptions


class Head(HasOptions, nn.Module):
    """
    Base class: casts the features to float32 at least and turns autocast off around :meth:`logits`.

    Constructor arguments are kept as attributes of the same name, so that a head can be written down and built again.

    :param in_features: Width d of the features.
    :param nb_classes: Number of classes K.
    """

    #: whether the features must be able to take either sign, so that a backbone ending in a ReLU needs one more linear
    #: layer before this head
    needs_signed_features = False

    def __init__(self, in_features: int, nb_classes: int) -> None:
        super().__init__()
        self.in_features = int(in_features)
        self.nb_classes = int(nb_classes)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """
        :param z: Features (B, d) of any floating type.
        :return: Logits (B, K), float32 or float64.
        """
        if z.dtype in (torch.float16, torch.bfloat16):
            z = z.float()
        if not torch.is_autocast_enabled(z.device.type):
            return self.logits(z)
        with torch.autocast(z.device.type, enabled=False):
            return self.logits(z)

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """
        :param z: Features (B, d), float32 or float64.
        :return: Logits (B, K).
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the options, for `repr`."""
        return ", ".join(f"{key}={value}" for key, value in self.options().items())


class LinearHead(Head):
    """
    The usual last layer, `W z + b`.

    :param in_features: Width d of the features.
    :param nb_classes: Number of classes K.
    """

    def __init__(self, in_features: int, nb_classes: int) -> None:
        super().__init__(in_features, nb_classes)
        self.linear = nn.Linear(in_features, nb_classes)

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """Return `W z + b`, (B, K); see :meth:`Head.logits`."""
        return nn.functional.linear(z, self.linear.weight.to(z.dtype), self.linear.bias.to(z.dtype))


class ReversedLinearHead(LinearHead):
    """
    `-(W z + b)`: reverse cross-entropy trains `W z + b` towards the *least* likely class and predicts its smallest
    entry. With the sign inside the network everything downstream sees ordinary logits.

    | Paper link: https://arxiv.org/abs/1706.00633 (RCE, Section 3)

    :param in_features: Width d of the features.
    :param nb_classes: Number of classes K.
    """

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """Return `-(W z + b)`, (B, K); see :meth:`Head.logits`."""
        return -super().logits(z)


class UnitNormHead(LinearHead):
    """
    `r (W z + b) / ||W z + b||`: a linear head whose logits have a fixed norm, for the inference-softmax cross-entropy.
    That loss looks at the direction of the logits alone, so training and predictions are those of a linear head; but
    nothing would keep the size of the logits where it is. At norm 1, the default, they are the unit logits that the
    loss' own softmax sees, which ART's TRADES needs; an attack that weighs logits against a distance (Carlini and
    Wagner's) wants them larger, or a larger `initial_const`.

    | Paper link: https://doi.org/10.3390/math10193716

    :param in_features: Width d of the features.
    :param nb_classes: Number of classes K.
    :param logit_norm: r, positive; two logits differ by sqrt(2) r at most.
    """

    def __init__(self, in_features: int, nb_classes: int, logit_norm: float = 1.0) -> None:
        super().__init__(in_features, nb_classes)
        self.logit_norm = number("logit_norm", logit_norm)

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """Return `r (W z + b) / ||W z + b||`, (B, K); see :meth:`Head.logits`."""
        return self.logit_norm * nn.functional.normalize(super().logits(z), dim=1)


class CenterTrackingHead(LinearHead):
    """
    A linear head that also keeps one center a class in feature space, for the center loss. The centers are a buffer:
    they follow the features by their own rule (:meth:`update_centers`), not by the optimizer. The logits carry the
    features and this head with them, since an ART loss gets nothing but the logits and the labels.

    | Paper link: https://ydwen.github.io/papers/WenECCV16.pdf (Equations 2 to 4)

    :param in_features: Width d of the features.
    :param nb_classes: Number of classes K.
    :param center_rate: Rate alpha of the center update, in [0, 1].
    """

    centers: torch.Tensor

    #: adds up a tensor over the processes of a data-parallel training, in place; nothing to add in one process
    total: Callable[[torch.Tensor], torch.Tensor] = staticmethod(lambda tensor: tensor)

    def __init__(self, in_features: int, nb_classes: int, center_rate: float = 0.5) -> None:
        super().__init__(in_features, nb_classes)
        self.center_rate = number("center_rate", center_rate, 0, 1, "[]")
        self.register_buffer("centers", torch.zeros(nb_classes, in_features))

    def reset_parameters(self) -> None:
        """Put the centers back to the origin, where they start (the linear layer resets itself)."""
        self.centers.zero_()

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """Return `W z + b`, (B, K), with z as its attribute `features` and this head as `center_head`."""
        logits = super().logits(z)
        logits.features, logits.center_head = z, self  # type: ignore[attr-defined]
        return logits

    @torch.no_grad()
    def update_centers(self, z: torch.Tensor, y: torch.Tensor) -> None:
        """
        One step of the centers towards the features of a batch (Equation 4): for each class j of the batch
        `c_j <- c_j - alpha * sum_{i: y_i = j} (c_j - z_i) / (1 + n_j)`, n_j being its number of samples.

        :param z: Features (B, d).
        :param y: Labels (B,), int64.
        """
        z = z.to(self.centers.dtype)
        count = self.total(z.new_zeros(self.nb_classes).index_add_(0, y, z.new_ones(len(z))))
        # sample by sample, each with its share: of many classes few are in a batch
        towards = (z - self.centers.index_select(0, y)).div_(count.add_(1.0).index_select(0, y)[:, None])
        self.centers.add_(self.total(torch.zeros_like(self.centers).index_add_(0, y, towards)), alpha=self.center_rate)


class DistanceHead(Head):
    """
    Base of the heads whose logits are negative half squared distances to class centers, over a temperature:
    `h_k = -||z - mu_k||^2 / (2 T)`.

    The temperature changes neither the prediction nor, since the losses for these heads multiply it back, the
    training. It brings the gaps between logits to a size that a float32 softmax can bear: at a norm of 10 the raw gap
    between two centers is 111, and cross-entropy gradients are exactly zero there.

    :param in_features: Width d of the features.
    :param nb_classes: Number of classes K.
    :param temperature: T, positive.
    """

    centers: torch.Tensor

    def __init__(self, in_features: int, nb_classes: int, temperature: float) -> None:
        super().__init__(in_features, nb_classes)
        self.temperature = number("temperature", temperature)

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """Return `-||z - mu_k||^2 / (2 T)`, (B, K); see :meth:`Head.logits`."""
        centers = self.centers.to(z.dtype)
        # ||z||^2 and ||mu||^2 separately from the inner product: (B, K) memory instead of (B, K, d)
        half = 0.5 * (z.square().sum(dim=1, keepdim=True) + centers.square().sum(dim=1))
        return torch.addmm(half, z, centers.T, beta=-1.0) / self.temperature


class FixedCentersHead(DistanceHead):
    """
    Distances to fixed centers of equal norm, for MMC and MMLDA. The centers are a buffer: saved and moved with the
    network, never trained, untouched by ART's `reset()`.

    | Paper link: https://arxiv.org/abs/1905.10626 (MMC)
    | Paper link: https://arxiv.org/abs/1802.09308 (MMLDA)

    :param in_features: Width d of the features.
    :param nb_classes: Number of classes K.
    :param scale: Norm of a center: C_MM of the MMC paper; the square root of C of the MMLDA paper.
    :param centers: "max_mahalanobis" or "random" (the "MMC (rand)" row).
    :param center_seed: Seed of the random centers, or of the numeric spread of more than 2 d.
    :param temperature: T; None for scale^2 / 10, which puts two centers 10 K / (K - 1) logits apart.
    :param positions: The centers (K, d) where they are known, as a file holds them; None to make them.
    """

    NOT_OPTIONS = (*Head.NOT_OPTIONS, "positions")

    needs_signed_features = True

    def __init__(
        self,
        in_features: int,
        nb_classes: int,
        scale: float = 10.0,
        centers: str = "max_mahalanobis",
        center_seed: int = 0,
        temperature: float | None = None,
        positions: torch.Tensor | None = None,
    ) -> None:
        choice("centers", centers, ("max_mahalanobis", "random"))
        center_seed = whole("center_seed", center_seed, least=None)  # torch takes negative ones
        if positions is None:
            layout = random_centers if centers == "random" else max_mahalanobis_centers
            positions = layout(nb_classes, in_features, scale, seed=center_seed)
        elif positions.shape != (nb_classes, in_features):
            raise ValueError(
                f"positions: expected centers of shape {(nb_classes, in_features)}, got {tuple(positions.shape)}."
            )
        super().__init__(in_features, nb_classes, scale**2 / 10 if temperature is None else temperature)
        self.scale = float(scale)
        self.layout = centers
        self.center_seed = center_seed
        # where torch's default device is another than the CPU, the other heads' parameters are there too
        self.register_buffer("centers", positions.to(torch.empty(0).device))

    def options(self) -> dict[str, object]:
        """Return the constructor's arguments by name; `centers` is the name of the layout, not the buffer."""
        return {**super().options(), "centers": self.layout}


class GaussianMeansHead(DistanceHead):
    """
    Distances to trainable class means with identity covariance and equal priors, as the L-GM loss's released code has
    them.

    | Paper link: https://arxiv.org/abs/1803.02988 (Section 3.2)

    :param in_features: Width d of the features.
    :param nb_classes: Number of classes K.
    :param temperature: T. The means are trained through a softmax, which keeps the gaps in range by itself, so 1.
    """

    def __init__(self, in_features: int, nb_classes: int, temperature: float = 1.0) -> None:
        super().__init__(in_features, nb_classes, temperature)
        self.centers = nn.Parameter(torch.empty(nb_classes, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the means anew (Glorot uniform, as the released code does)."""
        nn.init.xavier_uniform_(self.centers)
