"""
What the papers explain their losses by, as functions and as measurements on a trained network: sample density (MMC),
distances to the boundaries (MMLDA), probability gaps and the classes that attacks land on (PC), the bounds of reverse
cross-entropy (RCE), and features in the plane.

Everything works on arrays: features (N, d), logits (N, K), labels (N,). :func:`features_and_logits` takes them from any
ART `PyTorchClassifier`; :func:`inspect_classifier` measures all of it at once, as `art-mmc inspect` does.
"""

import importlib
from typing import TYPE_CHECKING, Any

from art_mmc.theory.boundary import (
    approximate_robustness_bound,
    boundary_distances,
    expected_boundary_distance,
    lda_boundaries,
    mahalanobis_distances,
    mean_boundary_distances,
    robustness_bound,
    robustness_limit,
    within_class_covariance,
)
from art_mmc.theory.density import (
    compactness_ratio,
    contour_shell_density,
    contour_sphere,
    density_exponent,
    feature_scale,
    g_sce_log_density,
    knn_density,
    mmc_log_density,
)
from art_mmc.theory.embedding import FeatureMap, map_features
from art_mmc.theory.features import FeatureError, class_means, features_and_logits, head_centers, head_weights
from art_mmc.theory.probability import probability_gap, reverse_prediction_bounds, reverse_training_error
from art_mmc.theory.ranks import RankStudy, landing_ranks, rank_study

if TYPE_CHECKING:  # the same names as in _HOMES, for type checkers and editors
    from art_mmc.reports.figures.inspect import convergence_figure as convergence_figure
    from art_mmc.reports.figures.inspect import feature_figure as feature_figure
    from art_mmc.reports.figures.inspect import rank_figure as rank_figure
    from art_mmc.reports.figures.style import figure_png as figure_png
    from art_mmc.reports.inspect import write_inspection as write_inspection
    from art_mmc.studies.history import read_history as read_history
    from art_mmc.studies.inspect import Inspection as Inspection
    from art_mmc.studies.inspect import inspect_classifier as inspect_classifier


#: public names of the floors above, handed out when they are first used -> where they live
_HOMES = {
    "Inspection": "art_mmc.studies.inspect",
    "convergence_figure": "art_mmc.reports.figures.inspect",
    "feature_figure": "art_mmc.reports.figures.inspect",
    "figure_png": "art_mmc.reports.figures.style",
    "inspect_classifier": "art_mmc.studies.inspect",
    "rank_figure": "art_mmc.reports.figures.inspect",
    "read_history": "art_mmc.studies.history",
    "write_inspection": "art_mmc.reports.inspect",
}

__all__ = [
    "FeatureError",
    "FeatureMap",
    "Inspection",
    "RankStudy",
    "approximate_robustness_bound",
    "boundary_distances",
    "class_means",
    "compactness_ratio",
    "contour_shell_density",
    "contour_sphere",
    "convergence_figure",
    "density_exponent",
    "expected_boundary_distance",
    "feature_figure",
    "feature_scale",
    "features_and_logits",
    "figure_png",
    "g_sce_log_density",
    "head_centers",
    "head_weights",
    "inspect_classifier",
    "knn_density",
    "landing_ranks",
    "lda_boundaries",
    "mahalanobis_distances",
    "map_features",
    "mean_boundary_distances",
    "mmc_log_density",
    "probability_gap",
    "rank_figure",
    "rank_study",
    "read_history",
    "reverse_prediction_bounds",
    "reverse_training_error",
    "robustness_bound",
    "robustness_limit",
    "within_class_covariance",
    "write_inspection",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'art_mmc.theory' has no attribute '{name}'")
