"""
What of ART runs on the nine classifiers, and what does not, with the reason: the data of the tests in
`test_art_attacks.py` and `test_art_trainers.py`, and of the table in the docs.

`python -m tests.art_support` writes the table to `examples/results/art_support.md`; a test tells when it is out of
date.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
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

_BALL = {"eps": EPS, "eps_step": 0.05}
_LINF = {"norm": np.inf, "eps": EPS}

#: without the package, and with it, whose tensors are nothing for a PyTorch model
FOR_TENSORFLOW = {
    "error": (ModuleNotFoundError, ValueError, AttributeError),
    "match": "tensorflow|Color channel|no attribute 'kind'|original files",
    "when": "always",
    "reason": "for TensorFlow models",
}

# An attack has
#   climbs    what it takes from the classifier, in words for the table
#   variants  name -> constructor arguments; what is written here once is small, for 8x8 images and a short test. A
#             function gets the attack's module and the classifier, for arguments that are objects.
#   ball      norm and eps that the result must keep, or a function of the variant's arguments
#   view      whether it is run on `classifier.with_probabilities(10)`
#   labels    "true" (default), "target", or "images" for attacks that take images there
#   samples   how many images the test attacks (default 6)
#   effect    "fools" (default): at least one prediction changes on each classifier; "moves": the images change;
#             "stays": neither is asked for, see the note. Or some variants or classifiers, each with its own, the
#             others being fooled
#   fails     kind of exception, pattern of its message, reason for the table, and `when` it does: "always",
#             "numpy >= 2" or "no <package>"
#   note      what a user should know
ATTACKS: dict[str, dict[str, Any]] = {
    "AdversarialPatch": {
        "climbs": "its own cross-entropy on the logits",
        "variants": {
            "": {"patch_shape": (1, 6, 6), "max_iter": 5, "scale_min": 0.5, "rotation_max": 0.0, "targeted": False}
        },
        "effect": "moves",
        "note": "`patch_shape` is needed; leaves gradients on the network's parameters",
    },
    "AdversarialPatchNumpy": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {"max_iter": 2, "scale_min": 0.3}},
        "fails": {
            "error": AttributeError,
            "match": "no attribute 'patch'",
            "when": "numpy >= 2",
            "reason": "ART: a `np.float32` is no `float` under numpy 2 (adversarial_patch_numpy.py:619); "
            "use AdversarialPatchPyTorch",
        },
    },
    "AdversarialPatchPyTorch": {
        "climbs": "its own cross-entropy on the logits",
        "variants": {
            "": {"patch_shape": (1, 6, 6), "max_iter": 5, "scale_min": 0.5, "rotation_max": 0.0, "targeted": False}
        },
        "effect": "moves",
        "note": "leaves gradients on the network's parameters",
    },
    "AdversarialPatchTensorFlowV2": {
        "climbs": "",
        "variants": {"": {}},
        "fails": FOR_TENSORFLOW,
    },
    "AutoAttack": {
        "climbs": "the attacks that it is given",
        "variants": {"": {**_BALL}},
        "fails": {
            "error": ModuleNotFoundError,
            "match": "multiprocess",
            "when": "no multiprocess",
            "reason": "needs the package multiprocess, also when it runs one attack after the other "
            "(auto_attack.py:174); runs with it",
        },
        "note": "no FAB and no targeted DLR: not the published AutoAttack",
    },
    "AutoConjugateGradient": {
        "climbs": f"{LOSS_GRADIENT}, or with `loss_type` {REBUILT}",
        "variants": {
            loss: {**_BALL, "max_iter": 5, "nb_random_init": 1, "loss_type": None if loss == "None" else loss}
            for loss in ("None", "cross_entropy", "difference_logits_ratio")
        },
        "ball": _LINF,
        "effect": "moves",
        "note": "ART: steps along the raw gradient, not its sign (auto_conjugate_gradient.py:494), so its strength "
        "depends on the gradient's scale",
    },
    "AutoProjectedGradientDescent": {
        "climbs": f"{LOSS_GRADIENT}, or with `loss_type` {REBUILT}",
        "variants": {
            loss: {**_BALL, "max_iter": 10, "nb_random_init": 1, "loss_type": None if loss == "None" else loss}
            for loss in ("None", "cross_entropy", "difference_logits_ratio")
        },
        "ball": _LINF,
        "note": "`AdversarialTrainer` takes it for a transfer attack when `loss_type` is given",
    },
    "BasicIterativeMethod": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {**_BALL, "max_iter": 5}},
        "ball": _LINF,
    },
    "BoundaryAttack": {
        "climbs": DECISIONS,
        "variants": {
            "": {"targeted": False, "max_iter": 5, "num_trial": 5, "sample_size": 5, "init_size": 20},
        },
    },
    "BrendelBethgeAttack": {
        "climbs": REBUILT,
        "variants": {"": {"steps": 2, "init_size": 20}},
        "fails": {
            "error": KeyError,
            "match": "BrendelBethgeAttack",
            "when": "no numba",
            "reason": "needs the package numba: without it ART does not have the attack",
        },
    },
    "CarliniL0Method": {
        "climbs": CLASS_GRADIENT,
        "variants": {
            "": {"max_iter": 5, "binary_search_steps": 4, "initial_const": 100.0, "learning_rate": 0.1, "batch_size": 6}
        },
        "samples": 3,
        "note": "weighs logits against distance: where the logits differ little, raise `initial_const`",
    },
    "CarliniL2Method": {
        "climbs": CLASS_GRADIENT,
        "variants": {
            "": {
                "max_iter": 10,
                "binary_search_steps": 2,
                "initial_const": 100.0,
                "learning_rate": 0.1,
                "batch_size": 6,
            }
        },
        "note": "weighs logits against distance: where the logits differ little, raise `initial_const`",
    },
    "CarliniLInfMethod": {
        "climbs": CLASS_GRADIENT,
        "variants": {
            "": {"max_iter": 10, "initial_const": 1.0, "largest_const": 2.0, "learning_rate": 0.1, "batch_size": 6}
        },
    },
    "CompositeAdversarialAttackPyTorch": {
        "climbs": "its own cross-entropy on `classifier.model`",
        "variants": {"": {"enabled_attack": (2, 3, 4), "attack_order": "fixed", "max_inner_iter": 3, "batch_size": 6}},
        "effect": "moves",
        "fails": {
            "error": ModuleNotFoundError,
            "match": "kornia",
            "when": "no kornia",
            "reason": "needs the package kornia",
        },
        "note": "its hue and saturation are for colour images, its PGD for those of 32x32 pixels: `enabled_attack=(2, "
        "3, 4)` is rotation, brightness and contrast",
    },
    "DeepFool": {"climbs": CLASS_GRADIENT, "variants": {"": {"max_iter": 10, "batch_size": 6}}},
    "ElasticNet": {
        "climbs": CLASS_GRADIENT,
        "variants": {
            "": {
                "max_iter": 20,
                "binary_search_steps": 2,
                "initial_const": 100.0,
                "learning_rate": 0.1,
                "batch_size": 6,
            }
        },
        "note": "weighs logits against distance: where the logits differ little, raise `initial_const`",
    },
    "FastGradientMethod": {
        "climbs": LOSS_GRADIENT,
        "variants": {"linf": {"eps": EPS}, "l2": {"norm": 2, "eps": 1.5}},
        "ball": lambda arguments: {"norm": np.inf, **arguments},
    },
    "FeatureAdversariesNumpy": {
        "climbs": "`get_activations`",
        "variants": {"": {"delta": EPS, "layer": 3}},
        "ball": _LINF,
        "labels": "images",
        "samples": 1,
        "effect": "moves",
    },
    "FeatureAdversariesPyTorch": {
        "climbs": "`get_activations`",
        "variants": {
            "int": {"delta": EPS, "layer": 3, "max_iter": 3, "step_size": 0.05},
            "name": {"delta": EPS, "layer": "embedding", "max_iter": 3, "step_size": 0.05},
        },
        "ball": _LINF,
        "labels": "images",
        "effect": "moves",
    },
    "FeatureAdversariesTensorFlowV2": {
        "climbs": "",
        "variants": {"": {"delta": 0.1, "layer": 3, "step_size": 0.05}},
        "labels": "images",
        "fails": FOR_TENSORFLOW,
    },
    "FrameSaliencyAttack": {
        "climbs": LOSS_GRADIENT,
        "variants": {
            "": lambda evasion, classifier: {"attacker": evasion.FastGradientMethod(classifier, eps=EPS)},
        },
        "ball": _LINF,
    },
    "GRAPHITEBlackbox": {
        "climbs": DECISIONS,
        "variants": {"": {"noise_size": (8, 8), "net_size": (8, 8)}},
        "fails": {
            "error": ValueError,
            "match": "x_tar",
            "when": "always",
            "reason": "for photographs of objects: asks for a target photograph, masks and the package cv2",
        },
    },
    "GRAPHITEWhiteboxPyTorch": {
        "climbs": "its own cross-entropy on the logits",
        "variants": {"": {"net_size": (8, 8), "num_xforms": 2, "steps": 1, "first_steps": 2}},
        "effect": "stays",
        "fails": {
            "error": ModuleNotFoundError,
            "match": "cv2",
            "when": "no cv2",
            "reason": "needs the package cv2; for photographs of objects",
        },
    },
    "GeoDA": {
        "climbs": DECISIONS,
        "variants": {"": {"max_iter": 500, "sub_dim": 4}},
        "samples": 2,
        "fails": {
            "error": AttributeError,
            "match": "np.mat",
            "when": "numpy >= 2",
            "reason": "ART: numpy 2 has no `np.mat` (geometric_decision_based_attack.py:160); "
            "runs after `np.mat = np.asmatrix`",
        },
        "note": "writes `2d_dct_basis_*.npy` to the working directory",
    },
    "HopSkipJump": {
        "climbs": DECISIONS,
        "variants": {
            "l2": {"max_iter": 2, "max_eval": 50, "init_eval": 10, "init_size": 20},
            "linf": {"max_iter": 2, "max_eval": 50, "init_eval": 10, "init_size": 20, "norm": np.inf},
        },
    },
    "LaserAttack": {
        "climbs": SCORES,
        "variants": {"": {"iterations": 1, "laser_generator": None}},
        "fails": {
            "error": ValueError,
            "match": "Channels first",
            "when": "always",
            "reason": "for images with the channels last",
        },
    },
    "LaserBeamAttack": {
        "climbs": SCORES,
        "variants": {"": {"iterations": 1, "max_laser_beam": (780.0, 3.14, 32.0, 32)}},
        "fails": {
            "error": ValueError,
            "match": "Channels first",
            "when": "always",
            "reason": "for images with the channels last",
        },
    },
    "LowProFool": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {"n_steps": 2, "importance": np.ones(1)}},
        "labels": "target",
        "effect": "stays",
        "note": "made for tables, (N, features): of images it takes the channels for the features",
    },
    "MalwareGDTensorFlow": {
        "climbs": "",
        "variants": {
            "": {
                "embedding_weights": np.zeros((257, 8)),
                "param_dic": {"maxlen": 8, "input_dim": 257, "embedding_size": 8},
            }
        },
        "fails": {
            **FOR_TENSORFLOW,
            "reason": "for TensorFlow models of program files",
        },
    },
    "MomentumIterativeMethod": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {**_BALL, "max_iter": 5}},
        "ball": _LINF,
    },
    "NewtonFool": {
        "climbs": CLASS_GRADIENT,
        "variants": {"": {"max_iter": 3, "batch_size": 6}},
        "effect": "moves",
        "note": "ART: takes the logits for probabilities (newtonfool.py:147) and walks the wrong way where they are "
        "negative; no sign of robustness",
    },
    "OverTheAirFlickeringPyTorch": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {"max_iter": 1}},
        "fails": {"error": IndexError, "match": "out of range", "when": "always", "reason": "for videos"},
        "note": "runs on a video classifier, through `accelerate` too",
    },
    "OverloadPyTorch": {
        "climbs": "",
        "variants": {"": {"eps": 0.1, "max_iter": 1, "num_grid": 2, "batch_size": 1, "threshold": 0.5}},
        "fails": {
            "error": AttributeError,
            "match": "no attribute 'model'",
            "when": "always",
            "reason": "for object detectors",
        },
    },
    "PixelAttack": {
        "climbs": SCORES,
        "variants": {"": {"th": 8, "max_iter": 3, "es": 1}},
        "samples": 3,
        "effect": {"lgm": "stays"},
        "note": "`es=0` needs the package cma; lowers the true class' logit alone, and far from all centers (mmc, "
        "mmlda, lgm) all logits are low: no sign of robustness",
    },
    "PixelThreshold": {
        "climbs": "",
        "variants": {"": {"th": 8, "max_iter": 1, "es": 1}},
        "fails": {
            "error": ValueError,
            "match": "expected \\(N, 1, 8, 8\\)",
            "when": "always",
            "reason": "what PixelAttack and ThresholdAttack share: has no perturbation of its own",
        },
    },
    "ProjectedGradientDescent": {
        "climbs": LOSS_GRADIENT,
        "variants": {
            "linf": {**_BALL, "max_iter": 5},
            "l2": {"norm": 2, "eps": 1.5, "eps_step": 0.5, "max_iter": 5},
            "l1": {"norm": 1, "eps": 12.0, "eps_step": 4.0, "max_iter": 8},
            "restarts": {**_BALL, "max_iter": 5, "num_random_init": 2},
        },
        "ball": lambda arguments: {"norm": np.inf, **arguments},
        "effect": {"l1": "moves"},
    },
    "ProjectedGradientDescentCommon": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {**_BALL, "max_iter": 5}},
        "ball": _LINF,
        "effect": "moves",
        "note": "what the others share",
    },
    "ProjectedGradientDescentNumpy": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {**_BALL, "max_iter": 5}},
        "ball": _LINF,
    },
    "ProjectedGradientDescentPyTorch": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {**_BALL, "max_iter": 5}},
        "ball": _LINF,
    },
    "ProjectedGradientDescentTensorFlowV2": {
        "climbs": "",
        "variants": {"": {**_BALL, "max_iter": 5}},
        "fails": FOR_TENSORFLOW,
    },
    "RescalingAutoConjugateGradient": {
        "climbs": f"{LOSS_GRADIENT}, or with `loss_type` {REBUILT}",
        "variants": {
            loss: {**_BALL, "max_iter": 5, "nb_random_init": 1, "loss_type": None if loss == "None" else loss}
            for loss in ("None", "cross_entropy", "difference_logits_ratio")
        },
        "ball": _LINF,
        "effect": "moves",
        "note": "as AutoConjugateGradient (rescaling_auto_conjugate_gradient.py:504)",
    },
    "SNAL": {
        "climbs": "",
        "variants": {"": {"candidates": [], "collector": None, "eps": 0.1, "max_iter": 1, "num_grid": 2}},
        "fails": {
            "error": ValueError,
            "match": "candidates",
            "when": "always",
            "reason": "for object detectors: its candidates are their boxes",
        },
    },
    "SaliencyMapMethod": {
        "climbs": CLASS_GRADIENT,
        "variants": {"": {"theta": 0.5, "gamma": 0.5, "batch_size": 6}},
        "labels": "target",
        "effect": "moves",
        "note": "y is the target",
    },
    "ShadowAttack": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {"nb_steps": 3}},
        "samples": 1,
        "effect": "moves",
        "note": "one image at a time; steps along the raw gradient, so its strength depends on the gradient's scale",
    },
    "SignOPTAttack": {
        "climbs": DECISIONS,
        "variants": {"": {"targeted": False, "num_trial": 5, "max_iter": 3, "query_limit": 200, "k": 5}},
        "samples": 2,
    },
    "SimBA": {
        "climbs": SCORES,
        "variants": {"": {"max_iter": 60, "epsilon": 0.3}},
        "view": True,
        "note": "on `classifier.with_probabilities(10)`, as it needs probabilities (simba.py:118)",
    },
    "SpatialTransformation": {
        "climbs": DECISIONS,
        "variants": {"": {"max_translation": 10.0, "num_translations": 3, "max_rotation": 20.0, "num_rotations": 3}},
    },
    "SquareAttack": {
        "climbs": SCORES,
        "variants": {
            "": {"eps": 0.25, "max_iter": 60},
        },
        "ball": {"norm": np.inf, "eps": 0.25},
        "note": "with `norm=2` some of its candidates are NaN, most below 10 pixels a side (square_attack.py:262); it "
        "drops them by itself",
    },
    "TargetedUniversalPerturbation": {
        "climbs": LOSS_GRADIENT,
        "variants": {"": {"attacker_params": {"eps": 0.6, "targeted": True}, "max_iter": 3, "eps": 0.6}},
        "ball": {"norm": np.inf, "eps": 0.6},
        "labels": "target",
    },
    "ThresholdAttack": {
        "climbs": SCORES,
        "variants": {"": {"th": 160, "es": 1, "max_iter": 1}},
        "ball": {"norm": np.inf, "eps": 161 / 255},
        "samples": 4,
        "note": "the default `es=0` needs the package cma; otherwise as PixelAttack",
    },
    "UniversalPerturbation": {
        "climbs": LOSS_GRADIENT,
        "variants": {
            "fgsm": {"attacker": "fgsm", "attacker_params": {"eps": 0.5}, "max_iter": 1, "eps": 0.5},
            "deepfool": {
                "attacker": "deepfool",
                "attacker_params": {"max_iter": 10, "epsilon": 0.1, "verbose": False},
                "max_iter": 1,
                "eps": 0.7,
            },
        },
        "ball": lambda arguments: {"norm": np.inf, **arguments},
    },
    "VirtualAdversarialMethod": {
        "climbs": SCORES,
        "variants": {"": {"max_iter": 1, "eps": 3.0}},
        "view": True,
        "effect": "moves",
        "note": "on `classifier.with_probabilities(10)`, as it needs probabilities (virtual_adversarial.py:101); it "
        "only flattens them",
    },
    "Wasserstein": {
        "climbs": LOSS_GRADIENT,
        "variants": {
            "": {
                "regularization": 20.0,
                "max_iter": 3,
                "conjugate_sinkhorn_max_iter": 50,
                "projected_sinkhorn_max_iter": 50,
                "batch_size": 6,
                "eps": 0.5,
            }
        },
        "effect": "stays",
        "note": "the default `regularization=3000` overflows where gradients are large (wasserstein.py:388); its "
        "strength depends on the gradient's scale",
    },
    "ZooAttack": {
        "climbs": SCORES,
        "variants": {
            "": {
                "max_iter": 20,
                "nb_parallel": 32,
                "use_resize": False,
                "use_importance": False,
                "learning_rate": 0.2,
                "initial_const": 100.0,
            }
        },
        "samples": 2,
        "note": "weighs logits against distance: where the logits differ little, raise `initial_const`",
    },
}


# A trainer has
#   variants  names of the ways in which the test uses it
#   only      variant -> the classifiers that it is run on, where not all nine
#   fails     as above
#   refuses   variant -> classifiers that refuse it, kind of exception, pattern of its message, reason
#   spoils    variant -> classifiers that it trains badly, reason: it runs, and accuracy falls by more than a tenth
#   note      what a user should know
TRAINERS: dict[str, dict[str, Any]] = {
    "AdversarialTrainer": {
        "variants": ("PGD",),
        "note": "an attack that brings its own estimator (AutoProjectedGradientDescent with `loss_type`) counts as a "
        "transfer attack: its samples are made once, before training",
    },
    "AdversarialTrainerAWPPyTorch": {
        "variants": ("PGD", "TRADES"),
        "note": "ART refuses the schedulers of torch >= 2 (adversarial_trainer_awp_pytorch.py:112)",
    },
    "AdversarialTrainerCertifiedIBPPyTorch": {
        "variants": ("",),
        "fails": {
            "error": ValueError,
            "match": "classifier",
            "when": "always",
            "reason": "for ART's PyTorchIBPClassifier",
        },
    },
    "AdversarialTrainerCertifiedPytorch": {
        "variants": ("",),
        "fails": {
            "error": ValueError,
            "match": "classifier",
            "when": "always",
            "reason": "for ART's PyTorchDeepZ",
        },
    },
    "AdversarialTrainerFBFPyTorch": {
        "variants": ("",),
        "note": "one-hot labels only (adversarial_trainer_fbf_pytorch.py:226); rates up to 0.21 are built in, for SGD "
        "and not for Adam; ART trains in the mode that it finds, which is evaluation mode: batch statistics and the "
        "center loss' centers stand still, unless `classifier.model.train()` comes before `fit`; "
        "`AdversarialLossTrainer(classifier, 'fast')` needs none of this",
    },
    "AdversarialTrainerMadryPGD": {
        "variants": ("",),
        "note": "crafts in batches of 32 whatever the batch size",
    },
    "AdversarialTrainerOAATPyTorch": {
        "variants": ("", "LPIPS"),
        "only": {"LPIPS": ("sce", "mmc", "isce")},
        "note": "goes over to SGD with its own `lr`: about 0.001 for mmc, whose loss is a squared distance; the layers "
        "for its LPIPS distance must be direct children of the network with outputs (N, C, H, W), which a DefendedNet "
        "has in `normalize` alone",
    },
    "AdversarialTrainerTRADESPyTorch": {
        "variants": ("",),
        "note": "ART refuses the schedulers of torch >= 2 (adversarial_trainer_trades_pytorch.py:93)",
    },
    "DPInstaHideTrainer": {
        "variants": ("Cutout", "Mixup"),
        "refuses": {
            "Mixup": {
                "names": ("lgm", "center", "pc", "gce"),
                "error": ValueError,
                "match": "not for probability labels",
                "reason": "these losses are defined for one true class a sample: with `Mixup` they refuse",
            }
        },
    },
}


#: what else of ART is run on them: name -> kind, what a user should know
OTHERS: dict[str, tuple[str, str]] = {
    "BullseyePolytopeAttackPyTorch": ("poisoning", '`feature_layer="embedding"`'),
    "FeatureCollisionAttack": ("poisoning", '`feature_layer="embedding"`'),
    "GradientMatchingAttack": ("poisoning", "matches gradients of the training loss"),
    "HiddenTriggerBackdoor": ("poisoning", '`feature_layer="embedding"`'),
    "PoisoningAttackCleanLabelBackdoor": ("poisoning", "its PGD follows the objective"),
    "SleeperAgentAttack": ("poisoning", "as GradientMatchingAttack"),
    "MembershipInferenceBlackBox": ("membership inference", "takes the logits for probabilities"),
    "MembershipInferenceBlackBox, nn": ("membership inference", "takes the logits for probabilities"),
    "MembershipInferenceBlackBox, loss": ("membership inference", 'by `compute_loss`: `objective="loss"` for the loss'),
    "LabelOnlyDecisionBoundary": ("membership inference", ""),
    "ShadowModels": ("membership inference", "trains clones; fixed centers stay as they are"),
    "AttributeInferenceMembership": ("attribute inference", "for tables: on a `torch.nn.Linear` of six columns"),
    "MIFace": ("model inversion", "`class_gradient` of the logits"),
    "CopycatCNN": ("extraction", ""),
    "KnockoffNets": ("extraction", ""),
    "PyTorchRandomizedSmoothing": ("wrapper", "around `classifier.model` and its loss; `certify` needs statsmodels"),
    **{
        f"Py{name}": (
            "wrapper",
            "around `classifier.model` with `CrossEntropyLoss()`: in `fit` ART turns one-hot labels into indices only "
            "for losses that it knows, and fails on any other, its own class included",
        )
        for name in ("TorchMACER", "TorchSmoothAdv", "TorchSmoothMix")
    },
    "EnsembleClassifier": ("wrapper", "means of logits and of the objectives' gradients"),
    "DeepPartitionEnsemble": ("wrapper", ""),
    "QueryEfficientGradientEstimationClassifier": ("wrapper", "estimates gradients of the logits"),
    "EoTImageRotationPyTorch": ("expectation over transformation", "as `preprocessing_defences`; three samples"),
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


def failure(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """
    :param entry: An attack or trainer.
    :return: How it fails in this environment, or None if it runs.
    """
    fails = entry.get("fails")
    return fails if fails is not None and happens(fails["when"]) else None


def effect(entry: Mapping[str, Any], variant: str, classifier: str) -> str:
    """
    :param entry: An attack.
    :param variant: Name of a variant.
    :param classifier: Name of a defence.
    :return: "fools", "moves" or "stays".
    """
    wanted = entry.get("effect", "fools")
    if isinstance(wanted, str):
        return wanted
    return wanted.get(variant, wanted.get(classifier, "fools"))


def _exceptions(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for kind in ("refuses", "spoils") for each in entry.get(kind, {}).values()]


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
    from art_mmc import SoftmaxClassifier

    kin = SoftmaxClassifier.__mro__
    return {
        name: all(any(c in kin for c in (w if isinstance(w, tuple) else (w,))) for w in cls._estimator_requirements)
        for name, cls in attack_classes().items()
    }


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

    def runs(entry: Mapping[str, Any]) -> str:
        if "fails" not in entry:
            return "yes"
        when = entry["fails"]["when"]
        return "no" if when == "always" else f"not with {when}".replace("with no ", "without ")

    lines = [
        "# What of ART runs on the nine classifiers",
        "",
        "Written by `python -m tests.art_support` from what the tests run, with ART 1.20; a test compares. *The "
        "objective* is the classifier's `objective`: the defence's adaptive one unless told otherwise.",
        "",
        "## Evasion attacks",
        "",
        "| attack | runs | climbs | remarks |",
        "|---|---|---|---|",
    ]
    for name, entry in sorted(ATTACKS.items()):
        remarks = sentence(entry.get("fails", {}).get("reason", ""), entry.get("note", ""))
        lines.append(f"| {name} | {runs(entry)} | {entry['climbs']} | {remarks} |")
    others = [name for name, fits in evasion_attacks().items() if not fits]
    lines += ["", f"For other kinds of estimators: {', '.join(others)}.", "", "## Trainers", ""]
    lines += ["| trainer | runs | remarks |", "|---|---|---|"]
    for name, entry in sorted(TRAINERS.items()):
        refused = [f"{', '.join(each['names'])}: {each['reason']}" for each in _exceptions(entry)]
        remarks = sentence(entry.get("fails", {}).get("reason", ""), entry.get("note", ""), *refused)
        lines.append(f"| {name} | {runs(entry)} | {remarks} |")
    lines += ["", "## Poisoning, inference, extraction, wrappers", "", "| class | kind | remarks |", "|---|---|---|"]
    lines += [f"| {name} | {kind} | {note} |" for name, (kind, note) in OTHERS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(to_markdown(), encoding="utf-8")
