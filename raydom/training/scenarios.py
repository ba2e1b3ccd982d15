"""What stylised images are worth in training: forests of each choice of them, scored on labelled test images.

The scenarios are those of figure 16 of Neishabouri 2018 (Neuron Segmentation using Deep Style Transfer): the originals
only, with all stylised images, with those of one style, and selected ones; and stylised images without the originals.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from raydom.commands import NeuronCompareConfig
from raydom.config import fingerprint, to_dict
from raydom.errors import ConfigError, DataError
from raydom.images.partition_metrics import partition_scores, partition_sums
from raydom.neurons.forest import EdgeForest
from raydom.storage import files
from raydom.storage.collection import open_collection
from raydom.storage.tables import read_table
from raydom.training.neurons import (
    GRAPHS,
    TrainingImages,
    all_sources,
    check_planes,
    common_pixel_size,
    fit_forest,
    labelled_images,
    learnable,
    model_hash,
    told,
    training_images,
    with_boundaries,
)
from raydom.training.stylised import ORIGINALS
from raydom.training.superpixel_graphs import GRAPH_VERSION, GraphRecipe, GraphTask, graph_tasks, read_graph

TABLE = "comparison.parquet"
SCORES = ("rand_error", "rand_index_error", "vi_split", "vi_merge", "vi")
"""Of the test images together: adapted Rand error, Rand error, variation of information."""
SCHEMA = pa.schema(
    [
        ("test", pa.string()),
        ("scenario", pa.string()),
        ("seed", pa.int64()),
        ("images", pa.int64()),
        ("edges", pa.int64()),
        ("cut", pa.float64()),
        ("oob_auc", pa.float64()),
        *((name, pa.float64()) for name in SCORES),
        ("seconds", pa.float64()),
        ("fingerprint", pa.string()),
    ]
)
"""A row a forest and test collection: the images that it was trained on, its edges and the share of true boundaries
among them, and what came out; ``fingerprint`` hashes all that the row depends on."""
KEPT_GRAPHS = 512
"""Graphs that a worker keeps in memory for the next forest."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A choice of training images."""

    name: str
    chosen: tuple[tuple[str | None, str], ...]
    """Style (None: the original) and id of each image."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A forest to be trained and scored."""

    scenario: Scenario
    seed: int
    fingerprints: tuple[tuple[str, str], ...]
    """Test collection, and hash of all that the row of it depends on."""


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """A comparison, checked."""

    config: NeuronCompareConfig
    sources: tuple[TrainingImages, ...]
    """The originals first, then each style."""
    tests: tuple[TrainingImages, ...]
    """Their style is ``test_name``."""
    scenarios: tuple[Scenario, ...]
    model_hash: str | None

    @property
    def out(self) -> str:
        return files.absolute(self.config.out)

    @property
    def recipe(self) -> GraphRecipe:
        membranes = self.config.membranes
        return GraphRecipe(neurons=self.config.neurons, inside=membranes.inside, channel=membranes.channel)

    def trials(self) -> list[Trial]:
        """All forests, scenario after scenario."""
        config = self.config
        shared = fingerprint(
            GRAPH_VERSION, to_dict(self.recipe), to_dict(config.truth), to_dict(config.multicut), config.test_label,
            self.model_hash, to_dict(replace(config.forest, seed=0)),
        )  # fmt: skip
        known = told(self.sources)
        tests = [(str(test.style), told([test])) for test in self.tests]
        trials = []
        for scenario in self.scenarios:
            images = [[style, image_id, known[style or ORIGINALS][image_id]] for style, image_id in scenario.chosen]
            for seed in range(config.forest.seed, config.forest.seed + config.seeds):
                own = tuple((test, fingerprint(shared, scenario.name, images, seed, of)) for test, of in tests)
                trials.append(Trial(scenario, seed, own))
        return trials

    def tasks(self, boundaries: Mapping[str | None, str]) -> dict[tuple[str | None, str], list[GraphTask]]:
        """The squares of each image, by style (``test_name`` of test images) and id; ``boundaries`` as in
        ``ForestPlan.tasks``."""
        folder = files.join(self.out, GRAPHS)
        found = {}
        for source in (*self.sources, *self.tests):
            images = with_boundaries(source, boundaries.get(source.style)).images
            for one in images:
                found[source.style, one.image.image_id] = graph_tasks(one, self.recipe, folder)
        return found


