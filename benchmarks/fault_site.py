"""Where faults are injected: a collection, a model, a run of the main job, and what its output must be."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import torch
import zarr
from disturbed import FOLDER
from models import write_untrained

from raydom.cli import main as raydom
from raydom.config import NetworkConfig
from raydom.images.synthetic import MICROSCOPES, make_cells, render
from raydom.networks.build import build_network
from raydom.storage import zarr_images
from raydom.storage.receipts import RunFolder

BLOCK_PX = 64
IMAGES = {"a": (600, 260), "b": (256, 256), "c": (50, 40)}
WHITE = (slice(128, 192), slice(64, 128))
"""The block of image a that is all white: the one that scenarios let fail."""
WHITE_BLOCK = "a@128-64"
NUM_BLOCKS = 50 + 16 + 1
TIMEOUT_S = 300.0


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
        words += ["--method", "disturbed:disturbed", "--style", str(self.style), "--block-size", str(BLOCK_PX)]
        return [*words, "--quiet", *options]

    def start(self, *options: str, driver: str | None = None) -> Process:
        """The command in a process of its own, on Ray (two workers) unless ``--serial`` is among the options.

        Args:
            driver: Which function of ``faults`` starts it, with the arguments before those of the command.
        """
        where = options if "--serial" in options else ("--workers", "2", *options)
        program = ["-m", "raydom.cli"]
        if driver is not None:
            name, _, given = driver.rstrip(")").partition("(")
            call = f"faults.{name}({given}{',' if given else ''} *sys.argv[1:])"
            program = ["-c", f"import sys, faults; sys.exit({call})"]
        environment = (
            os.environ
            | self.environment
            | {
                FOLDER: str(self.faults),
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]),
                "RAY_TMPDIR": str(self.folder.parent / "r"),  # short: sockets lie there
            }
        )
        environment.pop("RAY_ADDRESS", None)
        self.started.append(
            subprocess.Popen(
                [sys.executable, *program, *self.words(*where)],
                env=environment,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return Process(self.started[-1])

    def run(self, *options: str, driver: str | None = None) -> tuple[int, str]:
        """The exit code and what was printed."""
        process = self.start(*options, driver=driver)
        try:
            return process.end()
        finally:
            _kill_all([process.popen])  # if it was interrupted

    def kill(self) -> None:
        """What still runs."""
        _kill_all(self.started)

    def calls(self) -> list[tuple[str, int, float]]:
        """What was computed until now: a hash of the block's pixels, the process, and when."""
        split = [line.split() for line in lines_of(self.faults / "calls")]
        return [(one[0], int(one[1]), float(one[2])) for one in split]

    def computed(self) -> list[tuple[str, float, str]]:
        """The same with when it was begun, and on which machine, behind the hash."""
        split = [line.split() for line in lines_of(self.faults / "calls")]
        return [(one[0], float(one[2]), one[4]) for one in split]

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


def _kill_all(started: list[subprocess.Popen[str]]) -> None:
    """Those that still run, with all that they started."""
    for popen in started:
        if popen.poll() is None:
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


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
    def make(cls, folder: Path, images: dict[str, tuple[int, int]] = IMAGES) -> Site:
        folder.mkdir(exist_ok=True)
        site = cls(folder)
        for number, (name, shape) in enumerate(images.items()):
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


def keep_rows(rows: list[dict[str, Any]], path: Path, name: str) -> list[dict[str, Any]]:
    """Put the rows of scenarios into a table, in place of earlier rows of the same; returns them all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = pq.read_table(path).to_pylist() if path.exists() else []
    kept = [row for row in before if row[name] not in {row[name] for row in rows}]
    pq.write_table(pa.Table.from_pylist(kept + rows), path)
    return kept + rows


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
