"""Checkpoints of a training that runs without Ray (Ray Train keeps its own): one file each, the last two are kept."""

from __future__ import annotations

from raydom.storage import files

KEPT = 2


def save_checkpoint(folder: str, step: int, content: bytes) -> None:
    """Write the checkpoint of a step, then remove all but the last two."""
    files.write_bytes_atomic(files.join(folder, f"step-{step:08d}.pt"), content)
    files.remove_files(files.list_files(folder, ".pt")[:-KEPT])


def latest_checkpoint(folder: str) -> bytes | None:
    """The checkpoint of the highest step, or None."""
    found = files.list_files(folder, ".pt")
    return files.read_bytes(found[-1]) if found else None
