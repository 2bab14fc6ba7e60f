"""
What of ART runs on the nine classifiers, and what does not, with the reason: the data of the tests in
`test_art_attacks.py` and `test_art_trainers.py`, and of the table in the docs.

`python -m tests.art_support` writes the table to `examples/results/art_support.md`; a test tells when it is out of
date.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).parents[1] / "examples" / "results" / "art_support.md"

#: budget of the eps-bounded attacks on the digits
EPS = 0.15

LOSS_GRADIENT = "`loss_gradient`: the objective"
CLASS_GRADIENT = "`class_gradient`: logits"
SCORES = "`predict`: logits"
DECISIONS = "`predict`: decisions"
REBUILT = "its own loss around `classifier.model`"
CROSS_ENTROPY = "its own cross-entropy on the logits"


@dataclass(frozen=True)
class Failure:
    """Kind of exception, pattern of its message, when it comes: "always", "numpy >= 2" or "no <package>", and why."""

    error: type[Exception] | tuple[type[Exception], ...]
    match: str
    when: str
    reason: str


@dataclass(frozen=True)
class Attack:
    """
    How a test runs an attack of ART's.

    :param climbs: What it takes from the classifier, in words for the table.
    :param variants: Name -> constructor arguments; what is written here once is small, for 8x8 images and a short test.
           A function gets the attack's module and the classifier, for arguments that are objects.
    :param ball: Whether the result keeps within `eps` in the `norm` of the arguments (L-inf if none); or a radius.
    :param view: Whether it is run on `classifier.with_probabilities(10)`.
    :param labels: "true", "target", or "images" for attacks that take images there.
    :param samples: How many images the test attacks.
    :param effect: "fools": at least one prediction changes on each classifier; "moves": the images change; "stays":
           neither is asked for, see the note. Or some variants or classifiers, each with its own, the others fooled.
    :param fails: How it fails, in some environments or in all.
    :param note: What a user should know.
    """

    climbs: str
    variants: dict[str, Any]
    ball: bool | float = False
    view: bool = False
    labels: str = "true"
    samples: int = 6
    effect: str | dict[str, str] = "fools"
    fails: Failure | None = None
    note: str = ""


def row(climbs: str, note: str = "", **given: Any) -> Attack:
    """An attack; what is no field of a row is an argument of its only variant."""
    about = {each.name: given.pop(each.name) for each in fields(Attack) if each.name in given}
    return Attack(climbs, **{"variants": {"": given}, **about}, note=note)


def needs(package: str, more: str = "", **given: Any) -> Failure:
    """A package is absent, which is not among those that ART asks for."""
    error, match = given.get("error", ModuleNotFoundError), given.get("match", package)
    return Failure(error, match, f"no {package}", f"needs the package {package}{more}")


#: without the package, and with it, whose tensors are nothing for a PyTorch model
FOR_TENSORFLOW = Failure(
    (ModuleNotFoundError, ValueError, TypeError, AttributeError),
    "tensorflow|Color channel|got EagerTensor|original files",
    "always",
    "for TensorFlow models",
)
CHANNELS_LAST = Failure(ValueError, "Channels first", "always", "for images with the channels last")

WEIGHS = "weighs logits against distance: where the logits differ little, raise `initial_const`"
_BALL: dict[str, Any] = {"eps": EPS, "eps_step": 0.05}
_STEPS: dict[str, Any] = {**_BALL, "max_iter": 5, "ball": True}
_CARLINI: dict[str, Any] = {"initial_const": 100.0, "learning_rate": 0.1, "batch_size": 6}
_PATCH: dict[str, Any] = {"max_iter": 5, "scale_min": 0.5, "rotation_max": 0.0, "targeted": False, "effect": "moves"}
_HOPS: dict[str, Any] = {"max_iter": 2, "max_eval": 50, "init_eval": 10, "init_size": 20}
_FEATURES: dict[str, Any] = {"ball": EPS, "labels": "images", "effect": "moves"}


def _auto(max_iter: int, **about: Any) -> dict[str, Any]:
    """The attacks with a choice of losses."""
    losses = {"None": None, "cross_entropy": "cross_entropy", "difference_logits_ratio": "difference_logits_ratio"}
    common = {**_BALL, "max_iter": max_iter, "nb_random_init": 1}
    return {"variants": {name: {**common, "loss_type": loss} for name, loss in losses.items()}, "ball": True, **about}


def _two(evasion: Any, classifier: Any) -> list[Any]:
    """For AutoAttack, whose own four take minutes."""
    return [
        evasion.AutoProjectedGradientDescent(
            classifier, **_BALL, max_iter=3, nb_random_init=1, loss_type=loss, verbose=False
        )
        for loss in ("cross_entropy", "difference_logits_ratio")
    ]


ATTACKS: dict[str, Attack] = {
    "AdversarialPatch": row(
        CROSS_ENTROPY,
        "`patch_shape` is needed; leaves gradients on the network's parameters",
        patch_shape=(1, 6, 6),
        **_PATCH,
    ),
    "AdversarialPatchNumpy": row(
        LOSS_GRADIENT,
        max_iter=2,
        scale_min=0.3,
        fails=Failure(
            AttributeError,
            "no attribute 'patch'",
            "numpy >= 2",
            "ART: a `np.float32` is no `float` under numpy 2 (adversarial_patch_numpy.py:619); "
            "use AdversarialPatchPyTorch",
        ),
    ),
    "AdversarialPatchPyTorch": row(
        CROSS_ENTROPY, "leaves gradients on the network's parameters", patch_shape=(1, 6, 6), **_PATCH
    ),
    "AdversarialPatchTensorFlowV2": row("", fails=FOR_TENSORFLOW),
    "AutoAttack": row(
        "the attacks that it is given",
        "no FAB and no targeted DLR: not the published AutoAttack",
        variants={"": lambda evasion, classifier: {**_BALL, "attacks": _two(evasion, classifier)}},
        ball=True,
        fails=needs(
            "multiprocess", ", also when it runs one attack after the other (auto_attack.py:174); runs with it"
        ),
    ),
    "AutoConjugateGradient": row(
        f"{LOSS_GRADIENT}, or with `loss_type` {REBUILT}",
        "ART: steps along the raw gradient, not its sign (auto_conjugate_gradient.py:494), so its strength depends on "
        "the gradient's scale",
        **_auto(5, effect="moves"),
    ),
    "AutoProjectedGradientDescent": row(
        f"{LOSS_GRADIENT}, or with `loss_type` {REBUILT}",
        "`AdversarialTrainer` takes it for a transfer attack when `loss_type` is given",
        **_auto(10),
    ),
    "BasicIterativeMethod": row(LOSS_GRADIENT, **_STEPS),
    "BoundaryAttack": row(DECISIONS, targeted=False, max_iter=5, num_trial=5, sample_size=5, init_size=20),
    "BrendelBethgeAttack": row(
        REBUILT,
        steps=2,
        init_size=20,
        fails=needs("numba", ": without it ART does not have the attack", error=KeyError, match="BrendelBethgeAttack"),
    ),
    "CarliniL0Method": row(CLASS_GRADIENT, WEIGHS, max_iter=5, binary_search_steps=4, **_CARLINI, samples=3),
    "CarliniL2Method": row(CLASS_GRADIENT, WEIGHS, max_iter=10, binary_search_steps=2, **_CARLINI),
    "CarliniLInfMethod": row(
        CLASS_GRADIENT, max_iter=10, initial_const=1.0, largest_const=2.0, learning_rate=0.1, batch_size=6
    ),
    "CompositeAdversarialAttackPyTorch": row(
        "its own cross-entropy on `classifier.model`",
        "its hue and saturation are for colour images, its PGD for those of 32x32 pixels: `enabled_attack=(2, 3, 4)` "
        "is rotation, brightness and contrast",
        enabled_attack=(2, 3, 4),
        attack_order="fixed",
        max_inner_iter=3,
        batch_size=6,
        effect="moves",
        fails=needs("kornia"),
    ),
    "DeepFool": row(CLASS_GRADIENT, max_iter=10, batch_size=6),
    "ElasticNet": row(CLASS_GRADIENT, WEIGHS, max_iter=20, binary_search_steps=2, **_CARLINI),
    "FastGradientMethod": row(LOSS_GRADIENT, variants={"linf": {"eps": EPS}, "l2": {"norm": 2, "eps": 1.5}}, ball=True),
    "FeatureAdversariesNumpy": row("`get_activations`", delta=EPS, layer=3, samples=1, **_FEATURES),
    "FeatureAdversariesPyTorch": row(
        "`get_activations`",
        variants={
            kind: {"delta": EPS, "layer": layer, "max_iter": 3, "step_size": 0.05}
            for kind, layer in (("int", 3), ("name", "embedding"))
        },
        **_FEATURES,
    ),
    "FeatureAdversariesTensorFlowV2": row(
        "", delta=0.1, layer=3, step_size=0.05, labels="images", fails=FOR_TENSORFLOW
    ),
    "FrameSaliencyAttack": row(
        LOSS_GRADIENT,
        variants={"": lambda evasion, classifier: {"attacker": evasion.FastGradientMethod(classifier, eps=EPS)}},
        ball=EPS,
    ),
    "GRAPHITEBlackbox": row(
        DECISIONS,
        noise_size=(8, 8),
        net_size=(8, 8),
        fails=Failure(
            ValueError,
            "x_tar",
            "always",
            "for photographs of objects: asks for a target photograph, masks and the package cv2",
        ),
    ),
    "GRAPHITEWhiteboxPyTorch": row(
        CROSS_ENTROPY,
        "y is the target; ART: never ends where the image already belongs to it (graphite_whitebox_pytorch.py:389)",
        net_size=(8, 8),
        num_xforms=2,
        steps=1,
        first_steps=2,
        labels="target",
        samples=1,
        effect="stays",
        fails=needs("cv2", "; for photographs of objects"),
    ),
    "GeoDA": row(
        DECISIONS,
        "writes `2d_dct_basis_*.npy` to the working directory",
        max_iter=500,
        sub_dim=4,
        samples=2,
        fails=Failure(
            AttributeError,
            "np.mat",
            "numpy >= 2",
            "ART: numpy 2 has no `np.mat` (geometric_decision_based_attack.py:160); "
            "runs after `np.mat = np.asmatrix`",
        ),
    ),
    "HopSkipJump": row(DECISIONS, variants={"l2": _HOPS, "linf": {**_HOPS, "norm": np.inf}}),
    "LaserAttack": row(SCORES, iterations=1, laser_generator=None, fails=CHANNELS_LAST),
    "LaserBeamAttack": row(SCORES, iterations=1, max_laser_beam=(780.0, 3.14, 32.0, 32), fails=CHANNELS_LAST),
    "LowProFool": row(
        LOSS_GRADIENT,
        "made for tables, (N, features): of images it takes the channels for the features",
        n_steps=2,
        importance=np.ones(1),
        labels="target",
        effect="stays",
    ),
    "MalwareGDTensorFlow": row(
        "",
        embedding_weights=np.zeros((257, 8)),
        param_dic={"maxlen": 8, "input_dim": 257, "embedding_size": 8},
        fails=replace(FOR_TENSORFLOW, reason="for TensorFlow models of program files"),
    ),
    "MomentumIterativeMethod": row(LOSS_GRADIENT, **_STEPS),
    "NewtonFool": row(
        CLASS_GRADIENT,
        "ART: takes the logits for probabilities (newtonfool.py:147) and walks the wrong way where they are negative; "
        "no sign of robustness",
        max_iter=3,
        batch_size=6,
        effect="moves",
    ),
    "OverTheAirFlickeringPyTorch": row(
        LOSS_GRADIENT,
        "runs on a video classifier, through `accelerate` too",
        max_iter=1,
        fails=Failure(IndexError, "out of range", "always", "for videos"),
    ),
    "OverloadPyTorch": row(
        "",
        eps=0.1,
        max_iter=1,
        num_grid=2,
        batch_size=1,
        threshold=0.5,
        fails=Failure(AttributeError, "no attribute 'model'", "always", "for object detectors"),
    ),
    "PixelAttack": row(
        SCORES,
        "`es=0` needs the package cma; lowers the true class' logit alone, and far from all centers (mmc, mmlda, lgm) "
        "all logits are low: no sign of robustness",
        th=8,
        max_iter=3,
        es=1,
        samples=3,
        effect={"lgm": "stays"},
    ),
    "PixelThreshold": row(
        "",
        th=8,
        max_iter=1,
        es=1,
        fails=Failure(
            ValueError,
            "expected \\(N, 1, 8, 8\\)",
            "always",
            "what PixelAttack and ThresholdAttack share: has no perturbation of its own",
        ),
    ),
    "ProjectedGradientDescent": row(
        LOSS_GRADIENT,
        variants={
            "linf": {**_BALL, "max_iter": 5},
            "l2": {"norm": 2, "eps": 1.5, "eps_step": 0.5, "max_iter": 5},
            "l1": {"norm": 1, "eps": 12.0, "eps_step": 4.0, "max_iter": 8},
            "restarts": {**_BALL, "max_iter": 5, "num_random_init": 2},
        },
        ball=True,
        effect={"l1": "moves"},
    ),
    "ProjectedGradientDescentCommon": row(LOSS_GRADIENT, "what the others share", **_STEPS, effect="moves"),
    "ProjectedGradientDescentNumpy": row(LOSS_GRADIENT, **_STEPS),
    "ProjectedGradientDescentPyTorch": row(LOSS_GRADIENT, **_STEPS),
    "ProjectedGradientDescentTensorFlowV2": row("", **_STEPS, fails=FOR_TENSORFLOW),
    "RescalingAutoConjugateGradient": row(
        f"{LOSS_GRADIENT}, or with `loss_type` {REBUILT}",
        "as AutoConjugateGradient (rescaling_auto_conjugate_gradient.py:504)",
        **_auto(5, effect="moves"),
    ),
    "SNAL": row(
        "",
        candidates=[],
        collector=None,
        eps=0.1,
        max_iter=1,
        num_grid=2,
        fails=Failure(ValueError, "candidates", "always", "for object detectors: its candidates are their boxes"),
    ),
    "SaliencyMapMethod": row(
        CLASS_GRADIENT, "y is the target", theta=0.5, gamma=0.5, batch_size=6, labels="target", effect="moves"
    ),
    "ShadowAttack": row(
        LOSS_GRADIENT,
        "one image at a time; steps along the raw gradient, so its strength depends on the gradient's scale",
        nb_steps=3,
        samples=1,
        effect="moves",
    ),
    "SignOPTAttack": row(DECISIONS, targeted=False, num_trial=5, max_iter=3, query_limit=200, k=5, samples=2),
    "SimBA": row(
        SCORES,
        "on `classifier.with_probabilities(10)`, as it needs probabilities (simba.py:118)",
        max_iter=60,
        epsilon=0.3,
        view=True,
    ),
    "SpatialTransformation": row(
        DECISIONS, max_translation=10.0, num_translations=3, max_rotation=20.0, num_rotations=3
    ),
    "SquareAttack": row(
        SCORES,
        "with `norm=2` some of its candidates are NaN, most below 10 pixels a side (square_attack.py:262); it drops "
        "them by itself",
        eps=0.25,
        max_iter=60,
        ball=True,
    ),
    "TargetedUniversalPerturbation": row(
        LOSS_GRADIENT,
        attacker_params={"eps": 0.6, "targeted": True},
        max_iter=3,
        eps=0.6,
        ball=True,
        labels="target",
    ),
    "ThresholdAttack": row(
        SCORES,
        "the default `es=0` needs the package cma; otherwise as PixelAttack",
        th=160,
        es=1,
        max_iter=1,
        ball=161 / 255,
        samples=4,
    ),
    "UniversalPerturbation": row(
        LOSS_GRADIENT,
        variants={
            "fgsm": {"attacker": "fgsm", "attacker_params": {"eps": 0.5}, "max_iter": 1, "eps": 0.5},
            "deepfool": {
                "attacker": "deepfool",
                "attacker_params": {"max_iter": 10, "epsilon": 0.1, "verbose": False},
                "max_iter": 1,
                "eps": 0.7,
            },
        },
        ball=True,
    ),
    "VirtualAdversarialMethod": row(
        SCORES,
        "on `classifier.with_probabilities(10)`, as it needs probabilities (virtual_adversarial.py:101); it only "
        "flattens them",
        max_iter=1,
        eps=3.0,
        view=True,
        effect="moves",
    ),
    "Wasserstein": row(
        LOSS_GRADIENT,
        "the default `regularization=3000` overflows where gradients are large (wasserstein.py:388); its strength "
        "depends on the gradient's scale",
        regularization=20.0,
        max_iter=3,
        conjugate_sinkhorn_max_iter=50,
        projected_sinkhorn_max_iter=50,
        batch_size=6,
        eps=0.5,
        effect="stays",
    ),
    "ZooAttack": row(
        SCORES,
        WEIGHS,
        max_iter=20,
        nb_parallel=32,
        use_resize=False,
        use_importance=False,
        learning_rate=0.2,
        initial_const=100.0,
        samples=2,
    ),
}


@dataclass(frozen=True)
class Refusal:
    """Classifiers that refuse a trainer's variant, in which words, and why."""

    names: tuple[str, ...]
    match: str
    reason: str


