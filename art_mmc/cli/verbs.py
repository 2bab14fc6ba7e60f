"""
The commands, one function each. torch and ART are imported inside them, so that help and errors of usage come at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from art_mmc.cli.run import check_writable, cpu_threads, find_device, page, run_verb, user_errors
from art_mmc.studies.flags import add_flags
from art_mmc.studies.settings import Bench, Compare, Detect, Evaluate, Inspect, Listing, Report, Reproduce, Train

if TYPE_CHECKING:
    from art_mmc.evaluation import RobustnessRecord
    from art_mmc.evaluation.detection import DetectionRecord
    from art_mmc.studies.compare import Comparison
    from art_mmc.studies.inspect import Inspections
    from art_mmc.studies.train import Run


def compare(settings: Compare) -> int:
    from art_mmc.reports import flattery_sentences, text_table, write_report
    from art_mmc.reports.render import told
    from art_mmc.studies.compare import prepare

    def text(comparison: Comparison) -> str:
        table = text_table(comparison, shutil.get_terminal_size((120, 24)).columns)
        return "\n".join([table, "", *flattery_sentences(comparison)])

    return run_verb(settings, prepare, write_report, text, partial(told, "compare"))


def train(settings: Train) -> int:
    from art_mmc.geometry import largest_cosine
    from art_mmc.heads import FixedCentersHead
    from art_mmc.reports import history_table
    from art_mmc.reports.render import told
    from art_mmc.studies.train import prepare, write

    def text(found: Run) -> str:
        lines = []
        if not settings.quiet:
            lines.append(history_table(found.trained.history))
            head = found.trained.classifier.model.head
            if isinstance(head, FixedCentersHead):
                cosine = largest_cosine(head.centers)
                lines.append(
                    f"{head.nb_classes} fixed centers in {head.in_features} dimensions, largest cosine {cosine:.3f}"
                )
        stood = [record.get("val_robust_accuracy") for record in found.trained.history]
        share = stood[-1] if stood[-1] is None or settings.keep == "last" else max(each or 0 for each in stood)
        clean, seconds = found.summary["clean_test_accuracy"], found.trained.seconds
        lines.append(told("train", settings.defence, clean, seconds, share))
        return "\n".join(lines)

    return run_verb(settings, prepare, write, text)


def evaluate(settings: Evaluate) -> int:
    from art_mmc.reports import record_text, write_robustness
    from art_mmc.studies.evaluate import prepare

    return run_verb(settings, prepare, write_robustness, record_text, status=partial(_failed, settings=settings))


def _failed(record: RobustnessRecord, settings: Evaluate) -> int:
    """The exit status for --fail-under."""
    from art_mmc.evaluation import FIRST_LOOK, HOLDS
    from art_mmc.reports import format_eps

    least, fewest = settings.fail_under, settings.min_n
    if least is None:
        return 0
    eps, n = record.eps[-1], record.clean.n
    worst = record.worst_case(eps).accuracy
    status = None if record.verdict is None else record.verdict.status
    problems = [f"the worst case at eps {format_eps(eps)} is {worst:.3f}"] if worst < least else []
    if n < fewest:
        problems.append(f"{n} images say too little, at least {fewest} are needed (--min-n)")
    if status not in (FIRST_LOOK, HOLDS):
        problems.append("there is no verdict" if status is None else f"the verdict is {status}")
    print(f"--fail-under {least:g}: {'failed, ' + ' and '.join(problems) if problems else 'passed'}")
    return 1 if problems else 0


def report(settings: Report) -> None:
    from art_mmc.reports.rewrite import rewrite

    with user_errors():
        output = Path(settings.output).expanduser()
        check_writable(output)
        text, files = rewrite([Path(path).expanduser() for path in settings.records], output)
    print(text)
    print(f"wrote {', '.join(map(str, files))}")


def reproduce(settings: Reproduce) -> int:
    from art_mmc.published import PUBLISHED
    from art_mmc.reports import detect, paper_text, write_reproduction
    from art_mmc.reports.render import told
    from art_mmc.studies.reproduce import prepare

    if settings.table in PUBLISHED and PUBLISHED[settings.table].detection:
        return run_verb(settings, prepare, detect.write_report, detect.text_table)
    return run_verb(settings, prepare, write_reproduction, paper_text, partial(told, "reproduce"))


def detect(settings: Detect) -> int:
    from art_mmc.reports import format_percent
    from art_mmc.reports.detect import text_table, title, write_report
    from art_mmc.studies.detect import prepare

    def line(classifier: str, attack: str, records: list[DetectionRecord]) -> str:
        areas = [(title(record.detector), record.auc()) for record in records]
        text = ", ".join(f"{name} {'-' if area is None else format_percent(area.value)}" for name, area in areas)
        seconds = sum({id(record.settings): record.seconds for record in records}.values())
        left = format_percent(min(record.adversarial_correct.mean() for record in records))
        return f"{classifier}, {attack}: {left} % still correct; AUC x 100: {text} ({seconds:.1f} s)"

    return run_verb(settings, prepare, write_report, text_table, line)


def inspect(settings: Inspect) -> int:
    from art_mmc.reports.inspect import write_inspection
    from art_mmc.reports.render import told
    from art_mmc.studies.inspect import prepare

    def write(found: Inspections, folder: Path) -> list[Path]:
        return write_inspection(folder=folder, **found._asdict())

    return run_verb(settings, prepare, write, lambda found: "", partial(told, "inspect"))


def bench(settings: Bench) -> None:
    from art_mmc.bench import Settings, run_bench, select, write_bench
    from art_mmc.bench.report import BENCH_JSON, BENCH_MD, GROWTH_PNG, bench_text, conditions, curves_text
    from art_mmc.reports.write import check_report

    with user_errors():
        device_type = find_device(settings.device)
        select(settings.only)
        folder = None if settings.output is None else Path(settings.output).expanduser()
        if folder is not None:
            check_writable(folder)
            check_report(folder, (BENCH_JSON, BENCH_MD, GROWTH_PNG))
    on_gpu = device_type != "cpu"
    sizes = Settings(
        device_type=device_type,
        quick=settings.quick,
        bfloat16=on_gpu if settings.precision is None else settings.precision == "bfloat16",
        compile=on_gpu if settings.compile is None else settings.compile,
    )
    with cpu_threads(settings.threads):
        found = run_bench(
            settings.only,
            sizes,
            settings.rounds,
            on_rows=lambda rows: print(f"{bench_text(rows)}\n{rows[0].job}; {rows[0].note}\n", flush=True),
            on_result=lambda so_far: None if folder is None else write_bench(so_far, folder),
        )
    if found["growth"]:
        print(curves_text(found["growth"]) + "\n")
    print(conditions(found))
    if folder is not None:
        with user_errors():
            for path in write_bench(found, folder):
                print(f"wrote {path}")


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    from art_mmc.reports.tables import text_rows

    print(text_rows(rows[0], rows[1:], left=len(rows[0]), rule=False))


def defences(settings: Listing) -> None:
    from art_mmc.defences import DEFENCES

    _print_rows([(row.name, row.title, f"{row.paper}, {row.link}") for row in DEFENCES.values()])


def recipes(settings: Listing) -> None:
    from art_mmc.trainers import RECIPES

    told = ((each, f"{each.nb_epochs} epochs, batches of {each.batch_size}") for each in RECIPES.values())
    _print_rows([(each.name, length, each.backbone, each.description) for each, length in told])


def backbones(settings: Listing) -> None:
    from art_mmc.models import BACKBONES

    _print_rows([(name, row.description) for name, row in BACKBONES.items()])


def zoo(settings: Listing) -> None:
    from art_mmc.reports.pretrained import pretrained_note, pretrained_table

    with user_errors():
        print(f"{pretrained_table('text')}\n\n{pretrained_note()}")


class Verb(NamedTuple):
    """A command, which is called as its function; what help and errors of usage say, None for argparse's own words."""

    run: Callable[[Any], int | None]
    settings: type
    help: str
    usage: str | None = None


