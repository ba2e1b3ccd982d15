"""What networks on CPUs ask of the C library's memory."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's ``mallopt``."""
SERVED_FROM_HEAP = 2**30
"""Bytes of an array up to which it comes from memory that the process keeps."""


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed arrays for the next ones, instead of giving it back each time.

    The activations of a network are allocated and freed in every step; by default glibc maps each large one anew, and
    the kernel clears its pages again (a U-Net's training step on crops of 128 px spent 14 % of its CPU time so). The
    process stays as large as it was at its peak. Elsewhere than on Linux with glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, SERVED_FROM_HEAP)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
