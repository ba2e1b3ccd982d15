"""Synthetic images as a collection: drawn, written and listed; what is there already is not drawn again."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raydom.commands import SynthesizeConfig
from raydom.config import to_dict
from raydom.errors import ConfigError
from raydom.images.intensity import image_statistics
from raydom.images.synthesis import SYNTHESIS_VERSION, SyntheticImage, synthetic_image
from raydom.ingestion.run import LEASE, MANIFEST_EVERY_S, collection_lease, ended
from raydom.storage import files
from raydom.storage.collection import MANIFEST, open_collection, write_manifest
from raydom.storage.pictures import default_channels
from raydom.storage.whole_images import write_image
from raydom.types import Extra, ImageRecord

SETTINGS = "synthesis.json"
"""File of a collection of synthetic images that tells how they were drawn."""

Map = Callable[[Callable[[int], ImageRecord], Sequence[int]], Iterable[ImageRecord]]


@dataclass(frozen=True, slots=True)
class SynthesisReport:
    """What a run did."""

    num_drawn: int
    num_there: int
    """Images that were in the collection before."""


def synthesize(
    config: SynthesizeConfig, *, map: Map = map, progress: Callable[[int, int], None] = lambda done, total: None
) -> SynthesisReport:
    """Draw the images 0 to N - 1 that the collection does not have yet.

    As image k is a function of the settings and k alone, an interrupted run goes on where it stopped, and the same
    command with a larger N adds images to those that there are.

    Args:
        map: Draws the images, in any order. Default: one after another.
        progress: Called with the number of images done and of all.

    Raises:
        ConfigError: If something else is in the output, or images of other settings (naming those that differ).
    """
    out = files.absolute(config.out)
    settings = _settings(config)
    _check(out, settings)
    with collection_lease(out) as held:
        _check(out, settings)
        files.write_json(files.join(out, SETTINGS), settings)
        is_begun = files.exists(files.join(out, MANIFEST))
        rows = {record.image_id: record for record in open_collection(out).records} if is_begun else {}
        num_there = len(rows)
        missing = [number for number in range(config.images) if image_id(number) not in rows]
        last = time.monotonic()
        try:
            with ended(map(functools.partial(draw_and_write, config, out), missing)) as records:
                for record in records:
                    rows[record.image_id] = record
                    progress(len(rows) - num_there, len(missing))
                    if time.monotonic() - last > MANIFEST_EVERY_S:  # a run that is killed keeps what it has finished
                        held.check()
                        write_manifest(out, rows.values())
                        last = time.monotonic()
        finally:
            held.check()
            if rows:
                write_manifest(out, rows.values())
    return SynthesisReport(len(rows) - num_there, num_there)


def image_id(number: int) -> str:
    """Id of an image, the same however many there are."""
    return f"cells_{number:06d}"


def draw_and_write(config: SynthesizeConfig, out: str, number: int) -> ImageRecord:
    """Draw the image of a number and write it; returns its row in the manifest."""
    drawn = synthetic_image(config.cells, number)
    record = ImageRecord(
        image_id=image_id(number),
        uri=f"images/{image_id(number)}.zarr",
        axes="cyx",
        shape=drawn.pixels.shape,
        dtype=str(drawn.pixels.dtype),
        pixel_size_um=config.pixel_size_um,
        channels=default_channels(len(drawn.pixels)),
        domain=config.domain,
        split=config.split,
        group=None,
        labels=("label",),
        statistics=image_statistics(drawn.pixels),
        source_file=f"{files.join(out, SETTINGS)}#{number}",
        sha256=hashlib.sha256(drawn.pixels.tobytes() + drawn.labels.tobytes()).hexdigest(),
        label_kinds=("instance",),
        extra=_extra(drawn, config.pixel_size_um),
    )
    write_image(files.join(out, record.uri), record, drawn.pixels, {"label": drawn.labels})
    return record


def _extra(drawn: SyntheticImage, pixel_size_um: float | None) -> Extra:
    size_px = drawn.object_size_px
    known: dict[str, str | float | bool | None] = {
        "cell_type": drawn.cell_type,
        "density": drawn.density,
        "num_cells": drawn.num_cells,
        "object_size_px": size_px,
    }
    if pixel_size_um is not None:
        known["object_size_um"] = None if size_px is None else size_px * pixel_size_um
    return tuple(sorted(known.items()))


def _settings(config: SynthesizeConfig) -> dict[str, Any]:
    """All that an image depends on beside its number, as plain JSON values."""
    shared = {"pixel_size_um": config.pixel_size_um, "domain": config.domain, "split": config.split}
    return {"version": SYNTHESIS_VERSION, **to_dict(config.cells), **shared}


def _check(out: str, settings: dict[str, Any]) -> None:
    """Refuse an output that holds something else."""
    if not files.exists(files.join(out, SETTINGS)):
        there = [path.rsplit("/", 1)[-1] for path in (*files.list_files(out), *files.list_folders(out))]
        others = [name for name in there if name != LEASE]
        if others:
            raise ConfigError(
                f"{out} holds something else than synthetic images ({', '.join(others[:5])}); choose another --out."
            )
        return
    before = files.read_json(files.join(out, SETTINGS))
    changes = [
        f"{name}: {before.get(name)} -> {settings.get(name)}"
        for name in sorted({*before, *settings})
        if before.get(name) != settings.get(name)
    ]
    if changes:
        raise ConfigError(
            f"{out} has synthetic images of other settings ({'; '.join(changes)}). Give those again to complete or "
            "extend it, or choose another --out."
        )
