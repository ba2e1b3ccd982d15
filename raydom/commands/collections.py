"""What the commands are told that make, describe and sort collections."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from raydom.config import CellConfig, ClusterConfig, ImageFilter, require
from raydom.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """Read image files, and labels that belong to them, into a collection. Up to 32 files are read in this process,
    more on Ray; with --address, RAY_ADDRESS or --workers, any number is."""

    source: tuple[str, ...] = field(metadata={"positional": True})
    """Files, folders (the files directly in them) and globs (quoted; ** for folders below), local or any fsspec URL.
    FILE.h5:/DATASET names an array of an HDF5 file, FILE.parquet:/COLUMN the images of a Parquet file (an image a row,
    encoded or as tensors)."""
    out: str
    """Collection to make or to extend."""
    labels: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """NAME=GLOB_OR_DIR: label files, paired with the images by stem (a single image and a single label file that are
    both named need no such). Without NAME= they are named label. A glob of
    folders (ID/masks or masks/ID) reads a mask an object from each. A JSON file has annotations as COCO's. A column of
    a Parquet file has the label of each row, in the same order as the images."""
    invert_labels: bool = False
    """Swap the two values of binary labels."""
    ignore_value: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """NAME=N (or N, for the label called label): pixels of this value do not count. They become 0, and a further label
    NAME-valid is 0 there and 1 elsewhere, for --mask of train and evaluate."""
    boundary_from_instances: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """NAME=PX (or PX, for the label called label): a further label NAME-boundary is 1 within PX of pixels of another
    object, or of background."""
    domain: str | None = None
    """Domain of these images."""
    split: str | None = None
    """Split of these images, such as train, val or test."""
    group: str | None = None
    """Regular expression searched in each file's path: its first group (or the whole match) is the image's group."""
    column: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """NAME=REGEX: a column of the manifest, for --keep: the first group (or the whole match) in each file's whole path,
    such as 'cell_type=([A-Z0-9]+)_[^/]*$' for the beginning of its name."""
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size, um, instead of the one that the files state."""
    pages: str = "planes"
    """What the pages of a TIFF that does not say so are: planes (an image each) or channels (of one image)."""
    axes: str | None = None
    """A letter an axis of HDF5 datasets and of tensors, such as zyx or cyx: t, z (an image a plane), c, y and x.
    Default: what the dataset says, else yx, or yxc if the last axis has at most four entries, or zyx (of tensors: cyx
    if the first has at most four)."""
    fps: float | None = None
    """Frames of a video to take a second, chosen by the times at which they are shown. Default: every frame."""
    volumes: bool = False
    """Files with a z axis (stacks of TIFF pages too) are volumes, one image each, and so are their labels. Default: an
    image a plane."""
    plane_distance_um: float | None = field(default=None, metadata={"flag": "--plane-distance"})
    """Distance of the planes of volumes, um, instead of the one that the files state."""
    index_only: bool = False
    """The sources are OME-Zarr images (0.4 or 0.5): list them where they are, without a copy."""
    run: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        require(len(self.source) > 0, "ingest needs at least one SOURCE: a file, a folder or a glob.")
        require(
            self.pixel_size_um is None or self.pixel_size_um > 0,
            f"pixel_size_um must be > 0; got {self.pixel_size_um}.",
        )
        require(
            self.plane_distance_um is None or (self.volumes and self.plane_distance_um > 0),
            f"plane_distance_um is of volumes (--volumes), and > 0; got {self.plane_distance_um}.",
        )
        require(self.pages in ("planes", "channels"), f"pages must be planes or channels; got {self.pages!r}.")
        require(
            self.axes is None
            or (set("yx") <= set(self.axes) <= set("tzcyx") and len(set(self.axes)) == len(self.axes)),
            f"axes must be y, x and some of t, z and c, each once; got {self.axes!r}.",
        )
        require(self.fps is None or self.fps > 0, f"fps must be > 0; got {self.fps}.")
        ignored, boundaries = self.ignored_values(), self.boundary_widths_px()
        require(all(width >= 1 for width in boundaries.values()), f"boundaries are at least 1 px; got {boundaries}.")
        require(
            not (self.index_only and (ignored or boundaries)),
            "with index_only nothing is written; leave out ignore_value and boundary_from_instances.",
        )
        require(
            not (self.index_only and (self.labels or self.invert_labels)),
            "with index_only the labels are those inside the OME-Zarr images; leave out labels and invert_labels.",
        )
        for option, pattern in {"group": self.group or "", **self.column_patterns()}.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"{option} is no regular expression: {pattern!r} ({error}).") from error

    def column_patterns(self) -> dict[str, str]:
        """By the name of each further column, the regular expression that gives its values."""
        found: dict[str, str] = {}
        for entry in self.column:
            name, _, pattern = entry.partition("=")
            require(
                bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name) and pattern),
                f"column is NAME=REGEX, and the name has letters, digits and _ . -; got {entry!r}.",
            )
            require(name not in found, f"column {name} is given twice.")
            found[name] = pattern
        return found

    def ignored_values(self) -> dict[str, int]:
        """By label name, the value that does not count."""
        return {name: int(value) for name, value in _named_numbers("ignore_value", self.ignore_value).items()}

    def boundary_widths_px(self) -> dict[str, float]:
        """By label name, how far a boundary reaches on either side, px."""
        return _named_numbers("boundary_from_instances", self.boundary_from_instances)


