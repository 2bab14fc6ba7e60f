"""
Training of a loss-defended classifier as an ART `Trainer`.
"""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.defences.trainer import Trainer

from art_mmc import checks, distributed
from art_mmc.checks import check_name, choice, indices, number, shown, whole
from art_mmc.classifiers import LossDefendedClassifier, fitting
from art_mmc.classifiers.checkpoint import identity, load_state, scalars
from art_mmc.losses import SoftmaxCrossEntropyLoss
from art_mmc.models.inference import emulates_bfloat16
from art_mmc.state import locked, on_interrupt, seeded, untouched
from art_mmc.trainers.augmentation import AUGMENTATIONS, Augmentation
from art_mmc.trainers.averaging import WeightAverage
from art_mmc.trainers.data_parallel import average_gradients, data_parallel, share_buffers
from art_mmc.trainers.job import Job, Position, Stage, Step, compact
from art_mmc.trainers.recipes import Recipe
from art_mmc.trainers.run_folder import RunFolder, RunMismatchError, TrainingInterrupted, plain

logger = logging.getLogger(__name__)

#: batch size and epochs where neither the caller nor a recipe says any, as in ART's trainers
BATCH_SIZE, NB_EPOCHS = 128, 20

#: seconds after which a long epoch is saved in its middle
SAVE_EVERY = 300.0

#: by what share of their norm the logits of one network may differ on another machine, where not both are CPUs and
#: where they are: TF32 makes up to 4e-3, float32 1e-5
_SAME = (1e-2, 1e-3)

#: what processes agree on after a step: to save the state, or to save it and stop
SAVE, STOP = 1, 2