@dataclass(frozen=True)
class Trainer:
    """
    How a test trains with a trainer of ART's.

    :param variants: Names of the ways in which the test uses it.
    :param note: What a user should know.
    :param only: Variant -> the classifiers that it is run on, where not all nine.
    :param refuses: Variant -> the classifiers that refuse it.
    :param fails: As of an attack.
    """

    variants: tuple[str, ...] = ("",)
    note: str = ""
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refuses: dict[str, Refusal] = field(default_factory=dict)
    fails: Failure | None = None


TRAINERS: dict[str, Trainer] = {
    "AdversarialTrainer": Trainer(
        ("PGD",),
        "an attack that brings its own estimator (AutoProjectedGradientDescent with `loss_type`) counts as a transfer "
        "attack: its samples are made once, before training",
    ),
    "AdversarialTrainerAWPPyTorch": Trainer(
        ("PGD", "TRADES"), "ART refuses the schedulers of torch >= 2 (adversarial_trainer_awp_pytorch.py:112)"
    ),
    "AdversarialTrainerCertifiedIBPPyTorch": Trainer(
        fails=Failure(ValueError, "classifier", "always", "for ART's PyTorchIBPClassifier")
    ),
    "AdversarialTrainerCertifiedPytorch": Trainer(
        fails=Failure(ValueError, "classifier", "always", "for ART's PyTorchDeepZ")
    ),
    "AdversarialTrainerFBFPyTorch": Trainer(
        note="one-hot labels only (adversarial_trainer_fbf_pytorch.py:226); rates up to 0.21 are built in, for SGD and "
        "not for Adam; ART trains in the mode that it finds, which is evaluation mode: batch statistics and the center "
        "loss' centers stand still, unless `classifier.model.train()` comes before `fit`; "
        "`AdversarialLossTrainer(classifier, 'fast')` needs none of this",
    ),
    "AdversarialTrainerMadryPGD": Trainer(note="crafts in batches of 32 whatever the batch size"),
    "AdversarialTrainerOAATPyTorch": Trainer(
        ("", "LPIPS"),
        "goes over to SGD with its own `lr`: about 0.001 for mmc, whose loss is a squared distance; the layers for its "
        "LPIPS distance must be direct children of the network with outputs (N, C, H, W), which a DefendedNet has in "
        "`normalize` alone",
        only={"LPIPS": ("sce", "mmc", "isce")},
    ),
    "AdversarialTrainerTRADESPyTorch": Trainer(
        note="ART refuses the schedulers of torch >= 2 (adversarial_trainer_trades_pytorch.py:93)"
    ),
    "DPInstaHideTrainer": Trainer(
        ("Cutout", "Mixup"),
        refuses={
            "Mixup": Refusal(
                ("lgm", "center", "pc", "gce"),
                "not for probability labels",
                "these losses are defined for one true class a sample: with `Mixup` they refuse",
            )
        },
    ),
}


