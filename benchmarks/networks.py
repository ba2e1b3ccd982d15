"""The forward pass of every network with channels last and in bfloat16, against float32 with channels first.

    uv run python benchmarks/networks.py --out benchmarks/results [--networks unet u2netp] [--device cuda]

The four ways take turns in one run, so that what else the machine does meets all of them; what counts are the ratios of
their medians. Labels are those of untrained networks, cut at the median of the logits, where most pixels are undecided:
those of a trained network agree better. A row a network is written to OUT/networks.parquet.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from raydom.config import NETWORKS, MaskRCNNConfig, NetworkConfig
from raydom.networks.build import build_network
from raydom.networks.maskrcnn import Detections
from raydom.report.tables import show_table


def prepared(network: nn.Module, images: Tensor, bfloat16: bool) -> Callable[[], Any]:
    """The forward pass, ready to be timed."""

    def forward() -> Any:
        with torch.inference_mode(), torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            told = network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        return told

    return forward


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of float32 with channels first, how many times faster the other ways are, and how they agree."""
    output = "objects" if name == "maskrcnn" else "classes"
    config = NetworkConfig(
        name=name, output=output, base_channels=32, encoder="resnet34", maskrcnn=MaskRCNNConfig(min_score=0.0)
    )
    device = torch.device(options.device)
    images = torch.rand(
        options.batch, 1, options.side_px, options.side_px, generator=torch.Generator().manual_seed(0)
    ).to(device)
    plain = build_network(config).eval().to(device)
    last = build_network(config).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ways = {
        "float32": prepared(plain, images, False),
        "channels_last": prepared(last, images.contiguous(memory_format=torch.channels_last), False),
        "bfloat16": prepared(plain, images, True),
        "both": prepared(last, images.contiguous(memory_format=torch.channels_last), True),
    }
    told = {way: forward() for way, forward in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.repeats):
        for way, forward in ways.items():
            began = time.perf_counter()
            forward()
            seconds[way].append(time.perf_counter() - began)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    row: dict[str, Any] = {"network": name, "side_px": options.side_px, "batch": options.batch} | {
        "device": options.device, "threads": torch.get_num_threads(), "float32_s": median["float32"]
    }  # fmt: skip
    for way in list(ways)[1:]:
        row[f"{way}_gain"] = median["float32"] / median[way]
        row[f"{way}_agreement"] = agreement(told["float32"], told[way])
    return row


def agreement(one: Tensor | list[Detections], other: Tensor | list[Detections]) -> float | None:
    """Share of pixels with the same label; not told of lists of objects, whose order is that of near-equal scores."""
    if isinstance(one, list) or isinstance(other, list):
        return None
    cut = one.float().median()
    return float(((one.float() >= cut) == (other.float() >= cut)).double().mean())


def main() -> None:
    """Parse the options, measure, show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side-px", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measured(name, options) for name in options.networks]
    options.out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), options.out / "networks.parquet")
    show_table(pa.Table.from_pylist(rows))


if __name__ == "__main__":
    main()
