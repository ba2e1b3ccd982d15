"""What the commands are told that train forests for neurons, and compare what they are trained on."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.commands.neurons import MembraneConfig
from raydom.config import (
    BlockConfig,
    Condition,
    ForestConfig,
    ImageFilter,
    MulticutConfig,
    NeuronConfig,
    RunConfig,
    require,
)

ZEROS = ("boundary", "background")


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthConfig:
    """What the labels say."""

    zero: str
    """What label 0 means: boundary (membranes, and what was not annotated, which do not count) or background (an object
    like others)."""
    label: str = "label"
    """Name of the label that numbers the true neurons."""
    min_share: float = 0.5
    """A superpixel with a smaller share of its pixels in one neuron is of none, and its borders are not learned
    from."""

    def __post_init__(self) -> None:
        require(
            self.zero in ZEROS, f"zero is {' or '.join(ZEROS)}: what label 0 of the truth means; got {self.zero!r}."
        )
        require(0 <= self.min_share <= 1, f"min_share must be from 0 to 1; got {self.min_share}.")


def check_augmentation(augment: tuple[str, ...], select: tuple[str, ...], membranes: MembraneConfig) -> None:
    """Refuse options that contradict each other."""
    for condition in select:
        Condition.parse(condition)
    require(not select or bool(augment), "--select chooses among the images of --augment COLLECTION: give that too.")
    require(
        not augment or membranes.boundary is None,
        "--boundary has probabilities of the images themselves, and not of stylised ones (--augment). Give "
        "--model, which is asked about both, or leave both out.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronTrainConfig:
    """Train the forest that tells which borders of superpixels are membranes, on labelled images and stylised versions
    of them."""

    collection: str
    """Labelled collection: sections, or volumes. Images of split test are left out, unless only such are chosen."""
    out: str
    """Folder for the forest."""
    truth: TruthConfig
    augment: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Collection that raydom stylize made of the labelled one; its images are learned from too. May be given several
    times."""
    select: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Only stylised images that fulfil this condition, as in --keep; besides the columns of the manifest there are
    style (the name of the collection's folder), method, steps and content_score. Several must all hold."""
    membranes: MembraneConfig = field(default_factory=MembraneConfig)
    neurons: NeuronConfig = field(default_factory=NeuronConfig)
    forest: ForestConfig = field(default_factory=ForestConfig)
    images: ImageFilter = field(default_factory=ImageFilter)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_augmentation(self.augment, self.select, self.membranes)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronCompareConfig:
    """Find out what stylised images are worth in training: forests of several seeds for each choice of them (none, all,
    all without the originals, one style each, selected ones), scored on labelled test images."""

    collection: str
    """Labelled collection to train on."""
    augment: tuple[str, ...] = field(metadata={"repeat": True})
    """Collection that raydom stylize made of it, of one style; may be given several times."""
    test: tuple[str, ...] = field(metadata={"repeat": True})
    """Labelled collection to score on, of the same domain or another; its images are as large as a square of
    superpixels (--superpixels.cell-px) or smaller. May be given several times."""
    out: str
    """Folder for comparison.parquet, comparison.png and what is kept of the images."""
    truth: TruthConfig
    test_label: str | None = None
    """Name of the label of the test images, if it is another."""
    test_keep: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Only test images that fulfil this condition, as in --keep."""
    seeds: int = 3
    """Forests of each choice, with the seeds --forest.seed and those that follow."""
    style: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Style (the name of a collection's folder) to add alone to the originals; may be given several times.
    Default: each."""
    select: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Condition on the stylised images, as in raydom neurons train: what fulfils all is a choice of its own, with and
    without the originals."""
    membranes: MembraneConfig = field(default_factory=MembraneConfig)
    neurons: NeuronConfig = field(default_factory=NeuronConfig)
    forest: ForestConfig = field(default_factory=ForestConfig)
    multicut: MulticutConfig = field(default_factory=MulticutConfig)
    images: ImageFilter = field(default_factory=ImageFilter)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        require(bool(self.augment), "compare needs at least one --augment COLLECTION, made by raydom stylize.")
        require(bool(self.test), "compare needs at least one --test COLLECTION with labels.")
        require(self.seeds >= 1, f"seeds must be >= 1; got {self.seeds}.")
        for condition in self.test_keep:
            Condition.parse(condition)
        check_augmentation(self.augment, self.select, self.membranes)
