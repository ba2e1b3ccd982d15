"""What the commands are told that segment neurons."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.config import BlockConfig, ImageFilter, MulticutConfig, RunConfig, require


@dataclass(frozen=True, slots=True, kw_only=True)
class MembraneConfig:
    """What tells of membranes, where the raw image alone is not to (which the Frangi filter searches for ridges)."""

    boundary: str | None = None
    """Collection with the probability of each pixel, as raydom segment writes it."""
    model: str | None = None
    """Folder of a model that tells it; it is asked first, and what it says is kept in ``boundary`` of the output."""
    inside: bool = False
    """The probability is of the inside of neurons, not of membranes."""
    channel: int = 0
    """Channel of the images that is looked at, counted from 0."""

    def __post_init__(self) -> None:
        require(
            self.boundary is None or self.model is None,
            "give --boundary or --model, not both: each tells the probability of membranes.",
        )
        require(
            not self.inside or self.boundary is not None or self.model is not None,
            "--inside says what a probability is of: give --boundary or --model with it.",
        )
        require(self.channel >= 0, f"channel must be >= 0; got {self.channel}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronSegmentConfig:
    """Segment neurons: superpixels, a forest's judgement of their borders, and the multicut; writes a collection."""

    collection: str
    """Collection to segment: sections, or volumes."""
    forest: str
    """Folder of the trained forest."""
    out: str
    """Collection to write: evidence of membranes, superpixels and neurons, and a table of the borders."""
    membranes: MembraneConfig = field(default_factory=MembraneConfig)
    multicut: MulticutConfig = field(default_factory=MulticutConfig)
    images: ImageFilter = field(default_factory=ImageFilter)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    run: RunConfig = field(default_factory=RunConfig)
