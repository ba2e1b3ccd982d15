"""Clusters that grow from nothing and shrink again: block jobs on nodes that Ray's own autoscaler starts and ends.

    uv run python benchmarks/autoscaling.py [NAME...] [--versions 1 2]

A head node, and nodes with GPUs that are not there, all on this machine (``tests/ray/fake_nodes.py``); collection,
model and style method are those of ``fault_site.py``, each block sleeps. A worker is given a GPU by Ray and computes on
its CPU: the driver of this benchmark says so in place of ``device_of``, nothing else differs from ``raydom segment``.
A scenario asserts what it promises, and that the output is that of a serial run, bit for bit. Rows go to
``benchmarks/results/autoscaling.parquet``, with the nodes and blocks over time, which are also drawn.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from disturbed import FOLDER
from fault_site import NUM_BLOCKS, Case, Site, contents, keep_rows

from raydom.cli import main as raydom
from raydom.report.tables import show_table

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "ray"))
from fake_nodes import FakeCluster, fake_cluster  # noqa: E402

GPU = {"CPU": 1, "GPU": 1}
TIMELINE = ("seconds", "nodes", "blocks")
TIMES = ("told_s", "first_gpu_s", "second_gpu_s", "done_s", "back_to_zero_s")
COLUMNS = ("scenario", "state", *TIMES, "repeated", "identical", *TIMELINE)
TIMEOUT_S = 600.0


def on_cpu(*arguments: str) -> int:
    """A command whose workers compute on their CPUs, whatever Ray gives them; the job's driver runs this."""
    from raydom.cluster import blocks

    blocks.device_of = lambda run: "cpu"
    return raydom(arguments)


# --------------------------------------------------------------------------------------------------- what is watched


