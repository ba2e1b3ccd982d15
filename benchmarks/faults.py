"""Faults injected into real processes: each run ends in the state that is promised, with the output of a serial run.

    uv run python benchmarks/faults.py [NAME...]

A collection of synthetic cells is segmented with a small network; the style method ``disturbed``, below, changes no
pixel, but sleeps, raises, kills its process or eats the memory as the files in a folder tell it. A scenario asserts
what it promises, and that all arrays and the manifest are those of the undisturbed serial run, bit for bit. Rows go to
``benchmarks/results/faults.parquet``. Mounting small file systems (read-only, full) needs root; else these are skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
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
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import torch
import zarr
from models import write_untrained

from raydom.cli import main as raydom
from raydom.config import NetworkConfig
from raydom.images.synthetic import MICROSCOPES, make_cells, render
from raydom.networks.build import build_network
from raydom.report.tables import show_table
from raydom.storage import zarr_images
from raydom.storage.receipts import RunFolder

BLOCK_PX = 64
IMAGES = {"a": (600, 260), "b": (256, 256), "c": (50, 40)}
WHITE = (slice(128, 192), slice(64, 128))
"""The block of image a that is all white: the one that scenarios let fail."""
WHITE_BLOCK = "a@128-64"
NUM_BLOCKS = 50 + 16 + 1
ALWAYS = 10**6
TIMEOUT_S = 300.0


# ------------------------------------------------------------------------------------------------- in the processes


def disturbed(content: Any, style: Any, config: Any, generator: Any) -> torch.Tensor:
    """The pixels as they are, after what the files in the folder FAULTS ask for; a style method.

    ``calls`` there gets a line a call. ``slow`` holds seconds. ``raise``, ``kill``, ``hog`` (memory) and ``hang``
    (seconds) hold how often the white block does so.
    """
    folder = Path(os.environ["FAULTS"])
    pixels = content.pixels.cpu().numpy()
    is_white = float((pixels > 0.99).mean()) > 0.25  # neighbours only see its border
    with (folder / "calls").open("a") as log:
        log.write(f"{zlib.crc32(pixels.tobytes()):08x} {os.getpid()} {time.time()} {int(is_white)}\n")
    if (folder / "slow").exists():
        time.sleep(float((folder / "slow").read_text()))
    for fault, act in {"raise": _raise, "kill": _kill, "hog": _hog, "hang": _hang}.items():
        if is_white and (folder / fault).exists():
            with (folder / f"{fault}-done").open("a") as done:
                done.write("x")
            if (folder / f"{fault}-done").stat().st_size <= int((folder / fault).read_text()):
                act()
    return content.pixels  # type: ignore[no-any-return]


disturbed.pointwise = True  # type: ignore[attr-defined]


def _raise() -> None:
    raise RuntimeError("no luck")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hog() -> None:
    held = []
    for _ in range(int(min(8.0, _memory_gib()["MemAvailable"] - 2.0) * 4)):  # twice what the monitor allows
        held.append(np.ones(2**28, np.uint8))
        time.sleep(0.02)
    time.sleep(20)  # by then Ray's monitor has seen it


def _hang() -> None:
    time.sleep(30)


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
            _kill()
        return original(*args, **options)

    setattr(owner, last, counted)
    return raydom(arguments)


def wait_for(path: str, *arguments: str) -> int:
    """A command that has loaded all it needs and begins when a file is there."""
    import raydom.cluster.blocks

    assert raydom.cluster.blocks
    Path(f"{path}.ready").touch()
    while not Path(path).exists():
        time.sleep(0.005)
    return main_of(*arguments)


def main_of(*arguments: str) -> int:
    return raydom(arguments)


def lose_nodes(kills: int, *arguments: str) -> int:
    """A command on a cluster of three nodes in this machine, of which those at work are killed one after another."""
    from ray.cluster_utils import Cluster

    folder = Path(os.environ["FAULTS"])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    code = "import sys, faults; sys.exit(faults.main_of(*sys.argv[1:]))"
    command = subprocess.Popen([sys.executable, "-c", code, *arguments, "--address", cluster.address])
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
        calls = [line.split() for line in _lines(folder / "calls")]
        calls = [call for call in calls if call[3] == "1" or not only_white]
        if len(calls) >= count:
            return int(calls[count - 1 if only_white else -1][1])
        time.sleep(0.05)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _memory_gib() -> dict[str, float]:
    lines = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    return {line[0].rstrip(":"): int(line[1]) / 2**20 for line in lines}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# ---------------------------------------------------------------------------------------------------------- the site


@dataclass(frozen=True)
class Case:
    """A fresh output, and the files that ask for faults."""

    folder: Path
    collection: Path
    model: Path
    style: Path
    out: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def faults(self) -> Path:
        return self.folder / "faults"

    def ask(self, **faults: float) -> None:
        for name, amount in faults.items():
            (self.faults / name).write_text(str(amount))

    def calm(self) -> None:
        """No faults any more."""
        for path in self.faults.iterdir():
            if path.name != "calls":
                path.unlink()

    def words(self, *options: str) -> list[str]:
        words = ["segment", "--collection", str(self.collection), "--model", str(self.model), "--out", str(self.out)]
        words += ["--method", "faults:disturbed", "--style", str(self.style), "--block-size", str(BLOCK_PX), "--quiet"]
        return [*words, *options]

    def start(self, *options: str, driver: str = "main_of()") -> Process:
        """The command in a process of its own, on Ray (two workers) unless ``--serial`` is among the options.

        Args:
            driver: Which function of this file starts it, with the arguments before those of the command.
        """
        where = options if "--serial" in options else ("--workers", "2", *options)
        name, _, given = driver.rstrip(")").partition("(")
        call = f"faults.{name}({given}{',' if given else ''} *sys.argv[1:])"
        environment = (
            os.environ
            | self.environment
            | {
                "FAULTS": str(self.faults),
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]),
                "RAY_TMPDIR": str(self.folder.parent / "r"),  # short: sockets lie there
            }
        )
        environment.pop("RAY_ADDRESS", None)
        code = f"import sys, faults; sys.exit({call})"
        self.started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *self.words(*where)],
                env=environment,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return Process(self.started[-1])

    def run(self, *options: str, driver: str = "main_of()") -> tuple[int, str]:
        """The exit code and what was printed."""
        return self.start(*options, driver=driver).end()

    def calls(self) -> list[tuple[str, int, float]]:
        """What was computed until now: a hash of the block's pixels, the process, and when."""
        split = [line.split() for line in _lines(self.faults / "calls")]
        return [(one[0], int(one[1]), float(one[2])) for one in split]

    def repeated(self) -> int:
        calls = [block for block, _, _ in self.calls()]
        return len(calls) - len(set(calls))

    def wait(self, until: Callable[[], Any], process: Process) -> None:
        """Wait for something while a process is at work."""
        deadline = time.monotonic() + TIMEOUT_S
        while not until():
            if process.popen.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"ended too early or hangs: {process.end()}")
            time.sleep(0.02)

    def receipts(self) -> dict[str, int]:
        """How many blocks have each status."""
        found = [r.status for r in RunFolder.of(str(self.out)).read_receipts().values() if r.kind == "block"]
        return {status: found.count(status) for status in sorted(set(found))}

    def parts(self) -> list[Path]:
        return sorted((self.out / "run" / "receipts").glob("part-*.parquet"))

    def killed_half_way(self) -> None:
        """A serial run that is killed when about half of the blocks are done."""
        self.ask(slow=0.03)
        process = self.start("--serial")
        self.wait(lambda: len(self.parts()) >= 3, process)
        process.kill()
        self.calm()


