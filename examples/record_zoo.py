"""
Puts a trained network into the package: `python examples/record_zoo.py mmc-mnist runs/mmc.pt`, where `art-mmc train`
wrote runs/mmc.pt and runs/mmc.json. It is attacked by the suite `strong`, and what that leaves is written on its card,
beside what is known of its training. The whole report goes to examples/results/evaluate-mmc-mnist. A killed run goes on
with the same command; one that is finished, in runs/mmc.strong, is not done again while network, radii and number of
images are the same. A network that is large for the package is packed smaller by `--bits 16`: rounded to so many
significant bits, and that is the network that is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_mmc import load_classifier, load_dataset
from art_mmc.classifiers import LossDefendedClassifier
from art_mmc.cli.verbs import evaluate
from art_mmc.data import DATASETS
from art_mmc.evaluation import RobustnessRecord
from art_mmc.evaluation.engine import norm_name
from art_mmc.evaluation.robustness import identity
from art_mmc.pretrained import FOLDER
from art_mmc.reports import json_bytes, load_robustness, write_robustness
from art_mmc.reports.tables import short_name
from art_mmc.state import write_atomically
from art_mmc.studies.flags import NUMBERS
from art_mmc.studies.history import beside
from art_mmc.studies.settings import Evaluate
from art_mmc.studies.setup import clean_accuracy

RESULTS = Path(__file__).resolve().parent / "results"


def rounded(source: Path, bits: int) -> Path:
    """Beside a checkpoint, one of its network with weights and statistics of so many significant bits."""
    classifier = load_classifier(source, device_type="cpu")
    for tensor in classifier.model.state_dict().values():
        if tensor.is_floating_point():
            mantissa, exponent = torch.frexp(tensor)
            tensor.copy_(torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent))
    target = beside(source, f".{bits}-bits.pt")
    classifier.save_checkpoint(target)
    return target


def compressed(source: Path) -> bytes:
    """A checkpoint with its entries deflated, the same bytes whenever it is made; torch reads it as it is."""
    target = Path(f"{source}.deflated")
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for entry in archive.infolist():
            out.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry), zipfile.ZIP_DEFLATED, compresslevel=9)
    content = target.read_bytes()
    target.unlink()
    return content


def fixed_inputs(input_shape: tuple[int, ...]) -> np.ndarray:
    """Inputs whose logits are on the card, (4, ...)."""
    return np.random.default_rng(0).random((4, *input_shape), dtype=np.float32)


def share(found: Any) -> dict[str, Any]:
    """A record's figure, plain data."""
    return {"n": found.n, "correct": found.correct, "accuracy": found.accuracy, "interval": list(found.interval)}


def evaluated(record: RobustnessRecord) -> dict[str, Any]:
    """What a card keeps of an evaluation."""
    kept = ("n", "dataset", "date", "device", "processor", "threads", "versions")
    return {
        "suite": record.suite,
        "seed": record.seed,
        "norm": norm_name(record.attacks[0].norm),
        **{key: record.provenance[key] for key in kept if key in record.provenance},
        "seconds": record.seconds,
        "clean": share(record.clean),
        "worst_case": [{"eps": eps, **share(record.worst_case(eps))} for eps in record.eps],
        "verdict": {"status": record.verdict.status, "reasons": list(record.verdict.reasons)},
    }


def measured(record: RobustnessRecord, classifier: LossDefendedClassifier, asked: Evaluate) -> bool:
    """Whether a report is of this network, at these radii, on so many images or all that there are."""
    facts = record.provenance
    return (
        facts["fingerprint"]["classifier"] == identity(classifier)
        and asked.eps in (None, list(record.eps))
        and record.clean.n in (asked.nb_test, facts["n_test"])
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="what the network is to be called, e.g. mmc-mnist")
    parser.add_argument("file", type=Path, help="what art-mmc train wrote")
    parser.add_argument("--trained-on", help="name of the data set (default: the stem of what the run was given)")
    parser.add_argument("--dataset", help="what it is attacked on (default: the package's sample of that)")
    parser.add_argument("--data-dir")
    parser.add_argument("--suite", default="strong")
    parser.add_argument("--eps", **{("type" if key == "kind" else key): value for key, value in NUMBERS.items()})
    parser.add_argument("--nb-test", type=int, default=1000)
    parser.add_argument("--bits", type=int, help="significant bits of each weight (default: all 24)")
    parser.add_argument("--package", type=Path, default=FOLDER, help="the package's folder of networks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    summary = json.loads(beside(args.file, ".json").read_text(encoding="utf-8"))
    summary["provenance"]["dataset"] = short_name(summary["provenance"]["dataset"])
    trained_on = args.trained_on or Path(summary["provenance"]["dataset"]).stem
    sample = f"{trained_on}-sample"
    source = rounded(args.file, args.bits) if args.bits else args.file
    work = beside(source, f".{args.suite}")
    dataset = args.dataset or (sample if sample in DATASETS else trained_on)
    settings = Evaluate(
        checkpoint=str(source),
        dataset=dataset,
        data_dir=args.data_dir,
        name=args.name,
        suite=args.suite,
        eps=args.eps,
        nb_test=args.nb_test,
        curves=0,
        device="cpu",
        threads=1,
        output=str(work),
    )
    classifier, report = load_classifier(source, device_type="cpu"), work / "report.json"
    if not (report.is_file() and measured(load_robustness(report), classifier, settings)):
        evaluate(settings)
    record = load_robustness(report)
    facts = {**record.provenance, "dataset": short_name(str(record.provenance["dataset"]))}
    record = replace(record, provenance=facts, inputs=None, examples=None, index=None)
    write_robustness(record, args.results / f"evaluate-{args.name}")
    content = compressed(source)
    if args.bits:
        summary["clean_test_accuracy"] = clean_accuracy(classifier, load_dataset(dataset, args.data_dir))
    packed = {"bits": args.bits} if args.bits else {}  # significant ones of each weight, where they are fewer
    card = {
        "format": "art_mmc.pretrained",
        "version": 1,
        "name": args.name,
        "dataset": trained_on,
        **summary,
        "file": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **packed},
        "logits": classifier.predict(fixed_inputs(classifier.input_shape)).tolist(),
        "evaluation": evaluated(record),
    }
    endings = {".pt": content, ".json": json_bytes(card)}
    files = write_atomically({args.package / f"{args.name}{ending}": each for ending, each in endings.items()})
    print(f"wrote {', '.join(map(str, files))}")


if __name__ == "__main__":
    main()