_ON_LOGITS = "takes the logits for probabilities"
_WITH_CROSS_ENTROPY = (
    "around `classifier.model` with `CrossEntropyLoss()`: in `fit` ART turns one-hot labels into indices only for "
    "losses that it knows, and fails on any other, its own class included"
)
_DISTANCE = "the size of the loss and of its gradient is another for each loss: not to be compared"

#: what else of ART is run on them and on ART's own class: name -> kind, what a user should know
OTHERS: dict[str, tuple[str, str]] = {
    "BinaryInputDetector": ("detector", "its detector is a classifier of two classes, one of these too"),
    "BinaryActivationDetector": ("detector", '`layer="embedding"`; its detector has `clip_values=None`'),
    "SubsetScanningDetector": ("detector", '`layer="embedding"`'),
    "BeyondDetectorPyTorch": (
        "detector",
        "asks for a self-supervised network with `backbone`, `projector`, `classifier`",
    ),
    "ActivationDefence": ("detector of poison", "activations of the layer before the logits"),
    "SpectralSignatureDefense": ("detector of poison", "as ActivationDefence"),
    "ProvenanceDefense": (
        "detector of poison",
        "trains clones; `perf_func` is a function of rows; ART: tells samples by their values, and takes images of few "
        "grey levels for the same",
    ),
    "RONIDefense": ("detector of poison", "as ProvenanceDefense; ART: for tables alone (roni.py:153)"),
    "adversarial_accuracy": ("metric", ""),
    "empirical_robustness": ("metric", ""),
    "loss_sensitivity": ("metric", f"of the objective; {_DISTANCE}"),
    "loss_gradient_check": ("metric", "of the objective"),
    "clever_u": ("metric", "by `class_gradient` of the logits: scales with them"),
    "clever_t": ("metric", "as clever_u"),
    "PDTP": ("metric", f"{_ON_LOGITS}: `classifier.with_probabilities(10)` has some"),
    "SHAPr": ("metric", _ON_LOGITS),
    "BullseyePolytopeAttackPyTorch": ("poisoning", '`feature_layer="embedding"`'),
    "FeatureCollisionAttack": ("poisoning", '`feature_layer="embedding"`'),
    "GradientMatchingAttack": ("poisoning", "matches gradients of the training loss"),
    "HiddenTriggerBackdoor": ("poisoning", '`feature_layer="embedding"`'),
    "PoisoningAttackCleanLabelBackdoor": ("poisoning", "its PGD follows the objective"),
    "SleeperAgentAttack": ("poisoning", "as GradientMatchingAttack"),
    "MembershipInferenceBlackBox": ("membership inference", _ON_LOGITS),
    "MembershipInferenceBlackBox, nn": ("membership inference", _ON_LOGITS),
    "MembershipInferenceBlackBox, loss": ("membership inference", 'by `compute_loss`: `objective="loss"` for the loss'),
    "MembershipInferenceBlackBoxRuleBased": ("membership inference", "by the predicted class alone"),
    "LabelOnlyDecisionBoundary": ("membership inference", ""),
    "ShadowModels": ("membership inference", "trains clones; fixed centers stay as they are"),
    "AttributeInferenceBlackBox": ("attribute inference", "for tables: on a network of six columns"),
    "AttributeInferenceMembership": ("attribute inference", "for tables: on a network of six columns"),
    "MIFace": ("model inversion", "`class_gradient` of the logits"),
    "CopycatCNN": ("extraction", ""),
    "KnockoffNets": ("extraction", ""),
    "PyTorchRandomizedSmoothing": ("wrapper", "around `classifier.model` and its loss; `certify` needs statsmodels"),
    **dict.fromkeys(("PyTorchMACER", "PyTorchSmoothAdv", "PyTorchSmoothMix"), ("wrapper", _WITH_CROSS_ENTROPY)),
    "EnsembleClassifier": ("wrapper", "means of logits and of the objectives' gradients"),
    "DeepPartitionEnsemble": ("wrapper", ""),
    "QueryEfficientGradientEstimationClassifier": ("wrapper", "estimates gradients of the logits"),
    "EoTImageRotationPyTorch": ("expectation over transformation", "as `preprocessing_defences`; three samples"),
}

