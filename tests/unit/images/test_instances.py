"""Objects by watershed, put together over blocks, and measured: known answers, and the same for any cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from raydom.config import InstanceConfig
from raydom.images import objects
from raydom.images.instances import components, instances, numbered
from raydom.images.stitching import Views, consistent, number_objects, overlaps, views
from raydom.images.tiles import cut_blocks
from raydom.types import Region

CONFIG = InstanceConfig(halo_px=24)
SHAPE = (150, 131)


def discs(shape: tuple[int, int] = SHAPE, num: int = 60, seed: int = 0) -> np.ndarray:
    """Maps of output distance: discs, many of which touch."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    depth = np.zeros(shape)
    for _ in range(num):
        cy, cx, radius = generator.uniform(0, shape[0]), generator.uniform(0, shape[1]), generator.uniform(3, 9)
        depth = np.maximum(depth, 1 - np.hypot(y - cy, x - cx) / radius)
    noise = ndimage.gaussian_filter(generator.standard_normal(shape), 2)
    return np.stack([255 * (depth > 0), np.clip(255 * (depth + 0.1 * noise), 0, 255)]).astype(np.uint8)


def stitched(maps: np.ndarray, size: int, config: InstanceConfig, output: str = "distance") -> np.ndarray:
    """Labels of the whole image by way of blocks."""
    shape = maps.shape[1:]
    blocks = cut_blocks("", shape, size)
    whole = Region.whole(shape)
    seen = [block.write.grown(config.halo_px).clipped(whole) for block in blocks]
    labels = [instances(maps[(slice(None), *region.slices)], output, 0.5, config) for region in seen]
    owned = [views(own, region, block.write, shape[1]) for own, region, block in zip(labels, seen, blocks, strict=True)]
    starts = np.cumsum([0, *(len(view.label) for view in owned)])
    merged = []
    for a, b in itertools.combinations(range(len(blocks)), 2):
        if all(
            max(p, q) < min(s, t)
            for p, q, s, t in zip(seen[a].start, seen[b].start, seen[a].stop, seen[b].stop, strict=True)
        ):
            both = seen[a].clipped(seen[b])
            found = overlaps(
                labels[a][both.relative_to(seen[a]).slices],
                labels[b][both.relative_to(seen[b]).slices],
                owned[a].label,
                owned[b].label,
            )
            same = found.iou >= (0 if output == "classes" else config.merge_iou)
            of_a = starts[a] + np.searchsorted(owned[a].label, found.a[same])
            of_b = starts[b] + np.searchsorted(owned[b].label, found.b[same])
            merged.append(np.stack([of_a, of_b], axis=1))
    rows = sorted({block.write.start[0] for block in blocks})
    bands = [[k for k, block in enumerate(blocks) if block.write.start[0] == row] for row in rows]

    def reader(band):
        return lambda: Views(
            *(np.concatenate([getattr(owned[k], name) for k in band]) for name in ("label", "area_px", "first"))
        )

    sizes = [sum(len(owned[k].label) for k in band) for band in bands]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *merged])
    numbers = np.concatenate(
        [n.number for n in number_objects([reader(b) for b in bands], sizes, pairs, config.min_area_px)]
    )
    out = np.zeros(shape, np.int32)
    for k, block in enumerate(blocks):
        lookup = np.zeros(labels[k].max(initial=0) + 1, np.int32)
        lookup[owned[k].label] = numbers[starts[k] : starts[k + 1]]
        out[block.write.slices] = lookup[labels[k][block.write.relative_to(seen[k]).slices]]
    return out


def test_two_touching_discs_are_two_objects_with_a_straight_border() -> None:
    y, x = np.mgrid[:21, :40]
    depth = np.maximum(1 - np.hypot(y - 10, x - 10) / 11, 1 - np.hypot(y - 10, x - 29) / 11)
    maps = np.stack([255 * (depth > 0), 255 * np.maximum(depth, 0)]).astype(np.uint8)
    labels = instances(maps, "distance", 0.5, InstanceConfig(min_seed_px=1))
    assert labels.max() == 2
    assert (labels[depth > 0] > 0).all() and not labels[depth <= 0].any()
    assert set(labels[:, :19].ravel()) == {0, 1}
    assert set(labels[:, 21:].ravel()) == {0, 2}
    assert instances(maps[:1], "classes", 0.5, CONFIG).max() == 1


def test_a_border_parts_objects_and_what_has_no_core_is_still_one() -> None:
    foreground, border = np.zeros((2, 9, 16), np.uint8)
    foreground[2:7, 1:15] = 255
    border[2:7, 7:9] = 255
    foreground[8, 3] = 255  # a single pixel: smaller than any seed
    labels = instances(np.stack([foreground, border]), "boundary", 0.5, CONFIG)
    assert labels.max() == 3
    assert labels[4, 2] == 1
    assert labels[4, 12] == 2
    assert labels[8, 3] == 3
    assert np.array_equal(labels > 0, foreground > 0)


def test_nothing_in_the_foreground_is_no_object() -> None:
    for k, output in ((1, "classes"), (2, "boundary"), (2, "distance")):
        assert not instances(np.zeros((k, 5, 7), np.uint8), output, 0.5, CONFIG).any()


@pytest.mark.parametrize("size", [16, 48, 64])
def test_blocks_give_the_objects_of_the_whole_image(size: int) -> None:
    maps = discs()
    whole = instances(maps, "distance", 0.5, CONFIG)
    assert whole.max() > 30
    found = stitched(maps, size, CONFIG)
    # With the halo all blocks see what they own as a whole, but for long chains of touching discs.
    agree = np.mean(found == whole)
    assert agree == 1.0 or (agree > 0.97 and abs(int(found.max()) - int(whole.max())) <= 2)


