"""Batches and receipts, at rates that the driver bears."""

import math

import pytest

from raydom.inference.batches import (
    BATCH_S,
    BATCHES_PER_S,
    BLOCK_PX,
    CPU_BLOCK_S,
    FILES_PER_S,
    GPU_BLOCK_S,
    batch_size,
    flush_s,
    most_at_once,
)


def test_there_are_four_batches_for_each_worker_or_two_of_few_tasks():
    assert batch_size(1000, 4, 16) == 16
    assert batch_size(1000, 4, 400) == 62
    assert batch_size(32, 2, 16) == 8
    assert batch_size(3, 8, 16) == 1


@pytest.mark.parametrize("workers", [1, 16, 200, 1000, 3000])
@pytest.mark.parametrize(("on_gpu", "block_s"), [(False, CPU_BLOCK_S), (True, GPU_BLOCK_S)])
def test_workers_at_the_quickest_blocks_ask_the_driver_for_no_more_batches_than_it_bears(workers, on_gpu, block_s):
    batch_s = block_s * most_at_once(BLOCK_PX, workers, on_gpu)
    assert workers / batch_s <= BATCHES_PER_S and batch_s >= BATCH_S
    assert workers / flush_s(workers) <= FILES_PER_S


def test_smaller_blocks_are_more_to_a_batch_and_long_ones_no_fewer_than_sixteen():
    few = [most_at_once(side * side, 2, False) for side in (64, 128, 256, 512, 1024, 65536)]
    assert few == sorted(few, reverse=True) and few[3:] == [16, 16, 16] and few[2] == 64
    assert most_at_once(16 * 16, 2, False) == most_at_once(64 * 64, 2, False) == math.ceil(BATCH_S / 0.004)
