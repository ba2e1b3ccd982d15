"""``raydom plan``: what a block job reads, writes, takes and costs, before it is run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from rich.console import Console

from raydom.cluster.block_jobs import neuron_job, segment_job, stylize_job
from raydom.cluster.blocks import computes_on_gpu
from raydom.cluster.pilot import PilotResult, run_pilot
from raydom.cluster.plan_report import facts, forecast_facts, offer_row, show, tell_deadline
from raydom.commands import NeuronSegmentConfig, PlanConfig, SegmentConfig, StylizeConfig
from raydom.config import LimitConfig, NodeType, PriceConfig, RunConfig, from_dict
from raydom.errors import ConfigError
from raydom.inference.forecast import (
    Forecast,
    Limits,
    Offer,
    StageLoad,
    StartUp,
    cheapest,
    forecast,
    most_useful_workers,
)
from raydom.inference.job import BlockJob, JobPlan
from raydom.inference.memory import worker_gib
from raydom.inference.neuron_job import NeuronJob, needed_gib
from raydom.inference.neuron_stages import NEURON_JOBS
from raydom.inference.runner import BLOCK_JOBS, JobKind
from raydom.inference.workload import Workload, halo_of, input_bytes, output_sizes, units_of
from raydom.storage.yaml_files import read_mapping

Planned = StylizeConfig | SegmentConfig | NeuronSegmentConfig

PROCESS_GIB = 0.6
"""Of a worker's process beside its block: Python, Ray and torch; measured: about 0.5."""
USABLE_MEMORY = 0.8
"""Share of a machine's memory that workers may have: Ray kills some of them at 0.95."""
LEAST_CPU_SHARE = 0.7
"""Below it a worker without a GPU is told to have waited."""


def plan(config: PlanConfig, command: Planned) -> int:
    """Forecast a job and print it; returns the exit code.

    Args:
        config: What is to be told.
        command: What the job's own command was told.

    Raises:
        ConfigError: For a job that cannot be done, or not be planned, and for prices that cannot be read.
        DataError: If a block of the pilot fails.
    """
    prices = read_prices(config.prices)
    job, kind = job_of(command)
    made = kind.plan(job, 0)
    kind.check_memory(job, command.run)
    work = measure_workload(job, kind, made)
    pilot = run_pilot(job, kind, command.run, config.pilot, made) if config.pilot else None
    offers: list[Offer] = []
    notes: list[str] = []
    here = None
    if pilot is not None:
        limits = Limits(**asdict(prices.limits))
        loads = stage_loads(work, pilot, made, command.run)
        workers = own_workers(command.run)
        here = None if workers is None else forecast(loads, workers, pilot.start, limits)
        offers, notes = make_offers(config.sizes, loads, pilot, work, command.run, prices, limits)
        share = pilot.rates["block"].cpu_share / command.run.cpus_per_worker
        if share < LEAST_CPU_SHARE and not command.run.gpus_per_worker:
            notes.append(
                f"workers had {share:.2f} of a CPU while they were at their blocks: they waited for the store, or the "
                "machine of the pilot was busy with other things, in which case an idle one is quicker than this."
            )
    told = facts(work, pilot)
    best = cheapest(offers, config.deadline) if config.deadline is not None else None
    rows = [offer_row(offer) for offer in offers]
    if config.json:
        told |= {
            "here": None if here is None else forecast_facts(here),
            "offers": rows,
            "cheapest": None if best is None else offer_row(best),
            "prices_of": prices.date or None,
            "notes": notes,
        }
        Console().print_json(json.dumps(told))
        return 0
    show(told, here, rows, notes, prices, pilot is not None)
    if config.deadline is not None:
        tell_deadline(config.deadline, best, offers)
    return 0


def own_workers(run: RunConfig) -> int | None:
    """Workers of the command as it stands; None if a cluster that is joined decides."""
    if run.serial:
        return 1
    joined = run.address or os.environ.get("RAY_ADDRESS")
    return run.workers or (None if joined else max(1, int((os.cpu_count() or 1) / run.cpus_per_worker)))


def job_of(command: Planned) -> tuple[BlockJob | NeuronJob, JobKind]:
    """The block job that a command describes, and its kind.

    Raises:
        ConfigError: If it is more than one job.
    """
    if isinstance(command, StylizeConfig):
        return stylize_job(command), BLOCK_JOBS
    if isinstance(command, SegmentConfig):
        return segment_job(command), BLOCK_JOBS
    if command.membranes.model is not None:
        raise ConfigError(
            f"neurons segment --model is two jobs, the second on what the first writes. Plan raydom segment --model "
            f"{command.membranes.model}, run it, and then plan raydom neurons segment --boundary with its output."
        )
    return neuron_job(command, command.membranes.boundary), NEURON_JOBS


def read_prices(uri: str | None) -> PriceConfig:
    """A file of prices; without one, no machines but the limits.

    Raises:
        ConfigError: If it is missing or holds something else.
    """
    if uri is None:
        return PriceConfig(limits=LimitConfig())
    content = read_mapping(uri, "--prices", "prices. See jobs/prices/aws.yaml for an example.")
    try:
        return from_dict(PriceConfig, content)
    except ConfigError as error:
        raise ConfigError(f"--prices {uri}: {error}") from error