def test_an_object_much_larger_than_blocks_and_halo_is_one() -> None:
    mask = np.zeros((90, 90), np.uint8)
    mask[5:85, 5:12] = mask[5:85, 70:80] = mask[75:85, 5:80] = 255  # a U: its arms meet in the last row of blocks
    mask[20:40, 30:50] = 255
    found = stitched(mask[None], 16, InstanceConfig(halo_px=8), "classes")
    assert np.array_equal(found, numbered(components(mask > 0)))


def test_small_objects_are_left_out_by_their_whole_area() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[30:34, 30:34] = 255  # 16 px in four blocks of 4 px each
    mask[5:8, 5:8] = 255
    config = InstanceConfig(halo_px=8, min_area_px=10)
    assert np.array_equal(stitched(mask[None], 32, config, "classes") > 0, (mask > 0) & (np.arange(64)[:, None] > 20))


def test_views_that_disagree_stay_apart() -> None:
    a = np.zeros((4, 8), np.int32)
    b = a.copy()
    a[1:3, 1:5] = 7
    b[1:3, 1:2] = 2  # a quarter of it
    pairs = overlaps(a, b, np.array([7]), np.array([2]))
    assert (pairs.a.tolist(), pairs.b.tolist(), pairs.iou.tolist()) == ([7], [2], [0.25])
    assert len(overlaps(a, b, np.array([7]), np.array([3])).a) == 0


def test_numbers_follow_the_first_pixel_and_merging_is_transitive() -> None:
    band = [
        Views(np.array([1, 2, 3]), np.array([5, 5, 5]), np.array([9, 2, 4])),
        Views(np.array([1, 2]), np.array([5, 1]), np.array([20, 11])),
    ]
    merged = np.array([[0, 3], [3, 2]])  # 0, 2 and 3 are one, which begins at 4
    first, second = number_objects([lambda: band[0], lambda: band[1]], [3, 2], merged)
    assert first.number.tolist() == [2, 1, 2]
    assert first.shared.tolist() == [True, False, True]
    assert second.number.tolist() == [2, 3]
    first, second = number_objects([lambda: band[0], lambda: band[1]], [3, 2], merged, min_area_px=6)
    assert first.number.tolist() == [1, 0, 1]
    assert second.number.tolist() == [1, 0]


def test_no_object_gets_two_views_of_one_block() -> None:
    starts = np.array([0, 2, 3, 4])  # views 0 and 1 of one block, 2 and 3 of two others
    pairs = np.array([[0, 2], [2, 3], [1, 3]])
    assert consistent(pairs, np.array([0.9, 0.8, 0.7]), starts).tolist() == [True, True, False]
    assert consistent(pairs, np.array([0.6, 0.8, 0.7]), starts).tolist() == [False, True, True]
    assert consistent(pairs[:2], np.array([0.9, 0.8]), starts).all()
    assert len(consistent(pairs[:0], np.array([]), starts)) == 0


def measured(labels: np.ndarray, pixels: np.ndarray, size: int) -> dict[str, np.ndarray]:
    parts = []
    for block in cut_blocks("", labels.shape, size):
        inside = block.write.slices
        parts.append(objects.measure(labels[inside], block.write, pixels[(slice(None), *inside)], pixels[0][inside]))
    return objects.table(objects.merged(parts), labels.shape, 0.5)


def test_measurements_are_those_of_an_independent_package_and_of_any_cut() -> None:
    labels = instances(discs(), "distance", 0.5, CONFIG)
    pixels = np.random.default_rng(1).random((2, *labels.shape)).astype(np.float32)
    whole = measured(labels, pixels, 1000)
    props = regionprops(labels, intensity_image=np.moveaxis(pixels, 0, -1))
    assert whole["label"].tolist() == [one.label for one in props]
    assert whole["area_px"].tolist() == [one.area for one in props]
    assert whole["area_um2"].tolist() == [one.area / 4 for one in props]
    for name, values in {
        "centroid_y": [one.centroid[0] for one in props],
        "centroid_x": [one.centroid[1] for one in props],
        "eccentricity": [one.eccentricity for one in props],
        "mean_intensity": [one.intensity_mean for one in props],
    }.items():
        np.testing.assert_allclose(whole[name], values, rtol=1e-6, atol=1e-6)
    box = np.stack([whole[name] for name in ("top", "left", "bottom", "right")], axis=1)
    assert box.tolist() == [list(one.bbox) for one in props]
    assert np.abs(whole["solidity"] - [one.solidity for one in props]).max() < 0.15  # they count pixels of the hull
    for size in (16, 40):
        cut = measured(labels, pixels, size)
        for name, values in whole.items():
            np.testing.assert_allclose(cut[name], values, rtol=1e-12, err_msg=name)


def test_solidity_of_a_square_is_one_and_of_an_l_less() -> None:
    labels = np.zeros((8, 8), np.int32)
    labels[1:4, 1:4] = 1
    labels[5, 5], labels[6, 5], labels[6, 6] = 2, 2, 2
    found = measured(labels, np.ones((1, 8, 8), np.float32), 8)
    assert found["solidity"].tolist() == [1.0, 3 / 3.5]
    assert found["confidence"].tolist() == [1.0, 1.0]
    assert found["touches_border"].tolist() == [False, False]
    assert measured(labels[1:], np.ones((1, 7, 8), np.float32), 8)["touches_border"].tolist() == [True, False]


def test_no_objects_make_an_empty_table() -> None:
    found = measured(np.zeros((5, 5), np.int32), np.ones((3, 5, 5), np.float32), 4)
    assert {len(values) for values in found.values()} == {0}
    assert found["mean_intensity"].shape == (0, 3)
