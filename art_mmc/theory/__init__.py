"""
What the papers explain their losses by, as functions and as measurements on a trained network: sample density (MMC),
distances to the boundaries (MMLDA), probability gaps and the classes that attacks land on (PC), the bounds of reverse
cross-entropy (RCE), and features in the plane.

Everything works on arrays: features (N, d), logits (N, K), labels (N,). :func:`features_and_logits` takes them from any
ART `PyTorchClassifier`; :func:`inspect_classifier` measures all of it at once, as `art-mmc inspect` does.
"""

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
from art_mmc.theory.history import read_history
from art_mmc.theory.inspection import Inspection, inspect_classifier
from art_mmc.theory.pictures import convergence_figure, feature_figure, figure_png, rank_figure
from art_mmc.theory.probability import probability_gap, reverse_prediction_bounds, reverse_training_error
from art_mmc.theory.ranks import RankStudy, landing_ranks, rank_study
from art_mmc.theory.report import write_inspection

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
