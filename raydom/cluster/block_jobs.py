"""The block jobs that commands describe."""

from __future__ import annotations

from raydom.commands import NeuronSegmentConfig, SegmentConfig, StylizeConfig
from raydom.inference.job import BlockJob
from raydom.inference.neuron_job import NeuronJob


def stylize_job(config: StylizeConfig) -> BlockJob:
    return BlockJob(
        name=f"stylize {config.style.method}",
        collection=config.collection,
        out=config.out,
        style=config.style,
        blocks=config.blocks,
        images=config.images,
    )


def segment_job(config: SegmentConfig) -> BlockJob:
    return BlockJob(
        name="segment" if config.style.method == "none" else f"segment after {config.style.method}",
        collection=config.collection,
        out=config.out,
        style=config.style,
        model=config.model,
        pixel_size_um=config.pixel_size_um,
        scale=config.scale,
        threshold=config.threshold,
        prediction=config.prediction,
        instances=config.instances,
        blocks=config.blocks,
        images=config.images,
    )


def neuron_job(config: NeuronSegmentConfig, boundary: str | None) -> NeuronJob:
    """Args:
    config: It.
    boundary: Collection with the probabilities of membranes, if there is one.
    """
    return NeuronJob(
        name="neurons",
        collection=config.collection,
        out=config.out,
        forest=config.forest,
        boundary=boundary,
        inside=config.membranes.inside,
        channel=config.membranes.channel,
        multicut=config.multicut,
        blocks=config.blocks,
        images=config.images,
    )
