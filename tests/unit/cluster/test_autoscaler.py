"""What an autoscaler can start is read where the autoscaler reads it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from raydom.cluster import autoscaler
from raydom.cluster.capacity import Autoscaler, NodeType

ROOT = Path(__file__).resolve().parents[3]
GCS = "10.0.0.1:6379"


@pytest.fixture
def processes(monkeypatch):
    """Of a head node: another Ray's monitor, and what is added."""
    listed = [["python", "/ray/autoscaler/_private/monitor.py", "--gcs-address=10.0.0.1:7000"], ["bash"]]
    monkeypatch.setattr(
        autoscaler.psutil,
        "process_iter",
        lambda: [SimpleNamespace(cmdline=lambda words=words: words) for words in listed],
    )
    monkeypatch.delenv("RAY_CLUSTER_NAME", raising=False)
    return listed


@pytest.mark.parametrize("monitor", ["/ray/autoscaler/_private/monitor.py", "/ray/autoscaler/v2/monitor.py"])
def test_types_stand_in_the_file_of_the_monitor_of_this_ray(processes, tmp_path, monitor):
    types = {"head": {"max_workers": 0}, "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2}}
    config = {"max_workers": 2, "head_node_type": "head", "available_node_types": types}
    (tmp_path / "config=1.json").write_text(json.dumps(config))
    processes.append(["python", monitor, f"--gcs-address={GCS}", f"--autoscaling-config={tmp_path}/config=1.json"])
    assert autoscaler.find_autoscaler(GCS) == Autoscaler((NodeType("gpu", {"CPU": 8, "GPU": 1}, 2),), 2)


def test_a_monitor_without_a_file_starts_nothing_and_without_a_monitor_nothing_is_known(processes):
    assert autoscaler.find_autoscaler(GCS) is None
    processes.append(["python", "/ray/_private/log_monitor.py", f"--gcs-address={GCS}"])
    assert autoscaler.find_autoscaler(GCS) is None
    processes.append(["python", "/ray/autoscaler/_private/monitor.py", f"--gcs-address={GCS}"])
    assert autoscaler.find_autoscaler(GCS) == Autoscaler()


def test_on_kubernetes_types_are_the_worker_groups_of_the_ray_cluster(processes, monkeypatch):
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    documents = yaml.safe_load_all((ROOT / "jobs/kubernetes/cluster.yaml").read_text())
    (manifest,) = [one for one in documents if one["kind"] == "RayCluster"]
    monkeypatch.setattr(KubernetesHttpApiClient, "get", lambda self, path: {"rayclusters/raydom": manifest}[path])
    monkeypatch.setitem(os.environ, "RAY_CLUSTER_NAME", "raydom")
    monkeypatch.setitem(os.environ, "RAY_CLUSTER_NAMESPACE", "raydom")
    found = autoscaler.find_autoscaler(GCS)
    assert found.max_nodes == 12
    assert [(kind.name, kind.resources.get("GPU"), kind.resources["CPU"], kind.max_nodes) for kind in found.types] == [
        ("cpu", None, 7, 4),
        ("gpu", 1, 7, 8),
    ]
