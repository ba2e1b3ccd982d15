"""The comparison of models x style methods on a labelled target: the table of García-Domínguez et al. (paper 000)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raydom.cluster.blocks import run_block_jobs
from raydom.commands import CompareConfig
from raydom.config import StyleConfig
from raydom.errors import ConfigError, DataError
from raydom.inference.job import BlockJob, check_job
from raydom.inference.predictor import Predictor
from raydom.inference.runner import JobReport
from raydom.report.pictures import Cell, Panel, grid
from raydom.report.tables import show_table
from raydom.storage import files
from raydom.storage.collection import Collection, open_collection
from raydom.storage.planes import open_planes
from raydom.storage.tables import write_table
from raydom.training.scoring import check_scorable, evaluate, label_kinds
from raydom.types import Region

PIXEL_SCORES = ("f1", "iou", "dice", "precision", "recall")
OBJECT_SCORES = ("dsb2018", "ap_50", "object_f1_50", "pq", "aji", "rand_error", "vi_split", "vi_merge")
"""Only where both the predicted labels and the truth number their objects."""
PICTURED_IMAGES = 3
PICTURED_PX = 512
"""The picture shows at most so much of an image, from its centre."""


def compare(config: CompareConfig) -> list[JobReport]:
    """Segment the target with each model after each method, score, and leave a table and a picture.

    Writes ``comparison.parquet`` (a row for each model, method and style image), ``comparison.png`` and a collection
    of predictions for each row into ``config.out``. The unadapted row (method none) is always there. Scores are of the
    summed counts of all images, but for ``dsb2018``, which is by definition the mean over images.
    """
    truth = open_planes(config.target, config.images)
    check_scorable(truth, config.label, config.mask)
    methods = ("none", *(method for method in config.methods if method != "none"))
    takes_style = config.options.takes_style
    styles = config.style or ((_drawn_style(config),) if any(map(takes_style, methods)) else ())
    asked = [
        (model, method, style)
        for model in config.model
        for method in methods
        for style in (styles if takes_style(method) else (None,))
    ]
    jobs, notes = [], {}
    for key in asked:
        job = _job(config, *key)
        try:
            check_job(job)
        except (ConfigError, DataError) as error:
            if not config.skip_unavailable or key[1] == "none":
                raise
            notes[key] = str(error)
            continue
        jobs.append(job)
    reports = run_block_jobs(jobs, config.run, keep_parts=True)
    by_out = {report.job.out: report for report in reports}
    rows: list[dict[str, Any]] = []
    kind_of: dict[str, str] = {}
    for key in asked:
        model, method, style = key
        row: dict[str, Any] = {"model": model_name(model, config.model), "method": method, "style": style}
        job = _job(config, *key)
        report = by_out.get(job.out)
        if report is None:
            row["note"] = notes[key]
        elif not report.num_images_done:
            row["note"] = f"no image was segmented; see {job.folder.uri}"
        else:
            # The kind that was found for a model's first row serves the others, so that a warning comes once.
            prediction = open_collection(job.out)
            kind = kind_of.get(model) or _kind_without_objects(prediction, truth, config.label)
            found = evaluate(prediction, truth, label=config.label, mask=config.mask, kind=kind, bootstrap=0)
            scores = {line["scope"]: line for line in found.to_pylist()}
            pooled = scores["pooled"] | {"dsb2018": scores["mean"].get("dsb2018")}
            kind_of[model] = pooled["label_kind"]
            row |= {name: pooled.get(name) for name in (*PIXEL_SCORES, *OBJECT_SCORES)}
            row["seconds_per_image"] = report.seconds_per_image
            if not report.ok:
                row["note"] = f"{report.num_images - report.num_images_done} images failed"
        rows.append(row)
    schema = _schema(with_objects="instance" in kind_of.values())
    table = pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)
    write_table(files.join(config.out, "comparison.parquet"), table)
    hidden = ["note"] if len(styles) > 1 else ["note", "style"]
    show_table(table.drop_columns(hidden), title=f"{config.target}, style {', '.join(styles) or 'none'}")
    for row in rows:
        if row.get("note"):
            sys.stdout.write(f"{row['model']}, {row['method']}: {row['note']}\n")
    picture(config, [report for report in reports if report.num_images_done], truth)  # which needs the overviews
    for report in reports:
        if report.ok:
            report.job.folder.forget_parts()
    return reports


def picture(config: CompareConfig, reports: Sequence[JobReport], truth: Collection) -> None:
    """A grid of the first images: the target, its truth, and for each report the image that the network saw, with hits,
    misses and false alarms."""
    shown = [
        image
        for image in truth
        if config.label in image.record.labels
        and all(image.image_id in open_collection(report.job.out) for report in reports)
    ][:PICTURED_IMAGES]
    if not reports or not shown:
        return
    rows: list[list[Cell]] = []
    device = "cuda" if torch.cuda.is_available() else "cpu"  # the driver may stand where no GPU is
    predictors = [Predictor(report.job, device) for report in reports]
    for image in shown:
        region = _centre(image.spatial_shape)
        target = image.numpy(region)
        labels = image.labels(config.label).numpy(region) > 0
        row: list[Cell] = [target, Panel(image=target, labels=labels)]
        for report, predictor in zip(reports, predictors, strict=True):
            prediction = open_collection(report.job.out)[image.image_id]
            name = prediction.record.labels[0]
            found = prediction.labels(name).numpy(region) > 0
            seen = predictor.styler.stylised(predictor.images[image.image_id], region)
            row.append(Panel(image=seen, labels=found, truth=labels))
        rows.append(row)
    titles = ["target", "truth", *(_title(config, report.job) for report in reports)]
    grid(rows, [image.image_id for image in shown], titles, files.join(config.out, "comparison.png"))


def _kind_without_objects(prediction: Collection, truth: Collection, label: str) -> str | None:
    """Pixels are scored of a model that makes no objects, and that needs no warning if the truth numbers its own."""
    predicted = {kind for image in prediction for kind in image.record.label_kinds}
    true = label_kinds([image.record for image in truth], label)
    return "binary" if predicted == {"binary"} and "semantic" not in true else None


def _title(config: CompareConfig, job: BlockJob) -> str:
    """What tells this job from the others."""
    parts = [model_name(str(job.model), config.model)] if len(config.model) > 1 else []
    parts.append(job.style.method)
    if len(config.style) > 1 and job.style.style is not None:
        parts.append(files.safe_stem(job.style.style))
    return ", ".join(parts)


def model_name(model: str, models: Sequence[str]) -> str:
    """The last part of a run's path, or the whole path where two runs end alike."""
    short = model.rstrip("/").rsplit("/", 1)[-1]
    alike = sum(other.rstrip("/").rsplit("/", 1)[-1] == short for other in models)
    return short if alike == 1 else model