#: of those, what fails on ours and on ART's own class alike
OTHERS_FAIL: dict[str, Failure] = {}

#: what takes a PyTorch classifier by its type and is nothing for one
NO_CLASSIFIER: dict[str, str] = {
    **dict.fromkeys(("AttributeInferenceBaseline", "AttributeInferenceBaselineTrueLabel"), "takes no classifier"),
    "BackdoorAttackDGMTrailTensorFlowV2": "for TensorFlow's generators",
    **dict.fromkeys(
        (
            "BadDetGlobalMisclassificationAttack",
            "BadDetObjectDisappearanceAttack",
            "BadDetObjectGenerationAttack",
            "BadDetRegionalMisclassificationAttack",
            "PoisoningAttackBackdoor",
        ),
        "takes no classifier",
    ),
    "FunctionallyEquivalentExtraction": "for a network of one layer of ReLUs on tables; its search did not end in a "
    "minute on one of eight",
    "HiddenTriggerBackdoorKeras": "for Keras",
    "HiddenTriggerBackdoorPyTorch": "what HiddenTriggerBackdoor runs",
}


def happens(when: str) -> bool:
    """
    :param when: The `when` of an exception.
    :return: Whether it holds in this environment.
    """
    if when == "always":
        return True
    if when == "numpy >= 2":
        return int(np.__version__.split(".")[0]) >= 2
    return importlib.util.find_spec(when.removeprefix("no ")) is None


