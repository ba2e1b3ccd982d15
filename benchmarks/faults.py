"""Faults injected into real processes: each run ends in the state that is promised, with the output of a serial run.

    uv run python benchmarks/faults.py [NAME...]

A collection of synthetic cells is segmented with a small network; the style method ``disturbed`` changes no pixel,
but sleeps, raises, kills its process or eats the memory as the files in a folder tell it. A scenario asserts what it
promises, and that all arrays and the manifest are those of the undisturbed serial run, bit for bit. Rows go to
``benchmarks/results/faults.parquet``. Mounting small file systems (read-only, full) needs root; else these are skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import operator
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from disturbed import FOLDER, kill, memory_gib
from fault_site import IMAGES, NUM_BLOCKS, WHITE_BLOCK, Case, Site, contents, keep_rows, lines_of

from raydom.cli import main as raydom
from raydom.report.tables import show_table
from raydom.storage.receipts import RunFolder

ALWAYS = 10**6


# ------------------------------------------------------------------------------------------------- in the processes


def die_at(target: str, call: int, holding: str, *arguments: str) -> int:
    """A command that kills itself with SIGKILL at the nth call of a function.

    Args:
        target: module:name, as the caller finds it.
        call: From 1.
        holding: Only calls whose first argument holds this text are counted.
        arguments: Of ``raydom``.
    """
    module, name = target.split(":")
    *parents, last = name.split(".")
    owner = operator.attrgetter(".".join(parents))(importlib.import_module(module)) if parents else None
    owner = owner or importlib.import_module(module)
    original, seen = getattr(owner, last), [0]

    def counted(*args: Any, **options: Any) -> Any:
        seen[0] += holding in str(args[0])
        if seen[0] == call and holding in str(args[0]):
            kill()
        return original(*args, **options)

    setattr(owner, last, counted)
    return raydom(arguments)


def wait_for(path: str, *arguments: str) -> int:
    """A command that has loaded all it needs and begins when a file is there."""
    importlib.import_module("raydom.cluster.blocks")
    Path(f"{path}.ready").touch()
    while not Path(path).exists():
        time.sleep(0.005)
    return raydom(arguments)


def lose_nodes(kills: int, *arguments: str) -> int:
    """A command on a cluster of three nodes in this machine, of which those at work are killed one after another."""
    from ray.cluster_utils import Cluster

    folder = Path(os.environ[FOLDER])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    command = subprocess.Popen([sys.executable, "-m", "raydom.cli", *arguments, "--address", cluster.address])
    only_white = (folder / "hang").exists()
    for number in range(kills):
        pid = _next_call(folder, (number + 1) * (1 if only_white else 12), only_white)
        node = next(n for n in nodes if n.all_processes["raylet"][0].process.pid == _parent(pid))
        nodes.remove(node)
        cluster.remove_node(node, allow_graceful=False)
        with (folder / "lost").open("a") as lost:
            lost.write("x")
        nodes.append(cluster.add_node(num_cpus=1))
    if command.wait() < 0:
        time.sleep(20)  # so that it is Ray who ends the workers of a dead driver
    cluster.shutdown()
    return command.returncode


def _next_call(folder: Path, count: int, only_white: bool) -> int:
    """The process that made the nth call; waits for it."""
    while True:
        calls = [line.split() for line in lines_of(folder / "calls")]
        calls = [call for call in calls if call[3] == "1" or not only_white]
        if len(calls) >= count:
            return int(calls[count - 1 if only_white else -1][1])
        time.sleep(0.05)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


# ---------------------------------------------------------------------------------------------------- the scenarios


Told = tuple[str, str]
"""What was injected, and the state in which it ended."""
SCENARIOS: dict[str, Callable[[Site, Case], Told]] = {}


def scenario(function: Callable[[Site, Case], Told]) -> Callable[[Site, Case], Told]:
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


def finishes(case: Case, *options: str) -> str:
    """The same command again does the rest; what it printed."""
    code, text = case.run(*options)
    assert code == 0, text
    assert case.receipts() == {"ok": NUM_BLOCKS}, case.receipts()
    return text


@scenario
def workers_killed(site: Site, case: Case) -> Told:
    case.ask(slow=0.1)
    process = case.start()
    for count in (10, 30):
        case.wait(lambda count=count: len(case.calls()) >= count, process)  # type: ignore[misc]
        os.kill(case.calls()[-1][1], signal.SIGKILL)
    code, text = process.end()
    assert code == 0, text
    return "SIGKILL of a worker, twice", "done in one run"


@scenario
def driver_killed_planning(site: Site, case: Case) -> Told:
    for target, call in (
        ("raydom.inference.runner:plan_job", 1),
        ("raydom.inference.output:Output.create", 2),
    ):
        code, _ = case.run("--serial", driver=f"die_at({target!r}, {call}, '')")
        assert code == -signal.SIGKILL
    finishes(case, "--serial")
    return "SIGKILL of the driver at planning, then while it makes the outputs", "the third run finished"


@scenario
def driver_killed_mid_run(site: Site, case: Case) -> Told:
    case.ask(slow=0.1)
    for count in (15, 40):
        process = case.start()
        case.wait(lambda count=count: len(case.calls()) >= count, process)  # type: ignore[misc]
        process.kill()
    case.calm()
    finishes(case, "--serial")
    return "SIGKILL of the driver mid-run, twice", "the third run finished"


@scenario
def driver_killed_compacting(site: Site, case: Case) -> Told:
    for driver in (
        "die_at('raydom.storage.receipts:write_table', 1, 'all-')",
        "die_at('raydom.storage.files:remove', 1, '/receipts/')",
        "die_at('raydom.storage.files:remove', 2, '/receipts/')",
    ):
        code, text = case.run("--serial", driver=driver)
        assert code == -signal.SIGKILL, (code, text)
    finishes(case, "--serial")
    assert case.repeated() == 0
    return "SIGKILL of the driver in the compaction of receipts: before, after and amid", "the fourth run finished"


@scenario
def nodes_killed(site: Site, case: Case) -> Told:
    case.ask(slow=0.1)
    code, text = case.run(driver="lose_nodes(2)")
    assert code == 0 and len((case.faults / "lost").read_text()) == 2, text
    return "SIGKILL of two nodes at work, one after the other", "done in one run"


@scenario
def three_nodes_killed_at_one_block(site: Site, case: Case) -> Told:
    case.ask(hang=3)
    code, text = case.run(driver="lose_nodes(3)")
    assert code == 0 and len((case.faults / "lost").read_text()) == 3, text
    return "SIGKILL of three nodes, each while at the same block", "done; nobody is quarantined"


@scenario
def block_raises_once(site: Site, case: Case) -> Told:
    case.ask(**{"raise": 1})
    finishes(case)
    receipt = RunFolder.of(str(case.out)).read_receipts()[f"block:{WHITE_BLOCK}"]
    assert receipt.attempts == 2
    return "a block raises once", "ok at the second attempt"


@scenario
def block_raises_always(site: Site, case: Case) -> Told:
    case.ask(**{"raise": ALWAYS})
    code, text = case.run()
    assert code == 1 and f"failed after 3 attempts: {WHITE_BLOCK}: RuntimeError: no luck" in text, text
    assert case.receipts() == {"failed": 1, "ok": NUM_BLOCKS - 1} and "--retry-failed" in text
    before = len(case.calls())
    assert case.run("--serial")[0] == 1 and len(case.calls()) == before  # it is only told again
    case.calm()
    finishes(case, "--serial", "--retry-failed")
    assert len(case.calls()) == before + 1
    return "a block raises always", "failed, exit code 1; --retry-failed did it alone"


@scenario
def block_kills_its_worker(site: Site, case: Case) -> Told:
    case.ask(kill=ALWAYS)
    code, text = case.run()
    assert code == 1 and f"quarantined after 3 attempts: {WHITE_BLOCK}" in text, text
    assert case.receipts() == {"ok": NUM_BLOCKS - 1, "quarantined": 1}
    case.calm()
    finishes(case, "--serial", "--retry-failed")
    return "a block kills its worker each time", "quarantined after three, all others ok; --retry-failed did it"


def _memory_threshold(spare_gib: float) -> dict[str, str]:
    memory = memory_gib()
    share = (memory["MemTotal"] - memory["MemAvailable"] + spare_gib) / memory["MemTotal"]
    return {"RAY_memory_usage_threshold": f"{share:.3f}", "RAY_memory_monitor_refresh_ms": "100"}


@scenario
def out_of_memory_once(site: Site, case: Case) -> Told:
    case = dataclasses.replace(case, environment=_memory_threshold(4.0))
    case.ask(hog=1)
    finishes(case)
    assert len((case.faults / "hog-done").read_text()) >= 2
    return "a block eats the memory once", "its worker was killed by Ray's monitor; done in one run"


@scenario
def out_of_memory_always(site: Site, case: Case) -> Told:
    hungry = dataclasses.replace(case, environment=_memory_threshold(4.0))
    hungry.ask(hog=ALWAYS)
    code, text = hungry.run()
    assert code == 1 and f"quarantined after 3 attempts: {WHITE_BLOCK}" in text, text
    assert case.receipts() == {"ok": NUM_BLOCKS - 1, "quarantined": 1}
    case.calm()
    finishes(case, "--serial", "--retry-failed")
    return "a block eats the memory each time", "quarantined after three, all others ok; --retry-failed did it"


class Skipped(Exception):
    """This machine does not let us."""


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system in memory for the time of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        raise Skipped(f"mounting is not permitted: {made.stderr.strip()}")
    try:
        yield
        shutil.copytree(folder, copy := folder.with_name("kept"))
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    shutil.rmtree(folder)
    copy.rename(folder)


def _remount(folder: Path, how: str) -> None:
    deadline = time.monotonic() + 30
    while subprocess.run(["mount", "-o", f"remount,{how}", folder], capture_output=True).returncode:
        assert time.monotonic() < deadline  # busy while a file is open for writing
        time.sleep(0.01)


@scenario
def output_read_only(site: Site, case: Case) -> Told:
    with small_disk(case.out, "64m"):
        _remount(case.out, "ro")
        code, text = case.run("--serial")
        assert code == 2 and "Read-only" in text and "--out" in text, text
        _remount(case.out, "rw")
        case.ask(slow=0.1)
        process = case.start()
        case.wait(lambda: len(case.calls()) >= 30, process)
        _remount(case.out, "ro")
        code, text = process.end()
        assert code == 1 and "the workers failed: OSError: [Errno 30] Read-only file system" in text, (code, text)
        _remount(case.out, "rw")
        case.calm()
        finishes(case, "--serial", "--retry-failed")
    return "the output is read-only from the start, then becomes so mid-run", "refused; stopped, then finished"


@scenario
def output_full(site: Site, case: Case) -> Told:
    with small_disk(case.out, "64m"):
        ballast = case.out / "ballast"
        case.ask(slow=0.1)
        process = case.start()
        case.wait(lambda: len(case.calls()) >= 30, process)
        with suppress_full(), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        code, text = process.end()
        assert code == 1 and "the workers failed: OSError: [Errno 28] No space left on device" in text, (code, text)
        ballast.unlink()
        case.calm()
        finishes(case, "--serial", "--retry-failed")
    return "the disk is full mid-run", "told, exit code 1; after space was made, finished"


@contextmanager
def suppress_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        assert error.errno == 28, error


@scenario
def receipts_damaged(site: Site, case: Case) -> Told:
    case.killed_half_way()
    truncated, garbage, *_ = case.parts()
    truncated.write_bytes(truncated.read_bytes()[:500])
    garbage.write_bytes(b"PAR1" + bytes(1000) + b"PAR1")
    text = finishes(case, "--serial")
    assert "2 files of receipts are damaged" in text, text
    assert len(list((case.out / "run" / "receipts").glob("*.damaged"))) == 2
    return "one file of receipts truncated, one overwritten", "set aside with a warning; finished"


def _shard(case: Case, row: int, column: int) -> Path:
    return case.out / "images" / "a.zarr" / "0" / "c" / "0" / str(row) / str(column)


@scenario
def shards_damaged_mid_run(site: Site, case: Case) -> Told:
    case.killed_half_way()
    _shard(case, 0, 0).write_bytes(_shard(case, 0, 0).read_bytes()[:100])
    _shard(case, 0, 1).unlink()
    code, text = case.run("--serial")
    assert code == 1 and "a@0-0" in text and "a@0-64" in text and "--retry-failed" in text, text
    finishes(case, "--serial", "--retry-failed")
    assert case.repeated() == 3, case.repeated()  # with the block at which the first driver was killed
    return "one shard truncated, one removed, before the run is finished", "told, exit code 1; --retry-failed did them"


@scenario
def leftover_partial_files(site: Site, case: Case) -> Told:
    case.killed_half_way()
    half = [_shard(case, 0, 0).with_suffix(".3f.partial"), case.out / "run" / "receipts" / ".part-x.parquet.1.partial"]
    for path in half:
        path.write_bytes(b"half")
    finishes(case, "--serial")
    assert not any(path.exists() for path in half)
    return "half-written files of killed processes", "swept when the images were finished"


@scenario
def damaged_notes(site: Site, case: Case) -> Told:
    case.killed_half_way()
    run = case.out / "run"
    for path in (run / "lease.json", run / "settings.json", run / "strikes" / "half.json"):
        path.write_text('{"hol')
    code, text = case.run("--serial")
    assert code == 2 and "settings.json" in text and "Remove this file" in text and "lease.json" in text, text
    (run / "settings.json").unlink()
    finishes(case, "--serial")
    assert not (run / "strikes" / "half.json").exists()
    return "lease, settings and a strike mark half written", "told; refused until the settings were removed; finished"


@scenario
def changed_setting(site: Site, case: Case) -> Told:
    case.killed_half_way()
    code, text = case.run("--serial", "--threshold", "0.3")
    assert code == 2 and "threshold: was None, now 0.3" in text, text
    assert "earlier settings" in text and "another --out" in text
    finishes(case, "--serial")
    return "another threshold", "refused, naming it and both remedies; the earlier setting finished"


@scenario
def collection_grown_then_an_image_changed(site: Site, case: Case) -> Told:
    other = Site(case.folder)
    shutil.copytree(site.folder / "images", other.folder / "images")
    case = dataclasses.replace(case, collection=case.folder / "c")
    other.ingest(case.collection)
    assert case.run("--serial")[0] == 0
    other.write_image("d", (100, 60), 9)
    other.ingest(case.collection)
    assert case.run("--serial")[0] == 0
    assert len(case.calls()) == NUM_BLOCKS + 2
    other.write_image("b", IMAGES["b"], 10)
    other.ingest(case.collection)
    assert case.run("--serial")[0] == 0
    assert len(case.calls()) == NUM_BLOCKS + 2 + 16
    return "an image added, then one changed", "only the 2 new blocks were done, then only the 16 of that image"


@scenario
def two_drivers(site: Site, case: Case) -> Told:
    case.ask(slow=2)
    go = case.folder / "go"
    follower = case.start("--serial", driver=f"wait_for({str(go)!r})")
    cluster = case.start(driver="lose_nodes(0)")  # whose workers outlive a driver, by some seconds
    case.wait(lambda: len(case.calls()) >= 5 and Path(f"{go}.ready").exists(), cluster)
    first = json.loads((case.out / "run" / "lease.json").read_text())["pid"]
    code, text = case.run("--serial")
    assert code == 2 and f"process {first} on " in text, text
    workers = {pid for _, pid, _ in case.calls()}
    case.calm()
    killed_at = time.time()
    os.kill(first, signal.SIGKILL)
    go.touch()
    code, text = follower.end()
    assert code == 0, text
    late = [when - killed_at for _, pid, when in case.calls() if pid in workers and when > killed_at]
    assert cluster.end()[0] == -signal.SIGKILL % 256
    return (
        "a second driver; then the first is killed and the second begins at once, beside the workers of the first",
        f"refused, then took over; {len(late)} blocks by those workers, up to {max(late, default=0):.1f} s later",
    )


@scenario
def driver_suspended(site: Site, case: Case) -> Told:
    case.ask(slow=0.3)
    first = case.start("--serial")
    case.wait(lambda: len(case.calls()) >= 5, first)
    first.popen.send_signal(signal.SIGSTOP)
    assert case.run("--serial")[0] == 2  # it may only be slow
    time.sleep(61)
    second = case.start("--serial")
    before = len(case.calls())
    case.wait(lambda: len(case.calls()) >= before + 5, second)
    first.popen.send_signal(signal.SIGCONT)
    code, text = first.end()
    assert code == 1 and f"process {second.popen.pid} on " in text and "has taken over" in text, (code, text)
    assert json.loads((case.out / "run" / "lease.json").read_text())["pid"] == second.popen.pid
    case.calm()
    code, text = second.end()
    assert code == 0, text
    return "a driver suspended for over a minute, then continued", "another took over; the first noticed and stopped"


# ----------------------------------------------------------------------------------------------------------- the table


def row_of(name: str, site: Site, expected: dict[str, Any]) -> dict[str, Any]:
    """Run one scenario."""
    began = time.perf_counter()
    case = site.case(name)
    row = {"fault": name, "injected": "", "state": "", "repeated": None, "identical": None}
    try:
        row["injected"], row["state"] = SCENARIOS[name](site, case)
        row["repeated"] = case.repeated()
        own = case.folder / "c"  # a collection of its own
        row["identical"] = contents(case.out) == (site.expected(own) if own.exists() else expected)
    except Skipped as reason:
        row["state"] = f"skipped: {reason}"
    except (AssertionError, ValueError, OSError) as error:
        row["state"], row["identical"] = f"NOT AS PROMISED: {error}"[:2000], False
    finally:
        case.kill()
    return row | {"seconds": time.perf_counter() - began}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    names: Sequence[str] = options.names or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    rows = []
    with tempfile.TemporaryDirectory(prefix="rf-", ignore_cleanup_errors=True) as folder:
        site = Site.make(Path(folder))
        expected = site.expected(site.folder / "c")
        for name in names:
            rows.append(row_of(name, site, expected))
            print(*rows[-1].values(), sep=" | ", flush=True)
            shutil.rmtree(site.folder / name, ignore_errors=True)
    keep_rows(rows, options.out / "faults.parquet", "fault")
    show_table(pa.Table.from_pylist(rows), digits=1)
    return 0 if all(row["identical"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
