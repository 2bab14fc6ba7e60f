"""
The table of defences. A row says everything that tells one defence from another; command line, classifiers, evaluation
and the README's table walk over it.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from art_mmc import heads, losses
from art_mmc.checks import check_name
from art_mmc.objectives import OBJECTIVES

#: what fells these losses: none of them changes the decision rule "largest logit", so an attack on the difference of
#: logits sees through all of them
ADAPTIVE = ("soft_margin", "margin", "cross_entropy", "dlr")


@dataclass(frozen=True)
class Defence:
    """
    One row.

    :param name: Short name, as on the command line.
    :param title: Name in words.
    :param formula: The loss for one sample, in plain text.
    :param head: Class of the network's last layer.
    :param loss: Class of the training loss.
    :param objectives: What an attacker who knows the defence climbs, strongest guess first; at least one that is not
           plain cross-entropy.
    :param paper: Authors, venue and year.
    :param link: Address of the paper.
    :param defaults: Options whose default here differs from the head's or the loss' own.
    :param stem: Beginning of the names of its classifier and its trainer; "" for the short name in capitals.
    :param warm_up: Whether training begins with epochs of plain cross-entropy.
    """

    name: str
    title: str
    formula: str
    head: type[heads.Head]
    loss: type[losses.Loss]
    objectives: tuple[str, ...] = ADAPTIVE
    paper: str = ""
    link: str = ""
    defaults: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    stem: str = ""
    warm_up: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", self.stem or self.name.upper())
        for objective in self.objectives:
            check_name("objective", objective, OBJECTIVES)
        if not set(self.objectives) - {"cross_entropy"}:
            raise ValueError(
                f"defence '{self.name}' needs an adaptive objective besides plain cross-entropy: without one its "
                "robust accuracy would be a flattering number."
            )

    @property
    def option_names(self) -> list[str]:
        """The options that head and loss take, in order."""
        return list(dict.fromkeys(self.head.option_names() + self.loss.option_names()))

    def build(
        self, in_features: int, nb_classes: int, positions: torch.Tensor | None = None, **options: object
    ) -> tuple[heads.Head, losses.Loss]:
        """
        Make head and loss.

        :param in_features: Width d of the features.
        :param nb_classes: Number of classes K.
        :param positions: Centers (K, d) that are known already, of no use to a head without fixed ones.
        :param options: Options of the head and of the loss, by name; see :attr:`option_names`.
        :return: The head and the loss, in tune with each other.
        :raises ValueError: For an unknown option or a value out of range.
        """
        for name in options:
            check_name(f"option of defence '{self.name}':", name, self.option_names or ["(none)"])
        options = {**self.defaults, **options}
        if nb_classes < self.loss.min_classes:
            raise ValueError(
                f"defence '{self.name}' needs at least {self.loss.min_classes} classes, got {nb_classes}: below that "
                "its loss is the same for every input."
            )
        kept = {k: v for k, v in options.items() if k in self.head.option_names()}
        if issubclass(self.head, heads.FixedCentersHead):
            kept["positions"] = positions
        head = self.head(in_features, nb_classes, **kept)  # type: ignore[arg-type]
        return head, self.build_loss(head, **{k: v for k, v in options.items() if k in self.loss.option_names()})

    def shared(self, head: heads.Head) -> dict[str, object]:
        """The options of the head that the loss must have too, in the head's values."""
        taken = inspect.signature(self.loss).parameters
        return {name: value for name, value in head.options().items() if name in taken}

    def build_loss(self, head: heads.Head, **options: object) -> losses.Loss:
        """
        Make the loss for a given head.

        :param head: The head.
        :param options: Options of the loss, by name.
        :return: The loss, with the head's options where it takes them too (a temperature, which it undoes).
        :raises ValueError: For a value out of range, or class weights that are not one a class.
        """
        loss = self.loss(**{**options, **self.shared(head)})  # type: ignore[arg-type]
        loss.check_weights(head.nb_classes)
        return loss