def failure(entry: Attack | Trainer) -> Failure | None:
    """
    :param entry: An attack or trainer.
    :return: How it fails in this environment, or None if it runs.
    """
    return entry.fails if entry.fails is not None and happens(entry.fails.when) else None


def effect(entry: Attack, variant: str, classifier: str) -> str:
    """
    :param entry: An attack.
    :param variant: Name of a variant.
    :param classifier: Name of a defence.
    :return: "fools", "moves" or "stays".
    """
    if isinstance(entry.effect, str):
        return entry.effect
    return entry.effect.get(variant, entry.effect.get(classifier, "fools"))


def attack_classes() -> dict[str, type]:
    """
    :return: ART's evasion attacks by name, those too that are in a module of its alone.
    """
    from art.attacks import evasion
    from art.attacks.attack import EvasionAttack

    found: dict[str, type] = {}
    left = [EvasionAttack]
    while left:
        kin = [cls for cls in left.pop().__subclasses__() if cls.__module__.startswith(evasion.__name__)]
        found.update({cls.__name__: cls for cls in kin})
        left += kin
    return dict(sorted(found.items()))


def evasion_attacks() -> dict[str, bool]:
    """
    :return: The names of ART's evasion attacks, each with whether it takes a PyTorch classifier.
    """
    from art_mmc import create_classifier

    classifier = create_classifier("sce", "cnn", input_shape=(1, 8, 8), nb_classes=10)
    return {
        name: cls.is_estimator_valid(classifier, cls._estimator_requirements) for name, cls in attack_classes().items()
    }