class LossTrainer(Trainer):
    """
    Trains a :class:`.LossDefendedClassifier` on clean examples by its own loss. What ART's `fit` lacks: a loss and an
    accuracy to watch, validation, augmentation on the device, a seed, checkpoints with exact resume, averaged weights,
    bfloat16, several GPUs, the papers' recipes.

    A program that torchrun has started in several processes trains in all of them: each has all of the data and works
    on its part of every batch, gradients are averaged, and the result is that of one process up to rounding.
    Batch normalisation is by the whole batch on GPUs; on CPUs, where torch has no such layer, each process goes by its
    own part, and the running averages are the main process'. Random numbers that the network draws itself (dropout), or
    an ART attack, are others than in one process. For GPUs call :func:`art_mmc.distributed.join` before you make the
    classifier.

    Training on clean examples alone gives no robustness that survives an attack on the difference of logits; see the
    report of `art-mmc compare`.
    """

    #: name of the defence that this trainer is for; None for any
    defence: str | None = None

    def __init__(
        self,
        classifier: LossDefendedClassifier,
        *,
        recipe: Recipe | None = None,
        augmentation: str | Augmentation | None = None,
        averaging: str | None = None,
        averaging_decay: float = 0.999,
        averaging_start: int = 0,
        patience: int | None = None,
        keep: str = "last",
        clip_gradient: float | None = None,
        precision: str = "float32",
        channels_last: bool = True,
        compile_network: bool = False,
        folder: str | Path | None = None,
        seed: int | None = None,
        verbose: bool = True,
    ) -> None:
        """
        Create a trainer.

        :param classifier: The classifier to train.
        :param recipe: A paper's hyper-parameters; while it trains, its optimizer stands in for the classifier's own, of
               the same parameters.
        :param augmentation: Name of an augmentation, or a callable (images (B, C, H, W), generator) -> images; None for
               the recipe's, or none.
        :param averaging: "ema" averages the weights after every step, "swa" after every epoch; the averaged weights are
               validated and kept, with batch statistics computed anew for them. None for the recipe's, or none.
        :param averaging_decay: Decay of the exponential average, in [0, 1]; it grows up to there, see
               :class:`.WeightAverage`.
        :param averaging_start: Epochs before the average begins.
        :param patience: Stop when the validation figure (robust accuracy if there is one) has not risen for so many
               epochs; None for never. Needs validation data.
        :param keep: "last" weights, or the "best" by the validation figure.
        :param clip_gradient: Largest 2-norm of a step's gradient, a longer one being shortened to it; None for the
               recipe's, or any.
        :param precision: "float32", or "bfloat16" for autocast; losses and heads stay in float32.
        :param channels_last: Whether images are in channels-last format where the network is faster so.
        :param compile_network: Whether training steps run through `torch.compile`.
        :param folder: Folder for checkpoints (`last.pt`, `best.pt`) and `history.csv`, written after each epoch; None
               for none.
        :param seed: Seed of the data order, the augmentation, the crafting and the network's own randomness (dropout).
               Two runs from the same weights with the same seed are equal on a CPU. None takes torch's global state.
        :param verbose: Whether to show a progress bar.
        :raises TypeError: For a classifier of another kind.
        :raises ValueError: For a classifier of another defence, an unknown choice, or a number out of range.
        """
        checks.check_type("classifier", classifier, LossDefendedClassifier)
        if self.defence is not None and classifier.defence != self.defence:
            raise ValueError(
                f"{type(self).__name__} trains defence '{self.defence}', got a {type(classifier).__name__} "
                f"(defence '{classifier.defence}')."
            )
        if classifier.optimizer is None:
            raise ValueError("classifier: it has no optimizer: there are no parameters to train.")
        if recipe is not None and not isinstance(recipe, Recipe):
            raise TypeError(f"recipe: expected a Recipe, such as get_recipe('default'), got {recipe!r}.")
        super().__init__(classifier)

        def given(name: str, value: Any) -> Any:
            return getattr(recipe, name) if value is None and recipe is not None else value

        averaging, clip_gradient = given("averaging", averaging), given("clip_gradient", clip_gradient)
        augmentation = given("augmentation", augmentation)
        if clip_gradient is not None:
            number("clip_gradient", clip_gradient)
        if isinstance(augmentation, str):
            check_name("augmentation", augmentation, AUGMENTATIONS)
            if len(classifier.input_shape) != 3:
                raise ValueError(
                    f"augmentation '{augmentation}' is for images (C, H, W), the inputs have shape "
                    f"{classifier.input_shape}; give a function of your own, (inputs, generator) -> inputs, or none."
                )
            augmentation = AUGMENTATIONS[augmentation]
        if augmentation is not None and not callable(augmentation):
            raise TypeError(f"augmentation: expected a name or a function, got {augmentation!r}.")
        self._classifier: LossDefendedClassifier = classifier
        self.recipe = recipe
        self._plan = recipe  # the recipe for the number of epochs that a call of fit asks for
        self.augmentation = augmentation
        self.averaging = choice("averaging", averaging, (None, "ema", "swa"))
        self.averaging_decay = number("averaging_decay", averaging_decay, 0.0, 1.0, "[]")
        self.averaging_start = whole("averaging_start", averaging_start, least=0)
        self.patience = None if patience is None else whole("patience", patience)
        self.keep = choice("keep", keep, ("last", "best"))
        self.clip_gradient = clip_gradient
        self.precision = choice("precision", precision, ("float32", "bfloat16"))
        if precision == "bfloat16" and emulates_bfloat16(self._device):
            logger.warning("precision='bfloat16': this processor emulates it, and is many times faster in float32.")
        self.channels_last = channels_last
        self.compile_network = compile_network
        self.folder = None if folder is None else RunFolder(checks.as_path("folder", folder))
        self.seed = None if seed is None else checks.check_seed(seed)
        self.verbose = verbose
        #: one record an epoch: epoch, stage, loss, accuracy, val_loss, val_accuracy, rate, seconds
        self.history: list[dict[str, Any]] = []
        #: seconds that the training took, those of earlier sessions of a resumed run among them
        self.seconds = 0.0
        #: after how many epochs a finished run was extended, each time
        self.extended: list[int] = []
        #: plain data on the weights that the training begins with, in which a resumed run must agree
        self.origin: dict[str, Any] = {}
        self._extends = False
        self._average: WeightAverage | None = None

    # ------------------------------------------------------------------------------------------ ART's methods

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        batch_size: int | None = None,
        nb_epochs: int | None = None,
        scheduler: Any = None,
        resume: bool = False,
        *,
        sample_weight: Any = None,
        scheduler_interval: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Train the classifier.

        :param x: Inputs (N, ...).
        :param y: Labels: indices (N,), one-hot, or probabilities (N, K) where the loss allows.
        :param validation_data: Inputs and labels on which each epoch is judged. To choose weights by them they must be
               split off the training data, never the test set; see :func:`.split_validation`.
        :param batch_size: Samples in one step, of all processes together; None for the recipe's, or 128. A last batch
               of one sample is left out where the network has batch normalisation, which has no variance there.
        :param nb_epochs: Passes over the data; None for the recipe's, or 20.
        :param scheduler: Learning-rate scheduler: a function that makes one from an optimizer, or one on the
               classifier's own optimizer, if that is what trains: without recipe and warm-up. A `ReduceLROnPlateau` is
               told the validation loss, or with mode "max" the validation figure; those of the training where there is
               no validation data. None for the recipe's, or none.
        :param resume: Whether to go on from the folder's `last.pt`, if it is there, as if never interrupted. A run that
               is finished and had fewer epochs is extended: from the weights that it kept, by the later part of the
               recipe's schedule for all the epochs, which is not what so many epochs in one go had given.
        :param sample_weight: Numbers (N,) of at least 0, by which each sample's loss is multiplied before the mean over
               the batch; None for 1. Validation has no weights.
        :param scheduler_interval: Whether the scheduler steps once an "epoch" or once a "batch"; None for once an
               epoch, unless it is a `OneCycleLR` that was made for as many steps as there are batches.
        :param kwargs: None is known.
        :raises ValueError: For data that does not fit, or a checkpoint of another run.
        :raises TypeError: For unknown arguments, or a scheduler without a step or on another optimizer.
        :raises FloatingPointError: When the training diverges.
        :raises BlockingIOError: When another process trains into the folder.
        :raises TrainingInterrupted: After Ctrl-C with a folder: the batch is finished and the state saved.
        """
        if kwargs:
            raise TypeError(f"fit() got unknown arguments: {', '.join(kwargs)}.")
        if batch_size is None:
            batch_size = self.recipe.batch_size if self.recipe else BATCH_SIZE

        def data() -> dict[str, Any]:
            x_all, y_all = self._classifier.training_tensors(x, y)
            weights = fitting.check_weights(sample_weight, len(x_all))
            tensors = {"x": compact(x_all), "y": y_all, "sample_weight": weights}
            return {name: each if each is None else each.to(self._device) for name, each in tensors.items()}

        self._train(data, batch_size, nb_epochs, validation_data, scheduler, scheduler_interval, resume)

    def fit_generator(
        self,
        generator: Any,
        nb_epochs: int | None = None,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        scheduler: Any = None,
        resume: bool = False,
        *,
        scheduler_interval: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Train on the batches of an ART data generator, drawn anew in each epoch and let go after their step, so that the
        data may be larger than the memory. Of several processes the main one draws.

        :param generator: Generator with `size`, `batch_size` and `get_batch()`, which gives inputs and labels as in
               :meth:`fit`, and the samples' weights if there are any.
        :param nb_epochs: Passes over the data, of as many batches as make `size`; None for the recipe's, or 20.
        :param validation_data: As in :meth:`fit`.
        :param scheduler: As in :meth:`fit`.
        :param resume: As in :meth:`fit`, but that the generator goes on where it stands: where it stood is not saved.
        :param scheduler_interval: As in :meth:`fit`.
        :param kwargs: None is known.
        :raises TypeError: For something that is no generator, and as :meth:`fit`.
        """
        if kwargs:
            raise TypeError(f"fit_generator() got unknown arguments: {', '.join(kwargs)}.")
        if not callable(getattr(generator, "get_batch", None)):
            raise TypeError(
                f"generator: expected an ART DataGenerator with get_batch(), got {type(generator).__name__}."
            )
        data = {"generator": generator}
        size = generator.batch_size
        self._train(lambda: data, size, nb_epochs, validation_data, scheduler, scheduler_interval, resume)

    def _train(
        self,
        data: Callable[[], dict[str, Any]],
        batch_size: int,
        nb_epochs: int | None,
        validation_data: tuple[np.ndarray, np.ndarray] | None,
        scheduler: Any,
        scheduler_interval: str | None,
        resume: bool,
    ) -> None:
        """Check the settings, take the data, train."""
        self._start = time.perf_counter()
        if nb_epochs is None:
            nb_epochs = self.recipe.nb_epochs if self.recipe else NB_EPOCHS
        batch_size, nb_epochs = whole("batch_size", batch_size), whole("nb_epochs", nb_epochs)
        if resume and self.folder is None:
            raise ValueError("resume=True needs the folder of the run: LossTrainer(classifier, folder=...).")
        if validation_data is None and (self.patience is not None or self.keep == "best"):
            raise ValueError("patience and keep='best' need validation_data, split off the training data.")
        self._plan = None if self.recipe is None else self.recipe.scaled(nb_epochs)
        self._check_scheduler(scheduler)
        self._meet()
        tensors = data()
        validation = None if validation_data is None else self._validation(validation_data)
        stages, self._extends = self._stages(nb_epochs, scheduler), False
        saved = distributed.in_main_process(self.folder.read_state) if resume and self.folder is not None else None
        if saved is not None and scheduler is None:
            stages = self._extended(stages, saved["training"])
        job = Job(self._classifier, batch_size, stages, validation, scheduler, scheduler_interval, **tensors)
        self._identity = self._fingerprint(job)
        if distributed.world().size > 1:
            about = {"folder": self.folder is not None, "validation": validation and len(validation[0])}
            distributed.check_same({**self._identity, **about}, "train")
        own_optimizer = self._classifier._optimizer
        # no other process may write to the folder meanwhile
        owned = nullcontext() if self.folder is None or not distributed.world().is_main else locked(self.folder.path)
        try:
            net, loss = self._classifier.model, self._classifier.loss
            with owned, self._randomness(), self._classifier.training(), data_parallel(net, loss):
                self._forward = torch.compile(net) if self.compile_network else net
                if saved is not None:
                    self._load(job, saved)
                position = Position() if saved is None else Position(**saved["training"]["position"])
                self.seconds = self._spent = position.spent or 0.0
                if saved is None or not saved["training"]["finished"] or position.epoch < job.stages[-1][2]:
                    self._run(job, position, saved)
        finally:
            self._forward = self._classifier.forward
            if self._plan is not None:  # a schedule may have brought the recipe's rate down to nothing
                self._classifier._optimizer = own_optimizer
        self._warn_if_stuck(job)

    def predict(self, x: np.ndarray, **kwargs: Any) -> np.ndarray:
        """
        Logits of the trained classifier.

        :param x: Inputs (N, ...).
        :param kwargs: As in the classifier's `predict`.
        :return: Logits (N, K).
        """
        return self._classifier.predict(x, **kwargs)

    # ------------------------------------------------------------------------------------------ what a run is made of

    def _stages(self, nb_epochs: int, scheduler: Any) -> list[Stage]:
        """The stages; one here."""
        return [(self._classifier.defence or "loss", self._classifier.loss, nb_epochs)]

    def _extended(self, stages: list[Stage], training: dict[str, Any]) -> list[Stage]:
        """The stages of the run in the folder, if it is finished and more epochs are asked for: the last one grows."""
        *before, last = training["fingerprint"]["stages"]
        asked, had = sum(epochs for *_, epochs in stages), sum(epochs for _, epochs in (*before, last))
        self._extends = bool(training["finished"]) and asked > had
        goes_on = training["position"].get("extended") and asked == had
        if [name for name, *_ in stages] != [name for name, _ in (*before, last)] or not (self._extends or goes_on):
            self._extends = False
            return stages
        epochs = [*(each for _, each in before), asked - sum(each for _, each in before)]
        return [(name, loss, each) for (name, loss, _), each in zip(stages, epochs, strict=True)]

    @property
    def _device(self) -> torch.device:
        return self._classifier.device

    def _begin_stage(self, stage: int, job: Job) -> None:
        """Average, optimizer and schedule: the recipe's, or the classifier's own, fresh from the second stage on."""
        self._average = self._new_average()
        if self._plan is not None:
            groups = self._classifier.optimizer.param_groups
            trained = [parameter for group in groups for parameter in group["params"]]
            self._classifier._optimizer = self._plan.make_optimizer(self._classifier.model, trained)
        elif stage > 0:
            self._classifier.renew_optimizer()
        optimizer, epochs = self._classifier.optimizer, job.stages[stage][2]
        if job.scheduler is None and self._plan is not None:
            self._schedule = fitting.Schedule(self._plan.make_scheduler(optimizer, job.steps, epochs), interval="batch")
        else:
            self._schedule = fitting.Schedule(job.scheduler, optimizer, job.scheduler_interval, epochs, job.steps)

    def _check_scheduler(self, scheduler: Any) -> None:
        """A scheduler that is made already must be one of the optimizer that trains."""
        own, problem = self._classifier.optimizer, ""
        made = scheduler is not None and fitting.is_made(scheduler)
        if made and self.recipe is not None:
            problem = f"recipe '{self.recipe.name}' trains with an optimizer of its own, which it does not know"
        elif made and getattr(scheduler, "optimizer", own) is not own:
            problem = "its optimizer is not the classifier's"
        if problem:
            raise TypeError(f"scheduler: a {type(scheduler).__name__} came, but {problem}; {_PASS_A_FUNCTION}")

    def _validation(self, data: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise TypeError("validation_data: expected a pair (inputs, labels).")
        x, y = map(np.asarray, data)
        checks.check_images(x, self._classifier.input_shape, "validation inputs")
        checks.check_labels(y, self._classifier.nb_classes, name="validation labels", length=len(x))
        return x, np.asarray(self._classifier.reduce_labels(y))

    def _meet(self) -> None:
        """Join the other processes, if torchrun started some."""
        rank, size = distributed.join(self._device.type)
        if size > 1 and self._device.type == "cuda" and self._device.index != torch.cuda.current_device():
            raise ValueError(
                f"the classifier is on {self._device}, but process {rank} trains on cuda:{torch.cuda.current_device()}:"
                " call art_mmc.distributed.join() before you make the classifier."
            )

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """
        Two generators: `_order` on the CPU for data order and augmentation, `_noise` on the device for crafting; both
        are the same in all processes. With a seed, torch's and numpy's global random states are put back afterwards.
        """
        with nullcontext() if self.seed is None else seeded(self.seed):
            seeds = distributed.broadcast_object(torch.randint(2**62, (2,)).tolist())
            if not distributed.world().is_main:  # dropout must not strike all parts of a batch alike
                torch.manual_seed(seeds[0] + distributed.world().rank)
                np.random.seed((seeds[1] + distributed.world().rank) % 2**32)
            self._order = torch.Generator().manual_seed(seeds[0])
            self._noise = torch.Generator(self._device).manual_seed(seeds[1])
            yield

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def _batch_loss(self, x: torch.Tensor, y: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of this process' inputs (B, ...), labels (B,) or (B, K), a scalar, and logits for the accuracy."""
        logits = self._forward(x)
        fitting.check_logits(logits, len(x), self._classifier.nb_classes)
        return fitting.weighted_loss(self._classifier.loss, logits, y, step.weights), logits

    # ------------------------------------------------------------------------------------------ the loop

    def _run(self, job: Job, position: Position, saved: dict[str, Any] | None) -> None:
        """Train to the end, from the beginning or from a saved state."""
        self.history, self.extended = position.history, position.extended
        self._own_loss, self._best = self._classifier.loss, None
        with self._catch_interrupt() as self._interrupted:
            for index in range(position.stage, len(job.stages)):
                name, loss, epochs = job.stages[index]
                self._begin_stage(index, job)
                if saved is not None:
                    self._restore(saved["training"], position)
                    if self._extends:
                        self._catch_up(position.epoch * job.steps)
                        position.extended.append(len(self.history))
                    saved = None
                self._classifier._loss = loss
                try:
                    self._run_stage(job, position, name, epochs)
                finally:
                    self._classifier._loss = self._own_loss
                if index + 1 < len(job.stages):
                    position.stage, position.epoch = index + 1, 0
        if self.keep == "best" and self._best is not None:
            self._classifier.model.load_state_dict(self._best)
        elif self._average is not None:
            self._average.install(job.clean_batches())
        self._schedule = fitting.Schedule()
        self._save(job, position, finished=True)

    def _run_stage(self, job: Job, position: Position, name: str, epochs: int) -> None:
        done = position.epoch * job.steps + position.batch
        with distributed.progress(self.verbose, total=epochs * job.steps, initial=done, desc=name, unit="batch") as bar:
            while position.epoch < epochs:
                if position.batch == 0:
                    position.rate = float(self._classifier.optimizer.param_groups[0]["lr"])
                loss, accuracy = self._epoch(job, position, bar)
                share_buffers(self._classifier.model, self._own_loss)
                epoch = len(self.history) + 1
                record: dict[str, Any] = {"epoch": epoch, "stage": name, "loss": loss, "accuracy": accuracy}
                record |= {"val_loss": None, "val_accuracy": None, "rate": position.rate, "seconds": position.seconds}
                if not math.isfinite(loss):
                    raise FloatingPointError(
                        f"the training loss is {loss} in epoch {epoch} ({name}); try a lower rate."
                    )
                position.epoch, position.batch, position.order = position.epoch + 1, 0, None
                position.totals, position.seconds = (0.0, 0.0, 0.0), 0.0
                if self._average is not None:
                    self._average.after_epoch(position.epoch)
                stop = self._judge(job, position, record)
                self._close_epoch(job, record)
                record = distributed.broadcast_object(record)
                self.history.append(record)
                bar.set_postfix({k: f"{v:.4f}" for k, v in record.items() if k in _SHOWN and v is not None})
                logger.info(
                    "epoch: %s stage: %s time(s): %.1f loss: %.4f acc(tr): %.4f acc(val): %s",
                    *(record[key] for key in ("epoch", "stage", "seconds", "loss", "accuracy", "val_accuracy")),
                )
                seen = {key: value for key, value in record.items() if value is not None}
                figure = seen.get("val_robust_accuracy", seen.get("val_accuracy", seen["accuracy"]))
                self._schedule.after_epoch(seen.get("val_loss", seen["loss"]), figure)
                if stop:
                    logger.info("no better validation figure for %s epochs: stopping", self.patience)
                    position.epoch = epochs
                self._save(job, position)
                if distributed.largest(self._interrupted.is_set()):
                    self._stop()

    def _epoch(self, job: Job, position: Position, bar: Any) -> tuple[float, float]:
        """The rest of an epoch; mean loss and accuracy, summed on the device so that no step waits for them."""
        start = time.perf_counter() - position.seconds
        saved = time.monotonic()
        draw = self._order if position.order is None else torch.Generator()
        if position.order is None:
            position.order = draw.get_state()
        else:  # resumed inside an epoch: the same order as before
            draw.set_state(position.order)
        batches: Any = [None] * job.steps
        if job.generator is None:
            batches = torch.randperm(len(job.x), generator=draw).to(self._device).split(job.batch_size)
        totals = torch.tensor(position.totals, dtype=torch.float64, device=self._device)
        for batch, index in enumerate(batches):
            if batch < position.batch:
                continue
            x, y, about = self._part(job, index)
            if not job.left_out(about["samples"], batch):
                begin, end = (position.epoch + done / job.steps for done in (batch, batch + 1))
                totals += self._step(job, x, y, Step(begin, end, **about))
            self._schedule.after_batch()
            bar.update()
            position.batch = batch + 1
            wish = STOP if self._interrupted.is_set() else SAVE * (time.monotonic() - saved > SAVE_EVERY)
            if wish:
                saved = time.monotonic()
            agreed = distributed.largest(wish)
            if agreed and position.batch < job.steps:  # the end of the epoch is saved by the caller, validated
                position.totals, position.seconds = tuple(totals.tolist()), time.perf_counter() - start
                self._save(job, position)
                if agreed == STOP:
                    self._stop()
        position.seconds = time.perf_counter() - start
        loss_sum, count_correct, count = distributed.total(totals).tolist()
        return loss_sum / count, count_correct / count

    def _part(self, job: Job, index: torch.Tensor | None) -> tuple[Any, Any, dict[str, Any]]:
        """The process' inputs, augmented, and labels of a batch, and what a :class:`.Step` says of the batch."""
        x, y, weights = job.batch(index)
        if self.augmentation is not None:  # of all, so that a sample gets the same random numbers in whatever process
            augmented = self.augmentation(x, self._order)
            if getattr(augmented, "shape", None) != x.shape:
                raise ValueError(
                    f"augmentation: expected images of shape {tuple(x.shape)}, as it got them, it returned "
                    f"{shown(getattr(augmented, 'shape', augmented))}."
                )
            x = augmented
        part = distributed.shard(len(x))
        about = {"samples": len(x), "over": fitting.mean_over(self._classifier.loss, y)}
        x = self._classifier.laid_out(x[part]) if self.channels_last else x[part]
        return x, y[part], {**about, "weights": None if weights is None else weights[part]}

    def _step(self, job: Job, x: torch.Tensor, y: torch.Tensor, step: Step) -> torch.Tensor:
        """One optimizer step; what it adds to the epoch's totals in this process, (3,), still on the device."""
        optimizer = self._classifier.optimizer
        optimizer.zero_grad(set_to_none=True)
        with self._autocast(), fitting.explained(job.smallest_part(step.samples)):
            loss, logits = self._batch_loss(x, y, step)
        if loss.ndim:
            loss = loss.sum()
        size = distributed.world().size
        if len(x) == 0:  # a mean over nothing is no number; yet the gradient's sum over the processes needs this one
            loss = 0.0 * logits.sum()
        # each process has the mean over its part of the batch, and the gradient is the mean over the processes
        mean = size > 1 and getattr(self._classifier.loss, "reduction", "mean") == "mean"
        share = fitting.mean_over(self._classifier.loss, y) / step.over if mean else 1
        (loss if size == 1 else loss * (size * share)).backward()
        average_gradients(self._classifier.model, self._classifier.loss)
        if self.clip_gradient is not None:
            clipped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(clipped, self.clip_gradient)
        optimizer.step()
        if self._device.type == "cpu":  # of running averages by a part of the batch only those of one are saved
            share_buffers(self._classifier.model, self._own_loss)
        if self._average is not None:
            self._average.after_step()
        return fitting.counted(loss, logits, y, share * step.samples)

    # ------------------------------------------------------------------------------------------ averages, judgement

    def _new_average(self) -> WeightAverage | None:
        if self.averaging is None:
            return None
        return WeightAverage(self._classifier.model, self.averaging, self.averaging_decay, self.averaging_start)

    def _judge(self, job: Job, position: Position, record: dict[str, Any]) -> bool:
        """Validate, keep the best, and say whether to stop."""
        if job.validation is None:
            return False
        with self._average.installed(job.clean_batches()) if self._average else nullcontext():
            figure = distributed.broadcast_object(self._validate(job, record))
            if self._classifier.loss is not self._own_loss:  # a warm-up is no candidate
                return False
            if figure > position.best:
                position.best, position.stale = figure, 0
                if self.folder is not None and distributed.world().is_main and self._classifier.defence is not None:
                    self._classifier.save_checkpoint(self.folder.best)
                if self.keep == "best":
                    self._best = {name: tensor.clone() for name, tensor in self._classifier.model.state_dict().items()}
            else:
                position.stale += 1
        return self.patience is not None and position.stale >= self.patience

    def _validate(self, job: Job, record: dict[str, Any]) -> float:
        """Write validation figures into the epoch's record; the one by which the best weights are chosen."""
        part = distributed.shard(len(job.held_out[0]))
        x, y = (each[part] for each in job.held_out)
        sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        with self._classifier.crafting(), torch.no_grad():
            for start in range(0, len(x), job.batch_size):
                some = slice(start, start + job.batch_size)
                logits, labels = self._classifier.forward(x[some].to(self._device)), y[some].to(self._device)
                losses = self._classifier.attack_values(logits, labels, "loss")
                sums += fitting.counted(losses, logits, labels, samples=1)
        loss, correct, n = distributed.total(sums).tolist()
        record["val_loss"], record["val_accuracy"] = loss / n, correct / n
        return record["val_accuracy"]

    def _close_epoch(self, job: Job, record: dict[str, Any]) -> None:
        """A last look at an epoch's record, for subclasses."""

    # ------------------------------------------------------------------------------------------ interruption, resume

    @contextmanager
    def _catch_interrupt(self) -> Iterator[threading.Event]:
        """With a folder to save to, the first Ctrl-C waits for the end of the batch; a second one does not."""
        event = threading.Event()

        def note(signum: int, frame: Any) -> None:
            if event.is_set():
                raise KeyboardInterrupt
            event.set()

        with nullcontext() if self.folder is None else on_interrupt(note):
            yield event

    def _stop(self) -> None:
        assert self.folder is not None
        distributed.gather_objects(None)  # the first process to end would have torchrun end the one that still writes
        raise TrainingInterrupted(self.folder.path)

    def _fingerprint(self, job: Job) -> dict[str, Any]:
        """What must be the same for a run to go on as if never interrupted: trainer, network, loss and data."""
        about = {"trainer": repr(self), "network": identity(self._classifier), **job.fingerprint}
        if self.recipe is None:
            optimizer = self._classifier.optimizer
            about["optimizer"] = {"optimizer": type(optimizer).__name__, **scalars(optimizer.defaults)}
        if job.scheduler is not None:
            about["scheduler"] = fitting.described_scheduler(job.scheduler)
        return about | self.origin

    def __repr__(self) -> str:
        """Return the settings that decide the result of a training."""
        names = ["recipe", "augmentation", "averaging", "averaging_decay", "averaging_start", "patience", "keep"]
        names += ["precision", "channels_last", "seed"]
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        # a setting that came later is shown where it is given, so that older runs can go on
        shown += f", clip_gradient={self.clip_gradient}" if self.clip_gradient is not None else ""
        return f"{type(self).__name__}({self._classifier.defence}, {shown})"

    def _save(self, job: Job, position: Position, finished: bool = False) -> None:
        """Write the whole state of the run, and the history."""
        position.spent = self.seconds = self._spent + time.perf_counter() - self._start
        if self.folder is None:
            return
        cuda = self._device.type == "cuda"
        states = {"torch": torch.get_rng_state(), "numpy": list(np.random.get_state())}
        states["cuda"] = torch.cuda.get_rng_state(self._device).cpu() if cuda else None
        processes = distributed.gather_objects({"totals": position.totals, **states})
        if not distributed.world().is_main:
            return
        asked = job.watched()[0][:2].cpu().clone()
        state = None if self._schedule.scheduler is None else self._schedule.scheduler.state_dict()
        training = {
            "fingerprint": plain(self._identity),
            "finished": finished,
            "position": dict(vars(position)),
            "optimizer": self._classifier.optimizer.state_dict(),
            "schedulers": [state, None] if self._schedule.by_batch else [None, state],
            "average": None if self._average is None else self._average.state_dict(),
            "best": self._best,
            "loss": self._own_loss.state_dict() if isinstance(self._own_loss, torch.nn.Module) else {},
            "order": self._order.get_state(),
            "noise": self._noise.get_state(),
            "processes": processes,
            "answers": (asked, self._answers(asked)),
        }
        own = self._classifier._view()
        own._loss = self._own_loss  # in a warm-up too
        self.folder.write_state(own, training)
        self.folder.write_history(self.history)

    def _load(self, job: Job, saved: dict[str, Any]) -> None:
        """Load the weights of the saved state, if it is of this very run."""
        assert self.folder is not None
        now, before = plain(self._identity), saved["training"]["fingerprint"]
        if "network" not in before:  # of version 0.1.0: its description says what the network was
            described = {name: value for name, value in (saved["config"] or {}).items() if name in now["network"]}
            before = {**before, "network": {**now["network"], **described}}
        # what an earlier version did not write down is not compared
        now = {name: value for name, value in now.items() if name in before}
        now["network"] = {name: value for name, value in now["network"].items() if name in before["network"]}
        before, now = ({**each, "trainer": _PROSE.sub("", each["trainer"])} for each in (before, now))
        if self._extends:  # by epochs alone
            before, now = (
                {**each, "stages": [], "trainer": _EPOCHS.sub("", each["trainer"])} for each in (before, now)
            )
        changes = distributed.differences(before, now)
        if changes:
            raise RunMismatchError(
                f"{self.folder.path} holds another run: {changes}. Take another folder, or do not resume."
            )
        load_state(self._classifier.model, saved["state"])
        asked, before = saved["training"].get("answers", (None, None))
        now = None if before is None else self._answers(asked)
        on_cpu = self._device.type == "cpu" and saved["training"]["processes"][0]["cuda"] is None
        if now is not None and (now - before).norm() > _SAME[on_cpu] * before.norm():
            raise RunMismatchError(
                f"{self.folder.path} holds another run: from the same weights the network computes other logits than "
                "when they were saved, so its code is another. Take another folder, or do not resume."
            )
        self.history = saved["training"]["position"]["history"]

    def _answers(self, x: torch.Tensor) -> torch.Tensor | None:
        """Logits (B, K) of the network in evaluation mode, on the CPU; None if they are not twice the same."""
        network = self._classifier.model
        with untouched(network), torch.no_grad():
            network.eval()
            first, second = (network(x.to(self._device, copy=True)).clone().float().cpu() for _ in range(2))
        return first if torch.equal(first, second) else None

    def _restore(self, training: dict[str, Any], position: Position) -> None:
        """Optimizer, schedules, averages, totals and random states as they were saved."""
        self._classifier.optimizer.load_state_dict(training["optimizer"])
        for state in training["schedulers"]:  # one that steps once a batch, one that does once an epoch
            if state is not None:
                self._schedule.scheduler.load_state_dict(state)
        if self._average is not None:
            self._average.load_state_dict(training["average"])
        self._best = training["best"]
        if training.get("loss"):
            self._own_loss.load_state_dict(training["loss"])
        self._order.set_state(training["order"].cpu())
        other_device = training["noise"].shape != self._noise.get_state().shape
        if other_device:
            told = "The run was begun on another kind of device: it goes on with other random numbers for crafting."
            logger.warning(told)
            self._noise.manual_seed(self._noise.initial_seed() + len(position.history))
        else:
            self._noise.set_state(training["noise"].cpu())
        processes, (rank, size) = training["processes"], distributed.world()
        if len(processes) != size:
            told = (
                "The run was begun by %s processes and goes on with %s: equal to one that was never interrupted up to "
            )
            told += "rounding, but for dropout and ART attacks, whose random numbers are others."
            logger.warning(told, len(processes), size)
            sums = tuple(sum(column) for column in zip(*(process["totals"] for process in processes), strict=True))
            position.totals = sums if rank == 0 else (0.0, 0.0, 0.0)
            return
        own = processes[rank]
        position.totals = own["totals"]
        torch.set_rng_state(own["torch"].cpu())
        if own["cuda"] is not None and not other_device:
            torch.cuda.set_rng_state(own["cuda"].cpu(), self._device)
        name, keys, *rest = own["numpy"]
        np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))

    def _catch_up(self, steps: int) -> None:
        """Put the recipe's schedule where it would stand after so many steps."""
        if (scheduler := self._schedule.scheduler) is not None:
            scheduler.last_epoch = steps
            rates = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, (rate, factor) in zip(self._classifier.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor(steps)

    def _warn_if_stuck(self, job: Job) -> None:
        accuracy, chance = self.history[-1]["accuracy"], 1 / self._classifier.nb_classes
        if self.averaging is not None or self.keep == "best":  # the weights that are kept are not those that were seen
            x, y = job.watched()
            parts = zip(x.split(job.batch_size), indices(y).split(job.batch_size), strict=True)
            accuracy = sum(int(self._correct(*part)) for part in parts) / len(x)
        if distributed.world().is_main and accuracy < chance + 0.1 * (1 - chance):
            told = "The network has learnt next to nothing: training accuracy %.3f, chance %.3f. "
            logger.warning(told + "A lower learning rate, or a warm-up, may help.", accuracy, chance)

    def _correct(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """How many of the inputs (B, ...) the network, as it stands, puts in their classes (B,)."""
        with self._classifier.crafting(), torch.no_grad():
            return (self._classifier.forward(x).argmax(dim=1) == y).sum()


_PASS_A_FUNCTION = (
    "pass a function that makes one from an optimizer, e.g. lambda optimizer: MultiStepLR(optimizer, [50], 0.2)."
)

#: what of a recipe, as it is written out, is prose about it; and what goes by its epochs
_PROSE = re.compile(r"\bdescription=.*?, (?=backbone=)")
_EPOCHS = re.compile(r"\bnb_epochs=\d+, |milestones=\(.*?\), |warmup_epochs=\d+, ")

_SHOWN = ("loss", "accuracy", "robust_accuracy", "val_accuracy", "val_robust_accuracy")


class WarmUpTrainer(LossTrainer):
    """
    Trains by plain cross-entropy first and then, with a fresh optimizer, by the classifier's own loss.

    | Paper link: https://arxiv.org/abs/2012.07688 (PC loss, implementation details)
    """

    def __init__(self, classifier: LossDefendedClassifier, *, warmup_epochs: int | None = None, **kwargs: Any) -> None:
        """
        Create a trainer.

        :param classifier: The classifier to train.
        :param warmup_epochs: Epochs of cross-entropy, T in the paper; None for the recipe's, or half of all epochs.
        :param kwargs: As in :class:`LossTrainer`.
        """
        super().__init__(classifier, **kwargs)
        self.warmup_epochs = None if warmup_epochs is None else whole("warmup_epochs", warmup_epochs, least=0)

    def _stages(self, nb_epochs: int, scheduler: Any) -> list[Stage]:
        """Warm-up, then the defence's own loss."""
        warmup = self.warmup_epochs
        if warmup is None:
            warmup = self._plan.warmup_epochs if self._plan and self._plan.warmup_epochs else nb_epochs // 2
        if warmup >= nb_epochs:
            raise ValueError(
                f"warmup_epochs={warmup} leaves nothing of nb_epochs={nb_epochs} for the defence's own loss."
            )
        if warmup and scheduler is not None and fitting.is_made(scheduler):
            raise TypeError(f"scheduler: two stages need two schedulers; {_PASS_A_FUNCTION}")
        own = super()._stages(nb_epochs - warmup, scheduler)
        return [("warm-up", SoftmaxCrossEntropyLoss(), warmup), *own] if warmup else own
