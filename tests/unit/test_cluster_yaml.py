"""cluster.yaml is accepted by Ray's own validation, and is the cluster that it says it is."""

from __future__ import annotations

import re
import runpy
import tomllib
from collections.abc import Iterator
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
        assert any("constraints.txt '/home/ray/raydom[s3]'" in command for command in commands)
    mounted = {there: here for there, here in cluster["file_mounts"].items() if "auth_token" not in there}
    assert all(there == f"/home/ray/raydom/{here}" and (ROOT / here).exists() for there, here in mounted.items())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {"raydom", "pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}
    assert needed == set(mounted.values())


def test_all_that_is_said_to_ray_needs_the_token_and_only_the_head_hears_the_dashboard(cluster: dict[str, Any]) -> None:
    started = [
        command
        for kind in ("head", "worker")
        for command in cluster[f"{kind}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(started) == 2 and all(command.startswith("RAY_AUTH_MODE=token ray start ") for command in started)
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "--dashboard-host=127.0.0.1" in started[0] and "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An AWS that is not there; keys are written to a folder of the test."""
    moto = pytest.importorskip("moto")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with moto.mock_aws():
        import boto3

        yield boto3.Session(region_name="us-west-2")


def test_the_nodes_can_be_launched_with_what_the_set_up_makes(
    aws: Any, cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    set_up = runpy.run_path(str(ROOT / "jobs/aws/set_up.py"))["main"]
    for _ in range(2):  # again when one's address has changed
        assert set_up(["my-bucket", "--address", "192.0.2.7/32"]) == 0
    group = re.findall(r"SecurityGroupIds: \[(sg-\w+)\]", capsys.readouterr().out)[-1]
    ec2 = aws.client("ec2")
    (made,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    open_to = [(rule.get("FromPort"), rule["IpRanges"], rule["UserIdGroupPairs"]) for rule in made["IpPermissions"]]
    inside, ssh = sorted(open_to, key=str, reverse=True)
    assert inside[1] == [] and [pair["GroupId"] for pair in inside[2]] == [group]
    assert ssh[0] == 22 and [block["CidrIp"] for block in ssh[1]] == ["192.0.2.7/32"] and ssh[2] == []

    text = (ROOT / "cluster.yaml").read_text()
    image = ec2.describe_images()["Images"][0]["ImageId"]
    text = text.replace("ami-00000000000000000", image).replace("sg-00000000000000000", group)
    config = bootstrap_aws(prepare_config(yaml.safe_load(text)))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for kind, node_type in config["available_node_types"].items():
        (node,) = provider.create_node(node_type["node_config"], {"ray-node-kind": kind}, 1).values()
        (told,) = ec2.describe_instances(InstanceIds=[node.id])["Reservations"][0]["Instances"]
        assert [one["GroupId"] for one in told["SecurityGroups"]] == [group]
        assert told.get("InstanceLifecycle") == ("spot" if kind == "gpu" else None)
        profile = "raydom-head" if kind == "head" else "raydom-worker"
        assert told["IamInstanceProfile"]["Arn"].endswith(f"/{profile}")
        (disk,) = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [node.id]}])["Volumes"]
        assert disk["Encrypted"] and disk["Size"] == 200
    rights = {
        kind: aws.client("iam").list_role_policies(RoleName=f"raydom-{kind}")["PolicyNames"]
        for kind in ("head", "worker")
    }
    assert rights == {"head": ["data", "start-workers"], "worker": ["data"]}  # whoever has a worker starts no nodes
