"""Neurons on Ray: the model that tells of membranes, if one is asked, and then the neuron job."""

from __future__ import annotations

from raydom.cluster.block_jobs import neuron_job
from raydom.cluster.blocks import run_block_jobs
from raydom.commands import MembraneConfig, NeuronSegmentConfig
from raydom.config import BlockConfig, ImageFilter, RunConfig
from raydom.inference.job import BlockJob
from raydom.inference.neuron_stages import NEURON_JOBS
from raydom.inference.runner import JobReport
from raydom.storage import files
from raydom.storage.receipts import RunFolder


def segment_neurons(config: NeuronSegmentConfig) -> JobReport:
    """Segment the neurons of a collection.

    Returns:
        What became of the job; of the model's, if that did not finish.
    """
    membranes, boundary = config.membranes, config.membranes.boundary
    if membranes.model is not None:
        report = ask_model(config.collection, config.out, membranes, config.images, config.blocks, config.run)
        if not report.ok:
            return report
        boundary = report.job.out
    return run_block_jobs([neuron_job(config, boundary)], config.run, kind=NEURON_JOBS)[0]


def multicuts(out: str) -> list[str]:
    """What the multicut of each image of an output came to, a line each."""
    lines, single = [], 0
    for uri in files.list_files(files.join(RunFolder.of(out).uri, "multicut"), ".json"):
        told = files.read_json(uri)
        single += told["num_superpixels"] == 1
        bound = "" if told["bound"] is None else f", none below {told['bound']:.6g}"
        lines.append(
            f"{uri.rsplit('/', 1)[-1].removesuffix('.json')}: {told['num_superpixels']} superpixels, "
            f"{told['num_edges']} borders, energy {told['energy']:.6g}{bound} ({told['solver']})."
        )
    if single:
        lines.insert(
            0,
            f"{single} of {len(lines)} images are a single superpixel: no membranes were found there. If there are "
            "some, train a forest with a lower --evidence.frangi-gamma (fainter ridges count), or with --model.",
        )
    return lines


def ask_model(
    collection: str, out: str, membranes: MembraneConfig, images: ImageFilter, blocks: BlockConfig, run: RunConfig
) -> JobReport[BlockJob]:
    """Write the probabilities of a model for the images of a collection to ``boundary`` of an output."""
    job = BlockJob(
        name="membranes",
        collection=collection,
        out=files.join(out, "boundary"),
        model=membranes.model,
        images=images,
        blocks=blocks,
    )
    return run_block_jobs([job], run)[0]
