"""Faults of machines: a submitted job on a cluster of four, of which one is lost, cut off, suspended or full.

    uv run python benchmarks/cluster_faults.py [NAME...]

The machines are namespaces of this one (``cluster_nodes.py``): each a network, a host name, processes and a disk of its
own; Ray runs on them with its token. ``raydom submit segment ... --wait --retries 3`` is given outside of them. While
blocks are computed (a second each, by a style method that sleeps) the fault comes. A scenario asserts what it promises,
and that all arrays and the manifest are those of the undisturbed serial run, bit for bit. Rows go to
``benchmarks/results/cluster_faults.parquet``. Linux and root only; else everything is skipped.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from cluster_nodes import Cluster, Node, NotPermittedError, cluster
from disturbed import FOLDER
from fault_site import Case, Site, contents, keep_rows

from raydom.report.tables import show_table
from raydom.storage.receipts import Receipt, RunFolder

IMAGES = {"a": (600, 260), "b": (640, 640), "c": (50, 40)}
NUM_BLOCKS = 50 + 100 + 1
BLOCK_S = 1.0
RETRIES = 3
AT_WORK = 40
"""Blocks that were begun when the fault comes."""
JOB_S = 600.0
CHATTER = re.compile(
    r"^  raydom |is submitted\.$|^to http|: \d+/\d+ |images done|^$|: done\.$|Runtime env is setting up|"
    r"^Running entrypoint|^  content scores|blocks lost their content|^Killed$"
)
"""Lines that tell nothing of the fault."""


@dataclass
class Terminal:
    """A submitted job as its user sees it."""

    case: Case
    cluster: Cluster
    blocks: dict[str, str]
    """The id of each block by the hash of its pixels."""
    popen: subprocess.Popen[str]
    began: float = field(default_factory=time.time)
    seen: list[tuple[float, str]] = field(default_factory=list)
    """Lines, with the second of the run in which they came."""
    done_before: set[str] = field(default_factory=set)
    """Blocks that had their receipts when the fault came."""
    fault_at: float = 0.0
    ended: float = 0.0

    @classmethod
    def submit(cls, case: Case, cluster: Cluster, blocks: dict[str, str]) -> Terminal:
        (here := case.folder / "here").mkdir(exist_ok=True)
        shutil.copy(Path(__file__).with_name("disturbed.py"), here)
        words = ["submit", "--address", cluster.server, "--wait", "--retries", str(RETRIES)]
        words += [word for word in case.words("--workers", "3") if word != "--quiet"]
        popen = subprocess.Popen(
            [sys.executable, "-m", "raydom.cli", *words],
            env=cluster.environment | {"PYTHONPATH": str(Path(__file__).parents[1]), FOLDER: str(case.faults)},
            cwd=here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        case.started.append(popen)
        terminal = cls(case, cluster, blocks, popen)
        threading.Thread(target=terminal._read, daemon=True).start()
        return terminal

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.seen.append((time.time() - self.began, line.rstrip()))
        self.ended = time.time()

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.seen)

    def wait(self, until: Callable[[], Any], what: str) -> None:
        """Wait for something while the job runs."""
        deadline = time.monotonic() + JOB_S
        while not until():
            assert self.popen.poll() is None and time.monotonic() < deadline, f"before {what}: {self.text}"
            time.sleep(0.1)

    def at_work(self) -> Node:
        """Wait until blocks are done and others are computed; the fault comes now. A node that computes."""
        self.wait(lambda: len(self.case.calls()) >= AT_WORK, "blocks are computed")
        self.fault_at = time.time()
        self.done_before = {r.block_id for r in RunFolder.of(str(self.case.out)).read_receipts().values() if _is_ok(r)}
        return next(node for node in self.cluster.workers if self.computed_by(node, since=time.time() - 5))

    def computed_by(self, node: Node, since: float = 0.0) -> int:
        """Blocks that a node has begun."""
        return sum(host.split("-")[0] == node.name and when > since for _, when, host in self.case.computed())

    def end(self) -> int:
        """Wait for the end; the exit code."""
        try:
            code = self.popen.wait(JOB_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs: {self.text}") from None
        time.sleep(0.5)  # the last lines
        assert "Traceback" not in self.text, self.text
        return code

    def repeated_done(self) -> int:
        """Blocks computed again after the fault that had their receipts before it."""
        after = {self.blocks[block] for block, when, _ in self.case.computed() if when > self.fault_at + 0.5}
        return len(after & self.done_before)

    def told(self) -> str:
        """What was said beside the progress."""
        return " / ".join(line for _, line in self.seen if not CHATTER.search(line))


def _is_ok(receipt: Receipt) -> bool:
    return receipt.kind == "block" and receipt.status == "ok"


SCENARIOS: dict[str, Callable[[Terminal], str]] = {}
"""Each tells what was injected."""


def scenario(function: Callable[[Terminal], str]) -> Callable[[Terminal], str]:
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


def ends_well(terminal: Terminal) -> None:
    code = terminal.end()
    assert code == 0, (code, terminal.text)


@scenario
def undisturbed(terminal: Terminal) -> str:
    ends_well(terminal)
    assert terminal.case.repeated() == 0
    return "none"


@scenario
def node_killed(terminal: Terminal) -> str:
    terminal.at_work().kill()
    ends_well(terminal)
    return "kill -9 of a node: all its processes at once, for good"


@scenario
def driver_killed(terminal: Terminal) -> str:
    terminal.at_work()
    (driver,) = [pid for pid in terminal.cluster.head.pids("-m raydom.cli segment") if _is_python(pid)]
    os.kill(driver, signal.SIGKILL)
    ends_well(terminal)
    assert "its driver was killed (signal 9)" in terminal.text, terminal.text
    return "kill -9 of the driver"


@scenario
def head_killed(terminal: Terminal) -> str:
    terminal.at_work()
    terminal.cluster.head.kill()
    time.sleep(10)
    terminal.cluster.head.is_wanted = True
    ends_well(terminal)
    assert "its driver was lost with the head" in terminal.text, terminal.text
    return "kill -9 of the head, driver included; another one at its address after 10 s"


def _cut_off(node: Node, seconds: float) -> None:
    node.cut_off(True)
    try:
        time.sleep(seconds)
    finally:
        node.cut_off(False)


@scenario
def node_cut_off(terminal: Terminal) -> str:
    _cut_off(terminal.at_work(), 30)
    ends_well(terminal)
    return "a node cut off from the network for 30 s"


@scenario
def node_cut_off_for_long(terminal: Terminal) -> str:
    node = terminal.at_work()
    _cut_off(node, 180)
    terminal.cluster.until(lambda: node.popen is None or node.starts > 1, "its Ray ends", 120)
    ends_well(terminal)
    return "a node cut off from the network for 180 s"


@scenario
def head_cut_off(terminal: Terminal) -> str:
    terminal.at_work()
    _cut_off(terminal.cluster.head, 30)
    ends_well(terminal)
    return "the head, with the driver, cut off from all nodes and from the terminal for 30 s"


@scenario
def node_suspended(terminal: Terminal) -> str:
    node = terminal.at_work()
    node.send(signal.SIGSTOP)
    time.sleep(30)
    node.send(signal.SIGCONT)
    ends_well(terminal)
    return "all processes of a node suspended for 30 s"


@scenario
def node_disk_full(terminal: Terminal) -> str:
    node = terminal.at_work()
    _fill(node)
    try:
        ends_well(terminal)
        assert terminal.computed_by(node, since=terminal.fault_at + 1), "it did not work on"
    finally:
        _empty(node)
    return "the disk of a node (sessions, logs, packages) full while it computes"


@scenario
def node_disk_full_before(terminal: Terminal) -> str:
    node = terminal.cluster.workers[0]
    _fill(node)
    try:
        assert terminal.end() == 1, terminal.text
    finally:
        _empty(node)
    assert f"No space left on device, on the node {node.address}. Make room there" in terminal.text, terminal.text
    again = Terminal.submit(terminal.case, terminal.cluster, terminal.blocks)
    ends_well(again)
    terminal.ended = again.ended
    return "the disk of a node full before the job, whose files have no room there; emptied, and the command repeated"


def _fill(node: Node) -> None:
    node.inside(f"cat /dev/zero > {node.disk}/ballast")


def _empty(node: Node) -> None:
    node.inside(f"rm {node.disk}/ballast")


def _is_python(pid: int) -> bool:
    return "python" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


# ----------------------------------------------------------------------------------------------------------- the table


def row_without(name: str) -> dict[str, Any]:
    """A scenario of which nothing is known yet."""
    unknown = ("exit_code", "repeated", "repeated_done", "seconds", "data_lost")
    return {"scenario": name, "fault": "", "seen": "", **dict.fromkeys(unknown), "state": ""}


def row_of(name: str, site: Site, made: Cluster, expected: dict[str, Any], blocks: dict[str, str]) -> dict[str, Any]:
    """Run one scenario on a whole cluster."""
    made.wait()
    case = site.case(name)
    case.ask(slow=BLOCK_S)
    row = row_without(name)
    terminal = Terminal.submit(case, made, blocks)
    try:
        row["fault"] = SCENARIOS[name](terminal)
        row["seen"], row["exit_code"] = terminal.told(), terminal.popen.returncode
        row |= {"repeated": case.repeated(), "repeated_done": terminal.repeated_done()}
        row["seconds"] = terminal.ended - case.computed()[0][1]  # its start takes now long, now less
        found = contents(case.out)
        row["data_lost"] = sum(found.get(key) != value for key, value in expected.items())
        assert case.receipts() == {"ok": NUM_BLOCKS}, case.receipts()
        row["state"] = "as promised" if not row["data_lost"] and found == expected else "DATA LOST"
    except (AssertionError, ValueError, OSError) as error:
        row["state"] = f"NOT AS PROMISED: {error}"[:4000]
    finally:
        case.kill()
    for second, line in terminal.seen:
        print(f"{second:8.1f} {line}")
    return row


def blocks_of(site: Site) -> tuple[dict[str, Any], dict[str, str]]:
    """What the serial run makes, and the id of each block by the hash of its pixels."""
    case = site.case("serial")
    code, text = case.run("--serial")
    assert code == 0, text
    receipts = [r for r in RunFolder.of(str(case.out)).read_receipts().values() if r.kind == "block"]
    receipts.sort(key=lambda receipt: receipt.finished_at)  # one after the other, as they were called
    hashes = [block for block, _, _ in case.computed()]
    return contents(case.out), dict(zip(hashes, [receipt.block_id for receipt in receipts], strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--keep-logs", type=Path, help="folder for the logs of the nodes")
    options = parser.parse_args()
    names = options.names or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    for number in (signal.SIGINT, signal.SIGTERM):  # so that nothing is left; shells ignore the first in the background
        signal.signal(number, lambda *_: sys.exit(143))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rc-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        (folder / "c").mkdir()
        site = Site.make(folder / "site", IMAGES)
        expected, blocks = blocks_of(site)
        try:
            with cluster(folder / "c") as made:
                for name in names:
                    rows.append(row_of(name, site, made, expected, blocks))
                    print(*rows[-1].values(), sep=" | ", flush=True)
        except NotPermittedError as reason:
            rows += [row_without(name) | {"state": f"skipped: {reason}"} for name in names[len(rows) :]]
        finally:
            if options.keep_logs:
                shutil.copytree(folder / "c", options.keep_logs, dirs_exist_ok=True)
    rows = keep_rows(rows, options.out / "cluster_faults.parquet", "scenario")
    whole = next((row["seconds"] for row in rows if row["scenario"] == "undisturbed"), None)
    for row in rows:
        row["lost_s"] = row["seconds"] - whole if whole and row["seconds"] else None
    show_table(pa.Table.from_pylist(rows).drop_columns(["fault", "seen"]), digits=1)  # these are long
    told = [row["state"] for row in rows if row["scenario"] in names]
    return 0 if all(state.startswith(("as promised", "skipped")) for state in told) else 1


if __name__ == "__main__":
    sys.exit(main())