def measure_workload(job: BlockJob | NeuronJob, kind: JobKind, made: JobPlan) -> Workload:
    """Count what a planned job does."""
    images = job.chosen_images()
    units = units_of(made, job, halo_of(job))
    sizes = output_sizes(job, kind.open_processor, images)
    own_px = sum(float(np.prod(image.plane_shape)) * image.num_planes for image in images)
    memory = (
        worker_gib(job)
        if isinstance(job, BlockJob)
        else max(needed_gib(job.spec.neurons, image, job.blocks.block_size) for image in images)
    )
    return Workload(
        images=len(images),
        blocks=len(made.stages["block"]),
        tasks={name: len(tasks) for name, tasks in made.stages.items() if tasks},
        units=units,
        input_bytes=sum(input_bytes(image.record) for image in images),
        seen_ratio=float(units["block"].sum()) / own_px,
        output_bytes=sum(size.num_bytes for size in sizes.values()),
        objects=sum(size.num_objects for size in sizes.values()),
        memory_gib=memory + PROCESS_GIB,
    )


def stage_loads(work: Workload, pilot: PilotResult, made: JobPlan, run: RunConfig) -> list[StageLoad]:
    """The seconds of each task, from what a unit took in the pilot; objects are written where pixels are."""
    missing = [name for name in work.tasks if name not in pilot.rates]
    if missing:
        raise ConfigError(
            f"the pilot was too small to try {', '.join(missing)}. Give a larger --pilot, or --pilot 0 for sizes alone."
        )
    total = sum(work.tasks[name] for name in work.tasks if name != "overview")
    return [
        StageLoad(
            name,
            pilot.rates[name].seconds_per_unit * work.units[name],
            largest_px=made.stages[name].largest_px,
            on_gpu=computes_on_gpu(run, name),
            writes=0.0 if name == "overview" else work.objects * num_tasks / total,
        )
        for name, num_tasks in work.tasks.items()
    ]


def make_offers(
    sizes: Sequence[int],
    loads: Sequence[StageLoad],
    pilot: PilotResult,
    work: Workload,
    run: RunConfig,
    prices: PriceConfig,
    limits: Limits,
) -> tuple[list[Offer], list[str]]:
    """Forecasts for clusters of each kind of machine and size; and of what no forecast can be made, and why."""
    if not prices.nodes:
        offers = [Offer("worker", size, forecast(loads, size, pilot.start, limits), 0.0, 0.0, None) for size in sizes]
        return offers, [f"more than {most_useful_workers(loads, limits)} workers help no stage."]
    offers, notes = [], []
    requests = work.objects * prices.store.usd_per_1000_writes / 1000
    requests += 2 * sum(work.tasks.values()) * prices.store.usd_per_1000_reads / 1000
    for node in prices.nodes:
        count, why = workers_on(node, run, work.memory_gib)
        if count == 0:
            notes.append(f"{node.name}: {why}.")
            continue
        start = StartUp(
            session_s=pilot.start.session_s,
            worker_s=pilot.start.worker_s / node.speed,
            stage_s=pilot.start.stage_s,
        )
        quick = [replace(one, seconds=one.seconds / node.speed) for one in loads]
        for size in sizes:
            told = forecast(quick, size * count, start, limits, boot_s=node.boot_s)
            offers.append(_offer(node, size, told, prices, requests))
    notes.append(f"more than {most_useful_workers(loads, limits)} workers help no stage.")
    return offers, notes


def workers_on(node: NodeType, run: RunConfig, memory_gib: float) -> tuple[int, str]:
    """How many workers a machine has room for; of 0 the reason."""
    bounds = {
        f"its {node.cpus:g} CPUs are fewer than --cpus-per-worker {run.cpus_per_worker:g}": node.cpus
        / run.cpus_per_worker,
        f"a worker needs {memory_gib:.2g} GiB, and it has {node.memory_gib:g}": USABLE_MEMORY
        * node.memory_gib
        / memory_gib,
    }
    if run.gpus_per_worker > 0:
        reason = f"it has {node.gpus:g} GPUs, and the job asks for --gpus-per-worker {run.gpus_per_worker:g}"
        bounds[reason] = node.gpus / run.gpus_per_worker
    elif node.gpus > 0:
        return 0, (
            "the pilot ran on CPUs, which tells nothing of GPUs; pilot with --gpus-per-worker 1 on such a machine "
            "(--address)"
        )
    why = min(bounds, key=lambda reason: bounds[reason])
    return int(bounds[why]), why


def _offer(node: NodeType, size: int, told: Forecast, prices: PriceConfig, requests_usd: float) -> Offer:
    hours = told.seconds / 3600
    head = 0.0 if prices.head is None else prices.head.usd_per_hour
    spot = None
    if node.spot_usd_per_hour is not None:
        spot = hours * (1 + prices.spot_extra) * (size * node.spot_usd_per_hour + head) + requests_usd
    usd = hours * (size * node.usd_per_hour + head) + requests_usd
    return Offer(node.name, size, told, size * node.gpus * hours, usd, spot)
