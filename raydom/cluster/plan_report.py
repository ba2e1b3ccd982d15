"""What ``raydom plan`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console

from raydom.cluster.pilot import PilotResult
from raydom.config import PriceConfig
from raydom.inference.forecast import Forecast, Offer
from raydom.inference.workload import Workload
from raydom.report.tables import show_facts, show_table


def facts(work: Workload, pilot: PilotResult | None) -> dict[str, Any]:
    """What is known before any machine is chosen."""
    told: dict[str, Any] = {
        "images": work.images,
        "blocks": work.blocks,
        "tasks": work.tasks,
        "read_gib": work.input_bytes / 2**30,
        "read_gib_with_context": work.input_bytes * work.seen_ratio / 2**30,
        "write_gib_without_compression": work.output_bytes / 2**30,
        "objects_written": work.objects,
        "memory_gib_a_worker": work.memory_gib,
    }
    if pilot is None:
        return told
    if pilot.read_share is not None:
        told["stored_gib_to_read"] = work.input_bytes * work.seen_ratio * pilot.read_share / 2**30
    if pilot.written_share is not None:
        told["stored_gib_to_write"] = work.output_bytes * pilot.written_share / 2**30
    told["pilot"] = {
        "seconds": pilot.seconds,
        "start_of_ray_s": pilot.start.session_s,
        "start_of_a_worker_s": pilot.start.worker_s,
        "between_stages_s": pilot.start.stage_s,
        "stages": {
            name: {
                "tried": rate.tasks,
                "seconds_a_task": rate.seconds_per_unit * float(work.units[name].mean()),
                "cpu_share": rate.cpu_share,
                "read_s": rate.read_s,
                "compute_s": rate.compute_s,
                "write_s": rate.write_s,
            }
            for name, rate in pilot.rates.items()
            if name in work.tasks
        },
    }
    return told


def forecast_facts(told: Forecast) -> dict[str, Any]:
    return {
        "workers": told.workers,
        "seconds": told.seconds,
        "start_s": told.start_s,
        "busy_s": told.busy_s,
        "limit": told.limit,
        "stages": {stage.name: {"seconds": stage.seconds, "limit": stage.limit} for stage in told.stages},
    }


def offer_row(offer: Offer) -> dict[str, Any]:
    """A row of the table."""
    return {
        "machine": offer.node,
        "number": offer.nodes,
        "workers": offer.forecast.workers,
        "hours": offer.hours,
        "worker_hours": offer.worker_hours,
        "gpu_hours": offer.gpu_hours,
        "usd": offer.usd,
        "usd_spot": offer.usd_spot,
        "busy": offer.forecast.efficiency,
        "limit": offer.forecast.limit,
    }


def show(
    told: dict[str, Any],
    here: Forecast | None,
    rows: Sequence[dict[str, Any]],
    notes: Sequence[str],
    prices: PriceConfig,
    is_timed: bool,
) -> None:
    """Print what was found."""
    stages = told.get("pilot", {}).pop("stages", {})
    show_facts(told)
    console = Console(highlight=False)
    if stages:
        table = [{"stage": name, "tasks": told["tasks"][name], **measured} for name, measured in stages.items()]
        show_table(pa.Table.from_pylist(table), title="seconds a task (mean of the job, then of those tried):")
    if here is not None:
        console.print(
            f"as the command stands, {here.workers} workers: {here.seconds / 3600:.3f} hours ({here.seconds:.0f} s, "
            f"{here.start_s:.0f} s of start-up); mostly waiting for: {here.limit}.",
            markup=False,
            soft_wrap=True,
        )
    if rows:
        if not prices.nodes:
            rows = [{k: v for k, v in row.items() if k not in ("usd", "usd_spot", "gpu_hours")} for row in rows]
        of = f"prices of {prices.date}: " if prices.nodes and prices.date else ""
        show_table(pa.Table.from_pylist(list(rows)), title=f"{of}hours with start-up and the last blocks:")
    for note in notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    if is_timed:
        console.print(
            f"Assumed: the driver gives out {prices.limits.driver_batches_per_s:g} batches/s (benchmarks/README.md), "
            f"the store takes {prices.limits.store_writes_per_s:g} writes/s, and all images are as those of the pilot.",
            markup=False,
            soft_wrap=True,
        )
    else:
        console.print("No times: --pilot 4 measures them on four blocks.", markup=False, soft_wrap=True)


def tell_deadline(hours: float, best: Offer | None, offers: Sequence[Offer]) -> None:
    console = Console(highlight=False)
    if best is None:
        quickest = min(offers, key=lambda offer: offer.hours, default=None)
        nearest = "" if quickest is None else f" The quickest, {_named(quickest)}, takes {quickest.hours:.3g}."
        console.print(f"None of these ends within {hours:g} hours.{nearest}", markup=False, soft_wrap=True)
        return
    money = f" and ${best.least_usd:.2f}" if best.usd else ""
    console.print(
        f"Cheapest within {hours:g} hours: {_named(best)}, {best.hours:.3g} hours{money}"
        f"{' as spot' if best.usd_spot is not None and best.usd_spot == best.least_usd else ''}.",
        markup=False,
        soft_wrap=True,
    )


def _named(offer: Offer) -> str:
    return f"{offer.nodes} x {offer.node}"
