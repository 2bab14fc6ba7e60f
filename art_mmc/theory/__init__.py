"""
What the papers explain their losses by, as functions and as measurements on a trained network: sample density (MMC),
distances to the boundaries (MMLDA), probability gaps and the classes that attacks land on (PC), the bounds of reverse
cross-entropy (RCE), and features in the plane.

Everything works on arrays: features (N, d), logits (N, K), labels (N,). :func:`features_and_logits` takes them from any
ART `PyTorchClassifier`; :func:`inspect_classifier` measures all of it at once, as `art-mmc inspect` does.
"""

from art_mmc._attach import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
