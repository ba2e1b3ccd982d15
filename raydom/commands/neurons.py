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


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronShowConfig:
    """Draw segmented neurons: superpixels, how likely borders are, neurons and, with a truth, what is wrong."""

    neurons: str
    """Collection that raydom neurons segment wrote."""
    collection: str
    """Collection that was segmented; it has the truth, if there is one."""
    image: str | None = None
    """Image to draw. Default: the first."""
    label: str | None = None
    """Label of the collection that numbers the true neurons."""
    zero: str | None = None
    """What label 0 of it means: boundary (membranes, and what was not annotated) or background (an object like
    others)."""
    at: tuple[int, ...] = ()
    """Row and column of the first pixel that is drawn. Default: those of a square in the middle."""
    size_px: int = 512
    """Side of the square that is drawn."""
    plane: int | None = None
    """Plane of a volume. Default: the middle one."""
    out: str | None = None
    """Picture to write. Default: neurons.png in the collection of neurons."""

    def __post_init__(self) -> None:
        require(len(self.at) in (0, 2), f"at is a row and a column; got {self.at}.")
        require(self.size_px >= 16, f"size_px must be >= 16; got {self.size_px}.")
        require(
            (self.label is None) == (self.zero is None),
            "--label and --zero belong together: the truth, and what its 0 means (boundary or background).",
        )
        require(self.zero in (None, "boundary", "background"), f"zero is boundary or background; got {self.zero!r}.")
