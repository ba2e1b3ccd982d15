"""The simulation of many workers, where what it has to say can be worked out by hand."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "simulation.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("simulation", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulation"] = module
    spec.loader.exec_module(module)
    return module


def test_one_worker_takes_the_sum_of_its_blocks_and_of_what_each_batch_costs(simulation):
    costs = simulation.Costs(batch_s=0.5, hand_over_s=0.25, list_s=0.1, put_s=0.05)
    told = simulation.simulate([3.0], 1, 100, costs, simulation.Engine(batch=10, flush_s=math.inf))
    assert told.busy_s == 300 and told.seconds == pytest.approx(300 + 10 * (0.5 + 0.25 + 0.1 + 3 * 0.05))
    assert told.load["driver"] == pytest.approx(10 * 0.5 / told.seconds)


def test_where_nothing_else_costs_time_workers_are_always_at_their_blocks(simulation):
    service_s = np.random.default_rng(0).uniform(0.5, 1.5, 1000)
    for workers in (1, 7, 500):
        told = simulation.simulate(service_s, workers, 4000 * workers, simulation.Costs(), simulation.Engine(batch=20))
        assert told.utilisation > 0.98
        assert told.tasks_per_s == pytest.approx(workers / service_s.mean(), rel=0.03)


def test_a_driver_that_is_busy_gives_out_no_more_than_it_can_however_many_ask(simulation):
    costs = simulation.Costs(batch_s=0.1)
    told = [simulation.simulate([0.1], workers, 8000, costs, simulation.Engine(batch=4)) for workers in (50, 500)]
    assert [one.tasks_per_s for one in told] == pytest.approx([40, 40], rel=0.02)
    assert all(one.load["driver"] > 0.98 for one in told)
    longer = simulation.simulate([0.1], 50, 80_000, costs, simulation.Engine(batch=100))
    assert longer.utilisation > 0.9 and longer.load["driver"] < 0.6


def test_a_store_that_takes_few_writes_bounds_the_blocks_that_are_written_there(simulation):
    costs = simulation.Costs(puts_per_s=20.0)
    told = simulation.simulate([1.0], 100, 4000, costs, simulation.Engine(batch=20, block_puts=4.0))
    assert told.tasks_per_s == pytest.approx(20 / 4, rel=0.1) and told.load["pixels"] > 0.95


def test_files_of_receipts_stay_few_if_the_driver_keeps_up(simulation):
    costs = simulation.Costs(get_s=0.04, put_s=0.04, list_s=0.1)
    few = simulation.simulate([1.0], 50, 50 * 2000, costs, simulation.Engine(batch=100))
    many = simulation.simulate([1.0], 3000, 3000 * 600, costs, simulation.Engine(batch=100))
    seldom = simulation.simulate([1.0], 3000, 3000 * 600, costs, simulation.Engine(batch=100, flush_s=60.0))
    assert few.most_files < 1000 < seldom.most_files < 4000 < many.most_files


def test_marks_that_all_workers_read_cost_more_the_more_workers_there_are(simulation):
    costs = simulation.Costs(get_s=0.04)
    told = [
        simulation.simulate([1.0], workers, 160 * workers, costs, simulation.Engine(batch=16, reads_all_marks=True))
        for workers in (1, 400)
    ]
    assert told[0].utilisation > 0.99 and told[1].utilisation == pytest.approx(16 / (16 + 400 * 0.04), abs=0.02)
