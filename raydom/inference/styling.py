"""What a network or a reader sees of a job's images: pixels read, resampled and stylised, the same in any cut."""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import time
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raydom.algorithms.large import Styler, global_pass, styled_region
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.styles import get_method
from raydom.config import ModelSpec
from raydom.errors import DataError
from raydom.images.content import content_score
from raydom.images.intensity import fraction_statistics, from_fraction, to_fraction
from raydom.images.resample import resample, source_region
from raydom.images.seams import SeamScore, seam_scores
from raydom.inference.job import BlockJob, model_shape, output_uri, style_of, style_units
from raydom.inference.tasks import Task
from raydom.storage import files
from raydom.storage.collection import Image
from raydom.storage.pyramids import writable_levels
from raydom.storage.receipts import Receipt
from raydom.types import Block, ImageStatistics, Region

logger = logging.getLogger(__name__)

BAND_PX = 1024
"""Height of the bands in which an overview is read, px of what is read."""


@dataclass(frozen=True, slots=True)
class BlockPixels:
    """What was read for a block, as fractions of the legal range, on the model's grid."""

    pixels: np.ndarray
    """float32 (c, h, w) of ``seen``."""
    seen: Region
    """The part of the image that was read: ``inner`` and what styling it needs to see around it, model px."""
    inner: Region
    """The part of the image that the network needs, model px."""
    core: Region
    """What is wanted of it, model px."""


