"""The comparison of what stylised images are worth in training, on Ray and in this process."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from raydom.cluster.neuron_training import ask_about, check_memory, each, make_graphs, num_threads
from raydom.commands import NeuronCompareConfig
from raydom.config import ImageFilter
from raydom.inference.progress import ProgressReport
from raydom.report.scenarios import scenario_figure
from raydom.storage import files
from raydom.storage.tables import write_table
from raydom.training.scenarios import SCHEMA, TABLE, Trainer, plan_comparison, rows_there

PICTURE = "comparison.png"


def compare_scenarios(config: NeuronCompareConfig) -> list[dict[str, Any]]:
    """Train and score forests of each choice of stylised images; leaves a table and a picture in ``config.out``.

    The graph of an image is made once, and rows that the table has already are not made again; those of other settings
    stay in it.

    Returns:
        The rows that were asked for, scenario after scenario, seed after seed, a row a test collection.

    Raises:
        ConfigError: For what cannot be done, before anything is computed.
        DataError: For images that nothing can be learned from.
    """
    plan = plan_comparison(config)
    check_memory(plan.recipe, (*plan.sources, *plan.tests), config.run)
    there = rows_there(plan.out)
    trials = plan.trials()
    missing = [trial for trial in trials if any(hashed not in there for _, hashed in trial.fingerprints)]
    if missing:
        test_images = ImageFilter(keep=config.test_keep)
        boundaries = {
            style: told
            for sources, images in ((plan.sources, config.images), (plan.tests, test_images))
            for style, told in ask_about(sources, plan.out, config.membranes, images, config.blocks, config.run).items()
        }
        tasks = plan.tasks(boundaries)
        make_graphs(plan.recipe, [task for image in tasks.values() for task in image], config.run)
        uris = {image: tuple(task.uri for task in found) for image, found in tasks.items()}
        trainer = Trainer(config, uris, num_threads(config.run) if config.run.serial else 1)
        with ProgressReport("forests", len(missing), "forests", config.run.quiet) as progress:
            for rows in each(trainer, missing, config.run):
                there |= {row["fingerprint"]: row for row in rows}
                write_table(files.join(plan.out, TABLE), pa.Table.from_pylist(list(there.values()), schema=SCHEMA))
                progress.update()
    asked = [there[hashed] for trial in trials for _, hashed in trial.fingerprints]
    name = plan.sources[0].collection.rstrip("/").rsplit("/", 1)[-1]
    scenario_figure(asked, f"trained on {name}", files.join(plan.out, PICTURE))
    return asked
