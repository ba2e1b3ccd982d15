"""The main job on two small synthetic domains: files, ingestion, training, comparison, pictures."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image as Pillow

from raydom.cluster.commands import ingest, tell
from raydom.cluster.compare import compare
from raydom.cluster.session import ray_session
from raydom.cluster.train import train_supervised
from raydom.commands import CompareConfig, DemoConfig, IngestConfig, SupervisedConfig
from raydom.config import ClusterConfig, TrainConfig
from raydom.errors import ConfigError
from raydom.images.synthetic import MICROSCOPES, make_cells, render
from raydom.inference.predictor import Predictor
from raydom.inference.runner import JobReport
from raydom.report.pictures import Cell, Panel, grid
from raydom.storage.collection import open_collection
from raydom.types import Region

METHODS = ("meanstd", "histogram", "reinhard", "nst")
"""What is compared: the methods that take seconds an image."""
IMAGES = {"source": 12, "target": 6}
SIZE_PX = 256
PICTURED = 3


def demo(config: DemoConfig) -> int:
    """Run the demo; returns the exit code."""
    began = time.monotonic()
    out = Path(config.out)
    if out.exists() and not (out / "demo.txt").exists():
        raise ConfigError(f"{out} is there already and was not made by the demo; choose another --out.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "demo.txt").write_text("This folder was made by `raydom demo`, which makes it anew each time.\n")

    def step(text: str) -> None:
        if not config.run.quiet:
            sys.stderr.write(f"\n[{time.monotonic() - began:3.0f} s] {text}\n")

    step("1/4 draw cells and look at them through two microscopes")
    for number, domain in enumerate(IMAGES):
        write_domain(out / "files" / domain, domain, IMAGES[domain], seed=number)
    step("2/4 raydom ingest: files to OME-Zarr and Parquet")
    for domain in IMAGES:
        folder = out / "files" / domain
        collection = str(out / domain)
        code = ingest(
            IngestConfig(
                source=(str(folder / "images"),),
                out=collection,
                labels=(str(folder / "labels"),),
                domain=domain,
                run=ClusterConfig(serial=True, quiet=config.run.quiet),
            )
        )
        if code:
            return code
    with nullcontext() if config.run.serial else ray_session(config.run):
        step("3/4 raydom train supervised: a U-Net on the source domain")
        train_supervised(
            SupervisedConfig(
                collection=str(out / "source"),
                out=str(out / "unet"),
                base_channels=12,
                depth=3,
                train=TrainConfig(steps=config.steps, crop_px=96, batch_size=8, validate_every=50, learning_rate=3e-3),
                run=config.run,
            )
        )
        step("4/4 raydom compare: the target domain without and with adaptation")
        reports = compare(
            CompareConfig(
                source=str(out / "source"),
                target=str(out / "target"),
                model=(str(out / "unet"),),
                out=str(out),
                skip_unavailable=True,
                options=config.options,
                methods=METHODS,
                run=config.run,
            )
        )
    best = _picture(out, reports)
    left = {
        "source, target": "the two collections",
        "unet": "the trained model",
        "predictions": "labels and probabilities, a collection for each method",
        "comparison.parquet, comparison.png": "the table above, and what each method finds and misses",
        "overview.png": f"target, target after {best}, truth, labels without and with adaptation",
    }
    width = max(len(name) for name in left)
    sys.stdout.write(f"\nIn {out.resolve()}:\n")
    sys.stdout.writelines(f"  {name:{width}}  {what}\n" for name, what in left.items())
    code = tell(reports)
    step(f"done in {time.monotonic() - began:.0f} s")
    return code


def write_domain(folder: Path, domain: str, num_images: int, seed: int) -> None:
    """Images and instance labels of one microscope as PNG files."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(num_images):
        generator = np.random.default_rng((seed, number))
        scene, labels = make_cells((SIZE_PX, SIZE_PX), generator)
        image = render(scene, MICROSCOPES[domain], generator)
        Pillow.fromarray(image.transpose(1, 2, 0)).save(folder / "images" / f"{domain}_{number:02d}.png")
        Pillow.fromarray(labels).save(folder / "labels" / f"{domain}_{number:02d}.png")


def _picture(out: Path, reports: list[JobReport]) -> str:
    """Write overview.png, with the best of the methods; returns its name."""
    rows = pq.read_table(out / "comparison.parquet").to_pylist()
    scored = [row for row in rows if row["f1"] is not None and row["method"] != "none"]
    best = str(max(scored, key=lambda row: row["f1"])["method"])
    jobs = {report.job.style.method: report.job for report in reports}
    predictor = Predictor(jobs[best])
    cells: list[list[Cell]] = []
    for image in list(open_collection(str(out / "target")))[:PICTURED]:
        pixels, truth = image.numpy(), image.labels().numpy()
        found = {name: open_collection(jobs[name].out)[image.image_id].labels().numpy() for name in ("none", best)}
        cells.append(
            [
                pixels,
                predictor.styler.stylised(image, Region.whole(image.spatial_shape)),
                Panel(image=pixels, labels=truth),
                Panel(image=pixels, labels=found["none"], truth=truth),
                Panel(image=pixels, labels=found[best], truth=truth),
            ]
        )
    titles = ["target", f"target after {best}", "truth", "segmented without", f"segmented after {best}"]
    grid(cells, [str(number + 1) for number in range(len(cells))], titles, str(out / "overview.png"))
    return best
