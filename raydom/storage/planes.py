"""Collections for commands that work on planes, which volumes are refused by before any work."""

from __future__ import annotations

from dataclasses import asdict

from raydom.config import ImageFilter
from raydom.errors import ConfigError
from raydom.storage.collection import Collection, open_collection


def open_planes(uri: str, images: ImageFilter | None = None) -> Collection:
    """The images of a collection that are chosen (default: all), none of which is a volume.

    Raises:
        ConfigError: If one is, and for a choice that fits no image.
        DataError: If there is no collection.
    """
    collection = open_collection(uri)
    chosen = collection if images is None else collection.filter(**asdict(images))
    volumes = [record for record in chosen.records if record.is_volume]
    if volumes:
        raise ConfigError(
            f"{uri}: {len(volumes)} of {len(chosen)} images are volumes, such as {volumes[0].image_id} of "
            f"{volumes[0].num_planes} planes; this command works on planes. Ingest the files without --volumes, an "
            f"image a plane{', or choose the others by --keep axes=cyx' if len(volumes) < len(chosen) else ''}."
        )
    return chosen