class BlockStyler:
    """Reads and stylises parts of a job's images; prepares the style when it is first needed.

    Args:
        job: With the style.
        spec: Of the job's model, which says at what scale the images are seen.
        device: Where to compute.
    """

    def __init__(self, job: BlockJob, spec: ModelSpec | None, device: torch.device) -> None:
        self.job, self.spec, self.device = job, spec, device
        self._passed: tuple[str, dict[str, np.ndarray]] | None = None

    @functools.cached_property
    def styler(self) -> Styler:
        style = self.job.style
        return Styler(get_method(style.method), style_of(style, str(self.device)), style)

    @property
    def style_statistics(self) -> ImageStatistics:
        """Of the style, in fractions."""
        (_, statistics), *_ = self.styler.style.each()
        return statistics

    def grid(self, image: Image) -> tuple[int, ...]:
        return model_shape(image.spatial_shape, self.job.scale_of(image.record, self.spec))

    def statistics(self, image: Image) -> ImageStatistics:
        return fraction_statistics(image.statistics, np.dtype(image.record.dtype))

    def units(self, image: Image) -> ImageStatistics:
        """The scale of the stylised pixels: of floating point ones that of a floating point style, else their own."""
        units = style_units(self.job.style) if np.dtype(image.record.dtype).kind == "f" else None
        return image.statistics if units is None else units

    def to_pixels(self, fractions: np.ndarray, image: Image) -> np.ndarray:
        """Pixels of the image's dtype."""
        return from_fraction(fractions, np.dtype(image.record.dtype), self.units(image))

    def read(self, image: Image, core: Region, inner: Region) -> BlockPixels:
        """What is needed to know the stylised pixels of ``inner``."""
        grid = self.grid(image)
        seen = self.styler.context(inner, grid)
        return BlockPixels(self._read_part(image, seen, grid), seen, inner, core)

    def stylised(self, image: Image, region: Region) -> np.ndarray:
        """What the network sees of a region, on the output's grid: (c, h, w) pixels of the image's dtype."""
        shape, grid = image.spatial_shape, self.grid(image)
        inner = source_region(region, grid, shape)
        styled = self._styled(image, self.read(image, inner, inner))
        styled = resample(styled, inner, region, grid, shape)
        return self.to_pixels(styled, image)

    def guarded(self, image: Image, block: BlockPixels, block_id: str) -> tuple[np.ndarray, dict[str, Any]]:
        """The stylised pixels of a block's ``inner``, and what the content guard says of its core.

        Raises:
            DataError: If the block has lost its content and that is to be a failure.
        """
        styled = self._styled(image, block)
        style = self.job.style
        if style.method == "none":
            return styled, {}
        content = block.pixels[(slice(None), *block.inner.relative_to(block.seen).slices)]
        core = (slice(None), *block.core.relative_to(block.inner).slices)
        score = content_score(content[core], styled[core], self.statistics(image).std, self.style_statistics.std)
        lost = score < style.content_threshold
        if lost and style.on_content_loss == "fail":
            raise DataError(
                f"{block_id}: {style.method} has not kept the content: its score is {score:.2f}, below "
                f"{style.content_threshold:g}. Choose a gentler setting or another style image, or set "
                "--on-content-loss to flag or fallback."
            )
        if lost and style.on_content_loss == "fallback":
            styled = content
        return styled, {"content_score": score, "content_lost": lost}

    def make_global_pass(self, image: Image) -> dict[str, np.ndarray]:
        """What blocks must know of the whole image."""
        grid = self.grid(image)

        def read(region: Region, at: tuple[int, ...]) -> np.ndarray:
            return self._read_part(image, region, grid) if at == grid else self._read_resampled(image, region, at)

        return global_pass(self.styler, self.statistics(image), read, grid, self.device, self._generator(image))

    def _styled(self, image: Image, block: BlockPixels) -> np.ndarray:
        """The stylised pixels of ``inner``, from ``seen`` and what is known of the whole image: as in any other cut."""
        content = StyleInput(torch.from_numpy(block.pixels)[None].to(self.device), self.statistics(image))
        generator = self._generator(image)
        if self.styler.method.pointwise:
            return self.styler.at(1.0)(content, generator)[0].float().cpu().numpy()
        passed = self._global_pass_of(image)
        return styled_region(self.styler, passed, content, block.seen, block.inner, self.grid(image), generator)

    def _global_pass_of(self, image: Image) -> dict[str, np.ndarray]:
        if self._passed is None or self._passed[0] != image.image_id:
            uri = self.job.folder.overview_uri(image.image_id, image.record.sha256)
            try:
                with np.load(io.BytesIO(files.read_bytes(uri))) as stored:
                    passed = {name: stored[name] for name in stored.files}
            except FileNotFoundError:  # an image of one block has none
                passed = self.make_global_pass(image)
            except (ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
                logger.warning("%s: this global pass is damaged and is made again (%s).", uri, error)
                passed = self.make_global_pass(image)
            self._passed = (image.image_id, passed)
        return self._passed[1]

    def _generator(self, image: Image) -> torch.Generator:
        seed = hashlib.sha256(f"{self.job.style.seed}:{image.image_id}".encode()).digest()[:7]
        return torch.Generator().manual_seed(int.from_bytes(seed, "big"))

    def _read_part(self, image: Image, region: Region, grid: tuple[int, ...]) -> np.ndarray:
        """A region of the image resampled to ``grid``, as fractions."""
        shape = image.spatial_shape
        source = source_region(region, shape, grid)
        return resample(to_fraction(image.numpy(source), image.statistics), source, region, shape, grid)

    def _read_resampled(self, image: Image, region: Region, shape: tuple[int, ...]) -> np.ndarray:
        """A region of the image at another size, read band by band from the smallest level that is no smaller."""
        level = 0
        while (
            level + 1 < image.num_levels
            and min(have - want for have, want in zip(image.level_shape(level + 1), shape, strict=True)) >= 0
        ):
            level += 1
        have = image.level_shape(level)
        bands, height = [], max(1, BAND_PX * shape[0] // have[0])
        for top in range(region.start[0], region.stop[0], height):
            band = Region((top, region.start[1]), (min(top + height, region.stop[0]), region.stop[1]))
            source = source_region(band, have, shape)
            fractions = to_fraction(image.numpy(source, level), image.statistics)
            bands.append(resample(fractions, source, band, have, shape))
        return np.concatenate(bands, axis=1)

    def score_seams(self, image: Image, task: Task) -> float | None:
        """Write the seam score of each stylised block of the task's region; returns that of all of them."""
        if self.spec is not None or self.job.style.method == "none":
            return None
        level = writable_levels(output_uri(self.job, image.image_id))[0]
        total, receipts = SeamScore(), []

        def read_output(region: Region) -> np.ndarray:
            return to_fraction(np.asarray(level[(slice(None), *region.slices)]), self.units(image))

        def read_source(region: Region) -> np.ndarray:
            return to_fraction(image.numpy(region), image.statistics)

        for write, score in seam_scores(
            read_output,
            read_source,
            image.spatial_shape,
            self.job.blocks.block_size,
            self.style_statistics.std,
            self.statistics(image).std,
            task.block.write,
        ):
            total += score
            receipts.append(
                Receipt(
                    block_id=Block(image.image_id, write).block_id,
                    image_id=image.image_id,
                    kind="seam",
                    fingerprint=task.fingerprint,
                    status="ok",
                    attempts=1,
                    finished_at=time.time(),
                    seam_score=score.value,
                )
            )
        self.job.folder.write_receipts(receipts)
        return total.value