def _named_numbers(option: str, entries: tuple[str, ...]) -> dict[str, float]:
    """``NAME=NUMBER`` by name; without a name, it is that of the label called ``label``."""
    found: dict[str, float] = {}
    for entry in entries:
        name, _, number = entry.rpartition("=")
        name = name or "label"
        require(bool(re.fullmatch(r"-?\d+(\.\d+)?", number)), f"{option} is NAME=NUMBER or a number; got {entry!r}.")
        require(option != "ignore_value" or "." not in number, f"ignore_value is a whole number; got {entry!r}.")
        require(name not in found, f"{option} is given twice for label {name}.")
        found[name] = float(number)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoConfig:
    """Tell what a collection holds."""

    collection: str = field(metadata={"positional": True})
    """Collection to describe."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackConfig:
    """Pack the images of a collection, or crops of them, into few Parquet files; writes a collection."""

    collection: str = field(metadata={"positional": True})
    """Collection to pack."""
    out: str
    """Collection to write; there must be nothing yet."""
    crop_px: int | None = field(default=None, metadata={"flag": "--crop"})
    """Cut images into squares of this side, px, each an image of its own; the last ones overlap their neighbours, to be
    of full size. Default: images stay whole, and those of different sizes lie in different files, so that many sizes
    make many files."""
    images: ImageFilter = field(default_factory=ImageFilter)
    quiet: bool = False
    """No progress."""

    def __post_init__(self) -> None:
        require(self.crop_px is None or self.crop_px >= 1, f"crop must be >= 1 px; got {self.crop_px}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDomainsConfig:
    """Find the domains of a collection that has none: cluster its images by hue, saturation and value, and write the
    clusters into the domain column of its manifest (cluster_1 is the largest), with domains.parquet, and domains.png
    to look at."""

    collection: str = field(metadata={"positional": True})
    """Collection whose images are clustered."""
    clusters: int = 6
    """Number of clusters."""
    out: str | None = None
    """New collection, which lists the same images where they are, with their clusters. Default: the column is written
    into the manifest of the collection itself."""
    clahe: bool = False
    """Equalise local contrast first (CLAHE), for fluorescence images that are dark as a whole."""
    overwrite: bool = False
    """Replace domains that there are; they are kept in the column former_domain."""
    undo: bool = False
    """Put back the domains that clusters replaced (or none, where there were none), and do nothing else."""
    seed: int = 0
    """Of the starts of K-means."""
    workers: int | None = None
    """Threads that read images. Default: 8."""
    quiet: bool = False
    """No progress."""

    def __post_init__(self) -> None:
        require(self.clusters >= 2, f"clusters must be >= 2; got {self.clusters}.")
        require(self.workers is None or self.workers >= 1, f"workers must be >= 1; got {self.workers}.")
        require(0 <= self.seed < 2**32, f"seed must be from 0 to 2**32 - 1; got {self.seed}.")
        require(
            not (self.undo and (self.out or self.overwrite or self.clahe)),
            "undo puts former domains back and clusters nothing; leave out out, overwrite and clahe.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesizeConfig:
    """Draw images of procedural cells with their instances, in any number; writes a collection. The same command
    completes an interrupted one, and with more images extends it. Up to 500 images are drawn in this process, more on
    Ray; with --address, RAY_ADDRESS or --workers, any number is."""

    out: str
    """Collection to make or to complete."""
    images: int
    """Number of images."""
    cells: CellConfig = field(default_factory=CellConfig)
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size that the images are said to have, um."""
    domain: str | None = None
    """Domain of these images."""
    split: str | None = None
    """Split of these images, such as train, val or test."""
    run: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        require(self.images >= 1, f"images must be >= 1; got {self.images}.")
        require(
            self.pixel_size_um is None or self.pixel_size_um > 0,
            f"pixel_size_um must be > 0; got {self.pixel_size_um}.",
        )