def plan_comparison(config: NeuronCompareConfig) -> ComparisonPlan:
    """Check a comparison.

    Raises:
        ConfigError: For options and images that do not fit each other, and test images that are more than one square.
        DataError: For images without a truth, or with one of another shape.
    """
    originals = training_images(config.collection, config.images)
    everything = all_sources(originals, replace(config, select=()))
    selected = all_sources(originals, config) if config.select else ()
    test_truth = replace(config.truth, label=config.test_label or config.truth.label)
    tests = tuple(
        TrainingImages(test_name(chosen.uri), chosen.uri, labelled_images(chosen, test_truth, config.membranes))
        for chosen in (open_collection(uri).filter(keep=config.test_keep) for uri in config.test)
    )
    if len({test.style for test in tests}) < len(tests):
        raise ConfigError(
            f"two collections of --test have the same name: {', '.join(config.test)}. Rename the folders."
        )
    trained = {one.image.record.sha256 for one in everything[0].images}
    for one in (one for test in tests for one in test.images):
        if one.image.record.sha256 in trained:
            raise ConfigError(
                f"{one.image.uri} is both trained and tested on: its score would say nothing. Keep them apart, as with "
                "--split train --test-keep split=test."
            )
    images = [one.image for source in (*everything, *tests) for one in source.images]
    check_planes(images)
    common_pixel_size(images)
    cell_px = config.neurons.superpixels.cell_px
    largest = max((one.image for test in tests for one in test.images), key=lambda image: max(image.plane_shape))
    if max(largest.plane_shape) > cell_px:
        side = -(-max(largest.plane_shape) // 32) * 32
        raise ConfigError(
            f"{largest.uri} is {largest.plane_shape} px, and test images are scored in one square of "
            f"{cell_px} px. Give --superpixels.cell-px {side}, or smaller test images (raydom pack --crop)."
        )
    return ComparisonPlan(
        config, everything, tests, _scenarios(config, everything, selected), model_hash(config.membranes)
    )


def test_name(uri: str) -> str:
    """What a test collection is called among the styles: no folder's name has a slash."""
    return f"test/{uri.rstrip('/').rsplit('/', 1)[-1]}"


def _scenarios(
    config: NeuronCompareConfig, sources: Sequence[TrainingImages], selected: Sequence[TrainingImages]
) -> tuple[Scenario, ...]:
    def ids(these: Sequence[TrainingImages]) -> tuple[tuple[str | None, str], ...]:
        return tuple((source.style, one.image.image_id) for source in these for one in source.images)

    originals, stylised = sources[:1], sources[1:]
    names = [source.style for source in stylised]
    unknown = sorted(set(config.style) - {name for name in names if name is not None})
    if unknown:
        raise ConfigError(
            f"no collection of --augment is called {', '.join(unknown)}; there is {', '.join(map(str, names))}."
        )
    found = [
        Scenario("original", ids(originals)),
        Scenario("stylised", ids(stylised)),
        Scenario("original + all", ids(sources)),
    ]
    if selected:
        found += [
            Scenario("selected", ids(selected[1:])),
            Scenario("original + selected", ids(selected)),
        ]
    found += [
        Scenario(f"original + {source.style}", ids((*originals, source)))
        for source in stylised
        if not config.style or source.style in config.style
    ]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Trainer:
    """Trains and scores forests; sent to each worker once."""

    config: NeuronCompareConfig
    graphs: Mapping[tuple[str | None, str], tuple[str, ...]]
    """Files with the graphs of the squares of each image, by style and id."""
    num_threads: int

    def __call__(self, trial: Trial) -> list[dict[str, Any]]:
        """The rows of a trial, one for each test collection.

        Raises:
            DataError: Naming the scenario, if nothing can be learned from its images.
        """
        began = time.perf_counter()
        config = self.config
        graphs = [(uri, _read(uri)) for image in trial.scenario.chosen for uri in self.graphs[image]]
        try:
            learned, names = learnable(graphs, config.truth)
            trained = fit_forest(learned, names, replace(config.forest, seed=trial.seed), self.num_threads)
        except DataError as error:
            raise DataError(f"scenario {trial.scenario.name}: {error}") from error
        rows = []
        for test, hashed in trial.fingerprints:
            row: dict[str, Any] = {"test": test.removeprefix("test/"), "scenario": trial.scenario.name}
            row |= {"seed": trial.seed, "images": len(trial.scenario.chosen)}
            row |= {name: trained.row[name] for name in ("edges", "cut", "oob_auc")}
            row |= self._scores(trained.forest, test)
            rows.append({**row, "seconds": time.perf_counter() - began, "fingerprint": hashed})
        return rows

    def _scores(self, forest: EdgeForest, test: str) -> dict[str, float]:
        """Of the test images together."""
        ignored = self.config.truth.zero == "boundary"
        total: dict[str, float] = {}
        for uri in (uri for (style, _), uris in self.graphs.items() if style == test for uri in uris):
            found = _read(uri).segmented(forest, self.config.multicut, self.num_threads)
            sums = partition_sums(found, ignore_background=ignored)
            total = {name: total.get(name, 0) + value for name, value in sums.items()}
        scores = partition_scores(total)
        return {name: scores[name] for name in SCORES}


@functools.lru_cache(maxsize=KEPT_GRAPHS)
def _read(uri: str) -> Any:
    return read_graph(uri)


def rows_there(out: str) -> dict[str, dict[str, Any]]:
    """The rows that a folder has, by fingerprint."""
    uri = files.join(out, TABLE)
    if not files.exists(uri):
        return {}
    table = read_table(uri)
    if table.schema.names != SCHEMA.names:
        raise ConfigError(f"{uri} is no table of this command; choose another --out.")
    return {row["fingerprint"]: row for row in table.to_pylist()}
