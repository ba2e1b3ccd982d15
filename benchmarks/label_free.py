"""What scores without labels are worth: their rank correlation with the true F1, and what choosing by them costs.

For four pairs of ``adaptation.py`` a source model, and forty-one ways to stylise 8 crops of 256 px of the target, good
ones and destructive ones; every label-free score of each, and F1 against the labels of the same crops. (Crops stand for
whole images, for which it would take a day. ``strotss`` and ``analogy`` are left out, which take minutes a setting.)

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/label_free.py --out benchmarks/results --seeds 0 1

Stylised crops are kept in OUT/label-free, rows in OUT/label_free.parquet; what is there already is not made again, so
that scores can be changed and asked again (``--again``) in minutes. ``--table`` only shows the table, ``--choose`` also
which sum of scores is best on the other pairs, each pair left out in turn.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from adaptation import DOMAINS, PAIRS, collection_of
from scipy.stats import spearmanr
from trained import supervised

from raydom.algorithms.large import Styler
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.styles import get_method, style_config, with_features
from raydom.errors import ConfigError, DataError
from raydom.inference.job import NO_STYLE, style_of
from raydom.label_free.combined import DESCRIPTORS
from raydom.report.tables import show_table
from raydom.search.bench import Bench, plan_bench
from raydom.search.objectives import LABEL_FREE

STUDIED = ("drive-chase", "isbi-vnc", "fluorescence-purple", "t98g")
PAINTINGS = ("style_transfer_refs/monet_800600.jpg", "style_transfer_refs/demo_style.png")
WRONG = {
    "drive-chase": PAINTINGS,
    "fluorescence-purple": PAINTINGS,
    "isbi-vnc": ("phase_contrast_t98g/A_spread/images/set17.tif", "vnc_sstem/labels_membrane/00.png"),
    "t98g": ("isbi2012_em/images/13.png", "vnc_sstem/labels_membrane/00.png"),
}
"""Images that have nothing to do with the source: paintings, other microscopes, drawings."""


@dataclass(frozen=True)
class Setting:
    """A way to stylise."""

    method: str
    style: str
    """s0 and s1: images of the source; w0 and w1: wrong ones; empty: none."""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return " ".join([self.method, self.style, *(f"{name}={value}" for name, value in self.options)]).strip()


def settings() -> Iterator[Setting]:
    """Cheap ones first."""

    def each(method: str, styles: tuple[str, ...] = ("s0", "s1"), **options: Any) -> Iterator[Setting]:
        for style in styles:
            yield Setting(method, style, tuple(options.items()))

    yield Setting("none", "")
    for method in ("meanstd", "histogram", "reinhard"):
        yield from each(method)
    for method in ("meanstd", "histogram"):
        yield from each(method, ("w0", "w1"))
    for steps in (40, 10, 100):
        yield from each("nst", steps=steps)
    for ratio in (1.0, 100.0):
        yield from each("nst", style_ratio=ratio, steps=40)
    for init in ("content", "histogram"):
        yield from each("nst", init=init, steps=40)
    for destructive in (
        {"style_ratio": 10000.0}, {"init": "noise"}, {"content_weight": 0.0}, {"init": "noise", "content_weight": 0.0},
        {"init": "noise", "style_ratio": 10000.0},
    ):  # fmt: skip
        yield from each("nst", ("s0",), **destructive, steps=40)
    yield from each("nst", ("w0", "w1"), steps=40)
    yield from each("nst", ("w0",), style_ratio=100.0, steps=40)
    yield from each("nst", features="squeezenet1_1", steps=40)
    yield from each("nst", features="squeezenet1_1", steps=40, style_ratio=100.0)
    for others in ({"init": "content"}, {"style_ratio": 1.0}):
        yield from each("nst", features="squeezenet1_1", steps=40, **others)


def stylised(setting: Setting, pair: str, bench: Bench, data: Path, kept: Path) -> tuple[np.ndarray, float]:
    """The crops of a bench after a method, and the seconds it took."""
    path = kept / pair / f"{setting.name.replace(' ', '_')}.npz"
    if path.exists():
        with np.load(path) as stored:
            return stored["pixels"].astype(np.float32), float(stored["seconds"])
    options = dict(setting.options)
    if setting.style:
        kind, number = setting.style[0], int(setting.style[1])
        image = (DOMAINS[PAIRS[pair][0]].styles if kind == "s" else WRONG[pair])[number]
    if options.get("features") == "squeezenet1_1":
        options["weights"] = str(next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*.safetensors")))
    config = style_config(setting.method, options)
    if setting.style:
        config = with_features(replace(config, style=str(data / image)))
    began = time.perf_counter()
    style = style_of(config) if setting.style else NO_STYLE
    apply = Styler(get_method(config.method), style, config).at(1.0)
    # One by one, as the block engine does.
    alone = [apply(StyleInput(*one), torch.Generator().manual_seed(0)) for one in bench.content.each()]
    pixels = torch.cat(alone).float().numpy()
    seconds = time.perf_counter() - began
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, pixels=pixels.astype(np.float16), seconds=seconds)
    return pixels, seconds


def bench_of(pair: str, seed: int, data: Path, out: Path) -> Bench:
    source, target = PAIRS[pair]
    plan = plan_bench(
        supervised(source, seed, 600, data, out),
        collection_of(source, "train", data, out),
        collection_of(target, "score", data, out),
        needs_labels=True,
        mask="fov" if DOMAINS[target].mask else None,
        source_mask="fov" if DOMAINS[source].mask else None,
    )
    return Bench(plan)


def study(
    pair: str, seed: int, methods: list[str], rows: list[dict[str, Any]], data: Path, out: Path
) -> Iterator[dict[str, Any]]:
    """The rows of a pair and seed that are not there yet."""
    done = {(row["pair"], row["seed"], row["setting"]) for row in rows}
    wanted = [setting for setting in settings() if setting.method in methods]
    missing = [setting for setting in wanted if (pair, seed, setting.name) not in done]
    if not missing:
        return
    bench = bench_of(pair, seed, data, out)
    for setting in missing:
        key = {"pair": pair, "seed": seed, "setting": setting.name, "method": setting.method}
        try:
            pixels, seconds = stylised(setting, pair, bench, data, out / "label-free")
        except (ConfigError, DataError) as error:
            yield key | {"error": str(error)}
            continue
        began = time.perf_counter()
        scores = bench.scores(torch.from_numpy(pixels))
        yield key | {"seconds": seconds, "scored": time.perf_counter() - began, **scores}


Group = dict[tuple[str, int], list[dict[str, Any]]]


def groups(rows: list[dict[str, Any]]) -> Group:
    """The scored rows of each pair and seed."""
    found: Group = {}
    for row in rows:
        if row.get("true_f1") is not None:
            found.setdefault((row["pair"], row["seed"]), []).append(row)
    return found


def quality(values: list[float], rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Rank correlation of values with the true F1, and the regret of taking the largest, in points of F1."""
    truth = np.array([row["true_f1"] for row in rows])
    correlation = float(spearmanr(values, truth).statistic) if np.ptp(values) > 0 else 0.0
    return correlation, 100 * float(truth.max() - truth[int(np.argmax(values))])


