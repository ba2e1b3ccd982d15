"""Training of forests for neurons, on Ray and in this process: the graphs of the images first, each once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from raydom.cluster.neurons import ask_model
from raydom.cluster.tasks import map_on_ray
from raydom.commands import MembraneConfig, NeuronTrainConfig
from raydom.config import BlockConfig, ForestSpec, ImageFilter, RunConfig
from raydom.errors import ClusterError, ConfigError, DataError
from raydom.inference.memory import allowed_gib
from raydom.inference.neuron_job import needed_gib
from raydom.inference.progress import ProgressReport
from raydom.storage import files
from raydom.storage.model_run import ModelRun, begin_model_run, withdraw_model_run, write_model_run
from raydom.training.neurons import GRAPHS, TrainingImages, fit_forest, learnable, load, made, plan_forest
from raydom.training.stylised import ORIGINALS
from raydom.training.superpixel_graphs import GraphRecipe, GraphTask, make_graph

A = TypeVar("A")
B = TypeVar("B")

MEMBRANES = "membranes"
"""Folder, within that of a run, of the probabilities that a model told."""


def train_forest(config: NeuronTrainConfig) -> ModelRun[ForestSpec]:
    """Train a forest to its model run. The same command again continues an interrupted training, and keeps a finished.

    Raises:
        ConfigError: For what cannot be done, before anything is computed; and for a folder with something else.
        DataError: For images that nothing can be learned from.
    """
    plan = plan_forest(config)
    check_memory(plan.recipe, plan.sources, config.run)
    finished = begin_model_run(plan.out, plan.settings())
    if finished is not None:
        return finished  # type: ignore[return-value]
    boundaries = ask_about(plan.sources, plan.out, config.membranes, config.images, config.blocks, config.run)
    tasks = plan.tasks(boundaries)
    squares = [task for image in tasks for task in image]
    try:
        seconds = make_graphs(plan.recipe, squares, config.run)
        graphs, names = learnable(load(squares), config.truth)
        trained = fit_forest(graphs, names, config.forest, num_threads(config.run))
    except DataError:  # of these images with these settings nothing can come; others may be tried in the same folder
        files.remove(files.join(plan.out, GRAPHS))
        withdraw_model_run(plan.out)
        raise
    row = {"images": len(tasks), **trained.row, "seconds_graphs": seconds}
    run = write_model_run(plan.out, plan.spec(names), trained.forest.to_arrays(), plan.settings(), [row])
    files.remove(files.join(plan.out, GRAPHS))
    return run


def check_memory(recipe: GraphRecipe, sources: Sequence[TrainingImages], run: RunConfig) -> None:
    """Refuse squares that do not fit the memory of a worker.

    Raises:
        ConfigError: With what the largest needs and what is allowed.
    """
    allowed = allowed_gib(run)
    if allowed is None:
        return
    for image in (one.image for source in sources for one in source.images):
        needed = needed_gib(recipe.neurons, image)
        if needed > allowed:
            raise ConfigError(
                f"{image.uri}: a square of {recipe.neurons.superpixels.cell_px} px of {image.num_planes} planes needs "
                f"about {needed:.2g} GiB and a worker may use {allowed:.2g} GiB. Choose a smaller "
                "--superpixels.cell-px, or allow more with --memory-gib or fewer --workers."
            )


def make_graphs(recipe: GraphRecipe, tasks: Sequence[GraphTask], run: RunConfig) -> float:
    """Make the graphs that are not there yet; returns the seconds that they took, added over the workers.

    Raises:
        DataError: If some cannot be made.
    """
    missing = [task for task in tasks if not files.exists(task.uri)]
    with ProgressReport("graphs", len(missing), "squares", run.quiet) as progress:
        return made(each(functools.partial(make_graph, recipe), missing, run), progress.update)


def each(function: Callable[[A], B], arguments: Sequence[A], run: RunConfig) -> Iterator[B]:
    """What a function gives for each argument, in any order: on Ray, or here one after another."""
    if run.serial or not arguments:
        return map(function, arguments)
    return map_on_ray(function, arguments, run)


def num_threads(run: RunConfig) -> int:
    """CPUs of this process for the forest, which is the same with any number of them."""
    return 1 if run.serial else os.cpu_count() or 1


def ask_about(
    sources: Sequence[TrainingImages],
    out: str,
    membranes: MembraneConfig,
    images: ImageFilter,
    blocks: BlockConfig,
    run: RunConfig,
) -> dict[str | None, str]:
    """Have a model tell the membranes of all images, if one is to; returns the collection of its probabilities for
    each source, by style.

    Args:
        sources: Where the images are from.
        out: Folder below which the probabilities are kept.
        membranes: The model, if there is one.
        images: Which of the images that are no versions of others; of stylised ones, which may lack some and what
            conditions name, all are asked about.
        blocks: How images are cut.
        run: Where and how.

    Raises:
        ClusterError: If some images could not be asked about.
    """
    found: dict[str | None, str] = {}
    if membranes.model is None:
        return found
    for source in sources:
        folder = files.join(out, MEMBRANES, source.style or ORIGINALS)
        chosen = ImageFilter() if source.stylised else images
        report = ask_model(source.collection, folder, membranes, chosen, blocks, run)
        if not report.ok:
            raise ClusterError(
                f"{membranes.model} could not tell the membranes of {len(report.failed)} blocks of "
                f"{source.collection}; see {report.job.folder.uri}. The same command with --retry-failed tries them "
                "again."
            )
        found[source.style] = report.job.out
    return found