_ROWS = (
    Defence(
        "sce",
        "softmax cross-entropy",
        "-log f_y",
        heads.LinearHead,
        losses.SoftmaxCrossEntropyLoss,
        paper="baseline of all the papers",
        link="https://arxiv.org/abs/2010.00467",
        stem="Softmax",
    ),
    Defence(
        "mmc",
        "Max-Mahalanobis center",
        "||z - mu_y||^2",
        heads.FixedCentersHead,
        losses.MMCLoss,
        paper="Pang et al., ICLR 2020",
        link="https://arxiv.org/abs/1905.10626",
    ),
    Defence(
        "mmlda",
        "Max-Mahalanobis linear discriminant analysis",
        "-log softmax(-||z - mu||^2)_y",
        heads.FixedCentersHead,
        losses.MMLDALoss,
        paper="Pang et al., ICML 2018",
        link="https://arxiv.org/abs/1802.09308",
        # trained through a softmax, the gaps stay in range by themselves: dividing them would only weaken an attack on
        # the cross-entropy
        defaults=MappingProxyType({"temperature": 1.0}),
    ),
    Defence(
        "lgm",
        "large-margin Gaussian mixture",
        "-log softmax(-(1 + alpha [k = y]) d_k)_y + lambda d_y, d_k = ||z - mu_k||^2 / 2",
        heads.GaussianMeansHead,
        losses.LGMLoss,
        paper="Wan et al., CVPR 2018",
        link="https://arxiv.org/abs/1803.02988",
    ),
    Defence(
        "center",
        "center loss",
        "-log f_y + lambda / 2 ||z - c_y||^2",
        heads.CenterTrackingHead,
        losses.CenterLoss,
        paper="Wen et al., ECCV 2016",
        link="https://ydwen.github.io/papers/WenECCV16.pdf",
        stem="CenterLoss",
    ),
    Defence(
        "rce",
        "reverse cross-entropy",
        "-1/(K-1) sum_{k != y} log softmax(-a)_k",
        heads.ReversedLinearHead,
        losses.ReverseCrossEntropyLoss,
        paper="Pang et al., NeurIPS 2018",
        link="https://arxiv.org/abs/1706.00633",
    ),
    Defence(
        "pc",
        "probabilistically compact loss with logit constraint",
        "1/(K-1) sum_{k != y} max(0, f_k + xi - f_y) + lambda sum_{k != y} w_k max(0, a_y - a_k)",
        heads.LinearHead,
        losses.PCLogitConstraintLoss,
        paper="Li et al., AAAI 2021",
        link="https://arxiv.org/abs/2012.07688",
        warm_up=True,
    ),
    Defence(
        "gce",
        "guided complement entropy",
        "f_y^alpha sum_{k != y} q_k log q_k / log K, q_k = f_k / (1 - f_y)",
        heads.LinearHead,
        losses.GuidedComplementEntropyLoss,
        paper="Chen et al., ICCV 2019",
        link="https://arxiv.org/abs/1903.09799",
    ),
    Defence(
        "isce",
        "inference-softmax cross-entropy",
        "-log softmax(t')_y, t' = a / ||a|| with the predicted entry raised by m and clipped",
        heads.UnitNormHead,
        losses.InferenceSoftmaxLoss,
        paper="Song et al., Mathematics 2022",
        link="https://doi.org/10.3390/math10193716",
    ),
)

#: name -> row
DEFENCES: dict[str, Defence] = {row.name: row for row in _ROWS}


def adaptive_objective(row: Defence | None) -> str:
    """What an attacker of a network climbs who is told nothing else; None for a network of no row."""
    return (ADAPTIVE if row is None else row.objectives)[0]


def get_defence(name: str) -> Defence:
    """The row of a defence; ValueError for an unknown name, with the nearest known one."""
    return DEFENCES[check_name("defence", name, DEFENCES)]
