"""
The patches for ART in this folder. `python examples/upstream/patches.py` writes anew those that are made of this
package's sources: a class with all that it needs of this package, as a file of ART's tree. Where ART's surroundings are
other than ours, a definition or method of the same name in `forms/` takes the place of the package's.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

LICENCE = """\
MIT License

Copyright (C) The Adversarial Robustness Toolbox (ART) Authors 2026

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE."""
HEADER = "\n".join(f"# {line}".rstrip() for line in LICENCE.splitlines()) + "\n"


@dataclass(frozen=True)
class Module:
    """
    A file for ART's tree.

    :param path: Where it goes.
    :param about: Its docstring.
    :param names: What it offers: `module:name` of this package, or of `forms/` as `forms.file:name`.
    :param form: File in `forms/` with what takes the place of the package's; "" for none.
    :param dropped: Methods that are left out, as `Class.method`.
    :param wording: Pieces of text and what they become, each once.
    """

    path: str
    about: str
    names: tuple[str, ...]
    form: str = ""
    dropped: tuple[str, ...] = ()
    wording: tuple[tuple[str, str], ...] = ()

    @property
    def import_name(self) -> str:
        """As Python imports it."""
        return self.path.removesuffix(".py").replace("/", ".")


@dataclass(frozen=True)
class Insertion:
    """
    Lines that join a file of ART's.

    :param path: The file.
    :param number: After which of its lines.
    :param before: That line, or several that end with it.
    :param added: The new lines.
    :param after: What follows; "" for the end of the file.
    """

    path: str
    number: int
    before: str
    added: str
    after: str = ""


@dataclass(frozen=True)
class Patch:
    """A patch that is made: files, insertions, and tests from `art_tests/` with their places."""

    modules: tuple[Module, ...]
    insertions: tuple[Insertion, ...]
    tests: dict[str, str] = field(default_factory=dict)


def _sections(last: bool = False, **classes: str) -> str:
    """Sections of a page of the docs: a blank line before the next one, or after the one before."""
    texts = [
        f"{title}\n{'-' * len(title)}\n.. autoclass:: {name}\n   :members:\n   :special-members:"
        for name, title in classes.items()
    ]
    return "\n".join(f"\n{text}" if last else f"{text}\n" for text in texts)


def _torch(*imports: str) -> str:
    """Imports of a package's `__init__` that need torch, as ART has it for numba."""
    lines = [f"    from {module} import {name}" for module, name in (each.split(":") for each in imports)]
    return "\n".join(['if importlib.util.find_spec("torch") is not None:', *lines])


_EVASION, _TRAINERS = "art.attacks.evasion", "art.defences.trainer"
_CLASSIFIERS, _DETECTORS = "art.estimators.classification", "art.defences.detector.evasion"
_MMC = f"{_CLASSIFIERS}.max_mahalanobis_pytorch"


def _file(module: str, name: str = "__init__") -> str:
    return f"{module.replace('.', '/')}/{name}.py"


