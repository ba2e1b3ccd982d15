"""Makespans, limits and money, worked out by hand."""

import numpy as np
import pytest

from raydom.inference.forecast import (
    DRIVER,
    STORE,
    TAIL,
    WORK,
    Forecast,
    Limits,
    Offer,
    StageLoad,
    StartUp,
    cheapest,
    forecast,
    forecast_stage,
    makespan,
    most_useful_workers,
)

FREE = Limits(driver_batches_per_s=1e9, store_writes_per_s=1e9)


def _stage(seconds, **options):
    return StageLoad("block", np.array(seconds, float), **options)


def test_each_piece_of_work_goes_to_the_worker_that_is_free_first():
    assert makespan([3, 3, 2, 2, 2], 1) == 12
    assert makespan([3, 3, 2, 2, 2], 2) == 7  # 3 + 2 + 2 and 3 + 2
    assert makespan([1, 1, 1, 9], 2) == 10  # the long one comes last: the tail
    assert makespan([9, 1, 1, 1], 2) == 9
    assert makespan([5], 4) == 5
    assert makespan([], 4) == 0


def test_a_stage_of_equal_blocks_is_its_work_shared_by_the_workers():
    stage = _stage([2.0] * 64)
    assert forecast_stage(stage, 1, FREE).seconds == 128
    assert forecast_stage(stage, 2, FREE).seconds == 64
    assert forecast_stage(stage, 2, FREE).limit == WORK
    assert forecast_stage(stage, 64, FREE).seconds == 2
    assert forecast_stage(stage, 1000, FREE).seconds == 2  # no more than a block each


def test_a_large_image_that_one_worker_solves_bounds_the_end():
    told = forecast_stage(_stage([1.0, 1.0, 1.0, 60.0]), 4, FREE)
    assert (told.seconds, told.limit) == (60, TAIL)
    whole = forecast([_stage([1.0] * 400), _stage([100.0])], 100, StartUp(), FREE)
    assert whole.seconds == 4 + 100 and whole.limit == TAIL
    assert whole.efficiency == pytest.approx(500 / (100 * 104))


def test_driver_and_store_bound_what_workers_could_do_quicker():
    stage = _stage([0.1] * 1600, writes=4800)  # 100 batches of 16, of two writes each
    slow_driver = Limits(driver_batches_per_s=10, store_writes_per_s=1e9)
    slow_store = Limits(driver_batches_per_s=1e9, store_writes_per_s=100)
    assert forecast_stage(stage, 50, slow_driver).seconds == 10  # 160 s of work by 50 workers would be 3.2 s
    assert forecast_stage(stage, 50, slow_driver).limit == DRIVER
    assert (forecast_stage(stage, 50, slow_store).seconds, forecast_stage(stage, 50, slow_store).limit) == (50, STORE)


def test_start_up_counts_the_cluster_once_and_every_further_stage():
    start = StartUp(session_s=5, worker_s=10, stage_s=2)
    limits = Limits(driver_batches_per_s=1e9, store_writes_per_s=1e9, receipt_s=0.5)
    told = forecast([_stage([1.0] * 4), _stage([]), _stage([3.0] * 2)], 2, start, limits, boot_s=100)
    assert told.start_s == 100 + 5 + 10 + 2 + 0.5 * 6
    assert told.seconds == told.start_s + 2 + 3
    assert told.busy_s == 10


def test_more_workers_than_are_useful_do_not_help():
    stages = [_stage([2.0] * 300, writes=300), _stage([10.0, 5.0])]
    assert most_useful_workers(stages, FREE) == 300
    assert most_useful_workers(stages, Limits(driver_batches_per_s=1e9, store_writes_per_s=10)) == 20  # 600 s in 30 s


def test_the_cheapest_offer_meets_the_deadline():
    def offer(nodes, hours, usd, spot=None):
        return Offer("node", nodes, Forecast(nodes, 3600 * hours, 0, 0, ()), 0.0, usd, spot)

    slow, middle, quick = offer(1, 10, 8.0, 3.0), offer(4, 3, 9.0, 3.5), offer(16, 1, 12.0)
    assert cheapest([slow, middle, quick], 24) is slow
    assert cheapest([slow, middle, quick], 5) is middle
    assert cheapest([slow, middle, quick], 1) is quick
    assert cheapest([slow, middle, quick], 0.5) is None
