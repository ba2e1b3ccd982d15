"""A Ray cluster on this machine whose autoscaler starts nodes, with GPUs that are not there, as processes."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import ray  # noqa: F401 - first: psutil comes with it

# isort: split
import psutil
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider
from ray.autoscaler.tags import STATUS_SETTING_UP, STATUS_UP_TO_DATE, TAG_RAY_NODE_STATUS

START_S = 180
MARK = "RAYDOM_FAKE_NODES"
"""All processes of a cluster inherit this variable."""
EMPTY_LISTS = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
EMPTY_LISTS += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
EMPTY_LISTS += ("rsync_exclude", "rsync_filter")


class Provider(FakeMultiNodeProvider):
    """Starts nodes that are there after ``boot_s`` seconds, as those of a cloud are."""

    _reserved = None

    def _next_hex_node_id(self):
        return self._reserved or super()._next_hex_node_id()

    def _create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        with self.lock:
            node_id = super()._next_hex_node_id()
            self._nodes[node_id] = {"tags": tags | {TAG_RAY_NODE_STATUS: STATUS_SETTING_UP}, "node": None}
        up = tags | {TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE}  # else version 1 does not notice when it is lost
        create = super()._create_node_with_resources_and_labels

        def boot():
            with self.lock:
                if node_id in self._nodes:
                    self._reserved = node_id
                    create(node_config, up, count, resources, labels)
                    self._reserved = None

        threading.Timer(self.provider_config["boot_s"], boot).start()

    def _terminate_node(self, node):
        if node["node"] is not None:
            super()._terminate_node(node)


@dataclass(frozen=True)
class FakeCluster:
    """Such a cluster."""

    address: str
    environment: dict[str, str]
    """For processes that join it."""
    folder: Path

    def processes(self):
        """All of its processes."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.pid != os.getpid():
                    found.append(process)
        return found

    def nodes(self):
        """The processes of its nodes, beside the head."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if process.name() == "raylet" and "--head" not in process.cmdline():
                    found.append(process)
        return found

    def end(self):
        while processes := self.processes():
            for process in processes:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)


def _free_ports(count):
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def fake_cluster(folder, types, *, version=2, head_cpus=1, max_workers=4, boot_s=0.0, autoscaling=True):
    """A head and its autoscaler, for the time of a ``with`` block.

    Args:
        folder: Of its own, with a short path: sockets lie there.
        types: By name, the resources and the most nodes of the types that the autoscaler can start.
        version: Of the autoscaler, 1 or 2.
        head_cpus: CPUs of the head.
        max_workers: Most nodes of all types together.
        boot_s: Seconds until a node is there.
        autoscaling: Whether there is an autoscaler at all.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    port, *own = _free_ports(7)
    address = f"{get_node_ip_address()}:{port}"
    config = {name: [] for name in EMPTY_LISTS} | {
        "cluster_name": "fake",
        "max_workers": max_workers,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 10,
        "provider": {
            "type": "external",
            "module": f"{__name__}.Provider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "foreground_node_launch": True,
            "launch_multiple": True,
            "gcs_address": address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "boot_s": boot_s,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0},
            **{
                name: {
                    "resources": resources | {"object_store_memory": 10**8},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": most,
                }
                for name, (resources, most) in types.items()
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
    }
    (folder / "autoscaling.json").write_text(json.dumps(config))
    paths = Path(__file__).parent, Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        MARK: str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, [*map(str, paths), os.environ.get("PYTHONPATH")])),
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    of_head = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": str(int(version == 2)),
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    # Every port of its own: other Rays may be on this machine.
    names = ("ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    names += ("metrics-export-port", "node-manager-port", "object-manager-port")
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
    command += [f"--port={port}", *(f"--{name}={free}" for name, free in zip(names, own, strict=True))]
    command += [f"--temp-dir={folder}", f"--num-cpus={head_cpus}", "--num-gpus=0", "--object-store-memory=100000000"]
    command += ["--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--autoscaling-config={folder / 'autoscaling.json'}"] if autoscaling else []
    cluster = FakeCluster(address, environment, folder)
    with (folder / "start.log").open("wb") as log:
        head = subprocess.Popen(
            command, env=environment | of_head, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START_S
            while "Ray runtime started" not in (text := (folder / "start.log").read_text()):
                assert head.poll() is None and time.monotonic() < deadline, text
                time.sleep(0.2)
            yield cluster
        finally:
            cluster.end()
            head.wait()
