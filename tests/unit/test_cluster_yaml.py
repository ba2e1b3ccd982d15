"""cluster.yaml is accepted by Ray's own validation, and is the cluster that it says it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """The cluster as ``ray up`` completes it, before it speaks to AWS."""
    return prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def test_ray_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    validate_config(cluster)


def test_the_head_is_on_demand_and_takes_no_work(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert any("ray start --head --num-cpus=0 " in command for command in cluster["head_start_ray_commands"])


def test_gpu_nodes_are_spot_and_start_from_none(cluster: dict[str, Any]) -> None:
    gpu = [node for node in cluster["available_node_types"].values() if node["resources"].get("GPU")]
    assert [(node["min_workers"], node["node_config"]["InstanceMarketOptions"]["MarketType"]) for node in gpu] == [
        (0, "spot")
    ]
    assert 0 < gpu[0]["max_workers"] <= cluster["max_workers"]


def test_containers_run_the_pinned_ray(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    images = [cluster["docker"]["image"], cluster["available_node_types"]["gpu"]["docker"]["worker_image"]]
    assert all(f":{pinned[1]}-py311" in image for image in images)


def test_every_node_installs_raydom_with_the_pins(cluster: dict[str, Any]) -> None:
    for commands in (cluster["head_setup_commands"], cluster["worker_setup_commands"]):
        assert any("constraints.txt /home/ray/raydom" in command for command in commands)
    assert cluster["file_mounts"]["/home/ray/raydom"] == "."