MADE: dict[str, Patch] = {
    "spsa": Patch(
        (
            Module(
                _file(_EVASION, "spsa"),
                "SPSA, an attack by queries alone, with gradients estimated by simultaneous perturbation stochastic\n"
                "approximation.\n\n| Paper link: https://arxiv.org/abs/1802.05666",
                ("art_mmc.attacks.spsa:SPSA",),
                "spsa",
                wording=(
                    ("str | Objective", "str | Callable[[np.ndarray, np.ndarray], np.ndarray]"),
                    ("a name in :data:`.OBJECTIVES`, or", 'the name "margin", or'),
                    ("values (M,) on tensors in the CPU's memory, float64 and int64,", "values (M,) on arrays,"),
                ),
            ),
        ),
        (
            Insertion(
                _file(_EVASION),
                64,
                f"from {_EVASION}.spatial_transformation import SpatialTransformation",
                f"from {_EVASION}.spsa import SPSA",
                f"from {_EVASION}.steal_now_attack_later.steal_now_attack_later import SNAL",
            ),
            Insertion(
                "docs/modules/attacks/evasion.rst",
                310,
                "   :special-members:\n",
                _sections(SPSA="Simultaneous Perturbation Stochastic Approximation (SPSA)"),
                "Steal Now Attack Later Attack\n-----------------------------",
            ),
        ),
        {"test_spsa.py": "tests/attacks/evasion/test_spsa.py"},
    ),
    "auto_attack": Patch(
        (
            Module(
                _file(_EVASION, "white_box_pytorch"),
                "what attacks by gradients on PyTorch tensors share: labels and targets, restarts, batches\n"
                "that are packed again, balls and boxes.",
                ("art_mmc.attacks.white_box:WhiteBoxAttack",),
                "white_box",
            ),
            Module(
                _file(_EVASION, "auto_pgd_pytorch"),
                "APGD on any objective, towards several classes in turn.\n\n"
                "| Paper link: https://arxiv.org/abs/2003.01690",
                ("art_mmc.attacks.auto_pgd:AutoPGD",),
            ),
            Module(
                _file(_EVASION, "fast_adaptive_boundary"),
                "FAB, the fast adaptive boundary attack.\n\n| Paper link: https://arxiv.org/abs/1907.02044",
                ("art_mmc.attacks.fast_adaptive_boundary:FastAdaptiveBoundary",),
            ),
            Module(
                _file(_EVASION, "auto_attack_standard"),
                "the standard version of AutoAttack: APGD on the cross-entropy, targeted APGD, targeted FAB\n"
                "and Square, in sequence.\n\n| Paper link: https://arxiv.org/abs/2003.01690",
                ("art_mmc.attacks.auto_attack:AutoAttackStandard",),
                "auto_attack",
            ),
        ),
        (
            Insertion(
                _file(_EVASION),
                18,
                f"from {_EVASION}.rescaling_auto_conjugate_gradient import RescalingAutoConjugateGradient\n",
                _torch(
                    f"{_EVASION}.auto_attack_standard:AutoAttackStandard",
                    f"{_EVASION}.auto_pgd_pytorch:AutoPGD",
                    f"{_EVASION}.fast_adaptive_boundary:FastAdaptiveBoundary",
                )
                + "\n",
                'if importlib.util.find_spec("numba") is not None:',
            ),
            Insertion(
                "docs/modules/attacks/evasion.rst",
                40,
                ".. autoclass:: AutoAttack\n   :members:\n   :special-members:\n",
                _sections(
                    AutoAttackStandard="Auto Attack, standard version",
                    AutoPGD="APGD on any objective and towards targets",
                    FastAdaptiveBoundary="Fast Adaptive Boundary Attack (FAB)",
                ),
                "Auto Projected Gradient Descent (Auto-PGD)\n------------------------------------------",
            ),
        ),
        {"test_auto_attack_standard.py": "tests/attacks/evasion/test_auto_attack_standard.py"},
    ),
    "max_mahalanobis": Patch(
        (
            Module(
                _file(_CLASSIFIERS, "max_mahalanobis_pytorch"),
                "the Max-Mahalanobis center loss, its centers, and the classifier that has them.\n\n"
                "| Paper link: https://arxiv.org/abs/1905.10626",
                ("art_mmc.losses.max_mahalanobis:MMCLoss", "forms.max_mahalanobis:MaxMahalanobisClassifier"),
            ),
            Module(
                _file(_TRAINERS, "max_mahalanobis_trainer_pytorch"),
                "training on the Max-Mahalanobis center loss, alone or with adversarial examples.\n\n"
                "| Paper link: https://arxiv.org/abs/1905.10626",
                ("forms.max_mahalanobis_trainer:MaxMahalanobisTrainer",),
            ),
        ),
        (
            Insertion(
                _file(_CLASSIFIERS),
                24,
                f"from {_CLASSIFIERS}.xgboost import XGBoostClassifier",
                "\nimport importlib\n\n" + _torch(f"{_MMC}:MaxMahalanobisClassifier"),
            ),
            Insertion(
                _file(_TRAINERS),
                18,
                f"from {_TRAINERS}.dp_instahide_trainer import DPInstaHideTrainer",
                f"from {_TRAINERS}.max_mahalanobis_trainer_pytorch import MaxMahalanobisTrainer",
            ),
            Insertion(
                "docs/modules/estimators/classification.rst",
                80,
                ".. autoclass:: GPyGaussianProcessClassifier\n   :members:\n   :special-members: __init__\n"
                "   :inherited-members:",
                _sections(last=True, MaxMahalanobisClassifier="Max-Mahalanobis Center Classifier - PyTorch"),
            ),
            Insertion(
                "docs/modules/defences/trainer.rst",
                69,
                ".. autoclass:: DPInstaHideTrainer\n   :members:\n   :special-members:",
                _sections(last=True, MaxMahalanobisTrainer="Max-Mahalanobis Center Training - PyTorch"),
            ),
        ),
        {"test_max_mahalanobis.py": "tests/defences/trainer/test_max_mahalanobis_trainer_pytorch.py"},
    ),
    "detectors": Patch(
        (
            Module(
                _file(_DETECTORS, "score_detector"),
                "what detectors by a score share: features and logits, the threshold, ART's contract.",
                ("art_mmc.detectors.base:ScoreDetector",),
                "detectors",
                ("ScoreDetector.forward", "ScoreDetector.network"),
                (
                    ("a :class:`.LossDefendedClassifier` or any", "any"),
                    (
                        "name of any module of the network, or index of a direct child. None for\n"
                        "               the embedding, which the networks of this package's classifiers have.",
                        "name or index of a layer, as in `get_activations`.",
                    ),
                ),
            ),
            Module(
                _file(_DETECTORS, "kernel_density_detector"),
                "detection by the kernel density of features.\n\n"
                "| Paper link: https://arxiv.org/abs/1706.00633\n| Paper link: https://arxiv.org/abs/1703.00410",
                ("art_mmc.detectors.density:KernelDensityDetector",),
                wording=(("; None for the embedding of this package's networks.", ": name or index of a layer."),),
            ),
            Module(
                _file(_DETECTORS, "non_maximal_entropy_detector"),
                "detection by the confidence and by the non-maximal entropy.\n\n"
                "| Paper link: https://arxiv.org/abs/1706.00633",
                ("art_mmc.detectors.confidence:NonMaximalEntropyDetector",),
            ),
        ),
        (
            Insertion(
                _file(_DETECTORS),
                9,
                f"from {_DETECTORS}.beyond_detector import BeyondDetectorPyTorch",
                "\nimport importlib\n\n"
                + _torch(
                    f"{_DETECTORS}.kernel_density_detector:KernelDensityDetector",
                    f"{_DETECTORS}.non_maximal_entropy_detector:ConfidenceDetector",
                    f"{_DETECTORS}.non_maximal_entropy_detector:NonMaximalEntropyDetector",
                ),
            ),
            Insertion(
                "docs/modules/defences/detector_evasion.rst",
                28,
                ".. autoclass:: SubsetScanningDetector\n   :members:",
                _sections(
                    last=True,
                    KernelDensityDetector="Kernel Density Detector",
                    ConfidenceDetector="Confidence Detector",
                    NonMaximalEntropyDetector="Non-Maximal Entropy Detector",
                ),
            ),
        ),
        {"test_score_detectors.py": "tests/defences/detector/evasion/test_score_detectors.py"},
    ),
}

