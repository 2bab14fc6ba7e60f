"""
A pytest plugin for runs of ART's own tests: wherever a test of ART's makes a `PyTorchClassifier`, it gets the form that
the environment variable ART_FORM names. Tests of other frameworks need not find theirs.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from art.estimators.classification import PyTorchClassifier
from art.estimators.classification.classifier import InputFilter

from art_mmc import LossDefendedClassifier, accelerate

#: what ART's tests import on loading, though those for PyTorch do not need it
_ASKED = ("requests", "tensorflow", "keras", "pandas")


class _Absent:
    """While tests are collected an absent package is an empty one, in which any name is found."""

    names = [name for name in _ASKED if importlib.util.find_spec(name) is None]

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return a specification for an absent package and its parts."""
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.names else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None: an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Any name is an empty class; the version is that of a TensorFlow that ART knows."""
        module.__version__ = "2.0"  # type: ignore[attr-defined]
        module.__getattr__ = lambda name: type(name, (), {})  # type: ignore[method-assign]


_finder = _Absent()
sys.meta_path.append(_finder)  # type: ignore[arg-type]


def _art(*args: Any, **kwargs: Any) -> Any:
    return type.__call__(PyTorchClassifier, *args, **kwargs)


FORMS = {
    "art": _art,
    "loss": lambda *args, **kwargs: LossDefendedClassifier(*args, objective="loss", **kwargs),
    "default": LossDefendedClassifier,
    "accelerate": lambda *args, **kwargs: accelerate(_art(*args, **kwargs)),
}
_ROOT = Path.cwd().resolve()  # the checkout
_FORM = FORMS[os.environ.get("ART_FORM", "art")]


def _call(cls: type, *args: Any, **kwargs: Any) -> Any:
    """ART's own code goes on making its own class: an attack's private copy is no concern of a user's."""
    caller = Path(sys._getframe(1).f_code.co_filename).resolve()
    of_tests = _ROOT in caller.parents and _ROOT / "art" not in caller.parents
    return (_FORM if cls is PyTorchClassifier and of_tests else type.__call__.__get__(cls))(*args, **kwargs)


InputFilter.__call__ = _call  # type: ignore[method-assign, assignment]


def pytest_collection_finish() -> None:
    """Who asks for a package from now on is told the truth; tests that ask for no framework take PyTorch."""
    sys.modules["conftest"].get_default_framework = lambda: "pytorch"  # type: ignore[attr-defined]
    sys.meta_path.remove(_finder)  # type: ignore[arg-type]
    for name in [name for name in sys.modules if name.split(".")[0] in _finder.names]:
        del sys.modules[name]
