"""A Ray cluster of machines that are namespaces of this one: each with an address, a name, processes and a disk.

A node has its own network (joined to the others by a bridge), host name, process numbers, shared memory and disk (a
small one, in memory), so that it can be lost, cut off, suspended or full alone; what they share is the rest of the
file system, as a shared folder. A node whose Ray has ended is started again, as Kubernetes and service managers do.
Linux and root only.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

BRIDGE = "rfbr"
NETWORK = "10.231.7"
OUTSIDE = f"{NETWORK}.254"
"""The address of this machine as the nodes see it; the user's terminal is here."""
HEAD = f"{NETWORK}.1"
START_S = 240.0
DISK_MIB = 400
STORE_BYTES = 80_000_000


class NotPermittedError(Exception):
    """This machine does not let us."""


@dataclass
class Node:
    """One of the machines. The first is the head, without CPUs for work."""

    number: int
    folder: Path
    environment: dict[str, str]
    popen: subprocess.Popen[bytes] | None = None
    starts: int = 0
    is_wanted: bool = False

    @property
    def name(self) -> str:
        return "head" if self.number == 1 else f"node{self.number - 1}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def disk(self) -> Path:
        """The disk of its own, for sessions, logs and packages."""
        return self.folder / f"n{self.number}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def connect(self) -> None:
        """Make its network."""
        space, cable = f"rfn{self.number}", f"rfv{self.number}"
        _ip(f"netns add {space}")
        _ip(f"link add {cable} type veth peer name eth0 netns {space}")
        _ip(f"link set {cable} master {BRIDGE} up")
        _ip(f"-n {space} addr add {self.address}/24 dev eth0")
        _ip(f"-n {space} link set lo up")
        _ip(f"-n {space} link set eth0 up")
        _ip(f"-n {space} route add default via {OUTSIDE}")  # leads nowhere; Ray asks for it to learn its own address

    def cut_off(self, is_cut: bool) -> None:
        """Draw its cable, or put it in again: packets are lost, and nobody is told."""
        _ip(f"link set rfv{self.number} {'down' if is_cut else 'up'}")

    def start(self) -> None:
        """Start its Ray, on an empty disk and under a new host name."""
        self.is_wanted = True
        self.starts += 1
        self.disk.mkdir(exist_ok=True)
        host = self.name if self.starts == 1 else f"{self.name}-{self.starts}"
        ray = Path(sys.executable).with_name("ray")
        start = f"{ray} start --block --disable-usage-stats --node-ip-address={self.address} --node-name={host}"
        start += f" --object-store-memory={STORE_BYTES} --temp-dir={self.disk}"
        if self.number == 1:
            start += f" --head --port=6379 --num-cpus=0 --dashboard-host={self.address} --dashboard-port=8265"
        else:
            start += f" --address={HEAD}:6379 --num-cpus=1"
        script = f"""
            hostname {host}
            mount -t tmpfs -o size={DISK_MIB}m tmpfs {self.disk}
            mount -t tmpfs -o size=200m tmpfs /dev/shm
            {start}
        """  # the shell stays, as the first process: with it all others are killed
        inside = ["unshare", "--uts", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                ["ip", "netns", "exec", f"rfn{self.number}", *inside, "bash", "-c", script],
                env=self.environment | {"TMPDIR": str(self.disk)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """All its processes at once by SIGKILL, as when a machine is taken away; it does not come back by itself."""
        self.is_wanted = False
        if self.popen is not None:
            self.popen.kill()  # the kernel kills the first process of its processes with it, and so all of them
            self.popen.wait()

    def send(self, number: signal.Signals) -> None:
        """A signal to all its processes."""
        for pid in self.pids():
            os.kill(pid, number)

    def pids(self, command: str = "") -> list[int]:
        """Its processes, or those whose command line holds a text."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self._has(entry) and command in _command(entry):
                found.append(int(entry.name))
        return found

    def inside(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command that sees its disk."""
        words = ["nsenter", f"--mount=/proc/{self.pids()[0]}/ns/mnt", "bash", "-c", command]
        return subprocess.run(words, capture_output=True, text=True)

    def _has(self, process: Path) -> bool:
        """Whether a process is one of this node, which has the shell's namespace of processes."""
        try:
            children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text() if self.popen else ""
            space = Path(f"/proc/{children.split()[0]}/ns/pid").readlink() if children else None
            return space is not None and (process / "ns" / "pid").readlink() == space
        except OSError:  # it has just ended
            return False


@dataclass
class Cluster:
    """The head and three nodes of one CPU each."""

    folder: Path
    nodes: list[Node] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def workers(self) -> list[Node]:
        return self.nodes[1:]

    @property
    def server(self) -> str:
        """Of jobs."""
        return f"http://{HEAD}:8265"

    @property
    def environment(self) -> dict[str, str]:
        """Of the terminal of a user: with the token."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYDOM_"))}
        return kept | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def wait(self) -> None:
        """Start the nodes that are gone, and wait until all are there."""
        for node in self.nodes:
            node.is_wanted = True
        self.until(lambda: self.alive() == {node.address for node in self.nodes}, "the nodes come")

    def alive(self) -> set[str]:
        """The addresses of the nodes that the head takes for alive."""
        token = {"Authorization": f"Bearer {(self.folder / 'token').read_text()}"}
        try:
            answer = requests.get(f"{self.server}/nodes?view=summary", headers=token, timeout=10)
            rows = answer.json()["data"]["summary"]
            return {row["ip"] for row in rows if row["raylet"].get("state") == "ALIVE"}
        except (requests.RequestException, KeyError, ValueError):  # it is not there, or a node has not told all yet
            return set()

    def until(self, happens: Callable[[], object], what: str, limit_s: float = START_S) -> None:
        deadline = time.monotonic() + limit_s
        while not happens():
            assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
            time.sleep(0.2)

    def keep(self) -> None:
        """Start again what has ended; on a thread."""
        while not self.closing.wait(1.0):
            for node in self.nodes:
                if node.is_wanted and (node.popen is None or node.popen.poll() is not None):
                    node.start()


@contextmanager
def cluster(folder: Path, num_workers: int = 3) -> Iterator[Cluster]:
    """A cluster for the time of a ``with`` block; nothing of it is left afterwards.

    Args:
        folder: For its disks and logs; keep its path short, since sockets lie there.
        num_workers: Nodes beside the head.

    Raises:
        NotPermittedError: When namespaces cannot be made here.
    """
    if os.geteuid() != 0:
        raise NotPermittedError("namespaces for networks and processes need root")
    made = Cluster(folder)
    (folder / "token").write_text(secrets.token_hex(32))
    (folder / "token").chmod(0o600)
    made.nodes = [Node(number, folder, made.environment) for number in range(1, num_workers + 2)]
    keeper = threading.Thread(target=made.keep, daemon=True)
    _disconnect(made)  # what an earlier run left that was killed
    try:
        _ip(f"link add {BRIDGE} type bridge")
        _ip(f"addr add {OUTSIDE}/24 dev {BRIDGE}")
        _ip(f"link set {BRIDGE} up")
        for node in made.nodes:
            node.connect()
        keeper.start()
        made.wait()
        yield made
    finally:
        made.closing.set()
        if keeper.is_alive():
            keeper.join()
        for node in made.nodes:
            node.kill()
        _disconnect(made)


def _disconnect(cluster: Cluster) -> None:
    for node in cluster.nodes:
        subprocess.run(shlex.split(f"ip netns del rfn{node.number}"), capture_output=True)
        subprocess.run(shlex.split(f"ip link del rfv{node.number}"), capture_output=True)
    subprocess.run(shlex.split(f"ip link del {BRIDGE}"), capture_output=True)


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *shlex.split(words)], capture_output=True, text=True)
    if done.returncode:
        raise NotPermittedError(f"ip {words}: {done.stderr.strip()}")


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
