"""What the output of a job consists of: channels, labels, and what is to be done again when some of it is lost."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from raydom.config import ModelSpec
from raydom.images.tiles import cut_blocks
from raydom.inference.job import BlockJob
from raydom.storage.collection import Image

Lost = set[tuple[str, tuple[int, ...]]]
"""Tasks of an image, by kind and first pixel."""


@runtime_checkable
class Layout(Protocol):
    """What the output of an image consists of."""

    blocks_keep: bool
    """Whether what later stages need of blocks is more than the pixels that these write."""

    def channels(self, image: Image) -> tuple[str, ...]: ...

    def dtype(self, image: Image) -> str: ...

    def labels(self, image: Image) -> dict[str, str]:
        """Names and dtypes of the labels that are written."""
        ...

    def label_kinds(self, image: Image) -> tuple[str, ...]: ...

    def pixel_size_um(self, image: Image) -> float | None: ...

    def follow(self, image: Image) -> Lost:
        """What is to be done again when any block is: what was made of several, and of all."""
        ...


class BlockLayout:
    """Of a block job: with a model probabilities and labels, without one the stylised pixels.

    Args:
        job: It.
        spec: Of its model.
    """

    def __init__(self, job: BlockJob, spec: ModelSpec | None) -> None:
        self.job, self.spec = job, spec
        self.makes_objects = spec is not None and job.makes_objects(spec)
        self.blocks_keep = spec is not None and spec.network.output == "objects"  # what each cell sees

    def channels(self, image: Image) -> tuple[str, ...]:
        if self.spec is None:
            return image.record.channels
        if self.spec.num_classes == 2:
            if self.spec.network.output == "objects":
                return ("confidence",)
            more = {"boundary": ("border probability",), "distance": ("depth",)}
            return ("foreground probability", *more.get(self.spec.network.output, ()))
        return tuple(f"probability of class {number}" for number in range(self.spec.num_classes))

    def dtype(self, image: Image) -> str:
        return "uint8" if self.spec else image.record.dtype

    def labels(self, image: Image) -> dict[str, str]:
        if self.spec is not None:
            return {self.spec.label: self.job.instances.ids if self.makes_objects else "uint8"}
        return {name: str(image.labels(name).dtype) for name in image.record.labels}

    def label_kinds(self, image: Image) -> tuple[str, ...]:
        if self.spec is None:
            return image.record.label_kinds
        return ("instance" if self.makes_objects else "binary" if self.spec.num_classes == 2 else "semantic",)

    def pixel_size_um(self, image: Image) -> float | None:
        return self.job.pixel_size_um or image.pixel_size_um

    def follow(self, image: Image) -> Lost:
        if not self.makes_objects:
            return set()
        # Neighbours saw those pixels too, and all numbers follow from what was seen.
        cut = cut_blocks(image.image_id, image.spatial_shape, self.job.blocks.block_size)
        return {("number", (0, 0))} | {(kind, block.write.start) for kind in ("view", "pair", "label") for block in cut}
