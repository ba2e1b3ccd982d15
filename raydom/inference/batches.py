"""How many tasks a worker takes at a time, and how often it writes their receipts.

Each batch costs the driver some milliseconds and a worker some requests to the store, so batches must not be short;
more so the more workers there are, since one driver serves them all. Long ones delay the progress and the end of a
stage. Work is not lost with them: receipts are written meanwhile. ``benchmarks/scale.py simulate`` shows what becomes
of it on up to thousands of workers.
"""

from __future__ import annotations

import math

TASKS_PER_BATCH = 16
"""Tasks that may be in a batch, however long they may take."""
BLOCK_PX = 512 * 512
"""Pixels of a block that takes these times; others take them in proportion."""
CPU_BLOCK_S, GPU_BLOCK_S = 0.25, 0.05
"""What a block of that size takes at least with a small network. Measured for a U-Net on a CPU, assumed for a GPU."""
TASK_S = 0.004
"""What any task takes at least, with the pixels that it writes."""
BATCH_S = 4.0
"""For so long a batch keeps a worker at least, if there are enough tasks."""
BATCHES_PER_S = 50.0
"""Batches that the driver is asked for by all workers; it can give out twice as many."""
FLUSH_S = 10.0
"""A receipt waits at most about this long for the others of its batch."""
FILES_PER_S = 50.0
"""Files of receipts that all workers write, if batches are long; the driver puts together three times as many."""


def most_at_once(largest_px: int, workers: int, on_gpu: bool) -> int:
    """Tasks to a batch at most, if the quickest of networks is asked about each.

    Args:
        largest_px: Pixels of the largest block.
        workers: How many are at work.
        on_gpu: Whether they compute on GPUs.
    """
    task_s = max(TASK_S, (GPU_BLOCK_S if on_gpu else CPU_BLOCK_S) * largest_px / BLOCK_PX)
    return max(TASKS_PER_BATCH, math.ceil(max(BATCH_S, workers / BATCHES_PER_S) / task_s))


def batch_size(num_tasks: int, workers: int, most: int) -> int:
    """Tasks that a worker takes at a time: at most so many, fewer where there are not enough for four batches each.

    Few tasks are cut into two batches for each worker, since the hand-over of more would take longer than what the last
    to end makes the others wait.
    """
    few = min(TASKS_PER_BATCH, math.ceil(num_tasks / (2 * workers)))
    return max(1, min(most, max(few, num_tasks // (4 * workers))))


def flush_s(workers: int) -> float:
    """How long a receipt waits at most for others, s; what a worker does meanwhile is lost with it."""
    return max(FLUSH_S, workers / FILES_PER_S)