@dataclass
class Timeline:
    """Nodes with GPUs that Ray has and blocks that are done, over time."""

    seconds: list[float] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def drawn(self, columns: int = 72) -> str:
        """Nodes over time, a column for each part of it, and how many blocks are done."""
        step = max(1.0, self.seconds[-1] / columns)
        at = np.searchsorted(self.seconds, np.arange(0.0, self.seconds[-1], step)).clip(max=len(self.seconds) - 1)
        nodes, blocks = np.array(self.nodes)[at], np.array(self.blocks)[at]
        lines = [
            f"{level:>9} | {''.join('#' if count >= level else ' ' for count in nodes)}"
            for level in range(max(self.nodes), 0, -1)
        ]
        tenths = (10 * blocks // NUM_BLOCKS).clip(max=9)
        lines.append(f"   blocks | {''.join(str(tenth) for tenth in tenths)}")
        ticks = "".join(f"{f'{number * step:.0f} s':<12}" for number in range(0, len(at), 12))
        return "\n".join(["GPU nodes", *lines, f"{'':>9}   {ticks}"])

    def first(self, nodes: int) -> float | None:
        """When there were so many nodes."""
        return next((at for at, count in zip(self.seconds, self.nodes, strict=True) if count >= nodes), None)


@dataclass
class Job:
    """A running command, with what it has printed until now and when."""

    process: subprocess.Popen[str]
    began: float
    lines: list[tuple[float, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def printed(self, words: str) -> float | None:
        """Seconds from the start to the first line with these words."""
        return next((at for at, line in self.lines if words in line), None)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic() - self.began, line.rstrip()))


@dataclass
class Run:
    """A cluster, and what happens on it."""

    cluster: FakeCluster
    case: Case
    timeline: Timeline = field(default_factory=Timeline)

    @contextmanager
    def job(self, *options: str) -> Iterator[Job]:
        """``raydom segment`` on the cluster."""
        words = [word for word in self.case.words("--address", self.cluster.address, *options) if word != "--quiet"]
        code = "import sys, autoscaling; sys.exit(autoscaling.on_cpu(*sys.argv[1:]))"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env=self.cluster.environment,
            cwd=self.case.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        job = Job(process, time.monotonic())
        reader = threading.Thread(target=job.read)
        reader.start()
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(job.began, over))
        watcher.start()
        try:
            yield job
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join()
            over.set()
            watcher.join()

    def _watch(self, began: float, over: threading.Event) -> None:
        while not over.wait(0.25):
            self.timeline.seconds.append(time.monotonic() - began)
            self.timeline.nodes.append(self.num_nodes())
            self.timeline.blocks.append(len(self.case.calls()))

    def num_nodes(self) -> int:
        """Nodes with GPUs that Ray has."""
        import ray

        return sum(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in ray.nodes())

    def wait(self, until: Callable[[], Any], job: Job | None, what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not until():
            assert time.monotonic() < deadline, f"{what}: still not after {TIMEOUT_S:.0f} s"
            assert job is None or job.process.poll() is None, f"{what}: it ended before: {job.text}"
            time.sleep(0.05)

    def finishes(self, job: Job) -> float:
        """It does all blocks; the seconds that it took."""
        self.wait(lambda: job.process.poll() is not None, None, "the job")
        time.sleep(0.5)  # for its last lines
        assert job.process.returncode == 0, job.text
        assert f"{NUM_BLOCKS}/{NUM_BLOCKS} blocks" in job.text, job.text
        return time.monotonic() - job.began

    def shrinks(self) -> float:
        """All nodes go; the seconds that took."""
        began = time.monotonic()
        self.wait(lambda: not self.num_nodes(), None, "nodes that go")
        return time.monotonic() - began


# ----------------------------------------------------------------------------------------------------- the scenarios

Told = dict[str, Any]
SCENARIOS: dict[str, tuple[dict[str, Any], Callable[[Run], Told]]] = {}


def scenario(**cluster: Any) -> Callable[[Callable[[Run], Told]], Callable[[Run], Told]]:
    """Registers a scenario on a cluster with these options (see ``fake_cluster``), with blocks of ``slow`` seconds."""

    def register(function: Callable[[Run], Told]) -> Callable[[Run], Told]:
        SCENARIOS[function.__name__.replace("_", "-")] = (cluster, function)
        return function

    return register


@scenario(types={"gpu": (GPU, 2)})
def from_zero_and_back(run: Run) -> Told:
    with run.job("--gpus-per-worker", "1") as job:
        took = run.finishes(job)
        back = run.shrinks()
    assert max(run.timeline.nodes) == 2 and not run.num_nodes()
    assert "the autoscaler can start gpu (1 GPU and 1 CPU, up to 2)" in job.text, job.text
    return {
        "told_s": job.printed("waiting for the first GPU"),
        "first_gpu_s": run.timeline.first(1),
        "second_gpu_s": run.timeline.first(2),
        "done_s": took,
        "back_to_zero_s": back,
        "state": "0, 1, 2, 0 nodes; done",
    }


@scenario(types={"gpu": (GPU, 2)}, boot_s=90.0)
def first_gpu_comes_late(run: Run) -> Told:
    with run.job("--gpus-per-worker", "1") as job:
        took = run.finishes(job)
    (late,) = (line for _, line in job.lines if line.startswith("the first GPU came after"))
    assert int(late.split()[5]) > 60 and job.printed("waiting for the first GPU since"), job.text
    return {
        "told_s": job.printed("waiting for the first GPU"),
        "first_gpu_s": run.timeline.first(1),
        "second_gpu_s": run.timeline.first(2),
        "done_s": took,
        "state": f"told at once and each minute; {late}; done",
    }


@scenario(types={"gpu": (GPU, 2)}, slow=2.0)
def a_node_is_lost(run: Run) -> Told:
    with run.job("--gpus-per-worker", "1") as job:
        run.wait(lambda: len(run.case.calls()) >= 12 and len(run.cluster.nodes()) == 2, job, "two nodes at work")
        run.cluster.nodes()[0].kill()
        lost_at, before = time.monotonic() - job.began, len(run.timeline.nodes)
        took = run.finishes(job)
    after = run.timeline.nodes[before:]
    assert min(after[: len(after) // 2]) == 1, after
    seconds = run.timeline.seconds[before:]
    gone = next(number for number, count in enumerate(after) if count == 1)
    replaced = next((seconds[n] for n in range(gone, len(after)) if after[n] == 2), None)
    assert replaced is not None, f"no node came in its place: {after}"
    return {
        "told_s": job.printed("waiting for the first GPU"),
        "first_gpu_s": run.timeline.first(1),
        "second_gpu_s": run.timeline.first(2),
        "done_s": took,
        "repeated": run.case.repeated(),
        "state": f"lost at {lost_at:.0f} s, replaced at {replaced:.0f} s; done",
    }


@scenario(types={"gpu": (GPU, 1)})
def the_only_node_is_lost(run: Run) -> Told:
    with run.job("--gpus-per-worker", "1") as job:
        run.wait(lambda: len(run.case.calls()) >= 12, job, "a node at work")
        (node,) = run.cluster.nodes()
        node.kill()
        lost_at = time.monotonic() - job.began
        took = run.finishes(job)
    assert job.printed("waiting for another GPU") and job.printed("another GPU came after"), job.text
    return {
        "told_s": job.printed("waiting for the first GPU"),
        "first_gpu_s": run.timeline.first(1),
        "done_s": took,
        "repeated": run.case.repeated(),
        "state": f"lost at {lost_at:.0f} s, told, replaced at {job.printed('another GPU came after'):.0f} s; done",
    }


@scenario(types={"gpu": (GPU, 2)}, head_cpus=0, boot_s=3.0)
def fewer_nodes_than_workers(run: Run) -> Told:
    with run.job("--gpus-per-worker", "1", "--workers", "5") as job:
        took = run.finishes(job)
        back = run.shrinks()
    return {
        "told_s": job.printed("waiting for the first GPU"),
        "first_gpu_s": run.timeline.first(1),
        "second_gpu_s": run.timeline.first(2),
        "done_s": took,
        "back_to_zero_s": back,
        "state": "--workers 5 where two nodes can come, and a head without CPUs; done",
    }


@scenario(types={"cpu": ({"CPU": 1}, 2)}, head_cpus=0)
def cpus_from_zero(run: Run) -> Told:
    with run.job() as job:
        took = run.finishes(job)
    assert "waiting for the first CPU: no node with 1 CPU is there, the autoscaler can start cpu" in job.text, job.text
    return {"told_s": job.printed("waiting for the first CPU"), "done_s": took, "state": "no GPU asked for; done"}


def _refused(run: Run, words: str, *options: str) -> Told:
    with run.job(*options) as job:
        run.wait(lambda: job.process.poll() is not None, None, "the job")
        took = time.monotonic() - job.began
    assert job.process.returncode == 2 and words in " ".join(job.text.split()), job.text
    assert not run.case.out.exists() and not run.case.calls(), "something was begun"
    return {"done_s": took, "state": f"refused: {words}", "refused": True}


@scenario(types={"cpu": ({"CPU": 4}, 2)})
def no_type_with_gpus(run: Run) -> Told:
    return _refused(run, "Leave --gpus-per-worker out to compute on CPUs", "--gpus-per-worker", "1")


@scenario(types={"gpu": (GPU, 2)})
def types_with_too_few_gpus(run: Run) -> Told:
    return _refused(run, "Give --gpus-per-worker 1 or less", "--gpus-per-worker", "4")


@scenario(types={}, autoscaling=False)
def no_autoscaler(run: Run) -> Told:
    return _refused(run, "no autoscaler that could start more is at work", "--gpus-per-worker", "1")


@scenario(types={"gpu": (GPU, 2)}, boot_s=600.0)
def stopped_while_it_waits(run: Run) -> Told:
    with run.job("--gpus-per-worker", "1") as job:
        run.wait(lambda: job.printed("waiting for the first GPU"), job, "the message")
        time.sleep(5)
        job.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        run.wait(lambda: job.process.poll() is not None, None, "the end")
        took = time.monotonic() - began
    assert job.process.returncode == 143, job.text
    return {"done_s": took, "state": "SIGTERM: ended with code 143", "refused": True}


# ----------------------------------------------------------------------------------------------------------- the table


def row_of(name: str, version: int, site: Site, expected: Any) -> dict[str, Any]:
    """Run one scenario."""
    import ray

    from raydom.cluster import messages

    options, act = SCENARIOS[name]
    options = {"slow": 0.5} | options
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"scenario": f"{name}, v{version}"}
    case = site.case(f"{name}-{version}")
    case.ask(slow=options.pop("slow"))
    os.environ[FOLDER] = str(case.faults)
    with (
        tempfile.TemporaryDirectory(prefix="as-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        fake_cluster(folder, version=version, **options) as cluster,
    ):
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        messages.in_a_line()
        run = Run(cluster, case)
        try:
            row |= act(run)
            row |= {"seconds": run.timeline.seconds, "nodes": run.timeline.nodes, "blocks": run.timeline.blocks}
            if not row.pop("refused", False):
                row["identical"] = contents(case.out) == expected
        except AssertionError as error:
            row |= {"state": f"NOT AS PROMISED: {error}"[:3000], "identical": False}
        finally:
            ray.shutdown()
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--versions", nargs="+", type=int, default=[1, 2], help="of Ray's autoscaler")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    names: Sequence[str] = options.names or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent)])
    os.environ["RAY_AUTH_MODE"] = "disabled"
    rows = []
    with tempfile.TemporaryDirectory(prefix="as-", ignore_cleanup_errors=True) as folder:
        site = Site.make(Path(folder))
        expected = site.expected(site.folder / "c")
        for name, version in ((name, version) for name in names for version in options.versions):
            rows.append(row_of(name, version, site, expected))
            keep_rows(rows[-1:], options.out / "autoscaling.parquet", "scenario")
            print({column: value for column, value in rows[-1].items() if column not in TIMELINE}, flush=True)
            if rows[-1].get("nodes"):
                print(Timeline(*(rows[-1][column] for column in TIMELINE)).drawn(), flush=True)
    show_table(pa.Table.from_pylist([{key: row[key] for key in row if key not in TIMELINE} for row in rows]), digits=1)
    return 0 if all(row["identical"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
