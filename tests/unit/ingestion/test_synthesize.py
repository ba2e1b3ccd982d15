from dataclasses import replace

import numpy as np
import pytest

from raydom.commands import SynthesizeConfig
from raydom.config import CellConfig
from raydom.errors import ConfigError
from raydom.ingestion.synthesize import synthesize
from raydom.storage.collection import open_collection


def config(tmp_path, name="c", images=6, **cells):
    settings = CellConfig(size_px=48, radius_px=(3.0, 6.0), **cells)
    return SynthesizeConfig(out=str(tmp_path / name), images=images, cells=settings, pixel_size_um=0.5, domain="drawn")


def content(uri):
    return {image.image_id: (image.record.sha256, image.record.extra) for image in open_collection(uri)}


def test_a_collection_of_images_with_instances_and_what_is_known_of_them(tmp_path):
    one = config(tmp_path)
    assert synthesize(one).num_drawn == 6
    collection = open_collection(one.out)
    for image in collection:
        extra, labels = dict(image.record.extra), image.labels()
        assert (labels.kind, image.pixel_size_um, image.record.domain) == ("instance", 0.5, "drawn")
        assert image.numpy().shape == (3, 48, 48)
        assert extra["num_cells"] == labels.numpy().max() and extra["density"] == np.mean(labels.numpy() > 0)
        if extra["num_cells"]:
            assert extra["object_size_um"] == extra["object_size_px"] / 2
    types = {dict(record.extra)["cell_type"] for record in collection.records}
    kept = {name: len(collection.filter(keep=f"cell_type={name}")) for name in types}
    assert sum(kept.values()) == 6 and len(kept) > 1
    assert len(collection.filter(keep="object_size_px<8")) < 6


def test_an_interrupted_run_is_completed_and_a_larger_number_extends_it(tmp_path):
    whole, part = config(tmp_path, "whole"), config(tmp_path, "part")
    synthesize(whole)

    def dies(function, numbers):
        yield function(numbers[3])
        yield function(numbers[0])
        function(numbers[1])  # written, but not handed in
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(part, map=dies)
    assert sorted(content(part.out)) == ["cells_000000", "cells_000003"]
    report = synthesize(part)
    assert (report.num_drawn, report.num_there) == (4, 2)
    assert content(part.out) == content(whole.out)
    assert synthesize(replace(part, images=8)).num_drawn == 2
    assert synthesize(part).num_drawn == 0
    assert content(part.out).items() > content(whole.out).items()


def test_collections_of_other_settings_or_origin_are_refused_untouched(tmp_path, make_collection):
    one = config(tmp_path)
    synthesize(one)
    before = content(one.out)
    with pytest.raises(ConfigError, match=r"other settings \(seed: 0 -> 1\)"):
        synthesize(config(tmp_path, seed=1))
    assert content(one.out) == before
    make_collection("other", {"a": np.zeros((1, 5, 5), np.uint8)})
    with pytest.raises(ConfigError, match=r"something else than synthetic images .*images.parquet"):
        synthesize(config(tmp_path, "other"))
    assert not (tmp_path / "other" / "synthesis.json").exists()
