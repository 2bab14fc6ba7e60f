"""
Train defences under the same conditions and attack each: what `art-mmc compare` runs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from art_mmc.distributed import world
from art_mmc.evaluation import RobustnessRecord, check_radii, evaluate_robustness
from art_mmc.evaluation.codec import Record
from art_mmc.studies import setup
from art_mmc.studies.settings import Compare

#: samples that are attacked at once
_BATCH = 256


@dataclass(frozen=True, eq=False)
class DefenceResult(Record):
    """One defence in a comparison, with the seconds of its training and of the attacks."""

    defence: str
    backbone: str
    training_seconds: float
    evaluation_seconds: float
    robustness: RobustnessRecord


@dataclass(frozen=True, eq=False)
class Comparison(Record):
    """Defences trained and evaluated under the same conditions, which are plain data."""

    FORMAT = "art_mmc.comparison"

    provenance: dict[str, Any]
    results: tuple[DefenceResult, ...]

    @property
    def eps(self) -> tuple[float, ...]:
        """The radii at which all were attacked, ascending."""
        return self.results[0].robustness.eps


def prepare(settings: Compare, device_type: str = "cpu") -> setup.Job:
    """Train and attack all alike. It gives a :class:`Comparison`, and each :class:`DefenceResult` as it comes."""
    defences = settings.defence or list(setup.ORDER)
    dataset, recipe, backbone = setup.load_run(settings)
    for name in defences:
        setup.build_classifier(name, dataset, backbone)
    radii = check_radii(settings.eps or setup.default_eps(dataset))
    index = setup.choose_test_images(dataset, settings.nb_test, settings.seed)
    x, y = dataset.x_test[index], dataset.y_test[index]
    seed, verbose = settings.seed, not settings.quiet
    folder = Path(settings.output).expanduser()
    states = [folder / "state" / each for name in defences for each in (f"{name}.run", name)]
    begun = [path for path in (folder / "state").glob("*") if path.is_dir()]
    if any(any(path.iterdir()) for path in begun) and not (settings.resume or settings.overwrite):
        raise ValueError(
            f"{folder} holds an unfinished comparison: --resume goes on with it, --overwrite begins anew, another "
            "--output keeps it"
        )

    def run(on_result: Callable[[DefenceResult], None] | None = None) -> Comparison:
        results = []
        if not settings.resume and world().is_main:
            setup.clear_states(begun)
        for name in defences:
            state = folder / "state" / name
            kept = state.with_name(f"{name}.run")
            trained = setup.train_defence(
                name, dataset, recipe, backbone=backbone, folder=kept, **setup.told(settings, device_type)
            )
            start = time.perf_counter()
            robustness = evaluate_robustness(
                trained.classifier, x, y, radii, settings.steps, _BATCH, seed, verbose, state
            )
            results.append(DefenceResult(name, backbone, trained.seconds, time.perf_counter() - start, robustness))
            if on_result is not None:
                on_result(results[-1])
        conditions = {
            **setup.provenance(dataset, recipe, seed, trained.classifier.device),
            "backbone": backbone,
            "eps": list(results[0].robustness.eps),
            "steps": settings.steps,
            "n": len(index),
        }
        return Comparison(conditions, tuple(results))

    return setup.Job(
        dataset, folder, run, goes_on="the same command with --resume goes on", states=(*states, folder / "state")
    )
