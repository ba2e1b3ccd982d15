"""The manifests of jobs/kubernetes and the Dockerfile fit KubeRay's types, each other, and what is pinned."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raydom.cli import COMMANDS, parse

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "jobs" / "kubernetes"


def strictly(required: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": properties,
    }


TEXT, NUMBER, TRUTH = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\d+(m|[KMGT]i)?$"}}
RESOURCES = strictly("requests limits", requests=QUANTITIES, limits=QUANTITIES)
CONTAINER = strictly(
    "name image resources securityContext volumeMounts",
    name=TEXT,
    image=TEXT,
    ports={"type": "array", "items": strictly("name containerPort", name=TEXT, containerPort=NUMBER)},
    resources=RESOURCES,
    securityContext=strictly(
        "allowPrivilegeEscalation capabilities",
        allowPrivilegeEscalation={"const": False},
        capabilities={"const": {"drop": ["ALL"]}},
    ),
    volumeMounts={"type": "array", "items": strictly("name mountPath", name=TEXT, mountPath=TEXT, readOnly=TRUTH)},
)
POD = strictly(
    "spec",
    spec=strictly(
        "containers volumes securityContext serviceAccountName",
        serviceAccountName=TEXT,
        automountServiceAccountToken=TRUTH,
        terminationGracePeriodSeconds=NUMBER,
        tolerations={"type": "array", "items": strictly("key operator effect", key=TEXT, operator=TEXT, effect=TEXT)},
        securityContext=strictly(
            "runAsUser runAsNonRoot fsGroup seccompProfile",
            runAsUser=NUMBER,
            runAsNonRoot={"const": True},
            fsGroup=NUMBER,
            seccompProfile={"const": {"type": "RuntimeDefault"}},
        ),
        containers={"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
        volumes={
            "type": "array",
            "items": strictly(
                "name",
                name=TEXT,
                emptyDir=strictly("sizeLimit", medium={"const": "Memory"}, sizeLimit=TEXT),
                configMap=strictly("name", name=TEXT),
            ),
        },
    ),
)
CLUSTER = strictly(
    "rayVersion headGroupSpec workerGroupSpecs",
    rayVersion=TEXT,
    enableInTreeAutoscaling=TRUTH,
    autoscalerOptions=strictly(
        "version", version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=NUMBER, resources=RESOURCES
    ),
    authOptions=strictly("mode", mode={"enum": ["token", "disabled"]}),
    headGroupSpec=strictly("rayStartParams template", serviceType=TEXT, rayStartParams=TEXTS, template=POD),
    workerGroupSpecs={
        "type": "array",
        "items": strictly(
            "groupName minReplicas maxReplicas rayStartParams template",
            groupName=TEXT,
            replicas=NUMBER,
            minReplicas=NUMBER,
            maxReplicas=NUMBER,
            rayStartParams={"type": "object", "additionalProperties": TEXT},
            template=POD,
        ),
    },
)
JOB = strictly(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    backoffLimit=NUMBER,
    shutdownAfterJobFinishes=TRUTH,
    ttlSecondsAfterFinished=NUMBER,
    rayClusterSpec=CLUSTER,
)
"""Of KubeRay's types (ray.io/v1, as of KubeRay 1.5.1) and of pods: the fields that the manifests use."""


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    """All documents, by their kind."""
    found = [one for path in sorted(FOLDER.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


@pytest.fixture(scope="module")
def groups(manifests: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    cluster = manifests["RayCluster"]["spec"]
    return {"head": cluster["headGroupSpec"]} | {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def test_the_manifests_have_the_fields_of_their_kinds(manifests: dict[str, dict[str, Any]]) -> None:
    jsonschema.validate(manifests["RayCluster"]["spec"], CLUSTER)
    jsonschema.validate(manifests["RayJob"]["spec"], JOB)
    assert {manifests[kind]["apiVersion"] for kind in ("RayCluster", "RayJob")} == {"ray.io/v1"}
    namespaces = {one["metadata"].get("namespace") for kind, one in manifests.items() if kind != "Namespace"}
    assert namespaces == {manifests["Namespace"]["metadata"]["name"]}


def test_a_pod_mounts_what_it_has_and_asks_for_what_it_may_have(groups: dict[str, dict[str, Any]]) -> None:
    for group in groups.values():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]  # none is evicted for another
        assert pod["serviceAccountName"] == "raydom"


def test_the_head_takes_no_work_and_workers_come_from_none(groups: dict[str, dict[str, Any]]) -> None:
    assert groups["head"]["rayStartParams"] == {"num-cpus": "0"} and groups["head"]["serviceType"] == "ClusterIP"
    workers = [group for name, group in groups.items() if name != "head"]
    assert all(group["minReplicas"] == 0 < group["maxReplicas"] for group in workers)
    gpus = {name: group["template"]["spec"]["containers"][0]["resources"]["limits"] for name, group in groups.items()}
    assert [name for name, limits in gpus.items() if "nvidia.com/gpu" in limits] == ["gpu"]


def test_nobody_outside_reaches_the_pods_and_all_of_them_want_the_token(manifests: dict[str, dict[str, Any]]) -> None:
    assert manifests["RayCluster"]["spec"]["authOptions"] == {"mode": "token"}
    policy = manifests["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == {} and policy["policyTypes"] == ["Ingress"]
    within, operator = policy["ingress"]
    assert within == {"from": [{"podSelector": {}}]}
    assert [port["port"] for port in operator["ports"]] == [8265]


def test_the_cluster_of_a_job_is_the_cluster_with_the_jobs_configuration(manifests: dict[str, dict[str, Any]]) -> None:
    job = manifests["RayJob"]["spec"]
    words = shlex.split(job["entrypoint"])
    assert words[:3] == ["raydom", "segment", "--config"] and words[1] in COMMANDS
    (name,) = manifests["ConfigMap"]["data"]
    assert words[3] == f"/etc/raydom/{name}"
    configuration = {"name": "configuration", "configMap": {"name": manifests["ConfigMap"]["metadata"]["name"]}}
    spec = copy.deepcopy(job["rayClusterSpec"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounts = pod["containers"][0]["volumeMounts"]
        if configuration in pod["volumes"]:  # anchors of YAML are one list in several groups
            mounts.remove({"name": "configuration", "mountPath": "/etc/raydom", "readOnly": True})
            pod["volumes"].remove(configuration)
    assert spec == manifests["RayCluster"]["spec"]


def test_the_configuration_of_the_job_is_one_of_its_command(
    manifests: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    (text,) = manifests["ConfigMap"]["data"].values()
    (tmp_path / "segment.yaml").write_text(text)
    assert parse("segment", ["--config", str(tmp_path / "segment.yaml")]).run.gpus_per_worker == 1


def test_versions_are_those_that_are_pinned(
    manifests: dict[str, dict[str, Any]], groups: dict[str, dict[str, Any]]
) -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    dockerfile = (ROOT / "jobs/Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pinned is not None and f"ARG RAY={pinned[1]}\n" in dockerfile
    assert manifests["RayCluster"]["spec"]["rayVersion"] == pinned[1]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups.values()}
    assert images == {f"REGISTRY/raydom:{project['version']}"}
    assert f"-t REGISTRY/raydom:{project['version']} " in dockerfile


def test_the_image_is_made_of_files_that_there_are() -> None:
    dockerfile = (ROOT / "jobs/Dockerfile").read_text()
    copied = [
        word for line in re.findall(r"^COPY --chown=ray (.*)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"raydom", "pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]} == set(copied)
    assert all((ROOT / name).exists() for name in copied)
    extras = re.search(r"'\.\[([\w,]+)\]'", dockerfile)
    assert extras is not None and set(extras[1].split(",")) <= set(project["optional-dependencies"])
