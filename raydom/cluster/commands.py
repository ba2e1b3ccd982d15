"""What each command of the command line does; returns its exit code: 0, or 1 when a part of the work failed.

Each imports what it needs when it is called, so that no command waits for the libraries of another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from raydom import commands
from raydom.storage import files

if TYPE_CHECKING:
    from raydom.config import TrainRunConfig
    from raydom.inference.runner import JobReport
    from raydom.search.problem import Problem
    from raydom.search.trials import Outcome

FAILURES_SHOWN = 20
RATES_SHOWN = 25
IMAGES_DRAWN_HERE = 500
"""Up to so many synthetic images are drawn in this process: Ray takes longer to start."""
FILES_READ_HERE = 32
"""Up to so many files are ingested in this process: Ray takes longer to start."""


def ingest(config: commands.IngestConfig) -> int:
    """Read image files into a collection."""
    from raydom.inference.progress import ProgressReport
    from raydom.ingestion.file import IngestOutcome
    from raydom.ingestion.plan import IngestTask
    from raydom.ingestion.run import ingest as run
    from raydom.ingestion.run import on_threads

    def here_or_on_ray(
        function: Callable[[IngestTask], IngestOutcome], tasks: Sequence[IngestTask]
    ) -> Iterable[IngestOutcome]:
        asked = config.run.address or os.environ.get("RAY_ADDRESS") or config.run.workers
        if config.run.serial or (len(tasks) <= FILES_READ_HERE and not asked):
            return on_threads(config.run)(function, tasks)
        from raydom.cluster.ingest import on_ray

        return on_ray(config.run)(function, tasks)

    with ProgressReport("ingest", 0, "files", config.run.quiet) as progress:
        report = run(config, map=here_or_on_ray, progress=progress.at)
    console = Console(highlight=False)
    console.print(
        f"{config.out}: {len(report.ingested)} images ingested, {len(report.skipped)} already there, "
        f"{len(report.refused)} refused.",
        markup=False,
        soft_wrap=True,
    )
    for refusal in report.refused[:FAILURES_SHOWN]:
        console.print(f"  refused {refusal.source_file}: {refusal.error}", markup=False, soft_wrap=True)
    if report.refused:
        console.print(
            f"All refused files and reasons: {files.join(config.out, 'ingest-errors.parquet')}",
            markup=False,
            soft_wrap=True,
        )
    return 1 if report.refused else 0


def info(config: commands.InfoConfig) -> int:
    """Tell what a collection holds."""
    from raydom.report.tables import show_facts
    from raydom.storage.collection import open_collection
    from raydom.storage.summary import describe

    facts = describe(open_collection(config.collection))
    if config.json:
        Console().print_json(json.dumps(facts))
    else:
        show_facts(facts)
    return 0


def pack(config: commands.PackConfig) -> int:
    """Pack a collection into few Parquet files."""
    from raydom.inference.progress import ProgressReport
    from raydom.storage.packing import pack as run
    from raydom.storage.planes import open_planes

    chosen = open_planes(config.collection, config.images)
    with ProgressReport("pack", 0, "images", config.quiet) as progress:
        report = run(chosen, config.out, config.crop_px, progress.at)
    Console(highlight=False).print(
        f"{config.out}: {f'{report.num_rows} crops of ' if config.crop_px else ''}{report.num_images} images in "
        f"{report.num_shards} shards, {report.num_bytes / 2**20:.1f} MiB.",
        markup=False,
        soft_wrap=True,
    )
    return 0


def domains(config: commands.FindDomainsConfig) -> int:
    """Cluster the images of a collection into domains."""
    from raydom.cluster.domains import find_domains, restore_domains
    from raydom.inference.progress import ProgressReport
    from raydom.report.tables import show_table

    console = Console(highlight=False)
    if config.undo:
        number = restore_domains(config.collection)
        console.print(
            f"{config.collection}: the domains of {number} images are as before.", markup=False, soft_wrap=True
        )
        return 0
    with ProgressReport("domains", 0, "images", config.quiet) as progress:
        report = find_domains(config, progress.at)
    show_table(report.table)
    console.print(
        f"The domains are in {files.join(report.collection, 'images.parquet')}; see domains.png beside it.",
        markup=False,
        soft_wrap=True,
    )
    for image_id, error in report.unreadable[:FAILURES_SHOWN]:
        console.print(f"  no domain for {image_id}: {error}", markup=False, soft_wrap=True)
    if report.unreadable:
        console.print(f"{len(report.unreadable)} images cannot be read and have no domain.", markup=False)
    return 1 if report.unreadable else 0


def synthesize(config: commands.SynthesizeConfig) -> int:
    """Draw images of procedural cells."""
    from raydom.inference.progress import ProgressReport
    from raydom.ingestion.synthesize import synthesize as run

    asked = config.run.address or os.environ.get("RAY_ADDRESS") or config.run.workers
    here = config.run.serial or (config.images <= IMAGES_DRAWN_HERE and not asked)
    with ProgressReport("synthesize", 0, "images", config.run.quiet) as progress:
        if here:
            report = run(config, progress=progress.at)
        else:
            from raydom.cluster.synthesize import on_ray

            report = run(config, map=on_ray(config.run), progress=progress.at)
    Console(highlight=False).print(
        f"{config.out}: {report.num_drawn} images drawn, {report.num_there} already there.",
        markup=False,
        soft_wrap=True,
    )
    return 0


def train_supervised(config: commands.SupervisedConfig) -> int:
    """Train a segmentation model, or find a learning rate for it."""
    if config.find_lr:
        return _find_learning_rate(config)
    from raydom.cluster.train import train_supervised as run

    run(config)
    return 0


def train_adaptation(config: commands.AdaptationConfig) -> int:
    """Adapt a segmentation model to a target."""
    from raydom.cluster.train import run_training
    from raydom.training.adaptation import plan_adaptation

    run_training(plan_adaptation(config))
    return 0


def train_translation(config: commands.CycleGanConfig | commands.DritConfig) -> int:
    """Train generators between domains."""
    from raydom.cluster.train import run_training
    from raydom.training.translation import plan_translation

    run_training(plan_translation(config))
    return 0


def _find_learning_rate(config: commands.SupervisedConfig) -> int:
    import pyarrow as pa

    from raydom.report.tables import show_table
    from raydom.training.range_test import learning_rate_range_test
    from raydom.training.supervised import plan_supervised

    found = learning_rate_range_test(plan_supervised(config))
    shown = slice(None, None, max(1, len(found.rates) // RATES_SHOWN))
    rates = [f"{rate:.1e}" for rate in found.rates[shown]]
    show_table(pa.table({"learning rate": rates, "smoothed loss": list(found.losses[shown])}))
    Console(highlight=False).print(f"Suggestion: --learning-rate {found.suggestion:.1e}", markup=False)
    return 0


def stylize(config: commands.StylizeConfig) -> int:
    """Make the images of a collection look like a style image."""
    from raydom.cluster.block_jobs import stylize_job
    from raydom.cluster.blocks import run_block_jobs

    return tell(run_block_jobs([stylize_job(config)], config.run))


def segment(config: commands.SegmentConfig) -> int:
    """Segment a collection, stylised or not."""
    from raydom.cluster.block_jobs import segment_job
    from raydom.cluster.blocks import run_block_jobs

    return tell(run_block_jobs([segment_job(config)], config.run))


def segment_neurons(config: commands.NeuronSegmentConfig) -> int:
    """Segment the neurons of a collection."""
    from raydom.cluster.neurons import multicuts
    from raydom.cluster.neurons import segment_neurons as run

    report = run(config)
    code = tell([report])
    for line in multicuts(config.out)[:FAILURES_SHOWN] if report.ok else ():
        Console(highlight=False).print(f"  {line}", markup=False, soft_wrap=True)
    return code


def tune_style(config: commands.TuneStyleConfig) -> int:
    """Search the style that brings a model back."""
    from raydom.search.styles import plan_style_search

    return _search(plan_style_search(config), config.run)


def tune_training(config: commands.SearchedTraining) -> int:
    """Search the settings of a training."""
    from raydom.search.trainings import plan_training_search

    return _search(plan_training_search(config), config.training.run)


def _search(problem: Problem, run: TrainRunConfig) -> int:
    """Make the trials of a search, tell and draw what came out; 1 if none could be scored."""
    from raydom.inference.progress import ProgressReport
    from raydom.report.search import show_search
    from raydom.search.results import conclude
    from raydom.search.serial import search_here
    from raydom.training.runner import choose_device

    with ProgressReport("tune", problem.most_trials, "trials", run.quiet) as progress:

        def watch(outcome: Outcome) -> None:
            if outcome.ended:
                progress.update(1, failed=int(outcome.error is not None))

        if run.serial:
            choose_device(run)  # which refuses a GPU that is not there
            search_here(problem, watch)
        else:
            from raydom.cluster.search import search_on_ray

            search_on_ray(problem, run, watch)
    return show_search(problem, conclude(problem))


def evaluate(config: commands.EvaluateConfig) -> int:
    """Score labels against the truth."""
    from raydom.report.scores import headline
    from raydom.report.tables import show_table
    from raydom.storage.collection import open_collection
    from raydom.storage.tables import write_table
    from raydom.training.scoring import evaluate as score

    table = score(
        open_collection(config.prediction),
        open_collection(config.truth),
        label=config.label,
        prediction_label=config.prediction_label,
        mask=config.mask,
        by=config.by,
        kind=config.kind,
        zero=config.zero,
        bootstrap=config.bootstrap,
        seed=config.seed,
    )
    out = config.out or files.join(config.prediction, "evaluation.parquet")
    write_table(out, table)
    show_table(headline(table, config.by))
    Console(highlight=False).print(
        f"All {table.num_columns} columns of {len(table)} rows: {out}", markup=False, soft_wrap=True
    )
    return 0


def show_neurons(config: commands.NeuronShowConfig) -> int:
    """Draw segmented neurons, and tell how well their borders were judged."""
    from raydom.report.segmented_neurons import show
    from raydom.report.tables import show_table

    path, tables = show(config)
    for title, table in tables.items():
        show_table(table, title=title)
    Console(highlight=False).print(f"See {path}.", markup=False, soft_wrap=True)
    return 0


def train_neurons(config: commands.NeuronTrainConfig) -> int:
    """Train a forest that tells borders of neurons."""
    import pyarrow as pa

    from raydom.cluster.neuron_training import train_forest
    from raydom.report.tables import show_table

    run = train_forest(config)
    (row,) = run.metrics.to_pylist()
    show_table(pa.Table.from_pylist([{name: value for name, value in row.items() if name != "step"}]))
    Console(highlight=False).print(
        f"{run.uri}: a forest of {config.forest.trees} trees, for raydom neurons segment --forest.",
        markup=False,
        soft_wrap=True,
    )
    return 0


def compare_neurons(config: commands.NeuronCompareConfig) -> int:
    """Score what stylised images are worth in training."""
    from raydom.cluster.neuron_scenarios import PICTURE, compare_scenarios
    from raydom.report.scenarios import scenario_table
    from raydom.report.tables import show_table
    from raydom.training.scenarios import TABLE

    table = scenario_table(compare_scenarios(config))
    show_table(table, title=f"trained on {config.collection}: mean ± deviation over seeds")
    Console(highlight=False).print(
        f"A row a forest: {files.join(config.out, TABLE)}; see {PICTURE} beside it.", markup=False, soft_wrap=True
    )
    return 0


def compare(config: commands.CompareConfig) -> int:
    """Score models x style methods on a target."""
    from raydom.cluster.compare import compare as run

    return tell(run(config))


def tell(reports: list[JobReport]) -> int:
    """Print what block jobs did and what failed; returns the exit code."""
    console = Console(highlight=False)
    for report in reports:
        console.print(
            f"{report.job.out}: {report.num_images_done} of {report.num_images} images done "
            f"({report.num_blocks} blocks, {report.seconds_per_image:.2f} s per image).",
            markup=False,
            soft_wrap=True,
        )
        for line in _quality(report):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        for receipt in report.failed[:FAILURES_SHOWN]:
            console.print(
                f"  {receipt.status} after {receipt.attempts} attempts: {receipt.block_id}: {receipt.error}",
                markup=False,
                soft_wrap=True,
            )
        if report.failed:
            console.print(
                f"{report.job.out}: {len(report.failed)} failed; all are told in {report.job.folder.uri}/receipts.",
                markup=False,
                soft_wrap=True,
            )
    return 0 if all(report.ok for report in reports) else 1


def _quality(report: JobReport) -> list[str]:
    """What was found, and what the guards saw of stylised blocks."""
    lines = []
    if report.num_objects is not None and report.table is not None:
        lines.append(f"{report.num_objects} objects; see {files.join(report.job.out, report.table)}.")
    if report.content_scores:
        scores = sorted(report.content_scores)
        lines.append(f"content scores: lowest {scores[0]:.2f}, median {scores[len(scores) // 2]:.2f}.")
    if report.num_content_lost:
        done = {"fallback": "their pixels stay unstylised", "flag": "they are flagged in the receipts"}
        style = report.job.style
        lines.append(
            f"{report.num_content_lost} blocks lost their content (score below {style.content_threshold:g}): "
            f"{done.get(style.on_content_loss, 'they failed')}. See {report.job.folder.uri}/receipts."
        )
    if report.seam_scores:
        lines.append(f"seams: {max(report.seam_scores):.3f} at most (1 is none).")
    return lines
