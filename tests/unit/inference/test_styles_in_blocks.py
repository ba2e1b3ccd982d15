"""Styles in blocks: pixels do not depend on the cut, and the guards see what happens to the content."""

import numpy as np
import pytest
import torch

from raydom.config import BlockConfig, NstConfig, RunConfig, StyleConfig
from raydom.inference.job import BlockJob
from raydom.inference.runner import execute_serially, run_jobs
from raydom.storage.collection import open_collection

QUIET = RunConfig(quiet=True, serial=True)


@pytest.fixture
def style_of(tmp_path):
    """nst on the first layers of a VGG-19 with seeded weights, and a style file."""
    import tifffile

    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, inputs in ((0, 3), (2, 64)):
        state[f"features.{index}.weight"] = (2 / (9 * inputs)) ** 0.5 * torch.randn(
            64, inputs, 3, 3, generator=generator
        )
        state[f"features.{index}.bias"] = torch.zeros(64)
    torch.save(state, tmp_path / "vgg19.pth")
    rng = np.random.default_rng(9)
    tifffile.imwrite(tmp_path / "style.tif", np.kron(rng.integers(30, 120, (20, 24)), np.ones((3, 3))).astype(np.uint8))

    def make(**options):
        nst = NstConfig(refine_steps=3, steps=3, style_layers=("relu1_1", "relu1_2"), content_layers=("relu1_1",))
        return StyleConfig(
            **{
                "method": "nst",
                "style": str(tmp_path / "style.tif"),
                "features": "vgg19",
                "overview_px": 48,
                "nst": nst,
            }
            | {"weights": str(tmp_path / "vgg19.pth")}
            | options
        )

    return make


@pytest.fixture
def collection(make_collection):
    rng = np.random.default_rng(3)
    coarse = np.kron(rng.random((1, 26, 23)), np.ones((1, 4, 4)))[:, :101, :90]
    return make_collection("c", {"img": ((0.6 * coarse + 0.2 * rng.random((1, 101, 90))) * 255).astype(np.uint8)})


def scramble(content, style, config, generator):
    """A method that keeps the intensities and nothing else."""
    flat = content.pixels.flatten(2)
    return flat[..., torch.randperm(flat.shape[2], generator=generator)].reshape(content.pixels.shape)


scramble.pointwise = True  # type: ignore[attr-defined]


def stylised(collection, style, out, block_size):
    job = BlockJob(
        name="s", collection=collection.uri, out=str(out), style=style, blocks=BlockConfig(block_size=block_size)
    )
    (report,) = run_jobs([job], QUIET, execute_serially)
    assert report.ok
    return open_collection(job.out)["img"].numpy(), job.folder.read_receipts(), report


def test_refined_blocks_are_those_of_any_other_cut_and_show_no_seams(tmp_path, collection, style_of):
    found = {size: stylised(collection, style_of(), tmp_path / f"o{size}", size) for size in (48, 256)}
    whole, content = found[256][0].astype(int), collection["img"].numpy().astype(int)
    assert np.abs(whole - content).mean() > 20
    assert np.abs(found[48][0] - whole).max() <= 1
    receipts, report = found[48][1:]
    seams = {key: receipt.seam_score for key, receipt in receipts.items() if key.startswith("seam:")}
    assert len(seams) == 3 * 2 and all(score > 0 for score in seams.values())
    assert 0.9 < report.seam_scores[0] < 1.1
    unrefined = style_of(nst=NstConfig(refine_steps=0, steps=3, style_layers=("relu1_1",), content_layers=("relu1_1",)))
    assert not np.array_equal(stylised(collection, unrefined, tmp_path / "unrefined", 256)[0], whole)


@pytest.mark.parametrize("reaction", ["flag", "fallback", "fail"])
def test_a_block_that_lost_its_content_is_told_falls_back_or_fails(tmp_path, collection, style_of, reaction):
    job = BlockJob(
        name="s",
        collection=collection.uri,
        out=str(tmp_path / "o"),
        style=style_of(method=f"{__name__}:scramble", on_content_loss=reaction),
        blocks=BlockConfig(block_size=64),
    )
    (report,) = run_jobs([job], QUIET, execute_serially)
    receipts = [receipt for receipt in job.folder.read_receipts().values() if receipt.kind == "block"]
    assert len(receipts) == 4
    if reaction == "fail":
        assert len(report.failed) == 4 and "has not kept the content: its score is 0." in str(report.failed[0].error)
        return
    assert report.ok and report.num_content_lost == 4
    assert all(receipt.content_lost and receipt.content_score < 0.4 for receipt in receipts)
    same = np.array_equal(open_collection(job.out)["img"].numpy(), collection["img"].numpy())
    assert same == (reaction == "fallback")


def test_matching_keeps_the_content(tmp_path, collection, style_of):
    _, receipts, report = stylised(collection, style_of(method="histogram", on_content_loss="fail"), tmp_path / "o", 64)
    assert min(report.content_scores) > 0.9 and report.num_content_lost == 0
    assert not any(receipt.content_lost for receipt in receipts.values())


def test_what_falls_back_keeps_its_scale(tmp_path, make_collection, style_of):
    import tifffile

    rng = np.random.default_rng(5)
    pixels = (500 + 100 * np.kron(rng.random((1, 16, 16)), np.ones((1, 4, 4)))).astype(np.float32)
    tifffile.imwrite(tmp_path / "float.tif", rng.random((32, 32)).astype(np.float32))
    style = style_of(method=f"{__name__}:scramble", style=str(tmp_path / "float.tif"), on_content_loss="fallback")
    found, _, report = stylised(make_collection("f", {"img": pixels}), style, tmp_path / "o", 64)
    assert report.num_content_lost == 1
    np.testing.assert_allclose(found, pixels, rtol=1e-3)
