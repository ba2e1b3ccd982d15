"""What the parts of neuron segmentation cost on one thread, each against the library calls that it rests on.

    uv run python benchmarks/neurons.py evidence superpixels graph forest
    uv run python benchmarks/neurons.py superpixels graph --shape 64 256 256

CPU time, the best of some repetitions taken in turns, on an image (or volume) of walls between cells and noise. The
ratio is ours over bare: 1 is as fast as the bare calls, 0.5 half so fast.

evidence: Frangi's filter against scikit-image's; the maps against the filters of scipy.ndimage that they are made of.
superpixels: against one watershed of bioimage_cpp, with height and seeds given; and against all the library calls in it
(two distance transforms, smoothing, local maxima, watershed, then one more for the small ones). graph: contacts, and
all from labels to features, against the adjacency graph and edge_map_features_complex of bioimage_cpp for the same
maps, which tell of contacts alone: of regions there is no such call. forest: growing and asking against scikit-learn.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable

import bioimage_cpp as bic
import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from skimage.filters import frangi
from skimage.morphology import local_maxima
from sklearn.ensemble import RandomForestClassifier

from raydom.config import EvidenceConfig, ForestConfig, SuperpixelConfig
from raydom.neurons.contacts import contacts
from raydom.neurons.evidence import feature_maps, frangi_boundary, map_names
from raydom.neurons.features import edge_features
from raydom.neurons.forest import EdgeForest, EdgeGraph
from raydom.neurons.regions import regions
from raydom.neurons.superpixels import superpixels

EVIDENCE, SUPERPIXELS = EvidenceConfig(), SuperpixelConfig()
REPETITIONS = 5


def walls(shape: tuple[int, ...]) -> np.ndarray:
    """Bright cells of some 30 px with dark walls of 5 px, and noise, stretched as images are before they are judged."""
    rng = np.random.default_rng(0)
    seeds = np.ones(shape, bool)
    seeds.reshape(-1)[rng.choice(seeds.size, max(seeds.size // 30 ** len(shape), 2), replace=False)] = False
    cells = bic.segmentation.watershed(
        bic.distance.distance_transform(seeds), bic.segmentation.label(~seeds).astype(np.int32)
    )
    wall = np.zeros(shape, bool)
    for axis in range(len(shape)):
        wall |= np.diff(cells, axis=axis, prepend=0) != 0
    noise = gaussian_filter(rng.standard_normal(shape), 1)
    image = 0.1 * noise - gaussian_filter(wall.astype(np.float64), 1.5)
    dark, bright = np.percentile(image, [1, 99])
    return np.clip((image - dark) / (bright - dark), 0, 1).astype(np.float32)


def seconds(*calls: Callable[[], object]) -> list[float]:
    """CPU seconds of each call, the least of all repetitions."""
    taken = [[_timed(call) for call in calls] for _ in range(REPETITIONS + 1)][1:]
    return [min(each) for each in zip(*taken, strict=True)]


def _timed(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def told(what: str, amount: int, unit: str, ours: float, **bare: float) -> None:
    against = "; ".join(
        f"{name.replace('_', ' ')} {amount / each:,.0f}, ratio {each / ours:.2f}" for name, each in bare.items()
    )
    print(f"{what}: {amount / ours:,.0f} {unit}/s; {against}", flush=True)


def evidence(raw: np.ndarray) -> None:
    boundary = frangi_boundary(raw, EVIDENCE)

    def filters() -> None:
        """Along each axis one filter for each choice of orders along it and the axes before; along the last, where the
        order is what is left, one for each derivative."""
        exact = raw.astype(np.float64)
        for sigma, total in [(s, 1) for s in EVIDENCE.gradient_sigmas_px] + [(s, 2) for s in EVIDENCE.frangi_sigmas_px]:
            for axis in range(raw.ndim):
                chosen = math.comb(total + min(axis + 1, raw.ndim - 1), total)
                for order in range(chosen):
                    gaussian_filter1d(exact, sigma, axis=axis, order=order % 3, truncate=4.0)

    ours, theirs, maps, bare = seconds(
        lambda: frangi_boundary(raw, EVIDENCE),
        lambda: frangi(raw, EVIDENCE.frangi_sigmas_px, beta=EVIDENCE.frangi_beta, gamma=EVIDENCE.frangi_gamma),
        lambda: feature_maps(raw, boundary, EVIDENCE),
        filters,
    )
    told("Frangi", raw.size, "px", ours, scikit_image=theirs)
    told(f"{len(map_names(EVIDENCE))} maps", raw.size, "px", maps, scipy_filters=bare)


def made_superpixels(raw: np.ndarray) -> None:
    boundary = frangi_boundary(raw, EVIDENCE)
    free = boundary < SUPERPIXELS.threshold

    def chain() -> tuple[np.ndarray, np.ndarray]:
        distance = bic.distance.distance_transform(free) - bic.distance.distance_transform(~free)
        smooth = gaussian_filter(np.maximum(distance, 0), SUPERPIXELS.sigma_px)
        seeds = bic.segmentation.label(local_maxima(np.rint(32 * smooth).astype(np.int32))).astype(np.int32)
        height = (SUPERPIXELS.boundary_share * boundary - (1 - SUPERPIXELS.boundary_share) * distance / 64).astype(
            np.float32
        )
        labels = bic.segmentation.watershed(height, seeds)
        small = np.bincount(labels.ravel()) < SUPERPIXELS.min_size_px
        bic.segmentation.watershed(height, np.where(small[labels], 0, labels).astype(np.int32))
        return height, seeds

    height, seeds = chain()
    ours, all_calls, watershed = seconds(
        lambda: superpixels(boundary, SUPERPIXELS), chain, lambda: bic.segmentation.watershed(height, seeds)
    )
    number = int(superpixels(boundary, SUPERPIXELS).max())
    told(f"superpixels ({number})", raw.size, "px", ours, one_watershed=watershed, all_library_calls=all_calls)


def graph_of(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    boundary = frangi_boundary(raw, EVIDENCE)
    return superpixels(boundary, SUPERPIXELS), feature_maps(raw, boundary, EVIDENCE)


def graph(raw: np.ndarray) -> None:
    labels, maps = graph_of(raw)
    dense, values = labels.astype(np.uint32) - 1, maps.astype(np.float32)
    own = labels.shape[-2:]

    def library() -> None:
        made = bic.graph.region_adjacency_graph(dense, number_of_threads=1)
        for each in values:
            bic.graph.features.edge_map_features_complex(made, dense, each, number_of_threads=1)

    touching, lying = contacts(labels, maps, own), regions(labels, maps, (0, 0))
    ours, areas, made, bare = seconds(
        lambda: contacts(labels, maps, own),
        lambda: regions(labels, maps, (0, 0)),
        lambda: edge_features(touching, lying, map_names(EVIDENCE)),
        library,
    )
    num_edges = len(touching.u)
    told(f"contacts ({num_edges} edges, {len(maps)} maps)", num_edges, "edges", ours, bioimage_cpp=bare)
    told("contacts, regions and features", num_edges, "edges", ours + areas + made, bioimage_cpp_of_contacts=bare)


def forest(raw: np.ndarray) -> None:
    labels, maps = graph_of(raw)
    touching = contacts(labels, maps, labels.shape[-2:])
    features, names = edge_features(touching, regions(labels, maps, (0, 0)), map_names(EVIDENCE))
    few = slice(0, 4000)
    evidence_of = features[:, names.index("boundary: median")]
    rng = np.random.default_rng(0)
    truth = (evidence_of + 40 * rng.standard_normal(len(features)) > np.median(evidence_of)).astype(np.int8)
    config = ForestConfig(trees=50)
    learned = EdgeGraph(features[few], touching.uv[few].astype(np.int64), truth[few])
    ours = EdgeForest.fit([learned], config, names)
    theirs = RandomForestClassifier(config.trees, min_samples_leaf=config.min_leaf, random_state=0)
    theirs.fit(features[few], truth[few])
    assert np.array_equal(
        ours.probabilities(features, touching.uv), theirs.predict_proba(features)[:, 1].astype(np.float32)
    )
    asked, bare_asked = seconds(
        lambda: ours.probabilities(features, touching.uv), lambda: theirs.predict_proba(features)
    )
    fit, bare_fit = seconds(
        lambda: EdgeForest.fit([learned], config, names), lambda: theirs.fit(features[few], truth[few])
    )
    told(f"asking {config.trees} trees, {len(names)} features", len(features), "edges", asked, scikit_learn=bare_asked)
    told("growing them, with the votes out of bag", len(learned.labels), "edges", fit, scikit_learn=bare_fit)


CASES = {"evidence": evidence, "superpixels": made_superpixels, "graph": graph, "forest": forest}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="+", choices=CASES)
    parser.add_argument("--shape", type=int, nargs="+", default=[1024, 1024], help="of the image or volume, px")
    options = parser.parse_args()
    raw = walls(tuple(options.shape))
    for what in options.what:
        CASES[what](raw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