def correlations(found: Group) -> list[dict[str, Any]]:
    """For each score and pair the rank correlation and, in brackets, the regret; and the regret of fixed rules."""
    lines: list[dict[str, Any]] = []
    for name in (*LABEL_FREE, "content", "content_mean"):
        told = {key: quality([row[name] for row in rows], rows) for key, rows in found.items()}
        lines.append(
            {"score": name} | {f"{p} {s}": f"{rho:.2f} ({regret:.1f})" for (p, s), (rho, regret) in told.items()}
        )
    never, fixed = {"score": "never adapt"}, {"score": "best setting of the other pairs"}
    truths = {key: {row["setting"]: row["true_f1"] for row in rows} for key, rows in found.items()}
    common = set.intersection(*(set(own) for own in truths.values()))
    for key, own in truths.items():
        best, column = max(own.values()), f"{key[0]} {key[1]}"
        others = [truth for other, truth in truths.items() if other[0] != key[0]]
        never[column] = f"({100 * (best - own['none']):.1f})"
        if others:
            chosen = max(sorted(common), key=lambda setting: sum(truth[setting] for truth in others))
            fixed[column] = f"({100 * (best - own[chosen]):.1f})"
    return [*lines, never, fixed]


def parts(row: dict[str, Any]) -> dict[str, float]:
    """What a combination could be made of, each 0 (like the source) to about 1."""
    far, separation = {}, row["raw_separation"]
    for name in ("frechet", "frechet_foreground", "frechet_background"):
        far[name] = -row[name] / (separation - row[name])
    bounded = {name: -row[f"like_{name}"] / (1 - row[f"like_{name}"]) for name in DESCRIPTORS}
    return {
        "visibility": min(1.0, -row["like_visibility"]), "mmd": -row["mmd"] / 2**0.5, **far, **bounded,
        "morphology": -row["morphology"], "likeness": -row["likeness"], "confidence": -row["like_confidence"],
        "content": max(0.0, 0.4 - row["content_mean"]), "doubt": 1 - row["agreement"], "im": 1 - row["im"],
    }  # fmt: skip