def _job(config: CompareConfig, model: str, method: str, style: str | None) -> BlockJob:
    name = f"{model_name(model, config.model)}-{method}".replace("/", "_").replace(":", "_")
    if len(config.style) > 1 and style is not None:
        name += f"-{config.style.index(style):02d}-{files.safe_stem(style)}"
    return BlockJob(
        name=f"{method} x {model_name(model, config.model)}",
        collection=config.target,
        out=files.join(config.out, "predictions", name),
        style=StyleConfig(method=method, style=style, **config.options.told(method)),
        model=model,
        pixel_size_um=config.pixel_size_um,
        scale=config.scale,
        prediction=config.prediction,
        instances=config.instances,
        blocks=config.blocks,
        images=config.images,
    )


def _drawn_style(config: CompareConfig) -> str:
    """An image of the source collection, drawn by the seed; the paper takes one at random as well."""
    source = open_planes(config.source)
    if not len(source):
        raise ConfigError(f"{config.source}: the source collection has no image to take as style; give --style IMAGE.")
    draw = int(np.random.default_rng(config.options.seed).integers(len(source)))
    return str(list(source)[draw].uri)


def _centre(shape: tuple[int, ...]) -> Region:
    start = tuple(max(0, (size - PICTURED_PX) // 2) for size in shape)
    return Region(start, tuple(min(size, s + PICTURED_PX) for s, size in zip(start, shape, strict=True)))


def _schema(*, with_objects: bool) -> pa.Schema:
    scores = (*PIXEL_SCORES, *(OBJECT_SCORES if with_objects else ()), "seconds_per_image")
    texts, numbers = pa.string(), pa.float64()
    columns = [(name, texts) for name in ("model", "method", "style")] + [(name, numbers) for name in scores]
    return pa.schema([*columns, ("note", texts)])