#: name -> what it brings; in this order they can all be applied to one checkout; those not made are written by hand
PATCHES = {
    "pytorch_classifier": "`PyTorchClassifier` with gradients of the inputs alone, one backward pass for a label a "
    "sample, predictions over slices",
    "spsa": "SPSA, an attack by queries",
    "auto_attack": "FAB, APGD on any objective and towards targets, the complete AutoAttack",
    "corrections": "DLR with a guarded denominator and no loop, an AutoAttack that takes no crash for robustness, "
    "TRADES on an `nn.Sequential`",
    "max_mahalanobis": "MMC: loss, centers, classifier, trainer",
    "detectors": "kernel density, non-maximal entropy, confidence",
}


class Source:
    """A file's definitions and imports by name."""

    def __init__(self, name: str) -> None:
        path = HERE / "forms" / f"{name[6:]}.py" if name.startswith("forms.") else ROOT / f"{name.replace('.', '/')}.py"
        self.name = name
        self.lines = path.read_text(encoding="utf-8").splitlines()
        self.definitions: dict[str, ast.stmt] = {}
        #: name -> module, name there ("" for the module itself), for type checkers alone
        self.imports: dict[str, tuple[str, str, bool]] = {}
        for node in ast.parse("\n".join(self.lines)).body:
            checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for each in node.body if checking else [node]:
                if isinstance(each, ast.ImportFrom) and each.module != "__future__":
                    for alias in each.names:
                        self.imports[alias.asname or alias.name] = (str(each.module), alias.name, checking)
                elif isinstance(each, ast.Import):
                    for alias in each.names:
                        self.imports[alias.asname or alias.name] = (alias.name, "", checking)
                elif isinstance(each, (ast.FunctionDef, ast.ClassDef)):
                    self.definitions[each.name] = each
                elif isinstance(each, (ast.Assign, ast.AnnAssign)):
                    targets = each.targets if isinstance(each, ast.Assign) else [each.target]
                    for target in [name for top in targets for name in ast.walk(top)]:
                        if isinstance(target, ast.Name):
                            self.definitions[target.id] = each

    def text(self, node: ast.stmt) -> str:
        """A definition as it stands, with its decorators and the comments above it."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(each.lineno for each in decorators)]) - 1
        while first and self.lines[first - 1].strip().startswith("#"):
            first -= 1
        return "\n".join(self.lines[first : node.end_lineno])


def _with_parts(source: Source, node: ast.ClassDef, form: Source, part: ast.ClassDef, dropped: set[str]) -> str:
    """A class whose methods give way to those of the same name in a part, or to none; new ones join it at the end."""
    lines = list(source.lines)
    methods = {each.name: form.text(each) for each in part.body if isinstance(each, ast.FunctionDef)}
    gone = {*methods, *(name.split(".")[1] for name in dropped if name.split(".")[0] == node.name)}
    for each in reversed(node.body):
        if isinstance(each, ast.FunctionDef) and each.name in gone:
            first = min([each.lineno, *(mark.lineno for mark in each.decorator_list)]) - 1
            new = methods.pop(each.name, None)
            last = each.end_lineno or 0
            if new is None:  # with the blank line behind it
                last += last < len(lines) and not lines[last].strip()
            lines[first:last] = [] if new is None else new.splitlines()
    tail = len(source.lines) - (node.end_lineno or 0)
    text = "\n".join(lines[node.lineno - 1 : len(lines) - tail])
    return "\n\n".join([text.rstrip(), *methods.values()])


def _names(text: str) -> set[str]:
    """What a definition takes from outside, its functions' own variables left out."""
    found = set()

    def visit(node: ast.AST, local: set[str]) -> None:
        if isinstance(node, ast.FunctionDef):
            inside = list(ast.walk(node))
            local = local | {each.arg for each in inside if isinstance(each, ast.arg)}
            local |= {each.id for each in inside if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
        if isinstance(node, ast.Name) and node.id not in local:
            found.add(node.id)
        for child in ast.iter_child_nodes(node):
            visit(child, local)

    visit(ast.parse(text), set())
    return found


class _Flat:
    """One file for ART's tree, put together."""

    def __init__(self, module: Module, provided: dict[str, str]) -> None:
        self.module, self.provided = module, provided
        self.sources: dict[str, Source] = {}
        self.form = self._source(f"forms.{module.form}") if module.form else None
        self.order: list[str] = []  # modules, those that are needed first first
        self.found: dict[tuple[str, int], str] = {}  # module and line -> text
        self.defined: set[str] = set()
        self.imports: set[tuple[str, str, str, bool]] = set()
        self.unused = {old for old, _ in module.wording}
        for each in module.names:
            self._want(*each.split(":"))
        if self.unused:
            raise ValueError(f"{module.path}: not found in the sources: {sorted(self.unused)}")

    def _source(self, name: str) -> Source:
        if name not in self.sources:
            self.sources[name] = Source(name)
        return self.sources[name]

    def _want(self, home: str, name: str) -> None:
        source = self._source(home)
        node = source.definitions[name]
        if (home, node.lineno) in self.found:
            return
        self.found[home, node.lineno] = ""
        self.defined.add(name)
        text, sources = source.text(node), [source]
        if self.form is not None and self.form is not source and name in self.form.definitions:
            put = self.form.definitions[name]
            sources.append(self.form)
            text = self.form.text(put)
            if isinstance(node, ast.ClassDef) and isinstance(put, ast.ClassDef) and ast.get_docstring(put) == "part":
                text = _with_parts(source, node, self.form, put, set(self.module.dropped))
            else:
                sources = [self.form]
        for old, new in self.module.wording:
            if old in text:
                self.unused.discard(old)
                text = text.replace(old, new)
        for used in sorted(_names(text)):
            self._use(used, sources)
        if home not in self.order:
            self.order.append(home)
        self.found[home, node.lineno] = text

    def _use(self, name: str, sources: list[Source]) -> None:
        if name in self.provided:
            self.imports.add((self.provided[name], name, name, False))
            return
        for source in sources:
            if name in source.definitions:
                self._want(source.name, name)
                return
        for source in sources:
            if name in source.imports:
                module, original, checking = source.imports[name]
                if module.split(".")[0] in ("art_mmc", "forms"):
                    self._want(module, original)
                    users = [self.order.index(each.name) for each in sources if each.name in self.order]
                    if users and module in self.order[min(users) :]:  # what a base needs stands before it
                        self.order.remove(module)
                        self.order.insert(min(users), module)
                else:
                    self.imports.add((module, original, name, checking))
                return

    def text(self) -> str:
        runtime = {each[:3] for each in self.imports if not each[3]}
        checking = {each[:3] for each in self.imports if each[3]} - runtime
        if checking:
            runtime.add(("typing", "TYPE_CHECKING", "TYPE_CHECKING"))
        groups = [_imports({each for each in runtime if _rank(each[0]) == rank}) for rank in range(3)]
        if checking:
            groups.append("if TYPE_CHECKING:\n" + "\n".join("    " + line for line in _imports(checking).splitlines()))
        about = f'"""\nThis module implements {self.module.about}\n"""\n'
        future = "from __future__ import absolute_import, division, print_function, unicode_literals, annotations\n"
        parts = [HEADER + about, future, *(f"{group}\n" for group in groups if group)]
        body, last = "", "="
        texts = [self.found[key] for key in sorted(self.found, key=lambda key: (self.order.index(key[0]), key[1]))]
        for text in dict.fromkeys(texts):
            kind = "d" if any(line.startswith(("def ", "class ", "@")) for line in text.splitlines()) else "="
            body += ("\n" if last == kind == "=" else "\n\n") * bool(body) + text + "\n"
            last = kind
        first_is_long = body.startswith(("def ", "class ", "@"))
        result = "\n".join(parts) + ("\n\n" if first_is_long else "\n") + body
        if "art_mmc" in result:
            left = next(line for line in result.splitlines() if "art_mmc" in line)
            raise ValueError(f"{self.module.path}: still of this package: {left.strip()}")
        ast.parse(result)
        return result


def _rank(module: str) -> int:
    root = module.split(".")[0]
    return 2 if root == "art" else 0 if root in sys.stdlib_module_names else 1


def _imports(wanted: set[tuple[str, str, str]]) -> str:
    whole = [f"import {module}" + (f" as {name}" if name != module else "") for module, o, name in wanted if not o]
    homes: dict[str, set[str]] = {}
    for module, original, name in wanted:
        if original:
            homes.setdefault(module, set()).add(original if original == name else f"{original} as {name}")
    lines = sorted(whole) + [f"from {module} import {', '.join(sorted(homes[module]))}" for module in sorted(homes)]
    return "\n".join(
        line if len(line) <= 120 else line.replace(" import ", " import (\n    ").replace(", ", ",\n    ") + ",\n)"
        for line in lines
    )


def _new_file(path: str, text: str) -> str:
    lines = text.splitlines()
    head = (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n"
    )
    return head + "".join(f"+{line}\n" for line in lines)


def _hunk(insertion: Insertion) -> str:
    before, added, after = (
        text.split("\n") if text else [] for text in (insertion.before, insertion.added, insertion.after)
    )
    first = max(1, insertion.number - len(before) + 1)
    old, new = len(before) + len(after), len(before) + len(added) + len(after)
    lines = [*(f" {line}" for line in before), *(f"+{line}" for line in added), *(f" {line}" for line in after)]
    path = insertion.path
    head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -{first},{old} +{first},{new} @@\n"
    return head + "\n".join(lines) + "\n"


def made(name: str) -> str:
    """The text of a patch that is made."""
    patch = MADE[name]
    provided: dict[str, str] = {}
    parts = []
    for module in patch.modules:
        flat = _Flat(module, provided)
        parts.append(_new_file(module.path, flat.text()))
        provided = {**provided, **dict.fromkeys(flat.defined - {"logger"}, module.import_name)}
    parts += [_hunk(each) for each in patch.insertions]
    tests = {place: (HERE / "art_tests" / file).read_text(encoding="utf-8") for file, place in patch.tests.items()}
    return "".join([*parts, *(_new_file(place, text) for place, text in tests.items())])


def copy_of_art(folder: Path) -> None:
    """Put a copy of the installed ART into a folder, as a checkout has it: `folder/art`."""
    spec = find_spec("art")
    assert spec is not None
    assert spec.submodule_search_locations
    shutil.copytree(
        spec.submodule_search_locations[0], folder / "art", ignore=shutil.ignore_patterns("__pycache__", "*.ipynb")
    )


def apply(name: str, folder: Path, *options: str) -> None:
    """Apply a patch, without its part for the docs, to a copy of ART; CalledProcessError when it does not apply."""
    command = ["git", "apply", "--exclude=docs/*", *options, str(HERE / f"{name}.patch")]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def table() -> str:
    """The README's table: what each patch brings, and its size."""
    rows = ["| | patch | what it brings | new lines | of them tests | files of ART that change |"]
    rows.append("|---|---|---|---:|---:|---:|")
    for letter, (name, what) in zip("abcdef", PATCHES.items(), strict=True):
        added = {"tests": 0, "other": 0}
        kind, changed = "other", 0
        for line in (HERE / f"{name}.patch").read_text(encoding="utf-8").splitlines():
            if line.startswith("+++ "):
                kind = "tests" if line.startswith("+++ b/tests/") else "other"
            elif line.startswith("--- a/"):
                changed += 1
            elif line.startswith("+"):
                added[kind] += 1
        rows.append(f"| ({letter}) | `{name}` | {what} | {sum(added.values())} | {added['tests']} | {changed} |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """The README's text with the table as it is now."""
    head, _, rest = text.partition("<!-- table -->\n")
    return f"{head}<!-- table -->\n{table()}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


if __name__ == "__main__":
    for each in MADE:
        (HERE / f"{each}.patch").write_text(made(each), encoding="utf-8")
    (HERE / "README.md").write_text(with_table((HERE / "README.md").read_text(encoding="utf-8")), encoding="utf-8")
