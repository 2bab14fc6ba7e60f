"""
Loss-defended networks as ART classifiers.

A :class:`LossDefendedClassifier` is an ART `PyTorchClassifier`: every ART attack, trainer and detector takes it. What
it changes: `loss_gradient` and `compute_loss` climb an attacker's objective instead of the training loss, labels come
in any format, and a call that does not train leaves modes, gradients, statistics and files as they were.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from art import config
from art.data_generators import PyTorchDataGenerator
from art.estimators.classification import PyTorchClassifier
from art.preprocessing.standardisation_mean_std.numpy import StandardisationMeanStd
from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from art_mmc import checks
from art_mmc.checks import broadcasts, check_images, check_name, whole
from art_mmc.classifiers import fitting
from art_mmc.classifiers.checkpoint import describe, load_state, plain_names, write_payload
from art_mmc.defences import Defence, adaptive_objective, get_defence
from art_mmc.models import DefendedNet, wrap_backbone
from art_mmc.models.base import check_input_shape, check_no_classes
from art_mmc.models.copies import copied, detached, draw_anew, same_optimizer
from art_mmc.models.features import Softmax, find_layer, logits_network
from art_mmc.models.inference import (
    Prepared,
    channels_last,
    convolution_weights,
    emulates_bfloat16,
    favours_channels_last,
)
from art_mmc.models.network import Moments
from art_mmc.objectives import OBJECTIVES

if TYPE_CHECKING:
    from art.data_generators import DataGenerator
    from art.utils import CLIP_VALUES_TYPE, PREPROCESSING_TYPE
    from typing_extensions import Self

logger = logging.getLogger(__name__)

#: how a network may be computed where it does not learn; see :class:`LossDefendedClassifier`
ARITHMETICS = ("fast", "exact", "bfloat16")

#: up to so many gradients of logits, one a sample and a class, are computed in one backward pass, by kind of device.
#: On a CPU it is the overhead of small batches that is saved, on a GPU it is memory that sets the bound.
_GRADIENTS_AT_ONCE = {"cpu": 64, "cuda": 2048}

NO_AMP = "use_amp=True needs NVIDIA apex, which current torch no longer works with; leave it False."


class LossDefendedClassifier(PyTorchClassifier):
    """
    An ART classifier for a network trained by a loss of one's own; its named subclasses bring network head and loss
    along.

    `loss_gradient` and `compute_loss`, which ART's FGSM, PGD, BIM, MIM and APGD climb, follow `objective`, and training
    follows the loss. On its own training loss a defended network looks several times more robust than it is.
    """

    __module__ = "art_mmc.classifiers"  # users, pickles and `repr` know it by this name

    estimator_params = PyTorchClassifier.estimator_params + ["objective", "arithmetic", "compile"]

    #: name of the row in the table of defences; None for a loss of the user's own
    defence: str | None = None

    _model: Any  # ART's wrapper, a class made anew for each instance
    _layer_names: list[str]
    _optimizer: torch.optim.Optimizer | None
    _kinship: _Kinship  # the same for all views of one classifier

    def __init__(
        self,
        model: torch.nn.Module,
        loss: torch.nn.Module | None = None,
        input_shape: tuple[int, ...] | None = None,
        nb_classes: int | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        use_amp: bool = False,
        opt_level: str = "O1",
        loss_scale: float | str | None = "dynamic",
        channels_first: bool = True,
        clip_values: CLIP_VALUES_TYPE | None | Any = ...,
        preprocessing_defences: Any = None,
        postprocessing_defences: Any = None,
        preprocessing: PREPROCESSING_TYPE | Any = (0.0, 1.0),
        device_type: str = "gpu",
        *,
        objective: str = "adaptive",
        arithmetic: str = "fast",
        compile: bool | str = False,
        mean: Moments | None = None,
        std: Moments | None = None,
        embedding_dim: int | None = None,
        **options: Any,
    ) -> None:
        """
        Create a classifier from a bare backbone, in one call, or from a network that has its head already.

        :param model: For a named subclass a backbone (B, ...) -> (B, d), to which the defence's head is added, or a
               ready :class:`.DefendedNet`. For the base class any module that gives logits (B, K), larger = likelier.
        :param loss: Training loss, `loss(logits, y)` with an attribute `reduction`; None for the defence's own. Cross
               entropies, NLLLoss, MultiMarginLoss and the losses of this package get class indices, any other rows
               (B, K), one-hot, as from ART; see :class:`OneHotLoss`. The base class takes None for no loss.
        :param input_shape: Shape of one input, (C, H, W), (F,) or any other.
        :param nb_classes: Number of classes K, at least 2.
        :param optimizer: Optimizer over the parameters of `model`; those of a head that is added here join it. None for
               Adam with rate 1e-3 over all.
        :param use_amp: Not supported (it needs NVIDIA apex); must be False.
        :param opt_level: As in ART, without effect.
        :param loss_scale: As in ART, without effect.
        :param channels_first: Whether images are (C, H, W).
        :param clip_values: Smallest and largest value of an input. Not given it is (0, 1), for the base class None as
               in ART. A named subclass refuses integers and training data far outside; the base class checks no values.
        :param preprocessing_defences: ART preprocessing defence(s).
        :param postprocessing_defences: ART postprocessing defence(s).
        :param preprocessing: As in ART, a tuple (subtrahend, divisor); better `mean` and `std`. None on the base class
               leaves integers as they are, for embeddings; otherwise inputs are cast to float32.
        :param device_type: "cpu", or "gpu" for the current CUDA device if there is one.
        :param objective: What `loss_gradient` and `compute_loss` follow: "adaptive" for the first objective of the
               defence's row, "loss" for the training loss (the papers' own-loss attack), or one of "margin",
               "cross_entropy", "rescaled_cross_entropy", "dlr", "targeted_dlr" and "soft_margin".
        :param arithmetic: How predictions and gradients are computed. "fast": float32, in the memory format that suits
               network and device, batch normalisation folded into the convolutions before it; equal to "exact" to
               within rounding. "exact": operation by operation as ART's class does, bit for bit. "bfloat16": as "fast",
               under `torch.autocast`. Training is in float32, in the memory format of "fast" unless "exact".
        :param compile: Whether predictions and gradients run a `torch.compile`d network, or the name of a backend. The
               first call of each kind then takes long.
        :param mean: Mean subtracted inside the network, one number, one a channel or one an element, of the shape of an
               input (when `model` is a backbone); None for 0.
        :param std: Standard deviation divided by inside the network, likewise; None for 1.
        :param embedding_dim: Width of a linear layer between backbone and head (when `model` is a backbone). None for
               none, or for the backbone's own width where the head needs features of either sign and the backbone ends
               in an activation.
        :param options: Options of the defence's head and loss, e.g. `scale=10.0` for "mmc".
        :raises ValueError: For arguments that are missing, unknown, out of range or do not fit together.
        """
        if use_amp:
            raise ValueError(NO_AMP)
        if input_shape is None or nb_classes is None:
            raise ValueError("input_shape and nb_classes are needed, e.g. input_shape=(1, 28, 28), nb_classes=10.")
        checks.check_type("model", model, torch.nn.Module, "a torch.nn.Module")
        input_shape, nb_classes = check_input_shape(input_shape), whole("nb_classes", nb_classes)
        if loss is not None and not callable(loss):
            raise TypeError(f"loss: expected a torch.nn.Module or a function of logits and labels, got {loss!r}.")
        _check_device_type(device_type)
        if clip_values is ...:
            clip_values = None if self.row is None else (0.0, 1.0)
        checks.check_box(clip_values, input_shape)
        net_options = {"mean": mean, "std": std, "embedding_dim": embedding_dim, **options}
        given = {id(parameter) for parameter in model.parameters()}
        if optimizer is not None:
            fitting.check_optimizer(optimizer, [model, loss])
        model, loss = self._complete(model, loss, input_shape, nb_classes, net_options)
        added: list[Any] = [each for each in model.named_parameters() if id(each[1]) not in given]
        if optimizer is not None and added:  # head and projection: a user's optimizer can't know them
            if "param_names" not in optimizer.param_groups[0]:
                added = [parameter for _, parameter in added]
            optimizer.add_param_group({"params": added})
        super().__init__(
            model=model,
            loss=loss,
            input_shape=input_shape,
            nb_classes=nb_classes,
            optimizer=optimizer,
            channels_first=channels_first,
            clip_values=clip_values,
            preprocessing_defences=preprocessing_defences,
            postprocessing_defences=postprocessing_defences,
            preprocessing=preprocessing,
            device_type=device_type,
        )
        for each in self.postprocessing_defences or ():
            if self.row is not None and type(each).__name__ in ("HighConfidence", "ReverseSigmoid"):
                logger.warning(
                    "postprocessing_defences: %s is made for probabilities, and predictions here are logits, which it "
                    "makes nonsense of; on the view classifier.with_probabilities() it works as it was meant.",
                    type(each).__name__,
                )
        self._opt_level, self._loss_scale = opt_level, loss_scale
        if isinstance(self._loss, torch.nn.Module):  # ART moves the model alone
            self._loss.to(self._device)
        self._begin(objective, arithmetic, compile)
        self._model.eval()

    def _begin(self, objective: str, arithmetic: str, compile: bool | str) -> None:
        """What a classifier has that ART's has not, as of the beginning."""
        self.objective, self.arithmetic, self.compile = objective, arithmetic, compile
        self._kinship = _Kinship()
        if self._optimizer is None and any(True for _ in self._model.parameters()):
            self._optimizer = torch.optim.Adam(self._model.parameters(), lr=1e-3)
        self.preprocessing_operations: list[Any] = []  # of its own; ART's constructor calls ART's method
        self._update_preprocessing_operations()
        self._check_params()

    def _complete(
        self,
        model: torch.nn.Module,
        loss: torch.nn.Module | None,
        input_shape: tuple[int, ...],
        nb_classes: int,
        options: dict[str, Any],
    ) -> tuple[torch.nn.Module, torch.nn.Module | None]:
        """Give a bare backbone its head, and the network its loss."""
        row = self.row
        if isinstance(model, DefendedNet) and getattr(model.head, "nb_classes", nb_classes) != nb_classes:
            raise ValueError(f"nb_classes={nb_classes}, but the network's head has {model.head.nb_classes} classes.")
        if row is None or isinstance(model, DefendedNet):
            given = [name for name, value in options.items() if value is not None]
            if given:
                why = "the network has them already" if row else "only the named subclasses know such options"
                raise ValueError(f"{', '.join(given)}: not to be given here, {why}.")
        if row is None:
            # the one that is there already may take indices because a user's flag on ART's class said so
            known = loss is None or loss is self.__dict__.get("_loss")
            if not known and not isinstance(loss, (*fitting.TAKE_INDICES, fitting.OneHotLoss)):
                loss = fitting.OneHotLoss(loss)
            if own_forward(model):  # which ART's attacks that wrap a network anew would pass over
                model = DefendedNet(model, torch.nn.Identity())
            return model, loss
        if not isinstance(model, DefendedNet):
            mean, std, dim = options.pop("mean"), options.pop("std"), options.pop("embedding_dim")
            for name, shape in (("mean", np.shape(mean)), ("std", np.shape(std))):  # type: ignore[arg-type]
                if shape not in ((1,), input_shape[:1]) and (len(shape) == 1 or not broadcasts(shape, input_shape)):
                    raise ValueError(
                        f"{name}: expected one number, {input_shape[0]}, one a channel, or an array of the inputs' "
                        f"shape {input_shape}, got shape {shape}."
                    )
            dim = None if dim is None else whole("embedding_dim", dim)
            backbone: Any = wrap_backbone(model, input_shape)
            check_no_classes(backbone, nb_classes)
            if any(each.dtype == torch.float16 for each in backbone.parameters()):
                raise ValueError(
                    "model: the backbone is in float16, in which training diverges: model.float(), and for speed "
                    "arithmetic='bfloat16', and precision='bfloat16' of a trainer."
                )
            if dim is None and row.head.needs_signed_features and not backbone.linear_output:
                dim = backbone.out_features
            head, row_loss = row.build(dim or backbone.out_features, nb_classes, **options)
            # the head joins a backbone that the user may have moved or cast already
            like = next(backbone.parameters(), torch.empty(0))
            model = DefendedNet(
                backbone,
                head,
                mean=0.0 if mean is None else mean,
                std=1.0 if std is None else std,
                projection=dim,
            ).to(like.device, like.dtype)
            loss = row_loss if loss is None else loss
        if not isinstance(model.head, row.head):
            raise ValueError(
                f"the network's head is a {type(model.head).__name__}, defence '{row.name}' needs a "
                f"{row.head.__name__}."
            )
        if loss is None:
            loss = row.build_loss(model.head)
        for name, value in row.shared(model.head).items():
            if getattr(loss, name, value) != value:
                raise ValueError(
                    f"the loss has {name} {getattr(loss, name)}, the head {value}: the loss would not undo the head's "
                    f"{name}."
                )
        return model, loss

    @property
    def row(self) -> Defence | None:
        """The defence's row in the table, or None for a loss of the user's own."""
        return None if self.defence is None else get_defence(self.defence)

    @property
    def objective(self) -> str:
        """What `loss_gradient` and `compute_loss` follow."""
        return self._objective

    @objective.setter
    def objective(self, name: str) -> None:
        self._objective = check_name("objective", name, ("adaptive", "loss", *OBJECTIVES))

    @property
    def arithmetic(self) -> str:
        """How predictions and gradients are computed: "fast", "exact" or "bfloat16"."""
        return self._arithmetic

    @arithmetic.setter
    def arithmetic(self, name: str) -> None:
        self._arithmetic = check_name("arithmetic", name, ARITHMETICS)
        if name == "bfloat16" and emulates_bfloat16(self.device):
            logger.warning("arithmetic='bfloat16': this processor emulates it, and is many times faster by 'fast'.")

    @property
    def compile(self) -> bool | str:
        """Whether predictions and gradients run a compiled network, or the name of a backend."""
        return self._compile

    @compile.setter
    def compile(self, backend: bool | str) -> None:
        if not isinstance(backend, (bool, str)):
            raise TypeError(f"compile: expected True, False or the name of a backend, got {backend!r}.")
        self._compile = backend
        self._compiled: tuple[list[Any], Prepared] | None = None

    @contextmanager
    def using_objective(self, name: str) -> Iterator[None]:
        """
        Follow another objective for a while: `with classifier.using_objective("loss"): attack.generate(x)`.

        :param name: As in the constructor's `objective`.
        """
        before = self.objective
        self.objective = name
        try:
            yield
        finally:
            self.objective = before

    # ------------------------------------------------------------------------------------------ views

    def _view(self, network: torch.nn.Module | None = None) -> Self:
        """The same classifier once more, with the very same loss and optimizer, and network unless another is given."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        if network is not None:
            view._model = view._make_model_wrapper(network)
        return view

    def with_objective(self, name: str) -> Self:
        """
        A view that aims ART's gradient attacks at an objective: `FastGradientMethod(classifier.with_objective("dlr"))`.
        It shares network, loss and optimizer, so it follows all training, and it equals the classifier, so that ART's
        AdversarialTrainer does not take the attack for one on another network.

        :param name: As in the constructor's `objective`. For a targeted attack ART gives the target as label and
               descends: the same objectives serve, "loss" being the loss towards the target.
        :return: The view. What :meth:`set_params` changes later in the one does not change in the other.
        """
        view = self._view()
        view.objective = name
        return view

    def with_probabilities(self, temperature: float = 1.0) -> Self:
        """
        A view whose network ends in a softmax, for the attacks that take probabilities (SimBA, NewtonFool,
        VirtualAdversarialMethod). The objectives are those of the logits, as before.

        :param temperature: Number by which the logits are divided first. Where their gaps are far above 20, the
               probabilities are exactly 0 and 1 in float32 and these attacks see nothing: divide by about a tenth of
               the typical gap.
        :return: The view; see :meth:`with_objective`.
        :raises ValueError: For a temperature that is no positive number.
        """
        temperature = checks.number("temperature", temperature)
        if isinstance(self.model, Softmax):
            raise ValueError("the network of this view ends in a softmax already.")
        return self._view(Softmax(self.model, temperature))

    def _make_model_wrapper(self, model: torch.nn.Module) -> _Wrapper:
        return _Wrapper(model)

    @property
    def _network(self) -> torch.nn.Module:
        """The network that gives logits: without the softmax of a view."""
        return logits_network(self.model)

    def _without_probabilities(self) -> Self:
        """The view without the softmax, for files and copies."""
        return self._view(self._network) if isinstance(self.model, Softmax) else self

    def __eq__(self, other: object) -> bool:
        """Whether it is this classifier, or a view of it, or of the same one."""
        return isinstance(other, LossDefendedClassifier) and other._kinship is self._kinship

    def __hash__(self) -> int:
        """The same for all views of one classifier."""
        return hash(id(self._kinship))

    # ------------------------------------------------------------------------------------------ what comes in

    def _check_params(self) -> None:
        super()._check_params()
        # ART would let its trainers hand one-hot labels to a loss that it does not know, and they fail on those
        self._reduce_labels, self._int_labels = True, True
        self._probability_labels = not isinstance(self._loss, (torch.nn.NLLLoss, torch.nn.MultiMarginLoss))
        checks.check_box(self.clip_values, self.input_shape)

    def _update_preprocessing_operations(self) -> None:
        super()._update_preprocessing_operations()
        last: Any = self.preprocessing
        default = isinstance(last, (StandardisationMeanStd, StandardisationMeanStdPyTorch))
        if default and np.all(last.mean == 0) and np.all(last.std == 1):  # it changes nothing:
            self.preprocessing_operations.pop()  # kept for those who ask for it, as SleeperAgent does, but not run

    def reduce_labels(self, y: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """
        Labels as the losses take them.

        :param y: Indices (N,) or (N, 1), one-hot or probabilities (N, K).
        :return: Indices (N,), int64, unless y holds probabilities or the loss wants rows: those stay as they are.
        """
        if y.dtype == object:
            y = np.asarray(y.tolist())
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim == 1:
            return y.astype(np.int64) if isinstance(y, np.ndarray) else y.long()
        return y if isinstance(self._loss, fitting.OneHotLoss) else super().reduce_labels(y)

    def _inputs(self, x: Any) -> Any:
        """A public call's inputs as float32 or, for embeddings, integers; not looked at for NaN, which attacks try."""
        as_they_are = self.row is None and self.preprocessing is None
        if isinstance(x, torch.Tensor):
            return x if x.dtype == torch.float32 or (as_they_are and not x.is_floating_point()) else x.float()
        kinds = "biufO" if self.preprocessing_operations else "biuf"
        if not isinstance(x, np.ndarray) or not x.ndim or x.dtype.kind not in kinds:
            kind = type(x.item() if getattr(x, "shape", None) == () else x).__name__
            kind = f"an array of {x.dtype}" if kind == "ndarray" else kind
            raise TypeError(f"x: expected an array or a torch tensor of inputs (N, ...), got {kind}; np.asarray(x)?")
        if x.dtype == object:
            return x
        check_images(x, None if self.preprocessing_defences or self.row is None else self.input_shape, finite=False)
        if x.dtype.kind in "iu":
            if as_they_are:
                return np.ascontiguousarray(x)
            if self._value_checks and x.max(initial=0) > max(1, np.max(self.clip_values[1])):
                raise ValueError(
                    f"x holds integers up to {x.max()}: inputs are floats, in the papers in [0, 1]; x / 255.0?"
                )
        elif self._value_checks and not self.preprocessing_operations:
            checks.check_near(x, self.clip_values, 10.0)  # attacks may look outside, but not in another unit
        return np.ascontiguousarray(x, dtype=config.ART_NUMPY_DTYPE)

    @property
    def _value_checks(self) -> bool:
        """Whether inputs are held against the clip values: the base class checks nothing that ART does not."""
        return self.row is not None and self.clip_values is not None

    def _check_labels(self, y: np.ndarray, length: int) -> None:
        """Indices are checked always; rows may be what a loss of the user's own wants, except on a named subclass."""
        if self.row is not None or y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
            checks.check_labels(y, self.nb_classes, length=length)

    def _as_tensor(self, x: Any) -> torch.Tensor:
        """On the device; an array is copied, since a network may work in place on its input."""
        return x.to(self._device) if isinstance(x, torch.Tensor) else torch.tensor(x, device=self._device)

    def _labels(self, y: Any, length: int) -> torch.Tensor:
        """Check labels in any format; as a tensor on the device, indices (N,) or probabilities (N, K)."""
        if isinstance(y, torch.Tensor):
            return self.reduce_labels(y).to(self._device)  # type: ignore[union-attr]
        y = np.asarray(y)
        self._check_labels(y, length)
        return torch.as_tensor(self.reduce_labels(y), device=self._device)

    @contextmanager
    def _prepared(
        self,
        training_mode: bool = False,
        learning: bool = False,
        backward: bool = False,
        watched: torch.nn.Module | None = None,
    ) -> Iterator[Prepared]:
        """For a call that does not train: a :class:`.Prepared` double; `backward` if it takes gradients of inputs."""
        if backward:
            _check_gradients()
        recurrent = backward and self.is_rnn and not training_mode  # cuDNN has no backward pass for RNNs in eval mode
        fused = not (training_mode or self._arithmetic == "exact" or self._compile)
        prepared = Prepared(self.model, training_mode or recurrent, learning, fused, recurrent, watched)
        token = _RUNNING.set((*_RUNNING.get(), prepared))
        try:
            with _graphs_kept() if self._compile else nullcontext():
                yield prepared
        finally:
            _RUNNING.reset(token)

    def _outputs(self, x: torch.Tensor, part: torch.nn.Module | None = None) -> torch.Tensor:
        """The network, or the part of a view that is asked for, on a batch, computed as `arithmetic` says."""
        part = self.model if part is None else part
        prepared = next((each for each in reversed(_RUNNING.get()) if each.original is self.model), None)
        if prepared is None:  # a call in the modes that the modules are in
            prepared = Prepared(self.model, training=None, learning=True)
        call: Callable[..., torch.Tensor] = partial(prepared, part=part)
        training = prepared.network.training
        if self._compile and not (training or prepared.learning or prepared.watched):
            call = self._compiled_once(part)
        low = self._arithmetic == "bfloat16"
        with _explained(part, x), torch.autocast(self._device.type, dtype=torch.bfloat16) if low else nullcontext():
            favoured = not (training or self._arithmetic == "exact") and favours_channels_last(prepared.weights, x)
            last = favoured and self._kinship.takes_channels_last is not False
            try:
                outputs = call(x, last=last)
            except RuntimeError as err:  # the first call is the trial; if it is another error, it comes again
                if not last or self._kinship.takes_channels_last or isinstance(err, torch.OutOfMemoryError):
                    raise
                last, outputs = False, call(x)
            if favoured:
                self._kinship.takes_channels_last = last
        fitting.check_logits(outputs, len(x), self.nb_classes)
        return outputs.float() if low and outputs.dtype == torch.bfloat16 else outputs

    def _compiled_once(self, part: torch.nn.Module) -> Prepared:
        """A double of a network, compiled; kept until a module or the memory of a tensor of the network is another."""
        tensors = [*part.parameters(), *part.buffers()]
        state = [*part.modules(), *((each.data_ptr(), each.dtype, each.stride()) for each in tensors)]
        if self._compiled is None or self._compiled[0] != state:
            backend = self._compile if isinstance(self._compile, str) else "inductor"
            prepared = Prepared(part)
            prepared.network.compile(backend=backend)
            self._compiled = state, prepared
        return self._compiled[1]

    # ------------------------------------------------------------------------------------------ prediction, gradients

    def predict(self, x: np.ndarray, batch_size: int = 128, training_mode: bool = False, **kwargs: Any) -> np.ndarray:
        """
        Logits of the network.

        :param x: Inputs (N, ...).
        :param batch_size: Samples in one forward pass.
        :param training_mode: Whether the network runs in training mode; its batch statistics stay as they are.
        :param kwargs: Ignored; some ART attacks hand over `logits=True`.
        :return: Logits (N, K), float32, larger = more likely.
        """
        whole("batch_size", batch_size)
        with self._prepared(training_mode):
            x_preprocessed, _ = self._apply_preprocessing(self._inputs(x), y=None, fit=False)
            outputs = []
            with torch.no_grad():
                for start in range(0, len(x_preprocessed), batch_size):
                    batch = self._as_tensor(x_preprocessed[start : start + batch_size])
                    outputs.append(self._outputs(batch).float())
            results = torch.cat(outputs).cpu().numpy()
        return self._apply_postprocessing(preds=results[:, None] if results.ndim == 1 else results, fit=False)

    def _predict_framework(
        self, x: torch.Tensor, y: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        with self._prepared(learning=True):
            inputs, labels = self._preprocessed(x, y, no_grad=False)
            return self._outputs(inputs), labels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        The network on a batch, in the mode that it is in or that :meth:`crafting` has set, with gradients if they are
        on. A network that works in place on its input gets a copy.

        :param x: Inputs (B, C, H, W), on the device.
        :return: Logits (B, K).
        """
        return self._outputs(x)

    def bounds(self, x: torch.Tensor) -> tuple[Any, Any]:
        """
        The box of the inputs.

        :param x: Inputs (B, C, H, W), for type and device.
        :return: Smallest and largest values, numbers or tensors that broadcast against x; None and None for no box.
        """
        if self.clip_values is None:
            return None, None
        low, high = (
            float(b) if np.ndim(b) == 0 else torch.as_tensor(b).to(x, non_blocking=True) for b in self.clip_values
        )
        return low, high

    @contextmanager
    def crafting(self, training_mode: bool = False) -> Iterator[None]:
        """
        For crafting adversarial examples on tensors: inside, :meth:`forward` runs the network in the mode given,
        without a graph of the parameters. Modes, flags and batch statistics of the network itself stay as they are.

        :param training_mode: Whether batch normalisation uses the statistics of the batch.
        """
        with self._prepared(training_mode, backward=True):
            yield

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        """What losses and objectives take: the network's outputs without the softmax of a view."""
        return self._outputs(x, self._network)

    def attack_values(
        self, outputs: torch.Tensor, y: torch.Tensor, name: str | None = None, reduction: str | None = "none"
    ) -> torch.Tensor:
        """
        The objective that an attacker climbs.

        :param outputs: Logits (B, K).
        :param y: Labels: indices (B,) or probabilities (B, K).
        :param name: Name of the objective; None for the classifier's own. "adaptive" is the loss for a network with a
               single output, which has no margin.
        :param reduction: "none", "mean" or "sum"; None for the loss' own, which for weighted means is another.
        :return: One value a sample, (B,), or what the training loss gives under "none": torch's element-wise ones
                 (B, K), a loss without `reduction` its one number. A scalar if reduced.
        :raises ValueError: For an objective that does not fit the outputs, or the loss of a classifier without one.
        """
        name = self._objective if name is None else name
        single = outputs.ndim == 1 or outputs.shape[1] == 1
        if name == "adaptive":
            name = "loss" if single and not self.row else adaptive_objective(self.row)
        if name == "loss":
            return self._training_loss(outputs, y, reduction)
        if single:
            raise ValueError(f"objective '{name}' compares classes, but the network has a single output; take 'loss'.")
        outputs = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
        values = OBJECTIVES[name](outputs, checks.indices(y))
        if reduction is None:
            reduction = "mean" if "mean" in getattr(self._loss, "reduction", "mean") else "sum"
        return values if reduction == "none" else values.mean() if reduction == "mean" else values.sum()

    def _training_loss(self, outputs: torch.Tensor, y: torch.Tensor, reduction: str | None = None) -> torch.Tensor:
        """The loss, reduced as asked or in its own way."""
        if self._loss is None:
            raise ValueError("the classifier has no loss: set_params(loss=...), or another objective than 'loss'.")
        return fitting.with_reduction(self._loss, reduction)(outputs, y)

    def _preprocessed(self, x: Any, y: torch.Tensor | None, no_grad: bool) -> tuple[Any, Any]:
        """Inputs and their labels after the preprocessing, which may make several inputs of one."""
        labels = y if y is None or isinstance(x, torch.Tensor) else y.cpu().numpy()
        x, labels = self._apply_preprocessing(x, y=labels, fit=False, no_grad=no_grad)
        return x, None if labels is None else torch.as_tensor(labels, device=self._device)

    def _differentiable_input(self, x: Any, y: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The leaf to differentiate by, and what the network gets with its labels, after the preprocessing."""
        if self.all_framework_preprocessing:
            leaf = self._as_tensor(x).detach()
            leaf = (leaf.clone() if leaf.is_inference() else leaf).requires_grad_(True)
            return leaf, *self._preprocessed(leaf, y, no_grad=False)
        if isinstance(x, torch.Tensor):
            raise NotImplementedError("Tensors as inputs need preprocessing that is all in PyTorch.")
        inputs, labels = self._preprocessed(x, y, no_grad=True)
        leaf = self._as_tensor(inputs).requires_grad_(True)
        return leaf, leaf, labels

    def loss_gradient(
        self,
        x: np.ndarray | torch.Tensor,
        y: np.ndarray | torch.Tensor,
        training_mode: bool = False,
        **kwargs: Any,
    ) -> np.ndarray | torch.Tensor:
        """
        Gradient of the attacker's objective with respect to the inputs; see `objective`.

        :param x: Inputs (N, ...).
        :param y: Labels: indices (N,), one-hot or probabilities (N, K).
        :param training_mode: Whether the network runs in training mode; its batch statistics stay as they are.
        :param kwargs: Ignored; some ART attacks hand over more.
        :return: Gradients of the shape of x. As in ART, of the batch's value under the loss' own reduction; of the sum
                 if that is "none".
        """
        x = self._inputs(x)
        with self._prepared(training_mode, backward=True), torch.enable_grad():
            leaf, inputs, labels = self._differentiable_input(x, self._labels(y, len(x)))
            total = self.attack_values(self._logits(inputs), labels, reduction=None).sum()
            grads = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if grads is None:
            raise ValueError("Gradient term in PyTorch model is `None`: the output does not depend on the input.")
        if isinstance(x, torch.Tensor):
            return grads.contiguous()  # attacks reshape it several times a step
        return self._numpy_gradient(x, grads)

    def _numpy_gradient(self, x: np.ndarray, grads: torch.Tensor) -> np.ndarray:
        result = grads.contiguous().cpu().numpy()
        if not self.all_framework_preprocessing:
            result = self._apply_preprocessing_gradient(x, result)
        return result

    def compute_loss(  # type: ignore[override]
        self,
        x: np.ndarray | torch.Tensor,
        y: np.ndarray | torch.Tensor,
        reduction: str = "none",
        **kwargs: Any,
    ) -> np.ndarray | torch.Tensor:
        """
        Values of the attacker's objective, the same that :meth:`loss_gradient` differentiates.

        :param x: Inputs (N, ...).
        :param y: Labels: indices (N,), one-hot or probabilities (N, K).
        :param reduction: "none", "mean" or "sum".
        :param kwargs: Ignored.
        :return: (N,) for reduction "none", for an element-wise loss (N, K), else a scalar; a tensor with its graph if
                 x is one.
        """
        check_name("reduction", reduction, ("none", "mean", "sum"))
        x = self._inputs(x)
        is_tensor = isinstance(x, torch.Tensor)
        graph = is_tensor and torch.is_grad_enabled()
        with self._prepared(learning=graph), torch.set_grad_enabled(graph):
            inputs, labels = self._preprocessed(x, self._labels(y, len(x)), no_grad=not is_tensor)
            values = self.attack_values(self._logits(self._as_tensor(inputs)), labels, reduction=reduction)
        return values if is_tensor else values.cpu().numpy()

    def class_gradient(
        self,
        x: np.ndarray,
        label: int | list[int] | np.ndarray | None = None,
        training_mode: bool = False,
        **kwargs: Any,
    ) -> np.ndarray:
        """
        Gradients of logits with respect to the inputs.

        :param x: Inputs (N, ...).
        :param label: One class for all samples, one class a sample (N,), or None for all K classes.
        :param training_mode: Whether the network runs in training mode; its batch statistics stay as they are.
        :param kwargs: Ignored.
        :return: (N, 1, C, H, W), or (N, K, C, H, W) for label None.
        :raises ValueError: For labels out of range, or not one a sample.
        """
        x = self._inputs(x)
        own = None
        if label is not None:
            label = np.array(label) if isinstance(label, list) else label
            fits = label.shape == x.shape[:1] if isinstance(label, np.ndarray) else isinstance(label, (int, np.integer))
            if not fits or np.min(label) < 0 or np.max(label) >= self.nb_classes:
                raise ValueError(
                    f"Label {label} is out of range: expected 0 to {self.nb_classes - 1}, one for all samples or one "
                    f"for each of {len(x)}."
                )
            own = torch.as_tensor(np.broadcast_to(label, x.shape[:1]).astype(np.int64), device=self._device)
        with self._prepared(training_mode, backward=True), torch.enable_grad():
            leaf, inputs, index = self._differentiable_input(x, own)
            outputs = self._outputs(inputs)
            if index is not None and not training_mode:
                # the samples of a batch do not mix, so one backward pass of the sum serves all of them
                grads = torch.autograd.grad(outputs.gather(1, index[:, None]).sum(), leaf)[0][:, None]
            else:
                grads = self._jacobian(outputs.sum(dim=0), leaf)
        if own is not None and training_mode:  # batch statistics mix them: each label's own pass, as in ART
            grads = grads[torch.arange(len(x), device=self._device), own][:, None]
        return self._numpy_gradient(x, grads)

    def _jacobian(self, targets: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
        """Gradients of each of K numbers, each the sum of one a sample, with respect to the inputs: (N, K, ...)."""
        count = len(targets)
        together = _GRADIENTS_AT_ONCE.get(leaf.device.type, 1) // len(leaf)
        if together > 1 and self._arithmetic != "exact":
            directions = torch.eye(count, dtype=targets.dtype, device=targets.device)
            try:
                parts = [
                    torch.autograd.grad(targets, leaf, part, retain_graph=True, is_grads_batched=True)[0]
                    for part in directions.split(together)
                ]
                return torch.cat(parts).transpose(0, 1)
            except RuntimeError:  # an operation of the user's own that torch can't run for several gradients at once
                logger.debug("class gradients one by one", exc_info=True)
        grads = torch.empty(leaf.shape[0], count, *leaf.shape[1:], dtype=leaf.dtype, device=leaf.device)
        for k, target in enumerate(targets):
            grads[:, k] = torch.autograd.grad(target, leaf, retain_graph=k + 1 < count)[0]
        return grads

    def custom_loss_gradient(self, *args: Any, **kwargs: Any) -> np.ndarray | torch.Tensor:
        """
        As ART's, with modes and gradients of the network left as they were.

        :param args: As in `PyTorchClassifier.custom_loss_gradient`.
        :param kwargs: As in `PyTorchClassifier.custom_loss_gradient`.
        :return: Gradients of the shape of x.
        """
        _check_gradients()
        view = self._view(Prepared(self.model).network)  # each layer a step of its own
        return super(LossDefendedClassifier, view).custom_loss_gradient(*args, **kwargs)

    def get_activations(  # type: ignore[override]
        self,
        x: np.ndarray | torch.Tensor,
        layer: int | str | None = None,
        batch_size: int = 128,
        framework: bool = False,
    ) -> np.ndarray | torch.Tensor:
        """
        Output of a layer. For the features z that the head reads: `layer="embedding"`.

        :param x: Inputs (N, ...).
        :param layer: Index of a direct child of the network (see `layer_names`), or the name of any of its modules.
        :param batch_size: Samples in one forward pass.
        :param framework: Whether to return a tensor with its graph, computed in one pass.
        :return: The layer's output, (N, ...).
        :raises ValueError: For a layer that is not there.
        """
        if not isinstance(layer, (int, np.integer, str)) or isinstance(layer, bool):
            raise TypeError("Layer must be of type str or int")
        whole("batch_size", batch_size)
        module = find_layer(self._network, layer)
        results = []
        with self._prepared(learning=framework, watched=module) as prepared, torch.set_grad_enabled(framework):
            x_preprocessed, _ = self._apply_preprocessing(self._inputs(x), y=None, fit=False, no_grad=not framework)
            at_once = len(x_preprocessed) if framework else batch_size
            for start in range(0, len(x_preprocessed), at_once):
                self._outputs(self._as_tensor(x_preprocessed[start : start + at_once]))
                if not prepared.seen:
                    raise ValueError(f"layer {layer!r} is no step of its own in the network's forward pass.")
                results.append(prepared.seen[-1].contiguous())
        return results[0] if framework else torch.cat(results).cpu().numpy()

    # ------------------------------------------------------------------------------------------ training

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int = 128,
        nb_epochs: int = 10,
        training_mode: bool = True,
        drop_last: bool = False,
        scheduler: Any = None,
        verbose: bool = False,
        *,
        sample_weight: Any = None,
        scheduler_interval: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Train on the training loss. Shuffled by torch's global random state, as in ART; the trainers take a seed.

        :param x: Inputs (N, ...).
        :param y: Labels: indices (N,), one-hot, or probabilities (N, K) where the loss allows.
        :param batch_size: Samples in one step. A last batch of one sample is left out where the network has batch
               normalisation.
        :param nb_epochs: Passes over the data.
        :param training_mode: Whether the network runs in training mode. Afterwards it is in evaluation mode.
        :param drop_last: Whether to leave out a last batch that is smaller.
        :param scheduler: Learning-rate scheduler, anything with a `step()`, or a function that makes one from the
               optimizer. A `ReduceLROnPlateau` is told the epoch's training loss, or with mode "max" its accuracy.
        :param verbose: Whether to show a progress bar.
        :param sample_weight: Numbers (N,) of at least 0, by which each sample's loss is multiplied; None for 1.
        :param scheduler_interval: Whether the scheduler steps once an "epoch" or once a "batch"; None for once an
               epoch, unless it is a `OneCycleLR` that was made for as many steps as there are batches.
        :param kwargs: Ignored, as in ART.
        """
        whole("batch_size", batch_size), whole("nb_epochs", nb_epochs, least=0)
        x_all, y_all = self.training_tensors(x, y)
        weights = fitting.check_weights(sample_weight, len(x_all))
        batches = len(x_all) // batch_size if drop_last else -(-len(x_all) // batch_size)
        schedule = fitting.Schedule(scheduler, self._optimizer, scheduler_interval, nb_epochs, batches)
        shuffled: Any = DataLoader(range(len(x_all)), batch_size=len(x_all), shuffle=True)  # type: ignore[arg-type]
        with self.training(training_mode):
            for _ in tqdm(range(nb_epochs), disable=not verbose, desc="Epochs"):
                (order,) = shuffled  # drawn as ART draws it
                totals = torch.zeros(3, dtype=torch.float64, device=self._device)
                for number, index in enumerate(order.split(batch_size)[:batches]):
                    if not self.leaves_out(len(index), number, batch_size):
                        part = None if weights is None else weights[index]
                        outcome = self.train_batch(x_all[index], y_all[index], part)
                        if schedule.watches:
                            totals += fitting.counted(*outcome, y_all[index])
                    schedule.after_batch()
                loss, correct, count = totals.tolist()
                schedule.after_epoch(loss / max(1, count), correct / max(1, count))

    def fit_generator(
        self, generator: DataGenerator, nb_epochs: int = 20, verbose: bool = False, **kwargs: Any
    ) -> None:
        """
        Train on the batches of an ART data generator, each batch as :meth:`fit` would.

        :param generator: Generator of batches (x, y), or (x, y, sample weights); labels as indices or one-hot.
        :param nb_epochs: Passes over the data.
        :param verbose: Whether to show a progress bar.
        :param kwargs: Ignored, as in ART.
        """
        steps, nb_epochs = fitting.batches_in(generator), whole("nb_epochs", nb_epochs, least=0)
        with self.training():
            for _ in tqdm(range(nb_epochs), disable=not verbose, desc="Epochs"):
                if isinstance(generator, PyTorchDataGenerator):
                    batches: Any = generator.iterator
                else:
                    batches = (generator.get_batch() for _ in range(steps))
                for number, batch in enumerate(batches):
                    if not self.leaves_out(len(batch[0]), number, generator.batch_size):
                        self.train_batch(*self.batch_tensors(batch))

    def leaves_out(self, samples: int, number: int, batch_size: int) -> bool:
        """
        Whether a batch is a rest that the network can't train on: a single sample, and batch normalisation.

        :param samples: Samples in the batch, or in this process' part.
        :param number: Batches of the epoch before it.
        :param batch_size: Samples in the others.
        :return: Whether it is.
        """
        rest = samples <= 1 < batch_size and number > 0
        return rest and any(isinstance(module, _BatchNorm) and module.training for module in self._model.modules())

    def batch_tensors(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """
        :param batch: What a generator gives: inputs, labels, and the samples' weights if there are any.
        :return: The same as training takes them; see :meth:`training_tensors`.
        """
        x, y, *weights = (np.array(each) for each in batch)  # copies: a network may work in place on its input
        return *self.training_tensors(x, y), fitting.check_weights(weights[0], len(x)) if weights else None

    def training_tensors(self, x: np.ndarray, y: np.ndarray, fit: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Check and preprocess training data.

        :param x: Inputs (N, ...).
        :param y: Labels: indices (N,), one-hot or probabilities (N, K).
        :param fit: Whether by the defences of a training, which may augment, or by those of a prediction.
        :return: Inputs, as a rule float32, on the CPU, and labels, indices (N,) or rows (N, K).
        :raises ValueError: For what does not fit; see :func:`.check_images`, :func:`.check_labels`.
        """
        x, y = self._inputs(np.asarray(x)), np.asarray(y)
        if self.row is not None and x.dtype != object:
            check_images(x)
        self._check_labels(y, len(x))
        if self._value_checks and not self.preprocessing_operations:
            checks.check_near(x, self.clip_values, 1.0)
        y = np.asarray(self.reduce_labels(y))
        if self.preprocessing_operations and y.ndim == 1:  # one-hot for them, as in ART: they may smooth or mix labels
            y = np.eye(self.nb_classes, dtype=config.ART_NUMPY_DTYPE)[y]
        x, y = self._apply_preprocessing(x, y, fit=fit)
        y = np.asarray(self.reduce_labels(np.asarray(y)))
        return torch.from_numpy(self._inputs(x)), torch.from_numpy(y)

    def renew_optimizer(self) -> None:
        """Put a fresh optimizer of the same class and groups in the place of the present one."""
        if self._optimizer is not None:
            self._optimizer = same_optimizer(self._optimizer, [self._network, self._loss])

    @contextmanager
    def training(self, training_mode: bool = True) -> Iterator[None]:
        """
        Around training steps: training mode inside, evaluation mode afterwards.

        :param training_mode: The mode inside.
        """
        if self._optimizer is None:
            raise ValueError("An optimizer is needed to train the model, but none is provided.")
        if self._loss is None:
            raise ValueError("A loss is needed to train the model, but none is provided: set_params(loss=...).")
        self._model.train(mode=training_mode)
        try:
            yield
        finally:
            self._model.eval()

    def laid_out(self, x: torch.Tensor) -> torch.Tensor:
        """
        The inputs of a training step in the memory format in which the network is fast.

        :param x: Inputs (B, ...), on the device.
        :return: The same: where `arithmetic` is not "exact" and the network takes them, images in channels-last format
                 on a GPU, and on a CPU by the rule of predictions.
        """
        weights = convolution_weights(self._network.modules())
        if self._arithmetic == "exact" or not favours_channels_last(weights, x, learning=True):
            return x
        if self._kinship.takes_channels_last is None:  # tried by a call that leaves no trace
            devices = [x.device] if x.is_cuda else []
            with torch.no_grad(), torch.random.fork_rng(devices), self._prepared():
                self._outputs(x)
        return channels_last(x) if self._kinship.takes_channels_last else x

    def train_batch(
        self, x: torch.Tensor, y: torch.Tensor, sample_weight: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        One optimizer step on the training loss, in the mode that the network is in.

        :param x: Inputs (B, C, H, W), preprocessed.
        :param y: Labels: indices (B,) or probabilities (B, K).
        :param sample_weight: Numbers (B,) by which each sample's loss is multiplied, or None.
        :return: The loss, a scalar, and the logits (B, K), both without graph and still on the device.
        :raises ValueError: For a batch of one sample in which batch normalisation has no variance.
        """
        optimizer: Any = self._optimizer
        optimizer.zero_grad(set_to_none=True)
        with fitting.explained(len(x)):
            outputs = self._network(self.laid_out(x.to(self._device)))
        fitting.check_logits(outputs, len(x), self.nb_classes)
        loss = fitting.weighted_loss(self._loss, outputs, y.to(self._device), sample_weight)
        (loss.sum() if loss.ndim else loss).backward()  # "none" is a sum
        optimizer.step()
        return loss.detach(), outputs.detach()

    # ------------------------------------------------------------------------------------------ copies and files

    def set_params(self, **kwargs: Any) -> None:
        """
        Set parameters by name, as in ART; a new `model` is wrapped and gets a fresh optimizer with the old one's groups
        over the parameters of the same names; a new `device_type` moves the network.

        :param kwargs: Parameters by name; see `estimator_params`.
        :raises ValueError: For an unknown name, or a network and a loss that do not fit, as in the constructor.
        """
        for name in kwargs:
            check_name("parameter", name, self.estimator_params)
        if kwargs.get("use_amp"):
            raise ValueError(NO_AMP)
        model = kwargs.pop("model", None)
        if self.row is not None and not (model is None or isinstance(model, DefendedNet)):
            raise ValueError(
                f"model: expected a whole network with its head, a DefendedNet, got {type(model).__name__}; "
                f"for a backbone make a new {type(self).__name__}."
            )
        if model is not None or "loss" in kwargs:
            network, kwargs["loss"] = self._complete(
                self._network if model is None else model,
                kwargs.get("loss", self._loss),
                self.input_shape,
                int(kwargs.get("nb_classes") or self.nb_classes),
                {},
            )
            model = None if model is None else network
        device_type = kwargs.pop("device_type", None)
        if device_type is not None:
            self._device_type = _check_device_type(device_type)
            cuda = device_type != "cpu" and torch.cuda.is_available()
            self._device = torch.device(f"cuda:{torch.cuda.current_device()}" if cuda else "cpu")
            self._model.to(self._device)
            if self._optimizer is not None:  # which takes its state to where its parameters are
                self._optimizer.load_state_dict(self._optimizer.state_dict())
        if model is not None:
            self._kinship = _Kinship()  # views taken before are of the old network
            if self._optimizer is not None and "optimizer" not in kwargs:
                new = [model.to(self._device), kwargs["loss"]]
                self._optimizer = same_optimizer(self._optimizer, [self._network, self._loss], new)
            self._model = self._make_model_wrapper(model).to(self._device)
            self._model.eval()
            self._layer_names = self._model.get_layers  # type: ignore[assignment]
            self.is_rnn = any(isinstance(module, torch.nn.RNNBase) for module in self._model.modules())
        super().set_params(**kwargs)
        if isinstance(self._loss, torch.nn.Module):
            self._loss.to(self._device)

    def clone_for_refitting(self) -> LossDefendedClassifier:
        """
        A classifier of the same kind on a copy of the network with fresh weights; fixed centers stay. The optimizer is
        a fresh one of the same class, with the same groups and the same parameters left out.

        :return: The new classifier.
        :raises ValueError: When there are parameters that no module draws anew, see :meth:`reset`, or such of the
                optimizer's that belong to neither network nor loss.
        """
        if self._optimizer is None:
            raise ValueError("An optimizer is needed to train the model, but none is provided.")
        originals = [self._network, self._loss]
        own = {parameter for each in originals if isinstance(each, torch.nn.Module) for parameter in each.parameters()}
        if any(not own.issuperset(group["params"]) for group in self._optimizer.param_groups):
            raise ValueError(
                "optimizer: it has parameters of neither network nor loss, of which there would be no copy."
            )
        model, loss = copies = copied(originals)
        for module in model.modules():
            module._forward_hooks.clear()  # a copied hook would still write into the original
        draw_anew(copies)
        params = {k: v for k, v in self.get_params().items() if k not in ("model", "optimizer", "loss", "use_amp")}
        clone = type(self)(
            model=model, loss=loss, optimizer=same_optimizer(self._optimizer, originals, copies), **params
        )
        clone._loss = loss  # as it is, not once more in the shape that a new one would get
        return clone.with_probabilities(self.model.temperature) if isinstance(self.model, Softmax) else clone

    def reset(self) -> None:
        """
        Draw the weights of network and loss anew, by their modules' `reset_parameters`; fixed centers stay. The
        optimizer forgets what it knows of the old ones.

        :raises ValueError: When a module has trained parameters of its own (class tokens, positions, scales) and no
                `reset_parameters` that draws them: the weights would be half trained, half fresh. Nothing is changed.
        """
        draw_anew([self._network, self._loss])
        if self._optimizer is not None:
            self._optimizer.state.clear()

    def save(self, filename: str, path: str | None = None) -> None:
        """
        As ART's; a rate that is a numpy scalar, as ART's FBF trainer leaves it, is written as the plain number that
        :meth:`load` can read.

        :param filename: Name of the files without their endings.
        :param path: Folder; None for ART's data folder.
        """
        for group in self._optimizer.param_groups if self._optimizer is not None else ():
            group.update({key: value.item() for key, value in group.items() if isinstance(value, np.generic)})
        full_path = os.path.join(config.ART_DATA_PATH if path is None else path, filename)
        os.makedirs(os.path.dirname(full_path) or ".", exist_ok=True)
        torch.save(plain_names(self._network.state_dict()), full_path + ".model")
        if self._optimizer is not None:
            torch.save(self._optimizer.state_dict(), full_path + ".optimizer")

    def load(self, filename: str, path: str | None = None) -> None:
        """
        Read back what ART's :meth:`save` wrote: weights and, if it is there, the optimizer's state.

        :param filename: Name of the files without their endings, as given to :meth:`save`.
        :param path: Folder; None for ART's data folder.
        """
        full_path = os.path.join(config.ART_DATA_PATH if path is None else path, filename)
        load_state(self._network, torch.load(full_path + ".model", map_location=self._device, weights_only=True))
        if self._optimizer is not None and os.path.isfile(full_path + ".optimizer"):
            state = torch.load(full_path + ".optimizer", map_location=self._device, weights_only=True)
            self._optimizer.load_state_dict(state)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """
        Write one file from which :func:`.load_classifier` builds this classifier again. A reader never sees half of it.

        :param path: The file. The optimizer is not part of it.
        :raises ValueError: For a classifier that can't be described: a loss of the user's own, or preprocessing outside
                the network.
        """
        bare = self._without_probabilities()
        write_payload(path, bare.model.state_dict(), describe(bare))

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the wrapper class, which pickle can't name; ART's own leaves files named by the clock."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("_model", "_device", "_compiled")}
        return {**state, "_inner_model": self.model, "_device_name": str(self._device)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy, also right after a training of a network with weight norm, spectral norm or pruning by hooks."""
        memo.update(detached([self.model, self._loss]))
        clone = memo[id(self)] = object.__new__(type(self))
        clone.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return clone

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As :meth:`__getstate__` gave it."""
        state = dict(state)
        model, device = state.pop("_inner_model"), torch.device(state.pop("_device_name"))
        self.__dict__.update(state)
        self._compiled = None
        self._device = device if device.type == "cpu" or torch.cuda.is_available() else torch.device("cpu")
        self._model = self._make_model_wrapper(model).to(self._device)


class _Kinship:
    """What the views of one classifier have in common."""

    __module__ = "art_mmc.classifiers"
    takes_channels_last: bool | None = None


#: of the calls that run in this thread the networks as they see them, the innermost last
_RUNNING: ContextVar[tuple[Prepared, ...]] = ContextVar("running", default=())


class _Wrapper(torch.nn.Module):
    """What ART calls: outputs in a list. An `nn.Sequential` is called as any module, unlike by ART's own wrapper."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model
        self.training = model.training

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Inputs (B, ...) to outputs (B, K)."""
        return [self._model(x)]

    @property
    def get_layers(self) -> list[str]:
        """Names of the network's direct children."""
        return list(self._model._modules.keys())  # that of TorchScript gives no iterator


@contextmanager
def _explained(network: torch.nn.Module, x: torch.Tensor) -> Iterator[None]:
    """Around a network: TypeError where it does not take inputs of this type; else a note of the error's place."""
    try:
        yield
    except Exception as err:
        kinds = {each.dtype for each in network.parameters() if each.is_floating_point()}
        refused = isinstance(err, RuntimeError) and not isinstance(err, torch.OutOfMemoryError)
        if refused and kinds and x.dtype not in kinds and x.is_floating_point():
            raise TypeError(
                f"model: inputs are {x.dtype}, and the network, whose parameters are {kinds.pop()}, does not take "
                f"them: model.float(), or cast them in its forward ({' '.join(str(err).split())})."
            ) from err
        if add_note := getattr(err, "add_note", None):
            place = checks.users_place(err)
            add_note(f"raised by the network given as model{place}, on inputs of shape {tuple(x.shape)}")
        raise


def own_forward(network: torch.nn.Module) -> bool:
    """Whether it is an `nn.Sequential` with a forward of its own: ART's wrapper runs its children instead."""
    return isinstance(network, torch.nn.Sequential) and type(network).forward is not torch.nn.Sequential.forward


def _graphs_kept() -> Any:
    """Around a compiled network: several gradients go through one graph, whose memory the first would take from it."""
    from torch._functorch import config  # a setting that torch's own error names; old versions have none

    return config.patch(donated_buffer=False) if hasattr(config, "donated_buffer") else nullcontext()  # type: ignore


def _check_device_type(name: Any) -> str:
    """ValueError for what is no kind of device of ART's."""
    if not isinstance(name, str) or not name.startswith(("cpu", "gpu", "cuda")):
        raise ValueError(f"device_type: expected 'cpu' or 'gpu', got {name!r}.")
    return name


def _check_gradients() -> None:
    """RuntimeError where torch computes none."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "gradients can't be computed inside torch.inference_mode(): run the attack outside of it, or put it into "
            "torch.inference_mode(False)."
        )
