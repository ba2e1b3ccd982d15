"""A style method that changes no pixel, but sleeps, raises, kills its process or eats the memory, as files tell it."""

from __future__ import annotations

import os
import signal
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = "RAYDOM_FAULTS"
"""The variable that names the folder of those files."""


def disturbed(content: Any, style: Any, config: Any, generator: Any) -> torch.Tensor:
    """The pixels as they are, after what the files in the folder RAYDOM_FAULTS ask for; a style method.

    ``calls`` there gets a line a call. ``slow`` holds seconds. ``raise``, ``kill``, ``hog`` (memory) and ``hang``
    (seconds) hold how often the white block does so.
    """
    folder = Path(os.environ[FOLDER])
    pixels = content.pixels.cpu().numpy()
    is_white = float((pixels > 0.99).mean()) > 0.25  # neighbours only see its border
    call = (f"{zlib.crc32(pixels.tobytes()):08x}", os.getpid(), time.time(), int(is_white), socket.gethostname())
    with (folder / "calls").open("a") as log:
        print(*call, file=log)
    if (folder / "slow").exists():
        time.sleep(float((folder / "slow").read_text()))
    for fault, act in {"raise": _raise, "kill": kill, "hog": _hog, "hang": _hang}.items():
        if is_white and (folder / fault).exists():
            with (folder / f"{fault}-done").open("a") as done:
                done.write("x")
            if (folder / f"{fault}-done").stat().st_size <= int((folder / fault).read_text()):
                act()
    return content.pixels  # type: ignore[no-any-return]


disturbed.pointwise = True  # type: ignore[attr-defined]


def _raise() -> None:
    raise RuntimeError("no luck")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hog() -> None:
    held = []
    for _ in range(int(min(8.0, memory_gib()["MemAvailable"] - 2.0) * 4)):  # twice what the monitor allows
        held.append(np.ones(2**28, np.uint8))
        time.sleep(0.02)
    time.sleep(20)  # by then Ray's monitor has seen it


def _hang() -> None:
    time.sleep(30)


def memory_gib() -> dict[str, float]:
    lines = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    return {line[0].rstrip(":"): int(line[1]) / 2**20 for line in lines}
