"""How much of the lost quality each style method brings back on real image pairs.

For each pair, seed and direction: a U-Net trained on the source, the comparison of style methods on held-out target
images, and a U-Net trained on other target images (the ceiling). Images for training, style and scoring are disjoint.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... \
        uv run python benchmarks/adaptation.py --out benchmarks/results --pairs drive-chase isbi-vnc --seeds 0 1 2

Rows are appended to OUT/adaptation.parquet; rows that are there already are skipped, so a table grows over several
runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raydom.cluster.commands import ingest
from raydom.cluster.compare import compare
from raydom.cluster.session import ray_session
from raydom.cluster.train import train_supervised
from raydom.commands import CompareConfig, IngestConfig, SupervisedConfig
from raydom.config import METHODS, TRAINED, RunConfig, StyleOptions, TrainConfig
from raydom.report.tables import show_table

RUN = RunConfig(quiet=True, workers=1, cpus_per_worker=2)
TRAIN_RUN = RunConfig(quiet=True, workers=1, cpus_per_worker=1)
TRAIN = {"batch_size": 8, "crop_px": 128, "learning_rate": 2e-3, "validate_every": 100}


@dataclass(frozen=True)
class Domain:
    """A labelled set of images, cut into training, style and scoring images by file stem."""

    images: str
    labels: str
    train: tuple[str, ...]
    """As a source, or for the ceiling as a target."""
    styles: tuple[str, ...]
    """Files of style images, as a source; used for nothing else."""
    score: tuple[str, ...]
    """Scored, as a target; never trained on."""
    pixel_size_um: float
    """The retina's are relative: CHASE has DRIVE's vessel width when shrunk by 0.58."""
    invert: bool = False
    mask: str | None = None
    prefix: str = ""
    """Of the files in the folder that are of this domain."""


def _stems(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{number:02d}" for number in numbers)


DOMAINS = {
    "drive": Domain(
        "retina_drive/images", "retina_drive/labels", _stems(*range(22, 29)),
        ("retina_drive/images/29.tif", "retina_drive/images/21.tif"),
        _stems(30, 31, 32), 1.0, mask="retina_drive/fov_masks",
    ),
    "chase": Domain(
        "retina_chase_db1/images", "retina_chase_db1/labels",
        ("01L", "01R", "02L", "02R", "03L", "03R"),
        ("retina_chase_db1/images/04L.jpg", "retina_chase_db1/images/04R.jpg"),
        ("05L", "06L", "06R", "07L", "07R"), 0.58,  # 03L, 04L and 05R chose the defaults of nst
    ),
    "isbi": Domain(
        "isbi2012_em/images", "isbi2012_em/labels", _stems(*range(12)),
        ("isbi2012_em/images/13.png", "isbi2012_em/images/14.png"),
        _stems(*range(15, 20)), 0.004, invert=True,
    ),
    "vnc": Domain(
        "vnc_sstem/images", "vnc_sstem/labels_membrane", _stems(*range(5)),
        ("vnc_sstem/images/05.tif", "vnc_sstem/images/06.tif"),
        _stems(7, 8, 9), 0.0046,
    ),
    "fluorescence": Domain(
        "dsb2018_nuclei/images", "dsb2018_nuclei/labels",
        tuple(
            f"fluorescence_{name}"
            for name in (
                "06350c7cc618", "1400420310c9", "1f0008060150", "29780b28e6a7", "2abc40c118bc", "30311520606e",
                "3477024fd843", "3b75fc03a1d1", "3ca8181367fc", "43cf6b2ec0b0", "57b49733c5a3", "608ff81c8a0c",
                "61dc249314d7", "66612c188d73", "6fe2df6de1d9", "77ceeb87f560", "797945873ca2", "79dfcbc9361e",
            )
        ),
        tuple(f"dsb2018_nuclei/images/fluorescence_{name}.png" for name in ("7af09f98ec29", "866a8cba7bfe")),
        (), 1.0, prefix="fluorescence_",
    ),
    "purple": Domain(
        "dsb2018_nuclei/images", "dsb2018_nuclei/labels",
        tuple(
            f"histology_purple_{name}"
            for name in ("00ae65c1c663", "13f2bec0a24c", "4ca5081854df", "57bd029b19c1", "6d327ab4f0e3", "709e094e3962")
        ),
        ("dsb2018_nuclei/images/histology_purple_8f27ebc74164.png",),
        tuple(
            f"histology_purple_{name}"
            for name in ("a08166d91d2c", "a31deaf0ac27", "af576e8ec3a8", "cbca32daaae3", "e414b54f2036", "eb1df8ed879d")
        ),
        1.0, prefix="histology_purple_",
    ),
    "t98g-a": Domain(
        "phase_contrast_t98g/A_spread/images", "phase_contrast_t98g/A_spread/labels", ("set02", "set07", "set11"),
        tuple(f"phase_contrast_t98g/A_spread/images/{name}.tif" for name in ("set17", "set26")), (), 1.0,
    ),
    "t98g-b": Domain(
        "phase_contrast_t98g/B_elongated/images", "phase_contrast_t98g/B_elongated/labels", ("set14", "set20"),
        (), ("set34", "set42"), 1.0,
    ),
}  # fmt: skip
PAIRS = {
    "drive-chase": ("drive", "chase"),
    "chase-drive": ("chase", "drive"),
    "isbi-vnc": ("isbi", "vnc"),
    "vnc-isbi": ("vnc", "isbi"),
    "fluorescence-purple": ("fluorescence", "purple"),
    "t98g": ("t98g-a", "t98g-b"),
}


def collection_of(name: str, part: str, data: Path, out: Path) -> str:
    """Ingest a part of a domain (train, score, or rest: all but train); nothing is done again when it is there."""
    domain = DOMAINS[name]
    present = sorted(path for path in (data / domain.images).iterdir() if path.stem.startswith(domain.prefix))
    stems = {"train": domain.train, "score": domain.score}.get(part) or tuple(
        path.stem for path in present if path.stem not in domain.train
    )
    files = [str(path) for path in present if path.stem in stems]
    assert len(files) == len(stems), (name, part, files)
    labels = [str(data / domain.labels)]
    if domain.mask:
        labels.append(f"fov={data / domain.mask}")
    target = str(out / "collections" / f"{name}-{part}")
    code = ingest(
        IngestConfig(
            source=tuple(files),
            out=target,
            labels=tuple(labels),
            invert_labels=domain.invert,
            domain=name,
            split=part,
            pixel_size_um=domain.pixel_size_um,
        )
    )
    assert code == 0
    return target


def model_of(name: str, seed: int, steps: int, intensity: bool, data: Path, out: Path) -> str:
    """A U-Net trained on the training images of a domain, with or without augmentation of intensities."""
    run = str(out / "models" / f"{name}-s{seed}-{steps}{'' if intensity else '-plain'}")
    train_supervised(
        SupervisedConfig(
            collection=collection_of(name, "train", data, out),
            out=run,
            base_channels=16,
            depth=4,
            train=TrainConfig(
                steps=steps, seed=seed, augment=("flip", "rotate", *(["intensity"] if intensity else [])), **TRAIN
            ),
            run=TRAIN_RUN,
        )
    )
    return run


def rows_of(
    pair: str,
    seed: int,
    steps: int,
    intensity: bool,
    num_styles: int,
    methods: tuple[str, ...],
    with_ceiling: bool,
    options: StyleOptions,
    data: Path,
    out: Path,
) -> list[dict[str, Any]]:
    """The rows of one pair, seed and training: the source model with every method, and the ceiling unadapted."""
    key = {
        "pair": pair,
        "seed": seed,
        "steps": steps,
        "intensity": intensity,
        "features": str(options.features),
        "overview_px": options.overview_px,
    }
    source, target = PAIRS[pair]
    model = model_of(source, seed, steps, intensity, data, out)
    where = out / "comparisons" / Path(model).name

    def table(folder: str, **options: Any) -> list[dict[str, Any]]:
        config = CompareConfig(
            source=collection_of(source, "train", data, out),
            target=collection_of(target, "score", data, out),
            mask="fov" if DOMAINS[target].mask else None,
            out=str(where / f"{pair}-{folder}"),
            run=RUN,
            **options,
        )
        compare(config)
        return pq.read_table(f"{config.out}/comparison.parquet").to_pylist()

    styles = tuple(str(data / style) for style in DOMAINS[source].styles[:num_styles])
    rows = table(
        f"methods-{num_styles}", model=(model,), style=styles, methods=methods, options=options, skip_unavailable=True
    )
    if not with_ceiling:
        return [key | row for row in rows]
    ceiling = model_of(target, seed, steps, True, data, out)
    rows += [row | {"method": "trained on the target"} for row in table("ceiling", model=(ceiling,), methods=("none",))]
    return [key | row for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--plain", action="store_true", help="train the source models without intensity augmentation")
    parser.add_argument("--styles", type=int, default=1, help="style images of the source to try")
    parser.add_argument("--features", default="raydom")
    parser.add_argument("--overview-px", type=int, default=StyleOptions().overview_px)
    default = [method for method in METHODS if method not in ("macenko", *TRAINED)]
    parser.add_argument("--methods", nargs="+", default=default)
    parser.add_argument("--without-ceiling", action="store_true", help="train no model on the target")
    options = parser.parse_args()
    data = Path(os.environ["RAYDOM_DATA"])
    weights = str(next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*.safetensors")))
    style = StyleOptions(
        features=options.features,
        weights=weights if options.features == "squeezenet1_1" else None,
        overview_px=options.overview_px,
    )
    path = options.out / "adaptation.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    with ray_session(RUN):
        for seed in options.seeds:
            for pair in options.pairs:
                key = {"pair": pair, "seed": seed, "steps": options.steps, "intensity": not options.plain}
                key["features"] = options.features
                key["overview_px"] = options.overview_px
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows += rows_of(
                    pair,
                    seed,
                    options.steps,
                    not options.plain,
                    options.styles,
                    tuple(options.methods),
                    not options.without_ceiling,
                    style,
                    data,
                    options.out,
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), path)
    show_table(pa.Table.from_pylist(rows).drop_columns(["note", "model"]), digits=3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