def left_out(found: Group) -> list[dict[str, Any]]:
    """For each pair the sum of at most four parts that is best on the other pairs, and what it is worth on this one.

    Best: the mean of the rank correlations and half of the least, less 0.02 a point of regret up to 15.
    """
    of_each = {key: [parts(row) for row in rows] for key, rows in found.items()}
    names = list(next(iter(of_each.values()))[0])
    table = {key: np.array([[one[name] for name in names] for one in told]) for key, told in of_each.items()}
    sums = [chosen for size in (1, 2, 3, 4) for chosen in itertools.combinations(range(len(names)), size)]
    worth = {
        chosen: {key: quality((-table[key][:, chosen].sum(axis=1)).tolist(), rows) for key, rows in found.items()}
        for chosen in sums
    }

    def goodness(chosen: tuple[int, ...], keys: list[tuple[str, int]]) -> float:
        told = [worth[chosen][key] for key in keys]
        correlation = [rho for rho, _ in told]
        return float(np.mean(correlation) + min(correlation) / 2 - 0.02 * np.mean([min(r, 15) for _, r in told]))

    lines = []
    for pair in (*dict.fromkeys(pair for pair, _ in found), "none"):
        keys = [key for key in found if key[0] != pair]
        best = max(sums, key=lambda chosen: goodness(chosen, keys))
        line = {"left out": pair, "best sum on the others": " + ".join(names[index] for index in best)}
        lines.append(line | {f"{p} {s}": f"{rho:.2f} ({regret:.1f})" for (p, s), (rho, regret) in worth[best].items()})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--pairs", nargs="+", default=list(STUDIED))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    methods = list(dict.fromkeys(setting.method for setting in settings()))
    parser.add_argument("--methods", nargs="+", default=methods)
    parser.add_argument("--again", action="store_true", help="score again what is scored already")
    parser.add_argument("--choose", action="store_true", help="search sums of scores, each pair left out in turn")
    parser.add_argument("--table", action="store_true", help="only show the table of what is there")
    options = parser.parse_args()
    options.out = options.out.absolute()
    torch.set_num_threads(1)
    data = Path(os.environ["RAYDOM_DATA"])
    path = options.out / "label_free.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    if options.again:
        rows = [row for row in rows if row["pair"] not in options.pairs or row["seed"] not in options.seeds]
    for seed in options.seeds if not options.table else ():
        for pair in options.pairs:
            for row in study(pair, seed, options.methods, rows, data, options.out):
                rows.append(row)
                shown = ("pair", "seed", "setting", "seconds", "true_f1", "combined", "error")
                print({name: row[name] for name in shown if name in row}, flush=True)
                names = dict.fromkeys(name for one in rows for name in one)
                pq.write_table(pa.table({name: [one.get(name) for one in rows] for name in names}), path)
    found = groups(rows)
    show_table(pa.Table.from_pylist(correlations(found)))
    if options.choose:
        show_table(pa.Table.from_pylist(left_out(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