VERBS = (
    Verb(compare, Compare, "train and attack defences, write a report", "[options]"),
    Verb(train, Train, "train one defence, write it to a file", "--defence NAME [options]"),
    Verb(evaluate, Evaluate, "attack a trained network, give a verdict, write a report", "CHECKPOINT [options]"),
    Verb(report, Report, "make reports again from their JSON", "RECORD.json [RECORD.json ...] --output DIR"),
    Verb(
        reproduce,
        Reproduce,
        "a paper's table once more, beside the published figures",
        "TABLE --data-dir DIR [options]",
    ),
    Verb(detect, Detect, "fit and attack detectors of adversarial examples, write a report", "[options]"),
    Verb(
        inspect,
        Inspect,
        "measure the theory on trained networks, write a report",
        "CHECKPOINT [CHECKPOINT ...] [options]",
    ),
    Verb(bench, Bench, "measure speed and memory beside ART's, on this machine"),
    Verb(defences, Listing, "list the defences"),
    Verb(recipes, Listing, "list the papers' hyper-parameters"),
    Verb(backbones, Listing, "list the networks"),
    Verb(zoo, Listing, "list the trained networks of the package"),
)


def add_verb(commands: Any, verb: Verb) -> None:
    """Add a verb's command, which has a page of its name unless it only lists what there is."""
    name, text = verb.run.__name__, verb.help
    told = {"description": f"{text[0].upper()}{text[1:]}."} if verb.settings is Listing else page(name)
    usage = verb.usage and f"art-mmc {name} {verb.usage}"
    parser = commands.add_parser(name, help=text, usage=usage, **told)
    add_flags(parser, verb.settings)
    parser.set_defaults(settings=verb.settings, run=verb.run)
