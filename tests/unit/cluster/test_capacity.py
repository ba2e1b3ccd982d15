"""What a cluster has and can have decides whether a job begins, waits, or is refused."""

import re
from pathlib import Path

import pytest
import yaml

from raydom.cluster.capacity import (
    Autoscaler,
    Capacity,
    NodeType,
    check_capacity,
    needs_of,
    room,
    workers_at_most,
    workers_now,
)
from raydom.config import ClusterConfig, RunConfig
from raydom.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
CPU = NodeType("cpu", {"CPU": 8}, 4)
GPU = NodeType("gpu", {"CPU": 8, "GPU": 1}, 8)
NO_WORK = {"memory": 1e9}
"""Of a head without CPUs."""
ONE_GPU = {"GPU": 1.0, "CPU": 1.0}


def test_a_worker_fits_as_often_as_the_scarcest_of_its_needs_allows():
    assert room({"CPU": 8, "GPU": 1}, {"CPU": 3}) == 2
    assert room({"CPU": 8, "GPU": 1}, {"GPU": 0.1, "CPU": 1}) == 8
    assert room({"CPU": 8, "GPU": 0.7}, {"GPU": 0.1, "CPU": 1}) == 7  # 0.7 / 0.1 < 7 in floating point
    assert room({"CPU": 8}, ONE_GPU) == 0


def test_needs_name_gpus_first_and_only_where_they_are_asked_for():
    assert list(needs_of(RunConfig(gpus_per_worker=0.5)).items()) == [("GPU", 0.5), ("CPU", 1.0)]
    assert needs_of(ClusterConfig(cpus_per_worker=2)) == {"CPU": 2}


def test_the_most_workers_are_those_of_all_nodes_that_may_be_there_at_once():
    empty = Capacity(NO_WORK, (), Autoscaler((CPU, GPU), 12))
    assert workers_now(empty, ONE_GPU) == 0 and workers_at_most(empty, ONE_GPU) == 8
    assert workers_at_most(empty, {"CPU": 1}) == 32  # nodes with GPUs are not started for them
    assert workers_at_most(Capacity({"CPU": 2}, (), Autoscaler((GPU,), 3)), {"CPU": 1}) == 2 + 24  # unless all have
    assert workers_at_most(Capacity(NO_WORK, (), Autoscaler((CPU, GPU), 5)), ONE_GPU) == 5  # of all types together
    assert workers_at_most(Capacity(NO_WORK, ({"GPU": 8, "CPU": 99},), Autoscaler((GPU,), 2)), ONE_GPU) == 8
    assert workers_at_most(Capacity(NO_WORK, (), None), ONE_GPU) is None


@pytest.mark.parametrize(
    ("capacity", "needs", "workers"),
    [
        (Capacity({"CPU": 2}, (), Autoscaler()), {"CPU": 2.0}, 1),
        (Capacity(NO_WORK, (), Autoscaler((CPU, GPU), 12)), ONE_GPU, 8),
        (Capacity(NO_WORK, (), None), {"GPU": 64.0, "CPU": 1.0}, 9),  # nobody knows
        (Capacity(NO_WORK, ({"CPU": 4, "GPU": 2},), Autoscaler((CPU,), 1)), {"GPU": 2.0, "CPU": 1.0}, 1),
    ],
)
def test_a_job_begins_where_its_workers_are_or_may_come(capacity, needs, workers):
    check_capacity(capacity, needs, workers)


@pytest.mark.parametrize(
    ("capacity", "needs", "workers", "told"),
    [
        (
            Capacity({"CPU": 2}, (), Autoscaler()),
            ONE_GPU,
            1,
            "1 worker of 1 GPU and 1 CPU asked for, room for 0 at most: there is 1 node with 2 CPUs; no autoscaler "
            "that could start more is at work. Leave --gpus-per-worker out",
        ),
        (
            Capacity(NO_WORK, ({"CPU": 8}, {"CPU": 8}), Autoscaler((CPU,), 12)),
            ONE_GPU,
            1,
            "there are 1 node with no CPUs, 2 nodes with 8 CPUs; its autoscaler can start cpu (8 CPUs, up to 4). "
            "Leave --gpus-per-worker out",
        ),
        (
            Capacity(NO_WORK, (), Autoscaler((GPU,), 12)),
            {"GPU": 2.0, "CPU": 1.0},
            1,
            "Give --gpus-per-worker 1 or less",
        ),
        (
            Capacity({"CPU": 64}, (), Autoscaler((GPU,), 12)),
            {"GPU": 1.0, "CPU": 16.0},
            1,
            "Give --cpus-per-worker 8 or less: no node has more where there are GPUs.",
        ),
        (Capacity(NO_WORK, (), Autoscaler()), {"CPU": 1.0}, 1, "wait for those that are to join it"),
        (Capacity({"CPU": 2}, (), Autoscaler()), {"CPU": 4.0}, 1, "Give --cpus-per-worker 2 or less"),
        (Capacity(NO_WORK, (), Autoscaler((GPU,), 3)), ONE_GPU, 4, "room for 3 at most: .*Give fewer --workers than 4"),
    ],
)
def test_workers_that_will_never_be_there_are_refused_with_the_remedy(capacity, needs, workers, told):
    pattern = told if ".*" in told else re.escape(told)
    with pytest.raises(ConfigError, match=pattern):
        check_capacity(capacity, needs, workers)


def test_types_are_those_of_the_cluster_that_we_recommend():
    autoscaler = Autoscaler.of(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    assert autoscaler == Autoscaler((CPU, GPU), 12)


def test_types_without_a_number_of_nodes_may_have_as_many_as_all_together_but_not_the_head():
    types = {"head": {"resources": {"CPU": 4}}, "any": {"resources": {"CPU": 8}}}
    config = {"max_workers": 3, "head_node_type": "head", "available_node_types": types}
    assert Autoscaler.of(config) == Autoscaler((NodeType("any", {"CPU": 8}, 3),), 3)


def test_a_type_that_does_not_say_what_it_has_leaves_open_what_can_come():
    types = {"head": {"max_workers": 0}, "any": {"node_config": {"InstanceType": "g6.2xlarge"}}}
    config = {"max_workers": 3, "head_node_type": "head", "available_node_types": types}
    assert Autoscaler.of(config) is None