@dataclass(frozen=True)
class Process:
    popen: subprocess.Popen[str]

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def end(self) -> tuple[int, str]:
        """Wait for it; its exit code and what it printed. Never a traceback."""
        try:
            text, _ = self.popen.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it hangs: {self.popen.communicate()[0]}") from None
        assert "Traceback" not in text, text
        return self.popen.returncode, text


def contents(out: Path) -> dict[str, Any]:
    """The hash of each array of an output, by its path, with its manifest; and that nothing is missing or left over."""
    found: dict[str, Any] = {}
    for group in sorted((out / "images").iterdir()):
        for path, member in zarr.open_group(str(group), mode="r").members(max_depth=None):
            if isinstance(member, zarr.Array):
                assert not zarr_images.missing_shards(str(group), path)
                pixels = np.asarray(member[...])
                digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype}".encode() + pixels.tobytes())
                found[f"{group.name}/{path}"] = digest.hexdigest()
    found["manifest"] = pq.read_table(out / "images.parquet").to_pylist()
    left = [path for path in out.rglob("*.partial") if "run" not in path.relative_to(out).parts[:1]]
    left += [*(out / "run").glob("lease.json"), *(out / "run" / "strikes").glob("*")]
    assert not left, f"left over: {left}"
    return found


@dataclass(frozen=True)
class Site:
    """Where the scenarios work: images, a collection, a model, and what an undisturbed serial run makes of them."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Site:
        site = cls(folder)
        for number, (name, shape) in enumerate(IMAGES.items()):
            site.write_image(name, shape, number)
        tifffile.imwrite(folder / "style.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
        site.ingest(folder / "c")
        unet = NetworkConfig(in_channels=3, base_channels=4, depth=2)
        network = build_network(unet, seed=3).eval()
        with torch.no_grad():  # about half of the pixels are foreground
            probe = network(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
            last = list(network.parameters())[-1]
            last -= probe.median()
        write_untrained(folder / "model", network, unet, ("red", "green", "blue"))
        return site

    def write_image(self, name: str, shape: tuple[int, int], seed: int) -> None:
        generator = np.random.default_rng(seed)
        scene, _ = make_cells(shape, generator)
        pixels = render(scene, MICROSCOPES["target"], generator)
        if name == "a":
            pixels[(slice(None), *WHITE)] = 255
        (self.folder / "images").mkdir(exist_ok=True)
        tifffile.imwrite(self.folder / "images" / f"{name}.tif", pixels.transpose(1, 2, 0), photometric="rgb")

    def ingest(self, collection: Path) -> None:
        assert raydom(["ingest", str(self.folder / "images"), "--out", str(collection), "--quiet"]) == 0

    def case(self, name: str, **changes: Any) -> Case:
        folder = self.folder / name
        (folder / "faults").mkdir(parents=True)
        case = Case(folder, self.folder / "c", self.folder / "model", self.folder / "style.tif", folder / "out")
        return dataclasses.replace(case, **changes)

    def expected(self, collection: Path) -> dict[str, Any]:
        """What the undisturbed serial run makes of a collection."""
        case = self.case(f"serial-{len(list(self.folder.iterdir()))}", collection=collection)
        code, text = case.run("--serial")
        assert code == 0, text
        return contents(case.out)


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
    memory = _memory_gib()
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
    assert "half.json" in finishes(case, "--serial")
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
        for process in case.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
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
    path = options.out / "faults.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = pq.read_table(path).to_pylist() if path.exists() else []
    kept = [row for row in before if row["fault"] not in {row["fault"] for row in rows}]
    pq.write_table(pa.Table.from_pylist(kept + rows), path)
    show_table(pa.Table.from_pylist(rows), digits=1)
    return 0 if all(row["identical"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