def other_attacks() -> list[str]:
    """
    :return: The names of ART's attacks of other kinds that take a PyTorch classifier by its type, and of its detectors.
    """
    import importlib
    import inspect
    import pkgutil

    from art.attacks.attack import Attack as Base
    from art.defences.detector.evasion import EvasionDetector
    from art.defences.detector.poison import PoisonFilteringDefence

    from art_mmc import create_classifier

    for name in ("art.attacks.poisoning", "art.attacks.inference", "art.attacks.extraction"):
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if "audio" not in module.name:  # asks for a package for sounds
                importlib.import_module(module.name)
    classifier = create_classifier("sce", "cnn", input_shape=(1, 8, 8), nb_classes=10)
    found, left = [], [Base]
    while left:
        for cls in left.pop().__subclasses__():
            left.append(cls)
            foreign = not cls.__module__.startswith("art.") or ".evasion" in cls.__module__ or inspect.isabstract(cls)
            wanted = getattr(cls, "_estimator_requirements", None)
            if not foreign and wanted is not None and cls.is_estimator_valid(classifier, wanted):
                found.append(cls.__name__)
    detectors = EvasionDetector.__subclasses__() + PoisonFilteringDefence.__subclasses__()
    return sorted({*found, *(cls.__name__ for cls in detectors if cls.__module__.startswith("art."))})


def trainers() -> list[str]:
    """
    :return: The names of ART's trainers.
    """
    import inspect

    from art.defences import trainer

    return [
        name
        for name, cls in sorted(vars(trainer).items())
        if isinstance(cls, type) and issubclass(cls, trainer.Trainer) and not inspect.isabstract(cls)
    ]


def to_markdown() -> str:
    """
    :return: The table for the docs.
    """

    def sentence(*parts: str) -> str:
        return "; ".join(part for part in parts if part)

    def runs(entry: Attack | Trainer) -> str:
        if entry.fails is None:
            return "yes"
        when = entry.fails.when
        return "no" if when == "always" else f"not with {when}".replace("with no ", "without ")

    def on_arts(entry: Attack) -> str:
        return "behind a softmax" if entry.view else runs(entry)

    def reason(entry: Attack | Trainer) -> str:
        return entry.fails.reason if entry.fails is not None else ""

    lines = [
        "# What of ART runs on the nine classifiers",
        "",
        "Written by `python -m tests.art_support` from what the tests run, with ART 1.20; a test compares. *The "
        "objective* is the classifier's `objective`: the defence's adaptive one unless told otherwise. *ART's* is "
        "ART's own `PyTorchClassifier` on a network of the same kind.",
        "",
        "## Evasion attacks",
        "",
        "| attack | runs | on ART's | climbs | remarks |",
        "|---|---|---|---|---|",
    ]
    for name, entry in sorted(ATTACKS.items()):
        about = sentence(reason(entry), entry.note)
        lines.append(f"| {name} | {runs(entry)} | {on_arts(entry)} | {entry.climbs} | {about} |")
    others = [name for name, fits in evasion_attacks().items() if not fits]
    lines += ["", f"For other kinds of estimators: {', '.join(others)}.", "", "## Trainers", ""]
    lines += ["| trainer | runs | on ART's | remarks |", "|---|---|---|---|"]
    for name, entry in sorted(TRAINERS.items()):
        refused = [f"{', '.join(each.names)}: {each.reason}" for each in entry.refuses.values()]
        lines.append(f"| {name} | {runs(entry)} | {runs(entry)} | {sentence(reason(entry), entry.note, *refused)} |")
    lines += ["", "## Detectors, metrics, poisoning, inference, extraction, wrappers", ""]
    lines += ["| class | kind | runs | on ART's | remarks |", "|---|---|---|---|---|"]
    for name, (kind, note) in OTHERS.items():
        fails = OTHERS_FAIL.get(name)
        both = "yes | yes" if fails is None else "no | no"
        lines.append(f"| {name} | {kind} | {both} | {sentence(fails.reason if fails else '', note)} |")
    without = [f"{name} ({why})" for name, why in NO_CLASSIFIER.items()]
    lines += ["", f"Nothing for them: {', '.join(without)}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(to_markdown(), encoding="utf-8")
